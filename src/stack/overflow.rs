//! The report of a stack overflow, before the process ends.
//!
//! The fault handler must find out, without a lock, whether an address lies in a guard of this crate. So slabs are
//! entered in a list that only grows; entries of unmapped slabs are reused.
//!
//! ```text
//!  FIRST ─► [at, len, size] ─► [at, 0: free] ─► [at, len, size] ─► null
//!            └─ slab: ▓▓▓▓░░░░░░░░▓▓▓▓░░░░░░░░▓▓▓▓░░░░░░░░   ▓ guard: (address − at) mod size < GUARD_SIZE
//! ```
//!
//! # Invariants
//! - **OVERFLOW-1** Entries are never freed, and `next` is set once.
//! - **OVERFLOW-2** An entry with `len` above 1 describes a slab that is mapped.
//! - **OVERFLOW-3** `DESCRIBE` may run in a signal handler.
#![cfg_attr(not(test), forbid(unsafe_code))]

use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::race::OnceRef;

use super::GUARD_SIZE;
use super::size::PAGE;
use crate::sys::fork::{GlobalOnce, Order};
use crate::sys::{hooks, signal};

/// Which kind of stack has overflowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The stack of the running green thread, which is isolated.
    Isolated,
    /// The stack of the running green thread, which is local, or polls a future.
    Local,
    /// The stack of the running green thread, where isolation is off: isolated and local ones look the same there.
    Shared,
    /// The stack of a greenlet or a generator, on the running green thread.
    Coroutine,
}

/// Gets the ends of the slot, and a buffer for the name of the running green thread. Returns the length of the name.
pub(crate) type Describe = fn(usize, usize, &mut [u8]) -> (usize, Whose);

/// One slab; a `len` of 0 marks a free entry.
struct Range {
    at: AtomicUsize,
    len: AtomicUsize,
    size: AtomicUsize,
    next: OnceRef<'static, Range>,
}

static FIRST: OnceRef<'static, Range> = OnceRef::new();
static DESCRIBE: OnceRef<'static, Describe> = OnceRef::new();

/// A slab's place in the list.
pub(super) struct Entry(&'static Range);

impl Entry {
    pub(super) fn remove(&self) {
        self.0.len.store(0, Ordering::Release);
    }
}

fn ranges() -> impl Iterator<Item = &'static Range> {
    std::iter::successors(FIRST.get(), |range| range.next.get())
}

/// The stack that an address is on: its low end above the guard, and its size.
pub(super) fn stack_of(address: usize) -> Option<(usize, usize)> {
    let (at, size) = ranges().find_map(|range| {
        let (len, at, size) = (
            // The length comes first: an acquire load of a length that `add` has published also sees `at` and `size`.
            range.len.load(Ordering::Acquire),
            range.at.load(Ordering::Relaxed),
            range.size.load(Ordering::Relaxed),
        );
        (len > 1 && (at..at + len).contains(&address)).then_some((at, size))
    })?;
    let slot = at + (address - at) / size * size;
    Some((slot + GUARD_SIZE, size - GUARD_SIZE))
}

/// Enters a slab into the list.
pub(super) fn add(at: usize, len: usize, size: usize) -> Entry {
    const TAKEN: usize = 1;
    // A length of 1 reserves the entry, so that no other OS thread takes it too.
    let free = ranges().find(|r| {
        r.len
            .compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    });
    let range = free.unwrap_or_else(|| {
        let new = Box::leak(Box::new(Range {
            at: AtomicUsize::new(0),
            len: AtomicUsize::new(TAKEN),
            size: AtomicUsize::new(1),
            next: OnceRef::new(),
        }));
        // Append at the end of the list. Another OS thread may append an entry at the same moment: then the end of the
        // list is behind the entry of the other.
        let mut place = &FIRST;
        while place.set(new).is_err() {
            match place.get() {
                Some(range) => place = &range.next,
                None => unreachable!("the place is taken"),
            }
        }
        new
    });
    // The length is stored last: it publishes the other two fields (OVERFLOW-2).
    range.at.store(at, Ordering::Relaxed);
    range.size.store(size, Ordering::Relaxed);
    range.len.store(len, Ordering::Release);
    Entry(range)
}

