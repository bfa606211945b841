//! What the programs share: a verdict, scenarios in processes of their own, and peers that are never short of bytes.

pub mod aim;
pub mod flood;
pub mod os;
pub mod scenarios;

use std::process::ExitCode;
use std::time::Duration;

/// Milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Whether this is a short run: `SHORT` is set in the environment.
pub fn is_short() -> bool {
    std::env::var_os("SHORT").is_some_and(|short| !short.is_empty())
}

/// The argument of this number, if there is one: 1 is the first.
pub fn argument(number: usize) -> Option<String> {
    std::env::args().nth(number)
}

/// Runs `f` as an isolated green thread, with libc patched.
pub fn patched<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    greenthread::monkey::patch_all().expect("isolation");
    greenthread::run(f)
}

/// Ends the process with an error if it takes too long.
pub fn watchdog(limit: Duration) {
    std::thread::spawn(move || {
        os::sleep(limit);
        eprintln!("HANG: not done after {limit:?}");
        os::exit_now(3);
    });
}

/// What a panic said.
pub fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

/// Numbers that look random, the same for each seed (xorshift).
pub struct Random(pub u64);

impl Random {
    /// A number less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        let mut x = self.0;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        (x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % bound
    }
}

/// What a program found; each line is printed at once.
#[derive(Default)]
pub struct Verdict {
    failed: u32,
}

impl Verdict {
    /// Notes one thing that must hold.
    pub fn holds(&mut self, holds: bool, what: impl std::fmt::Display) {
        println!("{} {what}", if holds { "ok  " } else { "FAIL" });
        self.failed += u32::from(!holds);
    }

    /// The exit code: 0 if all of them held.
    pub fn end(self) -> ExitCode {
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
