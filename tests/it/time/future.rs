//! Time-outs around futures: who wins, what is dropped, and when the time counts from.

use std::cell::Cell;
use std::future::{pending, poll_fn, ready};
use std::io::ErrorKind;
use std::rc::Rc;
use std::task::Poll;

use greenthread::future::{self, block_on};
use greenthread::time::{self, sleep_async, timeout, timeout_async, timeout_at_async};
use greenthread::{aio, sleep};

use crate::support::fresh::{ms, secs, virtually};

#[test]
fn in_time_gives_the_value_and_late_gives_elapsed() {
    virtually(|| {
        let start = time::now();
        let in_time = async {
            sleep_async(secs(1)).await;
            5
        };
        assert_eq!(block_on(timeout_async(secs(2), in_time)), Ok(5));
        let late = block_on(timeout_async(secs(2), sleep_async(secs(3))));
        assert_eq!(time::now() - start, secs(3));
        let error = late.unwrap_err();
        assert_eq!(error.to_string(), "the time allowed has passed");
        assert_eq!(std::io::Error::from(error).kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_value_that_is_there_wins_even_when_there_is_no_time() {
    virtually(|| {
        assert_eq!(block_on(timeout_async(secs(0), ready(1))), Ok(1));
        assert_eq!(block_on(timeout_at_async(time::now(), ready(2))), Ok(2));
        assert!(block_on(timeout_async(secs(0), pending::<()>())).is_err());
    });
}

#[test]
fn the_time_counts_from_the_call() {
    virtually(|| {
        let start = time::now();
        let (two, three) = (
            timeout_async(secs(2), pending::<()>()),
            timeout_at_async(start + secs(3), pending::<()>()),
        );
        sleep(secs(1));
        assert!(block_on(two).is_err());
        assert_eq!(time::now() - start, secs(2));
        assert!(block_on(three).is_err());
        assert_eq!(time::now() - start, secs(3));
    });
}

#[test]
fn what_is_late_has_been_dropped_when_the_caller_hears_of_it() {
    struct Dropped(Rc<Cell<bool>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    virtually(|| {
        let dropped = Rc::new(Cell::new(false));
        let guard = Dropped(dropped.clone());
        let task = future::spawn(async move {
            let late = timeout_async(ms(5), async move {
                let _guard = guard;
                pending::<()>().await;
            });
            assert!(late.await.is_err());
            dropped.get()
        });
        assert!(task.join().unwrap());
    });
}

#[test]
fn nested_ones_each_end_their_own() {
    virtually(|| {
        let inner = |by| timeout_async(secs(by), pending::<()>());
        let outer = block_on(timeout_async(secs(5), inner(3)));
        assert!(outer.unwrap().is_err());
        assert!(block_on(timeout_async(secs(3), inner(5))).is_err());
    });
}

#[test]
fn a_poll_that_blocks_is_let_finish_unless_the_whole_is_blocked_on() {
    virtually(|| {
        let start = time::now();
        let naps = || {
            let mut polls = 0;
            poll_fn(move |context| {
                polls += 1;
                sleep(secs(10));
                context.waker().wake_by_ref();
                if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
            })
        };
        assert!(block_on(timeout_async(secs(1), naps())).is_err());
        assert_eq!(time::now() - start, secs(10));
        assert!(timeout(secs(1), || block_on(naps())).is_err());
        assert_eq!(time::now() - start, secs(11));
    });
}

#[test]
fn a_task_of_aios_is_cancelled_by_it() {
    virtually(|| {
        let run = aio::run(async {
            let task = aio::create_task(aio::sleep(secs(60)));
            assert!(timeout_async(secs(1), task.clone()).await.is_err());
            task.await.unwrap_err().is_cancelled()
        });
        assert!(run.unwrap());
    });
}
