//! The results of a pool's work, one by one: [`Imap`].
//!
//! ```text
//!   items ─► feeder ──spawns──► members of the pool ──exit link──► channel ─► Imap::next
//!              ▲ a credit for each item                                         │
//!              └──────────────────────────────────────────────── at the next ───┘
//! ```
//!
//! # Invariants
//! - **IMAP-1** There are as many credits as `bound` and the pool's size together. The feeder takes one before it asks
//!   for an item. The credit returns at the first call of `next` after the one that gave the item's result. So no
//!   member ever waits for the reader, and the reader may use the pool as well.
//! - **IMAP-2** Each item that was begun sends one `Progress::Result`, and the feeder one `Progress::End`, however they
//!   end: both are sent by exit links, so also after a kill, a panic and the end of their hub. So the reader never
//!   waits for a message that will not come.
//! - **IMAP-3** A result stays in its handle until it is given.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::iter::FusedIterator;
use std::panic::Location;
use std::sync::Arc;

use super::{JoinError, JoinHandle, Pool};
use crate::hub::{Hub, Kind, task};
use crate::sync::Semaphore;
use crate::sync::channel::{self, Receiver, Sender};
use crate::sys::inside::Mutex;
use crate::sys::poison::IgnorePoison;

/// The order of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Items,
    AsTheyCome,
}

/// A message to the reader.
enum Progress<T> {
    /// The member for the item of this number has ended.
    Result(usize, JoinHandle<T>),
    /// There will be no more items than were begun.
    End,
}

struct Work<T> {
    credits: Semaphore,
    begun: Mutex<Begun<T>>,
}

struct Begun<T> {
    count: usize,
    running: HashMap<usize, JoinHandle<T>>,
    /// The reader has gone.
    closed: bool,
}

impl<T: Send + 'static> Work<T> {
    fn with<R>(&self, f: impl FnOnce(&mut Begun<T>) -> R) -> R {
        f(&mut self.begun.lock().ignore_poison())
    }

    /// Keeps the handle of an item that was begun, and sends it to the reader when it ends; `false` if the reader has
    /// gone.
    fn keep(self: &Arc<Self>, handle: JoinHandle<T>, sender: &Sender<Progress<T>>) -> bool {
        let number = self.with(|begun| {
            begun.count += 1;
            begun.count - 1
        });
        let (work, sender) = (self.clone(), sender.clone());
        let end = move |_| {
            let handle = work.with(|begun| begun.running.remove(&number));
            if let Some(handle) = handle {
                // Fails if the reader has gone: the result is dropped.
                drop(sender.send(Progress::Result(number, handle)));
            }
        };
        // The member runs on this hub, so it cannot end, and the link cannot look for the handle, before this returns.
        handle.at_exit(end);
        // `closed` is read under the lock under which the reader's drop sets it and takes the handles: no handle
        // escapes its kill.
        let refused = self.with(|begun| {
            if begun.closed {
                return Some(handle);
            }
            begun.running.insert(number, handle);
            None
        });
        refused.iter().for_each(JoinHandle::kill);
        refused.is_none()
    }
}

/// The results of [`Pool::imap`] and [`Pool::imap_unordered`], one by one.
///
/// Dropping it kills the members that still run for it, and asks for no more items.
///
/// # Blocking and cancellation
/// `next` parks until there is a result. If the caller is killed or timed out there, it unwinds, and the iterator can
/// be used as before.
#[doc(alias("imap_unordered"))]
pub struct Imap<T: Send + 'static> {
    work: Arc<Work<T>>,
    progress: Receiver<Progress<T>>,
    /// The feeder, until its `Progress::End` was received.
    feeder: Option<JoinHandle<()>>,
    order: Order,
    /// Results that came before their turn.
    early: BTreeMap<usize, JoinHandle<T>>,
    given: usize,
    /// How many there will be, once that is known.
    total: Option<usize>,
    /// The panic of `items`, if that ended them.
    failure: Option<JoinError>,
    /// The credit of the result that was given last has not been returned yet (IMAP-1).
    owes: bool,
}

