//! The system call by which std's locks, condition variables, channels and `thread::park` wait, and wake.
//!
//! Green threads wait in the [table], OS threads in the kernel. Waits that are shared between processes are made by an
//! OS thread in the caller's place.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{c_int, c_long, timespec};

use super::gate::{LOCKS, contained, gate, is_armed, passes};
use super::offload::on_own_thread;
use super::sleep;
use super::symbol::{Lent, errno, fail, set_errno};
use super::table::{Waiting, has_native, has_waiters, natively, wake};
use crate::hub::{Hub, Mode, Parker, Wake, Why};

/// libc's own definition.
pub(in crate::monkey) mod original {
    use super::*;

    super::super::symbol::originals! {
        syscall(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long;
    }
}

pub(super) fn symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! { LOCKS syscall }
}

/// Defined ahead of libc's: intercepts futex calls and nothing else. C's `syscall` is variadic; its arguments arrive in
/// the same registers and stack slots as the seven of this definition.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    #[inline(never)]
    unsafe extern "C-unwind" fn armed(a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long {
        let call = Futex {
            address: a as usize,
            op: b as c_int,
            value: c as u32,
            time: d as *const timespec,
            second: e as usize,
            mask: f as u32,
        };
        // SAFETY: the caller of `syscall` passes the arguments of a futex call.
        unsafe { call.carry_out() }
    }
    // SAFETY: the caller's arguments are valid for the system call `number`; they are passed on.
    unsafe {
        // Code that never parks (the native stack) matters only while the table has waiters: it may wake one, or must
        // link a native node (FUTEX-4).
        if number == libc::SYS_futex && is_armed() && (!passes() || has_waiters()) {
            armed(a, b, c, d, e, f)
        } else {
            original::syscall(number, a, b, c, d, e, f)
        }
    }
}

/// The arguments of a futex call. The methods have the same condition for their safety: they are those of a caller of
/// `syscall`, so `time` is null or readable where the command has a time-out.
#[derive(Clone, Copy)]
struct Futex {
    address: usize,
    op: c_int,
    value: u32,
    time: *const timespec,
    second: usize,
    mask: u32,
}

