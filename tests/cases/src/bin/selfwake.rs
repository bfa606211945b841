//! A future that wakes itself, in `block_on` of a green thread or as a stackless task, lets a ticker of the same hub
//! go on.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::future::poll_fn;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use cases::{Verdict, ms};
use greenthread::{future, sleep, spawn_local};

const TICKS: u32 = 50;
/// When the future gives up. On a quiet machine the ticker takes 0.06 s.
const LIMIT: Duration = ms(3000);

/// Gives way without end, as tokio's `yield_now` and hyper's dispatcher do.
async fn gives_way_until(done: Rc<Cell<bool>>) -> bool {
    let begin = Instant::now();
    while !done.get() && begin.elapsed() < LIMIT {
        let mut first = true;
        poll_fn(|context| {
            if !std::mem::take(&mut first) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
    done.get()
}

fn main() -> ExitCode {
    let mut verdict = Verdict::default();
    for how in ["block_on", "future::spawn"] {
        let done = Rc::new(Cell::new(false));
        let theirs = done.clone();
        let ticker = spawn_local(move || {
            (0..TICKS).for_each(|_| sleep(ms(1)));
            theirs.set(true);
        });
        sleep(ms(5));
        let begin = Instant::now();
        let future = gives_way_until(done);
        let in_time = if how == "block_on" {
            spawn_local(|| future::block_on(future)).join()
        } else {
            future::spawn(future).join()
        };
        verdict.holds(
            in_time.unwrap(),
            format_args!("{how}: {TICKS} ticks of 1 ms within {:.0?}", begin.elapsed()),
        );
        ticker.join().unwrap();
    }
    verdict.end()
}
