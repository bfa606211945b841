//! A family: all greenlets that exchange one type on one root, and the pump that resumes them.
//!
//! The labels of the invariants are those of [`greenlet`](super).
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

/// The greenlet to resume next (`None` is the main one), and the message for it.
pub(super) type Hop<T> = (Option<Greenlet<T>>, Message<T>);

/// A body's fiber. If the first message is an exit, it ends before the body runs.
pub(super) type Body<T> = Fiber<Message<T>, Hop<T>, T>;

type Suspender<T> = Kept<Message<T>, Hop<T>>;

/// What a switch brings along.
pub(super) enum Message<T> {
    Value(T),
    /// The greenlet that was left ended by [`GreenletExit`].
    Exit,
    /// Boxed once more, so that a message is two words.
    Throw(Box<Payload>),
}

impl<T> Message<T> {
    /// What is left of the message when the greenlet that it was sent to is dead: an exit is passed on as one.
    pub(super) fn of_the_dead(self) -> Self {
        match self {
            Message::Throw(payload) if payload.is::<GreenletExit>() => Message::Exit,
            other => other,
        }
    }
}

/// What comes of a switch: a message, or a refusal. It is one flat enum, so that it travels in two registers.
pub(super) enum Answer<T> {
    Value(T),
    Exit,
    Throw(Box<Payload>),
    /// With the message that was not sent.
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

    /// The answer as the caller of the switch sees it. `unsent` unpacks a message that was not sent.
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
    /// Suspended while a panic was under way, perhaps in one of its destructors (GREENLET-4).
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
    /// Present while the greenlet is new or suspended (GREENLET-3).
    pub(super) fiber: Cell<Option<Box<Body<T>>>>,
    /// Present once the body has started.
    pub(super) suspender: Cell<Option<Suspender<T>>>,
}

/// All greenlets that exchange `T` on one root.
pub(super) struct Family<T: 'static> {
    pub(super) key: (u64, TypeId),
    /// The root in `key`, except while another root ends a greenlet of this family.
    pub(super) root: Cell<u64>,
    pub(super) main_id: u64,
    pub(super) main: RefCell<Weak<Node<T>>>,
    pub(super) current: Cell<Option<Greenlet<T>>>,
    /// The suspender of `current`, where a switch finds it without a detour.
    pub(super) suspender: Cell<Option<Suspender<T>>>,
    pub(super) origin: Cell<Option<Greenlet<T>>>,
    /// Whether there is an origin, a hook, or a deferred drop.
    pub(super) has_pending: Cell<bool>,
    /// Greenlets that another root dropped (their last handle), while one of the family ran.
    pub(super) deferred_drops: RefCell<Vec<Greenlet<T>>>,
}

thread_local! {
    static FAMILIES: RefCell<HashMap<(u64, TypeId), Weak<dyn Any>>> = RefCell::default();
}

