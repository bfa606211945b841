//! The signal handlers of this crate. The one for faults is installed once, after std's, and chained to std's. The one
//! for Ctrl-C makes the first SIGINT a byte on a descriptor; the second does what it does by default.
//!
//! ```text
//!  fault ─► kernel ─► handler, on the alternate stack ─► look(address): ours? report, abort
//!                                                   └──► not ours: what was there before (std's, as a rule)
//!  SIGINT ─► kernel: from now on the default (SA_RESETHAND) ─► handler ─► a byte ─► the reader
//! ```
//!
//! # Invariants
//! - **SIGNAL-1** What runs in a handler allocates nothing and takes no lock.
//! - **SIGNAL-2** `LOOK` is set before the handler of faults is installed; `WRITER` and `EPOCH` before that of SIGINT.
//!   The descriptor of `WRITER` stays open as long as the process lives.
//! - **SIGNAL-3** An alternate stack of this crate is unmapped only when the OS thread no longer uses it.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use once_cell::race::OnceRef;

use super::fork::{GlobalOnce, Order, fork_epoch};
use super::thread;

/// The handlers that were installed before: SIGSEGV's, SIGBUS's.
static BEFORE: GlobalOnce<[libc::sigaction; 2]> = GlobalOnce::new(Order::Faults);
static LOOK: OnceRef<'static, fn(usize)> = OnceRef::new();

/// Has `look` called with the address of every memory fault, on the alternate stack. It returns if the fault is none of
/// its own.
///
/// `look` runs in a signal handler: it must not allocate or take a lock.
pub(crate) fn on_fault(look: &'static fn(usize)) {
    let _ = LOOK.set(look);
    let handler = faulted as extern "C" fn(_, _, _) as usize;
    let flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the type that SA_SIGINFO requires, lives as long as the program, and may run anywhere
    // (SIGNAL-1).
    BEFORE.get_or_init(|| [libc::SIGSEGV, libc::SIGBUS].map(|signal| unsafe { install(signal, handler, flags) }));
}

/// Installs the handler of a signal, and gives the one before.
///
/// # Safety
/// `handler` is the default, or a function of the type that `flags` require. It may run at any moment, as long as the
/// program lives.
unsafe fn install(signal: libc::c_int, handler: usize, flags: libc::c_int) -> libc::sigaction {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all-zero is a valid `sigaction`. Both pointers are to whole ones. The caller guarantees the handler.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, before.as_mut_ptr());
        before.assume_init()
    }
}

extern "C" fn faulted(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a whole `siginfo_t`. It has an address if the code says that the kernel sent it for a
    // fault; a signal sent by `kill` has none.
    let address = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr().addr()) };
    if let (Some(look), Some(address)) = (LOOK.get(), address) {
        look(address);
    }
    // The other handler was not stored yet: another OS thread is in the middle of `on_fault`.
    let Some(before) = BEFORE.get() else {
        return give_up(signal);
    };
    let before = before[usize::from(signal == libc::SIGBUS)];
    if before.sa_sigaction == libc::SIG_DFL || before.sa_sigaction == libc::SIG_IGN {
        return give_up(signal);
    }
    // SAFETY: the handler that was installed before, called with what the kernel passes to a handler of its type.
    unsafe {
        if before.sa_flags & libc::SA_SIGINFO != 0 {
            type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Action>(before.sa_sigaction)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(before.sa_sigaction)(signal);
        }
    }
}

