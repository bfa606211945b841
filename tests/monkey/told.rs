//! Kills and time-outs that patched calls could only tell of: the code that asked for them hears of them, whatever the
//! closure returned, and its value is not lost.

use std::cell::Cell;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenthread::thread::{Group, Pool, catch_kill, scope, shield};
use greenthread::time::{Timeout, timeout_or_late};
use greenthread::{JoinHandle, aio, spawn, timeout, yield_now};

use super::{ms, patched};

const FOR_EVER: Duration = Duration::from_secs(3600);

/// Runs until it has parked in a patched call.
fn until_it_waits() {
    (0..3).for_each(|_| yield_now());
}

/// Sleeps in std's way, is killed there, and returns 7 all the same.
fn returns_late() -> JoinHandle<i32> {
    let late = spawn(|| {
        sleep(FOR_EVER);
        7
    });
    until_it_waits();
    late.kill();
    late
}

#[test]
fn a_time_out_of_patched_sleeps_is_elapsed_and_the_value_is_kept() {
    patched(|| {
        let start = Instant::now();
        assert!(timeout(ms(20), || sleep(FOR_EVER)).is_err());
        let (elapsed, late) = timeout_or_late(ms(20), || {
            sleep(FOR_EVER);
            "done"
        })
        .unwrap_err();
        assert_eq!((elapsed.to_string().is_empty(), late), (false, Some("done")));
        assert!(start.elapsed() < FOR_EVER / 10);
        // It is spent.
        greenthread::sleep(ms(1));
        assert_eq!(timeout(FOR_EVER, || 1).unwrap(), 1);
    });
}

#[test]
fn only_the_first_sleep_after_an_interrupt_ends_early() {
    patched(|| {
        let ended = timeout_or_late(ms(5), || {
            let first = Instant::now();
            sleep(FOR_EVER);
            assert!(first.elapsed() < FOR_EVER / 10, "cut short");
            for _ in 0..2 {
                let later = Instant::now();
                sleep(ms(30));
                assert!(later.elapsed() >= ms(30), "in full: {:?}", later.elapsed());
            }
        });
        assert!(ended.unwrap_err().1.is_some());
    });
}

#[test]
fn a_kill_cuts_the_sleep_that_follows_a_time_out() {
    patched(|| {
        let (tell, told) = mpsc::channel();
        let sleeper = spawn(move || {
            timeout(ms(5), || {
                sleep(FOR_EVER); // for the time-out
                tell.send(()).unwrap();
                sleep(FOR_EVER); // for the kill
                tell.send(()).unwrap();
            })
        });
        told.recv().unwrap();
        until_it_waits();
        assert!(told.try_recv().is_err());
        sleeper.kill();
        told.recv().unwrap();
        assert!(sleeper.join().unwrap_err().is_killed());
    });
}

#[test]
fn a_time_out_cuts_the_sleep_that_follows_an_inner_one() {
    patched(|| {
        let start = Instant::now();
        let outer = timeout(ms(40), || {
            let inner = timeout_or_late(ms(5), || {
                sleep(FOR_EVER);
                sleep(FOR_EVER); // until the outer one
                7
            });
            // It was told of its own, then of the first that is due: its own again.
            assert_eq!(inner.unwrap_err().1, Some(7));
            greenthread::sleep(FOR_EVER)
        });
        assert!(outer.is_err() && start.elapsed() < FOR_EVER / 10);
    });
}

#[test]
fn one_that_was_never_told_changes_nothing() {
    patched(|| {
        // A computation, a lock that waits, a shield.
        let busy = || {
            let start = Instant::now();
            while start.elapsed() < ms(10) {}
            1
        };
        assert_eq!(timeout(ms(1), busy).unwrap(), 1);
        let lock = Arc::new(Mutex::new(()));
        let theirs = lock.clone();
        let holder = spawn(move || {
            let _held = theirs.lock().unwrap();
            greenthread::sleep(ms(30));
        });
        yield_now();
        assert_eq!(timeout(ms(1), || drop(lock.lock())).unwrap(), ());
        holder.join().unwrap();
        assert_eq!(timeout(ms(1), || shield(|| sleep(ms(10)))).unwrap(), ());

        let open = Arc::new(AtomicBool::new(false));
        let theirs = open.clone();
        let shielded = spawn(move || {
            shield(|| sleep(ms(20)));
            theirs.store(true, Ordering::SeqCst);
            5
        });
        until_it_waits();
        shielded.kill();
        assert_eq!(
            shielded.join().unwrap(),
            5,
            "it came to its end before any wait could tell it"
        );
        assert!(open.load(Ordering::SeqCst));
    });
}

