//! Names to addresses, by the system's resolver on OS threads that do nothing else.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::vec;

use crate::threadpool::unblock_name;

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
    let found =
        unblock_name(move || std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), port)).map(Vec::from_iter));
    found.map_err(|error| io::Error::new(error.kind(), format!("cannot look up {host}: {error}")))
}

/// What can be turned into addresses; std's trait of this name, but a name is looked up on the thread pool.
///
/// It is a trait of its own because the look-up of std's trait blocks the whole OS thread with all of its green
/// threads. It is implemented for the same types as std's, so calls of `connect` and `bind` stay as they are. For a
/// type of your own that implements std's trait, pass the addresses that this gives, or implement this trait too.
///
/// ```
/// use greenthread::net::ToSocketAddrs;
/// let mut addresses = "127.0.0.1:80".to_socket_addrs().unwrap();
/// assert_eq!(addresses.next().unwrap().port(), 80);
/// ```
pub trait ToSocketAddrs {
    /// All addresses.
    ///
    /// # Errors
    /// A bad text, or a failed lookup.
    ///
    /// # Blocking and cancellation
    /// A name parks the caller for the lookup, of which [`MAX`](crate::threadpool::MAX) run at once. Numeric addresses
    /// do not.
    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>>;
}

macro_rules! numeric {
    ($($type:ty),+) => {
        $(impl ToSocketAddrs for $type {
            fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
                Ok(Vec::from_iter(std::net::ToSocketAddrs::to_socket_addrs(self)?).into_iter())
            }
        })+
    };
}

// None of these needs a lookup.
numeric!(
    SocketAddr,
    std::net::SocketAddrV4,
    std::net::SocketAddrV6,
    (std::net::IpAddr, u16),
    (std::net::Ipv4Addr, u16),
    (std::net::Ipv6Addr, u16)
);

impl ToSocketAddrs for [SocketAddr] {
    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        Ok(Vec::from(self).into_iter())
    }
}

impl ToSocketAddrs for (&str, u16) {
    #[track_caller]
    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        lookup_host(self.0, self.1).map(Vec::into_iter)
    }
}

impl ToSocketAddrs for (String, u16) {
    #[track_caller]
    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        lookup_host(&self.0, self.1).map(Vec::into_iter)
    }
}

impl ToSocketAddrs for str {
    #[track_caller]
    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        if let Ok(address) = self.parse() {
            return Ok(vec![address].into_iter());
        }
        let parts = self
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let Some((host, port)) = parts else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{self:?} is not an address: write it as host:port"),
            ));
        };
        lookup_host(host, port).map(Vec::into_iter)
    }
}

impl ToSocketAddrs for String {
    #[track_caller]
    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        self.as_str().to_socket_addrs()
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    #[track_caller]
    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        (**self).to_socket_addrs()
    }
}
