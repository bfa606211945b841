//! Values of the user that a hub has to drop: whatever their destructors do, the hub goes on, and each is dropped once.
//!
//! Every kind of message that carries one to a hub is here, and everything that is left with a hub when it ends.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};

use greenthread::hub::Handle;
use greenthread::io::Async;
use greenthread::sync::{Promise, channel};
use greenthread::time::{Timeout, sleep_async};
use greenthread::{hub, sleep, spawn, spawn_local, thread, threadpool, yield_now};

use crate::support::child;
use crate::support::fresh::{fresh, ms, secs};

#[derive(Clone, Copy, Debug)]
enum How {
    Panics,
    Blocks,
    Reenters,
}

impl How {
    const ALL: [How; 3] = [How::Panics, How::Blocks, How::Reenters];
}

/// What the user leaves somewhere.
struct Left(How, Arc<AtomicUsize>);

impl Drop for Left {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
        match self.0 {
            How::Panics => panic!("as it is dropped"),
            // In a callback, and after the hub's end, that is refused by a panic.
            How::Blocks => {
                sleep(ms(1));
                thread::park_timeout(ms(1));
                let (_sender, receiver) = channel::bounded::<()>(0);
                receiver.recv_timeout(ms(1)).unwrap_err();
                let _ = spawn_local(|| ()).join();
            }
            How::Reenters => {
                drop(Timeout::new(secs(1)));
                let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
                let near = Async::new(near).unwrap();
                let _ = near.poll_readable(&mut Context::from_waker(Waker::noop()));
                drop(near);
                if hub::is_running() {
                    hub::set_hook(None);
                    hub::call_soon(|| ());
                    drop(spawn(|| ()));
                    let _ = hub::handle().call_later(ms(1), || ());
                }
            }
        }
    }
}

impl Wake for Left {
    fn wake(self: Arc<Self>) {}
}

impl Left {
    fn waker(self) -> Waker {
        Waker::from(Arc::new(self))
    }
}

/// Does `f` on an OS thread without a hub, while this hub does not turn.
fn elsewhere<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    std::thread::spawn(f).join().unwrap()
}

fn from_elsewhere(f: impl FnOnce(Handle) + Send + 'static) {
    let handle = hub::handle();
    elsewhere(move || f(handle));
}

fn polled(future: Pin<&mut impl Future>, waker: Waker) {
    assert!(future.poll(&mut Context::from_waker(&waker)).is_pending());
}

type Carry = fn(Left);

