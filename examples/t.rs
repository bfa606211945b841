//! t
use std::time::{Duration, Instant};
use greenthread::*;
fn main() {
    let v: Vec<_> = (0..3).map(|i| spawn(move || { for k in 0..3 { println!("{i} {k}"); sleep(Duration::from_millis(5)); } i })).collect();
    println!("{:?}", v[0]);
    for h in v { println!("{:?}", h.join()); }
    let n = 1000;
    let t = Instant::now();
    let v: Vec<_> = (0..1000).map(|_| spawn_local(move || for _ in 0..n { yield_now() })).collect();
    for h in v { h.join().unwrap(); }
    println!("yield {:.2} ns", t.elapsed().as_nanos() as f64 / 1e6);
    let t = Instant::now();
    let v: Vec<_> = (0..2).map(|_| spawn_local(move || for _ in 0..2_000_000 { yield_now() })).collect();
    for h in v { h.join().unwrap(); }
    println!("oneway {:.2} ns", t.elapsed().as_nanos() as f64 / 4e6);
    let n = 1_000_000;
    let seq = move |what: &str| { let t = Instant::now(); for _ in 0..n { spawn_local(|| ()).join().unwrap(); } println!("{what} seq {:.2}", t.elapsed().as_nanos() as f64/n as f64);
     let t = Instant::now(); for _ in 0..n/1000 { let v: Vec<_> = (0..1000).map(|_| spawn_local(||())).collect(); for h in v {h.join().unwrap();} } println!("{what} batch {:.2}", t.elapsed().as_nanos() as f64/n as f64); };
    if std::env::args().nth(1).is_some() { seq("main"); run(move || seq("green")); }
}
