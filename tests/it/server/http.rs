//! hyper's server and client, both on the hub.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenthread::future::block_on;
use greenthread::http::{Executor, HttpServer, Peer, Timer};
use greenthread::net::{SocketAddr, TcpListener, TcpStream};
use greenthread::{sleep, spawn, spawn_local, time, yield_now};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Executor as _, Timer as _};
use hyper::service::service_fn;
use hyper::{Request, Response, client::conn::http1};

use crate::support::fresh::{fresh, ms, secs, virtually};

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Gives the path back, and what was posted; `/slow` takes 100 ms, blocking, and `/later` as long, waiting.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/slow" {
        sleep(ms(100));
    }
    if path == "/later" {
        time::sleep_async(ms(100)).await;
    }
    assert_ne!(path, "/panic", "asked for");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Ok(Response::new(Full::from([path.as_bytes(), &body].concat())))
}

/// In green threads, and in stackless tasks.
const KINDS: [fn(TcpListener) -> HttpServer<TcpListener>; 2] = [
    |listener| HttpServer::new(listener, service_fn(answer)),
    |listener| HttpServer::new_local(listener, service_fn(answer)),
];

async fn ask(client: &mut http1::SendRequest<Full<Bytes>>, path: &str, body: &'static [u8]) -> hyper::Result<Bytes> {
    let request = Request::post(path)
        .header("host", "here")
        .body(Full::from(body))
        .unwrap();
    Ok(client
        .send_request(request)
        .await?
        .into_body()
        .collect()
        .await?
        .to_bytes())
}

fn client(address: SocketAddr) -> http1::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).unwrap();
    let (client, connection) = block_on(http1::handshake(stream)).unwrap();
    Executor.execute(connection);
    client
}

#[test]
fn clients_keep_their_connections_and_a_blocking_handler_holds_up_nobody() {
    KINDS.into_iter().for_each(|server| {
        fresh(move || {
            let (listener, address) = listener();
            let server = server(listener);
            server.start().unwrap();
            let start = time::now();
            let clients: Vec<_> = (0..10)
                .map(|_| {
                    spawn_local(move || {
                        let mut client = client(address);
                        block_on(async {
                            for n in 0..20 {
                                assert_eq!(
                                    ask(&mut client, &format!("/{n}"), b"+").await.unwrap(),
                                    format!("/{n}+")
                                );
                            }
                            assert_eq!(ask(&mut client, "/slow", b"").await.unwrap(), "/slow");
                        });
                    })
                })
                .collect();
            clients.into_iter().for_each(|one| one.join().unwrap());
            let took = time::now() - start;
            assert!(took >= ms(100) && took < ms(800), "ten at once, not in turn: {took:?}");
            let stopped = server.stop(secs(10));
            assert_eq!((stopped.killed, stopped.left), (0, 0));
        })
    });
}

#[test]
fn a_megabyte_goes_there_and_back() {
    fresh(|| {
        static MEGABYTE: [u8; 1 << 20] = [7; 1 << 20];
        let (listener, address) = listener();
        let server = HttpServer::new_local(listener, service_fn(answer));
        server.start().unwrap();
        let got = block_on(async { ask(&mut client(address), "/", &MEGABYTE).await.unwrap() });
        assert!(got[1..] == MEGABYTE);
        server.stop(secs(10));
    });
}

/// A service of tower's that is not ready at its first poll.
#[derive(Clone, Default)]
struct Tower {
    asked: bool,
}

impl tower_service::Service<Request<Incoming>> for Tower {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        if std::mem::replace(&mut self.asked, true) {
            return std::task::Poll::Ready(Ok(()));
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        assert!(self.asked);
        std::future::ready(Ok(Response::new(Full::from("tower"))))
    }
}

