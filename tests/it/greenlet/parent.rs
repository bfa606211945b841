//! Greenlets: parents, and who gets what a dead one leaves.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use greenthread::greenlet::{self, Greenlet, ParentError};

use crate::support::fresh::raised;

#[test]
fn a_panic_reaches_the_parent_that_was_set() {
    // greenlet's `exception` and `send_exception`
    let main = greenlet::current::<u32>();
    let thrower = |n: u32| {
        if n == 0 {
            resume_unwind(Box::new("bad"));
        }
        n
    };
    let watcher = Greenlet::new(move |n| {
        let text = raised(|| main.switch(n));
        assert_eq!(text, "bad");
        77
    });
    assert_eq!(watcher.switch(1), 1);
    let g = Greenlet::new(thrower);
    g.set_parent(&watcher).unwrap();
    assert_eq!(g.switch(0), 77);
    assert!(g.is_dead() && watcher.is_dead());
    assert_eq!(g.switch(5), 5, "past two dead ones to main");
}

#[test]
fn a_dead_parent_is_skipped() {
    let a = Greenlet::new(|n: u32| n);
    let b = Greenlet::new(|n: u32| n + 1);
    b.set_parent(&a).unwrap();
    assert_eq!(a.switch(0), 0);
    assert_eq!(b.switch(1), 2);
}

#[test]
fn falling_off_the_end_starts_an_unstarted_parent() {
    let parent = Greenlet::new(|n: u32| n * 100);
    let child = Greenlet::builder().parent(&parent).build(|n: u32| n + 1).unwrap();
    assert_eq!(child.switch(1), 200);
    assert!(parent.is_dead() && child.is_dead());
}

#[test]
fn a_panic_kills_an_unstarted_parent_and_goes_on_up() {
    let ran = Rc::new(Cell::new(false));
    let note = ran.clone();
    let parent = Greenlet::new(move |n: u32| {
        note.set(true);
        n
    });
    let child = Greenlet::builder()
        .parent(&parent)
        .build(|_: u32| resume_unwind(Box::new("child")))
        .unwrap();
    assert_eq!(raised(|| child.switch(1)), "child");
    assert!(parent.is_dead() && !ran.get());
}

#[test]
fn a_parent_that_fails_to_start_raises_in_its_own_parent() {
    // greenlet's `parent_return_failure` and `switch_to_dead_greenlet_with_unstarted_perverse_parent`
    let runs = Rc::new(Cell::new(0));
    let perverse = |n: u32| -> u32 {
        if n < 100 {
            resume_unwind(Box::new("perverse"))
        } else {
            n
        }
    };
    let count = runs.clone();
    let parent = Greenlet::new(perverse);
    let child = Greenlet::builder()
        .parent(&parent)
        .build(move |n: u32| {
            count.set(count.get() + 1);
            n
        })
        .unwrap();
    assert_eq!(raised(|| child.switch(1)), "perverse");
    let again = Greenlet::new(perverse);
    child.set_parent(&again).unwrap();
    assert_eq!(raised(|| child.switch(2)), "perverse");
    assert_eq!(runs.get(), 1);
}

#[test]
fn a_dead_one_can_get_another_parent_which_a_switch_then_starts() {
    let dead = Greenlet::new(|n: u32| n);
    dead.switch(0);
    let parent = Greenlet::new(|n: u32| n + 1000);
    dead.set_parent(&parent).unwrap();
    assert_eq!(dead.switch(1), 1001);
    assert!(parent.is_dead());
}

#[test]
fn a_child_that_is_given_to_another_returns_there() {
    let main = greenlet::current::<u32>();
    let child = Greenlet::new(|n: u32| n + 1);
    let to = child.clone();
    let taker = Greenlet::new(move |n| {
        to.set_parent(&greenlet::current()).unwrap();
        to.switch(n) * 10
    });
    assert_eq!(taker.switch(1), 20);
    assert_ne!(child.parent(), Some(main));
}

#[test]
fn cyclic_chains_are_refused() {
    let main = greenlet::current::<u32>();
    let [a, b, c] = [0; 3].map(|_| Greenlet::new(|n: u32| n));
    assert_eq!(a.set_parent(&a), Err(ParentError::Cyclic));
    b.set_parent(&a).unwrap();
    c.set_parent(&b).unwrap();
    assert_eq!(a.set_parent(&b), Err(ParentError::Cyclic));
    assert_eq!(a.set_parent(&c), Err(ParentError::Cyclic));
    assert_eq!(main.set_parent(&a), Err(ParentError::Main));
    assert_eq!(main.set_parent(&main), Err(ParentError::Main));
    assert_eq!(a.parent(), Some(main.clone()));
    c.set_parent(&main).unwrap();
    a.set_parent(&c).unwrap();
    assert_eq!(b.switch(3), 3);
}

#[test]
fn the_main_greenlet_has_no_parent_and_is_never_dead() {
    let main = greenlet::current::<u32>();
    assert_eq!(main.parent(), None);
    assert!(main.is_active() && main.is_current() && !main.is_dead());
    assert_eq!(main.name(), Some("main"));
    assert_eq!(greenlet::current::<u32>(), main);
}

#[test]
fn the_parent_is_back_after_a_drop_that_was_survived() {
    // greenlet's `parent_restored_on_kill`: resurrection by a handle that the dying one takes
    let (main, saved) = (greenlet::current::<u32>(), Rc::new(RefCell::new(None)));
    let hub = Greenlet::new(move |mut n| {
        loop {
            n = main.switch(n);
        }
    });
    hub.switch(0);
    let (keep, to) = (saved.clone(), greenlet::current::<u32>());
    let g = Greenlet::builder()
        .parent(&hub)
        .build(move |n| {
            let _ = catch_unwind(AssertUnwindSafe(|| to.switch(n)));
            *keep.borrow_mut() = Some(greenlet::current::<u32>());
            to.switch(n)
        })
        .unwrap();
    g.switch(1);
    drop(g);
    let g = saved.borrow_mut().take().expect("it took a handle");
    assert_eq!(g.parent(), Some(hub));
    assert!(!g.is_dead());
    assert_eq!(g.switch(8), 8, "returned to hub, which passed it on");
}
