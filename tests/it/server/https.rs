//! HTTPS: handshakes, also those that fail or never come, ALPN, limits and the end.

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Mutex};

use greenthread::future::block_on;
use greenthread::http::{Executor, HttpServer};
use greenthread::net::tls::TlsStream;
use greenthread::net::{SocketAddr, TcpListener, TcpStream};
use greenthread::{sleep, spawn_local, time};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::rt::Executor as _;
use hyper::service::service_fn;
use hyper::{Request, Response};
use rustls::ClientConfig;

use crate::support::fresh::{fresh, ms, secs, virtually};
use crate::support::tls::{client_config, server_config};

type Server = HttpServer<TcpListener>;

/// Gives the path back, and the length of the body; `/slow` takes 100 ms, blocking.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/slow" {
        sleep(ms(100));
    }
    let len = request.into_body().collect().await.map(|body| body.to_bytes().len());
    Ok(Response::new(Full::from(format!("{path} {:?}", len.ok()))))
}

/// In green threads, and in stackless tasks.
const KINDS: [fn(TcpListener) -> Server; 2] = [
    |listener| HttpServer::new(listener, service_fn(answer)),
    |listener| HttpServer::new_local(listener, service_fn(answer)),
];

fn start(kind: fn(TcpListener) -> Server, set: impl FnOnce(Server) -> Server) -> (Server, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = set(kind(listener).tls(&server_config(), secs(5)));
    server.start().unwrap();
    (server, address)
}

fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(address).unwrap();
    block_on(TlsStream::connect_async(config, "localhost", socket, secs(50))).unwrap()
}

fn client(address: SocketAddr, config: Arc<ClientConfig>) -> SendRequest<Full<Bytes>> {
    let (client, connection) = block_on(handshake(connect(address, config))).unwrap();
    Executor.execute(connection);
    client
}

fn ask(client: &mut SendRequest<Full<Bytes>>, path: &str, body: &'static [u8]) -> hyper::Result<Bytes> {
    let request = Request::post(path).header("host", "h").body(Full::from(body));
    block_on(async {
        let response = client.send_request(request.unwrap()).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    })
}

#[test]
fn a_thousand_clients_are_answered_and_one_uploads_a_megabyte() {
    static MEGABYTE: [u8; 1 << 20] = [7; 1 << 20];
    for (kind, count) in KINDS.into_iter().zip([1000, 100]) {
        fresh(move || {
            let (server, address) = start(kind, |server| server);
            let config = client_config(true);
            let clients: Vec<_> = (0..count)
                .map(|n| {
                    let config = config.clone();
                    spawn_local(move || {
                        let mut client = client(address, config);
                        assert_eq!(
                            ask(&mut client, &format!("/{n}"), b"").unwrap(),
                            format!("/{n} Some(0)")
                        );
                        assert_eq!(ask(&mut client, "/slow", b"body").unwrap(), "/slow Some(4)");
                    })
                })
                .collect();
            clients.into_iter().for_each(|one| one.join().unwrap());
            let got = ask(&mut client(address, config), "/", &MEGABYTE).unwrap();
            assert_eq!(got, "/ Some(1048576)");
            assert_eq!(server.stop(secs(20)).killed, 0);
        });
    }
}

#[test]
fn silence_and_garbage_harm_only_their_own_connection() {
    for kind in KINDS {
        virtually(move || {
            let errors = Arc::new(Mutex::new(Vec::new()));
            let told = errors.clone();
            let (server, address) = start(kind, |server| {
                server.on_tls_error(move |peer, error| {
                    assert!(peer.unwrap().ip().is_loopback());
                    told.lock().unwrap().push(error.kind());
                })
            });
            let begun = time::now();
            let mut silent = TcpStream::connect(address).unwrap();
            let mut garbage = TcpStream::connect(address).unwrap();
            garbage.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
            let mut distrustful = TcpStream::connect(address).unwrap();
            let refused = TlsStream::connect(client_config(false), "localhost", &mut distrustful, secs(50));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidData);
            let mut good = client(address, client_config(true));
            assert_eq!(ask(&mut good, "/a", b"").unwrap(), "/a Some(0)");
            assert!(time::now() - begun < secs(5), "nothing was waited for");
            let mut alert = Vec::new();
            garbage.read_to_end(&mut alert).unwrap();
            assert_eq!(alert.first(), Some(&21), "an alert: {alert:?}");
            assert_eq!(silent.read(&mut [0]).unwrap(), 0, "closed");
            let took = time::now() - begun;
            assert!(took >= secs(5) && took < secs(8), "{took:?}");
            assert_eq!(ask(&mut good, "/b", b"").unwrap(), "/b Some(0)");
            assert_eq!(server.stop(secs(20)).killed, 0);
            let wanted = [ErrorKind::InvalidData, ErrorKind::InvalidData, ErrorKind::TimedOut];
            assert_eq!(*errors.lock().unwrap(), wanted);
        });
    }
}

#[test]
fn a_stop_waits_for_the_busy_and_neither_for_the_idle_nor_for_handshakes() {
    for kind in KINDS {
        fresh(move || {
            let (server, address) = start(kind, |server| server);
            let silent = TcpStream::connect(address).unwrap();
            let mut idle = client(address, client_config(true));
            assert_eq!(ask(&mut idle, "/", b"").unwrap(), "/ Some(0)");
            let busy = spawn_local(move || ask(&mut client(address, client_config(true)), "/slow", b""));
            sleep(ms(50));
            let begun = time::now();
            assert_eq!(server.stop(secs(20)).killed, 0);
            assert!(time::now() - begun < secs(3), "not the patience of a handshake");
            assert_eq!(busy.join().unwrap().unwrap(), "/slow Some(0)");
            assert!(ask(&mut idle, "/", b"").is_err());
            drop(silent);
        });
    }
}

#[test]
fn the_limits_hold_and_the_end_has_a_good_bye() {
    for kind in KINDS {
        virtually(move || {
            let (server, address) = start(kind, |server| server.body_timeout(Some(ms(500))));
            let mut stream = connect(address, client_config(true));
            let head = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhe";
            stream.write_all(head).unwrap();
            let begun = time::now();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
            assert_eq!(time::now() - begun, ms(500));
            server.stop(secs(20));
        });
    }
}

/// What a client that offers these gets.
fn agreed(address: SocketAddr, offers: &[&[u8]]) -> Option<Vec<u8>> {
    let mut config = ClientConfig::clone(&client_config(true));
    config.alpn_protocols = offers.iter().map(|one| one.to_vec()).collect();
    let stream = connect(address, Arc::new(config));
    stream.connection().alpn_protocol().map(<[u8]>::to_vec)
}

#[test]
fn the_protocol_is_agreed_on() {
    fresh(|| {
        let (server, address) = start(KINDS[0], |server| server);
        assert_eq!(agreed(address, &[b"h2", b"http/1.1"]).unwrap(), b"http/1.1");
        assert_eq!(agreed(address, &[]), None);
        server.stop(secs(20));
    });
    #[cfg(feature = "http2")]
    fresh(|| {
        let (server, address) = start(KINDS[0], |server| server.http2(|_| ()));
        assert_eq!(agreed(address, &[b"http/1.1", b"h2"]).unwrap(), b"h2");
        assert_eq!(agreed(address, &[b"http/1.1"]).unwrap(), b"http/1.1");
        assert_eq!(agreed(address, &[]), None);
        let mut client = client(address, client_config(true));
        assert_eq!(ask(&mut client, "/1", b"").unwrap(), "/1 Some(0)");
        server.stop(secs(20));
    });
}
