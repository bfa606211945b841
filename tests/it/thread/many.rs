//! Many at once: `join_all`, `kill_all`, `wait`, `iwait`; and `on_exit`.

use std::sync::{Arc, Mutex};

use greenthread::{hub, sleep, spawn, spawn_local, thread, threadpool, time, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

#[test]
fn join_all_gives_results_in_the_order_of_the_handles() {
    virtually(|| {
        let start = time::now();
        let handles = (0..5_u64).map(|n| {
            spawn(move || {
                sleep(secs(5 - n));
                assert_ne!(n, 3, "the third fails");
                n
            })
        });
        let results = thread::join_all(handles);
        let values: Vec<_> = results.iter().map(|result| result.as_ref().ok().copied()).collect();
        assert_eq!(values, [Some(0), Some(1), Some(2), None, Some(4)]);
        assert_eq!(time::now() - start, secs(5));
    });
}

#[test]
fn kill_all_kills_started_and_unstarted_ones() {
    fresh(|| {
        let started = spawn(thread::park);
        yield_now();
        let finished = spawn(|| ());
        yield_now();
        let results = thread::kill_all([started, spawn(thread::park), finished]);
        let killed: Vec<_> = results
            .iter()
            .map(|r| r.as_ref().is_err_and(|e| e.is_killed()))
            .collect();
        assert_eq!(killed, [true, true, false]);
        assert_eq!(hub::live(), 0);
    });
}

#[test]
fn wait_stops_at_the_count() {
    virtually(|| {
        let start = time::now();
        let handles = [5, 1, 3].map(|n| {
            spawn(move || {
                sleep(secs(n));
                n
            })
        });
        let (done, rest) = thread::wait(handles.into(), None, 2);
        assert_eq!(time::now() - start, secs(3));
        assert_eq!(done.into_iter().map(|h| h.join().unwrap()).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(rest.len(), 1);
        assert!(!rest[0].is_finished());
        let (done, rest) = thread::wait(rest, None, 9); // more than there are: all
        assert_eq!((done.len(), rest.len()), (1, 0));
    });
}

#[test]
fn wait_stops_at_the_time_out_with_what_there_is() {
    virtually(|| {
        let start = time::now();
        let handles = [50, 1, 30].map(|n| spawn(move || sleep(secs(n))));
        let (done, rest) = thread::wait(handles.into(), Some(secs(10)), 3);
        assert_eq!((done.len(), rest.len()), (1, 2));
        assert_eq!(time::now() - start, secs(10));
        let (done, rest) = thread::wait(rest, Some(secs(0)), 1);
        assert_eq!((done.len(), rest.len()), (0, 2));
        assert!(thread::kill_all(rest).iter().all(Result::is_err));
    });
}

#[test]
fn wait_for_none_returns_at_once_and_gives_who_has_ended() {
    fresh(|| {
        let parked = spawn(thread::park);
        let (done, rest) = thread::wait(vec![parked], None, 0);
        assert_eq!((done.len(), rest.len()), (0, 1));
        thread::kill_all(rest);
    });
}

#[test]
fn iwait_gives_them_in_the_order_of_their_ends() {
    virtually(|| {
        let handles = [4, 2, 3, 1].map(|n| {
            spawn(move || {
                sleep(secs(n));
                n
            })
        });
        let order: Vec<_> = thread::iwait(handles).map(|h| h.join().unwrap()).collect();
        assert_eq!(order, [1, 2, 3, 4]);
        assert_eq!(thread::iwait(Vec::<greenthread::JoinHandle<()>>::new()).count(), 0);
    });
}

#[test]
fn waits_that_are_left_early_leave_their_handles_whole() {
    virtually(|| {
        let handles = vec![
            spawn(|| {
                sleep(secs(1));
                1
            }),
            spawn(|| {
                sleep(secs(100));
                2
            }),
        ];
        let mut waiting = thread::iwait(handles);
        let late = time::timeout(ms(10), || waiting.next().is_some());
        assert!(late.is_err());
        assert_eq!(waiting.next().unwrap().join().unwrap(), 1);
        assert_eq!(waiting.next().unwrap().join().unwrap(), 2);
        assert!(waiting.next().is_none());
    });
}

#[test]
fn wait_takes_handles_of_several_hubs() {
    fresh(|| {
        let (send, receive) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            send.send((
                hub::handle(),
                spawn(|| {
                    sleep(ms(1));
                    1
                }),
            ))
            .unwrap();
            hub::run_forever();
        });
        let (theirs, far) = receive.recv().unwrap();
        let near = spawn(|| 2);
        let (done, rest) = thread::wait(vec![far, near], Some(secs(20)), 2);
        assert!(rest.is_empty());
        let mut values: Vec<_> = done.into_iter().map(|h| h.join().unwrap()).collect();
        values.sort();
        assert_eq!(values, [1, 2]);
        theirs.stop().unwrap();
        threadpool::unblock(move || other.join().unwrap());
    });
}