/// Sets the function that writes the name of the running green thread into a buffer.
pub(super) fn set_describe(f: &'static Describe) {
    // Each hub sets the same function, so it does not matter which hub is first.
    let _ = DESCRIBE.set(f);
}

/// Installs the handler, once in the process.
pub(super) fn install() {
    static INSTALLED: GlobalOnce<()> = GlobalOnce::new(Order::Overflow);
    INSTALLED.get_or_init(|| {
        signal::on_fault(&(look as _));
        hooks::set_find(&(stack_of as _));
    });
}

/// Runs in the fault handler. Returns unless the address lies in a guard.
fn look(address: usize) {
    for range in ranges() {
        let len = range.len.load(Ordering::Acquire);
        let (at, size) = (range.at.load(Ordering::Relaxed), range.size.load(Ordering::Relaxed));
        // As in `stack_of`: a length of 1 is an entry that is being filled in.
        if len > 1 && address.wrapping_sub(at) < len && (address - at) % size < GUARD_SIZE {
            report(address - (address - at) % size, size);
        }
    }
}

fn report(limit: usize, size: usize) -> ! {
    let mut name = [0; 64];
    let (len, whose) = match DESCRIBE.get() {
        Some(describe) => describe(limit, limit + size, &mut name),
        None => (0, Whose::Coroutine),
    };
    let mut text = Text {
        bytes: [0; 512],
        len: 0,
    };
    text.push(b"\n");
    let name = name.get(..len).unwrap_or_default();
    if whose == Whose::Coroutine {
        text.push(b"a greenlet or generator");
        text.push(if name.is_empty() { b"" } else { b" of " });
    }
    text.push(name);
    text.push(b" has overflowed its stack of ");
    text.push(number((size - PAGE - GUARD_SIZE) / 1024, &mut [0; 20]));
    text.push(b" KiB\nhelp: give it more: ");
    text.push(match whose {
        Whose::Isolated => {
            b"thread::Builder::new().stack_size(BYTES), or stack_size of the server, pool or group that\n\
            spawned it; or all of them: GREEN_STACK=BYTES in the environment, or stack::set_default_size"
        }
        Whose::Shared => {
            b"thread::Builder::new().stack_size(BYTES); or all of them: GREEN_STACK=BYTES in the\n\
            environment, or stack::set_default_size; those of spawn_local GREEN_LOCAL_STACK=BYTES, or\n\
            stack::set_local_size"
        }
        Whose::Local => {
            b"thread::Builder::new().stack_size(BYTES); or all of them: GREEN_LOCAL_STACK=BYTES in the\n\
            environment, or stack::set_local_size; for what polls futures GREEN_STACK, or stack::set_default_size"
        }
        Whose::Coroutine => {
            b"Greenlet::builder().stack_size(BYTES), Generator::with_stack_size; or all of them:\n\
            GREEN_LOCAL_STACK=BYTES in the environment, or stack::set_local_size"
        }
    });
    text.push(b"\nfatal: stack overflow\n");
    signal::write_stderr(&text.bytes[..text.len]);
    signal::abort()
}

/// A report in the making. It is written by one call, so that two reports do not mix. What does not fit is left out.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Text {
    fn push(&mut self, part: &[u8]) {
        for (to, from) in self.bytes[self.len..].iter_mut().zip(part) {
            *to = *from;
            self.len += 1;
        }
    }
}

