//! Calls that move several things at once, and those that C programs and compilers use in place of the plain ones.

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::mem::zeroed;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenthread::{monkey, spawn};

use super::{at_once, files, join_all, ms, patched};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

fn last() -> Option<i32> {
    io::Error::last_os_error().raw_os_error()
}

/// std copies a file to a socket by sendfile, and its reader is another green thread of the same OS thread.
#[test]
fn a_file_is_copied_to_a_socket() {
    patched(|| {
        let bytes = pattern(6_000_000);
        let mut file = tempfile();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        let (mut near, mut far) = pair();
        let copier = spawn(move || io::copy(&mut file, &mut near).unwrap());
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        assert_eq!(copier.join().unwrap(), bytes.len() as u64);
        assert!(read == bytes);
    });
}

pub(super) fn tempfile() -> File {
    // SAFETY: makes a file in memory.
    let raw = unsafe { libc::memfd_create(c"greenthread".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(raw >= 0);
    // SAFETY: fresh, and ours alone.
    unsafe { File::from_raw_fd(raw) }
}

#[test]
fn sockets_and_pipes_are_spliced() {
    patched(|| {
        let bytes = pattern(2_000_000);
        let (near, mut far) = pair();
        let (from, mut into) = io::pipe().unwrap();
        let source = bytes.clone();
        let writer = spawn(move || {
            sleep(ms(20)); // the splice below has nothing to move yet
            into.write_all(&source).unwrap();
        });
        // From a pipe that is empty at first to a socket that is full now and then, and from that to another pipe.
        let forth = spawn(move || splice_all(&from, &near));
        let (mut end, mid) = io::pipe().unwrap();
        let back = spawn(move || {
            let total = splice_all(&far, &mid);
            assert_eq!(far.read(&mut [0]).unwrap(), 0);
            total
        });
        let mut read = Vec::new();
        end.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert_eq!(
            (forth.join().unwrap(), back.join().unwrap()),
            (bytes.len(), bytes.len())
        );
        assert!(read == bytes);
        let (empty, _writer) = io::pipe().unwrap();
        let (near, _far) = pair();
        assert_eq!(
            (splice(&empty, &near, libc::SPLICE_F_NONBLOCK), last()),
            (-1, Some(libc::EAGAIN))
        );
        assert_eq!((splice(&near, &near, 0), last()), (-1, Some(libc::EINVAL)));
        // The wrong end of a pipe, by a socket that has nothing and by one that has something.
        let (mut near, far) = pair();
        for _ in 0..2 {
            let spliced = greenthread::time::timeout(ms(1000), || (splice(&far, &empty, 0), last()));
            assert_eq!(spliced.ok(), Some((-1, Some(libc::EBADF))));
            near.write_all(b"x").unwrap();
        }
    });
}

/// A pipe with a name does not read and write as one without.
#[test]
fn sockets_and_fifos_are_spliced() {
    patched(|| {
        let bytes = pattern(300_000);
        let path = files::path("fifo-splice");
        files::fifo(&path);
        let both = File::options().read(true).write(true).open(&path).unwrap();
        let (from, mut into) = (
            File::open(&path).unwrap(),
            File::options().write(true).open(&path).unwrap(),
        );
        drop(both);
        std::fs::remove_file(path).unwrap();
        // From it to a socket: by std, which splices what is a FIFO.
        let (mut near, mut far) = pair();
        let source = bytes.clone();
        let writer = spawn(move || into.write_all(&source).map(|()| into).unwrap());
        let copier = spawn(move || {
            let mut from = from;
            let copied = io::copy(&mut (&mut from).take(300_000), &mut near).unwrap();
            (copied, from)
        });
        let mut read = Vec::new();
        (&mut far).take(300_001).read_to_end(&mut read).unwrap();
        let (copied, mut from) = copier.join().unwrap();
        assert_eq!((copied, read.len()), (300_000, 300_000));
        assert!(read == bytes);
        // And the other way.
        let into = writer.join().unwrap();
        let (mut near, far) = pair();
        let source = bytes.clone();
        let sender = spawn(move || near.write_all(&source).unwrap());
        let splicer = spawn(move || (splice_all(&far, &into), into));
        let mut read = vec![0; bytes.len()];
        from.read_exact(&mut read).unwrap();
        assert!(read == bytes);
        sender.join().unwrap();
        assert_eq!(splicer.join().unwrap().0, bytes.len());
    });
}

pub(super) fn splice(from: &impl AsRawFd, to: &impl AsRawFd, flags: u32) -> isize {
    let null = std::ptr::null_mut();
    // SAFETY: descriptors that are open.
    unsafe { libc::splice(from.as_raw_fd(), null, to.as_raw_fd(), null, 1 << 20, flags) }
}

fn splice_all(from: &impl AsRawFd, to: &impl AsRawFd) -> usize {
    let mut total = 0;
    loop {
        match splice(from, to, 0) {
            0 => return total,
            moved => total += usize::try_from(moved).unwrap(),
        }
    }
}

/// Four messages of 16 bytes, for one call.
struct Messages {
    bytes: [[u8; 16]; 4],
    vectors: [libc::iovec; 4],
    headers: [libc::mmsghdr; 4],
}

impl Messages {
    fn new() -> Box<Messages> {
        // SAFETY: all-zero is valid for each of them.
        let mut all: Box<Messages> = Box::new(unsafe { zeroed() });
        for n in 0..4 {
            all.bytes[n] = [n as u8; 16];
            all.vectors[n].iov_base = all.bytes[n].as_mut_ptr().cast();
            all.vectors[n].iov_len = 16;
            all.headers[n].msg_hdr.msg_iov = &raw mut all.vectors[n];
            all.headers[n].msg_hdr.msg_iovlen = 1;
        }
        all
    }

    fn receive(&mut self, socket: &UdpSocket, flags: i32, timeout: Option<Duration>) -> i32 {
        let mut time = timeout.map(|time| libc::timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let time = time.as_mut().map_or(std::ptr::null_mut(), |time| time as *mut _);
        // SAFETY: four messages that point to as many buffers.
        unsafe { libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), 4, flags, time) }
    }
}

#[test]
fn many_messages_in_one_call() {
    patched(|| {
        at_once(ms(60), |_| {
            let (near, far) = (
                UdpSocket::bind("127.0.0.1:0").unwrap(),
                UdpSocket::bind("127.0.0.1:0").unwrap(),
            );
            near.connect(far.local_addr().unwrap()).unwrap();
            let sender = spawn(move || {
                for _ in 0..2 {
                    sleep(ms(30));
                    let mut messages = Messages::new();
                    // SAFETY: as in `receive`.
                    let sent = unsafe { libc::sendmmsg(near.as_raw_fd(), messages.headers.as_mut_ptr(), 2, 0) };
                    assert_eq!(sent, 2);
                }
                near
            });
            let mut messages = Messages::new();
            messages.bytes = [[9; 16]; 4];
            // All four, though the second two come later.
            assert_eq!(messages.receive(&far, 0, None), 4);
            assert_eq!(messages.bytes, [[0; 16], [1; 16], [0; 16], [1; 16]]);
            let near = sender.join().unwrap();
            near.send(b"alone").unwrap();
            assert_eq!(messages.receive(&far, libc::MSG_WAITFORONE, None), 1);
            assert_eq!(messages.headers[0].msg_len, 5);
            near.send(b"alone").unwrap();
            assert_eq!(messages.receive(&far, 0, Some(Duration::ZERO)), 1);
            assert_eq!(
                (messages.receive(&far, libc::MSG_DONTWAIT, None), last()),
                (-1, Some(libc::EAGAIN))
            );
        });
    });
}

#[test]
fn messages_on_a_stream_go_to_the_end() {
    patched(|| {
        let (near, mut far) = pair();
        let bytes = pattern(3_000_000);
        let mut theirs = bytes.clone();
        let sender = spawn(move || {
            let mut messages = Messages::new();
            let half = theirs.len() / 2;
            for n in 0..2 {
                messages.vectors[n].iov_base = theirs[n * half..].as_mut_ptr().cast();
                messages.vectors[n].iov_len = half;
            }
            // SAFETY: two messages that point to halves of a buffer.
            let sent = unsafe { libc::sendmmsg(near.as_raw_fd(), messages.headers.as_mut_ptr(), 2, 0) };
            (
                sent,
                messages.headers[0].msg_len as usize,
                messages.headers[1].msg_len as usize,
            )
        });
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        assert_eq!(sender.join().unwrap(), (2, bytes.len() / 2, bytes.len() / 2));
        assert!(read == bytes);
    });
}

unsafe extern "C" {
    fn __read_chk(fd: i32, buffer: *mut c_void, len: usize, room: usize) -> isize;
    fn __recv_chk(fd: i32, buffer: *mut c_void, len: usize, room: usize, flags: i32) -> isize;
    fn __poll_chk(fds: *mut libc::pollfd, count: libc::nfds_t, timeout: i32, room: usize) -> i32;
    fn pthread_rwlock_timedrdlock(lock: *mut libc::pthread_rwlock_t, until: *const libc::timespec) -> i32;
    fn pthread_rwlock_timedwrlock(lock: *mut libc::pthread_rwlock_t, until: *const libc::timespec) -> i32;
    fn gethostbyname_r(
        name: *const libc::c_char,
        host: *mut libc::hostent,
        buffer: *mut libc::c_char,
        len: usize,
        found: *mut *mut libc::hostent,
        error: *mut i32,
    ) -> i32;
}

/// Descriptors that get a byte after a while, three times.
fn thrice(delay: Duration) -> io::PipeReader {
    let (reader, mut writer) = io::pipe().unwrap();
    spawn(move || {
        for _ in 0..3 {
            sleep(delay);
            writer.write_all(b"x").unwrap();
        }
    });
    reader
}

#[test]
fn checked_forms_wait_as_the_plain_ones() {
    patched(|| {
        at_once(ms(60), |_| {
            let reader = thrice(ms(30));
            let (fd, mut byte) = (reader.as_raw_fd(), [0_u8; 4]);
            let mut one = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: buffers and lists as long as said.
            unsafe {
                assert_eq!(__poll_chk(&raw mut one, 1, -1, size_of::<libc::pollfd>()), 1);
                for _ in 0..2 {
                    assert_eq!(__read_chk(fd, byte.as_mut_ptr().cast(), 4, 4), 1);
                }
            }
            let (near, far) = pair();
            spawn(move || {
                sleep(ms(10));
                (&far).write_all(b"y").unwrap();
            });
            // SAFETY: a buffer of four bytes, which is the length that both arguments say.
            let got = unsafe { __recv_chk(near.as_raw_fd(), byte.as_mut_ptr().cast(), 4, 4, 0) };
            assert_eq!((got, byte[0]), (1, b'y'));
        });
    });
}

#[test]
fn pselect_and_epoll_pwait2_wait_with_fine_time_outs() {
    patched(|| {
        at_once(ms(60), |_| {
            let reader = thrice(ms(30));
            let fd = reader.as_raw_fd();
            let none = std::ptr::null_mut();
            let time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 500_000,
            };
            // SAFETY: sets, events and times of their types.
            unsafe {
                let mut set: libc::fd_set = zeroed();
                libc::FD_SET(fd, &raw mut set);
                assert_eq!(
                    libc::pselect(fd + 1, &raw mut set, none, none, &raw const time, std::ptr::null()),
                    0
                );
                libc::FD_SET(fd, &raw mut set);
                assert_eq!(
                    libc::pselect(fd + 1, &raw mut set, none, none, std::ptr::null(), std::ptr::null()),
                    1
                );
                assert!(libc::FD_ISSET(fd, &raw const set));
                let mut byte = [0];
                assert_eq!(libc::read(fd, byte.as_mut_ptr().cast(), 1), 1);
                let epoll = std::os::fd::OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
                let mut event = libc::epoll_event {
                    events: libc::EPOLLIN as u32,
                    u64: 7,
                };
                libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event);
                let wait = |time| {
                    let mut events: [libc::epoll_event; 2] = zeroed();
                    let events = events.as_mut_ptr();
                    libc::epoll_pwait2(epoll.as_raw_fd(), events, 2, time, std::ptr::null())
                };
                assert_eq!(wait(&raw const time), 0);
                assert_eq!(wait(std::ptr::null()), 1);
            }
        });
    });
}

