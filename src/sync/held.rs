//! The locks below [`Mutex`](super::Mutex), [`RwLock`](super::RwLock) and [`ReentrantLock`](super::ReentrantLock): in
//! which order they are granted, and the value that a lock protects. Only a hold of the lock leads to the value.
//!
//! # Invariants
//! - **HELD-1** A [`Held`] is made only after its operation has succeeded, and the operation is released only by its
//!   drop.
//! - **HELD-2** While an operation that is [`Alone`] is not released, no other one of its lock succeeds.
//! - **HELD-3** A [`Held`] has its keeper until after the release. All calls of [`Keep::guarded`] give the same lock,
//!   which lives as long as the keeper. So the lock that is released is the one that was taken.
//! - **REENTRANT-1** `owner` is the number of the holder of `core`'s lock, and 0 while the lock is free. Only the
//!   holder writes it, while it holds the lock. A caller that reads its own number there therefore holds the lock, in
//!   whatever order others see the writes.
//! - **REENTRANT-2** `count` is how many guards there are. A guard stays on the OS thread that it was made on, so
//!   everything that changes `count` is on the OS thread that has the lock.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LockResult};

use super::mutex::Mutex;
use super::poison::Poison;
use super::rwlock::RwLock;
use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::Why;

/// Whether the lock of a [`Mutex`](super::Mutex) or [`ReentrantLock`](super::ReentrantLock) is held.
pub(super) struct Lock {
    locked: bool,
    waiters: Waiters,
}

impl Lock {
    const FREE: Lock = Lock {
        locked: false,
        waiters: Waiters::new(),
    };
}

impl State for Lock {
    const ALLOCATES: bool = false;

    #[inline(always)]
    fn may_grant(&self) -> bool {
        self.waiters.any() && !self.locked
    }

    #[inline(always)]
    fn grant_waiters(&mut self, woken: &mut Woken) {
        if self.may_grant() {
            // Handed over while it is locked: no new attempt can take it before the waiter runs (WAIT-1). If no waiter
            // could be woken the lock is free.
            self.locked = self.waiters.hand_first(woken);
        }
    }
}

/// Takes a [`Lock`].
#[derive(Default)]
pub(super) struct Acquire;

impl Op<Lock> for Acquire {
    type Output = ();

    const HANDED: Option<()> = Some(());

    fn waiters<'a>(&self, state: &'a mut Lock) -> &'a mut Waiters {
        &mut state.waiters
    }

    #[inline]
    fn attempt(&mut self, state: &mut Lock, granted: bool, _: &mut Woken) -> Option<()> {
        // After a hand-over `locked` is set already, and stays set.
        (granted || !std::mem::replace(&mut state.locked, true)).then_some(())
    }

    fn undo_grant(&mut self, state: &mut Lock) {
        // The lock must be free, so that `grant_waiters`, which follows, hands it to the next waiter.
        Acquire::release(state);
    }
}

const READS: u32 = 0;
const WRITES: u32 = 1;

/// The readers or the writer that hold the lock. A waiter counts as a holder from its grant on, before it runs.
pub(super) struct Holders {
    readers: usize,
    writes: bool,
    waiters: Waiters,
}

impl Holders {
    const NONE: Holders = Holders {
        readers: 0,
        writes: false,
        waiters: Waiters::new(),
    };
}

impl State for Holders {
    const ALLOCATES: bool = false;

    fn grant_waiters(&mut self, woken: &mut Woken) {
        loop {
            // The first in line decides: readers up to the next writer, or one writer. Nothing behind a waiting writer
            // overtakes it.
            let (readers, writes) = (self.readers, self.writes);
            let is_free = |wants| !writes && (wants != WRITES || readers == 0);
            match self.waiters.hand_first_if(woken, is_free) {
                Some(WRITES) => self.writes = true,
                Some(_) => self.readers += 1,
                None => return,
            }
        }
    }
}

/// Takes [`Holders`] for reading.
#[derive(Default)]
pub(super) struct Read;

impl Op<Holders> for Read {
    type Output = ();

    const HANDED: Option<()> = Some(());

    fn waiters<'a>(&self, state: &'a mut Holders) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn wants(&self) -> u32 {
        READS
    }

    #[inline]
    fn attempt(&mut self, state: &mut Holders, granted: bool, _: &mut Woken) -> Option<()> {
        // After a hand-over this reader is counted already.
        if granted {
            return Some(());
        }
        // Queue behind a waiting writer, so that a stream of readers cannot starve it.
        (!state.writes && state.waiters.waiting() == 0).then(|| state.readers += 1)
    }

    fn undo_grant(&mut self, state: &mut Holders) {
        // This reader must not be counted, so that `grant_waiters`, which follows, can grant a writer.
        Read::release(state);
    }
}