/// By name: how a value comes to a hub that runs.
const CARRIED: [(&str, Carry); 16] = [
    ("a call", |left| {
        from_elsewhere(|hub| drop(hub.call_soon(move || drop(left))))
    }),
    ("a call that is called off", |left| {
        from_elsewhere(|hub| hub.call_soon(move || drop(left)).unwrap().cancel());
    }),
    ("a call for later", |left| {
        from_elsewhere(|hub| drop(hub.call_later(ms(0), move || drop(left))));
    }),
    ("a call at a time", |left| {
        from_elsewhere(|hub| drop(hub.call_at(std::time::Instant::now(), move || drop(left))));
    }),
    ("a green thread", |left| {
        from_elsewhere(|hub| drop(hub.spawn(move || drop(left))))
    }),
    ("a green thread that is killed first", |left| {
        from_elsewhere(|hub| hub.spawn(move || drop(left)).unwrap().kill());
    }),
    ("a green thread's result", |left| {
        from_elsewhere(|hub| drop(hub.spawn(move || left)))
    }),
    ("a green thread's panic", |left| {
        from_elsewhere(|hub| drop(hub.spawn(move || std::panic::panic_any(left))));
    }),
    ("a future", |left| {
        from_elsewhere(|hub| drop(hub.spawn_future(async move { drop(left) })))
    }),
    ("a future that is killed first", |left| {
        from_elsewhere(|hub| hub.spawn_future(async move { drop(left) }).unwrap().cancel());
    }),
    ("the waker of a socket that is dropped elsewhere", |left| {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Async::new(near).unwrap();
        let waker = left.waker();
        assert!(socket.poll_readable(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        elsewhere(move || drop((socket, far)));
    }),
    ("the waker of a wait that is dropped elsewhere", |left| {
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket: &'static _ = Box::leak(Box::new(Async::new(near).unwrap()));
        let mut wait = Box::pin(socket.readable_async());
        polled(wait.as_mut(), left.waker());
        elsewhere(move || drop(wait));
    }),
    ("the waker of a join", |left| {
        let mut green = spawn(|| ());
        polled(pin!(&mut green), left.waker());
        yield_now();
    }),
    ("an exit link", |left| spawn(|| ()).on_exit(move |_| drop(left))),
    ("what a promise calls", |left| {
        let promise = Promise::new();
        promise.on_set(move |_| drop(left));
        elsewhere(move || promise.set(1).unwrap());
    }),
    ("what a job calls", |left| {
        threadpool::to_thread(|| ()).on_done_soon(move |_| drop(left))
    }),
];

#[test]
fn whatever_is_dropped_for_the_user_the_hub_goes_on() {
    for (name, carry) in CARRIED {
        for how in How::ALL {
            let drops = Arc::new(AtomicUsize::new(0));
            let left = Left(how, drops.clone());
            fresh(move || {
                // A ticker sees that it never stands still.
                let ticks = spawn_local(|| (0..3).for_each(|_| sleep(ms(1))));
                carry(left);
                let start = std::time::Instant::now();
                while drops.load(Ordering::SeqCst) == 0 {
                    assert!(start.elapsed() < secs(20), "{name}, {how:?}: it is never dropped");
                    sleep(ms(1));
                }
                ticks.join().unwrap();
                assert_eq!(spawn(|| 7).join().unwrap(), 7, "{name}, {how:?}");
                assert_eq!(drops.load(Ordering::SeqCst), 1, "{name}, {how:?}");
            });
        }
    }
}

/// By name: what is left with a hub that ends.
const LEFT: [(&str, Carry); 9] = [
    ("a call", |left| {
        from_elsewhere(|hub| drop(hub.call_soon(move || drop(left))))
    }),
    ("a call of its own", |left| hub::call_soon(move || drop(left))),
    ("a call for later", |left| {
        drop(hub::handle().call_later(secs(60), move || drop(left)))
    }),
    ("a green thread", |left| {
        from_elsewhere(|hub| drop(hub.spawn(move || drop(left))))
    }),
    ("a future", |left| {
        from_elsewhere(|hub| drop(hub.spawn_future(async move { drop(left) })))
    }),
    ("an observer", |left| hub::set_hook(Some(Box::new(move |_| _ = &left)))),
    ("an exit link", |left| {
        let green = spawn(thread::park);
        yield_now();
        green.on_exit(move |_| drop(left));
    }),
    ("the waker of a socket", |left| {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Async::new(near).unwrap();
        let waker = left.waker();
        assert!(socket.poll_readable(&mut Context::from_waker(&waker)).is_pending());
        std::mem::forget((socket, far));
    }),
    ("the waker of a sleep", |left| {
        let mut sleep = Box::pin(sleep_async(secs(60)));
        polled(sleep.as_mut(), left.waker());
        std::mem::forget(sleep);
    }),
];

#[test]
fn whatever_is_left_with_a_hub_that_ends_is_dropped() {
    for (name, leave) in LEFT {
        for how in How::ALL {
            let drops = Arc::new(AtomicUsize::new(0));
            // Two of each, but for the observer: a second panic must not meet the first.
            let count = if name == "an observer" { 1 } else { 2 };
            let left: Vec<_> = (0..count).map(|_| Left(how, drops.clone())).collect();
            fresh(move || left.into_iter().for_each(leave));
            assert_eq!(drops.load(Ordering::SeqCst), count, "{name}, {how:?}");
        }
    }
}

#[test]
fn whoever_joins_is_told_that_a_green_thread_is_lost_whatever_its_closure_does() {
    for how in How::ALL {
        let drops = Arc::new(AtomicUsize::new(0));
        let left = Left(how, drops.clone());
        let (tell, told) = std::sync::mpsc::channel();
        fresh(move || from_elsewhere(move |hub| tell.send(hub.spawn(move || drop(left)).unwrap()).unwrap()));
        let joined = told.recv().unwrap();
        assert!(joined.join().unwrap_err().is_lost());
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn an_observer_that_replaces_itself_goes_as_a_callback() {
    for how in How::ALL {
        let drops = Arc::new(AtomicUsize::new(0));
        let left = Left(how, drops.clone());
        fresh(move || {
            hub::set_hook(Some(Box::new(move |event| {
                let _left = &left;
                if event == hub::Event::Turn {
                    hub::set_hook(None);
                }
            })));
            sleep(ms(1));
            assert_eq!(drops.load(Ordering::SeqCst), 1);
            assert_eq!(spawn(|| 7).join().unwrap(), 7);
        });
    }
}

/// In a process of its own, for it has one panic hook, and one list of event loops.
pub(crate) fn under_locks() {
    for how in How::ALL {
        let drops = Arc::new(AtomicUsize::new(0));
        let left = Left(how, drops.clone());
        fresh(move || {
            struct Again(Option<Left>);
            impl Drop for Again {
                fn drop(&mut self) {
                    hub::set_panic_hook(None::<fn(&str, &(dyn std::any::Any + Send))>);
                    drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        drop(self.0.take())
                    })));
                }
            }
            let again = Again(Some(left));
            hub::set_panic_hook(Some(move |_: &str, _: &(dyn std::any::Any + Send)| _ = &again));
            hub::set_panic_hook(Some(|_: &str, _: &(dyn std::any::Any + Send)| ()));
        });
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        // The panic hook runs on the hub's own stack, and goes there.
        let drops = Arc::new(AtomicUsize::new(0));
        let left = Left(how, drops.clone());
        fresh(move || {
            hub::set_panic_hook(Some(move |_: &str, _: &(dyn std::any::Any + Send)| {
                let _left = &left;
                hub::set_panic_hook(None::<fn(&str, &(dyn std::any::Any + Send))>);
                sleep(ms(1));
            }));
            hub::call_soon(|| panic!("to be reported"));
            sleep(ms(1));
            assert_eq!(spawn(|| 7).join().unwrap(), 7);
        });
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        a_dead_loop_goes(how);
    }
}