struct Barrier(std::cell::UnsafeCell<libc::pthread_barrier_t>);
// SAFETY: a barrier is there to be waited at by many.
unsafe impl Sync for Barrier {}
// SAFETY: a barrier has no owner: any OS thread may wait at it.
unsafe impl Send for Barrier {}

#[test]
fn c_barriers_let_all_go_at_once() {
    patched(|| {
        // SAFETY: all-zero is room for a barrier.
        let barrier = Arc::new(Barrier(unsafe { zeroed() }));
        // SAFETY: fresh memory of its type.
        let made = unsafe { libc::pthread_barrier_init(barrier.0.get(), std::ptr::null(), 41) };
        assert_eq!(made, 0);
        let wait = |barrier: Arc<Barrier>| {
            // SAFETY: initialised, for as many as wait.
            move || unsafe { libc::pthread_barrier_wait(barrier.0.get()) == libc::PTHREAD_BARRIER_SERIAL_THREAD }
        };
        let green: Vec<_> = (0..40).map(|_| spawn(wait(barrier.clone()))).collect();
        let last = std::thread::spawn(wait(barrier.clone()));
        let chosen = join_all(green).into_iter().chain([last.join().unwrap()]);
        assert_eq!(chosen.filter(|chosen| *chosen).count(), 1);
    });
}

