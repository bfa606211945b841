//! Code of the user on the hub's own stack: whatever it does, the hub goes on, and scopes hold.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::panic::panic_any;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use greenthread::generator::{Generator, Yielder};
use greenthread::io::{Async, wait_readable};
use greenthread::{green_local, hub, sleep, spawn, spawn_local, thread};

use crate::support::fresh::fresh;

/// Panics as it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as it is dropped");
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn payloads_that_panic_as_they_are_dropped_do_not_end_a_scope_early() {
    let sum = Cell::new(0);
    thread::scope(|s| {
        s.spawn_local(|| {
            sleep(ms(20));
            sum.set(sum.get() + 1);
        });
        hub::call_soon(|| panic_any(Bomb));
        drop(spawn(|| panic_any(Bomb)));
    });
    assert_eq!(sum.get(), 1);
}

#[test]
fn a_scope_in_a_callback_is_refused_before_it_has_children() {
    let ran = Rc::new(Cell::new(false));
    let theirs = ran.clone();
    hub::call_soon(move || {
        thread::scope(|_| theirs.set(true));
    });
    hub::idle();
    assert!(!ran.get());
    assert_eq!(spawn(|| 1).join().unwrap(), 1);
}

#[test]
fn locals_that_dying_locals_make_end_too() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    struct First;
    struct Second;
    impl Drop for First {
        fn drop(&mut self) {
            SECOND.with(|_| ());
        }
    }
    impl Drop for Second {
        fn drop(&mut self) {
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }
    green_local! {
        static FIRST: First = First;
        static SECOND: Second = Second;
    }
    spawn(|| FIRST.with(|_| ())).join().unwrap();
    assert_eq!(ENDED.load(Ordering::Relaxed), 1);
}

#[test]
fn a_shield_raised_by_a_green_thread_that_has_ended_is_nobodys() {
    let made = spawn_local(|| {
        let mut held = Generator::new(|y: &Yielder<'_, u32>| thread::shield(|| y.yield_(1)));
        held.next();
        held
    });
    let held = made.join().unwrap();
    let other = spawn_local(move || {
        drop(held);
        thread::park();
    });
    greenthread::yield_now();
    other.kill();
    assert!(other.join().unwrap_err().is_killed());
}

#[test]
fn asking_whether_a_descriptor_is_readable_leaves_its_registration_alone() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let reader = Async::new(reader).unwrap();
    let mut byte = [0];
    reader.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for round in 0..3 {
        let pair = writer.try_clone().unwrap();
        let writing = spawn(move || {
            sleep(ms(5));
            (&pair).write_all(b"x").unwrap();
        });
        match round {
            0 => {}
            1 => reader.readable().unwrap(),
            _ => wait_readable(&reader, Some(Duration::from_secs(10))).unwrap(),
        }
        assert_eq!(reader.read_with(|mut pipe| pipe.read(&mut byte)).unwrap(), 1);
        writing.join().unwrap();
    }
    spawn(move || {
        sleep(ms(5));
        writer.write_all(b"x").unwrap();
    });
    assert_eq!(reader.read_with(|mut pipe| pipe.read(&mut byte)).unwrap(), 1);
}

#[test]
fn a_pool_thread_survives_what_panics_as_it_is_dropped() {
    for _ in 0..2 * greenthread::threadpool::MAX {
        let waiter = spawn(|| {
            greenthread::threadpool::unblock(|| {
                std::thread::sleep(ms(2));
                Bomb
            })
        });
        greenthread::yield_now();
        waiter.kill();
        drop(waiter);
    }
    assert_eq!(greenthread::threadpool::unblock(|| 7), 7);
}

#[test]
fn wait_takes_its_waiters_back_when_it_need_not_park() {
    // It leaves a waiter with the parked one, sees that the other has ended, and does not park.
    let sleeper = spawn(thread::park);
    let ended = spawn(|| ());
    greenthread::yield_now();
    let (done, rest) = thread::wait(vec![sleeper, ended], None, 1);
    assert_eq!((done.len(), rest.len()), (1, 1));
    let start = std::time::Instant::now();
    rest[0].thread().unpark();
    sleep(ms(30));
    assert!(start.elapsed() >= ms(30));
    assert!(thread::join_all(rest).into_iter().all(|joined| joined.is_ok()));
}

#[test]
fn an_observer_may_arm_timers_and_wait_for_nothing_it_holds() {
    let (reader, writer) = std::io::pipe().unwrap();
    let armed = Arc::new(AtomicU32::new(0));
    let theirs = armed.clone();
    hub::set_hook(Some(Box::new(move |event| {
        if let hub::Event::Wake(_) = event {
            drop(greenthread::time::Timeout::new(ms(1000)));
            hub::handle().call_later(ms(1000), || ()).unwrap().cancel();
            hub::as_fd().unwrap();
            theirs.fetch_add(1, Ordering::Relaxed);
        }
    })));
    sleep(ms(2)); // woken by a timer
    let writing = spawn(move || (&writer).write_all(b"x").unwrap());
    wait_readable(&reader, Some(Duration::from_secs(10))).unwrap(); // and by a descriptor
    writing.join().unwrap();
    hub::set_hook(None);
    let armed = armed.load(Ordering::Relaxed);
    assert!(armed >= 2, "{armed} of the wakes armed");
}

