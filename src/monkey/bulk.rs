//! Calls that move several things at once (sendfile and splice, recvmmsg and sendmmsg), and the checked forms of plain
//! calls that compilers put in their place.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{
    c_int, c_uint, c_void, iovec, loff_t, mmsghdr, nfds_t, off_t, pollfd, size_t, sockaddr, socklen_t, ssize_t,
    timespec,
};

use super::call::{self, Call, is_nonblocking};
use super::fd::{self, is_standard, vectors_of};
use super::gate::contained;
use super::iovec::total_of;
use super::symbol::{errno, fail, patch, set_errno};
use super::{ready, sleep};
use crate::hub::{Direction, Hub};
use crate::sys::nowait;
use crate::sys::probe::{File, allows, has_error, is_ready, is_stream, kind, reopened, room_of};

patch! {
    SOCKETS sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t => sendfile_green;
    SOCKETS sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t => sendfile_green;
    SOCKETS splice(from: c_int, from_at: *mut loff_t, to: c_int, to_at: *mut loff_t, len: size_t, flags: c_uint) -> ssize_t => splice_green;
    SOCKETS recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int => recvmmsg_green;
    SOCKETS sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int => sendmmsg_green;
    SOCKETS __read_chk(fd: c_int, buffer: *mut c_void, len: size_t, room: size_t) -> ssize_t => read_chk_green;
    SOCKETS __recv_chk(fd: c_int, buffer: *mut c_void, len: size_t, room: size_t, flags: c_int) -> ssize_t => recv_chk_green;
    SOCKETS __recvfrom_chk(fd: c_int, buffer: *mut c_void, len: size_t, room: size_t, flags: c_int, address: *mut sockaddr, address_len: *mut socklen_t) -> ssize_t => recvfrom_chk_green;
    READINESS __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int => poll_chk_green;
}

/// The most bytes that are copied at once.
const CHUNK: usize = 64 * 1024;

/// A buffer of one [`CHUNK`]; `None` if there is no memory.
fn buffer() -> Option<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(CHUNK).ok()?;
    buffer.resize(CHUNK, 0);
    Some(buffer)
}

unsafe fn sendfile_green(hub: &'static Hub, to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: the caller guarantees that `offset` is null or points to an offset.
    let plainly = || unsafe { original::sendfile(to, from, offset, count) };
    if is_standard(to) || is_standard(from) || count == 0 {
        return plainly();
    }
    match (kind(from), kind(to)) {
        // The kernel refuses that.
        (File::Pipe, File::Pipe) => plainly(),
        // sendfile to a pipe is a splice, and that can be told not to wait for the pipe.
        (_, File::Pipe) if offset.is_null() || kind(from) == File::Other => {
            let call = Call::new(hub, to, Direction::Write, "sendfile");
            if let Err(failed) = call.begin(false) {
                return failed;
            }
            if kind(from) != File::Other {
                // From a socket: what has arrived, as by splice.
                return transfer(hub, from, to, false, &mut Mover::new(from, to, count, 0));
            }
            // From a file: `count` bytes, or to the end of the file.
            call.attempt_all(
                || count,
                |done| {
                    let flags = libc::SPLICE_F_NONBLOCK;
                    // SAFETY: `offset` is null or points to an offset, as the caller guarantees.
                    unsafe { original::splice(from, offset, to, std::ptr::null_mut(), count - done, flags) }
                },
            )
        }
        // SAFETY: `offset` is null or points to an offset, as the caller guarantees.
        (File::Other, File::Socket) => unsafe { send_file(hub, to, from, offset, count) },
        // To a file, which does not wait; or from something without offsets, which the kernel refuses.
        _ => plainly(),
    }
}

