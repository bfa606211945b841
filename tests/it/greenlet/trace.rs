//! Greenlets: the hook that sees each transfer. (greenlet's `test_tracing`.)

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use greenthread::greenlet::{self, Greenlet, TraceKind, set_trace};

type Events = Rc<RefCell<Vec<(TraceKind, u64, u64)>>>;

fn record() -> Events {
    let events = Events::default();
    let log = events.clone();
    let hook = move |e: &greenlet::TraceEvent| log.borrow_mut().push((e.kind, e.origin, e.target));
    assert!(set_trace(Some(Rc::new(hook))).is_none());
    events
}

#[test]
fn transfers_are_seen_in_order() {
    use TraceKind::{Switch, Throw};
    let main = greenlet::current::<u32>();
    let events = record();
    let g1 = Greenlet::new(|n: u32| n);
    g1.switch(0);
    let g2 = Greenlet::new(|_: u32| resume_unwind(Box::new("g2")));
    assert!(catch_unwind(AssertUnwindSafe(|| g2.switch(0))).is_err());
    assert!(set_trace(None).is_some());
    Greenlet::new(|n: u32| n).switch(0);
    let (main, g1, g2) = (main.id(), g1.id(), g2.id());
    let seen = [
        (Switch, main, g1),
        (Switch, g1, main),
        (Switch, main, g2),
        (Throw, g2, main),
    ];
    assert_eq!(*events.borrow(), seen);
}

#[test]
fn it_is_called_on_the_stack_that_control_came_to() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    set_trace(Some(Rc::new(move |event| {
        log.borrow_mut().push(greenlet::current::<u32>().id() == event.target);
    })));
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |n| main.switch(n));
    g.switch(0);
    g.switch(0);
    set_trace(None);
    assert_eq!(*seen.borrow(), [true; 4]);
}

#[test]
fn a_panic_of_the_hook_turns_tracing_off_and_is_the_answer() {
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |n| main.switch(n));
    let calls = Rc::new(Cell::new(0));
    let count = calls.clone();
    set_trace(Some(Rc::new(move |_| {
        count.set(count.get() + 1);
        if count.get() == 2 {
            resume_unwind(Box::new("hook"));
        }
    })));
    let answer = catch_unwind(AssertUnwindSafe(|| g.switch(1))).unwrap_err();
    assert_eq!(*answer.downcast::<&str>().unwrap(), "hook");
    assert!(greenlet::trace().is_none());
    assert_eq!(g.switch(2), 2);
    assert_eq!(calls.get(), 2);
}

#[test]
fn a_panic_of_the_hook_at_a_start_ends_the_new_one() {
    set_trace(Some(Rc::new(|_| resume_unwind(Box::new("hook")))));
    let g = Greenlet::new(|n: u32| n);
    let answer = catch_unwind(AssertUnwindSafe(|| g.switch(1))).unwrap_err();
    assert_eq!(*answer.downcast::<&str>().unwrap(), "hook");
    assert!(g.is_dead() && greenlet::trace().is_none());
}

#[test]
fn the_same_hook_can_be_set_twice() {
    let calls = Rc::new(Cell::new(0));
    let count = calls.clone();
    let hook: greenlet::Hook = Rc::new(move |_| count.set(count.get() + 1));
    assert!(set_trace(Some(hook.clone())).is_none());
    assert!(Rc::ptr_eq(&set_trace(Some(hook.clone())).unwrap(), &hook));
    Greenlet::new(|n: u32| n).switch(0);
    assert!(Rc::ptr_eq(&set_trace(None).unwrap(), &hook));
    assert_eq!(calls.get(), 2);
}

#[test]
fn a_hook_may_switch_itself() {
    // greenlet's `reentrant_switch_two_greenlets`, `.._three_greenlets` and `.._GreenletAlreadyStartedInPython`
    let main = greenlet::current::<u32>();
    let looper = |main: Greenlet<u32>| {
        Greenlet::new(move |mut n| {
            loop {
                n = main.switch(n + 1);
            }
        })
    };
    let (a, b, c) = (looper(main.clone()), looper(main.clone()), looper(main));
    let (other, third, busy) = (b.clone(), c.clone(), Cell::new(false));
    let first = a.id();
    set_trace(Some(Rc::new(move |event| {
        if event.origin == first && !busy.replace(true) {
            assert_eq!(other.switch(10), 11);
            assert_eq!(third.switch(20), 21);
            busy.set(false);
        }
    })));
    let answers: Vec<u32> = (0..5).map(|n| a.switch(n)).collect();
    set_trace(None);
    assert_eq!(answers, [1, 2, 3, 4, 5]);
    assert!(b.is_active() && c.is_active());
}

#[test]
fn a_hook_in_a_starting_one_may_switch_it_away() {
    let main = greenlet::current::<u32>();
    let (to, once) = (main, Cell::new(false));
    set_trace(Some(Rc::new(move |_| {
        if !once.replace(true) {
            to.switch(99);
        }
    })));
    let g = Greenlet::new(|n: u32| n + 1);
    assert_eq!(g.switch(1), 99);
    assert!(g.is_active());
    assert_eq!(g.switch(5), 2, "the first value is not lost");
    set_trace(None);
}
