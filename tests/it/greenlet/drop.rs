//! Greenlets: what dropping the last handle does, weak handles, leaks.
//! (greenlet's `test_gc`, `test_weakref`, `test_leaks`, `test_greenlet_trash`; `test_contextvars` and `instance_dict`
//! have no counterpart: the locals of this crate belong to green threads.)

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use greenthread::generator::Generator;
use greenthread::greenlet::{self, Greenlet, GreenletExit};
use greenthread::stack;

use super::waiting;
use crate::support::counted::Counted;

#[test]
fn dropping_two_suspended_ones_ends_both_at_once() {
    let ended = Rc::new(Cell::new(0));
    let (a, b) = (waiting(&ended), waiting(&ended));
    drop(a);
    assert_eq!(ended.get(), 1);
    drop(b);
    assert_eq!(ended.get(), 2);
}

#[test]
fn it_is_the_last_handle_that_counts() {
    let ended = Rc::new(Cell::new(0));
    let a = waiting(&ended);
    let b = a.clone();
    drop(a);
    assert_eq!(ended.get(), 0);
    drop(b);
    assert_eq!(ended.get(), 1);
}

#[test]
fn the_exit_is_greenlet_exit() {
    let (main, seen) = (greenlet::current::<u32>(), Rc::new(Cell::new(false)));
    let note = seen.clone();
    let g = Greenlet::new(move |n| {
        let end = catch_unwind(AssertUnwindSafe(|| main.switch(n)));
        note.set(end.unwrap_err().is::<GreenletExit>());
        n
    });
    g.switch(1);
    drop(g);
    assert!(seen.get());
}

#[test]
fn another_panic_during_the_drop_is_told_and_not_raised() {
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |n| {
        let _ = catch_unwind(AssertUnwindSafe(|| main.switch(n)));
        resume_unwind(Box::new("something else (expected on stderr)"))
    });
    g.switch(1);
    drop(g);
}

#[test]
fn one_that_will_not_die_is_leaked_after_a_few_tries() {
    let (main, tries) = (greenlet::current::<u32>(), Rc::new(Cell::new(0)));
    let count = tries.clone();
    let g = Greenlet::new(move |n| {
        loop {
            let _ = catch_unwind(AssertUnwindSafe(|| main.switch(n)));
            count.set(count.get() + 1);
        }
    });
    g.switch(1);
    let weak = g.downgrade();
    drop(g);
    assert_eq!(tries.get(), 16);
    assert!(weak.upgrade().is_some(), "leaked, not freed");
}

#[test]
fn one_dropped_while_another_runs_gives_control_back_to_that() {
    let ended = Rc::new(Cell::new(0));
    let (victim, seen) = (waiting(&ended), ended.clone());
    let dropper = Greenlet::new(move |n| {
        drop(victim);
        assert_eq!(seen.get(), 1);
        n + 1
    });
    assert_eq!(dropper.switch(1), 2);
}

#[test]
fn dropping_during_a_panic_works() {
    let ended = Rc::new(Cell::new(0));
    let g = waiting(&ended);
    let result = catch_unwind(AssertUnwindSafe(move || {
        let _g = g;
        resume_unwind(Box::new("main"));
    }));
    assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "main");
    assert_eq!(ended.get(), 1);
    assert!(!std::thread::panicking());
}

#[test]
fn an_unstarted_one_drops_its_body_once() {
    let ended = Rc::new(Cell::new(0));
    let guard = Counted(ended.clone());
    drop(Greenlet::new(move |n: u32| {
        let _guard = &guard;
        n
    }));
    assert_eq!(ended.get(), 1);
}

#[test]
fn a_panic_in_the_captures_of_an_unstarted_one_is_told_and_not_raised() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("bomb (expected on stderr)"));
        }
    }
    let bomb = Bomb;
    drop(Greenlet::new(move |n: u32| {
        let _bomb = &bomb;
        n
    }));
}

#[test]
fn a_running_one_without_handles_dies_when_it_switches_away() {
    // ... and the value that it sent is not lost: greenlet's `dealloc_switch_args_not_lost`
    let (ended, own) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None::<Greenlet<u32>>)));
    let (main, guard, mine) = (greenlet::current::<u32>(), Counted(ended.clone()), own.clone());
    let g = Greenlet::new(move |n| {
        let _guard = guard;
        mine.borrow_mut().take();
        main.switch(n + 1)
    });
    let weak = g.downgrade();
    *own.borrow_mut() = Some(g);
    // no handle of it is held here over the switch but the weak one's
    let starter = Greenlet::new(move |n| weak.upgrade().unwrap().switch(n));
    assert_eq!(starter.switch(5), 6);
    assert_eq!(ended.get(), 0, "starter's stack holds one");
    drop(starter);
    assert_eq!(ended.get(), 1);
}

#[test]
fn the_drop_of_one_drops_others() {
    // greenlet's `finalizer_crash`
    let ended = Rc::new(Cell::new(0));
    let main = greenlet::current::<u32>();
    let mut inner = waiting(&ended);
    for _ in 0..20 {
        let (main, guard, held) = (main.clone(), Counted(ended.clone()), inner);
        inner = Greenlet::new(move |n| {
            let _both = (guard, held);
            main.switch(n)
        });
        inner.switch(0);
    }
    drop(inner);
    assert_eq!(ended.get(), 21);
}

/// Switches when it is dropped: to its greenlet, or to a new one.
struct Switcher(Option<Greenlet<u32>>, Rc<Cell<u32>>);