#[test]
fn a_service_of_towers_is_asked_when_it_is_ready_and_the_log_tells() {
    fresh(|| {
        let (listener, address) = listener();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = lines.clone();
        let server = HttpServer::tower_local(listener, Tower::default()).access_log(move |access| {
            assert_eq!((access.bytes, access.peer.unwrap().ip()), (5, address.ip()));
            log.lock().unwrap().push((access.to_string(), format!("{access:#}")));
        });
        server.start().unwrap();
        block_on(async {
            let mut client = client(address);
            assert_eq!(ask(&mut client, "/a\"?b=c", b"").await.unwrap(), "tower");
            assert_eq!(ask(&mut client, "/d", b"").await.unwrap(), "tower");
        });
        server.stop(secs(10));
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        for ((line, long), path) in lines.iter().zip(["/a%22?b=c", "/d"]) {
            let (date, rest) = line.strip_prefix("127.0.0.1 - - [").unwrap().split_once("] ").unwrap();
            assert_eq!(rest, format!("\"POST {path} HTTP/1.1\" 200 5"));
            assert!(date.len() == 26 && date.ends_with(" +0000"), "{date}");
            assert!(long.starts_with(&format!("{line} ")) && long.ends_with(" ms"), "{long}");
        }
    });
}

/// Whether the client is known, and its address.
async fn whose(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    Ok(Response::new(Full::from(format!("{peer:?}"))))
}

#[test]
fn a_request_has_its_clients_address_where_that_is_asked_for() {
    for asks in [false, true] {
        fresh(move || {
            let (listener, address) = listener();
            let server = HttpServer::new(listener, service_fn(whose));
            let server = if asks { server.peers() } else { server };
            server.start().unwrap();
            let stream = TcpStream::connect(address).unwrap();
            let own = Some(stream.local_addr().unwrap()).filter(|_| asks);
            let (mut client, connection) = block_on(http1::handshake(stream)).unwrap();
            Executor.execute(connection);
            assert_eq!(block_on(ask(&mut client, "/", b"")).unwrap(), format!("{own:?}"));
            server.stop(secs(10));
        });
    }
}

#[test]
fn a_stop_closes_the_idle_finishes_the_busy_and_kills_the_late() {
    KINDS.into_iter().for_each(|server| {
        fresh(move || {
            let (listener, address) = listener();
            let server = server(listener);
            server.start().unwrap();
            let mut idle = client(address);
            assert_eq!(block_on(ask(&mut idle, "/", b"")).unwrap(), "/");
            let busy = spawn_local(move || block_on(ask(&mut client(address), "/slow", b"")));
            sleep(ms(30));
            let stopped = server.stop(secs(10));
            assert_eq!((stopped.killed, stopped.left), (0, 0));
            assert_eq!(busy.join().unwrap().unwrap(), "/slow", "it was let finish");
            assert!(block_on(ask(&mut idle, "/", b"")).is_err(), "closed");
            assert!(TcpStream::connect(address).is_err());
        })
    });
    KINDS.into_iter().for_each(|server| {
        fresh(move || {
            let (listener, address) = listener();
            let server = server(listener);
            server.start().unwrap();
            let late = spawn_local(move || block_on(ask(&mut client(address), "/later", b"")));
            sleep(ms(30));
            assert_eq!(server.stop(ms(1)).killed, 1);
            assert!(late.join().unwrap().is_err());
        })
    });
}

/// The poll of its own connection is not one to wait for: no patience is lost, and the answer arrives.
#[test]
fn a_handler_may_stop_its_own_server() {
    let own = Arc::new(Mutex::new(None::<greenthread::server::Handle>));
    let stops = move |given: Arc<Mutex<Option<greenthread::server::Handle>>>| {
        service_fn(move |_: Request<Incoming>| {
            let handle = given.lock().unwrap().clone().unwrap();
            async move {
                let stopped = handle.stop(secs(5));
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("{stopped:?}"))))
            }
        })
    };
    for local in [false, true] {
        let (own, service) = (own.clone(), stops(own.clone()));
        virtually(move || {
            let (listener, address) = listener();
            let server = if local {
                HttpServer::new_local(listener, service)
            } else {
                HttpServer::new(listener, service)
            };
            *own.lock().unwrap() = Some(server.handle());
            server.start().unwrap();
            let start = time::now();
            let said = block_on(ask(&mut client(address), "/", b"")).unwrap();
            assert_eq!(said, "Stopped { killed: 0, left: 0 }");
            assert!(time::now() - start < secs(5));
        });
    }
}

#[test]
fn a_panic_ends_its_connection_and_nothing_else() {
    KINDS.into_iter().for_each(|server| {
        fresh(move || {
            let (listener, address) = listener();
            let server = server(listener);
            server.start().unwrap();
            assert!(block_on(ask(&mut client(address), "/panic", b"")).is_err());
            assert_eq!(block_on(ask(&mut client(address), "/", b"")).unwrap(), "/");
            server.stop(secs(10));
        })
    });
}

