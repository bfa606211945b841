//! How a greenlet ends quietly, and why a switch or a new parent is refused.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;

/// The payload that ends a greenlet quietly; see [`kill`](super::Greenlet::kill).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreenletExit;

/// Why a switch has no answer; a message that was not sent is given back.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwitchError<V> {
    /// The greenlet cannot be reached from here: it belongs to another green thread or native stack, or its family
    /// waits below this one's.
    Foreign(V),
    /// The greenlet waits in a destructor that an unwinding runs, where nothing can be raised.
    Unwinding(V),
    /// The answer is that a greenlet ended by [`GreenletExit`].
    Exited,
}

impl<V> SwitchError<V> {
    /// The message that was not sent, if there is one.
    pub fn into_inner(self) -> Option<V> {
        match self {
            SwitchError::Foreign(value) | SwitchError::Unwinding(value) => Some(value),
            SwitchError::Exited => None,
        }
    }

    pub(super) fn map<W>(self, f: impl FnOnce(V) -> W) -> SwitchError<W> {
        match self {
            SwitchError::Foreign(value) => SwitchError::Foreign(f(value)),
            SwitchError::Unwinding(value) => SwitchError::Unwinding(f(value)),
            SwitchError::Exited => SwitchError::Exited,
        }
    }
}

impl<V> fmt::Display for SwitchError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SwitchError::Foreign(_) => {
                "cannot switch to a greenlet of another green thread or native stack: switch there, where it was made"
            }
            SwitchError::Unwinding(_) => "cannot throw into a greenlet that waits in a destructor during an unwinding",
            SwitchError::Exited => "the greenlet that was to answer was killed (GreenletExit): it left no value",
        })
    }
}

impl<V> fmt::Debug for SwitchError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SwitchError::Foreign(_) => "Foreign(..)",
            SwitchError::Unwinding(_) => "Unwinding(..)",
            SwitchError::Exited => "Exited",
        })
    }
}

impl<V> Error for SwitchError<V> {}

/// Why a parent was refused; see [`set_parent`](super::Greenlet::set_parent).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParentError {
    /// The chain of parents would come back to the greenlet itself.
    Cyclic,
    /// The parent belongs to another green thread or native stack.
    Foreign,
    /// The main greenlet has no parent.
    Main,
}

impl fmt::Display for ParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParentError::Cyclic => "a greenlet cannot be its own parent, not even by way of others",
            ParentError::Foreign => "a parent cannot belong to another green thread or native stack",
            ParentError::Main => "the main greenlet cannot have a parent",
        })
    }
}

impl Error for ParentError {}
