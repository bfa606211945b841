//! Groups: which green threads are members and for how long, joining, killing once, and what is left when a waiter is
//! killed on the way.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use greenthread::sync::Event;
use greenthread::thread::{self, Group};
use greenthread::{hub, sleep, spawn, spawn_local, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, text, virtually};

#[test]
fn members_stay_until_they_end() {
    virtually(|| {
        let group = Group::new();
        let handles: Vec<_> = (1..=3).map(|n| group.spawn(move || sleep(secs(n)))).collect();
        let outsider = spawn(|| ());
        assert_eq!((group.len(), group.is_empty()), (3, false));
        let ids: Vec<_> = handles.iter().map(|handle| handle.thread().id()).collect();
        assert_eq!(group.members().iter().map(|t| t.id()).collect::<Vec<_>>(), ids);
        assert_eq!((&group).into_iter().map(|t| t.id()).collect::<Vec<_>>(), ids);
        assert!(group.contains(&handles[2].thread()) && !group.contains(&outsider.thread()));
        sleep(ms(1500));
        assert_eq!(format!("{group:?}"), "Group { members: 2 }");
        assert!(!group.contains(&handles[0].thread()));
        group.join();
        assert!(handles.iter().all(|handle| handle.is_finished()) && group.is_empty());
        group.join(); // of nobody: at once
        outsider.join().unwrap();
    });
}

#[test]
fn a_join_waits_for_those_that_members_add() {
    virtually(|| {
        let (group, start) = (Group::new(), time::now());
        let inner = group.clone();
        group.spawn(move || {
            sleep(secs(1));
            inner.spawn(|| sleep(secs(2)));
        });
        group.join();
        assert_eq!(time::now() - start, secs(3));
    });
}

#[test]
fn a_join_with_a_limit_says_whether_all_have_left() {
    virtually(|| {
        let (group, start) = (Group::new(), time::now());
        assert!(group.join_timeout(ms(0)) && group.join_deadline(start));
        group.spawn(|| sleep(secs(10)));
        assert!(!group.join_timeout(secs(4)));
        assert!(!group.join_deadline(start + secs(6)));
        assert_eq!(time::now() - start, secs(6));
        assert!(group.join_deadline(start + secs(20)));
        assert_eq!(time::now() - start, secs(10));
    });
}

#[test]
fn a_kill_unwinds_started_members_and_never_starts_the_others() {
    virtually(|| {
        let (group, log) = (Group::new(), Rc::new(Cell::new((0, 0))));
        struct Unwound(Rc<Cell<(u32, u32)>>);
        impl Drop for Unwound {
            fn drop(&mut self) {
                let (started, unwound) = self.0.get();
                self.0.set((started, unwound + 1));
            }
        }
        let one = || {
            let unwound = Unwound(log.clone());
            group.spawn_local(move || {
                let (started, dropped) = unwound.0.get();
                unwound.0.set((started + 1, dropped));
                thread::park();
            })
        };
        let started = one();
        yield_now();
        let unstarted = one();
        group.kill();
        assert!(group.is_empty());
        assert_eq!(log.get(), (1, 2));
        assert!(started.join().unwrap_err().is_killed() && unstarted.join().unwrap_err().is_killed());
        assert_eq!(hub::live(), 0);
        assert!(group.join_raise().is_ok(), "to be killed is no failure");
    });
}

#[test]
fn a_kill_fires_once_at_one_that_refuses_to_die() {
    virtually(|| {
        let (group, kills) = (Group::new(), Rc::new(Cell::new(0)));
        let (theirs, done) = (kills.clone(), Arc::new(Event::new()));
        let ends = done.clone();
        let tough = group.spawn_local(move || {
            while !ends.is_set() {
                theirs.set(theirs.get() + u32::from(thread::catch_kill(|| ends.wait()).is_err()));
            }
        });
        yield_now();
        let start = time::now();
        assert!(!group.kill_timeout(secs(1)));
        assert!(!group.kill_deadline(start + secs(2)) && !group.kill_timeout(ms(0)));
        assert_eq!((kills.get(), time::now() - start), (1, secs(2)));
        let waits = spawn_local({
            let group = group.clone();
            move || group.kill()
        });
        yield_now();
        assert!(!waits.is_finished());
        done.set();
        waits.join().unwrap();
        tough.join().unwrap();
        assert_eq!(kills.get(), 1);
    });
}

