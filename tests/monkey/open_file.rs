//! The non-blocking flag belongs to the open file: other threads and processes that have it see nothing of a patched
//! call.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenthread::time::timeout_or_late;
use greenthread::{monkey, spawn, timeout};

use super::bulk::{pattern, splice, tempfile};
use super::{join_all, ms, patched};

fn last() -> Option<i32> {
    io::Error::last_os_error().raw_os_error()
}

fn is_nonblocking(fd: &impl AsRawFd) -> bool {
    // SAFETY: asks for flags.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

/// Runs a test in two processes of its own: with io_uring, if there is one, and without.
fn both_ways(test: &str, f: impl FnOnce()) {
    const VARIABLE: &str = "GREENTHREAD_TEST_ACCEPT";
    if std::env::var_os(VARIABLE).is_some() {
        return f();
    }
    let name = format!("open_file::{test}");
    for way in ["", "thread"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &name, "--nocapture"]).env(VARIABLE, "1");
        let output = child.env("GREEN_ACCEPT", way).output().unwrap();
        assert!(output.status.success(), "GREEN_ACCEPT={way}: {output:?}");
        assert!(output.stdout.starts_with(b"\nrunning 1 test\n"), "no such test: {name}");
    }
}

fn is_by_thread() -> bool {
    std::env::var_os("GREEN_ACCEPT").is_some_and(|way| way == "thread")
}

/// Connects, if there is room in the queue.
fn knock(address: SocketAddr) {
    drop(TcpStream::connect_timeout(&address, ms(50)));
}

/// OS threads that accept in a green thread's place.
fn helpers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("greenthread-acc")).count()
}

#[test]
fn a_blocking_accept_of_an_os_thread_never_says_that_it_would_block() {
    both_ways(
        "a_blocking_accept_of_an_os_thread_never_says_that_it_would_block",
        || {
            const CONNECTIONS: usize = 3000;
            monkey::patch_all().unwrap();
            let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
            let address = listener.local_addr().unwrap();
            let accepted = Arc::new([const { AtomicUsize::new(0) }; 2]);
            let stop = Arc::new(AtomicBool::new(false));
            let accept = |who: usize| {
                let (listener, accepted, stop) = (listener.clone(), accepted.clone(), stop.clone());
                move || {
                    while !stop.load(Ordering::SeqCst) {
                        listener.accept().unwrap();
                        accepted[who].fetch_add(1, Ordering::SeqCst);
                    }
                }
            };
            let mut all = vec![std::thread::spawn(accept(0))];
            let bodies: Vec<_> = (0..4).map(|_| accept(1)).collect();
            all.push(std::thread::spawn(move || {
                greenthread::run(move || {
                    join_all(bodies.into_iter().map(spawn).collect());
                })
            }));
            for _ in 0..CONNECTIONS {
                drop(TcpStream::connect(address).unwrap());
                assert!(!is_nonblocking(&listener));
            }
            while accepted.iter().map(|n| n.load(Ordering::SeqCst)).sum::<usize>() < CONNECTIONS {
                sleep(ms(1));
            }
            assert!(accepted.iter().all(|n| n.load(Ordering::SeqCst) > 0), "{accepted:?}");
            assert!(!is_by_thread() || helpers() > 0);
            stop.store(true, Ordering::SeqCst);
            while all.iter().any(|one| !one.is_finished()) {
                knock(address);
            }
            all.into_iter().for_each(|one| one.join().unwrap());
        },
    );
}

/// Sets and clears the flag on an OS thread, while `busy` goes on in green threads: it is always what was set last.
fn stays_as_set(fd: &impl AsRawFd, goes_on: &AtomicBool) {
    let raw = fd.as_raw_fd();
    for round in 0..3000 {
        for nonblocking in [true, false] {
            // SAFETY: sets the flag, in both ways that there are.
            unsafe {
                if round % 2 == 0 {
                    libc::fcntl(raw, libc::F_SETFL, if nonblocking { libc::O_NONBLOCK } else { 0 });
                } else {
                    libc::ioctl(raw, libc::FIONBIO, &libc::c_int::from(nonblocking));
                }
            }
            for _ in 0..5 {
                assert_eq!(is_nonblocking(fd), nonblocking, "round {round}");
            }
        }
    }
    goes_on.store(false, Ordering::SeqCst);
}

