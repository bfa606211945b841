//! A reader of a source that always has something lets the others of its hub run: a ticker of 10 ms ticks beside each
//! kind of reader for a second, and a server answers another client (gevent/gevent#1741, #1336, #892).

use std::io::{Read, Write};
use std::net as std_net;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use cases::ms;
use greenthread::net::{TcpStream, UdpSocket, UnixStream};
use greenthread::process::{Command, Stdio};
use greenthread::sync::{channel, queue::Queue};
use greenthread::{future, monkey, run, sleep, spawn};

static READ: AtomicU64 = AtomicU64::new(0);

/// A connection whose other end an OS thread fills without end.
fn flooded() -> std_net::TcpStream {
    let listener = std_net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std_net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    thread::spawn(move || while far.write_all(&[7; 1 << 20]).is_ok() {});
    near
}

/// Ticks for a second beside a reader, which spawns itself.
fn beside(start: impl FnOnce(Arc<AtomicBool>)) {
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = stop.clone();
    let ticker = spawn(move || {
        let (begun, mut ticks) = (Instant::now(), 0);
        while begun.elapsed() < ms(1000) {
            sleep(ms(10));
            ticks += 1;
        }
        theirs.store(true, Ordering::SeqCst);
        ticks
    });
    start(stop);
    let ticks = ticker.join().unwrap();
    let read = READ.load(Ordering::SeqCst);
    assert!(read > 100, "nothing was read: {read}");
    eprintln!("{ticks} ticks");
    // A hundred on a quiet machine; see `control` for this one.
    assert!(ticks >= 8, "{ticks} ticks in a second, beside {read} reads");
}

fn read_until(stop: &AtomicBool, mut read: impl FnMut() -> usize) {
    while !stop.load(Ordering::SeqCst) {
        assert!(read() > 0);
        READ.fetch_add(1, Ordering::SeqCst);
    }
}

fn own_tcp() {
    let mut near = TcpStream::from(flooded());
    beside(|stop| drop(spawn(move || read_until(&stop, || near.read(&mut [0; 2048]).unwrap()))));
}

/// The same, with a reader that gives way by itself.
fn control() {
    let mut near = TcpStream::from(flooded());
    beside(|stop| {
        drop(spawn(move || {
            read_until(&stop, || {
                greenthread::yield_now();
                near.read(&mut [0; 2048]).unwrap()
            })
        }))
    });
}

fn own_unix() {
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    thread::spawn(move || while far.write_all(&[7; 1 << 16]).is_ok() {});
    let mut near = UnixStream::from(near);
    beside(|stop| drop(spawn(move || read_until(&stop, || near.read(&mut [0; 512]).unwrap()))));
}

fn own_udp() {
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = near.local_addr().unwrap();
    for _ in 0..2 {
        let far = std_net::UdpSocket::bind("127.0.0.1:0").unwrap();
        thread::spawn(move || while far.send_to(&[7; 16], address).is_ok() {});
    }
    beside(|stop| {
        drop(spawn(move || {
            read_until(&stop, || {
                // Slower than the senders.
                let begun = Instant::now();
                while begun.elapsed().as_micros() < 20 {}
                near.recv_from(&mut [0; 64]).unwrap().0
            })
        }))
    });
}

fn own_pipe_of_a_child() {
    let mut child = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    beside(|stop| drop(spawn(move || read_until(&stop, || pipe.read(&mut [0; 64]).unwrap()))));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn own_channel() {
    let (sender, receiver) = channel::bounded::<u64>(100_000);
    thread::spawn(move || while sender.send(1).is_ok() {});
    thread::sleep(ms(100));
    beside(|stop| {
        drop(spawn(move || {
            read_until(&stop, || {
                let begun = Instant::now();
                while begun.elapsed().as_micros() < 20 {}
                receiver.recv().unwrap() as usize
            })
        }))
    });
}

fn own_queue() {
    let queue = Arc::new(Queue::<u64>::bounded(100_000));
    let theirs = queue.clone();
    thread::spawn(move || while theirs.put(1).is_ok() {});
    thread::sleep(ms(100));
    beside(|stop| {
        drop(spawn(move || {
            read_until(&stop, || {
                let begun = Instant::now();
                while begun.elapsed().as_micros() < 20 {}
                queue.get().unwrap() as usize
            })
        }))
    });
}

fn task_tcp() {
    let mut near = TcpStream::from(flooded());
    beside(|stop| {
        drop(future::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                assert!(
                    futures::io::AsyncReadExt::read(&mut near, &mut [0; 2048])
                        .await
                        .unwrap()
                        > 0
                );
                READ.fetch_add(1, Ordering::SeqCst);
            }
        }))
    });
}

fn task_channel() {
    let (sender, receiver) = channel::bounded::<u64>(100_000);
    thread::spawn(move || while sender.send(1).is_ok() {});
    thread::sleep(ms(100));
    beside(|stop| {
        drop(future::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let begun = Instant::now();
                while begun.elapsed().as_micros() < 20 {}
                receiver.recv_async().await.unwrap();
                READ.fetch_add(1, Ordering::SeqCst);
            }
        }))
    });
}

