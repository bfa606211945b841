//! Several hubs: whose turn it is, joining and stopping them from anywhere, and what a hub that has ended says.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use greenthread::hub::{self, Hubs};
use greenthread::net::{TcpListener, TcpStream, UdpSocket};
use greenthread::sync::Event;
use greenthread::thread::{self, Group};
use greenthread::{sleep, spawn, spawn_local, threadpool, time, timeout, yield_now};
use rustix::thread::gettid;

use crate::support::counted::Counted;
use crate::support::fresh::{fresh, ms, secs, text};

#[test]
fn they_take_turns_and_each_is_an_os_thread_of_its_own() {
    fresh(|| {
        let hubs = Hubs::new(3).unwrap();
        assert_eq!(format!("{hubs:?}"), "Hubs { hubs: 3, open: 3, .. }");
        let handles: Vec<_> = (0..9).map(|_| hubs.spawn(gettid).unwrap()).collect();
        let ids: Vec<_> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
        assert_eq!((&ids[..3], &ids[3..6]), (&ids[3..6], &ids[6..]));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
        assert!(!ids.contains(&gettid()));
        for (index, handle) in hubs.handles().iter().enumerate() {
            let theirs = handle.spawn(gettid).unwrap().join().unwrap();
            assert_eq!(hubs.spawn_on(index, gettid).unwrap().join().unwrap(), theirs);
            // What it spawns runs there too.
            let inner = hubs.spawn_on(index, || spawn(gettid).join().unwrap()).unwrap();
            assert_eq!(inner.join().unwrap(), theirs);
        }
    });
}

#[test]
fn none_at_all_and_one_too_many() {
    fresh(|| {
        assert_eq!(Hubs::new(0).unwrap_err().kind(), ErrorKind::InvalidInput);
        let hubs = Hubs::new(1).unwrap();
        let payload = spawn(move || drop(hubs.spawn_on(1, || ())))
            .join()
            .unwrap_err()
            .into_panic();
        assert!(text(&*payload).contains("spawn_on(1): there is no such hub"));
    });
}

#[test]
fn a_join_waits_for_all_that_is_spawned_on_the_way() {
    fresh(|| {
        // From hub to hub and back: at most moments only one of them has anything to do.
        fn hop(hubs: &[hub::Handle; 2], count: &Arc<AtomicUsize>, left: usize) {
            if left == 0 {
                return;
            }
            let (again, theirs) = (hubs.clone(), count.clone());
            let next = move || {
                if left.is_multiple_of(10) {
                    sleep(ms(1));
                }
                theirs.fetch_add(1, Ordering::SeqCst);
                hop(&again, &theirs, left - 1);
            };
            if left.is_multiple_of(3) {
                spawn(next);
            } else {
                hubs[left % 2].spawn(next).unwrap();
            }
        }
        let hubs = Hubs::new(2).unwrap();
        let both: [hub::Handle; 2] = [hubs.handles()[0].clone(), hubs.handles()[1].clone()];
        for round in 1..=10 {
            let count = Arc::new(AtomicUsize::new(0));
            let (both, theirs) = (both.clone(), count.clone());
            hubs.spawn(move || hop(&both, &theirs, 1 + 50 * round)).unwrap();
            hubs.join();
            assert_eq!(count.load(Ordering::SeqCst), 1 + 50 * round);
        }
        hubs.join(); // nobody is there: at once
    });
}

