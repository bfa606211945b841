//! Green-thread locals: one value for each green thread that asks, initialised at first use.
//!
//! A set of values is a list of (key, value); most green threads have none. A set may be shared (by an `Rc`) or
//! inherited (a copy of the list, which shares each value until that is replaced). The values are dropped when the last
//! green thread of their set ends, on that green thread's own stack.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Locals;
use crate::hub::Hub;

/// Declares a local of green threads, as `thread_local!` declares one of OS threads.
///
/// ```
/// use std::cell::Cell;
/// use greenthread::{green_local, spawn};
///
/// green_local! {
///     static COUNT: Cell<u32> = Cell::new(1);
/// }
/// COUNT.set(5); // main's
/// let other = spawn(|| COUNT.get());
/// assert_eq!(other.join().unwrap(), 1);
/// ```
///
/// # Coming from Python
/// `gevent.local.local()`; with [`Locals::Inherit`] or [`Locals::Share`], `contextvars`.
#[doc(alias("thread_local", "task_local", "coroutine_local", "contextvars", "ContextVar"))]
#[macro_export]
macro_rules! green_local {
    ($($(#[$attr:meta])* $vis:vis static $name:ident: $type:ty = $init:expr;)+) => {
        $($(#[$attr])* $vis static $name: $crate::thread::LocalKey<$type> = {
            fn init() -> $type { $init }
            $crate::thread::__new_key(init)
        };)+
    };
}

/// A variable declared by [`green_local!`](crate::green_local).
///
/// It has std's methods: [`with`](Self::with) for all types, and more for a [`Cell`] or a [`RefCell`]. These change the
/// value in place, so a green thread that [inherited](Locals::Inherit) the value sees the change.
/// [`rebind`](Self::rebind) gives the caller a new value of its own.
#[doc(alias("contextvars", "ContextVar"))]
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
    number: AtomicUsize,
}

#[doc(hidden)]
pub const fn __new_key<T>(init: fn() -> T) -> LocalKey<T> {
    LocalKey {
        init,
        number: AtomicUsize::new(0),
    }
}

#[derive(Default)]
struct Set {
    values: RefCell<Vec<(usize, Rc<dyn Any>)>>,
}

impl Set {
    fn find(&self, number: usize) -> Option<Rc<dyn Any>> {
        self.values
            .borrow()
            .iter()
            .find(|(key, _)| *key == number)
            .map(|(_, value)| value.clone())
    }

    fn put(&self, number: usize, value: Rc<dyn Any>) {
        let mut values = self.values.borrow_mut();
        let old = match values.iter_mut().find(|(key, _)| *key == number) {
            Some(slot) => Some(std::mem::replace(&mut slot.1, value)),
            None => {
                values.push((number, value));
                None
            }
        };
        drop(values);
        drop(old); // The user's destructor: not under the borrow.
    }
}

fn here() -> Rc<Set> {
    let task = Hub::current().running();
    let any = task.with_cold(|extra| extra.locals.get_or_insert_with(|| Rc::new(Set::default())).clone());
    // Only this function puts a value there, always a `Set`.
    any.downcast::<Set>().unwrap_or_default()
}

/// The locals of a green thread that is spawned here.
pub(super) fn for_spawn(locals: Locals) -> Option<Rc<dyn Any>> {
    match locals {
        Locals::Empty => None,
        Locals::Share => Some(here()),
        Locals::Inherit => Some(Rc::new(Set {
            values: RefCell::new(here().values.borrow().clone()),
        })),
    }
}

impl<T: 'static> LocalKey<T> {
    fn number(&self) -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        match self.number.load(Ordering::Relaxed) {
            0 => {
                let new = NEXT.fetch_add(1, Ordering::Relaxed);
                self.number
                    .compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed)
                    .map_or_else(|old| old, |_| new)
            }
            number => number,
        }
    }

    fn value(&self) -> Rc<T> {
        let (set, number) = (here(), self.number());
        let found = set.find(number).and_then(|any| any.downcast::<T>().ok());
        found.unwrap_or_else(|| {
            // The initialiser may park, or use this same variable. If another value has come meanwhile, that one stays.
            let value = Rc::new((self.init)());
            match set.find(number).and_then(|any| any.downcast::<T>().ok()) {
                Some(first) => first,
                None => {
                    set.put(number, value.clone());
                    value
                }
            }
        })
    }

    /// Calls `f` with the calling green thread's value, initialising it first if need be.
    ///
    /// Unlike with `thread_local!`, `f` may block.
    pub fn with<F: FnOnce(&T) -> R, R>(&'static self, f: F) -> R {
        f(&self.value())
    }

    /// Gives the calling green thread, and those that [share](Locals::Share) its locals, another value. A green thread
    /// that inherited the old one keeps it.
    ///
    /// # Coming from Python
    /// `ContextVar.set(value)`.
    pub fn rebind(&'static self, value: T) {
        here().put(self.number(), Rc::new(value));
    }

    /// The value, if it has been initialised.
    fn found(&self) -> Option<Rc<T>> {
        here().find(self.number()).and_then(|any| any.downcast::<T>().ok())
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the contained value. If the initialiser has not run yet, it does not run.
    ///
    /// ```
    /// use std::cell::Cell;
    /// greenthread::green_local! { static X: Cell<i32> = panic!("not run"); }
    /// X.set(123);
    /// assert_eq!(X.get(), 123);
    /// ```
    pub fn set(&'static self, value: T) {
        match self.found() {
            Some(cell) => cell.set(value),
            None => self.rebind(Cell::new(value)),
        }
    }

    /// A copy of the contained value.
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Takes the contained value, and leaves its default.
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Replaces the contained value, and returns the old one.
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with the contained value.
    ///
    /// `f` may block. If another green thread that shares the value borrows it mutably meanwhile, that one panics.
    ///
    /// # Panics
    /// If it is mutably borrowed.
    #[track_caller]
    pub fn with_borrow<F: FnOnce(&T) -> R, R>(&'static self, f: F) -> R {
        let cell = self.value();
        let value = cell.borrow();
        f(&value)
    }

    /// Calls `f` with the contained value, to change it.
    ///
    /// ```
    /// use std::cell::RefCell;
    /// greenthread::green_local! { static X: RefCell<Vec<i32>> = RefCell::default(); }
    /// X.with_borrow_mut(|x| x.push(1));
    /// assert_eq!(X.take(), [1]);
    /// ```
    ///
    /// # Panics
    /// If it is borrowed.
    #[track_caller]
    pub fn with_borrow_mut<F: FnOnce(&mut T) -> R, R>(&'static self, f: F) -> R {
        let cell = self.value();
        let mut value = cell.borrow_mut();
        f(&mut value)
    }

    /// Sets the contained value. If the initialiser has not run yet, it does not run.
    ///
    /// # Panics
    /// If it is borrowed.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        match self.found() {
            Some(cell) => drop(cell.replace(value)),
            None => self.rebind(RefCell::new(value)),
        }
    }

    /// Takes the contained value, and leaves its default.
    ///
    /// # Panics
    /// If it is borrowed.
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.value().take()
    }

    /// Replaces the contained value, and returns the old one.
    ///
    /// # Panics
    /// If it is borrowed.
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.value().replace(value)
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}
