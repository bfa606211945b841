//! Signals. Handlers: records the program's handlers, marks the code that runs in one, and has them interrupt a parked
//! call.
//!
//! When the program installs a handler, a *stand-in* of this module is installed, which calls the program's handler and
//! knows whether it has `SA_RESTART`. `sigaction` and `signal` return the program's own. Handlers of faults (SIGSEGV
//! and the like) have no stand-in.
//!
//! Also the waits for signals: a signalfd is readable when a signal is pending, so the hub can wait for it.
//!
//! # Invariants
//! - **HANDLER-1** Code that runs in a handler takes no lock and allocates nothing. The same holds for code that
//!   installs a handler, because a handler may install one.
//! - **HANDLER-2** If a stand-in is installed for a signal, `ACTIONS` has the program's handler of that signal.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use libc::{c_int, c_void, sighandler_t, siginfo_t, sigset_t, timespec};

use super::call::{self, Waited, wait_or_signal};
use super::gate::{FRAME, is_on_alternate_stack};
use super::offload::on_own_thread_or_fail;
use super::symbol::{Lent, errno, fail, patch, set_errno};
use super::{ready, sleep};
use crate::hub::{Direction, Handlers, Hub};

patch! {
    READINESS sigtimedwait(set: *const sigset_t, info: *mut siginfo_t, time: *const timespec) -> c_int => sigtimedwait_green;
    READINESS sigwaitinfo(set: *const sigset_t, info: *mut siginfo_t) -> c_int => sigwaitinfo_green;
    READINESS sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int => sigwait_green;
    READINESS pause() -> c_int => pause_green;
    READINESS sigsuspend(mask: *const sigset_t) -> c_int => sigsuspend_green;
}

/// libc's own definitions of the calls that install handlers.
pub(in crate::monkey) mod actions {
    use super::*;

    super::super::symbol::originals! {
        sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
        signal(signal: c_int, handler: sighandler_t) -> sighandler_t;
        bsd_signal(signal: c_int, handler: sighandler_t) -> sighandler_t;
        __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t;
        siginterrupt(signal: c_int, interrupts: c_int) -> c_int;
    }
}

pub(super) fn action_symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! { ANY sigaction ANY signal ANY bsd_signal ANY __sysv_signal ANY siginterrupt }
}

/// A time-out of 0: a call with it does not wait.
const NOW: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

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
    // SAFETY: HANDLER-2: the program has installed this handler for this signal. `WITH_INFO` says which of the two
    // types it has.
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
            let result = actions::sigaction(signal, new, old);
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
    // Before the kernel can call the stand-in (HANDLER-2). A signal that comes between this and the system call may run
    // the new handler already, as it would a moment later.
    let known = ACTIONS[signal as usize].swap(mine, Ordering::SeqCst);
    // SAFETY: `action` is the caller's with a stand-in, which has the type for `SA_SIGINFO`; `old` is null or writable,
    // as the caller guarantees.
    unsafe {
        let result = actions::sigaction(signal, &raw const action, old);
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

unsafe fn sigtimedwait_green(
    hub: &'static Hub,
    set: *const sigset_t,
    info: *mut siginfo_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller guarantees a set, and that `info` is null or writable. With a time-out of 0 it does not wait.
    let look = || unsafe { original::sigtimedwait(set, info, &NOW) };
    // SAFETY: `time` is null or readable, as the caller guarantees.
    let time = match unsafe { time.as_ref() } {
        None => None,
        Some(time) => match sleep::duration(time) {
            Some(time) => Some(time),
            None => return fail(libc::EINVAL),
        },
    };
    if let Err(failed) = call::begin(hub, "sigtimedwait", || time == Some(Duration::ZERO)) {
        return failed;
    }
    let before = errno();
    let found = look();
    if found >= 0 || errno() != libc::EAGAIN || time == Some(Duration::ZERO) {
        return found;
    }
    // The signalfd is only waited for: the signal itself is taken by `look`, which fills in `info`.
    // SAFETY: the caller guarantees a set; the descriptor was just made, and nothing else owns it.
    let signals = unsafe {
        let raw = libc::signalfd(-1, set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if raw < 0 {
            return -1;
        }
        OwnedFd::from_raw_fd(raw)
    };
    let deadline = time.map(|time| hub.deadline_in(time));
    loop {
        let signals = signals.as_raw_fd();
        match wait_or_signal(hub, signals, Direction::Read, deadline, "sigtimedwait", Handlers::All) {
            Waited::Ready => {}
            Waited::TimedOut => return look(),
            Waited::Interrupted(error) | Waited::Failed(error) => return fail(error),
        }
        set_errno(before);
        // Another thread may have taken the signal: then wait on.
        let found = look();
        if found >= 0 || errno() != libc::EAGAIN {
            return found;
        }
    }
}

unsafe fn sigwaitinfo_green(hub: &'static Hub, set: *const sigset_t, info: *mut siginfo_t) -> c_int {
    // SAFETY: the caller guarantees a set, and that `info` is null or writable.
    unsafe { sigtimedwait_green(hub, set, info, std::ptr::null()) }
}

unsafe fn sigwait_green(hub: &'static Hub, set: *const sigset_t, signal: *mut c_int) -> c_int {
    let before = errno();
    loop {
        // SAFETY: the caller guarantees a set.
        let found = unsafe { sigtimedwait_green(hub, set, std::ptr::null_mut(), std::ptr::null()) };
        // sigwait returns its error, leaves errno alone, and never fails with `EINTR`.
        let error = errno();
        set_errno(before);
        match error {
            _ if found > 0 => {
                // SAFETY: the caller guarantees that `signal` is writable.
                unsafe { *signal = found };
                return 0;
            }
            libc::EINTR => {}
            error => return error,
        }
    }
}

/// Waits until a signal handler has run. Handlers interrupt the main green thread only; any other one waits until it is
/// killed.
unsafe fn pause_green(hub: &'static Hub) -> c_int {
    ready::wait_for_signal(hub, None)
}

unsafe fn sigsuspend_green(hub: &'static Hub, mask: *const sigset_t) -> c_int {
    // SAFETY: the caller guarantees a mask.
    unsafe {
        if ready::is_in_force(mask) {
            return ready::wait_for_signal(hub, None);
        }
        on_own_thread_or_fail(Lent::new(|| original::sigsuspend(mask)))
    }
}
