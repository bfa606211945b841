//! `server::{Protocol, Transport}`: the order of the callbacks, flow control, and every way to end.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use greenthread::net::{TcpListener, TcpStream, UnixStream};
use greenthread::server::{Protocol, Transport, run_protocol, serve_protocol};
use greenthread::sync::Event;
use greenthread::{JoinHandle, hub, sleep, spawn_local, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, text};

type Log = Rc<RefCell<Vec<String>>>;

/// Notes what is called; `act` does something about it.
struct Noting<F> {
    log: Log,
    transport: Option<Transport>,
    act: F,
}

impl<F: FnMut(&str, &Transport)> Noting<F> {
    fn note(&mut self, what: String) {
        self.log.borrow_mut().push(what.clone());
        (self.act)(&what, self.transport.as_ref().unwrap());
    }
}

impl<F: FnMut(&str, &Transport)> Protocol for Noting<F> {
    fn connection_made(&mut self, transport: Transport) {
        self.transport = Some(transport);
        self.note(String::from("made"));
    }

    fn data_received(&mut self, data: &[u8]) {
        self.note(format!("data {}", String::from_utf8_lossy(data)));
    }

    fn eof_received(&mut self) -> bool {
        self.note(String::from("eof"));
        false
    }

    fn connection_lost(&mut self, error: Option<io::Error>) {
        self.note(error.map_or_else(|| String::from("lost"), |error| format!("lost {:?}", error.kind())));
    }

    fn pause_writing(&mut self) {
        self.note(String::from("pause"));
    }

    fn resume_writing(&mut self) {
        self.note(String::from("resume"));
    }
}

/// A protocol at one end of a pair of sockets.
struct Pair {
    theirs: UnixStream,
    log: Log,
    transport: Transport,
    runs: JoinHandle<()>,
}

/// What the peer reads to the end, from now on.
fn rest(mut stream: UnixStream) -> JoinHandle<Vec<u8>> {
    spawn_local(move || {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        all
    })
}

fn pair(mut act: impl FnMut(&str, &Transport) + 'static) -> Pair {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (log, sent) = (Log::default(), Rc::new(RefCell::new(None)));
    let (theirs_log, theirs_sent) = (log.clone(), sent.clone());
    let runs = spawn_local(move || {
        let act = move |what: &str, transport: &Transport| {
            theirs_sent.borrow_mut().get_or_insert_with(|| transport.clone());
            act(what, transport);
        };
        let (log, transport) = (theirs_log, None);
        run_protocol(ours, Noting { log, transport, act });
    });
    yield_now();
    let transport = sent.borrow_mut().take().expect("the connection is made");
    Pair {
        theirs,
        log,
        transport,
        runs,
    }
}

impl Pair {
    fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    fn until(&self, what: &str) {
        let there = || self.log.borrow().iter().any(|noted| noted == what);
        timeout(secs(20), || {
            while !there() {
                sleep(ms(1));
            }
        })
        .unwrap_or_else(|_| panic!("never {what}: {:?}", self.log()));
    }
}

