//! What `Once`, `OnceLock` and `LazyLock` share: one caller at a time claims the initialisation, until one has
//! finished.
//!
//! ```text
//!          begin                         finish
//!   Free ────────► Claimed(owner) ──────────────────► Done      all waiters continue
//!     ▲                  │
//!     └──────────────────┘ dropped (panic, kill, error): the next in line has the claim
//! ```
#![forbid(unsafe_code)]

use std::future::Future;

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::{Why, interrupt};

/// The owner of a claim that a future has. A future may be polled by any task, so its owner is not known.
const UNKNOWN: u64 = 0;

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Free,
    Claimed(u64),
    Done,
}

struct Progress {
    phase: Phase,
    /// Whether a caller panicked while it had the claim, if its panics count (`ClaimGuard::poisons`).
    is_poisoned: bool,
    /// Callers that want to initialise.
    initializers: Waiters,
    /// Callers that only wait until that is done.
    observers: Waiters,
}

impl State for Progress {
    fn grant_waiters(&mut self, woken: &mut Woken) {
        // Nothing is left to do, so all learn that at once.
        while self.phase == Phase::Done && self.initializers.grant_first(woken) {}
        // One claim at a time. It stays `Free`, but set aside, until the granted caller takes it.
        if self.phase == Phase::Free && self.initializers.granted() == 0 {
            self.initializers.grant_first(woken);
        }
        // A poisoned initialisation may never be finished: tell the callers that only wait.
        while (self.phase == Phase::Done || self.is_poisoned) && self.observers.grant_first(woken) {}
    }
}

/// Claims the initialisation, or finds that it is done.
struct Claim(u64);

enum Claimed {
    Granted { is_poisoned: bool },
    Recursive,
    Done,
}

impl Op<Progress> for Claim {
    type Output = Claimed;

    // A claim is held during the initialisation, which may take many parks. So it is a step of a `future(..)` branch,
    // and never a branch of its own.
    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Progress) -> &'a mut Waiters {
        &mut state.initializers
    }

    fn attempt(&mut self, state: &mut Progress, granted: bool, _: &mut Woken) -> Option<Claimed> {
        match state.phase {
            Phase::Done => Some(Claimed::Done),
            // The caller has the claim and comes back from within the initialisation: it would wait for itself.
            Phase::Claimed(owner) if owner == self.0 && owner != UNKNOWN => Some(Claimed::Recursive),
            Phase::Claimed(_) => None,
            // Set aside for the caller that was granted it (WAIT-1).
            Phase::Free if !granted && state.initializers.granted() > 0 => None,
            Phase::Free => {
                state.phase = Phase::Claimed(self.0);
                Some(Claimed::Granted {
                    is_poisoned: state.is_poisoned,
                })
            }
        }
    }
}

/// Waits until the initialisation is done or poisoned.
struct Observe;

impl Op<Progress> for Observe {
    type Output = bool;

    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Progress) -> &'a mut Waiters {
        &mut state.observers
    }

    fn attempt(&mut self, state: &mut Progress, _: bool, _: &mut Woken) -> Option<bool> {
        match state.phase {
            Phase::Done => Some(true),
            Phase::Free | Phase::Claimed(_) => state.is_poisoned.then_some(false),
        }
    }
}

/// Gives out claims until one was [finished](ClaimGuard::finish).
pub(super) struct OnceCore {
    core: Core<Progress>,
}

/// The right to initialise. Dropping it unfinished gives the claim to the next caller in line.
pub(super) struct ClaimGuard<'a> {
    once: &'a OnceCore,
    /// Whether an earlier owner of the claim panicked.
    pub(super) is_poisoned: bool,
    poisons: bool,
    is_done: bool,
}

impl OnceCore {
    pub(super) const fn new() -> OnceCore {
        OnceCore {
            core: Core::new(Progress {
                phase: Phase::Free,
                is_poisoned: false,
                initializers: Waiters::new(),
                observers: Waiters::new(),
            }),
        }
    }

    fn claim(&self, claimed: Option<Claimed>) -> Option<ClaimGuard<'_>> {
        match claimed? {
            Claimed::Granted { is_poisoned } => Some(ClaimGuard {
                once: self,
                is_poisoned,
                poisons: false,
                is_done: false,
            }),
            Claimed::Done | Claimed::Recursive => None,
        }
    }

    /// Waits for the claim; `None` if the initialisation is done.
    ///
    /// # Panics
    /// If the caller has the claim already.
    #[track_caller]
    pub(super) fn begin(&self, what: &'static &'static str) -> Option<ClaimGuard<'_>> {
        let me = crate::hub::lock_owner();
        let claimed = self.core.block(&mut Claim(me), Until::Ever, Why::new(what, 0));
        if let Some(Claimed::Recursive) = claimed {
            panic!(
                "{what} is initialised by this very thread, which would wait for itself: its function must not ask for it"
            );
        }
        self.claim(claimed)
    }

    /// The same for a future. One future cannot be told from another, so recursion is not detected.
    pub(super) async fn begin_async(&self) -> Option<ClaimGuard<'_>> {
        let claimed = self.core.future(Claim(UNKNOWN)).await;
        self.claim(Some(claimed))
    }

    /// Waits until the initialisation is done (`true`) or poisoned (`false`); `None` if `until` came first.
    #[track_caller]
    pub(super) fn wait(&self, until: Until, what: &'static &'static str) -> Option<bool> {
        self.core.block(&mut Observe, until, Why::new(what, 0))
    }

    pub(super) fn wait_async(&self) -> impl Future<Output = bool> + use<'_> {
        self.core.future(Observe)
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.core.look(|state| state.is_poisoned && state.phase != Phase::Done)
    }
}

impl ClaimGuard<'_> {
    /// From now on a panic poisons the initialisation. A kill or a time-out, which unwind too, do not.
    pub(super) fn poisons(&mut self) {
        // A caller that unwinds already would poison it for a panic that is not the initialisation's.
        self.poisons = !std::thread::panicking();
    }

    /// The initialisation is done.
    pub(super) fn finish(mut self) {
        self.is_done = true;
    }
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        let poisons = self.poisons && std::thread::panicking() && !interrupt::unwinds();
        // `grant_waiters` then grants the next caller, or all of them once it is done.
        self.once.core.change(|state| {
            state.phase = if self.is_done { Phase::Done } else { Phase::Free };
            state.is_poisoned |= poisons && !self.is_done;
        });
    }
}
