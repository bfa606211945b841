//! The calls on one descriptor, as C makes them. What reads and writes a caller's memory is here; how a call waits is
//! in [`call`](super::call), [`device`](super::device), [`connect`](super::connect) and [`accept`](super::accept).
//!
//! Attempts use `MSG_DONTWAIT` or `RWF_NOWAIT`, which leave the open file's flags alone.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, c_void, iovec, msghdr, size_t, sockaddr, sockaddr_storage, socklen_t, ssize_t};

use super::call::{Call, is_nonblocking};
use super::device::{self, Ways};
use super::iovec::{rest_of, total_of};
use super::offload::on_own_thread_or_fail;
use super::symbol::{Lent, errno, patch, set_errno};
use super::{accept, connect};
use crate::hub::{Direction, Hub};
use crate::sys::nowait;
use crate::sys::probe::{Sort, has_output, is_stream, reopened, sort};

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
    SOCKETS accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int => accept_green;
    SOCKETS accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int => accept4_green;
    SOCKETS connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int => connect_green;
    SOCKETS listen(fd: c_int, backlog: c_int) -> c_int => listen_green;
    SOCKETS tcdrain(fd: c_int) -> c_int => tcdrain_green;
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
    if let Err(failed) = call.begin(flags & NEVER_WAITS != 0) {
        return failed;
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
    // SAFETY: the caller guarantees `len` writable bytes at `buffer`, and a place for an address, or null, for the time
    // of the call.
    let waits = || unsafe {
        on_own_thread_or_fail(Lent::new(|| {
            original::recvfrom(fd, buffer, len, flags, address, address_len)
        }))
    };
    peek_all(fd, len, || step(0), waits)
}

/// A peek that waits for all: what is there stays there, so the reactor cannot tell when there is more of it. If
/// `attempt` does not find all of it, `waits` makes the call on another OS thread.
#[cold]
fn peek_all(fd: c_int, len: usize, attempt: impl FnOnce() -> ssize_t, waits: impl FnOnce() -> ssize_t) -> ssize_t {
    let before = errno();
    let seen = attempt();
    let has_some = usize::try_from(seen).map_or_else(|_| errno() == libc::EAGAIN, |seen| 0 < seen && seen < len);
    if !has_some || is_nonblocking(fd) {
        return seen;
    }
    set_errno(before);
    waits()
}

/// Flags of receives that do not wait: they say so, or ask for errors or urgent data, for which the kernel does not
/// wait.
const NEVER_WAITS: c_int = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;

