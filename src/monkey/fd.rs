//! Sockets and pipes: try without waiting, then park until the descriptor is ready, and try again.
//!
//! A descriptor that its user made non-blocking stays so, and time-outs set by `SO_RCVTIMEO` and `SO_SNDTIMEO` hold, once
//! for the whole call. The attempt itself never changes the descriptor (`MSG_DONTWAIT`, `RWF_NOWAIT`): the flag for that
//! belongs to the open file, and other threads and processes see it. What knows no such flag has a file of its own:
//! [`accept`](super::accept), [`connect`](super::connect), [`bulk`](super::bulk).
//!
//! # Invariants
//! - **D1** A call looks at the budget and at interrupts before it has moved anything, and at the budget alone between its
//!   parts: nobody is told of a kill or a time-out with bytes in hand.

use std::cell::OnceCell;
use std::mem::{size_of, zeroed};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use libc::{c_int, c_void, iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t, timeval};

use super::device::{self, Sort};
use super::symbol::patch;
use super::{Cut, connect, contained, errno, fail, futex, interrupted, ready, set_errno};
use crate::hub::Hub;
use crate::hub::budget;
use crate::hub::caught::Handlers;
use crate::hub::park::{Mode, Parker, Wake, Why};
use crate::hub::reactor::Direction;

