//! Hubs made to order and embedded ones: turns, seeds, observers, fairness, shutdown, dumps.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenthread::hub::{self, Event};
use greenthread::net::UnixStream;
use greenthread::{debug, sleep, spawn, spawn_local, thread, time, yield_now};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::fresh::{fresh, ms, secs, virtually};

#[test]
fn install_comes_first_or_fails() {
    fresh(|| {
        hub::Builder::new().install().unwrap();
        let error = hub::Builder::new().virtual_clock(true).install().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    });
}

#[test]
fn turns_without_sleeping_run_who_is_ready() {
    virtually(|| {
        assert!(hub::next_deadline().is_none());
        let done = spawn(|| 1);
        assert!(hub::next_deadline().is_some_and(|at| at <= time::now()));
        hub::turn();
        assert!(done.is_finished());
        hub::turn(); // nothing to do: returns
        assert_eq!(done.join().unwrap(), 1);
        let refused = spawn(hub::turn);
        assert!(refused.join().unwrap_err().is_panic());
    });
}

/// Runs the hub by a foreign loop until `done`.
fn foreign_loop(done: impl Fn() -> bool) {
    let fd = hub::as_fd().unwrap();
    while !done() {
        let limit = match hub::next_deadline() {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => secs(20),
        };
        let limit = Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let before = Instant::now();
        let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap();
        assert!(ready > 0 || before.elapsed() < secs(19), "nobody rang");
        hub::turn();
    }
}

#[test]
fn a_foreign_loop_serves_timers_sockets_and_other_os_threads() {
    fresh(|| {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let reader = spawn(move || {
            let mut byte = [0];
            ours.read_exact(&mut byte).unwrap();
            byte[0]
        });
        let writer = spawn(move || {
            sleep(ms(5));
            theirs.write_all(b"x").unwrap();
        });
        let parked = spawn(thread::park);
        let who = parked.thread();
        let handle = hub::handle();
        let ran = Arc::new(AtomicBool::new(false));
        let theirs_ran = ran.clone();
        let os_thread = std::thread::spawn(move || {
            std::thread::sleep(ms(10)); // most likely into the poll; correct either way
            who.unpark();
            let ran = move || {
                theirs_ran.store(true, Ordering::Relaxed);
                9
            };
            handle.spawn(ran).unwrap().join().unwrap()
        });
        // Not until the OS thread has ended: that rings nothing.
        foreign_loop(|| {
            ran.load(Ordering::Relaxed) && reader.is_finished() && parked.is_finished() && writer.is_finished()
        });
        assert_eq!(reader.join().unwrap(), b'x');
        assert_eq!(os_thread.join().unwrap(), 9);
        parked.join().unwrap();
        writer.join().unwrap();
        sleep(ms(1)); // and pumping still works
    });
}

#[test]
fn a_wake_by_code_of_the_foreign_loop_rings_it() {
    fresh(|| {
        let fd = hub::as_fd().unwrap();
        let is_rung = || poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&Timespec::default())).unwrap() > 0;
        let event = std::sync::Arc::new(greenthread::sync::Event::new());
        let (green, task) = (event.clone(), event.clone());
        let green = spawn(move || green.wait());
        let task = greenthread::future::spawn(async move { task.wait_async().await });
        while hub::next_deadline().is_some() {
            hub::turn();
        }
        assert!(!is_rung());
        event.set();
        assert!(is_rung(), "nobody asks for the next deadline now");
        hub::turn();
        assert!(green.is_finished() && task.is_finished());
    });
}

/// Spawns a green thread that parks, lets `wake` end that from outside of the hub, and says whether the hub was rung.
fn rings(wake: impl FnOnce(&greenthread::JoinHandle<()>) + Send + 'static) -> bool {
    fresh(move || {
        let fd = hub::as_fd().unwrap();
        let is_rung = || poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&Timespec::default())).unwrap() > 0;
        let parked = spawn(thread::park);
        while hub::next_deadline().is_some() {
            hub::turn();
        }
        assert!(!is_rung());
        wake(&parked);
        let rung = is_rung();
        hub::turn();
        assert!(parked.is_finished());
        rung
    })
}

#[test]
fn an_unpark_and_a_kill_by_code_of_the_foreign_loop_ring_it() {
    assert!(rings(|parked| parked.thread().unpark()));
    assert!(rings(|parked| parked.kill()));
}