#[test]
fn a_kill_kills_who_comes_meanwhile_and_nobody_afterwards() {
    virtually(|| {
        struct Adds(Group, Rc<Cell<bool>>);
        impl Drop for Adds {
            fn drop(&mut self) {
                let ran = self.1.clone();
                self.0.spawn_local(move || ran.set(true));
            }
        }
        let (group, ran) = (Group::new(), Rc::new(Cell::new(false)));
        let adds = Adds(group.clone(), ran.clone());
        group.spawn_local(move || {
            let _adds = adds;
            thread::park();
        });
        yield_now();
        assert!(group.kill_timeout(secs(1)));
        assert!(!ran.get(), "its first turn was its last");
        assert_eq!(group.spawn(|| 5).join().unwrap(), 5);
    });
}

#[test]
fn a_member_that_kills_its_group_dies_of_it() {
    virtually(|| {
        let group = Group::new();
        let (inner, other) = (group.clone(), group.spawn(thread::park));
        let killer = group.spawn(move || {
            inner.kill();
            unreachable!("it waits for the others, and dies there");
        });
        assert!(killer.join().unwrap_err().is_killed());
        assert!(other.join().unwrap_err().is_killed());
        assert!(group.join_timeout(ms(0)));
    });
}

#[test]
fn a_member_that_joins_its_group_is_told_so() {
    fresh(|| {
        let group = Group::new();
        let inner = group.clone();
        let member = group.spawn(move || inner.join_timeout(secs(1)));
        let payload = member.join().unwrap_err().into_panic();
        assert!(text(&*payload).contains("cannot join the Group"));
    });
}

#[test]
fn join_raise_tells_of_the_first_failure_once() {
    virtually(|| {
        let group = Group::new();
        let fails = |n: u64| {
            group.spawn(move || {
                sleep(secs(n));
                panic!("{n}");
            })
        };
        let (later, first) = (fails(2), fails(1));
        group.spawn(thread::park).kill();
        let error = group.join_raise().unwrap_err();
        assert!(error.is_panic());
        let whose = format!("green thread #{} ", first.thread().id().as_u64());
        assert!(error.to_string().starts_with(&whose), "{error} {whose}");
        assert!(group.join_raise().is_ok());
        // The payloads are where they were.
        assert_eq!(text(&*first.join().unwrap_err().into_panic()), "1");
        assert_eq!(text(&*later.join().unwrap_err().into_panic()), "2");
    });
}

#[test]
fn add_and_discard() {
    virtually(|| {
        let group = Group::new();
        let mut parked = spawn(thread::park);
        group.add(&parked);
        group.add(&parked);
        assert_eq!(group.len(), 1);
        assert!(group.discard(&parked.thread()) && !group.discard(&parked.thread()));
        group.kill();
        group.join();
        assert!(parked.join_timeout(secs(1)).is_none(), "it was let go");
        group.add(&parked);
        assert_eq!(group.len(), 1);
        group.kill();
        assert!(parked.is_finished());
        group.add(&parked);
        assert!(group.is_empty(), "it has ended");
        // Let go while somebody waits for it.
        let parked = group.spawn(thread::park);
        let joiner = spawn_local({
            let group = group.clone();
            move || group.join()
        });
        yield_now();
        group.discard(&parked.thread());
        joiner.join().unwrap();
        assert!(!parked.is_finished());
        thread::kill_all([parked]);
    });
}

