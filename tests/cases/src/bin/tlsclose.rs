//! A TLS client that uploads and closes: all of its bytes arrive, and the server sees an end and no error, although
//! the client has never read the server's session tickets, and the server takes its time.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::ExitCode;

use cases::flood::{client_config, server_config};
use cases::{Verdict, ms};
use greenthread::net::tls::TlsStream;
use greenthread::net::{TcpListener, TcpStream};
use greenthread::{sleep, spawn};

fn main() -> ExitCode {
    let mut verdict = Verdict::default();
    for size in [10_000, 1_000_000] {
        for pause in [0, 5] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = spawn(move || take(&listener, pause));
            let socket = TcpStream::connect(address).unwrap();
            let mut client = TlsStream::connect(client_config(), "localhost", socket, ms(20_000)).unwrap();
            client.write_all(&vec![7; size]).unwrap();
            let closed = client.close();
            let (got, end) = server.join().unwrap();
            verdict.holds(
                closed.is_ok() && got == size && end == "end",
                format_args!("{size} B, then close() = {closed:?}; at {pause} ms a read there came {got} B and: {end}"),
            );
        }
    }
    verdict.end()
}

/// How many bytes come, and what ends them.
fn take(listener: &TcpListener, pause: u64) -> (usize, String) {
    let (socket, _) = listener.accept().unwrap();
    let mut stream = TlsStream::accept(server_config(), socket, ms(20_000)).unwrap();
    let (mut total, mut block) = (0, vec![0; 16_384]);
    loop {
        sleep(ms(pause)); // it does something with what it has
        match stream.read(&mut block) {
            Ok(0) => return (total, String::from("end")),
            Ok(len) => total += len,
            Err(error) => return (total, error.to_string()),
        }
    }
}
