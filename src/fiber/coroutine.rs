//! [`Fiber`], what suspends one, and the chain of those that run. The labels of the invariants are those of
//! [`fiber`](super).

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit, offset_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::current::Begun;
use crate::stack::Stack;
use crate::sys::frame;

/// What a resume came to.
pub(crate) enum Outcome<Y, R> {
    /// The body suspended with a value.
    Yielded(Y),
    /// The body returned.
    Returned(R),
    /// The body panicked; the payload is the panic's.
    Panicked(Box<dyn Any + Send>),
}

type Ended<R> = Result<R, Box<dyn Any + Send>>;
type Co<I, Y, R> = Coroutine<I, Y, Ended<R>, Stack>;

/// One fiber on the chain. It lies in the fiber's frame, so the chain needs no memory of its own.
#[derive(Debug)]
pub(crate) struct Link {
    prev: Cell<*const Link>,
    /// Zero until the number is first needed.
    number: Cell<u64>,
}

impl Link {
    #[inline]
    fn new(prev: *const Link) -> Link {
        Link {
            prev: Cell::new(prev),
            number: Cell::new(0),
        }
    }

    #[inline]
    fn set_prev(&self, prev: *const Link) {
        self.prev.set(prev);
    }

    /// A number that no other link ever has.
    #[inline]
    fn number(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.number.get() == 0 {
            self.number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        self.number.get()
    }

    #[inline]
    fn has_number(&self, number: u64) -> bool {
        self.number.get() == number
    }
}

thread_local! {
    /// The innermost running fiber above the root; null if the root itself runs.
    static TOP: Cell<*const Link> = const { Cell::new(ptr::null()) };
    /// Where a fiber that is entered for the first time stores the address of its frame.
    static ENTERING: Cell<*const Cell<*const ()>> = const { Cell::new(ptr::null()) };
}

/// Whether the fiber of `link` runs here: the link is on the chain from the innermost fiber down to the root.
#[inline(always)]
pub(crate) fn is_on_chain(link: *const Link) -> bool {
    let top = TOP.get();
    top == link || is_below(top, link)
}

#[cold]
fn is_below(mut at: *const Link, link: *const Link) -> bool {
    while at != link {
        if at.is_null() {
            return false;
        }
        // SAFETY: links on the chain belong to running fibers, so the frames that hold them exist (FIBER-1).
        at = unsafe { (*at).prev.get() };
    }
    true
}

/// The link of the innermost running fiber above the root; null if the root itself runs.
#[inline(always)]
pub(crate) fn top() -> *const Link {
    TOP.get()
}

/// The chain of a native stack, set aside.
pub(crate) struct Chain(*const Link);

/// Sets aside the chain of the native stack while the hub runs on it; [`restore`] puts it back.
pub(crate) fn set_aside() -> Chain {
    Chain(TOP.replace(ptr::null()))
}

/// Puts the chain back that [`set_aside`] took, because the code on the native stack goes on.
pub(crate) fn restore(chain: Chain) {
    TOP.set(chain.0);
}

/// Calls `f` from the outermost frame of a green thread, where every unwinder stops. If `f` unwinds, the process aborts
/// in `run`.
///
/// The frame's tables say that it has no caller, and its frame pointer is null ([`frame`]; where the platform has no
/// such frame, it is one like any other). So a backtrace, a debugger and a profiler see what a green thread called, and
/// nothing of the hub. They need not cross from one stack to another: for that, the tables at the base of a coroutine
/// must read what a switch that is under way has not written yet.
#[inline(always)]
fn outermost<F: FnOnce()>(f: F) {
    unsafe extern "C" fn run<F: FnOnce()>(f: *mut ()) {
        // SAFETY: `outermost` passes the address of its `f`, which is read once and not dropped there.
        unsafe { f.cast::<F>().read()() };
    }

    let mut f = ManuallyDrop::new(f);
    // SAFETY: `run` expects the address of an `F`, and does not unwind: it is an `extern "C"` function.
    unsafe { frame::outermost((&raw mut f).cast(), run::<F>) };
}

/// The part of a fiber that lies on its own stack (FIBER-1).
pub(crate) struct Frame<I, Y> {
    link: Link,
    /// The innermost fiber when this one suspended: itself, or one that ran above it.
    top: Cell<*const Link>,
    yielder: *const Yielder<I, Y>,
}

/// A body on a stack of its own, which can be resumed, suspended and unwound.
pub(crate) struct Fiber<I: 'static, Y: 'static, R: 'static> {
    coroutine: UnsafeCell<ManuallyDrop<Co<I, Y, R>>>,
    frame: Cell<*const Frame<I, Y>>,
}

