//! Peers that send as fast as they can from an OS thread of their own, and green threads that read from them.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;

use greenthread::io::Async;
use greenthread::net::tls::TlsStream;
use greenthread::{future, net, sync, yield_now};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::{ms, os};

/// What the green thread has to do with.
pub const KINDS: &[&str] = &[
    "own tcp",
    "own udp",
    "own unix",
    "own pipe",
    "own tls",
    "patched tcp",
    "patched udp",
    "patched unix",
    "patched pipe",
    "patched tls",
    "own write",
    "patched write",
    "future",
    "channel",
    "worker",
];

/// A peer: the OS thread that floods, and what the green thread is to do until it is told to stop.
pub struct Peer {
    stop: Arc<AtomicBool>,
    flooder: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(flooder) = self.flooder.take() {
            let _ = flooder.join();
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;
/// Sends a block to the green thread.
type Sends = Box<dyn FnMut(&[u8]) -> io::Result<usize> + Send>;

/// A peer of this kind, and the work of the green thread beside it. If it is not `busy`, the peer says nothing.
pub fn peer(kind: &str, busy: bool) -> (Peer, Work) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut flooder = None;
    let mut flood = |mut write: Sends| {
        let stop = stop.clone();
        flooder = Some(os_thread(move || {
            let block = vec![7; 256 * 1024];
            // A handshake comes with the first byte.
            let mut works = write(&block[..1]).is_ok();
            while works && !stop.load(Ordering::SeqCst) {
                if busy {
                    works = write(&block).is_ok();
                } else {
                    os::sleep(ms(5));
                }
            }
        }));
    };
    let work = match kind {
        "own tcp" | "patched tcp" | "own tls" | "patched tls" => {
            let (mut far, near) = tcp();
            if kind.ends_with("tls") {
                flood(tls_flood(far));
            } else {
                flood(Box::new(move |block| far.write(block)));
            }
            match kind {
                "own tcp" => reads(net::TcpStream::from(near)),
                "own tls" => Box::new(move || {
                    let socket = net::TcpStream::from(near);
                    let stream = TlsStream::accept(server_config(), socket, ms(60_000)).expect("a handshake");
                    reads(stream)();
                }),
                "patched tcp" => reads(near),
                _ => Box::new(move || {
                    let connection = ServerConnection::new(server_config()).expect("a configuration");
                    reads(rustls::StreamOwned::new(connection, near))();
                }),
            }
        }
        "own udp" | "patched udp" => udp(kind == "own udp", &mut flood),
        "own unix" | "patched unix" => {
            let (near, mut far) = std::os::unix::net::UnixStream::pair().expect("a pair");
            flood(Box::new(move |block| far.write(block)));
            if kind == "own unix" {
                reads(net::UnixStream::from(near))
            } else {
                reads(near)
            }
        }
        "own pipe" | "patched pipe" => {
            let (near, mut far) = io::pipe().expect("a pipe");
            flood(Box::new(move |block| far.write(block)));
            if kind == "own pipe" {
                let near = Async::new(std::fs::File::from(OwnedFd::from(near))).expect("a pipe");
                reads(near)
            } else {
                reads(near)
            }
        }
        "own write" | "patched write" => {
            let (mut far, near) = tcp();
            let over = stop.clone();
            flooder = Some(os_thread(move || {
                let mut block = vec![0; 1 << 20];
                while !over.load(Ordering::SeqCst) && far.read(&mut block).is_ok_and(|len| len > 0) {}
            }));
            if kind == "own write" {
                writes(net::TcpStream::from(near), busy, stop.clone())
            } else {
                writes(near, busy, stop.clone())
            }
        }
        _ => inner(kind, busy, stop.clone()),
    };
    (Peer { stop, flooder }, work)
}

/// An OS thread also where std's threads are patched: those that the native stack spawns are.
fn os_thread(f: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    greenthread::monkey::unpatched(|| std::thread::spawn(f))
}

fn tcp() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (listener.accept().expect("the other end").0, near)
}

fn reads(mut stream: impl Read + Send + 'static) -> Work {
    Box::new(move || {
        let mut block = vec![0; 16 * 1024];
        while stream.read(&mut block).is_ok_and(|len| len > 0) {}
    })
}

fn writes(mut stream: impl Write + Send + 'static, busy: bool, stop: Arc<AtomicBool>) -> Work {
    Box::new(move || {
        let block = vec![0; 16 * 1024];
        while !stop.load(Ordering::SeqCst) {
            if !busy {
                greenthread::sleep(ms(5));
            } else if stream.write(&block).is_err() {
                return;
            }
        }
    })
}

type Flood<'a> = dyn FnMut(Sends) + 'a;

fn udp(own: bool, flood: &mut Flood<'_>) -> Work {
    let near = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let far = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (address, sink) = (
        near.local_addr().expect("an address"),
        far.local_addr().expect("an address"),
    );
    near.connect(sink).expect("a port");
    far.connect(address).expect("a port");
    flood(Box::new(move |block| {
        // The reader goes away first.
        far.send(&block[..block.len().min(1000)])
            .or_else(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => Err(error),
                _ => Ok(0),
            })
    }));
    if own {
        let near = net::UdpSocket::from(near);
        datagrams(move |block| near.recv(block))
    } else {
        datagrams(move |block| near.recv(block))
    }
}

fn datagrams(mut recv: impl FnMut(&mut [u8]) -> io::Result<usize> + Send + 'static) -> Work {
    Box::new(move || {
        let mut block = [0; 2000];
        while recv(&mut block).is_ok() {}
    })
}

/// What needs no peer.
fn inner(kind: &str, busy: bool, stop: Arc<AtomicBool>) -> Work {
    let is_over = move || stop.load(Ordering::SeqCst);
    let idle = || greenthread::sleep(ms(5));
    match kind {
        "future" => Box::new(move || {
            while !is_over() {
                if !busy {
                    idle();
                    continue;
                }
                future::block_on(poll_fn(|context| {
                    if is_over() {
                        return Poll::Ready(());
                    }
                    context.waker().wake_by_ref();
                    Poll::Pending
                }));
            }
        }),
        "channel" => Box::new(move || {
            let (sender, receiver) = sync::channel::bounded(4);
            while !is_over() {
                if busy {
                    sender.send(1).expect("a receiver");
                    receiver.recv().expect("a message");
                } else {
                    idle();
                }
            }
        }),
        "worker" => Box::new(move || {
            while !is_over() {
                if busy {
                    let begin = Instant::now();
                    while begin.elapsed() < ms(1) {}
                    yield_now();
                } else {
                    idle();
                }
            }
        }),
        other => panic!("{other}: there are {KINDS:?}"),
    }
}

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(include_bytes!("../../it/tls/certificate.pem")).expect("a certificate")
}

/// The server of `localhost`.
pub fn server_config() -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../it/tls/key.pem")).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![certificate()], key).expect("its key"))
}

/// A client that trusts it.
pub fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate()).expect("a certificate");
    let config = ClientConfig::builder().with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
}

/// Makes the handshake at the first write, and then encrypts what it is given.
fn tls_flood(socket: std::net::TcpStream) -> Sends {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(client_config(), name).expect("a configuration");
    let mut stream = rustls::StreamOwned::new(connection, socket);
    Box::new(move |block| stream.write(block))
}
