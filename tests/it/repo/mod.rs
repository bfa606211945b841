//! Rules about the source tree.

mod circles;
mod guide;
mod labels;
mod layering;
mod platforms;
mod tidy;
