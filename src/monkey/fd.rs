//! Sockets and pipes: try without waiting, park until the descriptor is ready, try again.
//!
//! A descriptor that the program made non-blocking behaves so here too. Time-outs set by `SO_RCVTIMEO` and
//! `SO_SNDTIMEO` hold, once for the whole call. An attempt never sets `O_NONBLOCK`, which belongs to the open file and
//! is visible to other threads and processes; it uses `MSG_DONTWAIT` or `RWF_NOWAIT`. Calls without such a flag have a
//! file of their own:
//! [`accept`](super::accept), [`connect`](super::connect), [`bulk`](super::bulk).
//!
//! # Invariants
//! - **D1** A call looks at the budget and at interrupts before it has moved anything. Between its parts it looks at
//!   the budget only. So a call never reports a kill or a time-out after it has moved bytes: those bytes would be lost.

use std::cell::OnceCell;
use std::mem::{size_of, zeroed};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use libc::{c_int, c_void, iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t, timeval};

pub(super) use super::connect::is_nonblocking;
use super::device::{self, Sort};
use super::symbol::patch;
use super::{Cut, contained, errno, fail, futex, interrupted, ready, set_errno};
use crate::hub::{Direction, Handlers, Hub, Mode, Parker, Wake, Why, budget};

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

/// Waits until a descriptor may be ready, or is closed.
///
/// # Errors
/// An errno; `EBADF` if the descriptor was closed meanwhile.
pub(super) fn wait(
    hub: &'static Hub,
    fd: BorrowedFd<'_>,
    direction: Direction,
    deadline: Option<u64>,
    call: &str,
) -> Result<Result<(), Cut>, c_int> {
    wait_or_signal(hub, fd, direction, deadline, call, handlers(deadline))
}

/// As [`wait`]; `handlers` says which signal handlers end the main green thread's wait, with `EINTR`.
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

/// The handlers that interrupt a call with this deadline. The kernel never restarts a call on a socket that has a
/// time-out, whatever `SA_RESTART` says.
pub(super) fn handlers(deadline: Option<u64>) -> Handlers {
    if deadline.is_some() {
        Handlers::All
    } else {
        Handlers::NotRestarting
    }
}

/// As [`wait_or_signal`], but an interrupt is returned as such: the caller decides whether to report it.
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
            // Before the descriptor is registered with the poller: a close that comes before `start` makes the
            // registration fail, and a close that comes after it wakes this park.
            watched.start(parker.waiter());
            let hears = hub.hear_signals(parker.named(), handlers);
            let why = Why::new(&SOCKET, raw as usize);
            let wake = hub
                .reactor
                .wait_foreign(parker, fd, direction, deadline, why, || watched.is_closed());
            watched.stop();
            // A signal ends the park like a wake, so ask whether it was one.
            wake.map(|wake| (wake, hub.was_cut(hears)))
        })
    });
    match parked {
        // A deadline or an interrupt that has ended the park takes precedence over a signal.
        Some(Ok((Wake::Ready | Wake::Early, true))) => Err(libc::EINTR),
        Some(Ok((wake, _))) => Ok(wake),
        Some(Err(error)) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
        // The code above panicked, and nothing may unwind out of a patched call.
        None => Err(libc::EIO),
    }
}

/// Borrows a descriptor for a wait.
///
/// # Safety
/// `fd` is not -1. While it is borrowed, the descriptor is closed only through the patched `close`, which ends the
/// wait.
pub(super) unsafe fn borrow(fd: c_int) -> BorrowedFd<'static> {
    // SAFETY: `fd` is not -1, as the caller guarantees (a call on -1 has failed before). A close ends the borrower's
    // wait.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// The deadline of a call that begins to wait now, by the socket's time-out. `None`: it has no time-out.
pub(super) fn time_limit(hub: &Hub, fd: c_int, direction: Direction) -> Option<u64> {
    if !futex::has_time_limits() {
        return None;
    }
    let option = match direction {
        Direction::Read => libc::SO_RCVTIMEO,
        Direction::Write => libc::SO_SNDTIMEO,
    };
    // On anything but a socket this fails, and leaves the time at 0: no limit.
    // SAFETY: `getsockopt` writes at most `len` bytes to a local `timeval`, for which all-zero is valid.
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
    (!time.is_zero()).then(|| hub.deadline_in(time))
}

