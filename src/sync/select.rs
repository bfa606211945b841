//! Waiting for the first of several operations: [`select!`](crate::select!), and [`Select`] for a number of them that
//! is known only at run time.
#![forbid(unsafe_code)]

// # Exactly one branch
//
// All branches of a select share one word (`Choice`), and each waits in the line of its own primitive. What is granted
// to a branch there is taken from other waiters: a message, room for one, a permit, a lock. So a branch may be granted
// only if no other branch of its select has been.
//
// - `Open`: all branches wait. A granter may set the word to `Taken(i)`, and the select may set it to `Trying`.
// - `Taken(i)`: branch `i` was granted, or is being granted under the lock of its primitive. The select sets the word
//   to `Trying` when it has what was granted; the granter sets it back to `Open` if it cannot grant after all.
// - `Trying`: the select polls a branch, or has its winner. Only the select sets it back to `Open`, if that branch is
//   not ready.
//
// - **SELECT-1** *A granter* holds the lock of the primitive. It sets the word from `Open` to `Taken(i)` before it
//   takes the branch out of the line, gives it anything, or takes anything from it (a message that a `send` has left
//   there). Then it wakes the select.
// - **SELECT-2** *A granter that loses* (the word is not `Open`) takes the branch out of the line without a grant, goes
//   on to the next waiter in line, and wakes the select after unlocking: the select may have been `Trying`, and must
//   look again. Whether a branch was granted is known only under its primitive's lock (`Waiters::is_granted`), never
//   from the word.
// - **SELECT-3** *The select* sets the word from `Open` to `Trying` before it polls any branch. If that branch is ready
//   the word stays `Trying`, so that nothing is granted from then on. If it is not, the word is `Open` again. If the
//   word is `Taken(i)`, the select polls that branch and no other.
// - **SELECT-4** *Two selects that wait for each other*, one to send and one to receive: the second one to come is
//   `Trying`, finds the first in line, and acts as a granter to it. If both are `Trying`, each passes over the other,
//   and wakes it by SELECT-2.
// - **SELECT-5** *One select that waits for itself*, to send and to receive on one channel: a granter that is a branch
//   of the same select as the waiter leaves that waiter in line, and asks the next one.
// - **SELECT-6** *A barrier* is granted to all or to none: the last to arrive claims all that wait, and releases them
//   (`Taken(i)` to `Open`) if too few can be claimed. A select that another granter found claimed meanwhile was woken
//   by SELECT-2.
// - **SELECT-7** An operation that takes nothing from others (an event, a promise, the end of a queue's jobs, a notice
//   of a `Condvar`) is granted without the word, and the grant has no effect if another branch wins. So an event that
//   is set and cleared at once is not missed while the select polls another branch. Sockets, timers and ends of green
//   threads only wake; SELECT-3 covers them.
// - **SELECT-8** *When its time is over* the select sets the word to `Trying` for good. If the word is `Taken(i)`, the
//   branch was granted in time. A select that must not wait at all is `Trying` from its first branch to its last.
// - **SELECT-9** *A plain OS thread* waits as a green thread does, on its native stack. *A future*
//   (`Select::wait_async`) has a word as well; the waker of its task is stored beside the word, and the first wake
//   takes it.
// - **SELECT-10** A select is passed over if its task is lost (its OS thread has ended), as any lost waiter is.
//
// A branch that is a future of several steps has its steps granted one by one. The word is `Open` again after each
// (`Taken(i)`, `Trying`, `Open`), so what was granted to a step is lost if another branch wins. `future(..)` is the
// only branch with this exception.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use super::wait::{Until, spend};
use crate::hub::{Choice, Hub, Taken, Why, budget, poll_until};

static SELECT: &str = "the first of several (select)";

/// How long a `select!` waits.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// Not at all.
    Now,
    Never,
    After(Duration),
}

