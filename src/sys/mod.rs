//! All use of libc: memory, signals, OS threads, and what glibc keeps for each thread. (Only `monkey` uses libc as
//! well.) What differs between platforms is in [`platform`].

pub(crate) mod fork;
pub(crate) mod hooks;
pub(crate) mod inside;
pub(crate) mod mem;
pub(crate) mod plain;
mod platform;
pub(crate) mod poison;
pub(crate) mod poll;
pub(crate) mod report;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod spin;
pub(crate) mod thread;
#[cfg(all(feature = "monkey", target_os = "linux"))]
pub(crate) mod nowait;
#[cfg(all(feature = "monkey", target_os = "linux"))]
pub(crate) mod probe;
#[cfg(all(feature = "monkey", target_os = "linux"))]
pub(crate) mod uring;
/// The crate refuses to be built here with that feature. This keeps the compiler from naming more than the reason.
#[cfg(all(feature = "monkey", not(target_os = "linux")))]
pub(crate) mod uring {
    #[derive(Default)]
    pub(crate) struct Accepts(());
}

/// Whether isolation is on unless it is turned off. On aarch64 it has never run outside of an emulator.
pub(crate) const ISOLATES: bool = !cfg!(target_arch = "aarch64");

pub(crate) use platform::cpu::prefetch;
pub(crate) use platform::os::{is_watched_file, most_files, open_process};
pub(crate) use platform::{base, epoll, frame, glibc};
