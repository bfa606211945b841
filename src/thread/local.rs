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
use crate::hub::task::{Inherited, LocalSet};

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
/// # Values that children inherit
/// With `#[inherit]`, a green thread begins with a clone of the value that its spawner has at that moment, if the
/// spawner has one. The type must be `Send` and `Clone`, because the child may be on another OS thread.
///
/// ```
/// use greenthread::{green_local, scope, spawn};
///
/// green_local! {
///     #[inherit]
///     static REQUEST: u32 = 0;
/// }
/// REQUEST.rebind(7);
/// let child = spawn(|| {
///     let mine = REQUEST.with(|id| *id);
///     REQUEST.rebind(8); // the child's alone
///     mine
/// });
/// assert_eq!((child.join().unwrap(), REQUEST.with(|id| *id)), (7, 7));
/// ```
///
/// This holds for all that spawns green threads: `spawn`, `spawn_local`, [`Handle::spawn`](crate::hub::Handle::spawn),
/// scopes, nurseries, groups and pools. A child with [`Locals::Inherit`] or [`Locals::Share`] has the value itself.
/// Tasks from futures, callbacks and other OS threads inherit nothing.
///
/// # Coming from Python
/// `gevent.local.local()`; with `#[inherit]`, `contextvars`.
#[doc(alias("thread_local", "task_local", "coroutine_local", "contextvars", "ContextVar"))]
#[macro_export]
macro_rules! green_local {
    // One variable, with the attributes that are to be looked at, and those that are kept.
    (@one {#[inherit] $($more:tt)*} $kept:tt $key:ident $item:tt) => {
        $crate::green_local! { @one {$($more)*} $kept __new_inherited_key $item }
    };
    (@one {#$attr:tt $($more:tt)*} {$($kept:tt)*} $key:ident $item:tt) => {
        $crate::green_local! { @one {$($more)*} {$($kept)* #$attr} $key $item }
    };
    (@one {} {$($kept:tt)*} $key:ident {$vis:vis static $name:ident: $type:ty = $init:expr}) => {
        $($kept)* $vis static $name: $crate::thread::LocalKey<$type> = {
            fn init() -> $type { $init }
            $crate::thread::$key(init)
        };
    };
    ($($(#$attr:tt)* $vis:vis static $name:ident: $type:ty = $init:expr;)+) => {
        $($crate::green_local! { @one {$(#$attr)*} {} __new_key {$vis static $name: $type = $init} })+
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
    copies: Option<Copies>,
}

/// Clones a value for a child that inherits it.
type Copies = fn(&dyn Any) -> Option<Box<dyn Any + Send>>;

fn copies<T: Clone + Send + 'static>(value: &dyn Any) -> Option<Box<dyn Any + Send>> {
    let value = value.downcast_ref::<T>()?;
    Some(Box::new(value.clone()))
}

#[doc(hidden)]
pub const fn __new_key<T>(init: fn() -> T) -> LocalKey<T> {
    LocalKey {
        init,
        number: AtomicUsize::new(0),
        copies: None,
    }
}

#[doc(hidden)]
pub const fn __new_inherited_key<T: Clone + Send + 'static>(init: fn() -> T) -> LocalKey<T> {
    LocalKey {
        init,
        number: AtomicUsize::new(0),
        copies: Some(copies::<T>),
    }
}

#[derive(Default)]
struct Set {
    values: RefCell<Vec<Entry>>,
}

#[derive(Clone)]
struct Entry {
    number: usize,
    value: Rc<dyn Any>,
    /// For a value that children inherit.
    copies: Option<Copies>,
}

impl LocalSet for Set {
    fn inherited(&self) -> Option<Inherited> {
        // The clones are code of the user: not under the borrow.
        let entries: Vec<Entry> = (self.values.borrow().iter())
            .filter(|entry| entry.copies.is_some())
            .cloned()
            .collect();
        let copy = |entry: &Entry| {
            let copies = entry.copies?;
            Some((entry.number, copies, copies(&*entry.value)?))
        };
        let copied: Vec<_> = entries.iter().filter_map(copy).collect();
        if copied.is_empty() {
            return None;
        }
        let entry = |(number, copies, value): (usize, Copies, Box<dyn Any + Send>)| Entry {
            number,
            value: Rc::from(value as Box<dyn Any>),
            copies: Some(copies),
        };
        Some(Box::new(move || -> Rc<dyn LocalSet> {
            let values = RefCell::new(copied.into_iter().map(entry).collect());
            Rc::new(Set { values })
        }))
    }
}

impl Set {
    fn find(&self, number: usize) -> Option<Rc<dyn Any>> {
        self.values
            .borrow()
            .iter()
            .find(|entry| entry.number == number)
            .map(|entry| entry.value.clone())
    }

    fn put(&self, number: usize, value: Rc<dyn Any>, copies: Option<Copies>) {
        let mut values = self.values.borrow_mut();
        let old = match values.iter_mut().find(|entry| entry.number == number) {
            Some(entry) => Some(std::mem::replace(&mut entry.value, value)),
            None => {
                values.push(Entry { number, value, copies });
                None
            }
        };
        drop(values);
        drop(old); // The user's destructor: not under the borrow.
    }
}

fn here() -> Rc<Set> {
    let task = Hub::current().running();
    let any: Rc<dyn Any> = task.with_cold(|extra| extra.locals.get_or_insert_with(|| Rc::new(Set::default())).clone());
    // Only this function puts a value there, always a `Set`.
    any.downcast::<Set>().unwrap_or_default()
}

/// The locals of a green thread that is spawned here.
pub(super) fn for_spawn(locals: Locals) -> Option<Rc<dyn LocalSet>> {
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
                    set.put(number, value.clone(), self.copies);
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
        here().put(self.number(), Rc::new(value), self.copies);
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