fn would_block() -> bool {
    matches!(errno(), libc::EAGAIN)
}

/// Runs `yields`, which lets other green threads run, and leaves errno as it is. An interrupt is not reported.
pub(super) fn give_way(yields: impl FnOnce() -> Wake) {
    let before = errno();
    contained(yields);
    set_errno(before);
}

/// Takes a step of the budget before the first attempt of a call; see [`Call::begin`].
pub(super) fn begin(hub: &'static Hub, name: &str, never_waits: impl FnOnce() -> bool) -> Result<(), c_int> {
    let before = errno();
    // With `Mode::Must` nothing is delivered: the original of a call that never waits reports no interrupt either.
    let wake = contained(|| budget::spend_with(|| if never_waits() { Mode::Must } else { Mode::Cancel }));
    set_errno(before);
    if wake == Some(Wake::Interrupted)
        && let Cut::Interrupted(error) = interrupted(hub, name)
    {
        return Err(fail(error));
    }
    Ok(())
}

/// One libc call on a descriptor. It has one deadline, in however many parts it is done.
pub(super) struct Call {
    pub(super) hub: &'static Hub,
    pub(super) fd: c_int,
    direction: Direction,
    name: &'static str,
    /// Set when the call first has to wait: most calls never ask the socket for its time-out.
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

    /// Called before the first attempt (D1): lets others run if this green thread has used up its budget, and fails if
    /// a kill or a time-out is due. The error is the call's result, with errno set. A call that never waits, by its
    /// flags or by the kind of its descriptor, does not fail.
    pub(super) fn begin(&self, never_waits: bool) -> Result<(), ssize_t> {
        let never_waits = || never_waits || is_nonblocking(self.fd) || kind(self.fd) == File::Other;
        begin(self.hub, self.name, never_waits).map_err(|error| error as ssize_t)
    }

    /// When the call's waits end. The time runs from the first use.
    pub(super) fn deadline(&self) -> Option<u64> {
        *self
            .deadline
            .get_or_init(|| time_limit(self.hub, self.fd, self.direction))
    }

    /// Repeats `attempt` until it returns something else than `EAGAIN`, and parks between attempts. Returns `EAGAIN`
    /// itself if the file is non-blocking or the socket's time-out has passed. If earlier parts of the call have moved
    /// bytes (`begun`), an error or an interrupt that comes during the wait ends it with `EAGAIN`, and is left for the
    /// next call.
    pub(super) fn attempt(&self, begun: bool, mut attempt: impl FnMut() -> ssize_t) -> ssize_t {
        let before = errno();
        let result = attempt();
        if result >= 0 || !would_block() {
            // It did not park: large transfers use up more of the budget, so that one green thread cannot keep the hub.
            budget::charge(usize::try_from(result).unwrap_or(0));
            return result;
        }
        // The flag is looked at only after an attempt, so that a call that succeeds at once costs one system call.
        if is_nonblocking(self.fd) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        loop {
            // SAFETY: the attempt did not fail with `EBADF`, so `fd` is not -1, and a close ends the wait.
            let fd = unsafe { borrow(self.fd) };
            match parked(self.hub, fd, self.direction, self.deadline(), handlers(self.deadline())) {
                Ok(Wake::Ready | Wake::Early) => {}
                // Nothing was moved, so the interrupt can be reported (D1).
                Ok(Wake::Interrupted) if !begun => {
                    if let Cut::Interrupted(error) = interrupted(self.hub, self.name) {
                        return fail(error) as ssize_t;
                    }
                }
                // Otherwise the interrupt stays due, and the next call reports it.
                Ok(Wake::TimedOut | Wake::Interrupted) => return fail(libc::EAGAIN) as ssize_t,
                Err(error) => return fail(error) as ssize_t,
            }
            // Another attempt would take the socket's pending error, and the call could not report it beside its count.
            if begun && ready::has_error(self.fd) {
                return fail(libc::EAGAIN) as ssize_t;
            }
            // The wait has changed errno; a successful call leaves the caller's as it was.
            set_errno(before);
            let result = attempt();
            if result >= 0 || !would_block() {
                return result;
            }
        }
    }