/// A branch as the macro makes it: polls the branch, and stores its output if it is ready.
type Branch<'a> = &'a mut dyn FnMut(&mut Context<'_>) -> bool;

/// Polls the branch with this number; whether it is ready.
type PollBranch<'a> = &'a mut dyn FnMut(usize, &mut Context<'_>) -> bool;

/// Shuffles the branches: each order is equally likely.
fn shuffle<T>(branches: &mut [T]) {
    for last in (1..branches.len()).rev() {
        let at = ((random() >> 32) * (last as u64 + 1)) >> 32;
        branches.swap(last, at as usize);
    }
}

/// The next random number; it comes from the hub's seed, if the hub has one.
fn random() -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    static NEXT: AtomicU64 = AtomicU64::new(STEP);
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    let number = Hub::try_current().and_then(Hub::seeded).unwrap_or_else(|| {
        let next = STATE.try_with(|state| {
            if state.get() == 0 {
                // Each OS thread starts at a different point of the sequence.
                state.set(NEXT.fetch_add(STEP << 20, Ordering::Relaxed));
            }
            state.set(state.get().wrapping_add(STEP));
            state.get()
        });
        // In the last destructors of an OS thread the quality does not matter.
        next.unwrap_or(STEP)
    });
    // The output function of splitmix64.
    let mixed = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// One select under way.
///
/// It is made before its branches and dropped after them. No branch has a waker of it then, and its parts can serve the
/// next select.
#[doc(hidden)]
pub struct Selecting {
    choice: Arc<Choice>,
    waker: Waker,
}

#[cfg(not(all(test, loom)))]
thread_local! {
    /// Kept for the next select, so that a select allocates nothing.
    static SPARE: Cell<Option<(Arc<Choice>, Waker)>> = const { Cell::new(None) };
}

#[cfg(all(test, loom))]
loom::thread_local! {
    static SPARE: Cell<Option<(Arc<Choice>, Waker)>> = Cell::new(None);
}

impl Selecting {
    pub fn begin() -> Selecting {
        // The thread-local is gone in destructors that run after its own.
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        let (choice, waker) = spare.unwrap_or_else(|| {
            let choice = Arc::new(Choice::new());
            let waker = choice.clone().into_waker();
            (choice, waker)
        });
        Selecting { choice, waker }
    }

    /// Polls the branches, in random order, until one is ready; whether one was.
    #[track_caller]
    pub fn wait_any(&self, limit: Limit, branches: &mut [Branch<'_>]) -> bool {
        shuffle(branches);
        self.wait(limit, branches.len(), &mut |number, context| branches[number](context))
    }

    #[track_caller]
    fn wait(&self, limit: Limit, count: usize, poll: PollBranch<'_>) -> bool {
        let until = match limit {
            Limit::Now => return self.try_all(count, poll),
            Limit::Never => Until::Ever,
            Limit::After(timeout) => Until::After(timeout),
        };
        // The budget step of all branches (WAIT-6): an interrupt is delivered here, before any branch is polled.
        spend();
        let polled = poll_until(until.deadline(), Why::new(&SELECT, 0), |context| {
            self.poll(context, count, poll)
        });
        // A branch may have been granted between the deadline and this.
        polled.is_some() || self.is_late(poll)
    }

    /// SELECT-8 for a select that must not wait: one poll of each branch; whether one is ready.
    fn try_all(&self, count: usize, poll: PollBranch<'_>) -> bool {
        let mut context = Context::from_waker(&self.waker);
        // The word stays `Trying` from the first branch to the last: nothing can be granted that the caller would not
        // see.
        (0..count).any(|number| self.choice.begin(number as u32).is_ok() && poll(number, &mut context))
    }

    /// SELECT-8 for a select whose deadline has passed; whether a branch was granted in time.
    fn is_late(&self, poll: PollBranch<'_>) -> bool {
        loop {
            match self.choice.begin(0) {
                // `Trying` for good: the branches are dropped without a grant.
                Ok(()) => return false,
                Err(taken) if self.collects(taken, poll) => return true,
                // The grant was released (SELECT-6), or completed only a step of the branch: try again.
                Err(_) => {}
            }
        }
    }

    pub(super) fn poll(&self, context: &Context<'_>, count: usize, poll: PollBranch<'_>) -> Poll<()> {
        // Before the look: a branch that is granted during or after it must find the waker of the task.
        self.choice.set_waker(context.waker());
        if !self.look(count, poll) {
            return Poll::Pending;
        }
        // From here on a wake through another branch must not reach the task, which goes on to something else.
        drop(self.choice.take_waker());
        Poll::Ready(())
    }

    /// Polls one branch after the other (SELECT-3); whether one is ready.
    fn look(&self, count: usize, poll: PollBranch<'_>) -> bool {
        let mut context = Context::from_waker(&self.waker);
        let mut number = 0;
        while number < count {
            match self.choice.begin(number as u32) {
                Ok(()) if poll(number, &mut context) => return true,
                Ok(()) => {
                    // Not ready, and in line now. Between this and the next `begin` any branch may be granted.
                    self.choice.end();
                    number += 1;
                }
                Err(taken) if self.collects(taken, poll) => return true,
                // Only a step of the branch was granted, or a barrier has released it (SELECT-6). Other granters may
                // have taken branches out of the line meanwhile (SELECT-2), so poll all of them again.
                Err(_) => number = 0,
            }
        }
        false
    }

    /// Polls the branch that was granted; whether it is ready.
    fn collects(&self, taken: Taken, poll: PollBranch<'_>) -> bool {
        let mut context = Context::from_waker(&self.waker);
        if poll(taken.branch() as usize, &mut context) {
            return true;
        }
        // Another granter may have claimed a branch since the poll (SELECT-6): that claim stands, and the next `begin`
        // finds it.
        self.choice.reopen(taken);
        false
    }
}

impl Drop for Selecting {
    fn drop(&mut self) {
        drop(self.choice.take_waker());
        // The three references are `self.choice`, `self.waker` and this clone. If there are no others, no waker is left
        // in any line that could wake or claim the next select.
        let choice = self.choice.clone();
        if Arc::strong_count(&choice) == 3 {
            // After all that was done through the references that are gone.
            fence(Ordering::Acquire);
            choice.reset();
            let pair = (choice, std::mem::replace(&mut self.waker, Waker::noop().clone()));
            let _ = SPARE.try_with(|spare| drop(spare.replace(Some(pair))));
        }
    }
}

impl fmt::Debug for Selecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selecting").finish_non_exhaustive()
    }
}

/// Waits for the first of several operations, and runs the branch of that one.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{select, sleep, spawn, sync::channel};
///
/// let (numbers, words) = (channel::unbounded::<u32>(), channel::unbounded::<&str>());
/// let word = words.0.clone();
/// spawn(move || {
///     sleep(Duration::from_millis(1));
///     word.send("hello").unwrap();
/// });
/// let got = select! {
///     recv(numbers.1) -> number => format!("number {}", number.unwrap()),
///     recv(words.1) -> word => format!("word {}", word.unwrap()),
///     after(Duration::from_secs(10)) => String::from("nothing"),
/// };
/// assert_eq!(got, "word hello");
/// ```
///
/// # Branches
/// | | is ready when | gives |
/// |---|---|---|
/// | `recv(receiver) -> message` | there is a message, or all senders are gone | [`Receiver::recv`]'s result |
/// | `send(sender, value) -> sent` | there is room, or all receivers are gone | [`Sender::send`]'s result |
/// | `get(queue) -> item`, `put(queue, item) -> put` | there is one, there is room, or it is shut down | as the method of a [queue](crate::sync::queue) |
/// | `wait(event)` | an [`Event`], a [`Promise`] is set, a [`Barrier`] is complete | its `wait`'s result |
/// | `lock(mutex) -> guard`, `acquire(semaphore) -> permit` | it is free | as the method |
/// | `join(handle) -> result` | the green thread has ended; `handle` is a `mut` [`JoinHandle`](crate::JoinHandle) | `join`'s result |
/// | `readable(socket)`, `writable(socket)` | a read, an accept, a write would not wait | `io::Result<()>` |
/// | `after(duration)`, `at(instant)` | the time has come | nothing |
/// | `future(f) -> output` | any future is: `queue.get_async()`, `child.wait_async()`, `f.wait_async()` .. | its output |
/// | `default` | nothing else is ready now | |
/// | `default(duration)` | nothing else was ready for so long | |
///
/// `-> pattern` may be left out. The branches are separated by commas; none is needed after a block. The code of a
/// branch may use `return`, `break` and `?`, as in a `match`.
///
/// Exactly one branch takes effect, whichever OS threads the other sides run on. If a value was sent, put or received,
/// or a permit or a lock was acquired, the branch of that operation runs. The other branches are given up before it
/// runs, as if they had never existed, and a value that was to be sent is dropped. If several branches are ready, one
/// of them is chosen at random, with equal chances. If the hub has a [seed](crate::hub::Builder::seed), the seed
/// decides.
///
/// A `future(..)` with several steps is the exception: if it is given up, the steps that it has completed are not
/// undone.
///
/// A select waits in the lines of all its operations, except for the moments in which it polls them. Something that
/// could be handed to it at such a moment goes to the next in line, and the select gets in line again.
///
/// # Blocking and cancellation
/// Parks, unless there is a plain `default`. A select that is ready at once gives way now and then, unless there is a
/// plain `default` (see [sync](crate::sync#giving-way)). A kill or time-out unwinds, and gives up all branches.
///
/// # In `async` functions
/// Every operation above also has a future (`recv_async`, `wait_async`, ..), which gives up when it is dropped. The
/// `select!` macros of async libraries take these futures.
///
/// # Coming from Python
/// `gevent.wait(objects, count=1)`, `asyncio.wait(.., return_when=FIRST_COMPLETED)`; the branches are crossbeam's.
///
/// [`Receiver::recv`]: crate::sync::channel::Receiver::recv
/// [`Sender::send`]: crate::sync::channel::Sender::send
/// [`Event`]: crate::sync::Event
/// [`Promise`]: crate::sync::Promise
/// [`Barrier`]: crate::sync::Barrier
#[doc(alias("cqueue"))]
#[macro_export]
macro_rules! select {
    ($($branches:tt)+) => { $crate::__select!(@parse [] [] $($branches)+) };
}

/// Collects the branches one by one, each as `{slot future place (init) (future's expression) (pattern) (body)}`, and
/// then writes them out. Each step of the recursion makes new identifiers by hygiene, so that no two branches share a
/// name.
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    (@parse $done:tt $default:tt) => { $crate::__select!(@write $done $default) };
    // `default`: what to do when no branch is ready.
    (@parse $done:tt [] default => $body:block $(, $($rest:tt)*)?) => {
        $crate::__select!(@parse $done [($crate::sync::select::Limit::Now) ($body)] $($($rest)*)?)
    };
    (@parse $done:tt [] default => $body:block $($rest:tt)+) => {
        $crate::__select!(@parse $done [($crate::sync::select::Limit::Now) ($body)] $($rest)+)
    };
    (@parse $done:tt [] default => $body:expr $(, $($rest:tt)*)?) => {
        $crate::__select!(@parse $done [($crate::sync::select::Limit::Now) ($body)] $($($rest)*)?)
    };
    (@parse $done:tt [] default($limit:expr) => $body:block $(, $($rest:tt)*)?) => {
        $crate::__select!(@parse $done [($crate::sync::select::Limit::After($limit)) ($body)] $($($rest)*)?)
    };
    (@parse $done:tt [] default($limit:expr) => $body:block $($rest:tt)+) => {
        $crate::__select!(@parse $done [($crate::sync::select::Limit::After($limit)) ($body)] $($rest)+)
    };
    (@parse $done:tt [] default($limit:expr) => $body:expr $(, $($rest:tt)*)?) => {
        $crate::__select!(@parse $done [($crate::sync::select::Limit::After($limit)) ($body)] $($($rest)*)?)
    };
    // A branch: first find where its body ends.
    (@parse $done:tt $default:tt $kind:ident $args:tt -> $pattern:pat => $body:block $(, $($rest:tt)*)?) => {
        $crate::__select!(@branch $done $default $kind $args ($pattern) ($body) $($($rest)*)?)
    };
    (@parse $done:tt $default:tt $kind:ident $args:tt -> $pattern:pat => $body:block $($rest:tt)+) => {
        $crate::__select!(@branch $done $default $kind $args ($pattern) ($body) $($rest)+)
    };
    (@parse $done:tt $default:tt $kind:ident $args:tt -> $pattern:pat => $body:expr $(, $($rest:tt)*)?) => {
        $crate::__select!(@branch $done $default $kind $args ($pattern) ($body) $($($rest)*)?)
    };
    (@parse $done:tt $default:tt $kind:ident $args:tt => $($rest:tt)+) => {
        $crate::__select!(@parse $done $default $kind $args -> _ => $($rest)+)
    };
    // Then choose the future that it waits for.
    (@branch $done:tt $default:tt recv($r:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&$r) (place.recv_async()) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt send($s:expr, $value:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&$s) (place.send_async($value)) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt get($q:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&$q) (place.get_async()) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt put($q:expr, $value:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&$q) (place.put_async($value)) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt wait($e:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&$e) (place.wait_async()) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt lock($m:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&$m) (place.lock_async()) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt acquire($s:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&$s) (place.acquire_async()) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt join($h:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&mut $h) (place) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt readable($s:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&$s) (place.readable_async()) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt writable($s:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place (&$s) (place.writable_async()) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt after($duration:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(
            @add $done $default place ($duration) ($crate::time::sleep_async(place)) $pattern $body $($rest)*
        )
    };
    (@branch $done:tt $default:tt at($instant:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(
            @add $done $default place ($instant) ($crate::time::sleep_until_async(place)) $pattern $body $($rest)*
        )
    };
    (@branch $done:tt $default:tt future($f:expr) $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@add $done $default place ($f) (place) $pattern $body $($rest)*)
    };
    (@branch $done:tt $default:tt $kind:ident $args:tt $($rest:tt)*) => {
        compile_error!(concat!(
            "select! does not know `", stringify!($kind), stringify!($args), "`: see the table in its docs"
        ))
    };
    (@add [$($done:tt)*] $default:tt $place:ident $init:tt $future:tt $pattern:tt $body:tt $($rest:tt)*) => {
        $crate::__select!(@parse [$($done)* {slot polled $place $init $future $pattern $body}] $default $($rest)*)
    };
    // All branches are collected: write them out.
    (@write $done:tt []) => {
        $crate::__select!(
            @write $done [($crate::sync::select::Limit::Never) (unreachable!("it waits until one is ready"))]
        )
    };
    (@write
        [$({$slot:ident $polled:ident $place:ident ($init:expr) ($future:expr) ($pattern:pat) ($body:expr)})*]
        [($limit:expr) ($default:expr)]
    ) => {{
        $(let mut $slot = ::core::option::Option::None;)*
        {
            let selecting = $crate::sync::select::Selecting::begin();
            $(
                let $place = $init;
                let mut $polled = ::core::pin::pin!($future);
            )*
            selecting.wait_any($limit, &mut [$(
                &mut |context: &mut ::core::task::Context<'_>| {
                    match ::core::future::Future::poll($polled.as_mut(), context) {
                        ::core::task::Poll::Ready(output) => {
                            $slot = ::core::option::Option::Some(output);
                            true
                        }
                        ::core::task::Poll::Pending => false,
                    }
                },
            )*]);
        }
        $(if let ::core::option::Option::Some(output) = $slot {
            let $pattern = output;
            $body
        } else)* {
            $default
        }
    }};
    (@parse $($wrong:tt)*) => {
        compile_error!("a branch of select! is `kind(..) -> pattern => expression,` or `default => expression,`")
    };
}

type Future_<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Waits for the first of any number of operations: [`select!`](crate::select!) for a list.
///
/// ```
/// use greenthread::sync::{channel, select::Select};
///
/// let (senders, receivers): (Vec<_>, Vec<_>) = (0..10).map(|_| channel::unbounded()).unzip();
/// senders[7].send("seven").unwrap();
///
/// let mut select = Select::new();
/// for receiver in &receivers {
///     select.add(|| receiver.recv_async());
/// }
/// assert_eq!(select.wait(), (7, Ok("seven")));
/// assert_eq!(select.try_wait(), None);
/// ```
///
/// A branch is a closure that makes a future, and is called anew for each wait. When one future is ready the others are
/// given up as they are in `select!`: exactly one branch takes effect, except for futures of several steps.
///
/// # Coming from Python
/// `gevent.iwait(objects)`, crossbeam's `Select`.
pub struct Select<'a, T> {
    branches: Vec<Box<dyn Start<T> + 'a>>,
}

