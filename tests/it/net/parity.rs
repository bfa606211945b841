//! std's stable socket methods, those that are rarely used: each does here what it does there.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as std_unix;

use greenthread::net::{
    Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket, UnixDatagram,
    UnixListener, UnixStream,
};
use greenthread::{sleep, spawn};

use crate::support::fresh::{fresh, ms};

/// An address that no file stands for.
fn nowhere(name: &str) -> std_unix::SocketAddr {
    std_unix::SocketAddr::from_abstract_name(format!("greenthread-{}-{name}", std::process::id())).unwrap()
}

#[test]
fn a_raw_descriptor_goes_out_in_blocking_mode_and_comes_back() {
    fresh(|| {
        let (a, mut b) = UnixStream::pair().unwrap();
        let number = a.as_raw_fd();
        let raw = a.into_raw_fd();
        assert_eq!(raw, number);
        // SAFETY: just given away.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: a look at the flags of an open descriptor.
        let flags = unsafe { libc::fcntl(raw, libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        let mut a = UnixStream::from(fd);
        spawn(move || b.write_all(b"x"));
        let mut byte = [0];
        a.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    });
}

#[test]
fn udp_options_are_stds() {
    fresh(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_ttl(9).unwrap();
        assert_eq!(socket.ttl().unwrap(), 9);
        for yes in [false, true] {
            socket.set_multicast_loop_v4(yes).unwrap();
            assert_eq!(socket.multicast_loop_v4().unwrap(), yes);
        }
        socket.set_multicast_ttl_v4(3).unwrap();
        assert_eq!(socket.multicast_ttl_v4().unwrap(), 3);
        // No group: the system says so.
        let not_a_group = Ipv4Addr::new(127, 0, 0, 1);
        assert!(socket.join_multicast_v4(&not_a_group, &Ipv4Addr::UNSPECIFIED).is_err());
        let std_socket = std::net::UdpSocket::from(socket);
        assert_eq!(std_socket.multicast_ttl_v4().unwrap(), 3);

        let Ok(six) = UdpSocket::bind("[::]:0") else { return };
        six.set_multicast_loop_v6(false).unwrap();
        assert!(!six.multicast_loop_v6().unwrap());
        assert!(six.join_multicast_v6(&Ipv6Addr::LOCALHOST, 0).is_err());
        assert!(six.leave_multicast_v6(&Ipv6Addr::LOCALHOST, 0).is_err());
    });
}

#[test]
fn a_group_on_loopback_is_heard_and_left() {
    fresh(|| {
        let (group, here) = (Ipv4Addr::new(239, 255, 77, 77), Ipv4Addr::LOCALHOST);
        let member = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        if member.join_multicast_v4(&group, &here).is_err() {
            return; // no multicast on this machine's loopback
        }
        assert_eq!(
            member.join_multicast_v4(&group, &here).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        member.leave_multicast_v4(&group, &here).unwrap();
        assert!(member.leave_multicast_v4(&group, &here).is_err());
    });
}

#[test]
fn unix_sockets_go_by_address_too() {
    fresh(|| {
        let address = nowhere("stream");
        let listener = UnixListener::bind_addr(&address).unwrap();
        let client = spawn(move || {
            let mut stream = UnixStream::connect_addr(&address).unwrap();
            sleep(ms(1));
            stream.write_all(b"by address").unwrap();
        });
        let mut text = String::new();
        for stream in (&listener).into_iter().take(1) {
            stream.unwrap().read_to_string(&mut text).unwrap();
        }
        assert_eq!(text, "by address");
        client.join().unwrap();

        let path = std::env::temp_dir().join(format!("greenthread-{}-path", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        UnixStream::connect_addr(&listener.local_addr().unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();

        let unnamed = UnixStream::pair().unwrap().0.local_addr().unwrap();
        assert_eq!(
            UnixStream::connect_addr(&unnamed).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            UnixStream::connect_addr(&nowhere("nobody")).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn unix_datagrams_go_by_address_and_end() {
    fresh(|| {
        let (to, from) = (nowhere("to"), nowhere("from"));
        let receiver = UnixDatagram::bind_addr(&to).unwrap();
        let sender = UnixDatagram::bind_addr(&from).unwrap();
        assert_eq!(sender.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        let mut buffer = [0; 8];

        assert_eq!(sender.send_to_addr(b"one", &to).unwrap(), 3);
        let (len, who) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"one");
        assert_eq!(who.as_abstract_name(), from.as_abstract_name());

        sender.connect_addr(&to).unwrap();
        assert_eq!(sender.peer_addr().unwrap().as_abstract_name(), to.as_abstract_name());
        sender.send(b"two").unwrap();
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 3);

        // Who waits is woken by the end, and whoever comes later need not wait.
        let other = receiver.try_clone().unwrap();
        let waiter = spawn(move || receiver.recv(&mut buffer).map(|len| (len, receiver)));
        sleep(ms(1));
        other.shutdown(Shutdown::Read).unwrap();
        let (len, receiver) = waiter.join().unwrap().unwrap();
        assert_eq!(len, 0);
        let (len, from) = receiver.recv_from(&mut buffer).unwrap();
        assert!(len == 0 && from.is_unnamed());
        sender.shutdown(Shutdown::Both).unwrap();
        assert_eq!(sender.send(b"three").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn addresses_are_what_stds_trait_gives() {
    fresh(|| {
        fn both<A: ToSocketAddrs + std::net::ToSocketAddrs>(address: A) -> Vec<SocketAddr> {
            let ours: Vec<_> = ToSocketAddrs::to_socket_addrs(&address).unwrap().collect();
            let stds: Vec<_> = std::net::ToSocketAddrs::to_socket_addrs(&address).unwrap().collect();
            assert_eq!(ours, stds);
            ours
        }
        let one: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert_eq!(both(one), [one]);
        assert_eq!(both("127.0.0.1:1"), [one]);
        assert_eq!(both(String::from("127.0.0.1:1")), [one]);
        assert_eq!(both(("127.0.0.1", 1)), [one]);
        assert_eq!(both((String::from("127.0.0.1"), 1)), [one]);
        assert_eq!(both((Ipv4Addr::LOCALHOST, 1)), [one]);
        assert_eq!(both(&[one, one][..]), [one, one]);
        both("[::1]:1");
        both((Ipv6Addr::LOCALHOST, 1));
        assert!("no port".to_socket_addrs().is_err());
    });
}

#[test]
fn time_outs_are_each_handles_own() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(ms(5))).unwrap();
        let other = stream.try_clone().unwrap();
        assert_eq!(other.read_timeout().unwrap(), None);
        assert_eq!(stream.read_timeout().unwrap(), Some(ms(5)));
        let std_stream = std::net::TcpStream::from(other);
        assert_eq!(std_stream.read_timeout().unwrap(), None);
    });
}
