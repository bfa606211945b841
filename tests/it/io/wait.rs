//! Waits for descriptors that are not ours, pipes, UDP, Unix sockets, names, the pool and Ctrl-C.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use greenthread::io::{Async, close, wait_readable, wait_writable};
use greenthread::net::{UdpSocket, UnixDatagram, UnixListener, UnixStream};
use greenthread::{dns, signal, spawn, spawn_local, thread, threadpool, yield_now};

use crate::support::fresh::{fresh, ms, text};

#[test]
fn a_wait_for_a_foreign_descriptor_times_out_or_sees_it() {
    fresh(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let error = wait_readable(&reader, Some(ms(10))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        wait_writable(&writer, None).unwrap();
        let reader = Arc::new(reader);
        let waiters = [reader.clone(), reader].map(|fd| spawn(move || wait_readable(&*fd, None)));
        yield_now();
        writer.write_all(b"x").unwrap();
        waiters.into_iter().for_each(|one| one.join().unwrap().unwrap());
    });
}

#[test]
fn files_and_the_null_device_are_ready_at_once() {
    fresh(|| {
        for path in ["Cargo.toml", "/dev/null"] {
            let file = std::fs::File::open(path).unwrap();
            wait_readable(&file, None).unwrap();
        }
    });
}

#[test]
fn close_wakes_who_waits_by_the_number() {
    fresh(|| {
        let (reader, _writer) = std::io::pipe().unwrap();
        let raw = reader.as_raw_fd();
        // SAFETY: it stays open until `close`, which wakes the waiter first.
        let copy = unsafe { BorrowedFd::borrow_raw(raw) };
        let waiter = spawn_local(move || wait_readable(copy, None));
        yield_now();
        close(reader);
        let (again, mut writer) = std::io::pipe().unwrap();
        let fresh_waiter = (again.as_raw_fd() == raw).then(|| {
            let again = again.try_clone().unwrap();
            spawn(move || wait_readable(again.as_fd(), Some(ms(20))))
        });
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(9), "EBADF");
        if let Some(waiter) = fresh_waiter {
            assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        }
        writer.write_all(b"x").unwrap();
        wait_readable(&again, None).unwrap();
    });
}

#[test]
fn a_pipe_parks_its_reader() {
    fresh(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut reader = Async::new(reader).unwrap();
        let got = spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        yield_now();
        (&writer).write_all(b"through").unwrap();
        drop(writer);
        assert_eq!(got.join().unwrap().unwrap(), "through");
    });
}

#[test]
fn udp_sends_receives_peeks_and_times_out() {
    fresh(|| {
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        a.connect(b.local_addr().unwrap()).unwrap();
        b.set_read_timeout(Some(ms(10))).unwrap();
        assert_eq!(b.recv(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        b.set_read_timeout(None).unwrap();
        let from = a.local_addr().unwrap();
        spawn(move || a.send(b"udp").map(|_| a));
        let mut bytes = [0; 8];
        assert_eq!(b.peek_from(&mut bytes).unwrap(), (3, from));
        assert_eq!(b.recv_from(&mut bytes).unwrap(), (3, from));
        assert_eq!(&bytes[..3], b"udp");
    });
}

#[test]
fn unix_sockets_wait_for_room_in_the_backlog() {
    fresh(|| {
        let path = std::env::temp_dir().join(format!("gt-{}-{:?}", std::process::id(), thread::current().id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                spawn(move || UnixStream::connect(path).unwrap().read(&mut [0]).unwrap())
            })
            .collect();
        yield_now();
        for _ in 0..8 {
            listener.accept().unwrap().0.write_all(b"u").unwrap();
        }
        assert!(clients.into_iter().all(|client| client.join().unwrap() == 1));
        std::fs::remove_file(&path).unwrap();
        let (a, b) = UnixDatagram::pair().unwrap();
        let got = spawn(move || b.recv(&mut [0; 4]));
        yield_now();
        a.send(b"dg").unwrap();
        assert_eq!(got.join().unwrap().unwrap(), 2);
    });
}

#[test]
fn names_are_looked_up_and_errors_name_them() {
    fresh(|| {
        assert_eq!(dns::lookup_host("[::1]", 1).unwrap()[0].to_string(), "[::1]:1");
        assert!(
            dns::lookup_host("localhost", 1)
                .unwrap()
                .iter()
                .all(|a| a.ip().is_loopback())
        );
        let error = dns::lookup_host("no-such-name.invalid", 1).unwrap_err();
        assert!(error.to_string().contains("no-such-name.invalid"), "{error}");
    });
}

#[test]
fn the_pool_gives_values_and_panics_and_outlives_its_waiter() {
    fresh(|| {
        assert_eq!(threadpool::unblock(|| threadpool::unblock(|| 4)), 4, "nested");
        let panicked = spawn(|| threadpool::unblock(|| panic!("in the pool")));
        assert_eq!(text(&*panicked.join().unwrap_err().into_panic()), "in the pool");
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let (ended, end) = std::sync::mpsc::channel();
        let waiter = spawn(move || {
            threadpool::unblock(move || {
                told.recv().unwrap();
                ended.send(()).unwrap();
            })
        });
        yield_now();
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        tell.send(()).unwrap();
        end.recv_timeout(crate::support::fresh::PATIENCE).unwrap();
    });
}

#[test]
fn two_hundred_jobs_run_at_most_max_at_once() {
    fresh(|| {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let jobs = (0..200).map(|n| {
            spawn(move || {
                threadpool::unblock(move || {
                    MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(ms(2));
                    NOW.fetch_sub(1, Ordering::SeqCst);
                    n
                })
            })
        });
        let done: Vec<usize> = thread::join_all(jobs).into_iter().map(Result::unwrap).collect();
        assert_eq!(done, (0..200).collect::<Vec<_>>());
        let most = MOST.load(Ordering::SeqCst);
        assert!((2..=threadpool::MAX).contains(&most), "{most} at once");
    });
}

#[test]
fn ctrl_c_wakes_who_waits_for_it() {
    fresh(|| {
        let waiter = spawn(signal::ctrl_c);
        yield_now();
        signal_hook::low_level::raise(signal_hook::consts::SIGINT).unwrap();
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn a_waker_that_panics_when_it_is_dropped_from_elsewhere_harms_no_hub() {
    struct Evil(Arc<AtomicUsize>);
    impl std::task::Wake for Evil {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Evil {
        fn drop(&mut self) {
            self.0.store(1, Ordering::Release);
            panic!("as it is dropped");
        }
    }
    fresh(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dropped = Arc::new(AtomicUsize::new(0));
        let waker = Arc::new(Evil(dropped.clone())).into();
        let mut wait = Box::pin(socket.readable_async());
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        std::thread::scope(|scope| _ = scope.spawn(|| drop(wait)));
        while dropped.load(Ordering::Acquire) == 0 {
            yield_now();
        }
        yield_now();
    });
}
