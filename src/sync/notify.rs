//! A notice for one waiter, or for all that wait now.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use super::wait::{Core, Op, State, Until};
use super::waiters::{Key, Waiters, Woken};
use crate::hub::Why;

static NOTIFY: &str = "a Notify";

struct Notices {
    /// A notice that no waiter has had yet.
    has_spare: bool,
    /// All waiters in line are to be granted.
    tells_all: bool,
    /// How often all were told. A waiter that remembers an older number was told, wherever it was at that moment: a
    /// select that polls another branch is passed over in line (SELECT-2).
    told: u64,
    waiters: Waiters,
    /// Waiters that were granted the notice for one, and have not taken it: if such a waiter leaves, the next one gets
    /// the notice.
    by_one: BTreeSet<Key>,
}

impl State for Notices {
    #[inline]
    fn may_grant(&self) -> bool {
        self.waiters.any() && (self.has_spare || self.tells_all)
    }

    fn grant_waiters(&mut self, woken: &mut Woken) {
        while self.tells_all && self.waiters.grant_first(woken) {}
        self.tells_all = false;
        if self.has_spare
            && let Some(key) = self.waiters.grant_first_key(woken)
        {
            self.has_spare = false;
            self.by_one.insert(key);
        }
    }
}

/// Waits for a notice.
#[derive(Default)]
struct Notified {
    key: Option<Key>,
    /// How often all had been told when it began to wait.
    since: Option<u64>,
}

impl Notified {
    /// Whether this waiter has the notice for one; the notice is the caller's then.
    fn takes_notice(&self, state: &mut Notices) -> bool {
        self.key.is_some_and(|key| state.by_one.remove(&key))
    }
}

impl Op<Notices> for Notified {
    type Output = ();

    fn waiters<'a>(&self, state: &'a mut Notices) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn attempt(&mut self, state: &mut Notices, granted: bool, _: &mut Woken) -> Option<()> {
        if granted {
            self.takes_notice(state);
            return Some(());
        }
        if self.since.is_some_and(|since| since != state.told) {
            return Some(());
        }
        std::mem::take(&mut state.has_spare).then_some(())
    }

    fn on_enqueue(&mut self, state: &mut Notices, key: Key) {
        self.key = Some(key);
        self.since.get_or_insert(state.told);
    }

    fn undo_grant(&mut self, state: &mut Notices) {
        if self.takes_notice(state) {
            state.has_spare = true;
        }
    }
}

/// Tells one waiter, or all that wait now, that something has happened. It holds no value and no state that one could
/// ask for: a waiter looks at what it waits for itself.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
/// use greenthread::{spawn, sync::Notify};
///
/// let (count, changed) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
/// let theirs = (count.clone(), changed.clone());
/// let waiter = spawn(move || {
///     while theirs.0.load(Ordering::Relaxed) < 3 {
///         theirs.1.wait();
///     }
/// });
/// for _ in 0..3 {
///     count.fetch_add(1, Ordering::Relaxed);
///     changed.notify_one();
/// }
/// waiter.join().unwrap();
/// ```
///
/// One notice of [`notify_one`](Self::notify_one) is kept if nothing waits; those of [`notify_all`](Self::notify_all)
/// are not. A flag that stays set is an [`Event`](super::Event), and a wait inside a lock is a
/// [`Condvar`](super::Condvar).
///
/// # Coming from tokio
/// `Notify`: `wait_async` is its `notified`, and `notify_all` is its `notify_waiters`.
pub struct Notify {
    core: Core<Notices>,
}

impl Notify {
    /// Without a notice.
    pub const fn new() -> Notify {
        Notify {
            core: Core::new(Notices {
                has_spare: false,
                tells_all: false,
                told: 0,
                waiters: Waiters::new(),
                by_one: BTreeSet::new(),
            }),
        }
    }

    /// Tells the first waiter in line; if there is none, the next wait returns at once. Several notices that nothing
    /// waits for are one.
    pub fn notify_one(&self) {
        self.core.change(|state| state.has_spare = true);
    }

    /// Tells all that wait now.
    #[doc(alias = "notify_waiters")]
    pub fn notify_all(&self) {
        self.core.change(|state| {
            state.told += 1;
            state.tells_all = state.waiters.any();
        });
    }

    /// Waits for a notice.
    ///
    /// # Blocking and cancellation
    /// Parks unless a notice was kept. A kill or time-out unwinds here, and a notice for one goes to the next waiter.
    #[track_caller]
    pub fn wait(&self) {
        self.wait_until(Until::Ever);
    }

    /// Waits for a notice for at most `timeout`; whether there was one.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Until::After(timeout))
    }

    /// Waits for a notice until `deadline`; whether there was one.
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> bool {
        self.wait_until(Until::At(deadline))
    }

    #[track_caller]
    fn wait_until(&self, until: Until) -> bool {
        self.core
            .block(&mut Notified::default(), until, Why::new(&NOTIFY, 0))
            .is_some()
    }

    /// Like [`wait`](Self::wait), for an `async` function, and for `select!`. If the future is dropped before it is
    /// ready, a notice for one goes to the next waiter.
    ///
    /// A notice for all reaches it from this call on, so that it may be made before a look at what it waits for. It
    /// gets in line for a notice for one when it is first polled.
    #[doc(alias = "notified")]
    pub fn wait_async(&self) -> impl Future<Output = ()> + use<'_> {
        let since = Some(self.core.look(|state| state.told));
        self.core.future(Notified { key: None, since })
    }
}

impl Default for Notify {
    fn default() -> Notify {
        Notify::new()
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").finish_non_exhaustive()
    }
}
