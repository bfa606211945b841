//! A family: all greenlets that exchange one type on one root, and the pump that resumes them.
//!
//! The numbers of the invariants are those of [`greenlet`](super).
#![forbid(unsafe_code)]

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::panicking;

use super::{Greenlet, GreenletExit, SwitchError, TraceEvent, TraceKind, set_trace, trace};
use crate::fiber::{Fiber, Kept, Outcome, current as chain};

pub(super) type Payload = Box<dyn Any + Send>;

/// Whom to resume next, `None` being the main greenlet, and with what.
pub(super) type Hop<T> = (Option<Greenlet<T>>, Message<T>);

/// A body's fiber. An exit as the first message ends it before the body runs.
pub(super) type Body<T> = Fiber<Message<T>, Hop<T>, T>;

type Suspender<T> = Kept<Message<T>, Hop<T>>;

/// What a switch brings along.
pub(super) enum Message<T> {
    Value(T),
    /// A greenlet ended by [`GreenletExit`].
    Exit,
    /// Boxed once more, so that a message is two words.
    Throw(Box<Payload>),
}

impl<T> Message<T> {
    /// What is left of it when the one it was thrown at cannot be raised in any more.
    pub(super) fn of_the_dead(self) -> Self {
        match self {
            Message::Throw(payload) if payload.is::<GreenletExit>() => Message::Exit,
            other => other,
        }
    }
}

/// What comes of a switch: a message, or a refusal. Flat, so that it travels in two registers.
pub(super) enum Answer<T> {
    Value(T),
    Exit,
    Throw(Box<Payload>),
    /// With what was not sent.
    Refused(Box<SwitchError<Message<T>>>),
}

impl<T> From<Message<T>> for Answer<T> {
    #[inline(always)]
    fn from(message: Message<T>) -> Self {
        match message {
            Message::Value(value) => Answer::Value(value),
            Message::Exit => Answer::Exit,
            Message::Throw(payload) => Answer::Throw(payload),
        }
    }
}

impl<T> Answer<T> {
    #[cold]
    pub(super) fn refuse(error: SwitchError<Message<T>>) -> Self {
        Answer::Refused(Box::new(error))
    }

    /// The answer as the one that switched sees it; `unsent` is what it meant to send.
    #[inline]
    pub(super) fn open<V>(self, unsent: impl FnOnce(Message<T>) -> V) -> Result<T, SwitchError<V>> {
        match self {
            Answer::Value(value) => Ok(value),
            Answer::Exit => Err(SwitchError::Exited),
            Answer::Throw(payload) => resume_unwind(*payload),
            Answer::Refused(error) => Err(error.map(unsent)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Main,
    New,
    Suspended,
    /// Suspended while a panic was under way: maybe from one of its destructors (L4).
    Unwinding,
    Running,
    Dead,
}

pub(super) struct Node<T: 'static> {
    pub(super) family: Rc<Family<T>>,
    pub(super) id: u64,
    pub(super) name: Option<Box<str>>,
    /// `None` is the main greenlet.
    pub(super) parent: RefCell<Option<Greenlet<T>>>,
    pub(super) stage: Cell<Stage>,
    /// There while it is new or suspended (L3).
    pub(super) fiber: Cell<Option<Box<Body<T>>>>,
    /// There from the start.
    pub(super) suspender: Cell<Option<Suspender<T>>>,
}

/// All that exchange `T` on one root.
pub(super) struct Family<T: 'static> {
    pub(super) key: (u64, TypeId),
    /// As in `key`, but for the time that another root ends a greenlet of ours.
    pub(super) root: Cell<u64>,
    pub(super) main_id: u64,
    pub(super) main: RefCell<Weak<Node<T>>>,
    pub(super) current: Cell<Option<Greenlet<T>>>,
    /// That of `current`, where a switch finds it without a detour.
    pub(super) suspender: Cell<Option<Suspender<T>>>,
    pub(super) origin: Cell<Option<Greenlet<T>>>,
    /// There is an origin, a hook, or a grave.
    pub(super) news: Cell<bool>,
    /// Dropped on another root while one of ours ran.
    pub(super) graves: RefCell<Vec<Greenlet<T>>>,
}

thread_local! {
    static FAMILIES: RefCell<HashMap<(u64, TypeId), Weak<dyn Any>>> = RefCell::default();
}

/// Fills a cell that is empty, which spares the drop of what was there.
#[inline(always)]
fn put<V>(empty: &Cell<Option<V>>, value: V) {
    let before = empty.replace(Some(value));
    debug_assert!(before.is_none(), "filled twice");
    forget(before);
}

pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl<T: 'static> Family<T> {
    /// The family of the running root.
    pub(super) fn here() -> Rc<Family<T>> {
        let key = (chain::root(), TypeId::of::<T>());
        let known = FAMILIES.try_with(|families| families.borrow().get(&key).and_then(Weak::upgrade));
        if let Ok(Some(known)) = known
            && let Ok(family) = known.downcast()
        {
            return family;
        }
        let family: Rc<Family<T>> = Rc::new(Family {
            key,
            root: Cell::new(key.0),
            main_id: next_id(),
            main: RefCell::default(),
            current: Cell::default(),
            suspender: Cell::default(),
            origin: Cell::default(),
            news: Cell::default(),
            graves: RefCell::default(),
        });
        let weak: Weak<dyn Any> = Rc::downgrade(&(family.clone() as Rc<dyn Any>));
        // At the end of the OS thread there is no map any more, and the family is that of one handle.
        let _ = FAMILIES.try_with(|families| families.borrow_mut().insert(key, weak));
        family
    }

