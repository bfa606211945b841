//! corosensei with the least that makes a scheduler of it: a queue and a pool of stacks. What is possible.
//!
//! BARE-1: a thread is in memory for as long as it has an owner, the hub or its handle; all is of one OS thread.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ptr::{null, null_mut};
use std::rc::Rc;

use corosensei::stack::{DefaultStack, Stack, StackPointer};
use corosensei::{Coroutine, Yielder};
use peers::{Args, each, emit, unsupported};

type Body = Coroutine<(), (), (), Coloured>;

/// A stack that is never given back. It begins a little lower than the one before: else all would share a few
/// sets of the cache.
struct Coloured {
    base: StackPointer,
    limit: StackPointer,
}

impl Coloured {
    fn new(colour: usize) -> Coloured {
        let stack = ManuallyDrop::new(DefaultStack::new(64 << 10).expect("memory for a stack"));
        let base = stack.base().get() - colour % 32 * 64;
        Coloured {
            base: StackPointer::new(base).expect("not null"),
            limit: stack.limit(),
        }
    }
}

// SAFETY: a smaller part of a stack, with the same end and its guard.
unsafe impl Stack for Coloured {
    fn base(&self) -> StackPointer {
        self.base
    }

    fn limit(&self) -> StackPointer {
        self.limit
    }
}

#[derive(Default)]
struct Hub {
    head: Cell<*mut Thread>,
    tail: Cell<*mut Thread>,
    current: Cell<*mut Thread>,
    stacks: UnsafeCell<Vec<Coloured>>,
    made: Cell<usize>,
    spare: UnsafeCell<Vec<*mut Thread>>,
}

struct Thread {
    body: Option<Body>,
    yielder: *const Yielder<(), ()>,
    next: *mut Thread,
    joiner: *mut Thread,
    owners: u8,
}

struct Handle(*mut Thread);

pub(crate) fn main(args: Args) {
    match args.workload.as_str() {
        "switch" => {
            let n = args.n_or(5_000_000);
            emit("switch", "generator", pair(n), "ns");
            run(move || emit("switch", "oneway", each(2 * n, || yields(2, n)), "ns"));
        }
        "yield" => {
            let n = args.n_or(1000);
            run(move || {
                yields(1000, 1); // the stacks are there
                emit("yield", "each", each(1000 * n, || yields(1000, n)), "ns");
            });
        }
        "spawn" => {
            let n = args.n_or(500_000);
            run(move || {
                emit(
                    "spawn",
                    "seq",
                    each(n, || (0..n).for_each(|_| spawn(|| ()).join())),
                    "ns",
                );
                let batch = |_| join((0..1000).map(|_| spawn(|| ())).collect());
                emit("spawn", "batch", each(n, || (0..n / 1000).for_each(batch)), "ns");
            });
        }
        "chan" => {
            let n = args.n_or(1_000_000);
            run(move || channels(n));
        }
        other => unsupported(other),
    }
}

fn channels(n: u64) {
    let (there, back) = (Rc::new(Channel::new(1)), Rc::new(Channel::new(1)));
    let ns = each(n, || {
        let (theirs, answers) = (there.clone(), back.clone());
        let other = spawn(move || (0..n / 2).for_each(|_| answers.send(theirs.recv())));
        for i in 0..n / 2 {
            there.send(i);
            assert_eq!(back.recv(), i);
        }
        other.join();
    });
    emit("chan", "pingpong", ns, "ns");

    let stream = Rc::new(Channel::new(1024));
    let ns = each(n, || {
        let theirs = stream.clone();
        let other = spawn(move || (0..n).for_each(|i| theirs.send(i)));
        assert_eq!((0..n).map(|_| stream.recv()).sum::<u64>(), n * (n - 1) / 2);
        other.join();
    });
    emit("chan", "stream", ns, "ns");

    let (total, rounds) = (Rc::new((Lock::default(), Cell::new(0))), n / 2000);
    let ns = each(rounds * 1000, || {
        let adder = |_| {
            let total = total.clone();
            spawn(move || {
                for _ in 0..rounds {
                    total.0.lock();
                    yield_now();
                    total.1.set(total.1.get() + 1);
                    total.0.unlock();
                }
            })
        };
        join((0..1000).map(adder).collect());
    });
    assert_eq!(total.1.get(), rounds * 1000);
    emit("chan", "mutex", ns, "ns");
}

/// Messages of one OS thread.
struct Channel {
    queue: RefCell<VecDeque<u64>>,
    most: usize,
    sending: Line,
    receiving: Line,
}

impl Channel {
    fn new(most: usize) -> Channel {
        Channel {
            queue: RefCell::default(),
            most,
            sending: Line::default(),
            receiving: Line::default(),
        }
    }

    fn send(&self, message: u64) {
        while self.queue.borrow().len() == self.most {
            self.sending.wait();
        }
        self.queue.borrow_mut().push_back(message);
        self.receiving.wake();
    }

    fn recv(&self) -> u64 {
        loop {
            let message = self.queue.borrow_mut().pop_front();
            match message {
                Some(message) => {
                    self.sending.wake();
                    return message;
                }
                None => self.receiving.wait(),
            }
        }
    }
}

