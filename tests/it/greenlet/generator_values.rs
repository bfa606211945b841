//! Generators: yielding, sending, delegating. (greenlet's `test_generator` and `test_generator_nested`, PEP 342 and
//! 380.)

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use greenthread::generator::{Generator, GeneratorExit, State, Yielder};
use greenthread::greenlet::{self, Greenlet};

use crate::support::fresh::raised;

#[test]
fn several_consumers_take_turns() {
    let mut even = Generator::new(|y| (0..).step_by(2).for_each(|n| y.yield_(n)));
    let mut odd = Generator::new(|y| (1..).step_by(2).for_each(|n| y.yield_(n)));
    let seen: Vec<u32> = (0..3)
        .flat_map(|_| [even.next().unwrap(), odd.next().unwrap()])
        .collect();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_generator_runs_inside_a_greenlet() {
    let g = Greenlet::new(|n: u32| Generator::new(move |y| (0..n).for_each(|i| y.yield_(i))).sum());
    assert_eq!(g.switch(5), 10);
}

#[test]
fn values_pass_two_levels() {
    let inner = |n| Generator::<u32>::new(move |y| (0..n).for_each(|i| y.yield_(i)));
    let outer = Generator::new(move |y| {
        for i in inner(4) {
            y.yield_(i * 10);
        }
    });
    assert_eq!(outer.collect::<Vec<_>>(), [0, 10, 20, 30]);
}

#[test]
fn permutations_by_recursive_generators() {
    fn permutations(items: Vec<u32>) -> Generator<Vec<u32>> {
        Generator::new(move |y| {
            let Some((&first, rest)) = items.split_first() else {
                return y.yield_(vec![]);
            };
            for part in permutations(rest.to_vec()) {
                for at in 0..=part.len() {
                    let mut whole = part.clone();
                    whole.insert(at, first);
                    y.yield_(whole);
                }
            }
        })
    }
    let all: Vec<_> = permutations(vec![1, 2, 3]).collect();
    assert_eq!(all, [[1, 2, 3], [2, 1, 3], [2, 3, 1], [1, 3, 2], [3, 1, 2], [3, 2, 1]]);
    assert_eq!(permutations((0..6).collect()).count(), 720);
}

#[test]
fn a_generator_body_may_start_others_however_deep() {
    fn nested(depth: u32) -> Generator<u32> {
        Generator::new(move |y| {
            if depth > 0 {
                y.yield_all(nested(depth - 1));
            }
            y.yield_(depth);
        })
    }
    assert_eq!(nested(200).sum::<u32>(), 200 * 201 / 2);
}

#[test]
fn yielding_happens_from_any_depth_of_calls() {
    fn hanoi(n: u32, from: char, to: char, by: char, y: &Yielder<'_, (char, char)>) {
        if n > 0 {
            hanoi(n - 1, from, by, to, y);
            y.yield_((from, to));
            hanoi(n - 1, by, to, from, y);
        }
    }
    let moves = Generator::new(|y| hanoi(10, 'a', 'c', 'b', y));
    assert_eq!(moves.count(), 1023);
}

#[test]
fn yielding_on_the_stack_of_an_inner_generator_suspends_both() {
    // the inner body cannot hold the outer yielder: its values are handed on instead
    let mut outer = Generator::<u32>::new(|y| {
        let mut inner = Generator::<u32>::new(|y| y.yield_all(5..8));
        y.yield_all(&mut inner);
        y.yield_all(&mut inner);
        assert!(inner.is_done());
    });
    assert_eq!(outer.by_ref().collect::<Vec<_>>(), [5, 6, 7]);
    assert!(outer.is_done());
}

#[test]
fn what_is_sent_is_what_yield_returns() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let heard = log.clone();
    let mut g = Generator::new(move |y| {
        for n in 0..3_u32 {
            let sent: String = y.yield_(n);
            heard.borrow_mut().push(sent);
        }
        "end"
    });
    assert_eq!(g.start(), State::Yielded(0));
    assert_eq!(g.send("a".into()), State::Yielded(1));
    assert_eq!(g.send("b".into()), State::Yielded(2));
    assert_eq!(g.send("c".into()), State::Returned("end"));
    assert_eq!(*log.borrow(), ["a", "b", "c"]);
    assert!(g.is_done());
}

