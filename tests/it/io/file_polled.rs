//! Files that are polled: the traits of futures-io.

use std::future::{Future, poll_fn};
use std::io::SeekFrom;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;

use futures::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use greenthread::fs::{self, File};
use greenthread::future::block_on;

use crate::support::fresh::fresh;

/// A file with this in it, and its path, which is removed again.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, contents: &[u8]) -> (Temporary, File) {
        let path = std::env::temp_dir().join(format!("greenthread-polled-{name}-{}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        (Temporary(path), file)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn what_was_written_is_read_again_and_places_are_right() {
    fresh(|| {
        let (path, mut file) = Temporary::new("places", b"");
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        block_on(async {
            file.write_all(&sent).await.unwrap();
            file.flush().await.unwrap();
            assert_eq!(fs::read(&path.0).unwrap().len(), sent.len());
            assert_eq!(file.seek(SeekFrom::Start(0)).await.unwrap(), 0);
            let mut got = Vec::new();
            file.read_to_end(&mut got).await.unwrap();
            assert!(got == sent);
            assert_eq!(file.read(&mut [0]).await.unwrap(), 0, "the end");

            file.seek(SeekFrom::Start(10)).await.unwrap();
            file.read_exact(&mut [0; 5]).await.unwrap();
            file.write_all(b"now").await.unwrap();
            assert_eq!(file.seek(SeekFrom::Current(-4)).await.unwrap(), 14);
            let mut got = [0; 5];
            file.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"\x0enow\x12");
            file.close().await.unwrap();
        });
    });
}

/// Polls once, and drops the future.
fn once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    block_on(poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut future).poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    }))
}

/// Drops a read of six bytes from there while it is on the pool.
fn drop_a_read(file: &mut File, from: u64) {
    let mut is_early = || {
        block_on(file.seek(SeekFrom::Start(from))).unwrap();
        once(file.read(&mut [0; 6])).is_some()
    };
    while is_early() {}
}

#[test]
fn a_read_that_is_dropped_is_not_lost() {
    fresh(|| {
        let (path, mut file) = Temporary::new("dropped", b"0123456789");
        drop_a_read(&mut file, 0);
        block_on(async {
            let mut got = [0; 4];
            assert_eq!(file.read(&mut got).await.unwrap(), 4);
            assert_eq!(&got, b"0123");
            assert_eq!(file.stream_position().await.unwrap(), 4, "not what was read ahead");
        });
        drop_a_read(&mut file, 4);
        block_on(async {
            file.write_all(b"!").await.unwrap();
            file.flush().await.unwrap();
        });
        // The bytes of that read are given up, and the write goes where it stood before them.
        assert_eq!(fs::read(&path.0).unwrap(), b"0123!56789");
    });
}

#[test]
fn an_error_of_a_write_comes_at_the_flush_and_once() {
    fresh(|| {
        let (path, _) = Temporary::new("errors", b"text");
        let mut file = File::open(&path.0).unwrap();
        block_on(async {
            assert_eq!(file.write(b"!").await.unwrap(), 1, "taken");
            assert_eq!(file.flush().await.unwrap_err().raw_os_error(), Some(9));
            file.flush().await.unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "text");
        });
    });
}