type Log = Arc<Mutex<Vec<String>>>;

fn watch<T>(handle: &greenthread::JoinHandle<T>, log: &Log, who: &'static str) {
    let log = log.clone();
    handle.on_exit(move |how| {
        sleep(ms(0)); // it is a green thread: it may block
        let how = match how {
            Ok(()) => "returned",
            Err(error) if error.is_panic() => "panicked",
            Err(error) if error.is_killed() => "killed",
            Err(_) => "else",
        };
        log.lock().unwrap().push(format!("{who} {how}"));
    });
}

#[test]
fn on_exit_is_told_of_every_outcome() {
    fresh(|| {
        let log = Log::default();
        let (good, bad, dead) = (spawn(|| 1), spawn(|| panic!("x")), spawn(thread::park));
        watch(&good, &log, "good");
        watch(&bad, &log, "bad");
        watch(&dead, &log, "dead");
        let unstarted = spawn(|| ());
        watch(&unstarted, &log, "unstarted");
        unstarted.kill();
        yield_now();
        dead.kill();
        hub::idle();
        let mut heard = log.lock().unwrap().clone();
        heard.sort();
        assert_eq!(
            heard,
            ["bad panicked", "dead killed", "good returned", "unstarted killed"]
        );
        assert_eq!(good.join().unwrap(), 1);
        assert!(bad.join().unwrap_err().is_panic());
        drop((dead.join(), unstarted.join()));
    });
}

#[test]
fn on_exit_runs_in_the_order_of_registration() {
    fresh(|| {
        let log = Log::default();
        let handle = spawn(thread::park);
        ["a", "b", "c", "d"]
            .into_iter()
            .for_each(|who| watch(&handle, &log, who));
        yield_now();
        handle.thread().unpark();
        handle.join().unwrap();
        hub::idle();
        assert_eq!(
            *log.lock().unwrap(),
            ["a returned", "b returned", "c returned", "d returned"]
        );
    });
}

#[test]
fn on_exit_after_the_end_runs_soon_and_tells_how_it_ended() {
    fresh(|| {
        let log = Log::default();
        let (good, bad, dead) = (spawn(|| ()), spawn(|| panic!("x")), spawn(thread::park));
        dead.kill();
        hub::idle();
        watch(&good, &log, "good");
        watch(&bad, &log, "bad");
        watch(&dead, &log, "dead");
        assert!(log.lock().unwrap().is_empty(), "not in the caller");
        hub::idle();
        assert_eq!(*log.lock().unwrap(), ["good returned", "bad panicked", "dead killed"]);
        assert!(bad.join().is_err());
        drop((good.join(), dead.join()));
    });
}

#[test]
fn on_exit_of_a_detached_one_still_runs() {
    fresh(|| {
        let log = Log::default();
        let handle = spawn(|| sleep(ms(1)));
        watch(&handle, &log, "it");
        drop(handle);
        while hub::live() > 0 {
            sleep(ms(1));
        }
        assert_eq!(*log.lock().unwrap(), ["it returned"]);
    });
}

#[test]
fn on_exit_from_another_os_thread_runs_on_the_hub_of_the_green_thread() {
    fresh(|| {
        let here = std::thread::current().id();
        let handle = spawn(thread::park);
        let who = handle.thread();
        let (send, receive) = std::sync::mpsc::channel();
        let handle = threadpool::unblock(move || {
            handle.on_exit(move |_| send.send(std::thread::current().id()).unwrap());
            handle
        });
        who.unpark();
        handle.join().unwrap();
        hub::idle();
        assert_eq!(receive.try_recv(), Ok(here));
    });
}

#[test]
fn an_on_exit_that_panics_does_not_stop_the_next() {
    fresh(|| {
        let log = Log::default();
        let handle = spawn_local(|| ());
        handle.on_exit(|_| panic!("a link"));
        watch(&handle, &log, "next");
        handle.join().unwrap();
        hub::idle();
        assert_eq!(*log.lock().unwrap(), ["next returned"]);
    });
}

