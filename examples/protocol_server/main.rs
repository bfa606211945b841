//! A server of lines, written as callbacks: `add` numbers, or tell it to shut down.
//!
//! Run: `cargo run --release --example protocol_server -- 127.0.0.1:7002` (port 0: the system chooses), and then
//! `cargo run --release --example protocol_server -- client 127.0.0.1:7002 "add 1 2 3" nope "add x" shutdown`; both take `async` as
//! their first word.
//!
//! Expect `listening on 127.0.0.1:7002`, and at the client `Welcome.`, `6`, `Invalid command: nope`, `Error: ..` and
//! `Okay. Shutting down.`; then the server is gone.

mod client;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use greenthread::future::block_on;
use greenthread::net::TcpListener;
use greenthread::server::{Protocol, Transport, serve_protocol};
use greenthread::sync::Event;

#[derive(Default)]
struct Lines {
    transport: Option<Transport>,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    shutdown: Arc<Event>,
}

impl Lines {
    fn answer(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("add") => match words.map(str::parse::<i64>).sum::<Result<i64, _>>() {
                Ok(sum) => sum.to_string(),
                Err(error) => format!("Error: {error}"),
            },
            Some("shutdown") => {
                self.shutdown.set();
                String::from("Okay. Shutting down.")
            }
            _ => format!("Invalid command: {line}"),
        }
    }

    fn say(&self, text: &str) {
        if let Some(transport) = &self.transport {
            transport.write(format!("{text}\n").as_bytes());
        }
    }
}

impl Protocol for Lines {
    fn connection_made(&mut self, transport: Transport) {
        self.transport = Some(transport);
        self.say("Welcome.");
    }

    fn data_received(&mut self, data: &[u8]) {
        self.rest.extend_from_slice(data);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.say(&self.answer(String::from_utf8_lossy(&line).trim()));
        }
    }
}

fn main() -> io::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_async = arguments.first().is_some_and(|first| first == "async");
    arguments.drain(..usize::from(is_async));
    if let [mode, address, commands @ ..] = &arguments[..]
        && mode == "client"
    {
        return match is_async {
            true => block_on(client::asynchronous(address, commands)),
            false => client::green(address, commands),
        };
    }
    let address = arguments.first().map_or("127.0.0.1:7002", String::as_str);
    let shutdown = Arc::new(Event::new());
    let told = shutdown.clone();
    let factory = move || Lines {
        shutdown: told.clone(),
        ..Lines::default()
    };
    let server = serve_protocol(TcpListener::bind(address)?, factory);
    println!("listening on {}", server.local_addr()?);
    server.start()?;
    match is_async {
        true => block_on(shutdown.wait_async()),
        false => shutdown.wait(),
    }
    server.stop(Duration::from_millis(100)); // the last answers have gone out; who still talks is cut off
    Ok(())
}
