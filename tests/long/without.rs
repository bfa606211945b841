//! Runs a program as on an older or stricter kernel: chosen system calls fail with a chosen errno. `kernels.sh`
//! compiles it.
//!
//! ```text
//! without RULE... -- PROGRAM ARGUMENT...
//!   pidfd_open=ENOSYS         the call fails with this errno
//!   madvise:2:102=EINVAL      it fails if its argument 2, counted from 0, is 102; only the low 32 bits count
//!   fsgsbase                  PROGRAM is told that the kernel forbids the instruction `wrfsbase` (x86-64 only)
//! ```
//!
//! The rules on calls are a seccomp filter, which all threads and children of PROGRAM have too. The rule `fsgsbase`
//! takes a bit out of the auxiliary vector of PROGRAM, not of its children.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::io::Error;
use std::os::unix::ffi::OsStringExt;
use std::process::exit;

/// The numbers of system calls on x86-64 and on aarch64. From 424 on all processors share the numbers.
const CALLS: &[(&str, u32, u32)] = &[
    ("arch_prctl", 158, u32::MAX),
    ("clone3", 435, 435),
    ("close_range", 436, 436),
    ("copy_file_range", 326, 285),
    ("epoll_pwait2", 441, 441),
    ("eventfd2", 290, 19),
    ("get_robust_list", 274, 100),
    ("getrandom", 318, 278),
    ("io_uring_setup", 425, 425),
    ("madvise", 28, 233),
    ("membarrier", 324, 283),
    ("memfd_create", 319, 279),
    ("pidfd_open", 434, 434),
    ("preadv2", 327, 286),
    ("process_madvise", 440, 440),
    ("pwritev2", 328, 287),
    ("rseq", 334, 293),
    ("statx", 332, 291),
    ("timerfd_create", 283, 85),
    ("waitid", 247, 95),
];

const ERRORS: &[(&str, u32)] = &[
    // The call is not made, and succeeds.
    ("0", 0),
    ("EPERM", 1),
    ("EBADF", 9),
    ("EINVAL", 22),
    ("ENOSYS", 38),
    ("EOPNOTSUPP", 95),
];

const AUDIT_ARCH: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

const PR_SET_PDEATHSIG: c_int = 1;
const PR_SET_SECCOMP: c_int = 22;
const PR_SET_NO_NEW_PRIVS: c_int = 38;
const SECCOMP_MODE_FILTER: c_ulong = 2;
const SIGKILL: c_ulong = 9;

/// `struct sock_filter`.
#[repr(C)]
struct Step {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    steps: *const Step,
}

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
    fn execvp(file: *const c_char, arguments: *const *const c_char) -> c_int;
    #[cfg(target_arch = "x86_64")]
    fn fork() -> c_int;
    #[cfg(target_arch = "x86_64")]
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    #[cfg(target_arch = "x86_64")]
    fn ptrace(request: c_int, pid: c_int, address: *mut c_void, data: *mut c_void) -> c_long;
}

fn fail(what: &str) -> ! {
    eprintln!("without: {what}");
    exit(125)
}

fn load(offset: u32) -> Step {
    Step { code: 0x20, if_true: 0, if_false: 0, k: offset }
}

/// Goes on with the next step if the loaded word is `k`, and leaves out `others` steps if not.
fn is(k: u32, others: u8) -> Step {
    Step { code: 0x15, if_true: 0, if_false: others, k }
}

fn ret(k: u32) -> Step {
    Step { code: 0x06, if_true: 0, if_false: 0, k }
}

/// The steps of one rule. The number of the call is loaded before them and after them.
fn rule(text: &str) -> Vec<Step> {
    const NUMBER: u32 = 0;
    const ARGUMENTS: u32 = 16;
    const ERRNO: u32 = 0x0005_0000;
    let wrong = || -> ! { fail(&format!("{text}: no such rule")) };
    let Some((call, error)) = text.split_once('=') else { wrong() };
    let mut call = call.split(':');
    let name = call.next().unwrap_or_default();
    let Some(&(_, x86_64, aarch64)) = CALLS.iter().find(|known| known.0 == name) else { wrong() };
    let Some(&(_, errno)) = ERRORS.iter().find(|known| known.0 == error) else { wrong() };
    let number = if cfg!(target_arch = "x86_64") { x86_64 } else { aarch64 };
    match (call.next(), call.next().map(str::parse::<i32>)) {
        (None, None) => vec![is(number, 1), ret(ERRNO | errno)],
        (Some(argument), Some(Ok(value))) => {
            let Ok(argument @ 0..6) = argument.parse::<u32>() else { wrong() };
            vec![
                is(number, 4),
                load(ARGUMENTS + 8 * argument),
                is(value.cast_unsigned(), 1),
                ret(ERRNO | errno),
                load(NUMBER),
            ]
        }
        _ => wrong(),
    }
}