#[test]
fn on_exit_of_a_detached_one_is_told_how_it_ended() {
    fresh(|| {
        let log = Log::default();
        let (bad, dead) = (spawn(|| panic!("x")), spawn(thread::park));
        watch(&bad, &log, "bad");
        watch(&dead, &log, "dead");
        dead.kill();
        drop((bad, dead));
        hub::idle();
        assert_eq!(*log.lock().unwrap(), ["bad panicked", "dead killed"]);
    });
}

#[test]
fn on_exit_left_by_another_os_thread_during_the_last_steps_is_told_how_it_ended() {
    fresh(|| {
        let log = Log::default();
        let (begun, begin) = std::sync::mpsc::channel();
        let (left, leave) = std::sync::mpsc::channel();
        let bad = spawn(move || {
            begun.send(()).unwrap();
            leave.recv().unwrap(); // blocks the hub: it takes no message before the end
            panic!("x");
        });
        let theirs = log.clone();
        let other = std::thread::spawn(move || {
            begin.recv().unwrap();
            watch(&bad, &theirs, "bad");
            left.send(()).unwrap();
        });
        hub::idle();
        other.join().unwrap();
        hub::idle();
        assert_eq!(*log.lock().unwrap(), ["bad panicked"]);
    });
}

#[test]
fn on_exit_of_one_whose_hub_ends_says_lost() {
    fresh(|| {
        let log = Log::default();
        let theirs = log.clone();
        let lost = std::thread::spawn(move || {
            let handle = spawn(thread::park);
            handle.on_exit(move |how| {
                let lost = how.unwrap_err().is_lost();
                theirs.lock().unwrap().push(format!("lost {lost}"));
            });
            yield_now();
            handle
        });
        assert!(lost.join().unwrap().join().unwrap_err().is_lost());
        assert_eq!(*log.lock().unwrap(), ["lost true"]);
    });
}

#[test]
fn on_exit_left_by_an_observer_of_the_end_runs_for_that_end() {
    fresh(|| {
        let log = Log::default();
        let theirs = log.clone();
        let handle = Arc::new(Mutex::new(Some(spawn(|| ()))));
        if let Some(handle) = &*handle.lock().unwrap() {
            handle.on_exit(|_| ());
        }
        let held = handle.clone();
        hub::set_hook(Some(Box::new(move |event| {
            if !matches!(event, hub::Event::Spawn(_)) {
                return;
            }
            let handle = held.lock().unwrap().take();
            if let Some(handle) = handle {
                watch(&handle, &theirs, "first");
            }
        })));
        hub::idle();
        hub::set_hook(None);
        assert!(
            handle.lock().unwrap().is_none(),
            "the observer saw the first link's green thread"
        );
        assert_eq!(*log.lock().unwrap(), ["first returned"]);
        // The next lives of the block have no link.
        thread::join_all((0..4).map(|_| spawn(|| ())));
        hub::idle();
        assert_eq!(log.lock().unwrap().len(), 1);
    });
}

#[test]
fn a_count_of_none_is_all_of_zero_does_not_wait_and_too_many_is_all() {
    virtually(|| {
        let sleepers = || (1..=3).map(|n| spawn(move || sleep(secs(n)))).collect::<Vec<_>>();
        let start = time::now();
        let (done, rest) = thread::wait(sleepers(), None, 0);
        assert_eq!((done.len(), rest.len(), time::now() - start), (0, 3, secs(0)));
        let (done, rest) = thread::wait(rest, None, 4);
        assert_eq!((done.len(), rest.len(), time::now() - start), (3, 0, secs(3)));
        let (done, rest) = thread::wait(sleepers(), None, None);
        assert_eq!((done.len(), rest.len(), time::now() - start), (3, 0, secs(6)));
        let (done, rest) = thread::wait(sleepers(), Some(secs(2)), None);
        assert_eq!(done.len() + rest.len(), 3);
        assert_eq!(time::now() - start, secs(8));
        let (done, _) = thread::wait(rest, None, Some(1));
        assert!(!done.is_empty());
        assert!(
            thread::wait(Vec::<greenthread::JoinHandle<()>>::new(), None, 1)
                .0
                .is_empty()
        );
    });
}
