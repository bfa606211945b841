//! OS threads of ours that rest, are given something to do, and get the processor late: longer than the patience of the
//! hub that waits for what they will send. A signal's handler stands for the other threads of a loaded machine: it
//! keeps the thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenthread::hub::Hubs;
use greenthread::sync::channel;
use greenthread::threadpool;

/// How many handlers have begun.
static HELD: AtomicUsize = AtomicUsize::new(0);

extern "C" fn hold(_: libc::c_int) {
    HELD.fetch_add(1, Ordering::SeqCst);
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 400_000_000,
    };
    // SAFETY: async-signal-safe, and a valid pointer.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

fn own_id() -> i32 {
    // SAFETY: a plain system call.
    unsafe { libc::gettid() }
}

/// Keeps an OS thread from running for 400 ms, from before this returns.
fn hold_up(thread: i32) {
    let before = HELD.load(Ordering::SeqCst);
    // SAFETY: all-zero is a valid `sigaction`; the handler lives as long as the program; a plain system call.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = hold as extern "C" fn(_) as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()),
            0
        );
        assert_eq!(
            libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1),
            0
        );
    }
    while HELD.load(Ordering::SeqCst) == before {
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn pool_thread() {
    let thread = threadpool::unblock(own_id);
    for n in 0..3 {
        // It rests by then.
        std::thread::sleep(Duration::from_millis(50));
        hold_up(thread);
        let (sender, receiver) = channel::unbounded();
        let job = threadpool::to_thread(move || (sender.send(n).unwrap(), own_id()));
        assert_eq!(receiver.recv(), Ok(n));
        assert_eq!(
            job.wait().unwrap().1,
            thread,
            "it was given to the one that was held up"
        );
    }
}

pub(crate) fn hub() {
    let hubs = Hubs::new(1).unwrap();
    let thread = hubs.spawn(own_id).unwrap().join().unwrap();
    for n in 0..3 {
        std::thread::sleep(Duration::from_millis(50));
        hold_up(thread);
        let (sender, receiver) = channel::unbounded();
        drop(hubs.spawn(move || sender.send(n).unwrap()).unwrap());
        assert_eq!(receiver.recv(), Ok(n));
    }
}
