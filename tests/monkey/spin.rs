//! Code that waits by asking again and again, and says so by `sched_yield`; and C's locks whose holder is elsewhere.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::sleep;

use greenthread::{monkey, spawn, spawn_local};

use super::{CLocks, join_all, ms, patched};

/// Runs `f` patched; it must end, which without a switch it would not.
fn ends<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(patched(f)));
    told.recv_timeout(ms(20_000)).expect("it ends")
}

fn spin_until(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

#[test]
fn one_that_asks_lets_the_others_answer() {
    ends(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = flag.clone();
        let asks = spawn(move || spin_until(&theirs));
        spawn(move || flag.store(true, Ordering::SeqCst)).join().unwrap();
        asks.join().unwrap();
    });
}

#[test]
fn those_who_ask_keep_no_timer_and_no_socket_waiting() {
    ends(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let asks: Vec<_> = (0..3).map(|_| flag.clone()).collect();
        let asks = asks.into_iter().map(|flag| spawn(move || spin_until(&flag))).collect();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let reads = spawn(move || near.read_exact(&mut [0]).map(|()| flag.store(true, Ordering::SeqCst)));
        sleep(ms(5));
        far.write_all(b"!").unwrap();
        reads.join().unwrap().unwrap();
        join_all(asks);
    });
}

#[test]
fn those_who_ask_each_other_and_an_os_thread_get_answers() {
    ends(|| {
        let turn = Arc::new(AtomicU32::new(0));
        let mine = turn.clone();
        // The last is an OS thread, which has nobody to switch to.
        let os_thread = move |me: u32, turn: Arc<AtomicU32>| {
            for round in 0..200 {
                while turn.load(Ordering::SeqCst) != round * 3 + me {
                    std::thread::yield_now();
                }
                turn.fetch_add(1, Ordering::SeqCst);
            }
        };
        let theirs = turn.clone();
        let third = std::thread::spawn(move || os_thread(2, theirs));
        let green = [0, 1].map(|me| {
            let turn = mine.clone();
            spawn(move || os_thread(me, turn))
        });
        join_all(green.into());
        third.join().unwrap();
        assert_eq!(turn.load(Ordering::SeqCst), 600);
    });
}

/// `thrd_yield` is C11's name; on the native stack and in local green threads both are libc's own.
#[test]
fn both_names_are_patched_and_no_other_stack_switches() {
    unsafe extern "C" {
        fn thrd_yield();
    }
    ends(|| {
        let others = Arc::new(AtomicU32::new(0));
        let theirs = others.clone();
        let other = spawn(move || theirs.fetch_add(1, Ordering::SeqCst));
        // SAFETY: no pointers are involved.
        unsafe { thrd_yield() };
        assert!(other.is_finished());
        let other = spawn(|| ());
        monkey::unpatched(std::thread::yield_now);
        assert!(!other.is_finished());
        let local = spawn_local(move || {
            std::thread::yield_now();
            other.is_finished()
        });
        drop(local.join());
    });
    let other = spawn(|| ());
    std::thread::yield_now();
    assert!(!other.is_finished(), "the native stack");
}

/// A kill or a time-out does not end it, and is delivered after.
#[test]
fn one_that_asks_is_told_later() {
    let killed = ends(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = flag.clone();
        let asks = spawn(move || {
            spin_until(&theirs);
            let asked = theirs.swap(false, Ordering::SeqCst);
            greenthread::sleep(ms(60_000));
            asked
        });
        sleep(ms(1));
        asks.kill();
        sleep(ms(1));
        assert!(!asks.is_finished());
        flag.store(true, Ordering::SeqCst);
        let killed = asks.join().unwrap_err().is_killed();
        killed && !flag.load(Ordering::SeqCst)
    });
    assert!(killed);
}

/// Its holder waits for a green thread of the very OS thread that waits for it.
#[test]
fn a_c_mutex_that_an_os_thread_holds_until_a_green_thread_has_spoken() {
    ends(|| {
        let locks = CLocks::new(libc::PTHREAD_MUTEX_INITIALIZER);
        let (theirs, (tell, told), (lock, locked)) = (locks.clone(), mpsc::channel::<()>(), mpsc::channel());
        let holder = std::thread::spawn(move || {
            // SAFETY: locked and unlocked in pairs.
            unsafe {
                assert_eq!(libc::pthread_mutex_lock(theirs.mutex.get()), 0);
                lock.send(()).unwrap();
                let spoken = told.recv();
                assert_eq!(libc::pthread_mutex_unlock(theirs.mutex.get()), 0);
                spoken.unwrap();
            }
        });
        locked.recv().unwrap();
        let waits = spawn(move || {
            // SAFETY: an initialised mutex, unlocked by the code that locked it.
            unsafe {
                assert_eq!(libc::pthread_mutex_lock(locks.mutex.get()), 0);
                assert_eq!(libc::pthread_mutex_unlock(locks.mutex.get()), 0);
            }
        });
        let speaks = spawn(move || tell.send(()).unwrap());
        speaks.join().unwrap();
        waits.join().unwrap();
        holder.join().unwrap();
    });
}

/// What waits for one of another OS thread's waits with its own: so nothing runs below an allocator.
#[test]
fn a_c_mutex_of_another_os_thread_s_is_waited_for_without_a_switch() {
    ends(|| {
        let locks = CLocks::new(libc::PTHREAD_MUTEX_INITIALIZER);
        let (theirs, (lock, locked)) = (locks.clone(), mpsc::channel());
        let holder = std::thread::spawn(move || {
            // SAFETY: locked and unlocked in pairs.
            unsafe {
                assert_eq!(libc::pthread_mutex_lock(theirs.mutex.get()), 0);
                lock.send(()).unwrap();
                monkey::original::usleep(30_000);
                assert_eq!(libc::pthread_mutex_unlock(theirs.mutex.get()), 0);
            }
        });
        locked.recv().unwrap();
        let other = spawn(|| ());
        // SAFETY: an initialised mutex, unlocked by the code that locked it.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(locks.mutex.get()), 0);
            assert!(!other.is_finished());
            assert_eq!(libc::pthread_mutex_unlock(locks.mutex.get()), 0);
        }
        other.join().unwrap();
        holder.join().unwrap();
    });
}
