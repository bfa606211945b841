//! `StreamServer` and `DatagramServer`: limits, stops, errors, and who may do what from where.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use greenthread::net::{SocketAddr, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use greenthread::server::{DatagramServer, Listener, StreamServer};
use greenthread::sync::Event;
use greenthread::{hub, signal, sleep, spawn, spawn_local, thread, time, timeout, yield_now};

use crate::support::child;
use crate::support::counted::Counted;
use crate::support::fresh::{fresh, ms, secs, until, virtually};

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// All that a server says before it closes the connection.
fn hear(address: SocketAddr) -> io::Result<String> {
    let mut text = String::new();
    TcpStream::connect(address)?.read_to_string(&mut text)?;
    Ok(text)
}

fn refuses(address: SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[test]
fn stop_waits_for_handlers_and_kills_those_that_are_late() {
    virtually(|| {
        let (ended, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let theirs = (ended.clone(), dropped.clone());
        let server = StreamServer::new(listen(), move |mut stream: TcpStream, _| {
            let _count = Counted(theirs.1.clone());
            let mut seconds = [0];
            stream.read_exact(&mut seconds).unwrap();
            sleep(secs(seconds[0].into()));
            theirs.0.fetch_add(1, Ordering::SeqCst);
        });
        server.start().unwrap();
        let address = server.local_addr().unwrap();
        let mut clients = Vec::new();
        for seconds in [1, 3, 60, 61] {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(&[seconds]).unwrap();
            clients.push(client);
        }
        until("four handlers", || server.handle().live() == 4);
        let start = time::now();
        let stopped = server.stop(secs(10));
        assert_eq!((stopped.killed, stopped.left), (2, 0));
        let took = time::now() - start;
        assert!((secs(9)..secs(11)).contains(&took), "{took:?}");
        assert_eq!((ended.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (2, 4));
        assert!(refuses(address));
        assert!(!server.handle().is_serving());
        for mut client in clients {
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed");
        }
    });
}

#[test]
fn stop_with_nobody_there_is_done_at_once_and_twice_is_fine() {
    virtually(|| {
        let server = StreamServer::new(listen(), |_, _| ());
        server.start().unwrap();
        server.start().unwrap();
        let address = server.local_addr().unwrap();
        assert_eq!(hear(address).unwrap(), "");
        let start = time::now();
        for _ in 0..2 {
            let stopped = server.stop(secs(10));
            assert_eq!((stopped.killed, stopped.left), (0, 0));
        }
        assert!(time::now() - start < secs(1));
        assert!(refuses(address));
        assert_eq!(server.start().unwrap_err().kind(), io::ErrorKind::NotConnected);
        server.serve_forever().unwrap();
        assert_eq!(server.local_addr().unwrap(), address, "known still");
    });
}

#[test]
fn stop_before_start_closes_the_listener() {
    fresh(|| {
        let server = StreamServer::new(listen(), |_, _| ());
        let address = server.local_addr().unwrap();
        server.stop(secs(1));
        assert!(refuses(address));
        assert!(server.start().is_err());

        let server = StreamServer::new(listen(), |_, _| ());
        let address = server.local_addr().unwrap();
        server.handle().close();
        assert!(server.start().is_err());
        assert!(refuses(address));

        // Told to start, and stopped before its first turn.
        let server = StreamServer::new(listen(), |_, _| ());
        let address = server.local_addr().unwrap();
        server.start().unwrap();
        server.stop(secs(1));
        assert!(refuses(address));

        let server = StreamServer::new(listen(), |_, _| ());
        let address = server.local_addr().unwrap();
        drop(server);
        assert!(refuses(address), "dropped before it was started");
    });
}

#[test]
fn dropped_after_its_start_it_serves_on() {
    fresh(|| {
        let server = StreamServer::new(listen(), |mut stream: TcpStream, _| stream.write_all(b"still here"));
        let (address, handle) = (server.local_addr().unwrap(), server.handle());
        server.start().unwrap();
        drop(server);
        assert_eq!(hear(address).unwrap(), "still here");
        handle.stop(secs(1));
        handle.wait().unwrap();
    });
}

#[test]
fn a_full_server_accepts_no_more_until_one_ends() {
    fresh(|| {
        let (started, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Event::new()));
        let theirs = (started.clone(), go.clone());
        let server = StreamServer::new(listen(), move |stream: TcpStream, _| {
            if theirs.0.fetch_add(1, Ordering::SeqCst) < 2 {
                let _ = (&stream).read(&mut [0]); // until its client goes
            } else {
                theirs.1.wait();
            }
        })
        .limit(2);
        server.start().unwrap();
        let address = server.local_addr().unwrap();
        let mut clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        until("two handlers", || started.load(Ordering::SeqCst) == 2);
        hub::idle();
        sleep(ms(20));
        assert_eq!((started.load(Ordering::SeqCst), server.handle().live()), (2, 2));
        drop(clients.remove(0));
        until("a third", || started.load(Ordering::SeqCst) == 3);
        sleep(ms(20));
        assert_eq!((started.load(Ordering::SeqCst), server.handle().live()), (3, 2));
        go.set();
        drop(clients.remove(0));
        until("a fourth", || started.load(Ordering::SeqCst) == 4);
        assert_eq!(server.stop(secs(20)).killed, 0);
    });
}

#[test]
fn killed_or_panicking_handlers_give_their_places_back() {
    fresh(|| {
        let number = Arc::new(AtomicUsize::new(0));
        let theirs = number.clone();
        let server = StreamServer::new(listen(), move |mut stream: TcpStream, _| {
            match theirs.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => std::panic::resume_unwind(Box::new("a handler's panic")),
                1 => {
                    thread::current().kill();
                    yield_now();
                }
                _ => {}
            }
            let _ = stream.write_all(b"served");
        })
        .limit(1);
        server.start().unwrap();
        let address = server.local_addr().unwrap();
        let heard: String = (0..9).map(|_| hear(address).unwrap()).collect();
        assert_eq!(heard, "served".repeat(3));
        assert_eq!(server.stop(secs(20)).killed, 0);
    });
}

#[test]
fn the_error_of_a_handler_is_told_and_the_server_goes_on() {
    fresh(|| {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hook = || {
            let heard = heard.clone();
            move |error: &str| heard.lock().unwrap().push(error.to_owned())
        };
        let take = || std::mem::take(&mut *heard.lock().unwrap());
        let fails = |_: TcpStream, _| Err::<(), _>("no milk");
        let never = |_: TcpStream, _| loop {
            sleep(secs(3600));
        };
        let servers = [
            StreamServer::new(listen(), fails).on_failure(hook()),
            StreamServer::new_local(listen(), fails).on_failure(hook()),
            StreamServer::new(listen(), |_, _| io::Result::Ok(())).on_failure(hook()),
        ];
        for (server, errors) in servers.iter().zip([2, 2, 0]) {
            server.start().unwrap();
            for _ in 0..2 {
                assert_eq!(hear(server.local_addr().unwrap()).unwrap(), "");
            }
            server.stop(secs(20));
            assert_eq!(take(), vec!["no milk"; errors]);
        }
        drop(StreamServer::new(listen(), never)); // it compiles
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = DatagramServer::new(socket, |_, data, _| Err::<(), _>(data.len())).on_failure(hook());
        server.start().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"four", server.local_addr().unwrap()).unwrap();
        until("it is told", || !heard.lock().unwrap().is_empty());
        assert_eq!(take(), ["4"]);
    });
}

