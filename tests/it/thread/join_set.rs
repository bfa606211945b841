//! Sets of results, in the order of their ends.

use std::sync::Arc;

use greenthread::thread::JoinSet;
use greenthread::{hub, sleep, spawn, thread, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

#[test]
fn results_come_as_the_members_end_also_of_those_that_are_added_meanwhile() {
    virtually(|| {
        let mut set = JoinSet::new();
        for n in [5, 1, 3] {
            set.spawn(move || {
                sleep(secs(n));
                n
            });
        }
        let mut ended = Vec::new();
        while let Some(one) = set.join_next() {
            ended.push(one.unwrap());
            if ended == [1] {
                set.spawn_local(|| {
                    sleep(secs(1));
                    2
                });
            }
        }
        assert_eq!(ended, [1, 2, 3, 5]);
        assert!(set.is_empty() && set.try_join_next().is_none());
    });
}

#[test]
fn errors_come_as_results() {
    fresh(|| {
        let mut set = JoinSet::new();
        set.spawn(|| panic!("no"));
        assert!(set.join_next().unwrap().unwrap_err().is_panic());
        set.spawn(thread::park);
        set.kill_all();
        assert_eq!(set.len(), 1);
        assert!(set.join_next().unwrap().unwrap_err().is_killed());
        assert!(set.join_next().is_none());
    });
}

#[test]
fn a_wait_that_is_cut_short_loses_no_result() {
    virtually(|| {
        let mut set = JoinSet::new();
        set.spawn(|| {
            sleep(secs(2));
            7
        });
        assert!(set.try_join_next().is_none());
        assert!(set.join_next_timeout(secs(1)).is_none());
        assert!(timeout(ms(1), || set.join_next()).is_err());
        assert!(set.join_next_deadline(time::now()).is_none());
        assert_eq!(set.len(), 1);
        sleep(secs(1));
        assert_eq!(set.try_join_next().unwrap().unwrap(), 7);
    });
}

#[test]
fn a_drop_kills_and_detach_all_does_not() {
    virtually(|| {
        let alive = Arc::new(());
        for detaches in [false, true] {
            let mut set = JoinSet::new();
            for seconds in [0, 5] {
                let alive = alive.clone();
                set.spawn(move || {
                    let _alive = alive;
                    sleep(secs(seconds));
                });
            }
            sleep(secs(1));
            if detaches {
                set.detach_all();
                assert!(set.is_empty() && set.join_next().is_none());
            }
            drop(set);
            sleep(ms(1));
            assert_eq!(Arc::strong_count(&alive), 1 + usize::from(detaches));
            sleep(secs(5));
            assert_eq!(Arc::strong_count(&alive), 1);
        }
        assert_eq!(hub::live(), 0);
    });
}

#[test]
fn members_of_other_hubs_and_an_async_reader() {
    fresh(|| {
        let mut set = JoinSet::new();
        let hub = hub::handle();
        let elsewhere = std::thread::spawn(move || hub.spawn(|| 1).unwrap());
        let handle = greenthread::threadpool::unblock(move || elsewhere.join().unwrap());
        set.add(handle);
        set.add(spawn(|| {
            yield_now();
            2
        }));
        let mut both = greenthread::future::block_on(async {
            [set.join_next_async().await, set.join_next_async().await].map(|one| one.unwrap().unwrap())
        });
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    });
}
