//! After the hub's end: destructors of thread-locals that are older than the hub run, and use what they kept of it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use greenthread::future::block_on;
use greenthread::generator::{Generator, Yielder};
use greenthread::greenlet::{self, Greenlet};
use greenthread::io::Async;
use greenthread::net::{TcpListener, TcpStream};
use greenthread::sync::queue::{PriorityQueue, Queue};
use greenthread::sync::{Condvar, Event, Mutex, Promise, ReentrantLock, RwLock, Semaphore, channel};
use greenthread::time::Timeout;
use greenthread::{hub, sleep, spawn, spawn_local, thread, threadpool, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, text};

type Later = Box<dyn FnOnce() -> String>;

/// Runs what it was given after the hub's end, and says what came of it.
struct AtEnd(RefCell<Option<(Later, mpsc::Sender<String>)>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let Some((later, tell)) = self.0.take() else { return };
        // What was the hub's memory would be this by now.
        let spray: Vec<Vec<u64>> = (0..600).map(|n| vec![0x4141_4141_4141_4141; 8 + n]).collect();
        let said = catch_unwind(AssertUnwindSafe(later)).unwrap_or_else(|payload| text(&*payload));
        drop(spray);
        tell.send(said).unwrap();
    }
}

thread_local! {
    static AT_END: AtEnd = const { AtEnd(RefCell::new(None)) };
}

/// What `make`, which may use the hub, leaves for the time after the hub's end, says then.
fn after_the_hub(make: impl FnOnce() -> Later + Send + 'static) -> String {
    let (tell, told) = mpsc::channel();
    fresh(move || {
        AT_END.with(|_| ()); // before the hub is there, and so it ends after that
        yield_now();
        let later = make();
        AT_END.with(|at_end| *at_end.0.borrow_mut() = Some((later, tell)));
    });
    told.recv().unwrap()
}

thread_local! {
    static BACK: RefCell<Option<Greenlet<u32>>> = const { RefCell::new(None) };
}

/// Stops here, in the middle of whatever called this, the first time; see [`goes_on`].
fn hold() {
    if let Some(back) = BACK.try_with(RefCell::take).ok().flatten() {
        back.switch(0);
    }
}

/// What `body` says as it goes on after the hub's end, having stopped at [`hold`].
fn goes_on(body: impl FnOnce() -> String + Send + 'static) -> String {
    after_the_hub(move || {
        BACK.set(Some(greenlet::current::<u32>()));
        let said = Rc::new(RefCell::new(String::new()));
        let theirs = said.clone();
        let held = Greenlet::new(move |_: u32| {
            *theirs.borrow_mut() = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| text(&*payload));
            0
        });
        held.switch(0);
        assert!(!held.is_dead(), "it did not stop: {}", said.borrow());
        Box::new(move || {
            held.switch(0);
            said.take()
        })
    })
}

const ENDED: &str = "the hub of this OS thread has ended: this runs in a destructor of a thread-local";

/// Stops in the middle of a wake.
struct Holds;

impl Wake for Holds {
    fn wake(self: Arc<Self>) {
        hold();
    }
}

/// A pipe with two bytes in it whose reader is registered with the hub.
fn registered() -> (Async<std::io::PipeReader>, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let reader = Async::new(reader).unwrap();
    let writing = spawn(move || {
        writer.write_all(b"ab").unwrap();
        writer
    });
    reader.read_with(|mut pipe| pipe.read(&mut [0])).unwrap();
    (reader, writing.join().unwrap())
}

#[test]
fn a_generator_goes_on_in_an_operation_of_a_descriptor() {
    let said = goes_on(|| {
        let (reader, _writer) = registered();
        let got = reader.read_with(|mut pipe| {
            hold();
            pipe.read(&mut [0])
        });
        let waits = reader.read_with(|mut pipe| pipe.read(&mut [0])).unwrap_err();
        format!("{got:?}, {:?}", waits.kind())
    });
    assert_eq!(said, "Ok(1), NotConnected");
}