#[test]
fn a_join_waits_for_links_and_calls_that_spawn() {
    fresh(|| {
        let (hubs, count) = (Hubs::new(2).unwrap(), Arc::new(AtomicUsize::new(0)));
        let (linked, called) = (Counted(count.clone()), Counted(count.clone()));
        let member = hubs.spawn_on(0, || sleep(ms(2))).unwrap();
        let other = hubs.handles()[1].clone();
        member.on_exit(move |_| {
            let call = move || {
                spawn(move || {
                    sleep(ms(2));
                    drop(called);
                });
            };
            other.call_soon(call).unwrap();
            drop(linked);
        });
        hubs.join();
        assert_eq!(count.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_join_with_a_limit_says_whether_all_have_ended() {
    fresh(|| {
        let (hubs, event) = (Hubs::new(2).unwrap(), Arc::new(Event::new()));
        assert!(hubs.join_timeout(secs(20)));
        let waits = event.clone();
        hubs.spawn(move || waits.wait()).unwrap();
        assert!(!hubs.join_timeout(ms(5)) && !hubs.join_deadline(time::now()));
        event.set();
        assert!(hubs.join_deadline(time::now() + secs(20)));
    });
}

#[test]
fn whoever_joins_may_be_killed_or_timed_out() {
    fresh(|| {
        let (hubs, event) = (Arc::new(Hubs::new(2).unwrap()), Arc::new(Event::new()));
        let waits = event.clone();
        let member = hubs.spawn(move || waits.wait()).unwrap();
        assert!(timeout(ms(5), || hubs.join()).is_err());
        for k in 0..5 {
            let theirs = hubs.clone();
            let joiner = spawn_local(move || theirs.join());
            (0..k).for_each(|_| yield_now());
            joiner.kill();
            assert!(joiner.join().unwrap_err().is_killed());
        }
        assert!(!member.is_finished());
        let joiners: Vec<_> = (0..4)
            .map(|_| {
                let theirs = hubs.clone();
                spawn_local(move || theirs.join())
            })
            .collect();
        yield_now();
        event.set();
        joiners.into_iter().for_each(|joiner| joiner.join().unwrap());
        assert!(member.is_finished());
    });
}

#[test]
fn a_join_from_one_of_them_is_refused() {
    fresh(|| {
        let hubs = Arc::new(Hubs::new(1).unwrap());
        let theirs = hubs.clone();
        let payload = hubs
            .spawn(move || theirs.join())
            .unwrap()
            .join()
            .unwrap_err()
            .into_panic();
        assert!(text(&*payload).contains("cannot join the hub that it runs on"));
        hubs.join();
    });
}

#[test]
fn stopped_they_kill_what_runs_and_take_nothing_more() {
    fresh(|| {
        let (hubs, count) = (Hubs::new(2).unwrap(), Arc::new(AtomicUsize::new(0)));
        let (started, ready) = (Group::new(), Arc::new(AtomicUsize::new(0)));
        let parked: Vec<_> = (0..10)
            .map(|n| {
                let (count, ready) = (Counted(count.clone()), ready.clone());
                hubs.spawn(move || {
                    let _count = count;
                    ready.fetch_add(1, Ordering::SeqCst);
                    if n % 2 == 0 { thread::park() } else { sleep(secs(3600)) }
                })
                .unwrap()
            })
            .collect();
        parked.iter().for_each(|one| started.add(one));
        while ready.load(Ordering::SeqCst) < 10 {
            sleep(ms(1));
        }
        hubs.stop();
        hubs.stop(); // once more changes nothing
        let never = Counted(count.clone());
        assert_eq!(
            hubs.spawn(move || drop(never)).unwrap_err().kind(),
            ErrorKind::NotConnected
        );
        let never = Counted(count.clone());
        let error = hubs.spawn_on(1, move || drop(never)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the hub was stopped or has ended: it takes no green threads"
        );
        hubs.join();
        assert!(hubs.handles().iter().all(|handle| !handle.is_alive()));
        let errors = hubs
            .handles()
            .iter()
            .map(|handle| handle.spawn(|| ()).unwrap_err().kind());
        assert_eq!(errors.collect::<Vec<_>>(), [ErrorKind::NotConnected; 2]);
        started.join();
        assert!(parked.into_iter().all(|one| one.join().unwrap_err().is_killed()));
        assert_eq!(count.load(Ordering::SeqCst), 12);
        assert_eq!(format!("{hubs:?}"), "Hubs { hubs: 2, open: 0, .. }");
    });
}

#[test]
fn one_of_them_may_stop_all() {
    fresh(|| {
        let hubs = Arc::new(Hubs::new(2).unwrap());
        let other = hubs.spawn_on(1, thread::park).unwrap();
        let theirs = hubs.clone();
        let stops = hubs.spawn_on(0, move || {
            theirs.stop();
            sleep(secs(3600)); // and dies of it
        });
        hubs.join();
        assert!(stops.unwrap().join().unwrap_err().is_killed());
        assert!(other.join().unwrap_err().is_killed());
    });
}

#[test]
fn one_that_ended_by_itself_is_passed_over() {
    fresh(|| {
        let hubs = Hubs::new(2).unwrap();
        let ids: Vec<_> = (0..2)
            .map(|n| hubs.spawn_on(n, gettid).unwrap().join().unwrap())
            .collect();
        hubs.spawn_on(0, hub::stop).unwrap().join().unwrap();
        let first = &hubs.handles()[0];
        while first.is_alive() {
            sleep(ms(1));
        }
        let count = Arc::new(AtomicUsize::new(0));
        let held = Counted(count.clone());
        assert_eq!(
            hubs.spawn_on(0, move || drop(held)).unwrap_err().kind(),
            ErrorKind::NotConnected
        );
        assert_eq!(count.load(Ordering::SeqCst), 1);
        for _ in 0..4 {
            assert_eq!(hubs.spawn(gettid).unwrap().join().unwrap(), ids[1]);
        }
        assert_eq!(format!("{hubs:?}"), "Hubs { hubs: 2, open: 1, .. }");
        hubs.join();
        hubs.stop();
        hubs.join();
    });
}

#[test]
fn a_panic_stays_in_its_green_thread_and_its_hub_goes_on() {
    fresh(|| {
        let hubs = Hubs::new(2).unwrap();
        for index in [0, 1, 0, 1] {
            let bad = hubs.spawn_on(index, || panic!("on purpose")).unwrap();
            assert!(bad.join().unwrap_err().is_panic());
            let call = || std::panic::resume_unwind(Box::new("in a callback, on purpose"));
            hubs.handles()[index].call_soon(call).unwrap();
            assert_eq!(hubs.spawn_on(index, || 5).unwrap().join().unwrap(), 5);
        }
        hubs.join();
    });
}

#[test]
fn one_that_will_not_die_is_lost_after_a_while() {
    fresh(|| {
        let hubs = Hubs::new(1).unwrap();
        let (ready, theirs) = (Arc::new(Event::new()), Arc::new(Event::new()));
        let set = ready.clone();
        let tough = hubs.spawn(move || {
            thread::shield(|| {
                set.set();
                theirs.wait();
            })
        });
        ready.wait();
        hubs.stop();
        hubs.join();
        assert!(tough.unwrap().join().unwrap_err().is_lost());
    });
}

#[test]
fn dropped_they_stop() {
    fresh(|| {
        let count = Arc::new(AtomicUsize::new(0));
        let hubs = Hubs::new(2).unwrap();
        let handles = hubs.handles().to_vec();
        let held = Counted(count.clone());
        let parked = hubs.spawn(move || {
            let _held = held;
            thread::park();
        });
        drop(hubs);
        assert!(parked.unwrap().join().unwrap_err().is_killed());
        assert_eq!(count.load(Ordering::SeqCst), 1);
        while handles.iter().any(|handle| handle.is_alive()) {
            sleep(ms(1));
        }
    });
}

/// How many OS threads of this process are hubs of `Hubs`.
fn os_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("greenthread-hub")).count()
}

/// The scenario `hubs_new`, in a process of its own for it counts OS threads.
pub(crate) fn new_killed_anywhere() {
    fresh(|| {
        let (mut killed, mut whole) = (0, 0);
        for k in 0..40 {
            let maker = spawn(|| Hubs::new(3).unwrap());
            for _ in 0..k {
                yield_now();
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
            maker.kill();
            match maker.join() {
                Ok(hubs) => {
                    whole += 1;
                    hubs.stop();
                    hubs.join();
                }
                Err(error) => killed += usize::from(error.is_killed()),
            }
            let until = time::now() + secs(20);
            while os_threads() > 0 {
                assert!(time::now() < until, "an OS thread is left");
                sleep(ms(1));
            }
        }
        assert_eq!(killed + whole, 40);
        assert!(killed > 0, "the first at least, before its first turn");
        let hubs = Hubs::new(3).unwrap();
        assert_eq!(os_threads(), 3);
        hubs.stop();
    });
}

#[test]
fn whoever_makes_them_may_be_killed_anywhere_and_no_os_thread_is_left() {
    let ended = crate::support::child::run("hubs_new");
    assert!(ended.ok, "{ended:?}");
}

#[test]
fn listeners_of_several_hubs_share_a_port() {
    fresh(|| {
        let hubs = Hubs::new(2).unwrap();
        let first = TcpListener::bind_reuse_port("127.0.0.1:0").unwrap();
        let address = first.local_addr().unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(TcpListener::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        let second = TcpListener::bind_reuse_port(address).unwrap();
        let (send, receive) = mpsc::channel();
        for (index, listener) in [first, second].into_iter().enumerate() {
            let send = send.clone();
            let serve = move || {
                for stream in listener.incoming() {
                    stream.unwrap().write_all(b"x").unwrap();
                    send.send(index).unwrap();
                }
            };
            hubs.spawn_on(index, serve).unwrap();
        }
        for _ in 0..200 {
            let mut stream = TcpStream::connect(address).unwrap();
            assert_eq!(stream.read(&mut [0; 9]).unwrap(), 1);
        }
        let served: Vec<_> = threadpool::unblock(move || (0..200).map(|_| receive.recv().unwrap()).collect());
        let by_first = served.iter().filter(|index| **index == 0).count();
        // By chance all go to one of them once in 2^199.
        assert!((1..200).contains(&by_first), "{by_first}");
        hubs.stop();
        hubs.join();
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn datagrams_too_and_both_families() {
    fresh(|| {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let first = match UdpSocket::bind_reuse_port(any) {
                Err(error) if any.starts_with('[') && error.kind() == ErrorKind::AddrNotAvailable => continue,
                bound => bound.unwrap(),
            };
            let address = first.local_addr().unwrap();
            assert_eq!(UdpSocket::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
            let second = UdpSocket::bind_reuse_port(address).unwrap();
            let counts = [first, second].map(|socket| {
                spawn(move || {
                    let mut count = 0;
                    socket.set_read_timeout(Some(ms(500))).unwrap();
                    while socket.recv_from(&mut [0; 9]).is_ok() {
                        count += 1;
                    }
                    count
                })
            });
            for _ in 0..64 {
                UdpSocket::bind(any).unwrap().send_to(b"hi", address).unwrap();
            }
            let counts = counts.map(|count| count.join().unwrap());
            assert_eq!(counts[0] + counts[1], 64);
            assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
        }
        let nowhere = TcpListener::bind_reuse_port("192.0.2.1:0").unwrap_err();
        assert_eq!(nowhere.kind(), ErrorKind::AddrNotAvailable);
    });
}
