//! What goes wrong in the middle of a patched call: kills, time-outs, closes, the end of the hub, signals, a lack of
//! descriptors, forks, children that do not listen.

use std::ffi::c_void;
use std::io::{self, Read, Write};
use std::mem::zeroed;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenthread::time::timeout_or_late;
use greenthread::{JoinHandle, monkey, spawn, timeout, yield_now};

use super::{join_all, ms, patched};

fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A call that waits for ever on a descriptor; errno, or 0 if it claims to have done something.
struct Wait {
    name: &'static str,
    fd: i32,
    call: Box<dyn FnOnce(i32) -> i32 + Send>,
    /// What must stay open meanwhile.
    _keep: Vec<OwnedFd>,
}

fn wait(name: &'static str, fd: OwnedFd, keep: Vec<OwnedFd>, call: impl FnOnce(i32) -> isize + Send + 'static) -> Wait {
    use std::os::fd::IntoRawFd;
    Wait {
        name,
        fd: fd.into_raw_fd(),
        call: Box::new(move |fd| if call(fd) < 0 { last() } else { 0 }),
        _keep: keep,
    }
}

fn unix() -> (OwnedFd, OwnedFd) {
    let (a, b) = UnixStream::pair().unwrap();
    (a.into(), b.into())
}

/// A socket whose peer does not read, and that takes no more.
fn full() -> (OwnedFd, OwnedFd) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    while (&a).write(&[0; 4096]).is_ok() {}
    a.set_nonblocking(false).unwrap();
    (a.into(), b.into())
}

fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    // SAFETY: flags of a descriptor that is open.
    unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    while (&writer).write(&[0; 4096]).is_ok() {}
    // SAFETY: flags of a descriptor that is open.
    unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, 0) };
    (writer.into(), reader.into())
}

fn listener() -> OwnedFd {
    TcpListener::bind("127.0.0.1:0").unwrap().into()
}

/// Every patched call that waits on a descriptor, each on one on which nothing will ever happen.
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "all are calls with buffers of their own"
)]
fn all() -> Vec<Wait> {
    fn message(vector: &mut libc::iovec) -> libc::msghdr {
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = vector;
        message.msg_iovlen = 1;
        message
    }
    fn vector(buffer: &mut [u8]) -> libc::iovec {
        libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        }
    }
    fn at(buffer: &mut [u8]) -> *mut c_void {
        buffer.as_mut_ptr().cast()
    }
    const NULL: *mut c_void = std::ptr::null_mut();
    let (a, a2) = unix();
    let (b, b2) = unix();
    let (c, c2) = unix();
    let (d, d2) = unix();
    let (e, e2) = unix();
    let (f, f2) = full();
    let (g, g2) = full();
    let (h, h2) = full();
    let (i, i2) = full_pipe();
    let (j, j2) = unix();
    let (k, k2) = unix();
    let (pipe, pipe2) = io::pipe().unwrap();
    let (m, m2) = unix();
    let (n, n2) = full();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    vec![
        wait("recv", a, vec![a2], |fd| unsafe {
            libc::recv(fd, at(&mut [0; 4]), 4, 0)
        }),
        wait("recv all", b, vec![b2], |fd| unsafe {
            libc::recv(fd, at(&mut [0; 4]), 4, libc::MSG_WAITALL)
        }),
        wait("read", c, vec![c2], |fd| unsafe { libc::read(fd, at(&mut [0; 4]), 4) }),
        wait("readv", d, vec![d2], |fd| unsafe {
            libc::readv(fd, &vector(&mut [0; 4]), 1)
        }),
        wait("recvmsg", e, vec![e2], |fd| unsafe {
            libc::recvmsg(fd, &mut message(&mut vector(&mut [0; 4])), 0)
        }),
        wait("recvfrom", udp.into(), vec![], |fd| unsafe {
            libc::recvfrom(fd, at(&mut [0; 4]), 4, 0, NULL.cast(), NULL.cast())
        }),
        wait("send", f, vec![f2], |fd| unsafe {
            libc::send(fd, at(&mut [0; 4]), 4, 0)
        }),
        wait("write", g, vec![g2], |fd| unsafe {
            libc::write(fd, at(&mut [0; 4]), 4)
        }),
        wait("sendmsg", h, vec![h2], |fd| unsafe {
            libc::sendmsg(fd, &message(&mut vector(&mut [0; 4])), 0)
        }),
        wait("write to a pipe", i, vec![i2], |fd| unsafe {
            libc::write(fd, at(&mut [0; 8192]), 8192)
        }),
        wait("read from a pipe", pipe.into(), vec![pipe2.into()], |fd| unsafe {
            libc::read(fd, at(&mut [0; 4]), 4)
        }),
        wait("accept", listener(), vec![], |fd| unsafe {
            libc::accept(fd, NULL.cast(), NULL.cast()) as isize
        }),
        wait("accept4", listener(), vec![], |fd| unsafe {
            libc::accept4(fd, NULL.cast(), NULL.cast(), 0) as isize
        }),
        wait("recvmmsg", j, vec![j2], |fd| unsafe {
            let (mut bytes, mut all): ([u8; 4], libc::mmsghdr) = ([0; 4], zeroed());
            let mut vector = vector(&mut bytes);
            all.msg_hdr = message(&mut vector);
            libc::recvmmsg(fd, &mut all, 1, 0, NULL.cast()) as isize
        }),
        wait("sendmmsg", n, vec![n2], |fd| unsafe {
            let (mut bytes, mut all): ([u8; 4], libc::mmsghdr) = ([0; 4], zeroed());
            let mut vector = vector(&mut bytes);
            all.msg_hdr = message(&mut vector);
            libc::sendmmsg(fd, &mut all, 1, 0) as isize
        }),
        wait("splice", k, vec![k2], |fd| {
            let (_reader, writer) = io::pipe().unwrap();
            unsafe { libc::splice(fd, NULL.cast(), writer.as_raw_fd(), NULL.cast(), 4, 0) }
        }),
        wait("poll", m, vec![m2], |fd| unsafe {
            let mut one = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            libc::poll(&mut one, 1, -1) as isize
        }),
    ]
}

