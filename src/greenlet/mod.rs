//! Greenlets: stacks that hand control to each other by hand.
//!
//! A [`Greenlet`] is a function on a stack of its own. [`switch`](Greenlet::switch) suspends the caller and continues
//! another greenlet, with a value. When some greenlet switches back, `switch` returns the value that comes with it.
//! There is no scheduler.
//!
//! ```
//! use greenthread::greenlet::{self, Greenlet};
//!
//! let main = greenlet::current::<u32>();
//! let adder = Greenlet::new(move |mut n| loop {
//!     n = main.switch(n + 1);
//! });
//! assert_eq!(adder.switch(1), 2); // starts the body with 1
//! assert_eq!(adder.switch(10), 11); // main.switch returns 10
//! ```
//!
//! All greenlets that exchange one type `T` on one green thread (or on one native stack) are a *family*. Its first
//! member is the stack that was there before, the *main* greenlet: [`current`] returns a handle to it. (Name the type
//! where nothing else does: a bare `0` makes a family of `i32`.) Any member may switch to any other:
//!
//! ```
//! use greenthread::greenlet::Greenlet;
//!
//! let more = Greenlet::new(|n: u32| {
//!     let square = Greenlet::new(|n| n * n);
//!     square.switch(n) + 1 // what `square` returns comes here: this greenlet made it
//! });
//! assert_eq!(more.switch(5), 26);
//! assert!(more.is_dead());
//! ```
//!
//! **Parents.** The greenlet that makes another one is its *parent*, until [`set_parent`](Greenlet::set_parent). When a
//! body returns a value, the parent gets it as if the body had switched there. A panic that leaves the body is raised
//! in the parent. If the parent is dead, its own parent takes its place. If the parent has not started, the value
//! starts it. A message to a dead greenlet goes to its parent in the same way. The main greenlet is never dead.
//!
//! **Ends.** [`throw`](Greenlet::throw) raises a payload where a greenlet waits, as `resume_unwind` does: no panic hook
//! reports it. [`GreenletExit`] is the quiet payload, which [`kill`](Greenlet::kill) throws: when it leaves a body, the
//! parent gets no value and no panic but [`SwitchError::Exited`]. Dropping the last handle of a suspended greenlet
//! kills it at once, and control then returns to the code that drops. A body may catch the payload and switch away. If
//! the body has not ended after a few tries, its stack is leaked, and a line on stderr says so. Greenlets that hold
//! handles to each other keep each other alive forever, as `Rc`s do; a child also holds its parent. A [`WeakGreenlet`],
//! or another parent, breaks the cycle.
//!
//! **Panics under way** are counted by std for each OS thread. If a destructor switches while a panic unwinds its
//! stack, `std::thread::panicking()` is true in the other greenlets, and mutexes that they unlock may be poisoned.
//!
//! **Other threads.** Greenlets stay on the OS thread, and on the green thread, that made them. A switch to a greenlet
//! of another thread is [`SwitchError::Foreign`]. A body may block as a green thread may; then its whole green thread
//! waits.
//!
//! ```text
//!  main's stack                   a                     b
//!  a.switch ─► pump ──resume────► body
//!              pump ◄──"go to b"─ b.switch
//!              pump ──resume──────────────────────────► body
//!  value  ◄─── pump ◄──"go to main"──────────────────── main.switch
//! ```
//!
//! # Invariants
//! - **GREENLET-1** Only `Family::pump` resumes a greenlet's fiber, on the stack where `main` waits in `switch`. While
//!   it does, `current` is that greenlet. At any other time `current` is `None`, also while the pump runs destructors.
//! - **GREENLET-2** The pump holds a handle to the greenlet that runs. If that is the last handle when control leaves
//!   the greenlet, `origin` keeps the handle. The handle is dropped on the new stack, once the greenlet that receives
//!   control has its message. Greenlets that end by that drop end by switches, like any other.
//! - **GREENLET-3** No cell is borrowed over a switch: the pump takes the fiber out of its node, and puts it back.
//! - **GREENLET-4** Neither a throw nor a drop raises anything in a greenlet that was suspended while its stack
//!   unwound. Such a greenlet is in a destructor, and a panic that leaves a destructor during an unwinding is an abort.
//!
//! # Rejected
//! - A fiber that resumes its sibling directly: stacks would nest in the order of switches, without bound.
//! - `Fiber::unwind` for the drop: it would raise in destructors that switch.
//! - An `Option<T>` as the value of an exit: every user of `switch` would pay for it.
#![forbid(unsafe_code)]

