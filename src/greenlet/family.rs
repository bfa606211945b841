//! A family: all greenlets that exchange one type on one root, and the pump that resumes them.
//!
//! The numbers of the invariants are those of [`greenlet`](super).
#![forbid(unsafe_code)]

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::panicking;

use super::{Greenlet, GreenletExit, SwitchError, TraceEvent, TraceKind, set_trace, trace};
use crate::fiber::{Fiber, Kept, Outcome, current as chain};

pub(super) type Payload = Box<dyn Any + Send>;

/// A body's fiber: it suspends with whom to resume next, `None` being the main greenlet. What it is resumed with says,
/// the first time, whether the body is to run at all.
pub(super) type Body<T> = Fiber<bool, Option<Greenlet<T>>, T>;

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

    /// The message as its receiver sees it.
    pub(super) fn open<V>(self) -> Result<T, SwitchError<V>> {
        match self {
            Message::Value(value) => Ok(value),
            Message::Exit => Err(SwitchError::Exited),
            Message::Throw(payload) => resume_unwind(*payload),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Main,
    New,
    Suspended,
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
    /// There while it is new or suspended (L4).
    pub(super) fiber: Cell<Option<Box<Body<T>>>>,
    /// There from the start.
    pub(super) suspender: Cell<Option<Kept<bool, Option<Greenlet<T>>>>>,
    /// It suspended while a panic was under way: maybe from one of its destructors (L5).
    pub(super) unwinding: Cell<bool>,
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
    pub(super) suspender: Cell<Option<Kept<bool, Option<Greenlet<T>>>>>,
    pub(super) origin: Cell<Option<Greenlet<T>>>,
    pub(super) slot: Cell<Option<Message<T>>>,
    /// Dropped on another root while one of ours ran.
    pub(super) graves: RefCell<Vec<Greenlet<T>>>,
}

thread_local! {
    static FAMILIES: RefCell<HashMap<(u64, TypeId), Weak<dyn Any>>> = RefCell::default();
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
            slot: Cell::default(),
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
            None => chain::root() == self.root.get(),
        }
    }

    /// Leaves the running stack for `target` (`None`: main) and returns what somebody brings later.
    #[inline(always)]
    pub(super) fn go(
        &self,
        target: Option<Greenlet<T>>,
        message: Message<T>,
    ) -> Result<Message<T>, SwitchError<Message<T>>> {
        match self.suspender.get() {
            Some(suspender) => {
                self.slot.set(Some(message));
                if suspender.suspend(target).is_err() {
                    return Err(SwitchError::Foreign(self.slot.take().expect("set above")));
                }
                Ok(self.arrive())
            }
            None if chain::root() != self.root.get() => Err(SwitchError::Foreign(message)),
            None => {
                let Some(target) = target else { return Ok(message) };
                self.slot.set(Some(message));
                self.pump(target);
                let message = self.arrive();
                if !self.graves.borrow().is_empty() {
                    let graves = self.graves.take();
                    drop(graves);
                }
                Ok(message)
            }
        }
    }

    /// Resumes `target`, and whoever is switched to then, until that is the main greenlet (L1).
    #[inline(always)]
    fn pump(&self, mut target: Greenlet<T>) {
        loop {
            let mut fiber = target
                .node
                .fiber
                .take()
                .expect("who can be switched to has its fiber (L4)");
            target.node.stage.set(Stage::Running);
            self.suspender.set(target.node.suspender.get());
            self.current.set(Some(target));
            let outcome = fiber.resume(true);
            self.suspender.set(None);
            let ran = self.current.take().expect("it ran (L1)");
            let next = match outcome {
                Outcome::Yielded(next) => {
                    ran.node.unwinding.set(panicking());
                    ran.node.stage.set(Stage::Suspended);
                    ran.node.fiber.set(Some(fiber));
                    next
                }
                Outcome::Returned(value) => {
                    drop(fiber);
                    self.bury(&ran, Message::Value(value))
                }
                Outcome::Panicked(payload) => {
                    drop(fiber);
                    self.bury_panicked(&ran, payload)
                }
            };
            self.origin.set(Some(ran));
            match next {
                Some(next) => target = next,
                None => return,
            }
        }
    }

    #[cold]
    fn bury_panicked(&self, dead: &Greenlet<T>, payload: Payload) -> Option<Greenlet<T>> {
        self.bury(dead, Message::Throw(Box::new(payload)).of_the_dead())
    }

    /// Passes the last message of `dead` to its heir.
    #[inline(never)]
    fn bury(&self, dead: &Greenlet<T>, message: Message<T>) -> Option<Greenlet<T>> {
        dead.node.stage.set(Stage::Dead);
        let (heir, message) = dead.heir(message);
        self.slot.set(Some(message));
        heir
    }

    /// The first thing on a stack that control came to: takes the message and lets the origin go (L2, L3).
    #[inline(always)]
    pub(super) fn arrive(&self) -> Message<T> {
        let mut message = self.slot.take().expect("a switch brings a message (L2)");
        let origin = self.origin.take();
        if trace::is_on() {
            message = self.traced(origin.as_ref().map_or(self.main_id, Greenlet::id), message);
        }
        drop(origin);
        message
    }

    #[cold]
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
            unwinding: Cell::default(),
        })
    }
}
