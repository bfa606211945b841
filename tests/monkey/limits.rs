//! `SO_SNDTIMEO` and `SO_RCVTIMEO` are for the whole of a call, however many parts it has.

use std::ffi::c_void;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenthread::spawn;

use super::bulk::tempfile;
use super::{join_all, ms, patched};

/// The time-out, and how often the other end moves a part: a time-out for each part never passes.
const LIMIT: Duration = Duration::from_millis(200);
const PACE: Duration = Duration::from_millis(40);
/// For how long it does.
const PARTS: usize = 200;

fn shrink(socket: &impl AsRawFd, option: i32) {
    let size = 16 * 1024_i32;
    let at = (&raw const size).cast();
    // SAFETY: sets a number.
    assert_eq!(0, unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, at, 4)
    });
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    shrink(&listener, libc::SO_RCVBUF);
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    shrink(&near, libc::SO_SNDBUF);
    (near, listener.accept().unwrap().0)
}

/// A call to a peer that reads a little now and then, and one from a peer that sends a byte now and then.
type Call = Box<dyn FnOnce(&TcpStream, &mut [u8]) -> isize + Send>;

fn at(bytes: &mut [u8]) -> *mut c_void {
    bytes.as_mut_ptr().cast()
}

fn vectors(bytes: &mut [u8]) -> [libc::iovec; 2] {
    let (first, second) = bytes.split_at_mut(bytes.len() / 2);
    [first, second].map(|part| libc::iovec {
        iov_len: part.len(),
        iov_base: at(part),
    })
}

fn message(vectors: &mut [libc::iovec; 2]) -> libc::msghdr {
    // SAFETY: all-zero is a message of nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (vectors.as_mut_ptr(), 2);
    message
}

#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "all are calls with buffers of their own"
)]
fn writes() -> Vec<(&'static str, Call)> {
    vec![
        (
            "write",
            Box::new(|to, bytes| unsafe { libc::write(to.as_raw_fd(), at(bytes), bytes.len()) }),
        ),
        (
            "send",
            Box::new(|to, bytes| unsafe { libc::send(to.as_raw_fd(), at(bytes), bytes.len(), 0) }),
        ),
        (
            "writev",
            Box::new(|to, bytes| unsafe { libc::writev(to.as_raw_fd(), vectors(bytes).as_ptr(), 2) }),
        ),
        (
            "sendmsg",
            Box::new(|to, bytes| unsafe { libc::sendmsg(to.as_raw_fd(), &message(&mut vectors(bytes)), 0) }),
        ),
        (
            "sendfile",
            Box::new(|to, bytes| unsafe {
                let mut file = tempfile();
                file.write_all(bytes).unwrap();
                libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), &mut 0, bytes.len())
            }),
        ),
    ]
}

#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "all are calls with buffers of their own"
)]
fn reads() -> Vec<(&'static str, Call)> {
    vec![
        (
            "recv",
            Box::new(|from, bytes| unsafe { libc::recv(from.as_raw_fd(), at(bytes), 64, libc::MSG_WAITALL) }),
        ),
        (
            "recvmsg",
            Box::new(|from, bytes| unsafe {
                libc::recvmsg(
                    from.as_raw_fd(),
                    &mut message(&mut vectors(&mut bytes[..64])),
                    libc::MSG_WAITALL,
                )
            }),
        ),
    ]
}

/// How long the call takes, and what it returns.
fn timed(call: Call, near: &TcpStream) -> (Duration, isize) {
    let mut bytes = vec![7; 4_000_000];
    let start = Instant::now();
    let result = call(near, &mut bytes);
    (start.elapsed(), result)
}

#[test]
fn a_call_has_one_time_out() {
    patched(|| {
        let writes = writes().into_iter().map(|(name, call)| {
            spawn(move || {
                let (near, mut far) = pair();
                near.set_write_timeout(Some(LIMIT)).unwrap();
                let peer = spawn(move || {
                    let mut rest = 0..PARTS;
                    while rest.next().is_some() && far.read(&mut [0; 16_384]).is_ok_and(|count| count > 0) {
                        sleep(PACE);
                    }
                });
                let timed = timed(call, &near);
                drop(near);
                peer.kill();
                (name, timed)
            })
        });
        let reads = reads().into_iter().map(|(name, call)| {
            spawn(move || {
                let (near, mut far) = pair();
                near.set_read_timeout(Some(LIMIT)).unwrap();
                let peer = spawn(move || {
                    let mut rest = 0..PARTS;
                    while rest.next().is_some() && far.write_all(b"x").is_ok() {
                        sleep(PACE);
                    }
                });
                let timed = timed(call, &near);
                peer.kill();
                (name, timed)
            })
        });
        // A part was moved, and it ended long before the peer would have.
        for (name, (took, moved)) in join_all(writes.chain(reads).collect()) {
            assert!(moved > 0, "{name}: {moved}");
            assert!(
                LIMIT <= took && took < PACE * PARTS as u32 / 2,
                "{name}: {took:?} for {moved} bytes"
            );
        }
    });
}

/// With nothing moved at all it is an error, after as long.
#[test]
fn a_splice_has_the_socket_s_time_out() {
    patched(|| {
        let ((near, _far), (_reader, writer)) = (pair(), io::pipe().unwrap());
        near.set_read_timeout(Some(ms(50))).unwrap();
        let start = Instant::now();
        assert_eq!(super::bulk::splice(&near, &writer, 0), -1);
        assert_eq!(io::Error::last_os_error().kind(), io::ErrorKind::WouldBlock);
        assert!(start.elapsed() >= ms(50));
    });
}
