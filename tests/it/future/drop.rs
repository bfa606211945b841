//! Futures that are dropped at every point where they may be: before the first poll, at each await, when what they wait
//! for is theirs and they have not come for it, and at the end. Each in four hosts, of which each drops in its own way.
//!
//! Whatever the point: who waits behind it gets what it left, nothing is lost or there twice, and no waker is kept.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use greenthread::future::{Task, asyncify, await_, block_on, spawn, with_async};
use greenthread::io::Async;
use greenthread::net::{TcpListener, TcpStream, UdpSocket};
use greenthread::sync::queue::{LifoQueue, Queue};
use greenthread::sync::select::Select;
use greenthread::sync::{
    Barrier, BoundedSemaphore, Condvar, Event, Mutex, Once, OnceLock, Promise, RwLock, Semaphore, channel,
};
use greenthread::threadpool::ThreadPool;
use greenthread::time::sleep_async;
use greenthread::{JoinHandle, hub, spawn_local, stack, thread, timeout, yield_now};

use crate::support::fresh::{green, ms, secs, until, virtually};

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

/// Counts the wakes.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future that is polled by hand.
struct Polled(Option<Boxed>, Arc<Count>);

impl Polled {
    fn new(future: impl Future<Output = ()> + 'static) -> Polled {
        Polled(Some(Box::pin(future)), Arc::default())
    }

    /// Polls, if it has not ended; each time with a waker of its own, as an executor may.
    fn poll(&mut self) {
        let waker = Waker::from(self.1.clone());
        if let Some(future) = &mut self.0
            && future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        {
            self.0 = None;
        }
    }

    /// It is woken, and then ready.
    fn comes(mut self) {
        assert!(self.1.0.load(Ordering::SeqCst) > 0, "nobody woke the next");
        self.poll();
        assert!(self.0.is_none(), "the next did not get it");
    }

    fn still_waits(&mut self) {
        self.poll();
        assert!(self.0.is_some(), "the next got what was not there");
    }

    fn drop_and_check(mut self) {
        self.0 = None;
        assert_eq!(Arc::strong_count(&self.1), 1, "a waker is kept");
    }
}

#[derive(Clone, Copy, Debug)]
enum Host {
    ByHand,
    Asyncify,
    Task,
    Green,
}

/// A future under way in its host.
enum Running {
    Polled(Polled),
    Task(Option<Task<()>>),
    Green(Option<JoinHandle<()>>),
}

impl Host {
    const ALL: [Host; 4] = [Host::ByHand, Host::Asyncify, Host::Task, Host::Green];

    fn start(self, future: Boxed) -> Running {
        match self {
            Host::ByHand => Running::Polled(Polled::new(future)),
            Host::Asyncify => Running::Polled(Polled::new(asyncify(|| await_(future)))),
            Host::Task => Running::Task(Some(spawn(future))),
            Host::Green => Running::Green(Some(spawn_local(|| block_on(future)))),
        }
    }
}

impl Running {
    fn poll(&mut self) {
        match self {
            Running::Polled(polled) => polled.poll(),
            Running::Task(_) | Running::Green(_) => (0..4).for_each(|_| yield_now()),
        }
    }

    fn drop_and_check(self) {
        match self {
            Running::Polled(polled) => polled.drop_and_check(),
            Running::Task(mut task) => {
                let task = task.take().unwrap();
                task.cancel();
                let _ = task.join();
            }
            Running::Green(mut green) => {
                let green = green.take().unwrap();
                green.kill();
                let _ = green.join();
            }
        }
    }
}

/// What is done between the polls.
type Step = Box<dyn FnOnce()>;

struct Case {
    future: Boxed,
    steps: Vec<Step>,
    /// What must hold in the end, given whether the future came to its own.
    check: Box<dyn FnOnce(bool)>,
}

