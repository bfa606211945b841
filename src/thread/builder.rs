//! What a spawn may choose: name, stack size, locals.
#![forbid(unsafe_code)]

use std::io;
use std::panic::Location;
use std::sync::Arc;

use super::{JoinHandle, Scope, ScopedJoinHandle, local};
use crate::hub::{Hub, Kind, task};

/// What a new green thread finds in its [`green_local!`](crate::green_local) variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locals {
    /// No values, but copies of those with [`#[inherit]`](crate::green_local): each other local is initialised again,
    /// as in an OS thread.
    #[default]
    Empty,
    /// The spawner's current values. A change inside a value (of a `Cell`, say) is seen by both; a
    /// [`rebind`](super::LocalKey::rebind) is not.
    Inherit,
    /// The spawner's own set: both see every change.
    Share,
}

/// Spawns a green thread with a name, a stack size or locals of your choice.
///
/// ```
/// use greenthread::thread::Builder;
///
/// let deep = Builder::new().name("deep").stack_size(4 << 20);
/// let handle = deep.spawn(|| 1).unwrap();
/// assert_eq!(handle.thread().name(), Some("deep"));
/// assert_eq!(handle.join().unwrap(), 1);
/// ```
#[derive(Debug, Default)]
pub struct Builder {
    name: Option<Box<str>>,
    stack_size: Option<usize>,
    locals: Locals,
}

impl Builder {
    /// An unnamed green thread, with a stack of [`stack::default_size`](crate::stack::default_size), or of
    /// [`stack::local_size`](crate::stack::local_size) if it is a local one.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Sets its name. `Debug`, dumps, errors and the message of a stack overflow show it; `std::thread::current` does
    /// not.
    #[must_use]
    pub fn name(mut self, name: impl Into<Box<str>>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Sets the size of its stack in usable bytes, as in std, without the guard. It is rounded up by at most an eighth.
    ///
    /// Only touched pages (at least one) and page tables take memory: see [`stack`](crate::stack).
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// Sets what it finds in its locals.
    #[must_use]
    pub fn locals(mut self, locals: Locals) -> Builder {
        self.locals = locals;
        self
    }

    fn options(self) -> task::Options {
        task::Options {
            name: self.name.map(Arc::new),
            stack_size: self.stack_size,
            locals: local::for_spawn(self.locals),
            is_bare: false,
        }
    }

    /// Spawns it, like [`spawn`](super::spawn).
    ///
    /// # Errors
    /// No memory for the stack; a stack size of zero, or of more than the address space; locals other than
    /// [`Locals::Empty`], since those of a local green thread may not be `Send`.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.check_locals()?;
        self.start(Kind::Isolated, f)
    }

    /// Spawns it, like [`spawn_local`](super::spawn_local).
    ///
    /// # Errors
    /// No memory for the stack; a stack size of zero, or of more than the address space.
    #[track_caller]
    pub fn spawn_local<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.start(Kind::Local, f)
    }

    /// Runs `main` as a green thread and waits for its end, like [`run`](super::run).
    ///
    /// ```
    /// use greenthread::thread::Builder;
    /// let deep = Builder::new().name("main").stack_size(8 << 20);
    /// assert_eq!(deep.run(|| [1_u8; 4 << 20].len()).unwrap(), 4 << 20);
    /// ```
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    /// If `main` panics, with the same payload.
    #[track_caller]
    pub fn run<F, T>(self, main: F) -> io::Result<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(super::value_of(self.spawn(main)?.join(), "run"))
    }

    /// Spawns it in a scope, like [`Scope::spawn`].
    ///
    /// ```
    /// use greenthread::thread::{self, Builder};
    /// let words = ["a", "b"];
    /// let count = thread::scope(|s| {
    ///     let child = Builder::new().name("counter").spawn_scoped(s, || words.len()).unwrap();
    ///     assert_eq!(child.thread().name(), Some("counter"));
    ///     child.join().unwrap()
    /// });
    /// assert_eq!(count, 2);
    /// ```
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.check_locals()?;
        check_hub()?;
        scope.try_spawn(Kind::Isolated, Some(self.options()), f, Location::caller())
    }

    /// Spawns it in a scope, like [`Scope::spawn_local`].
    ///
    /// # Errors
    /// As [`spawn_local`](Self::spawn_local).
    #[track_caller]
    pub fn spawn_local_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        check_hub()?;
        scope.try_spawn(Kind::Local, Some(self.options()), f, Location::caller())
    }

    fn check_locals(&self) -> io::Result<()> {
        if self.locals == Locals::Empty {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "only `spawn_local` can inherit or share green locals, because they need not be Send",
        ))
    }

    #[track_caller]
    fn start<F, T>(self, kind: Kind, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        check_hub()?;
        task::spawn(Hub::current(), kind, Some(self.options()), Location::caller(), f).map(JoinHandle::new)
    }
}

fn check_hub() -> io::Result<()> {
    if Hub::has_ended() {
        return Err(crate::hub::ended());
    }
    Ok(())
}
