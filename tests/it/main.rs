//! All integration tests in one binary; what must have a process of its own runs as a child of it.

mod layering;
mod tidy;
