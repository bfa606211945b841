//! TLS that is cut short, by a kill at each park, at each wake, and by a time-out after each millisecond: every byte
//! comes once, whether it is written with or without an `io::Writer`.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use greenthread::hub::{self, Event};
use greenthread::io::Writer;
use greenthread::net::UnixStream;
use greenthread::net::tls::TlsStream;
use greenthread::server::{Connection, TlsConnection};
use greenthread::thread::Thread;
use greenthread::{JoinHandle, sleep, spawn_local, timeout};

use crate::support::fresh::{ms, secs, virtually};
use crate::support::tls::{client_config, server_config};

const LEN: usize = 100_000;

/// No part of it is like another of the same length.
fn data() -> Vec<u8> {
    (0..LEN).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

/// A client with little room in its socket, and a server.
fn pair() -> (TlsStream<UnixStream>, TlsStream<UnixStream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 5000).unwrap();
    let server = spawn_local(move || TlsStream::accept(server_config(), theirs, secs(20)).unwrap());
    let client = TlsStream::connect(client_config(true), "localhost", ours, secs(20)).unwrap();
    (client, server.join().unwrap())
}

/// Reads slowly, to the end.
fn sip(mut server: TlsStream<UnixStream>) -> JoinHandle<Vec<u8>> {
    spawn_local(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 10_000]);
        loop {
            sleep(ms(1));
            match server.read(&mut buffer).unwrap() {
                0 => return all,
                len => all.extend_from_slice(&buffer[..len]),
            }
        }
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    AtPark,
    AtWake,
    ByTime,
}

/// Runs `f` in a green thread that is cut short at its `k`th park or wake, or after `k` milliseconds; whether it came
/// to its end.
fn cut(how: Cut, k: u64, f: impl FnOnce() + 'static) -> bool {
    if how == Cut::ByTime {
        return spawn_local(move || timeout(ms(k), f).is_ok()).join().unwrap();
    }
    let victim = Arc::new(Mutex::new(None::<Thread>));
    let (theirs, seen) = (victim.clone(), AtomicU64::new(0));
    let id = Arc::new(AtomicU64::new(0));
    let of = id.clone();
    hub::set_hook(Some(Box::new(move |event| {
        let it = of.load(SeqCst);
        let counts = match how {
            Cut::AtPark => event == Event::Park(it),
            _ => event == Event::Wake(it),
        };
        if counts && seen.fetch_add(1, SeqCst) + 1 == k {
            theirs.lock().unwrap().as_ref().unwrap().kill();
        }
    })));
    let join = spawn_local(f);
    *victim.lock().unwrap() = Some(join.thread());
    id.store(join.thread().id().as_u64(), SeqCst);
    let ended = join.join().is_ok();
    hub::set_hook(None);
    ended
}

/// Writes all, from what was told on.
fn write_on(stream: &RefCell<impl Write>, told: &Cell<usize>) {
    let all = data();
    while told.get() < LEN {
        let end = (told.get() + 70_000).min(LEN);
        told.set(told.get() + stream.borrow_mut().write(&all[told.get()..end]).unwrap());
        stream.borrow_mut().flush().unwrap();
    }
}

/// Cuts at each `k` until none is left; how many there were.
fn at_each<W: Write + 'static>(how: Cut, over: fn(TlsStream<UnixStream>) -> W, end: fn(W)) -> u64 {
    for k in 1.. {
        let whole = virtually(move || {
            let (client, server) = pair();
            let reads = sip(server);
            let stream = Rc::new(RefCell::new(over(client)));
            let told = Rc::new(Cell::new(0));
            let (theirs, theirs_told) = (stream.clone(), told.clone());
            let whole = cut(how, k, move || write_on(&theirs, &theirs_told));
            let at = told.get();
            write_on(&stream, &told);
            stream.borrow_mut().flush().unwrap();
            end(Rc::into_inner(stream).unwrap().into_inner());
            let got = reads.join().unwrap();
            let right = got.iter().zip(data()).take_while(|(a, b)| **a == *b).count();
            assert_eq!((got.len(), right), (LEN, LEN), "{how:?} {k}: told {at} when it was cut");
            whole
        });
        if whole {
            return k;
        }
    }
    unreachable!()
}

fn close(stream: TlsStream<UnixStream>) {
    stream.close().unwrap();
}

fn finish(stream: TlsConnection<UnixStream>) {
    stream.shutdown(std::net::Shutdown::Write).unwrap();
}

#[test]
fn a_write_to_a_stream_is_exact() {
    for how in [Cut::AtPark, Cut::AtWake, Cut::ByTime] {
        let cuts = at_each(how, |stream| stream, close);
        assert!(cuts > 5, "{how:?}: {cuts}");
    }
}

#[test]
fn a_write_to_a_connection_is_exact() {
    for how in [Cut::AtPark, Cut::AtWake, Cut::ByTime] {
        let cuts = at_each(how, TlsConnection::new, finish);
        assert!(cuts > 5, "{how:?}: {cuts}");
    }
}

#[test]
fn a_writer_over_a_stream_is_exact() {
    for how in [Cut::AtPark, Cut::AtWake, Cut::ByTime] {
        let cuts = at_each(how, Writer::new, |mut writer| writer.get_mut().close_notify().unwrap());
        assert!(cuts > 5, "{how:?}: {cuts}");
    }
}

#[test]
fn a_writer_over_a_connection_is_exact() {
    for how in [Cut::AtPark, Cut::AtWake, Cut::ByTime] {
        let over = |stream| Writer::new(TlsConnection::new(stream));
        let cuts = at_each(how, over, |writer| finish(writer.get_ref().clone()));
        assert!(cuts > 5, "{how:?}: {cuts}");
    }
}

/// A write time-out of the socket's is an error of the next write, and not of the one that was taken.
#[test]
fn an_error_of_the_socket_behind_what_was_taken_comes_later() {
    virtually(|| {
        let (client, server) = pair();
        client.get_ref().set_write_timeout(Some(ms(5))).unwrap();
        let client = Rc::new(RefCell::new(client));
        let all = data();
        let taken = client.borrow_mut().write(&all).unwrap();
        assert!((1..LEN).contains(&taken), "{taken}");
        let error = client.borrow_mut().write(&all[taken..]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        let error = client.borrow_mut().flush().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        client.borrow().get_ref().set_write_timeout(None).unwrap();
        let reads = sip(server);
        write_on(&client, &Cell::new(taken));
        close(Rc::into_inner(client).unwrap().into_inner());
        assert!(reads.join().unwrap() == all);
    });
}
