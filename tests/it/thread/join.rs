//! Spawn and join: values, panics, detached ones, lost ones, other OS threads.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};

use greenthread::{hub, sleep, spawn, spawn_local, thread, threadpool, time, yield_now};

use crate::support::counted::Counted;
use crate::support::fresh::{elsewhere, fresh, ms, secs, text, virtually};

fn counter() -> (Arc<AtomicUsize>, Counted<Arc<AtomicUsize>>) {
    let count = Arc::new(AtomicUsize::new(0));
    (count.clone(), Counted(count))
}

#[test]
fn join_gives_the_value() {
    fresh(|| {
        assert_eq!(spawn(|| 42).join().unwrap(), 42);
        assert_eq!(spawn(|| String::from("text")).join().unwrap(), "text");
        spawn(|| ()).join().unwrap();
        assert_eq!(hub::live(), 0);
    });
}

#[test]
fn they_start_in_order_and_not_before_the_spawner_waits() {
    fresh(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let handles: Vec<_> = (0..300)
            .map(|n| {
                let order = order.clone();
                spawn_local(move || order.borrow_mut().push(n))
            })
            .collect();
        assert!(order.borrow().is_empty());
        assert_eq!(hub::live(), 300);
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        assert_eq!(*order.borrow(), (0..300).collect::<Vec<_>>());
    });
}

#[test]
fn a_local_one_may_own_and_return_what_is_not_send() {
    fresh(|| {
        let cell = Rc::new(Cell::new(1));
        let theirs = cell.clone();
        let back = spawn_local(move || {
            theirs.set(2);
            theirs
        });
        let back = back.join().unwrap();
        assert!(Rc::ptr_eq(&back, &cell));
        assert_eq!(cell.get(), 2);
        assert_eq!(Rc::strong_count(&cell), 2);
    });
}

#[test]
fn spawn_inside_a_green_thread_nests_to_any_depth() {
    fresh(|| {
        fn down(n: u32) -> u32 {
            if n == 0 {
                0
            } else {
                1 + spawn(move || down(n - 1)).join().unwrap()
            }
        }
        assert_eq!(spawn(|| down(100)).join().unwrap(), 100);
    });
}

#[test]
fn a_panic_stays_in_its_thread() {
    fresh(|| {
        let bad = spawn(|| -> u8 { panic!("no {}", 7) });
        let good = spawn(|| 1);
        let error = bad.join().unwrap_err();
        assert!(error.is_panic() && !error.is_killed() && !error.is_lost() && !error.is_self_join());
        assert!(error.to_string().contains("no 7"), "{error}");
        assert_eq!(text(&*error.into_panic()), "no 7");
        assert_eq!(good.join().unwrap(), 1);
        assert!(!std::thread::panicking());
    });
}

#[test]
fn the_payload_of_a_panic_is_the_very_one() {
    fresh(|| {
        let bad = spawn(|| std::panic::panic_any(77_u64));
        let payload = bad.join().unwrap_err().try_into_panic().unwrap();
        assert_eq!(*payload.downcast::<u64>().unwrap(), 77);
        let killed = spawn(thread::park);
        killed.kill();
        assert!(killed.join().unwrap_err().try_into_panic().unwrap_err().is_killed());
    });
}

/// The panic hook belongs to the whole process.
static HOOK: Mutex<()> = Mutex::new(());

/// Runs `f` on a fresh OS thread, and gives the reports whose text or name contains `mark`.
fn reports(mark: &'static str, f: impl FnOnce() + Send + 'static) -> Vec<(String, String)> {
    let _one = HOOK.lock().unwrap_or_else(|e| e.into_inner());
    let heard: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let ears = heard.clone();
    hub::set_panic_hook(Some(move |who: &str, payload: &(dyn std::any::Any + Send)| {
        let what = text(payload);
        if who.contains(mark) || what.contains(mark) {
            ears.lock().unwrap().push((who.to_owned(), what));
        }
    }));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fresh(f)));
    hub::set_panic_hook(None::<fn(&str, &(dyn std::any::Any + Send))>);
    done.unwrap();
    Arc::try_unwrap(heard)
        .map(|heard| heard.into_inner().unwrap())
        .unwrap_or_else(|heard| heard.lock().unwrap().clone())
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name)
}

