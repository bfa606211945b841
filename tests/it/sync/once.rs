//! What runs once: by whom, who waits for it, and who is next when it fails, is killed, timed out or dropped.

use std::cell::Cell;
use std::future::{Future, pending, ready};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use futures::executor::block_on as outside;
use greenthread::future::block_on;
use greenthread::sync::{Event, LazyLock, Once, OnceCell, OnceLock};
use greenthread::{hub, sleep, spawn, spawn_local, timeout, yield_now};

use super::turns::{at_every_turn, join_all};
use crate::support::fresh::{fresh, green, ms, quiesce, raised, text, virtually};

#[test]
fn one_initialises_while_the_others_wait_and_more_run() {
    virtually(|| {
        let cell = Rc::new((OnceLock::new(), Once::new(), Cell::new(0)));
        let callers = (0..5).map(|n| {
            green(&cell, move |(cell, once, runs)| {
                once.call_once(|| {
                    sleep(ms(3));
                    runs.set(runs.get() + 1);
                });
                assert!(once.is_completed());
                *cell.get_or_init(|| {
                    sleep(ms(5));
                    n
                })
            })
        });
        let callers: Vec<_> = callers.collect();
        let looks = green(&cell, |(cell, once, _)| {
            once.wait();
            *cell.wait()
        });
        sleep(ms(1));
        assert!(!cell.1.is_completed() && cell.0.get().is_none() && cell.2.get() == 0);
        let values = join_all(callers);
        assert_eq!((values[0], cell.2.get()), (looks.join().unwrap(), 1));
        assert!(values.iter().all(|n| *n == values[0]));
    });
}

#[test]
fn it_is_done_once_whoever_was_killed() {
    virtually(|| {
        at_every_turn(
            || (OnceLock::new(), Once::new(), Cell::new((0, 0))),
            |n, (cell, once, runs)| {
                if n == 4 {
                    cell.wait();
                    once.wait();
                    return;
                }
                let value = *cell.get_or_init(|| {
                    (0..4).for_each(|_| sleep(ms(1)));
                    runs.set((runs.get().0 + 1, runs.get().1));
                    n
                });
                once.call_once(|| {
                    (0..4).for_each(|_| sleep(ms(1)));
                    runs.set((runs.get().0, runs.get().1 + 1));
                });
                assert_eq!(cell.get(), Some(&value));
            },
            |(cell, once, runs)| {
                assert!(cell.get().is_some() && once.is_completed());
                assert_eq!(runs.get(), (1, 1));
            },
        );
        at_every_turn(
            || (OnceLock::new(), Cell::new(0)),
            |n, (cell, runs)| {
                let made = block_on(cell.get_or_init_async(|| async {
                    for _ in 0..4 {
                        sleep(ms(1));
                    }
                    runs.set(runs.get() + 1);
                    n
                }));
                assert_eq!(block_on(cell.wait_async()), made);
            },
            |(cell, runs)| assert_eq!((cell.get().is_some(), runs.get()), (true, 1)),
        );
    });
}

#[test]
fn the_turn_goes_to_the_next_who_lives() {
    virtually(|| {
        let cell = Rc::new(OnceLock::new());
        let mut waiters: Vec<_> = (0..4)
            .map(|n| {
                green(&cell, move |cell| {
                    *cell.get_or_init(|| {
                        sleep(ms(10));
                        n
                    })
                })
            })
            .collect();
        quiesce();
        waiters[1].kill(); // in line
        waiters[0].kill(); // at it: its turn goes to the second, which is dead by then, and from there to the third
        assert_eq!(waiters.pop().unwrap().join().unwrap(), 2);
        assert_eq!(waiters.pop().unwrap().join().unwrap(), 2);
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap_err().is_killed()));
    });
}

#[test]
fn who_fails_leaves_it_to_the_next() {
    virtually(|| {
        let cell = Rc::new(OnceLock::new());
        let fails = green(&cell, |cell| {
            cell.get_or_try_init(|| {
                yield_now();
                Err::<u32, _>("no")
            })
            .copied()
        });
        let panics = green(&cell, |cell| {
            *cell.get_or_init(|| {
                yield_now();
                std::panic::resume_unwind(Box::new("on purpose"))
            })
        });
        let late = green(&cell, |cell| {
            timeout(ms(1), || {
                *cell.get_or_init(|| {
                    sleep(ms(5));
                    1
                })
            })
        });
        let makes = green(&cell, |cell| *cell.get_or_init(|| 2));
        assert_eq!(fails.join().unwrap(), Err("no"));
        assert!(panics.join().unwrap_err().is_panic());
        assert!(late.join().unwrap().is_err());
        assert_eq!((makes.join().unwrap(), cell.get()), (2, Some(&2)));
    });
}

