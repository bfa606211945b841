//! Patched libc: std's own blocking calls, by many green threads on one OS thread. The proof of concurrency is time: N
//! waits of d take far less than N times d.

mod allocators;
mod bulk;
mod devices;
mod differential;
mod fair;
mod faults;
mod files;
mod limits;
mod odd;
mod open_file;
mod signals;
mod spin;
mod told;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, OnceLock, RwLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenthread::time::timeout_or_late;
use greenthread::{JoinHandle, monkey, spawn, spawn_local, thread, yield_now};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs `f` as a green thread of an OS thread of its own, all patched.
fn patched<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    monkey::patch_all().unwrap();
    std::thread::spawn(|| greenthread::run(f)).join().unwrap()
}

fn join_all<T>(handles: Vec<JoinHandle<T>>) -> Vec<T> {
    handles.into_iter().map(|handle| handle.join().unwrap()).collect()
}

/// Runs `f` 20 times at once, each of which waits for `each`, and checks that they do not wait one after the other.
fn at_once<T: Send + 'static>(each: Duration, f: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let f = Arc::new(f);
    let start = Instant::now();
    let handles = (0..20).map(|n| {
        let f = f.clone();
        spawn(move || f(n))
    });
    let results = join_all(handles.collect());
    let took = start.elapsed();
    assert!(took >= each, "not early: {took:?}");
    assert!(took < each.max(ms(20)) * 15, "at once: {took:?}");
    results
}

#[test]
fn every_symbol_is_ours() {
    monkey::patch_all().unwrap();
    let strangers: Vec<_> = monkey::report().into_iter().filter(|symbol| !symbol.is_ours).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    assert!(monkey::is_patched(monkey::Patch::all()));
}

#[test]
fn sleeps() {
    patched(|| {
        at_once(ms(50), |_| sleep(ms(50)));
    });
}

#[test]
fn on_the_native_stack_and_in_local_threads_they_block_as_ever() {
    monkey::patch_all().unwrap();
    let start = Instant::now();
    let locals: Vec<_> = (0..4).map(|_| spawn_local(|| sleep(ms(20)))).collect();
    join_all(locals);
    assert!(start.elapsed() >= ms(80));
    let unpatched = spawn(|| {
        let start = Instant::now();
        let other = spawn(|| sleep(ms(20)));
        monkey::unpatched(|| sleep(ms(30)));
        other.join().unwrap();
        start.elapsed()
    });
    assert!(unpatched.join().unwrap() >= ms(50));
}

/// Answers each line with itself, after a while.
fn slow_echo(listener: TcpListener, delay: Duration) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        spawn(move || {
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while lines.read_line(&mut line).unwrap() > 0 {
                sleep(delay);
                (&stream).write_all(line.as_bytes()).unwrap();
                line.clear();
            }
        });
    }
}

#[test]
fn tcp_by_std() {
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        spawn(move || slow_echo(listener, ms(50)));
        let answers = at_once(ms(50), move |n| {
            let stream = TcpStream::connect(address).unwrap();
            writeln!(&stream, "hello {n}").unwrap();
            let mut answer = String::new();
            BufReader::new(&stream).read_line(&mut answer).unwrap();
            answer
        });
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(*answer, format!("hello {n}\n"));
        }
    });
}

#[test]
fn a_large_write_goes_to_the_end() {
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bytes: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = bytes.clone();
        let writer = spawn(move || {
            let stream = TcpStream::connect(address).unwrap();
            // One system call of a blocking socket writes all.
            let written = (&stream).write(&sent).unwrap();
            let (head, tail) = sent.split_at(1000);
            let more = (&stream)
                .write_vectored(&[io::IoSlice::new(head), io::IoSlice::new(tail)])
                .unwrap();
            (written, more)
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        assert_eq!(writer.join().unwrap(), (bytes.len(), bytes.len()));
        assert!(read[..bytes.len()] == bytes && read[bytes.len()..] == bytes);
    });
}

#[test]
fn time_outs_of_sockets_hold() {
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(ms(30))).unwrap();
        let start = Instant::now();
        let error = (&stream).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() >= ms(30));
        stream.set_nonblocking(true).unwrap();
        stream.set_read_timeout(None).unwrap();
        let error = (&stream).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        let peer = listener.accept().unwrap().0;
        let reader = spawn(move || (&stream).read(&mut [0; 8]).unwrap());
        sleep(ms(10));
        (&peer).write_all(b"abc").unwrap();
        assert_eq!(reader.join().unwrap(), 3);
    });
}