/// Starts them all, each in a green thread of its own that tells its name and what the call ended with.
fn start(told: &mpsc::Sender<(&'static str, i32)>) -> Vec<(i32, JoinHandle<()>)> {
    let begun = Arc::new(AtomicU32::new(0));
    let started = all().into_iter().map(|wait| {
        let (told, begun) = (told.clone(), begun.clone());
        let fd = wait.fd;
        let green = spawn(move || {
            let Wait { name, fd, call, _keep } = wait;
            begun.fetch_add(1, Ordering::SeqCst);
            let error = call(fd);
            told.send((name, error)).unwrap();
            // A kill that is still due ends it here.
            greenthread::sleep(ms(1));
        });
        (fd, green)
    });
    let started: Vec<_> = started.collect();
    while (begun.load(Ordering::SeqCst) as usize) < started.len() {
        yield_now();
    }
    // All wait now.
    sleep(ms(20));
    assert!(started.iter().all(|(_, green)| !green.is_finished()));
    started
}

/// SAFETY of its callers: a descriptor that the test owns.
fn close(fd: i32) {
    // SAFETY: as said.
    unsafe { libc::close(fd) };
}

#[test]
fn a_kill_ends_every_wait() {
    patched(|| {
        let (tell, told) = mpsc::channel();
        let started = start(&tell);
        started.iter().for_each(|(_, green)| green.kill());
        for (fd, green) in started {
            assert!(green.join().unwrap_err().is_killed());
            close(fd);
        }
        drop(tell);
        for (name, error) in told {
            assert_eq!(error, libc::ECANCELED, "{name}");
        }
    });
}

#[test]
fn a_time_out_ends_every_wait() {
    patched(|| {
        for wait in all() {
            let Wait { name, fd, call, _keep } = wait;
            let start = Instant::now();
            let late = spawn(move || timeout_or_late(ms(10), || call(fd)).unwrap_err().1);
            assert_eq!(late.join().unwrap(), Some(libc::ETIMEDOUT), "{name}");
            assert!(start.elapsed() >= ms(10), "{name}");
            close(fd);
        }
    });
}

#[test]
fn a_close_ends_every_wait_from_wherever() {
    for by_an_os_thread in [false, true] {
        patched(move || {
            let (tell, told) = mpsc::channel();
            let (fds, mut green): (Vec<_>, Vec<_>) = start(&tell).into_iter().unzip();
            let closing = move || fds.into_iter().for_each(close);
            if by_an_os_thread {
                greenthread::threadpool::unblock(closing);
            } else {
                closing();
            }
            // The kernel's poll does not notice either.
            let poll = green.pop().unwrap();
            join_all(green);
            poll.kill();
            assert!(poll.join().unwrap_err().is_killed());
            drop(tell);
            for (name, error) in told {
                let expected = if name == "poll" { libc::ECANCELED } else { libc::EBADF };
                assert_eq!(error, expected, "{name}");
            }
        });
    }
}

/// An OS thread ends with green threads in the middle of patched calls; what they waited for goes on without them.
#[test]
fn the_end_of_the_hub_in_every_wait() {
    let lock = Arc::new(Mutex::new(0));
    let theirs = lock.clone();
    let (tell, told) = mpsc::channel();
    let fds = patched(move || {
        let held = theirs.lock().unwrap();
        for _ in 0..3 {
            let theirs = theirs.clone();
            spawn(move || *theirs.lock().unwrap() += 1);
        }
        spawn(|| sleep(Duration::from_secs(3600)));
        let started = start(&tell);
        drop(held);
        started.into_iter().map(|(fd, _)| fd).collect::<Vec<_>>()
    });
    // They are left as they are, or ended: but nobody says that the call has done anything.
    assert!(told.try_iter().all(|(_, error)| error != 0));
    fds.into_iter().for_each(close);
    *lock.lock().unwrap() += 1;
}

#[test]
fn a_kill_in_a_sleep_a_child_s_wait_and_a_name() {
    patched(|| {
        let mut child = Command::new("sh");
        let child = child.args(["-c", "trap '' TERM; echo; read line"]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (pid, stdin) = (child.id() as i32, child.stdin.take());
        // It ignores the signal, from here on.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let waits = spawn(move || (child.wait().unwrap_err().raw_os_error(), child));
        sleep(ms(5));
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        sleep(ms(5));
        assert!(!waits.is_finished());
        waits.kill();
        let (error, mut child) = waits.join().unwrap_err().into_value::<(Option<i32>, Child)>().unwrap();
        assert_eq!(error, Some(libc::ECANCELED));
        drop(stdin);
        assert!(!child.wait().unwrap().success(), "its read found the end");
        let start = Instant::now();
        let sleeps = spawn(|| sleep(Duration::from_secs(3600)));
        yield_now();
        sleeps.kill();
        assert!(sleeps.join().unwrap_err().is_killed());
        assert!(start.elapsed() < Duration::from_secs(60));
    });
}

/// Runs a test of this file again, in a process of its own, where it may do what would disturb others.
fn alone(test: &str, f: impl FnOnce()) {
    const MARK: &str = "GREENTHREAD_ALONE";
    if std::env::var_os(MARK).is_some_and(|name| name == test) {
        return f();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        &*format!("faults::{test}"),
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ]);
    let out = command.env(MARK, test).output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

/// A thousand signals a second, whose handler does not ask for a restart of what it interrupts.
#[test]
fn a_storm_of_signals() {
    static CAUGHT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: i32) {
        CAUGHT.fetch_add(1, Ordering::Relaxed);
    }
    alone("a_storm_of_signals", || {
        // SAFETY: a handler that counts, and a timer.
        unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = handler as *const () as usize;
            libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
            let every = libc::timeval {
                tv_sec: 0,
                tv_usec: 1_000,
            };
            let timer = libc::itimerval {
                it_interval: every,
                it_value: every,
            };
            libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut());
        }
        patched(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = spawn(move || {
                for _ in 0..10 {
                    let (mut stream, _) = listener.accept().unwrap();
                    spawn(move || {
                        while stream.read(&mut [0; 64]).unwrap() > 0 {
                            sleep(ms(2));
                            stream.write_all(b"tagged").unwrap();
                        }
                    });
                }
            });
            let clients = (0..10).map(|_| {
                spawn(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    for _ in 0..20 {
                        stream.write_all(b"hello").unwrap();
                        let mut answer = [0; 6];
                        stream.read_exact(&mut answer).unwrap();
                        assert_eq!(&answer, b"tagged");
                    }
                })
            });
            let clients: Vec<_> = clients.collect();
            let start = Instant::now();
            sleep(ms(200));
            assert!(start.elapsed() >= ms(200), "not cut short");
            join_all(clients);
            server.join().unwrap();
        });
        assert!(CAUGHT.load(Ordering::Relaxed) > 50);
    });
}

