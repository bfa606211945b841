//! Sockets and pipes: try without waiting, then park until the descriptor is ready, and try again.
//!
//! A descriptor that its user made non-blocking stays so, and time-outs set by `SO_RCVTIMEO` and `SO_SNDTIMEO` hold. The
//! attempt itself never changes the descriptor (`MSG_DONTWAIT`, `RWF_NOWAIT`), but for accept and connect, and sendfile and
//! splice in [`bulk`](super::bulk), which know no such flag: there it is non-blocking for the length of one system call.

use std::cell::UnsafeCell;
use std::mem::{size_of, zeroed};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use libc::{c_int, c_void, iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t, timeval};

use super::device::{self, Sort};
use super::symbol::patch;
use super::{Cut, contained, errno, fail, futex, interrupted, ready, set_errno};
use crate::hub::Hub;
use crate::hub::caught::Handlers;
use crate::hub::park::{Mode, Parker, Wake, Why};
use crate::hub::reactor::Direction;

patch! {
    SOCKETS connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int => connect_green;
    SOCKETS accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int => accept_green;
    SOCKETS accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int => accept4_green;
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

static SOCKET: &str = "a patched call on descriptor";

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
    // As signal(7) has it: with a time-out of its own a call on a socket is never restarted.
    let handlers = if deadline.is_some() {
        Handlers::All
    } else {
        Handlers::NotRestarting
    };
    wait_or_signal(hub, fd, direction, deadline, call, handlers)
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
        Some(Ok((Wake::Ready | Wake::Early, true))) => Ok(Err(Cut::Interrupted(libc::EINTR))),
        Some(Ok((Wake::Ready | Wake::Early, false))) => Ok(Ok(())),
        Some(Ok((Wake::TimedOut, _))) => Ok(Err(Cut::TimedOut)),
        Some(Ok((Wake::Interrupted, _))) => Ok(Err(interrupted(hub, call))),
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

/// Open files that are non-blocking only for a call of ours that is under way, on whatever OS thread.
struct Shadows {
    locked: AtomicBool,
    /// How many calls are under way, and how many ever were.
    used: AtomicUsize,
    begun: AtomicUsize,
    entries: UnsafeCell<[Shadow; 64]>,
}

#[derive(Clone, Copy)]
struct Shadow {
    file: OpenFile,
    /// How many calls are under way; none: the entry is free.
    depth: u32,
    /// What its user set.
    flags: c_int,
}

/// An open file as far as it can be told: device, inode, and which way it is open. Descriptors that were duplicated share
/// one, and its flags.
type OpenFile = (u64, u64, c_int);

fn open_file(fd: c_int) -> OpenFile {
    // SAFETY: writes a `stat`, for which all-zero is valid.
    unsafe {
        let mut stat: libc::stat = zeroed();
        libc::fstat(fd, &raw mut stat);
        (stat.st_dev, stat.st_ino, flags(fd) & libc::O_ACCMODE)
    }
}

// SAFETY: `entries` are touched under `locked`.
unsafe impl Sync for Shadows {}

static SHADOWS: Shadows = Shadows {
    locked: AtomicBool::new(false),
    used: AtomicUsize::new(0),
    begun: AtomicUsize::new(0),
    entries: UnsafeCell::new(
        [Shadow {
            file: (0, 0, 0),
            depth: 0,
            flags: 0,
        }; 64],
    ),
};

impl Shadows {
    fn with<R>(&self, f: impl FnOnce(&mut [Shadow; 64]) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        // SAFETY: under the lock.
        let result = f(unsafe { &mut *self.entries.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

/// In a forked child: the calls that were under way are the parent's. Their descriptors are shared with it, so what they
/// set it resets.
pub(super) fn forget_all() {
    // SAFETY: the child has one thread.
    unsafe { &mut *SHADOWS.entries.get() }
        .iter_mut()
        .for_each(|entry| entry.depth = 0);
    SHADOWS.used.store(0, Ordering::SeqCst);
    SHADOWS.locked.store(false, Ordering::Release);
}

fn flags(fd: c_int) -> c_int {
    // SAFETY: asks for flags.
    unsafe { libc::fcntl(fd, libc::F_GETFL) }
}

/// Whether its user made it non-blocking.
pub(super) fn is_nonblocking(fd: c_int) -> bool {
    let begun = SHADOWS.begun.load(Ordering::SeqCst);
    if SHADOWS.used.load(Ordering::SeqCst) == 0 {
        let flags = flags(fd);
        if SHADOWS.begun.load(Ordering::SeqCst) == begun {
            return flags & libc::O_NONBLOCK != 0;
        }
    }
    let file = open_file(fd);
    let flags = SHADOWS.with(|entries| {
        let shadow = entries.iter().find(|entry| entry.depth > 0 && entry.file == file);
        shadow.map_or_else(|| flags(fd), |shadow| shadow.flags)
    });
    flags & libc::O_NONBLOCK != 0
}

/// Runs one system call with the descriptor non-blocking.
pub(super) fn without_blocking<T: From<i8>>(fd: c_int, call: impl FnOnce() -> T) -> T {
    let file = open_file(fd);
    SHADOWS.used.fetch_add(1, Ordering::SeqCst);
    SHADOWS.begun.fetch_add(1, Ordering::SeqCst);
    let entered = SHADOWS.with(|entries| {
        if let Some(shadow) = entries.iter_mut().find(|entry| entry.depth > 0 && entry.file == file) {
            shadow.depth += 1;
            return true;
        }
        let Some(free) = entries.iter_mut().find(|entry| entry.depth == 0) else {
            return false;
        };
        let flags = flags(fd);
        *free = Shadow { file, depth: 1, flags };
        // SAFETY: writes flags.
        unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
        true
    });
    if !entered {
        // 64 others at this very moment: once more.
        SHADOWS.used.fetch_sub(1, Ordering::SeqCst);
        set_errno(libc::EAGAIN);
        return T::from(-1);
    }
    let result = call();
    let error = errno();
    SHADOWS.with(|entries| {
        if let Some(shadow) = entries.iter_mut().find(|entry| entry.depth > 0 && entry.file == file) {
            shadow.depth -= 1;
            if shadow.depth == 0 {
                // SAFETY: writes flags: those of its user.
                unsafe { libc::fcntl(fd, libc::F_SETFL, shadow.flags) };
            }
        }
    });
    SHADOWS.used.fetch_sub(1, Ordering::SeqCst);
    set_errno(error);
    result
}

/// How long it may wait, as its user said by a socket option.
fn time_limit(hub: &Hub, fd: c_int, direction: Direction) -> Option<u64> {
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

/// Attempts until it is done, is said to be in vain, or fails.
pub(super) fn attempt(
    hub: &'static Hub,
    fd: c_int,
    direction: Direction,
    call: &str,
    attempt: impl FnMut() -> ssize_t,
) -> ssize_t {
    attempt_more(hub, fd, direction, call, false, attempt)
}

/// The same. If something was done before (`begun`), an error that comes while it waits is left for the next call.
pub(super) fn attempt_more(
    hub: &'static Hub,
    fd: c_int,
    direction: Direction,
    call: &str,
    begun: bool,
    mut attempt: impl FnMut() -> ssize_t,
) -> ssize_t {
    let before = errno();
    let result = attempt();
    if result >= 0 || !would_block() {
        return result;
    }
    if is_nonblocking(fd) {
        return fail(libc::EAGAIN) as ssize_t;
    }
    let deadline = time_limit(hub, fd, direction);
    loop {
        // SAFETY: it was good a moment ago, and its number is only a number to epoll.
        match wait(hub, unsafe { borrow(fd) }, direction, deadline, call) {
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return fail(libc::EAGAIN) as ssize_t,
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error) as ssize_t,
        }
        if begun && ready::has_error(fd) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        set_errno(before);
        let result = attempt();
        if result >= 0 || !would_block() {
            return result;
        }
    }
}

/// As [`attempt`], for a write of `len` bytes that a blocking call would do to the end; the step is told how many it has
/// behind it.
pub(super) fn attempt_all(
    hub: &'static Hub,
    fd: c_int,
    direction: Direction,
    call: &str,
    len: usize,
    mut step: impl FnMut(usize) -> ssize_t,
) -> ssize_t {
    let mut done = 0;
    loop {
        let result = attempt_more(hub, fd, direction, call, done > 0, || step(done));
        match usize::try_from(result) {
            Ok(0) => return done as ssize_t,
            Ok(more) => done += more,
            // What was done is told.
            Err(_) if done > 0 => return done as ssize_t,
            Err(_) => return result,
        }
        // An error that has come since is for the next call, and the next attempt would eat it.
        if done >= len || is_nonblocking(fd) || ready::has_error(fd) {
            return done as ssize_t;
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
        return attempt_all(hub, fd, Direction::Read, "recv", len, step);
    }
    attempt(hub, fd, Direction::Read, "recv", || step(0))
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
    // SAFETY: the caller's, as libc's.
    let step = || unsafe { original::recvmsg(fd, message, flags | libc::MSG_DONTWAIT) };
    if flags & NEVER_WAITS != 0 {
        // SAFETY: the caller's, as libc's.
        return unsafe { original::recvmsg(fd, message, flags) };
    }
    let first = attempt(hub, fd, Direction::Read, "recvmsg", step);
    let Ok(mut done @ 1..) = usize::try_from(first) else {
        return first;
    };
    if flags & libc::MSG_WAITALL == 0 || flags & libc::MSG_PEEK != 0 || !is_stream(fd) {
        return first;
    }
    // SAFETY: a message that the kernel has just filled.
    let vectors = unsafe { vectors_of((*message).msg_iov, (*message).msg_iovlen) };
    let total: usize = vectors.iter().map(|vector| vector.iov_len).sum();
    while done < total && !ready::has_error(fd) {
        let mut rest = rest_of(vectors, done);
        // SAFETY: the rest of the caller's buffers; control data came with the first part.
        let more = attempt_more(hub, fd, Direction::Read, "recvmsg", true, || unsafe {
            let mut message: msghdr = zeroed();
            message.msg_iov = rest.as_mut_ptr();
            message.msg_iovlen = rest.len();
            original::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT)
        });
        match usize::try_from(more) {
            Ok(more @ 1..) => done += more,
            _ => break,
        }
    }
    done as ssize_t
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
    let step = |done: usize| {
        let (at, left) = (buffer.wrapping_byte_add(done), len - done);
        // SAFETY: the caller's, as libc's; the rest of its buffer.
        unsafe { original::sendto(fd, at, left, flags | libc::MSG_DONTWAIT, address, address_len) }
    };
    if flags & libc::MSG_DONTWAIT != 0 {
        return step(0);
    }
    attempt_all(hub, fd, Direction::Write, "send", len, step)
}

pub(super) unsafe fn sendmsg_green(hub: &'static Hub, fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's, as libc's.
    let first = || unsafe { original::sendmsg(fd, message, flags | libc::MSG_DONTWAIT) };
    if flags & libc::MSG_DONTWAIT != 0 {
        return first();
    }
    let sent = attempt(hub, fd, Direction::Write, "sendmsg", first);
    let Ok(mut done) = usize::try_from(sent) else {
        return sent;
    };
    // SAFETY: a message that the kernel has just read.
    let vectors = unsafe { vectors_of((*message).msg_iov, (*message).msg_iovlen) };
    let total: usize = vectors.iter().map(|vector| vector.iov_len).sum();
    while done < total && !is_nonblocking(fd) && !ready::has_error(fd) {
        let mut rest = rest_of(vectors, done);
        // SAFETY: a message without control data, which went with the first part.
        let more = attempt_more(hub, fd, Direction::Write, "sendmsg", true, || unsafe {
            let mut message: msghdr = zeroed();
            message.msg_iov = rest.as_mut_ptr();
            message.msg_iovlen = rest.len();
            original::sendmsg(fd, &raw const message, flags | libc::MSG_DONTWAIT)
        });
        match usize::try_from(more) {
            Ok(more) if more > 0 => done += more,
            _ => break,
        }
    }
    done as ssize_t
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
        readv_nowait(hub, fd, vectors, count, || original::readv(fd, vectors, count))
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
    let before = errno();
    // SAFETY: the caller's.
    let socket = attempt(hub, fd, Direction::Read, "read", || unsafe {
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
    unsafe { readv_nowait(hub, fd, vectors, count, plainly) }
}

/// As `readv` on whatever can be waited for; plainly on anything else.
///
/// # Safety
/// As for `readv`.
unsafe fn readv_nowait(
    hub: &'static Hub,
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    match device::sort(fd) {
        Sort::Pipe | Sort::Socket => {}
        Sort::File => return plainly(),
        // SAFETY: the caller's.
        sort => return unsafe { device::read(hub, fd, sort, (vectors, count), plainly) },
    }
    // SAFETY: the caller's.
    let piped = attempt(hub, fd, Direction::Read, "read", || unsafe {
        libc::preadv2(fd, vectors, count, -1, libc::RWF_NOWAIT)
    });
    if piped < 0 && errno() == libc::EOPNOTSUPP {
        // A FIFO does not know how.
        return device::read_when_ready(hub, fd, plainly);
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
        writev_nowait(hub, fd, vectors, count, || original::writev(fd, vectors, count))
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
    let before = errno();
    // SAFETY: the caller's; all-zero is a valid message.
    let socket = unsafe {
        let mut message: msghdr = zeroed();
        message.msg_iov = vectors.cast_mut();
        message.msg_iovlen = count as usize;
        sendmsg_green(hub, fd, &raw const message, 0)
    };
    if socket >= 0 || errno() != libc::ENOTSOCK {
        return socket;
    }
    set_errno(before);
    // SAFETY: the caller's.
    unsafe { writev_nowait(hub, fd, vectors, count, plainly) }
}

/// As `writev` on whatever can be waited for; plainly on anything else.
///
/// # Safety
/// As for `writev`.
unsafe fn writev_nowait(
    hub: &'static Hub,
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    match device::sort(fd) {
        Sort::Pipe | Sort::Socket => {}
        Sort::File => return plainly(),
        // SAFETY: the caller's.
        sort => return unsafe { device::write(hub, fd, sort, (vectors, count), plainly) },
    }
    // SAFETY: the caller's.
    let first = attempt(hub, fd, Direction::Write, "write", || unsafe {
        libc::pwritev2(fd, vectors, count, -1, libc::RWF_NOWAIT)
    });
    let Ok(begun) = usize::try_from(first) else {
        // SAFETY: the caller's.
        let fifo = || unsafe { device::write_fifo(hub, fd, vectors_of(vectors, count as usize), plainly) };
        return if errno() == libc::EOPNOTSUPP { fifo() } else { first };
    };
    // SAFETY: the caller's: the kernel has just read them.
    let vectors = unsafe { std::slice::from_raw_parts(vectors, count as usize) };
    let total: usize = vectors.iter().map(|vector| vector.iov_len).sum();
    if begun >= total || is_nonblocking(fd) {
        return first;
    }
    let more = attempt_all(hub, fd, Direction::Write, "write", total - begun, |done| {
        let rest = rest_of(vectors, begun + done);
        // SAFETY: parts of the caller's buffers.
        unsafe { libc::pwritev2(fd, rest.as_ptr(), rest.len() as c_int, -1, libc::RWF_NOWAIT) }
    });
    (begun + usize::try_from(more).unwrap_or(0)) as ssize_t
}

unsafe fn accept_green(hub: &'static Hub, fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { accept4_green(hub, fd, address, len, 0) }
}

unsafe fn accept4_green(
    hub: &'static Hub,
    fd: c_int,
    address: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's, as libc's.
    let accept = || unsafe { original::accept4(fd, address, len, flags) };
    if is_nonblocking(fd) {
        return accept();
    }
    let accepted = attempt(hub, fd, Direction::Read, "accept", || {
        without_blocking(fd, accept) as ssize_t
    });
    accepted as c_int
}

unsafe fn connect_green(hub: &'static Hub, fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    let connect = || unsafe { original::connect(fd, address, len) };
    if is_nonblocking(fd) {
        return connect();
    }
    let mut nap = Duration::from_millis(1);
    let deadline = time_limit(hub, fd, Direction::Write);
    loop {
        let result = without_blocking(fd, connect);
        match errno() {
            _ if result == 0 => return 0,
            libc::EINPROGRESS => break,
            // A Unix socket whose listener has no room: nothing tells when it has.
            libc::EAGAIN => {
                let until = deadline.map_or(u64::MAX, |deadline| deadline);
                let wake = contained(|| {
                    let at = hub.after(nap).min(until);
                    Parker::new().park(Some(at), Mode::Cancel, Why::new(&SOCKET, fd as usize))
                });
                if wake == Some(Wake::Interrupted)
                    && let Cut::Interrupted(error) = interrupted(hub, "connect")
                {
                    return fail(error);
                }
                if deadline.is_some_and(|deadline| hub.clock.now() >= deadline) {
                    return fail(libc::EAGAIN);
                }
                nap = (nap * 2).min(Duration::from_millis(50));
            }
            _ => return result,
        }
    }
    // A wake may be an older descriptor's of the same number: it counts when the kernel says so.
    while !ready::is_ready(fd, libc::POLLOUT) {
        // SAFETY: it was good a moment ago.
        match wait(hub, unsafe { borrow(fd) }, Direction::Write, deadline, "connect") {
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return fail(libc::EINPROGRESS),
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error),
        }
    }
    // SAFETY: writes a number.
    unsafe {
        let (mut error, mut len) = (0, size_of::<c_int>() as socklen_t);
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut len,
        );
        if error == 0 { 0 } else { fail(error) }
    }
}
