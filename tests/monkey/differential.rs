//! 100,000 random calls, patched and raw: the same results, errnos and bytes. Two worlds of the same descriptors get
//! the same calls; nothing in them would wait, since they are non-blocking, full of data, or bad.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use libc::{c_int, c_long, c_void, iovec, msghdr, pollfd};

use crate::patched;

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
}

/// Descriptors of each kind: a pair of streams, both ends of a pipe, a pair of datagram sockets, a listener, a device.
struct World {
    fds: Vec<OwnedFd>,
}

impl World {
    fn new() -> World {
        let (a, b) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let (one, other) = UnixDatagram::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/zero").unwrap();
        let fds: Vec<OwnedFd> = vec![
            a.into(),
            b.into(),
            reader.into(),
            writer.into(),
            one.into(),
            other.into(),
            listener.into(),
            file.into(),
        ];
        for fd in &fds {
            // SAFETY: sets a flag of our own descriptor.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        }
        World { fds }
    }

    /// The descriptor of a number from 0 to 9; the last two are bad.
    fn fd(&self, number: usize) -> RawFd {
        match number {
            8 => -1,
            9 => 19_999,
            number => self.fds[number].as_raw_fd(),
        }
    }
}

/// One call, the same in both worlds.
#[derive(Clone, Copy, Debug)]
struct Call {
    what: usize,
    fd: usize,
    len: usize,
    flags: c_int,
    bad: bool,
}

const WHATS: usize = 12;

/// What came of it: result, errno, bytes.
type Outcome = (c_long, i32, [u8; 64]);

impl Call {
    fn random(random: &mut Random) -> Call {
        let flags = [
            0,
            0,
            0,
            libc::MSG_PEEK,
            libc::MSG_DONTWAIT,
            libc::MSG_NOSIGNAL,
            libc::MSG_OOB,
            libc::MSG_TRUNC,
        ];
        Call {
            what: random.below(WHATS),
            fd: random.below(10),
            len: [0, 1, 7, 64][random.below(4)],
            flags: flags[random.below(flags.len())] | libc::MSG_NOSIGNAL,
            bad: random.below(10) == 0,
        }
    }

    fn run(self, world: &World, raw: bool) -> Outcome {
        let mut bytes = [7_u8; 64];
        let (fd, len, flags) = (world.fd(self.fd), self.len, self.flags);
        let at: *mut c_void = if self.bad {
            std::ptr::without_provenance_mut(16)
        } else {
            bytes.as_mut_ptr().cast()
        };
        let mut vector = iovec {
            iov_base: at,
            iov_len: len,
        };
        let mut poll = pollfd {
            fd,
            events: libc::POLLIN | libc::POLLOUT,
            revents: 0,
        };
        let (null, none) = (std::ptr::null_mut::<c_void>(), 0_usize);
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: buffers of our own, or an address that the kernel refuses.
        unsafe {
            let mut message: msghdr = zeroed();
            message.msg_iov = &raw mut vector;
            message.msg_iovlen = 1;
            *libc::__errno_location() = 0;
            let kernel = |number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize| {
                libc::syscall(number, a, b, c, d, e, 0_usize)
            };
            let (f, p, g) = (fd as usize, at.addr(), flags as usize);
            let (iov, msg) = ((&raw mut vector).addr(), (&raw mut message).addr());
            let result: c_long = match (self.what, raw) {
                (0, false) => libc::recv(fd, at, len, flags) as c_long,
                (0, true) => kernel(libc::SYS_recvfrom, f, p, len, g, none),
                (1, false) => libc::send(fd, at, len, flags) as c_long,
                (1, true) => kernel(libc::SYS_sendto, f, p, len, g, none),
                (2, false) => libc::read(fd, at, len) as c_long,
                (2, true) => kernel(libc::SYS_read, f, p, len, none, none),
                // A pipe whose other end is open: no SIGPIPE.
                (3, false) => libc::write(fd, at, len) as c_long,
                (3, true) => kernel(libc::SYS_write, f, p, len, none, none),
                (4, false) => libc::readv(fd, &raw const vector, 1) as c_long,
                (4, true) => kernel(libc::SYS_readv, f, iov, 1, none, none),
                (5, false) => libc::writev(fd, &raw const vector, 1) as c_long,
                (5, true) => kernel(libc::SYS_writev, f, iov, 1, none, none),
                (6, false) => libc::recvmsg(fd, &raw mut message, flags) as c_long,
                (6, true) => kernel(libc::SYS_recvmsg, f, msg, g, none, none),
                (7, false) => libc::sendmsg(fd, &raw const message, flags) as c_long,
                (7, true) => kernel(libc::SYS_sendmsg, f, msg, g, none, none),
                (8, false) => c_long::from(libc::poll(&raw mut poll, 1, 0)),
                // Newer processors have no `poll`. A time of 0 for `ppoll`, and no signal mask.
                (8, true) => kernel(
                    libc::SYS_ppoll,
                    (&raw mut poll).addr(),
                    1,
                    (&raw const at_once).addr(),
                    0,
                    8,
                ),
                (9, false) => c_long::from(libc::accept(fd, null.cast(), null.cast())),
                (9, true) => kernel(libc::SYS_accept, f, 0, 0, none, none),
                (10, false) => c_long::from(libc::connect(fd, at.cast(), len as u32)),
                (10, true) => kernel(libc::SYS_connect, f, p, len, none, none),
                (_, false) => c_long::from(libc::readv(fd, &raw const vector, -1) as c_int),
                (_, true) => kernel(libc::SYS_readv, f, iov, usize::MAX, none, none),
            };
            let error = if result < 0 { *libc::__errno_location() } else { 0 };
            bytes[63] = bytes[63].wrapping_add(poll.revents as u8);
            (result, error, bytes)
        }
    }
}

#[test]
fn a_hundred_thousand_random_calls_do_what_they_do_unpatched() {
    let (mut random, mut same) = (Random(0x5EED), 0);
    patched(move || {
        let (ours, theirs) = (World::new(), World::new());
        for round in 0..100_000 {
            let call = Call::random(&mut random);
            let (patched, raw) = (call.run(&ours, false), call.run(&theirs, true));
            assert_eq!(patched, raw, "round {round}: {call:?}");
            same += 1;
        }
        assert_eq!(same, 100_000);
    });
}