#[test]
fn a_callback_that_is_left_by_a_switch_keeps_nobody_else_from_blocking() {
    use greenthread::greenlet::{self, Greenlet};
    thread_local! {
        static MAIN: RefCell<Option<Greenlet<u32>>> = const { RefCell::new(None) };
    }
    let left = Arc::new(AtomicBool::new(false));
    let theirs = left.clone();
    let green = spawn_local(move || {
        MAIN.set(Some(greenlet::current::<u32>()));
        let other = Greenlet::new(|n: u32| {
            sleep(ms(1)); // parks: the observer runs here
            n + 1
        });
        let seen = theirs.clone();
        hub::set_hook(Some(Box::new(move |event| {
            if let hub::Event::Park(_) = event
                && let Some(main) = MAIN.take()
            {
                main.switch(7);
                // Here again, on the stack of the callback.
                let refused = std::panic::catch_unwind(|| sleep(ms(1))).is_err();
                seen.store(refused, Ordering::Relaxed);
            }
        })));
        assert_eq!(other.switch(1), 7, "the observer left");
        assert!(hub::is_running());
        sleep(ms(1)); // not in a callback any more
        assert_eq!(spawn(|| 5).join().unwrap(), 5);
        let back = other.switch(2);
        hub::set_hook(None);
        (back, other.is_dead())
    });
    assert_eq!(green.join().unwrap(), (2, true));
    assert!(left.load(Ordering::Relaxed), "the callback itself may not block");
    assert_eq!(spawn(|| sleep(ms(1))).join().ok(), Some(()));
}

#[test]
fn a_wait_whose_root_changes_under_it_goes_on_in_the_new_one() {
    fresh(|| {
        // A generator waits; the descriptor's own `as_fd` yields from it, and another green thread takes it over.
        let (reader, writer) = std::io::pipe().unwrap();
        let first = spawn_local(move || {
            let mut held = Generator::new(move |y: &Yielder<'_, u32>| {
                let reader = Async::new(reader).unwrap();
                let moved = Mover {
                    reader,
                    yielder: y,
                    asked: Cell::new(0),
                };
                let moved = Async::new(moved).unwrap();
                let mut byte = [0];
                moved.read_with(|pipe| pipe.reader.get_ref().read(&mut byte)).unwrap();
                y.yield_(u32::from(byte[0]));
            });
            assert_eq!(held.next(), Some(0), "as_fd yields, in the middle of a wait");
            held
        });
        let mut held = first.join().unwrap();
        let second = spawn_local(move || held.next());
        greenthread::yield_now();
        assert!(!second.is_finished(), "it waits for the pipe, as the second");
        (&writer).write_all(b"x").unwrap();
        assert_eq!(second.join().unwrap(), Some(u32::from(b'x')));
    });
}

/// Its `as_fd` yields when a wait asks for it.
struct Mover<'a> {
    reader: Async<std::io::PipeReader>,
    yielder: &'a Yielder<'a, u32>,
    asked: Cell<u32>,
}

impl std::os::fd::AsFd for Mover<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.asked.set(self.asked.get() + 1);
        // The first time is `Async::new`, the second the wait.
        if self.asked.get() == 2 {
            self.yielder.yield_(0);
        }
        self.reader.as_fd()
    }
}

#[test]
fn an_open_file_that_left_from_another_os_thread_can_come_back() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let reader = Async::new(reader).unwrap();
    let mut byte = [0];
    assert!(greenthread::timeout(ms(2), || reader.read_with(|mut pipe| pipe.read(&mut byte))).is_err());
    // It is registered here; what leaves elsewhere cannot be taken out of this hub's poller.
    let back = std::thread::spawn(move || reader.into_inner().unwrap()).join().unwrap();
    let reader = Async::new(back).unwrap();
    let writing = spawn(move || {
        sleep(ms(2));
        writer.write_all(b"x").unwrap();
    });
    let mut byte = [0];
    assert_eq!(reader.read_with(|mut pipe| pipe.read(&mut byte)).unwrap(), 1);
    writing.join().unwrap();
}

#[test]
fn an_embedded_hub_rings_after_a_blocking_call_as_before() {
    let fd = hub::as_fd().unwrap();
    sleep(ms(1)); // blocks here, and not in the foreign loop
    let handle = hub::handle();
    let called = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let theirs = called.clone();
    let caller = std::thread::spawn(move || {
        let call = move || theirs.store(true, std::sync::atomic::Ordering::SeqCst);
        handle.call_soon(call).map(drop)
    });
    caller.join().unwrap().unwrap();
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "nobody rang");
    hub::turn();
    hub::turn();
    assert!(called.load(std::sync::atomic::Ordering::SeqCst));
}
