//! Contexts: sets of thread-locals, one for each isolated green thread.
//!
//! An OS thread has its *native* context; each isolated green thread has one of its own, a block that glibc lays out as
//! for a new OS thread. The fs base says which one counts. A green thread belongs to a context for life: an isolated one to
//! its own, a local one to that of its maker, and so do callbacks. Whatever leaves a context is `Send`.
//!
//! ```text
//!              take                        enter ⇄ back                last member leaves          give
//!   pool ────────────────► leased ────────────────────────────► ended ────────────────► laid anew ─────► pool
//!          malloc's words          the hub's turn, around each            destructors, on the
//!          are the native ones     resume; callbacks too                  leaver's own stack
//! ```
//!
//! # Invariants
//! - **C1** The hub runs in the native context. Only [`Context::enter`], for the length of one call, and the loop that
//!   resumes green threads ([`hub::context`](crate::hub)) leave it; nothing unwinds out of either.
//! - **C2** A function that changes the base uses no thread-local itself (B2 of [`base`]).
//! - **C3** A context has members: green threads that have not ended, and callbacks that have not run. The last to leave
//!   runs the destructors, in the context; then nothing refers to it, and it may be laid anew.
//! - **C4** Thread-locals of this crate that must be the same in all contexts of an OS thread are planted at the start of
//!   each: the hub, the pool of stacks.
//!
//! # What a block has
//! As a new OS thread, but for what the last column says. [`glibc`] goes through `start_thread` line by line.
//!
//! | of an OS thread | a green thread's | |
//! |---|---|---|
//! | thread-locals of the program and its libraries, `errno` | its own, destructors run at its end | |
//! | values under `pthread_key_t` | its own, destructors run at its end | |
//! | resolver's state (`__res_state`), `h_errno` | its own, closed at its end | |
//! | texts of `dlerror`, `strerror`, `strsignal` | its own, freed at its end | |
//! | locale set by `uselocale`, `ctype`'s tables | its own; it begins with the program's | |
//! | number that C's mutexes know an owner by | its own | robust mutexes that it holds when it ends stay held |
//! | stack protector's and pointer guard | its OS thread's | |
//! | `malloc`'s cache and arena (glibc) | its OS thread's | of another allocator: its own, until it ends |
//! | `pthread_self`, `pthread_getattr_np` | its own block and stack | calls that ask the kernel for a `pthread_t` fail |
//! | signal mask, alternate signal stack | its OS thread's | |
//! | kernel's number (`gettid`), priority, affinity, credentials, name | its OS thread's | |
//! | rounding and exceptions of floating point (MXCSR) | its OS thread's | put back what you change |
//! | restartable sequences (rseq) | none | who asks for the processor's number asks the kernel |
//! | cancellation, `pthread_exit` | none | neither works; a cancel state that is changed stays |
//! | count of threads that have not ended | not in it | `pthread_exit` of the last OS thread ends the process |
//! | Sun RPC's variables (glibc before 2.32) | its own | not freed |
//!
//! # Not covered
//! - A library with *initial-exec* thread-locals (few have them: `-ftls-model=initial-exec`) that is loaded by `dlopen` while
//!   contexts exist: glibc lays its image only in the blocks that it knows. Load such libraries before the first spawn.
//!
//! # Rejected
//! - A `dlopen` of our own ahead of glibc's, which could lay that image: glibc would take us for the caller, and search the
//!   library along our paths instead of the caller's.
//! - To save and restore thread-locals at each switch: their addresses are known to the code that uses them.
//! - A malloc cache for each context: 20,000 of them were 330 MB.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::fork::{GlobalOnce, Order};
use crate::sys::{base, glibc};

/// A set of thread-locals of its own.
pub(crate) struct Context {
    /// Its thread control block, and the native one of its OS thread.
    block: usize,
    native: usize,
    members: Cell<usize>,
    /// The isolated green thread whose it is.
    owner: Cell<u64>,
    /// How often a patched call has told that one to end, and for what.
    refusals: Cell<(u32, u64)>,
    /// Its stackless tasks, and what they leave here between their turns: the scheduler's, who knows what it is.
    tasks: Cell<usize>,
    rest: Cell<*const ()>,
}

