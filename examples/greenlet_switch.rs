//! Switching by hand: two functions on stacks of their own, and nobody who schedules them.
//!
//! ```text
//! cargo run --release --example greenlet_switch
//! ```
//!
//! prints `1 3 2 4`, one per line. `gr2` returns, to `main`; `gr1` still waits in its second switch then. It is unwound
//! when its last handle goes, which its guard reports on stderr, and the exit code is 0.
//!
//! ```text
//! cargo run --release --example greenlet_switch pingpong 2
//! ```
//!
//! has two greenlets play for 2 seconds: `A B` at once, then `A`, `B`, `A` at 0.5, 1.0 and 1.5 s.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenthread::greenlet::{self, Greenlet, WeakGreenlet};

struct Guard(&'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        eprintln!("{} is unwound", self.0);
    }
}

/// Two greenlets that know each other. The first holds the second, and the second only a weak handle of the first:
/// otherwise each would keep the other alive for ever.
fn pair(first: impl FnOnce(&Greenlet<()>) + 'static, second: impl FnOnce(&WeakGreenlet<()>) + 'static) -> Greenlet<()> {
    let weak = Rc::new(OnceCell::new());
    let known = weak.clone();
    let gr2 = Greenlet::new(move |()| second(known.get().expect("set below")));
    let gr1 = Greenlet::new(move |()| first(&gr2));
    weak.set(gr1.downgrade()).expect("set once");
    gr1
}

fn one_three_two_four() {
    let gr1 = pair(
        |gr2| {
            let _guard = Guard("gr1");
            println!("1"); // step 1: main switched here
            gr2.switch(()); // step 2: to gr2
            println!("2"); // step 5
            gr2.switch(()); // step 6: to gr2, and nobody comes back
        },
        |gr1| {
            println!("3"); // step 3
            gr1.upgrade().expect("main holds it").switch(()); // step 4: to gr1
            println!("4"); // step 7, then back to main: it made us
        },
    );
    gr1.switch(());
    assert!(!gr1.is_dead());
}

fn ping_pong(play: Duration) {
    let end = Instant::now() + play;
    let rest = move || {
        greenthread::sleep(Duration::from_millis(500));
        if Instant::now() >= end {
            greenlet::current::<()>().parent().expect("main").switch(());
        }
    };
    let a = pair(
        move |b| {
            loop {
                println!("A");
                b.switch(());
                rest();
            }
        },
        move |a| {
            loop {
                println!("B");
                a.upgrade().expect("main holds it").switch(());
                rest();
            }
        },
    );
    a.switch(());
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("pingpong") => {
            let seconds = arguments
                .next()
                .and_then(|s| s.trim_end_matches('s').parse().ok())
                .unwrap_or(2);
            ping_pong(Duration::from_secs(seconds));
        }
        _ => one_three_two_four(),
    }
}
