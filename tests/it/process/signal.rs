//! Signals: who is told, in which order, and what is refused. Each test has signals of its own: all run in one process.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use futures::FutureExt;
use greenthread::future::block_on;
use greenthread::io::wait_readable;
use greenthread::signal::{self, Signals};
use greenthread::sync::{Event, channel};
use greenthread::thread::catch_kill;
use greenthread::{sleep, spawn, time, timeout, yield_now};
use signal_hook::consts::SIGVTALRM;
use signal_hook::low_level::raise;

use crate::support::fresh::{fresh, ms, secs, virtually};

#[test]
fn each_listener_is_told_of_each_signal_once() {
    fresh(|| {
        let (a, b) = (signal::SIGUSR1, signal::SIGUSR2);
        let both = Signals::new([a, b]).unwrap();
        let one = Signals::new([b].iter()).unwrap();
        assert_eq!((both.try_recv(), one.try_recv()), (None, None));
        for signal in [b, a, a] {
            raise(signal).unwrap();
        }
        // In the order of their names, and the two as one.
        assert_eq!((both.recv().unwrap(), both.recv().unwrap()), (a, b));
        assert_eq!(one.recv().unwrap(), b);
        assert_eq!((both.try_recv(), one.try_recv()), (None, None));
        raise(a).unwrap();
        assert_eq!(both.iter().next().unwrap().unwrap(), a);
    });
}

#[test]
fn more_signals_than_the_socket_holds_are_one() {
    fresh(|| {
        let signals = Signals::new([signal::SIGURG]).unwrap();
        for _ in 0..5000 {
            raise(signal::SIGURG).unwrap();
        }
        assert_eq!(signals.try_recv(), Some(signal::SIGURG));
        assert_eq!(signals.recv_timeout(ms(10)).unwrap(), None);
        raise(signal::SIGURG).unwrap();
        assert_eq!(signals.recv_timeout(ms(0)).unwrap(), Some(signal::SIGURG));
    });
}