/// The contexts of an OS thread that nobody uses.
pub(crate) struct Pool {
    free: RefCell<Vec<&'static Context>>,
    /// The least that `free` has held since the period began, and how many are still to go since the last one.
    low: Cell<usize>,
    surplus: Cell<usize>,
    native: usize,
    /// The numbers by which C's locks know those that run in the contexts made here, in order.
    #[cfg(feature = "monkey")]
    numbers: RefCell<Vec<u32>>,
}

/// Stands for a context that is leased when its green thread first runs.
pub(crate) fn unleased() -> &'static Context {
    struct Unleased(Context);
    // SAFETY: nobody looks into it: it is told by its address.
    unsafe impl Sync for Unleased {}
    static UNLEASED: Unleased = Unleased(Context {
        block: 0,
        native: 0,
        members: Cell::new(0),
        owner: Cell::new(0),
        refusals: Cell::new((0, 0)),
        tasks: Cell::new(0),
        rest: Cell::new(ptr::null()),
    });
    &UNLEASED.0
}

/// Whether green threads can have contexts of their own here, or why not.
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
        return Err("isolation was turned off");
    }
    available()?;
    WORKS.store(true, Ordering::Release);
    Ok(())
}

static ON: AtomicBool = AtomicBool::new(true);
/// The trial has passed.
static WORKS: AtomicBool = AtomicBool::new(false);

/// Turns isolation on or off for green threads that start from now on.
pub(crate) fn turn(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// Whether the caller runs in a context of its own.
pub(crate) fn is_own() -> bool {
    base::native() != 0
}

impl Pool {
    /// For the OS thread that calls, in its native context.
    pub(crate) fn new() -> Pool {
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

    /// A context with one member, its owner; `None` without isolation, or without memory.
    pub(crate) fn take(&self, owner: u64) -> Option<&'static Context> {
        status().ok()?;
        self.take_untried(owner)
    }

    fn take_untried(&self, owner: u64) -> Option<&'static Context> {
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
            Some(&*Box::leak(Box::new(Context {
                block,
                native: self.native,
                members: Cell::new(0),
                owner: Cell::new(0),
                refusals: Cell::new((0, 0)),
                tasks: Cell::new(0),
                rest: Cell::new(ptr::null()),
            })))
        })?;
        context.members.set(1);
        context.owner.set(owner);
        context.refusals.set((0, 0));
        Some(context)
    }

    /// Whether a context of this OS thread has this number, or the native one has it.
    #[cfg(feature = "monkey")]
    pub(crate) fn has(&self, number: u32) -> bool {
        let is_native = glibc::get().is_ok_and(|glibc| glibc.number(self.native) == number);
        is_native || self.numbers.borrow().binary_search(&number).is_ok()
    }

    /// Whether one of its cells is borrowed.
    #[cfg(feature = "monkey")]
    pub(crate) fn is_borrowed(&self) -> bool {
        self.free.try_borrow_mut().is_err() || self.numbers.try_borrow_mut().is_err()
    }

    /// Takes an ended context back.
    pub(crate) fn give(&self, context: &'static Context) {
        if let Ok(glibc) = glibc::get() {
            // SAFETY: C3: its last member has left.
            unsafe { glibc.lay(context.block) };
            self.free.borrow_mut().push(context);
        }
    }
}

impl Pool {
    /// Ends a period: what was not needed in it is surplus, which [`tidy`](Self::tidy) frees.
    pub(crate) fn end_period(&self) {
        self.surplus.set(self.low.get());
        self.low.set(self.free.borrow().len());
    }

    /// Whether there are any.
    pub(crate) fn has_free(&self) -> bool {
        !self.free.borrow().is_empty()
    }

    /// Frees up to `budget` of the surplus: how many.
    pub(crate) fn tidy(&self, budget: usize) -> usize {
        let count = self.surplus.get().min(budget);
        self.surplus.set(self.surplus.get() - count);
        self.free_some(count)
    }

    /// Frees all that nobody uses: how many.
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
                // SAFETY: C3, and it was leaked by `take`.
                unsafe {
                    glibc.free(context.block);
                    drop(Box::from_raw(ptr::from_ref(*context).cast_mut()));
                }
            }
        }
        gone.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.trim();
    }
}

impl Context {
    /// The base to enter it by.
    #[inline]
    pub(crate) fn base(&self) -> usize {
        self.block
    }