impl<I: 'static, Y: 'static, R: 'static> Fiber<I, Y, R> {
    /// A fiber that will run `body` on a stack of `size` usable bytes.
    pub(crate) fn new<F>(size: usize, body: F) -> io::Result<Self>
    where
        F: FnOnce(&Suspender<I, Y>, I) -> R + 'static,
    {
        Ok(Self::on::<false, _>(Stack::new(size)?, body))
    }

    /// The base of a green thread. It is never on a chain itself, and is resumed by [`enter`](Self::enter). `body` must
    /// not unwind.
    #[inline]
    pub(crate) fn root<F>(stack: Stack, body: F) -> Self
    where
        F: FnOnce(I) -> R + 'static,
    {
        Self::on::<true, _>(stack, move |_, input| body(input))
    }

    #[inline]
    fn on<const ROOT: bool, F>(stack: Stack, body: F) -> Self
    where
        F: FnOnce(&Suspender<I, Y>, I) -> R + 'static,
    {
        // corosensei puts the body on the new stack, and refuses one of more than 1,024 bytes, alignment included.
        const MOST: usize = 768;
        if size_of::<F>() + align_of::<F>() > MOST {
            let body = Box::new(body);
            return Self::laid_on::<ROOT, _>(stack, move |suspender, input| body(suspender, input));
        }
        Self::laid_on::<ROOT, _>(stack, body)
    }

    #[inline]
    fn laid_on<const ROOT: bool, F>(stack: Stack, body: F) -> Self
    where
        F: FnOnce(&Suspender<I, Y>, I) -> R + 'static,
    {
        // The frame lies near the body's own frames, so that a switch touches few cache lines.
        let base = move |yielder: &Yielder<I, Y>, input| {
            let frame = Frame {
                link: Link::new(TOP.get()),
                top: Cell::new(ptr::null()),
                yielder,
            };
            let slot = ENTERING.replace(ptr::null());
            // SAFETY: the resume stored the address of its fiber's `frame` cell right before the switch that came here,
            // and its borrow of the fiber lasts until this stack suspends.
            unsafe { (*slot).set((&raw const frame).cast()) };
            if !ROOT {
                TOP.set(&raw const frame.link);
            }
            let suspender = Suspender {
                frame: &raw const frame,
            };
            body(&suspender, input)
        };
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<I, Y>, input| {
            if ROOT {
                let mut ended = MaybeUninit::uninit();
                outermost(|| _ = ended.write(base(yielder, input)));
                // SAFETY: the closure has written it: nothing unwinds out of the call.
                return Ok(unsafe { ended.assume_init() });
            }
            let begun = Begun::new();
            let ended = catch_unwind(AssertUnwindSafe(|| base(yielder, input)));
            drop(begun);
            ended
        });
        Fiber {
            coroutine: UnsafeCell::new(ManuallyDrop::new(coroutine)),
            frame: Cell::new(ptr::null()),
        }
    }

    /// Runs the body until it suspends or ends.
    #[inline(always)]
    pub(crate) fn resume(&mut self, input: I) -> Outcome<Y, R> {
        // SAFETY: `&mut self` means that no other code resumes the fiber meanwhile, and that the body is not running.
        // The fiber is `!Send`, so this is its OS thread (FIBER-4).
        unsafe { self.switch(input) }
    }

    /// Runs the body until it suspends or ends.
    ///
    /// # Safety
    /// The fiber is new or suspended, it has not ended, and this is its OS thread (FIBER-4).
    #[inline(always)]
    pub(crate) unsafe fn switch(&self, input: I) -> Outcome<Y, R> {
        let resumer = TOP.get();
        let frame = self.frame.get();
        if frame.is_null() {
            // The body publishes its frame through this cell, and puts itself on the chain.
            ENTERING.set((&raw const self.frame).cast());
        } else {
            // SAFETY: FIBER-1: the caller guarantees that the fiber has not ended, so its frame exists.
            let frame = unsafe { &*frame };
            // Rebuild the chain: this fiber was suspended along with the fibers above it, and now runs above the
            // caller.
            frame.link.set_prev(resumer);
            TOP.set(frame.top.get());
        }
        // SAFETY: the caller guarantees that the fiber is suspended or new, and that this is its OS thread.
        let outcome = unsafe { self.go(input) };
        TOP.set(resumer);
        outcome
    }

    /// Runs a root until it suspends or ends. `TOP` is null before and after (FIBER-2).
    ///
    /// # Safety
    /// As for [`switch`](Self::switch): the root is new or suspended, it has not ended, and this is its OS thread
    /// (FIBER-4).
    #[inline(always)]
    pub(crate) unsafe fn enter(&self, input: I) -> Outcome<Y, R> {
        let frame = self.frame.get();
        if frame.is_null() {
            ENTERING.set((&raw const self.frame).cast());
        } else {
            // SAFETY: FIBER-1: the caller guarantees that the root has not ended, so its frame exists.
            let top = unsafe { (*frame).top.get() };
            if !top.is_null() {
                TOP.set(top);
            }
        }
        // SAFETY: the caller guarantees that the root is suspended or new, and that this is its OS thread.
        unsafe { self.go(input) }
    }

    /// # Safety
    /// As for [`switch`](Self::switch): the fiber is new or suspended, it has not ended, and this is its OS thread
    /// (FIBER-4).
    #[inline(always)]
    unsafe fn go(&self, input: I) -> Outcome<Y, R> {
        // SAFETY: this is the only reference to the coroutine: the body reaches it through its frame alone.
        let coroutine = unsafe { &mut *self.coroutine.get() };
        match coroutine.resume(input) {
            CoroutineResult::Yield(value) => Outcome::Yielded(value),
            CoroutineResult::Return(Ok(value)) => Outcome::Returned(value),
            CoroutineResult::Return(Err(payload)) => Outcome::Panicked(payload),
        }
    }

    /// An address on the fiber's stack, near the base; 0 if the body has never run.
    pub(crate) fn address(&self) -> usize {
        self.frame.get().addr()
    }

    /// Whether the body has ever run.
    pub(crate) fn has_started(&self) -> bool {
        !self.frame.get().is_null()
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        // SAFETY: a plain read of the saved stack pointer. No switch is under way on this `!Send` value: code on the
        // fiber's own stack reaches only its frame.
        unsafe { (*self.coroutine.get()).done() }
    }

    /// Suspends a running root from inside, along with the fibers that run above it.
    ///
    /// # Safety
    /// The caller runs on the stack of this root, or on one above it (FIBER-3).
    #[inline(always)]
    pub(crate) unsafe fn suspend_root(&self, value: Y) {
        // SAFETY: FIBER-1: the root runs, so its frame exists.
        let frame = unsafe { &*self.frame.get() };
        // The fibers above the root stay where they are, and `enter` makes them current again. The hub's side has `TOP`
        // null (FIBER-2).
        let top = TOP.get();
        frame.top.set(top);
        if !top.is_null() {
            TOP.set(ptr::null());
        }
        // SAFETY: the yielder lies at the base of the same stack. A root is never unwound from outside.
        unsafe { (*frame.yielder).suspend(value) };
    }
}