unsafe fn recvmsg_green(hub: &'static Hub, fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Read, "recvmsg");
    if let Err(failed) = call.begin(flags & NEVER_WAITS != 0) {
        return failed;
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
        if seen < 0 && errno() != libc::EAGAIN {
            return seen;
        }
        // SAFETY: the caller guarantees a valid message, for the time of the call.
        let waits = || unsafe { on_own_thread_or_fail(Lent::new(|| original::recvmsg(fd, message, flags))) };
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
    if let Err(failed) = call.begin(flags & libc::MSG_DONTWAIT != 0) {
        return failed;
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
    if let Err(failed) = call.begin(flags & libc::MSG_DONTWAIT != 0) {
        return failed;
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

/// Runs `f` with a message that has the vectors' bytes after the first `done`, and nothing else.
fn with_rest(vectors: &[iovec], done: usize, f: impl FnOnce(&mut msghdr) -> ssize_t) -> ssize_t {
    let mut rest = rest_of(vectors, done, usize::MAX);
    // SAFETY: an all-zero `msghdr` is valid: an empty message.
    let mut message: msghdr = unsafe { zeroed() };
    message.msg_iov = rest.as_mut_ptr();
    message.msg_iovlen = rest.len();
    f(&mut message)
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
        if let Err(failed) = call.begin(false) {
            return failed;
        }
        let is_list = || is_list(vectors, count);
        readv_nowait(&call, vectors, count, is_list, || original::readv(fd, vectors, count))
    }
}

/// Reads from a socket by `recvmsg`, and from anything else by [`readv_nowait`].
///
/// # Safety
/// As for `readv`, with a list of this crate's own that has some bytes.
unsafe fn readv_with(
    hub: &'static Hub,
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Read, "read");
    if let Err(failed) = call.begin(false) {
        return failed;
    }
    let before = errno();
    // Most reads are of sockets, so this is tried first: it costs one system call, and needs no look at the descriptor.
    // SAFETY: the caller guarantees `count` vectors of writable bytes.
    let socket = unsafe { receive(&call, vectors, count) };
    if socket >= 0 || errno() != libc::ENOTSOCK {
        return socket;
    }
    set_errno(before);
    // SAFETY: the caller guarantees `count` vectors of writable bytes, which are some.
    unsafe { readv_nowait(&call, vectors, count, || true, plainly) }
}

/// Reads from a socket. `ENOTSOCK` on anything else.
///
/// # Safety
/// As for `readv`.
unsafe fn receive(call: &Call, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller guarantees `count` vectors of writable bytes; an all-zero `msghdr` is valid.
    call.attempt(false, || unsafe {
        let mut message: msghdr = zeroed();
        message.msg_iov = vectors.cast_mut();
        message.msg_iovlen = count as usize;
        original::recvmsg(call.fd, &raw mut message, libc::MSG_DONTWAIT)
    })
}

/// Writes all to a socket. `ENOTSOCK` on anything else.
///
/// # Safety
/// As for `writev`.
unsafe fn send_vectors(call: &Call, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller guarantees `count` vectors of readable bytes; an all-zero `msghdr` is valid.
    unsafe {
        let mut message: msghdr = zeroed();
        message.msg_iov = vectors.cast_mut();
        message.msg_iovlen = count as usize;
        sendmsg_all(call, &raw const message, 0)
    }
}

/// As `readv` on a descriptor that can be waited for; runs `plainly`, which may block, on any other.
///
/// # Safety
/// As for `readv`; `plainly` makes the call, and `is_list` is [`is_list`] or knows as much.
unsafe fn readv_nowait(
    call: &Call,
    vectors: *const iovec,
    count: c_int,
    is_list: impl Fn() -> bool,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    // SAFETY: the caller guarantees `count` vectors of writable bytes.
    let at_once = || unsafe { nowait::readv(call.fd, vectors, count) };
    let ways = Ways {
        call,
        at_once: &at_once,
        plainly: &plainly,
        // SAFETY: the caller's vectors stay as they are for the time of the call.
        elsewhere: &|| unsafe { on_own_thread_or_fail(Lent::new(&plainly)) },
        // SAFETY: the caller guarantees `count` vectors.
        len: &|| total_of(unsafe { vectors_of(vectors, count as usize) }),
    };
    let sort = sort(call.fd);
    match sort {
        Sort::Pipe | Sort::Socket => {}
        Sort::File => return plainly(),
        sort => return device::read(&ways, sort),
    }
    let got = call.attempt(false, at_once);
    if got >= 0 || errno() != libc::EOPNOTSUPP {
        return got;
    }
    // A FIFO (a named pipe) does not support `RWF_NOWAIT`, nor does a pipe or a socket of an older kernel.
    match sort {
        _ if !is_list() => plainly(),
        // SAFETY: the caller guarantees `count` vectors of writable bytes.
        Sort::Socket => unsafe { receive(call, vectors, count) },
        _ => device::read_when_ready(&Ways {
            // Another OS thread may take the bytes after poll has reported them. Then this call must not wait.
            plainly: &|| match reopened(call.fd, libc::O_RDONLY) {
                // SAFETY: the caller guarantees `count` vectors of writable bytes.
                Some(own) => unsafe { original::readv(own.as_raw_fd(), vectors, count) },
                None => plainly(),
            },
            ..ways
        }),
    }
}

/// Whether the kernel can read the list of vectors, and they have bytes. If not, the plain call fails, or does nothing:
/// at once. A filter that refuses a call has not looked at the list. So the kernel is asked by a read of an empty pipe.
///
/// # Safety
/// As for `readv` or `writev`. No byte is read or written.
#[cold]
unsafe fn is_list(vectors: *const iovec, count: c_int) -> bool {
    let mut ends = [0; 2];
    // SAFETY: `pipe2` writes two descriptors to a local array, and nothing else owns them. The kernel checks the
    // vectors. Only if there is no descriptor to ask with, the list is read here: the caller guarantees it.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
            return total_of(vectors_of(vectors, count as usize)) > 0;
        }
        let [reader, _writer] = ends.map(|end| OwnedFd::from_raw_fd(end));
        original::readv(reader.as_raw_fd(), vectors, count) < 0 && errno() == libc::EAGAIN
    }
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
        if let Err(failed) = call.begin(false) {
            return failed;
        }
        let is_list = || is_list(vectors, count);
        writev_nowait(&call, vectors, count, is_list, || original::writev(fd, vectors, count))
    }
}