mod error;
mod family;
mod trace;

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};

use crate::fiber::unwind::{TRIES, message as text_of};
use crate::fiber::{Fiber, Outcome, Suspender, current as chain};
use crate::stack::local_size;
use crate::sys::report::complain;
use family::{Answer, Family, Hop, Message, Node, Payload, Stage, next_id};

pub use error::{GreenletExit, ParentError, SwitchError};
pub use trace::{Hook, TraceEvent, TraceKind, set_trace, trace};

/// A handle to a body on a stack of its own, in a family that exchanges `T`; see the [module](self).
///
/// Clones are handles to the same greenlet. It stays on the OS thread that made it:
///
/// ```compile_fail
/// let greenlet = greenthread::greenlet::Greenlet::new(|n: u32| n);
/// std::thread::spawn(move || greenlet.switch(1));
/// ```
///
/// and so does a parent:
///
/// ```compile_fail
/// use greenthread::greenlet::{self, Greenlet};
/// let main = greenlet::current::<u32>();
/// std::thread::spawn(move || Greenlet::new(|n: u32| n).set_parent(&main));
/// ```
pub struct Greenlet<T: 'static> {
    node: Rc<Node<T>>,
}

impl<T: 'static> Greenlet<T> {
    /// A greenlet with `body`. Its parent is the running greenlet. The body starts at the first switch, with its value.
    ///
    /// ```
    /// use greenthread::greenlet::Greenlet;
    /// let shout = Greenlet::new(|text: String| text.to_uppercase());
    /// assert_eq!(shout.switch("hello".into()), "HELLO");
    /// ```
    ///
    /// # Panics
    /// If there is no memory for the stack; [`Builder::build`] returns an error instead.
    #[track_caller]
    pub fn new(body: impl FnOnce(T) -> T + 'static) -> Self {
        match Builder::new().build(body) {
            Ok(greenlet) => greenlet,
            Err(error) => panic!(
                "cannot make a greenlet, for there is no stack: {error}; `Builder::build` gives this as an error"
            ),
        }
    }

    /// A [`Builder`], which can set a name, a parent and a stack size.
    pub fn builder() -> Builder<T> {
        Builder::new()
    }

    /// Suspends the caller, continues the greenlet with `value`, and returns the value with which control comes back.
    ///
    /// A switch to the caller itself returns the value at once. A dead greenlet passes it on to its parent.
    ///
    /// ```
    /// use greenthread::greenlet::{self, Greenlet};
    /// let main = greenlet::current();
    /// let counter = Greenlet::new(move |_| loop {
    ///     for n in 1.. { main.switch(n); }
    /// });
    /// assert_eq!([counter.switch(0), counter.switch(0), counter.switch(0)], [1, 2, 3]);
    /// ```
    ///
    /// # Panics
    /// If [`try_switch`](Greenlet::try_switch) would return an error. Also with a payload that is thrown into the
    /// caller meanwhile, and with the panic of a child of the caller.
    ///
    /// # Coming from Python
    /// `greenlet.switch(value)`.
    #[inline(always)]
    #[track_caller]
    pub fn switch(&self, value: T) -> T {
        match self.transfer(Message::Value(value)) {
            Answer::Value(value) => value,
            other => unanswered(other),
        }
    }

    /// Like [`switch`](Greenlet::switch), with an error where that panics.
    ///
    /// # Errors
    /// [`Foreign`](SwitchError::Foreign) gives the value back if the greenlet cannot be reached from here.
    /// [`Exited`](SwitchError::Exited) takes the place of the answer if control came back by the [`GreenletExit`] of a
    /// greenlet.
    ///
    /// # Panics
    /// With a payload that is thrown at the caller meanwhile, and with the panic of a child of the caller.
    #[inline(always)]
    pub fn try_switch(&self, value: T) -> Result<T, SwitchError<T>> {
        self.transfer(Message::Value(value)).open(|message| match message {
            Message::Value(value) => value,
            _ => unreachable!("a message that was refused is the one that was sent"),
        })
    }

    /// Raises `payload` where the greenlet waits, and returns the value with which control comes back.
    ///
    /// It is raised as by [`resume_unwind`], so no panic hook reports it. A payload in a box is not boxed again. A
    /// greenlet that has not started dies of it without running a line. If the greenlet is dead, the payload goes to
    /// its parent.
    ///
    /// ```
    /// use greenthread::greenlet::{self, Greenlet};
    /// use std::panic::{AssertUnwindSafe, catch_unwind};
    ///
    /// let main = greenlet::current();
    /// let careful = Greenlet::new(move |n| {
    ///     let wait = catch_unwind(AssertUnwindSafe(|| main.switch(n + 1)));
    ///     *wait.unwrap_err().downcast::<u32>().unwrap()
    /// });
    /// assert_eq!(careful.switch(1), 2);
    /// assert_eq!(careful.throw(3_u32), 3);
    /// ```
    ///
    /// # Panics
    /// As [`switch`](Greenlet::switch). That includes `payload` itself, if the caller is the parent and the body does
    /// not catch it.
    #[track_caller]
    pub fn throw(&self, payload: impl Any + Send) -> T {
        match self.transfer(Message::Throw(Box::new(boxed(payload)))) {
            Answer::Value(value) => value,
            other => unanswered(other),
        }
    }

    /// Like [`throw`](Greenlet::throw), with an error where that panics by itself.
    ///
    /// # Errors
    /// As for [`try_switch`](Greenlet::try_switch), and [`Unwinding`](SwitchError::Unwinding).
    pub fn try_throw(&self, payload: impl Any + Send) -> Result<T, SwitchError<Box<dyn Any + Send>>> {
        let message = Message::Throw(Box::new(boxed(payload)));
        self.transfer(message).open(|message| match message {
            Message::Throw(payload) => *payload,
            _ => unreachable!("a message that was refused is the one that was sent"),
        })
    }

    /// Throws [`GreenletExit`]. The usual answer is `None`: a child of the caller has ended by it.
    ///
    /// ```
    /// use greenthread::greenlet::{self, Greenlet};
    /// let main = greenlet::current();
    /// let waiting = Greenlet::new(move |n: u32| main.switch(n));
    /// waiting.switch(1);
    /// assert_eq!(waiting.kill(), None);
    /// assert!(waiting.is_dead());
    /// ```
    ///
    /// # Panics
    /// As [`throw`](Greenlet::throw).
    ///
    /// # Coming from Python
    /// `greenlet.throw()`. If the body catches the exit and returns a value, that value is the answer.
    #[track_caller]
    pub fn kill(&self) -> Option<T> {
        match self.try_throw(GreenletExit) {
            Ok(value) => Some(value),
            Err(SwitchError::Exited) => None,
            Err(error) => panic!("{self:?}: {error}"),
        }
    }

    /// The greenlet that gets what this one returns. Only the main greenlet has no parent.
    pub fn parent(&self) -> Option<Greenlet<T>> {
        if self.node.stage.get() == Stage::Main {
            return None;
        }
        let parent = self.node.parent.borrow().clone();
        Some(parent.unwrap_or_else(|| self.node.family.main()))
    }

    /// Sets the greenlet that gets what this one returns.
    ///
    /// ```
    /// use greenthread::greenlet::{Greenlet, ParentError};
    /// let a = Greenlet::new(|n: u32| n);
    /// let b = Greenlet::new(|n: u32| n * 10);
    /// a.set_parent(&b).unwrap();
    /// assert_eq!(b.set_parent(&a), Err(ParentError::Cyclic));
    /// assert_eq!(a.switch(1), 10); // a returned 1 to b, b 10 to us
    /// ```
    ///
    /// # Errors
    /// The chain of parents would be a ring, `parent` is of another family, or this is the main greenlet.
    pub fn set_parent(&self, parent: &Greenlet<T>) -> Result<(), ParentError> {
        if self.node.stage.get() == Stage::Main {
            return Err(ParentError::Main);
        }
        if !Rc::ptr_eq(&self.node.family, &parent.node.family) {
            return Err(ParentError::Foreign);
        }
        let mut above = Some(parent.clone());
        while let Some(greenlet) = above {
            if greenlet == *self {
                return Err(ParentError::Cyclic);
            }
            above = greenlet.node.parent.borrow().clone();
        }
        let before = self.node.parent.replace(parent.or_main());
        drop(before);
        Ok(())
    }

    /// Whether the body has ended, or will never run.
    pub fn is_dead(&self) -> bool {
        self.node.stage.get() == Stage::Dead
    }

    /// Whether the body has started and not ended.
    pub fn is_active(&self) -> bool {
        !matches!(self.node.stage.get(), Stage::New | Stage::Dead)
    }

    /// Whether this is the greenlet that the caller runs in.
    pub fn is_current(&self) -> bool {
        match self.node.stage.get() {
            Stage::Running => self.node.family.is_here(),
            Stage::Main => self.node.family.peek(|_| ()).is_none() && self.node.family.is_here(),
            _ => false,
        }
    }

    /// A number that no other greenlet of this process has; the one in [`TraceEvent`].
    pub fn id(&self) -> u64 {
        self.node.id
    }

    /// The name that the [`Builder`] gave it; `"main"` for the main greenlet.
    pub fn name(&self) -> Option<&str> {
        self.node.name.as_deref()
    }

    /// A handle that does not keep the greenlet alive.
    pub fn downgrade(&self) -> WeakGreenlet<T> {
        WeakGreenlet {
            node: Rc::downgrade(&self.node),
        }
    }

    /// The greenlet as a target or a parent: `None` stands for the main greenlet.
    fn or_main(&self) -> Option<Greenlet<T>> {
        (self.node.stage.get() != Stage::Main).then(|| self.clone())
    }

    /// Sends `message`, and returns what comes back.
    #[inline(always)]
    fn transfer(&self, message: Message<T>) -> Answer<T> {
        // The two cases that need no rule: a suspended greenlet, and the main one.
        match (self.node.stage.get(), &message) {
            (Stage::Suspended, Message::Value(_)) => self.node.family.go(self.clone(), message),
            (Stage::Main, _) => self.node.family.go_to_main(message),
            _ => self.transfer_by_rule(message),
        }
    }

    #[cold]
    fn transfer_by_rule(&self, message: Message<T>) -> Answer<T> {
        let family = &self.node.family;
        if !family.is_here() {
            return Answer::refuse(SwitchError::Foreign(message));
        }
        match (self.node.stage.get(), &message) {
            (Stage::Running, _) => return message.into(),
            (Stage::Unwinding, Message::Throw(_)) => {
                return Answer::refuse(SwitchError::Unwinding(message));
            }
            _ => {}
        }
        let (target, message) = match self.accept(message) {
            Ok(message) => (self.or_main(), message),
            Err(message) => self.successor(message),
        };
        match target {
            Some(target) if target.node.stage.get() == Stage::Running => message.into(),
            Some(target) => family.go(target, message),
            None => family.go_to_main(message),
        }
    }

    /// Whether the message can be delivered here. If not, a new greenlet dies of it, and the message may change.
    fn accept(&self, message: Message<T>) -> Result<Message<T>, Message<T>> {
        match (self.node.stage.get(), &message) {
            (Stage::Dead, _) => Err(message.of_the_dead()),
            (Stage::New, Message::Exit | Message::Throw(_)) => {
                self.abandon();
                Err(message.of_the_dead())
            }
            _ => Ok(message),
        }
    }

    /// The first greenlet on the way up the parents that takes the message.
    fn successor(&self, mut message: Message<T>) -> Hop<T> {
        let mut above = self.node.parent.borrow().clone();
        while let Some(greenlet) = above {
            message = match greenlet.accept(message) {
                Ok(message) => return (Some(greenlet), message),
                Err(message) => message,
            };
            above = greenlet.node.parent.borrow().clone();
        }
        (None, message)
    }

    /// Ends a new greenlet without running it. What the body has captured is dropped on its own stack, where a panic
    /// becomes a value.
    fn abandon(&self) {
        self.node.stage.set(Stage::Dead);
        let fiber = self.node.fiber.take();
        if let Some(Outcome::Panicked(payload)) = fiber.map(|mut fiber| fiber.resume(Message::Exit)) {
            self.tell_panic(Err(payload));
        }
    }

    /// Ends a greenlet of which `self` is the last handle.
    #[cold]
    fn end(&self) {
        if cfg!(panic = "abort") {
            return;
        }
        if self.node.stage.get() == Stage::New {
            return self.abandon();
        }
        let family = self.node.family.clone();
        // A second handle, so that no drop meanwhile takes itself for the last one.
        let keep = self.clone();
        if family.is_here() {
            return keep.end_here();
        }
        // Another root drops the handle while a greenlet of the family runs on its own. The family's main greenlet ends
        // this one later.
        if family.peek(|_| ()).is_some() {
            family.deferred_drops.borrow_mut().push(keep);
            return family.has_pending.set(true);
        }
        // Another root drops the handle, and none of the family runs: let that root play main for the time of the kill.
        let root = family.root.replace(chain::root());
        keep.end_here();
        family.root.set(root);
    }

    /// Raises [`GreenletExit`] until the greenlet has ended, or has found another handle. The caller is its parent
    /// meanwhile, so that control comes back here.
    fn end_here(self) {
        let caller = self.node.family.peek(Greenlet::clone);
        let parent = self.node.parent.replace(caller);
        // The handles are this one, and the one that is being dropped.
        let is_last = || Rc::strong_count(&self.node) == 2;
        for _ in 0..TRIES {
            if self.node.stage.get() == Stage::Unwinding || self.is_dead() || !is_last() {
                break;
            }
            // The answer is dropped inside of the closure, so that a panic of its destructor is caught and reported.
            let result = catch_unwind(AssertUnwindSafe(|| {
                if let Answer::Throw(payload) = self.transfer(Message::Throw(Box::new(boxed(GreenletExit)))) {
                    resume_unwind(*payload);
                }
            }));
            self.tell_panic(result);
        }
        let caller = self.node.parent.replace(parent);
        drop(caller);
        if !self.is_dead() && is_last() {
            complain(format_args!(
                "{self:?} would not end when its last handle was dropped, for its body catches GreenletExit: its stack is leaked"
            ));
            std::mem::forget(self);
        }
    }

    fn tell_panic(&self, result: Result<(), Payload>) {
        if let Err(payload) = result
            && !payload.is::<GreenletExit>()
        {
            complain(format_args!(
                "{self:?} panicked while it was dropped: {}",
                text_of(&*payload)
            ));
        }
    }
}

