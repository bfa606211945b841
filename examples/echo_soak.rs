//! Many echo connections for a while, server and clients in one process on loopback; every byte is checked at both ends.
//! Run: `cargo run --release --example echo_soak -- --connections 9000 --seconds 10` (18,000 descriptors: `ulimit -n`)
//! Expect one line, `connections 9000 seconds 10 requests R errors 0 wrong_bytes 0`, exit code 0 (or 1).

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use greenthread::net::{TcpListener, TcpStream};
use greenthread::spawn_local;

const SIZE: usize = 256;
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Message `round` of connection `id`: both numbers, then noise that follows from them.
fn pattern(id: u32, round: u32) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..4].copy_from_slice(&id.to_le_bytes());
    bytes[4..8].copy_from_slice(&round.to_le_bytes());
    let mut state = (u64::from(id) << 32 | u64::from(round)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in &mut bytes[8..] {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    bytes
}

fn wrong(a: &[u8; SIZE], b: &[u8; SIZE]) -> u64 {
    a.iter().zip(b).filter(|(a, b)| a != b).count() as u64
}

/// Learns from the first message who it is talking to; what follows must be that one's, in order. Gives wrong bytes.
fn serve(mut stream: TcpStream) -> io::Result<u64> {
    let (mut buffer, mut id, mut bad) = ([0; SIZE], None, 0);
    for round in 0.. {
        match stream.read_exact(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            other => other?,
        }
        let id = *id.get_or_insert_with(|| u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]));
        bad += wrong(&buffer, &pattern(id, round));
        stream.write_all(&buffer)?;
    }
    Ok(bad)
}

/// One client, until `end`. Gives wrong bytes.
fn talk(mut stream: TcpStream, id: u32, end: &Cell<Option<Instant>>) -> io::Result<u64> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let (mut buffer, mut bad) = ([0; SIZE], 0);
    for round in 0.. {
        let sent = pattern(id, round);
        stream.write_all(&sent)?;
        stream.read_exact(&mut buffer)?;
        bad += wrong(&buffer, &sent);
        REQUESTS.fetch_add(1, Relaxed);
        if end.get().is_some_and(|end| Instant::now() >= end) {
            break;
        }
    }
    Ok(bad)
}

fn main() -> io::Result<ExitCode> {
    let number = |name: &str, default: u32| {
        let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
        args.next().and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let (connections, seconds) = (number("--connections", 1000), number("--seconds", 5));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = spawn_local(move || -> io::Result<Vec<_>> {
        let streams = listener.incoming().take(connections as usize);
        let serve = |stream| spawn_local(move || serve(stream));
        streams.map(|stream| stream.map(serve)).collect()
    });
    let end: &'static Cell<Option<Instant>> = Box::leak(Box::default());
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(TcpStream::connect(address)?); // all connect before the first talks
    }
    let clients = (0..)
        .zip(streams)
        .map(|(id, stream)| spawn_local(move || talk(stream, id, end)));
    let clients: Vec<_> = clients.collect();
    end.set(Some(Instant::now() + Duration::from_secs(seconds.into())));
    let (mut errors, mut bad) = (0, 0);
    let served = server.join().map_err(|error| io::Error::other(error.to_string()))??;
    for end in clients.into_iter().chain(served) {
        match end.join() {
            Ok(Ok(wrong)) => bad += wrong,
            _ => errors += 1,
        }
    }
    println!("connections {connections} seconds {seconds} requests {REQUESTS:?} errors {errors} wrong_bytes {bad}");
    Ok(ExitCode::from(u8::from(errors + bad > 0)))
}
