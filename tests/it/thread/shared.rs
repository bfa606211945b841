//! Where no set of thread-locals can be made: it says so, and green threads share those of their OS thread.

use std::cell::Cell;

use greenthread::{run, scope, spawn, thread};

thread_local! {
    static MARK: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn it_says_why_and_shares() {
    let error = thread::isolation().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("share the thread-locals"), "{error}");
    MARK.set(1);
    assert!(!spawn(thread::is_isolated).join().unwrap());
    assert!(!run(thread::is_isolated));
    assert!(!scope(|s| s.spawn(thread::is_isolated).join().unwrap()));
    let seen: Vec<u32> = (0..10)
        .map(|_| spawn(|| MARK.replace(MARK.get() + 1)))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|handle| handle.join().unwrap())
        .collect();
    assert_eq!((seen, MARK.get()), ((1..11).collect(), 11));
}
