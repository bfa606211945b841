//! Greenlets: switching, values, death by return. (greenlet's `test_greenlet`; frames, run, kwargs, pickling and
//! threads that are errors of types are not applicable here, see the `compile_fail`s of `Greenlet`.)

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use greenthread::generator::Generator;
use greenthread::greenlet::{self, Greenlet, SwitchError};

fn log() -> (Rc<RefCell<Vec<u32>>>, impl Fn(u32) + Clone) {
    let log = Rc::new(RefCell::new(Vec::new()));
    let writer = log.clone();
    (log, move |n| writer.borrow_mut().push(n))
}

#[test]
fn simple_body_runs_at_the_switch_and_is_dead_at_its_end() {
    let (log, put) = log();
    let (main, write) = (greenlet::current::<()>(), put.clone());
    let g = Greenlet::new(move |()| {
        write(0);
        main.switch(());
        write(1);
    });
    assert!(!g.is_active() && !g.is_dead());
    put(10);
    g.switch(());
    assert!(g.is_active() && !g.is_dead() && !g.is_current());
    put(11);
    g.switch(());
    put(12);
    assert!(!g.is_active() && g.is_dead());
    assert_eq!(*log.borrow(), [10, 0, 11, 1, 12]);
}

#[test]
fn the_default_parent_is_the_running_greenlet() {
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(|_: u32| {
        let child = Greenlet::new(|n: u32| n);
        assert_eq!(child.parent(), Some(greenlet::current()));
        7
    });
    assert_eq!(g.parent(), Some(main));
    assert_eq!(g.switch(0), 7);
}

#[test]
fn two_children_run_in_turn() {
    let (log, put) = log();
    let body = |main: Greenlet<u32>, put: Rc<dyn Fn(u32)>| {
        move |n| {
            put(n);
            main.switch(0);
            put(n);
            n
        }
    };
    let (main, put) = (greenlet::current::<u32>(), Rc::new(put));
    let g = Greenlet::new(body(main.clone(), put.clone()));
    let h = Greenlet::new(body(main, put.clone()));
    g.switch(1);
    h.switch(2);
    assert_eq!((g.switch(0), h.switch(0)), (1, 2));
    assert_eq!(*log.borrow(), [1, 2, 1, 2]);
}

#[test]
fn two_recursive_children_keep_order_and_are_freed() {
    let (log, put) = log();
    let put = Rc::new(put);
    let write = put.clone();
    let f = Rc::new(move || {
        write(1);
        greenlet::current::<u32>().parent().unwrap().switch(0);
    });
    let (f2, write) = (f.clone(), put.clone());
    let g = Greenlet::new(move |_| {
        write(2);
        let f3 = f2.clone();
        let h = Greenlet::new(move |_: u32| {
            f3();
            0
        });
        h.switch(0);
        write(3);
        h.switch(0)
    });
    assert_eq!(g.switch(0), 0);
    assert!(g.is_dead());
    assert_eq!(*log.borrow(), [2, 1, 3]);
    drop(put);
    assert_eq!(Rc::strong_count(&f), 1, "both bodies are freed");
}

#[test]
fn siblings_switch_to_each_other_by_way_of_no_one() {
    let main = greenlet::current::<Vec<u32>>();
    let b = Greenlet::new(move |mut path: Vec<u32>| {
        loop {
            path.push(2);
            path = main.switch(path);
        }
    });
    let to = b.clone();
    let a = Greenlet::new(move |mut path: Vec<u32>| {
        loop {
            path.push(1);
            path = to.switch(path);
        }
    });
    assert_eq!(a.switch(vec![0]), [0, 1, 2]);
    assert_eq!(b.switch(vec![0]), [0, 2]);
    assert_eq!(a.switch(vec![5]), [5, 1, 2]);
}

#[test]
fn ten_threads_run_their_own_greenlets() {
    let run = || {
        let main = greenlet::current::<u64>();
        let g = Greenlet::new(move |mut n| {
            for _ in 0..100 {
                n = main.switch(n + 1);
            }
            n
        });
        (0..100).map(|n| g.switch(n)).sum::<u64>()
    };
    let threads: Vec<_> = (0..10).map(|_| std::thread::spawn(run)).collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 5050);
    }
}

#[test]
fn a_switch_to_oneself_returns_the_value_at_once() {
    assert_eq!(greenlet::current::<u32>().switch(5), 5);
    let g = Greenlet::new(|n: u32| greenlet::current::<u32>().switch(n + 1) + 1);
    assert_eq!(g.switch(1), 3);
}