/// Writes to a socket by `sendmsg`, and to anything else by [`writev_nowait`].
///
/// # Safety
/// As for `writev`, with a list of this crate's own that has some bytes.
unsafe fn writev_with(
    hub: &'static Hub,
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    let call = Call::new(hub, fd, Direction::Write, "write");
    if let Err(failed) = call.begin(false) {
        return failed;
    }
    let before = errno();
    // A socket first, as in `readv_with`.
    // SAFETY: the caller guarantees `count` vectors of readable bytes.
    let socket = unsafe { send_vectors(&call, vectors, count) };
    if socket >= 0 || errno() != libc::ENOTSOCK {
        return socket;
    }
    set_errno(before);
    // SAFETY: the caller guarantees `count` vectors of readable bytes, which are some.
    unsafe { writev_nowait(&call, vectors, count, || true, plainly) }
}

/// As `writev` on a descriptor that can be waited for; runs `plainly`, which may block, on any other.
///
/// # Safety
/// As for `writev`; `plainly` makes the call, and `is_list` is [`is_list`] or knows as much.
unsafe fn writev_nowait(
    call: &Call,
    vectors: *const iovec,
    count: c_int,
    is_list: impl Fn() -> bool,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    // SAFETY: the caller guarantees `count` vectors. Called after an attempt or after `is_list`, for which the kernel
    // has read them, or for a device.
    let all = || unsafe { vectors_of(vectors, count as usize) };
    // SAFETY: the caller guarantees `count` vectors of readable bytes.
    let at_once = || unsafe { nowait::writev(call.fd, vectors, count) };
    let ways = Ways {
        call,
        at_once: &at_once,
        plainly: &plainly,
        // SAFETY: the caller's vectors stay as they are for the time of the call.
        elsewhere: &|| unsafe { on_own_thread_or_fail(Lent::new(&plainly)) },
        len: &|| total_of(all()),
    };
    let sort = sort(call.fd);
    match sort {
        Sort::Pipe | Sort::Socket => {}
        Sort::File => return plainly(),
        // SAFETY: the caller guarantees `count` vectors of readable bytes.
        sort => return device::write(&ways, sort, || unsafe { is_small(all()) }),
    }
    let written = call.attempt_all(
        || total_of(all()),
        |done| match done {
            0 => at_once(),
            _ => {
                let rest = rest_of(all(), done, usize::MAX);
                // SAFETY: `rest` lists the unwritten parts of the caller's buffers.
                unsafe { nowait::writev(call.fd, rest.as_ptr(), rest.len() as c_int) }
            }
        },
    );
    if written >= 0 || errno() != libc::EOPNOTSUPP {
        return written;
    }
    // As in `readv_nowait`.
    match sort {
        _ if !is_list() => plainly(),
        // SAFETY: the caller guarantees `count` vectors of readable bytes.
        Sort::Socket => unsafe { send_vectors(call, vectors, count) },
        _ => device::write_fifo(&ways, |done, most| {
            let piece = rest_of(all(), done, most);
            // Another OS thread may take the room after poll has reported it. Then this call must not wait.
            let own = reopened(call.fd, libc::O_WRONLY);
            let fd = own.as_ref().map_or(call.fd, AsRawFd::as_raw_fd);
            // SAFETY: `piece` lists parts of the caller's buffers that are not yet written.
            unsafe { original::writev(fd, piece.as_ptr(), piece.len() as c_int) }
        }),
    }
}

