//! Crates that call the system by rustix, with its feature `use-libc`: they wait in their turn. The hub's own calls,
//! which are rustix's too, go on as before.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use compat::{at_once, ms, patched};
use greenthread::net::{TcpListener, TcpStream};
use greenthread::{JoinHandle, spawn, yield_now};
use polling::{Event, Events, Poller};

#[test]
fn rustix_waits() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::thread::{NanosleepRelativeResult, nanosleep};
    patched(|| {
        at_once(ms(50), |_| {
            let time = Timespec {
                tv_sec: 0,
                tv_nsec: 50_000_000,
            };
            assert!(matches!(nanosleep(&time), NanosleepRelativeResult::Ok));
        });
        at_once(ms(50), |_| {
            let (near, mut far) = UnixStream::pair().unwrap();
            let writer = spawn(move || {
                std::thread::sleep(ms(50));
                far.write_all(b"x").unwrap();
                far
            });
            assert_eq!(poll(&mut [PollFd::new(&near, PollFlags::IN)], None), Ok(1));
            let mut byte = [0];
            assert_eq!(rustix::io::read(&near, &mut byte), Ok(1));
            drop(writer.join().unwrap());
        });
    });
}

#[test]
fn polling_waits() {
    patched(|| {
        at_once(ms(50), |_| {
            let poller = Poller::new().unwrap();
            let (near, mut far) = UnixStream::pair().unwrap();
            // SAFETY: deleted before it is closed.
            unsafe { poller.add(&near, Event::readable(7)).unwrap() };
            let writer = spawn(move || {
                std::thread::sleep(ms(50));
                far.write_all(b"x").unwrap();
                far
            });
            let mut events = Events::new();
            assert_eq!(poller.wait(&mut events, None).unwrap(), 1);
            poller.delete(&near).unwrap();
            drop(writer.join().unwrap());
        });
        at_once(ms(50), |_| {
            let poller = Arc::new(Poller::new().unwrap());
            assert_eq!(poller.wait(&mut Events::new(), Some(ms(50))).unwrap(), 0);
            // Its bell, which another rings.
            let theirs = poller.clone();
            let ringer = spawn(move || theirs.notify().unwrap());
            assert_eq!(poller.wait(&mut Events::new(), None).unwrap(), 0);
            ringer.join().unwrap();
        });
    });
}

#[test]
fn async_io_and_smol_wait() {
    patched(|| {
        at_once(ms(50), |_| async_io::block_on(async { _ = Timer::after(ms(50)).await }));
        at_once(ms(50), |n| {
            let (near, mut far) = UnixStream::pair().unwrap();
            let writer = spawn(move || {
                std::thread::sleep(ms(50));
                far.write_all(&[n as u8]).unwrap();
            });
            let near = Async::new(near).unwrap();
            let mut byte = [0];
            let read = near.read_with(|mut near| near.read(&mut byte));
            assert_eq!(async_io::block_on(read).unwrap(), 1);
            writer.join().unwrap();
            assert_eq!(byte, [n as u8]);
        });
        at_once(ms(50), |_| {
            smol::block_on(async {
                let slow = smol::spawn(async { _ = smol::Timer::after(ms(50)).await });
                slow.await;
            });
        });
    });
}

/// Runs beside what it is told of, and counts its turns.
struct Beside {
    turns: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Beside {
    fn new() -> Beside {
        let (turns, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ends) = (turns.clone(), stop.clone());
        let thread = spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                count.fetch_add(1, Ordering::SeqCst);
                yield_now();
            }
        });
        yield_now();
        Beside { turns, stop, thread }
    }

    fn turns(&self) -> u32 {
        self.turns.load(Ordering::SeqCst)
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

/// A patched accept gives way, and a patched call takes from the budget; this crate's own calls are neither.
#[test]
fn the_hub_s_own_calls_are_not_patched() {
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..20)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let beside = Beside::new();
        let before = beside.turns();
        let accepted: Vec<TcpStream> = (0..20).map(|_| listener.accept().unwrap().0).collect();
        assert_eq!(beside.turns(), before, "all were there: nobody had to wait");
        beside.end();
        drop((clients, accepted));
    });
}

/// Wakes from another hub, by a bell that is rung under a lock, while both are busy with patched calls.
#[test]
fn hubs_wake_each_other() {
    patched(|| {
        let start = Instant::now();
        let (there, told) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            greenthread::run(move || {
                there.send(greenthread::hub::handle()).unwrap();
                std::thread::sleep(ms(300));
            });
        });
        let there = told.recv().unwrap();
        let sleepers: Vec<_> = (0..50)
            .map(|_| spawn(|| (0..50).for_each(|_| std::thread::sleep(ms(1)))))
            .collect();
        let callers: Vec<_> = (0..20)
            .map(|_| {
                let there = there.clone();
                spawn(move || {
                    for n in 0..20 {
                        let answer = there.spawn(move || {
                            std::thread::sleep(Duration::from_micros(100));
                            n
                        });
                        assert_eq!(answer.unwrap().join().unwrap(), n);
                    }
                })
            })
            .collect();
        callers.into_iter().chain(sleepers).for_each(|one| one.join().unwrap());
        other.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(20));
    });
}