#[test]
fn handlers_are_isolated_or_local_as_told() {
    fresh(|| {
        let server = StreamServer::new(listen(), |mut stream: TcpStream, _| {
            write!(stream, "{}", thread::is_isolated())
        });
        server.start().unwrap();
        let isolated = hear(server.local_addr().unwrap()).unwrap();
        assert_eq!(isolated, thread::isolation().is_ok().to_string());
        server.stop(secs(1));

        let calls = Rc::new(Cell::new(0));
        let theirs = calls.clone();
        let server = StreamServer::new_local(listen(), move |mut stream: TcpStream, _| {
            theirs.set(theirs.get() + 1);
            write!(stream, "{}", thread::is_isolated())
        });
        server.start().unwrap();
        assert_eq!(hear(server.local_addr().unwrap()).unwrap(), "false");
        server.stop(secs(1));
        assert_eq!(calls.get(), 1);
        drop(server);
        assert_eq!(Rc::strong_count(&calls), 1, "the handler goes with the server");
    });
}

#[test]
fn it_is_stopped_from_another_os_thread() {
    fresh(|| {
        let server = StreamServer::new(listen(), |_: TcpStream, _| sleep(secs(3600)));
        let (address, handle) = (server.local_addr().unwrap(), server.handle());
        let other = std::thread::spawn(move || {
            let client = std::net::TcpStream::connect(address).unwrap();
            while handle.live() == 0 {
                std::thread::sleep(ms(1));
            }
            let stopped = handle.stop(ms(10));
            drop(client);
            (stopped.killed, stopped.left)
        });
        server.serve_forever().unwrap();
        assert_eq!(other.join().unwrap(), (1, 0));
        assert!(refuses(address));
    });
}

