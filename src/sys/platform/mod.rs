//! What differs between platforms: one interface, and a file for each. The rest of the crate uses it by the names that
//! [`sys`](super) gives it, and has no `cfg` of a target.
//!
//! # Sets of thread-locals
//! | item | what it does |
//! |---|---|
//! | [`base`]`::{get, set, native, is_native, plant, carry, call}` | which set of thread-locals is in use |
//! | [`base`]`::{before_fork, after_fork}` | the native set during a fork |
//! | [`glibc`]`::{get, own_id, Glibc}` | makes, begins, ends and frees such sets; the error of `get` says why not |
//!
//! `linux_gnu` has them for Linux with glibc, and a file for each processor; `shared` stands in elsewhere: one set for
//! each OS thread.
//!
//! # The system: [`os`]
//! | item | what it does | where it cannot |
//! |---|---|---|
//! | `thread_id`, `is_main_thread` | of the calling OS thread | |
//! | `threads` | the numbers of all OS threads | `None`: no hub ever raises `LoopExit` |
//! | `MAP_FLAGS`, `avoid_huge_pages` | a mapping in which only touched pages are resident | |
//! | `install_marker` | a guard in the page table | an error: `mprotect` makes the guards |
//! | `WITHOUT_MARKERS` | for an error: what `mprotect` guards cost | |
//! | `advise_all` | [`Advice`] for many ranges in one call | `false`: the caller goes one by one, or does without |
//! | `discard`, `DISCARD_KEEPS_GUARDS` | gives pages back; whether the range may contain guards | |
//! | `most_files` | the most descriptors of a process, if the hard limit may be larger | |
//! | `is_watched_file` | whether it is a file, always ready, that the poller would wait for at its end | |
//! | `accept`, `socket` | a socket that is non-blocking and closed by `exec`, and sends no `SIGPIPE` | |
//! | `share_port` | lets sockets share a port | |
//! | `pipe` | a pipe that is closed by `exec` | |
//! | `NO_SIGPIPE` | the flag for `send` | empty: the sockets have an option for it |
//! | `abstract_address` | an address that is in no file system | `None` |
//! | `is_read_shut` | whether a datagram socket was shut down for reading | `false`: its reader goes on waiting |
//! | `write_now`, `CAN_WRITE_NOW` | writes to a pipe or file without blocking | an error: an OS thread does the waiting |
//! | `open_process` | a descriptor that is readable when a child has ended | an error: the child is asked in pauses |
//!
//! `linux` is for each Linux, whatever its libc; `apple` and `bsd` share `unix`.
//!
//! # The reactor, and the processor
//! | item | what it does | where it cannot |
//! |---|---|---|
//! | [`epoll`]`::Epoll` | waits on a poller in one system call | `None`: polling's own interface does it |
//! | [`cpu`]`::prefetch` | has the processor fetch a cache line | nothing |
//! | [`cpu`]`::LARGEST_PAGE` | a multiple of the size of a page on each system | |
//! | [`frame`]`::outermost` | a frame in which unwinders stop | a frame like any other |

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod linux_gnu;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use linux_gnu::{base, glibc};

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod shared;
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub(crate) use shared::{base, glibc};

#[cfg(not(target_os = "linux"))]
mod unix;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
pub(crate) mod os;
#[cfg(target_vendor = "apple")]
#[path = "apple.rs"]
pub(crate) mod os;
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
#[path = "bsd.rs"]
pub(crate) mod os;

#[cfg_attr(not(target_os = "linux"), path = "no_epoll.rs")]
pub(crate) mod epoll;

#[cfg_attr(target_arch = "x86_64", path = "cpu_x86_64.rs")]
#[cfg_attr(not(target_arch = "x86_64"), path = "cpu_other.rs")]
pub(crate) mod cpu;

#[cfg_attr(all(target_arch = "x86_64", target_os = "linux"), path = "frame_linux_x86_64.rs")]
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), path = "frame_other.rs")]
pub(crate) mod frame;

/// A range of pages: its address, and its length in bytes.
pub(crate) type Pages = (usize, usize);

/// The most ranges that `advise_all` takes.
pub(crate) const RANGES: usize = 64;

/// What the system is to do with pages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Advice {
    /// Any access faults.
    Guard,
    /// They become resident now.
    Populate,
}
