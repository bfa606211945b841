//! Streams in blocking code, and this crate's own streams for async code.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::block_on;
use crate::generator::Generator;
use crate::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use crate::sync::channel::{Receiver, TryRecvError};
use crate::time::Interval;

/// Iterates over a stream: each `next` waits for an item, as [`block_on`] does for a future.
///
/// ```
/// use greenthread::future::block_on_stream;
/// let stream = futures::stream::iter([1, 2, 3]);
/// assert_eq!(block_on_stream(stream).map(|n| n * n).collect::<Vec<_>>(), [1, 4, 9]);
/// ```
///
/// The way back, from an iterator that may block to a stream, is `futures::stream::iter`.
///
/// # Coming from Python
/// `async for`, in code that blocks.
pub fn block_on_stream<S: Stream>(stream: S) -> BlockOn<S> {
    BlockOn(Box::pin(stream))
}

/// The iterator of [`block_on_stream`].
pub struct BlockOn<S>(Pin<Box<S>>);

impl<S: Stream> Iterator for BlockOn<S> {
    type Item = S::Item;

    #[track_caller]
    fn next(&mut self) -> Option<S::Item> {
        block_on(poll_fn(|context| self.0.as_mut().poll_next(context)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<S> fmt::Debug for BlockOn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockOn").finish_non_exhaustive()
    }
}

/// A stream made of a poll function. What this crate's functions hold may be moved, so it is `Unpin`.
struct PollFn<F>(F);

impl<F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin, T> Stream for PollFn<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(context)
    }
}

impl<T> Receiver<T> {
    /// The messages as a stream, which ends when all senders are gone.
    ///
    /// When dropped, it has taken no message that it did not give.
    ///
    /// ```
    /// use greenthread::{future, sync::channel};
    /// use futures::StreamExt;
    ///
    /// let (sender, receiver) = channel::unbounded();
    /// let sum = future::spawn(async move { receiver.stream().fold(0, async |sum, n| sum + n).await });
    /// (1..=4).for_each(|n| sender.send(n).unwrap());
    /// drop(sender);
    /// assert_eq!(sum.join().unwrap(), 10);
    /// ```
    ///
    /// # Coming from Python
    /// `async for item in queue`.
    pub fn stream(&self) -> impl Stream<Item = T> + Unpin + use<'_, T> {
        let mut under_way = None;
        PollFn(move |context: &mut Context<'_>| {
            let mut receive = under_way.take().unwrap_or_else(|| self.recv_async());
            let polled = Pin::new(&mut receive).poll(context);
            if polled.is_pending() {
                under_way = Some(receive);
            }
            polled.map(Result::ok)
        })
    }

    /// Like [`stream`](Self::stream), for a stream that outlives the caller: the body of a response, say.
    ///
    /// ```
    /// use greenthread::{future::block_on_stream, spawn, sync::channel};
    /// use futures::Stream;
    ///
    /// fn squares(most: u32) -> impl Stream<Item = u32> + Send + 'static {
    ///     let (sender, receiver) = channel::bounded(1);
    ///     spawn(move || (1..=most).try_for_each(|n| sender.send(n * n))); // ends when the stream is dropped
    ///     receiver.into_stream()
    /// }
    ///
    /// assert_eq!(block_on_stream(squares(3)).collect::<Vec<_>>(), [1, 4, 9]);
    /// ```
    pub fn into_stream(self) -> impl Stream<Item = T> + Unpin {
        let (mut idle, mut under_way) = (Some(self), None);
        PollFn(move |context: &mut Context<'_>| {
            // Mostly there is a message. Only a wait needs the future, which borrows from the receiver and so has to
            // own it.
            if let Some(receiver) = &idle {
                match receiver.try_recv() {
                    Ok(message) => return Poll::Ready(Some(message)),
                    Err(TryRecvError::Disconnected) => return Poll::Ready(None),
                    Err(TryRecvError::Empty) => under_way = idle.take().map(|receiver| Box::pin(receive(receiver))),
                }
            }
            let Some(receive) = &mut under_way else {
                return Poll::Ready(None);
            };
            let (receiver, message) = ready!(receive.as_mut().poll(context));
            (idle, under_way) = (Some(receiver), None);
            Poll::Ready(message)
        })
    }
}

