//! Who does what is to be done once: one at a time has the turn, until one of them has done it.
//!
//! ```text
//!          begin                       finish
//!   Free ────────► Taken(by whom) ────────────────► Done      all go on
//!     ▲                  │
//!     └──────────────────┘ dropped (panic, kill, error): the next in line has it
//! ```
#![forbid(unsafe_code)]

use std::future::Future;

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::interrupt;
use crate::hub::park::Why;

/// Whom a future's turn belongs to: it may be polled by anybody.
const NOBODY: u64 = 0;

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Free,
    Taken(u64),
    Done,
}

struct Line {
    phase: Phase,
    /// Somebody panicked while having the turn, where that counts.
    is_poisoned: bool,
    /// Who would do it.
    comers: Waiters,
    /// Who waits for others to do it.
    onlookers: Waiters,
}

impl State for Line {
    fn settle(&mut self, woken: &mut Woken) {
        while self.phase == Phase::Done && self.comers.grant_first(woken) {}
        if self.phase == Phase::Free && self.comers.granted() == 0 {
            self.comers.grant_first(woken);
        }
        while (self.phase == Phase::Done || self.is_poisoned) && self.onlookers.grant_first(woken) {}
    }
}

/// To do it, or to learn that it was done.
struct Come(u64);

enum Came {
    Mine { is_poisoned: bool },
    Recursive,
    Done,
}

impl Op<Line> for Come {
    type Output = Came;

    // Its turn takes long: it is no branch of a select, but a step of one.
    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Line) -> &'a mut Waiters {
        &mut state.comers
    }

    fn attempt(&mut self, state: &mut Line, granted: bool, _: &mut Woken) -> Option<Came> {
        match state.phase {
            Phase::Done => Some(Came::Done),
            Phase::Taken(owner) if owner == self.0 && owner != NOBODY => Some(Came::Recursive),
            Phase::Taken(_) => None,
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

/// To see it done, or poisoned.
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

/// Gives out turns until one has [finished](Turn::finish).
pub(super) struct Turns {
    core: Core<Line>,
}

/// The right and duty to do it. Dropped, it goes to the next in line.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    /// Whether one before it panicked.
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

    /// Waits for the turn; none: it was done.
    ///
    /// # Panics
    /// If who calls has the turn already.
    #[track_caller]
    pub(super) fn begin(&self, what: &'static &'static str) -> Option<Turn<'_>> {
        let me = crate::hub::who();
        let came = self.core.block(&mut Come(me), Until::Ever, Why::new(what, 0));
        if let Some(Came::Recursive) = came {
            panic!("{what} is initialised by this very thread, which would wait for itself");
        }
        self.turn(came)
    }

    /// The same for a future, which cannot be told from another.
    pub(super) async fn begin_async(&self) -> Option<Turn<'_>> {
        let came = self.core.future(Come(NOBODY)).await;
        self.turn(Some(came))
    }

    /// Waits until it is done, `true`, or poisoned.
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
    /// From now on a panic poisons; but not a kill or a time-out, which unwind too.
    pub(super) fn poisons(&mut self) {
        self.poisons = !std::thread::panicking();
    }

    /// It is done.
    pub(super) fn finish(mut self) {
        self.is_done = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let poisons = self.poisons && std::thread::panicking() && !interrupt::unwinds();
        self.turns.core.change(|state| {
            state.phase = if self.is_done { Phase::Done } else { Phase::Free };
            state.is_poisoned |= poisons && !self.is_done;
        });
    }
}