patch! {
    SOCKETS recv(fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int) -> ssize_t => recv_green;
    SOCKETS recvfrom(fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int, address: *mut sockaddr, address_len: *mut socklen_t) -> ssize_t => recvfrom_green;
    SOCKETS recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t => recvmsg_green;
    SOCKETS send(fd: c_int, buffer: *const c_void, len: size_t, flags: c_int) -> ssize_t => send_green;
    SOCKETS sendto(fd: c_int, buffer: *const c_void, len: size_t, flags: c_int, address: *const sockaddr, address_len: socklen_t) -> ssize_t => sendto_green;
    SOCKETS sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t => sendmsg_green;
    SOCKETS read(fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t => read_green;
    SOCKETS write(fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t => write_green;
    SOCKETS readv(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t => readv_green;
    SOCKETS writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t => writev_green;
}

pub(super) static SOCKET: &str = "a patched call on descriptor";

/// Waits until a descriptor may be ready, or until somebody closes it.
///
/// # Errors
/// An errno: `EBADF` when it was closed meanwhile.
pub(super) fn wait(
    hub: &'static Hub,
    fd: BorrowedFd<'_>,
    direction: Direction,
    deadline: Option<u64>,
    call: &str,
) -> Result<Result<(), Cut>, c_int> {
    wait_or_signal(hub, fd, direction, deadline, call, handlers(deadline))
}

/// The same; main's wait ends with `EINTR` when one of these handlers has run.
pub(super) fn wait_or_signal(
    hub: &'static Hub,
    fd: BorrowedFd<'_>,
    direction: Direction,
    deadline: Option<u64>,
    call: &str,
    handlers: Handlers,
) -> Result<Result<(), Cut>, c_int> {
    match parked(hub, fd, direction, deadline, handlers) {
        Ok(Wake::Ready | Wake::Early) => Ok(Ok(())),
        Ok(Wake::TimedOut) => Ok(Err(Cut::TimedOut)),
        Ok(Wake::Interrupted) => Ok(Err(interrupted(hub, call))),
        Err(libc::EINTR) => Ok(Err(Cut::Interrupted(libc::EINTR))),
        Err(error) => Err(error),
    }
}

/// Which handlers interrupt a call with this time-out: with one of its own, a call on a socket is never restarted.
pub(super) fn handlers(deadline: Option<u64>) -> Handlers {
    if deadline.is_some() {
        Handlers::All
    } else {
        Handlers::NotRestarting
    }
}

/// The same, for who tells of an interrupt himself, or not at all.
fn parked(
    hub: &'static Hub,
    fd: BorrowedFd<'_>,
    direction: Direction,
    deadline: Option<u64>,
    handlers: Handlers,
) -> Result<Wake, c_int> {
    use std::os::fd::AsRawFd;
    let raw = fd.as_raw_fd();
    let parked = contained(|| {
        futex::watching(raw, |watched| {
            let parker = Parker::new();
            watched.start(parker.waiter());
            let hears = hub.hear_signals(&parker, handlers);
            let why = Why::new(&SOCKET, raw as usize);
            let wake = hub
                .reactor
                .wait_foreign(parker, fd, direction, deadline, why, || watched.is_closed());
            watched.stop();
            wake.map(|wake| (wake, hub.was_cut(hears)))
        })
    });
    match parked {
        Some(Ok((Wake::Ready | Wake::Early, true))) => Err(libc::EINTR),
        Some(Ok((wake, _))) => Ok(wake),
        Some(Err(error)) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
        None => Err(libc::EIO),
    }
}

/// # Safety
/// The descriptor is not closed while it is borrowed, other than through the patched close, which wakes who waits.
pub(super) unsafe fn borrow(fd: c_int) -> BorrowedFd<'static> {
    // SAFETY: the caller's; not -1, for a call on that has failed before.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Whether its user made it non-blocking.
pub(super) fn is_nonblocking(fd: c_int) -> bool {
    // SAFETY: asks for flags.
    unsafe { connect::flags::fcntl(fd, libc::F_GETFL, 0) & libc::O_NONBLOCK != 0 }
}

/// How long it may wait, as its user said by a socket option.
pub(super) fn time_limit(hub: &Hub, fd: c_int, direction: Direction) -> Option<u64> {
    if !futex::has_time_limits() {
        return None;
    }
    let option = match direction {
        Direction::Read => libc::SO_RCVTIMEO,
        Direction::Write => libc::SO_SNDTIMEO,
    };
    // SAFETY: writes a `timeval`, for which all-zero is valid.
    let time = unsafe {
        let mut time: timeval = zeroed();
        let mut len = size_of::<timeval>() as socklen_t;
        libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut time).cast(), &raw mut len);
        time
    };
    let time = Duration::new(
        time.tv_sec.max(0) as u64,
        (time.tv_usec.clamp(0, 999_999) * 1000) as u32,
    );
    (!time.is_zero()).then(|| hub.after(time))
}

fn would_block() -> bool {
    matches!(errno(), libc::EAGAIN)
}

/// Lets others run, without a look at interrupts, and leaves errno as it is.
pub(super) fn give_way(yields: impl FnOnce() -> Wake) {
    let before = errno();
    contained(yields);
    set_errno(before);
}

/// Before the first attempt of a call: see [`Call::begin`].
pub(super) fn begin(hub: &'static Hub, name: &str, never_waits: impl FnOnce() -> bool) -> Result<(), c_int> {
    let before = errno();
    let wake = contained(|| budget::spend_with(|| if never_waits() { Mode::Must } else { Mode::Cancel }));
    set_errno(before);
    if wake == Some(Wake::Interrupted)
        && let Cut::Interrupted(error) = interrupted(hub, name)
    {
        return Err(fail(error));
    }
    Ok(())
}

/// One call of libc's on a descriptor: however many parts it has, it has one time-out.
pub(super) struct Call {
    pub(super) hub: &'static Hub,
    pub(super) fd: c_int,
    direction: Direction,
    name: &'static str,
    /// Known once it has to wait.
    deadline: OnceCell<Option<u64>>,
}

impl Call {
    pub(super) fn new(hub: &'static Hub, fd: c_int, direction: Direction, name: &'static str) -> Call {
        Call {
            hub,
            fd,
            direction,
            name,
            deadline: OnceCell::new(),
        }
    }

    /// Before the first attempt: gives way if this green thread has run for long (D1). An error is what the call is to
    /// return, for it was killed or timed out: not one that never waits, by its flags or by what the descriptor is.
    pub(super) fn begin(&self, never_waits: bool) -> Result<(), ssize_t> {
        let never_waits = || never_waits || is_nonblocking(self.fd) || kind(self.fd) == File::Other;
        begin(self.hub, self.name, never_waits).map_err(|error| error as ssize_t)
    }

    /// When its waits end.
    pub(super) fn deadline(&self) -> Option<u64> {
        *self
            .deadline
            .get_or_init(|| time_limit(self.hub, self.fd, self.direction))
    }

    /// Attempts until it is done, is said to be in vain, or fails. If something was done before (`begun`), what comes
    /// while it waits, an error or an interrupt, is left for the next call.
    pub(super) fn attempt(&self, begun: bool, mut attempt: impl FnMut() -> ssize_t) -> ssize_t {
        let before = errno();
        let result = attempt();
        if result >= 0 || !would_block() {
            budget::charge(usize::try_from(result).unwrap_or(0));
            return result;
        }
        if is_nonblocking(self.fd) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        loop {
            // SAFETY: it was good a moment ago, and its number is only a number to epoll.
            let fd = unsafe { borrow(self.fd) };
            match parked(self.hub, fd, self.direction, self.deadline(), handlers(self.deadline())) {
                Ok(Wake::Ready | Wake::Early) => {}
                Ok(Wake::Interrupted) if !begun => {
                    if let Cut::Interrupted(error) = interrupted(self.hub, self.name) {
                        return fail(error) as ssize_t;
                    }
                }
                Ok(Wake::TimedOut | Wake::Interrupted) => return fail(libc::EAGAIN) as ssize_t,
                Err(error) => return fail(error) as ssize_t,
            }
            if begun && ready::has_error(self.fd) {
                return fail(libc::EAGAIN) as ssize_t;
            }
            set_errno(before);
            let result = attempt();
            if result >= 0 || !would_block() {
                return result;
            }
        }
    }

    /// The same for what a blocking call does to the end: `len` bytes, which is asked once the kernel has taken the first.
    /// The step is told how many it has behind it.
    pub(super) fn attempt_all(&self, len: impl Fn() -> usize, mut step: impl FnMut(usize) -> ssize_t) -> ssize_t {
        let mut done = 0;
        loop {
            let result = self.attempt(done > 0, || step(done));
            match usize::try_from(result) {
                Ok(0) => return done as ssize_t,
                Ok(more) => done += more,
                // What was done is told.
                Err(_) if done > 0 => return done as ssize_t,
                Err(_) => return result,
            }
            if done >= len() {
                return done as ssize_t;
            }
            give_way(|| budget::spend(Mode::Must));
            // An error that has come since is for the next call, and the next attempt would eat it.
            if is_nonblocking(self.fd) || ready::has_error(self.fd) {
                return done as ssize_t;
            }
        }
    }
}

unsafe fn recv_green(hub: &'static Hub, fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    let null = std::ptr::null_mut();
    // SAFETY: the caller's, as libc's.
    unsafe { recvfrom_green(hub, fd, buffer, len, flags, null, null.cast()) }
}

pub(super) unsafe fn recvfrom_green(
    hub: &'static Hub,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_len: *mut socklen_t,
) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Read, "recv");
    if let Err(cut) = call.begin(flags & NEVER_WAITS != 0) {
        return cut;
    }
    let step = |done: usize| {
        let (at, left) = (buffer.wrapping_byte_add(done), len - done);
        let flags = flags & !libc::MSG_WAITALL | libc::MSG_DONTWAIT;
        // SAFETY: the caller's, as libc's; the rest of its buffer.
        unsafe { original::recvfrom(fd, at, left, flags, address, address_len) }
    };
    if flags & NEVER_WAITS != 0 {
        // SAFETY: the caller's, as libc's.
        return unsafe { original::recvfrom(fd, buffer, len, flags, address, address_len) };
    }
    if flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0 && is_stream(fd) {
        return call.attempt_all(|| len, step);
    }
    call.attempt(false, || step(0))
}