#[test]
fn nothing_can_be_sent_to_a_new_one_nor_to_an_ended_one() {
    let mut g = Generator::new(|y| {
        let _: u32 = y.yield_(1);
    });
    assert!(raised(|| g.send(1)).contains("call start() first"));
    assert_eq!(g.start(), State::Yielded(1));
    assert!(raised(|| g.start()).contains("already started"));
    assert_eq!(g.send(1), State::Returned(()));
    assert!(raised(|| g.send(1)).contains("has ended"));
}

#[test]
fn an_ended_iterator_stays_ended_and_keeps_the_return_value() {
    let mut g = Generator::new(|y| {
        y.yield_(1);
        String::from("end")
    });
    assert_eq!(g.return_value(), None);
    assert_eq!((g.next(), g.next(), g.next(), g.next()), (Some(1), None, None, None));
    assert_eq!(g.return_value().map(String::as_str), Some("end"));
    assert_eq!(g.into_return().as_deref(), Some("end"));
}

#[test]
fn states_can_be_taken_apart() {
    let mut g = Generator::new(|y| {
        y.yield_(1);
        2
    });
    assert_eq!(g.resume().yielded(), Some(1));
    assert_eq!(g.resume().returned(), Some(2));
}

#[test]
fn a_panic_of_the_body_goes_on_in_whoever_asked_and_ends_it() {
    let mut g = Generator::<u32>::new(|y| {
        y.yield_(1);
        std::panic::resume_unwind(Box::new("body"));
    });
    assert_eq!(g.next(), Some(1));
    assert_eq!(raised(|| g.next()), "body");
    assert!(g.is_done());
    assert_eq!(g.next(), None);
}

#[test]
fn yield_from_hands_on_what_is_sent_and_returned() {
    let mut outer = Generator::new(|y| {
        let mut inner = Generator::new(|y| {
            let mut sum = 0;
            while let Some(n) = y.yield_(sum) {
                sum += n;
            }
            sum
        });
        let total = y.yield_from(&mut inner);
        y.yield_(total * 1000);
        total
    });
    assert_eq!(outer.start(), State::Yielded(0));
    assert_eq!(outer.send(Some(3_u32)), State::Yielded(3));
    assert_eq!(outer.send(Some(4)), State::Yielded(7));
    assert_eq!(outer.send(None), State::Yielded(7000));
    assert_eq!(outer.send(None), State::Returned(7));
}

#[test]
fn yield_from_hands_on_what_is_thrown() {
    let mut outer = Generator::new(|y| {
        let mut inner = Generator::new(|y| {
            assert_eq!(raised(|| y.yield_("waiting")), "thrown");
            y.yield_("inner caught it");
        });
        y.yield_from(&mut inner);
    });
    assert_eq!(outer.next(), Some("waiting"));
    assert_eq!(outer.throw("thrown"), State::Yielded("inner caught it"));
    assert_eq!(outer.next(), None);
}

#[test]
fn a_close_reaches_the_inner_one_first() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let (a, b) = (log.clone(), log.clone());
    let mut outer = Generator::new(move |y| {
        let b = b.clone();
        let mut inner = Generator::new(move |y| {
            let end = catch_unwind(AssertUnwindSafe(|| y.yield_(1))).unwrap_err();
            b.borrow_mut().push(("inner", end.is::<GeneratorExit>()));
            std::panic::resume_unwind(end);
        });
        let end = catch_unwind(AssertUnwindSafe(|| y.yield_from(&mut inner))).unwrap_err();
        a.borrow_mut().push(("outer", end.is::<GeneratorExit>()));
        assert!(inner.is_done());
        std::panic::resume_unwind(end)
    });
    outer.next();
    assert_eq!(outer.close(), Ok(None::<()>));
    assert_eq!(*log.borrow(), [("inner", true), ("outer", true)]);
}

#[test]
fn yield_from_one_that_has_been_started_is_refused() {
    let mut outer = Generator::new(|y| {
        let mut inner = Generator::<u32>::new(|y| y.yield_all(0..3));
        inner.next();
        y.yield_from(&mut inner);
    });
    assert!(raised(|| outer.next()).contains("already started"));
}

