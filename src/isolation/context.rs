//! A context, and the pool of those that are not in use. The labels of the invariants are those of [`isolation`](super)
//! (ISO), [`base`] (BASE) and [`glibc`] (GLIBC).

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::sys::fork::{GlobalOnce, Order};
use crate::sys::{base, glibc};

/// A set of thread-locals: one block of memory, the bookkeeping of its members, and what the scheduler keeps in it.
pub(crate) struct Context<S> {
    /// The address of its thread control block. `native` is the address of the OS thread's native one.
    block: usize,
    native: usize,
    members: Cell<usize>,
    /// The id of the isolated green thread that owns the context.
    owner: Cell<u64>,
    /// How often a patched call has told the owner to end, and for which reason.
    refusals: Cell<(u32, u64)>,
    scheduler: S,
}

/// The contexts of one OS thread that are not in use.
pub(crate) struct Pool<S: 'static> {
    free: RefCell<Vec<&'static Context<S>>>,
    /// The least length of `free` since the period began, and how many contexts of the last period's surplus are still
    /// to be freed.
    low: Cell<usize>,
    surplus: Cell<usize>,
    native: usize,
    /// The owner numbers, as C's locks store them, of the contexts that were made here, in ascending order.
    #[cfg(feature = "monkey")]
    numbers: RefCell<Vec<u32>>,
}

/// Stands for a context that is leased when its green thread first runs.
pub(crate) struct Placeholder<S>(Context<S>);

// SAFETY: the context in it is only compared by address and read, never written, because no task runs in it.
unsafe impl<S> Sync for Placeholder<S> {}

impl<S> Placeholder<S> {
    pub(crate) const fn new(scheduler: S) -> Placeholder<S> {
        Placeholder(Context::new(0, 0, scheduler))
    }

    #[inline]
    pub(crate) fn get(&'static self) -> &'static Context<S> {
        &self.0
    }
}

/// Whether green threads can have contexts of their own here. The error says why not.
#[inline]
pub(crate) fn status() -> Result<(), &'static str> {
    if ON.load(Ordering::Relaxed) && WORKS.load(Ordering::Acquire) {
        return Ok(());
    }
    tried()
}

#[cold]
fn tried() -> Result<(), &'static str> {
    if !ON.load(Ordering::Relaxed) {
        if TURNED.load(Ordering::Relaxed) {
            return Err("isolation was turned off by set_isolation");
        }
        if !is_asked_for() {
            return Err(
                "isolation is off on this processor, where it has only run in an emulator: \
                 set_isolation(true) or GREEN_ISOLATION=1 turns it on",
            );
        }
        ON.store(true, Ordering::Relaxed);
    }
    available()?;
    WORKS.store(true, Ordering::Release);
    Ok(())
}

/// Whether the variable `GREEN_ISOLATION` asks for isolation where it is off by default. Looked at once.
fn is_asked_for() -> bool {
    const NO: u8 = 1;
    const YES: u8 = 2;
    static ASKED: AtomicU8 = AtomicU8::new(0);
    if ASKED.load(Ordering::Relaxed) == 0 {
        let asked = std::env::var_os("GREEN_ISOLATION").is_some_and(|value| value == "1");
        ASKED.store(if asked { YES } else { NO }, Ordering::Relaxed);
    }
    ASKED.load(Ordering::Relaxed) == YES
}

static ON: AtomicBool = AtomicBool::new(crate::sys::ISOLATES);
/// Whether `turn` was called.
static TURNED: AtomicBool = AtomicBool::new(false);
/// Whether the trial has passed. Cached here, so that `status` is two loads.
static WORKS: AtomicBool = AtomicBool::new(false);

/// Turns isolation on or off for green threads that start from now on.
pub(crate) fn turn(on: bool) {
    TURNED.store(true, Ordering::Relaxed);
    ON.store(on, Ordering::Relaxed);
}

/// Whether isolation is off, or was tried and does not work. May be called in a signal handler.
pub(crate) fn is_off() -> bool {
    !ON.load(Ordering::Relaxed) || TRIED.get().is_some_and(Result::is_err)
}

/// Whether the caller runs in a context of its own.
pub(crate) fn is_own() -> bool {
    base::native() != 0
}

impl<S: Default> Pool<S> {
    /// The pool of the calling OS thread, which must be in its native context.
    pub(crate) fn new() -> Pool<S> {
        Pool {
            free: RefCell::default(),
            low: Cell::new(0),
            surplus: Cell::new(0),
            native: base::get(),
            #[cfg(feature = "monkey")]
            numbers: RefCell::default(),
        }
    }

    /// The base of the native context.
    #[inline]
    pub(crate) fn native(&self) -> usize {
        self.native
    }

