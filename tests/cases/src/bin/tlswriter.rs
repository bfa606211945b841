//! `io::Writer` over TLS and plain TCP: flushes that are cut short by time-outs, and those that follow, send each
//! byte once and in its place.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::ExitCode;

use cases::flood::{client_config, server_config};
use cases::{Verdict, ms};
use greenthread::io::Writer;
use greenthread::net::tls::TlsStream;
use greenthread::net::{TcpListener, TcpStream};
use greenthread::server::TlsConnection;
use greenthread::{sleep, spawn, timeout};

const SIZE: usize = 8_000_000;

fn main() -> ExitCode {
    let mut verdict = Verdict::default();
    let data: Vec<u8> = (0..SIZE).map(|i| (i / 1000) as u8 ^ (i / 100_000) as u8).collect();
    for over in ["TcpStream", "TlsStream", "TlsConnection"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = spawn(move || take(&listener, over != "TcpStream"));
        let socket = TcpStream::connect(address).unwrap();
        let cuts = if over == "TcpStream" {
            send(Writer::new(socket), &data)
        } else {
            let mut stream = TlsStream::connect(client_config(), "localhost", socket, ms(20_000)).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            match over {
                "TlsStream" => send(Writer::new(stream), &data),
                _ => send(Writer::new(TlsConnection::new(stream)), &data),
            }
        };
        let got = peer.join().unwrap();
        let right = got.iter().zip(&data).take_while(|(got, sent)| got == sent).count();
        verdict.holds(
            cuts > 0 && got.len() == SIZE && right == SIZE,
            format_args!(
                "{over}: flush cut {cuts} times; of {SIZE} B came {}, right up to {right}",
                got.len()
            ),
        );
    }
    verdict.end()
}

/// All that comes; the peer reads nothing for 100 ms.
fn take(listener: &TcpListener, tls: bool) -> Vec<u8> {
    let (mut socket, _) = listener.accept().unwrap();
    let mut all = Vec::new();
    if tls {
        let mut stream = TlsStream::accept(server_config(), socket, ms(20_000)).unwrap();
        stream.write_all(b"!").unwrap();
        sleep(ms(100));
        let _ = stream.read_to_end(&mut all);
    } else {
        sleep(ms(100));
        let _ = socket.read_to_end(&mut all);
    }
    all
}

/// Flushes with time-outs of 1 ms until all is gone, and says how often a flush was cut short.
fn send<W: Write>(mut writer: Writer<W>, data: &[u8]) -> u32 {
    writer.write_all(data).unwrap();
    let mut cuts = 0;
    while timeout(ms(1), || writer.flush().unwrap()).is_err() {
        cuts += 1;
        sleep(ms(1));
    }
    cuts
}
