//! Numbers that come one after the other, three ways: a blocking iterator, a stream, a generator.
//!
//! Run: `cargo run --release --example async_iter` or `... -- async` or `... -- generator`
//!
//! Expect: 1 to 99, one a line, from each.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use greenthread::aio::{self, TaskError};
use greenthread::generator::Generator;
use greenthread::yield_now;

/// Counts up to 99.
#[derive(Default)]
struct Reader {
    count: u32,
}

impl Reader {
    fn read(&mut self) -> Option<u32> {
        self.count += 1;
        (self.count < 100).then_some(self.count)
    }
}

/// Green: each step may wait for as long as it likes.
impl Iterator for Reader {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        yield_now();
        self.read()
    }
}

/// The same for `async` code, which says so by `Poll`.
struct Asynchronous(Reader);

impl Stream for Asynchronous {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
        Poll::Ready(self.0.read())
    }
}

async fn print_all(stream: impl Stream<Item = u32>) {
    let mut stream = pin!(stream);
    while let Some(number) = stream.next().await {
        println!("{number}");
    }
}

fn main() -> Result<(), TaskError> {
    match std::env::args().nth(1).as_deref() {
        Some("async") => aio::run(print_all(Asynchronous(Reader::default()))),
        Some("generator") => {
            let numbers = Generator::<u32, (), ()>::new(|yielder| {
                let mut reader = Reader::default();
                while let Some(number) = reader.read() {
                    yielder.yield_(number);
                }
            });
            numbers.for_each(|number| println!("{number}"));
            Ok(())
        }
        _ => aio::run(aio::green(|| Reader::default().for_each(|number| println!("{number}")))),
    }
}
