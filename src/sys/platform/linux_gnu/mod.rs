//! Linux with glibc: sets of thread-locals of our own.
//!
//! [`base`] and [`glibc`] are what all processors share. The file of a processor, here called `port`, has:
//!
//! | item | what it does |
//! |---|---|
//! | `native`, `plant` | read and write the word [`native_symbol!`] in the running block |
//! | `get`, `set`, `prepare` | read and change the base, which `prepare` makes fast |
//! | `FORK_KEEPS_BASE` | whether an error of `fork` has to be copied from the native block |
//! | `DTV`, `thread_at`, `is_static`, `images_end`, `spare` | where the parts of a block are, from the base on |
//! | `is_header_known`, `lay_header` | check the header of a native block, and fill that of a new one |
//!
//! All offsets are signed and count from the base: on some processors `struct pthread` lies below it.

pub(crate) mod base;
mod block;
pub(crate) mod glibc;
mod images;

use std::arch::global_asm;

use block::{at, set_word, word};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as port;

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as port;

/// The name of a thread-local of this crate: the native base while another context runs, 0 in the native context.
///
/// It is defined in assembly, so that it lies at a fixed distance from the base in libraries too. A look at it is then
/// a load instead of a call, and leaves all other registers alone.
macro_rules! native_symbol {
    () => {
        concat!(
            "greenthread_native_base_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH")
        )
    };
}
use native_symbol;

global_asm!(
    concat!(".pushsection .tbss.", native_symbol!(), ",\"awT\",@nobits"),
    concat!(".hidden ", native_symbol!()),
    concat!(".globl ", native_symbol!()),
    concat!(".type ", native_symbol!(), ",@object"),
    concat!(".size ", native_symbol!(), ", 8"),
    ".p2align 3",
    concat!(native_symbol!(), ":"),
    ".zero 8",
    ".popsection",
);