// Without the greenlet: a switch would have to keep the reference over its wait.
#[cold]
#[track_caller]
fn unanswered<T>(answer: Answer<T>) -> ! {
    match answer {
        Answer::Throw(payload) => resume_unwind(*payload),
        Answer::Refused(error) => panic!("{error}"),
        _ => panic!("{}", SwitchError::<()>::Exited),
    }
}

/// The payload as std expects it: not boxed twice.
fn boxed(payload: impl Any + Send) -> Payload {
    let payload: Payload = Box::new(payload);
    payload
        .downcast::<Payload>()
        .map_or_else(|payload| payload, |inner| *inner)
}

/// The running greenlet of the family that exchanges `T`, or its main greenlet if no other member runs.
///
/// ```
/// use greenthread::greenlet::{self, Greenlet};
/// let main = greenlet::current::<u64>();
/// let g = Greenlet::new(|_| greenlet::current::<u64>().id());
/// assert_eq!(g.switch(0), g.id());
/// assert_eq!(g.parent(), Some(main));
/// ```
///
/// # Coming from Python
/// `greenlet.getcurrent()`.
pub fn current<T: 'static>() -> Greenlet<T> {
    let family = Family::here();
    family.running().unwrap_or_else(|| family.main())
}

impl<T: 'static> Clone for Greenlet<T> {
    #[inline]
    fn clone(&self) -> Self {
        Greenlet {
            node: self.node.clone(),
        }
    }
}