    /// As [`attempt`](Self::attempt), for a call that a blocking descriptor carries out to the end: repeats `step`
    /// until `len()` bytes are moved. `step` gets the number of bytes moved so far. `len` is first called after the
    /// first step, when the kernel has checked the caller's pointers.
    pub(super) fn attempt_all(&self, len: impl Fn() -> usize, mut step: impl FnMut(usize) -> ssize_t) -> ssize_t {
        let mut done = 0;
        loop {
            let result = self.attempt(done > 0, || step(done));
            match usize::try_from(result) {
                Ok(0) => return done as ssize_t,
                Ok(more) => done += more,
                // A partial result takes precedence over an error, as in the kernel.
                Err(_) if done > 0 => return done as ssize_t,
                Err(_) => return result,
            }
            if done >= len() {
                return done as ssize_t;
            }
            // Between parts others may run, but no interrupt is delivered (D1).
            give_way(|| budget::spend(Mode::Must));
            // Stop at an error that came meanwhile: another attempt would take it, and this call can only report its
            // count.
            if is_nonblocking(self.fd) || ready::has_error(self.fd) {
                return done as ssize_t;
            }
        }
    }
}

unsafe fn recv_green(hub: &'static Hub, fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    let null = std::ptr::null_mut();
    // SAFETY: the caller guarantees `len` writable bytes at `buffer`; no address is asked for.
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
        // `attempt_all` does what `MSG_WAITALL` asks for.
        let flags = flags & !libc::MSG_WAITALL | libc::MSG_DONTWAIT;
        // SAFETY: the caller guarantees `len` writable bytes at `buffer`, of which these are the last `left`, and a
        // place for an address, or null.
        unsafe { original::recvfrom(fd, at, left, flags, address, address_len) }
    };
    if flags & NEVER_WAITS != 0 {
        // SAFETY: the caller guarantees `len` writable bytes at `buffer`, and a place for an address, or null.
        return unsafe { original::recvfrom(fd, buffer, len, flags, address, address_len) };
    }
    // On a datagram socket `MSG_WAITALL` has no effect.
    if flags & libc::MSG_WAITALL == 0 || !is_stream(fd) {
        return call.attempt(false, || step(0));
    }
    if flags & libc::MSG_PEEK == 0 {
        return call.attempt_all(|| len, step);
    }
    // SAFETY: the caller guarantees `len` writable bytes at `buffer`, and a place for an address, or null.
    let waits = || unsafe { original::recvfrom(fd, buffer, len, flags, address, address_len) };
    peek_all(fd, len, || step(0), waits)
}

/// A peek that waits for all: what is there stays there, so the reactor cannot tell when there is more of it. If `attempt`
/// does not find all of it, `waits` does the call on an OS thread.
#[cold]
fn peek_all(fd: c_int, len: usize, attempt: impl FnOnce() -> ssize_t, waits: impl FnOnce() -> ssize_t) -> ssize_t {
    let before = errno();
    let seen = attempt();
    let has_some = usize::try_from(seen).map_or_else(|_| would_block(), |seen| 0 < seen && seen < len);
    if !has_some || is_nonblocking(fd) {
        return seen;
    }
    set_errno(before);
    device::apart(waits)
}

/// Flags of receives that do not wait: they say so, or ask for errors or urgent data, for which the kernel does not
/// wait.
const NEVER_WAITS: c_int = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;

/// Whether it is a stream socket.
pub(super) fn is_stream(fd: c_int) -> bool {
    // SAFETY: `getsockopt` writes at most `len` bytes to a local integer.
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
    // SAFETY: the caller guarantees a valid message.
    let first = || unsafe { original::recvmsg(fd, message, flags | libc::MSG_DONTWAIT) };
    if flags & NEVER_WAITS != 0 {
        return first();
    }
    // Only `MSG_WAITALL` on a stream takes more than one part.
    if flags & libc::MSG_WAITALL == 0 || !is_stream(fd) {
        return call.attempt(false, first);
    }
    // SAFETY: called after the first part, for which the kernel has read the message: it points to as many vectors.
    let vectors = || unsafe { vectors_of((*message).msg_iov, (*message).msg_iovlen) };
    if flags & libc::MSG_PEEK != 0 {
        let seen = first();
        if seen < 0 && !would_block() {
            return seen;
        }
        // SAFETY: the caller guarantees a valid message.
        let waits = || unsafe { original::recvmsg(fd, message, flags) };
        return peek_all(fd, total_of(vectors()), || seen, waits);
    }
    call.attempt_all(
        || total_of(vectors()),
        |done| match done {
            0 => first(),
            // The kernel gives the address and control data with the first part, so the others are plain.
            // SAFETY: `rest` lists the unused parts of the caller's buffers.
            _ => with_rest(vectors(), done, |rest| unsafe {
                original::recvmsg(fd, rest, libc::MSG_DONTWAIT)
            }),
        },
    )
}

