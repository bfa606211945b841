//! How large a stack is: the size that is asked for, the default, and the slot that serves it.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{DEFAULT_SIZE, GUARD_SIZE, LOCAL_SIZE};

/// How far apart slots lie: a page more than they need. Without it, all stacks would begin in the same sets of the
/// second-level cache (1,000 green threads yield in 12 ns instead of 22). Where pages may be smaller than this one, the
/// stacks begin on different pages of it instead.
#[inline]
pub(super) const fn stride(slot: usize) -> usize {
    slot + PAGE
}

/// The high end of the slot of the stack that begins at `base`: slots lie at multiples of [`PAGE`] (MEM-3).
#[inline]
pub(super) const fn end(base: usize) -> usize {
    base.next_multiple_of(PAGE)
}

/// Slots and slabs are laid out in multiples of this, whatever the size of a page.
pub(super) const PAGE: usize = crate::sys::mem::LARGEST_PAGE;

/// The smallest usable size of a stack, in bytes.
pub(super) const LEAST: usize = 64 * 1024;

/// The largest usable size of a stack: 64 GiB.
const MOST: usize = 64 << 30;

/// The defaults; 0 until they are first needed.
static ISOLATED: AtomicUsize = AtomicUsize::new(0);
static LOCAL: AtomicUsize = AtomicUsize::new(0);

/// The usable size of the stacks of isolated green threads and of what polls futures.
///
/// It is the value of [`set_default_size`], or of `GREEN_STACK` or `RUST_MIN_STACK` in the environment, or
/// [`DEFAULT_SIZE`].
///
/// ```
/// assert!(greenthread::stack::default_size() > 0);
/// ```
#[inline]
pub fn default_size() -> usize {
    match ISOLATED.load(Ordering::Relaxed) {
        0 => first(&ISOLATED, &["GREEN_STACK", "RUST_MIN_STACK"], DEFAULT_SIZE),
        size => size,
    }
}

/// Sets [`default_size`] for the process, for what is spawned from now on; rounded up.
///
/// With 0 it is as if it had never been set.
///
/// ```
/// use greenthread::{spawn, stack};
///
/// stack::set_default_size(4 << 20);
/// assert_eq!(spawn(|| [1_u8; 2 << 20].len()).join().unwrap(), 2 << 20);
/// # stack::set_default_size(0);
/// ```
pub fn set_default_size(bytes: usize) {
    ISOLATED.store(rounded(bytes), Ordering::Relaxed);
}

/// The usable size of the stacks of local green threads, greenlets and generators.
///
/// It is the value of [`set_local_size`], or of `GREEN_LOCAL_STACK` in the environment, or [`LOCAL_SIZE`].
///
/// ```
/// assert!(greenthread::stack::local_size() > 0);
/// ```
#[inline]
pub fn local_size() -> usize {
    match LOCAL.load(Ordering::Relaxed) {
        0 => first(&LOCAL, &["GREEN_LOCAL_STACK"], LOCAL_SIZE),
        size => size,
    }
}

/// Sets [`local_size`] for the process, for what is spawned from now on; rounded up.
///
/// With 0 it is as if it had never been set.
///
/// ```
/// use greenthread::{spawn_local, stack};
///
/// stack::set_local_size(1 << 20);
/// assert_eq!(spawn_local(|| [1_u8; 512 << 10].len()).join().unwrap(), 512 << 10);
/// # stack::set_local_size(0);
/// ```
pub fn set_local_size(bytes: usize) {
    LOCAL.store(rounded(bytes), Ordering::Relaxed);
}

/// Finds the size in the environment, or takes the default, and stores it in `place`.
#[cold]
fn first(place: &AtomicUsize, variables: &[&str], default: usize) -> usize {
    let said = variables.iter().find_map(|name| {
        let value = std::env::var_os(name)?;
        let size = value.to_str().and_then(parse).filter(|size| *size <= MOST);
        if size.is_none() {
            let value = value.to_string_lossy();
            let _ = writeln!(
                io::stderr(),
                "greenthread: {name}={value}: not a number of bytes, as 1048576 or 1M, of at most 64G"
            );
        }
        size
    });
    let size = rounded(said.unwrap_or(default));
    // Another OS thread may have set it meanwhile; then that counts.
    match place.compare_exchange(0, size, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => size,
        Err(set) => set,
    }
}

/// A number of bytes, with K, M or G for powers of 1024. It must not be 0.
fn parse(text: &str) -> Option<usize> {
    let text = text.trim();
    let shift = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    let number: usize = digits.trim_end().parse().ok()?;
    number.checked_mul(1 << shift).filter(|size| *size > 0)
}

/// The size rounded up as [`slot`] does. A size that makes no sense stays, and is an error when a stack is made.
fn rounded(size: usize) -> usize {
    slot(size).map_or(size, |slot| slot - GUARD_SIZE)
}

/// The size of the slot that serves a request: the size rounded up, plus the guard. There are few sizes, so that stacks
/// can be used again.
pub(super) fn slot(size: usize) -> io::Result<usize> {
    let refuse = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if size == 0 {
        return refuse(String::from("a stack size of 0: give the bytes that are to be used"));
    }
    if size > MOST {
        return refuse(format!("a stack size of {size} bytes: the most is {MOST}"));
    }
    let size = size.max(LEAST);
    let step = (size.next_power_of_two() / 8).max(16 * 1024).max(PAGE);
    Ok(size.next_multiple_of(step) + GUARD_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_comes_on_top_and_little_is_wasted() {
        for exact in [LEAST, LOCAL_SIZE, DEFAULT_SIZE, 2 << 20, 4 << 20, 1536 << 10] {
            assert_eq!(slot(exact).unwrap(), exact + GUARD_SIZE);
        }
        assert_eq!(slot(1).unwrap(), LEAST + GUARD_SIZE);
        for size in [100_000, 1_000_000, (1 << 20) + 1, 5_000_000, MOST] {
            let usable = slot(size).unwrap() - GUARD_SIZE;
            assert!(
                size <= usable && usable <= (size + size / 4).max(size.next_multiple_of(PAGE)),
                "{size}: {usable}"
            );
            assert_eq!((usable % PAGE, slot(usable).unwrap()), (0, usable + GUARD_SIZE));
        }
        for senseless in [0, MOST + 1, usize::MAX] {
            assert_eq!(slot(senseless).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert_eq!(rounded(senseless), senseless);
        }
    }

    #[test]
    fn sizes_in_words() {
        let said = ["1048576", "1M", "1m ", "64k", "2 G", "1"].map(parse);
        assert_eq!(said, [1 << 20, 1 << 20, 1 << 20, 64 << 10, 2 << 30, 1].map(Some));
        for senseless in ["", "0", "M", "-1", "1.5M", "1MB", "99999999999999G", "many"] {
            assert_eq!(parse(senseless), None, "{senseless}");
        }
    }
}