/// Starts the feeder.
pub(super) fn start<I, F, T>(
    pool: &Pool,
    items: I,
    bound: usize,
    f: F,
    order: Order,
    place: &'static Location<'static>,
) -> Imap<T>
where
    I: Iterator<Item: Send + 'static> + Send + 'static,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    let (sender, progress) = channel::unbounded();
    let work = Arc::new(Work {
        // At least one: without a credit the feeder could not even find out that there is no item.
        credits: Semaphore::new(bound.saturating_add(pool.size()).max(1)),
        begun: Mutex::new(Begun {
            count: 0,
            running: HashMap::new(),
            closed: false,
        }),
    });
    let end = sender.clone();
    let (pool, theirs) = (pool.clone(), work.clone());
    let feed = move || feed(&pool, items, f, &theirs, &sender);
    let feeder = match task::spawn(Hub::current(), Kind::Isolated, None, place, feed) {
        Ok(join) => JoinHandle::new(join),
        Err(error) => super::no_memory(&error),
    };
    feeder.at_exit(move |_| drop(end.send(Progress::End)));
    Imap {
        work,
        progress,
        feeder: Some(feeder),
        order,
        early: BTreeMap::new(),
        given: 0,
        total: None,
        failure: None,
        owes: false,
    }
}

/// Asks for the items, one by one, and spawns a member for each.
fn feed<I, F, T>(pool: &Pool, mut items: I, f: F, work: &Arc<Work<T>>, sender: &Sender<Progress<T>>)
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    let f = Arc::new(f);
    loop {
        work.credits.acquire().forget();
        let Some(item) = items.next() else { return };
        let f = f.clone();
        // The item is asked for before there is a place for it, so that `items` may use the pool.
        let handle = pool.spawn(move || f(item));
        if !work.keep(handle, sender) {
            return;
        }
    }
}

impl<T: Send + 'static> Imap<T> {
    /// A result that can be given now: the next of the order, or the panic of `items` in its place.
    fn at_hand(&mut self) -> Option<Result<T, JoinError>> {
        let first = self.early.first_entry();
        if let Some(first) = first.filter(|first| self.order == Order::AsTheyCome || *first.key() == self.given) {
            let handle = first.remove();
            self.given += 1;
            self.owes = true;
            // Take it without a step of the budget: a kill or time-out there would lose a result that is already in
            // hand.
            return Some(handle.join_ended());
        }
        let in_place = self.order == Order::AsTheyCome || self.total == Some(self.given);
        if in_place { self.failure.take().map(Err) } else { None }
    }

    /// The feeder has ended: the number of results is known, and so is a panic of `items`.
    fn end(&mut self) {
        self.total = Some(self.work.with(|begun| begun.count));
        let ended = self.feeder.take().map(JoinHandle::join_ended);
        self.failure = ended.and_then(Result::err);
    }
}

impl<T: Send + 'static> Iterator for Imap<T> {
    type Item = Result<T, JoinError>;

    #[track_caller]
    fn next(&mut self) -> Option<Result<T, JoinError>> {
        if std::mem::take(&mut self.owes) {
            self.work.credits.add(1);
        }
        loop {
            if let Some(result) = self.at_hand() {
                return Some(result);
            }
            if self.total == Some(self.given) {
                return None;
            }
            match self.progress.recv().ok()? {
                Progress::Result(number, handle) => _ = self.early.insert(number, handle),
                Progress::End => self.end(),
            }
        }
    }
}

impl<T: Send + 'static> FusedIterator for Imap<T> {}

impl<T: Send + 'static> Drop for Imap<T> {
    fn drop(&mut self) {
        let running = self.work.with(|begun| {
            begun.closed = true;
            std::mem::take(&mut begun.running)
        });
        self.feeder.iter().for_each(JoinHandle::kill);
        running.values().for_each(JoinHandle::kill);
    }
}

impl<T: Send + 'static> fmt::Debug for Imap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("order", &self.order)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}
