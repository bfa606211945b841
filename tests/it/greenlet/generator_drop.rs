//! Generators: closing, dropping, throwing.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use greenthread::generator::{CloseError, Generator, GeneratorExit, State};
use greenthread::stack;

use crate::support::counted::Counted;
use crate::support::fresh::raised;

fn endless(ended: &Rc<Cell<u32>>) -> Generator<u32> {
    let guard = Counted(ended.clone());
    Generator::new(move |y| {
        let _guard = &guard;
        for n in 0.. {
            y.yield_(n);
        }
    })
}

#[test]
fn dropping_a_suspended_one_unwinds_it_at_once() {
    let ended = Rc::new(Cell::new(0));
    let mut g = endless(&ended);
    g.next();
    drop(g);
    assert_eq!(ended.get(), 1);
}

#[test]
fn dropping_a_new_one_drops_its_body_once() {
    let ended = Rc::new(Cell::new(0));
    drop(endless(&ended));
    assert_eq!(ended.get(), 1);
}

#[test]
fn the_stack_is_given_back_at_the_end_of_the_body() {
    std::thread::spawn(|| {
        let mut g = Generator::<u32>::new(|y| y.yield_(1));
        assert_eq!(stack::stats().in_use, 1);
        assert_eq!(g.by_ref().count(), 1);
        assert_eq!(stack::stats().in_use, 0);
    })
    .join()
    .unwrap();
}

#[test]
fn close_of_a_new_one_never_runs_it() {
    let ran = Rc::new(Cell::new(false));
    let note = ran.clone();
    let mut g = Generator::<u32>::new(move |_| note.set(true));
    assert_eq!(g.close(), Ok(None));
    assert!(g.is_done() && !ran.get());
    assert_eq!(g.close(), Ok(None));
    assert_eq!(g.next(), None);
}

#[test]
fn close_raises_generator_exit_and_returns_what_the_body_returns() {
    let mut g = Generator::new(|y| {
        let end = catch_unwind(AssertUnwindSafe(|| y.yield_(1)));
        end.unwrap_err().is::<GeneratorExit>()
    });
    g.next();
    assert_eq!(g.close(), Ok(Some(true)));
}

#[test]
fn one_that_ignores_a_close_stays_alive() {
    let mut g = Generator::<u32>::new(|y| {
        let _ = catch_unwind(AssertUnwindSafe(|| y.yield_(1)));
        y.yield_all(2..4);
    });
    g.next();
    assert_eq!(g.close(), Err(CloseError));
    assert!(CloseError.to_string().contains("ignored close"));
    assert_eq!(g.next(), Some(3));
    assert_eq!(g.next(), None);
}

#[test]
fn another_panic_during_a_close_goes_on_here() {
    let mut g = Generator::<u32>::new(|y| {
        let _ = catch_unwind(AssertUnwindSafe(|| y.yield_(1)));
        resume_unwind(Box::new("other"))
    });
    g.next();
    assert_eq!(raised(|| g.close()), "other");
    assert!(g.is_done());
}

#[test]
fn another_panic_during_the_drop_is_told_and_not_raised() {
    let mut g = Generator::<u32>::new(|y| {
        let _ = catch_unwind(AssertUnwindSafe(|| y.yield_(1)));
        resume_unwind(Box::new("other (expected on stderr)"))
    });
    g.next();
    drop(g);
}

#[test]
fn a_panic_in_the_captures_of_a_new_one_is_told_and_not_raised() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("bomb (expected on stderr)"));
        }
    }
    let bomb = Bomb;
    drop(Generator::<u32>::new(move |_| drop(bomb)));
}

#[test]
fn one_that_will_not_end_is_leaked_after_a_few_tries() {
    let tries = Rc::new(Cell::new(0));
    let count = tries.clone();
    let mut g = Generator::<u32>::new(move |y| {
        loop {
            let _ = catch_unwind(AssertUnwindSafe(|| y.yield_(1)));
            count.set(count.get() + 1);
        }
    });
    g.next();
    drop(g);
    assert_eq!(tries.get(), 16);
}

#[test]
fn dropping_during_a_panic_works() {
    let ended = Rc::new(Cell::new(0));
    let mut g = endless(&ended);
    g.next();
    let result = catch_unwind(AssertUnwindSafe(move || {
        let _g = g;
        resume_unwind(Box::new("outer"));
    }));
    assert!(result.is_err());
    assert_eq!(ended.get(), 1);
    assert!(!std::thread::panicking());
}

#[test]
fn a_destructor_that_yields_while_it_is_dropped_is_leaked_and_aborts_nothing() {
    let after = Rc::new(Cell::new(false));
    let note = after.clone();
    let mut g = Generator::<u32>::new(move |y| {
        struct Yields<F: Fn()>(F);
        impl<F: Fn()> Drop for Yields<F> {
            fn drop(&mut self) {
                (self.0)();
            }
        }
        let _yields = Yields(|| {
            y.yield_(2);
            note.set(true);
        });
        y.yield_(1);
    });
    g.next();
    drop(g);
    assert!(!after.get());
}

#[test]
fn one_that_yields_from_a_destructor_goes_on_with_its_panic() {
    let mut g = Generator::<u32>::new(|y| {
        struct Yields<F: Fn()>(F);
        impl<F: Fn()> Drop for Yields<F> {
            fn drop(&mut self) {
                (self.0)();
            }
        }
        let _yields = Yields(|| y.yield_(7));
        resume_unwind(Box::new("body"));
    });
    assert_eq!(g.next(), Some(7));
    assert!(std::thread::panicking(), "the panic in flight is the OS thread's");
    assert_eq!(g.close(), Err(CloseError));
    assert_eq!(raised(|| g.next()), "body");
    assert!(!std::thread::panicking());
}

#[test]
fn throw_is_raised_at_the_yield_and_a_catch_lets_it_go_on() {
    let mut g = Generator::new(|y| {
        let thrown = catch_unwind(AssertUnwindSafe(|| y.yield_(1))).unwrap_err();
        y.yield_(*thrown.downcast::<u32>().unwrap());
    });
    g.next();
    assert_eq!(g.throw(5_u32), State::Yielded(5));
    assert_eq!(raised(|| g.throw("uncaught")), "uncaught");
    assert!(g.is_done());
}

#[test]
fn throw_into_a_new_or_ended_one_is_raised_here() {
    let ended = Rc::new(Cell::new(0));
    let mut g = endless(&ended);
    assert_eq!(raised(|| g.throw("new")), "new");
    assert_eq!(ended.get(), 1);
    assert_eq!(raised(|| g.throw("ended")), "ended");
}

#[test]
fn ten_thousand_of_each_end_leak_no_stack() {
    std::thread::spawn(|| {
        let ended = Rc::new(Cell::new(0));
        let round = |_| {
            assert_eq!(endless(&ended).nth(3), Some(3));
            drop(endless(&ended));
            let mut g = endless(&ended);
            g.next();
            assert_eq!(g.close(), Ok(None));
        };
        (0..100).for_each(round);
        let before = stack::stats();
        (0..10_000).for_each(round);
        assert_eq!(stack::stats(), before);
        assert_eq!(ended.get(), 3 * 10_100);
    })
    .join()
    .unwrap();
}