#[test]
fn switching_to_a_dead_one_returns_the_value() {
    let g = Greenlet::new(|n: u32| n);
    assert_eq!(g.switch(1), 1);
    assert!(g.is_dead());
    assert_eq!(g.switch(42), 42);
    let from_another = Greenlet::new(move |n| g.switch(n) + 1);
    let main_got = from_another.switch(1);
    assert_eq!(main_got, 1, "the dead one's parent is main, not the caller");
    assert!(!from_another.is_dead());
    assert_eq!(from_another.switch(9), 10);
}

#[test]
fn values_are_moved_not_copied_or_lost() {
    let value = Rc::new(());
    let main = greenlet::current::<Rc<()>>();
    let g = Greenlet::new(move |mut v| {
        loop {
            v = main.switch(v);
        }
    });
    for _ in 0..100 {
        let back = g.switch(value.clone());
        assert!(Rc::ptr_eq(&back, &value));
        drop(back);
        assert_eq!(Rc::strong_count(&value), 1);
    }
}

#[test]
fn large_values_arrive_whole() {
    let g = Greenlet::new(|mut v: [u64; 100]| {
        v[99] += 1;
        v
    });
    let mut v = [7; 100];
    v[99] = 1;
    assert_eq!(g.switch(v)[98..], [7, 2]);
}

#[test]
fn a_handled_panic_in_one_is_none_of_the_others() {
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |n| {
        let caught = catch_unwind(AssertUnwindSafe(|| std::panic::resume_unwind(Box::new("g"))));
        assert!(!std::thread::panicking());
        main.switch(n);
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "g");
        n
    });
    g.switch(1);
    assert!(!std::thread::panicking());
    assert!(catch_unwind(|| std::panic::resume_unwind(Box::new("main"))).is_err());
    assert_eq!(g.switch(0), 1);
}