#[test]
fn a_generator_goes_on_in_an_operation_that_is_polled() {
    let said = goes_on(|| {
        let (reader, _writer) = registered();
        let mut context = Context::from_waker(Waker::noop());
        let got = reader.poll_read_with(&mut context, |_| {
            hold();
            Err::<(), _>(std::io::ErrorKind::WouldBlock.into())
        });
        match got {
            Poll::Ready(got) => format!("{:?}", got.map_err(|error| error.kind())),
            Poll::Pending => String::from("pending"),
        }
    });
    assert_eq!(said, "Err(NotConnected)");
}

#[test]
fn a_generator_goes_on_in_the_middle_of_a_registration() {
    /// Its number is asked for by `Async::new`, and then by the wait.
    struct Slow(std::io::PipeReader, Cell<u32>);
    impl std::os::fd::AsFd for Slow {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            if self.1.replace(self.1.get() + 1) > 0 {
                hold();
            }
            self.0.as_fd()
        }
    }
    let said = goes_on(|| {
        let (reader, _writer) = std::io::pipe().unwrap();
        let reader = Async::new(Slow(reader, Cell::new(0))).unwrap();
        let got = reader.read_with(|slow| (&slow.0).read(&mut [0]));
        format!("{:?}", got.map_err(|error| error.kind()))
    });
    assert_eq!(said, "Err(NotConnected)");
}

#[test]
fn a_generator_goes_on_in_a_waker_that_a_wait_calls() {
    // It is in line when it calls the waker of whoever it hands its message to.
    let said = goes_on(|| {
        let (sender, receiver) = channel::bounded::<u32>(0);
        let waker = Waker::from(Arc::new(Holds));
        let mut wanted = pin!(receiver.recv_async());
        assert!(wanted.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let sent = catch_unwind(AssertUnwindSafe(|| sender.send(7)));
        let got = wanted.poll(&mut Context::from_waker(Waker::noop()));
        format!(
            "{got:?}, {}",
            sent.map_or_else(|payload| text(&*payload), |sent| format!("{sent:?}"))
        )
    });
    assert!(
        said == "Ready(Ok(7)), Ok(())" || said == format!("Ready(Ok(7)), {ENDED}"),
        "{said}"
    );
}

#[test]
fn a_generator_goes_on_as_a_condvar_lets_go_of_its_mutex() {
    let said = goes_on(|| {
        let (mutex, changed) = (Mutex::new(1), Condvar::new());
        let waker = Waker::from(Arc::new(Holds));
        let guard = mutex.lock().unwrap();
        let mut wanted = pin!(mutex.lock_async());
        assert!(wanted.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(changed.wait(guard));
        String::from("waited")
    });
    assert_eq!(said, ENDED);
}

#[test]
fn a_generator_goes_on_in_block_on_and_in_select() {
    let said = goes_on(|| {
        block_on(poll_fn(|_| {
            hold();
            Poll::Ready("done")
        }))
        .into()
    });
    assert_eq!(said, "done");
    let said = goes_on(|| {
        block_on(poll_fn(|_| {
            hold();
            Poll::<String>::Pending
        }))
    });
    assert_eq!(said, ENDED);
}

#[test]
fn a_generator_goes_on_in_what_runs_its_closure() {
    let said = goes_on(|| {
        let result = timeout(secs(60), || {
            hold();
            thread::shield(|| thread::catch_kill(|| 7))
        });
        format!("{result:?}")
    });
    assert_eq!(said, "Ok(Ok(7))");
    let said = goes_on(|| {
        let limit = Timeout::new(secs(60));
        hold();
        format!("{:?}", limit.run(|| 7))
    });
    assert_eq!(said, "Ok(7)");
}

#[test]
fn a_generator_goes_on_in_the_order_of_a_queue() {
    #[derive(PartialEq, Eq)]
    struct Item(u32);
    impl PartialOrd for Item {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Item {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            hold();
            self.0.cmp(&other.0)
        }
    }
    let said = goes_on(|| {
        let queue = PriorityQueue::unbounded();
        queue.put(Item(2)).ok().unwrap();
        queue.put(Item(1)).ok().unwrap();
        format!("{:?}", queue.get().map(|item| item.0))
    });
    assert_eq!(said, "Ok(1)");
}

#[test]
fn a_greenlet_goes_on_in_the_hubs_observer() {
    let said = goes_on(|| {
        hub::set_hook(Some(Box::new(|event| {
            if let hub::Event::Park(_) = event {
                hold();
            }
        })));
        sleep(ms(1)); // parks: the observer runs here
        String::from("slept")
    });
    assert_eq!(said, "slept", "its park does not take place");
}

#[test]
fn a_generator_goes_on_too() {
    let said = after_the_hub(|| {
        let mut held = Generator::new(|y: &Yielder<'_, String>| {
            let (reader, _writer) = registered();
            let got = reader.read_with(|mut pipe| {
                y.yield_(String::from("held"));
                pipe.read(&mut [0])
            });
            y.yield_(format!("{got:?}"));
        });
        assert_eq!(held.next().as_deref(), Some("held"));
        Box::new(move || held.next().unwrap())
    });
    assert_eq!(said, "Ok(1)");
}

#[test]
fn what_is_dropped_after_the_hubs_end_unwinds_through_it() {
    struct Says(Rc<RefCell<Vec<&'static str>>>);
    impl Drop for Says {
        fn drop(&mut self) {
            self.0.borrow_mut().push("unwound");
        }
    }
    let said = after_the_hub(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = log.clone();
        let mut held = Generator::new(move |y: &Yielder<'_, ()>| {
            let _says = Says(theirs);
            let (reader, _writer) = registered();
            let _ = reader.read_with(|_| {
                y.yield_(());
                Ok(())
            });
        });
        held.next();
        Box::new(move || {
            drop(held);
            log.borrow().concat()
        })
    });
    assert_eq!(said, "unwound");
}

