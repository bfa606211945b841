//! Reads and writes that do not wait, whatever the flags of the open file say: `RWF_NOWAIT`.
//!
//! A pipe does not support the flag before about Linux 6.5, and a FIFO never does: `EOPNOTSUPP`. That is also the errno
//! here if the system refuses the flag or the call. Linux before 4.6 has no such call, for which glibc says
//! `EOPNOTSUPP` too. Linux before 4.14 does not know the flag: `EINVAL`. A filter of system calls may forbid the call:
//! `EPERM` or `ENOSYS`.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

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
    told(unsafe { libc::preadv2(fd, vectors, count, -1, libc::RWF_NOWAIT) })
}

/// Writes what there is room for, to the current position.
///
/// # Safety
/// `vectors` are `count` vectors of readable bytes, as for `writev`.
#[inline]
pub(crate) unsafe fn writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller guarantees the vectors. Offset -1 is the current position.
    told(unsafe { libc::pwritev2(fd, vectors, count, -1, libc::RWF_NOWAIT) })
}

/// The result of a call, with `EOPNOTSUPP` for each errno by which a system refuses the flag or the call.
#[inline]
fn told(result: ssize_t) -> ssize_t {
    if result < 0 && matches!(errno(), libc::EPERM | libc::ENOSYS | libc::EINVAL) {
        refused();
    }
    result
}

#[cold]
fn refused() {
    // A caller's own mistake is `EINVAL` too, and the caller must get that errno.
    if errno() != libc::EINVAL || !knows_the_flag() {
        // SAFETY: the address of `errno` of the running thread.
        unsafe { *libc::__errno_location() = libc::EOPNOTSUPP };
    }
}

/// Whether this kernel knows the flag. Leaves errno alone.
fn knows_the_flag() -> bool {
    static KNOWS: AtomicBool = AtomicBool::new(false);
    if KNOWS.load(Ordering::Relaxed) {
        return true;
    }
    let before = errno();
    let mut ends = [0; 2];
    let mut byte = 0_u8;
    let vector = iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: `pipe2` writes two descriptors to a local array, and nothing else owns them. The read has one vector, of
    // a local byte.
    let knows = unsafe {
        // Without a descriptor to ask with, the answer is that of a new kernel.
        libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 || {
            let [reader, _writer] = ends.map(|end| OwnedFd::from_raw_fd(end));
            libc::preadv2(reader.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_NOWAIT) >= 0
                || errno() != libc::EINVAL
        }
    };
    KNOWS.store(knows, Ordering::Relaxed);
    // SAFETY: the address of `errno` of the running thread.
    unsafe { *libc::__errno_location() = before };
    knows
}
