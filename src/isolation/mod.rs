//! Contexts: sets of thread-locals, one for each isolated green thread.
//!
//! An OS thread has its *native* context. Each isolated green thread has a context of its own: a block that glibc lays
//! out as it does for a new OS thread. The fs base selects the context that is in use. A green thread stays in one
//! context for life: an isolated one in its own, a local one in that of its spawner. A callback runs in the context in
//! which it was left. Whatever leaves a context is `Send`.
//!
//! ```text
//!              take                        enter ⇄ back                last member leaves          give
//!   pool ────────────────► leased ────────────────────────────► ended ────────────────► laid anew ─────► pool
//!          malloc's words          the hub's turn, around each            destructors, on the
//!          are the native ones     resume; callbacks too                  leaver's own stack
//! ```
//!
//! # Invariants
//! - **ISO-1** The hub runs in the native context. Only [`Context::enter`], for the length of one call, and the loop
//!   that resumes green threads (`hub/turn.rs`) leave it. Nothing unwinds out of either.
//! - **ISO-2** A function that changes the base uses no thread-local itself (BASE-2 of [`base`](crate::sys::base)).
//! - **ISO-3** A context has members: green threads that have not ended, and callbacks that have not run. The last
//!   member to leave runs the destructors, in the context. After that nothing refers to the context, and its block may
//!   be laid anew.
//! - **ISO-4** Thread-locals of this crate that must be the same in all contexts of an OS thread are planted at the
//!   start of each context: the hub, the function that returns the running green thread, the pool of stacks, the native
//!   base.
//!
//! # What a block has
//! A block has what a new OS thread has, except for what the last column says. [`glibc`](crate::sys::glibc) follows
//! `start_thread` line by line.
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
//! | state of `getrandom` (glibc 2.41) | its OS thread's | |
//! | `pthread_self`, `pthread_getattr_np` | its own block and stack | calls that ask the kernel for a `pthread_t` fail |
//! | signal mask, alternate signal stack | its OS thread's | |
//! | kernel's number (`gettid`), priority, affinity, credentials, name | its OS thread's | |
//! | rounding and exceptions of floating point (MXCSR) | its OS thread's | put back what you change |
//! | restartable sequences (rseq) | none | code that wants the processor's number asks the kernel |
//! | cancellation, `pthread_exit` | none | neither works; a cancel state that is changed stays |
//! | count of threads that have not ended | not in it | `pthread_exit` of the last OS thread ends the process |
//! | Sun RPC's variables (glibc before 2.32) | its own | not freed |
//!
//! # Not covered
//! - A library with *initial-exec* thread-locals (few have them: `-ftls-model=initial-exec`) that `dlopen` loads while
//!   contexts exist: glibc lays the library's image only in the blocks that it knows. Load such libraries before the
//!   first spawn.
//!
//! # Rejected
//! - A `dlopen` of this crate's own ahead of glibc's, which could lay that image. glibc would take this crate for the
//!   caller, and would search for the library along this crate's paths instead of the caller's.
//! - Saving and restoring thread-locals at each switch. The code that uses them knows their addresses.
//! - A malloc cache for each context. 20,000 of them took 330 MB.
#![deny(unsafe_op_in_unsafe_fn)]

mod context;

pub(crate) use context::{Context, Placeholder, Pool, is_off, is_own, status, turn};