fn own_write() {
    // An OS thread reads as fast as it can: there is always room.
    let listener = std_net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std_net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while far.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let mut near = TcpStream::from(near);
    beside(|stop| drop(spawn(move || read_until(&stop, || near.write(&[7; 16]).unwrap()))));
}

fn patched_tcp() {
    let near = flooded();
    monkey::patch_all().unwrap();
    run(move || {
        beside(|stop| {
            drop(spawn(move || {
                read_until(&stop, || (&near).read(&mut [0; 2048]).unwrap())
            }))
        });
    });
}

fn patched_pipe() {
    monkey::patch_all().unwrap();
    run(|| {
        let mut child = std::process::Command::new("yes")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdout.take().unwrap();
        beside(|stop| drop(spawn(move || read_until(&stop, || pipe.read(&mut [0; 64]).unwrap()))));
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

/// A client that sends as fast as it can, from an OS thread, and then one with a single question: how long until that
/// is answered.
fn beside_a_fast_client(address: std_net::SocketAddr, head: &'static [u8], question: &'static [u8]) {
    let answered = thread::spawn(move || {
        let mut fast = std_net::TcpStream::connect(address).unwrap();
        fast.write_all(head).unwrap();
        thread::spawn(move || while fast.write_all(&[b'x'; 1 << 20]).is_ok() {});
        thread::sleep(ms(300));
        let mut other = std_net::TcpStream::connect(address).unwrap();
        other.set_read_timeout(Some(ms(3000))).unwrap();
        let start = Instant::now();
        other.write_all(question).unwrap();
        let answer = other.read(&mut [0; 64]);
        (start.elapsed(), answer.map_err(|error| error.kind()))
    });
    while !answered.is_finished() {
        sleep(ms(10));
    }
    let (took, answer) = answered.join().unwrap();
    assert!(
        answer.is_ok_and(|count| count > 0) && took < ms(1000),
        "{answer:?} after {took:?}"
    );
}

/// Reads all that comes, by pieces of a usual size; a question of four bytes is given back.
fn handle(mut stream: impl Read + Write) {
    let mut buffer = vec![0; 8192];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        // What a program does with its data.
        let sum = buffer[..count].iter().fold(0_u8, |sum, byte| sum.rotate_left(1) ^ byte);
        std::hint::black_box(sum);
        if count == 4 {
            let _ = stream.write_all(&buffer[..4]);
        }
    }
}

fn stream_server() {
    let server = greenthread::server::StreamServer::new(
        greenthread::net::TcpListener::bind("127.0.0.1:0").unwrap(),
        |stream: TcpStream, _| handle(stream),
    );
    server.start().unwrap();
    beside_a_fast_client(server.local_addr().unwrap(), b"", b"ping");
}

/// An unmodified thread-per-connection server whose threads are green.
fn patched_server() {
    monkey::patch_threads().unwrap();
    run(|| {
        let listener = std_net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                thread::spawn(move || handle(stream));
            }
        });
        let (sender, receiver) = channel::bounded(1);
        // The clients are OS threads: made on the native stack of another.
        monkey::unpatched(|| {
            thread::spawn(move || {
                beside_a_fast_client(address, b"", b"ping");
                let _ = sender.send(());
            })
        });
        assert!(receiver.recv().is_ok(), "not answered in time");
    });
}

fn http_server(local: bool) {
    use http_body_util::{BodyExt, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::{Request, Response};
    let service = hyper::service::service_fn(async |request: Request<Incoming>| {
        let mut body = request.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            let sum = frame
                .data_ref()
                .map(|data| data.iter().fold(0_u8, |sum, byte| sum.rotate_left(1) ^ byte));
            std::hint::black_box(sum);
        }
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("here")))
    });
    let listener = greenthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = if local {
        greenthread::http::HttpServer::new_local(listener, service)
    } else {
        greenthread::http::HttpServer::new(listener, service)
    };
    server.start().unwrap();
    beside_a_fast_client(
        address,
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000000000\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\n\r\n",
    );
}

fn main() -> ExitCode {
    cases::scenarios::main(&[
        ("stream_server", stream_server),
        ("patched_server", patched_server),
        ("http_server", || http_server(false)),
        ("http_server_local", || http_server(true)),
        ("control", control),
        ("own_tcp", own_tcp),
        ("own_unix", own_unix),
        ("own_udp", own_udp),
        ("own_pipe_of_a_child", own_pipe_of_a_child),
        ("own_write", own_write),
        ("own_channel", own_channel),
        ("own_queue", own_queue),
        ("task_tcp", task_tcp),
        ("task_channel", task_channel),
        ("patched_tcp", patched_tcp),
        ("patched_pipe", patched_pipe),
    ])
}
