//! What the cases share: a verdict, and peers that are never short of bytes.

pub mod flood;

use std::process::ExitCode;
use std::time::Duration;

/// Milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What a program found; the lines of what does not hold are printed at once.
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