/// A case of `future`, which is told when it is done, and `steps`, the first of which may be no more than another poll.
fn case(future: impl Future<Output = ()> + 'static, steps: Vec<Step>, check: impl FnOnce(bool) + 'static) -> Case {
    Case {
        future: Box::pin(future),
        steps,
        check: Box::new(check),
    }
}

fn step(f: impl FnOnce() + 'static) -> Step {
    Box::new(f)
}

/// Polls, does the first step, polls, does the second ..., and drops after `point` of these; then does what is left.
fn cut(host: Host, point: usize, case: Case) -> bool {
    let done = Rc::new(Cell::new(false));
    let theirs = done.clone();
    let future = async move {
        case.future.await;
        theirs.set(true);
    };
    let mut running = host.start(Box::pin(future));
    let mut steps = case.steps.into_iter();
    for n in 0..point {
        if n % 2 == 0 {
            running.poll();
        } else {
            steps.next().unwrap()();
        }
    }
    running.drop_and_check();
    steps.for_each(|step| step());
    (case.check)(done.get());
    done.get()
}

/// Cuts it at every point, in every host.
fn at_every_point(make: impl Fn() -> Case + Send + Copy + 'static) {
    for host in Host::ALL {
        virtually(move || {
            for point in 0.. {
                let stacks = stack::stats().in_use;
                let case = make();
                let last = case.steps.len() * 2 + 1;
                let done = cut(host, point, case);
                assert!(done || point < last, "{host:?}: it never ends");
                assert!(!done || point > 0, "{host:?}: it ends before it is polled");
                hub::idle();
                assert_eq!(hub::live(), 0, "{host:?}, {point}");
                // The runners of stackless tasks are kept.
                assert!(stack::stats().in_use <= stacks + 1, "{host:?}, {point}");
                if point == last {
                    break;
                }
            }
        });
    }
}

#[test]
fn drop_of_a_wait_for_a_permit() {
    at_every_point(|| {
        let semaphore = Arc::new(Semaphore::new(0));
        let take = |semaphore: &Arc<Semaphore>| {
            let semaphore = semaphore.clone();
            async move { drop(semaphore.acquire_async().await) }
        };
        let mut next = Polled::new(take(&semaphore));
        let (theirs, asked) = (semaphore.clone(), take(&semaphore));
        let wait_behind = Rc::new(Cell::new(None));
        let behind = wait_behind.clone();
        let steps = vec![
            step(move || {
                next.still_waits();
                behind.set(Some(next));
            }),
            step(move || theirs.add(1)),
        ];
        case(asked, steps, move |_| {
            wait_behind.take().unwrap().comes();
            assert_eq!(semaphore.available(), 1);
        })
    });
}

#[test]
fn drop_of_a_wait_for_a_bounded_permit() {
    at_every_point(|| {
        let semaphore = Arc::new(BoundedSemaphore::new(1));
        semaphore.acquire().forget();
        let (mine, theirs) = (semaphore.clone(), semaphore.clone());
        let take = async move { drop(mine.acquire_async().await) };
        let steps = vec![step(move || semaphore.release().unwrap())];
        case(take, steps, move |_| {
            assert_eq!(theirs.available(), 1);
            assert!(theirs.release().is_err());
        })
    });
}

