//! Connections that are upgraded, and end their HTTP.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use greenthread::future::block_on;
use greenthread::http::{self, HttpServer, Upgraded};
use greenthread::net::{SocketAddr, TcpListener, TcpStream};
use greenthread::{sleep, spawn_local, time, timeout};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};

use crate::support::fresh::{fresh, ms, secs, until, virtually};

const ASKS: &[u8] = b"GET /echo HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

/// How many connections echo now.
static ECHOES: AtomicUsize = AtomicUsize::new(0);

struct Echoes;

impl Drop for Echoes {
    fn drop(&mut self) {
        ECHOES.fetch_sub(1, SeqCst);
    }
}

fn echo(mut stream: Upgraded) {
    ECHOES.fetch_add(1, SeqCst);
    let _echoes = Echoes;
    let mut buffer = [0; 1000];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return stream.shutdown().unwrap(),
            len => stream.write_all(&buffer[..len]).and_then(|()| stream.flush()).unwrap(),
        }
    }
}

/// How many connections were found to be without the server's time-outs.
static FREE: AtomicUsize = AtomicUsize::new(0);

/// Writes to a client that does not read: it is this time-out that ends each try, not `write_timeout`.
fn push(mut stream: Upgraded) {
    for _ in 0..2 {
        let cut = timeout(ms(500), || stream.write_all(&vec![7; 20_000_000]));
        assert!(cut.is_err(), "{cut:?}");
        sleep(secs(2));
    }
    FREE.fetch_add(1, SeqCst);
}

/// `/echo` and `/push` are upgraded by the server, `/own` by the handler itself, and `/not` is not, though it was
/// to be.
async fn answer(mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let mut response = Response::new(String::new());
    let upgraded = StatusCode::SWITCHING_PROTOCOLS;
    match request.uri().path() {
        "/own" => {
            let upgrade = hyper::upgrade::on(&mut request);
            spawn_local(move || echo(Upgraded::from(block_on(upgrade).unwrap())));
            *response.status_mut() = upgraded;
        }
        "/push" => {
            *response.status_mut() = upgraded;
            http::upgrade(&mut request, &mut response, push);
        }
        path => {
            *response.status_mut() = if path == "/echo" { upgraded } else { StatusCode::OK };
            http::upgrade(&mut request, &mut response, echo);
        }
    }
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
    Ok(response)
}

const KINDS: [fn(TcpListener) -> HttpServer<TcpListener>; 2] = [
    |listener| HttpServer::new(listener, service_fn(answer)),
    |listener| HttpServer::new_local(listener, service_fn(answer)),
];

fn start(kind: fn(TcpListener) -> HttpServer<TcpListener>) -> (HttpServer<TcpListener>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = kind(listener).write_timeout(Some(secs(1)));
    server.start().unwrap();
    (server, address)
}

/// Reads to the end of the head.
fn head(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn upgraded(address: SocketAddr, asks: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(asks).unwrap();
    let head = head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

fn echoes(stream: &mut (impl Read + Write)) {
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).unwrap();
        let mut got = [0; 5];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, word.as_bytes());
    }
}

/// One after the other: they count.
#[test]
fn upgraded_connections() {
    for kind in KINDS {
        a_thousand_echo_by_turns(kind);
        what_came_with_the_head_is_not_lost(kind);
        a_stop_waits_for_it_and_then_kills_it(kind);
        a_handler_may_take_it_itself_or_not_at_all(kind);
        it_may_stand_still(kind);
    }
}

fn a_thousand_echo_by_turns(kind: fn(TcpListener) -> HttpServer<TcpListener>) {
    fresh(move || {
        let (server, address) = start(kind);
        let mut streams: Vec<_> = (0..1000).map(|_| upgraded(address, ASKS)).collect();
        streams.iter_mut().for_each(echoes);
        assert_eq!((server.handle().live(), ECHOES.load(SeqCst)), (1000, 1000));
        drop(streams);
        assert_eq!(server.stop(secs(20)).killed, 0);
        assert_eq!(ECHOES.load(SeqCst), 0);
    });
}

fn what_came_with_the_head_is_not_lost(kind: fn(TcpListener) -> HttpServer<TcpListener>) {
    fresh(move || {
        let (server, address) = start(kind);
        let mut stream = upgraded(address, &[ASKS, b"early"].concat());
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "early", "and then the end");
        server.stop(secs(20));
    });
}

fn a_stop_waits_for_it_and_then_kills_it(kind: fn(TcpListener) -> HttpServer<TcpListener>) {
    virtually(move || {
        let (server, address) = start(kind);
        let mut stream = upgraded(address, ASKS);
        echoes(&mut stream);
        let begun = time::now();
        let stopped = spawn_local({
            let handle = server.handle();
            move || handle.stop(secs(2))
        });
        sleep(secs(1));
        echoes(&mut stream);
        assert_eq!(stopped.join().unwrap().killed, 1);
        assert!(time::now() - begun < ms(2500));
        assert_eq!(ECHOES.load(SeqCst), 0, "it was unwound");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
}

fn a_handler_may_take_it_itself_or_not_at_all(kind: fn(TcpListener) -> HttpServer<TcpListener>) {
    fresh(move || {
        let (server, address) = start(kind);
        let own = String::from_utf8_lossy(ASKS).replace("/echo", "/own");
        let mut stream = upgraded(address, own.as_bytes());
        echoes(&mut stream);
        drop(stream);
        let mut stream = TcpStream::connect(address).unwrap();
        for _ in 0..2 {
            stream.write_all(b"GET /not HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
            assert!(head(&mut stream).starts_with("HTTP/1.1 200 "), "HTTP goes on");
        }
        drop(stream);
        assert_eq!(server.stop(secs(20)).killed, 0);
        while ECHOES.load(SeqCst) > 0 {
            sleep(ms(1));
        }
    });
}

/// The server's time-outs are over with HTTP.
fn it_may_stand_still(kind: fn(TcpListener) -> HttpServer<TcpListener>) {
    virtually(move || {
        let (server, address) = start(kind);
        let mut stream = upgraded(address, ASKS);
        sleep(secs(100));
        echoes(&mut stream);
        let push = String::from_utf8_lossy(ASKS).replace("/echo", "/push");
        let before = FREE.load(SeqCst);
        let silent = upgraded(address, push.as_bytes());
        until("it is without time-outs", || FREE.load(SeqCst) > before);
        drop(silent);
        drop(stream);
        assert_eq!(server.stop(secs(20)).killed, 0);
    });
}