struct Lock(std::cell::UnsafeCell<libc::pthread_rwlock_t>);
// SAFETY: a lock is there to be shared.
unsafe impl Sync for Lock {}
// SAFETY: a lock that no OS thread holds may go to another one.
unsafe impl Send for Lock {}

#[test]
fn c_read_write_locks_have_time_outs() {
    patched(|| {
        let lock = Arc::new(Lock(libc::PTHREAD_RWLOCK_INITIALIZER.into()));
        let theirs = lock.clone();
        let holder = spawn(move || {
            // SAFETY: locked and unlocked in pairs.
            unsafe { libc::pthread_rwlock_wrlock(theirs.0.get()) };
            sleep(ms(60));
            // SAFETY: the green thread that locked it unlocks it.
            unsafe { libc::pthread_rwlock_unlock(theirs.0.get()) };
        });
        greenthread::yield_now();
        let until = |after: Duration| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let at = since.unwrap() + after;
            libc::timespec {
                tv_sec: at.as_secs() as i64,
                tv_nsec: i64::from(at.subsec_nanos()),
            }
        };
        let start = Instant::now();
        // SAFETY: a lock, and times.
        unsafe {
            assert_eq!(
                pthread_rwlock_timedrdlock(lock.0.get(), &until(ms(10))),
                libc::ETIMEDOUT
            );
            assert!(
                start.elapsed() >= ms(10) && !holder.is_finished(),
                "{:?}",
                start.elapsed()
            );
            assert_eq!(pthread_rwlock_timedwrlock(lock.0.get(), &until(ms(5_000))), 0);
            assert!(start.elapsed() < ms(4_000));
            assert_eq!(libc::pthread_rwlock_unlock(lock.0.get()), 0);
        }
        holder.join().unwrap();
    });
}

