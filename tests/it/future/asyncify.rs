//! Blocking code as a future: on executors that know nothing of us, and on our hub; drops, panics, nesting, clean-up.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use futures::executor::{self, LocalPool};
use futures::task::LocalSpawnExt;
use greenthread::future::{
    AsyncifyOn, Task, asyncify, asyncify_on, await_, block_on, block_on_stream, spawn, try_await, with_async,
};
use greenthread::time::{self, Interval, sleep_async};
use greenthread::{generator::Generator, hub, sleep, spawn as spawn_green, spawn_local, sync::channel, thread};

use crate::support::counted::Counted;
use crate::support::fresh::{fresh, give_way, ms, poll, secs, text, virtually};

#[test]
fn blocking_code_awaits_on_a_foreign_executor() {
    fresh(|| {
        let mut pool = LocalPool::new();
        let (said, heard) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
        for n in 0..3 {
            let said = said.clone();
            let body = asyncify(move || {
                for round in 0..3 {
                    said.borrow_mut().push((round, n));
                    await_(give_way());
                }
            });
            let heard = heard.clone();
            let counted = async move {
                body.await;
                heard.set(heard.get() + 1);
            };
            pool.spawner().spawn_local(counted).unwrap();
        }
        pool.run();
        assert_eq!(heard.get(), 3);
        let mut in_turn = said.take();
        in_turn.sort();
        assert_eq!(
            in_turn,
            (0..3).flat_map(|r| (0..3).map(move |n| (r, n))).collect::<Vec<_>>()
        );
    });
}

#[test]
fn wakes_of_another_os_thread_reach_it() {
    fresh(|| {
        let (ask, question) = oneshot::channel();
        let asker = std::thread::spawn(move || ask.send(21).unwrap());
        assert_eq!(executor::block_on(asyncify(|| await_(question).unwrap() * 2)), 42);
        asker.join().unwrap();
    });
}

#[test]
fn on_our_hub_it_awaits_and_blocks() {
    virtually(|| {
        let start = time::now();
        let tasks: Vec<Task<_>> = (0..10)
            .map(|n| {
                spawn(asyncify(move || {
                    await_(sleep_async(secs(1)));
                    sleep(secs(1));
                    await_(async { n })
                }))
            })
            .collect();
        let sum: i32 = tasks.into_iter().map(|task| task.join().unwrap()).sum();
        assert_eq!((sum, time::now() - start), (45, secs(2)));
        let green = spawn_green(|| block_on(asyncify(|| await_(sleep_async(secs(1))))));
        green.join().unwrap();
    });
}

#[test]
fn await_outside_is_an_error_that_names_itself() {
    fresh(|| {
        let panic = catch_unwind(|| await_(async { 1 })).unwrap_err();
        assert!(
            text(&*panic).starts_with("await_ outside of asyncify"),
            "{}",
            text(&*panic)
        );
        assert!(try_await(async { 1 }).is_err());
        // Nor in a green thread that code under asyncify spawns and waits for, though that is being polled.
        let inner = asyncify(|| spawn_local(|| try_await(async { 1 }).is_err()).join().unwrap());
        assert!(block_on(inner));
    });
}

#[test]
fn it_nests_and_runs_through_generators() {
    fresh(|| {
        let outer = asyncify(|| {
            let inner = asyncify(|| {
                await_(give_way());
                1
            });
            let mut numbers = Generator::<i32>::new(|y| {
                for n in 2..4 {
                    await_(give_way());
                    y.yield_(n);
                }
            });
            let mut sum = await_(inner);
            sum += numbers.next().unwrap();
            await_(give_way());
            sum + numbers.next().unwrap() + block_on(asyncify(|| await_(async { 4 })))
        });
        assert_eq!(executor::block_on(outer), 10);
    });
}

#[test]
fn errors_and_panics_come_up_inside_and_out() {
    fresh(|| {
        let caught = asyncify(|| {
            let inside = catch_unwind(AssertUnwindSafe(|| await_(async { panic!("of the future") })));
            assert_eq!(text(&*inside.unwrap_err()), "of the future");
            await_(async { "an error".parse::<i32>() }).is_err()
        });
        assert!(executor::block_on(caught));
        let out = catch_unwind(|| executor::block_on(asyncify(|| panic!("of the body"))));
        assert_eq!(text(&*out.unwrap_err()), "of the body");
    });
}

#[test]
fn dropped_at_every_await_it_unwinds_its_stack() {
    for polls in 0..5 {
        fresh(move || {
            let dropped = Rc::new(Cell::new(0));
            let (outer, inner) = (Counted(dropped.clone()), Counted(dropped.clone()));
            let mut future = asyncify(move || {
                let _outer = outer;
                let held = async move {
                    let _inner = inner;
                    for _ in 0..3 {
                        give_way().await;
                    }
                };
                await_(held);
            });
            let mut ended = false;
            for _ in 0..polls {
                ended = ended || poll(&mut future).is_ready();
            }
            assert_eq!(ended, polls == 4);
            drop(future);
            assert_eq!(dropped.get(), 2, "{polls}");
        });
    }
}

