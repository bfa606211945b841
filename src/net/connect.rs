//! Connecting: one address, or several by happy eyeballs (RFC 8305).
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

use crate::hub::{self, Hub};
use crate::io::{Async, wait_writable};
use crate::sys::plain::plainly;
use crate::thread::{JoinHandle, spawn_local, wait};

/// How long an attempt may take before the next address is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to one address.
#[track_caller]
pub(super) fn connect_one(address: SocketAddr) -> io::Result<std::net::TcpStream> {
    crate::io::give_way()?;
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket: OwnedFd = crate::sys::socket::socket(family, SocketType::STREAM)?;
    match plainly(|| rustix::net::connect(&socket, &address)) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => finish(&socket)?,
        Err(error) => return Err(error.into()),
    }
    Ok(socket.into())
}

/// Waits for a connection that is under way.
#[track_caller]
fn finish(socket: &OwnedFd) -> io::Result<()> {
    wait_writable(socket, None)?;
    Ok(rustix::net::sockopt::socket_error(socket)??)
}

/// Connects to the address that answers first.
///
/// Addresses of the two families take turns. The next attempt starts when one fails, or after a quarter of a second.
#[track_caller]
pub(super) fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<std::net::TcpStream> {
    let mut addresses = alternate(addresses).into_iter();
    let Some(first) = addresses.next() else {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "cannot connect: the name has no address",
        ));
    };
    if addresses.len() == 0 {
        return connect_one(first);
    }
    if Hub::has_ended() {
        return Err(hub::ended());
    }
    let mut racing = Racing(vec![spawn_local(move || connect_one(first))]);
    let mut last = io::Error::from(ErrorKind::NotConnected);
    loop {
        let patience = if addresses.len() > 0 { Some(HEAD_START) } else { None };
        let (done, rest) = wait(std::mem::take(&mut racing.0), patience, 1);
        racing.0 = rest;
        for handle in done {
            match handle.join() {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(error) => last = io::Error::other(format!("an attempt to connect has no result: {error}")),
            }
        }
        match addresses.next() {
            Some(address) => racing.0.push(spawn_local(move || connect_one(address))),
            None if racing.0.is_empty() => return Err(last),
            None => {}
        }
    }
}

/// Attempts under way. When this is dropped they are killed, which closes their sockets.
struct Racing(Vec<JoinHandle<io::Result<std::net::TcpStream>>>);

impl Drop for Racing {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::kill);
    }
}

/// The addresses in the resolver's order, but with the families in turn.
fn alternate(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (a, b): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let mut mixed = Vec::with_capacity(a.len() + b.len());
    while a.len() + b.len() > 0 {
        mixed.extend(a.next());
        mixed.extend(b.next());
    }
    mixed
}

/// This crate's stream, with Nagle's algorithm off.
pub(super) fn without_delay(stream: std::net::TcpStream) -> io::Result<Async<std::net::TcpStream>> {
    stream.set_nodelay(true)?;
    Ok(Async::new_nonblocking(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (v6a, v6b, v4) = (parse("[::1]:1"), parse("[::2]:1"), parse("127.0.0.1:1"));
        assert_eq!(alternate(vec![v6a, v6b, v4]), [v6a, v4, v6b]);
        assert_eq!(alternate(vec![v4]), [v4]);
    }
}
