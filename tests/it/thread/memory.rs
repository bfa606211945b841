//! What green threads that are no more leave in memory: nothing that was not needed for a second, and nothing after a
//! trim.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use greenthread::thread::{self, Thread};
use greenthread::{future, sleep, spawn, stack, yield_now};

use crate::support::child;

const MANY: usize = 20_000;

/// KiB of memory but for what is of files: code that runs for the first time is not what is counted.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Parks many isolated green threads, and kills them.
fn spike() {
    let all: Vec<_> = (0..MANY).map(|_| spawn(thread::park)).collect();
    yield_now();
    thread::kill_all(all);
}

/// What is kept of a spike is less than a fifth of what there was before.
fn assert_small(base: usize, now: usize) {
    assert!(now * 5 <= base * 6 + 5 * 1024, "{base} KiB, then {now}");
}

fn base() -> usize {
    thread::kill_all((0..100).map(|_| spawn(thread::park)).collect::<Vec<_>>());
    stack::trim();
    resident()
}

/// In a process of its own.
pub(crate) fn trimmed() {
    let base = base();
    for _ in 0..2 {
        spike();
        assert!(resident() > base + MANY * 5, "it was there");
        stack::trim();
        assert_small(base, resident());
    }
}

/// In a process of its own.
pub(crate) fn idle() {
    let base = base();
    for _ in 0..2 {
        spike();
        assert!(resident() > base + MANY * 5, "it was there");
        let start = Instant::now();
        // By itself, while it sleeps; the machine may be slow.
        while resident() * 5 > base * 6 + 5 * 1024 && start.elapsed() < Duration::from_secs(30) {
            sleep(Duration::from_millis(2500));
        }
        assert_small(base, resident());
    }
}

#[test]
fn after_a_trim_a_spike_has_left_nothing() {
    let out = child::run("trimmed");
    assert!(out.ok, "{out:?}");
}

#[test]
fn an_idle_hub_gives_a_spike_back_by_itself() {
    if cfg!(target_env = "musl") {
        return println!("not here: musl's malloc cannot be told to give back what it keeps");
    }
    let out = child::run("idle");
    assert!(out.ok, "{out:?}");
}

/// In a process of its own: blocks of green threads and tasks come back from the system, and a handle or a waker of an
/// earlier life disturbs no later one.
pub(crate) fn stale() {
    let (mut threads, mut wakers): (Vec<Thread>, Vec<Waker>) = Default::default();
    for round in 1..=3 {
        let (tell, told) = mpsc::channel();
        let open = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..500)
            .map(|_| {
                let tell = tell.clone();
                let open = open.clone();
                // An old waker makes a poll too many at worst.
                future::spawn(std::future::poll_fn(move |context| {
                    if open.load(Ordering::SeqCst) {
                        return Poll::Ready(2);
                    }
                    tell.send(context.waker().clone()).unwrap();
                    Poll::Pending
                }))
            })
            .collect();
        let parked: Vec<_> = (0..500).map(|_| spawn(thread::park)).collect();
        yield_now();
        let fresh: Vec<Waker> = told.try_iter().collect();
        assert_eq!(fresh.len(), 500);
        // Those of earlier lives, from here and from elsewhere.
        wakers.iter().for_each(Waker::wake_by_ref);
        threads.iter().for_each(|thread| {
            thread.unpark();
            thread.kill();
        });
        let (old_threads, old_wakers) = (threads.clone(), wakers.clone());
        let elsewhere = std::thread::spawn(move || {
            old_wakers.iter().for_each(Waker::wake_by_ref);
            old_threads.iter().for_each(Thread::kill);
        });
        elsewhere.join().unwrap();
        sleep(Duration::from_millis(5));
        assert!(parked.iter().all(|parked| !parked.is_finished()), "round {round}");
        assert!(tasks.iter().all(|task| !task.is_finished()), "round {round}");
        threads.extend(parked.iter().map(|parked| parked.thread()));
        parked.iter().for_each(|parked| parked.thread().unpark());
        assert!(thread::join_all(parked).into_iter().all(|ended| ended.is_ok()));
        open.store(true, Ordering::SeqCst);
        fresh.iter().for_each(Waker::wake_by_ref);
        assert!(tasks.into_iter().all(|task| task.join().unwrap() == 2));
        wakers.extend(fresh);
        stack::trim();
        // Others look at the blocks that have gone.
        wakers.iter().for_each(Waker::wake_by_ref);
        assert_eq!(greenthread::hub::live(), 0);
        assert!(greenthread::debug::dump().starts_with("0 green threads"));
    }
}

#[test]
fn blocks_that_went_and_came_back_know_no_earlier_life() {
    let out = child::run("stale");
    assert!(out.ok, "{out:?}");
}

/// In a process of its own: a panic of a green thread, with a backtrace.
pub(crate) fn panics() {
    // SAFETY: nothing else reads the environment yet.
    unsafe { std::env::set_var("RUST_BACKTRACE", "1") };
    let worker = thread::Builder::new()
        .name("worker")
        .spawn(a_function_that_panics)
        .unwrap();
    assert!(worker.join().is_err());
    let task = future::spawn(async { a_function_that_panics() });
    assert!(task.join().is_err());
}

#[inline(never)]
fn a_function_that_panics() {
    panic!("no");
}

#[test]
fn a_panic_is_told_with_its_green_thread_and_its_backtrace_ends_at_the_base() {
    let out = child::run("panics");
    assert!(out.ok, "{out:?}");
    let (before, said) = out
        .stderr
        .split_once(" 'worker' panics:\n")
        .unwrap_or_else(|| panic!("{}", out.stderr));
    assert!(before.contains("greenthread: green thread #"), "{out:?}");
    assert!(
        said.trim_start().starts_with("thread '"),
        "std's own message follows: {said}"
    );
    assert_eq!(said.matches("a_function_that_panics").count(), 2, "{said}");
    for frame in ["corosensei", "fiber", "run_assigned", "test_main"] {
        assert!(!said.contains(frame), "{frame} in {said}");
    }
}

/// In a process of its own: whose hook is the program's, which says nothing.
pub(crate) fn silent() {
    std::panic::set_hook(Box::new(|_| ()));
    assert!(spawn(a_function_that_panics).join().is_err());
}

/// In a process of its own: a time-out that nothing catches.
pub(crate) fn late() {
    let careless = || {
        let _limit = greenthread::time::Timeout::new(Duration::from_millis(1));
        sleep(Duration::from_secs(3600));
    };
    let error = spawn(careless).join().unwrap_err();
    assert!(error.is_timed_out() && !error.is_panic() && !error.is_killed());
    let (tell, told) = mpsc::channel();
    let linked = spawn(careless);
    linked.on_exit(move |ended| tell.send(ended.unwrap_err().is_timed_out()).unwrap());
    drop(linked);
    // `recv` of std's would block the hub.
    let is_told = loop {
        match told.try_recv() {
            Ok(is_timed_out) => break is_timed_out,
            Err(mpsc::TryRecvError::Empty) => sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    };
    assert!(is_told);
}

#[test]
fn a_hook_of_the_programs_own_is_left_alone() {
    let out = child::run("silent");
    assert!(out.ok && !out.stderr.contains("panics:"), "{out:?}");
}

#[test]
fn a_time_out_outside_of_its_run_is_told_as_such() {
    let out = child::run("late");
    assert!(out.ok, "{out:?}");
    assert!(
        out.stderr
            .contains(" was ended by a time-out that expired outside of its Timeout::run"),
        "{out:?}"
    );
}
