//! Sockets that are polled: the traits of futures-io, registrations that are replaced and taken back, and neighbours
//! that block.

use std::future::{Future, poll_fn};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::{Either, join, select};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use greenthread::future::block_on;
use greenthread::io::Async;
use greenthread::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use greenthread::process::{Command, Stdio};
use greenthread::{sleep, spawn, spawn_local, time, yield_now};

use crate::support::fresh::{fresh, ms};

/// Counts how often it is called.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counter() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (count.clone(), Waker::from(count))
}

fn times(count: &Count) -> usize {
    count.0.load(Ordering::SeqCst)
}

/// Lets the hub look at its descriptors.
fn turn() {
    sleep(ms(1));
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// As std's methods, whose names the traits of futures have too.
fn send(mut stream: &TcpStream, bytes: &[u8]) {
    std::io::Write::write_all(&mut stream, bytes).unwrap();
}

fn receive(mut stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    std::io::Read::read_exact(&mut stream, &mut bytes).unwrap();
    bytes
}

fn poll_read<S: futures::io::AsyncRead + Unpin>(mut stream: S, waker: &Waker) -> Poll<std::io::Result<usize>> {
    Pin::new(&mut stream).poll_read(&mut Context::from_waker(waker), &mut [0; 16])
}

/// Sends back what comes, until the end.
async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 1000];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.close().await,
            len => stream.write_all(&buffer[..len]).await?,
        }
    }
}

#[test]
fn an_async_server_echoes_to_async_clients() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = spawn_local(move || {
            let streams: Vec<_> = (0..10)
                .map(|_| {
                    let (stream, _) = block_on(listener.accept_async()).unwrap();
                    spawn_local(move || block_on(echo(stream)).unwrap())
                })
                .collect();
            streams.into_iter().for_each(|one| one.join().unwrap());
        });
        let clients = (0..10_u8).map(|n| {
            spawn(move || {
                block_on(async {
                    let stream = TcpStream::connect(address).unwrap();
                    let sent = vec![n; 1_000_000];
                    let (mut reader, mut writer) = (&stream, &stream);
                    let mut got = Vec::new();
                    let write = async {
                        writer.write_all(&sent).await.unwrap();
                        writer.close().await.unwrap();
                    };
                    let (read, ()) = join(reader.read_to_end(&mut got), write).await;
                    assert_eq!(read.unwrap(), sent.len());
                    assert!(got == sent);
                })
            })
        });
        clients
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|one| one.join().unwrap());
        server.join().unwrap();
    });
}

#[test]
fn two_tasks_have_a_half_each_and_only_the_ready_one_is_woken() {
    fresh(|| {
        let (stream, peer) = pair();
        let full = vec![0; 1 << 16];
        let (read_count, reader) = counter();
        let (write_count, writer) = counter();
        assert!(poll_read(&stream, &reader).is_pending());
        let mut context = Context::from_waker(&writer);
        let mut sent = 0;
        // Until it is full for good: the system moves what there is on to the peer, and has room again.
        loop {
            let before = times(&write_count);
            while let Poll::Ready(len) =
                futures::io::AsyncWrite::poll_write(Pin::new(&mut &stream), &mut context, &full)
            {
                sent += len.unwrap();
            }
            sleep(ms(20));
            if times(&write_count) == before {
                break;
            }
        }
        let before = times(&write_count);
        send(&peer, b"x");
        turn();
        assert_eq!(times(&read_count), 1);
        assert_eq!(poll_read(&stream, &reader).map(Result::unwrap), Poll::Ready(1));
        receive(&peer, sent);
        sleep(ms(20));
        assert!(times(&write_count) > before, "there is room");
        assert_eq!(times(&read_count), 1, "nothing came");
    });
}

#[test]
fn the_last_poll_is_the_one_that_is_woken() {
    fresh(|| {
        let (stream, peer) = pair();
        let (first_count, first) = counter();
        let (last_count, last) = counter();
        assert!(poll_read(&stream, &first).is_pending());
        for _ in 0..100 {
            assert!(poll_read(&stream, &last).is_pending());
        }
        assert_eq!(Arc::strong_count(&first_count), 2, "the first waker was dropped");
        assert_eq!(Arc::strong_count(&last_count), 3, "the last one is kept, once");
        send(&peer, b"x");
        turn();
        assert_eq!((times(&first_count), times(&last_count)), (0, 1));
        assert_eq!(Arc::strong_count(&last_count), 2, "the call was its last use");
    });
}

#[test]
fn a_drop_takes_the_registration_back() {
    fresh(|| {
        let (stream, peer) = pair();
        let (count, waker) = counter();
        assert!(poll_read(&stream, &waker).is_pending());
        drop(stream);
        send(&peer, b"x");
        turn();
        assert_eq!(times(&count), 0);
        assert_eq!(Arc::strong_count(&count), 2, "its waker was dropped");

        let (stream, peer) = pair();
        assert!(poll_read(&stream, &waker).is_pending());
        let std = std::net::TcpStream::from(stream);
        send(&peer, b"x");
        turn();
        assert_eq!((times(&count), Arc::strong_count(&count)), (0, 2), "given away");
        drop(std);
    });
}

#[test]
fn a_drop_on_another_os_thread_takes_the_registration_back() {
    fresh(|| {
        let (stream, _peer) = pair();
        let (count, waker) = counter();
        assert!(poll_read(&stream, &waker).is_pending());
        std::thread::spawn(move || drop(stream)).join().unwrap();
        turn();
        assert_eq!((times(&count), Arc::strong_count(&count)), (0, 2));
    });
}

