//! The result of a job of the pool is ready, its green thread is killed before it has taken it, and the result panics
//! as it is dropped: the process goes on.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use cases::{Verdict, ms};
use greenthread::{spawn, threadpool, yield_now};

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as it is dropped")
    }
}

fn main() -> ExitCode {
    let waiter = spawn(|| threadpool::unblock(|| Bomb));
    yield_now();
    std::thread::sleep(ms(50)); // the job ends meanwhile
    waiter.kill();
    drop(waiter);
    let mut verdict = Verdict::default();
    verdict.holds(threadpool::unblock(|| 7) == 7, "the pool goes on");
    verdict.end()
}
