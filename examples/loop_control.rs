//! The event loop by hand, as asyncio has it: calls, timers, stop, and to run until something is done.
//!
//! Run: `cargo run --release --example loop_control` or `... -- forever`
//!
//! Expect: `False`, `Hello word!`, `Stopping loop.`; a timer after one second and one after two; `Hello world!`. With
//! `forever` it prints `press Ctrl-C` and has nothing to do, until that ends it: the shell sees 130.

use std::time::{Duration, Instant};

use greenthread::aio::{self, EventLoop};

fn stop(event_loop: &EventLoop) -> impl FnOnce() + Send + 'static {
    let event_loop = event_loop.clone();
    move || {
        println!("Stopping loop.");
        event_loop.stop();
    }
}

fn main() -> Result<(), aio::TaskError> {
    let event_loop = EventLoop::new();
    if std::env::args().nth(1).as_deref() == Some("forever") {
        println!("press Ctrl-C");
        event_loop.run_forever();
    }
    println!("{}", if event_loop.is_running() { "True" } else { "False" });

    // In the order of the calls.
    event_loop.call_soon(|| println!("Hello word!"));
    event_loop.call_soon(|| println!("never printed")).cancel();
    event_loop.call_soon(stop(&event_loop));
    event_loop.run_forever();

    let start = Instant::now();
    for seconds in [2, 1] {
        event_loop.call_later(Duration::from_secs(seconds), move || {
            println!("timer {seconds}: {:.1} s", start.elapsed().as_secs_f64());
        });
    }
    event_loop.call_later(Duration::from_millis(2050), stop(&event_loop));
    event_loop.run_forever();

    println!("{}", event_loop.run_until_complete(async { "Hello world!" })?);
    event_loop.close();
    Ok(())
}
