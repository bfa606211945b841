//! Green-thread locals by the methods that std's `LocalKey` has.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use greenthread::thread::{Builder, Locals};
use greenthread::{green_local, spawn, yield_now};

use crate::support::fresh::fresh;

green_local! {
    static COUNT: Cell<u32> = Cell::new(1);
    static NAMES: RefCell<Vec<&'static str>> = RefCell::new(vec!["first"]);
    static NEVER: Cell<u32> = panic!("the initialiser ran");
    static NEVER_NAMES: RefCell<Vec<u32>> = panic!("the initialiser ran");
}

#[test]
fn a_cell_is_got_set_taken_and_replaced() {
    fresh(|| {
        assert_eq!(COUNT.get(), 1);
        COUNT.set(2);
        assert_eq!(COUNT.replace(3), 2);
        assert_eq!(COUNT.take(), 3);
        assert_eq!(COUNT.get(), 0);
        assert_eq!(spawn(|| COUNT.get()).join().unwrap(), 1);
    });
}

#[test]
fn a_ref_cell_is_borrowed_set_taken_and_replaced() {
    fresh(|| {
        NAMES.with_borrow_mut(|names| names.push("second"));
        assert_eq!(NAMES.with_borrow(Vec::len), 2);
        assert_eq!(NAMES.replace(vec!["third"]), ["first", "second"]);
        assert_eq!(NAMES.take(), ["third"]);
        assert!(NAMES.with_borrow(Vec::is_empty));
        NAMES.set(vec!["fourth"]);
        let panicked = NAMES.with_borrow(|_| catch_unwind(AssertUnwindSafe(|| NAMES.set(Vec::new()))));
        assert!(panicked.is_err());
        assert_eq!(NAMES.take(), ["fourth"]);
    });
}

#[test]
fn set_does_not_run_the_initialiser() {
    fresh(|| {
        NEVER.set(5);
        assert_eq!(NEVER.get(), 5);
        NEVER_NAMES.set(vec![5]);
        assert_eq!(NEVER_NAMES.take(), [5]);
    });
}

#[test]
fn a_borrow_may_last_over_a_switch() {
    fresh(|| {
        let long = spawn(|| {
            NAMES.with_borrow_mut(|names| {
                yield_now();
                names.push("late");
            });
            NAMES.take()
        });
        // another green thread, another value
        let other = spawn(|| NAMES.take());
        assert_eq!(long.join().unwrap(), ["first", "late"]);
        assert_eq!(other.join().unwrap(), ["first"]);
    });
}

#[test]
fn an_heir_sees_a_set_and_not_a_rebind() {
    fresh(|| {
        COUNT.set(5);
        let heir = Builder::new().locals(Locals::Inherit);
        let heir = heir.spawn_local(|| {
            yield_now();
            let seen = COUNT.get();
            COUNT.rebind(Cell::new(7));
            seen
        });
        COUNT.set(6); // the very value that was inherited
        assert_eq!(heir.unwrap().join().unwrap(), 6);
        assert_eq!(COUNT.get(), 6);
    });
}
