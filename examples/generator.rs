//! A producer and a consumer on one thread, without a lock or a queue: the consumer is a generator.
//!
//! ```text
//! cargo run --release --example generator
//! ```
//!
//! prints three lines for each of five products,
//!
//! ```text
//! [PRODUCER] Producing 1...
//! [CONSUMER] Consuming 1...
//! [PRODUCER] Consumer return: 200 OK
//! ```
//!
//! and then `1 3 4 2`, one per line: a generator that hands on another's values by `yield_from`.

use greenthread::generator::{Generator, State};

fn consumer() -> Generator<&'static str, u32> {
    Generator::new(|y| {
        let mut answer = "";
        loop {
            let product = y.yield_(answer); // waits here for the next product
            println!("[CONSUMER] Consuming {product}...");
            answer = "200 OK";
        }
    })
}

fn produce(mut consumer: Generator<&'static str, u32>) {
    consumer.start(); // to its first yield_
    for product in 1..=5 {
        println!("[PRODUCER] Producing {product}...");
        let State::Yielded(answer) = consumer.send(product) else {
            break;
        };
        println!("[PRODUCER] Consumer return: {answer}");
    }
    consumer.close().expect("it lets itself be closed");
}

fn inner() -> Generator<u32> {
    Generator::new(|y| {
        y.yield_(3);
        y.yield_(4);
    })
}

fn outer() -> Generator<u32> {
    Generator::new(|y| {
        y.yield_(1);
        y.yield_from(&mut inner());
        y.yield_(2);
    })
}

fn main() {
    produce(consumer());
    for number in outer() {
        println!("{number}");
    }
}
