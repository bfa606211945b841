//! What a stack overflow says before the process ends.
//!
//! The fault handler must know, without a lock, whether an address lies in a guard of ours: slabs are entered in a list
//! that only grows, whose entries are reused.

use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::GUARD_SIZE;
use crate::sys::signal;

/// One slab; `len` 0 means free.
struct Range {
    at: AtomicUsize,
    len: AtomicUsize,
    size: AtomicUsize,
    next: AtomicPtr<Range>,
}

static FIRST: AtomicPtr<Range> = AtomicPtr::new(std::ptr::null_mut());
static DESCRIBE: AtomicUsize = AtomicUsize::new(0);

/// A slab's place in the list.
pub(super) struct Entry(&'static Range);

impl Entry {
    pub(super) fn remove(&self) {
        self.0.len.store(0, Ordering::Release);
    }
}

fn ranges() -> impl Iterator<Item = &'static Range> {
    let first = FIRST.load(Ordering::Acquire);
    // SAFETY: null, or leaked by `add`.
    std::iter::successors(unsafe { first.as_ref() }, |range| unsafe {
        range.next.load(Ordering::Acquire).as_ref()
    })
}

/// Enters a slab.
pub(super) fn add(at: usize, len: usize, size: usize) -> Entry {
    const TAKEN: usize = 1;
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
            next: AtomicPtr::new(std::ptr::null_mut()),
        }));
        let _ = FIRST.fetch_update(Ordering::AcqRel, Ordering::Acquire, |first| {
            new.next.store(first, Ordering::Relaxed);
            Some(std::ptr::from_mut(new))
        });
        new
    });
    range.at.store(at, Ordering::Relaxed);
    range.size.store(size, Ordering::Relaxed);
    range.len.store(len, Ordering::Release);
    Entry(range)
}

/// Sets what writes the running green thread's name into a buffer.
pub(super) fn set_describe(f: fn(usize, &mut [u8]) -> usize) {
    DESCRIBE.store(f as usize, Ordering::Release);
}

/// Installs the handler, once in the process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| signal::on_fault(look));
}

/// Runs in the fault handler: returns unless the address lies in a guard.
fn look(address: usize) {
    for range in ranges() {
        let len = range.len.load(Ordering::Acquire);
        let (at, size) = (range.at.load(Ordering::Relaxed), range.size.load(Ordering::Relaxed));
        if address.wrapping_sub(at) < len && (address - at) % size < GUARD_SIZE {
            report(address - (address - at) % size, size);
        }
    }
}

fn report(limit: usize, size: usize) -> ! {
    let mut name = [0; 64];
    let f = DESCRIBE.load(Ordering::Acquire);
    let len = if f == 0 {
        0
    } else {
        // SAFETY: `set_describe` stored such a function.
        unsafe { std::mem::transmute::<usize, fn(usize, &mut [u8]) -> usize>(f)(limit, &mut name) }
    };
    let mut digits = [[0; 20]; 3];
    let [usable, whole, default] = &mut digits;
    let parts: [&[u8]; 9] = [
        b"\ngreen thread '",
        if len == 0 {
            b"(on the native stack)"
        } else {
            &name[..len]
        },
        b"' has overflowed its stack: ",
        number((size - GUARD_SIZE) / 1024, usable),
        b" KiB usable of ",
        number(size / 1024, whole),
        b" KiB\nhelp: give it more: thread::Builder::new().stack_size(bytes), guard included; the default is ",
        number(super::DEFAULT_SIZE, default),
        b"\nfatal: stack overflow\n",
    ];
    parts.into_iter().for_each(signal::write_stderr);
    signal::abort()
}

/// Decimal, without allocating.
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
