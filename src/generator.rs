//! Generators: functions that hand out values as they go, from any depth of calls.
//!
//! A generator's body runs on a stack of its own. [`Yielder::yield_`] stops the body, from any depth of calls, and
//! gives a value to the code that asked for one. At the next request the body goes on from there. So a recursive walk
//! becomes an iterator as it stands:
//!
//! ```
//! use greenthread::generator::{Generator, Yielder};
//!
//! enum Tree { Leaf, Node(Box<Tree>, u32, Box<Tree>) }
//! use Tree::*;
//!
//! fn walk(tree: &Tree, y: &Yielder<'_, u32>) {
//!     if let Node(left, value, right) = tree {
//!         walk(left, y);
//!         y.yield_(*value);
//!         walk(right, y);
//!     }
//! }
//!
//! let leaf = || Box::new(Leaf);
//! let tree = Node(Box::new(Node(leaf(), 1, leaf())), 2, Box::new(Node(leaf(), 3, leaf())));
//! let values: Vec<u32> = Generator::new(move |y| walk(&tree, y)).collect();
//! assert_eq!(values, [1, 2, 3]);
//! ```
//!
//! A `Generator<Y, S, R>` yields `Y`, is sent `S` and returns `R`. A generator that is sent `()`, as above, is an
//! [`Iterator`]. The `yield_` at which the body waits returns the value that is sent. For the first request there is no
//! such `yield_` yet, so that request is [`start`](Generator::start).
//!
//! ```
//! use greenthread::generator::{Generator, State};
//!
//! let mut mean = Generator::new(|y| {
//!     let (mut sum, mut count) = (0.0, 0.0);
//!     while let Some(x) = y.yield_(sum / f64::max(count, 1.0)) {
//!         sum += x;
//!         count += 1.0;
//!     }
//!     count as u32
//! });
//! mean.start();
//! assert_eq!(mean.send(Some(4.0)), State::Yielded(4.0));
//! assert_eq!(mean.send(Some(8.0)), State::Yielded(6.0));
//! assert_eq!(mean.send(None), State::Returned(2));
//! ```
//!
//! A body ends in one of four ways: it returns; it panics, and the panic goes on in the code that asked; it is
//! [`close`](Generator::close)d; or the generator is dropped, which closes it too. Closing raises [`GeneratorExit`] at
//! the `yield_` at which the body waits, so destructors run. A body may block like any other code: the green thread
//! that asked then waits.
//!
//! # Invariants
//! - **GEN-1** `fiber` is there from the start to the end of the body, and the stack is freed as soon as the body ends.
//! - **GEN-2** Nothing is raised in a body that is suspended in the middle of an unwinding (in a destructor that
//!   yields): a panic that leaves a destructor then is an abort. Such a body goes on, or is leaked.
//!
//! # Rejected
//! - An `S` for the first request, passed to the body as an argument: Python's generators have none, and
//!   `FnOnce(&Yielder, S)` would burden the many bodies that are sent `()`.
#![forbid(unsafe_code)]

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::panicking;

use crate::fiber::unwind::{TRIES, message};
use crate::fiber::{Fiber, Kept, Outcome, Suspender};
use crate::stack::local_size;
use crate::sys::report::complain;

type Payload = Box<dyn Any + Send>;

/// What a request sends to the body.
enum Sent<S> {
    Start,
    Value(S),
    /// Boxed once more, so that it is one word.
    Throw(Box<Payload>),
}

/// What came of a request for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State<Y, R> {
    /// The body yielded this value, and waits.
    Yielded(Y),
    /// The body returned this value, and has ended.
    Returned(R),
}

impl<Y, R> State<Y, R> {
    /// The value, if it was yielded.
    pub fn yielded(self) -> Option<Y> {
        match self {
            State::Yielded(value) => Some(value),
            State::Returned(_) => None,
        }
    }

    /// The value, if it was returned.
    pub fn returned(self) -> Option<R> {
        match self {
            State::Yielded(_) => None,
            State::Returned(value) => Some(value),
        }
    }
}

/// The payload that is raised in a body that is closed. No panic hook reports it.
///
/// ```
/// use greenthread::generator::{Generator, GeneratorExit, Yielder};
/// use std::panic::{AssertUnwindSafe, catch_unwind};
///
/// let mut numbers = Generator::new(|y: &Yielder<'_, i32>| {
///     let end = catch_unwind(AssertUnwindSafe(|| y.yield_(1)));
///     end.unwrap_err().is::<GeneratorExit>()
/// });
/// numbers.start();
/// assert_eq!(numbers.close(), Ok(Some(true)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorExit;

