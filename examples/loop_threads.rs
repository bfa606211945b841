//! Event loops on OS threads of their own: each has one, and others ask things of it.
//!
//! Run: `cargo run --release --example loop_threads`
//!
//! Expect: `is_running True`, `Hello word`, and a cancelled call that prints nothing; `joined` in less than 0.1 seconds after
//! `stop`. Two hellos on one OS thread, in one second together. Four loops that sleep for a second, in one second too.

use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use greenthread::aio;

const SECOND: Duration = Duration::from_secs(1);

fn timed(what: &str, f: impl FnOnce()) {
    let start = Instant::now();
    f();
    println!("{what}: {:.2} s", start.elapsed().as_secs_f64());
}

async fn hello() -> ThreadId {
    println!("Hello world!");
    aio::sleep(SECOND).await;
    println!("Hello again!");
    thread::current().id()
}

fn main() {
    let event_loop = aio::new_event_loop();
    let theirs = event_loop.clone();
    let runs = thread::spawn(move || {
        aio::set_event_loop(&theirs);
        theirs.run_forever();
    });
    let (begun, begins) = mpsc::channel();
    event_loop.call_soon_threadsafe(move || begun.send(()).expect("main waits"));
    begins.recv().expect("the loop calls");
    println!("is_running {}", if event_loop.is_running() { "True" } else { "False" });

    let (said, says) = mpsc::channel();
    let later = Duration::from_millis(20);
    event_loop.call_later(later, || println!("never printed")).cancel();
    event_loop.call_soon_threadsafe(move || {
        println!("Hello word");
        said.send(()).expect("main waits");
    });
    says.recv().expect("the loop calls");
    timed("joined", || {
        event_loop.stop();
        runs.join().expect("the loop ends");
    });

    timed("two hellos", || {
        let ids = aio::run(async { aio::gather([hello(), hello()]).await }).and_then(|ids| ids);
        let ids = ids.expect("they end well");
        println!("{}", if ids[0] == ids[1] { "one thread" } else { "two threads" });
    });
    timed("four loops", || {
        let threads = [(); 4].map(|()| thread::spawn(|| aio::run(aio::sleep(SECOND))));
        for thread in threads {
            thread.join().expect("no panic").expect("no error");
        }
    });
}
