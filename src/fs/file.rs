//! An open file.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{Metadata, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::poll::Begun;
use crate::sync::Semaphore;
use crate::sys::fork::PerProcess;
use crate::threadpool::{PoolFuture, submit_apart, submit_file, unblock_apart, unblock_file};

/// The most that one call moves: the copy then costs about as much as the way to the pool and back.
pub(super) const MOST: usize = 256 * 1024;

/// A file; like std's, but its calls run on OS threads of a pool: see [`fs`](super).
///
/// ```
/// use std::io::{Read, Seek, Write};
/// use greenthread::fs::{self, File};
/// # fn main() -> std::io::Result<()> {
/// let path = std::env::temp_dir().join(format!("greenthread-file-{}", std::process::id()));
/// let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
/// file.write_all(b"text")?;
/// file.rewind()?;
/// let mut text = String::new();
/// file.read_to_string(&mut text)?;
/// assert_eq!(text, "text");
/// fs::remove_file(&path)?;
/// # Ok(())
/// # }
/// ```
///
/// A `read` or `write` copies its bytes once more than std's, and moves at most 256 KiB. Each goes to the pool and
/// back: wrap the file in `BufReader` or `BufWriter`, or read it as a whole ([`fs::read`](super::read), `read_to_end`).
///
/// It has the traits of futures-io, of tokio (feature `tokio-io`) and of hyper (feature `hyper`), seeking included. A
/// poll that writes takes its bytes, and the write goes on behind it: its error comes at the next poll, so end with a
/// flush. A read whose future was dropped is not lost: its bytes come at the next poll. So use a file by these traits
/// or by std's, not by both at once.
///
/// # Blocking and cancellation
/// Every call parks. A kill or time-out unwinds the caller at once, but the call goes on. So a write is still written,
/// and a read still moves the position, but its bytes are lost. The next call on the same `File` waits for it. So the
/// order is kept, and a [`sync_all`](Self::sync_all) includes it. A drop does not wait; the file is closed after the
/// last call.
pub struct File {
    shared: Arc<Shared>,
    /// The last call's buffer, for the next.
    spare: Mutex<Vec<u8>>,
    /// What polls have begun.
    begun: Begun,
}

struct Shared {
    std: std::fs::File,
    /// Whether a call may last forever: then it runs on an OS thread of its own, not on the pool.
    may_wait: bool,
    /// The permit for one call at a time. The call gives it back, even if the green thread that made it was killed
    /// meanwhile. A forked child has a permit of its own, so it does not wait for a call of its parent.
    turn: PerProcess<Semaphore>,
}

/// The permit, given back on drop. It moves into the call, so that a kill of the caller does not free it early.
struct Turn(Arc<Shared>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.turn.get().add(1);
    }
}

/// Takes std's over.
impl From<std::fs::File> for File {
    fn from(std: std::fs::File) -> File {
        File::of(Opened::of(std))
    }
}

/// An open file, and whether a call on it may last forever.
struct Opened {
    std: std::fs::File,
    may_wait: bool,
}

impl Opened {
    fn of(std: std::fs::File) -> Opened {
        let may_wait = std.metadata().is_ok_and(|data| super::may_wait(data.file_type()));
        Opened { std, may_wait }
    }
}

impl File {
    fn of(opened: Opened) -> File {
        File {
            shared: Arc::new(Shared {
                std: opened.std,
                may_wait: opened.may_wait,
                turn: PerProcess::new(|| Semaphore::new(1)),
            }),
            spare: Mutex::default(),
            begun: Begun::default(),
        }
    }

    #[track_caller]
    fn open_by<F>(path: impl AsRef<Path>, open: F) -> io::Result<File>
    where
        F: FnOnce(PathBuf) -> io::Result<std::fs::File> + Send + 'static,
    {
        super::open_at(path, |path| open(path).map(Opened::of)).map(File::of)
    }

