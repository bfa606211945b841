//! Sockets that share a port with others.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, sockopt};

/// A socket with `SO_REUSEPORT`, bound to the first of these addresses that can be bound to.
pub(super) fn bind_first(addresses: impl Iterator<Item = SocketAddr>, kind: SocketType) -> io::Result<OwnedFd> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "cannot bind: the name has no address");
    for address in addresses {
        match bind(address, kind) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = crate::sys::socket::socket(family, kind)?;
    if kind == SocketType::STREAM {
        // As in std: a port that was in use a moment ago can be bound again.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    crate::sys::socket::share_port(&socket)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}
