//! Stack overflows: who is named, and who is left to std. Each in a process of its own.

use std::time::Duration;

use greenthread::{spawn, thread};

use crate::child::{self, Ended};

/// Runs in the child.
pub(crate) fn scenario(name: &str) {
    no_core();
    match name {
        "recursion" => drop(thread::Builder::new().name("deep").spawn(|| deep(1)).unwrap().join()),
        "unnamed" => drop(spawn(|| deep(1)).join()),
        "big frame" => drop(thread::Builder::new().name("wide").spawn(wide_call).unwrap().join()),
        "sized" => {
            let sized = thread::Builder::new().name("sized").stack_size(1 << 20);
            drop(sized.spawn(|| deep(1)).unwrap().join());
        }
        "os thread" => {
            spawn(|| ()).join().unwrap(); // the handler is there
            let os_thread = std::thread::Builder::new().name(String::from("os-deep"));
            drop(os_thread.spawn(|| deep(1)).unwrap().join());
        }
        "native stack" => {
            spawn(|| ()).join().unwrap();
            deep(1);
        }
        "late time-out" => {
            let caught = greenthread::time::Timeout::new(Duration::from_millis(1)).run(thread::park);
            assert!(caught.is_err());
            let _late = greenthread::time::Timeout::new(Duration::from_millis(1));
            greenthread::sleep(Duration::from_secs(3600));
        }
        "null" => {
            spawn(|| ()).join().unwrap();
            // SAFETY: none: the process is to die of it.
            unsafe { std::ptr::null_mut::<u8>().write_volatile(std::hint::black_box(1)) };
        }
        "extern" => {
            extern "C" fn calls_back() {
                thread::park();
            }
            let handle = spawn(|| calls_back());
            greenthread::yield_now();
            handle.kill();
            drop(handle.join());
        }
        other => panic!("no such scenario: {other}"),
    }
}

/// These processes are to crash; nobody wants their memory.
fn no_core() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a plain system call with a valid pointer.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
}

#[allow(unconditional_recursion, reason = "that is the point")]
fn deep(n: usize) -> usize {
    let block = std::hint::black_box([n; 64]);
    deep(n + 1) + block[n % 64]
}

#[inline(never)]
fn wide_call() -> usize {
    let mut block = [1_u8; 512 * 1024];
    std::hint::black_box(&mut block);
    usize::from(block[77])
}

fn overflowed(out: &Ended, name: &str, usable: &str) {
    assert_eq!(out.signal, Some(libc::SIGABRT), "{out:?}");
    let head = format!("green thread '{name}' has overflowed its stack: {usable} KiB usable");
    assert!(out.stderr.contains(&head), "{out:?}");
    assert!(out.stderr.contains("stack_size("), "it tells the cure: {out:?}");
    assert!(!out.stderr.contains("thread 'main' has overflowed"), "{out:?}");
}

#[test]
fn recursion_in_a_green_thread_names_it_and_aborts() {
    overflowed(&child::run("recursion"), "deep", "192");
}

#[test]
fn an_unnamed_green_thread_is_told_as_such() {
    let out = child::run("unnamed");
    assert_eq!(out.signal, Some(libc::SIGABRT), "{out:?}");
    assert!(
        out.stderr.contains("green thread 'unnamed' has overflowed its stack"),
        "{out:?}"
    );
}

#[test]
fn a_frame_larger_than_the_stack_is_caught() {
    overflowed(&child::run("big frame"), "wide", "192");
}

#[test]
fn a_bigger_stack_is_told_with_its_size() {
    overflowed(&child::run("sized"), "sized", "960");
}

#[test]
fn overflows_of_os_threads_are_still_stds() {
    let out = child::run("os thread");
    assert_eq!(out.signal, Some(libc::SIGABRT), "{out:?}");
    assert!(
        out.stderr.contains("thread 'os-deep'") && out.stderr.contains("has overflowed its stack"),
        "{out:?}"
    );
    assert!(!out.stderr.contains("green thread"), "{out:?}");
}

#[test]
fn an_overflow_of_the_native_stack_beside_a_hub_is_still_stds() {
    let out = child::run("native stack");
    assert_eq!(out.signal, Some(libc::SIGABRT), "{out:?}");
    assert!(out.stderr.contains("thread 'child::entry'"), "{out:?}");
    assert!(!out.stderr.contains("green thread"), "{out:?}");
}

#[test]
fn another_fault_still_kills_as_it_would() {
    let out = child::run("null");
    assert!(
        !out.ok && matches!(out.signal, Some(libc::SIGSEGV | libc::SIGABRT)),
        "{out:?}"
    );
    assert!(!out.stderr.contains("green thread"), "{out:?}");
}

#[test]
fn a_kill_through_an_extern_c_frame_aborts() {
    let out = child::run("extern");
    assert_eq!(out.signal, Some(libc::SIGABRT), "{out:?}");
}

#[test]
fn a_time_out_that_nobody_on_the_native_stack_catches_says_so() {
    let out = child::run("late time-out");
    assert!(!out.ok, "{out:?}");
    assert_eq!(out.stderr.matches("outside of Timeout::run").count(), 1, "{out:?}");
}