#[test]
fn yielding_from_another_stack_is_refused() {
    // greenlet's `genlet_bad`: a yielder that was lent to a green thread
    let mut g = Generator::<u32>::new(|y| {
        greenthread::thread::scope(|s| {
            let child = s.spawn_local(|| raised(|| y.yield_(1)));
            assert!(child.join().unwrap().contains("only on its own stack"));
        });
        y.yield_(2);
    });
    assert_eq!(g.collect_one(), 2);
}

trait CollectOne<T> {
    fn collect_one(&mut self) -> T;
}

impl<T> CollectOne<T> for Generator<T> {
    fn collect_one(&mut self) -> T {
        let value = self.next().expect("one");
        assert!(self.next().is_none());
        value
    }
}

#[test]
fn a_body_may_block() {
    use std::time::Duration;
    let g = Generator::new(|y| {
        for n in 0..3 {
            greenthread::sleep(Duration::from_millis(1));
            y.yield_(n);
        }
    });
    assert_eq!(g.collect::<Vec<u32>>(), [0, 1, 2]);
}

#[test]
fn a_body_may_be_advanced_in_one_greenlet_and_ended_in_another() {
    let mut g = Generator::new(|y| {
        for _ in 0..2 {
            y.yield_(greenlet::current::<u64>().id());
        }
    });
    let here = g.next().unwrap();
    let other = Greenlet::new(move |_: u64| g.next().unwrap());
    let there = other.switch(0);
    assert_eq!((here, there), (greenlet::current::<u64>().id(), other.id()));
}

#[test]
fn zero_sized_and_large_values_arrive_whole() {
    assert_eq!(Generator::<()>::new(|y| y.yield_all([(); 3])).count(), 3);
    let mut big = Generator::<[u8; 5000], [u8; 3000], ()>::new(|y| {
        let sent = y.yield_([1; 5000]);
        assert!(sent.iter().all(|&b| b == 2));
    });
    assert!(big.start().yielded().unwrap().iter().all(|&b| b == 1));
    assert_eq!(big.send([2; 3000]), State::Returned(()));
}

#[test]
fn bodies_of_any_alignment_have_a_place() {
    #[repr(align(2048))]
    #[derive(Clone, Copy)]
    struct Nothing;
    #[repr(align(512))]
    #[derive(Clone, Copy)]
    #[expect(dead_code, reason = "only its size counts")]
    struct Some512([u8; 512]);
    #[repr(align(4096))]
    #[derive(Clone, Copy)]
    #[expect(dead_code, reason = "only its size counts")]
    struct Page([u8; 4096]);
    fn aligned<T>(value: &T) -> bool {
        std::hint::black_box(std::ptr::from_ref(value))
            .addr()
            .is_multiple_of(align_of::<T>())
    }
    fn everywhere<T: Copy + Send + 'static>(value: T) {
        let body = move || aligned(&value);
        assert!(Generator::<bool>::new(move |y| y.yield_(body())).next().unwrap());
        assert!(greenthread::spawn(body).join().unwrap());
        assert!(greenthread::spawn_local(body).join().unwrap());
        let body = move |n: u32| n + u32::from(aligned(&value));
        assert_eq!(Greenlet::new(body).switch(1), 2);
    }
    everywhere(Nothing);
    everywhere(Some512([1; 512]));
    everywhere(Page([1; 4096]));
}

#[test]
fn a_stack_that_cannot_be_had_is_an_error() {
    let refused = Generator::<u32>::with_stack_size(1 << 50, |_| ());
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(Generator::<u32>::try_new(|y| y.yield_(1)).unwrap().count(), 1);
}

#[test]
fn debug_tells_the_states_apart() {
    let mut g = Generator::<u32>::new(|y| y.yield_(1));
    assert_eq!(format!("{g:?}"), "Generator(new)");
    g.next();
    assert_eq!(format!("{g:?}"), "Generator(suspended)");
    g.next();
    assert_eq!(format!("{g:?}"), "Generator(ended)");
}
