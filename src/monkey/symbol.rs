//! Patched symbols, and libc's definitions behind them (the originals): the macros that define both, the sets in which
//! symbols are armed, and what this crate itself calls of them.

use std::ffi::CStr;

use libc::{c_int, c_ulong};

use super::gate::{LOCKS, NAMES, PROCESSES, READINESS, SHARED, SOCKETS, TIME};

/// A set of calls to patch; [`patch_all`](super::patch_all) patches all of them.
///
/// ```
/// use greenthread::monkey::Patch;
/// # fn main() -> std::io::Result<()> {
/// Patch::new().sockets().time().apply()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "nothing is patched until apply() is called"]
pub struct Patch(pub(super) u32);

impl Patch {
    /// An empty set, to add groups of calls to.
    pub const fn new() -> Patch {
        Patch(0)
    }

    /// Everything except `std::thread::spawn`, which [`patch_threads`](super::patch_threads) patches.
    pub const fn all() -> Patch {
        Patch(SOCKETS | TIME | READINESS | NAMES | PROCESSES | LOCKS)
    }

    /// Sockets, pipes, terminals, eventfd and the like: connect, accept, the recv and send families, read and write.
    ///
    /// The open of a FIFO belongs here too.
    pub const fn sockets(self) -> Patch {
        Patch(self.0 | SOCKETS)
    }

    /// Sleeps.
    pub const fn time(self) -> Patch {
        Patch(self.0 | TIME)
    }

    /// poll, select and epoll, and waits for signals (`sigwait`, `pause`).
    pub const fn readiness(self) -> Patch {
        Patch(self.0 | READINESS)
    }

    /// getaddrinfo and getnameinfo, on the thread pool.
    pub const fn names(self) -> Patch {
        Patch(self.0 | NAMES)
    }

    /// Waits for child processes.
    pub const fn processes(self) -> Patch {
        Patch(self.0 | PROCESSES)
    }

    /// std's locks, channels and `thread::park`, and everything else that waits by futex or lock.
    ///
    /// That includes C's locks, locks on files, and queues and semaphores between processes.
    pub const fn locks(self) -> Patch {
        Patch(self.0 | LOCKS)
    }

    /// Makes calls park in local green threads and on a hub's native stack too, which share their thread-locals.
    ///
    /// ```
    /// use greenthread::{monkey::Patch, spawn_local};
    /// use std::{thread::sleep, time::{Duration, Instant}};
    ///
    /// // SAFETY: nothing here is between two uses of a thread-local when it sleeps.
    /// unsafe { Patch::new().time().shared_thread_locals() }.apply().unwrap();
    /// let start = Instant::now();
    /// let other = spawn_local(|| sleep(Duration::from_millis(50)));
    /// sleep(Duration::from_millis(50)); // the native stack parks, and the other one runs
    /// other.join().unwrap();
    /// assert!(start.elapsed() < Duration::from_millis(95));
    /// ```
    ///
    /// # Safety
    /// From then on, on every OS thread with a hub, other code of that OS thread runs in the middle of a call that used
    /// to block, and sees the same thread-locals. No code that runs there may rely on the contrary. So there must be no
    /// lazy `thread_local!` with an initialiser that blocks, no scoped thread-local or reference to a thread-local that
    /// is held over a call that blocks, no contended lock of `parking_lot`, no two tokio contexts, and no
    /// `std::thread::park`.
    pub const unsafe fn shared_thread_locals(self) -> Patch {
        Patch(self.0 | SHARED)
    }
}

/// A string literal with a final `\0`, as a C string.
pub(super) const fn c_name(with_zero: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(with_zero.as_bytes()) {
        Ok(name) => name,
        Err(_) => unreachable!(),
    }
}

/// libc's definition of a symbol: the next one after this program's.
#[cold]
pub(super) fn find(name: &CStr) -> *mut () {
    // SAFETY: `name` is a C string; `dlsym` only searches.
    let found: *mut () = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.cast();
    if found.is_null() { missing as *mut () } else { found }
}

/// Stands in for a call that an older libc lacks: fails with `ENOSYS`.
extern "C" fn missing() -> isize {
    fail(libc::ENOSYS) as isize
}