#[test]
fn no_descriptor_left() {
    alone("no_descriptor_left", || {
        patched(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (mut near, mut far) = UnixStream::pair().unwrap();
            // So that the hub has what it needs.
            sleep(ms(1));
            spawn(move || {
                sleep(ms(30));
                far.write_all(b"x").unwrap();
            });
            let client = TcpStream::connect(address).unwrap();
            // SAFETY: a limit of the process's own.
            unsafe {
                let limit = libc::rlimit {
                    rlim_cur: 1, // as many as a list of poll's may have
                    rlim_max: 4096,
                };
                assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
            }
            assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(libc::EMFILE));
            // A poll needs a descriptor to wait with; without one it still waits.
            let mut one = libc::pollfd {
                fd: near.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: a list of one.
            assert_eq!(unsafe { libc::poll(&mut one, 1, 5) }, 0);
            // SAFETY: a list of one.
            assert_eq!(unsafe { libc::poll(&mut one, 1, -1) }, 1);
            near.read_exact(&mut [0]).unwrap();
            assert_eq!(
                TcpStream::connect(address).unwrap_err().raw_os_error(),
                Some(libc::EMFILE)
            );
            // SAFETY: the limit lives over the call.
            unsafe {
                let limit = libc::rlimit {
                    rlim_cur: 4096,
                    rlim_max: 4096,
                };
                assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
            }
            listener.accept().unwrap();
            drop(client);
        });
    });
}

