//! A value that counts its drops.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts its drops.
#[derive(Debug)]
pub(crate) struct Counted<T: Count>(pub(crate) T);

/// A number that a test shares with its values.
pub(crate) trait Count {
    fn add_one(&self);
}

impl Count for Rc<Cell<u32>> {
    fn add_one(&self) {
        self.set(self.get() + 1);
    }
}

impl Count for Arc<AtomicUsize> {
    fn add_one(&self) {
        self.fetch_add(1, Ordering::SeqCst);
    }
}

impl<T: Count> Drop for Counted<T> {
    fn drop(&mut self) {
        self.0.add_one();
    }
}