/// A lock that `hold` holds until the last step: who is in line behind gets it, however `wait` ended.
fn lock<L: 'static, G: 'static>(
    lock: L,
    hold: impl FnOnce(&'static L) -> G + 'static,
    wait: impl AsyncFnOnce(&L) + 'static,
    next: impl AsyncFnOnce(&L) + 'static,
    is_free: impl Fn(&L) -> bool + 'static,
) -> Case {
    // Leaked, for a guard among the steps.
    let lock: &'static L = Box::leak(Box::new(lock));
    let held = hold(lock);
    let mut next = Polled::new(async move { next(lock).await });
    let line = Rc::new(Cell::new(None));
    let behind = line.clone();
    let steps = vec![
        step(move || {
            next.still_waits();
            behind.set(Some(next));
        }),
        step(move || drop(held)),
    ];
    case(async move { wait(lock).await }, steps, move |_| {
        line.take().unwrap().comes();
        assert!(is_free(lock));
    })
}

#[test]
fn drop_of_a_wait_for_a_mutex() {
    at_every_point(|| {
        lock(
            Mutex::new(()),
            |lock| lock.lock().unwrap(),
            async |lock: &Mutex<()>| drop(lock.lock_async().await.unwrap()),
            async |lock: &Mutex<()>| drop(lock.lock_async().await.unwrap()),
            |lock| !lock.is_locked() && !lock.is_poisoned(),
        )
    });
}

#[test]
fn drop_of_a_wait_for_a_read_write_lock() {
    let is_free = |lock: &RwLock<()>| lock.try_write().is_ok();
    at_every_point(move || {
        lock(
            RwLock::new(()),
            |lock| lock.write().unwrap(),
            async |lock: &RwLock<()>| drop(lock.read_async().await.unwrap()),
            async |lock: &RwLock<()>| drop(lock.write_async().await.unwrap()),
            is_free,
        )
    });
    at_every_point(move || {
        lock(
            RwLock::new(()),
            |lock| lock.write().unwrap(),
            async |lock: &RwLock<()>| drop(lock.write_async().await.unwrap()),
            async |lock: &RwLock<()>| drop(lock.read_async().await.unwrap()),
            is_free,
        )
    });
}

#[test]
fn drop_of_a_writer_in_line_lets_the_readers_behind_it_in() {
    virtually(|| {
        let lock = Rc::new(RwLock::new(()));
        let held = lock.read().unwrap();
        let (writes, reads) = (lock.clone(), lock.clone());
        let mut writer = Polled::new(async move { drop(writes.write_async().await) });
        let mut reader = Polled::new(async move { drop(reads.read_async().await) });
        writer.still_waits();
        reader.still_waits();
        writer.drop_and_check();
        reader.comes();
        drop(held);
    });
}

#[test]
fn drop_of_a_wait_for_what_comes_once() {
    // An event.
    at_every_point(|| {
        let event = Arc::new(Event::new());
        let (mine, theirs) = (event.clone(), event.clone());
        case(
            async move { mine.wait_async().await },
            vec![step(|| ()), step(move || theirs.set())],
            move |_| assert!(event.is_set()),
        )
    });
    // A promise.
    at_every_point(|| {
        let promise = Promise::new();
        let (mine, theirs) = (promise.clone(), promise.clone());
        case(
            async move { assert_eq!(*mine.wait_async().await, 7) },
            vec![step(|| ()), step(move || theirs.set(7).unwrap())],
            move |_| assert_eq!(promise.into_inner().unwrap(), 7, "somebody kept it"),
        )
    });
    // What is done once.
    at_every_point(|| {
        let once = Rc::new(Once::new());
        let (mine, theirs) = (once.clone(), once.clone());
        case(
            async move { mine.wait_async().await },
            vec![step(|| ()), step(move || theirs.call_once(|| ()))],
            move |_| assert!(once.is_completed()),
        )
    });
    // What is set once.
    at_every_point(|| {
        let cell = Rc::new(OnceLock::new());
        let (mine, theirs) = (cell.clone(), cell.clone());
        case(
            async move { assert_eq!(*mine.wait_async().await, 7) },
            vec![step(|| ()), step(move || theirs.set(7).unwrap())],
            move |_| assert_eq!(cell.get(), Some(&7)),
        )
    });
}

#[test]
fn drop_of_one_that_makes_a_value_leaves_that_to_the_next() {
    at_every_point(|| {
        let (cell, made) = (Rc::new(OnceLock::new()), Rc::new(Event::new()));
        let (mine, ready) = (cell.clone(), made.clone());
        let first = async move {
            let wait = async move || {
                ready.wait_async().await;
                1
            };
            mine.get_or_init_async(wait).await;
        };
        let theirs = cell.clone();
        let second = async move {
            theirs.get_or_init_async(async || 2).await;
        };
        let line = Rc::new(Cell::new(None));
        let behind = line.clone();
        let steps = vec![
            step(move || {
                let mut next = Polled::new(second);
                next.poll();
                behind.set(Some(next));
            }),
            step(move || made.set()),
        ];
        case(first, steps, move |done| {
            let mut next = line.take().unwrap();
            next.poll();
            assert!(next.0.is_none());
            assert_eq!(cell.get(), Some(if done { &1 } else { &2 }));
        })
    });
}

#[test]
fn drop_at_a_barrier_does_not_count() {
    at_every_point(|| {
        let barrier = Rc::new(Barrier::new(2));
        let wait = |barrier: &Rc<Barrier>| {
            let barrier = barrier.clone();
            async move {
                barrier.wait_async().await;
            }
        };
        let last = Rc::new(Cell::new(Some(Polled::new(wait(&barrier)))));
        let theirs = last.clone();
        let arrive = step(move || {
            let mut polled = theirs.take().unwrap();
            polled.poll();
            theirs.set(Some(polled));
        });
        case(wait(&barrier), vec![step(|| ()), arrive], move |_| {
            let last = last.take().unwrap();
            let mut other = Polled::new(wait(&barrier));
            if last.0.is_some() {
                // It was alone, and waits for another.
                other.poll();
                last.comes();
            } else {
                other.still_waits();
                let mut another = Polled::new(wait(&barrier));
                another.poll();
                assert!(another.0.is_none());
            }
            other.poll();
            assert!(other.0.is_none());
        })
    });
}

#[test]
fn drop_of_one_that_was_noticed_passes_the_notice_on() {
    at_every_point(|| {
        // Leaked, for a guard among the steps.
        let pair: &'static _ = Box::leak(Box::new((Mutex::new(()), Condvar::new())));
        async fn wait(pair: &(Mutex<()>, Condvar)) {
            let guard = pair.0.lock_async().await.unwrap();
            drop(pair.1.wait_async(guard).await.unwrap());
        }
        let (line, held) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
        let (behind, holds, gives) = (line.clone(), held.clone(), held.clone());
        let steps = vec![
            step(move || {
                let mut next = Polled::new(wait(pair));
                next.still_waits();
                behind.set(Some(next));
            }),
            step(move || {
                holds.set(Some(pair.0.lock().unwrap()));
                pair.1.notify_one();
            }),
            step(move || drop(gives.take())),
        ];
        case(wait(pair), steps, move |done| {
            let mut next = line.take().unwrap();
            if done {
                next.still_waits();
                pair.1.notify_one();
            }
            next.comes();
            assert!(!pair.0.is_locked());
        })
    });
}

#[test]
fn a_kill_of_one_that_was_noticed_passes_the_notice_on() {
    virtually(|| {
        let pair = Rc::new((Mutex::new(()), Condvar::new()));
        let wait = |pair: &(Mutex<()>, Condvar)| drop(pair.1.wait(pair.0.lock().unwrap()).unwrap());
        let [first, second] = [green(&pair, wait), green(&pair, wait)];
        yield_now();
        let held = pair.0.lock().unwrap();
        pair.1.notify_one();
        // It has its notice, and waits for the lock.
        yield_now();
        first.kill();
        assert!(first.join().unwrap_err().is_killed());
        drop(held);
        second.join().unwrap();
    });
}

/// A future that one step polls for the first time, and the check to its end.
fn aside(future: impl Future<Output = ()> + 'static) -> (Step, impl FnOnce() -> Polled) {
    let place = Rc::new(Cell::new(None));
    let theirs = place.clone();
    let first = step(move || {
        let mut polled = Polled::new(future);
        polled.poll();
        theirs.set(Some(polled));
    });
    (first, move || place.take().unwrap())
}

#[test]
fn drop_of_a_receive_loses_no_message() {
    for capacity in [0, 1, 5] {
        at_every_point(move || {
            let (sender, receiver) = channel::bounded(capacity);
            let got = Rc::new(Cell::new(0));
            let (mine, taken) = (receiver.clone(), got.clone());
            let receive = async move { taken.set(mine.recv_async().await.unwrap()) };
            let (send, sent) = aside(async move { sender.send_async(7).await.unwrap() });
            case(receive, vec![step(|| ()), send], move |done| {
                assert_eq!(got.get(), if done { 7 } else { 0 });
                assert_eq!(receiver.try_recv().ok(), (!done).then_some(7));
                let mut sent = sent();
                sent.poll();
                assert!(sent.0.is_none(), "it was received");
            })
        });
    }
}

#[test]
fn drop_of_a_send_sends_nothing_and_lets_the_next_send() {
    for capacity in [0, 1] {
        at_every_point(move || {
            let (sender, receiver) = channel::bounded(capacity);
            (0..capacity).for_each(|_| sender.send(6).unwrap());
            let send = |n: u32| {
                let sender = sender.clone();
                async move { sender.send_async(n).await.unwrap() }
            };
            let (next, line) = aside(send(8));
            let (first, takes) = (Rc::new(Cell::new(None)), receiver.clone());
            let seen = first.clone();
            let take = step(move || seen.set(takes.try_recv().ok()));
            case(send(7), vec![next, take], move |done| {
                let mut got: Vec<u32> = first.take().into_iter().collect();
                let mut next = line();
                got.extend(receiver.try_iter());
                next.poll();
                got.extend(receiver.try_iter());
                assert!(next.0.is_none());
                // In line it is there to be taken, and then it is sent, though nobody comes for the news.
                let sent = done || got[capacity] == 7;
                let all: &[u32] = if sent { &[6, 7, 8] } else { &[6, 8] };
                assert_eq!(got, all[1 - capacity..]);
            })
        });
    }
}

#[test]
fn drop_of_what_waits_for_a_queue() {
    // Getting and looking.
    for peeks in [false, true] {
        at_every_point(move || {
            let queue = Rc::new(LifoQueue::unbounded());
            let (mine, theirs) = (queue.clone(), queue.clone());
            let wait = async move {
                let item = if peeks {
                    mine.peek_async().await
                } else {
                    mine.get_async().await
                };
                assert_eq!(item, Ok(7));
            };
            let put = step(move || theirs.put(7).unwrap());
            case(wait, vec![step(|| ()), put], move |done| {
                assert_eq!(queue.try_get().ok(), (peeks || !done).then_some(7));
                assert!(queue.task_done().is_ok() && queue.task_done().is_err());
            })
        });
    }
    // Putting.
    at_every_point(|| {
        let queue = Rc::new(Queue::bounded(1));
        queue.put(6).unwrap();
        let put = |n: u32| {
            let queue = queue.clone();
            async move { queue.put_async(n).await.unwrap() }
        };
        let (next, line) = aside(put(8));
        let theirs = queue.clone();
        let get = step(move || assert_eq!(theirs.try_get(), Ok(6)));
        case(put(7), vec![next, get], move |done| {
            let mut got: Vec<u32> = queue.try_iter().collect();
            let mut next = line();
            next.poll();
            assert!(next.0.is_none());
            got.extend(queue.try_iter());
            // In line it is there to be moved in, though nobody comes for the news.
            assert!(got == [7, 8] || (!done && got == [8]), "{got:?}");
        })
    });
    // Waiting until all is done.
    at_every_point(|| {
        let queue = Rc::new(Queue::unbounded());
        queue.put(6).unwrap();
        let (mine, theirs) = (queue.clone(), queue.clone());
        let wait = async move { mine.join_async().await };
        case(
            wait,
            vec![step(|| ()), step(move || theirs.task_done().unwrap())],
            move |_| {
                assert!(queue.task_done().is_err());
            },
        )
    });
}

#[test]
fn drop_of_a_choice_takes_nothing_from_any() {
    at_every_point(|| {
        let (sender, receiver) = channel::bounded(1);
        let semaphore = Rc::new(Semaphore::new(0));
        let (mine, permits, got) = (receiver.clone(), semaphore.clone(), Rc::new(Cell::new(0)));
        let taken = got.clone();
        let choice = async move {
            let mut select = Select::new();
            select.add(|| async { mine.recv_async().await.unwrap() });
            select.add(|| async {
                drop(permits.acquire_async().await);
                8
            });
            taken.set(select.wait_async().await.1);
        };
        let adds = semaphore.clone();
        let both = step(move || {
            sender.send(7).unwrap();
            adds.add(1);
        });
        case(choice, vec![step(|| ()), both], move |done| {
            assert_eq!(receiver.try_recv().ok(), (got.get() != 7).then_some(7));
            assert_eq!((semaphore.available(), done), (1, got.get() > 0));
        })
    });
}

#[test]
fn drop_of_a_sleep_leaves_no_timer() {
    at_every_point(|| {
        let start = greenthread::time::now();
        let pass = step(|| greenthread::sleep(secs(1)));
        case(sleep_async(secs(1)), vec![step(|| ()), pass], move |_| {
            assert_eq!(hub::next_deadline(), None);
            assert_eq!(greenthread::time::now() - start, secs(1));
        })
    });
}

#[test]
fn drop_of_a_handle_detaches() {
    fn detaches<T: 'static>(
        handle: impl Future<Output = T> + 'static,
        go: Arc<Event>,
        is_over: Rc<Cell<bool>>,
    ) -> Case {
        let wait = async move { drop(handle.await) };
        let end = step(move || {
            go.set();
            hub::idle();
        });
        case(wait, vec![step(|| ()), end], move |_| {
            assert!(is_over.get(), "it runs all the same")
        })
    }
    at_every_point(|| {
        let (go, is_over) = (Arc::new(Event::new()), Rc::new(Cell::new(false)));
        let (waits, over) = (go.clone(), is_over.clone());
        let green = spawn_local(move || {
            waits.wait();
            over.set(true);
        });
        detaches(green, go, is_over)
    });
    at_every_point(|| {
        let (go, is_over) = (Arc::new(Event::new()), Rc::new(Cell::new(false)));
        let (waits, over) = (go.clone(), is_over.clone());
        let task = spawn(async move {
            waits.wait_async().await;
            over.set(true);
        });
        detaches(task, go, is_over)
    });
}