/// Reads that look at something else than the data, or are not to wait anyway.
const NEVER_WAITS: c_int = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;

pub(super) fn is_stream(fd: c_int) -> bool {
    // SAFETY: writes a number.
    unsafe {
        let (mut kind, mut len) = (0, size_of::<c_int>() as socklen_t);
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut len,
        );
        kind == libc::SOCK_STREAM
    }
}

unsafe fn recvmsg_green(hub: &'static Hub, fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Read, "recvmsg");
    if let Err(cut) = call.begin(flags & NEVER_WAITS != 0) {
        return cut;
    }
    // SAFETY: the caller's, as libc's.
    let first = || unsafe { original::recvmsg(fd, message, flags | libc::MSG_DONTWAIT) };
    if flags & NEVER_WAITS != 0 {
        return first();
    }
    if flags & libc::MSG_WAITALL == 0 || flags & libc::MSG_PEEK != 0 || !is_stream(fd) {
        return call.attempt(false, first);
    }
    // SAFETY: a message that the kernel has filled by then.
    let vectors = || unsafe { vectors_of((*message).msg_iov, (*message).msg_iovlen) };
    call.attempt_all(
        || total_of(vectors()),
        |done| match done {
            0 => first(),
            // SAFETY: the rest of the caller's buffers; control data came with the first part.
            _ => with_rest(vectors(), done, |rest| unsafe {
                original::recvmsg(fd, rest, libc::MSG_DONTWAIT)
            }),
        },
    )
}

unsafe fn send_green(hub: &'static Hub, fd: c_int, buffer: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's, as libc's.
    unsafe { sendto_green(hub, fd, buffer, len, flags, std::ptr::null(), 0) }
}