#[test]
fn what_another_thread_sets_is_kept_by_an_accept() {
    both_ways("what_another_thread_sets_is_kept_by_an_accept", || {
        monkey::patch_all().unwrap();
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let goes_on = Arc::new(AtomicBool::new(true));
        let (theirs, flag) = (listener.clone(), goes_on.clone());
        let accepter = std::thread::spawn(move || {
            greenthread::run(move || {
                while flag.load(Ordering::SeqCst) {
                    if let Err(error) = theirs.accept() {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    }
                }
            })
        });
        let flag = goes_on.clone();
        let client = std::thread::spawn(move || {
            while flag.load(Ordering::SeqCst) {
                knock(address);
            }
        });
        stays_as_set(&*listener, &goes_on);
        client.join().unwrap();
        while !accepter.is_finished() {
            knock(address);
        }
        accepter.join().unwrap();
    });
}

/// Raw address of a port of this machine.
fn raw_address(address: SocketAddr) -> libc::sockaddr_in {
    // SAFETY: all-zero is valid.
    let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    raw.sin_family = libc::AF_INET as u16;
    raw.sin_port = address.port().to_be();
    raw.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
    raw
}

fn socket() -> OwnedFd {
    // SAFETY: a fresh descriptor, ours alone.
    unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)) }
}

/// Errno, or 0.
fn connect(socket: &OwnedFd, address: SocketAddr) -> i32 {
    let raw = raw_address(address);
    let len = size_of::<libc::sockaddr_in>() as u32;
    // SAFETY: an address of our own.
    if unsafe { libc::connect(socket.as_raw_fd(), (&raw const raw).cast(), len) } == 0 {
        return 0;
    }
    last().unwrap()
}

fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn what_another_thread_sets_is_kept_by_a_connect() {
    monkey::patch_all().unwrap();
    let socket = Arc::new(socket());
    let goes_on = Arc::new(AtomicBool::new(true));
    let (theirs, flag) = (socket.clone(), goes_on.clone());
    let connects = std::thread::spawn(move || {
        greenthread::run(move || {
            let nobody = nobody();
            let mut refused = 0;
            while flag.load(Ordering::SeqCst) {
                let error = connect(&theirs, nobody);
                // Non-blocking, it may have to be asked again.
                let known = [
                    libc::ECONNREFUSED,
                    libc::EINPROGRESS,
                    libc::EALREADY,
                    libc::ECONNABORTED,
                ];
                assert!(known.contains(&error), "{error}");
                refused += usize::from(error == libc::ECONNREFUSED);
            }
            refused
        })
    });
    stays_as_set(&*socket, &goes_on);
    assert!(connects.join().unwrap() > 0);
}

#[test]
fn a_socket_that_was_refused_connects_at_the_next_try_and_once() {
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (socket, address) = (socket(), listener.local_addr().unwrap());
        assert_eq!(connect(&socket, nobody()), libc::ECONNREFUSED);
        assert_eq!(connect(&socket, nobody()), libc::ECONNREFUSED);
        assert_eq!(connect(&socket, address), 0);
        assert_eq!(connect(&socket, address), libc::EISCONN);
        assert!(!is_nonblocking(&socket));
        // A listener is not made non-blocking to be told so.
        assert_eq!(connect(&OwnedFd::from(listener), address), libc::EISCONN);
    });
}

/// Clients that connect and wait for a byte, all of whom must be served.
fn clients(address: SocketAddr, count: usize, pause: Duration) -> Vec<std::thread::JoinHandle<()>> {
    let each = count / 4;
    let serve = move || {
        for _ in 0..each {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(ms(20_000))).unwrap();
            stream.read_exact(&mut [0]).expect("a connection was lost");
            sleep(pause);
        }
    };
    (0..4).map(|_| std::thread::spawn(serve)).collect()
}

