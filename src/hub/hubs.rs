//! Several hubs, each on an OS thread of its own: [`Hubs`]. What spawns on them and waits for them is in `thread/hubs.rs`,
//! for it needs what stands below.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::remote::{Handle, Message};
use super::{Hub, complain};

/// Who waits for a hub to be empty or to end.
pub(super) enum Told {
    /// Called with how much has ever arrived there, once no green threads are left; dropped if the hub ends first.
    Empty(Box<dyn FnOnce(u64)>),
    /// Dropped when the hub ends.
    #[expect(dead_code, reason = "only its drop matters")]
    End(Box<dyn Send>),
}

/// How long the green threads of a hub that stops have to unwind.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Hubs on OS threads of their own, for the work of several processors.
///
/// ```
/// use greenthread::hub::Hubs;
///
/// # fn main() -> std::io::Result<()> {
/// let hubs = Hubs::new(2)?;
/// let squares: Vec<_> = (0..10).map(|n| hubs.spawn(move || n * n)).collect::<Result<_, _>>()?;
/// assert_eq!(squares.into_iter().map(|square| square.join().unwrap()).sum::<i32>(), 285);
/// # Ok(())
/// # }
/// ```
///
/// A green thread stays on the hub that it was spawned on, and what it [`spawn`](crate::spawn())s itself runs there too. Green
/// threads of several hubs share what OS threads may share, by the primitives of [`sync`](crate::sync) for instance. A
/// server has a listener on each hub, all on one port: [`TcpListener::bind_reuse_port`](crate::net::TcpListener::bind_reuse_port).
///
/// Dropped, it [`stop`](Self::stop)s its hubs, and does not wait for that.
///
/// # Coming from Python
/// A process per processor, of gunicorn's or of `multiprocessing`: here they share their memory.
pub struct Hubs {
    handles: Vec<Handle>,
    open: Vec<Arc<AtomicBool>>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) next: AtomicUsize,
}

impl Hubs {
    /// None yet.
    pub(crate) fn none() -> Hubs {
        Hubs {
            handles: Vec::new(),
            open: Vec::new(),
            stack_size: None,
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn push(&mut self, handle: Handle, open: Arc<AtomicBool>) {
        self.handles.push(handle);
        self.open.push(open);
    }

    /// The size of the stacks of what is spawned by [`spawn`](Self::spawn) and [`spawn_on`](Self::spawn_on), in bytes that
    /// can be used.
    ///
    /// ```
    /// use greenthread::hub::Hubs;
    /// let hubs = Hubs::new(2).unwrap().stack_size(8 << 20);
    /// assert_eq!(hubs.spawn(|| [1_u8; 4 << 20].len()).unwrap().join().unwrap(), 4 << 20);
    /// assert!(hubs.stack_size(0).spawn(|| ()).is_err());
    /// ```
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Hubs {
        self.stack_size = Some(bytes);
        self
    }

    /// A handle to each.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Asks all of them to end: they kill their green threads, and their OS threads end when those have unwound.
    ///
    /// From now on nothing can be spawned here. A green thread that would not die within a second is lost, and its stack
    /// leaked; a line on stderr names it. [`join`](Self::join) waits for all that.
    pub fn stop(&self) {
        for (handle, open) in self.handles.iter().zip(&self.open) {
            open.store(false, Ordering::Release);
            // It may have ended already.
            let _ = handle.stop();
        }
    }

    /// Whether hub `index` takes green threads.
    pub(crate) fn is_open(&self, index: usize) -> bool {
        self.open[index].load(Ordering::Acquire) && self.handles[index].is_alive()
    }
}

impl Drop for Hubs {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Hubs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = (0..self.handles.len()).filter(|index| self.is_open(*index)).count();
        f.debug_struct("Hubs")
            .field("hubs", &self.handles.len())
            .field("open", &open)
            .finish_non_exhaustive()
    }
}

/// What the OS thread of one of them does, after its handle is known: serves until it is stopped, and leaves nothing behind.
pub(crate) fn serve(open: &AtomicBool) {
    // A stop that came before this is in the flag; one that comes now finds the waiter, for no turn lies between.
    if open.load(Ordering::Acquire) {
        super::run_forever();
    }
    open.store(false, Ordering::Release);
    if let Err(survivors) = super::shutdown(PATIENCE) {
        complain(format_args!("one of several hubs ends, and {survivors}"));
    }
}

impl Hub {
    /// Tells that there are no green threads left: now, or later.
    fn listen(&'static self, told: Told) {
        match told {
            Told::Empty(told) if self.live.get() == 0 => told(self.arrivals.get()),
            told => self.emptied.borrow_mut().push(told),
        }
    }

    /// The last green thread has ended. Its exit links may spawn more: whoever is to be told looks again.
    #[inline]
    pub(super) fn emptied(&'static self) {
        if !self.emptied.borrow().is_empty() {
            self.tell_emptied();
        }
    }

    #[cold]
    fn tell_emptied(&'static self) {
        for told in self.emptied.take() {
            self.call(Box::new(move || self.listen(told)));
        }
    }
}

impl Handle {
    /// Has `told` called when that hub has no green threads left; drops it if the hub ends first.
    pub(crate) fn when_empty(&self, told: impl FnOnce(u64) + Send + 'static) {
        let ask = move |hub: &'static Hub| hub.call(Box::new(move || hub.listen(Told::Empty(Box::new(told)))));
        // If it has ended, `told` is dropped here.
        let _ = self.send(Message::Internal(Box::new(ask)));
    }

    /// Drops `sign` when that hub ends.
    pub(crate) fn at_end(&self, sign: impl Send + 'static) {
        let ask = move |hub: &'static Hub| hub.listen(Told::End(Box::new(sign)));
        let _ = self.send(Message::Internal(Box::new(ask)));
    }
}
