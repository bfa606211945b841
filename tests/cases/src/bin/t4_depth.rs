//! A JSON document at serde_json's own limit of depth (128) fits the default stack of `spawn`, also in a debug build.
//!
//! `t4_depth [DEPTH]`
#![forbid(unsafe_code)]

use cases::argument;
use greenthread::spawn;

fn main() {
    let depth = argument(1).map_or(127, |depth| depth.parse().expect("a number"));
    let text = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let len = text.len();
    let parsed = spawn(move || {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.to_string().len()
    });
    assert_eq!(parsed.join().unwrap(), len);
    println!("ok   depth {depth}");
}