#[test]
fn kills_and_time_outs_of_accepts_lose_no_connection() {
    both_ways("kills_and_time_outs_of_accepts_lose_no_connection", || {
        monkey::patch_all().unwrap();
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let clients = clients(listener.local_addr().unwrap(), 800, ms(1));
        // Now and then it is quicker than they are.
        let theirs = listener.clone();
        std::thread::spawn(move || {
            loop {
                theirs.accept().unwrap().0.write_all(b"!").unwrap();
                sleep(ms(2));
            }
        });
        greenthread::run(move || {
            let accept = move |listener: &TcpListener| match listener.accept() {
                Ok((mut stream, _)) => stream.write_all(b"!").is_ok(),
                Err(error) => {
                    let error = error.raw_os_error().unwrap();
                    assert!([libc::ETIMEDOUT, libc::ECANCELED].contains(&error), "{error}");
                    false
                }
            };
            let mut cut = [0, 0];
            while clients.iter().any(|client| !client.is_finished()) {
                let (first, second) = (listener.clone(), listener.clone());
                let timed = spawn(move || timeout(Duration::from_micros(200), || accept(&first)));
                let killed = spawn(move || accept(&second));
                greenthread::sleep(Duration::from_micros(100));
                killed.kill();
                cut[0] += usize::from(!matches!(timed.join(), Ok(Ok(true))));
                cut[1] += usize::from(!matches!(killed.join(), Ok(true)));
            }
            assert!(cut.iter().all(|cut| *cut > 0), "{cut:?}");
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
    });
}

/// An accept whose connection another thread took blocks on in its OS thread; killed, it leaves the next connection to
/// whom it is for.
#[test]
fn what_a_killed_accept_takes_is_the_next_one_s() {
    both_ways("what_a_killed_accept_takes_is_the_next_one_s", || {
        monkey::patch_all().unwrap();
        for _ in 0..30 {
            let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
            let address = listener.local_addr().unwrap();
            let theirs = listener.clone();
            // It waits before the other does, so the first connection is its most of the time.
            let other = std::thread::spawn(move || theirs.accept().map(drop).unwrap());
            sleep(ms(2));
            let theirs = listener.clone();
            greenthread::run(move || {
                let mine = theirs.clone();
                let killed = spawn(move || mine.accept().map(drop));
                greenthread::sleep(ms(2));
                let first = monkey::unpatched(|| TcpStream::connect(address).unwrap());
                greenthread::sleep(ms(2));
                killed.kill();
                let had_it = matches!(killed.join(), Ok(Ok(())));
                let second = monkey::unpatched(|| TcpStream::connect(address).unwrap());
                if had_it {
                    // The second one is the other's.
                    return other.join().unwrap();
                }
                let (_, peer) = timeout(ms(10_000), || theirs.accept()).expect("at once").unwrap();
                let mine = [&first, &second].map(|stream| stream.local_addr().unwrap());
                assert!(mine.contains(&peer));
            });
        }
    });
}

#[test]
fn without_io_uring_waits_end_as_with_it() {
    let tests = [
        "faults::a_close_ends_every_wait_from_wherever",
        "faults::a_kill_ends_every_wait",
        "faults::a_time_out_ends_every_wait",
        "faults::no_descriptor_left",
        "faults::forked_children_wait_and_wake",
        "bad_arguments_get_the_errno_that_they_always_got",
        "odd::copies_of_a_listener_are_one_open_file",
        "an_unmodified_thread_per_connection_server_runs_on_one_os_thread",
    ];
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child
        .arg("--exact")
        .args(tests)
        .env("GREEN_ACCEPT", "thread")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let all = format!("running {} tests", tests.len());
    assert!(String::from_utf8_lossy(&output.stdout).contains(&all), "{output:?}");
}

#[test]
fn an_accept_has_a_time_out_flags_and_an_address() {
    both_ways("an_accept_has_a_time_out_flags_and_an_address", || {
        patched(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let limit = libc::timeval {
                tv_sec: 0,
                tv_usec: 30_000,
            };
            // SAFETY: a time of our own; descriptors that are open.
            unsafe {
                libc::setsockopt(
                    listener.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_RCVTIMEO,
                    (&raw const limit).cast(),
                    size_of::<libc::timeval>() as u32,
                );
                let start = Instant::now();
                assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
                assert!(start.elapsed() >= ms(30));
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let mut address: libc::sockaddr_in = std::mem::zeroed();
                let mut len = size_of::<libc::sockaddr_in>() as u32;
                let raw = libc::accept4(
                    listener.as_raw_fd(),
                    (&raw mut address).cast(),
                    &raw mut len,
                    libc::SOCK_NONBLOCK,
                );
                assert!(raw >= 0);
                let accepted = OwnedFd::from_raw_fd(raw);
                assert_eq!(u16::from_be(address.sin_port), client.local_addr().unwrap().port());
                assert_eq!(len as usize, size_of::<libc::sockaddr_in>());
                assert!(is_nonblocking(&accepted));
                assert_eq!(libc::fcntl(raw, libc::F_GETFD) & libc::FD_CLOEXEC, 0);
                let wrong = libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), 1);
                assert_eq!((wrong, last()), (-1, Some(libc::EINVAL)));
                assert!(!is_by_thread() || helpers() > 0);
            }
        });
    });
}

