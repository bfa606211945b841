//! Green threads wait by plain calls.

use greenthread::{sleep, spawn, thread};

use super::{Duration, SECOND, timer};

fn two_numbers(first: u32) {
    println!("{first}");
    sleep(2 * SECOND); // the other one runs meanwhile
    println!("{}", first + 1);
}

/// Each of 2, 3, 5 and 8 goes through `nested`.
fn outer() -> Vec<u32> {
    [2, 3, 5, 8].into_iter().map(nested).collect()
}

/// Waits a little, and gives 2n + 1.
fn nested(n: u32) -> u32 {
    sleep(SECOND / 100);
    n * 2 + 1
}

fn say_after(delay: Duration, what: &str) {
    sleep(delay);
    println!("{what}");
}

fn others() -> &'static str {
    println!("start");
    sleep(2 * SECOND);
    println!("end");
    "result"
}

pub(crate) fn program() {
    let mut timed = timer();
    thread::join_all([1, 3].map(|n| spawn(move || two_numbers(n))));
    timed("concurrent");
    println!("{:?}", outer());
    println!("ends {:?}", None::<()>);
    timed("nested");
    println!("hello");
    say_after(SECOND, "world");
    timed("hello world");
    say_after(SECOND, "hello");
    say_after(2 * SECOND, "world");
    timed("sequential");
    for _ in 0..2 {
        println!("the request is done, with the result {}", others());
    }
    timed("two others");
}