/// sendfile from a file to a socket, by reads and sends: the kernel's sendfile would wait for the socket.
///
/// # Safety
/// As for `sendfile`.
unsafe fn send_file(hub: &'static Hub, to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    let call = Call::new(hub, to, Direction::Write, "sendfile");
    if let Err(failed) = call.begin(false) {
        return failed;
    }
    // SAFETY: `offset` is null or points to an offset, as the caller guarantees.
    let start = unsafe {
        if offset.is_null() {
            libc::lseek64(from, 0, libc::SEEK_CUR)
        } else {
            *offset
        }
    };
    if start < 0 {
        // The kernel's errors for a file without offsets, and for a negative one.
        return fail(if offset.is_null() && errno() == libc::EBADF {
            libc::EBADF
        } else {
            libc::EINVAL
        }) as ssize_t;
    }
    let Some(mut buffer) = buffer() else {
        return fail(libc::ENOMEM) as ssize_t;
    };
    // The part of the transfer that the buffer holds: a send that takes less leaves the rest for the next step.
    let mut have = 0..0;
    let sent = call.attempt_all(
        || count,
        |done| {
            if !have.contains(&done) {
                let room = CHUNK.min(count - done);
                // SAFETY: the local buffer has room for a `CHUNK`.
                let read = unsafe { libc::pread64(from, buffer.as_mut_ptr().cast(), room, start + done as off_t) };
                match usize::try_from(read) {
                    Ok(read @ 1..) => have = done..done + read,
                    // sendfile reports a directory by another error than read.
                    Err(_) if errno() == libc::EISDIR => return fail(libc::EINVAL) as ssize_t,
                    _ => return read,
                }
            }
            let rest = &buffer[done - have.start..have.len()];
            // SAFETY: `rest` is a slice of the local buffer.
            unsafe { fd::original::send(to, rest.as_ptr().cast(), rest.len(), libc::MSG_DONTWAIT) }
        },
    );
    // Only now the offset moves on, by as many bytes as were sent: more may have been read.
    if sent > 0 {
        // SAFETY: `offset` is null or points to an offset, as the caller guarantees.
        unsafe {
            if offset.is_null() {
                libc::lseek64(from, start + sent as off_t, libc::SEEK_SET);
            } else {
                *offset = start + sent as off_t;
            }
        }
    }
    sent
}

unsafe fn splice_green(
    hub: &'static Hub,
    from: c_int,
    from_at: *mut loff_t,
    to: c_int,
    to_at: *mut loff_t,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: the caller guarantees that `from_at` and `to_at` are null or point to offsets.
    let plainly = |flags| unsafe { original::splice(from, from_at, to, to_at, len, flags) };
    if is_standard(from) || is_standard(to) || len == 0 {
        return plainly(flags);
    }
    let (source, sink) = (kind(from), kind(to));
    let pipes_wait = flags & libc::SPLICE_F_NONBLOCK == 0;
    // The end that may wait decides whether the call may be interrupted; a file never waits.
    let end = if sink == File::Other { from } else { to };
    if let Err(failed) = Call::new(hub, end, Direction::Write, "splice").begin(!pipes_wait) {
        return failed;
    }
    if source != File::Socket && sink != File::Socket {
        // Without a socket, one end is a pipe, and the flag keeps the kernel from waiting for pipes.
        let mut step = || plainly(flags | libc::SPLICE_F_NONBLOCK);
        return transfer(hub, from, to, !pipes_wait, &mut step);
    }
    let has_places = !from_at.is_null() || !to_at.is_null();
    if has_places || source != File::Pipe && sink != File::Pipe {
        // No end is a pipe, or one has an offset where there can be none: the kernel refuses that.
        return plainly(flags);
    }
    transfer(hub, from, to, !pipes_wait, &mut Mover::new(from, to, len, flags))
}

/// One step of a transfer between two descriptors; it does not wait, and fails with `EAGAIN` instead.
trait Step {
    fn step(&mut self, hub: &'static Hub) -> ssize_t;
}

impl<F: FnMut() -> ssize_t> Step for F {
    fn step(&mut self, _hub: &'static Hub) -> ssize_t {
        self()
    }
}

/// Moves bytes between a pipe and a socket by a copy: the kernel's splice would wait for the socket.
struct Mover {
    from: c_int,
    to: c_int,
    len: usize,
    flags: c_uint,
    buffer: Option<Vec<u8>>,
    /// A pipe into which the bytes of another pipe are copied, to look at them without taking them.
    copy: Option<(OwnedFd, OwnedFd)>,
}

impl Mover {
    fn new(from: c_int, to: c_int, len: usize, flags: c_uint) -> Mover {
        Mover {
            from,
            to,
            len,
            flags,
            buffer: None,
            copy: None,
        }
    }

