//! Ending all green threads of a hub.
#![forbid(unsafe_code)]

use std::fmt;
use std::thread::panicking;
use std::time::Duration;

use super::interrupt;
use super::park::{Parker, yield_now};
use super::report::line;
use super::scheduler::Hub;
use super::task::block::{Task, TaskRef};
use super::waiter::{Mode, Wake, Why};

/// Kills all green threads of this hub but the caller, waits for at most `patience`, and reports those that did not
/// end.
///
/// ```
/// use greenthread::{hub, spawn, thread};
/// use std::time::Duration;
/// let sleeper = spawn(thread::park);
/// hub::shutdown(Duration::from_secs(1)).unwrap();
/// assert!(sleeper.join().unwrap_err().is_killed());
/// ```
///
/// # Errors
/// [`Survivors`], with a line for each green thread that is still there.
///
/// # Blocking and cancellation
/// Parks. It also waits in a destructor while a local green thread or a native stack unwinds. But then the green
/// threads that share its thread-locals (the local ones) cannot be killed: they are reported as survivors at once.
#[track_caller]
pub fn shutdown(patience: Duration) -> Result<(), Survivors> {
    if Hub::has_ended() {
        return Ok(());
    }
    let hub = Hub::current();
    hub.check_can_park();
    let me = hub.running();
    // A caller that unwinds (this is a destructor, then) waits all the same. std's panic count is a thread-local: while
    // the caller waits, the green threads that share its context see `panicking() == true`, and a kill cannot unwind
    // them.
    let unwinding = panicking();
    let shares = |task: &Task| unwinding && !task.is_alone_in_context() && !me.is_alone_in_context();
    // The caller is recognised by its number: a stackless task and the runner that polls it have the same.
    let others = || hub.tasks().into_iter().filter(|task| task.id() != me.id());
    let end = hub.deadline_in(patience);
    let mut pause = Duration::from_millis(1);
    loop {
        // Asked anew in each round: the killed green threads may have spawned others.
        let left: Vec<_> = others().collect();
        let (spared, dying): (Vec<_>, Vec<_>) = left.into_iter().partition(|task| shares(task));
        for task in &dying {
            interrupt::kill_here(hub, TaskRef::new(task), task.id());
        }
        let live = hub.counters.live.get();
        if !dying.is_empty() {
            // Let the killed green threads run at least once, even if the time is over already.
            give_way(hub, None, dying.len(), unwinding);
        }
        if dying.is_empty() || hub.clock.now() >= end {
            return Survivors::of(if dying.is_empty() { spared } else { others().collect() });
        }
        if hub.counters.live.get() == live {
            // None has ended, so they wait for something in their destructors: sleep a little.
            give_way(hub, Some(hub.deadline_in(pause).min(end)), dying.len(), unwinding);
            // Each round visits the green threads of all hubs of the process, so look less and less often.
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

/// Lets other tasks run: once through the ready queue, or until `until` if that is given.
fn give_way(hub: &'static Hub, until: Option<u64>, dying: usize, unwinding: bool) {
    static WHY: &str = "green threads to die (shutdown)";
    if until.is_none() && !unwinding {
        let _ = yield_now();
        return;
    }
    // While unwinding `yield_now` would return at once. So park with a deadline, which is "now" for a single round.
    let until = until.unwrap_or_else(|| hub.clock.now());
    let mode = if unwinding { Mode::Must } else { Mode::Cancel };
    if Parker::new().park(Some(until), mode, Why::new(&WHY, dying)) == Wake::Interrupted {
        interrupt::raise();
    }
}

/// Green threads that [`shutdown`] could not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    lines: Vec<String>,
}

impl Survivors {
    fn of(left: Vec<&'static Task>) -> Result<(), Survivors> {
        let lines: Vec<_> = left.into_iter().map(line).collect();
        if lines.is_empty() {
            Ok(())
        } else {
            Err(Survivors { lines })
        }
    }

    /// One line for each: its name, what it waits for, and where it was spawned.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for Survivors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not all green threads have ended; {} left:", self.lines.len())?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Survivors {}
