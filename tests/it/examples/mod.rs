//! The examples, run as a user runs them.

mod crawl;
pub(crate) mod programs;
mod shown;
