//! A future that wakes itself and is pending, as `yield_now` of tokio, async-std and hyper does, gives way: others
//! run in between (bytecodealliance/wasmtime#13085, smol-rs/smol#43; met behind gevent/gevent#1741, by way of hyper).

use std::future::poll_fn;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;

use cases::ms;
use greenthread::future::{asyncify, await_, block_on};
use greenthread::{future, run, select, sleep, spawn, timeout};

/// Gives way once.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

async fn until(flag: Arc<AtomicBool>) {
    while !flag.load(Ordering::SeqCst) {
        yield_now().await;
    }
}

async fn for_ever() {
    loop {
        yield_now().await;
    }
}

/// Runs `f` with a flag that another green thread sets.
fn with(f: impl FnOnce(Arc<AtomicBool>)) {
    let flag = Arc::new(AtomicBool::new(false));
    let theirs = flag.clone();
    let other = spawn(move || theirs.store(true, Ordering::SeqCst));
    f(flag);
    other.join().unwrap();
}

fn in_a_green_thread() {
    run(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = flag.clone();
        let waiter = spawn(move || block_on(until(theirs)));
        // It comes up after the other, which waits for it.
        spawn(move || flag.store(true, Ordering::SeqCst)).join().unwrap();
        waiter.join().unwrap();
    });
}

fn on_the_native_stack() {
    with(|flag| block_on(until(flag)));
}

fn in_a_task() {
    with(|flag| future::spawn(until(flag)).join().unwrap());
}

fn in_await() {
    with(|flag| block_on(asyncify(|| await_(until(flag)))));
}

fn a_sleeper_beside_it() {
    run(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = flag.clone();
        let sleeper = spawn(move || {
            sleep(ms(20));
            theirs.store(true, Ordering::SeqCst);
        });
        block_on(until(flag));
        sleeper.join().unwrap();
    });
}

fn a_time_out_around_it() {
    run(|| assert!(timeout(ms(20), || block_on(for_ever())).is_err()));
}

fn a_kill() {
    let victim = spawn(|| block_on(for_ever()));
    let killer = victim.thread();
    let start = Instant::now();
    std::thread::spawn(move || {
        std::thread::sleep(ms(100));
        killer.kill();
    });
    assert!(victim.join().unwrap_err().is_killed());
    assert!(start.elapsed() < ms(5000));
}

fn in_a_select() {
    run(|| {
        let late = select! {
            future(for_ever()) => false,
            after(ms(20)) => true,
        };
        assert!(late);
    });
}

fn in_aio_run() {
    let got = greenthread::aio::run(async {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = flag.clone();
        let other = greenthread::aio::create_task(async move { theirs.store(true, Ordering::SeqCst) });
        until(flag).await;
        other.await.unwrap();
        1
    });
    assert_eq!(got.unwrap(), 1);
}

fn main() -> ExitCode {
    cases::scenarios::main(&[
        ("in_a_green_thread", in_a_green_thread),
        ("on_the_native_stack", on_the_native_stack),
        ("in_a_task", in_a_task),
        ("in_await", in_await),
        ("a_sleeper_beside_it", a_sleeper_beside_it),
        ("a_time_out_around_it", a_time_out_around_it),
        ("a_kill", a_kill),
        ("in_a_select", in_a_select),
        ("in_aio_run", in_aio_run),
    ])
}
