//! Queues against a model of them: random operations on both, one after the other and all at once.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;

use greenthread::sync::queue::{
    GetError, GetTimeoutError, LifoQueue, PriorityQueue, PutTimeoutError, Queue, QueueOf, Store, TryGetError,
    TryPutError,
};
use greenthread::{JoinHandle, sleep, spawn_local, yield_now};
use quickcheck::{Arbitrary, Gen, QuickCheck, TestResult, Testable};

use crate::support::fresh::{ms, quiesce, virtually};

/// Smaller by its first part alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranked(pub(crate) u8, pub(crate) u32);

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> Ordering {
        self.0.cmp(&other.0)
    }
}

/// What became of one operation.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Put,
    /// The item came back: in time (it was shut down), or too late.
    Back(u32, bool),
    Got(u8, u32),
    None(bool),
    Joined(bool),
    Killed,
}

/// An operation that may wait, with the milliseconds that it does.
#[derive(Clone, Copy, Debug)]
enum Waits {
    Put(u8, u32),
    Get,
    Peek,
    Join,
}

/// One of the three queues.
trait Real {
    fn does(&self, waits: Waits, within: Option<u64>) -> End;
    fn tries(&self, waits: Waits) -> Option<End>;
    fn task_done(&self) -> bool;
    fn shutdown(&self, immediate: bool);
    fn len(&self) -> usize;
}

fn taken(item: Result<Ranked, bool>) -> End {
    item.map_or_else(End::None, |Ranked(rank, id)| End::Got(rank, id))
}

impl<S: Store<Ranked>> Real for QueueOf<Ranked, S> {
    fn does(&self, waits: Waits, within: Option<u64>) -> End {
        let over = |error| error == GetTimeoutError::ShutDown;
        match (waits, within.map(ms)) {
            (Waits::Put(rank, id), None) => self
                .put(Ranked(rank, id))
                .map_or_else(|error| End::Back(error.0.1, true), |()| End::Put),
            (Waits::Put(rank, id), Some(time)) => match self.put_timeout(Ranked(rank, id), time) {
                Ok(()) => End::Put,
                Err(error) => End::Back(
                    id,
                    matches!(error, PutTimeoutError::ShutDown(Ranked(_, back)) if back == id),
                ),
            },
            (Waits::Get, None) => taken(self.get().map_err(|GetError| true)),
            (Waits::Get, Some(time)) => taken(self.get_timeout(time).map_err(over)),
            (Waits::Peek, None) => taken(self.peek().map_err(|GetError| true)),
            (Waits::Peek, Some(time)) => taken(self.peek_timeout(time).map_err(over)),
            (Waits::Join, None) => {
                self.join();
                End::Joined(true)
            }
            (Waits::Join, Some(time)) => End::Joined(self.join_timeout(time)),
        }
    }

    fn tries(&self, waits: Waits) -> Option<End> {
        let item = match waits {
            Waits::Put(rank, id) => {
                return match self.try_put(Ranked(rank, id)) {
                    Ok(()) => Some(End::Put),
                    Err(TryPutError::ShutDown(item)) => Some(End::Back(item.1, true)),
                    Err(TryPutError::Full(item)) => (item.1 != id).then_some(End::Killed),
                };
            }
            Waits::Get => self.try_get(),
            Waits::Peek => self.try_peek(),
            Waits::Join => return self.join_timeout(ms(0)).then_some(End::Joined(true)),
        };
        match item {
            Err(TryGetError::Empty) => None,
            item => Some(taken(item.map_err(|_| true))),
        }
    }

    fn task_done(&self) -> bool {
        self.task_done().is_ok()
    }

    fn shutdown(&self, immediate: bool) {
        self.shutdown(immediate);
    }

