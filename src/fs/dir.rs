//! What is in a directory.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::fs::{FileType, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::threadpool::unblock_file;

/// What is in a directory, in no order. It is read as a whole by this call; std reads it bit by bit.
///
/// # Errors
/// As `std::fs::read_dir`.
#[track_caller]
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    let entries = super::at(path, |path| {
        let entry = |entry: io::Result<_>| entry.map(|entry| DirEntry { std: Arc::new(entry) });
        Ok(std::fs::read_dir(path)?.map(entry).collect::<Vec<_>>())
    })?;
    Ok(ReadDir {
        entries: entries.into_iter(),
    })
}

/// The iterator of [`read_dir`]. It does not wait.
#[derive(Debug)]
pub struct ReadDir {
    entries: std::vec::IntoIter<io::Result<DirEntry>>,
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<io::Result<DirEntry>> {
        self.entries.next()
    }
}

/// One thing in a directory; like std's, but the calls that ask the disk park.
pub struct DirEntry {
    std: Arc<std::fs::DirEntry>,
}

impl DirEntry {
    /// Where it is: the directory's path with its name.
    pub fn path(&self) -> PathBuf {
        self.std.path()
    }

    /// Its name.
    pub fn file_name(&self) -> OsString {
        self.std.file_name()
    }

    /// What the system knows of it, or of a link itself.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn metadata(&self) -> io::Result<Metadata> {
        let std = self.std.clone();
        unblock_file(move || std.metadata())
    }

    /// What it is.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn file_type(&self) -> io::Result<FileType> {
        let std = self.std.clone();
        unblock_file(move || std.file_type())
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.std.fmt(f)
    }
}
