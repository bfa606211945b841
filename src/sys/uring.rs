//! An accept that never waits, whatever the flags of the open file say. Linux has it only in io_uring, since 6.10.
//!
//! Each OS thread that accepts has a ring of one entry. The ring is registered with the OS thread instead of having a
//! descriptor. So it takes no descriptor from the program, no `close` can hit it, and a forked child does not have it.
//!
//! # Invariants
//! - **URING-1** A ring is used only by the OS thread that made it, and by one call at a time: a call from a signal
//!   handler in the middle of another call finds it [`busy`](Accepts::busy).
//! - **URING-2** When `accept` returns, nothing is under way: the kernel writes to the ring and to the caller's
//!   addresses only within the system call.

use std::cell::{Cell, UnsafeCell};
use std::mem::{offset_of, size_of, zeroed};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use libc::{c_int, c_long, sockaddr, socklen_t};

use super::mem;

const SETUP_NO_MMAP: u32 = 1 << 14;
const SETUP_REGISTERED_FD_ONLY: u32 = 1 << 15;
const SETUP_NO_SQARRAY: u32 = 1 << 16;
const ENTER_GETEVENTS: c_long = 1;
const ENTER_REGISTERED_RING: c_long = 1 << 4;
const OP_ACCEPT: u8 = 13;
const ACCEPT_DONTWAIT: u16 = 1 << 1;

/// `struct io_sqring_offsets`.
#[repr(C)]
struct Submissions {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: u32,
    memory: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
struct Completions {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    overflow: u32,
    first: u32,
    flags: u32,
    reserved: u32,
    memory: u64,
}

/// `struct io_uring_params`.
#[repr(C)]
struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread: [u32; 2],
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    submissions: Submissions,
    completions: Completions,
}

/// `struct io_uring_sqe`.
#[repr(C)]
struct Submission {
    op: u8,
    flags: u8,
    priority: u16,
    fd: c_int,
    address_len: u64,
    address: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

/// `struct io_uring_cqe`.
#[repr(C)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

const _: () = assert!(size_of::<Parameters>() == 120 && size_of::<Submission>() == 64 && size_of::<Completion>() == 16);
const _: () = assert!(offset_of!(Parameters, submissions) == 40 && offset_of!(Submission, user_data) == 32);

/// What is known of this system so far.
static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const WORKS: u8 = 1;
/// The kernel is too old, or was told to refuse io_uring.
const REFUSED: u8 = 2;

/// The accepts of one OS thread.
#[derive(Default)]
pub(crate) struct Accepts {
    ring: UnsafeCell<Option<Ring>>,
    /// There is no ring, and there will be none.
    given_up: Cell<bool>,
    busy: Cell<bool>,
}

impl Accepts {
    /// Like `accept4`, except that it never waits: the result, or the value for `errno`. `None` if io_uring cannot be
    /// used here.
    ///
    /// # Safety
    /// The arguments are valid for `accept4`. The caller is on the OS thread that made the first call.
    pub(crate) unsafe fn accept(
        &self,
        fd: c_int,
        address: *mut sockaddr,
        len: *mut socklen_t,
        flags: c_int,
    ) -> Option<Result<c_int, c_int>> {
        if self.busy.replace(true) {
            return None;
        }
        // SAFETY: URING-1: `busy` was false, so this call alone uses the ring until it clears `busy`.
        let ring = unsafe { &mut *self.ring.get() };
        if ring.is_none() && !self.given_up.get() && KNOWN.load(Ordering::Relaxed) != REFUSED {
            *ring = Ring::probed();
        }
        let accepted = ring.as_ref().and_then(|ring| {
            // SAFETY: the caller guarantees that the arguments are valid for `accept4`.
            let accepted = unsafe { ring.accept(fd, address, len, flags) };
            self.given_up.set(accepted.is_none());
            accepted
        });
        if self.given_up.get() {
            *ring = None;
        }
        self.busy.set(false);
        accepted
    }
}

impl std::fmt::Debug for Accepts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepts")
            .field("given_up", &self.given_up)
            .finish_non_exhaustive()
    }
}

struct Ring {
    /// Two pages: one for both queues, and one for the entry.
    memory: usize,
    parameters: Parameters,
    /// The number under which the OS thread has registered the ring.
    index: c_long,
}