    /// Leases a context to `owner`, its first member. `None` if isolation is off, or if there is no memory.
    pub(crate) fn take(&self, owner: u64) -> Option<&'static Context<S>> {
        status().ok()?;
        self.take_untried(owner)
    }

    fn take_untried(&self, owner: u64) -> Option<&'static Context<S>> {
        let glibc = glibc::get().ok()?;
        let (free, left) = {
            let mut free = self.free.borrow_mut();
            (free.pop(), free.len())
        };
        if left < self.low.get() {
            self.low.set(left);
        }
        let context = free.or_else(|| {
            let block = glibc.make(self.native)?;
            #[cfg(feature = "monkey")]
            self.numbers.borrow_mut().push(glibc.number(block));
            Some(&*Box::leak(Box::new(Context::new(block, self.native, S::default()))))
        })?;
        context.members.set(1);
        context.owner.set(owner);
        context.refusals.set((0, 0));
        Some(context)
    }

    /// Whether `number` is the owner number of the native context, or of a context that was made on this OS thread.
    #[cfg(feature = "monkey")]
    pub(crate) fn has(&self, number: u32) -> bool {
        let is_native = glibc::get().is_ok_and(|glibc| glibc.number(self.native) == number);
        is_native || self.numbers.borrow().binary_search(&number).is_ok()
    }

    /// Whether one of the pool's cells is borrowed.
    #[cfg(feature = "monkey")]
    pub(crate) fn is_borrowed(&self) -> bool {
        self.free.try_borrow_mut().is_err() || self.numbers.try_borrow_mut().is_err()
    }

    /// Takes back a context that has ended. Its block is laid anew, so the next owner finds fresh thread-locals.
    pub(crate) fn give(&self, context: &'static Context<S>) {
        if let Ok(glibc) = glibc::get() {
            // SAFETY: ISO-3: the last member has left, so nothing refers to the block.
            unsafe { glibc.reset_block(context.block) };
            self.free.borrow_mut().push(context);
        }
    }
}

impl<S> Pool<S> {
    /// Ends a period. Contexts that were free throughout it are surplus, and [`tidy`](Self::tidy) frees them.
    pub(crate) fn end_period(&self) {
        self.surplus.set(self.low.get());
        self.low.set(self.free.borrow().len());
    }

    /// Whether there are free contexts.
    pub(crate) fn has_free(&self) -> bool {
        !self.free.borrow().is_empty()
    }

    /// Frees at most `budget` surplus contexts, and returns how many it freed.
    pub(crate) fn tidy(&self, budget: usize) -> usize {
        let count = self.surplus.get().min(budget);
        self.surplus.set(self.surplus.get() - count);
        self.free_some(count)
    }

    /// Frees all contexts that are not in use, and returns how many.
    pub(crate) fn trim(&self) -> usize {
        self.free_some(usize::MAX)
    }

    fn free_some(&self, most: usize) -> usize {
        let mut free = self.free.borrow_mut();
        let from = free.len().saturating_sub(most);
        let gone = free.split_off(from);
        free.shrink_to(from * 2);
        self.low.set(self.low.get().min(from));
        drop(free);
        for context in &gone {
            if let Ok(glibc) = glibc::get() {
                #[cfg(feature = "monkey")]
                self.forget_number(glibc.number(context.block));
                // SAFETY: ISO-3: a free context has no members left. `take` leaked the box, and `free` was its only
                // list.
                unsafe {
                    glibc.free(context.block);
                    drop(Box::from_raw(ptr::from_ref(*context).cast_mut()));
                }
            }
        }
        gone.len()
    }

    /// A context of this number is freed: C's locks that name it as their owner are no longer this OS thread's.
    #[cfg(feature = "monkey")]
    fn forget_number(&self, number: u32) {
        let mut numbers = self.numbers.borrow_mut();
        if let Ok(at) = numbers.binary_search(&number) {
            numbers.remove(at);
        }
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.trim();
    }
}

impl<S> Context<S> {
    const fn new(block: usize, native: usize, scheduler: S) -> Context<S> {
        Context {
            block,
            native,
            members: Cell::new(0),
            owner: Cell::new(0),
            refusals: Cell::new((0, 0)),
            scheduler,
        }
    }

    /// The base that selects this context.
    #[inline]
    pub(crate) fn base(&self) -> usize {
        self.block
    }

    /// Whether `id` is the isolated green thread that owns the context.
    pub(crate) fn is_owned_by(&self, id: u64) -> bool {
        self.owner.get() == id
    }

    /// Counts a call that told the owner to end for the reason `why`, and returns the count. A new reason starts at 1.
    #[cfg(feature = "monkey")]
    pub(crate) fn count_refusal(&self, why: u64) -> u32 {
        let times = match self.refusals.get() {
            (times, before) if before == why => times.saturating_add(1),
            _ => 1,
        };
        self.refusals.set((times, why));
        times
    }

    /// What the scheduler keeps in the context.
    #[inline]
    pub(crate) fn scheduler(&self) -> &S {
        &self.scheduler
    }

    /// Adds a member.
    #[inline]
    pub(crate) fn join(&self) {
        self.members.set(self.members.get() + 1);
    }