#[test]
fn a_dump_has_a_backtrace_of_every_parked_green_thread_with_a_seed_too() {
    fresh(|| {
        hub::Builder::new().virtual_clock(true).seed(3).install().unwrap();
        let parked: Vec<_> = (0..20).map(|_| spawn(greenthread::thread::park)).collect();
        sleep(ms(1));
        let dump = greenthread::debug::dump();
        assert_eq!(dump.matches("waits for unpark").count(), 20, "{dump}");
        // Each backtrace begins with its frame 0.
        let first = dump.lines().filter(|line| line.trim_start().starts_with("0:"));
        assert_eq!(first.count(), 20, "{dump}");
        parked.iter().for_each(|parked| parked.thread().unpark());
        parked.into_iter().for_each(|parked| parked.join().unwrap());
    });
}

#[test]
fn a_hub_waits_for_another_hubs_descriptor() {
    fresh(|| {
        let fd = hub::as_fd().unwrap();
        let copy = fd.as_fd().try_clone_to_owned().unwrap();
        let handle = hub::handle();
        let watcher = std::thread::spawn(move || {
            let ringer = std::thread::spawn(move || handle.call_soon(|| ()).unwrap());
            let rung = greenthread::io::wait_readable(&copy, Some(secs(20)));
            ringer.join().unwrap();
            rung.is_ok()
        });
        assert!(
            watcher.join().unwrap(),
            "the descriptor is not readable after a message"
        );
        hub::turn();
    });
}

fn order_with(seed: Option<u64>) -> Vec<usize> {
    fresh(move || {
        let builder = hub::Builder::new().virtual_clock(true);
        let builder = match seed {
            Some(seed) => builder.seed(seed),
            None => builder,
        };
        builder.install().unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        let handles: Vec<_> = (0..20)
            .map(|n| {
                let order = order.clone();
                spawn_local(move || {
                    for _ in 0..3 {
                        order.borrow_mut().push(n);
                        yield_now();
                    }
                })
            })
            .collect();
        assert!(thread::join_all(handles).iter().all(Result::is_ok));
        order.take()
    })
}

#[test]
fn a_seed_gives_the_same_order_each_time_and_another_seed_another() {
    let plain: Vec<usize> = (0..3).flat_map(|_| 0..20).collect();
    assert_eq!(order_with(None), plain);
    let (first, again, other) = (order_with(Some(7)), order_with(Some(7)), order_with(Some(8)));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_ne!(first, plain);
    let mut sorted = first;
    sorted.sort();
    let mut all = plain;
    all.sort();
    assert_eq!(sorted, all, "nobody is lost");
}

#[test]
fn the_observer_hears_the_life_of_a_green_thread() {
    virtually(|| {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = heard.clone();
        hub::set_hook(Some(Box::new(move |event| ears.lock().unwrap().push(event))));
        let handle = spawn(|| sleep(secs(1)));
        let id = handle.thread().id().as_u64();
        let me = greenthread::thread::current().id().as_u64();
        handle.join().unwrap();
        hub::set_hook(None);
        let mut heard = std::mem::take(&mut *heard.lock().unwrap());
        let turns = heard.iter().filter(|event| **event == Event::Turn).count();
        assert!(turns >= 2, "{turns} turns");
        heard.retain(|event| *event != Event::Turn && ![Event::Park(me), Event::Wake(me)].contains(event));
        let life = [
            Event::Spawn(id),
            Event::Resume(id),
            Event::Park(id),
            Event::Wake(id),
            Event::Resume(id),
            Event::Exit(id),
        ];
        assert_eq!(heard, life);
        spawn(|| ()).join().unwrap(); // nobody listens any more
    });
}

#[test]
fn an_observer_that_panics_or_blocks_does_not_end_the_hub() {
    fresh(|| {
        let calls = Arc::new(AtomicU32::new(0));
        let count = calls.clone();
        hub::set_hook(Some(Box::new(move |event| {
            if let Event::Resume(_) = event {
                count.fetch_add(1, Ordering::Relaxed);
                sleep(ms(1)); // panics: this is a callback
            }
        })));
        let value = std::panic::catch_unwind(|| spawn(|| 5).join().unwrap());
        hub::set_hook(None);
        assert!(calls.load(Ordering::Relaxed) > 0);
        assert_eq!(
            value.ok(),
            Some(5),
            "the panic of the observer became the native stack's"
        );
        assert_eq!(spawn(|| 6).join().unwrap(), 6);
    });
}

