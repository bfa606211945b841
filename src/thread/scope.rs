//! Green threads that borrow: they have all ended when the scope returns. Also closures that borrow, for another OS
//! thread.
//!
//! # Invariants
//! - **SCOPE-1** `'scope` outlives every child: [`scope`] returns, or unwinds, only when no child is listed in
//!   [`Children`]. A child is listed before it is spawned. A kill or time-out of the caller does not end the wait: it
//!   kills the children, and the wait goes on as [`Mode::Must`](crate::hub::Mode).
//! - **SCOPE-2** An unwind that would leave the scope all the same (`LoopExit` on the native stack) aborts the process
//!   instead.
//! - **SCOPE-3** What scope and children share is locked: a `&Scope` may reach another OS thread, and then the hub of
//!   that one runs the child.
//! - **SCOPE-4** [`Leave`] is the last thing of a child to go, after all that it owns or borrows.
//! - **SCOPE-5** If a child's OS thread ends, its hub kills the children that are left (it counts them in `scoped`) and
//!   waits for them. The first OS thread ends with the process, so its children get one second. If a child has not
//!   ended by then, it stays as it is, and so does all that it borrows, because its scope never returns.
//! - **SCOPE-6** A child's panic is kept beside its value, for [`ScopedJoinHandle::join`]; if it is not read there, the
//!   scope itself panics. So it counts as seen, and the hub does not report it too.
//! - **SCOPE-7** Once the scope kills its children because it must end, a child that is spawned later is killed too:
//!   [`Children::dying`] is set before the list is read, and read after the child is listed, both under the lock.
//! - **SCOPE-8** Before [`lend`] returns or unwinds, the lent closure has been called or dropped. If it has not, `lend`
//!   aborts the process.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "monkey")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::panicking;
use std::time::Duration;

use super::{JoinError, JoinHandle, Thread};
use crate::hub::{Hub, Kind, Mode, Parker, Reporter, TaskRef, Waiter, Wake, Why, interrupt, report_panic, task};
use crate::sys::inside::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;

static CHILDREN: &str = "the end of its scope's green threads";

/// What a scope and its children share.
#[derive(Default)]
pub(super) struct Children {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The children that have not ended, by the order of their spawns; `None` until the spawn has given its name.
    running: BTreeMap<u64, Option<Name>>,
    /// How many children there ever were.
    spawned: u64,
    /// Children that panicked, less those with a panic that was read.
    panicked: usize,
    /// The scope ends: its children are killed (SCOPE-7).
    dying: bool,
    waiter: Option<Waiter>,
}

/// A green thread to kill.
type Name = (TaskRef, u64);

impl Children {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().ignore_poison()
    }

    /// Kills the children that run now, but for the caller.
    fn kill(&self) {
        let running: Vec<Name> = self.lock().running.values().copied().flatten().collect();
        let caller = Hub::try_current().map(|hub| hub.running().id());
        // Without the lock: a kill may send a message to another OS thread.
        for (task, id) in running {
            if Some(id) != caller {
                interrupt::kill(task, id);
            }
        }
    }

    /// Kills the children that run now, and those that are spawned later (SCOPE-7).
    pub(super) fn end(&self) {
        let began = std::mem::replace(&mut self.lock().dying, true);
        if !began {
            self.kill();
        }
    }

    /// Waits until no child runs (SCOPE-1). The first kill or time-out of the caller kills the children. Gives whether
    /// there was one.
    fn wait_for_all(&self) -> bool {
        if self.lock().running.is_empty() {
            return false;
        }
        let hub = Hub::current();
        let outside = hub.is_native();
        // Tells the hub that the native stack waits in a scope: a `LoopExit` there aborts (SCOPE-2).
        if outside {
            hub.counters.scopes.set(hub.counters.scopes.get() + 1);
        }
        // An unwinding stack is told `Interrupted` by a wait that can be interrupted, which would be no reason to kill.
        let mut mode = if panicking() { Mode::Must } else { Mode::Cancel };
        let mut was_interrupted = false;
        loop {
            let parker = Parker::new();
            let mut state = self.lock();
            let left = state.running.len();
            if left == 0 {
                break;
            }
            // Under the lock that the last child takes to leave: it either was counted out, or finds the waiter.
            state.waiter = Some(parker.waiter());
            drop(state);
            if parker.park(None, mode, Why::new(&CHILDREN, left)) == Wake::Interrupted {
                (mode, was_interrupted) = (Mode::Must, true);
                self.end();
            }
        }
        if outside {
            hub.counters.scopes.set(hub.counters.scopes.get() - 1);
        }
        was_interrupted
    }
}

