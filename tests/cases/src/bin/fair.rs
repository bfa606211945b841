//! Loads that never have to wait, each for a second: timers of 10 ms and an echo server of the same hub go on beside
//! each. None of them is half a second late at any time.
//!
//! `fair [LOAD]`
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cases::{ms, scenarios};
use greenthread::http::HttpServer;
use greenthread::net::{TcpListener, TcpStream, UdpSocket};
use greenthread::server::{Protocol, StreamServer, serve_protocol};
use greenthread::sync::{Mutex, channel};
use greenthread::{hub, monkey, select, sleep, spawn, spawn_local, thread, yield_now};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};

/// How long a load lasts.
const LOAD: Duration = ms(1200);
const LATE: Duration = ms(500);

/// Ended, or over by the clock: loads end by themselves also where nothing else runs.
#[derive(Clone)]
struct Over {
    stop: Arc<AtomicBool>,
    end: Instant,
}

impl Over {
    fn is(&self) -> bool {
        self.stop.load(Relaxed) || Instant::now() > self.end
    }
}

/// Runs timers and pings beside what `load` starts.
fn beside(load: impl FnOnce(Over)) {
    let over = Over {
        stop: Arc::default(),
        end: Instant::now() + LOAD,
    };
    let (timers, pings) = (timers(over.end), pings(over.end));
    load(over.clone());
    let worst_timer = timers.join().unwrap();
    over.stop.store(true, Relaxed);
    while !pings.is_finished() {
        sleep(ms(5));
    }
    let worst_ping = pings.join().unwrap();
    eprintln!("a timer of 10 ms took at most {worst_timer:.0?}, a ping {worst_ping:.0?}");
    assert!(worst_timer < LATE && worst_ping < LATE);
}

/// The longest that a sleep of 10 ms took.
fn timers(end: Instant) -> greenthread::JoinHandle<Duration> {
    spawn_local(move || {
        let mut worst = Duration::ZERO;
        while Instant::now() < end {
            let begin = Instant::now();
            sleep(ms(10));
            worst = worst.max(begin.elapsed());
        }
        worst
    })
}

/// The longest that an echo of this hub took, asked by an OS thread with blocking sockets.
fn pings(end: Instant) -> std::thread::JoinHandle<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = StreamServer::new_local(listener, |mut stream, _| -> std::io::Result<()> {
        let mut block = [0; 64];
        loop {
            let len = stream.read(&mut block)?;
            if len == 0 {
                return Ok(());
            }
            stream.write_all(&block[..len])?;
        }
    });
    server.start().unwrap();
    std::mem::forget(server);
    std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut worst = Duration::ZERO;
        while Instant::now() < end {
            let begin = Instant::now();
            stream.write_all(b"ping").unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            worst = worst.max(begin.elapsed());
            std::thread::sleep(ms(1));
        }
        worst
    })
}

/// What a program does with its data.
fn sum(data: &[u8]) {
    std::hint::black_box(data.iter().map(|byte| u64::from(*byte)).sum::<u64>());
}

/// An OS thread that sends this head, and then blocks without end.
fn flood(address: SocketAddr, over: Over, head: &'static [u8], block: Vec<u8>) {
    std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(head).unwrap();
        let mut answers = stream.try_clone().unwrap();
        std::thread::spawn(move || while answers.read(&mut vec![0; 1 << 20]).is_ok_and(|len| len > 0) {});
        while !over.is() && stream.write_all(&block).is_ok() {}
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn ready() {
    beside(|over| {
        for number in 0..6000 {
            let over = over.clone();
            spawn_local(move || {
                while !over.is() {
                    if number % 10 == 0 {
                        sleep(ms(7));
                    } else {
                        yield_now();
                    }
                }
            });
        }
    });
}

fn calls() {
    beside(|over| {
        let handle = hub::handle();
        std::thread::spawn(move || while !over.is() && handle.call_soon(|| ()).is_ok() {});
    });
}

fn unparks() {
    beside(|over| {
        let theirs = over.clone();
        let parked = spawn_local(move || {
            while !theirs.is() {
                thread::park();
            }
        });
        let thread = parked.thread();
        std::thread::spawn(move || {
            while !over.is() {
                thread.unpark();
            }
            thread.unpark();
        });
    });
}

fn sends() {
    beside(|over| {
        let (sender, receiver) = channel::bounded::<u64>(100_000);
        spawn_local(move || while receiver.recv().is_ok() {});
        std::thread::spawn(move || while !over.is() && sender.send(1).is_ok() {});
    });
}

fn lock() {
    beside(|over| {
        let lock = Rc::new(Mutex::new(0_u64));
        spawn_local(move || {
            while !over.is() {
                *lock.lock().unwrap() += 1;
            }
        });
    });
}

fn sink_with(chunk: usize, buffer: usize) {
    beside(|over| {
        let (listener, address) = listener();
        spawn_local(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut block = vec![0; buffer];
            while let Ok(len @ 1..) = stream.read(&mut block) {
                sum(&block[..len]);
            }
        });
        flood(address, over, b"", vec![1; chunk]);
    });
}

