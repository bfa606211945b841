//! Several hubs, each on an OS thread of its own: [`Hubs`]. The code that spawns on them and waits for them is in
//! `thread/hubs.rs`.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::drive::run_forever;
use super::handle::Handle;
use super::life::PATIENCE;
use super::report::complain;
use super::shutdown::shutdown;
use super::sleep::IdleWatcher;

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
/// A green thread stays on the hub that it was spawned on, and what it [`spawn`](crate::spawn())s itself runs there
/// too. Green threads of several hubs share what OS threads may share, by the primitives of [`sync`](crate::sync) for
/// instance. A server has a listener on each hub, all on one port:
/// [`TcpListener::bind_reuse_port`](crate::net::TcpListener::bind_reuse_port).
///
/// When dropped, it [`stop`](Self::stop)s its hubs, and does not wait for that.
///
/// # Coming from Python
/// One process per processor, as with gunicorn or `multiprocessing`; but hubs share their memory.
#[doc(alias("multi_thread", "set_workers", "Runtime"))]
pub struct Hubs {
    handles: Vec<Handle>,
    open: Vec<Arc<AtomicBool>>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) next: AtomicUsize,
}

impl Hubs {
    /// A set without hubs, to which [`push`](Self::push) adds them.
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

    /// Sets the stack size of green threads spawned by [`spawn`](Self::spawn) and [`spawn_on`](Self::spawn_on), in
    /// usable bytes.
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

    /// A handle to each hub.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Asks all hubs to end: they kill their green threads, and their OS threads end when those have unwound.
    ///
    /// From now on nothing can be spawned on these hubs. A green thread that has not ended within a second is lost, and
    /// its stack is leaked; a line on stderr names it. [`join`](Self::join) waits for the end of the hubs.
    pub fn stop(&self) {
        for (handle, open) in self.handles.iter().zip(&self.open) {
            // The flag before the message: if a turn takes the message before `serve` waits for it, `serve` finds the
            // flag.
            open.store(false, Ordering::Release);
            // An error means that the hub has ended already.
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

/// The body of the OS thread of one hub, after its handle is known: serves until it is stopped, and then ends its green
/// threads.
pub(crate) fn serve(open: &AtomicBool) {
    // A stop before this look is in the flag. The message of a later one is taken by a turn, and the next turn runs in
    // `run_forever`, after that has left its waiter.
    if open.load(Ordering::Acquire) {
        run_forever();
    }
    open.store(false, Ordering::Release);
    if let Err(survivors) = shutdown(PATIENCE) {
        complain(format_args!("a hub of a `Hubs` was stopped, but {survivors}"));
    }
}

impl Handle {
    /// Has `told` called when that hub has no green threads left. Drops `told` if the hub ends first.
    pub(crate) fn when_empty(&self, told: impl FnOnce(u64) + Send + 'static) {
        self.on_hub(move |hub| {
            hub.queue_callback(Box::new(move || hub.watch_idle(IdleWatcher::Empty(Box::new(told)))))
        });
    }

    /// Drops `sign` when that hub ends.
    pub(crate) fn at_end(&self, sign: impl Send + 'static) {
        self.on_hub(move |hub| hub.watch_idle(IdleWatcher::End(Box::new(sign))));
    }
}