/// Where a child leaves its value, or the payload of its panic (SCOPE-6).
type Slot<T> = Arc<Mutex<Option<Result<T, Box<dyn Any + Send>>>>>;

/// A scope whose green threads may borrow the caller's variables; see [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    children: Arc<Children>,
    _scope: PhantomData<&'scope mut &'scope ()>,
    _env: PhantomData<&'env mut &'env ()>,
}

/// Runs `f` with a scope in which green threads may borrow the caller's variables, and waits for all of them.
///
/// ```
/// use greenthread::thread;
/// let mut names = vec![String::from("a")];
/// let total = std::cell::Cell::new(0);
/// thread::scope(|s| {
///     s.spawn_local(|| total.set(total.get() + names.len()));
///     s.spawn_local(|| total.set(total.get() + 1));
/// });
/// names.push(String::from("b"));
/// assert_eq!(total.get(), 2);
/// ```
///
/// # Panics
/// If a child that was not joined panicked.
///
/// # Blocking and cancellation
/// Waits for every child, whatever happens. A kill or time-out of the caller kills the children that still run, and is
/// delivered when all of them have ended:
///
/// ```
/// use std::time::Duration;
/// use greenthread::{sleep, thread, timeout};
/// let late = timeout(Duration::from_millis(5), || {
///     thread::scope(|s| _ = s.spawn(|| sleep(Duration::from_secs(60)))) // killed after 5 ms
/// });
/// assert!(late.is_err());
/// ```
///
/// The children end at their next waits, as killed green threads do. A child that is in a
/// [`shield`](super::shield()), catches the kill, or waits in a call that cannot be interrupted (a job of the thread
/// pool, C's locks) delays the caller until it has ended. A panic of `f` kills no child: [`nursery`](super::nursery())
/// does that.
///
/// If the native stack would wait forever ([`LoopExit`](crate::hub::LoopExit)), the process aborts.
#[doc(alias("join"))]
#[track_caller]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    crate::hub::check_can_park();
    let scope = Scope::new();
    let result = scope.children.hold(|| f(&scope));
    match result {
        Err(payload) => resume_unwind(payload),
        Ok(_) if scope.children.lock().panicked > 0 => {
            panic!("a scoped green thread panicked")
        }
        Ok(value) => value,
    }
}

impl Children {
    /// Runs `f`, and waits for all children, whatever happens (SCOPE-1). A kill or time-out that comes meanwhile is
    /// raised then, and comes back as the payload of an unwind like one of `f`.
    pub(super) fn hold<T>(&self, f: impl FnOnce() -> T) -> std::thread::Result<T> {
        let result = catch_unwind(AssertUnwindSafe(f));
        // SCOPE-2: an unwind out of the wait would free what the children borrow, so it aborts.
        let bomb = Bomb("a scope cannot be left while its green threads run");
        if result.as_ref().is_err_and(|payload| interrupt::is_ours(&**payload)) {
            self.end();
        }
        let was_interrupted = self.wait_for_all();
        std::mem::forget(bomb);
        if was_interrupted
            && result.is_ok()
            && let Err(payload) = catch_unwind(interrupt::raise)
        {
            // Dropped here, not while the interrupt unwinds: a panic of its destructor would abort the process.
            drop(result);
            return Err(payload);
        }
        result
    }
}

/// Aborts the process if it is dropped, and says why.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        crate::sys::report::last_words(format_args!("{}: the process aborts", self.0));
        std::process::abort();
    }
}

/// A child's end, however it comes: the last thing that the child's stack does with what it borrowed.
struct Leave {
    children: Arc<Children>,
    number: u64,
}

