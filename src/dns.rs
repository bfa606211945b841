//! Names to addresses, by the system's resolver on the thread pool.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::threadpool::unblock;

/// Looks a host up, without blocking the other green threads. A numeric address is not looked up at all.
///
/// ```
/// let all = greenthread::dns::lookup_host("127.0.0.1", 80).unwrap();
/// assert_eq!(all[0].to_string(), "127.0.0.1:80");
/// ```
///
/// # Errors
/// What the system's resolver says, with the name.
///
/// # Coming from Python
/// `gevent.socket.getaddrinfo`.
#[track_caller]
pub fn lookup_host(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = host.to_owned();
    let found = unblock(move || (name.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    found.map_err(|error| io::Error::new(error.kind(), format!("cannot look up {host}: {error}")))
}

/// Something that `net::TcpStream::connect` and its like can go to: what std accepts, looked up on the thread pool.
///
/// It is implemented for what `std::net::ToSocketAddrs` is implemented for.
pub trait ToAddrs {
    /// All addresses.
    ///
    /// # Errors
    /// A bad text, or a failed lookup.
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>>;
}

macro_rules! numeric {
    ($($type:ty),+) => {
        $(impl ToAddrs for $type {
            fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
                self.to_socket_addrs().map(Vec::from_iter)
            }
        })+
    };
}

// None of these asks a resolver.
numeric!(
    SocketAddr,
    std::net::SocketAddrV4,
    std::net::SocketAddrV6,
    (std::net::IpAddr, u16),
    (std::net::Ipv4Addr, u16),
    (std::net::Ipv6Addr, u16)
);

impl ToAddrs for [SocketAddr] {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(self.to_vec())
    }
}

impl ToAddrs for (&str, u16) {
    #[track_caller]
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        lookup_host(self.0, self.1)
    }
}

impl ToAddrs for (String, u16) {
    #[track_caller]
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        lookup_host(&self.0, self.1)
    }
}

impl ToAddrs for str {
    #[track_caller]
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.parse() {
            return Ok(vec![address]);
        }
        let parts = self
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let Some((host, port)) = parts else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{self:?} is not host:port"),
            ));
        };
        lookup_host(host, port)
    }
}

impl ToAddrs for String {
    #[track_caller]
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.as_str().to_addrs()
    }
}

impl<T: ToAddrs + ?Sized> ToAddrs for &T {
    #[track_caller]
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).to_addrs()
    }
}