    pub(super) fn main(self: &Rc<Self>) -> Greenlet<T> {
        let known = self.main.borrow().upgrade();
        let node = known.unwrap_or_else(|| {
            let node = Node::new(self, self.main_id, Some("main".into()), None, Stage::Main, None);
            *self.main.borrow_mut() = Rc::downgrade(&node);
            node
        });
        Greenlet { node }
    }

    /// Looks at the running greenlet, `None` being the main one.
    #[inline(always)]
    pub(super) fn peek<R>(&self, look: impl FnOnce(&Greenlet<T>) -> R) -> Option<R> {
        let current = self.current.take();
        let result = current.as_ref().map(look);
        self.current.set(current);
        result
    }

    /// The member that the caller runs in; `None` is the main one.
    pub(super) fn running(&self) -> Option<Greenlet<T>> {
        self.peek(Greenlet::clone).filter(|_| self.is_here())
    }

    /// Whether the caller runs as a member of this family.
    pub(super) fn is_here(&self) -> bool {
        match self.suspender.get() {
            Some(suspender) => suspender.is_here(),
            None => chain::is_root(self.root.get()),
        }
    }

    /// Leaves the running stack for `target` and returns what somebody brings later.
    #[inline(always)]
    pub(super) fn go(&self, target: Greenlet<T>, message: Message<T>) -> Answer<T> {
        if let Some(suspender) = self.suspender.get() {
            return self.suspend(suspender, (Some(target), message));
        }
        if !chain::is_root(self.root.get()) {
            return Answer::refuse(SwitchError::Foreign(message));
        }
        if trace::is_on() {
            self.news.set(true);
        }
        let message = match self.hop(target, message) {
            (None, message) => message,
            (Some(next), message) => self.pump(next, message),
        };
        self.arrive(message).into()
    }

    /// Leaves the running stack for the main one.
    #[inline(always)]
    pub(super) fn go_to_main(&self, message: Message<T>) -> Answer<T> {
        match self.suspender.get() {
            Some(suspender) => self.suspend(suspender, (None, message)),
            None if chain::is_root(self.root.get()) => message.into(),
            None => Answer::refuse(SwitchError::Foreign(message)),
        }
    }

    #[inline(always)]
    fn suspend(&self, suspender: Suspender<T>, hop: Hop<T>) -> Answer<T> {
        match suspender.suspend(hop) {
            Ok(message) => self.arrive(message).into(),
            Err((_, message)) => Answer::refuse(SwitchError::Foreign(message)),
        }
    }

    /// Resumes `target`, and whoever is switched to then, until that is the main greenlet (L1).
    #[inline(never)]
    fn pump(&self, mut target: Greenlet<T>, mut message: Message<T>) -> Message<T> {
        loop {
            match self.hop(target, message) {
                (Some(next), for_next) => (target, message) = (next, for_next),
                (None, message) => return message,
            }
        }
    }