impl<I: 'static, Y: 'static, R: 'static> Drop for Fiber<I, Y, R> {
    /// Frees a fiber that has ended or never started. A suspended one is leaked: its owner must unwind it first.
    #[inline]
    fn drop(&mut self) {
        if self.is_done() || !self.has_started() {
            // SAFETY: dropped once, here. corosensei has nothing to unwind: the body has ended, or never started.
            unsafe { ManuallyDrop::drop(self.coroutine.get_mut()) }
        }
    }
}

/// The right to suspend one fiber, lent to its body.
pub(crate) struct Suspender<I: 'static, Y: 'static> {
    frame: *const Frame<I, Y>,
}

impl<I: 'static, Y: 'static> Suspender<I, Y> {
    /// Hands `value` to the code that resumed the fiber, and waits for the next resume.
    ///
    /// `Err` if the fiber does not run here: the suspender was passed to another stack (FIBER-3).
    #[inline(always)]
    pub(crate) fn suspend(&self, value: Y) -> Result<I, Y> {
        // SAFETY: FIBER-1: a suspender is lent to the body, so the fiber has not ended.
        let frame = unsafe { &*self.frame };
        if !is_on_chain(&raw const frame.link) {
            return Err(value);
        }
        // SAFETY: FIBER-3: the link was just found on the chain.
        Ok(unsafe { suspend(self.frame, value) })
    }