unsafe fn send_green(hub: &'static Hub, fd: c_int, buffer: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller guarantees `len` readable bytes at `buffer`.
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
        // SAFETY: the caller guarantees `len` readable bytes at `buffer`, of which these are the last `left`, and an
        // address of `address_len` bytes, or null.
        unsafe { original::sendto(fd, at, left, flags | libc::MSG_DONTWAIT, address, address_len) }
    };
    if flags & libc::MSG_DONTWAIT != 0 {
        return step(0);
    }
    // A blocking send returns when all bytes are in the socket's buffer.
    call.attempt_all(|| len, step)
}

unsafe fn sendmsg_green(hub: &'static Hub, fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Write, "sendmsg");
    if let Err(cut) = call.begin(flags & libc::MSG_DONTWAIT != 0) {
        return cut;
    }
    if flags & libc::MSG_DONTWAIT != 0 {
        // SAFETY: the caller guarantees a valid message.
        return unsafe { original::sendmsg(fd, message, flags) };
    }
    // SAFETY: the caller guarantees a valid message.
    unsafe { sendmsg_all(&call, message, flags) }
}

/// Sends a whole message, in parts if the socket takes no more at once.
///
/// # Safety
/// As for `sendmsg`.
pub(super) unsafe fn sendmsg_all(call: &Call, message: *const msghdr, flags: c_int) -> ssize_t {
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: called after the first part, for which the kernel has read the message: it points to as many vectors.
    let vectors = || unsafe { vectors_of((*message).msg_iov, (*message).msg_iovlen) };
    call.attempt_all(
        || total_of(vectors()),
        |done| match done {
            // SAFETY: the caller guarantees a valid message.
            0 => unsafe { original::sendmsg(call.fd, message, flags) },
            // Control data (descriptors, say) went with the first part, and must not be sent twice.
            // SAFETY: `rest` lists the unsent parts of the caller's buffers.
            _ => with_rest(vectors(), done, |rest| unsafe {
                original::sendmsg(call.fd, rest, flags)
            }),
        },
    )
}

/// The vectors of a message.
///
/// # Safety
/// `at` points to `count` vectors that live for `'a`, unless `count` is 0.
pub(super) unsafe fn vectors_of<'a>(at: *const iovec, count: usize) -> &'a [iovec] {
    if count == 0 {
        return &[];
    }
    // SAFETY: `at` points to `count` vectors, as the caller guarantees.
    unsafe { std::slice::from_raw_parts(at, count) }
}

/// The number of bytes in all vectors.
pub(super) fn total_of(vectors: &[iovec]) -> usize {
    vectors.iter().map(|vector| vector.iov_len).sum()
}

/// Runs `f` with a message that has the vectors' bytes after the first `done`, and nothing else.
fn with_rest(vectors: &[iovec], done: usize, f: impl FnOnce(&mut msghdr) -> ssize_t) -> ssize_t {
    let mut rest = rest_of(vectors, done);
    // SAFETY: an all-zero `msghdr` is valid: an empty message.
    let mut message: msghdr = unsafe { zeroed() };
    message.msg_iov = rest.as_mut_ptr();
    message.msg_iovlen = rest.len();
    f(&mut message)
}

/// The parts of `vectors` after the first `done` bytes.
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

/// The kind of a descriptor, as far as reading and writing are concerned.
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

/// Whether it is standard input, output or error. These block as without patching: otherwise another green thread could
/// print in the middle of a line.
pub(super) fn is_standard(fd: c_int) -> bool {
    (0..=2).contains(&fd)
}

pub(super) unsafe fn read_green(hub: &'static Hub, fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
    let vector = iovec {
        iov_base: buffer,
        iov_len: len,
    };
    // SAFETY: the caller guarantees `len` writable bytes at `buffer`; `vector` is those.
    unsafe {
        // A read of nothing returns 0 from any socket, where `recvmsg` would wait for a datagram and take it.
        if is_standard(fd) || len == 0 {
            return original::read(fd, buffer, len);
        }
        readv_with(hub, fd, &raw const vector, 1, || original::read(fd, buffer, len))
    }
}

