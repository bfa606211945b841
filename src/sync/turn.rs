//! Turns for work that is done once: one caller at a time has the turn, until one of them has finished the work.
//!
//! ```text
//!          begin                       finish
//!   Free ────────► Taken(owner) ──────────────────► Done      all waiters continue
//!     ▲                  │
//!     └──────────────────┘ dropped (panic, kill, error): the next in line has the turn
//! ```
#![forbid(unsafe_code)]

use std::future::Future;

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::{Why, interrupt};

/// The owner of a turn that a future has. A future may be polled by any task, so its owner is not known.
const NOBODY: u64 = 0;

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Free,
    Taken(u64),
    Done,
}

struct Line {
    phase: Phase,
    /// Whether a caller panicked while it had the turn, if its panics count (`Turn::poisons`).
    is_poisoned: bool,
    /// Callers that want to do the work.
    comers: Waiters,
    /// Callers that only wait until the work is done.
    onlookers: Waiters,
}

impl State for Line {
    fn settle(&mut self, woken: &mut Woken) {
        // Nothing is left to do, so all learn that at once.
        while self.phase == Phase::Done && self.comers.grant_first(woken) {}
        // One turn at a time. The turn stays `Free`, but set aside, until the granted caller takes it.
        if self.phase == Phase::Free && self.comers.granted() == 0 {
            self.comers.grant_first(woken);
        }
        // A poisoned turn may never be finished: tell those that only wait.
        while (self.phase == Phase::Done || self.is_poisoned) && self.onlookers.grant_first(woken) {}
    }
}

/// Takes the turn, or finds that the work is done.
struct Come(u64);

enum Came {
    Mine { is_poisoned: bool },
    Recursive,
    Done,
}

impl Op<Line> for Come {
    type Output = Came;

    // A turn is held while the work is done, which may take many parks. So it is a step of a `future(..)` branch, and
    // never a branch of its own.
    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Line) -> &'a mut Waiters {
        &mut state.comers
    }

    fn attempt(&mut self, state: &mut Line, granted: bool, _: &mut Woken) -> Option<Came> {
        match state.phase {
            Phase::Done => Some(Came::Done),
            // The caller has the turn and has come back to it from within the work: it would wait for itself.
            Phase::Taken(owner) if owner == self.0 && owner != NOBODY => Some(Came::Recursive),
            Phase::Taken(_) => None,
            // Set aside for the caller that was granted it (W1).
            Phase::Free if !granted && state.comers.granted() > 0 => None,
            Phase::Free => {
                state.phase = Phase::Taken(self.0);
                Some(Came::Mine {
                    is_poisoned: state.is_poisoned,
                })
            }
        }
    }
}

/// Waits until the work is done, or the turn is poisoned.
struct Look;

impl Op<Line> for Look {
    type Output = bool;

    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Line) -> &'a mut Waiters {
        &mut state.onlookers
    }

    fn attempt(&mut self, state: &mut Line, _: bool, _: &mut Woken) -> Option<bool> {
        match state.phase {
            Phase::Done => Some(true),
            Phase::Free | Phase::Taken(_) => state.is_poisoned.then_some(false),
        }
    }
}

/// Gives out turns until one was [finished](Turn::finish).
pub(super) struct Turns {
    core: Core<Line>,
}

/// The turn: the right and the duty to do the work. Dropping it unfinished gives the turn to the next caller in line.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    /// Whether an earlier owner of the turn panicked.
    pub(super) is_poisoned: bool,
    poisons: bool,
    is_done: bool,
}

impl Turns {
    pub(super) const fn new() -> Turns {
        Turns {
            core: Core::new(Line {
                phase: Phase::Free,
                is_poisoned: false,
                comers: Waiters::new(),
                onlookers: Waiters::new(),
            }),
        }
    }

    fn turn(&self, came: Option<Came>) -> Option<Turn<'_>> {
        match came? {
            Came::Mine { is_poisoned } => Some(Turn {
                turns: self,
                is_poisoned,
                poisons: false,
                is_done: false,
            }),
            Came::Done | Came::Recursive => None,
        }
    }

    /// Waits for the turn; `None` if the work is done.
    ///
    /// # Panics
    /// If the caller has the turn already.
    #[track_caller]
    pub(super) fn begin(&self, what: &'static &'static str) -> Option<Turn<'_>> {
        let me = crate::hub::lock_owner();
        let came = self.core.block(&mut Come(me), Until::Ever, Why::new(what, 0));
        if let Some(Came::Recursive) = came {
            panic!("{what} is initialised by this very thread, which would wait for itself");
        }
        self.turn(came)
    }

    /// The same for a future. One future cannot be told from another, so recursion is not detected.
    pub(super) async fn begin_async(&self) -> Option<Turn<'_>> {
        let came = self.core.future(Come(NOBODY)).await;
        self.turn(Some(came))
    }

    /// Waits until the work is done (`true`), or the turn is poisoned (`false`); `None` if `until` came first.
    #[track_caller]
    pub(super) fn wait(&self, until: Until, what: &'static &'static str) -> Option<bool> {
        self.core.block(&mut Look, until, Why::new(what, 0))
    }

    pub(super) fn wait_async(&self) -> impl Future<Output = bool> + use<'_> {
        self.core.future(Look)
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.core.look(|state| state.is_poisoned && state.phase != Phase::Done)
    }
}

impl Turn<'_> {
    /// From now on a panic poisons the turn. A kill or a time-out, which unwind too, do not.
    pub(super) fn poisons(&mut self) {
        // A caller that unwinds already would poison the turn for a panic that is not the work's.
        self.poisons = !std::thread::panicking();
    }

    /// The work is done.
    pub(super) fn finish(mut self) {
        self.is_done = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let poisons = self.poisons && std::thread::panicking() && !interrupt::unwinds();
        // `settle` then grants the next caller, or all of them once the work is done.
        self.turns.core.change(|state| {
            state.phase = if self.is_done { Phase::Done } else { Phase::Free };
            state.is_poisoned |= poisons && !self.is_done;
        });
    }
}
