//! A TCP proxy: whoever connects is connected on, and two green threads per connection carry the bytes.
//!
//! Run: `cargo run --release --example tcp_proxy -- 127.0.0.1:7002 127.0.0.1:7000` (where to listen, where to go)
//!
//! Expect `127.0.0.1:7002 -> 127.0.0.1:7000`, then a line per connection with the bytes that went each way. A half that is
//! closed is closed on the other side too, so that `echo hi | nc` gets its answer. Ctrl-C ends it.

use std::io;
use std::net::Shutdown;

use greenthread::net::{TcpListener, TcpStream};
use greenthread::{scope, signal, spawn};

/// Carries one direction until its end, and hands the end on.
fn carry(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<u64> {
    let carried = io::copy(&mut from, &mut to);
    let passed_on = to.shutdown(Shutdown::Write);
    if carried.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    let bytes = carried?;
    passed_on?;
    Ok(bytes)
}

fn serve(client: &TcpStream, target: &str) -> io::Result<(u64, u64)> {
    let server = TcpStream::connect(target)?;
    scope(|s| {
        let there = s.spawn(|| carry(client, &server));
        let back = carry(&server, client);
        let there = there.join().map_err(|error| io::Error::other(error.to_string()))?;
        Ok((there?, back?))
    })
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(target)) = (args.next(), args.next()) else {
        return Err(io::Error::other("two arguments: where to listen, and where to go"));
    };
    let listener = TcpListener::bind(address)?;
    println!("{} -> {target}", listener.local_addr()?);
    spawn(move || {
        loop {
            let (client, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => {
                    eprintln!("accept: {error}");
                    return;
                }
            };
            let target = target.clone();
            spawn(move || match serve(&client, &target) {
                Ok((there, back)) => println!("{peer}: {there} bytes there, {back} back"),
                Err(error) => eprintln!("{peer}: {error}"),
            });
        }
    });
    signal::ctrl_c()
}