/// Dropping the last handle of a suspended greenlet ends it; see the [module](self). Its panics are reported on stderr.
///
/// As in any unwinding, a destructor of the body that panics meanwhile ends the process. If the handle is dropped on
/// another green thread, while the greenlet's own green thread is inside of the family, the greenlet ends later: when
/// the family's main greenlet runs.
impl<T: 'static> Drop for Greenlet<T> {
    #[inline]
    fn drop(&mut self) {
        if Rc::strong_count(&self.node) == 1
            && matches!(self.node.stage.get(), Stage::New | Stage::Suspended | Stage::Unwinding)
        {
            self.end();
        }
    }
}

impl<T: 'static> PartialEq for Greenlet<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl<T: 'static> Eq for Greenlet<T> {}

impl<T: 'static> Hash for Greenlet<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl<T: 'static> fmt::Debug for Greenlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Greenlet(#{}", self.id())?;
        if let Some(name) = self.name() {
            write!(f, " {name:?}")?;
        }
        f.write_str(match self.node.stage.get() {
            _ if self.is_current() => ", current)",
            Stage::Main => ", suspended)",
            Stage::New => ", pending)",
            Stage::Suspended | Stage::Unwinding => ", suspended)",
            Stage::Running => ", current elsewhere)",
            Stage::Dead => ", dead)",
        })
    }
}