#[test]
fn a_panic_poisons_a_once_and_a_kill_does_not() {
    virtually(|| {
        let once = Rc::new(Once::new());
        let killed = green(&once, |once| once.call_once(|| sleep(ms(1000))));
        quiesce();
        killed.kill();
        assert!(killed.join().unwrap_err().is_killed());
        assert!(timeout(ms(1), || once.call_once(|| sleep(ms(1000)))).is_err());
        let panicked = green(&once, |once| {
            once.call_once(|| {
                sleep(ms(1));
                std::panic::resume_unwind(Box::new("on purpose"));
            });
        });
        let others = [
            green(&once, |once| once.call_once(|| unreachable!())),
            green(&once, |once| once.call_once(|| unreachable!())),
            green(&once, |once| once.wait()),
        ];
        let payload = panicked.join().unwrap_err().into_panic();
        assert_eq!(text(&*payload), "on purpose");
        for other in others {
            let payload = other.join().unwrap_err().into_panic();
            assert!(text(&*payload).contains("poisoned by a panic"));
        }
        assert!(format!("{once:?}").contains("is_poisoned: true"));
        assert!(raised(|| once.wait()).contains("poisoned"));
        assert!(!once.is_completed());
        once.call_once_force(|state| assert!(state.is_poisoned()));
        once.call_once(|| unreachable!());
        once.wait();
        assert!(once.is_completed() && once.wait_timeout(ms(0)));
        let clean = Once::default();
        assert!(!clean.wait_timeout(ms(1)) && !clean.wait_deadline(greenthread::time::now() + ms(1)));
        clean.call_once_force(|state| assert!(!state.is_poisoned()));
    });
}

#[test]
fn who_would_wait_for_itself_is_told() {
    virtually(|| {
        let cell = OnceLock::new();
        let told = raised(|| *cell.get_or_init(|| *cell.get_or_init(|| 1)));
        assert!(told.contains("a OnceLock is initialised by this very thread"), "{told}");
        assert!(raised(|| *cell.get_or_init(|| cell.set(1).map_or(1, |()| 2))).contains("very thread"));
        assert_eq!(cell.get_or_init(|| 3), &3, "and left as it was");
        let once = Once::new();
        assert!(raised(|| once.call_once(|| once.call_once(|| {}))).contains("a Once is"));
        thread_local! {
            static LAZY: LazyLock<u32> = LazyLock::new(|| LAZY.with(|lazy| **lazy));
        }
        assert!(
            LAZY.with(|lazy| raised(|| *LazyLock::force(lazy)))
                .contains("a LazyLock is")
        );
        // A callback is somebody else, which cannot wait; nor need it if nobody is at it.
        let cell = Rc::new(OnceLock::new());
        let told = Rc::new(Cell::new(String::new()));
        let (theirs, log) = (cell.clone(), told.clone());
        let made = *cell.get_or_init(|| {
            hub::call_soon(move || log.set(raised(|| *theirs.get_or_init(|| 1))));
            sleep(ms(1));
            2
        });
        assert!(told.take().contains("cannot block"));
        let free = Rc::new(OnceLock::new());
        let theirs = free.clone();
        hub::call_soon(move || theirs.set(3).unwrap());
        assert_eq!((made, free.wait()), (2, &3));
    });
}

#[test]
fn a_cell_is_std_s_otherwise() {
    virtually(|| {
        let mut cell = OnceCell::new();
        assert_eq!((cell.get(), cell.wait_timeout(ms(2))), (None, None));
        assert_eq!(cell.get_mut(), None);
        assert_eq!(cell.wait_deadline(greenthread::time::now() + ms(1)), None);
        assert_eq!(format!("{cell:?}"), "OnceLock(<uninit>)");
        assert_eq!((cell.set(1), cell.set(2), cell.get()), (Ok(()), Err(2), Some(&1)));
        *cell.get_mut().unwrap() += 1;
        assert_eq!(
            (cell.clone(), format!("{cell:?}")),
            (OnceLock::from(2), String::from("OnceLock(2)"))
        );
        assert_eq!((cell.wait(), cell.wait_timeout(ms(0))), (&2, Some(&2)));
        assert_eq!((cell.take(), cell.take(), cell.get_or_init(|| 5)), (Some(2), None, &5));
        assert_eq!(
            (cell.into_inner(), OnceLock::<u8>::default().into_inner()),
            (Some(5), None)
        );
        // Set while another makes it: it waits, and comes too late.
        let cell = Rc::new(OnceLock::new());
        let makes = green(&cell, |cell| {
            *cell.get_or_init(|| {
                sleep(ms(5));
                1
            })
        });
        quiesce();
        assert_eq!((cell.set(2), makes.join().unwrap()), (Err(2), 1));
    });
}