/// A branch of a [`Select`] between its waits.
trait Start<T> {
    /// The future for the next wait.
    fn start(&mut self) -> Future_<'_, T>;
}

/// A branch that makes a future for each wait.
struct Makes<F, Fut> {
    make: F,
    _future: PhantomData<fn() -> Fut>,
}

impl<F: FnMut() -> Fut, Fut: Future> Start<Fut::Output> for Makes<F, Fut> {
    fn start(&mut self) -> Future_<'_, Fut::Output> {
        Box::pin((self.make)())
    }
}

/// A handle of a green thread, which is a future. Nothing is ever granted to it, so a [`Select`] may keep it from one
/// wait to the next.
pub trait Joins: Future + Unpin {}

/// A branch for a handle; `None` once it was ready.
struct Held<'a, H>(Option<&'a mut H>);

impl<H: Joins> Start<H::Output> for Held<'_, H> {
    fn start(&mut self) -> Future_<'_, H::Output> {
        Box::pin(poll_fn(|context| {
            let Some(handle) = &mut self.0 else {
                return Poll::Pending;
            };
            let output = ready!(Pin::new(&mut **handle).poll(context));
            self.0 = None;
            Poll::Ready(output)
        }))
    }
}

impl<'a, T> Select<'a, T> {
    /// A select without branches.
    pub fn new() -> Select<'a, T> {
        Select { branches: Vec::new() }
    }

    /// Adds a branch and returns its number; the first is 0.
    pub fn add<F>(&mut self, make: impl FnMut() -> F + 'a) -> usize
    where
        F: Future<Output = T> + 'a,
    {
        self.branches.push(Box::new(Makes {
            make,
            _future: PhantomData,
        }));
        self.branches.len() - 1
    }

    /// Adds a branch for the end of a green thread and returns its number: a `JoinHandle`, or a handle of a scope or a
    /// nursery. Once that end was returned, the branch is never ready again.
    ///
    /// ```
    /// use greenthread::{sync::select::Select, thread};
    /// let first = thread::scope(|s| {
    ///     let mut children = [s.spawn(thread::park), s.spawn(|| ())];
    ///     let mut select = Select::new();
    ///     for child in &mut children {
    ///         select.add_join(child);
    ///     }
    ///     let (first, _) = select.wait();
    ///     s.kill();
    ///     first
    /// });
    /// assert_eq!(first, 1);
    /// ```
    pub fn add_join<H>(&mut self, handle: &'a mut H) -> usize
    where
        H: Joins<Output = T>,
    {
        self.branches.push(Box::new(Held(Some(handle))));
        self.branches.len() - 1
    }

    /// How many branches there are.
    pub fn len(&self) -> usize {
        self.branches.len()
    }

    /// Whether there are no branches.
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// Waits for the first branch that is ready: its number, and its output.
    ///
    /// # Panics
    /// If there is no branch, as the wait would never end.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds, and gives up all branches.
    #[track_caller]
    pub fn wait(&mut self) -> (usize, T) {
        assert!(
            !self.is_empty(),
            "a Select without a branch would wait for ever: add one first"
        );
        loop {
            if let Some(first) = self.wait_until(Limit::Never) {
                return first;
            }
        }
    }

    /// The first branch that is ready now; `None` if none is.
    pub fn try_wait(&mut self) -> Option<(usize, T)> {
        self.wait_until(Limit::Now)
    }

    /// Waits for the first branch for at most `timeout`; `None` if none was ready in time.
    #[track_caller]
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<(usize, T)> {
        self.wait_until(Limit::After(timeout))
    }

    /// Waits for the first branch until `deadline`; `None` if none was ready in time.
    #[track_caller]
    pub fn wait_deadline(&mut self, deadline: Instant) -> Option<(usize, T)> {
        self.wait_until(Limit::After(deadline.saturating_duration_since(crate::time::now())))
    }

    /// Like [`wait`](Self::wait), for an `async` function. If the future is dropped before it is ready, nothing was
    /// taken.
    pub async fn wait_async(&mut self) -> (usize, T) {
        let selecting = Selecting::begin();
        let mut branches = self.begin();
        poll_fn(|context| budget::poll(context)).await;
        poll_fn(|context| {
            let mut first = None;
            let count = branches.len();
            ready!(selecting.poll(context, count, &mut |at, context| {
                branches[at].poll(context, &mut first)
            }));
            first.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Makes the futures of all branches, in random order.
    fn begin(&mut self) -> Vec<Begun<'_, T>> {
        let mut branches = Vec::with_capacity(self.branches.len());
        for (number, branch) in self.branches.iter_mut().enumerate() {
            let future = branch.start();
            branches.push(Begun { number, future });
        }
        shuffle(&mut branches);
        branches
    }

    #[track_caller]
    fn wait_until(&mut self, limit: Limit) -> Option<(usize, T)> {
        let selecting = Selecting::begin();
        let mut branches = self.begin();
        let mut first = None;
        let count = branches.len();
        selecting.wait(limit, count, &mut |at, context| branches[at].poll(context, &mut first));
        first
    }
}

/// A branch of a [`Select`] that is under way.
struct Begun<'a, T> {
    number: usize,
    future: Future_<'a, T>,
}

impl<T> Begun<'_, T> {
    fn poll(&mut self, context: &mut Context<'_>, first: &mut Option<(usize, T)>) -> bool {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            *first = Some((self.number, output));
        }
        first.is_some()
    }
}

impl<T> Default for Select<'_, T> {
    fn default() -> Self {
        Select::new()
    }
}

impl<T> fmt::Debug for Select<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
