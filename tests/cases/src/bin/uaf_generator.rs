//! A generator that is suspended inside of `Async::read_with`'s closure, kept in a thread-local that is older than
//! the hub, goes on in that thread-local's destructor: the hub's memory is still there. All of it is safe code;
//! AddressSanitizer tells always (`tests/long/asan.sh`).
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use greenthread::generator::Generator;
use greenthread::io::Async;
use greenthread::spawn;

struct Keep(RefCell<Option<Generator<u32>>>);

impl Drop for Keep {
    fn drop(&mut self) {
        // Memory that the hub has freed is overwritten by these.
        let blocks: Vec<Vec<u64>> = (0..400).map(|n| vec![0x4141_4141_4141_4141; 8 + n]).collect();
        if let Some(mut generator) = self.0.borrow_mut().take() {
            println!("resumed after the hub's end: {:?}", generator.next());
        }
        drop(blocks);
    }
}

thread_local!(static KEEP: Keep = const { Keep(RefCell::new(None)) });

fn main() {
    let thread = std::thread::spawn(|| {
        KEEP.with(|_| ()); // its destructor is registered before the hub's
        let mut generator = Generator::new(|yielder| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let reader = Async::new(reader).unwrap();
            let other = spawn(move || {
                writer.write_all(b"ab").unwrap();
                writer
            });
            let mut byte = [0];
            reader.read_with(|mut pipe| pipe.read(&mut byte)).unwrap(); // registered from here on
            let _ = reader.read_with(|_| {
                let _ = catch_unwind(AssertUnwindSafe(|| yielder.yield_(1)));
                Ok(())
            });
            drop(other);
            yielder.yield_(2);
        });
        assert_eq!(generator.next(), Some(1));
        KEEP.with(|keep| *keep.0.borrow_mut() = Some(generator));
    });
    thread.join().unwrap();
    println!("ok");
}