#[test]
fn of_nested_time_outs_only_the_one_that_was_told_has_elapsed() {
    patched(|| {
        let inner_ended = Cell::new(None);
        let outer = timeout(ms(10), || {
            let inner = timeout(FOR_EVER, || {
                sleep(FOR_EVER);
                3
            });
            inner_ended.set(inner.ok());
        });
        assert!(outer.is_err());
        assert_eq!(inner_ended.get(), Some(3), "the inner one has not expired");

        let outer = timeout(FOR_EVER, || timeout(ms(10), || sleep(FOR_EVER)).is_err());
        assert!(outer.unwrap(), "the inner one has");

        // Told between `new` and `run`, and by a read.
        let (near, _far) = UnixStream::pair().unwrap();
        let limit = Timeout::new(ms(5));
        assert!((&near).read(&mut [0]).is_err());
        assert_eq!(limit.run_or_late(|| 4).unwrap_err().1, Some(4));
        drop(Timeout::new(ms(5)));
        greenthread::sleep(ms(1));
    });
}

#[test]
fn a_kill_that_was_told_is_what_the_join_says_and_the_value_is_kept() {
    patched(|| {
        let error = returns_late().join().unwrap_err();
        assert!(
            error.is_killed()
                && error
                    .to_string()
                    .ends_with("was killed, but returned a value all the same: into_value has it")
        );
        // Of another type: the error comes back, with the value.
        let error = error.into_value::<String>().unwrap_err();
        assert_eq!(error.into_value::<i32>().unwrap(), 7);
        // Dropped unread, it goes as any result.
        struct Count(Arc<AtomicBool>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        for joined in [false, true] {
            let dropped = Arc::new(AtomicBool::new(false));
            let count = Count(dropped.clone());
            let late = spawn(move || {
                sleep(FOR_EVER);
                count
            });
            until_it_waits();
            late.kill();
            if joined {
                drop(late.join());
            } else {
                drop(late);
                until_it_waits();
            }
            assert!(dropped.load(Ordering::SeqCst), "joined: {joined}");
        }
        // A panic is a panic.
        let panics = spawn(|| {
            sleep(FOR_EVER);
            std::panic::resume_unwind(Box::new("no"))
        });
        until_it_waits();
        panics.kill();
        assert!(panics.join().unwrap_err().is_panic());
    });
}

#[test]
fn catch_kill_catches_one_that_was_told_within() {
    patched(|| {
        let tough = spawn(|| {
            let caught = catch_kill(|| sleep(FOR_EVER)).is_err();
            greenthread::sleep(ms(1)); // it lives on
            caught
        });
        until_it_waits();
        tough.kill();
        assert!(tough.join().unwrap());

        // One that was told before is not this one's; it stays.
        let told_before = spawn(|| {
            sleep(FOR_EVER);
            catch_kill(|| 1).unwrap()
        });
        until_it_waits();
        told_before.kill();
        let error = told_before.join().unwrap_err();
        assert_eq!(error.into_value::<i32>().unwrap(), 1);
    });
}

#[test]
fn groups_pools_scopes_and_links_hear_of_it() {
    patched(|| {
        let group = Group::new();
        let member = group.spawn(|| sleep(FOR_EVER));
        until_it_waits();
        group.kill();
        assert!(member.join().unwrap_err().is_killed());
        assert!(group.join_raise().is_ok(), "a kill is no failure");

        let pool = Pool::new(1);
        let results = {
            let killer = pool.clone();
            let killer = spawn(move || {
                until_it_waits();
                killer.members().iter().for_each(|member| member.kill());
            });
            let results = pool.map([1], |_| sleep(FOR_EVER));
            killer.join().unwrap();
            results
        };
        assert!(results.into_iter().all(|result| result.unwrap_err().is_killed()));

        let word = String::from("borrowed");
        scope(|s| {
            let child = s.spawn(|| {
                sleep(FOR_EVER);
                word.len()
            });
            until_it_waits();
            child.kill();
            assert!(child.join().unwrap_err().is_killed());
            let child = s.spawn(|| {
                sleep(FOR_EVER);
                std::panic::resume_unwind(Box::new("no"))
            });
            until_it_waits();
            child.kill();
            assert!(child.join().unwrap_err().is_panic(), "the panic is not lost");
        });

        let (tell, told) = mpsc::channel();
        let late = returns_late();
        late.on_exit(move |ended| tell.send(ended.unwrap_err().is_killed()).unwrap());
        assert!(told.recv().unwrap());
    });
}

#[test]
fn tasks_of_the_loop_hear_of_it() {
    greenthread::monkey::patch_all().unwrap();
    let body = || {
        let task = aio::create_task(aio::green(|| sleep(FOR_EVER)));
        until_it_waits();
        task.cancel();
        assert!(task.wait().unwrap_err().is_cancelled());

        let limit = aio::timeout(Some(ms(5)));
        assert!(limit.run(|| sleep(FOR_EVER)).unwrap_err().is_timeout());
        assert!(limit.expired());
    };
    std::thread::spawn(move || aio::run(aio::green(body)).unwrap())
        .join()
        .unwrap();
}
