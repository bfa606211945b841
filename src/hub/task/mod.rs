//! The control block of a green thread (a *task*), and its life from the spawn to the join.
//!
//! Blocks are *type-stable*: they come from leaked chunks and are recycled, never freed. So a `&'static Task` always
//! refers to a task, though perhaps to a later one. Access to the fields:
//!
//! | field | accessed by | how |
//! |---|---|---|
//! | `ticket`, `hub`, `join` | any OS thread | atomics |
//! | `id`, `place`, `name` | the side that has the join, and the owner | written before the join exists (TASK-2) |
//! | `ended` | the owner until `DONE`, then the side that has the join | written once a life |
//! | `joiner`, `slot`, `outcome` | owner or join, by the bits of `join` | below |
//! | the rest | the owner: the OS thread of `hub` | plain cells; `cold` for the length of one call |
//!
//! # The bits of `join`
//! - `DONE`: set by the owner when the fiber has ended and the result lies in the slot.
//! - `DETACHED`: set by the join when it is dropped.
//! - `JOINER`: set by the join when a waiter lies in `joiner`. The join clears it only while `DONE` is not set.
//! - `RELEASED`: set by the owner after it has taken the waiter of a `JOINER` that it found when it set `DONE`.
//! - `LOST`: set with `DONE`, for a block that is never recycled.
//! - `LINKED`: set by the join when exit links lie in the register of `links.rs`. The owner runs them if it finds the
//!   bit when it sets `DONE`; the join runs them if `DONE` was first.
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
//! - **TASK-1** A block is recycled once per life, by the owner or the join, whichever is last. Its ticket grows with
//!   each life and each wake, so a waiter of an older life or park never matches.
//! - **TASK-2** What the join reads without atomics was written before the join was made, and does not change until
//!   recycling.
//! - **TASK-3** `slot` and `outcome` belong to the owner until `DONE`, then to the join (or to the owner if `DETACHED`
//!   came first). `DONE` is set with release and read with acquire.
//! - **TASK-4** `joiner` belongs to the join until `JOINER`, then to the side that next changes `join`.
//! - **TASK-5** Owner-only fields are accessed only on the owner's OS thread. `Task` is `!Sync`. Only
//!   [`Waiter`](super::waiter::Waiter), [`TaskRef`](block::TaskRef) and [`Join`](join::Join) carry a task to other OS threads, where they use atomics
//!   alone.

pub(super) mod block;
pub(super) mod blocks;
pub(super) mod body;
pub(super) mod exit;
pub(super) mod join;
pub(super) mod marks;
pub(super) mod remote;
pub(super) mod spawn;
pub(super) mod stackless;

pub(crate) use marks::is_native;
pub(crate) use spawn::{Options, spawn};
pub(crate) use stackless::spawn_future;
