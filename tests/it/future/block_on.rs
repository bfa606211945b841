//! Futures: `block_on`, and a `JoinHandle` as a future, here and on other executors.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::channel::oneshot;
use greenthread::future::block_on;
use greenthread::{hub, sleep, spawn, spawn_local, thread, threadpool, time, yield_now};

use crate::support::fresh::{elsewhere, fresh, ms, secs, text, virtually};

#[test]
fn a_ready_future_gives_its_value_at_once() {
    fresh(|| {
        assert_eq!(block_on(async { 5 }), 5);
        let local = Rc::new(6);
        assert_eq!(block_on(async { *local }), 6, "it may borrow, and need not be Send");
    });
}

#[test]
fn others_run_while_one_waits_for_a_future() {
    fresh(|| {
        let (send, receive) = oneshot::channel();
        let ran = Rc::new(Cell::new(0));
        let theirs = ran.clone();
        let waiter = spawn(move || block_on(receive).unwrap());
        let worker = spawn_local(move || {
            for _ in 0..10 {
                theirs.set(theirs.get() + 1);
                yield_now();
            }
            send.send(7).unwrap();
        });
        assert_eq!(waiter.join().unwrap(), 7);
        worker.join().unwrap();
        assert_eq!(ran.get(), 10);
    });
}

#[test]
fn wakes_from_another_os_thread_arrive_and_spurious_ones_do_no_harm() {
    fresh(|| {
        let slot: Arc<Mutex<(Option<Waker>, u32)>> = Arc::default();
        let theirs = slot.clone();
        let os_thread = std::thread::spawn(move || {
            loop {
                let waker = {
                    let mut slot = theirs.lock().unwrap();
                    slot.1 += 1;
                    if slot.1 > 1_000_000_000 {
                        return;
                    }
                    slot.0.take()
                };
                if let Some(waker) = waker {
                    waker.wake_by_ref();
                    waker.wake();
                }
                std::thread::yield_now();
            }
        });
        let mut polls = 0;
        block_on(poll_fn(|context: &mut Context<'_>| {
            polls += 1;
            let mut slot = slot.lock().unwrap();
            if polls > 500 {
                slot.1 = 2_000_000_000;
                return Poll::Ready(());
            }
            slot.0 = Some(context.waker().clone());
            Poll::Pending
        }));
        os_thread.join().unwrap();
    });
}

#[test]
fn a_wake_after_the_end_is_nothing() {
    virtually(|| {
        let start = time::now();
        let kept = Rc::new(std::cell::RefCell::new(None));
        let keep = kept.clone();
        block_on(poll_fn(move |context: &mut Context<'_>| {
            *keep.borrow_mut() = Some(context.waker().clone());
            Poll::Ready(())
        }));
        let sleeper = spawn(|| sleep(secs(1)));
        kept.borrow_mut().take().unwrap().wake();
        sleeper.join().unwrap();
        assert_eq!(time::now() - start, secs(1));
    });
}

#[test]
fn a_panic_of_the_future_is_the_callers() {
    fresh(|| {
        let bad = spawn(|| block_on(async { panic!("in a future") }));
        assert_eq!(text(&*bad.join().unwrap_err().into_panic()), "in a future");
    });
}

#[test]
fn a_time_out_ends_it_and_drops_the_future() {
    virtually(|| {
        let owned = Rc::new(());
        let theirs = owned.clone();
        let late = time::timeout(secs(1), || {
            block_on(async move {
                std::future::pending::<()>().await;
                drop(theirs);
            })
        });
        assert!(late.is_err());
        assert_eq!(Rc::strong_count(&owned), 1);
    });
}

#[test]
fn block_on_may_block_inside_a_poll() {
    virtually(|| {
        let value = block_on(async {
            sleep(secs(1)); // bad manners, but it works
            block_on(async { spawn(|| 4).join().unwrap() })
        });
        assert_eq!(value, 4);
    });
}

#[test]
fn a_join_handle_is_a_future_here() {
    fresh(|| {
        let (a, b) = (
            spawn(|| {
                sleep(ms(2));
                1
            }),
            spawn(|| panic!("x")),
        );
        let (a, b): (_, Result<(), _>) = block_on(futures::future::join(a, b));
        assert_eq!(a.unwrap(), 1);
        assert!(b.unwrap_err().is_panic());
    });
}

#[test]
fn a_join_handle_is_a_future_on_another_os_threads_executor() {
    fresh(|| {
        let slow = spawn(|| {
            sleep(ms(2));
            1
        });
        let quick = spawn(|| 2);
        let killed = spawn(thread::park);
        killed.kill();
        let values = threadpool::unblock(move || {
            futures::executor::block_on(async { (slow.await.unwrap(), quick.await.unwrap(), killed.await.is_err()) })
        });
        assert_eq!(values, (1, 2, true));
    });
}

#[test]
fn a_join_handle_of_an_ended_os_thread_resolves_to_lost() {
    let (mut parked, go, owner) = elsewhere();
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut parked).poll(&mut context).is_pending());
    let waits = std::thread::spawn(move || futures::executor::block_on(parked).unwrap_err().is_lost());
    go.send(()).unwrap();
    assert!(waits.join().unwrap());
    owner.join().unwrap();
}

#[test]
fn the_last_waker_counts() {
    fresh(|| {
        let mut handle = spawn(thread::park);
        let who = handle.thread();
        assert!(
            Pin::new(&mut handle)
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        let waiter = spawn(move || block_on(handle).is_ok());
        yield_now();
        yield_now();
        who.unpark();
        assert!(waiter.join().unwrap());
        assert_eq!(hub::live(), 0);
    });
}