unsafe fn sendto_green(
    hub: &'static Hub,
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_len: socklen_t,
) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Write, "send");
    if let Err(cut) = call.begin(flags & libc::MSG_DONTWAIT != 0) {
        return cut;
    }
    let step = |done: usize| {
        let (at, left) = (buffer.wrapping_byte_add(done), len - done);
        // SAFETY: the caller's, as libc's; the rest of its buffer.
        unsafe { original::sendto(fd, at, left, flags | libc::MSG_DONTWAIT, address, address_len) }
    };
    if flags & libc::MSG_DONTWAIT != 0 {
        return step(0);
    }
    call.attempt_all(|| len, step)
}

unsafe fn sendmsg_green(hub: &'static Hub, fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Write, "sendmsg");
    if let Err(cut) = call.begin(flags & libc::MSG_DONTWAIT != 0) {
        return cut;
    }
    if flags & libc::MSG_DONTWAIT != 0 {
        // SAFETY: the caller's, as libc's.
        return unsafe { original::sendmsg(fd, message, flags) };
    }
    // SAFETY: the caller's, as libc's.
    unsafe { sendmsg_all(&call, message, flags) }
}

/// # Safety
/// As for `sendmsg`.
pub(super) unsafe fn sendmsg_all(call: &Call, message: *const msghdr, flags: c_int) -> ssize_t {
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: a message that the kernel has read by then.
    let vectors = || unsafe { vectors_of((*message).msg_iov, (*message).msg_iovlen) };
    call.attempt_all(
        || total_of(vectors()),
        |done| match done {
            // SAFETY: the caller's.
            0 => unsafe { original::sendmsg(call.fd, message, flags) },
            // SAFETY: a message without control data, which went with the first part.
            _ => with_rest(vectors(), done, |rest| unsafe {
                original::sendmsg(call.fd, rest, flags)
            }),
        },
    )
}

/// # Safety
/// `at` points to `count` vectors, unless there are none.
pub(super) unsafe fn vectors_of<'a>(at: *const iovec, count: usize) -> &'a [iovec] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(at, count) }
}

pub(super) fn total_of(vectors: &[iovec]) -> usize {
    vectors.iter().map(|vector| vector.iov_len).sum()
}

/// Runs `f` with a message of what is left of `vectors` after `done` bytes.
fn with_rest(vectors: &[iovec], done: usize, f: impl FnOnce(&mut msghdr) -> ssize_t) -> ssize_t {
    let mut rest = rest_of(vectors, done);
    // SAFETY: all-zero is a message of nothing.
    let mut message: msghdr = unsafe { zeroed() };
    message.msg_iov = rest.as_mut_ptr();
    message.msg_iovlen = rest.len();
    f(&mut message)
}

/// What is left of `vectors` after `done` bytes.
pub(super) fn rest_of(vectors: &[iovec], mut done: usize) -> Vec<iovec> {
    let mut rest = Vec::with_capacity(vectors.len());
    for vector in vectors {
        let skip = done.min(vector.iov_len);
        done -= skip;
        if skip < vector.iov_len {
            rest.push(iovec {
                iov_base: vector.iov_base.wrapping_byte_add(skip),
                iov_len: vector.iov_len - skip,
            });
        }
    }
    rest
}

/// What a descriptor is, as far as reading and writing are concerned.
#[derive(PartialEq, Eq)]
pub(super) enum File {
    Pipe,
    Socket,
    /// A file, a terminal, a device.
    Other,
}

pub(super) fn kind(fd: c_int) -> File {
    match device::sort(fd) {
        Sort::Pipe => File::Pipe,
        Sort::Socket => File::Socket,
        _ => File::Other,
    }
}

/// Standard input, output and error are left alone: whoever prints must not be overtaken in the middle of a line.
pub(super) fn is_standard(fd: c_int) -> bool {
    (0..=2).contains(&fd)
}

pub(super) unsafe fn read_green(hub: &'static Hub, fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
    let vector = iovec {
        iov_base: buffer,
        iov_len: len,
    };
    // SAFETY: the caller's, as libc's.
    unsafe {
        if is_standard(fd) || len == 0 {
            return original::read(fd, buffer, len);
        }
        readv_with(hub, fd, &raw const vector, 1, || original::read(fd, buffer, len))
    }
}

unsafe fn readv_green(hub: &'static Hub, fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's, as libc's.
    unsafe {
        if is_standard(fd) || count <= 0 {
            return original::readv(fd, vectors, count);
        }
        let call = Call::new(hub, fd, Direction::Read, "readv");
        if let Err(cut) = call.begin(false) {
            return cut;
        }
        readv_nowait(&call, vectors, count, || original::readv(fd, vectors, count))
    }
}