/// Defines functions that call libc's own definitions. Their addresses are looked up before `main`, because a look-up
/// takes the loader's lock: a later call may come from code that holds it already, or from a signal handler.
macro_rules! originals {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[doc = concat!("libc's `", stringify!($name), "`, unpatched.")]
            ///
            /// # Safety
            /// As for libc's function.
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
            pub unsafe fn $name($($argument: $type),*) -> $result {
                type Call = unsafe extern "C-unwind" fn($($type),*) -> $result;
                // Relaxed is enough: each value that can be loaded, `first` or libc's, is a function that does the
                // call.
                let found = found::$name.load(std::sync::atomic::Ordering::Relaxed);
                // SAFETY: libc's definition has this type. The caller guarantees arguments that are valid for it.
                unsafe { std::mem::transmute::<*mut (), Call>(found)($($argument),*) }
            }
        )*
        /// The addresses of libc's definitions.
        #[allow(non_upper_case_globals, reason = "they are functions' names")]
        mod found {
            #[allow(unused_imports, reason = "types of arguments, if there are any")]
            use super::*;
            use std::sync::atomic::AtomicPtr;
            $(
                pub(super) static $name: AtomicPtr<()> =
                    AtomicPtr::new(first::$name as unsafe extern "C-unwind" fn($($type),*) -> $result as *mut ());
            )*
        }
        /// The addresses before `look_up` has run: a call that comes so early looks its own symbol up.
        mod first {
            #[allow(unused_imports, reason = "types of arguments, if there are any")]
            use super::*;
            $(
                #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
                pub(super) unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                    super::look_up_one(&super::found::$name, concat!(stringify!($name), "\0"));
                    // SAFETY: the caller guarantees arguments that are valid for libc's definition.
                    unsafe { super::$name($($argument),*) }
                }
            )*
        }
        fn look_up_one(place: &std::sync::atomic::AtomicPtr<()>, name: &'static str) {
            let found = $crate::monkey::symbol::find($crate::monkey::symbol::c_name(name));
            place.store(found, std::sync::atomic::Ordering::Relaxed);
        }
        /// Runs before `main`, or when the library that contains this crate is loaded.
        #[used]
        #[unsafe(link_section = ".init_array")]
        static LOOK_UP: extern "C" fn() = look_up;

        extern "C" fn look_up() {
            $(look_up_one(&found::$name, concat!(stringify!($name), "\0"));)*
        }
    };
}
pub(super) use originals;

/// Lists definitions of this crate: name, address, group.
macro_rules! listed {
    ($($group:ident $name:ident)*) => {
        [$((
            const { $crate::monkey::symbol::c_name(concat!(stringify!($name), "\0")) },
            $name as *const () as usize,
            $crate::monkey::gate::$group,
        )),*]
        .into_iter()
    };
}
pub(super) use listed;

/// A symbol as [`listed`] lists it.
pub(super) type Listed = (&'static CStr, usize, u32);

/// Defines patched symbols. A call runs the original, unless the gate says that it may park; then it runs `patched`.
///
/// In the native context that costs a comparison and two jumps, because the part that must save registers is a function
/// of its own.
macro_rules! patch {
    ($($group:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty => $patched:path;)*) => {
        /// libc's own definitions.
        pub(in crate::monkey) mod original {
            #[allow(unused_imports)]
            use super::*;
            $crate::monkey::symbol::originals! { $($name($($argument: $type),*) -> $result;)* }
        }
        $(
            /// Defined ahead of libc's.
            #[unsafe(no_mangle)]
            #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
            unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                #[inline(never)]
                #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
                unsafe extern "C-unwind" fn in_context($($argument: $type),*) -> $result {
                    // SAFETY: the caller guarantees arguments that are valid for libc's definition, and `patched`
                    // requires the same.
                    unsafe {
                        match $crate::monkey::gate::gate_here($crate::monkey::gate::$group) {
                            None => original::$name($($argument),*),
                            Some(hub) => $patched(hub, $($argument),*),
                        }
                    }
                }
                // SAFETY: the caller guarantees arguments that are valid for libc's definition.
                unsafe {
                    if $crate::monkey::gate::passes() {
                        original::$name($($argument),*)
                    } else {
                        in_context($($argument),*)
                    }
                }
            }
        )*
        /// The symbols of this module.
        pub(super) fn symbols() -> impl Iterator<Item = $crate::monkey::symbol::Listed> {
            $crate::monkey::symbol::listed! { $($group $name)* }
        }
    };
}
pub(super) use patch;

