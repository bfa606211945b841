//! An accept that never waits, whatever the flags of the open file say. Linux has it in io_uring alone, since 6.10.
//!
//! Each OS thread that accepts has a ring of one entry. It is registered with the OS thread instead of having a
//! descriptor: it takes none from the program, no close can hit it, and a forked child does not have it.
//!
//! # Invariants
//! - **R1** One OS thread uses a ring, the one that made it, and one call at a time: a call from a signal handler in the
//!   middle of another finds it [`busy`](Accepts::busy).
//! - **R2** When `accept` returns, nothing is under way: the kernel writes to the ring and to the caller's address only
//!   within the system call.

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

/// Whether this system has it, as far as it is known.
static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const WORKS: u8 = 1;
/// An older kernel, or one that was told to refuse it.
const REFUSED: u8 = 2;

/// The accepts of one OS thread.
#[derive(Default)]
pub(crate) struct Accepts {
    ring: UnsafeCell<Option<Ring>>,
    /// There is none, and there will be none.
    given_up: Cell<bool>,
    busy: Cell<bool>,
}

impl Accepts {
    /// As `accept4`, but for that it does not wait: the result, or what errno is to be. `None`: there is no such way here.
    ///
    /// # Safety
    /// As for `accept4`; on the OS thread of its first call.
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
        // SAFETY: R1: this call alone is not told that it is busy.
        let ring = unsafe { &mut *self.ring.get() };
        if ring.is_none() && !self.given_up.get() && KNOWN.load(Ordering::Relaxed) != REFUSED {
            *ring = Ring::probed();
        }
        let accepted = ring.as_ref().and_then(|ring| {
            // SAFETY: the caller's.
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
    /// A page for the two queues, and one for the entry.
    memory: usize,
    parameters: Parameters,
    /// What the OS thread knows it by.
    index: c_long,
}

impl Ring {
    /// A ring, if one is to be had now.
    fn probed() -> Option<Ring> {
        if KNOWN.load(Ordering::Relaxed) == WORKS {
            return Ring::new().ok();
        }
        // A filter of system calls may kill the process for one that it does not know.
        // SAFETY: asks for a number.
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

    /// `None`: no descriptor is left to ask with.
    fn knows_the_flag(&self) -> Option<bool> {
        // A socket that cannot accept says so, and an unknown flag is noticed before.
        // SAFETY: makes a descriptor, asks, and closes it.
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
        // SAFETY: all-zero is valid. The ring's memory stays mapped while the ring is used; a forked child has neither.
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

    /// A number that is shared with the kernel.
    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel's offset of an aligned number in the page, which lives as long as the ring.
        unsafe { AtomicU32::from_ptr((self.memory + offset as usize) as *mut u32) }
    }

    /// # Safety
    /// As for [`Accepts::accept`].
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
        // SAFETY: R2: the one entry is the kernel's only within `enter`.
        unsafe { ((self.memory + mem::page()) as *mut Submission).write(entry) };
        let submissions = &self.parameters.submissions;
        let tail = self.word(submissions.tail);
        tail.store(tail.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        loop {
            if let Some(result) = self.completed() {
                return Some(if result < 0 { Err(-result) } else { Ok(result) });
            }
            let left = tail
                .load(Ordering::Relaxed)
                .wrapping_sub(self.word(submissions.head).load(Ordering::Acquire));
            if !self.enter(left) && errno() != libc::EINTR {
                return None;
            }
        }
    }

    /// Hands over what is in the queue, and has the answer: the entry never waits.
    fn enter(&self, count: u32) -> bool {
        let flags = ENTER_GETEVENTS | ENTER_REGISTERED_RING;
        // SAFETY: R2; the caller vouches for what the entry points to.
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
        // SAFETY: an entry between head and tail, in the page.
        let result = unsafe { (*((self.memory + offset) as *const Completion)).result };
        head.store(at.wrapping_add(1), Ordering::Release);
        Some(result)
    }
}

impl Drop for Ring {
    /// The kernel keeps what it needs of it until the OS thread ends.
    fn drop(&mut self) {
        // SAFETY: a mapping of our own, and R2.
        unsafe { mem::unmap(self.memory, 2 * mem::page()) };
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
