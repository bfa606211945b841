//! Waiting for the first of several: every kind of branch, no favourites, and nothing lost whoever is given up.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use greenthread::net::{TcpListener, TcpStream};
use greenthread::sync::channel::{self, RecvError, SendError, TryRecvError};
use greenthread::sync::queue::Queue;
use greenthread::sync::select::Select;
use greenthread::sync::{Event, Mutex, Promise, Semaphore};
use greenthread::{hub, select, sleep, spawn, spawn_local, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, virtually};

#[test]
fn each_kind_of_branch_gives_what_its_method_gives() {
    virtually(|| {
        let (sender, receiver) = channel::bounded(1);
        let (event, mutex, semaphore, promise) = (Event::new(), Mutex::new(3), Semaphore::new(0), Promise::new());
        let mut held = Some(mutex.lock().unwrap());
        let mut handle = spawn_local(|| {
            sleep(ms(60_000));
            "ended"
        });
        let mut seen = Vec::new();
        // Each makes the next ready, and itself not.
        let mut joined = false;
        while seen.len() < 6 {
            let once = async {
                if joined {
                    std::future::pending().await
                } else {
                    (&mut handle).await
                }
            };
            select! {
                future(once) -> result => {
                    seen.push(format!("join {}", result.unwrap()));
                    joined = true;
                    sender.send(7).unwrap();
                }
                recv(receiver) -> message => {
                    seen.push(format!("recv {message:?}"));
                    event.set();
                }
                wait(event) => {
                    seen.push(String::from("event"));
                    event.clear();
                    held = None;
                },
                lock(mutex) -> guard => {
                    let guard = guard.unwrap();
                    seen.push(format!("lock {}", *guard));
                    held = Some(guard);
                    semaphore.add(1);
                },
                acquire(semaphore) -> permit => {
                    seen.push(String::from("permit"));
                    permit.forget();
                    promise.set(5).unwrap();
                }
                wait(promise) -> value => seen.push(format!("promise {value}")),
                after(ms(3_600_000)) => unreachable!("the others come before"),
            }
        }
        drop(held);
        assert_eq!(
            seen,
            ["join ended", "recv Ok(7)", "event", "lock 3", "permit", "promise 5"]
        );
    });
}

#[test]
fn a_handle_is_a_branch() {
    virtually(|| {
        let mut handle = spawn_local(|| {
            sleep(ms(20));
            "ended"
        });
        let mut got = Vec::new();
        while got.last() != Some(&"ended") {
            got.push(select! {
                join(handle) -> result => result.unwrap(),
                after(ms(8)) => "not yet",
            });
        }
        assert_eq!(got, ["not yet", "not yet", "ended"]);
    });
}

#[test]
fn times_come_when_they_should_and_leave_nothing() {
    virtually(|| {
        let never = channel::never::<u32>();
        let start = time::now();
        let which = select! {
            recv(never) -> _ => 0,
            after(ms(30)) => 1,
            at(start + ms(20)) => 2,
        };
        assert_eq!((which, time::now() - start), (2, ms(20)));
        let which = select! {
            recv(never) -> _ => 0,
            default(ms(5)) => 1,
        };
        assert_eq!((which, time::now() - start), (1, ms(25)));
        let which = select! { recv(never) -> _ => 0, default => 1 };
        assert_eq!((which, time::now() - start), (1, ms(25)), "at once");
        assert!(hub::next_deadline().is_none(), "no timer is left of those that lost");
    });
}

