//! The control block of a green thread (a *task*), and its life from the spawn to the join.
//!
//! Blocks are *type-stable*: they come from leaked chunks and are recycled, never freed. So a `&'static Task` always
//! refers to a task, though perhaps to a later one. A block has one *life* for each task that it serves. Access to the
//! fields:
//!
//! | field | accessed by | how |
//! |---|---|---|
//! | `ticket`, `hub`, `join` | any OS thread | atomics. Only the owner compares tickets, so `ticket` is relaxed |
//! | `id`, `place`, `name` | the owner and the join | written before the join exists, and constant then (TASK-2) |
//! | `ended` | the owner until `DONE`, then the join | written before `DONE` |
//! | `joiner`, `slot`, `in_slot` | the owner or the join | the bits of `join` say which of the two (TASK-3, TASK-4) |
//! | the rest | the owner | plain cells; `cold` is borrowed for the length of one call |
//!
//! The *owner* is the OS thread of `hub`. The *join* is the value [`Join`](join::Join), on whichever OS thread it is.
//!
//! # The bits of `join`
//! - `DONE`: set by the owner when the fiber or future has ended and the result lies in the slot.
//! - `DETACHED`: set by the join when it is dropped.
//! - `JOINER`: set by the join when a waiter lies in `joiner`, and cleared when the join takes the waiter back
//!   (TASK-4).
//! - `RELEASED`: set by the owner if it found `JOINER` when it set `DONE`, after it has taken the waiter out of
//!   `joiner`. Until then the block must not be recycled.
//! - `LOST`: set by `lose`, just before `DONE`, if the task never runs again. The block is never recycled.
//! - `LINKED`: set by the join when exit links lie in the register of `links.rs`. The owner runs them if it finds the
//!   bit when it sets `DONE`, and the join runs them if it finds `DONE` when it sets the bit.
//! - `SCOPED`: set by the code that spawns a child of a scope.
//! - `WOKEN`: set by the wakers of a stackless task (`wake.rs`), see STACKLESS-2 in `stackless.rs`.
//!
//! ```text
//!   0 ──JOINER──► J ──DONE──► J|DONE ──RELEASED──► join takes the result, DETACHED, recycles
//!   0 ──DONE────► DONE ─────────────────────────► join takes the result, DETACHED, recycles
//!   0 ──DETACHED► DETACHED ──DONE──► owner drops the result, recycles
//!   J|DONE ──DETACHED──► …──RELEASED──► owner recycles
//! ```
//!
//! # Invariants
//! - **TASK-1** A block is recycled once per life. Of the owner and the join, the side that is finished last recycles
//!   it. The block's ticket grows with each park, each wake and each life, so a waiter of an older life or park never
//!   matches.
//! - **TASK-2** What the join reads without atomics was written before the join was made, and does not change until
//!   recycling.
//! - **TASK-3** `slot` and `in_slot` belong to the owner until it sets `DONE`. After that they belong to the join; or,
//!   if `DETACHED` was set before `DONE`, still to the owner. Both bits are set by read-modify-writes that release and
//!   acquire, and the join reads `DONE` with acquire. So the side that gets the fields sees what the other has written.
//! - **TASK-4** `joiner` belongs to the join while neither `JOINER` nor `DONE` is set. The join writes a waiter there,
//!   and then sets `JOINER`. From then on neither side touches the field until one of them changes a bit: the join
//!   takes the waiter back by clearing `JOINER`, and the owner takes it by setting `DONE`. Both are read-modify-writes
//!   of one atomic, so one of them comes first. If `DONE` comes first, `joiner` belongs to the owner. If the join sets
//!   `JOINER` and finds `DONE` set already, the owner has not seen the waiter: `joiner` still belongs to the join.
//! - **TASK-5** Fields that only the owner accesses are accessed only on the owner's OS thread. `Task` is `!Sync`. Four
//!   types carry a task to other OS threads: [`Waiter`](super::waiter::Waiter), [`TaskRef`](block::TaskRef), the waker
//!   of a stackless task (WAKER-2), and [`Join`](join::Join). There the first three use its atomics alone. The join
//!   also uses the fields that TASK-2 to TASK-4 give it.

pub(super) mod block;
pub(super) mod blocks;
pub(super) mod body;
pub(super) mod exit;
pub(super) mod join;
pub(super) mod marks;
pub(super) mod remote;
pub(super) mod spawn;
pub(super) mod stackless;

pub(crate) use block::{Inherited, LocalSet};
pub(crate) use marks::is_native;
pub(crate) use spawn::{Options, spawn};
pub(crate) use stackless::spawn_future;