#[test]
fn whoever_waits_may_be_killed_or_timed_out_anywhere_and_the_members_go_on() {
    let waits: [fn(&Group); 4] = [
        |group| group.join(),
        |group| _ = group.join_timeout(secs(50)),
        |group| _ = group.join_raise(),
        |group| group.kill(),
    ];
    virtually(move || {
        for (which, wait) in waits.into_iter().enumerate() {
            for k in 0..6 {
                for timed in [false, true] {
                    let group = Group::new();
                    let handles: Vec<_> = (1..4).map(|n| group.spawn(move || sleep(ms(n)))).collect();
                    let theirs = group.clone();
                    let waiter = spawn_local(move || {
                        if timed {
                            let _ = timeout(ms(k), || wait(&theirs));
                        } else {
                            wait(&theirs);
                        }
                    });
                    for _ in 0..k {
                        yield_now();
                    }
                    if !timed {
                        waiter.kill();
                    }
                    let _ = waiter.join();
                    assert!(group.join_timeout(secs(60)), "{which} {k} {timed}");
                    let killed = handles.into_iter().filter_map(|handle| handle.join().err()).count();
                    assert!(killed == 0 || which == 3);
                }
            }
        }
    });
}

#[test]
fn a_group_that_is_dropped_leaves_its_members_alone() {
    virtually(|| {
        let group = Group::new();
        let member = group.spawn(|| sleep(secs(1)));
        drop(group);
        member.join().unwrap();
    });
}

#[test]
fn members_on_several_hubs_and_one_that_is_lost() {
    let group = Group::new();
    let (send, receive) = mpsc::channel();
    let (theirs, event) = (group.clone(), Arc::new(Event::new()));
    let waits = event.clone();
    let os_thread = std::thread::spawn(move || {
        let lost = theirs.spawn(thread::park);
        let fine = theirs.spawn(move || waits.wait());
        send.send(()).unwrap();
        fine.join().unwrap();
        lost // and its hub ends
    });
    receive.recv().unwrap();
    fresh(move || {
        let here = group.spawn(|| sleep(ms(1)));
        assert!(group.len() >= 2);
        here.join().unwrap();
        event.set();
        let error = group.join_raise().unwrap_err();
        assert!(error.is_lost() && group.is_empty(), "{error}");
        assert!(os_thread.join().unwrap().join().unwrap_err().is_lost());
    });
}

#[test]
fn a_thousand_members_of_three_hubs_all_leave() {
    fresh(|| {
        let (group, count) = (Group::new(), Arc::new(AtomicUsize::new(0)));
        let os_threads: Vec<_> = (0..3)
            .map(|_| {
                let (group, count) = (group.clone(), count.clone());
                std::thread::spawn(move || {
                    let handles: Vec<_> = (0..1000)
                        .map(|n| {
                            let count = count.clone();
                            group.spawn(move || {
                                if n % 3 == 0 {
                                    yield_now();
                                }
                                count.fetch_add(1, Ordering::SeqCst)
                            })
                        })
                        .collect();
                    group.join();
                    assert!(handles.iter().all(|handle| handle.is_finished()));
                })
            })
            .collect();
        os_threads.into_iter().for_each(|thread| thread.join().unwrap());
        group.join();
        assert_eq!(count.load(Ordering::SeqCst), 3000);
    });
}

#[test]
fn links_for_success_and_for_failure() {
    virtually(|| {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let note: Arc<dyn Fn(String) + Send + Sync> = {
            let log = log.clone();
            Arc::new(move |what| log.lock().unwrap().push(what))
        };
        let watch = |name: &'static str, handle: &greenthread::JoinHandle<()>| {
            let (good, bad) = (note.clone(), note.clone());
            handle.on_success(move || {
                sleep(ms(1)); // a green thread of its own
                good(format!("{name} succeeded"));
            });
            handle.on_failure(move |error| bad(format!("{name} failed {} {}", error.is_panic(), error.is_killed())));
        };
        let (fine, panics, killed) = (spawn(|| ()), spawn(|| panic!("on purpose")), spawn(thread::park));
        watch("fine", &fine);
        watch("panics", &panics);
        watch("killed", &killed);
        killed.kill();
        sleep(secs(1));
        let expected = ["panics failed true false", "killed failed false true", "fine succeeded"];
        assert_eq!(*log.lock().unwrap(), expected);
        log.lock().unwrap().clear();
        watch("fine", &fine);
        watch("killed", &killed);
        sleep(secs(1));
        assert_eq!(*log.lock().unwrap(), ["killed failed false true", "fine succeeded"]);
        assert!(panics.join().unwrap_err().is_panic());
    });
}
