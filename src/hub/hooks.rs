//! Observers: functions that the hub calls with what it does. Without an observer the cost is one predictable branch.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::Hub;

/// An event of a green thread, which is given by its number ([`ThreadId`](crate::thread::ThreadId)).
///
/// The number of a native stack has the highest bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It was spawned, and is in the ready queue.
    Spawn(u64),
    /// The turn resumes it.
    Resume(u64),
    /// It parks.
    Park(u64),
    /// Something woke it: it is in the ready queue.
    Wake(u64),
    /// It ended.
    Exit(u64),
    /// The hub begins a turn.
    Turn,
}

pub(super) type Hook = Rc<dyn Fn(Event) + Send + Sync>;
/// An observer of this crate's own. It uses no thread-local of the user's code, so it need not be `Send` and `Sync`.
pub(crate) type Watch = Rc<dyn Fn(Event)>;

impl Hub {
    /// Tells the observer, if there is one.
    #[inline]
    pub(super) fn emit(&self, event: impl FnOnce() -> Event) {
        if self.observed.get() {
            self.tell(event());
        }
    }

    #[cold]
    fn tell(&self, event: Event) {
        // Timers or sources are borrowed now, and the observer may use the hub: `look` tells it afterwards.
        if self.looking.get() {
            return self.deferred_events.borrow_mut().push(event);
        }
        // Cloned out of the cells: an observer may set another one.
        let (watch, hook) = (self.watch.borrow().clone(), self.hook.borrow().clone());
        for hook in [watch, hook.map(|hook| hook as Watch)].into_iter().flatten() {
            // The observer runs on the stack on which the event happens, and must not park there.
            let told = catch_unwind(AssertUnwindSafe(|| self.as_callback(|| hook(event))));
            // This is the last reference if the observer has replaced itself; its drop runs the user's code.
            self.as_callback(|| super::discard(hook));
            if let Err(payload) = told {
                super::report_panic(&super::Reporter::callback(), payload);
            }
        }
    }
}

impl Hub {
    fn look_for_observers(&self) {
        self.observed
            .set(self.watch.borrow().is_some() || self.hook.borrow().is_some());
    }

    /// Lets `f` look at timers and descriptors, which it borrows meanwhile. The observer is told afterwards which tasks
    /// it woke.
    pub(super) fn look<R>(&self, f: impl FnOnce() -> R) -> R {
        // The flag also makes `wake_local` put tasks on the due queue.
        self.looking.set(true);
        let result = f();
        self.looking.set(false);
        if self.observed.get() {
            self.deferred_events
                .take()
                .into_iter()
                .for_each(|event| self.tell(event));
        }
        result
    }
}

/// Sets (or, with `None`, removes) the observer of this OS thread's hub.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
/// use greenthread::hub::{self, Event};
///
/// let parks = Arc::new(AtomicUsize::new(0));
/// let count = parks.clone();
/// hub::set_hook(Some(Box::new(move |event| {
///     if let Event::Park(_) = event {
///         count.fetch_add(1, Ordering::Relaxed);
///     }
/// })));
/// greenthread::spawn(|| greenthread::sleep(std::time::Duration::from_millis(1))).join().unwrap();
/// hub::set_hook(None);
/// assert_eq!(parks.load(Ordering::Relaxed), 2); // the sleep, and the join of main
/// ```
///
/// The observer is called where the event happens, with the thread-locals of the green thread that runs there: so it
/// must be `Send` and `Sync`.
///
/// # Blocking and cancellation
/// The observer is a callback of the hub: it may not block. A panic in it is reported, and the hub goes on.
pub fn set_hook(hook: Option<Box<dyn Fn(Event) + Send + Sync>>) {
    let hub = Hub::current();
    let old = hub.hook.replace(hook.map(Rc::from));
    hub.look_for_observers();
    // Dropped last: the drop runs the user's code, which finds the new observer in place.
    drop(old);
}

/// The same for an observer of this crate's own, which is called besides the user's.
pub(crate) fn set_watch(watch: Option<Watch>) {
    let hub = Hub::current();
    let old = hub.watch.replace(watch);
    hub.look_for_observers();
    drop(old);
}
