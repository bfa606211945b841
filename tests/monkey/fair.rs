//! Patched calls that succeed at once, or never wait, give way; and a time-out or a kill reaches the caller,
//! though never with bytes in hand.

use std::ffi::c_void;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::sleep;
use std::time::Instant;

use greenthread::{monkey, spawn, timeout, yield_now};

use super::{alone, ms, patched};

fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A call that never parks, on a descriptor of its own, and what it returns.
struct Busy {
    name: &'static str,
    /// Whether it never waits, whatever there is: then it is told of no interrupt.
    never_waits: bool,
    call: Box<dyn FnMut() -> isize + Send>,
    result: isize,
}

fn busy(name: &'static str, result: isize, call: impl FnMut() -> isize + Send + 'static) -> Busy {
    Busy {
        name,
        never_waits: false,
        call: Box::new(call),
        result,
    }
}

fn idle(name: &'static str, call: impl FnMut() -> isize + Send + 'static) -> Busy {
    Busy {
        never_waits: true,
        ..busy(name, -1, call)
    }
}

/// One that asks whether anything is ready, and hears that nothing is.
fn asks(name: &'static str, call: impl FnMut() -> isize + Send + 'static) -> Busy {
    Busy {
        never_waits: true,
        ..busy(name, 0, call)
    }
}

fn at(bytes: &mut [u8]) -> *mut c_void {
    bytes.as_mut_ptr().cast()
}

/// A socket that has four bytes.
fn with_bytes() -> (OwnedFd, OwnedFd) {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"abcd").unwrap();
    (near.into(), far.into())
}

/// One that has nothing, and is non-blocking if that is asked for.
fn without(nonblocking: bool) -> (OwnedFd, OwnedFd) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(nonblocking).unwrap();
    (near.into(), far.into())
}

/// An object of System V's, removed when it is dropped.
struct Ipc(i32, fn(i32) -> i32);

impl Drop for Ipc {
    fn drop(&mut self) {
        (self.1)(self.0);
    }
}