    /// From a socket to a pipe: receives what has arrived, but no more than the pipe has room for.
    fn receive(&mut self, hub: &'static Hub, buffer: &mut [u8]) -> ssize_t {
        // Bytes that are received cannot be put back, so the room is asked for first.
        let room = match room_of(self.to).filter(|_| allows(self.to, libc::O_WRONLY)) {
            Some(0) => return fail(libc::EAGAIN) as ssize_t,
            Some(room) => room.min(self.len).min(CHUNK),
            // No descriptor reads from the pipe any more, or this one is not for writing. The kernel reports that at
            // once. SAFETY: there are no offsets, so no pointers to read or write.
            None => unsafe {
                let null = std::ptr::null_mut();
                return original::splice(self.from, null, self.to, null, self.len, self.flags);
            },
        };
        // SAFETY: the local buffer has a `CHUNK`, and `room` is at most that.
        let got = unsafe { fd::original::recv(self.from, buffer.as_mut_ptr().cast(), room, libc::MSG_DONTWAIT) };
        let Ok(got @ 1..) = usize::try_from(got) else {
            return got;
        };
        // The pipe has room, unless another OS thread has written meanwhile. The bytes exist only here now, so wait
        // until they are written, and do not let an interrupt end that.
        let mut put = 0;
        while put < got {
            let result = write_now(self.to, &mut buffer[put..got]);
            match usize::try_from(result) {
                Ok(more) => put += more,
                Err(_) if errno() != libc::EAGAIN => return result,
                Err(_) => {
                    crate::thread::shield(|| call::wait(hub, self.to, Direction::Write, None, "splice"));
                }
            }
        }
        got as ssize_t
    }

    /// From a pipe to a socket: sends a copy of the pipe's bytes, and takes from the pipe as many as were sent.
    fn send(&mut self, buffer: &mut [u8]) -> ssize_t {
        let Some((reader, writer)) = &self.copy else {
            return fail(libc::ENOMEM) as ssize_t;
        };
        let (reader, writer) = (reader.as_raw_fd(), writer.as_raw_fd());
        let most = self.len.min(CHUNK);
        // SAFETY: `buffer` has room for a `CHUNK`, and at most as many bytes are read into it and sent from it.
        unsafe {
            let seen = libc::tee(self.from, writer, most, libc::SPLICE_F_NONBLOCK);
            let Ok(seen @ 1..) = usize::try_from(seen) else {
                return seen;
            };
            // The copy is drained each time, so it is empty before the next `tee`.
            if read_all(reader, &mut buffer[..seen]) < seen {
                return fail(libc::EIO) as ssize_t;
            }
            let more = if self.flags & libc::SPLICE_F_MORE == 0 {
                0
            } else {
                libc::MSG_MORE
            };
            let sent = fd::original::send(self.to, buffer.as_ptr().cast(), seen, libc::MSG_DONTWAIT | more);
            let Ok(done) = usize::try_from(sent) else {
                return sent;
            };
            // Taken only now: what the socket did not take stays in the pipe.
            read_all(self.from, &mut buffer[..done]);
            sent
        }
    }
}

impl Step for Mover {
    fn step(&mut self, hub: &'static Hub) -> ssize_t {
        let Some(mut bytes) = self.buffer.take().or_else(buffer) else {
            return fail(libc::ENOMEM) as ssize_t;
        };
        let moved = if kind(self.from) == File::Socket {
            self.receive(hub, &mut bytes)
        } else {
            if self.copy.is_none() {
                self.copy = pipe();
            }
            self.send(&mut bytes)
        };
        self.buffer = Some(bytes);
        moved
    }
}

/// A new pipe: its ends for reading and writing.
fn pipe() -> Option<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `pipe2` writes two descriptors to a local array, and nothing else owns them.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return None;
        }
        Some((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Reads from a pipe without waiting. A FIFO does not support `RWF_NOWAIT`: it is read if poll says that there is
/// something.
fn read_now(fd: c_int, buffer: &mut [u8]) -> ssize_t {
    // SAFETY: `vector` describes `buffer`.
    unsafe {
        let vector = iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        let read = nowait::readv(fd, &raw const vector, 1);
        if read >= 0 || errno() != libc::EOPNOTSUPP {
            return read;
        }
        if !is_ready(fd, libc::POLLIN) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        let own = reopened(fd, libc::O_RDONLY);
        let fd = own.as_ref().map_or(fd, AsRawFd::as_raw_fd);
        fd::original::read(fd, vector.iov_base, vector.iov_len)
    }
}

/// Writes to a pipe without waiting. A FIFO does not support `RWF_NOWAIT`: if poll reports room, that is for `PIPE_BUF`
/// bytes.
fn write_now(fd: c_int, bytes: &mut [u8]) -> ssize_t {
    // SAFETY: `vector` describes `bytes`.
    unsafe {
        let vector = iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let written = nowait::writev(fd, &raw const vector, 1);
        if written >= 0 || errno() != libc::EOPNOTSUPP {
            return written;
        }
        if !is_ready(fd, libc::POLLOUT) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        let own = reopened(fd, libc::O_WRONLY);
        let fd = own.as_ref().map_or(fd, AsRawFd::as_raw_fd);
        fd::original::write(fd, vector.iov_base, vector.iov_len.min(libc::PIPE_BUF))
    }
}

/// Reads from a pipe bytes that are known to be in it. Returns how many it has read.
fn read_all(fd: c_int, buffer: &mut [u8]) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        let read = read_now(fd, &mut buffer[done..]);
        match usize::try_from(read) {
            Ok(read @ 1..) => done += read,
            _ => break,
        }
    }
    done
}

