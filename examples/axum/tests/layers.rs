//! Layers of tower, bodies that are streamed, and server-sent events, without tokio's runtime.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use axum::{Extension, Router};
use greenthread::http::{HttpServer, Peer};
use greenthread::{net, sleep, spawn, sync::channel};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::trace::TraceLayer;

const STEP: Duration = Duration::from_millis(100);

/// Three items, one each 100 ms.
fn items<T: Send + 'static>(item: fn(usize) -> T) -> channel::Receiver<Result<T, Infallible>> {
    let (sender, receiver) = channel::bounded(1);
    spawn(move || {
        for n in 0..3 {
            if sender.send(Ok(item(n))).is_err() {
                break;
            }
            sleep(STEP);
        }
    });
    receiver
}

/// `traced` counts the responses that a layer has seen.
fn router(traced: Arc<AtomicUsize>) -> Router {
    let slow = get(|| async {
        sleep(STEP);
        "slow"
    });
    Router::new()
        .route("/text", get(|| async { "text ".repeat(2000) }))
        .route("/len", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/one", slow.layer(GlobalConcurrencyLimitLayer::new(1)))
        .route("/late", get(|| async { sleep(STEP * 100) }))
        .route(
            "/who",
            get(|Extension(Peer(peer)): Extension<Peer>| async move { peer.to_string() }),
        )
        .route(
            "/parts",
            get(|| async { Body::from_stream(items(|n| format!("part {n}\n")).into_stream()) }),
        )
        .route(
            "/events",
            get(|| async { Sse::new(items(|n| Event::default().data(format!("event {n}"))).into_stream()) }),
        )
        .layer(RequestBodyLimitLayer::new(1000))
        .layer(CompressionLayer::new())
        .layer(
            TraceLayer::new_for_http().on_response(move |_: &axum::response::Response<_>, _, _: &_| {
                traced.fetch_add(1, SeqCst);
            }),
        )
}

/// Serves on an OS thread of its own, until the process ends.
fn serve() -> (SocketAddr, Arc<AtomicUsize>) {
    let traced = Arc::<AtomicUsize>::default();
    let theirs = traced.clone();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let server = HttpServer::tower(net::TcpListener::bind("127.0.0.1:0").unwrap(), router(theirs))
            .peers()
            .request_timeout(Some(STEP * 10));
        tell.send(server.local_addr().unwrap()).unwrap();
        server.serve_forever()
    });
    (told.recv().unwrap(), traced)
}

fn send(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let len = body.len();
    let rest = format!("host: h\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}");
    stream.write_all(format!("{head}\r\n{rest}").as_bytes()).unwrap();
    stream
}

fn hear(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

fn ask(address: SocketAddr, head: &str, body: &str) -> String {
    hear(send(address, head, body))
}

#[test]
fn layers_and_limits_do_their_work() {
    let (address, traced) = serve();
    let plain = ask(address, "GET /text HTTP/1.1", "");
    assert!(plain.ends_with(&"text ".repeat(2000)), "{plain}");
    let packed = ask(address, "GET /text HTTP/1.1\r\naccept-encoding: gzip", "");
    assert!(
        packed.contains("content-encoding: gzip") && packed.len() < 1000,
        "{}",
        packed.len()
    );
    assert!(ask(address, "POST /len HTTP/1.1", &"x".repeat(1000)).ends_with("\r\n\r\n1000"));
    assert!(ask(address, "POST /len HTTP/1.1", &"x".repeat(1001)).starts_with("HTTP/1.1 413 "));
    assert!(ask(address, "GET /late HTTP/1.1", "").starts_with("HTTP/1.1 503 "));
    assert!(ask(address, "GET /who HTTP/1.1", "").contains("\r\n\r\n127.0.0.1:"));
    assert_eq!(traced.load(SeqCst), 5, "not the one that was cut short");

    // One at a time: a connection waits for the other's handler.
    let begun = Instant::now();
    let both = [(); 3].map(|()| send(address, "GET /one HTTP/1.1", ""));
    assert!(both.map(hear).iter().all(|text| text.ends_with("\r\n\r\nslow")));
    assert!(begun.elapsed() >= STEP * 3, "{:?}", begun.elapsed());
}

#[test]
fn parts_and_events_come_one_by_one() {
    let (address, _) = serve();
    for (path, kind, item) in [
        ("/parts", "chunked", "part"),
        ("/events", "text/event-stream", "data: event"),
    ] {
        let begun = Instant::now();
        let mut stream = send(address, &format!("GET {path} HTTP/1.1"), "");
        let mut text = String::new();
        while !text.contains(&format!("{item} 0")) {
            let mut buffer = [0; 1000];
            let len = stream.read(&mut buffer).unwrap();
            assert!(len > 0, "{text}");
            text += std::str::from_utf8(&buffer[..len]).unwrap();
        }
        assert!(begun.elapsed() < STEP * 2, "the first does not wait for the others");
        text += &hear(stream);
        assert!(text.contains(kind) && text.contains(&format!("{item} 2")), "{text}");
        assert!(begun.elapsed() >= STEP * 2);
    }
}
