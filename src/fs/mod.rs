//! Files, with std's names. Each call runs on an OS thread of a pool for files, and other green threads run meanwhile.
//!
//! ```
//! use greenthread::fs;
//! # fn main() -> std::io::Result<()> {
//! let path = std::env::temp_dir().join(format!("greenthread-fs-{}", std::process::id()));
//! fs::write(&path, "text")?;
//! assert_eq!(fs::read_to_string(&path)?, "text");
//! fs::remove_file(&path)?;
//! # Ok(())
//! # }
//! ```
//!
//! The system cannot tell when a disk is ready, so an OS thread has to wait for it. The way there and back takes about
//! ten microseconds. For a small file that is in memory, std's own call is faster, and blocks the other green threads
//! only briefly. For functions that are missing here ([`OpenOptionsExt`](std::os::unix::fs::OpenOptionsExt), for
//! example) use `unblock(|| std::fs::…)`.
//!
//! # Errors
//! Those of std's functions.
//!
//! # Blocking and cancellation
//! Every function here parks. A kill or time-out unwinds the caller at once, but the call goes on to its end on the
//! pool; a file that is to be removed is still removed. [`File`] has its own rules. At most
//! [`MAX`](crate::threadpool::MAX) calls run at once. A call on a FIFO or a terminal may take forever, so it does not
//! count: it runs on an OS thread of its own. If its caller is killed, it keeps that OS thread until the other end
//! comes. So it is better to open these with std and to wrap them in [`Async`](crate::io::Async).
//!
//! # Coming from Python
//! `gevent.fileobject.FileObjectThread`, `asyncio.to_thread(path.read_text)`.
#![forbid(unsafe_code)]

mod dir;
mod file;
mod poll;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

pub use std::fs::{FileType, Metadata, Permissions};

pub use dir::{DirEntry, ReadDir, read_dir};
pub use file::{File, OpenOptions};

use crate::threadpool::{unblock_apart, unblock_file};

/// Runs `f` with a path on the pool.
#[track_caller]
fn at<T, F>(path: impl AsRef<Path>, f: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
{
    let path = path.as_ref().to_owned();
    unblock_file(move || f(path))
}

/// Like [`at`], for an `f` that opens a file. The open of a FIFO waits for its other end, and that of a device may wait
/// too. So it is done on an OS thread of its own: 32 of them on the pool would keep all other files waiting.
#[track_caller]
fn open_at<T, F>(path: impl AsRef<Path>, f: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
{
    let path = path.as_ref().to_owned();
    let opened = unblock_file(move || {
        if std::fs::metadata(&path).is_ok_and(|data| may_wait(data.file_type())) {
            Err((path, f))
        } else {
            Ok(f(path))
        }
    });
    opened.unwrap_or_else(|(path, f)| unblock_apart(move || f(path)))
}

/// Whether a call on such a file may last forever.
fn may_wait(kind: FileType) -> bool {
    kind.is_fifo() || kind.is_char_device() || kind.is_socket()
}

/// Runs `f` with two paths on the pool.
#[track_caller]
fn between<T, F>(from: impl AsRef<Path>, to: impl AsRef<Path>, f: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce(PathBuf, PathBuf) -> io::Result<T> + Send + 'static,
{
    let to = to.as_ref().to_owned();
    at(from, move |from| f(from, to))
}

/// The whole of a file.
///
/// # Errors
/// As `std::fs::read`.
#[track_caller]
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    open_at(path, std::fs::read)
}

/// The whole of a file, which is text.
///
/// # Errors
/// As `std::fs::read_to_string`.
#[track_caller]
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    open_at(path, std::fs::read_to_string)
}

/// Makes a file with these contents, or replaces it. They are copied once.
///
/// # Errors
/// As `std::fs::write`.
#[track_caller]
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let contents = contents.as_ref().to_owned();
    open_at(path, move |path| std::fs::write(path, contents))
}

/// Copies a file, with its permissions; returns the number of bytes.
///
/// # Errors
/// As `std::fs::copy`.
#[track_caller]
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<u64> {
    let to = to.as_ref().to_owned();
    open_at(from, move |from| std::fs::copy(from, to))
}

/// Renames a file; one that has the new name is replaced.
///
/// # Errors
/// As `std::fs::rename`.
#[track_caller]
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    between(from, to, std::fs::rename)
}

/// Gives a file one more name.
///
/// # Errors
/// As `std::fs::hard_link`.
#[track_caller]
pub fn hard_link(original: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
    between(original, link, std::fs::hard_link)
}

/// Removes a file.
///
/// # Errors
/// As `std::fs::remove_file`.
#[track_caller]
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    at(path, std::fs::remove_file)
}

/// Makes a directory.
///
/// # Errors
/// As `std::fs::create_dir`.
#[track_caller]
pub fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    at(path, std::fs::create_dir)
}

/// Makes a directory, and those above it that are missing.
///
/// # Errors
/// As `std::fs::create_dir_all`.
#[track_caller]
pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    at(path, std::fs::create_dir_all)
}

/// Removes an empty directory.
///
/// # Errors
/// As `std::fs::remove_dir`.
#[track_caller]
pub fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    at(path, std::fs::remove_dir)
}

/// Removes a directory with all that is in it.
///
/// # Errors
/// As `std::fs::remove_dir_all`.
#[track_caller]
pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    at(path, std::fs::remove_dir_all)
}

/// What the system knows of a file; a link is followed.
///
/// # Errors
/// As `std::fs::metadata`.
#[track_caller]
pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    at(path, std::fs::metadata)
}

/// What the system knows of a file, or of a link itself.
///
/// # Errors
/// As `std::fs::symlink_metadata`.
#[track_caller]
pub fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    at(path, std::fs::symlink_metadata)
}

/// Whether there is such a file; an error if that cannot be known.
///
/// # Errors
/// As `std::fs::exists`.
#[track_caller]
pub fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    at(path, std::fs::exists)
}

/// Changes the permissions.
///
/// # Errors
/// As `std::fs::set_permissions`.
#[track_caller]
pub fn set_permissions(path: impl AsRef<Path>, permissions: Permissions) -> io::Result<()> {
    at(path, move |path| std::fs::set_permissions(path, permissions))
}

/// Where a symbolic link leads.
///
/// # Errors
/// As `std::fs::read_link`.
#[track_caller]
pub fn read_link(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    at(path, std::fs::read_link)
}

/// The path from the root, without links and dots.
///
/// # Errors
/// As `std::fs::canonicalize`.
#[track_caller]
pub fn canonicalize(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    at(path, std::fs::canonicalize)
}