/// A hub's very first wait, with no descriptor to wait by: whoever waits is told.
#[test]
fn no_descriptor_for_the_hub_itself() {
    alone("no_descriptor_for_the_hub_itself", || {
        monkey::patch_all().unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        // SAFETY: a limit of the process's own.
        unsafe {
            let limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 4096,
            };
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        }
        let error = spawn(move || (&near).read(&mut [0]).unwrap_err()).join().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    });
}

/// Children are forked while other OS threads are in the middle of the table of waiters, and use it anew.
#[test]
fn forked_children_wait_and_wake() {
    alone("forked_children_wait_and_wake", || {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        patched(move || {
            let lock = Arc::new(Mutex::new(0_u64));
            let busy: Vec<_> = (0..2)
                .map(|_| {
                    let (lock, stop) = (lock.clone(), stop.clone());
                    std::thread::spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            *lock.lock().unwrap() += 1;
                            look_at_all();
                        }
                    })
                })
                .collect();
            // One that waits for the lock at the time of each fork, now and then.
            let waits = {
                let (lock, stop) = (lock.clone(), stop.clone());
                spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        drop(lock.lock().unwrap());
                        yield_now();
                    }
                })
            };
            for _ in 0..30 {
                // SAFETY: the child makes green threads of its own, and ends by `_exit`.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    let worked = std::panic::catch_unwind(child_s_work).is_ok();
                    // SAFETY: ends the process.
                    unsafe { libc::_exit(i32::from(!worked)) };
                }
                let mut status = -1;
                // SAFETY: writes a number.
                let wait = || unsafe { libc::waitpid(pid, &mut status, 0) };
                assert_eq!(timeout(Duration::from_secs(60), wait).unwrap(), pid);
                assert_eq!(status, 0);
            }
            stop.store(true, Ordering::Relaxed);
            waits.join().unwrap();
            busy.into_iter().for_each(|busy| busy.join().unwrap());
        });
        assert!(seen.load(Ordering::Relaxed));
    });
}

/// Locks each part of the table in turn.
fn look_at_all() {
    // SAFETY: closes numbers that nobody has.
    unsafe { libc::close_range(1 << 30, 1 << 30, 0) };
}