/// The body yielded again although it was told to end; see [`Generator::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseError;

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the generator ignored close: it caught GeneratorExit, or yielded from a destructor")
    }
}

impl Error for CloseError {}

/// The body's side of a generator, with which it yields.
pub struct Yielder<'a, Y: 'static, S: 'static = ()> {
    suspender: &'a Suspender<Sent<S>, Y>,
}

impl<Y: 'static, S: 'static> Yielder<'_, Y, S> {
    /// Hands out `value`, waits for the next request, and returns what that request sends.
    ///
    /// ```
    /// use greenthread::generator::Generator;
    /// let squares = Generator::new(|y| (1..4).for_each(|n| y.yield_(n * n)));
    /// assert_eq!(squares.collect::<Vec<u64>>(), [1, 4, 9]);
    /// ```
    ///
    /// # Panics
    /// If the caller runs neither on the stack of the generator nor in a coroutine that the body has resumed, directly
    /// or indirectly: for example in a scoped green thread that the body has made.
    ///
    /// # Blocking and cancellation
    /// Unwinds when the generator is closed, dropped or thrown into.
    #[inline(always)]
    #[track_caller]
    pub fn yield_(&self, value: Y) -> S {
        match self.exchange(value) {
            Sent::Value(value) => value,
            Sent::Throw(payload) => resume_unwind(*payload),
            Sent::Start => unreachable!("start() refuses a generator that has started"),
        }
    }

    /// Hands out all that `inner` yields, and returns what `inner` returns.
    ///
    /// Meanwhile the code that asks exchanges values with `inner`: what is sent or thrown goes there, and a close
    /// closes `inner` first.
    ///
    /// ```
    /// use greenthread::generator::Generator;
    /// let all = Generator::new(|y| {
    ///     y.yield_(1);
    ///     let mut inner = Generator::new(|y| {
    ///         y.yield_(2);
    ///         "done"
    ///     });
    ///     assert_eq!(y.yield_from(&mut inner), "done");
    ///     y.yield_(3);
    /// });
    /// assert_eq!(all.collect::<Vec<_>>(), [1, 2, 3]);
    /// ```
    ///
    /// # Panics
    /// If `inner` has been started already (with `S = ()`, [`yield_all`](Yielder::yield_all) takes it all the same), if
    /// it panics, or if it ignores a close.
    ///
    /// # Coming from Python
    /// `yield from inner`.
    #[track_caller]
    pub fn yield_from<R>(&self, inner: &mut Generator<Y, S, R>) -> R {
        let mut state = inner.start();
        loop {
            let value = match state {
                State::Yielded(value) => value,
                State::Returned(value) => return value,
            };
            state = match self.exchange(value) {
                Sent::Value(value) => inner.send(value),
                Sent::Throw(payload) if payload.is::<GeneratorExit>() => {
                    if let Err(error) = inner.close() {
                        panic!("{error}");
                    }
                    resume_unwind(*payload)
                }
                Sent::Throw(payload) => inner.throw(*payload),
                Sent::Start => unreachable!("start() refuses a generator that has started"),
            };
        }
    }

    #[inline(always)]
    #[track_caller]
    fn exchange(&self, value: Y) -> Sent<S> {
        match self.suspender.suspend(value) {
            Ok(sent) => sent,
            Err(_) => elsewhere(),
        }
    }
}

impl<Y: 'static> Yielder<'_, Y> {
    /// A copy that may be kept anywhere.
    pub(crate) fn keep(&self) -> KeptYielder<Y> {
        KeptYielder(self.suspender.keep())
    }
}

/// A [`Yielder`] that detects whether its generator's body runs here, even after the body has ended.
pub(crate) struct KeptYielder<Y: 'static>(Kept<Sent<()>, Y>);

impl<Y: 'static> Clone for KeptYielder<Y> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Y: 'static> Copy for KeptYielder<Y> {}

impl<Y: 'static> KeptYielder<Y> {
    /// Whether the caller runs in the body, at any depth of calls.
    pub(crate) fn is_here(self) -> bool {
        self.0.is_here()
    }

    /// Like [`Yielder::yield_`].
    #[track_caller]
    pub(crate) fn yield_(self, value: Y) {
        match self.0.suspend(value) {
            Ok(Sent::Throw(payload)) => resume_unwind(*payload),
            Ok(_) => {}
            Err(_) => elsewhere(),
        }
    }
}

