//! A result that is to come: a `JoinHandle`, or a cell with `park` and `unpark`.
//!
//! Run: `cargo run --release --example future_obj` or `... -- never`
//!
//! Expect: `50! = 30414093201713378043612608166064768844377641568960512000000000000` after one second, `666` after two.
//! With `never`: nobody sets the result. asyncio would hang. Here stderr gets two lines, and the exit code is 1: first the
//! hub's own, `greenthread: this operation would block forever: ..`, with who waits for what; then the program's, `error: ..`
//! with the same text, which it got as the payload of a panic.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use greenthread::hub::LoopExit;
use greenthread::{sleep, spawn, spawn_local, thread};

/// n! in decimal digits, by hand.
fn factorial(n: u32) -> String {
    let mut digits = vec![1];
    for factor in 2..=n {
        let mut carry = 0;
        for digit in &mut digits {
            carry += *digit * factor;
            *digit = carry % 10;
            carry /= 10;
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().map(u32::to_string).collect()
}

/// Waits until somebody sets the cell and unparks.
fn take(cell: &Cell<Option<u32>>) -> u32 {
    loop {
        if let Some(value) = cell.take() {
            return value;
        }
        thread::park();
    }
}

fn never() -> ExitCode {
    let waited = catch_unwind(AssertUnwindSafe(|| take(&Cell::new(None))));
    match waited.map_err(|payload| payload.downcast::<LoopExit>()) {
        Err(Ok(exit)) => eprintln!("error: {exit}"),
        other => eprintln!("something else came: {other:?}"),
    }
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("never") {
        return never();
    }
    let product = spawn(|| {
        sleep(Duration::from_secs(1));
        factorial(50)
    });
    let cell = Rc::new(Cell::new(None));
    let (theirs, waiter) = (cell.clone(), thread::current());
    spawn_local(move || {
        sleep(Duration::from_secs(2));
        theirs.set(Some(666));
        waiter.unpark();
    });
    println!("50! = {}", product.join().expect("it only multiplies"));
    println!("{}", take(&cell));
    ExitCode::SUCCESS
}
