//! Signal handlers: records the program's handlers, tells whether the running code is one, and has them interrupt a
//! parked call.
//!
//! When the program installs a handler, a *stand-in* of this module is installed, which calls the program's handler and
//! knows whether it has `SA_RESTART`. `sigaction` and `signal` return the program's own. Handlers of faults (SIGSEGV
//! and the like) have no stand-in.
//!
//! # Invariants
//! - **H1** Code that runs in a handler takes no lock and allocates nothing. The same holds for code that installs a
//!   handler, because a handler may install one.
//! - **H2** If a stand-in is installed for a signal, `ACTIONS` has the program's handler of that signal.

use std::cell::Cell;
use std::mem::zeroed;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::{c_int, c_void, sighandler_t, siginfo_t};

use super::{errno, fail, set_errno};
use crate::hub::Hub;
use crate::stack;

/// libc's own definitions.
pub(in crate::monkey) mod original {
    use super::*;

    super::super::symbol::originals! {
        sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
        signal(signal: c_int, handler: sighandler_t) -> sighandler_t;
        bsd_signal(signal: c_int, handler: sighandler_t) -> sighandler_t;
        __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t;
        siginterrupt(signal: c_int, interrupts: c_int) -> c_int;
    }
}

pub(super) fn symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! { ANY sigaction ANY signal ANY bsd_signal ANY __sysv_signal ANY siginterrupt }
}

/// One more than the greatest signal.
const SIGNALS: usize = 65;

/// The program's handler of each signal, with [`WITH_INFO`].
static ACTIONS: [AtomicUsize; SIGNALS] = [const { AtomicUsize::new(0) }; SIGNALS];

/// A bit of an entry of [`ACTIONS`]: the handler was installed with `SA_SIGINFO`. No address in a program has this bit.
const WITH_INFO: usize = 1 << 63;

/// The signals, a bit each, for which `siginterrupt` has asked that handlers installed by `signal` interrupt calls.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// The signals of faults. They get no stand-in, because their handlers often leave by a jump.
const FAULTS: [c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
];

thread_local! {
    /// The address of the frame of the innermost handler that runs on the stack which it has interrupted; 0 if there is
    /// none.
    static FRAME: Cell<usize> = const { Cell::new(0) };
}

/// Whether the running code is a signal handler. A handler must not park: the code that it has interrupted may hold any
/// lock, and the alternate stack belongs to the OS thread, not to the green thread.
#[inline]
pub(super) fn is_in_one(hub: &Hub) -> bool {
    let here = 0_u8;
    let here = (&raw const here).addr();
    let frame = FRAME.get();
    // Stacks grow downwards: code that a handler has called lies below the handler's frame.
    if frame != 0 {
        if here < frame {
            return true;
        }
        // The handler was left by a jump, which does not reset the frame.
        FRAME.set(0);
    }
    // So near below its base, the running stack is certainly a green thread's own, and needs no system call to tell.
    match hub.stack_base() {
        Some(base) if base.wrapping_sub(here) < stack::LEAST_USABLE => false,
        base => is_on_alternate_stack(here, base.is_some()),
    }
}

/// Whether `here`, the stack pointer now, lies on the OS thread's alternate stack. If not, it lies on a green thread's
/// own stack, or on one that the green thread has made to go deeper.
#[cold]
fn is_on_alternate_stack(here: usize, is_green: bool) -> bool {
    // SAFETY: with a null new stack, `sigaltstack` only writes to a local, for which all-zero is valid.
    let flags = unsafe {
        let mut now: libc::stack_t = zeroed();
        super::threads::original::sigaltstack(std::ptr::null(), &raw mut now);
        now.ss_flags
    };
    // The kernel says so, except for an alternate stack that is switched off while a handler uses it (`SS_AUTODISARM`):
    // then a green thread's code runs on a stack that this crate does not know.
    flags & libc::SS_ONSTACK != 0 || flags & libc::SS_DISABLE != 0 && is_green && !stack::is_on_one(here)
}

extern "C" fn restarting(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    caught(signal, info, context, false);
}

extern "C" fn interrupting(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    caught(signal, info, context, true);
}

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

fn is_ours(handler: sighandler_t) -> bool {
    [restarting as Handler, interrupting as Handler]
        .iter()
        .any(|ours| *ours as usize == handler)
}

/// Calls the program's handler, and tells the hub.
#[inline(never)]
fn caught(signal: c_int, info: *mut siginfo_t, context: *mut c_void, interrupts: bool) {
    let here = 0_u8;
    let here = (&raw const here).addr();
    let before = errno();
    // On the alternate stack the kernel's flag shows that a handler runs; elsewhere the frame's address does.
    let outer = (!is_on_alternate_stack(here, false)).then(|| FRAME.replace(here));
    set_errno(before);
    let action = ACTIONS[signal as usize].load(Ordering::SeqCst);
    let handler = action & !WITH_INFO;
    // SAFETY: H2: the program has installed this handler for this signal. `WITH_INFO` says which of the two types it
    // has.
    unsafe {
        if action & WITH_INFO != 0 {
            std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
        }
    }
    let after = errno();
    // After the handler: the call that it interrupts returns when the handler has run.
    if let Some(hub) = Hub::try_current() {
        hub.caught(interrupts);
    }
    set_errno(after);
    if let Some(outer) = outer {
        FRAME.set(outer);
    }
}