/// Fills a cell that is known to be empty, which saves the drop of the old value.
#[inline(always)]
fn put<V>(empty: &Cell<Option<V>>, value: V) {
    let before = empty.replace(Some(value));
    debug_assert!(before.is_none(), "a cell that was to be empty is full");
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
            has_pending: Cell::default(),
            deferred_drops: RefCell::default(),
        });
        let weak: Weak<dyn Any> = Rc::downgrade(&(family.clone() as Rc<dyn Any>));
        // At the end of the OS thread there is no map any more. Each call then makes a family of its own.
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

    /// Looks at the running greenlet. `None` if that is the main one.
    #[inline(always)]
    pub(super) fn peek<R>(&self, look: impl FnOnce(&Greenlet<T>) -> R) -> Option<R> {
        let current = self.current.take();
        let result = current.as_ref().map(look);
        self.current.set(current);
        result
    }

    /// The member that the caller runs in. `None` if that is the main one.
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

    /// Leaves the running stack for `target`, and returns what comes back.
    #[inline(always)]
    pub(super) fn go(&self, target: Greenlet<T>, message: Message<T>) -> Answer<T> {
        // A greenlet of the family runs: the pump on main's stack does the switch.
        if let Some(suspender) = self.suspender.get() {
            return self.suspend(suspender, (Some(target), message));
        }
        // Main itself runs. On any other root this stack is not the family's.
        if !chain::is_root(self.root.get()) {
            return Answer::refuse(SwitchError::Foreign(message));
        }
        if trace::is_on() {
            self.has_pending.set(true);
        }
        let message = match self.hop(target, message) {
            (None, message) => message,
            (Some(next), message) => self.pump(next, message),
        };
        self.arrive(message).into()
    }

    /// Leaves the running stack for the main greenlet's.
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

    /// Resumes `target`, and then each greenlet that is switched to, until that is the main greenlet (GREENLET-1).
    #[inline(never)]
    fn pump(&self, mut target: Greenlet<T>, mut message: Message<T>) -> Message<T> {
        loop {
            match self.hop(target, message) {
                (Some(next), for_next) => (target, message) = (next, for_next),
                (None, message) => return message,
            }
        }
    }

    /// Resumes `target` with `message`, and returns where it wants to go next.
    #[inline(always)]
    fn hop(&self, target: Greenlet<T>, message: Message<T>) -> Hop<T> {
        // Taken out, so that no cell is borrowed over the switch (GREENLET-3).
        let fiber = target.node.fiber.take();
        let mut fiber = fiber.expect("a greenlet that can be switched to has its fiber (GREENLET-3)");
        // From here to the end of the resume, `current` is the target (GREENLET-1).
        target.node.stage.set(Stage::Running);
        self.suspender.set(target.node.suspender.get());
        put(&self.current, target);
        match fiber.resume(message) {
            Outcome::Yielded((next, message)) => {
                let ran = self.stopped();
                // A panic under way may have suspended it in a destructor, where nothing may be raised (GREENLET-4).
                let stage = if panicking() {
                    Stage::Unwinding
                } else {
                    Stage::Suspended
                };
                ran.node.stage.set(stage);
                // In place before the handle is let go: the drop of a last handle ends the greenlet through them.
                put(&ran.node.fiber, fiber);
                self.leave(ran);
                (next, message)
            }
            Outcome::Returned(value) => self.finish(fiber, Message::Value(value)),
            Outcome::Panicked(payload) => self.finish(fiber, Message::Throw(Box::new(payload)).of_the_dead()),
        }
    }

    /// Marks that no greenlet of the family runs, and returns the one that did.
    #[inline(always)]
    fn stopped(&self) -> Greenlet<T> {
        self.suspender.set(None);
        self.current
            .take()
            .expect("the greenlet that ran is the current one (GREENLET-1)")
    }

    #[cold]
    #[inline(never)]
    fn finish(&self, fiber: Box<Body<T>>, message: Message<T>) -> Hop<T> {
        let dead = self.stopped();
        // The stack is free before the parent goes on.
        drop(fiber);
        dead.node.stage.set(Stage::Dead);
        let hop = dead.successor(message);
        self.leave(dead);
        hop
    }

    /// Lets go of the greenlet that ran. A last handle is left to the greenlet that control comes to (GREENLET-2).
    #[inline(always)]
    fn leave(&self, ran: Greenlet<T>) {
        if Rc::strong_count(&ran.node) == 1 || trace::is_on() {
            self.origin.set(Some(ran));
            self.has_pending.set(true);
        }
    }

    /// To be called first on a stack that control came to.
    #[inline(always)]
    pub(super) fn arrive(&self, message: Message<T>) -> Message<T> {
        if self.has_pending.get() {
            self.drain_pending(message)
        } else {
            message
        }
    }

    /// Calls the hook, lets go of the greenlet that control left (GREENLET-2), and on main's stack makes the deferred
    /// drops.
    #[cold]
    fn drain_pending(&self, mut message: Message<T>) -> Message<T> {
        self.has_pending.set(false);
        let origin = self.origin.take();
        if trace::is_on() {
            message = self.traced(origin.as_ref().map_or(self.main_id, Greenlet::id), message);
        }
        drop(origin);
        // Only the main greenlet ends them. Any other one leaves them to the next, which must look again.
        if self.suspender.get().is_none() {
            let deferred_drops = self.deferred_drops.take();
            drop(deferred_drops);
        } else if !self.deferred_drops.borrow().is_empty() {
            self.has_pending.set(true);
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
            // A new family may have taken the place already.
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