    /// Whether green thread `id` is the isolated one whose it is.
    pub(crate) fn is_owned_by(&self, id: u64) -> bool {
        self.owner.get() == id
    }

    #[cfg(feature = "monkey")]
    pub(crate) fn count_refusal(&self, why: u64) -> u32 {
        let times = match self.refusals.get() {
            (times, before) if before == why => times.saturating_add(1),
            _ => 1,
        };
        self.refusals.set((times, why));
        times
    }

    /// How many stackless tasks are among the members.
    #[inline]
    pub(crate) fn tasks(&self) -> &Cell<usize> {
        &self.tasks
    }

    /// What these left, null for nothing.
    #[inline]
    pub(crate) fn rest(&self) -> &Cell<*const ()> {
        &self.rest
    }

    /// One member more.
    #[inline]
    pub(crate) fn join(&self) {
        self.members.set(self.members.get() + 1);
    }

    /// Whether the caller is the only member left.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        self.members.get() == 1
    }

    /// Whether its last member has left.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.members.get() == 0
    }

    /// One member less, from inside. The last one runs the destructors first; they may make new members.
    pub(crate) fn leave(&self) {
        if self.is_last()
            && let Ok(glibc) = glibc::get()
        {
            glibc.end(self.block);
            crate::stack::flush();
        }
        self.members.set(self.members.get() - 1);
    }

    /// The first thing in a context, from inside.
    pub(crate) fn begin(&self) {
        base::plant(self.native);
        if let Ok(glibc) = glibc::get() {
            glibc.begin();
        }
    }

    /// Calls `f` in this context, from the native one.
    ///
    /// # Safety
    /// C1: the native context of this OS thread runs, and `f` does not unwind.
    #[inline]
    pub(crate) unsafe fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Job<F, R>(Option<F>, Option<R>);

        /// Not to be inlined: B2.
        #[inline(never)]
        unsafe fn run<F: FnOnce() -> R, R>(job: *mut ()) {
            // SAFETY: what `enter` hands over.
            let job = unsafe { &mut *job.cast::<Job<F, R>>() };
            if let Some(f) = job.0.take() {
                job.1 = Some(f());
            }
        }

        fn job<F: FnOnce() -> R, R>(f: F) -> (Job<F, R>, unsafe fn(*mut ())) {
            (Job(Some(f), None), run::<F, R>)
        }

        let (mut job, run) = job(f);
        // SAFETY: B1: a block of this OS thread (G1); the rest is the caller's.
        unsafe { base::call(self.block, self.native, run, (&raw mut job).cast()) };
        job.1.unwrap_or_else(|| unreachable!("it ran"))
    }
}

/// Whether isolation works in this process: what it rests on is there, and a trial passes.
fn available() -> Result<(), &'static str> {
    static TRIED: GlobalOnce<Result<(), &'static str>> = GlobalOnce::new(Order::Trial);
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

/// Counts when it is dropped.
struct Ends(Cell<*const Cell<u32>>);

impl Drop for Ends {
    fn drop(&mut self) {
        // SAFETY: `trial` outlives the context that it tries.
        if let Some(count) = unsafe { self.0.get().as_ref() } {
            count.set(count.get() + 1);
        }
    }
}

/// Uses a context as a green thread would, twice, and looks whether it does what it must.
fn trial() -> Result<(), &'static str> {
    glibc::get()?;
    let pool = Pool::new();
    let dropped = Cell::new(0);
    MARK.set(2);
    for round in 1..=2 {
        let context = pool.take_untried(0).ok_or("no memory for a set of thread-locals")?;
        // SAFETY: C1: a context of this OS thread, and nothing in it unwinds.
        let (mark, kept, ends) = unsafe {
            context.enter(|| {
                context.begin();
                let mark = MARK.replace(3);
                let ends = ENDS.try_with(|ends| ends.0.set(&dropped));
                let kept = std::hint::black_box(vec![round; 100]);
                context.leave();
                (mark, kept, ends)
            })
        };
        if ends.is_err() || mark != 1 || MARK.get() != 2 {
            return Err("thread-locals are not apart");
        }
        if kept != vec![round; 100] {
            return Err("malloc does not work across sets of thread-locals");
        }
        if dropped.get() != round {
            return Err("destructors of thread-locals do not run");
        }
        pool.give(context);
    }
    Ok(())
}