/// A handle that does not keep its greenlet alive, for rings of greenlets.
///
/// ```
/// use greenthread::greenlet::Greenlet;
/// let greenlet = Greenlet::new(|n: u32| n);
/// let weak = greenlet.downgrade();
/// assert_eq!(weak.upgrade(), Some(greenlet.clone()));
/// drop(greenlet);
/// assert_eq!(weak.upgrade(), None);
/// ```
pub struct WeakGreenlet<T: 'static> {
    node: Weak<Node<T>>,
}

impl<T: 'static> WeakGreenlet<T> {
    /// A full handle, if the greenlet still exists.
    pub fn upgrade(&self) -> Option<Greenlet<T>> {
        self.node.upgrade().map(|node| Greenlet { node })
    }
}

impl<T: 'static> Clone for WeakGreenlet<T> {
    fn clone(&self) -> Self {
        WeakGreenlet {
            node: self.node.clone(),
        }
    }
}

impl<T: 'static> fmt::Debug for WeakGreenlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upgrade() {
            Some(greenlet) => write!(f, "Weak{greenlet:?}"),
            None => f.write_str("WeakGreenlet(gone)"),
        }
    }
}

/// Makes a greenlet with a name, a parent or a stack size of its own.
///
/// ```
/// use greenthread::greenlet::Greenlet;
/// # fn main() -> std::io::Result<()> {
/// let deep = Greenlet::builder().name("deep").stack_size(4 << 20).build(|n: u32| n)?;
/// assert_eq!(deep.name(), Some("deep"));
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder builds nothing until build() is called"]
pub struct Builder<T: 'static> {
    name: Option<Box<str>>,
    parent: Option<Greenlet<T>>,
    stack_size: usize,
}