#[test]
fn channels_of_the_clock() {
    virtually(|| {
        let start = time::now();
        let late = channel::after(ms(10));
        assert_eq!(late.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(late.recv().unwrap() - start, ms(10));
        assert_eq!(
            late.recv_timeout(ms(100)),
            Err(channel::RecvTimeoutError::Timeout),
            "once only"
        );
        let start = time::now();
        let ticks = channel::tick(ms(10));
        assert_eq!(ticks.recv().unwrap() - start, ms(10));
        sleep(ms(35)); // those at 20, 30 and 40 are one
        assert_eq!(ticks.recv().unwrap() - start, ms(20));
        assert_eq!(ticks.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(ticks.recv().unwrap() - start, ms(50), "in step");
        drop(ticks);
        drop(channel::after(ms(1000)));
        assert!(hub::next_deadline().is_none(), "their timers are gone with them");
        assert_eq!(channel::at(time::now() + ms(5)).recv().unwrap() - start, ms(55));
    });
}

#[test]
fn sockets_are_branches_too() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(Event::new());
        let theirs = stop.clone();
        let server = spawn(move || {
            let mut served = 0;
            loop {
                select! {
                    readable(listener) -> ready => {
                        ready.unwrap();
                        let (mut stream, _) = listener.accept().unwrap();
                        select! { writable(stream) -> room => room.unwrap() }
                        stream.write_all(b"hello").unwrap();
                        served += 1;
                    }
                    wait(theirs) => return served,
                }
            }
        });
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
        stop.set();
        assert_eq!(server.join().unwrap(), 3);
    });
}

#[test]
fn nobody_is_the_favourite() {
    virtually(|| {
        let (first, second) = (channel::unbounded(), channel::unbounded());
        for _ in 0..1000 {
            first.0.send(()).unwrap();
            second.0.send(()).unwrap();
        }
        let mut counts = [0, 0];
        for _ in 0..1000 {
            let which = select! {
                recv(first.1) -> _ => 0,
                recv(second.1) -> _ => 1,
            };
            counts[which] += 1_u32;
        }
        assert!(counts[0].abs_diff(counts[1]) < 200, "{counts:?}");
    });
}

#[test]
fn what_a_branch_does_may_leave_the_loop_or_the_function() {
    fn number(receiver: &channel::Receiver<Result<u32, String>>) -> Result<u32, String> {
        let mut sum = 0;
        loop {
            select! {
                recv(receiver) -> message => match message {
                    Ok(number) => sum += number?,
                    Err(RecvError) => break,
                },
            }
        }
        Ok(sum)
    }
    virtually(|| {
        let (sender, receiver) = channel::unbounded();
        sender.send(Ok(3)).unwrap();
        sender.send(Ok(4)).unwrap();
        sender.send(Err(String::from("wrong"))).unwrap();
        assert_eq!(number(&receiver), Err(String::from("wrong")));
        sender.send(Ok(5)).unwrap();
        drop(sender);
        assert_eq!(number(&receiver), Ok(5));
    });
}

#[test]
fn a_value_is_sent_only_if_its_branch_won() {
    virtually(|| {
        let (full, out) = channel::bounded(1);
        full.send(String::from("old")).unwrap();
        let which = select! {
            send(full, String::from("new")) -> sent => sent.is_ok(),
            after(ms(1)) => false,
        };
        assert!(!which);
        assert_eq!(out.recv().as_deref(), Ok("old"));
        assert_eq!(out.try_recv(), Err(TryRecvError::Empty), "taken back");
        select! { send(full, String::from("new")) -> sent => sent.unwrap() }
        assert_eq!(out.recv().as_deref(), Ok("new"));
        drop(out);
        let back = select! { send(full, String::from("back")) -> sent => sent };
        assert_eq!(back, Err(SendError(String::from("back"))));
    });
}

#[test]
fn queues_are_branches_too() {
    virtually(|| {
        let (numbers, words) = (Queue::<u32>::bounded(1), Queue::<&str>::unbounded());
        numbers.put(1).unwrap();
        let late = select! { put(numbers, 2) -> put => put.is_ok(), after(ms(1)) => false };
        assert!(!late);
        let got = select! {
            get(words) -> word => word.unwrap().to_owned(),
            get(numbers) -> number => number.unwrap().to_string(),
        };
        assert_eq!((got.as_str(), numbers.len()), ("1", 0), "what was not put is not there");
        words.shutdown(true);
        let ended = select! { get(words) -> word => word.is_err(), get(numbers) -> _ => false };
        assert!(ended);
    });
}

