//! Waiting for the first of several: [`select!`](crate::select!), and [`Select`] where their number is not known
//! before.
#![forbid(unsafe_code)]

// # Exactly one branch
//
// All branches of a select share one word (`Choice`), and wait each in the line of its own primitive. What is granted
// there to a branch is taken from others: a message, room for one, a permit, a lock. So it may be granted only if
// the select has no other branch already.
//
// - `Open`: all branches wait. A granter may take it to `Taken(i)`, the select to `Trying`.
// - `Taken(i)`: branch `i` was granted, or is being granted under the lock of its primitive. The select takes it to
//   `Trying` when it has what was granted; the granter back to `Open`, if it cannot grant after all.
// - `Trying`: the select polls a branch, or has its winner. It alone takes it back to `Open`, if that branch is not ready.
//
// - **C1** *A granter* holds the lock of the primitive. It takes the word from `Open` to `Taken(i)` before it takes the
//   branch out of the line, gives it anything, or takes anything from it (a message that a `send` has left there). Then
//   it wakes the select.
// - **C2** *A granter that loses* (the word is not `Open`) takes the branch out of the line without a grant, goes on
//   to the next in line, and wakes the select in the end: it may have been `Trying`, and is to look again. Whether a
//   branch was granted is known under its primitive's lock alone (`Waiters::is_granted`), never from the word.
// - **C3** *The select* takes the word from `Open` to `Trying` before it polls a branch, any branch, and leaves it so if
//   that is ready: nothing is granted from then on. If not, the word is `Open` again. If the word is `Taken(i)` it polls
//   that branch and no other.
// - **C4** *Two selects that wait for each other*, one to send and one to receive: who comes second is `Trying`, finds
//   the first in line, and is a granter to it. If both are `Trying`, each is passed over by the other, and woken by C2.
// - **C5** *One select that waits for itself*, to send and to receive on one channel: a granter that is a branch of
//   the select that it would grant leaves that in line, and asks the next.
// - **C6** *A barrier* is granted to all or to none: its last comer claims all that wait, and releases them (`Taken(i)` to
//   `Open`) if one is lost. A select that was found claimed meanwhile was woken by C2.
// - **C7** What takes nothing from others (an event, a promise, the end of a queue's jobs, a notice of a `Condvar`) is
//   granted without the word, in vain if another branch wins: so an event that is set and cleared at once is not missed
//   while the select looks elsewhere. Sockets, timers and ends of green threads only wake; C3 covers them.
// - **C8** *When time is over* the select takes the word to `Trying` for good. If it is `Taken(i)` it was granted in time.
//   A select that must not wait at all is `Trying` from its first branch to its last.
// - **C9** *A plain OS thread* waits as a green thread does, on its native stack. *A future* (`Select::wait_async`) has
//   a word as well; the waker of the task is kept beside it, and taken by the first wake.
// - **C10** A select whose task is lost (its OS thread has ended) is passed over, as all such are.
//
// A branch that is a future of several steps has them granted one by one. The word is `Open` again after each
// (`Taken(i)`, `Trying`, `Open`), so what was granted to a step may be lost to another branch: the exception, of
// `future(..)` only.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use super::wait::{Until, spend};
use crate::hub::choice::Choice;
use crate::hub::park::Why;
use crate::hub::polled::poll_until;
use crate::hub::{Hub, budget};

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