fn child_s_work() {
    let _waits = spawn(|| sleep(Duration::from_secs(3600)));
    let (near, _far) = UnixStream::pair().unwrap();
    let reads = spawn(move || (&near).read(&mut [0]));
    yield_now();
    look_at_all();
    drop(reads);
    let lock = Arc::new(Mutex::new(0));
    let held = lock.lock().unwrap();
    let (sender, receiver) = mpsc::channel();
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            let (lock, sender) = (lock.clone(), sender.clone());
            spawn(move || {
                *lock.lock().unwrap() += 1;
                sleep(ms(1));
                sender.send(()).unwrap();
            })
        })
        .collect();
    yield_now();
    drop(held);
    join_all(waiters);
    drop(sender);
    assert_eq!((receiver.iter().count(), *lock.lock().unwrap()), (5, 5));
}

/// Standard output is a pipe that nobody reads for a while: lines stay whole, and none is lost.
#[test]
fn a_full_standard_output() {
    const LINES: usize = 4_000;
    const MARK: &str = "GREENTHREAD_PRINTS";
    if std::env::var_os(MARK).is_some() {
        return patched(|| {
            let printers = (0..4).map(|n| {
                spawn(move || {
                    for line in 0..LINES / 4 {
                        println!("line {n} {line} {}", "x".repeat(40));
                    }
                })
            });
            join_all(printers.collect());
        });
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["faults::a_full_standard_output", "--exact", "--nocapture"]);
    let mut child = command.env(MARK, "1").stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    sleep(ms(100)); // the pipe fills
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let is_whole = |line: &&str| line.contains("line ") && line.ends_with(&"x".repeat(40));
    assert_eq!(text.lines().filter(is_whole).count(), LINES);
}

/// Connections to a listener that is closed in the middle, and descriptors whose numbers are used again at once: nobody
/// gets another's bytes.
#[test]
fn reused_numbers_carry_nobody_else_s_bytes() {
    patched(|| {
        let workers = (0..20_u8).map(|n| {
            spawn(move || {
                for round in 0..50_u8 {
                    let (mut near, mut far) = UnixStream::pair().unwrap();
                    let echo = spawn(move || {
                        let mut bytes = [0; 2];
                        while far.read_exact(&mut bytes).is_ok() {
                            far.write_all(&bytes).unwrap();
                        }
                    });
                    let reader = near.try_clone().unwrap();
                    let late = spawn(move || (&reader).read(&mut [0; 1]).unwrap_or(0));
                    yield_now();
                    if round % 3 == 0 {
                        late.thread().kill();
                    }
                    near.write_all(&[n, round]).unwrap();
                    // The two bytes, or the one that the late one has left.
                    let taken = late.join().unwrap_or(0);
                    let mut bytes = [0; 2];
                    near.read_exact(&mut bytes[taken..]).unwrap();
                    assert_eq!(bytes[taken..], [n, round][taken..]);
                    drop(near);
                    echo.join().unwrap();

                    let (mut near, mut far) = UnixStream::pair().unwrap();
                    far.write_all(&[n, round]).unwrap();
                    let mut bytes = [0; 2];
                    near.read_exact(&mut bytes).unwrap();
                    assert_eq!(bytes, [n, round]);
                }
            })
        });
        join_all(workers.collect());
    });
}

/// A queue of a Unix listener that is full, and the one who waits is killed: the connection is not made later.
#[test]
fn a_killed_connect_leaves_nothing_behind() {
    patched(|| {
        let folder = std::env::temp_dir().join(format!("greenthread-full-{}", std::process::id()));
        let _ = std::fs::remove_file(&folder);
        let listener = UnixListener::bind(&folder).unwrap();
        // SAFETY: asks for a queue of one.
        unsafe { libc::listen(listener.as_raw_fd(), 0) };
        let path = folder.clone();
        let queued = UnixStream::connect(&path).unwrap();
        let waits = spawn(move || UnixStream::connect(&path).map(drop).unwrap_err().raw_os_error());
        sleep(ms(5));
        assert!(!waits.is_finished());
        waits.kill();
        let error = waits.join().unwrap_err();
        assert!(error.is_killed());
        assert_eq!(error.into_value::<Option<i32>>().unwrap(), Some(libc::ECANCELED));
        listener.accept().unwrap();
        listener.set_nonblocking(true).unwrap();
        sleep(ms(60));
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(queued);
        std::fs::remove_file(&folder).unwrap();
    });
}

