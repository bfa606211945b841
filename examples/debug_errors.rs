//! What nobody would hear of otherwise: a callback that keeps the loop waiting, an error that nobody looks at, a wait that cannot
//! end. None of them stops the hub.
//!
//! Run: `cargo run --release --example debug_errors`
//!
//! Expect, in half a second:
//!
//! ```text
//! executing .. took 0.200 seconds
//! task exception was never retrieved: no milk
//! a panic is its own task's: the tea was cold
//! this operation would block forever: ..
//! and the hub goes on: 42
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use greenthread::hub::LoopExit;
use greenthread::sync::Promise;
use greenthread::{aio, sleep, spawn};

fn main() {
    let event_loop = aio::get_event_loop();
    event_loop.set_debug(true);
    event_loop.set_exception_handler(Some(|context: &aio::ExceptionContext| println!("{context}")));

    // A hog: nobody else runs meanwhile.
    event_loop.call_soon(|| std::thread::sleep(Duration::from_millis(200)));
    sleep(Duration::from_millis(1));
    // What follows is not timed: a panic with its backtrace may take longer.
    event_loop.set_debug(false);

    // An error, and nobody who looks.
    drop(event_loop.create_task(aio::fallible(async { Err::<(), _>("no milk") })));
    sleep(Duration::from_millis(1));

    // A panic is told to who joins; the panic's own message is on stderr.
    let error = spawn(|| panic!("the tea was cold")).join().unwrap_err();
    let text = error.into_panic().downcast::<&str>().expect("its text");
    println!("a panic is its own task's: {text}");

    // Nobody is left who could set it.
    let waited = catch_unwind(AssertUnwindSafe(|| *Promise::<u32>::new().wait()));
    let exit = waited.unwrap_err().downcast::<LoopExit>().expect("that it cannot end");
    println!("{exit}");

    println!("and the hub goes on: {}", spawn(|| 6 * 7).join().unwrap());
}