/// Workers that share a listener with each other and with a plain one; none is ever told that it would block.
#[test]
fn processes_share_a_listener() {
    both_ways("processes_share_a_listener", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut children = Vec::new();
        for number in 0..3 {
            // SAFETY: the child uses nothing that another thread could have locked.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0);
            if pid == 0 {
                work(&listener, number > 0);
            }
            children.push(pid);
        }
        let clients: Vec<_> = clients(address, 1200, ms(0));
        while clients.iter().any(|client| !client.is_finished()) {
            assert!(!is_nonblocking(&listener));
        }
        clients.into_iter().for_each(|client| client.join().unwrap());
        for pid in children {
            // SAFETY: children of ours, not waited for yet.
            unsafe {
                let mut status = 0;
                assert_eq!(
                    libc::waitpid(pid, &raw mut status, libc::WNOHANG),
                    0,
                    "it has ended: {status:#x}"
                );
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, &raw mut status, 0);
            }
        }
        assert!(!is_nonblocking(&listener));
    });
}

/// A worker of [`processes_share_a_listener`], for good, or until something is wrong.
fn work(listener: &TcpListener, is_green: bool) -> ! {
    let serve = |listener: &TcpListener| {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"!");
        }
    };
    if is_green {
        monkey::patch_all().unwrap();
        let copies: Vec<_> = (0..3).map(|_| listener.try_clone().unwrap()).collect();
        greenthread::run(move || {
            let spawned = copies.into_iter().map(|listener| spawn(move || serve(&listener)));
            join_all(spawned.collect());
        });
    } else {
        serve(listener);
    }
    // SAFETY: ends the process.
    unsafe { libc::_exit(1) }
}

/// Watches descriptors from an OS thread while `f` runs: none becomes non-blocking.
fn watched<T>(fds: Vec<i32>, f: impl FnOnce() -> T) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = stop.clone();
    let watch = move || {
        let mut looks = 0_u64;
        while !theirs.load(Ordering::SeqCst) || looks < 100 {
            for fd in &fds {
                // SAFETY: asks for flags of a descriptor that stays open, by a raw call as another process's is.
                let flags = unsafe { monkey::original::fcntl(*fd, libc::F_GETFL, 0) };
                assert_eq!(flags & libc::O_NONBLOCK, 0, "descriptor {fd}");
            }
            looks += 1;
            sleep(Duration::from_micros(20));
        }
    };
    let watcher = monkey::unpatched(|| std::thread::spawn(watch));
    let result = f();
    stop.store(true, Ordering::SeqCst);
    watcher.join().unwrap();
    result
}

