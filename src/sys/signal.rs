//! The fault handler: installed once, after std's, and chained to it.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the handlers were before ours: SIGSEGV, SIGBUS.
static BEFORE: OnceLock<[libc::sigaction; 2]> = OnceLock::new();
static LOOK: AtomicUsize = AtomicUsize::new(0);

/// Has `look` called with the address of every memory fault, on the alternate stack; it returns if the fault is not its.
///
/// `look` runs in a signal handler: no allocation, no locks.
pub(crate) fn on_fault(look: fn(usize)) {
    LOOK.store(look as usize, Ordering::Release);
    BEFORE.get_or_init(|| [install(libc::SIGSEGV), install(libc::SIGBUS)]);
}

fn install(signal: libc::c_int) -> libc::sigaction {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all-zero is a valid `sigaction`; both pointers are to whole ones; the handler has the type that
    // SA_SIGINFO asks for, and lives as long as the program.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler as extern "C" fn(_, _, _) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, before.as_mut_ptr());
        before.assume_init()
    }
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let look = LOOK.load(Ordering::Acquire);
    // SAFETY: the kernel hands a whole `siginfo_t`; `LOOK` holds a `fn(usize)` since before this was installed.
    unsafe {
        let address = (*info).si_addr().addr();
        std::mem::transmute::<usize, fn(usize)>(look)(address);
    }
    let Some(before) = BEFORE.get() else {
        return give_up(signal);
    };
    let before = before[usize::from(signal == libc::SIGBUS)];
    if before.sa_sigaction == libc::SIG_DFL || before.sa_sigaction == libc::SIG_IGN {
        return give_up(signal);
    }
    // SAFETY: what was installed before us, called as the kernel would have.
    unsafe {
        if before.sa_flags & libc::SA_SIGINFO != 0 {
            type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Action>(before.sa_sigaction)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(before.sa_sigaction)(signal);
        }
    }
}

/// Lets the fault happen again, with nobody to handle it.
fn give_up(signal: libc::c_int) {
    // SAFETY: the default action is always valid.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// An alternate signal stack for an OS thread that std did not make.
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
            // SAFETY: taken out of use first, then unmapped; it was ours alone.
            unsafe {
                libc::sigaltstack(&off, ptr::null_mut());
                super::mem::unmap(at, ALT_SIZE);
            }
        }
    }
}

/// Sees to it that this OS thread has an alternate signal stack: a handler cannot run on the one that overflowed.
pub(crate) fn ensure_alt_stack() {
    let mut now = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: asks for the present one.
    let has_one = unsafe {
        libc::sigaltstack(ptr::null(), now.as_mut_ptr());
        now.assume_init().ss_flags & libc::SS_DISABLE == 0
    };
    if has_one {
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
    // SAFETY: fresh memory of that size, kept until the OS thread ends.
    unsafe { libc::sigaltstack(&stack, ptr::null_mut()) };
    let _ = ALT.try_with(|alt| alt.0.set(at));
}

/// Writes to stderr from a signal handler.
pub(crate) fn write_stderr(text: &[u8]) {
    // SAFETY: a plain write of a whole slice.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

/// Ends the process from a signal handler.
pub(crate) fn abort() -> ! {
    // SAFETY: async-signal-safe, and does not return.
    unsafe { libc::abort() }
}
