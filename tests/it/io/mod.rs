//! Waits for descriptors: buffers, files, and the I/O traits of futures and tokio.

mod buffered;
pub(crate) mod double;
mod file;
mod file_polled;
mod late;
mod poll;
#[cfg(feature = "tokio-io")]
mod tokio;
mod wait;
