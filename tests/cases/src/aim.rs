//! A kill at the k-th park of a green thread (before it, after it, at the wake), or a time-out after k times 500 µs:
//! what holds whenever an operation is cut short.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenthread::hub::{self, Event};
use greenthread::thread::Thread;
use greenthread::{debug, sleep, spawn, spawn_local, stack, timeout};

use crate::{Verdict, ms, text_of};

/// Uses [`Aim::run`] once. `Ok(true)`: the victim came to its end; `Ok(false)`: it was cut, and all is well.
pub type Scenario = fn(&Arc<Aim>) -> Result<bool, String>;

#[derive(Clone, Copy, Debug, PartialEq)]
/// When the victim is cut.
pub enum Mode {
    /// Killed as it parks.
    Before,
    /// Killed right after it has parked.
    After,
    /// Killed as it is woken.
    AtWake,
    /// By a time-out of so many times 500 µs.
    Time,
}

/// Kills one green thread, the victim, at its `k`-th park or wake.
pub struct Aim {
    mode: Mode,
    k: u64,
    id: AtomicU64,
    seen: AtomicU64,
    hit: AtomicBool,
    victim: Mutex<Option<Thread>>,
}

impl Aim {
    /// Hears what the hub of this OS thread does, from here on.
    pub fn new(mode: Mode, k: u64) -> Arc<Aim> {
        let aim = Arc::new(Aim {
            mode,
            k,
            id: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            hit: AtomicBool::new(false),
            victim: Mutex::default(),
        });
        let ears = aim.clone();
        if mode != Mode::Time {
            hub::set_hook(Some(Box::new(move |event| ears.hear(event))));
        }
        aim
    }
    fn hear(&self, event: Event) {
        let id = self.id.load(SeqCst);
        let mine = match (self.mode, event) {
            (Mode::Before | Mode::After, Event::Park(i)) => i == id,
            (Mode::AtWake, Event::Wake(i)) => i == id,
            _ => false,
        };
        if !mine || id == 0 {
            return;
        }
        if self.seen.fetch_add(1, SeqCst) + 1 == self.k {
            self.hit.store(true, SeqCst);
            let victim = self.victim.lock().unwrap().clone().unwrap();
            match self.mode {
                Mode::After => hub::call_soon(move || victim.kill()),
                _ => victim.kill(),
            }
        }
    }
    /// Sets the victim.
    pub fn at(&self, victim: Thread) {
        *self.victim.lock().unwrap() = Some(victim.clone());
        self.id.store(victim.id().as_u64(), SeqCst);
    }
    /// Runs `f` as the victim; `None` if it was cut.
    pub fn run<T: 'static>(self: &Arc<Aim>, f: impl FnOnce() -> T + 'static) -> Option<T> {
        let (mode, k) = (self.mode, self.k);
        let victim = spawn_local(move || {
            if mode == Mode::Time {
                timeout(Duration::from_micros(k * 500), f).ok()
            } else {
                Some(f())
            }
        });
        self.at(victim.thread());
        victim.join().unwrap_or(None)
    }
    /// The same with an isolated green thread.
    pub fn run_send<T: Send + 'static>(self: &Arc<Aim>, f: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (mode, k) = (self.mode, self.k);
        let victim = spawn(move || {
            if mode == Mode::Time {
                timeout(Duration::from_micros(k * 500), f).ok()
            } else {
                Some(f())
            }
        });
        self.at(victim.thread());
        victim.join().unwrap_or(None)
    }
}

/// Runs the scenario with every mode, and k from 1 to `most`, each on an OS thread of its own.
pub fn cut_everywhere(verdict: &mut Verdict, name: &str, most: u64, scenario: Scenario) {
    for mode in [Mode::Before, Mode::After, Mode::AtWake, Mode::Time] {
        let (mut cut, mut whole, mut bad) = (0, 0, Vec::new());
        for k in 1..=most {
            let (result, hit) = once(mode, k, scenario);
            match result {
                Ok(true) => whole += 1,
                Ok(false) => cut += 1,
                Err(error) => bad.push(format!("k {k}: {error}")),
            }
            // It came to its end before its k-th park.
            if mode != Mode::Time && !hit && k > 3 {
                break;
            }
        }
        bad.truncate(3);
        verdict.holds(
            bad.is_empty() && cut + whole > 0,
            format_args!("{name} {mode:?}: cut {cut}, whole {whole}, bad {bad:?}"),
        );
    }
}

/// What the scenario says, and whether its victim was aimed at.
fn once(mode: Mode, k: u64, scenario: Scenario) -> (Result<bool, String>, bool) {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let aim = Aim::new(mode, k);
        let _ = stack::stats();
        let result = catch_unwind(AssertUnwindSafe(|| scenario(&aim)));
        hub::set_hook(None);
        let mut result = result.unwrap_or_else(|panic| Err(text_of(&*panic)));
        for _ in 0..100 {
            if hub::live() == 0 {
                break;
            }
            sleep(ms(2));
        }
        if hub::live() > 0 {
            result = result.and_then(|_| Err(format!("green threads are left: {}", debug::dump())));
        }
        let _ = sender.send((result, aim.hit.load(SeqCst)));
    });
    let result = receiver.recv_timeout(Duration::from_secs(20));
    result.unwrap_or_else(|error| (Err(format!("it hangs: {error}")), false))
}
