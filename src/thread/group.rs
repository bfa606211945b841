//! Green threads as a group: wait for all, kill all.
//!
//! The group knows its members by their [`Thread`]s; to join a member for its result, keep the handle. Each member
//! leaves by an exit link, so when it leaves it has truly ended, or is lost.
//!
//! # Invariants
//! - **GROUP-1** What a member leaves behind (its place, the event that wakes those that wait for the last) is dropped
//!   or set outside of the lock: that may wake a waiter, and wakers are the user's.
//! - **GROUP-2** A caller that waits for the group to be empty has the `Event` of that time: a member that comes after
//!   the group was empty does not prolong the wait.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pool::Place;
use super::{JoinError, JoinHandle, Thread, ThreadId};
use crate::hub::{Kind, Why};
use crate::sync::{Event, Until};
use crate::sys::inside::Mutex;
use crate::sys::poison::IgnorePoison;

static MEMBERS: &str = "the end of a Group's members";

/// Green threads that are waited for, or killed, together.
///
/// ```
/// use greenthread::thread::{self, Group};
///
/// let group = Group::new();
/// let six = group.spawn(|| 6); // its handle is the caller's, to be joined or dropped
/// group.spawn_local(|| thread::park());
/// assert_eq!((group.len(), six.join().unwrap()), (2, 6));
/// group.kill();
/// assert!(group.is_empty());
/// ```
///
/// A member leaves when it ends. [`add`](Self::add) makes green threads members, those of other hubs too. A clone is
/// the same group. The members run on when the group is dropped; with a [`scope`](crate::scope()) they do not.
///
/// # Coming from Python
/// `gevent.pool.Group`.
#[derive(Clone, Default)]
pub struct Group {
    shared: Arc<Mutex<State>>,
    stack_size: Option<usize>,
}

#[derive(Default)]
struct State {
    members: HashMap<ThreadId, Member>,
    /// The number of members that there ever were.
    added: u64,
    /// The number of calls to kill that wait now: a green thread that becomes a member meanwhile is killed too.
    killing: usize,
    failure: Option<JoinError>,
    /// Set when the last member leaves; taken out then, so that later waiters make a new one (GROUP-2).
    last: Option<Arc<Event>>,
}

struct Member {
    number: u64,
    thread: Thread,
    /// It was asked to die.
    dying: bool,
    /// The member's place in a pool, if it has one.
    _place: Option<Place>,
}

fn with<R>(shared: &Mutex<State>, f: impl FnOnce(&mut State) -> R) -> R {
    f(&mut shared.lock().ignore_poison())
}

impl Group {
    /// A group without members.
    pub fn new() -> Group {
        Group::default()
    }