/// Takes [`Holders`] for writing.
#[derive(Default)]
pub(super) struct Write;

impl Op<Holders> for Write {
    type Output = ();

    const HANDED: Option<()> = Some(());

    fn waiters<'a>(&self, state: &'a mut Holders) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn wants(&self) -> u32 {
        WRITES
    }

    #[inline]
    fn attempt(&mut self, state: &mut Holders, granted: bool, _: &mut Woken) -> Option<()> {
        // After a hand-over `writes` is set already.
        if granted {
            return Some(());
        }
        let is_free = !state.writes && state.readers == 0 && state.waiters.waiting() == 0;
        // Not while others wait: those that came first are granted first.
        is_free.then(|| state.writes = true)
    }

    fn undo_grant(&mut self, state: &mut Holders) {
        Write::release(state);
    }
}

/// An operation that holds a lock from its success on.
///
/// # Safety
/// From its success to the `release`, no operation succeeds that is [`Alone`].
pub(super) unsafe trait Hold<S: State>: Op<S, Output = ()> + Default + Unpin {
    /// Undoes the operation.
    fn release(state: &mut S);
}

/// An operation that holds a lock as its only holder.
///
/// # Safety
/// From its success to the `release`, no other operation succeeds.
pub(super) unsafe trait Alone<S: State>: Hold<S> {}

// SAFETY: HELD-2: `Acquire` succeeds only if `locked` was false, or was handed over to it. A `Lock` has no other
// operation.
unsafe impl Hold<Lock> for Acquire {
    #[inline(always)]
    fn release(state: &mut Lock) {
        state.locked = false;
    }
}

// SAFETY: HELD-2: a `Lock` has no other operation, and `Acquire` succeeds only while the lock is free.
unsafe impl Alone<Lock> for Acquire {}

// SAFETY: HELD-2: while a `Read` is counted in `readers`, no `Write` succeeds or is granted.
unsafe impl Hold<Holders> for Read {
    #[inline(always)]
    fn release(state: &mut Holders) {
        state.readers -= 1;
    }
}

// SAFETY: HELD-2: while `writes` is set, no `Read` and no other `Write` succeeds or is granted.
unsafe impl Hold<Holders> for Write {
    #[inline(always)]
    fn release(state: &mut Holders) {
        state.writes = false;
    }
}

// SAFETY: HELD-2: a `Write` succeeds only while `readers` is 0, and while `writes` is set, no operation succeeds.
unsafe impl Alone<Holders> for Write {}

/// A lock over a value, with its poison.
pub(super) struct Guarded<S, T: ?Sized> {
    core: Core<S>,
    pub(super) poison: Poison,
    value: Value<S, T>,
}

/// The value of a [`Guarded`], which alone gives it out. The impls below vouch for this, and for no other field.
struct Value<S, T: ?Sized> {
    _lock: PhantomData<fn() -> S>,
    cell: UnsafeCell<T>,
}

// SAFETY: HELD-2: the lock's only operation gives the value to one holder at a time, perhaps on another thread than the
// one before; `T` is `Send`.
unsafe impl<T: ?Sized + Send> Sync for Value<Lock, T> {}
// SAFETY: HELD-2: the lock gives the value to several readers at once, or to one writer; `T` is `Send` and `Sync`.
unsafe impl<T: ?Sized + Send + Sync> Sync for Value<Holders, T> {}

/// What leads to a lock, and keeps it alive: a reference for a guard that borrows, an `Arc` for one that owns.
///
/// # Safety
/// All calls of `guarded` give the same lock, also after the keeper has moved. The lock lives as long as the keeper.
pub(super) unsafe trait Keep {
    type State: State;
    type Value: ?Sized;

    fn guarded(&self) -> &Guarded<Self::State, Self::Value>;
}

// SAFETY: HELD-3: the borrow of the lock lasts as long as the reference.
unsafe impl<S: State, T: ?Sized> Keep for &Guarded<S, T> {
    type State = S;
    type Value = T;

    #[inline(always)]
    fn guarded(&self) -> &Guarded<S, T> {
        self
    }
}

// SAFETY: HELD-3: the lock is a field of what the `Arc` owns. That neither moves nor is dropped before the `Arc` is.
unsafe impl<T: ?Sized> Keep for Arc<Mutex<T>> {
    type State = Lock;
    type Value = T;

    #[inline(always)]
    fn guarded(&self) -> &Guarded<Lock, T> {
        &self.lock
    }
}

// SAFETY: HELD-3: the lock is a field of what the `Arc` owns. That neither moves nor is dropped before the `Arc` is.
unsafe impl<T: ?Sized> Keep for Arc<RwLock<T>> {
    type State = Holders;
    type Value = T;