    fn len(&self) -> usize {
        self.len()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    First,
    Last,
    Smallest,
}

fn make(order: Order, capacity: usize) -> Rc<dyn Real> {
    match order {
        Order::First => Rc::new(Queue::bounded(capacity)),
        Order::Last => Rc::new(LifoQueue::bounded(capacity)),
        Order::Smallest => Rc::new(PriorityQueue::bounded(capacity)),
    }
}

/// What a queue should do: lists, and nothing happens at the same time.
struct Model {
    order: Order,
    capacity: usize,
    items: Vec<(u8, u32)>,
    unfinished: usize,
    is_shut_down: bool,
    /// Who waits: by number, until when, for what.
    waiting: VecDeque<(usize, Option<u64>, Waits)>,
    now: u64,
}

impl Model {
    /// Where the next item is.
    fn next(&self) -> Option<usize> {
        let all = self.items.iter().enumerate();
        match self.order {
            Order::First => all.map(|(at, _)| at).next(),
            Order::Last => all.map(|(at, _)| at).next_back(),
            Order::Smallest => all.min_by_key(|(_, item)| item.0).map(|(at, _)| at),
        }
    }

    fn attempt(&mut self, waits: Waits) -> Option<End> {
        let next = self.next();
        match waits {
            Waits::Put(_, id) if self.is_shut_down => Some(End::Back(id, true)),
            Waits::Put(rank, id) => (self.items.len() < self.capacity).then(|| {
                self.items.push((rank, id));
                self.unfinished += 1;
                End::Put
            }),
            Waits::Join => (self.unfinished == 0).then_some(End::Joined(true)),
            Waits::Get | Waits::Peek => match next {
                None => self.is_shut_down.then_some(End::None(true)),
                Some(at) => {
                    let (rank, id) = self.items[at];
                    if matches!(waits, Waits::Get) {
                        self.items.remove(at);
                    }
                    Some(End::Got(rank, id))
                }
            },
        }
    }

    /// Lets those who wait go on, as far as they can. Nobody can when somebody before it in its line cannot.
    fn settle(&mut self, ends: &mut Vec<(usize, End)>) {
        while let Some((at, end)) = (0..self.waiting.len()).find_map(|at| Some((at, self.attempt(self.waiting[at].2)?)))
        {
            let (number, ..) = self.waiting.remove(at).unwrap();
            ends.push((number, end));
        }
    }

    fn give_up(&mut self, at: usize, killed: bool, ends: &mut Vec<(usize, End)>) {
        let (number, _, waits) = self.waiting.remove(at).unwrap();
        let end = match waits {
            _ if killed => End::Killed,
            Waits::Put(_, id) => End::Back(id, false),
            Waits::Join => End::Joined(false),
            Waits::Get | Waits::Peek => End::None(false),
        };
        ends.push((number, end));
    }
}

/// The queue and those who wait for it.
struct World {
    queue: Rc<dyn Real>,
    waiting: Vec<(usize, JoinHandle<End>)>,
}

impl World {
    fn start(&mut self, number: usize, waits: Waits, within: Option<u64>) {
        let queue = self.queue.clone();
        let handle = spawn_local(move || queue.does(waits, within));
        self.waiting.push((number, handle));
    }

