//! A chat server: every line that somebody sends goes to everybody else.
//!
//! Run: `cargo run --release --example chat_server -- 127.0.0.1:7001`, then `nc 127.0.0.1 7001` in several terminals
//!
//! Expect `listening on ..`. The first line that a client sends is its name; then `* ann is here`, `ann: hello` and
//! `* ann has left` at the others (the first at ann too). Who reads too slowly for a second is thrown out. Ctrl-C ends the server.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use greenthread::net::{TcpListener, TcpStream};
use greenthread::{signal, spawn};

type Members = HashMap<u64, Arc<TcpStream>>;

#[derive(Clone, Default)]
struct Room(Arc<Mutex<Members>>);

impl Room {
    /// Never held while something waits.
    fn members(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_others(&self, from: u64, text: &str) {
        let all: Vec<_> = self.members().iter().map(|(n, s)| (*n, s.clone())).collect();
        for (number, stream) in all {
            if number != from && (&*stream).write_all(text.as_bytes()).is_err() {
                self.members().remove(&number);
                // Wakes its reader, which says good-bye.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }
}

fn member(room: &Room, number: u64, stream: TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let stream = Arc::new(stream);
    let mut lines = BufReader::new(&*stream).lines();
    (&*stream).write_all(b"* your name?\n")?;
    let Some(name) = lines.next().transpose()? else {
        return Ok(());
    };
    room.members().insert(number, stream.clone());
    room.tell_others(u64::MAX, &format!("* {name} is here\n")); // and itself
    let mut talk = || -> io::Result<()> {
        for line in &mut lines {
            room.tell_others(number, &format!("{name}: {}\n", line?));
        }
        Ok(())
    };
    let ended = talk();
    room.members().remove(&number);
    room.tell_others(number, &format!("* {name} has left\n"));
    ended
}

fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| String::from("127.0.0.1:7001"));
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    spawn(move || {
        let room = Room::default();
        for (number, stream) in (0..).zip(listener.incoming()) {
            match stream {
                Ok(stream) => {
                    let room = room.clone();
                    spawn(move || member(&room, number, stream));
                }
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    });
    signal::ctrl_c()
}