    #[inline(always)]
    fn guarded(&self) -> &Guarded<Holders, T> {
        &self.lock
    }
}

/// A hold of the lock of a value, until it is dropped.
pub(super) struct Held<K: Keep, O: Hold<K::State>> {
    keeper: K,
    _as: PhantomData<O>,
    /// May be shared between OS threads only if the value may.
    _value: PhantomData<K::Value>,
}

impl<T> Guarded<Lock, T> {
    pub(super) const fn lock(value: T) -> Guarded<Lock, T> {
        Guarded::new(Lock::FREE, value)
    }
}

impl<T: ?Sized> Guarded<Lock, T> {
    pub(super) fn is_locked(&self) -> bool {
        self.core.look(|state| state.locked)
    }
}

impl<T> Guarded<Holders, T> {
    pub(super) const fn holders(value: T) -> Guarded<Holders, T> {
        Guarded::new(Holders::NONE, value)
    }
}

impl<S, T> Guarded<S, T> {
    const fn new(state: S, value: T) -> Guarded<S, T> {
        Guarded {
            core: Core::new(state),
            poison: Poison::new(),
            value: Value {
                _lock: PhantomData,
                cell: UnsafeCell::new(value),
            },
        }
    }

    /// The value, without the lock; in an error, if the lock is poisoned.
    pub(super) fn into_inner(self) -> LockResult<T> {
        self.poison.result(self.value.cell.into_inner())
    }
}

impl<S: State, T: ?Sized> Guarded<S, T> {
    /// The value, without the lock: `&mut self` proves that it is not held. In an error, if the lock is poisoned.
    pub(super) fn get_mut(&mut self) -> LockResult<&mut T> {
        self.poison.result(self.value.cell.get_mut())
    }
}

impl<K: Keep, O: Hold<K::State>> Held<K, O> {
    /// To be called once after each success of an `O` at the keeper's lock (HELD-1).
    #[inline(always)]
    fn new(keeper: K) -> Held<K, O> {
        Held {
            keeper,
            _as: PhantomData,
            _value: PhantomData,
        }
    }

    /// Waits for the lock until `until`.
    #[inline(always)]
    #[track_caller]
    pub(super) fn wait_until(keeper: K, until: Until, why: Why) -> Option<Held<K, O>> {
        let done = keeper.guarded().core.block(&mut O::default(), until, why);
        done.map(|()| Held::new(keeper))
    }

    /// Waits for the lock.
    #[inline(always)]
    #[track_caller]
    pub(super) fn wait(keeper: K, why: Why) -> Held<K, O> {
        match Held::wait_until(keeper, Until::Ever, why) {
            Some(held) => held,
            None => unreachable!("a wait without an end has ended without the lock"),
        }
    }

    /// As [`hold`](Self::hold), for a caller that has waited already: this takes no step of the budget.
    #[track_caller]
    pub(super) fn wait_again(keeper: K, why: Why) -> Held<K, O> {
        let core = &keeper.guarded().core;
        match core.block_unspent(&mut O::default(), Until::Ever, why) {
            Some(()) => Held::new(keeper),
            None => unreachable!("a wait without an end has ended without the lock"),
        }
    }

    /// Takes the lock, if that needs no wait.
    #[inline]
    pub(super) fn attempt(keeper: K) -> Option<Held<K, O>> {
        let done = keeper.guarded().core.attempt(&mut O::default());
        done.map(|()| Held::new(keeper))
    }

    /// Waits for the lock in a future.
    pub(super) async fn future(keeper: K) -> Held<K, O> {
        keeper.guarded().core.future(O::default()).await;
        Held::new(keeper)
    }

    /// What leads to the lock.
    #[inline]
    pub(super) fn keeper(&self) -> &K {
        &self.keeper
    }

    #[inline(always)]
    pub(super) fn poison(&self) -> &Poison {
        &self.keeper.guarded().poison
    }
}

impl<K: Keep, O: Hold<K::State>> Deref for Held<K, O> {
    type Target = K::Value;

    #[inline(always)]
    fn deref(&self) -> &K::Value {
        // SAFETY: HELD-1 and HELD-3: the operation is not released, so no other holder has `&mut` of the value;
        // `deref_mut` needs `&mut self`.
        unsafe { &*self.keeper.guarded().value.cell.get() }
    }
}

impl<K: Keep, O: Alone<K::State>> DerefMut for Held<K, O> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut K::Value {
        // SAFETY: HELD-1 and HELD-3: the operation is not released, so there is no other holder.
        unsafe { &mut *self.keeper.guarded().value.cell.get() }
    }
}

impl<K: Keep, O: Hold<K::State>> Drop for Held<K, O> {
    #[inline(always)]
    fn drop(&mut self) {
        self.keeper.guarded().core.change(O::release);
    }
}

