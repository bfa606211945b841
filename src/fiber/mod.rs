//! A fiber: a stack, the registers saved on it, and nothing else.
//!
//! Green threads, greenlets and generators all run on fibers. A fiber is resumed by exactly one place, and suspends
//! back to that place; which stack runs next is not its business. Called by [`hub::task`](crate::hub),
//! [`greenlet`](crate::greenlet) and [`generator`](crate::generator); calls corosensei and [`stack`](crate::stack).
//!
//! ```text
//!  base ┌──────────────────────┐
//!       │ parent link (Yielder)│◄── Frame::yielder
//!       │ Frame { link, top }  │◄── Fiber::frame, valid from the first resume until the end
//!       │ the body's frames    │
//!       │ …                    │◄── saved stack pointer while suspended
//!       ├──────────────────────┤
//!       │ guard                │
//! limit └──────────────────────┘
//! ```
//!
//! # Invariants
//! - **FIBER-1** A fiber's frame lives on its own stack, so it has a fixed address from the first resume to the end.
//! - **FIBER-2** `TOP` (`coroutine.rs`) is the innermost running fiber above the running *root*: a green thread's
//!   base, or the native stack. A resume saves `TOP`, a suspend stores it in the frame, and the place that resumed
//!   restores its own. `TOP` is null whenever the hub enters a root or gets control back.
//! - **FIBER-3** A suspender suspends only if its frame is on the chain that starts at `TOP`. Otherwise it would save
//!   the registers of one stack in the frame of another. Code above it on the chain is suspended along with it.
//! - **FIBER-4** A fiber never leaves the OS thread that made it (`Fiber` is `!Send`).
//! - **FIBER-5** No panic crosses a switch: the body runs under `catch_unwind`, and its payload is a value. The body of
//!   a root catches panics itself. If something unwinds out of such a body, that is a fault of this crate, and aborts.
//!
//! # Signal handlers that unwind
//! In the few instructions of a switch (corosensei's), the stack pointer belongs to one stack and the code to another,
//! and no unwind table describes that. A profiler that unwinds in its signal handler may fault there. That must be
//! fixed in corosensei's tables. This crate's are right: a green thread ends in an [outermost](crate::sys::frame)
//! frame. No handler of this crate unwinds, so there is no flag that says "in a switch".
//!
//! # Rejected
//! - Leaving the end of a suspended fiber to corosensei's `Drop`: it retries forever against code that catches the
//!   unwinding and suspends again. Instead, the owner of a fiber raises in it, [`unwind::TRIES`] times at most. A body
//!   that survives is leaked.

pub(crate) mod current;
mod coroutine;
pub(crate) mod unwind;

pub(crate) use coroutine::{Fiber, Kept, Outcome, Suspender};
