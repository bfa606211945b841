//! The first Ctrl-C becomes a byte on a descriptor. The second does what Ctrl-C does by default.
//!
//! ```text
//!   SIGINT ─► kernel: from now on the default (SA_RESETHAND) ─► handler ─► a byte ─► the reader
//! ```
//!
//! # Invariants
//! - **CTRLC-1** What runs in the handler allocates nothing and takes no lock.
//! - **CTRLC-2** `WRITER` and `EPOCH` are set before the handler is installed. The descriptor stays open as long as the
//!   process lives.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::fork::fork_epoch;
use super::thread;

static WRITER: AtomicI32 = AtomicI32::new(-1);
/// The value of `fork_epoch` when `WRITER` was set.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// SIGINT is caught, once, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Caught(());

/// Makes the next SIGINT write a byte to `writer`, which is never closed.
///
/// `None` where this crate must not do that: on any OS thread but the first, and where SIGINT is handled or ignored
/// already.
pub(crate) fn catch(writer: RawFd) -> Option<Caught> {
    if !thread::is_main() || present() != libc::SIG_DFL {
        return None;
    }
    EPOCH.store(fork_epoch(), Ordering::Release);
    WRITER.store(writer, Ordering::Release);
    install(handler as extern "C" fn(_) as usize);
    Some(Caught(()))
}

impl Drop for Caught {
    fn drop(&mut self) {
        if present() == handler as extern "C" fn(_) as usize {
            install(libc::SIG_DFL);
        }
    }
}

/// The handler that SIGINT has now.
fn present() -> usize {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: reads the handler in use. All-zero is a valid `sigaction`.
    unsafe {
        libc::sigaction(libc::SIGINT, std::ptr::null(), now.as_mut_ptr());
        now.assume_init().sa_sigaction
    }
}

fn install(action: usize) {
    // SAFETY: all-zero is a valid `sigaction`. `action` is the default, or the handler below, which lives as long as
    // the program and has the type that is required without SA_SIGINFO.
    unsafe {
        let mut new: libc::sigaction = MaybeUninit::zeroed().assume_init();
        new.sa_sigaction = action;
        new.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&mut new.sa_mask);
        libc::sigaction(libc::SIGINT, &new, std::ptr::null_mut());
    }
}

extern "C" fn handler(signal: libc::c_int) {
    if present() != libc::SIG_DFL {
        // Other code has installed a handler in place of this one, and calls this one from it. The signal is now that
        // handler's business.
        return;
    }
    if fork_epoch() != EPOCH.load(Ordering::Acquire) {
        // The byte would go to the parent. Raise the signal again: its action is the default now, so this process ends
        // of it as soon as the handler returns.
        // SAFETY: `raise` is async-signal-safe.
        unsafe { libc::raise(signal) };
        return;
    }
    // SAFETY: CTRLC-2: the descriptor stays open as long as the process lives.
    let writer = unsafe { BorrowedFd::borrow_raw(WRITER.load(Ordering::Acquire)) };
    // The pipe holds far more bytes than are ever written to it.
    let _ = rustix::io::write(writer, &[0]);
}