#[test]
fn a_panic_that_nobody_reads_is_reported_once_with_the_name() {
    let heard = reports("unread-one", || {
        drop(named("unread-one").spawn(|| panic!("first")).unwrap()); // detached before
        hub::idle();
        let after = named("unread-one").spawn(|| panic!("second")).unwrap();
        hub::idle();
        drop(after); // detached after
        hub::idle();
    });
    let [first, second] = &heard[..] else {
        panic!("two reports, not {heard:?}");
    };
    assert!(
        first.0.starts_with("green thread #") && first.0.ends_with(" 'unread-one'"),
        "{first:?}"
    );
    assert_eq!((&*first.1, &*second.1), ("first", "second"));
}

#[test]
fn a_panic_that_somebody_reads_is_not_reported() {
    let heard = reports("read-one", || {
        let bad = named("read-one").spawn(|| panic!("x")).unwrap();
        assert!(bad.join().unwrap_err().is_panic());
    });
    assert_eq!(heard, []);
}

#[test]
fn a_kill_is_not_reported() {
    let heard = reports("killed-one", || {
        let parked = named("killed-one").spawn(thread::park).unwrap();
        yield_now();
        parked.kill();
        drop(parked);
        hub::idle();
        assert_eq!(hub::live(), 0);
    });
    assert_eq!(heard, []);
}

#[test]
fn a_panic_in_a_callback_is_reported_and_the_hub_goes_on() {
    let heard = reports("bad-callback", || {
        hub::call_soon(|| panic!("bad-callback"));
        assert_eq!(spawn(|| 5).join().unwrap(), 5);
        hub::idle();
    });
    assert_eq!(heard, [(String::from("a hub callback"), String::from("bad-callback"))]);
}

#[test]
fn blocking_in_a_callback_panics_there_and_the_hub_goes_on() {
    let heard = reports("cannot block", || {
        hub::call_soon(|| sleep(ms(1)));
        hub::call_soon(yield_now);
        hub::call_soon(thread::park);
        hub::call_soon(|| drop(spawn(|| ()).join()));
        hub::call_soon(|| greenthread::future::block_on(async {}));
        hub::idle();
        assert_eq!(spawn(|| 5).join().unwrap(), 5);
    });
    assert_eq!(heard.len(), 5, "{heard:?}");
    assert!(heard[0].1.contains(file!()), "not the caller's line: {}", heard[0].1);
}

#[test]
fn a_panic_in_the_panic_hook_does_not_loop_nor_end_the_hub() {
    let _one = HOOK.lock().unwrap_or_else(|e| e.into_inner());
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    hub::set_panic_hook(Some(|who: &str, _: &(dyn std::any::Any + Send)| {
        if who.contains("hook-panics") {
            CALLS.fetch_add(1, Ordering::SeqCst);
            panic!("in the hook");
        }
    }));
    fresh(|| {
        drop(named("hook-panics").spawn(|| panic!("x")).unwrap());
        hub::idle();
        assert_eq!(spawn(|| 5).join().unwrap(), 5);
    });
    hub::set_panic_hook(None::<fn(&str, &(dyn std::any::Any + Send))>);
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}

#[test]
fn a_dropped_handle_detaches() {
    fresh(|| {
        let (send, receive) = mpsc::channel();
        drop(spawn(move || {
            yield_now();
            send.send(1).unwrap();
        }));
        hub::idle();
        assert_eq!(receive.try_recv(), Ok(1));
    });
}

#[test]
fn a_handle_that_is_dropped_while_its_green_thread_ends_drops_the_result() {
    const MANY: usize = 20_000;
    let count = Arc::new(AtomicUsize::new(0));
    fresh(move || {
        let hubs = hub::Hubs::new(1).unwrap();
        let mut context = Context::from_waker(Waker::noop());
        for n in 0..MANY {
            let count = count.clone();
            let mut handle = hubs.spawn(move || Counted(count)).unwrap();
            // A waiter lies in the task; the drop takes it back, unless the end, on the other OS thread, has it.
            let polled = Pin::new(&mut handle).poll(&mut context);
            (0..n % 256).for_each(|_| std::hint::spin_loop());
            drop(handle);
            drop(polled);
        }
        hubs.join();
        assert_eq!(count.load(Ordering::SeqCst), MANY);
    });
}