    /// Resumes `target` with `message` until it says who is next.
    #[inline(always)]
    fn hop(&self, target: Greenlet<T>, message: Message<T>) -> Hop<T> {
        let fiber = target.node.fiber.take();
        let mut fiber = fiber.expect("who can be switched to has its fiber (L3)");
        target.node.stage.set(Stage::Running);
        self.suspender.set(target.node.suspender.get());
        put(&self.current, target);
        match fiber.resume(message) {
            Outcome::Yielded((next, message)) => {
                let ran = self.stopped();
                let stage = if panicking() {
                    Stage::Unwinding
                } else {
                    Stage::Suspended
                };
                ran.node.stage.set(stage);
                put(&ran.node.fiber, fiber);
                self.leave(ran);
                (next, message)
            }
            Outcome::Returned(value) => self.bury(fiber, Message::Value(value)),
            Outcome::Panicked(payload) => self.bury(fiber, Message::Throw(Box::new(payload)).of_the_dead()),
        }
    }

    /// Nobody of the family runs now; returns who did.
    #[inline(always)]
    fn stopped(&self) -> Greenlet<T> {
        self.suspender.set(None);
        self.current.take().expect("it ran (L1)")
    }

    #[cold]
    #[inline(never)]
    fn bury(&self, fiber: Box<Body<T>>, message: Message<T>) -> Hop<T> {
        let dead = self.stopped();
        drop(fiber);
        dead.node.stage.set(Stage::Dead);
        let hop = dead.heir(message);
        self.leave(dead);
        hop
    }

    /// Lets the one that ran go, or leaves that to the next (L2).
    #[inline(always)]
    fn leave(&self, ran: Greenlet<T>) {
        if Rc::strong_count(&ran.node) == 1 || trace::is_on() {
            self.origin.set(Some(ran));
            self.news.set(true);
        }
    }

    /// The first thing on a stack that control came to.
    #[inline(always)]
    pub(super) fn arrive(&self, message: Message<T>) -> Message<T> {
        if self.news.get() { self.hear(message) } else { message }
    }

    /// Tells the hook, and lets go of the one that left (L2) and of those that main is to drop.
    #[cold]
    fn hear(&self, mut message: Message<T>) -> Message<T> {
        self.news.set(false);
        let origin = self.origin.take();
        if trace::is_on() {
            message = self.traced(origin.as_ref().map_or(self.main_id, Greenlet::id), message);
        }
        drop(origin);
        if self.suspender.get().is_none() {
            let graves = self.graves.take();
            drop(graves);
        } else if !self.graves.borrow().is_empty() {
            self.news.set(true);
        }
        message
    }

    fn traced(&self, origin: u64, message: Message<T>) -> Message<T> {
        let kind = if matches!(message, Message::Throw(_)) {
            TraceKind::Throw
        } else {
            TraceKind::Switch
        };
        let target = self.peek(Greenlet::id).unwrap_or(self.main_id);
        let Some(hook) = trace() else { return message };
        match catch_unwind(AssertUnwindSafe(|| hook(&TraceEvent { kind, origin, target }))) {
            Ok(()) => message,
            Err(payload) => {
                set_trace(None);
                Message::Throw(Box::new(payload))
            }
        }
    }
}

impl<T: 'static> Drop for Family<T> {
    fn drop(&mut self) {
        let _ = FAMILIES.try_with(|families| {
            let mut families = families.borrow_mut();
            // A new family may have the place already.
            if families.get(&self.key).is_some_and(|family| family.strong_count() == 0) {
                families.remove(&self.key);
            }
        });
    }
}

impl<T: 'static> Node<T> {
    pub(super) fn new(
        family: &Rc<Family<T>>,
        id: u64,
        name: Option<Box<str>>,
        parent: Option<Greenlet<T>>,
        stage: Stage,
        fiber: Option<Box<Body<T>>>,
    ) -> Rc<Node<T>> {
        Rc::new(Node {
            family: family.clone(),
            id,
            name,
            parent: RefCell::new(parent),
            stage: Cell::new(stage),
            fiber: Cell::new(fiber),
            suspender: Cell::default(),
        })
    }
}
