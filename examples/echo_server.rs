//! A server that sends everything back, one green thread per connection.
//!
//! Run: `cargo run --release --example echo_server -- 127.0.0.1:7000` (port 0: the system chooses)
//!
//! Expect `listening on 127.0.0.1:7000`; then try `cargo run --release --example echo_client -- 127.0.0.1:7000`.
//! Ctrl-C ends it.

use std::io::{self, Read, Write};

use greenthread::net::{TcpListener, TcpStream};
use greenthread::{signal, spawn};

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| String::from("127.0.0.1:7000"));
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    spawn(move || {
        loop {
            let (stream, peer) = listener.accept()?;
            spawn(move || {
                if let Err(error) = echo(stream) {
                    eprintln!("{peer}: {error}");
                }
            });
        }
        #[allow(unreachable_code)]
        io::Result::Ok(())
    });
    signal::ctrl_c()
}
