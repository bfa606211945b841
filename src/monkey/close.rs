//! Closing descriptors that green threads wait for: every such wait ends, and never gets bytes of the next file with
//! the same number. Also `setsockopt`, of which a later wait needs to know.
//!
//! These calls act on every OS thread, because any may close a descriptor that a green thread waits for.

use libc::{c_int, c_uint, c_void, socklen_t};

use super::gate::is_armed;
use super::symbol::around;
use super::table::{closed, closing, has_waiters, range_closed, range_closing};
use super::{accept, call};
use crate::sys::probe;

around! {
    SOCKETS close(fd: c_int) -> c_int => close_and_wake;
    SOCKETS dup2(old: c_int, new: c_int) -> c_int => dup2_and_wake;
    SOCKETS dup3(old: c_int, new: c_int, flags: c_int) -> c_int => dup3_and_wake;
    SOCKETS close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int => close_range_and_wake;
    SOCKETS setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int => setsockopt_and_note;
}

/// Wakes the green threads that wait for the descriptor.
#[inline(always)]
fn close_and_wake(fd: c_int, call: impl FnOnce() -> c_int) -> c_int {
    #[inline(never)]
    fn armed(fd: c_int, call: impl FnOnce() -> c_int) -> c_int {
        // Before the close: afterwards the number may be given to a new file, and a waiter could read from that.
        closing(fd);
        // The listener's inode can only be asked for while it is open.
        let listener = accept::kept(fd);
        let result = call();
        // A green thread that began to wait after `closing` is woken now, and finds the descriptor closed.
        if has_waiters() {
            closed(fd);
        }
        listener.into_iter().for_each(accept::closed);
        result
    }
    if is_armed() { armed(fd, call) } else { call() }
}

/// Whether `dup2(old, new)` will close `new`: not if `old` is not open, or is `new` itself.
fn will_copy(old: c_int, new: c_int) -> bool {
    old != new && has_waiters() && probe::is_open(old)
}

/// The call closes `new`, so the green threads that wait for `new` are woken as by `close`.
fn dup2_and_wake(old: c_int, new: c_int, call: impl FnOnce() -> c_int) -> c_int {
    if will_copy(old, new) {
        closing(new);
    }
    let listener = accept::kept(new);
    let result = call();
    listener.into_iter().for_each(accept::closed);
    if result >= 0 && old != new && has_waiters() {
        closed(new);
    }
    result
}

/// As [`dup2_and_wake`].
fn dup3_and_wake(old: c_int, new: c_int, flags: c_int, call: impl FnOnce() -> c_int) -> c_int {
    // With any other flag the call fails, and closes nothing.
    if flags & !libc::O_CLOEXEC == 0 && will_copy(old, new) {
        closing(new);
    }
    let listener = accept::kept(new);
    let result = call();
    listener.into_iter().for_each(accept::closed);
    if result >= 0 && has_waiters() {
        closed(new);
    }
    result
}

/// Wakes the green threads that wait for a descriptor of the range.
fn close_range_and_wake(first: c_uint, last: c_uint, flags: c_int, call: impl FnOnce() -> c_int) -> c_int {
    // With `CLOSE_RANGE_CLOEXEC` the call only sets a flag, and with an unknown flag or an empty range it fails: then
    // it closes nothing.
    let closes = first <= last && flags & !(libc::CLOSE_RANGE_UNSHARE as c_int) == 0;
    if closes && has_waiters() {
        range_closing(first, last);
    }
    let result = call();
    if closes && result == 0 {
        // As in `close`: waits that began meanwhile are woken, and connections of closed listeners are closed.
        if has_waiters() {
            range_closed(first, last);
        }
        accept::many_closed();
    }
    result
}

/// Notes that a socket has a time-out, also before anything is armed.
#[inline]
fn setsockopt_and_note(
    _fd: c_int,
    level: c_int,
    name: c_int,
    _value: *const c_void,
    _len: socklen_t,
    call: impl FnOnce() -> c_int,
) -> c_int {
    if level == libc::SOL_SOCKET && matches!(name, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) {
        call::note_time_limit();
    }
    call()
}