/// All of them; each may be called as often as one likes.
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "all are calls with buffers of their own"
)]
fn all() -> Vec<Busy> {
    fn message(vector: &mut libc::iovec) -> libc::msghdr {
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (vector, 1);
        message
    }
    fn vector(bytes: &mut [u8]) -> libc::iovec {
        libc::iovec {
            iov_base: at(bytes),
            iov_len: bytes.len(),
        }
    }
    let (a, b, c) = (with_bytes(), with_bytes(), with_bytes());
    let (d, e, f) = (without(false), without(true), without(true));
    // Datagrams to itself, which are dropped when there is no room.
    let udp = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        socket
    };
    let (g, h, i) = (udp(), udp(), udp());
    let (j, listener) = (io::pipe().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    listener.set_nonblocking(true).unwrap();
    let (k, epoll) = (with_bytes(), unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(0)) });
    vec![
        busy("poll that finds something", 1, move || unsafe {
            let (fd, events) = ({ &k }.0.as_raw_fd(), libc::POLLIN);
            libc::poll(&mut libc::pollfd { fd, events, revents: 0 }, 1, 1000) as isize
        }),
        asks("poll", || unsafe { libc::poll(std::ptr::null_mut(), 0, 0) as isize }),
        asks("select", || unsafe {
            let none = std::ptr::null_mut;
            let mut now = libc::timeval { tv_sec: 0, tv_usec: 0 };
            libc::select(0, none(), none(), none(), &mut now) as isize
        }),
        asks("epoll_wait", move || unsafe {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            libc::epoll_wait(epoll.as_raw_fd(), &mut event, 1, 0) as isize
        }),
        busy("recv", 4, move || unsafe {
            libc::recv(a.0.as_raw_fd(), at(&mut [0; 4]), 4, libc::MSG_PEEK)
        }),
        busy("recvmsg", 4, move || unsafe {
            libc::recvmsg(b.0.as_raw_fd(), &mut message(&mut vector(&mut [0; 4])), libc::MSG_PEEK)
        }),
        busy("recvmmsg", 1, move || unsafe {
            let (mut bytes, mut all): ([u8; 4], libc::mmsghdr) = ([0; 4], std::mem::zeroed());
            let mut vector = vector(&mut bytes);
            all.msg_hdr = message(&mut vector);
            libc::recvmmsg(c.0.as_raw_fd(), &mut all, 1, libc::MSG_PEEK, std::ptr::null_mut()) as isize
        }),
        busy("send", 4, move || unsafe {
            libc::send(g.as_raw_fd(), at(&mut [0; 4]), 4, 0)
        }),
        busy("write", 4, move || unsafe {
            libc::write(h.as_raw_fd(), at(&mut [0; 4]), 4)
        }),
        busy("sendmmsg", 1, move || unsafe {
            let (mut bytes, mut all): ([u8; 4], libc::mmsghdr) = ([0; 4], std::mem::zeroed());
            let mut vector = vector(&mut bytes);
            all.msg_hdr = message(&mut vector);
            libc::sendmmsg(i.as_raw_fd(), &mut all, 1, 0) as isize
        }),
        busy("a byte through a pipe", 1, move || unsafe {
            if libc::write(j.1.as_raw_fd(), at(&mut [1]), 1) < 0 {
                return -1;
            }
            libc::read(j.0.as_raw_fd(), at(&mut [0]), 1)
        }),
        busy("semop", 0, {
            let set = Ipc(unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) }, |set| unsafe {
                libc::semctl(set, 0, libc::IPC_RMID)
            });
            move || unsafe {
                let step = |sem_op| libc::sembuf {
                    sem_num: 0,
                    sem_op,
                    sem_flg: 0,
                };
                libc::semop({ &set }.0, [step(1), step(-1)].as_mut_ptr(), 2) as isize
            }
        }),
        busy("a message through a queue", 4, {
            let queue = Ipc(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) }, |queue| unsafe {
                libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut())
            });
            move || unsafe {
                let mut message = [1_i64, 0];
                let at = message.as_mut_ptr().cast::<c_void>();
                if libc::msgsnd({ &queue }.0, at, 4, 0) < 0 {
                    return -1;
                }
                libc::msgrcv(queue.0, at, 4, 0, 0)
            }
        }),
        asks("flock", {
            let file = std::fs::File::open("Cargo.toml").unwrap();
            move || unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH) as isize }
        }),
        idle("sigtimedwait without waiting", || unsafe {
            let (mut set, none) = (std::mem::zeroed(), libc::timespec { tv_sec: 0, tv_nsec: 0 });
            libc::sigemptyset(&mut set);
            libc::sigtimedwait(&set, std::ptr::null_mut(), &none) as isize
        }),
        idle("recv without waiting", move || unsafe {
            libc::recv({ &d }.0.as_raw_fd(), at(&mut [0; 4]), 4, libc::MSG_DONTWAIT)
        }),
        idle("read of a non-blocking socket", move || unsafe {
            libc::read({ &e }.0.as_raw_fd(), at(&mut [0; 4]), 4)
        }),
        idle("recvmsg of a non-blocking socket", move || unsafe {
            libc::recvmsg({ &f }.0.as_raw_fd(), &mut message(&mut vector(&mut [0; 4])), 0)
        }),
        idle("accept of a non-blocking listener", move || unsafe {
            libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) as isize
        }),
    ]
}

#[test]
fn calls_that_never_park_let_others_run() {
    for Busy {
        name, mut call, result, ..
    } in all()
    {
        let rounds = patched(move || {
            let rounds = Arc::new(AtomicU64::new(0));
            let theirs = rounds.clone();
            let other = spawn(move || {
                loop {
                    theirs.fetch_add(1, Ordering::SeqCst);
                    yield_now();
                }
            });
            yield_now();
            for _ in 0..2000 {
                assert_eq!(call(), result, "{name}");
                assert!(result >= 0 || last() == libc::EAGAIN, "{name}: {}", last());
            }
            other.kill();
            rounds.load(Ordering::SeqCst)
        });
        // 128 operations each at most; the first round was before.
        assert!(rounds > 2000 / 128, "{name}: {rounds} rounds");
    }
}

#[test]
fn a_time_out_strikes_who_never_parks_but_not_who_never_waits() {
    for Busy {
        name,
        never_waits,
        mut call,
        result,
    } in all()
    {
        patched(move || {
            let body = spawn(move || {
                timeout(ms(5), || {
                    let start = Instant::now();
                    while start.elapsed() < ms(if never_waits { 50 } else { 20_000 }) {
                        if call() != result {
                            return last();
                        }
                        assert!(result >= 0 || last() == libc::EAGAIN, "{name}: {}", last());
                    }
                    0
                })
            });
            // `Elapsed` if it was told.
            let told = body.join().unwrap().unwrap_or(libc::ETIMEDOUT);
            let expected = if never_waits { 0 } else { libc::ETIMEDOUT };
            // One that was never told has come to its end, or its `timeout` says so.
            assert!(
                told == expected || never_waits && told == libc::ETIMEDOUT,
                "{name}: {told}"
            );
        });
    }
}

