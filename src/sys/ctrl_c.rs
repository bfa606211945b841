//! The first Ctrl-C as a byte on a descriptor; the second does what Ctrl-C does by default.
//!
//! ```text
//!   SIGINT ─► kernel: from now on the default (SA_RESETHAND) ─► handler ─► a byte ─► whoever reads
//! ```
//!
//! # Invariants
//! - **J1** What runs in the handler allocates nothing and takes no lock.
//! - **J2** `WRITER` and `EPOCH` are set before the handler is installed; the descriptor is open as long as the
//!   process.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::fork::fork_epoch;
use super::thread;

static WRITER: AtomicI32 = AtomicI32::new(-1);
/// How many forks lay before this process when `WRITER` was set.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// SIGINT is caught, once, until this is dropped.
#[derive(Debug)]
pub(crate) struct Caught(());

/// Has the next SIGINT write a byte to `writer`, which is never closed. `None` where that is not ours to do: on another
/// OS thread than the first, and where SIGINT is handled or ignored already.
pub(crate) fn catch(writer: RawFd) -> Option<Caught> {
    let is_main = thread::id() == u64::from(std::process::id());
    if !is_main || present() != libc::SIG_DFL {
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

/// What is done with SIGINT now.
fn present() -> usize {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present one; all-zero is a valid `sigaction`.
    unsafe {
        libc::sigaction(libc::SIGINT, std::ptr::null(), now.as_mut_ptr());
        now.assume_init().sa_sigaction
    }
}

fn install(action: usize) {
    // SAFETY: all-zero is a valid `sigaction`; the default, or the handler below, which has the type that there being
    // no SA_SIGINFO asks for, and lives as long as the program.
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
        // Whoever has put a handler of theirs in our place calls us from it: it is theirs now.
        return;
    }
    if fork_epoch() != EPOCH.load(Ordering::Acquire) {
        // The parent reads there. This process dies of it as soon as we return.
        // SAFETY: async-signal-safe.
        unsafe { libc::raise(signal) };
        return;
    }
    // SAFETY: J2.
    let writer = unsafe { BorrowedFd::borrow_raw(WRITER.load(Ordering::Acquire)) };
    // The pipe is never full of the few that there are.
    let _ = rustix::io::write(writer, &[0]);
}
