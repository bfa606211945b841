//! HTTP/2: requests side by side on one connection, their limits, and how connections end.

use std::convert::Infallible;
use std::future::pending;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use greenthread::future::block_on;
use greenthread::http::{Executor, HttpServer};
use greenthread::net::{SocketAddr, TcpListener, TcpStream};
use greenthread::{sleep, spawn_local, time};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::rt::Executor as _;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};

use crate::support::fresh::{fresh, ms, secs, until, virtually};

/// One test at a time: handlers are counted.
static ALONE: Mutex<()> = Mutex::new(());
static HANDLERS: AtomicUsize = AtomicUsize::new(0);

struct Count;

impl Drop for Count {
    fn drop(&mut self) {
        HANDLERS.fetch_sub(1, SeqCst);
    }
}

/// Gives the path back, and what was posted; some take time, blocking or waiting, and some never end.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    HANDLERS.fetch_add(1, SeqCst);
    let _count = Count;
    let path = request.uri().path().to_owned();
    match &path[..] {
        "/slow" => sleep(ms(100)),
        "/later" => time::sleep_async(ms(100)).await,
        "/stuck" => sleep(secs(1000)),
        "/never" => pending().await,
        _ => {}
    }
    assert_ne!(path, "/panic", "asked for");
    let version = request.version();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut response = Response::new(Full::from([path.as_bytes(), &body].concat()));
    *response.status_mut() = if version == Version::HTTP_2 {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok(response)
}

type Server = HttpServer<TcpListener>;

/// Runs `f` with a server of each kind, by the virtual clock.
fn each(set: fn(Server) -> Server, f: fn(SocketAddr, &Server)) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let kinds: [fn(TcpListener) -> Server; 2] = [
        |listener| HttpServer::new(listener, service_fn(answer)),
        |listener| HttpServer::new_local(listener, service_fn(answer)),
    ];
    for kind in kinds {
        virtually(move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = set(kind(listener).http2(|_| ()));
            server.start().unwrap();
            f(address, &server);
            server.stop(secs(2000));
            until("all are gone", || HANDLERS.load(SeqCst) == 0);
        });
    }
}

type Client = SendRequest<Full<Bytes>>;

fn client(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).unwrap();
    let (client, connection) = block_on(handshake(Executor, stream)).unwrap();
    Executor.execute(connection);
    client
}

