//! Signal handlers: which there are, whether the code that runs is one, and that they interrupt a parked call.
//!
//! What a program installs is called by a handler of ours, which knows whether it was to have `SA_RESTART`; `sigaction`
//! and `signal` show the program's own. Those of faults (SIGSEGV and the like) are left alone.
//!
//! # Invariants
//! - **H1** What runs in a handler takes no lock and allocates nothing, and so does what installs one: a handler may.
//! - **H2** Of each signal whose handler the kernel takes for one of ours, `ACTIONS` has the program's.

use std::cell::Cell;
use std::mem::zeroed;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::{c_int, c_void, sighandler_t, siginfo_t};

use super::{errno, fail, set_errno};
use crate::hub::Hub;
use crate::stack;

/// What libc does.
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

/// It was installed with `SA_SIGINFO`. No address in a program has this bit.
const WITH_INFO: usize = 1 << 63;

/// Signals that `siginterrupt` has told to interrupt, where `signal` installs a handler.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// Faults of the code that runs: their handlers may well leave by a jump.
const FAULTS: [c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
];

thread_local! {
    /// Where the frame of the innermost handler lies that runs on the stack it has interrupted; 0: none does.
    static FRAME: Cell<usize> = const { Cell::new(0) };
}

/// Whether the code that runs is a signal handler, which is not to park: what it has interrupted may hold any lock, and
/// the alternate stack is the OS thread's.
#[inline]
pub(super) fn is_in_one(hub: &Hub) -> bool {
    let here = 0_u8;
    let here = (&raw const here).addr();
    let frame = FRAME.get();
    if frame != 0 {
        if here < frame {
            return true;
        }
        // Left by a jump.
        FRAME.set(0);
    }
    match hub.stack_base() {
        Some(base) if base.wrapping_sub(here) < stack::LEAST_USABLE => false,
        base => is_on_alternate_stack(here, base.is_some()),
    }
}

/// Whether this address of the stack pointer, now, lies on the alternate stack. Elsewhere it is a green thread's own
/// stack, or one that it has made for itself to go deeper.
#[cold]
fn is_on_alternate_stack(here: usize, is_green: bool) -> bool {
    // SAFETY: asks for the present one; all-zero is a valid `stack_t`.
    let flags = unsafe {
        let mut now: libc::stack_t = zeroed();
        super::threads::original::sigaltstack(std::ptr::null(), &raw mut now);
        now.ss_flags
    };
    // There is one, unless it is switched off while a handler uses it.
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

/// Calls the program's handler.
#[inline(never)]
fn caught(signal: c_int, info: *mut siginfo_t, context: *mut c_void, interrupts: bool) {
    let here = 0_u8;
    let here = (&raw const here).addr();
    let before = errno();
    let outer = (!is_on_alternate_stack(here, false)).then(|| FRAME.replace(here));
    set_errno(before);
    let action = ACTIONS[signal as usize].load(Ordering::SeqCst);
    let handler = action & !WITH_INFO;
    // SAFETY: H2: a handler that the program has installed for this signal, of the type that it said.
    unsafe {
        if action & WITH_INFO != 0 {
            std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
        }
    }
    let after = errno();
    if let Some(hub) = Hub::try_current() {
        hub.caught(interrupts);
    }
    set_errno(after);
    if let Some(outer) = outer {
        FRAME.set(outer);
    }
}

/// What is put in place of a handler of the program; `None`: nothing is.
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

/// Ahead of libc's: the program's handler is called by one of ours.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    // SAFETY: the caller's, as libc's: null or an action.
    let stand_in = unsafe { new.as_ref() }.and_then(|new| Some((*new, stand_in(signal, new)?)));
    let Some((mut action, handler)) = stand_in else {
        let known = ACTIONS.get(signal as usize).map_or(0, |a| a.load(Ordering::SeqCst));
        // SAFETY: the caller's, as libc's.
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
    let mine = action.sa_sigaction | with_info;
    action.sa_sigaction = handler as usize;
    action.sa_flags |= libc::SA_SIGINFO;
    // Before the kernel may call ours (H2). An older handler's signal that comes now is the new one's, as it would be a
    // moment later.
    let known = ACTIONS[signal as usize].swap(mine, Ordering::SeqCst);
    // SAFETY: the caller's, as libc's; a handler of ours that takes what `SA_SIGINFO` gives.
    unsafe {
        let result = original::sigaction(signal, &raw const action, old);
        if result == 0 {
            show(old, known);
        } else {
            let _ = ACTIONS[signal as usize].compare_exchange(mine, known, Ordering::SeqCst, Ordering::SeqCst);
        }
        result
    }
}

/// Puts the program's handler in the place of ours, in what the kernel says was installed.
///
/// # Safety
/// `old` is null or an action.
unsafe fn show(old: *mut libc::sigaction, known: usize) {
    // SAFETY: the caller's.
    if let Some(old) = unsafe { old.as_mut() }
        && is_ours(old.sa_sigaction)
    {
        old.sa_sigaction = known & !WITH_INFO;
        if known & WITH_INFO == 0 {
            old.sa_flags &= !libc::SA_SIGINFO;
        }
    }
}

/// As libc's `signal` and its kin.
unsafe fn install(signal: c_int, handler: sighandler_t, flags: c_int, blocks_itself: bool) -> sighandler_t {
    if handler == libc::SIG_ERR || !(1..SIGNALS as c_int).contains(&signal) {
        fail(libc::EINVAL);
        return libc::SIG_ERR;
    }
    // SAFETY: all-zero is a valid action; the handler is the caller's affair.
    unsafe {
        let (mut new, mut old): (libc::sigaction, libc::sigaction) = (zeroed(), zeroed());
        new.sa_sigaction = handler;
        new.sa_flags = flags;
        if blocks_itself {
            libc::sigaddset(&raw mut new.sa_mask, signal);
        }
        match sigaction(signal, &raw const new, &raw mut old) {
            0 => old.sa_sigaction,
            _ => libc::SIG_ERR,
        }
    }
}

/// Ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    let bit = 1_u64.checked_shl(signal.wrapping_sub(1) as u32).unwrap_or(0);
    let interrupts = INTERRUPTING.load(Ordering::SeqCst) & bit != 0;
    let flags = if interrupts { 0 } else { libc::SA_RESTART };
    // SAFETY: the caller's, as libc's.
    unsafe { install(signal, handler, flags, true) }
}

/// Ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn bsd_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller's, as libc's.
    unsafe { signal(number, handler) }
}

/// Ahead of libc's: what `signal` is in a C program that asks for strict ISO C.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller's, as libc's.
    unsafe { install(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER, false) }
}

/// Ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn siginterrupt(signal: c_int, interrupts: c_int) -> c_int {
    // SAFETY: all-zero is a valid action, and it is put back but for one flag.
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
