//! Native futures on the executors of others, and blocking code as a future there.
//!
//! tokio's many threads, its `LocalSet`, smol's executor and the plain `block_on` of `futures` each wait for the same
//! list of futures, while a hub on another OS thread, and that OS thread itself, bring about what they wait for.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel as std_channel;
use std::time::{Duration, Instant};

use async_executor::{Executor, LocalExecutor};
use compat::ms;
use futures::executor::block_on as plain;
use greenthread::future::{asyncify, asyncify_on, await_};
use greenthread::process::Command;
use greenthread::signal::{SIGWINCH, Signals};
use greenthread::sync::queue::Queue;
use greenthread::sync::{Barrier, Condvar, Event, Mutex, OnceLock, Promise, RwLock, Semaphore, channel};
use greenthread::threadpool::ThreadPool;
use greenthread::{hub, sleep};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

type Waits = Pin<Box<dyn Future<Output = ()> + Send>>;

fn waits(future: impl Future<Output = ()> + Send + 'static) -> Waits {
    Box::pin(future)
}

/// A hub, and what waits for things that happen there after 20 ms.
struct World {
    handle: hub::Handle,
    thread: std::thread::JoinHandle<()>,
    waits: Vec<(&'static str, Waits)>,
}

/// A hub on an OS thread of its own.
fn a_hub() -> (hub::Handle, std::thread::JoinHandle<()>) {
    let (tell, told) = std_channel();
    let thread = std::thread::spawn(move || {
        tell.send(hub::handle()).unwrap();
        hub::run_forever();
    });
    (told.recv().unwrap(), thread)
}

/// After a while, on the hub.
fn later(handle: &hub::Handle, f: impl FnOnce() + Send + 'static) {
    let begin = move || {
        sleep(ms(20));
        f();
    };
    drop(handle.spawn(begin).unwrap());
}

impl World {
    fn new() -> World {
        let (handle, thread) = a_hub();
        let mut world = World {
            handle,
            thread,
            waits: Vec::new(),
        };
        world.handles_and_jobs();
        world.locks();
        world.what_comes_once();
        world.what_carries_values();
        world.what_the_system_tells();
        world
    }

    fn add(&mut self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.waits.push((name, waits(future)));
    }

    fn handles_and_jobs(&mut self) {
        let handle = self.handle.clone();
        let green = handle.spawn(|| {
            sleep(ms(20));
            1
        });
        self.add("JoinHandle", async { assert_eq!(green.unwrap().await.unwrap(), 1) });
        let bad = handle.spawn(|| std::panic::resume_unwind(Box::new("quietly")));
        self.add("JoinHandle of a panic", async {
            assert!(bad.unwrap().await.unwrap_err().is_panic());
        });
        let task = handle.spawn_future(async {
            greenthread::time::sleep_async(ms(20)).await;
            2
        });
        self.add("Task", async { assert_eq!(task.unwrap().await.unwrap(), 2) });
        let (tell, told) = std_channel();
        let timer = move || tell.send(greenthread::time::sleep_async(ms(20))).unwrap();
        handle.call_soon(timer).unwrap();
        // The timer of that hub, waited for here.
        let timer = told.recv().unwrap();
        self.add("Sleep", timer);
        let blocking = asyncify_on(&handle, || {
            sleep(ms(20));
            await_(greenthread::time::sleep_async(ms(1)));
            3
        });
        self.add("asyncify_on", async { assert_eq!(blocking.unwrap().await.unwrap(), 3) });
        let pool = ThreadPool::new(1);
        let job = pool.submit(|| {
            std::thread::sleep(ms(20));
            4
        });
        self.add("PoolFuture", async move {
            assert_eq!(job.unwrap().await.unwrap(), 4);
            drop(pool);
        });
    }

    fn locks(&mut self) {
        let handle = self.handle.clone();
        let (tell, told) = std_channel();
        let (mutex, lock) = (Arc::new(Mutex::new(0)), Arc::new(RwLock::new(0)));
        let (theirs, their_lock) = (mutex.clone(), lock.clone());
        let hold = move || {
            let (mut value, mut other) = (theirs.lock().unwrap(), their_lock.write().unwrap());
            tell.send(()).unwrap();
            sleep(ms(20));
            (*value, *other) = (1, 1);
        };
        drop(handle.spawn(hold).unwrap());
        told.recv().unwrap();
        let theirs = mutex.clone();
        self.add(
            "Mutex",
            async move { assert_eq!(*theirs.lock_async().await.unwrap(), 1) },
        );
        let theirs = lock.clone();
        self.add("RwLock, reading", async move {
            assert_eq!(*theirs.read_async().await.unwrap(), 1);
        });
        self.add(
            "RwLock, writing",
            async move { *lock.write_async().await.unwrap() += 0 },
        );
        let semaphore = Arc::new(Semaphore::new(0));
        let theirs = semaphore.clone();
        later(&handle, move || theirs.add(1));
        self.add("Semaphore", async move { drop(semaphore.acquire_async().await) });
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = pair.clone();
        later(&handle, move || {
            *theirs.0.lock().unwrap() = true;
            theirs.1.notify_all();
        });
        self.add("Condvar", async move {
            let mut ready = pair.0.lock_async().await.unwrap();
            while !*ready {
                ready = pair.1.wait_async(ready).await.unwrap();
            }
        });
    }

