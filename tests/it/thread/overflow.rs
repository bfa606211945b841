//! Stack overflows: who is named, and who is left to std. Each in a process of its own.

use std::time::Duration;

use greenthread::{spawn, thread};

use crate::support::child::{self, Ended};

/// Runs in the child.
pub(crate) fn scenario(name: &str) {
    no_core();
    match name {
        "recursion" => drop(thread::Builder::new().name("deep").spawn(|| deep(1)).unwrap().join()),
        "unnamed" => drop(spawn(|| deep(1)).join()),
        "big frame" => drop(thread::Builder::new().name("wide").spawn(wide_call).unwrap().join()),
        "shared" => {
            thread::set_isolation(false);
            drop(spawn(|| deep(1)).join());
        }
        "sized" => {
            let sized = thread::Builder::new().name("sized").stack_size(3 << 20);
            drop(sized.spawn(|| deep(1)).unwrap().join());
        }
        "local" => drop(
            thread::Builder::new()
                .name("lean")
                .spawn_local(|| deep(1))
                .unwrap()
                .join(),
        ),
        "generator" => {
            let inside = || greenthread::generator::Generator::<usize>::new(|_| _ = deep(1)).next();
            drop(thread::Builder::new().name("host").spawn_local(inside).unwrap().join());
        }
        // 2 MiB, where the default holds 1; and a local one.
        "larger by default" => drop(spawn(wide_call).join().unwrap()),
        "larger locals by default" => drop(greenthread::spawn_local(wide_call).join().unwrap()),
        "set by a call" => {
            greenthread::stack::set_default_size(3 << 20);
            spawn(wide_call).join().unwrap();
            greenthread::future::block_on(greenthread::future::spawn(async { wide_call() })).unwrap();
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

/// Takes more than the defaults hold, and less than 3 MiB.
#[inline(never)]
fn wide_call() -> usize {
    let mut block = [1_u8; 2 << 20];
    std::hint::black_box(&mut block);
    usize::from(block[77])
}

fn overflowed(out: &Ended, name: &str, usable: &str, variable: &str) {
    assert_eq!(out.signal, Some(libc::SIGABRT), "{out:?}");
    let head = format!("{name} has overflowed its stack of {usable} KiB");
    assert!(out.stderr.contains(&head), "{out:?}");
    assert!(out.stderr.contains("green thread #"), "{out:?}");
    assert!(out.stderr.contains("stack_size("), "it tells the cure: {out:?}");
    assert!(out.stderr.contains(variable), "it tells the cure: {out:?}");
    assert!(!out.stderr.contains("thread 'main' has overflowed"), "{out:?}");
}

#[test]
fn recursion_in_a_green_thread_names_it_and_aborts() {
    overflowed(&child::run("recursion"), "'deep'", "1024", "GREEN_STACK=");
}

#[test]
fn an_unnamed_green_thread_is_told_as_such() {
    let out = child::run("unnamed");
    assert_eq!(out.signal, Some(libc::SIGABRT), "{out:?}");
    let words =
        |line: &str| line.starts_with("green thread #") && line.ends_with(" has overflowed its stack of 1024 KiB");
    assert!(out.stderr.lines().any(words), "{out:?}");
}

#[test]
fn a_frame_larger_than_the_stack_is_caught() {
    overflowed(&child::run("big frame"), "'wide'", "1024", "GREEN_STACK=");
}

/// It is not taken for one of `spawn_local`, whose stacks another variable enlarges.
#[test]
fn one_of_spawn_is_told_its_cure_where_isolation_is_off() {
    let out = child::run("shared");
    assert_eq!(out.signal, Some(libc::SIGABRT), "{out:?}");
    assert!(out.stderr.contains("or all of them: GREEN_STACK="), "{out:?}");
}

#[test]
fn a_bigger_stack_is_told_with_its_size() {
    overflowed(&child::run("sized"), "'sized'", "3072", "GREEN_STACK=");
}

#[test]
fn the_environment_and_a_call_make_all_stacks_larger() {
    for (scenario, variable) in [
        ("larger by default", "GREEN_STACK"),
        ("larger by default", "RUST_MIN_STACK"),
        ("larger locals by default", "GREEN_LOCAL_STACK"),
    ] {
        assert!(!child::run(scenario).ok, "{scenario} needs more");
        let out = child::run_with_variable(scenario, variable, "4194304");
        assert!(out.ok, "{variable}: {out:?}");
        let out = child::run_with_variable(scenario, variable, "much");
        let is_told = out.stderr.contains("=much: not a number of bytes");
        assert!(!out.ok && is_told, "{variable}: {out:?}");
    }
    let out = child::run("set by a call");
    assert!(out.ok, "{out:?}");
}

#[test]
fn the_help_names_what_can_be_changed() {
    overflowed(&child::run("local"), "'lean'", "192", "GREEN_LOCAL_STACK=");
    let out = child::run("generator");
    overflowed(&out, "'host'", "192", "GREEN_LOCAL_STACK=");
    assert!(
        out.stderr.contains("a greenlet or generator of green thread #"),
        "{out:?}"
    );
    assert!(out.stderr.contains("Generator::with_stack_size"), "{out:?}");
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
    assert!(out.stderr.contains("thread 'support::child::entry'"), "{out:?}");
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
    assert_eq!(out.stderr.matches("outside of its Timeout::run").count(), 1, "{out:?}");
}
