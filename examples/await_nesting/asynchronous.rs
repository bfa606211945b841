//! Tasks wait by `.await`.

use greenthread::aio::{self, TaskError, sleep};

use super::{Duration, SECOND, timer};

async fn two_numbers(first: u32) {
    println!("{first}");
    sleep(2 * SECOND).await; // the other one runs meanwhile
    println!("{}", first + 1);
}

/// Each of 2, 3, 5 and 8 goes through `nested`.
async fn outer() -> Vec<u32> {
    let mut numbers = Vec::new();
    for n in [2, 3, 5, 8] {
        numbers.push(nested(n).await);
    }
    numbers
}

/// Waits a little, and gives 2n + 1.
async fn nested(n: u32) -> u32 {
    sleep(SECOND / 100).await;
    n * 2 + 1
}

async fn say_after(delay: Duration, what: &str) {
    sleep(delay).await;
    println!("{what}");
}

async fn others() -> &'static str {
    println!("start");
    sleep(2 * SECOND).await;
    println!("end");
    "result"
}

pub(crate) async fn program() -> Result<(), TaskError> {
    let mut timed = timer();
    aio::gather([1, 3].map(two_numbers)).await?;
    timed("concurrent");
    println!("{:?}", outer().await);
    println!("ends {:?}", None::<()>);
    timed("nested");
    println!("hello");
    say_after(SECOND, "world").await;
    timed("hello world");
    say_after(SECOND, "hello").await;
    say_after(2 * SECOND, "world").await;
    timed("sequential");
    for _ in 0..2 {
        println!("the request is done, with the result {}", others().await);
    }
    timed("two others");
    Ok(())
}