#[test]
fn a_task_that_never_comes_back_takes_nothing_from_a_green_thread() {
    fresh(|| {
        let (stream, peer) = pair();
        let stream = Arc::new(stream);
        let (count, waker) = counter();
        assert!(poll_read(&*stream, &waker).is_pending());
        let theirs = stream.clone();
        let green = spawn(move || std::io::Read::read(&mut &*theirs, &mut [0; 16]));
        yield_now();
        send(&peer, b"hello");
        assert_eq!(green.join().unwrap().unwrap(), 5);
        assert_eq!(times(&count), 1, "it is told as well");
        assert!(poll_read(&*stream, &waker).is_pending(), "and finds nothing");
    });
}

#[test]
fn an_edge_for_a_future_that_is_dropped_goes_to_the_next() {
    fresh(|| {
        let (stream, peer) = pair();
        let stream = Async::new(std::net::TcpStream::from(stream)).unwrap();
        let (count, waker) = counter();
        let (next_count, next_waker) = counter();
        let read = || stream.read_with_async(|mut stream| std::io::Read::read(&mut stream, &mut [0; 16]));
        {
            let mut first = pin!(read());
            let mut next = Box::pin(read());
            assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            assert!(next.as_mut().poll(&mut Context::from_waker(&next_waker)).is_pending());
            send(&peer, b"x");
            turn();
            // The portable reactor cannot tell an edge from a hang-up, and so wakes all.
            if std::env::var_os("GREEN_LOOP").is_none_or(|name| name != "polling") {
                assert_eq!((times(&count), times(&next_count)), (1, 0), "one edge, one task");
            }
            first.set(read());
            turn();
            assert_eq!(times(&next_count), 1, "handed on");
            let got = next.as_mut().poll(&mut Context::from_waker(&next_waker));
            assert_eq!(got.map(Result::unwrap), Poll::Ready(1));
        }
    });
}

#[test]
fn a_shutdown_and_a_reset_wake_a_pending_poll() {
    fresh(|| {
        let (stream, peer) = pair();
        let stream = Arc::new(stream);
        let theirs = stream.clone();
        let reader = spawn_local(move || block_on((&*theirs).read(&mut [0; 16])));
        yield_now();
        stream.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
        drop(peer);
        drop(stream);

        let (mut stream, peer) = pair();
        let reader = spawn_local(move || block_on(stream.read(&mut [0; 16])));
        yield_now();
        drop(peer);
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    });
}

/// Polls at most `k` times.
async fn at_most<F: Future>(k: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        if polls > k {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[test]
fn an_exchange_may_be_dropped_at_every_await_point() {
    fresh(|| {
        let mut dropped = 0;
        loop {
            let (mut stream, peer) = pair();
            let server = spawn_local(move || {
                let _ = block_on(echo(peer));
            });
            let exchange = async {
                for _ in 0..3 {
                    stream.write_all(b"ping").await?;
                    stream.read_exact(&mut [0; 4]).await?;
                }
                std::io::Result::Ok(())
            };
            let done = block_on(at_most(dropped, exchange));
            // Whatever came of it, the socket is good for green threads: what is left to be read comes, then the end.
            stream.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
            server.join().unwrap();
            if done.is_some() {
                assert_eq!(rest, b"");
                break;
            }
            assert!(rest.len() <= 4);
            dropped += 1;
        }
        assert!(dropped >= 3, "it waited for three answers");
    });
}

#[test]
fn a_read_that_loses_a_race_loses_nothing() {
    fresh(|| {
        let (mut stream, peer) = pair();
        let start = time::now();
        block_on(async {
            let mut byte = [0];
            for _ in 0..3 {
                let lost = select(stream.read(&mut byte), time::sleep_async(ms(2))).await;
                assert!(matches!(lost, Either::Right(_)), "nothing was sent");
            }
            send(&peer, b"x");
            assert_eq!(stream.read(&mut byte).await.unwrap(), 1);
        });
        assert!(time::now() - start >= ms(6));
    });
}

#[test]
fn udp_unix_and_pipes_are_polled_too() {
    fresh(|| {
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let (to, from) = (b.local_addr().unwrap(), a.local_addr().unwrap());
        let receiver = spawn_local(move || {
            let mut buffer = [0; 16];
            let first = block_on(b.recv_from_async(&mut buffer)).unwrap();
            let second = block_on(poll_fn(|context| b.poll_recv_from(context, &mut buffer))).unwrap();
            (first, second)
        });
        yield_now();
        block_on(a.send_to_async(b"one", to)).unwrap();
        turn();
        block_on(poll_fn(|context| a.poll_send_to(context, b"three", to))).unwrap();
        assert_eq!(receiver.join().unwrap(), ((3, from), (5, from)));

        let path = std::env::temp_dir().join(format!("gt-poll-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let server = spawn_local(move || {
            let (mut stream, _) = block_on(poll_fn(|context| listener.poll_accept(context))).unwrap();
            block_on(AsyncWriteExt::write_all(&mut stream, b"unix")).unwrap();
        });
        yield_now();
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut text = String::new();
        block_on(AsyncReadExt::read_to_string(&mut stream, &mut text)).unwrap();
        server.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "unix");

        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut text = String::new();
        block_on(async {
            stdin.write_all(b"through a pipe").await.unwrap();
            drop(stdin);
            stdout.read_to_string(&mut text).await.unwrap();
        });
        assert_eq!(text, "through a pipe");
        assert!(child.wait().unwrap().success());
    });
}