/// A pair whose buffers are small, so that a large transfer waits often.
fn narrow() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let size = 32 * 1024_i32;
    // SAFETY: sets a number.
    unsafe {
        let at = (&raw const size).cast();
        libc::setsockopt(near.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, at, 4);
    }
    (near, listener.accept().unwrap().0)
}

#[test]
fn sendfile_and_splice_leave_the_flag_alone() {
    patched(|| {
        let bytes = pattern(3_000_000);
        let mut file = tempfile();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        // A file to a socket, that to a pipe, that to another socket.
        let ((near, far), (near2, mut far2)) = (narrow(), narrow());
        let (reader, writer) = io::pipe().unwrap();
        let ends = (
            near.try_clone().unwrap(),
            far.try_clone().unwrap(),
            near2.try_clone().unwrap(),
        );
        let fds = [
            ends.0.as_raw_fd(),
            ends.1.as_raw_fd(),
            ends.2.as_raw_fd(),
            reader.as_raw_fd(),
        ];
        let pipe = reader.try_clone().unwrap();
        let read = watched(fds.to_vec(), move || {
            let first = spawn(move || {
                let sent = io::copy(&mut file, &mut &near).unwrap();
                near.shutdown(std::net::Shutdown::Write).unwrap();
                sent
            });
            let second = spawn(move || while splice(&far, &writer, 0) > 0 {});
            let third = spawn(move || {
                while splice(&pipe, &near2, 0) > 0 {}
                near2.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut read = Vec::new();
            far2.read_to_end(&mut read).unwrap();
            assert_eq!(first.join().unwrap(), 3_000_000);
            join_all(vec![second, third]);
            read
        });
        drop((ends, reader));
        assert!(read == bytes);
    });
}

fn sendfile(to: &impl AsRawFd, from: &File, offset: Option<&mut i64>, count: usize) -> isize {
    let offset = offset.map_or(std::ptr::null_mut(), |offset| &raw mut *offset);
    // SAFETY: descriptors that are open, and an offset of the caller's.
    unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), offset, count) }
}

#[test]
fn sendfile_moves_the_file_as_far_as_it_sends() {
    patched(|| {
        let bytes = pattern(200_000);
        let mut file = tempfile();
        file.write_all(&bytes).unwrap();
        let (near, mut far) = narrow();
        // With an offset the place stays; without, it moves; at the end there is nothing.
        let mut offset = 100_000;
        assert_eq!(sendfile(&near, &file, Some(&mut offset), 1000), 1000);
        assert_eq!((offset, file.stream_position().unwrap()), (101_000, 200_000));
        assert_eq!(sendfile(&near, &file, None, 10), 0);
        file.seek(io::SeekFrom::Start(199_000)).unwrap();
        assert_eq!(sendfile(&near, &file, None, 5000), 1000);
        assert_eq!(file.stream_position().unwrap(), 200_000);
        let mut read = [0; 2000];
        far.read_exact(&mut read).unwrap();
        assert!(read[..1000] == bytes[100_000..101_000] && read[1000..] == bytes[199_000..]);
        // Cut short by a time-out of the socket, it tells how far it came.
        near.set_write_timeout(Some(ms(20))).unwrap();
        file.rewind().unwrap();
        let mut large = tempfile();
        large.write_all(&pattern(8_000_000)).unwrap();
        large.rewind().unwrap();
        let sent = sendfile(&near, &large, None, 8_000_000);
        assert!(0 < sent && sent < 8_000_000, "{sent}");
        assert_eq!(large.stream_position().unwrap(), sent as u64);
        drop(near);
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        assert!(read == pattern(8_000_000)[..sent as usize]);
        // What has no places.
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = File::from(OwnedFd::from(reader));
        let (near, _far) = narrow();
        assert_eq!((sendfile(&near, &pipe, None, 10), last()), (-1, Some(libc::EINVAL)));
    });
}

