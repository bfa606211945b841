//! Greenlets and generators.

mod drop;
mod generator_drop;
mod generator_values;
mod parent;
mod process;
mod roots;
mod switch;
mod throw;
mod trace;
