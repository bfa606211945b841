//! Greenlets: throwing, killing. (greenlet's `test_throw`.)

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use greenthread::greenlet::{self, Greenlet, GreenletExit, SwitchError};

use crate::support::fresh::raised;

#[test]
fn what_is_thrown_arrives_and_a_catch_lets_it_go_on() {
    let main = greenlet::current::<&str>();
    let g = Greenlet::new(move |v| {
        let text = raised(|| main.switch(v));
        assert_eq!(text, "thrown");
        main.switch("caught");
        "end"
    });
    assert_eq!(g.switch("first"), "first");
    assert_eq!(g.throw("thrown"), "caught");
    assert_eq!(g.switch(""), "end");
}

#[test]
fn a_boxed_payload_is_not_boxed_again() {
    let g = Greenlet::new(|n: u32| n);
    let payload = catch_unwind(|| resume_unwind(Box::new("inner"))).unwrap_err();
    assert_eq!(raised(|| g.throw(payload)), "inner");
}

#[test]
fn kill_is_quiet_and_a_second_one_is_absorbed() {
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |n| main.switch(n));
    assert_eq!(g.switch(4), 4);
    assert_eq!(g.kill(), None);
    assert!(g.is_dead());
    assert_eq!(g.kill(), None);
    assert_eq!(raised(|| g.throw("to the dead")), "to the dead");
}

#[test]
fn a_killed_one_may_leave_a_value_all_the_same() {
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |n| {
        let end = catch_unwind(AssertUnwindSafe(|| main.switch(n)));
        assert!(end.unwrap_err().is::<GreenletExit>());
        7
    });
    g.switch(1);
    assert_eq!(g.kill(), Some(7));
}

#[test]
fn the_parent_of_a_killed_one_gets_an_error_for_an_answer() {
    let g = Greenlet::new(|n: u32| {
        if n == 0 {
            resume_unwind(Box::new(GreenletExit))
        } else {
            n
        }
    });
    assert_eq!(g.try_switch(0), Err(SwitchError::Exited));
    assert_eq!(g.try_switch(1), Ok(1), "dead: the value comes back");
    let g = Greenlet::new(|_: u32| resume_unwind(Box::new(GreenletExit)));
    let text = catch_unwind(AssertUnwindSafe(|| g.switch(0))).unwrap_err();
    assert!(text.downcast::<String>().unwrap().contains("killed"));
}

#[test]
fn a_throw_into_an_unstarted_one_kills_it_without_running_a_line() {
    let (ran, held) = (Rc::new(Cell::new(false)), Rc::new(()));
    let (note, token) = (ran.clone(), held.clone());
    let g = Greenlet::new(move |n: u32| {
        let _token = token;
        note.set(true);
        n
    });
    assert_eq!(raised(|| g.throw("early")), "early");
    assert!(g.is_dead() && !ran.get());
    assert_eq!(Rc::strong_count(&held), 1);
    let g = Greenlet::new(|n: u32| n);
    assert_eq!(g.kill(), None);
    assert!(g.is_dead());
}

#[test]
fn throw_goes_to_the_original_parent() {
    // unstarted, started, and child of a child: never to whoever threw
    let main = greenlet::current::<u32>();
    let catcher = |main: Greenlet<u32>| {
        Greenlet::new(move |n| {
            let text = raised(|| main.switch(n));
            assert_eq!(text, "oops");
            1000
        })
    };

    let parent = catcher(main.clone());
    parent.switch(0);
    let unstarted = Greenlet::builder().parent(&parent).build(|n: u32| n).unwrap();
    let to = unstarted.clone();
    let thrower = Greenlet::new(move |_| to.throw("oops"));
    assert_eq!(thrower.switch(0), 1000);
    assert!(unstarted.is_dead() && parent.is_dead() && !thrower.is_dead());

    let parent = catcher(main.clone());
    parent.switch(0);
    let m = main.clone();
    let started = Greenlet::builder().parent(&parent).build(move |n| m.switch(n)).unwrap();
    started.switch(0);
    assert_eq!(started.throw("oops"), 1000);

    let parent = catcher(main.clone());
    parent.switch(0);
    let middle = Greenlet::builder().parent(&parent).build(|n: u32| n).unwrap();
    let child = Greenlet::builder()
        .parent(&middle)
        .build(move |n| main.switch(n))
        .unwrap();
    child.switch(0);
    assert_eq!(child.throw("oops"), 1000);
    assert!(middle.is_dead() && parent.is_dead() && child.is_dead());
}

#[test]
fn a_throw_at_oneself_is_raised_here() {
    assert_eq!(raised(|| greenlet::current::<u32>().throw("me")), "me");
    let g = Greenlet::new(|_: u32| {
        if raised(|| greenlet::current::<u32>().throw("me")) == "me" {
            1
        } else {
            0
        }
    });
    assert_eq!(g.switch(0), 1);
}

#[test]
fn a_throw_at_main_is_raised_where_main_waits() {
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |_| main.throw("up"));
    assert_eq!(raised(|| g.switch(0)), "up");
    assert!(!g.is_dead());
    assert_eq!(g.switch(3), 3);
}

#[test]
fn nothing_is_thrown_into_a_destructor_during_an_unwinding() {
    struct Switcher(Greenlet<u32>);
    impl Drop for Switcher {
        fn drop(&mut self) {
            assert_eq!(self.0.switch(1), 2);
        }
    }
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |_: u32| {
        let _switcher = Switcher(main);
        resume_unwind(Box::new("body"))
    });
    assert_eq!(g.switch(0), 1);
    match g.try_throw("no") {
        Err(SwitchError::Unwinding(payload)) => assert!(payload.is::<&str>()),
        other => panic!("{other:?}"),
    }
    assert_eq!(raised(|| g.switch(2)), "body");
    assert!(g.is_dead());
}

#[test]
fn errors_have_texts_and_give_back_what_was_not_sent() {
    let foreign = SwitchError::Foreign(String::from("v"));
    assert!(foreign.to_string().contains("another green thread"));
    assert_eq!(foreign.into_inner().as_deref(), Some("v"));
    assert_eq!(SwitchError::<u32>::Exited.into_inner(), None);
}