    fn what_comes_once(&mut self) {
        let handle = self.handle.clone();
        let event = Arc::new(Event::new());
        let theirs = event.clone();
        later(&handle, move || theirs.set());
        self.add("Event", async move { event.wait_async().await });
        let promise = Promise::new();
        let theirs = promise.clone();
        later(&handle, move || theirs.set(5).unwrap());
        self.add("Promise", async move { assert_eq!(*promise.wait_async().await, 5) });
        let cell = Arc::new(OnceLock::new());
        let theirs = cell.clone();
        later(&handle, move || theirs.set(6).unwrap());
        self.add("OnceLock", async move { assert_eq!(*cell.wait_async().await, 6) });
        let barrier = Arc::new(Barrier::new(2));
        let theirs = barrier.clone();
        later(&handle, move || {
            theirs.wait();
        });
        self.add("Barrier", async move {
            barrier.wait_async().await;
        });
    }

    fn what_carries_values(&mut self) {
        let handle = self.handle.clone();
        let (sender, receiver) = channel::bounded(0);
        let (back, answers) = channel::bounded(1);
        let echo = move || receiver.iter().for_each(|n: u32| back.send(n + 1).unwrap());
        drop(handle.spawn(echo).unwrap());
        self.add("channels", async move {
            for n in 0..100 {
                sender.send_async(n).await.unwrap();
                assert_eq!(answers.recv_async().await, Ok(n + 1));
            }
        });
        let queue = Arc::new(Queue::bounded(1));
        let theirs = queue.clone();
        later(&handle, move || {
            for n in 0..100 {
                assert_eq!(theirs.get(), Ok(n));
                theirs.task_done().unwrap();
            }
        });
        self.add("queues", async move {
            for n in 0..100 {
                queue.put_async(n).await.unwrap();
            }
            queue.join_async().await;
        });
    }

    fn what_the_system_tells(&mut self) {
        let mut child = Command::new("sleep").arg("0.02").spawn().unwrap();
        self.add("a child", async move {
            assert!(child.wait_async().await.unwrap().success())
        });
        let signals = Signals::new([SIGWINCH]).unwrap();
        // SAFETY: somebody listens to it.
        later(&self.handle, || {
            assert_eq!(unsafe { libc::kill(libc::getpid(), SIGWINCH) }, 0)
        });
        self.add("a signal", async move {
            assert_eq!(signals.recv_async().await.unwrap(), SIGWINCH)
        });
    }

