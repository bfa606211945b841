//! Things of the library that are kept in a thread-local that is older than the hub, used and dropped after the hub's
//! end: each of these returns an error or does what it can; none panics, crashes or hangs.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, pending};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cases::{Verdict, ms, text_of, watchdog};
use greenthread::*;

/// What was to be called at the very end panicked: its name, and the text.
static PANICS: Mutex<Vec<(&str, String)>> = Mutex::new(Vec::new());

struct Keep(RefCell<Vec<(&'static str, Box<dyn FnOnce()>)>>);

impl Drop for Keep {
    fn drop(&mut self) {
        for (name, f) in self.0.take() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
                PANICS.lock().unwrap().push((name, text_of(&*panic)));
            }
        }
    }
}

thread_local!(static KEEP: Keep = const { Keep(RefCell::new(Vec::new())) });

fn keep(name: &'static str, f: impl FnOnce() + 'static) {
    KEEP.with(|keep| keep.0.borrow_mut().push((name, Box::new(f))));
}

fn poll<F: Future>(future: F) -> bool {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut context).is_ready()
}

fn main() -> ExitCode {
    watchdog(ms(60_000));
    std::panic::set_hook(Box::new(|_| ()));
    for _ in 0..20 {
        std::thread::spawn(keep_all).join().unwrap();
    }
    let mut verdict = Verdict::default();
    for (name, text) in PANICS.lock().unwrap().iter() {
        verdict.holds(false, format_args!("{name} panics: {text}"));
    }
    verdict.holds(true, "nothing crashed");
    verdict.end()
}

fn keep_all() {
    KEEP.with(|_| ()); // its destructor is registered before the hub's
    threads();
    io();
    syncs();
    futures();
    stacks();
    calls();
    yield_now();
}

/// Handles of green threads and of hubs.
fn threads() {
    let handle = spawn(thread::park);
    keep("JoinHandle::join", move || {
        let _ = handle.join();
    });
    let mut handle = spawn(thread::park);
    keep("JoinHandle::join_timeout", move || {
        let _ = handle.join_timeout(ms(1));
    });
    let handle = spawn_local(thread::park);
    keep("JoinHandle::kill", move || handle.kill());
    let handle = spawn_local(thread::park);
    keep("on_exit", move || handle.on_exit(|_| ()));
    let native = thread::current();
    keep("unpark native", move || native.unpark());
    let hub_handle = hub::handle();
    keep("Handle::spawn", move || {
        assert!(hub_handle.spawn(|| ()).is_err());
        assert!(hub_handle.call_soon(|| ()).is_err());
    });
    let waiter = thread::iwait(vec![spawn(thread::park)]);
    keep("iwait", move || {
        let mut waiter = waiter;
        waiter.next();
    });
    let fd: Box<dyn Any> = Box::new(hub::as_fd().unwrap());
    keep("HubFd", move || drop(fd));
}

/// Streams.
fn io() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut reader = io::Async::new(reader).unwrap();
    let _ = io::wait_readable(&reader, Some(Duration::from_micros(1)));
    keep("Async read", move || {
        let _ = reader.read(&mut [0]);
        drop(writer);
    });
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_read_timeout(Some(ms(1))).unwrap();
    let _ = listener.accept();
    keep("accept", move || {
        let _ = listener.accept();
    });
}

/// Locks, channels and the like.
fn syncs() {
    let (sender, receiver) = sync::channel::bounded::<u32>(1);
    keep("recv_timeout", move || {
        let _ = receiver.recv_timeout(ms(1));
        drop(sender);
    });
    let lock = Arc::new(sync::Mutex::new(1));
    let handle = {
        let lock = lock.clone();
        spawn(move || {
            let _guard = lock.lock();
            thread::park()
        })
    };
    yield_now();
    keep("lock_timeout of a lost one's", move || {
        let _ = lock.lock_timeout(ms(1));
        drop(handle);
    });
    let promise = sync::Promise::<u32>::new();
    promise.on_set(|_| ());
    keep("Promise::set", move || {
        let _ = promise.set(1);
    });
    let event = sync::Event::new();
    keep("Event::wait_timeout", move || {
        event.wait_timeout(ms(1));
    });
    let reentrant = sync::ReentrantLock::new(1);
    keep("ReentrantLock", move || {
        drop(reentrant.lock());
    });
    let lazy: sync::LazyLock<u32> = sync::LazyLock::new(|| 1);
    keep("LazyLock", move || {
        assert_eq!(*lazy, 1);
    });
    let ticks = sync::channel::tick(ms(1));
    keep("tick", move || {
        let _ = ticks.recv_timeout(ms(1));
    });
}

/// Futures and time-outs.
fn futures() {
    let handle = future::spawn(pending::<()>());
    keep("Task::cancel", move || {
        handle.cancel();
        poll(handle);
    });
    let late = time::sleep_async(ms(60_000));
    keep("Sleep poll", move || {
        poll(late);
    });
    let time_out = time::Timeout::new(ms(60_000));
    keep("Timeout::run", move || {
        let _ = time_out.run(|| 1);
    });
    let time_out = time::Timeout::new(ms(60_000));
    keep("Timeout drop", move || {
        drop(time_out);
    });
    let time_out = time::Timeout::new(ms(60_000));
    keep("Timeout::remaining", move || {
        time_out.remaining();
    });
    let mut future = Box::pin(greenthread::future::asyncify(|| {
        greenthread::future::await_(pending::<()>())
    }));
    assert!(!poll(future.as_mut()));
    keep("Asyncify drop", move || drop(future));
    let mut future = Box::pin(greenthread::future::asyncify(|| {
        let _ = catch_unwind(|| greenthread::future::await_(pending::<()>()));
        sleep(ms(1));
    }));
    assert!(!poll(future.as_mut()));
    keep("Asyncify drop that sleeps", move || drop(future));
    let job = threadpool::to_thread(|| std::thread::sleep(ms(5)));
    keep("PoolFuture::wait", move || {
        let _ = job.wait();
    });
}

/// Stacks of their own.
fn stacks() {
    let mut generator = generator::Generator::new(|yielder| {
        let _time_out = time::Timeout::new(ms(1000));
        loop {
            yielder.yield_(1);
            let _ = catch_unwind(|| sleep(ms(1)));
        }
    });
    generator.next();
    keep("Generator with a Timeout", move || {
        generator.next();
        generator.next();
        drop(generator);
    });
    let mut generator = generator::Generator::new(|yielder| {
        thread::scope(|scope| {
            scope.spawn_local(|| ());
            yielder.yield_(1);
        });
    });
    generator.next();
    keep("Generator in a scope", move || drop(generator));
    let main = greenlet::current::<u32>();
    let greenlet = greenlet::Greenlet::new(move |value| {
        let _semaphore = sync::Semaphore::new(0);
        main.switch(value)
    });
    greenlet.switch(1);
    keep("Greenlet", move || drop(greenlet));
    let mut generator = generator::Generator::new(|yielder| {
        let _: Result<u32, _> = timeout(ms(9000), || {
            yielder.yield_(1);
            1
        });
        thread::shield(|| yielder.yield_(2));
        let _ = thread::catch_kill(|| yielder.yield_(3));
    });
    generator.next();
    keep("Generator in timeout, shield", move || {
        generator.next();
        generator.next();
        drop(generator)
    });
}

/// Functions without a receiver.
fn calls() {
    keep("sleep", || sleep(ms(1)));
    keep("yield_now", yield_now);
    keep("block_on", || future::block_on(async {}));
    keep("stream read", || {
        let _ = net::TcpStream::connect("127.0.0.1:1");
    });
}