/// The stand-in for an action of the program; `None` if the action is installed as it is.
fn stand_in(signal: c_int, new: &libc::sigaction) -> Option<Handler> {
    let is_none = [libc::SIG_DFL, libc::SIG_IGN, libc::SIG_ERR].contains(&new.sa_sigaction);
    if is_none || is_ours(new.sa_sigaction) || FAULTS.contains(&signal) || !(1..SIGNALS as c_int).contains(&signal) {
        return None;
    }
    Some(if new.sa_flags & libc::SA_RESTART != 0 {
        restarting
    } else {
        interrupting
    })
}

/// Defined ahead of libc's: installs a stand-in, which calls the program's handler.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    // SAFETY: the caller guarantees that `new` is null or an action.
    let stand_in = unsafe { new.as_ref() }.and_then(|new| Some((*new, stand_in(signal, new)?)));
    let Some((mut action, handler)) = stand_in else {
        let known = ACTIONS.get(signal as usize).map_or(0, |a| a.load(Ordering::SeqCst));
        // SAFETY: the caller guarantees that `new` is null or an action, and `old` null or writable.
        unsafe {
            let result = original::sigaction(signal, new, old);
            if result == 0 {
                show(old, known);
            }
            return result;
        }
    };
    let with_info = if action.sa_flags & libc::SA_SIGINFO != 0 {
        WITH_INFO
    } else {
        0
    };
    // The stand-in needs `SA_SIGINFO` for itself, so remember whether the program's handler has it.
    let mine = action.sa_sigaction | with_info;
    action.sa_sigaction = handler as usize;
    action.sa_flags |= libc::SA_SIGINFO;
    // Before the kernel can call the stand-in (H2). A signal that comes between this and the system call may run the
    // new handler already, as it would a moment later.
    let known = ACTIONS[signal as usize].swap(mine, Ordering::SeqCst);
    // SAFETY: `action` is the caller's with a stand-in, which has the type for `SA_SIGINFO`; `old` is null or writable,
    // as the caller guarantees.
    unsafe {
        let result = original::sigaction(signal, &raw const action, old);
        if result == 0 {
            show(old, known);
        } else {
            // Taken back, unless another thread has installed a handler meanwhile.
            let _ = ACTIONS[signal as usize].compare_exchange(mine, known, Ordering::SeqCst, Ordering::SeqCst);
        }
        result
    }
}

/// Replaces a stand-in by the program's handler, in the old action that the kernel has returned.
///
/// # Safety
/// `old` is null or an action.
unsafe fn show(old: *mut libc::sigaction, known: usize) {
    // SAFETY: `old` is null or an action, as the caller guarantees.
    if let Some(old) = unsafe { old.as_mut() }
        && is_ours(old.sa_sigaction)
    {
        old.sa_sigaction = known & !WITH_INFO;
        // The stand-in's `SA_SIGINFO` is not the program's.
        if known & WITH_INFO == 0 {
            old.sa_flags &= !libc::SA_SIGINFO;
        }
    }
}

/// Installs a handler as libc's `signal` and its variants do.
unsafe fn install(signal: c_int, handler: sighandler_t, flags: c_int, blocks_itself: bool) -> sighandler_t {
    if handler == libc::SIG_ERR || !(1..SIGNALS as c_int).contains(&signal) {
        fail(libc::EINVAL);
        return libc::SIG_ERR;
    }
    // SAFETY: an all-zero action is valid, and the caller guarantees that `handler` is a handler or one of the
    // constants.
    unsafe {
        let (mut new, mut old): (libc::sigaction, libc::sigaction) = (zeroed(), zeroed());
        new.sa_sigaction = handler;
        new.sa_flags = flags;
        // `signal` blocks the signal while its handler runs.
        if blocks_itself {
            libc::sigaddset(&raw mut new.sa_mask, signal);
        }
        match sigaction(signal, &raw const new, &raw mut old) {
            0 => old.sa_sigaction,
            _ => libc::SIG_ERR,
        }
    }
}

/// Defined ahead of libc's: BSD's semantics, as in glibc.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    let bit = 1_u64.checked_shl(signal.wrapping_sub(1) as u32).unwrap_or(0);
    let interrupts = INTERRUPTING.load(Ordering::SeqCst) & bit != 0;
    let flags = if interrupts { 0 } else { libc::SA_RESTART };
    // SAFETY: the caller guarantees that `handler` is a handler or one of the constants.
    unsafe { install(signal, handler, flags, true) }
}

/// Defined ahead of libc's: as [`signal`].
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn bsd_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller guarantees that `handler` is a handler or one of the constants.
    unsafe { signal(number, handler) }
}

/// Defined ahead of libc's: the `signal` of a C program that is compiled as strict ISO C.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller guarantees that `handler` is a handler or one of the constants.
    unsafe { install(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER, false) }
}

/// Defined ahead of libc's: changes `SA_RESTART` of the installed handler, and of those that `signal` installs later.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn siginterrupt(signal: c_int, interrupts: c_int) -> c_int {
    // SAFETY: an all-zero action is valid. The installed action is read into it, and installed again with one flag
    // changed.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        if sigaction(signal, std::ptr::null(), &raw mut action) != 0 {
            return -1;
        }
        let bit = 1_u64.checked_shl(signal.wrapping_sub(1) as u32).unwrap_or(0);
        if interrupts != 0 {
            INTERRUPTING.fetch_or(bit, Ordering::SeqCst);
            action.sa_flags &= !libc::SA_RESTART;
        } else {
            INTERRUPTING.fetch_and(!bit, Ordering::SeqCst);
            action.sa_flags |= libc::SA_RESTART;
        }
        sigaction(signal, &raw const action, std::ptr::null_mut())
    }
}