#[test]
fn four_with_a_caught_panic_each_rethrow_their_own() {
    // greenlet's test_cpp: exception_switch
    let main = greenlet::current::<usize>();
    let bodies = (0..4_usize).map(|i| {
        let main = main.clone();
        Greenlet::new(move |_: usize| {
            let caught = catch_unwind(AssertUnwindSafe(|| std::panic::resume_unwind(Box::new(i))));
            main.switch(i);
            std::panic::resume_unwind(caught.unwrap_err())
        })
    });
    let all: Vec<_> = bodies.collect();
    assert_eq!(all.iter().map(|g| g.switch(0)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for i in [2, 0, 3, 1] {
        let raised = catch_unwind(AssertUnwindSafe(|| all[i].switch(0))).unwrap_err();
        assert_eq!(*raised.downcast::<usize>().unwrap(), i);
        assert!(all[i].is_dead());
    }
}

#[test]
fn a_thousand_panics_cross_into_the_parent() {
    for i in 0..1000_u32 {
        let g = Greenlet::new(move |_: ()| std::panic::resume_unwind(Box::new(i)));
        let raised = catch_unwind(AssertUnwindSafe(|| g.switch(()))).unwrap_err();
        assert_eq!(*raised.downcast::<u32>().unwrap(), i);
    }
    assert!(!std::thread::panicking());
}

#[test]
fn a_body_whose_captures_switch_when_dropped() {
    // greenlet's reentrant_switch_run_callable_has_del
    struct Switcher(Greenlet<u32>, Rc<Cell<u32>>);
    impl Drop for Switcher {
        fn drop(&mut self) {
            self.1.set(self.0.switch(1));
        }
    }
    let seen = Rc::new(Cell::new(0));
    let other = Greenlet::new(|n: u32| n + 10);
    let switcher = Switcher(other, seen.clone());
    let g = Greenlet::new(move |n: u32| {
        let _moved = &switcher;
        n
    });
    // other's parent is main: its return value ends the switch to g, which waits in the destructor
    assert_eq!(g.switch(5), 11);
    assert!(!g.is_dead());
    assert_eq!(g.switch(3), 5);
    assert!(g.is_dead());
    assert_eq!(seen.get(), 3);
}

#[test]
fn a_greenlet_may_switch_from_within_a_generator_body() {
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |n| {
        let main = main.clone();
        let doubled = Generator::new(move |y| {
            for i in 0..3 {
                let sent = main.switch(i);
                y.yield_(sent * 2);
            }
        });
        n + doubled.sum::<u32>()
    });
    assert_eq!(g.switch(100), 0);
    assert_eq!(g.switch(1), 1);
    assert_eq!(g.switch(2), 2);
    assert_eq!(g.switch(3), 112);
}

#[test]
fn one_dropped_in_the_middle_of_a_generator_unwinds_both() {
    let order = Rc::new(RefCell::new(Vec::new()));
    struct Say(Rc<RefCell<Vec<u32>>>, u32);
    impl Drop for Say {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }
    let (main, inner) = (greenlet::current::<u32>(), order.clone());
    let g = Greenlet::new(move |_| {
        let _outer = Say(inner.clone(), 2);
        let (main, inner) = (main.clone(), inner.clone());
        Generator::<u32>::new(move |y| {
            let _inner = Say(inner, 1);
            y.yield_(main.switch(1));
        })
        .sum()
    });
    g.switch(0);
    drop(g);
    assert_eq!(*order.borrow(), [1, 2]);
}

#[test]
fn a_generator_may_be_where_the_main_greenlet_waits() {
    let mut answers = Generator::new(|y| {
        let main = greenlet::current::<u32>();
        let g = Greenlet::new(move |mut n| {
            loop {
                n = main.switch(n * 2);
            }
        });
        for n in 1.. {
            y.yield_(g.switch(n));
        }
    });
    assert_eq!(answers.by_ref().take(3).collect::<Vec<_>>(), [2, 4, 6]);
}

#[test]
fn families_of_different_types_nest() {
    let words = Greenlet::new(|text: String| {
        let double = Greenlet::new(|n: u32| n * 2);
        format!("{text}{}", double.switch(21))
    });
    assert_eq!(words.switch("n=".into()), "n=42");
}

#[test]
fn a_family_that_waits_below_another_is_out_of_reach() {
    let (to_main, inner) = (greenlet::current::<()>(), Rc::new(RefCell::new(None)));
    let keep = inner.clone();
    let outer = Greenlet::new(move |()| {
        let b = Greenlet::new(move |n: u32| {
            to_main.switch(()); // leaves `outer` from the stack of `b`
            n + 1
        });
        *keep.borrow_mut() = Some(b.clone());
        assert_eq!(b.switch(1), 2);
    });
    outer.switch(());
    let b = inner.borrow_mut().take().unwrap();
    assert_eq!(b.try_switch(5), Err(SwitchError::Foreign(5)));
    assert_eq!(Greenlet::new(|n: u32| n).try_switch(6), Err(SwitchError::Foreign(6)));
    outer.switch(());
    assert!(outer.is_dead() && b.is_dead());
    assert_eq!(b.try_switch(7), Ok(7));
}

#[test]
fn an_outer_drop_ends_the_family_that_waits_above_it() {
    let (to_main, alive) = (greenlet::current::<()>(), Rc::new(()));
    let token = alive.clone();
    let outer = Greenlet::new(move |()| {
        let b = Greenlet::new(move |n: u32| {
            let _token = token;
            to_main.switch(());
            n
        });
        b.switch(1);
    });
    outer.switch(());
    drop(outer);
    assert_eq!(Rc::strong_count(&alive), 1);
    assert_eq!(Greenlet::new(|n: u32| n).try_switch(6), Ok(6));
}

#[test]
fn a_stack_that_cannot_be_had_is_an_error() {
    let refused = Greenlet::<u32>::builder().stack_size(1 << 50).build(|n| n);
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(
        Greenlet::builder()
            .stack_size(1 << 20)
            .build(|n: u32| n)
            .unwrap()
            .switch(1),
        1
    );
}

#[test]
fn debug_tells_the_states_apart() {
    let main = greenlet::current::<u32>();
    let shown = |g: &Greenlet<u32>| format!("{g:?}");
    assert_eq!(shown(&main), format!("Greenlet(#{} \"main\", current)", main.id()));
    let (m, own) = (main.clone(), Rc::new(RefCell::new(Vec::new())));
    let own2 = own.clone();
    let g = Greenlet::builder()
        .name("g")
        .build(move |n| {
            own2.borrow_mut()
                .extend([format!("{:?}", greenlet::current::<u32>()), format!("{m:?}")]);
            m.switch(n)
        })
        .unwrap();
    let id = g.id();
    assert_eq!(shown(&g), format!("Greenlet(#{id} \"g\", pending)"));
    g.switch(0);
    assert_eq!(shown(&g), format!("Greenlet(#{id} \"g\", suspended)"));
    assert_eq!(own.borrow()[0], format!("Greenlet(#{id} \"g\", current)"));
    assert_eq!(own.borrow()[1], format!("Greenlet(#{} \"main\", suspended)", main.id()));
    g.switch(0);
    assert_eq!(shown(&g), format!("Greenlet(#{id} \"g\", dead)"));
}

#[test]
fn deep_chains_of_children_work() {
    fn chain(n: u32) -> u32 {
        if n == 0 {
            0
        } else {
            Greenlet::new(|n| chain(n - 1) + 1).switch(n)
        }
    }
    assert_eq!(Greenlet::new(chain).switch(2000), 2000);
}
