//! Where tests run: on an OS thread, and so a hub, of their own, with a watchdog.

use std::panic::resume_unwind;
use std::sync::mpsc;
use std::time::Duration;

use greenthread::hub;

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