/// Fills a socket until it takes no more; says with how much.
fn fill(socket: &UnixStream) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while let Ok(count) = (&*socket).write(&[0; 4096]) {
        filled += count;
    }
    socket.set_nonblocking(false).unwrap();
    filled
}

#[test]
fn a_splice_that_is_cut_short_loses_nothing() {
    patched(|| {
        let bytes = pattern(60_000);
        // From a pipe to a socket that takes nothing.
        let (near, mut far) = UnixStream::pair().unwrap();
        let filled = fill(&near);
        let (mut reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&bytes).unwrap();
        let cut = timeout_or_late(ms(10), || (splice(&reader, &near, 0), last()));
        assert_eq!(cut.unwrap_err().1, Some((-1, Some(libc::ETIMEDOUT))));
        // And once there is room for a part, in parts.
        far.read_exact(&mut vec![0; filled]).unwrap();
        let mut moved = 0;
        drop(writer);
        let reads = spawn(move || {
            let mut read = Vec::new();
            far.read_to_end(&mut read).unwrap();
            read
        });
        loop {
            match splice(&reader, &near, 0) {
                0 => break,
                more => moved += usize::try_from(more).unwrap(),
            }
        }
        drop(near);
        assert!((moved, &reads.join().unwrap()) == (bytes.len(), &bytes));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        // From a socket to a pipe that has room for less.
        let (near, mut far) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[0; 61_440]).unwrap();
        far.write_all(&bytes).unwrap();
        let first = usize::try_from(splice(&near, &writer, 0)).unwrap();
        assert!(0 < first && first <= 4096, "{first}");
        let cut = timeout_or_late(ms(10), || (splice(&near, &writer, 0), last()));
        assert_eq!(cut.unwrap_err().1, Some((-1, Some(libc::ETIMEDOUT))));
        let mut read = vec![0; 61_440 + first];
        reader.read_exact(&mut read).unwrap();
        assert!(read[61_440..] == bytes[..first]);
        drop(far);
        let rest = spawn(move || {
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            rest
        });
        while splice(&near, &writer, 0) > 0 {}
        drop(writer);
        assert!(rest.join().unwrap() == bytes[first..]);
    });
}

/// What lies ready for the next accept when the last one closes the listener is closed too, as what the kernel has
/// queued.
#[test]
fn what_a_killed_accept_takes_goes_with_the_listener() {
    both_ways("what_a_killed_accept_takes_goes_with_the_listener", || {
        monkey::patch_all().unwrap();
        for round in 0..30 {
            let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
            let address = listener.local_addr().unwrap();
            let theirs = listener.clone();
            let other = std::thread::spawn(move || theirs.accept().map(drop).unwrap());
            sleep(ms(2));
            greenthread::run(move || {
                let mine = listener.clone();
                let killed = spawn(move || mine.accept().map(drop));
                greenthread::sleep(ms(2));
                let first = monkey::unpatched(|| TcpStream::connect(address).unwrap());
                greenthread::sleep(ms(2));
                killed.kill();
                let had_it = matches!(killed.join(), Ok(Ok(())));
                let second = monkey::unpatched(|| TcpStream::connect(address).unwrap());
                if had_it {
                    return other.join().unwrap();
                }
                monkey::unpatched(|| {
                    other.join().unwrap();
                    sleep(ms(20));
                    if round % 2 == 0 {
                        drop(listener);
                    } else {
                        let fd = listener.as_raw_fd();
                        std::mem::forget(listener);
                        // SAFETY: closes the listener, which nothing else refers to.
                        assert_eq!(unsafe { libc::close_range(fd as u32, fd as u32, 0) }, 0);
                    }
                    for mut client in [first, second] {
                        client.set_read_timeout(Some(ms(2000))).unwrap();
                        let read = std::io::Read::read(&mut client, &mut [0]);
                        let is_closed = read
                            .as_ref()
                            .map_or_else(|e| e.kind() == ErrorKind::ConnectionReset, |n| *n == 0);
                        assert!(is_closed, "{read:?}");
                    }
                });
            });
        }
    });
}
