//! Rules about the source tree.

mod layering;
mod tidy;