impl Ring {
    /// A ring, if there is one to be had now. The first success finds out whether the kernel knows the flag.
    fn probed() -> Option<Ring> {
        if KNOWN.load(Ordering::Relaxed) == WORKS {
            return Ring::new().ok();
        }
        // Do not ask under a filter of system calls, which may kill the process for a call that it does not know.
        // SAFETY: reads a number.
        let is_filtered = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) } != 0;
        let ring = if is_filtered { Err(libc::EPERM) } else { Ring::new() };
        let works = match &ring {
            Ok(ring) => ring.knows_the_flag()?,
            Err(libc::ENOSYS | libc::EPERM | libc::EINVAL) => false,
            Err(_) => return None,
        };
        KNOWN.store(if works { WORKS } else { REFUSED }, Ordering::Relaxed);
        ring.ok().filter(|_| works)
    }

    /// Whether the kernel knows `ACCEPT_DONTWAIT`. `None` if there is no descriptor left to ask with.
    fn knows_the_flag(&self) -> Option<bool> {
        // The kernel checks the flags first: with an unknown flag it answers EINVAL, before it notices that this socket
        // cannot accept.
        // SAFETY: makes a socket, passes null for the address, which `accept4` allows, and closes the socket.
        unsafe {
            let socket = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            if socket < 0 {
                return None;
            }
            let null = std::ptr::null_mut();
            let answer = self.accept(socket, null, null.cast(), 0);
            libc::close(socket);
            Some(answer == Some(Err(libc::EOPNOTSUPP)))
        }
    }

    fn new() -> Result<Ring, c_int> {
        let memory = mem::map(2 * mem::page()).map_err(|error| error.raw_os_error().unwrap_or(libc::ENOMEM))?;
        // SAFETY: all-zero is a valid `Parameters`. The ring's memory stays mapped while the ring is used; a forked
        // child has neither.
        unsafe {
            libc::madvise(memory as *mut _, 2 * mem::page(), libc::MADV_DONTFORK);
            let mut parameters: Parameters = zeroed();
            parameters.flags = SETUP_NO_MMAP | SETUP_REGISTERED_FD_ONLY | SETUP_NO_SQARRAY;
            parameters.completions.memory = memory as u64;
            parameters.submissions.memory = (memory + mem::page()) as u64;
            let index = libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters);
            if index < 0 {
                let error = errno();
                mem::unmap(memory, 2 * mem::page());
                return Err(error);
            }
            Ok(Ring {
                memory,
                parameters,
                index,
            })
        }
    }

    /// A number in the page of the queues, which is shared with the kernel.
    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel gave the offset of an aligned number in the page, which lives as long as the ring.
        unsafe { AtomicU32::from_ptr((self.memory + offset as usize) as *mut u32) }
    }

    /// # Safety
    /// The arguments are valid for `accept4`, as for [`Accepts::accept`].
    unsafe fn accept(
        &self,
        fd: c_int,
        address: *mut sockaddr,
        len: *mut socklen_t,
        flags: c_int,
    ) -> Option<Result<c_int, c_int>> {
        let entry = Submission {
            op: OP_ACCEPT,
            flags: 0,
            priority: ACCEPT_DONTWAIT,
            fd,
            address_len: len.expose_provenance() as u64,
            address: address.expose_provenance() as u64,
            len: 0,
            op_flags: flags as u32,
            user_data: 0,
            rest: [0; 3],
        };
        // SAFETY: URING-2: the kernel reads the one entry only within `enter`.
        unsafe { ((self.memory + mem::page()) as *mut Submission).write(entry) };
        let submissions = &self.parameters.submissions;
        let tail = self.word(submissions.tail);
        // Publishes the entry to the kernel.
        tail.store(tail.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        loop {
            if let Some(result) = self.completed() {
                return Some(if result < 0 { Err(-result) } else { Ok(result) });
            }
            // How many entries the kernel has not taken: 0 if an earlier `enter` took it and then was interrupted. So a
            // retry cannot accept twice.
            let left = tail
                .load(Ordering::Relaxed)
                .wrapping_sub(self.word(submissions.head).load(Ordering::Acquire));
            if !self.enter(left) && errno() != libc::EINTR {
                return None;
            }
        }
    }

    /// Submits `count` entries and waits for an answer, which comes at once because the entry never waits.
    fn enter(&self, count: u32) -> bool {
        let flags = ENTER_GETEVENTS | ENTER_REGISTERED_RING;
        // SAFETY: URING-2: the kernel uses what the entry points to within this call, and the caller of `accept`
        // guarantees that it is valid.
        unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.index,
                c_long::from(count),
                1_i64,
                flags,
                0_i64,
                0_i64,
            ) >= 0
        }
    }

    fn completed(&self) -> Option<i32> {
        let completions = &self.parameters.completions;
        let (head, tail) = (self.word(completions.head), self.word(completions.tail));
        let at = head.load(Ordering::Relaxed);
        if at == tail.load(Ordering::Acquire) {
            return None;
        }
        let mask = self.word(completions.mask).load(Ordering::Relaxed);
        let offset = completions.first as usize + (at & mask) as usize * size_of::<Completion>();
        // SAFETY: an entry between head and tail, which the kernel has written, in the page of the queues.
        let result = unsafe { (*((self.memory + offset) as *const Completion)).result };
        // Gives the entry back to the kernel.
        head.store(at.wrapping_add(1), Ordering::Release);
        Some(result)
    }
}

impl Drop for Ring {
    /// The kernel keeps what it needs of the ring until the OS thread ends.
    fn drop(&mut self) {
        // SAFETY: a mapping of `Ring::new`. By URING-2 the kernel writes to it only within a call, and there are no
        // more calls.
        unsafe { mem::unmap(self.memory, 2 * mem::page()) };
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
