//! Rules about the source tree.

mod circles;
mod labels;
mod layering;
mod platforms;
mod tidy;