    /// Those that have ended since the last time.
    fn ends(&mut self) -> Vec<(usize, End)> {
        let (ended, waiting) = self.waiting.drain(..).partition(|(_, handle)| handle.is_finished());
        self.waiting = waiting;
        let ended: Vec<(usize, JoinHandle<End>)> = ended;
        let end = |(number, handle): (usize, JoinHandle<End>)| match handle.join() {
            Ok(end) => (number, end),
            Err(error) => {
                assert!(error.is_killed(), "{error}");
                (number, End::Killed)
            }
        };
        ended.into_iter().map(end).collect()
    }
}

/// What two random bytes say is to be done.
#[derive(Clone, Copy, Debug)]
enum Step {
    Start(Waits, Option<u64>),
    Try(Waits),
    TaskDone,
    Kill(usize),
    Pass(u64),
    Shutdown(bool),
    Quiesce,
}

fn step(number: usize, (what, how): (u8, u8)) -> Step {
    let waits = match how % 8 {
        0..3 => Waits::Put(how / 8 % 4, number as u32),
        3..6 => Waits::Get,
        6 => Waits::Peek,
        _ => Waits::Join,
    };
    match what % 16 {
        0..4 => Step::Start(waits, None),
        4..8 => Step::Start(waits, Some(u64::from(what / 16) % 4 + 1)),
        8..10 => Step::Try(waits),
        10 => Step::TaskDone,
        11 | 12 => Step::Kill(usize::from(how)),
        13 => Step::Pass(u64::from(how % 3) + 1),
        14 if what > 230 => Step::Shutdown(how % 2 == 0),
        _ => Step::Quiesce,
    }
}

/// Both do the same, with time to come to rest after each step.
fn agrees(order: Order, capacity: usize, script: &[(u8, u8)]) {
    let queue = make(order, capacity);
    let mut world = World {
        queue: queue.clone(),
        waiting: Vec::new(),
    };
    let mut model = Model {
        order,
        capacity,
        items: Vec::new(),
        unfinished: 0,
        is_shut_down: false,
        waiting: VecDeque::new(),
        now: 0,
    };
    for (number, &bytes) in script.iter().enumerate() {
        let (step, mut ends, mut seen) = (step(number, bytes), Vec::new(), Vec::new());
        match step {
            Step::Start(waits, within) => {
                world.start(number, waits, within);
                match model.attempt(waits) {
                    Some(end) => ends.push((number, end)),
                    None => model
                        .waiting
                        .push_back((number, within.map(|time| model.now + time), waits)),
                }
            }
            Step::Try(waits) => assert_eq!(queue.tries(waits), model.attempt(waits), "{number}: {step:?}"),
            Step::TaskDone => {
                assert_eq!(queue.task_done(), model.unfinished > 0, "{number}: {step:?}");
                model.unfinished = model.unfinished.saturating_sub(1);
            }
            Step::Kill(_) if model.waiting.is_empty() => {}
            Step::Kill(which) => {
                let at = which % model.waiting.len();
                let number = model.waiting[at].0;
                model.give_up(at, true, &mut ends);
                world.waiting.iter().find(|one| one.0 == number).unwrap().1.kill();
            }
            Step::Pass(time) => {
                for _ in 0..time {
                    model.now += 1;
                    sleep(ms(1));
                    quiesce();
                    while let Some(at) = model.waiting.iter().position(|one| one.1 == Some(model.now)) {
                        model.give_up(at, false, &mut ends);
                    }
                }
            }
            Step::Shutdown(immediate) => {
                queue.shutdown(immediate);
                model.is_shut_down = true;
                if immediate {
                    model.unfinished = model.unfinished.saturating_sub(model.items.len());
                    model.items.clear();
                }
            }
            Step::Quiesce => {}
        }
        model.settle(&mut ends);
        quiesce();
        seen.extend(world.ends());
        ends.sort_by_key(|end| end.0);
        seen.sort_by_key(|end| end.0);
        assert_eq!(seen, ends, "{number}: {step:?}");
        assert_eq!(queue.len(), model.items.len(), "{number}: {step:?}");
    }
}

/// The steps one upon the other, with no time to come to rest: each item is somewhere once, and no task waits for what
/// is there.
fn conserves(order: Order, capacity: usize, script: &[(u8, u8)]) {
    let queue = make(order, capacity);
    let (mut world, mut ends, mut put) = (
        World {
            queue: queue.clone(),
            waiting: Vec::new(),
        },
        Vec::new(),
        Vec::new(),
    );
    let mut is_shut_down = false;
    for (number, &bytes) in script.iter().enumerate() {
        match step(number, bytes) {
            Step::Start(waits, within) => {
                world.start(number, waits, within);
                put.push((number, waits));
            }
            Step::Try(Waits::Join) => {}
            Step::Shutdown(_) => {
                queue.shutdown(false);
                is_shut_down = true;
            }
            Step::Try(waits) => {
                put.push((number, waits));
                let none = match waits {
                    Waits::Put(_, id) => End::Back(id, false),
                    _ => End::None(false),
                };
                ends.push((number, queue.tries(waits).unwrap_or(none)));
            }
            Step::TaskDone => drop(queue.task_done()),
            Step::Kill(_) if world.waiting.is_empty() => {}
            Step::Kill(which) => world.waiting[which % world.waiting.len()].1.kill(),
            Step::Pass(time) => sleep(ms(time)),
            Step::Quiesce => yield_now(),
        }
        assert!(queue.len() <= capacity);
    }
    quiesce();
    ends.extend(world.ends());
    let waits = |number: usize| put.iter().find(|one| one.0 == number).unwrap().1;
    let waiting: Vec<_> = world.waiting.iter().map(|one| waits(one.0)).collect();
    let getting = waiting.iter().any(|waits| matches!(waits, Waits::Get | Waits::Peek));
    let putting = waiting.iter().any(|waits| matches!(waits, Waits::Put(..)));
    assert!(
        !getting || queue.len() == 0,
        "{waiting:?} wait, and there are {}",
        queue.len()
    );
    assert!(
        !putting || queue.len() == capacity,
        "{waiting:?} wait, and there is room"
    );
    let told = |end: &(usize, End)| matches!(end.1, End::None(true) | End::Back(_, true));
    assert!(is_shut_down || !ends.iter().any(told), "it was not shut down: {ends:?}");
    // All that wait are told, and what is left comes out.
    queue.shutdown(false);
    quiesce();
    ends.extend(world.ends());
    put.push((usize::MAX, Waits::Get));
    while let Some(End::Got(rank, id)) = queue.tries(Waits::Get) {
        ends.push((usize::MAX, End::Got(rank, id)));
    }
    let waits = |number: usize| put.iter().find(|one| one.0 == number).unwrap().1;
    let got = |wanted: u32| {
        let gets = ends.iter().filter(|(number, _)| matches!(waits(*number), Waits::Get));
        gets.filter(|(_, end)| matches!(end, End::Got(_, id) if *id == wanted))
            .count()
    };
    for (number, waits) in &put {
        let Waits::Put(_, id) = waits else { continue };
        let (_, end) = ends.iter().find(|one| one.0 == *number).expect("it has ended");
        match end {
            End::Put => assert_eq!(got(*id), 1, "{id} was put"),
            End::Back(back, _) => assert_eq!((got(*id), back), (0, id), "{id} came back"),
            _ => assert!(got(*id) <= 1, "{id} was killed"),
        }
    }
}

fn check(property: fn(Order, usize, &[(u8, u8)])) {
    fn holds(property: fn(Order, usize, &[(u8, u8)]), order: Order, capacity: u8, script: Vec<(u8, u8)>) -> bool {
        let capacity = usize::from(capacity % 4) + 1;
        std::thread::spawn(move || virtually(move || property(order, capacity, &script)))
            .join()
            .is_ok()
    }
    struct Holds(fn(Order, usize, &[(u8, u8)]), Order);
    impl Testable for Holds {
        fn result(&self, g: &mut Gen) -> TestResult {
            let (capacity, script) = (u8::arbitrary(g), Vec::<(u8, u8)>::arbitrary(g));
            if holds(self.0, self.1, capacity, script.clone()) {
                return TestResult::passed();
            }
            let shorter = |script: &Vec<(u8, u8)>| {
                script
                    .shrink()
                    .find(|less| !holds(self.0, self.1, capacity, less.clone()))
            };
            let least = std::iter::successors(Some(script), shorter).take(100).last().unwrap();
            let steps: Vec<_> = least
                .iter()
                .enumerate()
                .map(|(number, bytes)| step(number, *bytes))
                .collect();
            TestResult::error(format!("{:?} with room for {}: {steps:?}", self.1, capacity % 4 + 1))
        }
    }
    for order in [Order::First, Order::Last, Order::Smallest] {
        QuickCheck::new().tests(150).quickcheck(Holds(property, order));
    }
}

#[test]
fn queues_do_what_a_model_of_them_does() {
    check(agrees);
}

#[test]
fn nothing_is_lost_whatever_happens_at_once() {
    check(conserves);
}