#[test]
fn a_client_that_does_not_finish_its_head_is_let_go() {
    KINDS.into_iter().for_each(|server| {
        virtually(move || {
            let (listener, address) = listener();
            let server = server(listener).head_timeout(Some(ms(50)));
            server.start().unwrap();
            let start = time::now();
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: he").unwrap();
            let mut rest = String::new();
            let _ = stream.read_to_string(&mut rest);
            assert!(time::now() - start >= ms(50));
            assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");

            // Each request puts the time-out off.
            let mut client = client(address);
            for _ in 0..4 {
                assert_eq!(block_on(ask(&mut client, "/", b"")).unwrap(), "/");
                sleep(ms(20));
            }
            server.stop(secs(10));
        })
    });
}

#[test]
fn pipelined_requests_and_garbage_are_answered() {
    KINDS.into_iter().for_each(|server| {
        fresh(move || {
            let (listener, address) = listener();
            let server = server(listener);
            server.start().unwrap();
            let mut stream = TcpStream::connect(address).unwrap();
            stream
                .write_all(b"GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
            assert!(text.find("/1").unwrap() < text.find("/2").unwrap());

            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nwhat is this\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
            server.stop(secs(10));
        })
    });
}

#[test]
fn timers_ring_in_order_are_put_off_and_are_taken_back() {
    fn is_send_and_sync<T: Send + Sync + ?Sized>(_: &T) {}
    virtually(|| {
        let start = time::now();
        let mut sleep = Timer.sleep(secs(10));
        is_send_and_sync(&*sleep);
        Timer.reset(&mut sleep, start + secs(30));
        let other = spawn(|| {
            block_on(Timer.sleep(secs(20)));
            time::now()
        });
        block_on(sleep.as_mut());
        assert_eq!(Timer.now() - start, secs(30), "put off");
        assert_eq!(other.join().unwrap() - start, secs(20));
        let mut sleep = Timer.sleep(Duration::MAX);
        Timer.reset(&mut sleep, Timer.now() + secs(5));
        block_on(sleep.as_mut());
        assert_eq!(Timer.now() - start, secs(35), "brought forward");
        block_on(sleep);
        assert_eq!(Timer.now() - start, secs(35), "over is over");
    });
}

#[test]
fn what_is_executed_need_not_be_send_and_may_block() {
    virtually(|| {
        let done = std::rc::Rc::new(std::cell::Cell::new(0));
        for _ in 0..3 {
            let done = done.clone();
            Executor.execute(async move {
                sleep(secs(1));
                done.set(done.get() + 1);
            });
        }
        yield_now();
        assert_eq!(done.get(), 0);
        let start = time::now();
        sleep(secs(1));
        yield_now();
        assert_eq!((done.get(), time::now() - start), (3, secs(1)));
    });
}

#[test]
fn an_exchange_with_a_server_may_be_dropped_at_every_await_point() {
    KINDS.into_iter().for_each(|server| {
        fresh(move || {
            let (listener, address) = listener();
            let server = server(listener);
            server.start().unwrap();
            let mut polls = 0;
            loop {
                let exchange = async {
                    let stream = TcpStream::connect(address).unwrap();
                    let (mut client, connection) = http1::handshake(stream).await.unwrap();
                    let asked = ask(&mut client, "/", b"x");
                    match futures::future::select(Box::pin(asked), Box::pin(connection)).await {
                        futures::future::Either::Left((answer, _)) => answer.unwrap(),
                        futures::future::Either::Right(_) => panic!("the server closed"),
                    }
                };
                let mut exchange = Box::pin(exchange);
                let mut left = polls;
                let got = block_on(std::future::poll_fn(|context| {
                    if left == 0 {
                        return std::task::Poll::Ready(None);
                    }
                    left -= 1;
                    exchange.as_mut().poll(context).map(Some)
                }));
                drop(exchange);
                if let Some(got) = got {
                    assert_eq!(got, "/x");
                    break;
                }
                polls += 1;
            }
            assert!(polls >= 2);
            assert_eq!(
                block_on(ask(&mut client(address), "/", b"")).unwrap(),
                "/",
                "it serves on"
            );
            assert_eq!(server.stop(secs(10)).killed, 0);
        })
    });
}