#[test]
fn drop_of_a_pools_future_lets_its_job_run() {
    at_every_point(|| {
        let pool = ThreadPool::new(1);
        let (go, gone) = std::sync::mpsc::channel();
        let ran = Arc::new(AtomicUsize::new(0));
        let runs = ran.clone();
        let job = pool.submit(move || {
            gone.recv().unwrap();
            runs.fetch_add(1, Ordering::SeqCst);
        });
        let job = job.unwrap();
        let over = ran.clone();
        let end = step(move || {
            go.send(()).unwrap();
            // The pool's one thread is done with the job when it does the next.
            pool.submit(|| ()).unwrap().wait().unwrap();
            assert_eq!(over.load(Ordering::SeqCst), 1);
        });
        case(async move { job.await.unwrap() }, vec![step(|| ()), end], move |_| {
            assert_eq!(ran.load(Ordering::SeqCst), 1);
        })
    });
}

#[test]
fn drop_of_what_waits_for_a_socket() {
    // Bytes, of which none is lost.
    at_every_point(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Rc::new(listener.accept().unwrap().0);
        let (mine, got) = (stream.clone(), Rc::new(Cell::new(0)));
        let read = got.clone();
        let receive = async move {
            mine.readable_async().await.unwrap();
            let mut byte = [0];
            assert_eq!(std::io::Read::read(&mut &*mine, &mut byte).unwrap(), 1);
            read.set(byte[0]);
        };
        let send = step(move || {
            std::io::Write::write_all(&mut &peer, b"x").unwrap();
            greenthread::sleep(ms(1));
        });
        case(receive, vec![step(|| ()), send], move |done| {
            let mut rest = Vec::new();
            std::io::Read::read_to_end(&mut &*stream, &mut rest).unwrap();
            assert_eq!((got.get() == b'x', rest.len()), (done, usize::from(!done)));
        })
    });
    // Clients, of whom each is accepted.
    at_every_point(|| {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let mine = listener.clone();
        let accept = async move { drop(mine.accept_async().await.unwrap()) };
        let client = Rc::new(Cell::new(None));
        let theirs = client.clone();
        let connect = step(move || {
            theirs.set(Some(std::net::TcpStream::connect(address).unwrap()));
            greenthread::sleep(ms(1));
        });
        case(accept, vec![step(|| ()), connect], move |done| {
            assert_eq!(timeout(secs(1), || listener.accept().unwrap()).is_ok(), !done);
            drop(client.take());
        })
    });
    // Datagrams.
    at_every_point(|| {
        let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let address = socket.local_addr().unwrap();
        let mine = socket.clone();
        let receive = async move { assert_eq!(mine.recv_from_async(&mut [0; 4]).await.unwrap().0, 2) };
        let send = step(move || {
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"hi", address).unwrap();
            greenthread::sleep(ms(1));
        });
        case(receive, vec![step(|| ()), send], move |done| {
            let left = timeout(secs(1), || socket.recv_from(&mut [0; 4]).unwrap());
            assert_eq!(left.is_ok(), !done);
        })
    });
    // Any descriptor.
    at_every_point(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let reader = Rc::new(Async::new(reader).unwrap());
        let mine = reader.clone();
        let wait = async move { mine.readable_async().await.unwrap() };
        let close = step(move || {
            drop(writer);
            greenthread::sleep(ms(1));
        });
        case(wait, vec![step(|| ()), close], move |_| {
            until("the end of the pipe", || reader.readable().is_ok());
        })
    });
}

