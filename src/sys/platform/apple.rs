//! macOS and its relatives: see the table in [`platform`](super). It is compiled by the tests, and was never run.

use std::ffi::c_int;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketType, sockopt};

pub(crate) use super::unix::*;

pub(crate) fn thread_id() -> u64 {
    let mut id = 0;
    // SAFETY: asks for the number of the caller, for which there is room.
    unsafe { libc::pthread_threadid_np(0, &raw mut id) };
    id
}

pub(crate) fn threads() -> Option<Vec<u64>> {
    /// The numbers that `pthread_threadid_np` gives, of all threads of a process.
    const PROC_PIDLISTTHREADIDS: c_int = 28;
    let process = c_int::try_from(std::process::id()).ok()?;
    let mut ids = vec![0_u64; 64];
    loop {
        let room = ids.len() * size_of::<u64>();
        // SAFETY: there is room for so many bytes.
        let filled = unsafe {
            libc::proc_pidinfo(
                process,
                PROC_PIDLISTTHREADIDS,
                0,
                ids.as_mut_ptr().cast(),
                c_int::try_from(room).ok()?,
            )
        };
        let filled = usize::try_from(filled).ok().filter(|filled| *filled > 0)?;
        if filled < room {
            ids.truncate(filled / size_of::<u64>());
            return Some(ids);
        }
        // Full: there may be more.
        ids.resize(ids.len() * 4, 0);
    }
}

pub(crate) fn accept<T: AsFd>(listener: &T) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (socket, address) = rustix::net::acceptfrom(listener.as_fd())?;
    match prepare(&socket) {
        // A connection that the peer has reset takes no option: it is over, and no error of the listener.
        Err(Errno::INVAL) => Err(Errno::CONNABORTED),
        prepared => prepared.map(|()| (socket, address)),
    }
}

pub(crate) fn socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket(family, kind, None)?;
    prepare(&socket)?;
    Ok(socket)
}

/// What std does here too. A process that another OS thread starts at this moment inherits the socket.
fn prepare(socket: &OwnedFd) -> rustix::io::Result<()> {
    fcntl_setfd(socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(socket, true)?;
    sockopt::set_socket_nosigpipe(socket, true)
}

/// Lets sockets share a port. The system may give everything to the socket that was bound last.
pub(crate) fn share_port(socket: &OwnedFd) -> rustix::io::Result<()> {
    sockopt::set_socket_reuseport(socket, true)
}

pub(crate) fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe()?;
    fcntl_setfd(&reader, FdFlags::CLOEXEC)?;
    fcntl_setfd(&writer, FdFlags::CLOEXEC)?;
    Ok((reader, writer))
}

/// `SO_NOSIGPIPE` does it, on each socket of this crate's and of std's.
pub(crate) const NO_SIGPIPE: SendFlags = SendFlags::empty();
