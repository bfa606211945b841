//! A pool of processes: numbers tested for being prime, and a worker whose death harms nobody else.
//!
//! ```text
//! cargo run --release --example process_pool --features process-pool -- [NUMBER...]
//! ```
//!
//! Expect five numbers in their order, each `is prime: False`, and then those that are given: for 1000000007 it is `True`.
//! Then that the two workers are two processes, other than this one, and that a worker that was killed is an error of its own
//! job: the next gets another.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use greenthread::processpool::{Functions, ProcessPool, Workers};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Each the product of two large primes.
const NUMBERS: [u64; 5] = [
    1_000_540_001_611,
    1_000_584_020_239,
    1_000_660_046_899,
    1_000_726_071_253,
    1_000_754_082_593,
];

fn is_prime(n: u64) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// Which process it runs in, after a while.
fn who(_: u32) -> u32 {
    std::thread::sleep(Duration::from_millis(200));
    std::process::id()
}

/// Dies as if somebody had killed it.
fn die(_: ()) {
    std::process::abort()
}

fn primes(pool: &ProcessPool, given: &[u64]) -> Outcome {
    let numbers = [&NUMBERS, given].concat();
    for (number, is_prime) in numbers.iter().zip(pool.map(numbers.iter().copied(), is_prime)?) {
        println!("{number} is prime: {}", if is_prime? { "True" } else { "False" });
    }
    Ok(())
}

fn program(workers: &Workers) -> Outcome {
    let given = std::env::args().skip(1).map(|number| number.parse());
    let pool = ProcessPool::new(workers, 2);
    primes(&pool, &given.collect::<Result<Vec<_>, _>>()?)?;
    let ids = pool.map(0..4, who)?.collect::<Result<HashSet<_>, _>>()?;
    let others = ids.iter().filter(|id| **id != std::process::id());
    println!("{} worker processes besides this one", others.count());
    match pool.submit(die, ())?.wait() {
        Ok(()) => println!("it lives"),
        Err(error) => println!("broken: {}", error.is_broken()),
    }
    println!("the next one is well: {}", pool.submit(is_prime, 7)?.wait()?);
    Ok(())
}

fn main() -> ExitCode {
    // In a worker, this never returns.
    let workers = Functions::new().with(is_prime).with(who).with(die).serve();
    match program(&workers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