#[test]
fn names_in_the_old_way() {
    patched(|| {
        let mut buffer = [0; 2048];
        // SAFETY: room for one answer, as long as said.
        unsafe {
            let (mut host, mut found, mut error): (libc::hostent, _, _) = (zeroed(), std::ptr::null_mut(), 0);
            let name = c"localhost".as_ptr();
            let (at, len) = (buffer.as_mut_ptr(), buffer.len());
            assert_eq!(
                gethostbyname_r(name, &raw mut host, at, len, &raw mut found, &raw mut error),
                0
            );
            assert!(!found.is_null() && host.h_addrtype == libc::AF_INET);
        }
    });
}

/// The pool's own threads stay OS threads, else a blocking call there would stop the hub.
#[test]
fn the_pool_is_of_os_threads_whatever_std_s_are() {
    monkey::patch_threads().unwrap();
    patched(|| {
        let id = || rustix::thread::gettid();
        let green = std::thread::spawn(id).join().unwrap();
        let pool: Vec<_> = (0..40)
            .map(|_| spawn(move || greenthread::threadpool::unblock(id)))
            .collect();
        assert_eq!(green, id());
        assert!(join_all(pool).into_iter().all(|thread| thread != id()));
    });
}

/// What sendfile refuses it refuses here as well, at once.
#[test]
fn a_sendfile_that_cannot_be_is_refused_as_ever() {
    let all = || {
        let (from, _into) = io::pipe().unwrap();
        let (_end, mid) = io::pipe().unwrap();
        let (near, _far) = pair();
        let (file, null) = (tempfile(), std::ptr::null_mut());
        (&file).write_all(b"hello").unwrap();
        let folder = File::open("/").unwrap();
        let mut said = Vec::new();
        let mut ask = |to: &dyn AsRawFd, from: &dyn AsRawFd, offset: Option<i64>| {
            let mut at = offset.unwrap_or(0);
            let place = if offset.is_some() { &raw mut at } else { null };
            // SAFETY: descriptors that are open; null or a place.
            let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), place, 3) };
            said.push((sent, if sent < 0 { last() } else { None }, at));
        };
        ask(&mid, &from, None);
        ask(&mid, &from, Some(0));
        ask(&near, &from, None);
        ask(&near, &folder, None);
        ask(&near, &file, Some(-1));
        ask(&near, &file, Some(3));
        ask(&near, &file, Some(30));
        ask(&near, &near, None);
        ask(&mid, &file, Some(-1));
        ask(&mid, &file, Some(3));
        ask(&mid, &folder, None);
        ask(&file, &near, None);
        said
    };
    let plain = std::thread::spawn(all).join().unwrap();
    assert_eq!(patched(all), plain);
}