#[test]
fn connect_with_a_time_out_polls() {
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        TcpStream::connect_timeout(&address, ms(1000)).unwrap();
        drop(listener);
        let error = TcpStream::connect_timeout(&address, ms(1000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn udp_and_unix_sockets() {
    patched(|| {
        at_once(ms(20), |n| {
            let (a, b) = (
                UdpSocket::bind("127.0.0.1:0").unwrap(),
                UdpSocket::bind("127.0.0.1:0").unwrap(),
            );
            let to = b.local_addr().unwrap();
            let sender = spawn(move || {
                sleep(ms(20));
                a.send_to(&[n as u8], to).unwrap();
            });
            let mut byte = [0];
            b.recv_from(&mut byte).unwrap();
            sender.join().unwrap();
            assert_eq!(byte[0], n as u8);
        });
        at_once(ms(20), |n| {
            let (a, b) = UnixStream::pair().unwrap();
            let writer = spawn(move || {
                sleep(ms(20));
                (&a).write_all(&[n as u8]).unwrap();
                a.shutdown(Shutdown::Write).unwrap();
            });
            let mut bytes = Vec::new();
            (&b).read_to_end(&mut bytes).unwrap();
            writer.join().unwrap();
            assert_eq!(bytes, [n as u8]);
        });
    });
}

#[test]
fn a_unix_listener_with_a_full_queue_is_waited_for() {
    patched(|| {
        let folder = std::env::temp_dir().join(format!("greenthread-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("full.sock");
        let listener = UnixListener::bind(&path).unwrap();
        // More than fit into the queue: the rest of them waits.
        let clients: Vec<_> = (0..300)
            .map(|_| {
                let path = path.clone();
                spawn(move || UnixStream::connect(path).unwrap())
            })
            .collect();
        yield_now();
        let server = spawn(move || (0..300).map(|_| listener.accept().unwrap().0).collect::<Vec<_>>());
        assert_eq!(join_all(clients).len(), 300);
        assert_eq!(server.join().unwrap().len(), 300);
        std::fs::remove_dir_all(&folder).unwrap();
    });
}

#[test]
fn pipes() {
    patched(|| {
        at_once(ms(20), |n| {
            let (mut reader, mut writer) = io::pipe().unwrap();
            let wrote = spawn(move || {
                sleep(ms(20));
                // More than a pipe holds.
                writer.write_all(&vec![n as u8; 200_000]).unwrap();
            });
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            wrote.join().unwrap();
            assert!(bytes.len() == 200_000 && bytes.iter().all(|byte| *byte == n as u8));
        });
    });
}

#[test]
fn children() {
    patched(|| {
        at_once(ms(200), |n| {
            let output = Command::new("sh")
                .arg("-c")
                .arg(format!("sleep 0.2; echo {n}; exit {n}"))
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(n as i32));
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{n}\n"));
        });
        at_once(ms(100), |_| {
            let mut child = Command::new("sleep").arg("0.1").spawn().unwrap();
            assert!(child.wait().unwrap().success());
        });
    });
}

#[test]
fn names() {
    use std::net::ToSocketAddrs;
    patched(|| {
        let sibling = spawn(|| ());
        let found: Vec<_> = ("localhost", 80).to_socket_addrs().unwrap().collect();
        assert!(sibling.is_finished(), "others run meanwhile");
        assert!(found.iter().any(|address| address.ip().is_loopback()), "{found:?}");
        assert!(("no-such-host.invalid", 80).to_socket_addrs().is_err());
    });
}

#[test]
fn locks_of_std() {
    patched(|| {
        let lock = Arc::new(Mutex::new(0));
        let mine = lock.clone();
        at_once(ms(40), move |_| {
            let mut value = mine.lock().unwrap();
            sleep(ms(2));
            *value += 1;
        });
        assert_eq!(*lock.lock().unwrap(), 20);

        let shared = Arc::new(RwLock::new(0));
        let mine = shared.clone();
        at_once(ms(20), move |n| {
            if n == 7 {
                *mine.write().unwrap() += 1;
            } else {
                let _read = mine.read().unwrap();
                sleep(ms(20));
            }
        });
        assert_eq!(*shared.read().unwrap(), 1);

        let barrier = Arc::new(Barrier::new(20));
        let leaders = at_once(ms(0), move |_| barrier.wait().is_leader());
        assert_eq!(leaders.iter().filter(|leader| **leader).count(), 1);

        static ONCE: Once = Once::new();
        static CELL: OnceLock<usize> = OnceLock::new();
        let values = at_once(ms(20), |n| {
            ONCE.call_once(|| sleep(ms(20)));
            *CELL.get_or_init(|| {
                sleep(ms(5));
                n
            })
        });
        assert!(values.iter().all(|value| value == &values[0]));
    });
}

#[test]
fn a_condition_variable_with_and_without_a_time_out() {
    patched(|| {
        let pair = Arc::new((Mutex::new(0), Condvar::new()));
        let theirs = pair.clone();
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let pair = theirs.clone();
                spawn(move || {
                    let (lock, condition) = &*pair;
                    let mut value = lock.lock().unwrap();
                    while *value == 0 {
                        value = condition.wait(value).unwrap();
                    }
                })
            })
            .collect();
        sleep(ms(10));
        *pair.0.lock().unwrap() = 1;
        pair.1.notify_all();
        join_all(waiters);
        let start = Instant::now();
        let guard = pair.0.lock().unwrap();
        let (_guard, result) = pair.1.wait_timeout(guard, ms(30)).unwrap();
        assert!(result.timed_out() && start.elapsed() >= ms(30));
    });
}

#[test]
fn channels_and_parked_std_threads() {
    patched(|| {
        let (sender, receiver) = mpsc::channel();
        let senders: Vec<_> = (0..8)
            .map(|n| {
                let sender = sender.clone();
                spawn(move || {
                    for round in 0..50 {
                        sender.send(n * 50 + round).unwrap();
                        if round % 10 == 0 {
                            sleep(ms(1));
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let mut got: Vec<_> = receiver.iter().collect();
        got.sort_unstable();
        assert!(got.into_iter().eq(0..400));
        join_all(senders);

        let (sender, receiver) = mpsc::sync_channel(0);
        let producer = spawn(move || (0..100).for_each(|n| sender.send(n).unwrap()));
        assert!(receiver.iter().eq(0..100));
        producer.join().unwrap();

        let parked: Vec<_> = (0..8)
            .map(|_| {
                let (tell, told) = mpsc::channel();
                let parked = spawn(move || {
                    tell.send(std::thread::current()).unwrap();
                    std::thread::park();
                });
                (told.recv().unwrap(), parked)
            })
            .collect();
        sleep(ms(5));
        for (thread, handle) in parked {
            assert!(!handle.is_finished());
            thread.unpark();
            handle.join().unwrap();
        }
    });
}

#[test]
fn locks_between_green_and_os_threads() {
    patched(|| {
        let total = Arc::new(Mutex::new(0_u32));
        let (sender, receiver) = mpsc::channel::<u32>();
        let os_threads: Vec<_> = (0..2)
            .map(|_| {
                let (total, sender) = (total.clone(), sender.clone());
                std::thread::spawn(move || {
                    for n in 0..2000 {
                        *total.lock().unwrap() += 1;
                        sender.send(n).unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        let green: Vec<_> = (0..10)
            .map(|_| {
                let total = total.clone();
                spawn(move || {
                    for round in 0..200 {
                        let mut total = total.lock().unwrap();
                        *total += 1;
                        if round % 50 == 0 {
                            yield_now();
                        }
                    }
                })
            })
            .collect();
        assert_eq!(receiver.iter().count(), 4000);
        join_all(green);
        for os_thread in os_threads {
            os_thread.join().unwrap();
        }
        assert_eq!(*total.lock().unwrap(), 6000);
    });
}

#[test]
fn scopes_of_std_inside() {
    patched(|| {
        at_once(ms(20), |_| {
            let mut value = 0;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    sleep(ms(20));
                    value = 1;
                });
            });
            assert_eq!(value, 1);
        });
    });
}

#[test]
fn a_kill_is_an_errno_and_the_next_native_wait_unwinds() {
    patched(|| {
        let (a, _b) = UnixStream::pair().unwrap();
        let (tell, told) = mpsc::channel();
        let victim = spawn(move || {
            tell.send((&a).read(&mut [0; 4]).unwrap_err().raw_os_error()).unwrap();
            let start = Instant::now();
            sleep(Duration::from_secs(3600));
            tell.send(Some(start.elapsed().as_secs() as i32)).unwrap();
            greenthread::sleep(ms(1));
            unreachable!("a native wait raises");
        });
        sleep(ms(10));
        victim.kill();
        assert_eq!(told.recv().unwrap(), Some(libc::ECANCELED));
        assert_eq!(told.recv().unwrap(), Some(0));
        assert!(victim.join().unwrap_err().is_killed());
    });
}

#[test]
fn a_time_out_is_an_errno_and_is_spent_by_its_owner() {
    patched(|| {
        let (a, _b) = UnixStream::pair().unwrap();
        let read = || (&a).read(&mut [0; 4]).unwrap_err().raw_os_error();
        let (_, got) = timeout_or_late(ms(20), read).unwrap_err();
        assert_eq!(got, Some(Some(libc::ETIMEDOUT)));
        greenthread::sleep(ms(1));
    });
}

#[test]
fn who_ignores_its_kill_is_set_aside() {
    use std::sync::atomic::{AtomicU32, Ordering};
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (rounds, theirs) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let counted = rounds.clone();
        let deaf = spawn(move || {
            for stream in listener.incoming() {
                drop(stream);
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        yield_now();
        deaf.kill();
        // It does not keep the hub: others run, and in the end it calls no more.
        while !greenthread::debug::dump().contains("set aside") {
            theirs.fetch_add(1, Ordering::SeqCst);
            yield_now();
        }
        assert_eq!(rounds.load(Ordering::SeqCst), 999);
        assert!(theirs.load(Ordering::SeqCst) > 100);
        assert!(!deaf.is_finished());
    });
}

#[test]
fn a_close_wakes_who_waits() {
    use std::os::fd::AsRawFd;
    patched(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let fd = a.as_raw_fd();
        // SAFETY: reads from a number into memory of its own.
        let read = move || unsafe {
            let mut byte = 0_u8;
            let result = libc::read(fd, (&raw mut byte).cast(), 1);
            (result, io::Error::last_os_error().raw_os_error())
        };
        let here = spawn(read);
        let os_thread = std::thread::spawn(move || greenthread::run(read));
        sleep(ms(20));
        drop(a);
        assert_eq!(here.join().unwrap(), (-1, Some(libc::EBADF)));
        assert_eq!(os_thread.join().unwrap(), (-1, Some(libc::EBADF)));
        drop(b);
    });
}

#[test]
fn bad_arguments_get_the_errno_that_they_always_got() {
    patched(|| {
        // SAFETY: bad descriptors and addresses, which the kernel refuses.
        unsafe {
            let errno = || io::Error::last_os_error().raw_os_error().unwrap();
            assert_eq!((libc::read(-1, std::ptr::null_mut(), 4), errno()), (-1, libc::EBADF));
            assert_eq!(
                (libc::recv(9999, std::ptr::null_mut(), 4, 0), errno()),
                (-1, libc::EBADF)
            );
            assert_eq!(
                (libc::accept(9999, std::ptr::null_mut(), std::ptr::null_mut()), errno()),
                (-1, libc::EBADF)
            );
            let (a, b) = UnixStream::pair().unwrap();
            use std::os::fd::AsRawFd;
            assert_eq!(
                (libc::write(a.as_raw_fd(), std::ptr::without_provenance(1), 4), errno()),
                (-1, libc::EFAULT)
            );
            assert_eq!(
                (libc::connect(a.as_raw_fd(), std::ptr::null(), 0), errno()),
                (-1, libc::EINVAL)
            );
            assert_eq!(libc::poll(std::ptr::without_provenance_mut(1), 1, 10), -1);
            assert_eq!(errno(), libc::EFAULT);
            let bad = libc::timespec { tv_sec: 0, tv_nsec: -1 };
            assert_eq!(
                (libc::nanosleep(&raw const bad, std::ptr::null_mut()), errno()),
                (-1, libc::EINVAL)
            );
            let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
            let null = std::ptr::null::<libc::timespec>();
            assert_eq!(
                (libc::syscall(libc::SYS_futex, 8_usize, op, 0, null, 0, 0), errno()),
                (-1, libc::EFAULT)
            );
            let word = std::sync::atomic::AtomicU32::new(7);
            assert_eq!(
                (
                    libc::syscall(libc::SYS_futex, word.as_ptr(), op, 8, null, 0, 0),
                    errno()
                ),
                (-1, libc::EAGAIN)
            );
            drop(b);
        }
    });
}

#[test]
fn poll_and_select_and_epoll() {
    use std::os::fd::AsRawFd;
    patched(|| {
        at_once(ms(30), |n| {
            let (a, b) = UnixStream::pair().unwrap();
            let (idle, _other) = UnixStream::pair().unwrap();
            let writer = spawn(move || {
                sleep(ms(30));
                (&b).write_all(b"x").unwrap();
                b
            });
            let (ready, idle) = (a.as_raw_fd(), idle.as_raw_fd());
            // SAFETY: valid arguments of our own.
            unsafe {
                match n % 3 {
                    0 => {
                        let entry = |fd| libc::pollfd {
                            fd,
                            events: libc::POLLIN,
                            revents: 0,
                        };
                        let mut fds = [entry(idle), entry(-1), entry(ready)];
                        assert_eq!(libc::poll(fds.as_mut_ptr(), 3, -1), 1);
                        assert_eq!(fds.map(|fd| fd.revents), [0, 0, libc::POLLIN]);
                        assert_eq!(libc::poll(fds.as_mut_ptr(), 1, 5), 0);
                    }
                    1 => {
                        let mut set: libc::fd_set = std::mem::zeroed();
                        libc::FD_SET(idle, &mut set);
                        libc::FD_SET(ready, &mut set);
                        let null = std::ptr::null_mut();
                        assert_eq!(libc::select(ready.max(idle) + 1, &mut set, null, null, null.cast()), 1);
                        assert!(libc::FD_ISSET(ready, &set) && !libc::FD_ISSET(idle, &set));
                    }
                    _ => {
                        let epoll = libc::epoll_create1(0);
                        let mut event = libc::epoll_event {
                            events: libc::EPOLLIN as u32,
                            u64: 42,
                        };
                        assert_eq!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, ready, &mut event), 0);
                        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
                        assert_eq!(libc::epoll_wait(epoll, events.as_mut_ptr(), 4, -1), 1);
                        assert_eq!({ events[0].u64 }, 42);
                        libc::close(epoll);
                    }
                }
            }
            writer.join().unwrap();
        });
    });
}

#[test]
fn a_thread_per_connection_server_of_isolated_threads() {
    assert!(patched(thread::is_isolated));
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        spawn(move || slow_echo(listener, ms(0)));
        let clients: Vec<_> = (0..200)
            .map(|n| {
                spawn(move || {
                    let stream = TcpStream::connect(address).unwrap();
                    let mut lines = BufReader::new(&stream);
                    for round in 0..20 {
                        let said = format!("{n} {round}\n");
                        (&stream).write_all(said.as_bytes()).unwrap();
                        let mut heard = String::new();
                        lines.read_line(&mut heard).unwrap();
                        assert_eq!(heard, said);
                    }
                })
            })
            .collect();
        join_all(clients);
    });
}

/// C's locks, for all threads.
struct CLocks {
    mutex: std::cell::UnsafeCell<libc::pthread_mutex_t>,
    condition: std::cell::UnsafeCell<libc::pthread_cond_t>,
    rwlock: std::cell::UnsafeCell<libc::pthread_rwlock_t>,
    semaphore: std::cell::UnsafeCell<libc::sem_t>,
    value: std::cell::UnsafeCell<u32>,
}

// SAFETY: that is what C's locks are for; `value` is touched under the mutex.
unsafe impl Send for CLocks {}
// SAFETY: C's locks are for many OS threads, and `value` is touched under the mutex.
unsafe impl Sync for CLocks {}

impl CLocks {
    fn new(mutex: libc::pthread_mutex_t) -> Arc<CLocks> {
        // SAFETY: to be initialised at once.
        let semaphore = unsafe { std::mem::zeroed::<libc::sem_t>() };
        let locks = Arc::new(CLocks {
            mutex: mutex.into(),
            condition: libc::PTHREAD_COND_INITIALIZER.into(),
            rwlock: libc::PTHREAD_RWLOCK_INITIALIZER.into(),
            semaphore: semaphore.into(),
            value: 0.into(),
        });
        // SAFETY: fresh memory of its type.
        assert_eq!(unsafe { libc::sem_init(locks.semaphore.get(), 0, 0) }, 0);
        locks
    }
}

#[test]
fn c_mutexes_recursive_and_not() {
    for mutex in [
        libc::PTHREAD_MUTEX_INITIALIZER,
        libc::PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP,
    ] {
        patched(move || {
            let locks = CLocks::new(mutex);
            let theirs = locks.clone();
            // SAFETY: locked and unlocked in pairs, and the value is touched in between.
            at_once(ms(40), move |_| unsafe {
                assert_eq!(libc::pthread_mutex_lock(theirs.mutex.get()), 0);
                let before = *theirs.value.get();
                sleep(ms(2));
                *theirs.value.get() = before + 1;
                assert_eq!(libc::pthread_mutex_unlock(theirs.mutex.get()), 0);
            });
            // SAFETY: nobody else is left.
            assert_eq!(unsafe { *locks.value.get() }, 20);
        });
    }
}

#[test]
fn a_c_mutex_between_green_and_os_threads() {
    patched(|| {
        let locks = CLocks::new(libc::PTHREAD_MUTEX_INITIALIZER);
        let add = |locks: Arc<CLocks>| {
            move || {
                for _ in 0..300 {
                    // SAFETY: locked and unlocked in pairs, and the value is touched in between.
                    unsafe {
                        assert_eq!(libc::pthread_mutex_lock(locks.mutex.get()), 0);
                        let before = *locks.value.get();
                        sleep(Duration::from_micros(10));
                        *locks.value.get() = before + 1;
                        assert_eq!(libc::pthread_mutex_unlock(locks.mutex.get()), 0);
                    }
                }
            }
        };
        let os_threads = [
            std::thread::spawn(add(locks.clone())),
            std::thread::spawn(add(locks.clone())),
        ];
        let green = (0..4).map(|_| spawn(add(locks.clone())));
        join_all(green.collect());
        for os_thread in os_threads {
            os_thread.join().unwrap();
        }
        // SAFETY: nobody else is left.
        assert_eq!(unsafe { *locks.value.get() }, 6 * 300);
    });
}

#[test]
fn c_condition_variables_semaphores_and_read_write_locks() {
    patched(|| {
        let locks = CLocks::new(libc::PTHREAD_MUTEX_INITIALIZER);
        let theirs = locks.clone();
        let setter = spawn(move || {
            sleep(ms(30));
            // SAFETY: C's locks used as meant.
            unsafe {
                libc::pthread_mutex_lock(theirs.mutex.get());
                *theirs.value.get() = 1;
                libc::pthread_cond_broadcast(theirs.condition.get());
                libc::pthread_mutex_unlock(theirs.mutex.get());
                for _ in 0..20 {
                    libc::sem_post(theirs.semaphore.get());
                }
            }
        });
        let theirs = locks.clone();
        // SAFETY: the locks are initialised and live as long as the closure; `value` is read under the mutex.
        at_once(ms(25), move |_| unsafe {
            libc::pthread_mutex_lock(theirs.mutex.get());
            while *theirs.value.get() == 0 {
                assert_eq!(libc::pthread_cond_wait(theirs.condition.get(), theirs.mutex.get()), 0);
            }
            libc::pthread_mutex_unlock(theirs.mutex.get());
            assert_eq!(libc::sem_wait(theirs.semaphore.get()), 0);
        });
        setter.join().unwrap();
        let theirs = locks.clone();
        // SAFETY: an initialised lock, unlocked by the green thread that locked it.
        at_once(ms(20), move |n| unsafe {
            if n == 3 {
                assert_eq!(libc::pthread_rwlock_wrlock(theirs.rwlock.get()), 0);
            } else {
                assert_eq!(libc::pthread_rwlock_rdlock(theirs.rwlock.get()), 0);
                sleep(ms(20));
            }
            assert_eq!(libc::pthread_rwlock_unlock(theirs.rwlock.get()), 0);
        });
        // SAFETY: initialised locks, locked and unlocked in pairs; the time lives over the call.
        unsafe {
            let mut now: libc::timespec = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
            now.tv_sec += 1;
            let (start, condition) = (Instant::now(), locks.condition.get());
            libc::pthread_mutex_lock(locks.mutex.get());
            let other = spawn(|| sleep(ms(5)));
            assert_eq!(
                libc::pthread_cond_timedwait(condition, locks.mutex.get(), &raw const now),
                libc::ETIMEDOUT
            );
            assert_eq!(libc::pthread_mutex_unlock(locks.mutex.get()), 0);
            assert!(start.elapsed() >= ms(900) && other.is_finished());
            assert_eq!(libc::sem_timedwait(locks.semaphore.get(), &raw const now), -1);
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ETIMEDOUT));
        }
    });
}

#[test]
fn a_c_once_whose_start_parks() {
    use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
    static CONTROL: AtomicI32 = AtomicI32::new(0);
    static STARTS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn start() {
        sleep(ms(30));
        STARTS.fetch_add(1, Ordering::SeqCst);
    }
    unsafe extern "C" {
        fn pthread_once(control: *mut i32, start: extern "C" fn()) -> i32;
    }
    patched(|| {
        at_once(ms(30), |_| {
            // SAFETY: a control word that starts as zero.
            assert_eq!(unsafe { pthread_once(CONTROL.as_ptr(), start) }, 0);
            assert_eq!(STARTS.load(Ordering::SeqCst), 1);
        });
    });
}

/// In a process of its own, for what is armed stays so.
fn alone(test: &str) -> bool {
    const VARIABLE: &str = "GREENTHREAD_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(VARIABLE, test);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"\nrunning 1 test\n"), "no such test: {test}");
    false
}

#[test]
fn std_s_threads_are_green() {
    if !alone("std_s_threads_are_green") {
        return;
    }
    monkey::patch_threads().unwrap();
    greenthread::run(|| {
        let os_threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = os_threads();
        // SAFETY: asks for a number.
        let gettid = || unsafe { libc::gettid() };
        let mine = gettid();
        let named = std::thread::Builder::new().name("named".into()).stack_size(100_000);
        let name = named.spawn(|| std::thread::current().name().map(String::from)).unwrap();
        assert_eq!(name.join().unwrap().as_deref(), Some("named"));
        let panics = std::thread::spawn(|| std::panic::resume_unwind(Box::new(7_u8)));
        assert_eq!(*panics.join().unwrap_err().downcast::<u8>().unwrap(), 7);
        let start = Instant::now();
        let mut value = 0;
        std::thread::scope(|scope| {
            let sleepers: Vec<_> = (0..50).map(|_| scope.spawn(|| sleep(ms(30)))).collect();
            scope.spawn(|| value = 1);
            sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        });
        assert_eq!(value, 1);
        assert!(start.elapsed() < ms(500), "at once: {:?}", start.elapsed());
        let parked = std::thread::spawn(|| {
            std::thread::park();
            std::thread::park_timeout(ms(5));
        });
        parked.thread().unpark();
        parked.join().unwrap();
        drop(std::thread::spawn(|| ()));
        let ids: Vec<_> = (0..20)
            .map(|_| std::thread::spawn(gettid))
            .map(|t| t.join().unwrap())
            .collect();
        assert!(ids.iter().all(|id| *id == mine));
        assert_eq!(os_threads(), before);
        // Our own are real.
        let hubs = greenthread::hub::Hubs::new(2).unwrap();
        let ids = [0, 1].map(|index| hubs.spawn_on(index, gettid).unwrap().join().unwrap());
        assert!(ids[0] != ids[1] && !ids.contains(&mine));
    });
}

#[test]
fn an_unmodified_thread_per_connection_server_runs_on_one_os_thread() {
    if !alone("an_unmodified_thread_per_connection_server_runs_on_one_os_thread") {
        return;
    }
    const CLIENTS: usize = 500;
    const ROUNDS: usize = 20;
    monkey::patch_threads().unwrap();
    greenthread::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(Mutex::new(0));
        let total = served.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, total) = (stream.unwrap(), total.clone());
                std::thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while stream.read_exact(&mut bytes).is_ok() {
                        stream.write_all(&bytes).unwrap();
                        *total.lock().unwrap() += 1;
                    }
                });
            }
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                std::thread::spawn(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    for round in 0..ROUNDS {
                        // Its own tag in every byte: another connection's would show.
                        let tag = [(n * 31 + round) as u8; 64];
                        stream.write_all(&tag).unwrap();
                        let mut answer = [0; 64];
                        stream.read_exact(&mut answer).unwrap();
                        assert_eq!(answer, tag);
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(*served.lock().unwrap(), CLIENTS * ROUNDS);
    });
}