/// Whether a write adds at most `u32::MAX` to an eventfd's counter. Then a counter that poll reports as writable has
/// room for it, except within that distance of its maximum, 2^64 - 2.
///
/// # Safety
/// The vectors' bytes are readable.
unsafe fn is_small(vectors: &[iovec]) -> bool {
    match vectors {
        // SAFETY: the vector has at least eight bytes, which are readable as the caller guarantees.
        [one] if one.iov_len >= 8 => unsafe { one.iov_base.cast::<u64>().read_unaligned() <= u32::MAX.into() },
        _ => false,
    }
}

/// Waits until a terminal has sent its output, on an OS thread if there is any.
unsafe fn tcdrain_green(_hub: &'static Hub, fd: c_int) -> c_int {
    let before = errno();
    let waits = has_output(fd);
    set_errno(before);
    // SAFETY: no pointers are involved.
    unsafe {
        // No terminal, or nothing left to send: the call returns at once.
        if waits {
            on_own_thread_or_fail(Lent::new(|| original::tcdrain(fd)))
        } else {
            original::tcdrain(fd)
        }
    }
}

unsafe fn accept_green(hub: &'static Hub, fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller guarantees that `address` is null or has room for `*len` bytes.
    unsafe { accept4_green(hub, fd, address, len, 0) }
}

unsafe fn accept4_green(
    hub: &'static Hub,
    fd: c_int,
    address: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let ways = accept::Ways {
        // SAFETY: the caller guarantees that `address` is null or has room for `*len` bytes; a hub never leaves its OS
        // thread, so the ring is used on the one that made it.
        by_ring: &|| unsafe { hub.patched.accepts.accept(fd, address, len, flags) },
        // SAFETY: the caller guarantees that `address` is null or has room for `*len` bytes.
        plainly: &|| unsafe { original::accept4(fd, address, len, flags) },
        // The kernel reports `EFAULT` for it.
        is_bad: !address.is_null() && len.is_null(),
        deliver: &|from: &sockaddr_storage, size| {
            if address.is_null() {
                return;
            }
            // SAFETY: `address` has room for `*len` bytes, as the caller guarantees. A shorter place gets a part of the
            // address, and `len` the full length.
            unsafe {
                let room = (*len).min(size).min(size_of_val(from) as socklen_t) as usize;
                std::ptr::copy_nonoverlapping((&raw const *from).cast::<u8>(), address.cast::<u8>(), room);
                *len = size;
            }
        },
    };
    accept::accept(&Call::new(hub, fd, Direction::Read, "accept"), flags, &ways)
}

unsafe fn connect_green(hub: &'static Hub, fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller guarantees `len` readable bytes at `address`.
    let attempt = || unsafe { original::connect(fd, address, len) };
    // SAFETY: the address stays as it is for the time of the call.
    let elsewhere = || unsafe { on_own_thread_or_fail(Lent::new(attempt)) };
    connect::connect(&Call::new(hub, fd, Direction::Write, "connect"), attempt, elsewhere)
}

/// std asks for a queue of 128 connections, which overflows when thousands of green threads connect at once. The kernel
/// limits the larger number by its own maximum.
unsafe fn listen_green(_hub: &'static Hub, fd: c_int, backlog: c_int) -> c_int {
    const QUEUE: c_int = 4096;
    // SAFETY: no pointers are involved.
    unsafe { original::listen(fd, if backlog == 128 { QUEUE } else { backlog }) }
}