#[test]
fn hubs_whose_generators_are_forgotten_are_left_alone() {
    for _ in 0..20 {
        fresh(|| {
            let (reader, _writer) = registered();
            let reader = Rc::new(reader);
            let theirs = reader.clone();
            let mut held = Generator::new(move |y: &Yielder<'_, ()>| {
                let _ = theirs.read_with(|_| {
                    y.yield_(());
                    Ok(())
                });
            });
            held.next();
            std::mem::forget(held);
        });
        assert_eq!(fresh(|| spawn(|| 7).join().unwrap()), 7);
    }
}

#[test]
fn a_wake_that_was_due_at_the_hubs_end_comes() {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    fresh(move || {
        let mut green = spawn(|| ());
        assert!(pin!(&mut green).poll(&mut Context::from_waker(&waker)).is_pending());
        yield_now(); // it ends, and its joiner is to be woken in the next turn, which never comes
        assert!(green.is_finished());
    });
    assert!(woken.0.load(Ordering::SeqCst));
}

/// Something of the library's that is used after the hub's end: what it is called, and what comes of it.
type Use = (&'static str, &'static str, Later);

fn says(said: impl std::fmt::Debug) -> String {
    format!("{said:?}")
}

fn kind<T>(result: std::io::Result<T>) -> String {
    result.map_or_else(|error| says(error.kind()), |_| String::from("fine"))
}

fn used(name: &'static str, expected: &'static str, f: impl FnOnce() -> String + 'static) -> Use {
    (name, expected, Box::new(f))
}

/// It returns, and that is all.
fn returns(name: &'static str, f: impl FnOnce() + 'static) -> Use {
    used(name, "fine", || {
        f();
        String::from("fine")
    })
}

