//! A green thread of `spawn` has a stack for what programs do on a thread: a JSON document at serde_json's own limit of
//! depth (128) in a debug build, and some hundred KiB of frames.
#![forbid(unsafe_code)]

use std::hint::black_box;

use greenthread::spawn;

const DEPTH: usize = 127;

fn main() {
    let text = format!("{}1{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let len = text.len();
    let parsed = spawn(move || {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.to_string().len()
    });
    assert_eq!(parsed.join().unwrap(), len);
    assert_eq!(spawn(|| frames(60)).join().unwrap(), 60);
    println!("ok");
}

/// So many frames of 4 KiB or, in a debug build, more.
fn frames(count: u32) -> u32 {
    let frame = black_box([0_u8; 4096]);
    let below = if count == 0 { 0 } else { 1 + frames(count - 1) };
    below + u32::from(black_box(&frame)[0])
}