#[cold]
#[track_caller]
fn elsewhere() -> ! {
    panic!("a generator can yield only on its own stack, and this code runs on another one")
}

impl<Y: 'static> Yielder<'_, Y> {
    /// Hands out all items of an iterator.
    ///
    /// ```
    /// use greenthread::generator::Generator;
    /// let both = Generator::new(|y| {
    ///     y.yield_all(0..2);
    ///     y.yield_all(["a", "b"].map(str::len));
    /// });
    /// assert_eq!(both.collect::<Vec<usize>>(), [0, 1, 1, 1]);
    /// ```
    ///
    /// # Coming from Python
    /// `yield from iterable`.
    #[track_caller]
    pub fn yield_all(&self, items: impl IntoIterator<Item = Y>) {
        for item in items {
            self.yield_(item);
        }
    }
}

impl<Y: 'static, S: 'static> fmt::Debug for Yielder<'_, Y, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Yielder").finish_non_exhaustive()
    }
}

/// A body that yields `Y`, is sent `S` and returns `R`; see the [module](self).
///
/// It stays on the OS thread that made it:
///
/// ```compile_fail
/// fn is_send<T: Send>() {}
/// is_send::<greenthread::generator::Generator<u32>>();
/// ```
#[must_use = "a generator does nothing until it is asked for a value"]
pub struct Generator<Y: 'static, S: 'static = (), R: 'static = ()> {
    /// `None` once the body has ended (GEN-1).
    fiber: Option<Fiber<Sent<S>, Y, R>>,
    returned: Option<R>,
    /// Whether the body yielded while a panic was under way, perhaps from one of its destructors (GEN-2).
    unwinding: bool,
}

