//! Waiting for the first of several: [`select!`](crate::select!), and [`Select`] where their number is not known
//! before.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::wait::Until;
use crate::hub::Hub;
use crate::hub::park::Why;
use crate::hub::polled::poll_until;

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

/// Where to begin, so that nobody is always asked first.
fn begin(count: usize) -> usize {
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let number = Hub::try_current().map_or(0, Hub::guard_id);
    ((number.wrapping_mul(MIX) >> 32) as usize) % count.max(1)
}

/// Polls the branches, beginning with any, until one is ready; whether one was.
#[doc(hidden)]
#[track_caller]
pub fn wait_any(limit: Limit, branches: &mut [Branch<'_>]) -> bool {
    let first = begin(branches.len());
    let (later, sooner) = branches.split_at_mut(first);
    let mut poll = |context: &mut Context<'_>| {
        let mut all = sooner.iter_mut().chain(later.iter_mut());
        if all.any(|branch| branch(context)) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    };
    match limit {
        Limit::Now => poll(&mut Context::from_waker(Waker::noop())).is_ready(),
        Limit::Never => poll_until(None, Why::new(&SELECT, 0), poll).is_some(),
        Limit::After(timeout) => poll_until(Until::After(timeout).deadline(), Why::new(&SELECT, 0), poll).is_some(),
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
/// The others are given up before the branch runs: a message that one of them was just granted goes to the next
/// receiver, a value that was to be sent is dropped. If several are ready, any one of them is taken, each as likely as
/// the others.
///
/// # Blocking and cancellation
/// Parks, unless there is a `default`. A kill or time-out unwinds, and gives up all branches.
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
            $(
                let $place = $init;
                let mut $polled = ::core::pin::pin!($future);
            )*
            $crate::sync::select::wait_any($limit, &mut [$(
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
/// they are in `select!`.
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
        let mut branches: Vec<_> = self.branches.iter_mut().map(|make| make()).collect();
        let first = begin(branches.len());
        std::future::poll_fn(|context| {
            let count = branches.len();
            for number in (0..count).map(|n| (n + first) % count) {
                if let Poll::Ready(output) = branches[number].as_mut().poll(context) {
                    return Poll::Ready((number, output));
                }
            }
            Poll::Pending
        })
        .await
    }

    #[track_caller]
    fn wait_until(&mut self, limit: Limit) -> Option<(usize, T)> {
        let mut first = None;
        {
            let mut wait = std::pin::pin!(self.wait_async());
            let mut branch = |context: &mut Context<'_>| {
                if let Poll::Ready(ready) = wait.as_mut().poll(context) {
                    first = Some(ready);
                }
                first.is_some()
            };
            wait_any(limit, &mut [&mut branch]);
        }
        first
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