#[test]
fn the_callbacks_come_in_order() {
    fresh(|| {
        let mut pair = pair(|what, transport| {
            if let Some(data) = what.strip_prefix("data ") {
                transport.write(data.to_ascii_uppercase().as_bytes());
            }
        });
        for word in ["one", "two"] {
            pair.theirs.write_all(word.as_bytes()).unwrap();
            pair.until(&format!("data {word}"));
        }
        pair.theirs.shutdown(Shutdown::Write).unwrap();
        pair.until("lost");
        assert_eq!(pair.log(), ["made", "data one", "data two", "eof", "lost"]);
        pair.runs.join().unwrap();
        assert_eq!(rest(pair.theirs).join().unwrap(), b"ONETWO");
        // A transport that is kept keeps nothing open, and does nothing.
        pair.transport.write(b"too late");
        assert!(pair.transport.is_closing());
        assert_eq!(pair.transport.write_buffer_size(), 0);
        assert_eq!(pair.transport.drain().unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn the_protocol_is_told_to_pause_and_to_go_on_once_each() {
    fresh(|| {
        const LEN: usize = 3_000_000;
        let pair = pair(|what, transport| {
            if what == "made" {
                transport.set_write_buffer_limits(1000, 2000);
                transport.write(&[b'x'; LEN]); // returns
                transport.write(b"y");
                transport.close();
                transport.write(b"no more");
            }
        });
        assert_eq!(pair.log(), ["made", "pause"]);
        let size = pair.transport.write_buffer_size();
        assert!((2001..LEN).contains(&size), "{size} of {LEN} are left");
        let all = rest(pair.theirs.try_clone().unwrap()).join().unwrap();
        assert!(all.len() == LEN + 1 && all.ends_with(b"xy"), "{}", all.len());
        pair.until("lost");
        assert_eq!(pair.log(), ["made", "pause", "resume", "lost"]);
    });
}

#[test]
fn drain_waits_for_the_low_mark_in_a_callback_too() {
    fresh(|| {
        let mut pair = pair(|what, transport| {
            if what.starts_with("data") {
                transport.write(&[b'x'; 2_000_000]);
                transport.drain().unwrap();
                assert!(transport.write_buffer_size() <= 16 * 1024);
                transport.close();
            }
        });
        pair.theirs.write_all(b"go").unwrap();
        let all = rest(pair.theirs.try_clone().unwrap()).join().unwrap();
        assert_eq!(all.len(), 2_000_000);
        pair.until("lost");
        // The callback waited, so nobody could be told meanwhile; then there was nothing to tell.
        assert_eq!(pair.log(), ["made", "data go", "lost"]);
    });
}

#[test]
fn abort_drops_what_is_buffered() {
    fresh(|| {
        let pair = pair(|_, _| ());
        pair.transport.write(&[b'x'; 3_000_000]);
        let on_its_way = 3_000_000 - pair.transport.write_buffer_size();
        yield_now(); // the writer waits for room
        pair.transport.abort();
        pair.until("lost");
        assert_eq!(rest(pair.theirs.try_clone().unwrap()).join().unwrap().len(), on_its_way);
        assert_eq!(pair.log().last().unwrap(), "lost");
        pair.runs.join().unwrap();
    });
}

#[test]
fn write_eof_sends_the_rest_and_reading_goes_on() {
    fresh(|| {
        let pair = pair(|_, _| ());
        pair.transport.write(&[b'x'; 1_000_000]);
        pair.transport.write_eof();
        pair.transport.write(b"no more");
        let got = rest(pair.theirs.try_clone().unwrap()).join().unwrap();
        assert_eq!(got.len(), 1_000_000);
        (&pair.theirs).write_all(b"still").unwrap();
        pair.until("data still");
        assert!(!pair.transport.is_closing());
        pair.transport.close();
        pair.until("lost");
    });
}

/// Answers after the end of what it is asked.
struct Counting(Option<Transport>, usize);

impl Protocol for Counting {
    fn connection_made(&mut self, transport: Transport) {
        self.0 = Some(transport);
    }

    fn data_received(&mut self, data: &[u8]) {
        self.1 += data.len();
    }

    fn eof_received(&mut self) -> bool {
        let (transport, total) = (self.0.clone().unwrap(), self.1);
        spawn_local(move || {
            sleep(ms(5));
            transport.write(total.to_string().as_bytes());
            transport.close();
        });
        true
    }
}

#[test]
fn eof_may_leave_the_connection_open_for_an_answer() {
    fresh(|| {
        let server = serve_protocol(TcpListener::bind("127.0.0.1:0").unwrap(), || Counting(None, 0));
        server.start().unwrap();
        let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        client.write_all(&[0; 123_456]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "123456");
        assert_eq!(server.stop(secs(20)).killed, 0);
    });
}

#[test]
fn paused_reading_keeps_the_data() {
    fresh(|| {
        let mut pair = pair(|_, _| ());
        pair.transport.pause_reading();
        pair.theirs.write_all(b"kept").unwrap();
        hub::idle();
        sleep(ms(5));
        assert_eq!(pair.log(), ["made"]);
        pair.transport.resume_reading();
        pair.until("data kept");
        pair.transport.pause_reading();
        pair.theirs.write_all(b"dropped").unwrap();
        sleep(ms(5));
        pair.transport.close();
        pair.until("lost");
        assert_eq!(pair.log(), ["made", "data kept", "lost"]);
    });
}

/// Sends what it is told of its end.
struct Told(Option<Transport>, std::sync::mpsc::Sender<Option<ErrorKind>>);

impl Protocol for Told {
    fn connection_made(&mut self, transport: Transport) {
        transport.write(&[0; 5_000_000]);
        assert!(transport.peer_addr().unwrap().ip().is_loopback());
        self.0 = Some(transport);
    }

    fn data_received(&mut self, _: &[u8]) {}

    fn connection_lost(&mut self, error: Option<io::Error>) {
        assert!(self.0.as_ref().unwrap().is_closing());
        self.1.send(error.map(|error| error.kind())).unwrap();
    }
}

#[test]
fn a_reset_and_a_stop_are_told_as_what_they_are() {
    for (stops, kind) in [
        (false, ErrorKind::ConnectionReset),
        (true, ErrorKind::ConnectionAborted),
    ] {
        fresh(move || {
            let (sender, told) = std::sync::mpsc::channel();
            let sender = Mutex::new(sender);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let server = serve_protocol(listener, move || Told(None, sender.lock().unwrap().clone()));
            server.start().unwrap();
            let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            client.read_exact(&mut [0; 1000]).unwrap();
            if !stops {
                rustix::net::sockopt::set_socket_linger(&client, Some(secs(0))).unwrap();
                drop(client);
                while server.handle().live() > 0 {
                    sleep(ms(1));
                }
            }
            let stopped = server.stop(ms(5));
            assert_eq!((stopped.killed, stopped.left), (usize::from(stops), 0));
            assert_eq!(told.try_recv().unwrap(), Some(kind));
            assert!(told.try_recv().is_err(), "once");
        });
    }
}

#[test]
fn a_panic_in_any_callback_ends_the_connection_and_is_told() {
    for at in ["made", "data x", "eof", "pause", "resume"] {
        fresh(move || {
            let mut pair = pair(move |what, transport| {
                if what == "data x" {
                    transport.write(&[0; 1_000_000]);
                }
                if what == at {
                    std::panic::resume_unwind(Box::new("in a callback"));
                }
            });
            let _ = pair.theirs.write_all(b"x");
            if at != "eof" {
                sleep(ms(5));
                drop(rest(pair.theirs.try_clone().unwrap()));
            }
            let _ = pair.theirs.shutdown(Shutdown::Write);
            if at == "eof" {
                drop(rest(pair.theirs.try_clone().unwrap()));
            }
            pair.until("lost ConnectionAborted");
            assert_eq!(
                pair.log.borrow().iter().filter(|what| what.starts_with("lost")).count(),
                1
            );
            let payload = pair.runs.join().unwrap_err().into_panic();
            assert_eq!(text(&*payload), "in a callback");
        });
    }
}

#[test]
fn killed_at_any_park_it_is_told_once_and_nothing_stays_open() {
    for k in 0..6 {
        fresh(move || {
            let mut pair = pair(|what, transport| match what {
                "data x" => transport.write(&[0; 1_000_000]),
                "data y" => sleep(secs(3600)),
                _ => {}
            });
            let before = hub::live();
            match k {
                0 => {}
                1 => pair.theirs.write_all(b"x").unwrap(), // the writer waits for room
                2 => pair.transport.pause_reading(),
                3 => pair.theirs.write_all(b"y").unwrap(), // within a callback
                4 => {
                    pair.transport.write(&[0; 1_000_000]);
                    pair.transport.close(); // the reader waits for the writer
                }
                _ => {
                    pair.transport.pause_reading();
                    pair.theirs.write_all(b"z").unwrap();
                }
            }
            sleep(ms(5));
            pair.runs.kill();
            assert!(pair.runs.join().unwrap_err().is_killed(), "{k}");
            let log = pair.log.borrow();
            assert_eq!(log.last().unwrap(), "lost ConnectionAborted", "{k}: {log:?}");
            hub::idle();
            assert_eq!(hub::live(), before - 2, "{k}: reader and writer are gone");
            pair.theirs.set_read_timeout(Some(secs(20))).unwrap();
            while pair.theirs.read(&mut [0; 100_000]).is_ok_and(|len| len > 0) {}
            assert!(pair.theirs.write_all(b"?").is_err(), "{k}: closed at the other end");
        });
    }
}

#[test]
fn a_callback_may_wait_and_others_of_its_connection_wait_for_it() {
    fresh(|| {
        let go = Arc::new(Event::new());
        let theirs = go.clone();
        let mut pair = pair(move |what, transport| {
            if what == "data a" {
                transport.write(b"at once");
                theirs.wait();
            }
        });
        pair.theirs.write_all(b"a").unwrap();
        let mut buffer = [0; 7];
        timeout(secs(20), || pair.theirs.read_exact(&mut buffer))
            .unwrap()
            .unwrap();
        pair.theirs.write_all(b"b").unwrap();
        sleep(ms(5));
        assert_eq!(pair.log(), ["made", "data a"]);
        go.set();
        pair.until("data b");
    });
}

#[test]
fn another_os_thread_may_write() {
    fresh(|| {
        let pair = pair(|_, _| ());
        let transport = pair.transport.clone();
        let writer = std::thread::spawn(move || {
            for _ in 0..200 {
                transport.write(&[1; 10_000]);
                transport.drain().unwrap();
            }
            transport.close();
        });
        let all = rest(pair.theirs.try_clone().unwrap()).join().unwrap();
        assert_eq!(all.len(), 2_000_000);
        writer.join().unwrap();
        pair.until("lost");
    });
}