    fn end(self) {
        self.handle.stop().unwrap();
        self.thread.join().unwrap();
    }
}

/// The list in `run`'s executor: first all at once, on which it is told what was waited for, then one after the other.
fn polled_by(run: impl Fn(Vec<Waits>)) {
    for at_once in [true, false] {
        let mut world = World::new();
        let (tell, told) = std_channel();
        let named = std::mem::take(&mut world.waits).into_iter().map(|(name, future)| {
            let tell = tell.clone();
            waits(async move {
                future.await;
                tell.send(name).unwrap();
            })
        });
        let (start, all) = (Instant::now(), named.collect::<Vec<_>>());
        let count = all.len();
        if at_once {
            run(all);
        } else {
            all.into_iter().for_each(|future| run(vec![future]));
        }
        drop(tell);
        assert_eq!(told.iter().count(), count);
        assert!(start.elapsed() < ms(10_000), "{:?}", start.elapsed());
        world.end();
    }
}

fn many_threads() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn local() -> (Runtime, LocalSet) {
    (
        Builder::new_current_thread().enable_all().build().unwrap(),
        LocalSet::new(),
    )
}

#[test]
fn compat_native_futures_on_tokios_threads() {
    let runtime = many_threads();
    polled_by(|all| {
        runtime.block_on(async {
            let tasks: Vec<_> = all.into_iter().map(|future| tokio::spawn(future)).collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}

#[test]
fn compat_native_futures_on_tokios_local_set() {
    let (runtime, set) = local();
    polled_by(|all| {
        set.block_on(&runtime, async {
            let tasks: Vec<_> = all.into_iter().map(|future| tokio::task::spawn_local(future)).collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}

#[test]
fn compat_native_futures_on_smols_executor() {
    polled_by(|all| {
        let executor = Executor::new();
        let tasks: Vec<_> = all.into_iter().map(|future| executor.spawn(future)).collect();
        let (stop, stopped) = futures::channel::oneshot::channel::<()>();
        std::thread::scope(|scope| {
            let executor = &executor;
            // Another thread runs them, and this one.
            scope.spawn(move || plain(executor.run(stopped)));
            plain(executor.run(async {
                for task in tasks {
                    task.await;
                }
            }));
            drop(stop);
        });
    });
}

#[test]
fn compat_native_futures_on_the_plain_block_on() {
    polled_by(|all| all.into_iter().for_each(plain));
}

/// Who is dropped says so.
struct Tells(std::sync::mpsc::Sender<&'static str>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.send("unwound").unwrap();
    }
}

/// Blocking code, three calls deep, that waits for tokio's timer.
fn nap(n: u64) -> u64 {
    await_(tokio::time::sleep(ms(n)));
    n
}

#[test]
fn compat_blocking_code_on_a_local_set_takes_turns_and_is_timed_out() {
    let (runtime, set) = local();
    set.block_on(&runtime, async {
        let start = Instant::now();
        let sleepers: Vec<_> = (0..3)
            .map(|_| tokio::task::spawn_local(asyncify(|| nap(200) + nap(1))))
            .collect();
        for sleeper in sleepers {
            assert_eq!(sleeper.await.unwrap(), 201);
        }
        let took = start.elapsed();
        assert!(took >= ms(200) && took < ms(550), "three at once: {took:?}");
        // A time-out of tokio's drops it, and so unwinds its stack.
        let (tell, told) = std_channel();
        let endless = asyncify(move || {
            let _tells = Tells(tell);
            nap(3_600_000)
        });
        assert!(tokio::time::timeout(ms(20), endless).await.is_err());
        assert_eq!(told.try_recv(), Ok("unwound"));
        // So does the loser of a race.
        let (tell, told) = std_channel();
        let endless = asyncify(move || {
            let _tells = Tells(tell);
            nap(3_600_000)
        });
        tokio::select! {
            _ = endless => unreachable!("it sleeps for an hour"),
            n = asyncify(|| nap(20)) => assert_eq!(n, 20),
        }
        assert_eq!(told.try_recv(), Ok("unwound"));
        // And the abort of its task, at the task's next turn.
        let (tell, told) = std_channel();
        let endless = asyncify(move || {
            let _tells = Tells(tell);
            nap(3_600_000)
        });
        let task = tokio::task::spawn_local(endless);
        tokio::task::yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(told.try_recv(), Ok("unwound"));
    });
}

#[test]
fn compat_blocking_code_on_a_local_set_uses_what_tokio_has() {
    let (runtime, set) = local();
    set.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::task::spawn_local(asyncify(move || {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = await_(listener.accept()).unwrap();
            let mut text = [0; 5];
            await_(stream.read_exact(&mut text)).unwrap();
            await_(stream.write_all(&text)).unwrap();
            // A task of tokio's, spawned from the stack.
            await_(tokio::spawn(async { 7 })).unwrap()
        }));
        let client = asyncify(move || {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut stream = await_(tokio::net::TcpStream::connect(address)).unwrap();
            await_(stream.write_all(b"hello")).unwrap();
            let mut text = String::new();
            await_(stream.read_to_string(&mut text)).unwrap();
            text
        });
        assert_eq!(client.await, "hello");
        assert_eq!(server.await.unwrap(), 7);
    });
}

#[test]
fn compat_blocking_code_on_smols_local_executor() {
    let executor = LocalExecutor::new();
    let (send, receive) = channel::bounded(0);
    let sum = executor.spawn(asyncify(move || {
        let mut sum = 0;
        while let Ok(n) = await_(receive.recv_async()) {
            sum += n;
        }
        sum
    }));
    let numbers = Rc::new([1, 2, 3]);
    let sender = executor.spawn(asyncify(move || {
        numbers.iter().for_each(|n| await_(send.send_async(*n)).unwrap());
    }));
    assert_eq!(
        plain(executor.run(async {
            sender.await;
            sum.await
        })),
        6
    );
}

/// For tokio's many threads, the stack stays on a hub's: what comes of it is `Send`.
#[test]
fn compat_blocking_code_for_tokios_threads_runs_on_a_hub() {
    let (handle, thread) = a_hub();
    let runtime = many_threads();
    let start = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                let blocking = asyncify_on(&handle, move || {
                    sleep(ms(100));
                    n
                });
                tokio::spawn(blocking.unwrap())
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap().unwrap(), n);
        }
        // A time-out kills it there.
        let (tell, told) = std_channel();
        let endless = asyncify_on(&handle, move || {
            let _tells = Tells(tell);
            sleep(Duration::from_secs(3600));
        });
        assert!(tokio::time::timeout(ms(20), endless.unwrap()).await.is_err());
        assert_eq!(told.recv_timeout(ms(10_000)), Ok("unwound"));
    });
    assert!(start.elapsed() < ms(1900), "at once: {:?}", start.elapsed());
    handle.stop().unwrap();
    thread.join().unwrap();
}