#[test]
fn what_cannot_be_caught_is_refused() {
    fresh(|| {
        for wrong in [signal::SIGKILL, signal::SIGSTOP, 11, 7, 4, 8, 0, -3, 1000] {
            let error = Signals::new([signal::SIGUSR1, wrong]).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}: {error}");
            assert!(signal::on(wrong, || {}).is_err());
        }
        let error = Signals::new([signal::SIGKILL]).unwrap_err().to_string();
        assert_eq!(error, "SIGKILL cannot be caught");
        assert_eq!(Signals::new([0; 0]).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_wait_ends_at_its_time() {
    virtually(|| {
        let signals = Signals::new([signal::SIGTTIN]).unwrap();
        let start = time::now();
        assert_eq!(signals.recv_timeout(secs(60)).unwrap(), None);
        assert_eq!(signals.recv_deadline(start + secs(90)).unwrap(), None);
        assert_eq!(time::now() - start, secs(90));
        assert_eq!(signals.recv_deadline(start).unwrap(), None);
        assert!(timeout(secs(10), || signals.recv()).is_err());
    });
}

#[test]
fn a_killed_waiter_loses_no_signal() {
    fresh(|| {
        let signals = Arc::new(Signals::new([signal::SIGTTOU]).unwrap());
        for before in [true, false] {
            let theirs = signals.clone();
            let waiter = spawn(move || catch_kill(|| theirs.recv()).map(Result::unwrap));
            yield_now(); // it waits
            if before {
                raise(signal::SIGTTOU).unwrap();
            }
            waiter.kill();
            assert!(waiter.join().unwrap().is_err());
            if !before {
                raise(signal::SIGTTOU).unwrap();
            }
            assert_eq!(signals.recv_timeout(secs(50)).unwrap(), Some(signal::SIGTTOU));
        }
    });
}

#[test]
fn two_signals_wake_two_waiters_of_two_hubs() {
    fresh(|| {
        let all = [signal::SIGALRM, signal::SIGCONT];
        let signals = Arc::new(Signals::new(all).unwrap());
        for _ in 0..50 {
            let (waits, waiting) = mpsc::channel();
            let hubs = all.map(|_| {
                let (signals, waits) = (signals.clone(), waits.clone());
                std::thread::spawn(move || {
                    let waiter = spawn(move || signals.recv().unwrap());
                    yield_now();
                    waits.send(()).unwrap();
                    waiter.join().unwrap()
                })
            });
            (0..2).for_each(|_| waiting.recv().unwrap());
            all.into_iter().for_each(|signal| raise(signal).unwrap());
            let mut got = hubs.map(|hub| hub.join().unwrap());
            got.sort_unstable();
            let mut want = all;
            want.sort_unstable();
            assert_eq!(got, want);
        }
    });
}

#[test]
fn any_executor_waits() {
    fresh(|| {
        let signals = Signals::new([signal::SIGTSTP]).unwrap();
        assert!(signals.recv_async().now_or_never().is_none());
        let sender = std::thread::spawn(|| {
            std::thread::sleep(ms(20));
            raise(signal::SIGTSTP).unwrap();
        });
        // On an OS thread without a hub.
        assert_eq!(
            futures::executor::block_on(signals.recv_async()).unwrap(),
            signal::SIGTSTP
        );
        sender.join().unwrap();
        raise(signal::SIGTSTP).unwrap();
        assert_eq!(block_on(signals.recv_async()).unwrap(), signal::SIGTSTP);
    });
}

#[test]
fn a_handler_runs_in_a_green_thread_until_its_guard_goes() {
    fresh(|| {
        let (send, receive) = channel::unbounded();
        let go_on = Arc::new(Event::new());
        let theirs = go_on.clone();
        let handler = signal::on(signal::SIGWINCH, move || {
            send.send("begins").unwrap();
            theirs.wait(); // it may block
            send.send("ends").unwrap();
        });
        let handler = handler.unwrap();
        // The second does not wait for the first.
        for _ in 0..2 {
            raise(signal::SIGWINCH).unwrap();
            assert_eq!(receive.recv_timeout(secs(50)).unwrap(), "begins");
        }
        raise(signal::SIGWINCH).unwrap();
        drop(handler);
        // What has begun goes on.
        go_on.set();
        assert_eq!((receive.recv().unwrap(), receive.recv().unwrap()), ("ends", "ends"));
        raise(signal::SIGWINCH).unwrap();
        assert!(receive.recv_timeout(ms(20)).is_err(), "the guard is gone");
    });
}

#[test]
fn a_guard_that_goes_in_the_turn_of_the_signal_is_in_time() {
    fresh(|| {
        let calls = Arc::new(AtomicU32::new(0));
        let theirs = calls.clone();
        let handler = signal::on(SIGVTALRM, move || {
            theirs.fetch_add(1, Ordering::Relaxed);
        });
        let handler = handler.unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let first = spawn(move || {
            wait_readable(&reader, None).unwrap();
            drop(handler);
        });
        yield_now(); // both wait
        writer.write_all(b"x").unwrap();
        raise(SIGVTALRM).unwrap();
        first.join().unwrap();
        sleep(ms(5));
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_handler_that_panics_is_called_again_and_forget_keeps_it() {
    fresh(|| {
        let calls = Arc::new(AtomicU32::new(0));
        let theirs = calls.clone();
        let handler = signal::on(signal::SIGQUIT, move || {
            assert!(theirs.fetch_add(1, Ordering::Relaxed) > 0, "the first time");
        });
        handler.unwrap().forget();
        for count in 1..=2 {
            raise(signal::SIGQUIT).unwrap();
            let _ = timeout(secs(50), || {
                while calls.load(Ordering::Relaxed) < count {
                    sleep(ms(1));
                }
            });
            assert_eq!(calls.load(Ordering::Relaxed), count);
        }
    });
}

#[test]
fn ctrl_c_is_heard_by_all_who_wait() {
    fresh(|| {
        let (one, two) = (spawn(signal::ctrl_c), spawn(signal::ctrl_c));
        yield_now();
        raise(signal::SIGINT).unwrap();
        one.join().unwrap().unwrap();
        two.join().unwrap().unwrap();
    });
}
