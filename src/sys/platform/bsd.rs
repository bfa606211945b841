//! FreeBSD, and what its relatives share: see the table in [`platform`](super). It is compiled by the tests, and was
//! never run.

use std::ffi::c_int;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};

pub(crate) use super::unix::*;

pub(crate) fn thread_id() -> u64 {
    // SAFETY: asks for the number of the caller.
    let id = unsafe { libc::pthread_getthreadid_np() };
    u64::from(id.unsigned_abs())
}

pub(crate) fn threads() -> Option<Vec<u64>> {
    let mut name = [
        libc::CTL_KERN,
        libc::KERN_PROC,
        libc::KERN_PROC_PID | libc::KERN_PROC_INC_THREAD,
        c_int::try_from(std::process::id()).ok()?,
    ];
    const SIZE: usize = size_of::<libc::kinfo_proc>();
    let mut room = 16;
    loop {
        let mut bytes = vec![0_u8; room * SIZE];
        let mut len = bytes.len();
        // SAFETY: a whole name, and room for `len` bytes; nothing is set.
        let asked = unsafe {
            libc::sysctl(
                name.as_mut_ptr(),
                4,
                bytes.as_mut_ptr().cast(),
                &raw mut len,
                std::ptr::null(),
                0,
            )
        };
        let error = std::io::Error::last_os_error().raw_os_error();
        if asked != 0 && error == Some(libc::ENOMEM) && room < 1 << 20 {
            room *= 4;
            continue;
        }
        if asked != 0 || !len.is_multiple_of(SIZE) {
            return None;
        }
        let thread = |one: &[u8]| {
            // SAFETY: the system has filled one structure, of numbers and pointers that are not followed.
            let one = unsafe { one.as_ptr().cast::<libc::kinfo_proc>().read_unaligned() };
            // Another release's structure may have another size.
            (usize::try_from(one.ki_structsize) == Ok(SIZE)).then(|| u64::from(one.ki_tid.unsigned_abs()))
        };
        return bytes[..len].chunks_exact(SIZE).map(thread).collect();
    }
}

pub(crate) fn accept<T: AsFd>(listener: &T) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    rustix::net::acceptfrom_with(listener.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
}

pub(crate) fn socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
}

/// Lets sockets share a port. `SO_REUSEPORT` without `_LB` would give everything to one of them.
pub(crate) fn share_port(socket: &OwnedFd) -> rustix::io::Result<()> {
    sockopt::set_socket_reuseport_lb(socket, true)
}

pub(crate) fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC)
}

pub(crate) const NO_SIGPIPE: SendFlags = SendFlags::NOSIGNAL;