/// Gives a guard the traits of the value of its `held`. With `mut` it may change the value, and a panic poisons the
/// lock.
macro_rules! guards {
    ($guard:ident<$($life:lifetime,)? T>) => {
        impl<$($life,)? T: ?Sized> Deref for $guard<$($life,)? T> {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                &self.held
            }
        }

        impl<$($life,)? T: ?Sized + fmt::Debug> fmt::Debug for $guard<$($life,)? T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<$($life,)? T: ?Sized + fmt::Display> fmt::Display for $guard<$($life,)? T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    };
    ($guard:ident<$($life:lifetime,)? T>: mut) => {
        guards!($guard<$($life,)? T>);

        impl<$($life,)? T: ?Sized> DerefMut for $guard<$($life,)? T> {
            #[inline]
            fn deref_mut(&mut self) -> &mut T {
                &mut self.held
            }
        }

        impl<$($life,)? T: ?Sized> Drop for $guard<$($life,)? T> {
            #[inline]
            fn drop(&mut self) {
                // Before `held` unlocks, so that the next holder sees the poison.
                self.held.poison().guard_dropped(self.unwound);
            }
        }
    };
}

pub(super) use guards;

/// A lock over a value that its holder may take again.
pub(super) struct Reentrant<T: ?Sized> {
    core: Core<Lock>,
    owner: AtomicU64,
    count: AtomicUsize,
    value: T,
}

// SAFETY: a hold stays on its OS thread, and all holds are on the OS thread that has the lock (REENTRANT-2). So the
// value is referred to from one OS thread at a time, and moves to the next only once all holds are dropped; `T` is
// `Send`.
unsafe impl<T: ?Sized + Send> Sync for Reentrant<T> {}

/// One of the holds of a [`Reentrant`].
pub(super) struct HeldAgain<'a, T: ?Sized> {
    lock: &'a Reentrant<T>,
    /// Keeps the hold on its OS thread (REENTRANT-2).
    _stays: PhantomData<*const ()>,
}

impl<T> Reentrant<T> {
    pub(super) const fn new(value: T) -> Reentrant<T> {
        Reentrant {
            core: Core::new(Lock::FREE),
            owner: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            value,
        }
    }

    pub(super) fn into_inner(self) -> T {
        self.value
    }
}

impl<T: ?Sized> Reentrant<T> {
    /// Waits for the lock until `until`, unless the caller holds it.
    #[inline]
    #[track_caller]
    pub(super) fn hold_until(&self, until: Until, why: Why) -> Option<HeldAgain<'_, T>> {
        let me = crate::hub::lock_owner();
        // REENTRANT-1: the holder takes it again without the lock of `core`.
        self.again(me)
            .or_else(|| self.core.block(&mut Acquire, until, why).map(|()| self.first(me)))
    }

    /// Takes the lock, if the caller holds it or that needs no wait.
    #[track_caller]
    pub(super) fn try_hold(&self) -> Option<HeldAgain<'_, T>> {
        let me = crate::hub::lock_owner();
        self.again(me)
            .or_else(|| self.core.attempt(&mut Acquire).map(|()| self.first(me)))
    }

    /// One more hold, if `me` holds the lock.
    #[track_caller]
    fn again(&self, me: u64) -> Option<HeldAgain<'_, T>> {
        // REENTRANT-1: a relaxed load is enough, because only `me` itself writes this number.
        if self.owner.load(Ordering::Relaxed) != me {
            return None;
        }
        let Some(count) = self.count.load(Ordering::Relaxed).checked_add(1) else {
            panic!("this green thread has locked a ReentrantLock usize::MAX times: drop some of the guards first")
        };
        self.count.store(count, Ordering::Relaxed);
        Some(self.held())
    }

    /// The first hold of `me`, which has just taken the lock.
    fn first(&self, me: u64) -> HeldAgain<'_, T> {
        self.owner.store(me, Ordering::Relaxed);
        self.count.store(1, Ordering::Relaxed);
        self.held()
    }

    fn held(&self) -> HeldAgain<'_, T> {
        HeldAgain {
            lock: self,
            _stays: PhantomData,
        }
    }

    /// The value, without the lock: `&mut self` proves that it is not held.
    pub(super) fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized> Deref for HeldAgain<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.lock.value
    }
}

impl<T: ?Sized> Drop for HeldAgain<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let left = self.lock.count.load(Ordering::Relaxed) - 1;
        self.lock.count.store(left, Ordering::Relaxed);
        if left == 0 {
            // REENTRANT-1: while the lock is still held. The unlock makes the writes visible to the next holder.
            self.lock.owner.store(0, Ordering::Relaxed);
            self.lock.core.change(Acquire::release);
        }
    }
}