impl<T: 'static> Builder<T> {
    /// A builder without a name, with the running greenlet as the parent, and with the default stack size.
    pub fn new() -> Self {
        Builder {
            name: None,
            parent: None,
            stack_size: local_size(),
        }
    }

    /// Sets a name, for `Debug` and messages.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into_boxed_str());
        self
    }

    /// Sets a parent other than the running greenlet. The new greenlet belongs to the parent's family.
    pub fn parent(mut self, parent: &Greenlet<T>) -> Self {
        self.parent = Some(parent.clone());
        self
    }

    /// Sets the usable size of the stack in bytes; the default is [`stack::local_size`](crate::stack::local_size).
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = bytes;
        self
    }

    /// Makes the greenlet, which starts at the first switch.
    ///
    /// # Errors
    /// A size that makes no sense, or no memory for the stack.
    pub fn build(self, body: impl FnOnce(T) -> T + 'static) -> io::Result<Greenlet<T>> {
        let (family, parent) = match self.parent {
            Some(parent) => (parent.node.family.clone(), parent.or_main()),
            None => {
                let family = Family::here();
                let parent = family.running();
                (family, parent)
            }
        };
        let mine = family.clone();
        let fiber = Fiber::new(
            self.stack_size,
            move |suspender: &Suspender<Message<T>, Hop<T>>, message| {
                // `abandon`: the greenlet ends before it began. What the body has captured is dropped here, on its own
                // stack.
                if let Message::Exit = message {
                    drop(body);
                    resume_unwind(Box::new(GreenletExit));
                }
                // The pump found no suspender at this first resume. Later resumes take it from the node.
                let suspender = Some(suspender.keep());
                mine.suspender.set(suspender);
                mine.peek(|me| me.node.suspender.set(suspender));
                match mine.arrive(message) {
                    Message::Value(value) => body(value),
                    Message::Throw(payload) => resume_unwind(*payload),
                    Message::Exit => unreachable!("the body of a greenlet that an exit starts never runs"),
                }
            },
        )?;
        let node = Node::new(&family, next_id(), self.name, parent, Stage::New, Some(Box::new(fiber)));
        Ok(Greenlet { node })
    }
}

impl<T: 'static> Default for Builder<T> {
    fn default() -> Self {
        Builder::new()
    }
}

impl<T: 'static> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("parent", &self.parent)
            .field("stack_size", &self.stack_size)
            .finish()
    }
}
