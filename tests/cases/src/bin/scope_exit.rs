//! A handler that waits in a `scope` outlives the `stop` of its server, and `main` returns: the process ends in good
//! order, with the exit code of `main`.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::time::Duration;

use cases::ms;
use greenthread::net::{TcpListener, TcpStream};
use greenthread::server::StreamServer;
use greenthread::{sleep, thread};

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = StreamServer::new(listener, |mut stream: TcpStream, _| {
        stream.write_all(b"!").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| sleep(Duration::from_secs(3600)));
        });
    });
    server.start().unwrap();
    let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    client.read_exact(&mut [0]).unwrap();
    println!("{:?}", server.stop(ms(100)));
}