/// Installs the filter in this process.
fn filter(rules: &[String]) {
    const ALLOW: u32 = 0x7fff_0000;
    let mut steps = vec![load(4), is(AUDIT_ARCH, 1), load(0)];
    let of_rules: Vec<Step> = rules.iter().flat_map(|text| rule(text)).collect();
    // A call of another architecture is allowed: its load of the number is left out, and 2^32 - 1 is no number.
    steps[1] = Step { code: 0x15, if_true: 1, if_false: 0, k: AUDIT_ARCH };
    steps.insert(2, ret(ALLOW));
    steps.extend(of_rules);
    steps.push(ret(ALLOW));
    let program = Program { len: steps.len() as u16, steps: steps.as_ptr() };
    let one: c_ulong = 1;
    let none: c_ulong = 0;
    // SAFETY: the program points to `len` whole steps; the kernel copies them.
    let done = unsafe {
        prctl(PR_SET_NO_NEW_PRIVS, one, none, none, none) == 0
            && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if !done {
        fail(&format!("the filter was refused: {}", Error::last_os_error()));
    }
}

/// Becomes the program.
fn exec(arguments: &[CString]) -> ! {
    let mut pointers: Vec<*const c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: C strings, and a list of them that ends with null.
    unsafe { execvp(pointers[0], pointers.as_ptr()) };
    fail(&format!("{:?}: {}", arguments[0], Error::last_os_error()))
}

/// Starts the program in a child, changes its auxiliary vector before its first instruction, and ends as the child
/// does.
#[cfg(target_arch = "x86_64")]
fn exec_without_fsgsbase(arguments: &[CString]) -> ! {
    const PTRACE_TRACEME: c_int = 0;
    const PTRACE_PEEKDATA: c_int = 2;
    const PTRACE_PEEKUSER: c_int = 3;
    const PTRACE_POKEDATA: c_int = 5;
    const PTRACE_DETACH: c_int = 17;
    const RSP: usize = 19 * 8;
    const AT_HWCAP2: c_long = 26;
    const FSGSBASE: c_long = 2;
    // SAFETY: this process has one thread. The child calls what may be called after a fork, and `exec`.
    let child = unsafe { fork() };
    let null = std::ptr::null_mut();
    if child == 0 {
        // SAFETY: no pointers are involved.
        unsafe {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            ptrace(PTRACE_TRACEME, 0, null, null);
        }
        exec(arguments);
    }
    let mut status = 0;
    // SAFETY: the child is this process's, and stopped. The kernel checks each address in the child. libc's function
    // returns the word that a PEEK has read.
    unsafe {
        waitpid(child, &raw mut status, 0);
        if status & 0xff != 0x7f {
            fail("the program was not started");
        }
        let word = |at: usize| ptrace(PTRACE_PEEKDATA, child, at as *mut c_void, null);
        let mut at = ptrace(PTRACE_PEEKUSER, child, RSP as *mut c_void, null) as usize;
        // The count of arguments, the arguments, null, the environment, null, and pairs of a key and a value.
        at += 8 * (word(at) as usize + 2);
        while word(at) != 0 {
            at += 8;
        }
        at += 8;
        while word(at) != 0 && word(at) != AT_HWCAP2 {
            at += 16;
        }
        if word(at) == AT_HWCAP2 {
            let value = word(at + 8) & !FSGSBASE;
            ptrace(PTRACE_POKEDATA, child, (at + 8) as *mut c_void, value as *mut c_void);
        }
        ptrace(PTRACE_DETACH, child, null, null);
        waitpid(child, &raw mut status, 0);
    }
    let signal = status & 0x7f;
    exit(if signal == 0 { status >> 8 } else { 128 + signal })
}

#[cfg(not(target_arch = "x86_64"))]
fn exec_without_fsgsbase(_arguments: &[CString]) -> ! {
    fail("fsgsbase: only x86-64 has the instruction")
}

fn main() {
    let mut rules: Vec<String> = Vec::new();
    let mut arguments = std::env::args_os().skip(1);
    for argument in arguments.by_ref().take_while(|argument| argument != "--") {
        rules.push(argument.into_string().unwrap_or_default());
    }
    let program: Vec<CString> = arguments.filter_map(|argument| CString::new(argument.into_vec()).ok()).collect();
    if program.is_empty() {
        fail("RULE... -- PROGRAM ARGUMENT...");
    }
    let of_calls = rules.len();
    rules.retain(|rule| rule != "fsgsbase");
    let keeps_fsgsbase = rules.len() == of_calls;
    filter(&rules);
    if keeps_fsgsbase { exec(&program) } else { exec_without_fsgsbase(&program) }
}