    /// Whether the caller is the only member left.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        self.members.get() == 1
    }

    /// Whether the last member has left.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.members.get() == 0
    }

    /// Removes a member; to be called inside the context.
    ///
    /// The last member runs the destructors first. Destructors may add members, and then the context lives on.
    pub(crate) fn release(&self) {
        if self.is_last()
            && let Ok(glibc) = glibc::get()
        {
            // While this member is still counted, so that destructors which spawn or park find a live context.
            glibc.end(self.block);
            // A stack that this context keeps in a thread-local of its own would be lost with the block.
            crate::stack::flush();
        }
        self.members.set(self.members.get() - 1);
    }

    /// Prepares a fresh context; to be called inside it, before anything else.
    pub(crate) fn begin(&self) {
        base::plant(self.native);
        if let Ok(glibc) = glibc::get() {
            glibc.begin();
        }
    }

    /// Calls `f` in this context, from the native one.
    ///
    /// # Safety
    /// ISO-1: the native context of this OS thread runs, and `f` does not unwind.
    #[inline]
    pub(crate) unsafe fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Job<F, R>(Option<F>, Option<R>);

        /// Never inlined into the function that changes the base (BASE-2): `f` may use thread-locals.
        #[inline(never)]
        unsafe fn run<F: FnOnce() -> R, R>(job: *mut ()) {
            // SAFETY: `enter` passes the address of its `job`, which outlives the call and has no other user.
            let job = unsafe { &mut *job.cast::<Job<F, R>>() };
            if let Some(f) = job.0.take() {
                job.1 = Some(f());
            }
        }

        fn job<F: FnOnce() -> R, R>(f: F) -> (Job<F, R>, unsafe fn(*mut ())) {
            (Job(Some(f), None), run::<F, R>)
        }

        let (mut job, run) = job(f);
        // SAFETY: BASE-1: a block of this OS thread (GLIBC-1). The caller guarantees ISO-1: the native context runs,
        // and `f` does not unwind.
        unsafe { base::call(self.block, self.native, run, (&raw mut job).cast()) };
        job.1.unwrap_or_else(|| unreachable!("the closure has run"))
    }
}

/// What [`available`] has found.
static TRIED: GlobalOnce<Result<(), &'static str>> = GlobalOnce::new(Order::Trial);

/// Whether isolation works in this process: glibc has all that it needs, and the trial passes.
fn available() -> Result<(), &'static str> {
    *TRIED.get_or_init(|| {
        if cfg!(feature = "sanitizer") {
            return Err("the address sanitizer keeps its own state for each OS thread");
        }
        trial()
    })
}

thread_local! {
    static MARK: Cell<u32> = const { Cell::new(1) };
    static ENDS: Ends = const { Ends(Cell::new(ptr::null())) };
}

/// Adds 1 to the counter that it points to when it is dropped.
struct Ends(Cell<*const Cell<u32>>);

impl Drop for Ends {
    fn drop(&mut self) {
        // SAFETY: null, or a counter of `trial`, which outlives the contexts that it tries.
        if let Some(count) = unsafe { self.0.get().as_ref() } {
            count.set(count.get() + 1);
        }
    }
}

/// Uses a context twice, as a green thread would, and checks what isolation promises.
///
/// The second round gets the block of the first one, so it also checks that the block was laid anew.
fn trial() -> Result<(), &'static str> {
    glibc::get()?;
    let pool = Pool::<()>::new();
    let dropped = Cell::new(0);
    MARK.set(2);
    for round in 1..=2 {
        let context = pool.take_untried(0).ok_or("no memory for a set of thread-locals")?;
        // SAFETY: ISO-1: the native context runs, and nothing in the closure unwinds.
        let (mark, kept, ends) = unsafe {
            context.enter(|| {
                context.begin();
                let mark = MARK.replace(3);
                let ends = ENDS.try_with(|ends| ends.0.set(&dropped));
                let kept = std::hint::black_box(vec![round; 100]);
                context.release();
                (mark, kept, ends)
            })
        };
        if ends.is_err() || mark != 1 || MARK.get() != 2 {
            return Err("a trial found two green threads with the same thread-locals");
        }
        if kept != vec![round; 100] {
            return Err("a trial found that malloc does not work across sets of thread-locals");
        }
        if dropped.get() != round {
            return Err("a trial found that destructors of thread-locals do not run");
        }
        pool.give(context);
    }
    Ok(())
}

#[cfg(all(test, feature = "monkey", not(any(loom, feature = "sanitizer"))))]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_is_freed_leaves_no_number() {
        let pool = Pool::<()>::new();
        for round in 0..100 {
            let context = pool.take(round).unwrap();
            let number = glibc::get().unwrap().number(context.block);
            assert!(pool.has(number));
            // SAFETY: ISO-1: the native context of this OS thread runs, and nothing in it unwinds.
            unsafe {
                context.enter(|| {
                    context.begin();
                    context.release();
                });
            }
            pool.give(context);
            assert_eq!(pool.trim(), 1);
            assert!(!pool.has(number));
        }
        assert!(pool.numbers.borrow().is_empty());
    }
}
