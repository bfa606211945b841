//! Allocators that wait: for a lock of C's, for one of std's, by asking again and again. What is patched must not
//! switch in the middle of what this crate does with memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use greenthread::sync::channel;
use greenthread::{monkey, sleep, spawn, timeout};

use super::ms;

const PLAIN: u8 = 0;
const C: u8 = 1;
const STD: u8 = 2;
const SPIN: u8 = 3;

/// The system's, behind a lock if a test has chosen one.
struct Locking {
    how: AtomicU8,
    c: UnsafeCell<libc::pthread_mutex_t>,
    std: Mutex<()>,
    spin: AtomicBool,
    waits: AtomicUsize,
}

// SAFETY: C's mutex is made to be used by all.
unsafe impl Sync for Locking {}

#[global_allocator]
static ALLOCATOR: Locking = Locking {
    how: AtomicU8::new(PLAIN),
    c: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    std: Mutex::new(()),
    spin: AtomicBool::new(false),
    waits: AtomicUsize::new(0),
};

impl Locking {
    fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        match self.how.load(Ordering::Relaxed) {
            // SAFETY: locked and unlocked in pairs.
            C => unsafe {
                if libc::pthread_mutex_trylock(self.c.get()) != 0 {
                    self.waits.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(libc::pthread_mutex_lock(self.c.get()), 0);
                }
                let result = dawdle(f);
                libc::pthread_mutex_unlock(self.c.get());
                result
            },
            STD => {
                let locked = self.std.try_lock().unwrap_or_else(|_| {
                    self.waits.fetch_add(1, Ordering::Relaxed);
                    self.std.lock().unwrap()
                });
                let result = dawdle(f);
                drop(locked);
                result
            }
            SPIN => {
                while self.spin.swap(true, Ordering::Acquire) {
                    self.waits.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                }
                let result = dawdle(f);
                self.spin.store(false, Ordering::Release);
                result
            }
            _ => f(),
        }
    }
}

/// Holds the lock long enough for others to come; now and then its holder loses the processor.
fn dawdle<R>(f: impl FnOnce() -> R) -> R {
    static TIMES: AtomicUsize = AtomicUsize::new(0);
    let result = f();
    if TIMES.fetch_add(1, Ordering::Relaxed).is_multiple_of(8) {
        // SAFETY: no pointers are involved.
        unsafe { monkey::original::usleep(1) };
    }
    result
}

// SAFETY: the system's, one at a time.
unsafe impl GlobalAlloc for Locking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        self.with(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        self.with(|| unsafe { System.dealloc(at, layout) });
    }

    // As the system does them: what is zeroed need not be touched.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        self.with(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's.
        self.with(|| unsafe { System.realloc(at, layout, size) })
    }
}

/// The life of a hub, whose tables grow all the time: timers, time-outs, stacks, waiters, messages.
fn life() {
    greenthread::run(|| {
        let (sender, receiver) = mpsc::channel();
        let (started, starts) = channel::unbounded();
        let all: Vec<_> = (0..100_u8)
            .map(|n| {
                let (sender, started) = (sender.clone(), started.clone());
                spawn(move || {
                    started.send(n).unwrap();
                    let held = black_box(vec![n; usize::from(n) * 20 + 1]);
                    timeout(ms(60_000), || sleep(ms(u64::from(n % 3)))).unwrap();
                    assert_eq!(held[usize::from(n) * 20], n);
                    sender.send(held).unwrap();
                })
            })
            .collect();
        drop((sender, started));
        let mut sum = 0;
        while let Ok(n) = starts.recv() {
            sum += usize::from(n);
        }
        assert_eq!(sum, 4950);
        assert_eq!(receiver.iter().map(|held| held.len()).sum::<usize>(), 4950 * 20 + 100);
        all.into_iter().for_each(|one| one.join().unwrap());
    });
}

/// Runs this with an allocator that waits, in a process of its own.
fn with_allocator(test: &str, how: u8) {
    const VARIABLE: &str = "GREENTHREAD_TEST_ALLOCATOR";
    if std::env::var_os(VARIABLE).is_none() {
        let mut child = Command::new("timeout");
        child.arg("60").arg(std::env::current_exe().unwrap());
        child.args(["--exact", &format!("allocators::{test}"), "--nocapture"]);
        let output = child.env(VARIABLE, test).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.starts_with(b"\nrunning 1 test\n"), "no such test: {test}");
        return;
    }
    monkey::patch_all().unwrap();
    ALLOCATOR.how.store(how, Ordering::SeqCst);
    let until = Instant::now() + ms(4000);
    let lives = move || {
        let mut count = 0;
        while Instant::now() < until {
            std::thread::spawn(life).join().unwrap();
            count += 1;
        }
        count
    };
    let lanes: Vec<_> = (0..3).map(|_| std::thread::spawn(lives)).collect();
    let count = lanes.into_iter().map(|lane| lane.join().unwrap()).sum::<usize>();
    let waits = ALLOCATOR.waits.load(Ordering::SeqCst);
    ALLOCATOR.how.store(PLAIN, Ordering::SeqCst);
    assert!(count >= 3 && waits > 100, "{count} lives, {waits} waits");
    eprintln!("{count} lives, {waits} waits");
}

#[test]
fn one_behind_a_mutex_of_c() {
    with_allocator("one_behind_a_mutex_of_c", C);
}

#[test]
fn one_behind_a_mutex_of_std() {
    with_allocator("one_behind_a_mutex_of_std", STD);
}

#[test]
fn one_that_asks_again_and_again() {
    with_allocator("one_that_asks_again_and_again", SPIN);
}