fn sink() {
    for (chunk, buffer) in [(1024, 512), (16 * 1024, 4096), (256 * 1024, 4096)] {
        sink_with(chunk, buffer);
    }
}

fn writer() {
    beside(|over| {
        let (listener, address) = listener();
        spawn_local(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while !over.is() {
                stream.write_all(&[1; 4096]).unwrap();
            }
        });
        std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let mut block = vec![1; 1 << 20];
            while stream.read(&mut block).is_ok_and(|len| len > 0) {}
        });
    });
}

fn udp() {
    beside(|over| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket.set_read_timeout(Some(ms(200))).unwrap();
        spawn_local(move || {
            let mut block = [0; 2048];
            while let Ok((len, _)) = socket.recv_from(&mut block) {
                (0..20).for_each(|_| sum(&block[..len]));
            }
        });
        for _ in 0..2 {
            let over = over.clone();
            std::thread::spawn(move || {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                while !over.is() {
                    let _ = socket.send_to(&[1; 64], address);
                }
            });
        }
    });
}

/// One upload over HTTP, as fast as it goes, or requests one after the other without a pause.
fn http(local: bool, head: &'static [u8], block: Vec<u8>) {
    beside(|over| {
        let service = service_fn(async |request: Request<Incoming>| {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Some(data) = frame.data_ref() {
                    sum(data);
                }
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("done"))))
        });
        let (listener, address) = listener();
        let server = if local {
            HttpServer::new_local(listener, service)
        } else {
            HttpServer::new(listener, service)
        };
        server.start().unwrap();
        std::mem::forget(server);
        flood(address, over, head, block);
    });
}

fn upload() {
    for local in [false, true] {
        let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n";
        http(local, head, vec![1; 256 * 1024]);
    }
}

fn pipeline() {
    for local in [false, true] {
        http(
            local,
            b"",
            "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000).into_bytes(),
        );
    }
}

struct Sum;

impl Protocol for Sum {
    fn data_received(&mut self, data: &[u8]) {
        sum(data);
    }
}

fn protocol() {
    beside(|over| {
        let (listener, address) = listener();
        let server = serve_protocol(listener, || Sum);
        server.start().unwrap();
        std::mem::forget(server);
        flood(address, over, b"", vec![1; 256 * 1024]);
    });
}

fn selects() {
    beside(|over| {
        let (a, b) = (channel::unbounded::<u32>(), channel::unbounded::<u32>());
        spawn_local(move || {
            while !over.is() {
                a.0.send(1).unwrap();
                b.0.send(1).unwrap();
                for _ in 0..2 {
                    select! { recv(a.1) => (), recv(b.1) => () }
                }
            }
        });
    });
}

fn accept() {
    beside(|over| {
        let (listener, address) = listener();
        let server = StreamServer::new(listener, |_: TcpStream, _| ());
        server.start().unwrap();
        std::mem::forget(server);
        std::thread::spawn(move || {
            while !over.is() {
                drop(std::net::TcpStream::connect(address));
            }
        });
    });
}

fn patched_sink() {
    monkey::patch_all().unwrap();
    beside(|over| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut block = vec![0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut block) {
                sum(&block[..len]);
            }
        });
        flood(address, over, b"", vec![1; 256 * 1024]);
    });
}

fn main() -> ExitCode {
    scenarios::main(&[
        ("ready", ready),
        ("calls", calls),
        ("unparks", unparks),
        ("sends", sends),
        ("lock", lock),
        ("sink", sink),
        ("writer", writer),
        ("udp", udp),
        ("upload", upload),
        ("pipeline", pipeline),
        ("protocol", protocol),
        ("select", selects),
        ("accept", accept),
        ("patched_sink", patched_sink),
    ])
}