unsafe fn readv_green(hub: &'static Hub, fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller guarantees `count` vectors of writable bytes.
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

/// Reads from a socket by `recvmsg`, and from anything else by [`readv_nowait`].
///
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
    // Most reads are of sockets, so this is tried first: it costs one system call, and needs no look at the descriptor.
    // SAFETY: the caller guarantees `count` vectors of writable bytes; an all-zero `msghdr` is valid.
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
    // SAFETY: the caller guarantees `count` vectors of writable bytes.
    unsafe { readv_nowait(&call, vectors, count, plainly) }
}

/// As `readv` on a descriptor that can be waited for; runs `plainly`, which may block, on any other.
///
/// # Safety
/// As for `readv`.
unsafe fn readv_nowait(call: &Call, vectors: *const iovec, count: c_int, plainly: impl Fn() -> ssize_t) -> ssize_t {
    match device::sort(call.fd) {
        Sort::Pipe | Sort::Socket => {}
        Sort::File => return plainly(),
        // SAFETY: the caller guarantees `count` vectors of writable bytes.
        sort => return unsafe { device::read(call.hub, call.fd, sort, (vectors, count), plainly) },
    }
    // Offset -1 is the current position.
    // SAFETY: the caller guarantees `count` vectors of writable bytes.
    let piped = call.attempt(false, || unsafe {
        libc::preadv2(call.fd, vectors, count, -1, libc::RWF_NOWAIT)
    });
    if piped < 0 && errno() == libc::EOPNOTSUPP {
        // A FIFO (a named pipe) does not support `RWF_NOWAIT`.
        return device::read_when_ready(call.hub, call.fd, plainly);
    }
    piped
}

unsafe fn write_green(hub: &'static Hub, fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
    let vector = iovec {
        iov_base: buffer.cast_mut(),
        iov_len: len,
    };
    // SAFETY: the caller guarantees `len` readable bytes at `buffer`; `vector` is those.
    unsafe {
        if is_standard(fd) || len == 0 {
            return original::write(fd, buffer, len);
        }
        writev_with(hub, fd, &raw const vector, 1, || original::write(fd, buffer, len))
    }
}

unsafe fn writev_green(hub: &'static Hub, fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller guarantees `count` vectors of readable bytes.
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

/// Writes to a socket by `sendmsg`, and to anything else by [`writev_nowait`].
///
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
    // A socket first, as in `readv_with`.
    // SAFETY: the caller guarantees `count` vectors of readable bytes; an all-zero `msghdr` is valid.
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
    // SAFETY: the caller guarantees `count` vectors of readable bytes.
    unsafe { writev_nowait(&call, vectors, count, plainly) }
}

/// As `writev` on a descriptor that can be waited for; runs `plainly`, which may block, on any other.
///
/// # Safety
/// As for `writev`.
unsafe fn writev_nowait(call: &Call, vectors: *const iovec, count: c_int, plainly: impl Fn() -> ssize_t) -> ssize_t {
    match device::sort(call.fd) {
        Sort::Pipe | Sort::Socket => {}
        Sort::File => return plainly(),
        // SAFETY: the caller guarantees `count` vectors of readable bytes.
        sort => return unsafe { device::write(call.hub, call.fd, sort, (vectors, count), plainly) },
    }
    // SAFETY: called after an attempt, for which the kernel has read the caller's `count` vectors.
    let all = || unsafe { std::slice::from_raw_parts(vectors, count as usize) };
    let written = call.attempt_all(
        || total_of(all()),
        |done| match done {
            // SAFETY: the caller guarantees `count` vectors of readable bytes.
            0 => unsafe { libc::pwritev2(call.fd, vectors, count, -1, libc::RWF_NOWAIT) },
            _ => {
                let rest = rest_of(all(), done);
                // SAFETY: `rest` lists the unwritten parts of the caller's buffers.
                unsafe { libc::pwritev2(call.fd, rest.as_ptr(), rest.len() as c_int, -1, libc::RWF_NOWAIT) }
            }
        },
    );
    if written < 0 && errno() == libc::EOPNOTSUPP {
        // A FIFO (a named pipe) does not support `RWF_NOWAIT`.
        // SAFETY: the caller guarantees vectors of readable bytes.
        return unsafe { device::write_fifo(call.hub, call.fd, all(), plainly) };
    }
    written
}