#[test]
fn it_is_stopped_by_a_callback_and_by_its_own_handler() {
    fresh(|| {
        let server = StreamServer::new(listen(), |_, _| ());
        let handle = server.handle();
        hub::call_soon(move || handle.close());
        server.serve_forever().unwrap();

        let own = Arc::new(Mutex::new(None::<greenthread::server::Handle>));
        let theirs = own.clone();
        let server = StreamServer::new(listen(), move |mut stream: TcpStream, _| {
            let handle = theirs.lock().unwrap().clone().unwrap();
            let stopped = handle.stop(secs(1));
            write!(stream, "{} {}", stopped.killed, stopped.left)
        });
        *own.lock().unwrap() = Some(server.handle());
        let address = server.local_addr().unwrap();
        let client = spawn(move || hear(address));
        server.serve_forever().unwrap();
        assert_eq!(
            client.join().unwrap().unwrap(),
            "0 0",
            "it is not killed by its own stop"
        );
    });
}

#[test]
fn it_is_stopped_by_a_signal() {
    fresh(|| {
        let server = StreamServer::new(listen(), |_, _| ());
        let handle = server.handle();
        let stopper = spawn(move || {
            signal::ctrl_c().unwrap();
            handle.stop(secs(1))
        });
        spawn(|| {
            yield_now();
            signal_hook::low_level::raise(signal_hook::consts::SIGINT).unwrap();
        });
        server.serve_forever().unwrap();
        assert_eq!(stopper.join().unwrap().left, 0);
    });
}

#[test]
fn a_shielded_handler_is_left_and_counted() {
    fresh(|| {
        let (go, done) = (Arc::new(Event::new()), Arc::new(Event::new()));
        let theirs = (go.clone(), done.clone());
        let server = StreamServer::new(listen(), move |_: TcpStream, _| {
            thread::shield(|| theirs.0.wait());
            theirs.1.set();
        });
        server.start().unwrap();
        let _client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        until("its handler", || server.handle().live() == 1);
        let stopped = server.stop(ms(1));
        assert_eq!((stopped.killed, stopped.left), (1, 1));
        server.serve_forever().unwrap(); // it has been given up
        go.set();
        done.wait();
    });
}

#[test]
fn serve_forever_killed_or_timed_out_closes_the_listener_and_nothing_else() {
    fresh(|| {
        let go = Arc::new(Event::new());
        let theirs = go.clone();
        let server = StreamServer::new(listen(), move |mut stream: TcpStream, _| {
            theirs.wait();
            stream.write_all(b"to the end")
        });
        let address = server.local_addr().unwrap();
        let client = spawn(move || hear(address));
        assert!(timeout(ms(20), || server.serve_forever()).is_err());
        until("the port is free", || refuses(address));
        assert_eq!(server.handle().live(), 1);
        go.set();
        assert_eq!(client.join().unwrap().unwrap(), "to the end");
        server.serve_forever().unwrap();
    });
}

#[test]
fn a_stop_that_is_killed_at_any_park_leaves_a_server_that_can_be_stopped() {
    for k in 0..4 {
        fresh(move || {
            let server = StreamServer::new(listen(), |_: TcpStream, _| thread::shield(|| sleep(ms(50))));
            server.start().unwrap();
            let address = server.local_addr().unwrap();
            let _client = TcpStream::connect(address).unwrap();
            until("its handler", || server.handle().live() == 1);
            let handle = server.handle();
            let stopper = spawn_local(move || handle.stop(ms(5)));
            for _ in 0..k {
                yield_now();
                sleep(ms(k * 2));
            }
            stopper.kill();
            assert!(stopper.join().unwrap_err().is_killed(), "at park {k}");
            let stopped = server.stop(secs(20));
            assert_eq!(stopped.left, 0, "at park {k}");
            // Killed before it ran, it never began to stop; then the second stop does all.
            assert!(refuses(address) && server.handle().live() == 0);
        });
    }
}

/// Fails as told, then accepts for real.
struct Failing(TcpListener, Mutex<Vec<i32>>);

