//! Green locals: empty, inherited, shared; put, death, initialisers that park.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenthread::thread::{self, Builder, Locals};
use greenthread::{green_local, hub, sleep, spawn, spawn_local, yield_now};

use crate::support::fresh::{fresh, ms, raised, secs, virtually};

green_local! {
    static COUNT: Cell<u32> = Cell::new(1);
    static NAME: RefCell<String> = RefCell::new(String::from("nobody"));
}

#[test]
fn each_green_thread_has_its_own() {
    fresh(|| {
        COUNT.with(|count| count.set(5));
        let others = (10..13_u32).map(|n| {
            spawn(move || {
                let before = COUNT.with(|count| count.replace(n));
                yield_now();
                (before, COUNT.with(Cell::get))
            })
        });
        let seen: Vec<_> = thread::join_all(others).into_iter().map(Result::unwrap).collect();
        assert_eq!(seen, [(1, 10), (1, 11), (1, 12)]);
        assert_eq!(COUNT.with(Cell::get), 5);
    });
}

#[test]
fn inherited_ones_begin_as_the_spawners_and_a_put_stays_apart() {
    fresh(|| {
        COUNT.rebind(Cell::new(5));
        let heir = Builder::new()
            .locals(Locals::Inherit)
            .spawn_local(|| {
                let before = COUNT.with(Cell::get);
                COUNT.rebind(Cell::new(6));
                NAME.rebind(RefCell::new(String::from("heir")));
                (before, COUNT.with(Cell::get))
            })
            .unwrap();
        COUNT.rebind(Cell::new(7)); // after the spawn: not inherited
        assert_eq!(heir.join().unwrap(), (5, 6));
        assert_eq!(COUNT.with(Cell::get), 7);
        assert_eq!(NAME.with(|name| name.borrow().clone()), "nobody");
    });
}

#[test]
fn shared_ones_are_the_same_set() {
    fresh(|| {
        COUNT.rebind(Cell::new(5));
        let partner = Builder::new()
            .locals(Locals::Share)
            .spawn_local(|| {
                let before = COUNT.with(Cell::get);
                NAME.rebind(RefCell::new(String::from("partner")));
                yield_now();
                (before, COUNT.with(Cell::get))
            })
            .unwrap();
        yield_now();
        assert_eq!(NAME.with(|name| name.borrow().clone()), "partner");
        COUNT.rebind(Cell::new(8));
        assert_eq!(partner.join().unwrap(), (5, 8));
        assert_eq!(
            NAME.with(|name| name.borrow().clone()),
            "partner",
            "the set outlives one of its owners"
        );
    });
}

static DROPS: AtomicUsize = AtomicUsize::new(0);

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Ordering::SeqCst);
    }
}

green_local! {
    static COUNTED: Counted = Counted;
}

#[test]
fn they_go_at_death_although_the_handle_lives() {
    fresh(|| {
        let ends = spawn(|| COUNTED.with(|_| ()));
        let panics = spawn(|| COUNTED.with(|_| panic!("x")));
        let dies = spawn(|| COUNTED.with(|_| thread::park()));
        yield_now();
        dies.kill();
        hub::idle();
        assert!(ends.is_finished() && panics.is_finished() && dies.is_finished());
        assert_eq!(DROPS.load(Ordering::SeqCst), 3);
        ends.join().unwrap();
        assert!(panics.join().is_err() && dies.join().is_err());
        assert_eq!(DROPS.load(Ordering::SeqCst), 3);
        // The next in the same place begins anew.
        assert_eq!(spawn(|| COUNT.with(|count| count.replace(9))).join().unwrap(), 1);
        assert_eq!(spawn(|| COUNT.with(Cell::get)).join().unwrap(), 1);
    });
}

struct Parks(Rc<Cell<bool>>);

impl Drop for Parks {
    fn drop(&mut self) {
        spawn(|| sleep(ms(1))).join().unwrap();
        self.0.set(true);
    }
}

green_local! {
    static PARKS: RefCell<Option<Parks>> = RefCell::new(None);
}

#[test]
fn the_destructor_of_one_may_park() {
    fresh(|| {
        let done = Rc::new(Cell::new(false));
        let theirs = done.clone();
        let handle = spawn_local(move || PARKS.with(|slot| *slot.borrow_mut() = Some(Parks(theirs))));
        handle.join().unwrap();
        while hub::live() > 0 {
            sleep(ms(1));
        }
        assert!(done.get());
    });
}

static INITS: AtomicUsize = AtomicUsize::new(0);

green_local! {
    static SLOW: usize = {
        sleep(secs(1));
        INITS.fetch_add(1, Ordering::SeqCst) + 100
    };
}