#[test]
fn a_loop_of_yields_starves_neither_a_timer_nor_a_socket_nor_a_message() {
    fresh(|| {
        let stop = Rc::new(Cell::new(false));
        let busy: Vec<_> = (0..3)
            .map(|_| {
                let stop = stop.clone();
                spawn_local(move || {
                    while !stop.get() {
                        yield_now();
                    }
                })
            })
            .collect();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let reader = spawn(move || ours.read(&mut [0; 1]).unwrap());
        let parked = spawn(thread::park);
        let who = parked.thread();
        sleep(ms(2)); // the timer
        let os_thread = std::thread::spawn(move || who.unpark());
        parked.join().unwrap(); // the message
        os_thread.join().unwrap();
        theirs.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1); // the socket
        stop.set(true);
        assert!(thread::join_all(busy).iter().all(Result::is_ok));
    });
}

#[test]
fn more_ready_ones_than_a_turn_resumes_all_run() {
    fresh(|| {
        let handles: Vec<_> = (0..1000).map(|_| spawn(|| (0..5).for_each(|_| yield_now()))).collect();
        assert!(thread::join_all(handles).iter().all(Result::is_ok));
    });
}

#[test]
fn shutdown_kills_all_and_says_who_would_not_die() {
    virtually(|| {
        let parked = spawn(thread::park);
        let sleeper = spawn(|| sleep(Duration::MAX));
        let unstarted = spawn(|| ());
        hub::shutdown(secs(1)).unwrap();
        assert_eq!(hub::live(), 0);
        let ends = thread::join_all([parked, sleeper, unstarted]);
        assert!(
            ends.iter()
                .all(|end| end.as_ref().is_err_and(|error| error.is_killed()))
        );

        let tough = thread::Builder::new()
            .name("survivor")
            .spawn(|| thread::shield(thread::park))
            .unwrap();
        let start = time::now();
        yield_now();
        let survivors = hub::shutdown(secs(3)).unwrap_err();
        assert_eq!(time::now() - start, secs(3));
        let [line] = survivors.lines() else {
            panic!("{survivors}");
        };
        assert!(
            line.contains("survivor") && line.contains("unpark") && line.contains(file!()),
            "{line}"
        );
        assert!(survivors.to_string().contains("not all green threads have ended"));
        tough.thread().unpark();
        tough.join().unwrap();
        hub::shutdown(secs(0)).unwrap();
    });
}

#[test]
fn shutdown_reports_one_that_catches_every_kill() {
    fresh(|| {
        let rounds = Rc::new(Cell::new(0));
        let (theirs, stop) = (rounds.clone(), Rc::new(Cell::new(false)));
        let until = stop.clone();
        let stubborn = spawn_local(move || {
            while !until.get() {
                let _ = thread::catch_kill(|| sleep(ms(1)));
                theirs.set(theirs.get() + 1);
            }
        });
        yield_now();
        let survivors = hub::shutdown(ms(300)).unwrap_err();
        assert_eq!(survivors.lines().len(), 1);
        assert!(rounds.get() > 0);
        stop.set(true);
        stubborn.join().unwrap();
    });
}

#[test]
fn shutdown_in_a_green_thread_spares_the_caller() {
    fresh(|| {
        let parked = spawn(thread::park);
        let caller = spawn(|| {
            hub::shutdown(secs(5)).unwrap();
            5
        });
        assert_eq!(caller.join().unwrap(), 5);
        assert!(parked.join().unwrap_err().is_killed());
    });
}

#[inline(never)]
fn a_function_to_be_found_in_the_dump() {
    thread::park();
    // Not the last call: in release that would be a jump, and leave no frame.
    std::hint::black_box(());
}

