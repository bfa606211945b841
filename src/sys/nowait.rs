//! Reads and writes that do not wait, whatever the flags of the open file say: `RWF_NOWAIT`.
//!
//! A pipe does not support the flag before about Linux 6.5, and a FIFO never does: `EOPNOTSUPP`. That is also the errno
//! here if the system refuses the flag or the call. Linux before 4.6 has no such call, for which glibc says
//! `EOPNOTSUPP` too. Linux before 4.14 does not know the flag: `EINVAL`. A filter of system calls may forbid the call:
//! `EPERM` or `ENOSYS`. All three can be an answer about the descriptor or the buffers as well, which the caller must
//! see. So a private pipe is asked.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, iovec, ssize_t};

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Reads what there is, from the current position.
///
/// # Safety
/// `vectors` are `count` vectors of writable bytes, as for `readv`.
#[inline]
pub(crate) unsafe fn readv(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller guarantees the vectors. Offset -1 is the current position.
    let result = unsafe { libc::preadv2(fd, vectors, count, -1, libc::RWF_NOWAIT) };
    told(result, &READS)
}

/// Writes what there is room for, to the current position.
///
/// # Safety
/// `vectors` are `count` vectors of readable bytes, as for `writev`.
#[inline]
pub(crate) unsafe fn writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller guarantees the vectors. Offset -1 is the current position.
    let result = unsafe { libc::pwritev2(fd, vectors, count, -1, libc::RWF_NOWAIT) };
    told(result, &WRITES)
}

/// The result of a call, with `EOPNOTSUPP` for each errno by which a system refuses the flag or the call.
#[inline]
fn told(result: ssize_t, way: &Way) -> ssize_t {
    if result < 0 && matches!(errno(), libc::EPERM | libc::ENOSYS | libc::EINVAL) {
        way.refused();
    }
    result
}

/// One of the two calls.
struct Way {
    reads: bool,
    /// What a private pipe has answered: [`UNKNOWN`](Way::UNKNOWN), 0 for no error, or an errno.
    answer: AtomicI32,
}

static READS: Way = Way::new(true);
static WRITES: Way = Way::new(false);

impl Way {
    const UNKNOWN: c_int = -1;

    const fn new(reads: bool) -> Way {
        let answer = AtomicI32::new(Way::UNKNOWN);
        Way { reads, answer }
    }

    /// Changes errno to `EOPNOTSUPP` if it is what this system answers to the call on any pipe.
    #[cold]
    fn refused(&self) {
        let error = errno();
        let mut answer = self.answer.load(Ordering::Relaxed);
        if answer == Way::UNKNOWN {
            // An answer that was not had, for lack of a descriptor, is not kept.
            answer = self.ask().unwrap_or(Way::UNKNOWN);
            self.answer.store(answer, Ordering::Relaxed);
        }
        // Without an answer, `EINVAL` is taken for the caller's mistake, and the others for the system's refusal.
        let is_refusal = match answer {
            Way::UNKNOWN => error != libc::EINVAL,
            answer => error == answer,
        };
        let error = if is_refusal { libc::EOPNOTSUPP } else { error };
        // SAFETY: the address of `errno` of the running thread.
        unsafe { *libc::__errno_location() = error };
    }

    /// Makes the call on a private, empty pipe. `None` if there is none.
    fn ask(&self) -> Option<c_int> {
        let mut ends = [0; 2];
        let mut byte = 0_u8;
        let vector = iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        // SAFETY: `pipe2` writes two descriptors to a local array, and nothing else owns them. The calls have one
        // vector, of a local byte.
        let result = unsafe {
            if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
                return None;
            }
            let [reader, writer] = ends.map(|end| OwnedFd::from_raw_fd(end));
            let result = if self.reads {
                libc::preadv2(reader.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_NOWAIT)
            } else {
                libc::pwritev2(writer.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_NOWAIT)
            };
            // Before the pipe is closed, which might change errno.
            if result < 0 { errno() } else { 0 }
        };
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Reads a byte from an empty pipe.
    fn read_of(reader: &io::PipeReader) -> (ssize_t, c_int) {
        let mut byte = 0_u8;
        let vector = iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        // SAFETY: one vector, of a local byte.
        unsafe { (readv(reader.as_raw_fd(), &raw const vector, 1), errno()) }
    }

    /// Under a filter that forbids the calls so, it is a refusal all the same.
    #[test]
    fn an_error_that_is_not_the_system_s_is_seen() {
        for way in [&READS, &WRITES] {
            for error in [libc::EPERM, libc::ENOSYS, libc::EINVAL] {
                // SAFETY: the address of `errno` of the running thread.
                unsafe { *libc::__errno_location() = error };
                let seen = (told(-1, way), errno());
                let is_refusal = way.ask() == Some(error);
                assert_eq!(seen, (-1, if is_refusal { libc::EOPNOTSUPP } else { error }));
            }
        }
    }

    /// It can fail only on a kernel or under a filter that does not know the flag: a row of `tests/long/kernels.sh`.
    #[test]
    fn a_lack_of_descriptors_settles_nothing() {
        let child = crate::stack::alone("sys::nowait::tests::a_lack_of_descriptors_settles_nothing");
        if let Some(child) = child {
            return assert!(child.status.success(), "{child:?}");
        }
        let (reader, _writer) = io::pipe().unwrap();
        let limit = |soft| {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: the pointers are to a whole `rlimit`.
            unsafe {
                assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
                let before = std::mem::replace(&mut limit.rlim_cur, soft);
                assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
                before
            }
        };
        let before = limit(0);
        assert!(io::pipe().is_err());
        let without = read_of(&reader);
        assert!(
            matches!(without, (-1, libc::EINVAL | libc::EAGAIN | libc::EOPNOTSUPP)),
            "{without:?}"
        );
        limit(before);
        let with = read_of(&reader);
        assert!(matches!(with, (-1, libc::EAGAIN | libc::EOPNOTSUPP)), "{with:?}");
    }
}