const NOT: &str = "NotConnected";

/// A job that lasts until what comes with it is dropped.
fn job() -> (threadpool::PoolFuture<()>, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    (threadpool::to_thread(move || _ = gate.recv()), open)
}

fn job_of(pool: &threadpool::ThreadPool) -> (threadpool::PoolFuture<()>, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    (pool.submit(move || _ = gate.recv()).unwrap(), open)
}

/// What waits no more, or need not: it gives what there is, and is late for the rest.
fn what_is_over_at_once() -> Vec<Use> {
    let mut green = spawn(thread::park);
    let theirs = hub::Hubs::new(1)
        .map(|hubs| (hubs.spawn(thread::park).unwrap(), hubs))
        .unwrap();
    let lost = spawn(thread::park);
    let (linked, waited) = (spawn(thread::park), [spawn(thread::park), spawn(thread::park)]);
    let (sender, receiver) = channel::bounded::<u32>(1);
    let mutex = Arc::new(Mutex::new(1));
    let rwlock = Arc::new(RwLock::new(1));
    let theirs_too = (mutex.clone(), rwlock.clone());
    drop(spawn_local(move || {
        let _held = (theirs_too.0.lock(), theirs_too.1.write());
        thread::park();
    }));
    yield_now();
    let limit = Timeout::new(secs(60));
    let slept = time::sleep_async(secs(60));
    let (mut late, open) = job();
    let pool = threadpool::ThreadPool::new(1);
    let (_first, open_pool) = job_of(&pool);
    let mut mapped = pool.map(0..1, |_| ()).unwrap().timeout(secs(60));
    let (other, open_other) = job();
    let mut completed = threadpool::as_completed([other]);
    let reentrant = ReentrantLock::new(1);
    let queue = Queue::<u32>::unbounded();
    let tick = channel::tick(ms(1));
    let ms1 = ms(1);
    let soon = std::time::Instant::now;
    vec![
        returns("sleep", move || sleep(ms1)),
        returns("sleep_async", move || block_on(time::sleep_async(secs(60)))),
        returns("sleep_async, of before", move || block_on(slept)),
        used("timeout_async", "(Ok(1), true)", || {
            let fine = block_on(time::timeout_async(secs(60), std::future::ready(1)));
            let late = block_on(time::timeout_async(secs(60), std::future::pending::<u32>()));
            says((fine, late.is_err()))
        }),
        returns("Interval", move || time::Interval::new(secs(60)).tick()),
        returns("sleep_until", move || time::sleep_until(soon() + secs(60))),
        returns("yield_now", yield_now),
        returns("park_timeout", move || thread::park_timeout(secs(60))),
        used("join_timeout", "true", move || {
            says(green.join_timeout(secs(60)).unwrap().unwrap_err().is_lost())
        }),
        used("join_timeout of another hub's", "true, true", move || {
            let (mut green, _hubs) = theirs;
            let late = green.join_timeout(secs(60)).is_none();
            format!("{late}, {}", green.join().unwrap_err().is_interrupted())
        }),
        used("join", "true", move || says(lost.join().unwrap_err().is_lost())),
        used("on_exit", "Err(true)", move || {
            let told = Arc::new(std::sync::Mutex::new(String::new()));
            let log = told.clone();
            linked.on_exit(move |ended| *log.lock().unwrap() = says(ended.map_err(|error| error.is_lost())));
            told.lock().unwrap().clone()
        }),
        used("iwait", "2", move || says(thread::iwait(waited).count())),
        used("recv_timeout", "Err(Timeout)", move || {
            says(receiver.recv_timeout(secs(60)).map(|_| drop(sender)))
        }),
        used("Mutex::lock_timeout", "true", move || {
            says(mutex.lock_timeout(secs(60)).is_err())
        }),
        used("RwLock::read_timeout", "true", move || {
            says(rwlock.read_timeout(secs(60)).is_err())
        }),
        used("Event::wait_timeout", "false", || {
            says(Event::new().wait_timeout(secs(60)))
        }),
        used("Condvar::wait_timeout", "true", || {
            let (mutex, changed) = (Mutex::new(1), Condvar::new());
            let waited = changed.wait_timeout(mutex.lock().unwrap(), secs(60)).unwrap();
            says(waited.1.timed_out())
        }),
        used("Semaphore::acquire_timeout", "true", || {
            says(Semaphore::new(0).acquire_timeout(secs(60)).is_none())
        }),
        used("Barrier and Promise", "None", || {
            says(Promise::<u32>::new().wait_timeout(secs(60)).copied())
        }),
        used("Queue::get_timeout", "true", move || {
            says(queue.get_timeout(secs(60)).is_err())
        }),
        used("tick, of before", "true", move || {
            says(tick.recv_timeout(secs(60)).is_err())
        }),
        used("select!", "late", || {
            let never = channel::never::<u32>();
            greenthread::select! {
                recv(never) -> _ => "came",
                after(secs(60)) => "late",
            }
            .into()
        }),
        used("timeout", "Ok(1)", move || says(timeout(ms1, || 1))),
        used("Timeout::run", "Ok(1)", move || {
            assert_eq!(limit.remaining(), std::time::Duration::MAX);
            says(limit.run(|| 1))
        }),
        used("shield, catch_kill", "Ok(1)", || {
            says(thread::shield(|| thread::catch_kill(|| 1)))
        }),
        used("block_on", "1", || says(block_on(async { 1 }))),
        used("PoolFuture::wait", "true, true", move || {
            let none = late.wait_timeout(secs(60)).is_none();
            let said = format!("{none}, {}", late.wait().unwrap_err().is_lost());
            drop(open);
            said
        }),
        used("Map::next", "true", move || {
            let said = says(mapped.next().unwrap().unwrap_err().is_timed_out());
            drop((open_pool, pool));
            said
        }),
        used("AsCompleted::next_timeout", "true", move || {
            let said = says(completed.next_timeout(secs(60)).is_none());
            drop(open_other);
            said
        }),
        used("unblock", "1", || says(threadpool::unblock(|| 1))),
        used("ReentrantLock", "2", move || {
            let guards = (reentrant.lock(), reentrant.try_lock().unwrap());
            says(*guards.0 + *guards.1)
        }),
        used("OnceLock, LazyLock", "(1, 2)", || {
            let once = greenthread::sync::OnceLock::new();
            says((*once.get_or_init(|| 1), *greenthread::sync::LazyLock::new(|| 2)))
        }),
        used("Promise::on_set", "Ok(())", || {
            let promise = Promise::new();
            promise.on_set(|_: &u32| unreachable!());
            says(promise.set(1))
        }),
        returns("PoolFuture::on_done_soon", || {
            threadpool::to_thread(|| 1).on_done_soon(|_| unreachable!())
        }),
        used("hub::idle, stop, shutdown", "Ok(())", || {
            hub::idle();
            hub::stop();
            says(hub::shutdown(secs(60)))
        }),
        used("live, next_deadline", "(0, None)", || {
            says((hub::live(), hub::next_deadline()))
        }),
        used("time::now", "true", || says(time::now() <= std::time::Instant::now())),
    ]
}