/// A call of libc's that another OS thread may make, while the caller waits for it.
pub(super) struct Lent<F>(F);

// SAFETY: the caller of `Lent::new` guarantees that another OS thread may make the call.
unsafe impl<F> Send for Lent<F> {}

impl<F> Lent<F> {
    /// # Safety
    /// Another OS thread may make the call, once, as long as `call` lives.
    pub(super) unsafe fn new(call: F) -> Lent<F> {
        Lent(call)
    }

    /// The call. A method, because a closure that named the field would capture only that, without the `Send`.
    pub(super) fn into_inner(self) -> F {
        self.0
    }
}

/// Defines patched symbols whose calls are always made on another OS thread, by `$by`. If that cannot be done, the
/// result is `$failed`.
macro_rules! elsewhere {
    ($($group:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty => $by:path, $failed:expr;)*) => {
        $crate::monkey::symbol::patch! { $($group $name($($argument: $type),*) -> $result => lent::$name;)* }

        mod lent {
            use super::*;
            $(
                #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
                pub(super) unsafe fn $name(_hub: &'static $crate::hub::Hub, $($argument: $type),*) -> $result {
                    // SAFETY: the caller guarantees arguments that are valid for libc's definition until it returns, on
                    // any OS thread.
                    let call = unsafe { $crate::monkey::symbol::Lent::new(|| original::$name($($argument),*)) };
                    $by(call).unwrap_or($failed)
                }
            )*
        }
    };
}
pub(super) use elsewhere;

/// Defines symbols that act on every OS thread, whatever the gate says: `$around` gets the arguments, and libc's call
/// with these arguments, which it makes once. It runs on every call, so it first asks whether anything is armed.
macro_rules! around {
    ($($group:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty => $around:path;)*) => {
        /// libc's own definitions.
        pub(in crate::monkey) mod original {
            #[allow(unused_imports, reason = "types of arguments, if there are any")]
            use super::*;
            $crate::monkey::symbol::originals! { $($name($($argument: $type),*) -> $result;)* }
        }
        $(
            /// Defined ahead of libc's.
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                // SAFETY: the caller guarantees arguments that are valid for libc's definition; they are passed on.
                $around($($argument,)* || unsafe { original::$name($($argument),*) })
            }
        )*
        /// The symbols of this module.
        pub(super) fn symbols() -> impl Iterator<Item = $crate::monkey::symbol::Listed> {
            $crate::monkey::symbol::listed! { $($group $name)* }
        }
    };
}
pub(super) use around;

/// libc's own definitions of the variadic calls. They have at most one variable argument, declared here as a `usize`.
pub(in crate::monkey) mod flags {
    use super::*;

    super::originals! {
        fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
        fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int;
        ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int;
    }
}

/// Whether an open file is non-blocking at this moment.
pub(super) fn has_flag(fd: c_int) -> bool {
    // SAFETY: `F_GETFL` only reads flags.
    unsafe { flags::fcntl(fd, libc::F_GETFL, 0) & libc::O_NONBLOCK != 0 }
}

/// Makes an open file non-blocking, or blocking. Unlike `F_SETFL`, `FIONBIO` changes this one flag only, so a change of
/// another flag meanwhile is not lost.
pub(super) fn set_flag(fd: c_int, nonblocking: bool) {
    let nonblocking = c_int::from(nonblocking);
    // SAFETY: `FIONBIO` reads an integer from the address of a local.
    unsafe { flags::ioctl(fd, libc::FIONBIO, (&raw const nonblocking).expose_provenance()) };
}

/// The address that the program's calls of `name` are linked to.
pub(super) fn resolved(name: &CStr) -> usize {
    // SAFETY: `name` is a C string; `dlsym` only searches.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.addr()
}

pub(super) fn errno() -> c_int {
    // SAFETY: `__errno_location` returns the address of a live thread-local of the running thread.
    unsafe { *libc::__errno_location() }
}

pub(super) fn set_errno(value: c_int) {
    // SAFETY: `__errno_location` returns the address of a live thread-local of the running thread.
    unsafe { *libc::__errno_location() = value };
}

/// Sets errno and returns -1, as a failed system call does.
pub(super) fn fail(value: c_int) -> c_int {
    set_errno(value);
    -1
}