    /// Sets the size of its members' stacks in usable bytes, for this handle and its later clones.
    ///
    /// ```
    /// use greenthread::thread::Group;
    /// let deep = Group::new().stack_size(8 << 20);
    /// assert_eq!(deep.spawn(|| [1_u8; 4 << 20].len()).join().unwrap(), 4 << 20);
    /// ```
    ///
    /// Without it, stacks have the sizes of [`spawn`](super::spawn) and [`spawn_local`](super::spawn_local). A size of
    /// zero, or of more than 64 GiB, makes each spawn panic.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Group {
        self.stack_size = Some(bytes);
        self
    }

    /// Spawns a member, like [`spawn`](super::spawn).
    ///
    /// # Panics
    /// When there is no memory for its stack.
    ///
    /// # Coming from Python
    /// `group.spawn(f, *args)`.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.start(Kind::Isolated, f, None)
    }

    /// Spawns a member, which holds `place` while it is a member.
    #[track_caller]
    pub(super) fn start<F, T>(&self, kind: Kind, f: F, place: Option<Place>) -> JoinHandle<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let handle = super::start_sized(kind, self.stack_size, f);
        self.enter(&handle, place);
        handle
    }

    /// Spawns a member, like [`spawn_local`](super::spawn_local).
    ///
    /// # Panics
    /// When there is no memory for its stack.
    #[track_caller]
    pub fn spawn_local<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.start(Kind::Local, f, None)
    }

    /// Makes a green thread a member until it ends. Does nothing if it is a member already. A green thread that has
    /// ended leaves again at once.
    pub fn add<T>(&self, handle: &JoinHandle<T>) {
        self.enter(handle, None);
    }

    /// Adds a member, which holds `place` while it is a member.
    pub(super) fn enter<T>(&self, handle: &JoinHandle<T>, mut place: Option<Place>) {
        let thread = handle.thread();
        let id = thread.id();
        // A kill counts itself in `killing` before it lists the members, both under this lock. So either the kill finds
        // the new member in its list, or this call sees the count and kills it.
        let dies = with(&self.shared, |state| {
            if state.members.contains_key(&id) {
                return None;
            }
            state.added += 1;
            let member = Member {
                number: state.added,
                thread: thread.clone(),
                dying: state.killing > 0,
                // Taken only here: if the green thread is a member already, `place` is dropped outside of the lock
                // (GROUP-1).
                _place: place.take(),
            };
            state.members.insert(id, member);
            Some(state.killing > 0)
        });
        let Some(dies) = dies else { return };
        // Linked after the insertion: if the green thread has ended, the link runs at once and must find the member.
        let shared = self.shared.clone();
        handle.at_exit(move |ended| _ = leave(&shared, id, ended.err()));
        if dies {
            thread.kill();
        }
    }

    /// Whether this green thread is a member.
    pub fn contains(&self, thread: &Thread) -> bool {
        with(&self.shared, |state| state.members.contains_key(&thread.id()))
    }

    /// Takes a green thread out of the group, and returns whether it was a member; it runs on as if it had never been
    /// one.
    pub fn discard(&self, thread: &Thread) -> bool {
        leave(&self.shared, thread.id(), None)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        with(&self.shared, |state| state.members.len())
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members, in the order in which they joined.
    pub fn members(&self) -> Vec<Thread> {
        let mut members = with(&self.shared, |state| {
            let members = state.members.values();
            members
                .map(|member| (member.number, member.thread.clone()))
                .collect::<Vec<_>>()
        });
        members.sort_unstable_by_key(|(number, _)| *number);
        members.into_iter().map(|(_, thread)| thread).collect()
    }

    /// Waits until there are no members. A panic of a member goes to its handle, or is reported.
    ///
    /// # Panics
    /// If the caller is a member: it would wait for itself.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and the members go on.
    ///
    /// # Coming from Python
    /// `group.join()`.
    #[track_caller]
    pub fn join(&self) {
        self.refuse_members();
        self.wait(Until::Ever);
    }

    /// Like [`join`](Self::join), but for at most `timeout`; returns whether there are none left.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    #[track_caller]
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        self.refuse_members();
        self.wait(Until::After(timeout))
    }

    /// Like [`join`](Self::join), but until `deadline`; returns whether there are none left.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    #[track_caller]
    pub fn join_deadline(&self, deadline: Instant) -> bool {
        self.refuse_members();
        self.wait(Until::At(deadline))
    }

    /// Like [`join`](Self::join), and returns the error of the first member that panicked or was lost since the last
    /// call.
    ///
    /// ```
    /// use greenthread::thread::Group;
    /// let group = Group::new();
    /// let failing = group.spawn(|| panic!("no"));
    /// group.spawn(|| ());
    /// let error = group.join_raise().unwrap_err();
    /// assert!(error.is_panic()); // its payload is with the handle
    /// assert_eq!(failing.join().unwrap_err().into_panic().downcast_ref(), Some(&"no"));
    /// assert!(group.join_raise().is_ok());
    /// ```
    ///
    /// # Errors
    /// That member's error. A kill does not count as a failure.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    ///
    /// # Coming from Python
    /// `group.join(raise_error=True)`.
    #[track_caller]
    pub fn join_raise(&self) -> Result<(), JoinError> {
        self.join();
        with(&self.shared, |state| state.failure.take()).map_or(Ok(()), Err)
    }

    /// Kills all members, and waits until there are none.
    ///
    /// A green thread that becomes a member meanwhile is killed too. Each member is asked once, however many calls
    /// there are. A member that catches the kill lives on, and this call waits for it. If the caller is a member, it is
    /// killed too, and unwinds here.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here; the members that were asked still die.
    ///
    /// # Coming from Python
    /// `group.kill()`.
    #[track_caller]
    pub fn kill(&self) {
        self.kill_and(Until::Ever);
    }

    /// Like [`kill`](Self::kill), but waits for at most `timeout`; returns whether there are none left.
    #[track_caller]
    pub fn kill_timeout(&self, timeout: Duration) -> bool {
        self.kill_and(Until::After(timeout))
    }

    /// Like [`kill`](Self::kill), but waits until `deadline`; returns whether there are none left.
    #[track_caller]
    pub fn kill_deadline(&self, deadline: Instant) -> bool {
        self.kill_and(Until::At(deadline))
    }

    #[track_caller]
    fn kill_and(&self, until: Until) -> bool {
        let _killing = Killing::new(&self.shared);
        let asked = with(&self.shared, |state| {
            let fresh = state.members.values_mut().filter(|member| !member.dying);
            fresh
                .map(|member| {
                    member.dying = true;
                    member.thread.clone()
                })
                .collect::<Vec<_>>()
        });
        asked.iter().for_each(Thread::kill);
        self.wait(until)
    }

    /// Waits for the last member to leave; returns whether it has.
    #[track_caller]
    fn wait(&self, until: Until) -> bool {
        // Under the lock `leave` takes the event when the last member goes: so an event made here is set by a later
        // `leave`.
        let last = with(&self.shared, |state| {
            let some = !state.members.is_empty();
            some.then(|| state.last.get_or_insert_default().clone())
        });
        last.is_none_or(|last| last.wait_for(until, Why::new(&MEMBERS, 0)))
    }

    #[track_caller]
    fn refuse_members(&self) {
        assert!(
            self.is_empty() || !self.contains(&super::current()),
            "a member of a Group cannot join the Group: it would wait for itself"
        );
    }
}

/// Takes a member out; returns whether it was one.
fn leave(shared: &Mutex<State>, id: ThreadId, error: Option<JoinError>) -> bool {
    let gone = with(shared, |state| {
        let member = state.members.remove(&id)?;
        let mut spare = error.filter(|error| !error.is_killed());
        if state.failure.is_none() {
            state.failure = spare.take();
        }
        let last = state.last.take_if(|_| state.members.is_empty());
        Some((member, spare, last))
    });
    // Outside of the lock: the place and the event wake waiters (GROUP-1), and a panic's payload is the user's to drop.
    let Some((member, spare, last)) = gone else {
        return false;
    };
    drop((member, spare));
    last.iter().for_each(|last| last.set());
    true
}

/// A kill that is under way.
struct Killing<'a>(&'a Mutex<State>);

impl Killing<'_> {
    fn new(shared: &Mutex<State>) -> Killing<'_> {
        with(shared, |state| state.killing += 1);
        Killing(shared)
    }
}

impl Drop for Killing<'_> {
    fn drop(&mut self) {
        with(self.0, |state| state.killing -= 1);
    }
}

impl IntoIterator for &Group {
    type Item = Thread;
    type IntoIter = std::vec::IntoIter<Thread>;

    /// The [`members`](Group::members).
    fn into_iter(self) -> Self::IntoIter {
        self.members().into_iter()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("members", &self.len()).finish()
    }
}