/// What gives an error.
fn what_is_an_error() -> Vec<Use> {
    let (reader, writer) = std::io::pipe().unwrap();
    let reader = Async::new(reader).unwrap();
    let _ = greenthread::io::wait_readable(&reader, Some(std::time::Duration::from_micros(1)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_read_timeout(Some(ms(1))).unwrap();
    let _ = listener.accept();
    let address = listener.local_addr().unwrap();
    let handle = hub::handle();
    vec![
        used("Async::read", NOT, move || {
            let read = kind((&reader).read(&mut [0]));
            drop(writer);
            read
        }),
        used("wait_readable", NOT, || {
            let (reader, _writer) = std::io::pipe().unwrap();
            kind(greenthread::io::wait_readable(&reader, None))
        }),
        used("accept", NOT, move || kind(listener.accept())),
        used("TcpStream::connect", NOT, || kind(TcpStream::connect("192.0.2.1:1"))),
        used("TcpStream::connect to several", NOT, move || {
            kind(TcpStream::connect(&[address, address][..]))
        }),
        used("Builder::spawn", NOT, || kind(thread::Builder::new().spawn(|| ()))),
        used("Handle::spawn, call_soon", NOT, move || {
            assert_eq!(kind(handle.spawn(|| ())), NOT);
            kind(handle.call_soon(|| ()))
        }),
        used("hub::as_fd", NOT, || kind(hub::as_fd())),
        used("hub::Builder::install", NOT, || kind(hub::Builder::new().install())),
        used("StreamServer::start", NOT, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            kind(greenthread::server::StreamServer::new(listener, |_, _| ()).start())
        }),
    ]
}

/// What can only panic: it needs a hub, or would have to wait for what may never come.
fn what_panics() -> Vec<Use> {
    let pool = threadpool::ThreadPool::new(1);
    let (slow, open) = job_of(&pool);
    greenthread::green_local! {
        static NUMBER: u32 = 1;
    }
    let refuses: [(&'static str, fn()); 20] = [
        ("green_local!", || NUMBER.with(|_| ())),
        ("aio::get_event_loop", || drop(greenthread::aio::get_event_loop())),
        ("spawn", || drop(spawn(|| ()))),
        ("spawn_local", || drop(spawn_local(|| ()))),
        ("thread::run", || thread::run(|| ())),
        ("scope", || thread::scope(|_| ())),
        ("future::spawn", || drop(greenthread::future::spawn(async {}))),
        ("thread::current", || drop(thread::current())),
        ("park", thread::park),
        ("hub::handle", || _ = hub::handle()),
        ("hub::call_soon", || hub::call_soon(|| ())),
        ("hub::run_forever", hub::run_forever),
        ("hub::turn", hub::turn),
        ("hub::set_hook", || hub::set_hook(None)),
        ("tick", || drop(channel::tick(ms(1)))),
        ("channel::after", || drop(channel::after(ms(1)))),
        ("recv", || _ = channel::never::<u32>().recv()),
        ("Event::wait", || Event::new().wait()),
        ("block_on", || block_on(std::future::pending())),
        ("dump", || drop(greenthread::debug::dump())),
    ];
    let refuses = refuses.into_iter().map(|(name, f)| {
        let panics = move || {
            f();
            String::from("it returns")
        };
        used(name, ENDED, panics)
    });
    let shutdown = used("ThreadPool::shutdown", ENDED, move || {
        let _open = (open, slow);
        pool.shutdown(true, false);
        String::from("it is done")
    });
    refuses.chain([shutdown]).collect()
}

/// Makes all, and uses each after the hub's end; what is not as expected.
fn surprises(make: fn() -> Vec<Use>) -> String {
    after_the_hub(move || {
        let all = make();
        assert!(!all.is_empty());
        Box::new(move || {
            let surprise = |(name, expected, f): Use| {
                let said = catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| text(&*payload));
                (said != expected).then(|| format!("{name}: {said}, not {expected}\n"))
            };
            all.into_iter().filter_map(surprise).collect()
        })
    })
}

#[test]
fn what_waits_is_over_at_once_after_the_hubs_end() {
    assert_eq!(surprises(what_is_over_at_once), "");
}

#[test]
fn what_can_give_an_error_does_after_the_hubs_end() {
    assert_eq!(surprises(what_is_an_error), "");
}

#[test]
fn what_can_do_neither_says_so_in_one_panic_after_the_hubs_end() {
    assert_eq!(surprises(what_panics), "");
}