impl Listener for Failing {
    type Stream = TcpStream;
    type Address = SocketAddr;

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self.1.lock().unwrap().pop() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => TcpListener::accept(&self.0),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[test]
fn errors_of_accept_back_off_and_double() {
    virtually(|| {
        let mut errors = vec![libc::EMFILE; 9];
        errors.insert(0, libc::ECONNABORTED); // the last: nobody's fault, and no reason to wait
        let listener = Failing(listen(), Mutex::new(errors));
        let when = Rc::new(Mutex::new(Vec::new()));
        let theirs = when.clone();
        let server = StreamServer::new(listener, |mut stream: TcpStream, _| stream.write_all(b"at last")).on_error(
            move |error| {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                theirs.lock().unwrap().push(time::now());
            },
        );
        server.start().unwrap();
        assert_eq!(hear(server.local_addr().unwrap()).unwrap(), "at last");
        let when = when.lock().unwrap();
        let pauses: Vec<u128> = when.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000]);
        server.stop(secs(1));
    });
}

#[test]
fn a_descriptor_that_is_no_listener_ends_the_server() {
    for errno in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
        fresh(move || {
            let listener = Failing(listen(), Mutex::new(vec![errno]));
            let told = Rc::new(Cell::new(0));
            let theirs = told.clone();
            let server = StreamServer::new(listener, |_, _| ()).on_error(move |_| theirs.set(theirs.get() + 1));
            let error = server.serve_forever().unwrap_err();
            assert_eq!((error.raw_os_error(), told.get()), (Some(errno), 1));
            assert!(refuses(server.local_addr().unwrap()));
            server.stop(secs(1));
        });
    }
}

#[test]
fn stop_finds_the_acceptor_wherever_it_waits() {
    virtually(|| {
        let server = StreamServer::new(listen(), |mut stream: TcpStream, _| stream.read(&mut [0])).limit(1);
        server.start().unwrap();
        let address = server.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        until("it is full", || server.handle().live() == 1);
        spawn(move || {
            sleep(secs(2));
            drop(client);
        });
        assert_eq!(server.stop(secs(3)).killed, 0);
        assert!(refuses(address));

        let listener = Failing(listen(), Mutex::new(vec![libc::ENOMEM; 100]));
        let server = StreamServer::new(listener, |_, _| ()).on_error(|_| ());
        server.start().unwrap();
        sleep(secs(5));
        let start = time::now();
        server.stop(secs(1));
        assert!(time::now() - start < ms(500), "it does not sleep to the end");
        assert!(refuses(server.local_addr().unwrap()));
    });
}

/// Gives connections that need no system.
struct Endless;

impl Listener for Endless {
    type Stream = ();
    type Address = ();