/// Repeats a step until it does not fail with `EAGAIN`, and waits between steps for the end that is not ready.
fn transfer(hub: &'static Hub, from: c_int, to: c_int, not_for_pipes: bool, step: &mut impl Step) -> ssize_t {
    let before = errno();
    let reads = Call::new(hub, from, Direction::Read, "splice");
    let writes = Call::new(hub, to, Direction::Write, "splice");
    loop {
        let Some(result) = contained(|| step.step(hub)) else {
            return fail(libc::EIO) as ssize_t;
        };
        if result >= 0 || errno() != libc::EAGAIN {
            return result;
        }
        // The kernel does not say which end would have waited: if there is something to read, it was the writing end.
        let (call, events) = if is_ready(from, libc::POLLIN) {
            (&writes, libc::POLLOUT)
        } else {
            (&reads, libc::POLLIN)
        };
        if not_for_pipes && kind(call.fd) == File::Pipe || is_nonblocking(call.fd) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        // Nothing was moved yet, so an interrupt or a time-out may end the wait.
        let waited = call.attempt(false, || {
            if is_ready(call.fd, events) {
                1
            } else {
                fail(libc::EAGAIN) as ssize_t
            }
        });
        if waited < 0 {
            return waited;
        }
        set_errno(before);
    }
}

unsafe fn recvmmsg_green(
    hub: &'static Hub,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    // SAFETY: the caller guarantees `count` messages at `messages`; these are the ones after the first `done`.
    let receive = |done: usize| unsafe {
        let (rest, left) = (messages.wrapping_add(done), count - done as c_uint);
        original::recvmmsg(
            fd,
            rest,
            left,
            flags & !libc::MSG_WAITFORONE | libc::MSG_DONTWAIT,
            timeout,
        )
    };
    let never_waits = flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) != 0;
    if let Err(failed) = Call::new(hub, fd, Direction::Read, "recvmmsg").begin(never_waits) {
        return failed as c_int;
    }
    if never_waits || count == 0 {
        // SAFETY: the caller guarantees `count` messages, and that `timeout` is null or writable.
        return unsafe { original::recvmmsg(fd, messages, count, flags, timeout) };
    }
    // An invalid time is taken for 0 here; the kernel refuses it in `receive`.
    // SAFETY: `timeout` is null or readable, as the caller guarantees.
    let time = unsafe { timeout.as_ref() }.map(|time| sleep::duration(time).unwrap_or_default());
    let until = time.map(|time| hub.deadline_in(time));
    let mut done = 0;
    loop {
        // As in the kernel, the socket's time-out is for each message.
        let call = Call::new(hub, fd, Direction::Read, "recvmmsg");
        let more = call.attempt(done > 0, || receive(done) as ssize_t);
        match usize::try_from(more) {
            Ok(more) => done += more,
            Err(_) if done > 0 => break,
            Err(_) => return more as c_int,
        }
        // As in the kernel, the time is looked at after a message only.
        let is_late = until.is_some_and(|until| hub.clock.now() >= until);
        let is_done = done >= count as usize || flags & libc::MSG_WAITFORONE != 0 || is_late || more == 0;
        if is_done || is_nonblocking(fd) || has_error(fd) {
            break;
        }
    }
    done as c_int
}