#[test]
fn an_initialiser_may_park_and_the_first_value_stays() {
    virtually(|| {
        let alone = spawn(|| (SLOW.with(|n| *n), SLOW.with(|n| *n)));
        let (first, second) = alone.join().unwrap();
        assert_eq!(first, second);
        // Two of one set initialise at once: both see one value in the end.
        let share = || {
            Builder::new()
                .locals(Locals::Share)
                .spawn_local(|| SLOW.with(|n| *n))
                .unwrap()
        };
        let (a, b) = (share(), share());
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        assert_eq!(a, b);
        assert_eq!(SLOW.with(|n| *n), a);
    });
}

#[test]
fn an_initialiser_may_use_another_one() {
    green_local! {
        static OUTER: u32 = COUNT.with(Cell::get) + 1;
    }
    fresh(|| {
        COUNT.rebind(Cell::new(41));
        assert_eq!(OUTER.with(|n| *n), 42);
    });
}

#[test]
fn a_value_replaced_in_use_lives_until_its_user_is_done() {
    fresh(|| {
        NAME.with(|name| {
            NAME.rebind(RefCell::new(String::from("new")));
            assert_eq!(*name.borrow(), "nobody");
            NAME.with(|name| assert_eq!(*name.borrow(), "new"));
        });
    });
}

green_local! {
    #[inherit]
    static REQUEST: Option<u32> = None;
    /// Its clone says in whose place it was made.
    #[inherit]
    static TRACED: Traced = Traced(0);
}

struct Traced(u32);

impl Clone for Traced {
    fn clone(&self) -> Traced {
        assert!(self.0 != 13, "a clone that panics");
        Traced(self.0 + 1)
    }
}

fn request() -> Option<u32> {
    REQUEST.with(|id| *id)
}

#[test]
fn children_of_all_kinds_inherit_a_copy_of_what_their_spawner_has_then() {
    fresh(|| {
        REQUEST.rebind(Some(1));
        COUNT.with(|count| count.set(5));
        let early = spawn(request);
        let isolated = spawn(|| (request(), COUNT.get(), spawn(request).join().unwrap()));
        REQUEST.rebind(Some(2));
        assert_eq!(early.join().unwrap(), Some(1));
        assert_eq!(isolated.join().unwrap(), (Some(1), 1, Some(1)));
        assert_eq!(spawn_local(request).join().unwrap(), Some(2));
        let named = Builder::new().name("named").spawn(request).unwrap();
        assert_eq!(named.join().unwrap(), Some(2));
        let changes = spawn(|| {
            REQUEST.rebind(Some(3));
            spawn(request).join().unwrap()
        });
        assert_eq!((changes.join().unwrap(), request()), (Some(3), Some(2)));
        let scoped = thread::scope(|scope| scope.spawn(request).join().unwrap());
        assert_eq!(scoped, Some(2));
        let pool = thread::Pool::new(1);
        assert_eq!(pool.spawn(request).join().unwrap(), Some(2));
        let all = pool.map(0..3, |_| request()).into_iter();
        assert_eq!(all.map(Result::unwrap).collect::<Vec<_>>(), [Some(2); 3]);
        let handle = hub::handle();
        assert_eq!(handle.spawn(request).unwrap().join().unwrap(), Some(2));
    });
}

#[test]
fn a_child_on_another_hub_inherits_and_what_was_not_set_is_initialised_anew() {
    fresh(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            REQUEST.rebind(Some(99));
            sender.send(hub::handle()).unwrap();
            sleep(ms(300));
        });
        let there = receiver.recv().unwrap();
        assert_eq!(there.spawn(request).unwrap().join().unwrap(), None);
        REQUEST.rebind(Some(1));
        assert_eq!(there.spawn(request).unwrap().join().unwrap(), Some(1));
        other.join().unwrap();
    });
}

#[test]
fn the_clone_is_made_by_the_spawner_and_a_panic_of_it_is_the_spawners() {
    fresh(|| {
        TRACED.rebind(Traced(5));
        let child = spawn(|| {
            let mine = TRACED.with(|traced| traced.0);
            (mine, spawn(|| TRACED.with(|traced| traced.0)).join().unwrap())
        });
        assert_eq!(child.join().unwrap(), (6, 7));
        TRACED.rebind(Traced(13));
        let live = hub::live();
        assert!(raised(|| spawn(|| ())).contains("a clone that panics"));
        assert!(raised(|| hub::handle().spawn(|| ())).contains("a clone that panics"));
        assert_eq!(hub::live(), live);
        let inherits = Builder::new().locals(Locals::Inherit);
        let same = inherits.spawn_local(|| TRACED.with(|traced| traced.0)).unwrap();
        assert_eq!(same.join().unwrap(), 13, "the value itself");
    });
}
