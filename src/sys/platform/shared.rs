//! No sets of thread-locals besides the OS threads': all green threads of an OS thread share its thread-locals.

pub(crate) mod base {
    //! There is one base, the native one, and it is never changed. All bases are 0.

    /// Does nothing: `malloc`'s words stay where they are.
    ///
    /// # Safety
    /// None.
    #[inline(always)]
    pub(crate) unsafe fn carry(_from: usize, _to: usize) {}

    /// 0: the native base is in use.
    #[inline(always)]
    pub(crate) fn native() -> usize {
        0
    }

    /// Whether the native base is in use.
    #[cfg(feature = "monkey")]
    #[inline(always)]
    pub(crate) fn is_native() -> bool {
        true
    }

    /// Does nothing: there are no fresh contexts.
    pub(crate) fn plant(_native: usize) {}

    /// Does nothing: the native base is in use.
    pub(crate) fn before_fork() {}

    /// Does nothing, as [`before_fork`].
    pub(crate) fn after_fork() {}

    /// The base that is in use.
    #[inline(always)]
    pub(crate) fn get() -> usize {
        0
    }

    /// Does nothing: there is one base.
    ///
    /// # Safety
    /// None.
    #[inline(always)]
    pub(crate) unsafe fn set(_base: usize) {}

    /// Calls `f`.
    ///
    /// # Safety
    /// `f` may be called with `argument`.
    pub(crate) unsafe fn call(_base: usize, _back: usize, f: unsafe fn(*mut ()), argument: *mut ()) {
        // SAFETY: the caller guarantees that `f` may be called with `argument`.
        unsafe { f(argument) };
    }
}

pub(crate) mod glibc {
    //! No libc here lets a program make a thread control block.

    /// There is none.
    pub(crate) enum Glibc {}

    const REASON: &str = if cfg!(target_env = "musl") {
        "green threads share the thread-locals of their OS thread: musl lets no program make others"
    } else if cfg!(target_os = "linux") {
        "green threads share the thread-locals of their OS thread: on Linux, others are made with glibc on x86-64 only"
    } else {
        "green threads share the thread-locals of their OS thread: others are made on Linux with glibc only"
    };

    /// Why there is none.
    #[inline]
    pub(crate) fn get() -> Result<&'static Glibc, &'static str> {
        Err(REASON)
    }

    /// The number by which C's locks know the running context as their owner.
    #[cfg(feature = "monkey")]
    pub(crate) fn own_id() -> Option<u32> {
        None
    }

    impl Glibc {
        pub(crate) fn make(&self, _native: usize) -> Option<usize> {
            match *self {}
        }

        #[cfg(feature = "monkey")]
        pub(crate) fn number(&self, _block: usize) -> u32 {
            match *self {}
        }

        pub(crate) fn begin(&self) {
            match *self {}
        }

        pub(crate) fn end(&self, _block: usize) {
            match *self {}
        }

        /// # Safety
        /// None.
        pub(crate) unsafe fn reset_block(&self, _block: usize) {
            match *self {}
        }

        /// # Safety
        /// None.
        pub(crate) unsafe fn free(&self, _block: usize) {
            match *self {}
        }
    }
}