#[test]
fn a_future_dropped_at_any_await_leaves_it_to_the_next() {
    fresh(|| {
        let mut context = Context::from_waker(Waker::noop());
        let cell = OnceLock::new();
        let mut first = Box::pin(cell.get_or_init_async(pending));
        let mut second = Box::pin(cell.get_or_init_async(pending));
        let mut third = Box::pin(cell.get_or_try_init_async(|| ready(Err("no"))));
        let mut fourth = Box::pin(cell.get_or_init_async(|| ready(4)));
        let mut looks = Box::pin(cell.wait_async());
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(third.as_mut().poll(&mut context).is_pending());
        assert!(fourth.as_mut().poll(&mut context).is_pending());
        assert!(looks.as_mut().poll(&mut context).is_pending());
        drop(first); // at it
        drop(second); // given the turn
        assert_eq!(third.as_mut().poll(&mut context), Poll::Ready(Err("no")));
        assert!(looks.as_mut().poll(&mut context).is_pending());
        assert_eq!(fourth.as_mut().poll(&mut context), Poll::Ready(&4));
        assert_eq!(looks.as_mut().poll(&mut context), Poll::Ready(&4));
        assert_eq!(outside(cell.get_or_init_async(pending)), &4);
        let once = Once::new();
        let mut looks = Box::pin(once.wait_async());
        assert!(looks.as_mut().poll(&mut context).is_pending());
        once.call_once(|| ());
        assert!(looks.as_mut().poll(&mut context).is_ready());
        outside(once.wait_async());
    });
}

#[test]
fn a_lazy_value_is_made_to_the_end() {
    virtually(|| {
        fn slow() -> u32 {
            sleep(ms(5));
            7
        }
        for timed in [false, true] {
            let lazy = Rc::new(LazyLock::<u32>::new(slow));
            let victim = green(&lazy, move |lazy| {
                if timed {
                    timeout(ms(1), || (**lazy, yield_now())).is_err()
                } else {
                    let value = **lazy;
                    yield_now();
                    value == 0
                }
            });
            let waits = green(&lazy, |lazy| timeout(ms(1), || **lazy).is_err());
            let reads = green(&lazy, |lazy| **lazy);
            quiesce();
            assert_eq!(LazyLock::get(&lazy), None);
            if timed {
                assert!(victim.join().unwrap(), "late, but not forgotten");
            } else {
                victim.kill();
                assert!(victim.join().unwrap_err().is_killed());
            }
            assert!(waits.join().unwrap(), "who waits is not held");
            assert_eq!((reads.join().unwrap(), LazyLock::get(&lazy)), (7, Some(&7)));
            assert_eq!(format!("{lazy:?}"), "LazyLock(7)");
        }
        let lazy = Rc::new(LazyLock::new(|| -> u32 {
            yield_now();
            std::panic::resume_unwind(Box::new("on purpose"))
        }));
        assert_eq!(format!("{lazy:?}"), "LazyLock(<uninit>)");
        let first = spawn_local({
            let lazy = lazy.clone();
            move || **lazy
        });
        quiesce();
        assert_eq!(text(&*first.join().unwrap_err().into_panic()), "on purpose");
        assert!(raised(|| **lazy).contains("a LazyLock was poisoned"));
        assert_eq!(**LazyLock::<String>::default(), *"");
    });
}

#[test]
fn os_threads_hubs_and_executors_agree_on_one() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    static LAZY: LazyLock<usize> = LazyLock::new(|| {
        sleep(ms(5));
        MADE.fetch_add(1, Ordering::SeqCst)
    });
    for _ in 0..20 {
        let cell = Arc::new((OnceLock::new(), Once::new(), AtomicUsize::new(0), Event::new()));
        let make = |shared: &(OnceLock<usize>, Once, AtomicUsize, Event)| {
            let (cell, once, runs, start) = shared;
            start.wait();
            once.call_once(|| {
                runs.fetch_add(1, Ordering::SeqCst);
            });
            let made = *cell.get_or_init(|| {
                yield_now();
                runs.fetch_add(1, Ordering::SeqCst)
            });
            (made, *LAZY)
        };
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let cell = cell.clone();
                std::thread::spawn(move || match n {
                    0 => vec![make(&cell)],
                    1 => outside(async {
                        cell.3.wait_async().await;
                        let made = cell
                            .0
                            .get_or_init_async(|| async { cell.2.fetch_add(1, Ordering::SeqCst) });
                        vec![(*made.await, *LAZY)]
                    }),
                    _ => {
                        let green = (0..3).map(|_| {
                            let cell = cell.clone();
                            spawn(move || make(&cell))
                        });
                        join_all(green.collect())
                    }
                })
            })
            .collect();
        cell.3.set();
        let made: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
        assert_eq!(cell.2.load(Ordering::SeqCst), 2);
    }
    assert_eq!(MADE.load(Ordering::SeqCst), 1);
}

#[test]
fn what_runs_once_may_go_where_it_should() {
    fn is<T: Send + Sync>() {}
    is::<(Once, OnceLock<u8>, LazyLock<u8, Box<dyn FnOnce() -> u8 + Send>>)>();
    fn sends<T: Send>(_: T) {}
    static CELL: OnceLock<u8> = OnceLock::new();
    static ONCE: Once = Once::new();
    sends((
        CELL.get_or_init_async(|| ready(1)),
        CELL.wait_async(),
        ONCE.wait_async(),
    ));
}