/// Handed over in the order of coming.
#[derive(Default)]
struct Lock {
    held: Cell<bool>,
    line: Line,
}

impl Lock {
    fn lock(&self) {
        if self.held.replace(true) {
            self.line.wait();
        }
    }

    fn unlock(&self) {
        self.held.set(self.line.wake());
    }
}

/// Who waits for one thing.
#[derive(Default)]
struct Line(RefCell<VecDeque<*mut Thread>>);

impl Line {
    fn wait(&self) {
        let hub = Hub::get();
        self.0.borrow_mut().push_back(hub.current.get());
        park(hub);
    }

    fn wake(&self) -> bool {
        let first = self.0.borrow_mut().pop_front();
        first.inspect(|first| Hub::get().push(*first)).is_some()
    }
}

/// A coroutine and its caller, with a value each way.
fn pair(n: u64) -> f64 {
    let mut other = Coroutine::<u64, u64, ()>::new(move |yielder, mut value| {
        for _ in 0..n {
            value = yielder.suspend(value + 1);
        }
    });
    let mut value = 0;
    let ns = each(2 * n, || {
        for _ in 0..n {
            value = other.resume(value).as_yield().expect("it goes on");
        }
    });
    assert_eq!((value, other.resume(0).as_return()), (n, Some(())));
    ns
}

fn yields(threads: u64, n: u64) {
    join(
        (0..threads)
            .map(|_| spawn(move || (0..n).for_each(|_| yield_now())))
            .collect(),
    );
}

fn join(threads: Vec<Handle>) {
    threads.into_iter().for_each(Handle::join);
}

/// Runs `main` and all that it spawns.
fn run(main: impl FnOnce() + 'static) {
    let hub = Hub::get();
    drop(spawn(main));
    while let Some(thread) = hub.pop() {
        hub.current.set(thread);
        // SAFETY: BARE-1, and only this loop uses the body.
        unsafe {
            let body = (*thread).body.as_mut().unwrap_unchecked();
            if body.resume(()).as_return().is_some() {
                (*hub.stacks.get()).push((*thread).body.take().unwrap_unchecked().into_stack());
                if !(*thread).joiner.is_null() {
                    hub.push((*thread).joiner);
                }
                release(thread);
            }
        }
    }
}

fn spawn(work: impl FnOnce() + 'static) -> Handle {
    let hub = Hub::get();
    // SAFETY: no other borrow of these lists is alive, as nothing switches in between.
    let (stack, spare) = unsafe { ((*hub.stacks.get()).pop(), (*hub.spare.get()).pop()) };
    let stack = stack.unwrap_or_else(|| Coloured::new(hub.made.replace(hub.made.get() + 1)));
    let thread = spare.unwrap_or_else(|| Box::into_raw(Box::new(Thread::new(None))));
    let body = Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
        // SAFETY: BARE-1.
        unsafe { (*thread).yielder = yielder };
        work();
    });
    // SAFETY: BARE-1; this thread is new.
    unsafe { *thread = Thread::new(Some(body)) };
    hub.push(thread);
    Handle(thread)
}

fn yield_now() {
    let hub = Hub::get();
    hub.push(hub.current.get());
    park(hub);
}

fn park(hub: &Hub) {
    // SAFETY: BARE-1; the yielder lives on the stack of the thread that runs now.
    unsafe { (*(*hub.current.get()).yielder).suspend(()) }
}

impl Thread {
    fn new(body: Option<Body>) -> Thread {
        Thread {
            body,
            yielder: null(),
            next: null_mut(),
            joiner: null_mut(),
            owners: 2,
        }
    }
}

impl Hub {
    fn get() -> &'static Hub {
        thread_local!(static HUB: &'static Hub = Box::leak(Box::default()));
        HUB.with(|hub| *hub)
    }

    fn push(&self, thread: *mut Thread) {
        // SAFETY: BARE-1, and a thread is in the queue at most once.
        unsafe {
            (*thread).next = null_mut();
            match self.head.get().is_null() {
                true => self.head.set(thread),
                false => (*self.tail.get()).next = thread,
            }
        }
        self.tail.set(thread);
    }

    fn pop(&self) -> Option<*mut Thread> {
        let thread = self.head.get();
        if thread.is_null() {
            return None;
        }
        // SAFETY: BARE-1.
        self.head.set(unsafe { (*thread).next });
        Some(thread)
    }
}

impl Handle {
    fn join(self) {
        let hub = Hub::get();
        // SAFETY: BARE-1.
        unsafe {
            if (*self.0).body.is_some() {
                (*self.0).joiner = hub.current.get();
                park(hub);
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        release(self.0);
    }
}

/// Gives up one of the two owners; the memory is kept for the next.
fn release(thread: *mut Thread) {
    // SAFETY: BARE-1.
    unsafe {
        (*thread).owners -= 1;
        if (*thread).owners == 0 {
            (*Hub::get().spare.get()).push(thread);
        }
    }
}