/// # Safety
/// As for `readv`.
unsafe fn readv_with(
    hub: &'static Hub,
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Read, "read");
    if let Err(cut) = call.begin(false) {
        return cut;
    }
    let before = errno();
    // SAFETY: the caller's.
    let socket = call.attempt(false, || unsafe {
        let mut message: msghdr = zeroed();
        message.msg_iov = vectors.cast_mut();
        message.msg_iovlen = count as usize;
        original::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT)
    });
    if socket >= 0 || errno() != libc::ENOTSOCK {
        return socket;
    }
    set_errno(before);
    // SAFETY: the caller's.
    unsafe { readv_nowait(&call, vectors, count, plainly) }
}

/// As `readv` on whatever can be waited for; plainly on anything else.
///
/// # Safety
/// As for `readv`.
unsafe fn readv_nowait(call: &Call, vectors: *const iovec, count: c_int, plainly: impl Fn() -> ssize_t) -> ssize_t {
    match device::sort(call.fd) {
        Sort::Pipe | Sort::Socket => {}
        Sort::File => return plainly(),
        // SAFETY: the caller's.
        sort => return unsafe { device::read(call.hub, call.fd, sort, (vectors, count), plainly) },
    }
    // SAFETY: the caller's.
    let piped = call.attempt(false, || unsafe {
        libc::preadv2(call.fd, vectors, count, -1, libc::RWF_NOWAIT)
    });
    if piped < 0 && errno() == libc::EOPNOTSUPP {
        // A FIFO does not know how.
        return device::read_when_ready(call.hub, call.fd, plainly);
    }
    piped
}

unsafe fn write_green(hub: &'static Hub, fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
    let vector = iovec {
        iov_base: buffer.cast_mut(),
        iov_len: len,
    };
    // SAFETY: the caller's, as libc's.
    unsafe {
        if is_standard(fd) || len == 0 {
            return original::write(fd, buffer, len);
        }
        writev_with(hub, fd, &raw const vector, 1, || original::write(fd, buffer, len))
    }
}

unsafe fn writev_green(hub: &'static Hub, fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's, as libc's.
    unsafe {
        if is_standard(fd) || count <= 0 {
            return original::writev(fd, vectors, count);
        }
        let call = Call::new(hub, fd, Direction::Write, "writev");
        if let Err(cut) = call.begin(false) {
            return cut;
        }
        writev_nowait(&call, vectors, count, || original::writev(fd, vectors, count))
    }
}

/// # Safety
/// As for `writev`.
unsafe fn writev_with(
    hub: &'static Hub,
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Write, "write");
    if let Err(cut) = call.begin(false) {
        return cut;
    }
    let before = errno();
    // SAFETY: the caller's; all-zero is a valid message.
    let socket = unsafe {
        let mut message: msghdr = zeroed();
        message.msg_iov = vectors.cast_mut();
        message.msg_iovlen = count as usize;
        sendmsg_all(&call, &raw const message, 0)
    };
    if socket >= 0 || errno() != libc::ENOTSOCK {
        return socket;
    }
    set_errno(before);
    // SAFETY: the caller's.
    unsafe { writev_nowait(&call, vectors, count, plainly) }
}

/// As `writev` on whatever can be waited for; plainly on anything else.
///
/// # Safety
/// As for `writev`.
unsafe fn writev_nowait(call: &Call, vectors: *const iovec, count: c_int, plainly: impl Fn() -> ssize_t) -> ssize_t {
    match device::sort(call.fd) {
        Sort::Pipe | Sort::Socket => {}
        Sort::File => return plainly(),
        // SAFETY: the caller's.
        sort => return unsafe { device::write(call.hub, call.fd, sort, (vectors, count), plainly) },
    }
    // SAFETY: the caller's: the kernel has read them by then.
    let all = || unsafe { std::slice::from_raw_parts(vectors, count as usize) };
    let written = call.attempt_all(
        || total_of(all()),
        |done| match done {
            // SAFETY: the caller's.
            0 => unsafe { libc::pwritev2(call.fd, vectors, count, -1, libc::RWF_NOWAIT) },
            _ => {
                let rest = rest_of(all(), done);
                // SAFETY: parts of the caller's buffers.
                unsafe { libc::pwritev2(call.fd, rest.as_ptr(), rest.len() as c_int, -1, libc::RWF_NOWAIT) }
            }
        },
    );
    if written < 0 && errno() == libc::EOPNOTSUPP {
        // SAFETY: the caller's. A FIFO does not know how.
        return unsafe { device::write_fifo(call.hub, call.fd, all(), plainly) };
    }
    written
}