#[test]
fn a_dump_tells_states_names_places_and_backtraces() {
    virtually(|| {
        let named = |name| thread::Builder::new().name(name);
        let parked = named("parker").spawn(a_function_to_be_found_in_the_dump).unwrap();
        let line = line!() - 1;
        let sleeper = named("sleeper").spawn(|| sleep(secs(100))).unwrap();
        let yielder = named("yielder")
            .spawn(|| {
                loop {
                    yield_now()
                }
            })
            .unwrap();
        yield_now();
        let unstarted = named("unstarted").spawn(|| ()).unwrap();
        let dump = debug::dump();
        let of = |name: &str| {
            let line = dump
                .lines()
                .find(|line| line.contains(name) && line.starts_with("green thread #"));
            line.unwrap_or_else(|| panic!("no {name} in {dump}")).to_owned()
        };
        assert!(
            dump.starts_with("4 green threads") || dump.starts_with("3 green threads"),
            "{dump}"
        );
        assert!(of(" 'parker' ").contains("waits for unpark"), "{dump}");
        assert!(of(" 'parker' ").contains(&format!("{}:{line}", file!())), "{dump}");
        assert!(of(" 'sleeper' ").contains("waits for time to pass"), "{dump}");
        assert!(of(" 'yielder' ").contains("is ready"), "{dump}");
        assert!(dump.contains("a_function_to_be_found_in_the_dump"), "{dump}");
        // Looking disturbs nobody.
        assert!(!parked.is_finished() && !sleeper.is_finished());
        parked.thread().unpark();
        parked.join().unwrap();
        drop(thread::kill_all([sleeper, yielder, unstarted]));
    });
}

#[test]
fn a_dump_loses_no_wake_that_comes_meanwhile() {
    fresh(|| {
        for _ in 0..20 {
            let sleepers: Vec<_> = (0..5).map(|_| spawn(thread::park)).collect();
            yield_now();
            let threads: Vec<_> = sleepers.iter().map(greenthread::JoinHandle::thread).collect();
            // It is in the ready queue before the probed ones, and wakes them before they have looked.
            let waker = spawn(move || threads.iter().for_each(thread::Thread::unpark));
            let dump = debug::dump();
            assert!(dump.contains("green threads on this hub"), "{dump}");
            assert!(thread::join_all(sleepers).iter().all(Result::is_ok));
            waker.join().unwrap();
            assert_eq!(hub::live(), 0);
        }
    });
}

/// Runs in a child, which has its own environment.
pub(crate) fn one_byte_through_a_socket() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let reader = spawn(move || {
        let mut byte = [0];
        far.read_exact(&mut byte).map(|()| byte[0])
    });
    yield_now(); // it waits
    let written = near.write_all(&[7]);
    assert_eq!(reader.join().unwrap().unwrap(), 7);
    written.unwrap();
}

#[test]
fn the_portable_reactor_does_the_same_and_a_wrong_name_is_told() {
    for name in ["polling", "epoll", ""] {
        let out = crate::support::child::run_with_variable("a socket", "GREEN_LOOP", name);
        assert!(out.ok, "{name}: {out:?}");
    }
    let out = crate::support::child::run_with_variable("a socket", "GREEN_LOOP", "uring");
    assert!(
        !out.ok
            && out
                .stderr
                .contains("GREEN_LOOP=uring is unknown: set it to `epoll` or `polling`"),
        "{out:?}"
    );
}

#[test]
fn a_shutdown_in_a_destructor_ends_the_others_and_returns_at_once() {
    struct Guard(Rc<RefCell<Option<Result<(), hub::Survivors>>>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            // Longer than the test may take: it is not waited for.
            *self.0.borrow_mut() = Some(hub::shutdown(Duration::from_secs(3600)));
        }
    }
    let unwound = |local: bool| {
        fresh(move || {
            let told = Rc::new(RefCell::new(None));
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                (0..10).for_each(|_| drop(spawn(thread::park)));
                if local {
                    drop(spawn_local(thread::park));
                }
                yield_now();
                let _guard = Guard(told.clone());
                std::panic::resume_unwind(Box::new("main unwinds"));
            }));
            assert!(unwound.is_err());
            let survivors = told.take().unwrap().err();
            let left = survivors.map_or(0, |survivors| survivors.lines().len());
            assert_eq!(left, hub::live());
            hub::shutdown(Duration::from_secs(3600)).unwrap();
            left
        })
    };
    // One that shares the thread-locals of what unwinds cannot be killed meanwhile.
    let sharing = if thread::isolation().is_ok() { 0 } else { 10 };
    assert_eq!(unwound(false), sharing);
    assert_eq!(unwound(true), sharing + 1);
}
