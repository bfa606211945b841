//! Where tests run: on an OS thread, and so a hub, of their own, with a watchdog; and what many of them say.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use greenthread::{JoinHandle, hub, sleep, spawn, spawn_local, thread, timeout, yield_now};

/// Longer than any test takes; a hang is then a failure that names its test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `f` on a fresh OS thread, with a fresh hub, and passes its panic on.
pub(crate) fn fresh<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = f();
        let _ = done.send(());
        result
    });
    if wait.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the test hangs");
    }
    match thread.join() {
        Ok(result) => result,
        Err(payload) => resume_unwind(payload),
    }
}

/// The same with a clock that jumps.
pub(crate) fn virtually<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    fresh(|| {
        hub::Builder::new().virtual_clock(true).install().unwrap();
        f()
    })
}

/// Milliseconds.
pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Seconds.
pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The text of a panic's payload.
pub(crate) fn text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| String::from(*text)))
        .unwrap_or_else(|| String::from("(no text)"))
}

/// The text that `f` panics with.
pub(crate) fn raised<T>(f: impl FnOnce() -> T) -> String {
    text(&*catch_unwind(AssertUnwindSafe(|| drop(f()))).expect_err("it panics"))
}

/// Spawns `f` of what it shares with others.
pub(crate) fn green<T: 'static, R: 'static>(shared: &Rc<T>, f: impl FnOnce(&T) -> R + 'static) -> JoinHandle<R> {
    let shared = shared.clone();
    spawn_local(move || f(&shared))
}

/// Lets all that can run do so until they wait.
pub(crate) fn quiesce() {
    (0..60).for_each(|_| yield_now());
}

/// Pending once, and woken at once, as futures of other crates are that give way.
pub(crate) async fn give_way() {
    let mut polled = false;
    poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A green thread that parks on an OS thread of its own, what lets that OS thread end, and that OS thread.
pub(crate) fn elsewhere() -> (JoinHandle<()>, mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (send, receive) = mpsc::channel();
    let (go, gate) = mpsc::channel();
    let owner = std::thread::spawn(move || {
        let parked = spawn(thread::park);
        yield_now();
        send.send(parked).unwrap();
        gate.recv().unwrap();
    });
    (receive.recv().unwrap(), go, owner)
}

/// Waits for something that nobody tells of.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    timeout(secs(20), || {
        while !condition() {
            sleep(ms(1));
        }
    })
    .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Polls once with a waker that does nothing.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}
