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

use std::cell::Cell;
use std::rc::Rc;

use greenthread::greenlet::{self, Greenlet};

use crate::support::counted::Counted;

/// A suspended greenlet that counts when it is dropped.
fn waiting(ended: &Rc<Cell<u32>>) -> Greenlet<u32> {
    let (main, guard) = (greenlet::current::<u32>(), Counted(ended.clone()));
    let g = Greenlet::new(move |n| {
        let _guard = guard;
        main.switch(n)
    });
    g.switch(0);
    g
}