/// Restores the default action: when the handler returns, the fault happens again and ends the process.
fn give_up(signal: libc::c_int) {
    // SAFETY: the default action is valid for any signal.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Where the byte of a SIGINT goes.
static WRITER: AtomicI32 = AtomicI32::new(-1);
/// The value of `fork_epoch` when `WRITER` was set.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// SIGINT is caught, once, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Caught(());

/// Makes the next SIGINT write a byte to `writer`.
///
/// `None` where this crate must not do that: on any OS thread but the first, and where SIGINT is handled or ignored
/// already.
pub(crate) fn catch_ctrl_c(writer: &'static OwnedFd) -> Option<Caught> {
    if !thread::is_main() || on_sigint() != libc::SIG_DFL {
        return None;
    }
    EPOCH.store(fork_epoch(), Ordering::Release);
    WRITER.store(writer.as_raw_fd(), Ordering::Release);
    let flags = libc::SA_RESETHAND | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the handler has the type that is required without SA_SIGINFO, lives as long as the program, and may run
    // anywhere (SIGNAL-1).
    unsafe { install(libc::SIGINT, interrupted as extern "C" fn(_) as usize, flags) };
    Some(Caught(()))
}

impl Drop for Caught {
    fn drop(&mut self) {
        if on_sigint() == interrupted as extern "C" fn(_) as usize {
            // SAFETY: the default action is valid for any signal.
            unsafe { install(libc::SIGINT, libc::SIG_DFL, 0) };
        }
    }
}

/// The handler that SIGINT has now.
fn on_sigint() -> usize {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: reads the handler in use. All-zero is a valid `sigaction`.
    unsafe {
        libc::sigaction(libc::SIGINT, ptr::null(), now.as_mut_ptr());
        now.assume_init().sa_sigaction
    }
}

extern "C" fn interrupted(signal: libc::c_int) {
    if on_sigint() != libc::SIG_DFL {
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
    // SAFETY: SIGNAL-2: the descriptor stays open as long as the process lives.
    let writer = unsafe { BorrowedFd::borrow_raw(WRITER.load(Ordering::Acquire)) };
    // The pipe holds far more bytes than are ever written to it.
    let _ = rustix::io::write(writer, &[0]);
}

/// The alternate signal stack that this crate has given to an OS thread; 0 if it has given none.
struct AltStack(Cell<usize>);

const ALT_SIZE: usize = 64 * 1024;

thread_local! {
    static ALT: AltStack = const { AltStack(Cell::new(0)) };
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let at = self.0.get();
        if at != 0 {
            let off = libc::stack_t {
                ss_sp: ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: ALT_SIZE,
            };
            // SAFETY: SIGNAL-3: it is taken out of use first, unless other code has installed another alternate stack
            // meanwhile.
            unsafe {
                if present().ss_sp.addr() == at {
                    libc::sigaltstack(&off, ptr::null_mut());
                }
                super::mem::unmap(at, ALT_SIZE);
            }
        }
    }
}

/// The alternate stack of this OS thread.
fn present() -> libc::stack_t {
    let mut now = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: reads the alternate stack in use. All-zero is a valid `stack_t`.
    unsafe {
        libc::sigaltstack(ptr::null(), now.as_mut_ptr());
        now.assume_init()
    }
}

/// The flags of this OS thread's alternate stack. The system call itself: patched libc asks for them at each call that
/// may park, and `sigaltstack` is one.
#[cfg(all(feature = "monkey", target_os = "linux"))]
pub(crate) fn alt_stack_flags() -> libc::c_int {
    let mut now = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: with a null new stack, `sigaltstack` only writes to a local, for which all-zero is valid.
    unsafe {
        libc::syscall(libc::SYS_sigaltstack, ptr::null::<libc::stack_t>(), now.as_mut_ptr());
        now.assume_init().ss_flags
    }
}

/// Makes sure that this OS thread has an alternate signal stack of at least 64 KiB: a handler cannot run on the stack
/// that overflowed. std's has 8 KiB, and the saved registers of two signals leave next to nothing of that.
pub(crate) fn ensure_alt_stack() {
    let now = present();
    if now.ss_flags & libc::SS_DISABLE == 0 && now.ss_size >= ALT_SIZE {
        return;
    }
    let Ok(at) = super::mem::map(ALT_SIZE) else {
        return;
    };
    let stack = libc::stack_t {
        ss_sp: at as *mut _,
        ss_flags: 0,
        ss_size: ALT_SIZE,
    };
    // SAFETY: fresh memory of that size, which stays mapped until the OS thread ends (SIGNAL-3).
    if unsafe { libc::sigaltstack(&stack, ptr::null_mut()) } != 0 {
        // SAFETY: the kernel refused it (too small for the registers of this processor), so it is not in use.
        return unsafe { super::mem::unmap(at, ALT_SIZE) };
    }
    // If the thread-locals have ended already, the stack stays for as long as the process lives.
    let _ = ALT.try_with(|alt| alt.0.set(at));
}

/// Writes to stderr from a signal handler, if stderr takes it within a second. A full stderr that has no reader must
/// not keep the process from its end.
pub(crate) fn write_stderr(mut text: &[u8]) {
    // rustix's `poll`: one system call, and not libc's function, which may be patched.
    if !super::report::is_writable(std::io::stderr().as_fd(), Duration::from_secs(1)) {
        return;
    }
    while !text.is_empty() {
        // SAFETY: the pointer and the length are those of a slice.
        let wrote = unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        match usize::try_from(wrote) {
            Ok(n) if n > 0 => text = text.get(n..).unwrap_or_default(),
            _ if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
            _ => return,
        }
    }
}

/// Ends the process from a signal handler.
pub(crate) fn abort() -> ! {
    // SAFETY: `abort` is async-signal-safe, and does not return.
    unsafe { libc::abort() }
}

/// The signals that end a process that aborts, and one that faults.
#[cfg(test)]
pub(crate) const ABORTED: i32 = libc::SIGABRT;
#[cfg(test)]
pub(crate) const FAULTED: i32 = libc::SIGSEGV;

/// Runs `body` on an OS thread that std did not make, and which therefore has no alternate stack.
#[cfg(test)]
pub(crate) fn on_a_bare_thread(mut body: fn()) {
    extern "C" fn start(body: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: the address of `body` below, which outlives the join.
        unsafe { (*body.cast::<fn()>())() };
        ptr::null_mut()
    }
    let mut id = MaybeUninit::uninit();
    // SAFETY: `body` outlives the OS thread, which is joined at once.
    unsafe {
        assert_eq!(
            libc::pthread_create(id.as_mut_ptr(), ptr::null(), start, (&raw mut body).cast()),
            0
        );
        libc::pthread_join(id.assume_init(), ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_thread_has_its_alternate_stack_until_it_ends() {
        on_a_bare_thread(|| {
            assert_ne!(present().ss_flags & libc::SS_DISABLE, 0);
            ensure_alt_stack();
            let first = present().ss_sp;
            ensure_alt_stack();
            assert_eq!((present().ss_flags, present().ss_sp), (0, first));
        });
    }
}
