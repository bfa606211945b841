//! A pool of OS threads: ten jobs on five of them, and a folder copied by four.
//!
//! ```text
//! cargo run --release --example thread_pool [-- async]
//! ```
//!
//! Expect ten futures at once, five running and five pending; the digits 0 to 9 in two waves, a second apart, in 2.0 s and
//! not 10 s; then 20 files copied, byte for byte.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use greenthread::future;
use greenthread::threadpool::{self, PoolFuture, ReturnWhen, ThreadPool};

#[path = "servers/mod.rs"]
mod servers;

use servers::{Folder, Outcome};

fn digits(is_async: bool) -> Outcome {
    let start = Instant::now();
    let pool = ThreadPool::new(5);
    let digit = |n: u32| {
        pool.submit(move || {
            std::thread::sleep(Duration::from_secs(1));
            println!("{n}");
        })
    };
    let futures = (0..10).map(digit).collect::<Result<Vec<_>, _>>()?;
    // An OS thread takes a moment to begin.
    while futures.iter().filter(|future| future.is_running()).count() < 5 {
        greenthread::sleep(Duration::from_millis(1));
    }
    futures.iter().for_each(|future| println!("{future:?}"));
    if is_async {
        future::block_on(futures::future::try_join_all(futures))?;
    } else {
        let (done, _) = threadpool::wait(futures, None, ReturnWhen::All);
        done.into_iter().try_for_each(PoolFuture::wait)?;
    }
    println!("ten jobs: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Outcome<usize> {
    let pool = ThreadPool::new(4);
    let mut copies = Vec::new();
    for entry in fs::read_dir(from)? {
        let (old, new) = (entry?.path(), to.to_owned());
        copies.push(pool.submit(move || fs::copy(&old, new.join(old.file_name().unwrap_or_default())))?);
    }
    drop(pool); // waits for all
    let count = copies.len();
    for copied in copies {
        copied.wait()??;
    }
    Ok(count)
}

fn files() -> Outcome {
    let (from, to) = (Folder::given_or_fresh(None)?, Folder::given_or_fresh(None)?);
    for n in 0..20_u8 {
        fs::write(from.path.join(format!("{n}.dat")), vec![n; 10_000 * usize::from(n)])?;
    }
    let copied = copy(&from.path, &to.path)?;
    let equal = (0..20).filter(|n| {
        let read = |folder: &Folder| fs::read(folder.path.join(format!("{n}.dat"))).ok();
        read(&from).is_some_and(|bytes| Some(bytes) == read(&to))
    });
    println!("{copied} files copied, {} byte-equal", equal.count());
    Ok(())
}

fn main() -> ExitCode {
    let is_async = std::env::args().nth(1).as_deref() == Some("async");
    match digits(is_async).and_then(|()| files()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