impl Leave {
    /// Lists a child that is about to be spawned.
    fn new(children: &Arc<Children>, hub: &Hub) -> Leave {
        let mut state = children.lock();
        state.spawned += 1;
        let number = state.spawned;
        state.running.insert(number, None);
        drop(state);
        hub.counters.scoped.set(hub.counters.scoped.get() + 1);
        Leave {
            children: children.clone(),
            number,
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        // SCOPE-5: a child never leaves the OS thread that spawned it, so this is the hub that counted it. (In a forked
        // child of the process there is another hub.)
        if let Some(hub) = Hub::try_current() {
            hub.leave_scope();
        }
        let mut state = self.children.lock();
        state.running.remove(&self.number);
        // Only the last child wakes the scope.
        let waiter = if state.running.is_empty() {
            state.waiter.take()
        } else {
            None
        };
        drop(state);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// What a child owns, dropped in the order of the fields (SCOPE-4).
struct Child<F, T> {
    f: F,
    slot: Slot<T>,
    leave: Leave,
}

impl<F: FnOnce() -> T, T> Child<F, T> {
    fn run(self) {
        // Locals are dropped in the reverse order of their declaration: `leave` is last (SCOPE-4).
        let Child { leave, slot, f } = self;
        let mut result = catch_unwind(AssertUnwindSafe(f));
        if let Err(payload) = result {
            // A kill, or a time-out that was not caught by its `run`: the base of the green thread handles it.
            if interrupt::is_ours(&*payload) {
                resume_unwind(payload);
            }
            leave.children.lock().panicked += 1;
            result = Err(payload);
        }
        *slot.lock().ignore_poison() = Some(result);
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    pub(super) fn new() -> Scope<'scope, 'env> {
        Scope {
            children: Arc::default(),
            _scope: PhantomData,
            _env: PhantomData,
        }
    }

    pub(super) fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// Asks the children that run now to end; see [`JoinHandle::kill`]. A child that calls this is not killed itself.
    ///
    /// ```
    /// use greenthread::thread;
    /// thread::scope(|s| {
    ///     for _ in 0..3 {
    ///         s.spawn(thread::park);
    ///     }
    ///     s.kill();
    /// });
    /// ```
    pub fn kill(&self) {
        self.children.kill();
    }

    /// Spawns a child; as [`thread::spawn`](super::spawn), but it may borrow.
    ///
    /// It runs on the caller's OS thread. If that OS thread ends first, it kills the child and waits for its end.
    ///
    /// # Panics
    /// When there is no memory for its stack.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.start(Kind::Isolated, f)
    }

    /// Spawns a local child; as [`thread::spawn_local`](super::spawn_local), but it may borrow.
    ///
    /// # Panics
    /// When there is no memory for its stack.
    #[track_caller]
    pub fn spawn_local<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        self.start(Kind::Local, f)
    }

    #[track_caller]
    fn start<F, T>(&self, kind: Kind, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        match self.try_spawn(kind, None, f, Location::caller()) {
            Ok(handle) => handle,
            Err(error) => panic!("failed to spawn green thread: {error}; `Builder` gives this as an error"),
        }
    }

    pub(super) fn try_spawn<F, T>(
        &self,
        kind: Kind,
        options: Option<task::Options>,
        f: F,
        place: &'static Location<'static>,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let result: Slot<T> = Arc::default();
        let hub = Hub::current();
        let child = Child {
            f,
            slot: result.clone(),
            leave: Leave::new(&self.children, hub),
        };
        let number = child.leave.number;
        let body = move || child.run();
        let body: Box<dyn FnOnce() + 'scope> = Box::new(body);
        // SAFETY: SCOPE-1: the closure, and everything it owns or borrows, is gone before the scope returns. The
        // transmute changes nothing but the lifetime.
        let body = unsafe { std::mem::transmute::<Box<dyn FnOnce() + 'scope>, Box<dyn FnOnce() + 'static>>(body) };
        let join = task::spawn(hub, kind, options, place, body)?;
        join.mark_scoped();
        let name = (join.task(), join.id());
        let mut state = self.children.lock();
        if let Some(child) = state.running.get_mut(&number) {
            *child = Some(name);
        }
        let dies = state.dying;
        drop(state);
        if dies {
            interrupt::kill(name.0, name.1);
        }
        Ok(ScopedJoinHandle {
            handle: JoinHandle::new(join),
            result,
            children: self.children.clone(),
            _scope: PhantomData,
        })
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("running", &self.children.lock().running.len())
            .finish_non_exhaustive()
    }
}

/// Owns the result of a scoped green thread. If it is dropped, the scope still waits for the green thread.
///
/// It is a `Future` too, as [`JoinHandle`] is. There is no `on_exit`: the scope itself waits for the ends.
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<()>,
    result: Slot<T>,
    children: Arc<Children>,
    _scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the end and returns the result.
    ///
    /// # Errors
    /// As [`JoinHandle::join`]. A panic that is read here does not make the scope panic.
    #[track_caller]
    pub fn join(mut self) -> Result<T, JoinError> {
        let ended = self.handle.join_mut();
        self.read(ended)
    }

    /// Waits for the end for at most `timeout`; see [`JoinHandle::join_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenthread::{sleep, thread};
    /// let limit = Duration::from_millis(50);
    /// thread::scope(|s| {
    ///     let mut slow = s.spawn(|| { sleep(limit); 7 });
    ///     assert!(slow.join_timeout(Duration::from_millis(1)).is_none());
    ///     assert_eq!(slow.join().unwrap(), 7);
    /// });
    /// ```
    #[track_caller]
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<Result<T, JoinError>> {
        let ended = self.handle.join_timeout(timeout)?;
        Some(self.read(ended))
    }

    /// The value or panic that a child which has ended has left.
    fn read(&self, ended: Result<(), JoinError>) -> Result<T, JoinError> {
        let killed = match ended {
            Ok(()) => None,
            Err(error) if error.is_killed() => Some(error),
            Err(error) => return Err(error),
        };
        let left = self.result.lock().ignore_poison().take();
        match (left, killed) {
            // Also for a child that ignored a reported kill and panicked: it counts in `panicked`.
            (Some(Err(payload)), _) => {
                self.children.lock().panicked -= 1;
                Err(self.handle.panicked(payload))
            }
            (_, Some(error)) => Err(error),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => unreachable!("a green thread that has ended left its value or its panic"),
        }
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Asks it to end; see [`JoinHandle::kill`].
    pub fn kill(&self) {
        self.handle.kill();
    }

    /// The green thread, to name, unpark or kill.
    pub fn thread(&self) -> Thread {
        self.handle.thread()
    }

    pub(super) fn handle(&mut self) -> &mut JoinHandle<()> {
        &mut self.handle
    }

    /// Where it was spawned.
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.handle.spawned_at()
    }
}

impl<T> Drop for ScopedJoinHandle<'_, T> {
    /// Drops a result that was not read. The caller may be unwinding for a kill already, and a second panic would abort
    /// the process: so a panic of the result's destructor is caught and reported.
    fn drop(&mut self) {
        let left = self.result.lock().ignore_poison().take();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(left))) {
            let who = String::from("the destructor of a scoped green thread's value");
            report_panic(&Reporter { name: who }, payload);
        }
    }
}