#[test]
fn a_waiter_whose_hub_has_ended_takes_nobody_s_wake() {
    monkey::patch_all().unwrap();
    let lock = Arc::new(Mutex::new(()));
    let held = lock.lock().unwrap();
    let theirs = lock.clone();
    std::thread::spawn(move || {
        let waits = spawn(move || drop(theirs.lock()));
        while !greenthread::debug::dump().contains("a lock") {
            yield_now();
        }
        drop(waits);
    })
    .join()
    .unwrap();
    let theirs = lock.clone();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        drop(theirs.lock().unwrap());
        tell.send(()).unwrap();
    });
    sleep(ms(50)); // it waits by now; if not, the test only shows less
    drop(held);
    told.recv_timeout(ms(10_000))
        .expect("the wake went to one that never runs");
}

#[test]
fn a_destructor_may_wait_for_a_lock_while_it_unwinds() {
    struct Locks(Arc<Mutex<u32>>);
    impl Drop for Locks {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }
    patched(|| {
        let lock = Arc::new(Mutex::new(0));
        let theirs = lock.clone();
        let holder = spawn(move || {
            let held = theirs.lock().unwrap();
            sleep(ms(50));
            drop(held);
        });
        yield_now();
        let locks = Locks(lock.clone());
        let panics = spawn(move || {
            let _locks = locks;
            std::panic::resume_unwind(Box::new("quietly"));
        });
        let locks = Locks(lock.clone());
        let killed = spawn(move || {
            let _locks = locks;
            thread::park();
        });
        yield_now();
        killed.kill();
        assert!(panics.join().unwrap_err().is_panic());
        assert!(killed.join().unwrap_err().is_killed());
        holder.join().unwrap();
        assert_eq!(*lock.lock().unwrap(), 2);
    });
}

