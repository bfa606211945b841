//! Greenlets and green threads: each green thread is a root with families of its own.
//! (greenlet's threads: `switch_to_another_thread`, `threaded_reparent`, `dealloc_other_thread`.)

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use greenthread::greenlet::{self, Greenlet, ParentError, SwitchError};
use greenthread::{sleep, spawn_local};

use super::waiting;

#[test]
fn a_greenlet_of_another_green_thread_is_foreign() {
    let g = Greenlet::new(|n: u32| n);
    let (to, main) = (g.clone(), greenlet::current::<u32>());
    spawn_local(move || {
        assert_ne!(greenlet::current::<u32>(), main);
        assert_eq!(to.try_switch(5), Err(SwitchError::Foreign(5)));
        assert_eq!(main.try_switch(6), Err(SwitchError::Foreign(6)));
        assert!(matches!(to.try_throw("no"), Err(SwitchError::Foreign(_))));
        let own = Greenlet::new(|n: u32| n);
        assert_eq!(own.set_parent(&to), Err(ParentError::Foreign));
        assert!(!to.is_dead() && !main.is_current());
    })
    .join()
    .unwrap();
    assert_eq!(g.switch(1), 1);
}

#[test]
fn each_green_thread_has_its_own_main_greenlet() {
    let threads: Vec<_> = (0..10_u32)
        .map(|i| {
            spawn_local(move || {
                let main = greenlet::current::<u32>();
                let g = Greenlet::new(move |mut n| {
                    loop {
                        sleep(Duration::from_micros(100));
                        n = main.switch(n + i);
                    }
                });
                (0..5).map(|n| g.switch(n)).sum::<u32>()
            })
        })
        .collect();
    for (i, thread) in (0..).zip(threads) {
        assert_eq!(thread.join().unwrap(), 10 + 5 * i);
    }
}

#[test]
fn a_body_that_blocks_lets_other_green_threads_run() {
    let turns = Rc::new(Cell::new(0));
    let count = turns.clone();
    let other = spawn_local(move || {
        for _ in 0..3 {
            sleep(Duration::from_millis(2));
            count.set(count.get() + 1);
        }
    });
    let g = Greenlet::new(|n: u32| {
        sleep(Duration::from_millis(20));
        n
    });
    assert_eq!(g.switch(1), 1);
    assert_eq!(turns.get(), 3);
    other.join().unwrap();
}

#[test]
fn one_dropped_by_another_green_thread_is_ended_there() {
    let ended = Rc::new(Cell::new(0));
    let g = waiting(&ended);
    let seen = ended.clone();
    spawn_local(move || {
        drop(g);
        assert_eq!(seen.get(), 1);
    })
    .join()
    .unwrap();
    assert_eq!(Greenlet::new(|n: u32| n).switch(3), 3, "our family is ours again");
}

#[test]
fn one_that_outlives_its_green_thread_is_ended_by_its_last_handle() {
    let ended = Rc::new(Cell::new(0));
    let count = ended.clone();
    let g = spawn_local(move || RefCell::new(Some(waiting(&count))))
        .join()
        .unwrap()
        .take()
        .unwrap();
    assert_eq!(g.try_switch(1), Err(SwitchError::Foreign(1)));
    assert_eq!(ended.get(), 0);
    drop(g);
    assert_eq!(ended.get(), 1);
}

#[test]
fn one_dropped_elsewhere_while_its_family_runs_ends_when_that_comes_home() {
    let ended = Rc::new(Cell::new(0));
    let victim = waiting(&ended);
    let busy = Greenlet::new(|n: u32| {
        sleep(Duration::from_millis(10));
        n
    });
    let seen = ended.clone();
    let dropper = spawn_local(move || {
        drop(victim);
        assert_eq!(seen.get(), 0, "its family is busy");
    });
    assert_eq!(busy.switch(2), 2);
    assert_eq!(ended.get(), 1);
    dropper.join().unwrap();
}