#[test]
fn cancelled_task_unwinds_the_stack_of_its_asyncify() {
    fresh(|| {
        let dropped = Rc::new(Cell::new(0));
        let guard = Counted(dropped.clone());
        let task = spawn(asyncify(move || {
            let _guard = guard;
            await_(pending::<()>());
        }));
        hub::idle();
        task.cancel();
        assert!(task.join().unwrap_err().is_killed());
        assert_eq!(dropped.get(), 1);
    });
}

#[test]
fn destructor_that_awaits_while_it_is_dropped_blocks() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            await_(async {
                give_way().await;
                give_way().await;
            });
        }
    }
    fresh(|| {
        let mut future = asyncify(|| {
            let _slow = Slow;
            await_(pending::<()>());
        });
        assert!(poll(&mut future).is_pending());
        drop(future);
    });
}

fn is_send<T: Send>(_: &T) {}

#[test]
fn on_another_hub_it_is_send_and_dies_with_its_future() {
    struct Tells(std::sync::mpsc::Sender<&'static str>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send("unwound").unwrap();
        }
    }
    let (tell, told) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        tell.send(hub::handle()).unwrap();
        hub::run_forever();
    });
    let handle = told.recv().unwrap();
    let sum: AsyncifyOn<i32> = asyncify_on(&handle, || await_(async { 1 }) + 1).unwrap();
    is_send(&sum);
    assert_eq!(executor::block_on(sum).unwrap(), 2);
    let (tell, told) = std::sync::mpsc::channel();
    let (begins, ready) = std::sync::mpsc::channel();
    let endless = asyncify_on(&handle, move || {
        let _tells = Tells(tell);
        begins.send(()).unwrap();
        await_(pending::<()>());
    });
    ready.recv().unwrap();
    drop(endless.unwrap());
    assert_eq!(told.recv().unwrap(), "unwound");
    let panics = asyncify_on(&handle, || panic!("no")).unwrap();
    assert!(executor::block_on(panics).unwrap_err().is_panic());
    handle.stop().unwrap();
    server.join().unwrap();
    assert!(asyncify_on(&handle, || ()).is_err());
}

#[test]
fn clean_up_is_awaited_on_every_way_out() {
    virtually(|| {
        let done = Rc::new(Cell::new(0));
        let clean = |done: &Rc<Cell<u32>>| {
            let done = done.clone();
            async move || {
                sleep_async(secs(1)).await;
                done.set(done.get() + 1);
            }
        };
        assert_eq!(with_async(clean(&done), || 7), 7);
        let panic = catch_unwind(AssertUnwindSafe(|| with_async(clean(&done), || panic!("body"))));
        assert_eq!((text(&*panic.unwrap_err()).as_str(), done.get()), ("body", 2));
        // Killed, and killed again in the clean-up.
        let mine = clean(&done);
        let green = spawn_local(move || with_async(mine, thread::park));
        hub::idle();
        green.kill();
        hub::idle();
        green.kill();
        assert!(green.join().unwrap_err().is_killed());
        assert_eq!(done.get(), 3);
        // Timed out.
        let mine = clean(&done);
        assert!(time::timeout(secs(1), || with_async(mine, thread::park)).is_err());
        assert_eq!(done.get(), 4);
        // Dropped, in the body or in the clean-up.
        for body in [true, false] {
            let mine = clean(&done);
            let task = spawn(asyncify(move || {
                with_async(mine, || {
                    if body {
                        await_(pending::<()>());
                    }
                })
            }));
            hub::idle();
            task.cancel();
            assert!(task.join().unwrap_err().is_killed());
        }
        assert_eq!(done.get(), 6);
    });
}

#[test]
fn streams_are_iterated_in_blocking_code() {
    fresh(|| {
        let (sender, receiver) = mpsc::unbounded();
        let producer = spawn_green(move || {
            for n in 0..4 {
                sender.unbounded_send(n).unwrap();
                thread::yield_now();
            }
        });
        assert_eq!(block_on_stream(receiver).collect::<Vec<_>>(), [0, 1, 2, 3]);
        producer.join().unwrap();
    });
}

#[test]
fn channel_is_a_stream_that_loses_nothing_when_dropped() {
    for polls in 0..4 {
        fresh(move || {
            let (sender, receiver) = channel::unbounded();
            let mut stream = receiver.stream();
            let mut taken = Vec::new();
            let mut context = Context::from_waker(Waker::noop());
            for n in 0..polls {
                assert!(stream.poll_next_unpin(&mut context).is_pending());
                sender.send(n).unwrap();
                if n != 2 {
                    let Poll::Ready(Some(n)) = stream.poll_next_unpin(&mut context) else {
                        panic!("{n} was sent");
                    };
                    taken.push(n);
                }
                if n == 2 {
                    break;
                }
            }
            drop(stream);
            drop(sender);
            taken.extend(receiver.iter());
            assert_eq!(taken, (0..polls).collect::<Vec<_>>());
        });
    }
}