    /// A copy that may be kept anywhere. It detects that its fiber does not run here, even after the fiber's end.
    #[inline]
    pub(crate) fn keep(&self) -> Kept<I, Y> {
        // SAFETY: FIBER-1: a suspender is lent to the body, so the fiber has not ended.
        let frame = unsafe { &*self.frame };
        let number = frame.link.number();
        Kept {
            frame: NonNull::from(frame),
            number,
        }
    }
}

/// A [`Suspender`] that may outlive its body's frame: each use checks that the fiber runs here.
pub(crate) struct Kept<I: 'static, Y: 'static> {
    frame: NonNull<Frame<I, Y>>,
    /// The number of the frame's link. A later fiber may have its frame at the same address, but not with this number.
    number: u64,
}

impl<I: 'static, Y: 'static> Clone for Kept<I, Y> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I: 'static, Y: 'static> Copy for Kept<I, Y> {}

impl<I: 'static, Y: 'static> Kept<I, Y> {
    /// Whether the caller runs on the fiber's stack, or on one above it on the chain.
    #[inline(always)]
    pub(crate) fn is_here(&self) -> bool {
        // Only the address is computed: the frame may be gone.
        let link = self
            .frame
            .as_ptr()
            .cast_const()
            .wrapping_byte_add(offset_of!(Frame<I, Y>, link))
            .cast::<Link>();
        // SAFETY: FIBER-1: a link on the chain belongs to a running fiber, so its frame exists.
        is_on_chain(link) && unsafe { &*link }.has_number(self.number)
    }

    /// Like [`Suspender::suspend`].
    #[inline(always)]
    pub(crate) fn suspend(self, value: Y) -> Result<I, Y> {
        if !self.is_here() {
            return Err(value);
        }
        // SAFETY: FIBER-3: the link was just found on the chain, and its number says that it belongs to this frame,
        // with these types.
        Ok(unsafe { suspend(self.frame.as_ptr(), value) })
    }
}

/// # Safety
/// `frame` belongs to a running fiber, and the caller runs on that fiber's stack or on one above it (FIBER-3).
#[inline(always)]
unsafe fn suspend<I, Y>(frame: *const Frame<I, Y>, value: Y) -> I {
    // SAFETY: FIBER-1: the caller guarantees that the fiber runs, so its frame exists.
    let frame = unsafe { &*frame };
    // Fibers above this one are suspended along with it. The place that resumed it restores its own `TOP` (FIBER-2).
    frame.top.set(TOP.get());
    // SAFETY: the yielder lies at the base of the same stack.
    unsafe { (*frame.yielder).suspend(value) }
}
