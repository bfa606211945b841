//! A value of the user's that is replaced is dropped outside of the library's locks: its destructor may call the same
//! function.
#![forbid(unsafe_code)]

use std::any::Any;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use cases::{ms, scenarios};
use greenthread::{aio, hub, sleep};

static DROPS: AtomicUsize = AtomicUsize::new(0);

/// Calls as it is dropped.
struct Calls(fn());

impl Drop for Calls {
    fn drop(&mut self) {
        (self.0)();
        DROPS.fetch_add(1, Ordering::SeqCst);
    }
}

fn panic_hook() {
    let value = Calls(|| hub::set_panic_hook(None::<fn(&str, &(dyn Any + Send))>));
    hub::set_panic_hook(Some(move |_: &str, _: &(dyn Any + Send)| {
        let _ = &value;
    }));
    hub::set_panic_hook(Some(|_: &str, _: &(dyn Any + Send)| ()));
    assert_eq!(DROPS.load(Ordering::SeqCst), 1);
}

/// The loop of an OS thread that has ended is tidied away by another's call.
fn event_loop() {
    std::thread::spawn(move || {
        let value = Calls(|| drop(aio::get_event_loop()));
        aio::get_event_loop().set_exception_handler(Some(move |_: &aio::ExceptionContext| {
            let _ = &value;
        }));
        sleep(ms(1));
    })
    .join()
    .unwrap();
    drop(aio::get_event_loop());
    assert_eq!(DROPS.load(Ordering::SeqCst), 1);
}

fn main() -> ExitCode {
    scenarios::main(&[("panic_hook", panic_hook), ("event_loop", event_loop)])
}