unsafe fn sendmmsg_green(hub: &'static Hub, fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    let never_waits = flags & libc::MSG_DONTWAIT != 0;
    if let Err(failed) = Call::new(hub, fd, Direction::Write, "sendmmsg").begin(never_waits) {
        return failed as c_int;
    }
    if never_waits || count == 0 {
        // SAFETY: the caller guarantees `count` messages.
        return unsafe { original::sendmmsg(fd, messages, count, flags) };
    }
    // A datagram is sent whole or not at all, so many may go in one call. Of a message on a stream only a part may be
    // sent, so messages go one at a time: then it is clear which one it was.
    let at_once = if is_stream(fd) { 1 } else { count as usize };
    let mut done = 0;
    while done < count as usize {
        // As in the kernel, the socket's time-out is for each message.
        let call = Call::new(hub, fd, Direction::Write, "sendmmsg");
        let sent = if at_once == 1 {
            // SAFETY: the caller guarantees `count` valid messages, and `done` is less than `count`.
            unsafe {
                let message = &mut *messages.add(done);
                let vectors = vectors_of(message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen);
                let total = total_of(vectors);
                let sent = fd::sendmsg_all(&call, &raw const message.msg_hdr, flags);
                match usize::try_from(sent) {
                    Ok(sent) if sent < total => {
                        // A part of the message was sent: no further message may follow it in the stream.
                        message.msg_len = sent as c_uint;
                        return done as c_int + 1;
                    }
                    Ok(sent) => {
                        message.msg_len = sent as c_uint;
                        1
                    }
                    Err(_) => sent,
                }
            }
        } else {
            // SAFETY: the caller guarantees `count` messages at `messages`; these are the ones after the first `done`.
            call.attempt(done > 0, || unsafe {
                let (rest, left) = (messages.add(done), count - done as c_uint);
                original::sendmmsg(fd, rest, left, flags | libc::MSG_DONTWAIT) as ssize_t
            })
        };
        match usize::try_from(sent) {
            Ok(sent @ 1..) => done += sent,
            _ if done > 0 => break,
            _ => return sent as c_int,
        }
        if is_nonblocking(fd) || has_error(fd) {
            break;
        }
    }
    done as c_int
}

unsafe fn read_chk_green(hub: &'static Hub, fd: c_int, buffer: *mut c_void, len: size_t, room: size_t) -> ssize_t {
    // libc's definition ends the program if the buffer has less room than `len`.
    // SAFETY: the caller guarantees `room` writable bytes at `buffer`.
    unsafe {
        if len > room {
            return original::__read_chk(fd, buffer, len, room);
        }
        fd::read_green(hub, fd, buffer, len)
    }
}

unsafe fn recv_chk_green(
    hub: &'static Hub,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    let null = std::ptr::null_mut();
    // SAFETY: the caller guarantees `room` writable bytes at `buffer`; no address is asked for.
    unsafe { recvfrom_chk_green(hub, fd, buffer, len, room, flags, null, null.cast()) }
}

#[expect(clippy::too_many_arguments, reason = "they are the symbol's")]
unsafe fn recvfrom_chk_green(
    hub: &'static Hub,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller guarantees `room` writable bytes at `buffer`, and a place for an address, or null.
    unsafe {
        if len > room {
            return original::__recvfrom_chk(fd, buffer, len, room, flags, address, address_len);
        }
        fd::recvfrom_green(hub, fd, buffer, len, flags, address, address_len)
    }
}

unsafe fn poll_chk_green(hub: &'static Hub, fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int {
    // SAFETY: the caller guarantees `room` bytes of `pollfd`s at `fds`.
    unsafe {
        if room / size_of::<pollfd>() < count as usize {
            return original::__poll_chk(fds, count, timeout, room);
        }
        ready::poll_green(hub, fds, count, timeout)
    }
}