#[test]
fn a_listener_shared_by_os_threads_stays_blocking_and_loses_nobody() {
    const EACH: usize = 300;
    monkey::patch_all().unwrap();
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let acceptors: Vec<_> = (0..2)
        .map(|_| {
            let listener = listener.clone();
            std::thread::spawn(|| greenthread::run(move || (0..EACH).all(|_| listener.accept().is_ok())))
        })
        .collect();
    let streams: Vec<_> = (0..2 * EACH).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(acceptors.into_iter().all(|acceptor| acceptor.join().unwrap()));
    use std::os::fd::AsRawFd;
    // SAFETY: asks for flags.
    let flags = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_GETFL) };
    assert_eq!(flags & libc::O_NONBLOCK, 0);
    drop(streams);
}

#[test]
fn odd_reads_and_sets_are_as_libc_has_them() {
    use std::os::fd::AsRawFd;
    patched(|| {
        let errno = || io::Error::last_os_error().raw_os_error().unwrap();
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        // SAFETY: buffers of our own, and bad ones that the kernel refuses.
        unsafe {
            let mut bytes = [0_u8; 10];
            let to = bytes.as_mut_ptr().cast();
            assert_eq!(
                (libc::recv(a.as_raw_fd(), to, 10, libc::MSG_ERRQUEUE), errno()),
                (-1, libc::EAGAIN)
            );
            b.send_to(b"hello", a.local_addr().unwrap()).unwrap();
            b.send_to(b"WORLD", a.local_addr().unwrap()).unwrap();
            assert_eq!(libc::recv(a.as_raw_fd(), to, 10, libc::MSG_WAITALL), 5);
            let (reader, writer) = io::pipe().unwrap();
            let bad = std::ptr::without_provenance(8);
            assert_eq!((libc::writev(writer.as_raw_fd(), bad, 1), errno()), (-1, libc::EFAULT));
            assert_eq!((libc::readv(reader.as_raw_fd(), bad, 2), errno()), (-1, libc::EFAULT));
            // A descriptor beyond `FD_SETSIZE`, in a set that is long enough for it.
            let high = libc::fcntl(reader.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 1100);
            assert!(high >= 1100);
            let mut set = vec![0_u64; 32];
            set[high as usize / 64] |= 1 << (high % 64);
            let sender = spawn(move || {
                sleep(ms(10));
                (&writer).write_all(b"x").unwrap();
                writer
            });
            let null = std::ptr::null_mut();
            assert_eq!(
                libc::select(high + 1, set.as_mut_ptr().cast(), null, null, null.cast()),
                1
            );
            assert_eq!(set[high as usize / 64] >> (high % 64) & 1, 1);
            sender.join().unwrap();
            libc::close(high);
        }
    });
}

#[test]
fn a_std_thread_is_joined_while_others_run() {
    patched(|| {
        let (tell, told) = mpsc::channel();
        let os_thread = std::thread::spawn(move || told.recv().unwrap());
        spawn(move || {
            sleep(ms(20));
            tell.send(7).unwrap();
        });
        assert_eq!(os_thread.join().unwrap(), 7);
    });
}