#[test]
fn channel_is_a_stream_of_its_own_too() {
    fresh(|| {
        let (sender, receiver) = channel::unbounded();
        let other = receiver.clone();
        let mut stream = receiver.into_stream();
        is_send(&stream);
        let mut context = Context::from_waker(Waker::noop());
        sender.send(1).unwrap();
        assert_eq!(stream.poll_next_unpin(&mut context), Poll::Ready(Some(1)));
        assert!(stream.poll_next_unpin(&mut context).is_pending());
        // Granted while it waited, and given up: it goes to the other one.
        sender.send(2).unwrap();
        drop(stream);
        assert_eq!(other.try_recv(), Ok(2));

        let mut stream = other.into_stream();
        let producer = spawn_green(move || {
            thread::yield_now();
            sender.send(3).unwrap();
        });
        block_on(async {
            assert_eq!(stream.next().await, Some(3));
            assert_eq!(stream.next().await, None);
            assert_eq!(stream.next().await, None);
        });
        producer.join().unwrap();
    });
}

#[test]
fn interval_is_a_stream_of_its_ticks() {
    virtually(|| {
        let start = time::now();
        let mut ticks = Interval::new(secs(1)).stream();
        is_send(&ticks);
        block_on(async {
            ticks.next().await.unwrap();
            ticks.next().await.unwrap();
        });
        assert_eq!(time::now() - start, secs(2));
        let mut interval = Interval::new(secs(1));
        block_on(async { interval.tick_async().await });
        assert_eq!(time::now() - start, secs(3));
    });
}

#[test]
fn ready_futures_reuse_a_waker_that_nobody_keeps() {
    fresh(|| {
        let count = |kept: &mut Vec<Waker>, keep: bool| {
            block_on(poll_fn(|context| {
                if keep {
                    kept.push(context.waker().clone());
                }
                Poll::Ready(context.waker().data() as usize)
            }))
        };
        let mut kept = Vec::new();
        let first = count(&mut kept, false);
        assert_eq!(count(&mut kept, true), first);
        // A stale waker of another wait must not wake this one.
        assert_ne!(count(&mut kept, false), first);
        let nested = block_on(async { block_on(async { Arc::new(5) }) });
        assert_eq!(*nested, 5);
    });
}

/// Blocking code that awaits under time-outs, wherever its polls come from.
#[test]
fn a_time_out_around_an_await_is_caught_where_it_was_set() {
    fn waits() -> [bool; 4] {
        let slow = || await_(sleep_async(secs(10)));
        let inner = time::timeout(ms(10), slow).is_err();
        let outer = time::timeout(ms(10), || time::timeout(secs(1), slow)).is_err();
        let late = time::timeout(secs(1), || await_(sleep_async(ms(1)))).is_ok();
        // One that expires while nobody can be interrupted counts afterwards.
        let shielded = time::timeout(ms(1), || {
            thread::shield(|| await_(sleep_async(ms(5))));
            await_(sleep_async(secs(10)));
        });
        [inner, outer, late, shielded.is_err()]
    }
    virtually(|| {
        assert_eq!(block_on(asyncify(waits)), [true; 4]);
        assert_eq!(spawn_local(|| block_on(asyncify(waits))).join().unwrap(), [true; 4]);
        assert_eq!(spawn(asyncify(waits)).join().unwrap(), [true; 4]);
        // From outside it ends the body as well, and a kill may be caught in it.
        let body = || time::timeout(ms(10), || block_on(asyncify(|| await_(sleep_async(secs(10)))))).is_err();
        assert!(spawn_green(body).join().unwrap());
        let killed = spawn_green(|| {
            block_on(asyncify(|| {
                thread::catch_kill(|| await_(sleep_async(secs(10)))).is_err()
            }))
        });
        hub::idle();
        killed.kill();
        assert!(killed.join().unwrap());
    });
    // On a foreign executor the hub must turn.
    fresh(|| {
        let mut pool = LocalPool::new();
        let done = Rc::new(Cell::new(None));
        let tells = done.clone();
        let body = asyncify(|| time::timeout(ms(10), || await_(pending::<()>())).is_err());
        pool.spawner()
            .spawn_local(async move { tells.set(Some(body.await)) })
            .unwrap();
        while done.get().is_none() {
            hub::turn();
            pool.run_until_stalled();
        }
        assert_eq!(done.get(), Some(true));
    });
}

#[test]
fn destructor_that_awaits_in_a_panic_keeps_it_to_itself() {
    struct Waits(Rc<Cell<bool>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            await_(sleep_async(ms(10)));
            self.0.set(true);
        }
    }
    virtually(|| {
        let ended = Rc::new(Cell::new(false));
        let waits = Waits(ended.clone());
        let body = asyncify(move || {
            let _waits = waits;
            std::panic::resume_unwind(Box::new("on purpose"))
        });
        let task: Task<()> = spawn(body);
        let other = spawn(async {
            give_way().await;
            spawn_local(|| sleep(ms(1))).join().is_ok()
        });
        assert!(other.join().unwrap(), "it took the panic for its own");
        assert!(!ended.get());
        assert!(task.join().unwrap_err().is_panic());
        assert!(ended.get() && !std::thread::panicking());
    });
}
