//! Calls that move several things at once: sendfile and splice, recvmmsg and sendmmsg, and the checked forms of the plain
//! calls that compilers put in their place.

use libc::{
    c_int, c_uint, c_void, loff_t, mmsghdr, nfds_t, off_t, pollfd, size_t, sockaddr, socklen_t, ssize_t, timespec,
};

use super::fd::{
    self, File, attempt, attempt_all, attempt_more, is_standard, is_stream, kind, vectors_of, without_blocking,
};
use super::symbol::patch;
use super::{errno, fail, ready, sleep};
use crate::hub::Hub;
use crate::hub::reactor::Direction;

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

unsafe fn sendfile_green(hub: &'static Hub, to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: the caller's, as libc's.
    let send = |count| unsafe { original::sendfile(to, from, offset, count) };
    if is_standard(to) || is_standard(from) || kind(to) == File::Other {
        return send(count);
    }
    match (kind(from), kind(to)) {
        // From a file: to the end, or as much as there is.
        (File::Other, File::Pipe) => attempt_all(hub, to, Direction::Write, "sendfile", count, |done| {
            let flags = libc::SPLICE_F_NONBLOCK;
            // SAFETY: the same arguments: it is what sendfile to a pipe does.
            unsafe { original::splice(from, offset, to, std::ptr::null_mut(), count - done, flags) }
        }),
        (File::Other, _) => attempt_all(hub, to, Direction::Write, "sendfile", count, |done| {
            without_blocking(to, || send(count - done))
        }),
        // From a stream: what is there.
        _ => transfer(hub, from, to, false, || {
            without_blocking(from, || without_blocking(to, || send(count)))
        }),
    }
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
    if is_standard(from) || is_standard(to) {
        // SAFETY: the caller's, as libc's.
        return unsafe { original::splice(from, from_at, to, to_at, len, flags) };
    }
    let nowait = flags | libc::SPLICE_F_NONBLOCK;
    // SAFETY: the caller's, as libc's. The flag is for pipes alone, one of which there must be.
    let splice = || unsafe { original::splice(from, from_at, to, to_at, len, nowait) };
    let pipes_wait = flags & libc::SPLICE_F_NONBLOCK == 0;
    transfer(hub, from, to, !pipes_wait, || match (kind(from), kind(to)) {
        (File::Socket, _) => without_blocking(from, splice),
        (_, File::Socket) => without_blocking(to, splice),
        _ => splice(),
    })
}

/// One transfer between two ends, of which either may not be ready.
fn transfer(hub: &'static Hub, from: c_int, to: c_int, not_for_pipes: bool, step: impl Fn() -> ssize_t) -> ssize_t {
    let before = errno();
    loop {
        let result = step();
        if result >= 0 || errno() != libc::EAGAIN {
            return result;
        }
        // Which of the two it was, the kernel does not say.
        let (end, direction, events) = if ready::is_ready(from, libc::POLLIN) {
            (to, Direction::Write, libc::POLLOUT)
        } else {
            (from, Direction::Read, libc::POLLIN)
        };
        if not_for_pipes && kind(end) == File::Pipe || fd::is_nonblocking(end) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        let waited = attempt(hub, end, direction, "splice", || {
            if ready::is_ready(end, events) {
                1
            } else {
                fail(libc::EAGAIN) as ssize_t
            }
        });
        if waited < 0 {
            return waited;
        }
        super::set_errno(before);
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
    // SAFETY: the caller's, as libc's: the rest of its messages.
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
    if flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) != 0 || count == 0 {
        // SAFETY: as above.
        return unsafe { original::recvmmsg(fd, messages, count, flags, timeout) };
    }
    // SAFETY: the caller's: null or a time; the kernel has the last word on whether it makes sense.
    let time = (!timeout.is_null()).then(|| unsafe { sleep::duration(timeout) }.unwrap_or_default());
    let until = time.map(|time| hub.after(time));
    let mut done = 0;
    loop {
        let more = attempt_more(hub, fd, Direction::Read, "recvmmsg", done > 0, || {
            receive(done) as ssize_t
        });
        match usize::try_from(more) {
            Ok(more) => done += more,
            Err(_) if done > 0 => break,
            Err(_) => return more as c_int,
        }
        // As in the kernel, the time is looked at after a message only.
        let is_late = until.is_some_and(|until| hub.clock.now() >= until);
        let is_done = done >= count as usize || flags & libc::MSG_WAITFORONE != 0 || is_late || more == 0;
        if is_done || fd::is_nonblocking(fd) || ready::has_error(fd) {
            break;
        }
    }
    done as c_int
}

unsafe fn sendmmsg_green(hub: &'static Hub, fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    if flags & libc::MSG_DONTWAIT != 0 || count == 0 {
        // SAFETY: the caller's, as libc's.
        return unsafe { original::sendmmsg(fd, messages, count, flags) };
    }
    // Datagrams go whole or not at all; of a stream's message a part may go, and only one at a time tells of which.
    let at_once = if is_stream(fd) { 1 } else { count as usize };
    let mut done = 0;
    while done < count as usize {
        let sent = if at_once == 1 {
            // SAFETY: the caller's, as libc's: one of its messages.
            unsafe {
                let message = &mut *messages.add(done);
                let vectors = vectors_of(message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen);
                let total: usize = vectors.iter().map(|vector| vector.iov_len).sum();
                let sent = fd::sendmsg_green(hub, fd, &raw const message.msg_hdr, flags);
                match usize::try_from(sent) {
                    Ok(sent) if sent < total => {
                        // A part of it: nothing may follow.
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
            // SAFETY: the caller's, as libc's: the rest of its messages.
            attempt(hub, fd, Direction::Write, "sendmmsg", || unsafe {
                let (rest, left) = (messages.add(done), count - done as c_uint);
                original::sendmmsg(fd, rest, left, flags | libc::MSG_DONTWAIT) as ssize_t
            })
        };
        match usize::try_from(sent) {
            Ok(sent @ 1..) => done += sent,
            _ if done > 0 => break,
            _ => return sent as c_int,
        }
        if fd::is_nonblocking(fd) || ready::has_error(fd) {
            break;
        }
    }
    done as c_int
}

unsafe fn read_chk_green(hub: &'static Hub, fd: c_int, buffer: *mut c_void, len: size_t, room: size_t) -> ssize_t {
    // SAFETY: the caller's, as libc's, which ends the program if there is not room enough.
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
    // SAFETY: the caller's, as libc's.
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
    // SAFETY: as above.
    unsafe {
        if len > room {
            return original::__recvfrom_chk(fd, buffer, len, room, flags, address, address_len);
        }
        fd::recvfrom_green(hub, fd, buffer, len, flags, address, address_len)
    }
}

unsafe fn poll_chk_green(hub: &'static Hub, fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int {
    // SAFETY: as above.
    unsafe {
        if room / size_of::<pollfd>() < count as usize {
            return original::__poll_chk(fds, count, timeout, room);
        }
        ready::poll_green(hub, fds, count, timeout)
    }
}