impl<Y: 'static, S: 'static, R: 'static> Generator<Y, S, R> {
    /// A generator with `body`, on a stack of the default size.
    ///
    /// ```
    /// use greenthread::generator::Generator;
    /// let mut naturals = Generator::new(|y| (0u64..).for_each(|n| y.yield_(n)));
    /// assert_eq!(naturals.by_ref().take(3).collect::<Vec<_>>(), [0, 1, 2]);
    /// assert_eq!(naturals.next(), Some(3));
    /// ```
    ///
    /// # Panics
    /// If there is no memory for the stack; [`try_new`](Generator::try_new) returns an error instead.
    #[inline]
    #[track_caller]
    pub fn new(body: impl FnOnce(&Yielder<'_, Y, S>) -> R + 'static) -> Self {
        match Self::try_new(body) {
            Ok(generator) => generator,
            Err(error) => panic!(
                "cannot make a generator, for there is no stack: {error}; `Generator::try_new` gives this as an \
                 error"
            ),
        }
    }

    /// Like [`new`](Generator::new), with an error where that panics.
    ///
    /// # Errors
    /// No memory for the stack.
    #[inline]
    pub fn try_new(body: impl FnOnce(&Yielder<'_, Y, S>) -> R + 'static) -> io::Result<Self> {
        Self::with_stack_size(local_size(), body)
    }

    /// A generator on a stack of `size` usable bytes.
    ///
    /// The other constructors use [`stack::local_size`](crate::stack::local_size).
    ///
    /// # Errors
    /// A size that makes no sense, or no memory for the stack.
    #[inline]
    pub fn with_stack_size(size: usize, body: impl FnOnce(&Yielder<'_, Y, S>) -> R + 'static) -> io::Result<Self> {
        let fiber = Fiber::new(size, move |suspender: &Suspender<Sent<S>, Y>, sent| {
            if let Sent::Throw(payload) = sent {
                // Dropped on the body's own stack, where a panic of a destructor becomes a value.
                drop(body);
                resume_unwind(*payload);
            }
            body(&Yielder { suspender })
        })?;
        Ok(Generator {
            fiber: Some(fiber),
            returned: None,
            unwinding: false,
        })
    }

    /// Runs a new generator up to its first `yield_`.
    ///
    /// # Panics
    /// If it has been started before. A panic of the body goes on in the caller.
    #[track_caller]
    pub fn start(&mut self) -> State<Y, R> {
        if self.has_started() {
            panic!("the generator was already started, which is possible only once");
        }
        self.ask(Sent::Start)
    }

    /// Sends `value` to the `yield_` at which the body waits, and runs the body up to the next one.
    ///
    /// # Panics
    /// If the generator is new (there is no `yield_` to send to: [`start`](Generator::start) it), or has ended. A panic
    /// of the body goes on in the caller, and the generator has then ended.
    ///
    /// # Coming from Python
    /// `generator.send(value)`; `send(None)` to a new one is `start()`, and `StopIteration` is [`State::Returned`].
    #[inline(always)]
    #[track_caller]
    pub fn send(&mut self, value: S) -> State<Y, R> {
        if !self.has_started() {
            panic!("cannot send to a new generator: call start() first");
        }
        self.ask(Sent::Value(value))
    }

    /// Raises `payload` at the `yield_` at which the body waits, and runs the body up to the next one.
    ///
    /// It is raised as by [`resume_unwind`], so no panic hook reports it. A payload in a box is not boxed again. If the
    /// generator is new or has ended, the payload is raised in the caller instead; the body of a new one never runs.
    ///
    /// ```
    /// use greenthread::generator::{Generator, State, Yielder};
    /// use std::panic::{AssertUnwindSafe, catch_unwind};
    ///
    /// let mut generator = Generator::new(|y: &Yielder<'_, &str>| {
    ///     let thrown = catch_unwind(AssertUnwindSafe(|| y.yield_("first")));
    ///     y.yield_(thrown.unwrap_err().downcast_ref::<&str>().unwrap());
    /// });
    /// assert_eq!(generator.start(), State::Yielded("first"));
    /// assert_eq!(generator.throw("caught"), State::Yielded("caught"));
    /// ```
    ///
    /// # Panics
    /// With the payload with which the body panics: `payload` itself, if the body does not catch it. Also if the body
    /// yielded from a destructor during a panic, where nothing can be raised.
    #[track_caller]
    pub fn throw(&mut self, payload: impl Any + Send) -> State<Y, R> {
        let payload = boxed(payload);
        if self.is_done() {
            resume_unwind(payload);
        }
        if self.unwinding {
            panic!("cannot throw into a generator that yielded from a destructor during a panic");
        }
        self.ask(Sent::Throw(Box::new(payload)))
    }

    /// Ends the body by raising [`GeneratorExit`] where it waits. If the body returns a value nevertheless, that value
    /// is returned.
    ///
    /// The answer is `None` if the generator is new or has ended; the body of a new one never runs.
    ///
    /// ```
    /// use greenthread::generator::{CloseError, Generator};
    /// use std::panic::{AssertUnwindSafe, catch_unwind};
    ///
    /// let mut endless = Generator::new(|y| loop { y.yield_("more") });
    /// endless.next();
    /// assert_eq!(endless.close(), Ok(None::<()>));
    ///
    /// let mut stubborn = Generator::new(|y| {
    ///     let _ = catch_unwind(AssertUnwindSafe(|| y.yield_(1)));
    ///     y.yield_(2);
    /// });
    /// stubborn.next();
    /// assert_eq!(stubborn.close(), Err(CloseError));
    /// ```
    ///
    /// # Errors
    /// The body yielded again, or waits in a destructor that a panic runs. It is as alive as before.
    ///
    /// # Panics
    /// With any other panic of the body.
    ///
    /// # Coming from Python
    /// `generator.close()`, as of 3.13. With `panic = "abort"` nothing can be raised: the stack is leaked.
    pub fn close(&mut self) -> Result<Option<R>, CloseError> {
        if self.is_done() || cfg!(panic = "abort") {
            self.fiber = None;
            return Ok(None);
        }
        if self.unwinding {
            return Err(CloseError);
        }
        match catch_unwind(AssertUnwindSafe(|| {
            self.ask(Sent::Throw(Box::new(boxed(GeneratorExit))))
        })) {
            Ok(State::Yielded(_)) => Err(CloseError),
            Ok(State::Returned(value)) => Ok(Some(value)),
            Err(payload) if payload.is::<GeneratorExit>() => Ok(None),
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Whether the body has ended.
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.fiber.is_none()
    }

    /// What the body returned, if [`next`](Iterator::next) saw that. (Otherwise [`State::Returned`] carries it.)
    pub fn return_value(&self) -> Option<&R> {
        self.returned.as_ref()
    }

    /// What the body returned, if [`next`](Iterator::next) saw that.
    ///
    /// ```
    /// use greenthread::generator::Generator;
    /// let mut generator = Generator::new(|y| {
    ///     y.yield_('a');
    ///     "the end"
    /// });
    /// assert_eq!(generator.by_ref().collect::<String>(), "a");
    /// assert_eq!(generator.into_return(), Some("the end"));
    /// ```
    pub fn into_return(mut self) -> Option<R> {
        self.returned.take()
    }

    #[inline(always)]
    fn has_started(&self) -> bool {
        self.fiber.as_ref().is_none_or(Fiber::has_started)
    }

    #[inline(always)]
    #[track_caller]
    fn ask(&mut self, sent: Sent<S>) -> State<Y, R> {
        let Some(fiber) = &mut self.fiber else { ended() };
        match fiber.resume(sent) {
            Outcome::Yielded(value) => {
                self.unwinding = panicking();
                State::Yielded(value)
            }
            Outcome::Returned(value) => {
                self.fiber = None;
                State::Returned(value)
            }
            Outcome::Panicked(payload) => {
                self.fiber = None;
                resume_unwind(payload)
            }
        }
    }

    /// Ends the body of a generator that is dropped. What goes wrong can only be reported on stderr.
    #[cold]
    fn end(&mut self) {
        if cfg!(panic = "abort") {
            return;
        }
        for _ in 0..TRIES {
            if self.unwinding {
                break;
            }
            // What the body yields or returns is dropped inside of the closure, so that a panic of its destructor is
            // caught and reported.
            let result = catch_unwind(AssertUnwindSafe(|| {
                drop(self.ask(Sent::Throw(Box::new(boxed(GeneratorExit)))))
            }));
            tell_panic(result);
            if self.is_done() {
                return;
            }
        }
        complain(format_args!(
            "a dropped generator would not end, so its stack is leaked: {CloseError}"
        ));
    }
}

#[cold]
#[track_caller]
fn ended() -> ! {
    panic!("the generator has ended: it takes no more values")
}

/// The payload as std expects it: not boxed twice.
fn boxed(payload: impl Any + Send) -> Payload {
    let payload: Payload = Box::new(payload);
    payload
        .downcast::<Payload>()
        .map_or_else(|payload| payload, |inner| *inner)
}

fn tell_panic(result: Result<(), Payload>) {
    if let Err(payload) = result
        && !payload.is::<GeneratorExit>()
    {
        complain(format_args!(
            "a generator panicked while it was dropped: {}",
            message(&*payload)
        ));
    }
}

impl<Y: 'static, R: 'static> Generator<Y, (), R> {
    /// Runs the body up to its next `yield_`. The generator may be new.
    ///
    /// ```
    /// use greenthread::generator::{Generator, State};
    /// let mut generator = Generator::new(|y| {
    ///     y.yield_(1);
    ///     "end"
    /// });
    /// assert_eq!(generator.resume(), State::Yielded(1));
    /// assert_eq!(generator.resume(), State::Returned("end"));
    /// ```
    ///
    /// # Panics
    /// If the generator has ended. A panic of the body goes on in the caller.
    #[inline(always)]
    #[track_caller]
    pub fn resume(&mut self) -> State<Y, R> {
        self.ask(Sent::Value(()))
    }
}

/// `None` once the body has returned, and from then on.
///
/// # Panics
/// A panic of the body goes on in the caller, and the generator has then ended.
impl<Y: 'static, R: 'static> Iterator for Generator<Y, (), R> {
    type Item = Y;

    #[inline(always)]
    fn next(&mut self) -> Option<Y> {
        if self.is_done() {
            return None;
        }
        match self.resume() {
            State::Yielded(value) => Some(value),
            State::Returned(value) => {
                self.returned = Some(value);
                None
            }
        }
    }
}

impl<Y: 'static, R: 'static> FusedIterator for Generator<Y, (), R> {}

/// Dropping a generator closes it. One that does not end in a few tries is leaked, and a line on stderr says so. A
/// panic of the body at this point is reported there too.
///
/// As in any unwinding, a destructor of the body that panics meanwhile ends the process.
impl<Y: 'static, S: 'static, R: 'static> Drop for Generator<Y, S, R> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_done() {
            self.end();
        }
    }
}

impl<Y: 'static, S: 'static, R: 'static> fmt::Debug for Generator<Y, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.fiber {
            None => "ended",
            Some(fiber) if fiber.has_started() => "suspended",
            Some(_) => "new",
        };
        write!(f, "Generator({state})")
    }
}