impl Futex {
    fn command(self) -> c_int {
        self.op & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME)
    }

    /// Has the kernel carry it out.
    ///
    /// # Safety
    /// See [`Futex`].
    unsafe fn in_kernel(self) -> c_long {
        let Futex {
            address,
            op,
            value,
            time,
            second,
            mask,
        } = self;
        let (a, b, c) = (address as c_long, c_long::from(op), c_long::from(value));
        let (d, e, f) = (time as c_long, second as c_long, c_long::from(mask));
        // SAFETY: the caller guarantees that these are the arguments of a futex call.
        unsafe { original::syscall(libc::SYS_futex, a, b, c, d, e, f) }
    }

    /// # Safety
    /// See [`Futex`].
    #[inline]
    unsafe fn carry_out(self) -> c_long {
        // SAFETY: the caller guarantees that these are the arguments of a futex call.
        unsafe {
            match self.command() {
                libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => match gate(LOCKS) {
                    Some(hub) => self.wait(hub),
                    None => self.wait_natively(),
                },
                libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET if has_waiters() => self.wake(),
                // Green waiters are not moved to another futex, nor is the operation of `FUTEX_WAKE_OP` evaluated for
                // them: all are woken, and look at the value again. The kernel does the call for OS threads.
                libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_WAKE_OP if has_waiters() => {
                    wake(self.address, usize::MAX, u32::MAX);
                    if self.command() == libc::FUTEX_WAKE_OP {
                        wake(self.second, usize::MAX, u32::MAX);
                    }
                    self.in_kernel()
                }
                _ => self.in_kernel(),
            }
        }
    }

    /// A wait of code that may not park (MONKEY-1): the OS thread waits in the kernel.
    ///
    /// # Safety
    /// See [`Futex`].
    unsafe fn wait_natively(self) -> c_long {
        // SAFETY: the caller guarantees that these are the arguments of a futex call.
        let wait = || unsafe { self.in_kernel() };
        // No native node is needed without green waiters, nor on an OS thread that has no green threads.
        if !has_waiters() || Hub::try_current().is_none() {
            return wait();
        }
        natively(self.address, wait)
    }

    /// Wakes green waiters first; OS threads in the kernel get the rest of the count.
    ///
    /// # Safety
    /// See [`Futex`].
    unsafe fn wake(self) -> c_long {
        let bits = if self.command() == libc::FUTEX_WAKE {
            u32::MAX
        } else {
            self.mask
        };
        let green = wake(self.address, self.value as usize, bits);
        let mut left = (self.value as usize).saturating_sub(green);
        if left == 0 {
            if !has_native(self.address) {
                return green as c_long;
            }
            // FUTEX-4: the woken green threads may be unable to run until the OS thread in the kernel has run.
            left = 1;
        }
        let rest = Futex {
            value: left as u32,
            ..self
        };
        // SAFETY: the caller guarantees that these are the arguments of a futex call; only the count differs.
        let others = unsafe { rest.in_kernel() };
        if others < 0 && green == 0 {
            // An error counts only if nothing was woken.
            return others;
        }
        // The extra wake of FUTEX-4 is not reported: never more than asked for.
        (others.max(0) + green as c_long).min(self.value.into())
    }

    /// A wait of a green thread.
    ///
    /// # Safety
    /// See [`Futex`].
    unsafe fn wait(self, hub: &'static Hub) -> c_long {
        let before = errno();
        // SAFETY: the caller guarantees that these are the arguments of a futex call.
        let plain = || unsafe { self.in_kernel() };
        if self.op & libc::FUTEX_PRIVATE_FLAG == 0 {
            // The futex may be shared with other processes, and their wakes do not look into the table: an OS thread
            // waits in the kernel in the caller's place.
            // SAFETY: what the call uses is the caller's, which waits.
            let waited = unsafe { on_own_thread(Lent::new(|| plain() as c_int)) };
            return waited.map_or_else(plain, c_long::from);
        }
        // Let the kernel check the arguments and the value, by a wait that ends at once: a relative time of 0 is over,
        // and so is the absolute time 0. It reports a bad address or a value that differs.
        let at_once = Futex {
            time: &timespec { tv_sec: 0, tv_nsec: 0 },
            ..self
        };
        // SAFETY: the caller guarantees that these are the arguments of a futex call; the time is a local's.
        if unsafe { at_once.in_kernel() } == 0 {
            // A wake hit that short wait. It is used up, so the caller is woken.
            return 0;
        }
        // Any other error (`EAGAIN` for a value that differs, `EFAULT`, `EINVAL`) is the result.
        if errno() != libc::ETIMEDOUT {
            return -1;
        }
        // SAFETY: the caller guarantees that the time is null or readable.
        let deadline = match unsafe { self.time_left() } {
            Some(Ok(left)) => Some(hub.deadline_in(left)),
            Some(Err(error)) => return c_long::from(fail(error)),
            None => None,
        };
        set_errno(before);
        // SAFETY: the kernel has just read the word, so it is mapped and aligned. std and C keep a futex alive while a
        // thread waits for it.
        let word = unsafe { AtomicU32::from_ptr(self.address as *mut u32) };
        match contained(|| self.park(word, deadline)) {
            Some(0) => 0,
            Some(error) => c_long::from(fail(error)),
            // This crate's code panicked: the OS thread waits in the kernel instead.
            None => plain(),
        }
    }

    /// How long the wait may last; `None` without a time-out. Fails with an errno, if the time is invalid or over.
    ///
    /// # Safety
    /// See [`Futex`].
    unsafe fn time_left(self) -> Option<Result<Duration, c_int>> {
        // SAFETY: the time is null or readable, as the caller guarantees.
        let time = unsafe { self.time.as_ref() }?;
        let Some(mut left) = sleep::duration(time) else {
            return Some(Err(libc::EINVAL));
        };
        // `FUTEX_WAIT` has a relative time-out, `FUTEX_WAIT_BITSET` an absolute one.
        if self.command() == libc::FUTEX_WAIT_BITSET {
            let clock = if self.op & libc::FUTEX_CLOCK_REALTIME != 0 {
                libc::CLOCK_REALTIME
            } else {
                libc::CLOCK_MONOTONIC
            };
            left = left.saturating_sub(sleep::now(clock));
        }
        Some(if left.is_zero() { Err(libc::ETIMEDOUT) } else { Ok(left) })
    }

    /// Parks until the node in the table is unlinked, or the deadline has passed. Returns 0 or an errno.
    fn park(self, word: &AtomicU32, deadline: Option<u64>) -> c_int {
        let mask = if self.command() == libc::FUTEX_WAIT {
            u32::MAX
        } else {
            self.mask
        };
        let waiting = Waiting::new(self.address, mask);
        let mut is_first = true;
        loop {
            // A new ticket for each park, so that a late wake of the one before is stale.
            let parker = Parker::new();
            // The first time, `arm` checks the value once more under the bucket's lock: it may have changed since the
            // kernel's look. Later a failure means that the node was unlinked, so this green thread was woken
            // (FUTEX-2).
            if !waiting.arm(parker.waiter(), || word.load(Ordering::SeqCst) == self.value) {
                return if is_first { libc::EAGAIN } else { 0 };
            }
            is_first = false;
            let wake = parker.park(deadline, Mode::Must, Why::new(&LOCK, 0));
            // A wake and the deadline may coincide. A waker that unlinked the node has counted it, so it is a wake
            // (FUTEX-2).
            if wake == Wake::TimedOut {
                return if waiting.disarm() { 0 } else { libc::ETIMEDOUT };
            }
        }
    }
}

static LOCK: &str = "a lock, a channel or a parked std thread";