impl Drop for Switcher {
    fn drop(&mut self) {
        let to = self.0.take().unwrap_or_else(|| Greenlet::new(|n: u32| n));
        to.switch(1);
        self.1.set(self.1.get() + 1);
    }
}

#[test]
fn destructors_that_switch_nest_fifty_deep() {
    // greenlet's `test_greenlet_trash`
    let (main, done) = (greenlet::current::<u32>(), Rc::new(Cell::new(0)));
    let mut inner: Option<Greenlet<u32>> = None;
    for _ in 0..50 {
        let (main, held, done) = (main.clone(), inner.take(), done.clone());
        let g = Greenlet::new(move |n| {
            let _held = held;
            let _switcher = Switcher(None, done);
            main.switch(n)
        });
        g.switch(0);
        inner = Some(g);
    }
    drop(inner);
    assert_eq!(done.get(), 50);
    assert!(!std::thread::panicking());
}

#[test]
fn a_destructor_that_switches_to_main_while_it_is_killed_is_leaked_whole() {
    let (main, done) = (greenlet::current::<u32>(), Rc::new(Cell::new(0)));
    let (to, note) = (main.clone(), done.clone());
    let g = Greenlet::new(move |n| {
        let _switcher = Switcher(Some(to), note);
        main.switch(n)
    });
    g.switch(0);
    let weak = g.downgrade();
    drop(g); // its destructor comes back here, in the middle of its unwinding
    assert_eq!(done.get(), 0);
    let g = weak.upgrade().expect("leaked");
    let _ = g.try_switch(0); // it can still go on to its end
    assert!(g.is_dead());
    assert_eq!(done.get(), 1);
}

#[test]
fn weak_handles_die_with_their_greenlet() {
    let g = Greenlet::new(|n: u32| n);
    let weak = g.downgrade();
    assert_eq!(weak.upgrade(), Some(g.clone()));
    g.switch(0);
    assert!(weak.upgrade().is_some(), "dead, but there is a handle");
    drop(g);
    assert!(weak.upgrade().is_none());

    let inactive = Greenlet::new(|n: u32| n).downgrade();
    assert!(inactive.upgrade().is_none());
    let ended = Rc::new(Cell::new(0));
    let g = waiting(&ended);
    let weak = g.downgrade();
    drop(g);
    assert!(weak.upgrade().is_none() && ended.get() == 1);
}

#[test]
fn a_dead_one_has_given_its_stack_back() {
    // greenlet's `test_stack_saved`, as far as it applies
    std::thread::spawn(|| {
        let before = stack::stats().in_use;
        let ended = Rc::new(Cell::new(0));
        let g = waiting(&ended);
        assert_eq!(stack::stats().in_use, before + 1);
        g.switch(0);
        assert!(g.is_dead());
        assert_eq!(stack::stats().in_use, before);
    })
    .join()
    .unwrap();
}

#[test]
fn ten_thousand_of_each_kind_leak_no_stack_and_no_family() {
    std::thread::spawn(|| {
        let ended = Rc::new(Cell::new(0));
        let value = Rc::new(());
        let round = |i: u32| {
            assert_eq!(Greenlet::new(|n: u32| n).switch(i), i);
            drop(Greenlet::new(|n: u32| n));
            drop(waiting(&ended));
            let g = waiting(&ended);
            assert_eq!(g.kill(), None);
            let held = value.clone();
            let g = Greenlet::new(move |v: Rc<()>| {
                drop(v);
                held
            });
            drop(g.switch(value.clone()));
            drop(g);
            Generator::<Rc<()>>::new({
                let value = value.clone();
                move |y| y.yield_(value)
            })
            .next();
        };
        (0..100).for_each(round);
        let before = stack::stats();
        (0..10_000).for_each(round);
        assert_eq!(stack::stats(), before);
        assert_eq!(Rc::strong_count(&value), 1);
        assert_eq!(ended.get(), 2 * 10_100);
    })
    .join()
    .unwrap();
}

#[test]
fn a_thread_that_ends_ends_its_greenlets() {
    // greenlet's `greenlet_cleanup_during_thread_exit`, and `thread_bug`
    use std::sync::atomic::{AtomicU32, Ordering};
    static ENDED: AtomicU32 = AtomicU32::new(0);
    struct Note;
    impl Drop for Note {
        fn drop(&mut self) {
            ENDED.fetch_add(1, Ordering::SeqCst);
        }
    }
    thread_local!(static KEPT: RefCell<Vec<Greenlet<u32>>> = const { RefCell::new(Vec::new()) });
    for _ in 0..20 {
        std::thread::spawn(|| {
            KEPT.with_borrow_mut(|kept| kept.push(Greenlet::new(|n: u32| n)));
            let main = greenlet::current::<u32>();
            let g = Greenlet::new(move |n| {
                let _note = Note;
                main.switch(n)
            });
            g.switch(1);
            KEPT.with_borrow_mut(|kept| kept.push(g));
        })
        .join()
        .unwrap();
    }
    assert_eq!(ENDED.load(Ordering::SeqCst), 20);
}

#[test]
fn current_works_in_the_destructors_of_thread_locals() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            assert_eq!(Greenlet::new(|n: u32| n + 1).switch(1), 2);
            assert!(greenlet::current::<u32>().is_current());
            assert!(greenlet::trace().is_none());
            greenlet::set_trace(None);
        }
    }
    thread_local!(static LATE: Late = const { Late });
    let thread = std::thread::spawn(|| {
        LATE.with(|_| ());
        let _ = greenlet::current::<u32>();
        greenlet::set_trace(None);
    });
    thread.join().unwrap();
}