async fn ask(client: &Client, path: &str, body: &'static [u8]) -> hyper::Result<(u16, Bytes)> {
    let request = Request::post(format!("http://here{path}"))
        .body(Full::from(body))
        .unwrap();
    let mut client = client.clone();
    client.ready().await?;
    let response = client.send_request(request).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

fn ok(text: &'static str) -> (u16, Bytes) {
    (200, Bytes::from(text))
}

#[test]
fn requests_of_one_connection_block_side_by_side() {
    each(
        |server| server,
        |address, _| {
            let client = client(address);
            let begun = time::now();
            for path in ["/slow", "/later"] {
                let asked = (0..50).map(|_| ask(&client, path, b"+"));
                for got in block_on(join_all(asked)) {
                    assert_eq!(got.unwrap(), (200, Bytes::from(format!("{path}+"))));
                }
            }
            assert_eq!(time::now() - begun, ms(200));
        },
    );
}

#[test]
fn a_thousand_clients_and_large_bodies_are_answered() {
    static MEGABYTE: [u8; 1 << 20] = [b'x'; 1 << 20];
    each(
        |server| server,
        |address, server| {
            let clients: Vec<_> = (0..1000).map(|_| client(address)).collect();
            let asked = clients.iter().map(|client| ask(client, "/a", b"b"));
            assert!(
                block_on(join_all(asked))
                    .into_iter()
                    .all(|got| got.unwrap() == ok("/ab"))
            );
            assert_eq!(server.handle().live(), 1000);
            let got = block_on(join_all((0..4).map(|_| ask(&clients[0], "/", &MEGABYTE))));
            assert!(got.into_iter().all(|got| got.unwrap().1[1..] == MEGABYTE));
        },
    );
}

/// Sends this, and gives all that comes.
fn hear(address: SocketAddr, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    for part in parts {
        stream.write_all(part).unwrap();
        sleep(ms(1));
    }
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn http1_is_told_by_its_first_bytes() {
    each(
        |server| server.head_timeout(Some(secs(1))),
        |address, _| {
            let rest = b"UT /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 1\r\n\r\n!";
            let text = hear(address, &[b"P", rest]);
            assert!(
                text.starts_with("HTTP/1.1 202 ") && text.ends_with("\r\n\r\n/x!"),
                "{text}"
            );
            let text = hear(address, &[b"PRI * HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"]);
            assert!(text.starts_with("HTTP/1.1 202 "), "{text}");
            // The whole preface and no more, a part of it, nothing.
            for (part, at_most) in [
                (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], secs(40)),
                (b"PRI", secs(2)),
                (b"", secs(2)),
            ] {
                let begun = time::now();
                hear(address, &[part]);
                let took = time::now() - begun;
                assert!(took >= secs(1) && took < at_most, "{part:?}: {took:?}");
            }
        },
    );
}

#[test]
fn a_stop_finishes_the_busy_closes_the_idle_and_kills_the_late() {
    each(
        |server| server,
        |address, server| {
            let idle = client(address);
            assert_eq!(block_on(ask(&idle, "/", b"")).unwrap(), ok("/"));
            let busy = ["/slow", "/later"].map(|path| spawn_local(move || block_on(ask(&client(address), path, b""))));
            sleep(ms(30));
            let begun = time::now();
            assert_eq!(server.stop(secs(10)).killed, 0);
            assert!(time::now() - begun < secs(3));
            for (busy, text) in busy.into_iter().zip(["/slow", "/later"]) {
                assert_eq!(busy.join().unwrap().unwrap(), ok(text));
            }
            assert!(block_on(ask(&idle, "/", b"")).is_err(), "closed");
        },
    );
    each(
        |server| server,
        |address, server| {
            let late = ["/stuck", "/never"].map(|path| spawn_local(move || block_on(ask(&client(address), path, b""))));
            sleep(ms(30));
            assert_eq!(HANDLERS.load(SeqCst), 2);
            let begun = time::now();
            assert_eq!(server.stop(ms(500)).killed, 2);
            until("they were unwound", || HANDLERS.load(SeqCst) == 0);
            assert!(time::now() - begun < secs(2));
            assert!(late.into_iter().all(|late| late.join().unwrap().is_err()));
        },
    );
}

#[test]
fn a_panic_ends_its_request_and_nothing_else() {
    each(
        |server| server,
        |address, _| {
            let client = client(address);
            let (slow, panics) = block_on(futures::future::join(
                ask(&client, "/slow", b""),
                ask(&client, "/panic", b""),
            ));
            assert!(panics.is_err());
            assert_eq!(slow.unwrap(), ok("/slow"));
            assert_eq!(block_on(ask(&client, "/", b"")).unwrap(), ok("/"));
        },
    );
}

#[test]
fn a_client_that_goes_takes_its_requests_with_it() {
    each(
        |server| server,
        |address, server| {
            let client = client(address);
            let asks = spawn_local(move || block_on(ask(&client, "/never", b"")));
            until("it was asked", || HANDLERS.load(SeqCst) == 1);
            asks.kill();
            until("it was dropped", || HANDLERS.load(SeqCst) == 0);
            until("the connection has ended", || server.handle().live() == 0);
        },
    );
}

#[test]
fn idle_connections_end_and_the_limits_hold() {
    each(
        |server| {
            server
                .head_timeout(Some(secs(1)))
                .request_timeout(Some(secs(3)))
                .body_limit(Some(10))
        },
        |address, server| {
            let client = client(address);
            for path in ["/stuck", "/never"] {
                let begun = time::now();
                assert_eq!(block_on(ask(&client, path, b"")).unwrap().0, 503, "{path}");
                assert_eq!(time::now() - begun, secs(3), "longer than it may be idle");
            }
            assert_eq!(block_on(ask(&client, "/", b"more than ten")).unwrap().0, 413);
            assert_eq!(block_on(ask(&client, "/", b"ten")).unwrap(), ok("/ten"));
            let begun = time::now();
            until_in(secs(1), begun, || server.handle().live() == 0);
            assert!(block_on(ask(&client, "/", b"")).is_err());
        },
    );
}

/// It becomes true after so long, and not earlier.
fn until_in(wanted: Duration, begun: Instant, condition: impl Fn() -> bool) {
    until("in time", &condition);
    let took = time::now() - begun;
    assert!(took >= wanted && took < wanted + ms(500), "{took:?}");
}

/// A frame: its kind, flags and stream.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[0, 0, len, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[test]
fn a_client_that_answers_no_ping_is_gone() {
    each(
        |server| server.write_timeout(Some(secs(1))),
        |address, server| {
            let mut stream = TcpStream::connect(address).unwrap();
            let head = [&[0x83, 0x86, 0x41, 1, b'h', 0x44, 6][..], b"/never"].concat();
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            stream.write_all(&frame(4, 0, 0, b"")).unwrap();
            stream.write_all(&frame(1, 4, 1, &head)).unwrap();
            let begun = time::now();
            until("it was asked", || HANDLERS.load(SeqCst) == 1);
            until_in(secs(2), begun, || HANDLERS.load(SeqCst) == 0);
            until("the connection has ended", || server.handle().live() == 0);
        },
    );
}

#[test]
fn the_log_and_the_options_of_hyper_are_the_same() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = lines.clone();
        let server = HttpServer::new(
            listener,
            service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("seven b")))),
        )
        .http2(|http2| {
            http2.max_header_list_size(1000);
        })
        .access_log(move |access| log.lock().unwrap().push(access.to_string()));
        server.start().unwrap();
        let client = client(address);
        assert_eq!(block_on(ask(&client, "/a?b", b"")).unwrap(), ok("seven b"));
        let long = format!("/{}", "a".repeat(2000));
        assert_eq!(block_on(ask(&client, &long, b"")).unwrap().0, 431);
        server.stop(secs(20));
        let lines = lines.lock().unwrap();
        assert!(
            lines.len() == 1
                && lines[0].starts_with("127.0.0.1 - - [")
                && lines[0].ends_with("\"POST /a?b HTTP/2.0\" 200 7"),
            "{lines:?}"
        );
    });
}