async fn receive<T>(receiver: Receiver<T>) -> (Receiver<T>, Option<T>) {
    let message = receiver.recv_async().await.ok();
    (receiver, message)
}

impl Interval {
    /// The ticks as a stream, which never ends.
    ///
    /// ```
    /// use greenthread::{future::block_on_stream, time::Interval};
    /// use std::time::Duration;
    /// let ticks = Interval::new(Duration::from_millis(1)).stream();
    /// assert_eq!(block_on_stream(ticks).take(3).count(), 3);
    /// ```
    pub fn stream(mut self) -> impl Stream<Item = ()> + Unpin + Send {
        let mut sleep = None;
        PollFn(move |context: &mut Context<'_>| self.poll_tick(&mut sleep, context).map(Some))
    }
}

impl<Y: 'static, R: Unpin + 'static> Generator<Y, (), R> {
    /// What it yields as a stream: the asynchronous generator of `async` code. Each poll runs it to its next `yield_`.
    ///
    /// ```
    /// use futures::StreamExt;
    /// use greenthread::{future::block_on, generator::Generator, sleep};
    /// use std::time::Duration;
    ///
    /// let lines = Generator::new(|y| {
    ///     for line in ["one", "two"] {
    ///         sleep(Duration::from_millis(1)); // reads it from somewhere
    ///         y.yield_(line);
    ///     }
    /// });
    /// assert_eq!(block_on(lines.stream().collect::<Vec<_>>()), ["one", "two"]);
    /// ```
    ///
    /// # Blocking and cancellation
    /// Where its body waits, so does the poll: a green thread, or a task of [`future::spawn`](super::spawn), parks for
    /// it; another executor's thread is blocked.
    ///
    /// # Coming from Python
    /// `async def` with `yield`, for `async for`.
    pub fn stream(mut self) -> impl Stream<Item = Y> + Unpin {
        PollFn(move |_: &mut Context<'_>| Poll::Ready(self.next()))
    }
}

/// One future after the other as a stream that never ends. When dropped, it drops the one under way.
fn one_by_one<F: Future>(mut begin: impl FnMut() -> F + Unpin) -> impl Stream<Item = F::Output> + Unpin {
    let mut under_way: Option<Pin<Box<F>>> = None;
    PollFn(move |context: &mut Context<'_>| {
        let future = under_way.get_or_insert_with(|| Box::pin(begin()));
        let polled = future.as_mut().poll(context);
        if polled.is_ready() {
            under_way = None;
        }
        polled.map(Some)
    })
}

impl TcpListener {
    /// The connections as a stream, which never ends: each item is an [`accept_async`](Self::accept_async).
    ///
    /// ```
    /// use futures::StreamExt;
    /// use greenthread::{future, net::{TcpListener, TcpStream}};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let two = future::spawn(async move { listener.incoming_async().take(2).count().await });
    /// let _clients = [TcpStream::connect(address)?, TcpStream::connect(address)?];
    /// assert_eq!(two.join().unwrap(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn incoming_async(&self) -> impl Stream<Item = io::Result<TcpStream>> + Unpin + use<'_> {
        one_by_one(|| async { Ok(self.accept_async().await?.0) })
    }
}

impl UnixListener {
    /// The connections as a stream, which never ends: each item is an [`accept_async`](Self::accept_async).
    pub fn incoming_async(&self) -> impl Stream<Item = io::Result<UnixStream>> + Unpin + use<'_> {
        one_by_one(|| async { Ok(self.accept_async().await?.0) })
    }
}
