//! A file that is polled: the async crates' traits.
//!
//! A poll cannot borrow its buffer to an OS thread of the pool, so a call on the pool has bytes of its own. A write
//! takes its bytes at once, and the call goes on behind it. A call whose task has turned to something else is not lost:
//! the next poll waits for it, and what it has read comes then.
#![forbid(unsafe_code)]

use std::future::Future;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::file::{File, MOST};
use crate::io::traits::{Polled, polled};
use crate::threadpool::{JobError, PoolFuture};

/// What the polls of a file have begun.
#[derive(Default)]
pub(super) struct Begun {
    call: Option<Call>,
    /// What was read, and how much of it polls have taken.
    ahead: Vec<u8>,
    taken: usize,
    /// Where tokio's `start_seek` wants to go.
    #[cfg(feature = "tokio-io")]
    wanted: Option<SeekFrom>,
}

/// A call that is under way on the pool.
enum Call {
    Read(PoolFuture<io::Result<Vec<u8>>>),
    Write(PoolFuture<io::Result<()>>),
    Seek(SeekFrom, PoolFuture<io::Result<u64>>),
}

impl Begun {
    /// How far the file's position is ahead of what polls have taken.
    fn left(&self) -> i64 {
        i64::try_from(self.ahead.len() - self.taken).unwrap_or(i64::MAX)
    }

    /// Forgets what was read ahead, and returns how far the position is to go back for that.
    fn forget(&mut self) -> i64 {
        let left = self.left();
        self.ahead.clear();
        self.taken = 0;
        left
    }
}

fn poll<T>(future: &mut PoolFuture<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
    let failed = |error: JobError| Err(io::Error::other(error.to_string()));
    Pin::new(future)
        .poll(context)
        .map(|outcome| outcome.unwrap_or_else(failed))
}

impl File {
    /// Waits for the call that is under way. What it has read is in `ahead` then.
    fn poll_settle(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let begun = self.begun();
        let done = match &mut begun.call {
            None => return Poll::Ready(Ok(())),
            Some(Call::Read(read)) => ready!(poll(read, context)).map(|bytes| {
                begun.ahead = bytes;
                begun.taken = 0;
            }),
            Some(Call::Write(write)) => ready!(poll(write, context)),
            Some(Call::Seek(_, seek)) => ready!(poll(seek, context)).map(drop),
        };
        begun.call = None;
        Poll::Ready(done)
    }

    fn poll_seek_to(&mut self, context: &mut Context<'_>, to: SeekFrom) -> Poll<io::Result<u64>> {
        if !matches!(&self.begun().call, Some(Call::Seek(same, _)) if *same == to) {
            ready!(self.poll_settle(context))?;
            let back = self.begun().forget();
            let real = match to {
                SeekFrom::Current(by) => SeekFrom::Current(by.saturating_sub(back)),
                to => to,
            };
            let seek = self.submit(move |mut file| file.seek(real));
            self.begun().call = Some(Call::Seek(to, seek));
        }
        let begun = self.begun();
        let Some(Call::Seek(_, seek)) = &mut begun.call else {
            unreachable!("it was put there above")
        };
        let place = ready!(poll(seek, context));
        begun.call = None;
        Poll::Ready(place)
    }
}

impl Polled for File {
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let mut has_read = false;
        loop {
            has_read |= matches!(self.begun().call, Some(Call::Read(_)));
            ready!(self.poll_settle(context))?;
            let begun = self.begun();
            let rest = &begun.ahead[begun.taken..];
            if has_read || !rest.is_empty() || most == 0 {
                let len = rest.len().min(most);
                take(&rest[..len]);
                begun.taken += len;
                return Poll::Ready(Ok(()));
            }
            let mut bytes = std::mem::take(&mut begun.ahead);
            begun.taken = 0;
            bytes.resize(most.min(MOST), 0);
            let read = self.submit(move |mut file| {
                let len = file.read(&mut bytes)?;
                bytes.truncate(len);
                Ok(bytes)
            });
            self.begun().call = Some(Call::Read(read));
        }
    }

    fn poll_put(&mut self, context: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_settle(context))?;
        let back = self.begun().forget();
        let mut bytes = Vec::new();
        for part in data {
            bytes.extend_from_slice(&part[..part.len().min(MOST - bytes.len())]);
        }
        let len = bytes.len();
        let write = self.submit(move |mut file| {
            if back > 0 {
                file.seek(SeekFrom::Current(-back))?;
            }
            file.write_all(&bytes)
        });
        self.begun().call = Some(Call::Write(write));
        Poll::Ready(Ok(len))
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_settle(context)
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_settle(context)
    }
}

polled! { [] File [] }

impl futures_io::AsyncSeek for File {
    fn poll_seek(self: Pin<&mut Self>, context: &mut Context<'_>, to: SeekFrom) -> Poll<io::Result<u64>> {
        self.get_mut().poll_seek_to(context, to)
    }
}

#[cfg(feature = "tokio-io")]
impl tokio::io::AsyncSeek for File {
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        self.get_mut().begun().wanted = Some(to);
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let file = self.get_mut();
        let Some(to) = file.begun().wanted else {
            // tokio calls this before it starts a seek, too, to end the one before.
            return file.poll_settle(context).map_ok(|()| 0);
        };
        let place = ready!(file.poll_seek_to(context, to));
        file.begun().wanted = None;
        Poll::Ready(place)
    }
}