/// A branch, as the macro makes it: polls, and keeps what came.
type Branch<'a> = &'a mut dyn FnMut(&mut Context<'_>) -> bool;

/// Polls the branch of this number; whether it is ready.
type PollBranch<'a> = &'a mut dyn FnMut(usize, &mut Context<'_>) -> bool;

/// Mixes them: any order is as likely as any other.
fn shuffle<T>(branches: &mut [T]) {
    for last in (1..branches.len()).rev() {
        let at = ((random() >> 32) * (last as u64 + 1)) >> 32;
        branches.swap(last, at as usize);
    }
}

/// Another number each time: by the seed of the hub, if it has one.
fn random() -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    static NEXT: AtomicU64 = AtomicU64::new(STEP);
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    let number = Hub::try_current().and_then(Hub::seeded).unwrap_or_else(|| {
        let next = STATE.try_with(|state| {
            if state.get() == 0 {
                // Each thread begins elsewhere.
                state.set(NEXT.fetch_add(STEP << 20, Ordering::Relaxed));
            }
            state.set(state.get().wrapping_add(STEP));
            state.get()
        });
        // In the last destructors of a thread anything will do.
        next.unwrap_or(STEP)
    });
    // splitmix64
    let mixed = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// One select under way. It is made before its branches, and dropped after them: then nobody has its wakers any more,
/// and it serves another.
#[doc(hidden)]
pub struct Selecting {
    choice: Arc<Choice>,
    waker: Waker,
}

#[cfg(not(all(test, loom)))]
thread_local! {
    /// For the next one, so that a select allocates nothing.
    static SPARE: Cell<Option<(Arc<Choice>, Waker)>> = const { Cell::new(None) };
}

#[cfg(all(test, loom))]
loom::thread_local! {
    static SPARE: Cell<Option<(Arc<Choice>, Waker)>> = Cell::new(None);
}

impl Selecting {
    pub fn begin() -> Selecting {
        // None in a destructor of a thread-local.
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        let (choice, waker) = spare.unwrap_or_else(|| {
            let choice = Arc::new(Choice::new());
            let waker = choice.clone().into_waker();
            (choice, waker)
        });
        Selecting { choice, waker }
    }

    /// Polls the branches, in any order, until one is ready; whether one was.
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
        spend();
        let polled = poll_until(until.deadline(), Why::new(&SELECT, 0), |context| {
            self.poll(context, count, poll)
        });
        polled.is_some() || self.is_late(poll)
    }

    /// C8, without waiting at all.
    fn try_all(&self, count: usize, poll: PollBranch<'_>) -> bool {
        let mut context = Context::from_waker(&self.waker);
        (0..count).any(|number| self.choice.begin(number as u32).is_ok() && poll(number, &mut context))
    }

    /// C8, when time is over; whether it was granted a branch in time.
    fn is_late(&self, poll: PollBranch<'_>) -> bool {
        loop {
            match self.choice.begin(0) {
                Ok(()) => return false,
                Err(taken) if self.collects(taken, poll) => return true,
                Err(_) => {}
            }
        }
    }

    pub(super) fn poll(&self, context: &Context<'_>, count: usize, poll: PollBranch<'_>) -> Poll<()> {
        self.choice.set_waker(context.waker());
        if !self.look(count, poll) {
            return Poll::Pending;
        }
        // Its task's waker may serve for something else now.
        drop(self.choice.take_waker());
        Poll::Ready(())
    }

    /// C3, for one branch after the other; whether one is ready.
    fn look(&self, count: usize, poll: PollBranch<'_>) -> bool {
        let mut context = Context::from_waker(&self.waker);
        let mut number = 0;
        while number < count {
            match self.choice.begin(number as u32) {
                Ok(()) if poll(number, &mut context) => return true,
                Ok(()) => {
                    self.choice.end();
                    number += 1;
                }
                Err(taken) if self.collects(taken, poll) => return true,
                // A step of it was granted and no more, or a barrier is not complete: all are asked anew.
                Err(_) => number = 0,
            }
        }
        false
    }

    /// Polls the branch that was granted; whether it is ready.
    fn collects(&self, taken: u32, poll: PollBranch<'_>) -> bool {
        let mut context = Context::from_waker(&self.waker);
        // Twice if it has not come for what it was granted: it may be that this was not granted yet.
        for _ in 0..2 {
            if poll(taken as usize, &mut context) {
                return true;
            }
            if !self.choice.is_taken_by(taken) {
                break;
            }
        }
        self.choice.reopen(taken);
        false
    }
}

impl Drop for Selecting {
    fn drop(&mut self) {
        drop(self.choice.take_waker());
        // One is this here, one the waker's, one the clone's: nobody else has one, and may call or claim it.
        let choice = self.choice.clone();
        if Arc::strong_count(&choice) == 3 {
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

/// Waits for the first of several things, and does what its branch says.
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
/// `-> pattern` may be left out. The branches are separated by commas; none is needed after a block. What a branch does
/// may `return`, `break` and `?`, as in a `match`.
///
/// Exactly one branch has its way, whichever OS threads the others are on: if another's value was sent, put or received,
/// a permit or a lock acquired, that is the branch that runs. The others are given up before it does, as if they had never
/// been there, and a value that was to be sent is dropped. If several are ready, any one of them is taken, each as likely
/// as the others; by the [seed](crate::hub::Builder::seed) of the hub, if it has one.
///
/// A `future(..)` is the exception if it has several steps: what it has done before it is given up is done.
///
/// A select waits in the lines of all that it waits for, but for the moments in which it looks at them itself: who could
/// have handed it something just then hands it to the next in line, and the select gets in line again.
///
/// # Blocking and cancellation
/// Parks, unless there is a `default`. One that is ready at once gives way now and then, unless there is a plain `default`
/// (see [sync](crate::sync#giving-way)). A kill or time-out unwinds, and gives up all branches.
///
/// # In `async` functions
/// Everything above is a future too (`recv_async`, `wait_async`, ..), which gives up when it is dropped: any `select!`
/// of the async world takes them.
///
/// # Coming from Python
/// `gevent.wait(objects, count=1)`, `asyncio.wait(.., return_when=FIRST_COMPLETED)`; the branches are crossbeam's.
///
/// [`Receiver::recv`]: crate::sync::channel::Receiver::recv
/// [`Sender::send`]: crate::sync::channel::Sender::send
/// [`Event`]: crate::sync::Event
/// [`Promise`]: crate::sync::Promise
/// [`Barrier`]: crate::sync::Barrier
#[macro_export]
macro_rules! select {
    ($($branches:tt)+) => { $crate::__select!(@parse [] [] $($branches)+) };
}

/// Takes the branches one by one, each as `{slot future place (init) (future's expression) (pattern) (body)}`; the
/// names are new in each step, so that they are its own. Then writes them out.
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    (@parse $done:tt $default:tt) => { $crate::__select!(@write $done $default) };
    // What to do when nothing is ready.
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
    // A branch: its end, first.
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
    // Then what it waits for.
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
    // All of them.
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

/// Several things to wait for, as many as there are: [`select!`](crate::select!) for a list.
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
/// A branch is a closure that makes a future, called anew for each wait. When one is ready the others are given up, as
/// they are in `select!`: exactly one has its way, unless it is a future of several steps.
///
/// # Coming from Python
/// `gevent.iwait(objects)`, crossbeam's `Select`.
pub struct Select<'a, T> {
    branches: Vec<Box<dyn FnMut() -> Future_<'a, T> + 'a>>,
}

impl<'a, T> Select<'a, T> {
    /// Without a branch.
    pub fn new() -> Select<'a, T> {
        Select { branches: Vec::new() }
    }

    /// Adds a branch, and gives its number: the first is 0.
    pub fn add<F>(&mut self, mut make: impl FnMut() -> F + 'a) -> usize
    where
        F: Future<Output = T> + 'a,
    {
        self.branches.push(Box::new(move || Box::pin(make())));
        self.branches.len() - 1
    }

    /// How many branches it has.
    pub fn len(&self) -> usize {
        self.branches.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// Waits for the first: its number, and what it gives.
    ///
    /// # Panics
    /// Without a branch, as it would wait for ever.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds, and gives up all branches.
    #[track_caller]
    pub fn wait(&mut self) -> (usize, T) {
        assert!(!self.is_empty(), "a Select without a branch waits for ever");
        loop {
            if let Some(first) = self.wait_until(Limit::Never) {
                return first;
            }
        }
    }

    /// The first that is ready now.
    pub fn try_wait(&mut self) -> Option<(usize, T)> {
        self.wait_until(Limit::Now)
    }

    /// Waits for the first, for at most `timeout`.
    #[track_caller]
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<(usize, T)> {
        self.wait_until(Limit::After(timeout))
    }

    /// Waits for the first until `deadline`.
    #[track_caller]
    pub fn wait_deadline(&mut self, deadline: Instant) -> Option<(usize, T)> {
        self.wait_until(Limit::After(deadline.saturating_duration_since(crate::time::now())))
    }

    /// As [`wait`](Self::wait), for an `async` function. Dropped before it is ready, it has taken nothing.
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

    /// Makes all futures, in any order.
    fn begin(&mut self) -> Vec<Begun<'_, T>> {
        let make =
            |(number, make): (usize, &mut Box<dyn FnMut() -> Future_<'a, T> + 'a>)| Begun { number, future: make() };
        let mut branches: Vec<_> = self.branches.iter_mut().enumerate().map(make).collect();
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

/// A branch of a [`Select`] that waits.
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