/// Without isolation: the native stack and local green threads park, and nothing of the hub's own does.
#[test]
fn shared_thread_locals() {
    alone("shared_thread_locals", || {
        greenthread::thread::set_isolation(false);
        assert!(monkey::patch_all().is_err());
        // SAFETY: nothing below holds a thread-local over a call that blocks.
        unsafe { monkey::Patch::all().shared_thread_locals() }.apply().unwrap();
        let start = Instant::now();
        let locals: Vec<_> = (0..20).map(|_| greenthread::spawn_local(|| sleep(ms(50)))).collect();
        sleep(ms(50));
        join_all(locals);
        assert!(start.elapsed() >= ms(50) && start.elapsed() < ms(500));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            sleep(ms(20));
            stream.write_all(b"hello").unwrap();
        });
        let mut text = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        server.join().unwrap();

        let (lock, os) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
        let (theirs, mine) = (lock.clone(), os.clone());
        let os_thread = std::thread::spawn(move || (0..1000).for_each(|_| *mine.lock().unwrap() += 1));
        let holder = greenthread::spawn_local(move || {
            let mut held = theirs.lock().unwrap();
            sleep(ms(20));
            *held = 1;
        });
        yield_now();
        assert_eq!(
            *lock.lock().unwrap(),
            1,
            "the native stack waited for a local green thread"
        );
        (0..1000).for_each(|_| *os.lock().unwrap() += 1);
        os_thread.join().unwrap();
        assert_eq!(*os.lock().unwrap(), 2000);
        holder.join().unwrap();

        // A kill ends the wait of a local one, and one that does not listen lets others run.
        let (near, _far) = UnixStream::pair().unwrap();
        let reads = greenthread::spawn_local(move || (&near).read(&mut [0]).unwrap_err().raw_os_error());
        yield_now();
        reads.kill();
        let error = reads.join().unwrap_err();
        assert!(error.is_killed());
        error
            .into_value::<Option<i32>>()
            .expect_err("that of a local one is dropped, for it need not be Send");
    });
}

/// Loops that sleep until something has happened, and do not know of time-outs: they go on at their pace, to their end.
#[test]
fn loops_of_sleeps_end_by_themselves() {
    patched(|| {
        let start = Instant::now();
        let rounds = spawn(move || {
            let mut rounds = 0;
            let ended = timeout_or_late(ms(20), || {
                while start.elapsed() < ms(120) {
                    sleep(ms(10));
                    rounds += 1;
                }
            });
            assert_eq!(ended.unwrap_err().1, Some(()), "it has come to its own end");
            rounds
        });
        let rounds = rounds.join().unwrap();
        assert!((2..=14).contains(&rounds), "{rounds}");

        let start = Instant::now();
        let polls = spawn(move || {
            while start.elapsed() < ms(60) {
                sleep(ms(10));
            }
            greenthread::sleep(ms(1));
        });
        yield_now();
        polls.kill();
        assert!(polls.join().unwrap_err().is_killed());
    });
}

/// Who rings a hub's bell still holds it when the hub runs: the hub's first poller comes just then.
#[test]
fn a_first_wait_of_a_hub_that_was_just_woken() {
    for _ in 0..300 {
        patched(|| {
            let (sender, receiver) = greenthread::sync::channel::bounded::<()>(1);
            let wakers: Vec<_> = (0..3)
                .map(|_| {
                    let sender = sender.clone();
                    std::thread::spawn(move || sender.send(()).is_ok())
                })
                .collect();
            receiver.recv().unwrap();
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let reader = spawn(move || near.read(&mut [0; 1]).unwrap());
            yield_now();
            far.write_all(b"x").unwrap();
            assert_eq!(reader.join().unwrap(), 1);
            (0..2).for_each(|_| receiver.recv().unwrap());
            wakers.into_iter().for_each(|waker| assert!(waker.join().unwrap()));
        });
    }
}