/// Formats a number in decimal, without allocating.
fn number(mut n: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::os::unix::process::ExitStatusExt;

    use corosensei::{Coroutine, CoroutineResult};

    use super::super::{LOCAL_SIZE, Stack, alone};
    use super::*;

    /// Runs `body` on a stack of the default size.
    fn on_a_stack(body: fn()) {
        let mut coroutine =
            Coroutine::<(), (), (), Stack>::with_stack(Stack::new(LOCAL_SIZE).unwrap(), move |_, ()| body());
        assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
    }

    #[expect(unconditional_recursion, reason = "that is what is tested")]
    fn recurse(depth: usize) -> usize {
        let frame = black_box([depth; 64]);
        recurse(depth + 1) + black_box(&frame)[depth % 64]
    }

    fn overflow() {
        black_box(recurse(0));
    }

    #[inline(never)]
    fn large_frame() {
        black_box(&mut [1u8; 512 * 1024]);
    }

    /// Runs `body` in a process of its own, which must be aborted with these words on stderr.
    #[track_caller]
    fn dies(test: &str, words: &str, body: fn()) {
        let Some(child) = alone(&format!("stack::overflow::tests::{test}")) else {
            return body();
        };
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.signal(), Some(signal::ABORTED), "{said}");
        assert!(said.contains(words), "{said}");
    }

    const WORDS: &str = "\na greenlet or generator has overflowed its stack of 192 KiB\nhelp: give it more: \
        Greenlet::builder().stack_size(BYTES), Generator::with_stack_size; or all of them:\nGREEN_LOCAL_STACK=BYTES in the \
        environment, or stack::set_local_size\nfatal: stack overflow\n";

    #[test]
    fn recursion_is_reported() {
        dies("recursion_is_reported", WORDS, || on_a_stack(overflow));
    }

    #[test]
    fn a_large_frame_is_reported() {
        dies("a_large_frame_is_reported", WORDS, || on_a_stack(large_frame));
    }

    #[test]
    fn an_overshoot_of_60_kib_is_reported() {
        dies("an_overshoot_of_60_kib_is_reported", WORDS, || {
            let stack = Stack::new(LOCAL_SIZE).unwrap();
            // SAFETY: none: the guard must catch it.
            unsafe { ((stack.limit + GUARD_SIZE - 60 * 1024) as *mut u8).write_volatile(1) };
        });
    }

    #[test]
    fn a_guard_by_mprotect_is_reported() {
        dies("a_guard_by_mprotect_is_reported", WORDS, || {
            crate::sys::mem::forget_markers(true);
            on_a_stack(overflow);
        });
    }

    #[test]
    fn the_name_is_what_the_scheduler_says() {
        dies(
            "the_name_is_what_the_scheduler_says",
            "\ngreen thread #7 has overflowed its stack of 192 KiB\nhelp: give it more: thread::Builder",
            || {
                fn describe(_: usize, _: usize, out: &mut [u8]) -> (usize, Whose) {
                    out[..15].copy_from_slice(b"green thread #7");
                    (15, Whose::Isolated)
                }
                set_describe(&(describe as Describe));
                on_a_stack(overflow);
            },
        );
    }

    #[test]
    fn a_slab_that_came_and_went_is_reported_too() {
        dies("a_slab_that_came_and_went_is_reported_too", WORDS, || {
            for size in [1 << 20, LOCAL_SIZE, 4 << 20] {
                drop((0..100).map(|_| Stack::new(size).unwrap()).collect::<Vec<_>>());
                super::super::trim();
            }
            assert!(ranges().all(|range| range.len.load(Ordering::Relaxed) == 0));
            let before = ranges().count();
            on_a_stack(|| ());
            assert_eq!(ranges().count(), before, "free entries are reused");
            on_a_stack(overflow);
        });
    }

    #[test]
    fn an_os_thread_that_std_did_not_make_reports_too() {
        dies("an_os_thread_that_std_did_not_make_reports_too", WORDS, || {
            signal::on_a_bare_thread(|| on_a_stack(overflow));
        });
    }

    #[test]
    fn the_native_stack_is_still_std_s() {
        dies(
            "the_native_stack_is_still_std_s",
            "has overflowed its stack\nfatal runtime error: stack overflow",
            || {
                on_a_stack(|| ());
                black_box(recurse(0));
            },
        );
    }

    #[test]
    fn another_fault_is_a_fault() {
        let Some(child) = alone("stack::overflow::tests::another_fault_is_a_fault") else {
            on_a_stack(|| ());
            // SAFETY: none: it must kill the process.
            return unsafe { std::ptr::without_provenance_mut::<u8>(4096).write_volatile(1) };
        };
        assert_eq!(child.status.signal(), Some(signal::FAULTED), "{child:?}");
    }

    #[test]
    fn numbers_are_decimal() {
        assert_eq!(number(0, &mut [0; 20]), b"0");
        assert_eq!(number(usize::MAX, &mut [0; 20]), usize::MAX.to_string().as_bytes());
    }
}
