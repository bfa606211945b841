//! Stackless tasks that share runners: what one leaves with its runner is never the next one's. And the end of a hub,
//! with wakers and closures that panic.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};

use greenthread::future::{Task, asyncify, await_, block_on, spawn};
use greenthread::io::Async;
use greenthread::sync::ReentrantLock;
use greenthread::time::{Timeout, sleep_async, timeout};
use greenthread::{debug, green_local, hub, sleep, spawn as spawn_green, thread};

use crate::support::fresh::{fresh, ms, secs, until, virtually};

#[test]
fn a_time_out_that_one_task_keeps_hits_no_other() {
    virtually(|| {
        let keeps = spawn(async {
            let _limit = Timeout::new(ms(10));
            pending::<()>().await;
        });
        assert_eq!(spawn(async { sleep(ms(50)) }).join().unwrap(), ());
        keeps.cancel();
        assert!(keeps.join().unwrap_err().is_killed());
        assert!(
            spawn(async { timeout(ms(10), || sleep(secs(1))).is_err() })
                .join()
                .unwrap()
        );
    });
}

#[test]
fn a_shield_that_one_task_keeps_shields_no_other() {
    virtually(|| {
        let shielded = spawn(asyncify(|| {
            thread::shield(|| await_(sleep_async(secs(2))));
            await_(pending::<()>());
        }));
        hub::idle();
        assert!(
            spawn(async { timeout(ms(10), || sleep(secs(1))).is_err() })
                .join()
                .unwrap()
        );
        // But it does shield its own.
        shielded.cancel();
        sleep(secs(1));
        assert!(!shielded.is_finished());
        assert!(shielded.join().unwrap_err().is_killed());
    });
}

green_local! {
    static NUMBER: Cell<u32> = Cell::new(0);
}

#[test]
fn a_destructor_in_a_cancelled_task_sees_its_own_locals() {
    struct Tells(Rc<RefCell<Vec<u32>>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.borrow_mut().push(NUMBER.replace(77));
        }
    }
    fresh(|| {
        let told = Rc::new(RefCell::new(Vec::new()));
        for number in [Some(5), None] {
            let tells = Tells(told.clone());
            let task = spawn(async move {
                let _tells = tells;
                number.into_iter().for_each(|number| NUMBER.set(number));
                pending::<()>().await;
            });
            hub::idle();
            task.cancel();
            assert!(task.join().unwrap_err().is_killed());
        }
        assert_eq!(told.take(), [5, 0]);
    });
}

#[test]
fn a_reentrant_lock_tells_tasks_apart_and_knows_one_again() {
    virtually(|| {
        let lock = Rc::new(ReentrantLock::new(()));
        let (one, other) = (lock.clone(), lock.clone());
        let holds = spawn(async move {
            let _guard = one.lock();
            let beside = spawn(async { sleep(ms(5)) }); // takes the runner meanwhile
            sleep_async(ms(1)).await;
            let again = one.try_lock().is_some();
            beside.await.unwrap();
            again
        });
        assert!(spawn(async move { other.try_lock().is_none() }).join().unwrap());
        assert!(holds.join().unwrap());
        assert!(lock.try_lock().is_some());
    });
}

#[test]
fn a_task_is_itself_in_every_poll() {
    fresh(|| {
        let own = Rc::new(Cell::new(None::<Task<()>>));
        let seen = Rc::new(Cell::new(None));
        let (given, tells) = (own.clone(), seen.clone());
        let task = spawn(async move {
            let first = thread::current().id();
            sleep_async(ms(1)).await;
            let mut itself = given.take().unwrap();
            let refused = itself
                .join_timeout(secs(10))
                .map(|joined| joined.unwrap_err().to_string());
            let dump = debug::dump()
                .matches(&format!("green thread #{} ", first.as_u64()))
                .count();
            hub::shutdown(secs(10)).unwrap();
            tells.set(Some((first, itself.id(), thread::current().id(), refused, dump)));
        });
        let id = task.id();
        own.set(Some(task));
        until("the task has ended", || hub::live() == 0);
        let (first, itself, last, refused, dump) = seen.take().unwrap();
        assert_eq!((first, itself, last), (id, id, id));
        assert!(refused.unwrap().contains("cannot join itself"));
        assert_eq!(dump, 1, "lines about one task");
    });
}

#[test]
fn a_kill_of_who_polled_one_task_is_not_the_next_one_s() {
    fresh(|| {
        let who = Arc::new(Mutex::new(None));
        let theirs = who.clone();
        let first = spawn(async move {
            *theirs.lock().unwrap() = Some(thread::current());
            pending::<()>().await;
        });
        hub::idle();
        let next = spawn(async { sleep(ms(5)) });
        sleep(ms(1));
        who.lock().unwrap().take().unwrap().kill();
        next.join().unwrap();
        assert!(!first.is_finished());
        // Within its poll it is the task's.
        let ends = spawn(async {
            thread::current().kill();
            pending::<()>().await;
        });
        assert!(ends.join().unwrap_err().is_killed());
    });
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        resume_unwind(Box::new("woken"));
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new("dropped"));
    }
}

#[test]
fn a_hub_ends_whatever_wakers_and_closures_of_the_user_do() {
    let mut lost = fresh(|| {
        let mut parked = spawn_green(thread::park);
        let waker = Waker::from(Arc::new(Panics));
        assert!(
            Pin::new(&mut parked)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        let (reader, writer) = std::io::pipe().unwrap();
        std::mem::forget(writer);
        let reader = Box::leak(Box::new(Async::new(reader).unwrap()));
        let waker = Waker::from(Arc::new(Bomb));
        assert!(reader.poll_readable(&mut Context::from_waker(&waker)).is_pending());
        let bomb = Bomb;
        hub::handle().call_later(secs(1000), move || drop(bomb)).unwrap();
        hub::idle();
        drop(waker);
        parked
    });
    assert!(lost.join_timeout(secs(10)).unwrap().unwrap_err().is_lost());
}

#[test]
fn a_sleep_goes_on_when_its_hub_has_ended() {
    let (first, mut second) = fresh(|| {
        let mut polled = sleep_async(ms(20));
        assert!(
            pin!(&mut polled)
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        (sleep_async(ms(20)), polled)
    });
    fresh(move || block_on(first));
    fresh(move || {
        let task = spawn_green(move || block_on(&mut second));
        task.join().unwrap();
    });
}

/// It waits elsewhere when the hub of its alarm ends.
#[test]
fn a_sleep_that_is_waited_for_hears_of_the_end_of_its_hub() {
    let (give, take) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let home = std::thread::spawn(move || {
        give.send(sleep_async(ms(30))).unwrap();
        gone.recv().unwrap();
    });
    let sleeps = take.recv().unwrap();
    fresh(move || {
        let waits = spawn_green(move || block_on(sleeps));
        hub::idle();
        go.send(()).unwrap();
        home.join().unwrap();
        waits.join().unwrap();
    });
}