    /// Opens a file to be read.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
        File::open_by(path, std::fs::File::open)
    }

    /// Makes a file to be written, or empties it.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn create(path: impl AsRef<Path>) -> io::Result<File> {
        File::open_by(path, std::fs::File::create)
    }

    /// Makes a file to be read and written, which must not be there.
    ///
    /// # Errors
    /// The system's error; `AlreadyExists`.
    #[track_caller]
    pub fn create_new(path: impl AsRef<Path>) -> io::Result<File> {
        File::open_by(path, std::fs::File::create_new)
    }

    /// How else to open one.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Runs `f` on the pool, after the call that is under way.
    #[track_caller]
    fn run<T, F>(&self, f: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&std::fs::File) -> io::Result<T> + Send + 'static,
    {
        let call = self.call(f);
        if self.shared.may_wait {
            unblock_apart(call)
        } else {
            unblock_file(call)
        }
    }

    /// Like `run`, without a wait for the outcome.
    pub(super) fn submit<T, F>(&self, f: F) -> PoolFuture<io::Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(&std::fs::File) -> io::Result<T> + Send + 'static,
    {
        let call = self.call(f);
        if self.shared.may_wait {
            submit_apart(call)
        } else {
            submit_file(call)
        }
    }

    /// `f` with the file, when it is its turn.
    #[track_caller]
    fn call<T, F>(&self, f: F) -> impl FnOnce() -> io::Result<T> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&std::fs::File) -> io::Result<T> + Send + 'static,
    {
        self.shared.turn.get().acquire().forget();
        let turn = Turn(self.shared.clone());
        move || f(&turn.0.std)
    }

    pub(super) fn begun(&mut self) -> &mut Begun {
        &mut self.begun
    }

    fn spare(&self) -> Vec<u8> {
        // Not waited for: in a forked child the lock may be held by an OS thread that only the parent has.
        self.spare
            .try_lock()
            .map(|mut spare| std::mem::take(&mut *spare))
            .unwrap_or_default()
    }

    fn keep(&self, buffer: Vec<u8>) {
        if let Ok(mut spare) = self.spare.try_lock() {
            *spare = buffer;
        }
    }

    /// Waits until all that was written is on the disk.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn sync_all(&self) -> io::Result<()> {
        self.run(std::fs::File::sync_all)
    }

    /// Waits until the contents are on the disk, and what is needed to find them.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn sync_data(&self) -> io::Result<()> {
        self.run(std::fs::File::sync_data)
    }

    /// Cuts it off, or makes it longer with zeros.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        self.run(move |file| file.set_len(size))
    }

    /// What the system knows of it.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.run(std::fs::File::metadata)
    }

    /// Changes the permissions.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.run(move |file| file.set_permissions(permissions))
    }

    /// Another handle to the same open file (`dup`), with the same position. The two do not wait for each other's
    /// calls.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<File> {
        self.shared.std.try_clone().map(File::from)
    }

    /// std's file. A call on it does not wait for the calls that are under way here.
    pub fn as_std(&self) -> &std::fs::File {
        &self.shared.std
    }
}

impl Read for &File {
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.spare();
        bytes.resize(buffer.len().min(MOST), 0);
        let (result, bytes) = self.run(move |mut file| {
            let result = file.read(&mut bytes);
            Ok((result, bytes))
        })?;
        if let Ok(count) = result {
            buffer[..count].copy_from_slice(&bytes[..count]);
        }
        self.keep(bytes);
        result
    }

    /// In one call on the pool.
    #[track_caller]
    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let (result, mut bytes) = self.run(|mut file| {
            let mut bytes = Vec::new();
            let result = file.read_to_end(&mut bytes);
            Ok((result, bytes))
        })?;
        buffer.append(&mut bytes);
        result
    }

    #[track_caller]
    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        let Ok(more) = std::str::from_utf8(&bytes) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file is not valid UTF-8: read it as bytes",
            ));
        };
        text.push_str(more);
        Ok(more.len())
    }
}

impl Write for &File {
    #[track_caller]
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut bytes = self.spare();
        bytes.clear();
        bytes.extend_from_slice(&buffer[..buffer.len().min(MOST)]);
        let (result, bytes) = self.run(move |mut file| {
            let result = file.write(&bytes);
            Ok((result, bytes))
        })?;
        self.keep(bytes);
        result
    }

    /// Does nothing, as std's: no bytes are kept back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    #[track_caller]
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.run(move |mut file| file.seek(to))
    }
}

impl Read for File {
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }

    #[track_caller]
    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buffer)
    }

    #[track_caller]
    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(text)
    }
}

impl Write for File {
    #[track_caller]
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    /// Does nothing, as std's: no bytes are kept back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    #[track_caller]
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.std.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.std.as_raw_fd()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("fd", &self.as_raw_fd()).finish()
    }
}

/// How to open a file; like std's, but [`open`](Self::open) parks.
///
/// Its Unix side (`mode`, `custom_flags`) is std's: build it there, and take it over by `From`.
#[derive(Clone, Debug)]
pub struct OpenOptions(std::fs::OpenOptions);

impl From<std::fs::OpenOptions> for OpenOptions {
    fn from(std: std::fs::OpenOptions) -> OpenOptions {
        OpenOptions(std)
    }
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions::new()
    }
}

macro_rules! options {
    ($($name:ident: $what:literal;)*) => {
        $(
            #[doc = $what]
            pub fn $name(&mut self, yes: bool) -> &mut OpenOptions {
                self.0.$name(yes);
                self
            }
        )*
    };
}

impl OpenOptions {
    /// Options with none set.
    pub fn new() -> OpenOptions {
        OpenOptions(std::fs::OpenOptions::new())
    }

    options! {
        read: "To be read.";
        write: "To be written.";
        append: "To be written, always at its end.";
        truncate: "Emptied first.";
        create: "Made if it is not there.";
        create_new: "Made, and must not be there.";
    }

    /// Opens it.
    ///
    /// # Errors
    /// The system's error; `InvalidInput` for a combination that makes no sense.
    #[track_caller]
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let options = self.0.clone();
        File::open_by(path, move |path| options.open(path))
    }
}
