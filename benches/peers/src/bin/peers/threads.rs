//! Threads of the operating system.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle, spawn, yield_now};

use peers::{Args, each, emit, unsupported};

pub(crate) fn main(args: Args) {
    match args.workload.as_str() {
        "switch" => {
            let n = args.n_or(200_000);
            emit("switch", "oneway", each(2 * n, || handoffs(n)), "ns");
        }
        "yield" => {
            let n = args.n_or(100);
            let all = || {
                join(
                    (0..1000)
                        .map(|_| spawn(move || (0..n).for_each(|_| yield_now())))
                        .collect(),
                )
            };
            emit("yield", "each", each(1000 * n, all), "ns");
        }
        "spawn" => {
            let n = args.n_or(20_000);
            emit(
                "spawn",
                "seq",
                each(n, || (0..n).for_each(|_| join(vec![spawn(|| ())]))),
                "ns",
            );
            let batches = || (0..n / 1000).for_each(|_| join((0..1000).map(|_| spawn(|| ())).collect()));
            emit("spawn", "batch", each(n, batches), "ns");
        }
        "chan" => channels(args.n_or(200_000)),
        "echo" => {
            let listener = TcpListener::bind(("127.0.0.1", args.port())).expect("a free port");
            while let Ok((stream, _)) = listener.accept() {
                spawn(move || echo(stream));
            }
        }
        other => unsupported(other),
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

/// Two threads take turns: `yield_now` alone would not switch, as they may run at once.
fn handoffs(n: u64) {
    let (to, from) = (
        std::sync::mpsc::sync_channel::<()>(1),
        std::sync::mpsc::sync_channel::<()>(1),
    );
    let (ping, pinged, pong, ponged) = (to.0, to.1, from.0, from.1);
    let other = thread::spawn(move || pinged.iter().for_each(|()| pong.send(()).expect("open")));
    for _ in 0..n {
        ping.send(()).expect("open");
        ponged.recv().expect("open");
    }
    drop(ping);
    other.join().expect("no panic");
}

fn channels(n: u64) {
    emit("chan", "pingpong", each(n, || handoffs(n / 2)), "ns");

    let (to, from) = std::sync::mpsc::sync_channel(1024);
    let ns = each(n, || {
        let other = spawn(move || (0..n).for_each(|i| to.send(i).expect("open")));
        assert_eq!(from.iter().sum::<u64>(), n * (n - 1) / 2);
        other.join().expect("no panic");
    });
    emit("chan", "stream", ns, "ns");
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}
