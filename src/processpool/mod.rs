//! A pool of processes, for jobs that may crash without harm to anything else (feature `process-pool`).
//!
//! A worker is this program, started again. The first line of `main` tells it what it may be asked to run:
//!
//! ```standalone_crate
//! use greenthread::processpool::{Functions, ProcessPool};
//!
//! fn double(n: u64) -> u64 {
//!     2 * n
//! }
//!
//! fn crash(_: ()) {
//!     std::process::abort()
//! }
//!
//! fn main() {
//!     let workers = Functions::new().with(double).with(crash).serve(); // in a worker, it never returns
//!     let pool = ProcessPool::new(&workers, 2);
//!     let doubles = pool.map([1, 2, 3], double).unwrap();
//!     assert_eq!(doubles.map(Result::unwrap).collect::<Vec<_>>(), [2, 4, 6]);
//!     assert!(pool.submit(crash, ()).unwrap().wait().unwrap_err().is_broken());
//!     assert_eq!(pool.submit(double, 4).unwrap().wait().unwrap(), 8);
//! }
//! ```
//!
//! It is hard to misuse:
//!
//! - A pool needs the result of [`serve`](Functions::serve). In a worker `serve` never returns, so workers never start
//!   workers by mistake.
//! - A function is passed as a value, so there is no name to misspell. A closure with captured values does not compile.
//!   A function that was not registered panics at the caller's line.
//! - A worker reports its functions, and is refused if they differ from its parent's.
//!
//! # What a worker is like
//! It gets the program's arguments (or [`Builder::args`]), its environment, standard output and standard error. Its
//! standard input is empty. It runs one job at a time, on its main thread, where jobs may use green threads. It ends
//! with its pool, and if the parent process dies it does so at once, in the middle of a job even.
//!
//! # What goes to and fro
//! An argument and a value: anything that serde can turn into bytes and back. The format is that of `postcard`, which
//! takes few bytes.
//!
//! # Coming from Python
//! `concurrent.futures.ProcessPoolExecutor`, with the start method `spawn`. There is no interpreter lock, so processes
//! are only needed for isolation; for speed a [`ThreadPool`](crate::threadpool::ThreadPool) is enough. If a worker
//! dies, only its own job fails, and the worker is replaced.
#![forbid(unsafe_code)]

mod link;
mod pool;
mod worker;

use std::any::{TypeId, type_name};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use pool::{Builder, ProcessPool};

/// The result of a job, as it is sent.
enum Reply {
    Value(Vec<u8>),
    Panic(String),
    Encoding(String),
}

/// A function, from bytes to bytes.
type Run = dyn Fn(&[u8]) -> Reply + Send + Sync;

struct Function {
    id: TypeId,
    name: &'static str,
    run: Box<Run>,
}

/// The functions that a worker may be asked to run.
///
/// See [the module](self) for how it is used.
#[must_use = "the functions are not used until `serve` is called"]
#[derive(Default)]
pub struct Functions {
    all: Vec<Function>,
}

impl Functions {
    /// No functions.
    pub fn new() -> Functions {
        Functions::default()
    }

    /// Adds a function of one argument, which may be a tuple, or a closure that captures nothing.
    ///
    /// ```compile_fail
    /// let n = 1_u32;
    /// let workers = greenthread::processpool::Functions::new().with(move |m: u32| m + n).serve();
    /// ```
    pub fn with<F, A, R>(mut self, f: F) -> Functions
    where
        F: Fn(A) -> R + Send + Sync + 'static,
        A: DeserializeOwned,
        R: Serialize,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "a function for worker processes cannot capture anything: pass the values as its argument"
            );
        }
        self.all.push(Function {
            id: TypeId::of::<F>(),
            name: type_name::<F>(),
            run: Box::new(move |argument| run(&f, argument)),
        });
        self
    }

    /// In a worker, runs the jobs and never returns; else gives what is needed to make a [`ProcessPool`].
    ///
    /// Call it first in `main`: what stands before it is done by each worker as well.
    pub fn serve(self) -> Workers {
        if worker::is_worker() {
            worker::serve(&self.all);
        }
        Workers {
            all: Arc::new(self.all),
        }
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|one| one.name)).finish()
    }
}

fn run<A: DeserializeOwned, R: Serialize>(f: &impl Fn(A) -> R, argument: &[u8]) -> Reply {
    let argument = match postcard::from_bytes(argument) {
        Ok(argument) => argument,
        Err(error) => return Reply::Encoding(format!("its argument cannot be decoded: {error}")),
    };
    match catch_unwind(AssertUnwindSafe(|| postcard::to_stdvec(&f(argument)))) {
        Ok(Ok(value)) => Reply::Value(value),
        Ok(Err(error)) => Reply::Encoding(format!("its value cannot be encoded: {error}")),
        Err(payload) => {
            let text = String::from(crate::fiber::unwind::message(&*payload));
            crate::hub::discard(payload);
            Reply::Panic(text)
        }
    }
}

/// What a [`ProcessPool`] is made with: the proof that this process has reached [`Functions::serve`].
#[derive(Clone)]
pub struct Workers {
    all: Arc<Vec<Function>>,
}

impl Workers {
    /// The number of a function, which is the same in every worker.
    #[track_caller]
    fn number<F: 'static>(&self) -> u32 {
        let id = TypeId::of::<F>();
        match self.all.iter().position(|one| one.id == id) {
            Some(number) => u32::try_from(number).unwrap_or(u32::MAX),
            None => panic!(
                "{} was not registered: pass it to Functions::with before serve",
                type_name::<F>()
            ),
        }
    }

    fn name(&self, number: u32) -> &'static str {
        self.all.get(number as usize).map_or("?", |one| one.name)
    }

    fn roll(&self) -> Vec<u8> {
        roll(&self.all)
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|one| one.name)).finish()
    }
}

/// The names of all functions in their order: the first message of a worker.
fn roll(all: &[Function]) -> Vec<u8> {
    let names: Vec<_> = all.iter().map(|one| one.name).collect();
    names.join("\n").into_bytes()
}