#[test]
fn drop_of_an_asyncify_on_another_hub_kills_there() {
    let hubs = hub::Hubs::new(1).unwrap();
    let handle = hubs.handles()[0].clone();
    // By hand, for the other hub takes its time.
    for polls in 0..3 {
        let (told, tells) = (Arc::new(AtomicUsize::new(0)), Arc::new(Event::new()));
        struct Tells(Arc<AtomicUsize>);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (guard, begun) = (Tells(told.clone()), tells.clone());
        let body = move || {
            let _guard = guard;
            begun.set();
            thread::park();
        };
        let mut future = Box::pin(greenthread::future::asyncify_on(&handle, body).unwrap());
        (0..polls).for_each(|_| {
            assert!(
                future
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
        });
        if polls > 0 {
            tells.wait();
        }
        drop(future);
        until("its stack is unwound", || told.load(Ordering::SeqCst) == 1);
    }
}

#[test]
fn drop_in_a_clean_up_waits_for_its_end() {
    at_every_point(|| {
        let cleaned = Rc::new(Cell::new(false));
        let over = cleaned.clone();
        let (go, begins) = (Rc::new(Event::new()), Rc::new(Cell::new(false)));
        let (waits, begun) = (go.clone(), begins.clone());
        let clean = async move || {
            sleep_async(secs(1)).await;
            over.set(true);
        };
        // Under asyncify in every host, so that the clean-up is awaited.
        let body = asyncify(move || {
            begun.set(true);
            with_async(clean, || await_(async { waits.wait_async().await }));
        });
        let pass = step(|| greenthread::sleep(secs(1)));
        case(body, vec![step(|| ()), step(move || go.set()), pass], move |_| {
            assert_eq!(cleaned.get(), begins.get());
        })
    });
}

#[test]
fn drop_at_the_last_poll_of_many() {
    at_every_point(|| {
        let mut left = 3;
        let counts = poll_fn(move |context| {
            left -= 1;
            context.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        });
        case(counts, vec![step(|| ()), step(|| ()), step(|| ())], |_| ())
    });
}
