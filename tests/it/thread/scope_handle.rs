//! What the handle of a scope's child can do, and who hears of the child's panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use greenthread::thread::{self, Builder, Locals};
use greenthread::{future, sleep, time, timeout};

use crate::support::child;
use crate::support::fresh::{fresh, ms, secs, text, virtually};

#[test]
fn join_timeout_leaves_the_handle_as_good_as_before() {
    virtually(|| {
        let words = [String::from("a")];
        thread::scope(|s| {
            let start = time::now();
            let mut slow = s.spawn(|| {
                thread::sleep(secs(10));
                words[0].as_str()
            });
            assert!(slow.join_timeout(secs(3)).is_none());
            assert_eq!(time::now() - start, secs(3));
            assert_eq!(slow.join_timeout(secs(100)).unwrap().unwrap(), "a");
            assert_eq!(time::now() - start, secs(10));
            assert!(slow.join_timeout(secs(1)).unwrap().unwrap_err().is_taken());
        });
    });
}

#[test]
fn a_panic_read_by_join_timeout_is_done_with() {
    fresh(|| {
        thread::scope(|s| {
            let mut bad = s.spawn(|| -> u8 { panic!("child") });
            let error = bad.join_timeout(secs(10)).unwrap().unwrap_err();
            assert!(error.to_string().ends_with("panicked: child"), "{error}");
            assert!(bad.join_timeout(secs(10)).unwrap().unwrap_err().is_taken());
            assert!(bad.join().unwrap_err().is_taken());
        });
    });
}

#[test]
fn its_future_gives_value_or_panic() {
    fresh(|| {
        thread::scope(|s| {
            let good = s.spawn(|| {
                sleep(ms(1));
                7
            });
            assert_eq!(future::block_on(good).unwrap(), 7);
            let payload = future::block_on(s.spawn(|| panic!("child"))).unwrap_err().into_panic();
            assert_eq!(text(&*payload), "child");
        });
    });
}

#[test]
fn it_knows_where_it_was_spawned() {
    fresh(|| {
        thread::scope(|s| {
            let (child, line) = (s.spawn(|| ()), line!());
            assert_eq!(child.spawned_at().line(), line);
            assert!(child.spawned_at().file() == file!());
        });
    });
}

#[test]
fn a_time_out_that_leaves_its_run_in_a_child_is_no_panic_of_the_scope() {
    virtually(|| {
        thread::scope(|s| {
            let late = s.spawn(|| {
                let _late = time::Timeout::new(secs(1)); // no `run`: nobody catches it
                sleep(secs(5));
            });
            assert!(late.join().is_err());
        });
    });
}

#[test]
fn a_time_out_within_each_child_ends_the_children() {
    virtually(|| {
        let start = time::now();
        let done = thread::scope(|s| {
            let children = [1, 50].map(|n| s.spawn(move || timeout(secs(5), || sleep(secs(n))).is_ok()));
            children.map(|child| child.join().unwrap())
        });
        assert_eq!((done, time::now() - start), ([true, false], secs(5)));
    });
}

#[test]
fn a_builder_makes_scoped_ones() {
    fresh(|| {
        let text = String::from("borrowed");
        thread::scope(|s| {
            let named = Builder::new().name("named").stack_size(1 << 20);
            let child = named
                .spawn_scoped(s, || (thread::current().name().map(String::from), &*text))
                .unwrap();
            assert_eq!(child.join().unwrap(), (Some(String::from("named")), "borrowed"));

            let local = Builder::new().name("local").locals(Locals::Inherit);
            let child = local.spawn_local_scoped(s, || std::rc::Rc::new(&*text)).unwrap();
            assert_eq!(child.thread().name(), Some("local"));
            assert_eq!(**child.join().unwrap(), *"borrowed");

            let error = Builder::new().locals(Locals::Share).spawn_scoped(s, || ()).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            let error = Builder::new().stack_size(0).spawn_scoped(s, || ()).unwrap_err();
            assert_ne!(error.to_string(), "");
        });
    });
}

/// Runs in the child.
pub(crate) fn a_child_panics() {
    let scope = catch_unwind(AssertUnwindSafe(|| {
        thread::scope(|s| drop(s.spawn(|| panic!("the child's own words"))));
    }));
    assert!(scope.is_err());
}

#[test]
fn a_childs_panic_is_told_by_the_panic_hook_and_the_scope_and_nobody_else() {
    let out = child::run("scoped panic");
    assert!(out.ok, "{out:?}");
    assert_eq!(out.stderr.matches("the child's own words").count(), 1, "{out:?}");
    assert_eq!(
        out.stderr.matches("a scoped green thread panicked").count(),
        1,
        "{out:?}"
    );
    // But for the line that names it, before std's message.
    assert_eq!(out.stderr.matches("greenthread:").count(), 1, "{out:?}");
}

/// Panics as it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as it is dropped");
    }
}

#[test]
fn a_childs_value_that_panics_as_it_is_dropped_does_not_meet_the_kill_of_its_reader() {
    fresh(|| {
        let reader = greenthread::spawn(|| {
            thread::scope(|s| {
                let _child = s.spawn(|| Bomb);
                thread::park();
            });
        });
        (0..5).for_each(|_| greenthread::yield_now());
        reader.kill();
        // Had the two met, the process would have aborted.
        assert!(reader.join().unwrap_err().is_killed());
    });
}