/// What the user left in an event loop whose hub has ended is dropped where the list of loops is not locked.
fn a_dead_loop_goes(how: How) {
    use greenthread::aio;
    struct Looks(Option<Left>);
    impl Drop for Looks {
        fn drop(&mut self) {
            drop(aio::get_event_loop());
            drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                drop(self.0.take())
            })));
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let looks = Looks(Some(Left(how, drops.clone())));
    fresh(move || {
        let event_loop = aio::get_event_loop();
        event_loop.set_exception_handler(Some(move |_: &aio::ExceptionContext| _ = &looks));
        sleep(ms(1));
    });
    fresh(|| drop(aio::get_event_loop()));
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_replaced_is_dropped_where_nothing_is_locked() {
    let ended = child::run("drops under locks");
    assert!(ended.ok, "{ended:?}");
}

/// In a process of little address space: green threads that another OS thread sends, and no memory for their stacks.
pub(crate) fn without_memory() {
    fresh(|| {
        let (handle, (ask, asked), (tell, told)) = (hub::handle(), mpsc::channel::<Left>(), mpsc::channel());
        // It has its own stack already.
        let other = std::thread::spawn(move || {
            for left in asked {
                tell.send(handle.spawn(move || drop(left)).unwrap()).unwrap();
            }
        });
        let mut parked = Vec::with_capacity(10_000);
        // Small enough to stay with malloc when it is given back: what is not a stack finds room there.
        let reserve: Vec<_> = (0..4_000).map(|_| vec![0_u8; 1_000]).collect();
        while let Ok(green) = thread::Builder::new()
            .stack_size(greenthread::stack::DEFAULT_SIZE)
            .spawn_local(thread::park)
        {
            parked.push(green);
            assert!(parked.len() < 10_000, "no limit");
        }
        drop(reserve);
        for how in How::ALL {
            let drops = Arc::new(AtomicUsize::new(0));
            ask.send(Left(how, drops.clone())).unwrap();
            let green = told.recv().unwrap();
            assert!(green.join().unwrap_err().is_lost());
            assert_eq!(drops.load(Ordering::SeqCst), 1, "{how:?}");
        }
        let green = parked.pop().unwrap();
        green.thread().unpark();
        green.join().unwrap();
        assert_eq!(spawn(|| 7).join().unwrap(), 7);
        drop(ask);
        other.join().unwrap();
        parked.iter().for_each(|green| green.thread().unpark());
        assert!(thread::join_all(parked).iter().all(Result::is_ok));
    });
}

#[test]
fn a_green_thread_that_gets_no_stack_is_lost_and_its_closure_dropped_as_a_callback() {
    if cfg!(target_env = "musl") {
        return println!("not here: musl's malloc unmaps what is freed, so there is room for a stack");
    }
    let ended = child::run_with_memory("drops without memory", 600 * 1024);
    assert!(ended.ok, "{ended:?}");
}