/// Interrupted again and again, with data on its way all the time: every byte comes, once, in order.
#[test]
fn no_interrupt_comes_with_bytes_in_hand() {
    monkey::patch_all().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let stops = near.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let mut next = 0_u64;
        while (&far).write_all(&next.to_ne_bytes()).is_ok() {
            next += 1;
        }
    });
    let (told, read) = std::thread::spawn(move || {
        greenthread::run(move || {
            let (mut told, mut read, start) = (0, Vec::new(), Instant::now());
            while told < 50 && start.elapsed() < ms(20_000) {
                let mut part = Vec::new();
                let _ = timeout(ms(1), || {
                    let mut bytes = [0; 7];
                    loop {
                        match (&near).read(&mut bytes) {
                            Ok(count) => part.extend_from_slice(&bytes[..count]),
                            Err(error) => {
                                assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
                                break told += 1;
                            }
                        }
                    }
                });
                read.append(&mut part);
            }
            (told, read)
        })
    })
    .join()
    .unwrap();
    stops.shutdown(std::net::Shutdown::Both).unwrap();
    writer.join().unwrap();
    assert_eq!(told, 50);
    for (n, bytes) in read.chunks_exact(8).enumerate() {
        assert_eq!(bytes, (n as u64).to_ne_bytes());
    }
}

/// A large write to a peer on the same hub that reads at once, or to an OS thread that never is late: others run
/// meanwhile.
#[test]
fn a_large_call_gives_way_between_its_parts() {
    patched(|| {
        let (near, far) = UnixStream::pair().unwrap();
        let read = move || {
            let (mut total, mut bytes) = (0, vec![0; 1 << 20]);
            while let Ok(count @ 1..) = (&far).read(&mut bytes) {
                total += count;
            }
            total
        };
        let reader = monkey::unpatched(|| std::thread::spawn(read));
        let other = spawn(|| {
            for _ in 0..20 {
                sleep(ms(1));
            }
        });
        let written = spawn(move || (&near).write(&vec![7; 1 << 26]).unwrap());
        other.join().unwrap();
        assert_eq!(written.join().unwrap(), 1 << 26);
        assert_eq!(reader.join().unwrap(), 1 << 26);
    });
}

/// A pool as tiny_http has it: a job goes to an idle worker if the count says that there is one, and the count is old
/// until the worker runs.
#[derive(Default)]
struct Pool {
    jobs: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    came: Condvar,
    idle: AtomicU64,
}

impl Pool {
    fn run(self: &Arc<Pool>, job: Box<dyn FnOnce() + Send>) {
        if self.idle.load(Ordering::Acquire) == 0 {
            return self.start(Some(job));
        }
        self.jobs.lock().unwrap().push(job);
        self.came.notify_one();
    }

    fn start(self: &Arc<Pool>, first: Option<Box<dyn FnOnce() + Send>>) {
        let pool = self.clone();
        std::thread::spawn(move || {
            if let Some(job) = first {
                job();
            }
            loop {
                let mut jobs = pool.jobs.lock().unwrap();
                let job = loop {
                    if let Some(job) = jobs.pop() {
                        break job;
                    }
                    pool.idle.fetch_add(1, Ordering::Release);
                    jobs = pool.came.wait(jobs).unwrap();
                    pool.idle.fetch_sub(1, Ordering::Release);
                };
                drop(jobs);
                job();
            }
        });
    }
}

#[test]
fn a_burst_of_accepts_lets_the_workers_begin() {
    if !alone("fair::a_burst_of_accepts_lets_the_workers_begin") {
        return;
    }
    const CONNECTIONS: usize = 50;
    monkey::patch_threads().unwrap();
    greenthread::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pool = Arc::new(Pool::default());
        (0..4).for_each(|_| pool.start(None));
        while pool.idle.load(Ordering::Acquire) < 4 {
            yield_now();
        }
        // All are in the queue before the first is accepted.
        let streams: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let start = Instant::now();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                pool.run(Box::new(move || {
                    sleep(ms(100));
                    let _ = stream.write_all(b"!");
                }));
            }
        });
        for mut stream in streams {
            stream.read_exact(&mut [0]).unwrap();
        }
        let took = start.elapsed();
        println!("{CONNECTIONS} connections of 100 ms: {took:?}");
        // Four at a time they take 13 times as long as one.
        assert!(took < ms(100) * 6, "{took:?}");
    });
}