    fn accept(&self) -> io::Result<((), ())> {
        Ok(((), ()))
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_crowd_of_connections_does_not_starve_the_others() {
    fresh(|| {
        let server = StreamServer::new_local(Endless, |(), ()| ());
        server.start().unwrap();
        for _ in 0..10 {
            yield_now(); // it comes back
        }
        assert!(server.handle().is_serving());
        server.stop(secs(1));
    });
}

#[test]
fn unix_sockets_are_served_too() {
    fresh(|| {
        let path = std::env::temp_dir().join(format!("greenthread-it-server-{}", std::process::id()));
        let server = StreamServer::new(UnixListener::bind(&path).unwrap(), |mut stream: UnixStream, _| {
            stream.write_all(b"by a path")
        });
        server.start().unwrap();
        assert_eq!(server.local_addr().unwrap().as_pathname(), Some(&*path));
        let mut text = String::new();
        UnixStream::connect(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "by a path");
        server.stop(secs(1));
        assert!(UnixStream::connect(&path).is_err());
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn datagrams_are_handled_each_by_its_own_green_thread() {
    fresh(|| {
        let go = Arc::new(Event::new());
        let theirs = go.clone();
        let server = DatagramServer::new(UdpSocket::bind("127.0.0.1:0").unwrap(), move |socket, data, peer| {
            if data == b"slow" {
                theirs.wait();
            }
            socket.send_to(&data, peer)
        })
        .limit(2);
        server.start().unwrap();
        let address = server.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(secs(20))).unwrap();
        client.send_to(b"slow", address).unwrap();
        client.send_to(b"quick", address).unwrap();
        let mut buffer = [0; 16];
        let mut next = || {
            let len = client.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..len]).into_owned()
        };
        assert_eq!(next(), "quick");
        client.send_to(b"slow", address).unwrap();
        until("two wait", || server.handle().live() == 2);
        client.send_to(b"third", address).unwrap();
        sleep(ms(20));
        assert_eq!(server.handle().live(), 2, "the third waits in the socket");
        go.set();
        let mut rest = [next(), next(), next()];
        rest.sort();
        assert_eq!(rest, ["slow", "slow", "third"]);
        assert_eq!(server.stop(secs(20)).killed, 0);
        UdpSocket::bind(address).expect("the port is free");
    });
}

#[test]
fn handlers_that_end_at_once_are_all_forgotten() {
    fresh(|| {
        let (ours, theirs) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let address = theirs.local_addr().unwrap();
        // More of them than the acceptor's budget has steps, so that it gives way at each of its steps.
        for count in 100..150 {
            let seen = Rc::new(Cell::new(0));
            let counts = seen.clone();
            let server =
                DatagramServer::new_local(theirs.try_clone().unwrap(), move |_, _, _| counts.set(counts.get() + 1));
            (0..count).for_each(|_| _ = ours.send_to(b"x", address).unwrap());
            server.start().unwrap();
            while seen.get() < count {
                sleep(ms(1));
            }
            let handle = server.handle();
            handle.close();
            timeout(secs(10), || handle.wait())
                .expect("it waits for a handler that has ended")
                .unwrap();
            assert_eq!(handle.live(), 0);
        }
    });
}

#[test]
fn unix_datagrams_and_local_handlers() {
    fresh(|| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let heard = Rc::new(Cell::new(0));
        let sum = heard.clone();
        let server = DatagramServer::new_local(theirs, move |_, data, _| sum.set(sum.get() + data.len()));
        server.start().unwrap();
        ours.send(b"12345").unwrap();
        ours.send(&[0; 60_000]).unwrap();
        until("both", || heard.get() == 60_005);
        server.stop(secs(1));
        assert!(ours.send(b"x").is_err(), "the socket is closed");
    });
}

const VARIABLE: &str = "GREENTHREAD_SERVER_FULL";

/// What the child does, with at most 64 descriptors.
#[test]
fn entry() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let (errors, served) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let theirs = (errors.clone(), served.clone());
    let server = StreamServer::new_local(listen(), move |mut stream: TcpStream, _| {
        stream.write_all(b"!").unwrap();
        theirs.1.set(true);
    })
    .on_error(move |error| {
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        theirs.0.set(theirs.0.get() + 1);
    });
    server.start().unwrap();
    yield_now(); // the poller exists now
    let mut client = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let hoard: Vec<std::fs::File> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(hoard.len() < 64, "the limit holds");
    sleep(ms(500)); // tries at 0, 10, 30, 70, 150, 310 ms
    let tries = errors.get();
    assert!((2..=7).contains(&tries), "{tries} tries in half a second");
    assert!(!served.get());
    drop(hoard);
    until("it is served", || served.get());
    client.set_read_timeout(Some(secs(20))).unwrap();
    client.read_exact(&mut [0]).unwrap();
    server.stop(secs(1));
}

#[test]
fn without_descriptors_it_waits_ever_longer_and_recovers() {
    let output = std::process::Command::new("bash")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args([&*child::test_name(module_path!(), "entry"), "--exact", "--nocapture"])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

#[test]
fn a_handler_killed_in_a_shield_gives_its_place_back_while_others_look() {
    fresh(|| {
        let gate = Arc::new(Event::new());
        let theirs = gate.clone();
        let server = StreamServer::new(listen(), move |_stream, _peer| thread::shield(|| theirs.wait()));
        server.start().unwrap();
        let (handle, address) = (server.handle(), server.local_addr().unwrap());
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        until("all are served", || handle.live() == clients.len());
        let stop = Arc::new(AtomicUsize::new(0));
        let lookers: Vec<_> = (0..2)
            .map(|_| {
                let (handle, stop) = (handle.clone(), stop.clone());
                std::thread::spawn(move || {
                    while stop.load(Ordering::Relaxed) == 0 {
                        std::hint::black_box(handle.live());
                    }
                })
            })
            .collect();
        spawn(move || {
            sleep(ms(5));
            gate.set();
        });
        let stopped = server.stop(ms(0));
        stop.store(1, Ordering::Relaxed);
        lookers.into_iter().for_each(|looker| looker.join().unwrap());
        assert_eq!((stopped.left, handle.live()), (0, 0));
    });
}
