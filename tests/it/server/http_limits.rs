//! What a server of `http` bounds: half-closed and gone clients, bodies, writes, services, sizes.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use greenthread::http::HttpServer;
use greenthread::net::{SocketAddr, TcpListener, TcpStream};
use greenthread::{sleep, time};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};

use crate::support::fresh::{ms, secs, until, virtually};

/// How many handlers and bodies there are now.
static LIVE: Mutex<()> = Mutex::new(());
static HANDLERS: AtomicUsize = AtomicUsize::new(0);
static BODIES: AtomicUsize = AtomicUsize::new(0);
/// How many requests a handler was asked for.
static ASKED: AtomicUsize = AtomicUsize::new(0);

struct Count(&'static AtomicUsize);

impl Count {
    fn new(counter: &'static AtomicUsize) -> Count {
        counter.fetch_add(1, SeqCst);
        Count(counter)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A text, or parts without end: as fast as they go, or one each 10 ms.
enum Answer {
    Text(Option<Bytes>),
    Endless(Count),
    Ticks(Count, Pin<Box<time::Sleep>>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PART: [u8; 10_000] = [b'x'; 10_000];
        let part = || Some(Ok(Frame::data(Bytes::from_static(&PART))));
        match self.get_mut() {
            Answer::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Answer::Endless(count) => {
                assert!(count.0.load(SeqCst) > 0);
                Poll::Ready(part())
            }
            Answer::Ticks(count, sleep) => {
                assert!(count.0.load(SeqCst) > 0);
                std::task::ready!(sleep.as_mut().poll(context));
                *sleep = Box::pin(time::sleep_async(ms(10)));
                Poll::Ready(part())
            }
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    ASKED.fetch_add(1, SeqCst);
    let _count = Count::new(&HANDLERS);
    let path = request.uri().path().to_owned();
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(Response::new(Answer::Text(Some(Bytes::from("bad body"))))),
    };
    match &path[..] {
        "/slow" => sleep(ms(500)),
        "/later" => time::sleep_async(ms(500)).await,
        "/much-later" => time::sleep_async(secs(300)).await,
        "/stuck" => sleep(secs(300)),
        "/never" => std::future::pending().await,
        "/endless" => return Ok(Response::new(Answer::Endless(Count::new(&BODIES)))),
        "/ticks" => {
            let sleep = Box::pin(time::sleep_async(ms(10)));
            return Ok(Response::new(Answer::Ticks(Count::new(&BODIES), sleep)));
        }
        _ => {}
    }
    let text = format!("{path} {}", body.len());
    Ok(Response::new(Answer::Text(Some(Bytes::from(text)))))
}

type Server = HttpServer<TcpListener>;

/// Runs `f` with a server of each kind.
fn each(set: fn(Server) -> Server, f: fn(SocketAddr, &Server)) {
    let _alone = LIVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let kinds: [fn(TcpListener) -> Server; 2] = [
        |listener| HttpServer::new(listener, service_fn(answer)),
        |listener| HttpServer::new_local(listener, service_fn(answer)),
    ];
    for kind in kinds {
        virtually(move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = set(kind(listener));
            server.start().unwrap();
            ASKED.store(0, SeqCst);
            f(address, &server);
            server.stop(secs(1000));
            until("all are gone", || HANDLERS.load(SeqCst) + BODIES.load(SeqCst) == 0);
        });
    }
}

/// Sends this, and no more.
fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")
}

fn post(path: &str, len: usize, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {len}\r\n\r\n{body}")
}

fn chunked(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{body}")
}

/// All that comes until the server closes, and when that was.
fn hear(mut stream: TcpStream) -> (String, std::time::Duration) {
    let start = time::now();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    (String::from_utf8(all).unwrap(), time::now() - start)
}

fn status(text: &str) -> &str {
    text.split(' ').nth(1).unwrap_or("none")
}

#[test]
fn a_client_that_ends_its_side_gets_its_answer() {
    each(
        |server| server,
        |address, _| {
            for path in ["/at-once", "/slow", "/later"] {
                let stream = send(address, &get(path));
                stream.shutdown(Shutdown::Write).unwrap();
                let (text, took) = hear(stream);
                assert_eq!(status(&text), "200", "{path}");
                assert!(text.contains(&format!("{path} 0")), "{text}");
                assert!(took < secs(2), "and then it closes: {took:?}");
            }
            // Two at once, the second of which has a body.
            let stream = send(address, &(get("/later") + &post("/later", 3, "abc")));
            sleep(ms(1));
            stream.shutdown(Shutdown::Write).unwrap();
            let (text, _) = hear(stream);
            assert_eq!(text.matches("HTTP/1.1 200").count(), 2, "{text}");
            assert!(text.contains("/later 3"), "{text}");
        },
    );
}

#[test]
fn a_client_that_ended_is_given_up_after_a_while_or_at_once() {
    each(
        |server| server,
        |address, _| {
            let stream = send(address, &get("/never"));
            stream.shutdown(Shutdown::Write).unwrap();
            until("it is asked", || HANDLERS.load(SeqCst) == 1);
            let (text, took) = hear(stream);
            assert_eq!(text, "");
            assert!((secs(29)..secs(32)).contains(&took), "{took:?}");
            until("it is dropped", || HANDLERS.load(SeqCst) == 0);
        },
    );
    each(
        |server| server.half_close(None),
        |address, _| {
            let stream = send(address, &get("/never"));
            until("it is asked", || HANDLERS.load(SeqCst) == 1);
            stream.shutdown(Shutdown::Write).unwrap();
            let (text, took) = hear(stream);
            assert_eq!(text, "");
            assert!(took < secs(1), "{took:?}");
        },
    );
}

#[test]
fn the_handler_and_the_body_of_a_client_that_has_gone_are_dropped() {
    // A connection that breaks is noticed at once, whatever the patience with those that have ended.
    each(
        |server| server,
        |address, _| {
            let stream = send(address, &get("/never"));
            until("it is asked", || HANDLERS.load(SeqCst) == 1);
            rustix::net::sockopt::set_socket_linger(&stream, Some(secs(0))).unwrap();
            let start = time::now();
            drop(stream);
            until("the handler is dropped", || HANDLERS.load(SeqCst) == 0);
            assert!(time::now() - start < secs(1));
        },
    );
    // What is written to one that has gone breaks the connection.
    each(
        |server| server,
        |address, _| {
            let stream = send(address, &get("/ticks"));
            until("it is answered", || BODIES.load(SeqCst) == 1);
            let start = time::now();
            drop(stream);
            until("the body is dropped", || BODIES.load(SeqCst) == 0);
            assert!(time::now() - start < secs(1));
        },
    );
    each(
        |server| server.half_close(None),
        |address, _| {
            let stream = send(address, &get("/never"));
            until("it is asked", || HANDLERS.load(SeqCst) == 1);
            let start = time::now();
            drop(stream);
            until("the handler is dropped", || HANDLERS.load(SeqCst) == 0);
            assert!(time::now() - start < secs(1));
        },
    );
}

#[test]
fn a_body_that_stands_still_is_answered_by_408() {
    each(
        |server| server,
        |address, _| {
            for request in [post("/", 10, "abc"), post("/", 10, ""), chunked("/", "3\r\nabc\r\n")] {
                let (text, took) = hear(send(address, &request));
                assert_eq!(status(&text), "408", "{request}: {text}");
                assert!(text.contains("connection: close"), "{text}");
                assert!((secs(29)..secs(32)).contains(&took), "{took:?}");
            }
        },
    );
    each(
        |server| server.body_timeout(Some(secs(3))),
        |address, _| {
            let (text, took) = hear(send(address, &post("/", 10, "abc")));
            assert_eq!(status(&text), "408");
            assert!((secs(3)..secs(5)).contains(&took), "{took:?}");
        },
    );
}

#[test]
fn a_body_that_moves_and_a_service_that_takes_its_time_are_not_late() {
    each(
        |server| server,
        |address, _| {
            let mut stream = send(address, &post("/", 5, ""));
            for _ in 0..5 {
                sleep(secs(20));
                stream.write_all(b"x").unwrap();
            }
            stream.shutdown(Shutdown::Write).unwrap();
            assert!(hear(stream).0.contains("/ 5"));
            // All has come, and the service takes ten times as long as a body may stand still.
            for request in [
                get("/much-later"),
                post("/much-later", 3, "abc"),
                chunked("/much-later", "3\r\nabc\r\n0\r\n\r\n"),
                get("/stuck"),
            ] {
                let mut stream = send(address, &request);
                let mut head = [0; 12];
                stream.read_exact(&mut head).unwrap();
                assert_eq!(&head, b"HTTP/1.1 200", "{request}");
            }
        },
    );
}

/// Reads so many bytes, without ever being idle: the virtual clock stands still, however long the kernel takes.
fn take(stream: &TcpStream, mut len: usize) {
    let mut block = vec![0; 1 << 20];
    while len > 0 {
        match rustix::net::recv(stream, &mut block[..], rustix::net::RecvFlags::DONTWAIT) {
            Ok((0, _)) => panic!("the server has closed, with {len} bytes to go"),
            Ok((got, _)) => len = len.saturating_sub(got),
            Err(rustix::io::Errno::AGAIN) => greenthread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    each(
        |server| server,
        |address, _| {
            let stream = send(address, &get("/endless"));
            until("it is answered", || BODIES.load(SeqCst) == 1);
            let start = time::now();
            while BODIES.load(SeqCst) == 1 {
                sleep(ms(100));
                assert!(time::now() - start < secs(60), "its body lives on");
            }
            let took = time::now() - start;
            assert!((secs(29)..secs(32)).contains(&took), "{took:?}");
            drop(stream);
        },
    );
    // One that reads a little now and then is not.
    each(
        |server| server,
        |address, _| {
            let stream = send(address, &get("/endless"));
            for _ in 0..5 {
                sleep(secs(20));
                // More than the kernel keeps for both ends, so that the server has written in the meantime.
                take(&stream, 64_000_000);
            }
            assert_eq!(BODIES.load(SeqCst), 1);
        },
    );
}

#[test]
fn a_service_that_is_too_slow_is_cut_short_and_answered_by_503() {
    each(
        |server| server.request_timeout(Some(secs(2))),
        |address, _| {
            for path in ["/never", "/much-later", "/stuck"] {
                let (text, took) = hear(send(address, &get(path)));
                assert_eq!(status(&text), "503", "{path}: {text}");
                assert!((secs(2)..secs(4)).contains(&took), "{path}: {took:?}");
                assert_eq!(HANDLERS.load(SeqCst), 0, "{path}");
            }
            let stream = send(address, &get("/later"));
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(status(&hear(stream).0), "200");
        },
    );
}

#[test]
fn a_body_that_is_too_large_is_answered_by_413() {
    each(
        |server| server.body_limit(Some(100_000)),
        |address, _| {
            // What it says, to the byte; the service is not asked.
            let text = hear(send(address, &post("/", 100_001, ""))).0;
            assert_eq!(status(&text), "413");
            let text = hear(send(address, &post("/", 4_000_000, &"x".repeat(4_000_000)))).0;
            assert_eq!(status(&text), "413", "while it sends");
            assert_eq!(ASKED.load(SeqCst), 0);
            let stream = send(address, &post("/", 100_000, &"x".repeat(100_000)));
            stream.shutdown(Shutdown::Write).unwrap();
            assert!(hear(stream).0.contains("/ 100000"));

            let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
            let stream = send(address, &chunked("/", &(chunk.repeat(9) + "0\r\n\r\n")));
            stream.shutdown(Shutdown::Write).unwrap();
            assert!(hear(stream).0.contains("/ 90000"));
            let text = hear(send(address, &chunked("/", &chunk.repeat(60)))).0;
            assert_eq!(status(&text), "413", "{text}");
        },
    );
}

#[test]
fn hypers_own_settings_and_the_log_of_what_was_refused() {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    LINES.lock().unwrap().clear();
    let set = |server: Server| {
        let server = server.http1(|http1| {
            http1.max_headers(3).keep_alive(false);
        });
        let server = server.body_limit(Some(10)).request_timeout(Some(secs(1)));
        server.access_log(|access| LINES.lock().unwrap().push(access.to_string()))
    };
    each(set, |address, _| {
        let text = hear(send(address, "GET / HTTP/1.1\r\na: b\r\nc: d\r\ne: f\r\ng: h\r\n\r\n")).0;
        assert_eq!(status(&text), "431", "{text}");
        assert_eq!(status(&hear(send(address, &get("/"))).0), "200");
        assert_eq!(status(&hear(send(address, &post("/big", 11, ""))).0), "413");
        assert_eq!(status(&hear(send(address, &get("/never"))).0), "503");
        let lines: Vec<_> = std::mem::take(&mut *LINES.lock().unwrap());
        let ends = [
            "\"GET / HTTP/1.1\" 200 3",
            "\"POST /big HTTP/1.1\" 413 0",
            "\"GET /never HTTP/1.1\" 503 0",
        ];
        assert!(
            lines.iter().zip(ends).all(|(line, end)| line.ends_with(end)),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 3);
    });
}