impl<T> Future for ScopedJoinHandle<'_, T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(context).map(|ended| self.read(ended))
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.handle, f)
    }
}

/// A closure that is lent, and the sign that it is back, dropped in the order of the fields (SCOPE-8).
#[cfg(feature = "monkey")]
struct Loan<F> {
    f: F,
    back: Back,
}

#[cfg(feature = "monkey")]
impl<F: FnOnce()> Loan<F> {
    fn call(self) {
        // Locals are dropped in the reverse order of their declaration: `back` is last.
        let Loan { back: _back, f } = self;
        f();
    }
}

/// Says that the closure is back when it is dropped.
#[cfg(feature = "monkey")]
struct Back(Arc<AtomicBool>);

#[cfg(feature = "monkey")]
impl Drop for Back {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Calls `run` with a closure that calls `f`. Another OS thread may call it, but `run` waits until it has: if it is not
/// back when `run` has ended, the process aborts (SCOPE-8).
#[cfg(feature = "monkey")]
pub(crate) fn lend<T>(f: impl FnOnce() + Send, run: impl FnOnce(Box<dyn FnOnce() + Send>) -> T) -> T {
    struct Lender(Arc<AtomicBool>);

    impl Drop for Lender {
        fn drop(&mut self) {
            if !self.0.load(Ordering::Acquire) {
                drop(Bomb("a call that another OS thread makes cannot be left"));
            }
        }
    }

    let lender = Lender(Arc::new(AtomicBool::new(false)));
    let loan = Loan {
        f,
        back: Back(lender.0.clone()),
    };
    let f: Box<dyn FnOnce() + Send + '_> = Box::new(move || loan.call());
    // SAFETY: SCOPE-8: the closure, and everything it owns or borrows, is gone when `lender` is. The transmute changes
    // nothing but the lifetime.
    run(unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Box<dyn FnOnce() + Send + 'static>>(f) })
}

#[cfg(all(test, feature = "monkey", not(loom)))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_loan_that_was_called_or_dropped_is_back() {
        let mut calls = 0;
        lend(|| calls += 1, |f| f());
        lend(|| calls += 10, drop);
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_loan_that_is_not_back_ends_the_process() {
        let name = "thread::scope::tests::a_loan_that_is_not_back_ends_the_process";
        let Some(child) = crate::stack::alone(name) else {
            return lend(|| (), std::mem::forget);
        };
        assert_eq!(child.status.signal(), Some(crate::sys::signal::ABORTED), "{child:?}");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(said.contains("another OS thread makes cannot be left"), "{said}");
    }
}