/// Two that select over two channels, and one is killed or timed out after each number of turns: every message arrives.
#[test]
fn no_message_is_lost_whoever_is_killed() {
    virtually(|| {
        for k in 0..40 {
            for timed in [false, true] {
                let (one, two) = (channel::bounded::<u32>(1), channel::unbounded::<u32>());
                let got = Rc::new(Cell::new(0));
                let start = |limit: Option<u64>| {
                    let (one, two, got) = (one.1.clone(), two.1.clone(), got.clone());
                    spawn_local(move || {
                        let work = || {
                            loop {
                                let message = select! {
                                    recv(one) -> message => message,
                                    recv(two) -> message => message,
                                };
                                let Ok(message) = message else { return };
                                got.set(got.get() + message);
                                yield_now();
                            }
                        };
                        match limit {
                            Some(limit) => drop(timeout(ms(limit), work)),
                            None => work(),
                        }
                    })
                };
                let fickle = start(timed.then_some(k));
                let faithful = start(None);
                let (one, two, rest) = (one.0, two.0, (one.1, two.1));
                let sender = spawn_local(move || {
                    for _ in 0..20 {
                        one.send(1).unwrap();
                        two.send(100).unwrap();
                        if timed {
                            sleep(ms(1));
                        }
                    }
                });
                if !timed {
                    (0..k).for_each(|_| yield_now());
                    fickle.kill();
                }
                let _ = fickle.join();
                sender.join().unwrap();
                faithful.join().unwrap();
                // It ends with the first of the two that ends.
                let left: u32 = rest.0.try_iter().chain(rest.1.try_iter()).sum();
                assert_eq!(got.get() + left, 2020, "k = {k}, timed: {timed}");
            }
        }
    });
}

#[test]
fn as_many_as_there_are() {
    virtually(|| {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..100).map(|_| channel::bounded::<usize>(1)).unzip();
        let mut select = Select::new();
        for receiver in &receivers {
            select.add(|| receiver.recv_async());
        }
        assert_eq!((select.len(), select.try_wait()), (100, None));
        assert_eq!(select.wait_timeout(ms(5)), None);
        let sending = spawn_local(move || {
            for n in [42, 7, 99] {
                senders[n].send(n).unwrap();
                yield_now();
            }
            senders
        });
        let mut got: Vec<_> = (0..3).map(|_| select.wait()).collect();
        got.sort_by_key(|(number, _)| *number);
        assert_eq!(got, [(7, Ok(7)), (42, Ok(42)), (99, Ok(99))]);
        drop(sending.join().unwrap());
        assert_eq!(select.wait().1, Err(RecvError));
    });
}

#[test]
fn the_other_end_may_be_on_another_hub() {
    fresh(|| {
        let (numbers, words) = (channel::bounded::<u64>(4), channel::bounded::<String>(4));
        let (to_numbers, to_words) = (numbers.0, words.0);
        let os_threads = [
            std::thread::spawn(move || (0..5000).for_each(|n| to_numbers.send(n).unwrap())),
            std::thread::spawn(move || {
                spawn(move || (0..5000).for_each(|n| to_words.send(n.to_string()).unwrap()))
                    .join()
                    .unwrap();
            }),
        ];
        let (mut sum, mut open) = (0, [true, true]);
        while open != [false, false] {
            let ended = channel::never::<()>();
            select! {
                recv(numbers.1) -> number => match number {
                    Ok(number) => sum += number,
                    Err(RecvError) => {
                        open[0] = false;
                        (0..).map_while(|_| words.1.recv().ok()).for_each(|word| sum += word.parse::<u64>().unwrap());
                        open[1] = false;
                    }
                },
                recv(words.1) -> word => match word {
                    Ok(word) => sum += word.parse::<u64>().unwrap(),
                    Err(RecvError) => {
                        open[1] = false;
                        numbers.1.iter().for_each(|number| sum += number);
                        open[0] = false;
                    }
                },
                recv(ended) -> _ => unreachable!(),
            }
        }
        assert_eq!(sum, 2 * (4999 * 5000 / 2));
        os_threads.into_iter().for_each(|one| one.join().unwrap());
    });
}

#[test]
fn in_a_callback_only_what_does_not_wait() {
    fresh(|| {
        let (sender, receiver) = channel::unbounded();
        sender.send(1).unwrap();
        let answer = Promise::new();
        let theirs = answer.clone();
        hub::call_soon(move || {
            let got = select! { recv(receiver) -> n => n.ok(), default => None };
            let none = select! { recv(receiver) -> n => n.ok(), default => None };
            theirs.set((got, none)).unwrap();
        });
        assert_eq!(*answer.wait(), (Some(1), None));
    });
}
