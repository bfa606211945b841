//! The outermost frame of a green thread, on x86-64 Linux: its unwind tables say that it has no caller, and its frame
//! pointer is null.

use std::arch::global_asm;

/// The name of the symbol. It contains the version, because a program may contain several versions of this crate.
macro_rules! name {
    () => {
        concat!(
            "greenthread_outermost_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH")
        )
    };
}

global_asm!(
    concat!(".pushsection .text.", name!(), ",\"ax\",@progbits"),
    ".p2align 4",
    concat!(".hidden ", name!()),
    concat!(".globl ", name!()),
    concat!(".type ", name!(), ",@function"),
    concat!(name!(), ":"),
    ".cfi_startproc",
    ".cfi_undefined rip",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    "xor ebp, ebp",
    "call rsi",
    "pop rbp",
    ".cfi_def_cfa_offset 8",
    "ret",
    ".cfi_endproc",
    concat!(".size ", name!(), ", . - ", name!()),
    ".popsection",
);

unsafe extern "C-unwind" {
    #[link_name = concat!("greenthread_outermost_", env!("CARGO_PKG_VERSION_MAJOR"), "_",
        env!("CARGO_PKG_VERSION_MINOR"), "_", env!("CARGO_PKG_VERSION_PATCH"))]
    pub(crate) fn outermost(job: *mut (), f: unsafe extern "C" fn(*mut ()));
}
