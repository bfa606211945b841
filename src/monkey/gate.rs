//! The two ends of a patched call: which calls may park, and what a call returns.
//!
//! Nothing unwinds out of a patched call, because its callers are compiled as though it could not: this crate's own
//! code runs in [`contained`], and a kill or a time-out is reported by an errno.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::c_int;
use rustix::thread::{MembarrierCommand, membarrier};

use crate::hub::{Hub, Mode, Parker, Why, interrupt};
use crate::stack;
use crate::sys::signal::alt_stack_flags;
use crate::sys::{base, inside};

// The groups of calls, a bit each, so that one atomic word says which groups a program has armed.
pub(super) const SOCKETS: u32 = 1;
pub(super) const TIME: u32 = 2;
pub(super) const READINESS: u32 = 4;
pub(super) const NAMES: u32 = 8;
pub(super) const PROCESSES: u32 = 16;
pub(super) const LOCKS: u32 = 32;
pub(super) const THREADS: u32 = 64;
pub(super) const SHARED: u32 = 128;

/// All groups of calls. A symbol of this group counts as armed when any group is.
pub(super) const ANY: u32 = SHARED - 1;

/// The groups that are armed, and [`SHARED`]. Nothing is ever disarmed.
static ARMED: AtomicU32 = AtomicU32::new(0);

/// Arms groups of calls. Has every OS thread see that at once: wakes check it by a relaxed load, and without this
/// barrier a wake by another OS thread could miss a green thread that parks from now on.
pub(super) fn arm(groups: u32) {
    if ARMED.fetch_or(groups, Ordering::SeqCst) != 0 {
        return;
    }
    // The kernel refuses the fast barrier until the process has registered for it, and has none before Linux 4.14. The
    // slow one is there since 4.3. Without either (an older kernel, a filter of system calls) other OS threads still
    // see the store within nanoseconds; nothing but the guarantee is missing.
    let fast = membarrier(MembarrierCommand::RegisterPrivateExpedited)
        .and_then(|()| membarrier(MembarrierCommand::PrivateExpedited));
    if fast.is_err() {
        let _ = membarrier(MembarrierCommand::Global);
    }
}

/// The groups that are armed.
pub(super) fn armed() -> u32 {
    ARMED.load(Ordering::SeqCst)
}

/// Whether any call is armed.
#[inline]
pub(super) fn is_armed() -> bool {
    ARMED.load(Ordering::Relaxed) != 0
}

/// Whether a call is the original without a further check: the code runs in the native context, and calls do not park
/// there.
#[inline(always)]
pub(super) fn passes() -> bool {
    base::is_native() && ARMED.load(Ordering::Relaxed) & SHARED == 0
}

/// The hub, if this call may park; `None` if it is the original and blocks (MONKEY-1).
#[inline(always)]
pub(super) fn gate(group: u32) -> Option<&'static Hub> {
    if passes() {
        return None;
    }
    gate_here(group)
}

/// As [`gate`], for a caller that has asked [`passes`]. Out of line, so that the fast path saves no registers.
#[inline(never)]
pub(super) fn gate_here(group: u32) -> Option<&'static Hub> {
    let armed = ARMED.load(Ordering::Relaxed);
    // Calls of this crate's own, and an allocator below a change of this crate's state: MONKEY-1.
    if armed & group == 0 || inside::is_inside() {
        return None;
    }
    // A signal handler's stack may be small: check for one before the checks that need more stack.
    let hub = Hub::try_current()?;
    if is_in_handler(hub) || !hub.may_park_patched(armed & SHARED != 0) {
        return None;
    }
    // Signals that came before this call do not interrupt it. Locks are never interrupted, and may be taken in the
    // middle of a call that is (by an allocator, say): they must not clear what that call still has to report.
    if group != LOCKS {
        hub.forget_signals();
    }
    Some(hub)
}

thread_local! {
    /// The address of the frame of the innermost signal handler that runs on the stack which it has interrupted; 0 if
    /// there is none. The stand-ins of [`signals`](super::signals) set it.
    pub(super) static FRAME: Cell<usize> = const { Cell::new(0) };
}

/// Whether the running code is a signal handler. A handler must not park: the code that it has interrupted may hold any
/// lock, and the alternate stack belongs to the OS thread, not to the green thread.
#[inline]
fn is_in_handler(hub: &Hub) -> bool {
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
pub(super) fn is_on_alternate_stack(here: usize, is_green: bool) -> bool {
    let flags = alt_stack_flags();
    // The kernel says so, except for an alternate stack that is switched off while a handler uses it (`SS_AUTODISARM`):
    // then a green thread's code runs on a stack that this crate does not know.
    flags & libc::SS_ONSTACK != 0 || flags & libc::SS_DISABLE != 0 && is_green && !stack::is_on_one(here)
}

/// Reports the kill or the time-out that is due to the caller of a patched call, and gives the errno that says it. If
/// the caller ignores it, a line on stderr follows, and after a kill the green thread is set aside in the end.
pub(super) fn interrupted(hub: &'static Hub, call: &str) -> c_int {
    let task = hub.running();
    let is_kill = interrupt::is_kill_due(task);
    // From now on the green thread counts as told: its end, or the guard's, reports the interrupt as well.
    interrupt::tell(task);
    // Counted for each reason on its own, so that a new time-out starts at 1.
    let times = hub.count_refusal(interrupt::due_number(task));
    if times == 16 {
        let what = if is_kill { "killed" } else { "timed out" };
        crate::hub::complain(format_args!(
            "{} has been told 16 times that it is {what}, and still calls {call}",
            crate::hub::Reporter::of(task).name
        ));
    }
    // Only a kill: code that ignores a time-out ends when it leaves `Timeout::run`, but a kill stays due for ever.
    if times >= 1000 && is_kill {
        crate::hub::complain(format_args!(
            "{} is set aside for good: it was told 1000 times that it is killed",
            crate::hub::Reporter::of(task).name
        ));
        loop {
            Parker::new().park(None, Mode::Must, Why::new(&ASIDE, 0));
        }
    }
    let errno = if is_kill { libc::ECANCELED } else { libc::ETIMEDOUT };
    if times > 1 {
        // The call failed without parking. Let others run, or a loop that ignores the error would keep the hub. The
        // shield keeps the yield from delivering the same interrupt, and nothing may unwind from here.
        crate::thread::shield(|| drop(std::panic::catch_unwind(AssertUnwindSafe(crate::thread::yield_now))));
    }
    errno
}

static ASIDE: &str = "nothing: it was set aside for ignoring its kill";

/// Runs `f`, which is code of this crate. `None`: it panicked. The payload is discarded, because nothing may unwind out
/// of a patched call.
pub(super) fn contained<T>(f: impl FnOnce() -> T) -> Option<T> {
    match std::panic::catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(payload) => {
            crate::hub::discard(payload);
            None
        }
    }
}