#[test]
fn big_and_over_aligned_results_arrive_whole() {
    #[repr(align(128))]
    #[derive(Debug, PartialEq, Clone, Copy)]
    struct Aligned([u64; 20]);
    fresh(|| {
        let big = spawn(|| [7_u8; 10_000]);
        let aligned = spawn(|| Aligned([3; 20]));
        let edge = spawn(|| [1_u64; 3]);
        assert_eq!(big.join().unwrap(), [7; 10_000]);
        let aligned = aligned.join().unwrap();
        assert_eq!(aligned, Aligned([3; 20]));
        assert_eq!(std::ptr::from_ref(&aligned).addr() % 128, 0);
        assert_eq!(edge.join().unwrap(), [1; 3]);
    });
}

#[test]
fn a_result_is_dropped_exactly_once_in_every_way_to_end() {
    fresh(|| {
        let (joined, value) = counter();
        let value = spawn(move || value).join().unwrap();
        assert_eq!(joined.load(Ordering::SeqCst), 0);
        drop(value);
        assert_eq!(joined.load(Ordering::SeqCst), 1);

        let (before, value) = counter();
        drop(spawn(move || value));
        hub::idle();
        assert_eq!(before.load(Ordering::SeqCst), 1);

        let (after, value) = counter();
        let handle = spawn(move || (value, [0_u64; 40]));
        hub::idle();
        assert_eq!(after.load(Ordering::SeqCst), 0);
        drop(handle);
        hub::idle();
        assert_eq!(after.load(Ordering::SeqCst), 1);

        let (killed, value) = counter();
        let handle = spawn(move || {
            thread::park();
            value
        });
        yield_now();
        handle.kill();
        assert!(handle.join().unwrap_err().is_killed());
        assert_eq!(killed.load(Ordering::SeqCst), 1);

        let (unstarted, value) = counter();
        let handle = spawn(move || value);
        handle.kill();
        assert!(handle.join().unwrap_err().is_killed());
        assert_eq!(unstarted.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_result_whose_destructor_panics_harms_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("bomb");
        }
    }
    fresh(|| {
        drop(spawn(|| Bomb));
        hub::idle();
        assert_eq!(spawn(|| 5).join().unwrap(), 5);
        assert_eq!(hub::live(), 0);
    });
}

#[test]
fn join_timeout_leaves_the_handle_as_good_as_before() {
    virtually(|| {
        let start = time::now();
        let mut slow = spawn(|| {
            sleep(secs(10));
            7
        });
        assert!(slow.join_timeout(secs(3)).is_none());
        assert_eq!(time::now() - start, secs(3));
        assert!(slow.join_timeout(secs(0)).is_none());
        assert!(!slow.is_finished());
        assert_eq!(slow.join_timeout(secs(100)).unwrap().unwrap(), 7);
        assert_eq!(time::now() - start, secs(10));
        assert!(slow.join_timeout(secs(1)).unwrap().unwrap_err().is_taken());
        let taken = slow.join().unwrap_err();
        assert!(taken.is_taken() && !taken.is_lost(), "{taken}");
    });
}

#[test]
fn joining_itself_is_an_error() {
    fresh(|| {
        let slot: Rc<RefCell<Option<greenthread::JoinHandle<bool>>>> = Rc::default();
        let (theirs, (send, receive)) = (slot.clone(), mpsc::channel());
        let handle = spawn_local(move || {
            let own = theirs.borrow_mut().take().unwrap();
            send.send(own.join().unwrap_err().is_self_join()).unwrap();
            true
        });
        *slot.borrow_mut() = Some(handle);
        hub::idle();
        assert_eq!(receive.try_recv(), Ok(true));
    });
}

#[test]
fn another_os_thread_joins_while_the_hub_runs() {
    fresh(|| {
        let handles: Vec<_> = (0..50)
            .map(|n| {
                spawn(move || {
                    sleep(ms(1));
                    n
                })
            })
            .collect();
        let joiner = std::thread::spawn(move || handles.into_iter().map(|h| h.join().unwrap()).sum::<i32>());
        assert_eq!(
            threadpool::unblock(move || joiner.join().unwrap()),
            (0..50).sum::<i32>()
        );
    });
}

#[test]
fn another_os_thread_joins_with_a_timeout_and_drops_and_kills() {
    fresh(|| {
        let (count, value) = counter();
        let mut parked = spawn(move || {
            thread::park();
            drop(value);
        });
        let late = spawn(|| 3);
        let outcome = threadpool::unblock(move || {
            let early = parked.join_timeout(ms(5)).is_none();
            parked.kill();
            drop(late);
            (early, parked.join().unwrap_err().is_killed())
        });
        assert_eq!(outcome, (true, true));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn what_is_parked_when_its_os_thread_ends_is_lost() {
    let (send, receive) = mpsc::channel();
    let owner = std::thread::spawn(move || {
        let parked = spawn(thread::park);
        let never_ran = spawn(|| 1_usize);
        yield_now();
        let unstarted = spawn(|| 2_usize);
        send.send((parked, never_ran, unstarted)).unwrap();
    });
    owner.join().unwrap();
    let (parked, ran, unstarted) = receive.recv().unwrap();
    fresh(move || {
        let error = parked.join().unwrap_err();
        assert!(error.is_lost() && !error.is_killed() && !error.is_panic(), "{error}");
        assert_eq!(ran.join().unwrap(), 1, "a result that was there stays there");
        assert!(unstarted.join().unwrap_err().is_lost());
    });
}

#[test]
fn who_joins_already_when_the_os_thread_ends_is_told() {
    fresh(move || {
        let (parked, go, owner) = elsewhere();
        let joiner = spawn(move || parked.join().unwrap_err().is_lost());
        yield_now(); // it joins
        go.send(()).unwrap();
        assert!(joiner.join().unwrap());
        owner.join().unwrap();
    });
}

#[test]
fn run_runs_main_as_a_green_thread_and_passes_its_panic_on() {
    fresh(|| {
        assert_eq!(
            greenthread::run(|| {
                assert!(hub::is_running());
                42
            }),
            42
        );
        let panicked = std::panic::catch_unwind(|| greenthread::run(|| panic!("main's own")));
        assert_eq!(text(&*panicked.unwrap_err()), "main's own");
        assert_eq!(greenthread::run(|| greenthread::run(|| 1)), 1);
    });
}

#[test]
fn spawn_after_starts_later() {
    virtually(|| {
        let start = time::now();
        let later = thread::spawn_after(secs(5), move || time::now() - start);
        assert_eq!(later.join().unwrap(), secs(5));
    });
}

#[test]
fn a_handle_tells_where_it_was_spawned() {
    fresh(|| {
        let handle = spawn(|| ());
        let line = line!() - 1;
        assert_eq!(
            (handle.spawned_at().file(), handle.spawned_at().line()),
            (file!(), line)
        );
        handle.join().unwrap();
    });
}

/// As with std, what a closure captures and what it returns may be large.
#[test]
fn large_closures_and_values_go_in_and_out() {
    for size in [0_u8, 1] {
        let large = [size; 8_000];
        let other = [size; 900];
        let handle = spawn(move || (large, other));
        let (large, other) = handle.join().unwrap();
        assert!(large == [size; 8_000] && other == [size; 900]);
    }
    let counted = counter();
    let carried = (counted.1, [0_u8; 5_000]);
    let killed = spawn_local(move || drop(carried));
    killed.kill();
    assert!(killed.join().unwrap_err().is_killed());
    assert_eq!(counted.0.load(Ordering::SeqCst), 1);
    let text = [b'x'; 4_000];
    let letters =
        greenthread::generator::Generator::new(move |y: &greenthread::generator::Yielder<'_, [u8; 4_000], ()>| {
            y.yield_(text)
        });
    assert!(letters.into_iter().all(|letters| letters == [b'x'; 4_000]));
    let greenlet = greenthread::greenlet::Greenlet::new(move |_: ()| assert_eq!(text[3_999], b'x'));
    greenlet.switch(());
}
