//! Calls that another OS thread makes in the caller's place: where no event tells when a call would return. Also name
//! look-ups, which are always made so, on the thread pool: the calls that glibc makes inside them cannot be patched.

use libc::{addrinfo, c_char, c_int, c_void, hostent, size_t, sockaddr, socklen_t};

use super::gate::contained;
use super::symbol::{errno, fail, patch, set_errno};
use crate::hub::Hub;
use crate::thread::shield;
use crate::threadpool::{unblock_apart, unblock_name};

patch! {
    NAMES getaddrinfo(node: *const c_char, service: *const c_char, hints: *const addrinfo, found: *mut *mut addrinfo) -> c_int => getaddrinfo_green;
    NAMES getnameinfo(address: *const sockaddr, len: socklen_t, host: *mut c_char, host_len: socklen_t, service: *mut c_char, service_len: socklen_t, flags: c_int) -> c_int => getnameinfo_green;
    NAMES gethostbyname_r(name: *const c_char, host: *mut hostent, buffer: *mut c_char, len: size_t, found: *mut *mut hostent, error: *mut c_int) -> c_int => gethostbyname_green;
    NAMES gethostbyname2_r(name: *const c_char, family: c_int, host: *mut hostent, buffer: *mut c_char, len: size_t, found: *mut *mut hostent, error: *mut c_int) -> c_int => gethostbyname2_green;
    NAMES gethostbyaddr_r(address: *const c_void, address_len: socklen_t, family: c_int, host: *mut hostent, buffer: *mut c_char, len: size_t, found: *mut *mut hostent, error: *mut c_int) -> c_int => gethostbyaddr_green;
}

/// What goes to another OS thread, while the caller waits for it.
struct Sent<T>(T);
// SAFETY: only `offload` makes one, and its caller guarantees that another OS thread may use what is inside.
unsafe impl<T> Send for Sent<T> {}

impl<T> Sent<T> {
    /// The value. A method, because a closure that named the field would capture only that, without the `Send`.
    fn into_inner(self) -> T {
        self.0
    }
}

/// Makes a call on a pool thread, and waits until it is done, because it writes to the caller's memory. `None`: it was
/// not made.
///
/// # Safety
/// Another OS thread may use what `call` refers to, while the caller waits.
unsafe fn on_pool<R>(call: impl FnOnce() -> R) -> Option<R> {
    // SAFETY: as the caller guarantees.
    unsafe { offload(call, unblock_name::<Boxed, c_int>) }
}

/// As [`on_pool`], on an OS thread of its own: for waits of any length, which must not keep a pool thread busy.
///
/// # Safety
/// As for [`on_pool`].
pub(super) unsafe fn on_own_thread<R>(call: impl FnOnce() -> R) -> Option<R> {
    // SAFETY: as the caller guarantees.
    unsafe { offload(call, unblock_apart::<Boxed, c_int>) }
}

/// As [`on_own_thread`]; fails with `ENOMEM` if there is no OS thread for it.
///
/// # Safety
/// As for [`on_pool`].
pub(super) unsafe fn on_own_thread_or_fail<R: From<i8>>(call: impl FnOnce() -> R) -> R {
    // SAFETY: as the caller guarantees.
    unsafe { on_own_thread(call) }.unwrap_or_else(|| {
        fail(libc::ENOMEM);
        R::from(-1)
    })
}

type Boxed = Box<dyn FnOnce() -> c_int + Send>;

/// Runs `call` by `unblock`, on another OS thread.
///
/// # Safety
/// As for [`on_pool`].
unsafe fn offload<R>(call: impl FnOnce() -> R, unblock: impl FnOnce(Boxed) -> c_int) -> Option<R> {
    let mut result = None;
    let boxed: Box<dyn FnOnce() -> c_int + '_> = Box::new(|| {
        result = Some(call());
        // errno is a thread-local of the OS thread that made the call: carry it over.
        errno()
    });
    // SAFETY: only the lifetime changes. What the closure borrows outlives this function, and the shield below keeps a
    // kill from ending the wait before the closure has run.
    let boxed = Sent(unsafe {
        std::mem::transmute::<Box<dyn FnOnce() -> c_int + '_>, Box<dyn FnOnce() -> c_int + 'static>>(boxed)
    });
    let job = move || boxed.into_inner()();
    let error = contained(|| shield(|| unblock(Box::new(job))))?;
    set_errno(error);
    result
}

unsafe fn getaddrinfo_green(
    _hub: &'static Hub,
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    found: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: the caller guarantees pointers that are valid for `getaddrinfo` until it returns, on any OS thread.
    unsafe { on_pool(|| original::getaddrinfo(node, service, hints, found)) }.unwrap_or(libc::EAI_AGAIN)
}

#[expect(clippy::too_many_arguments, reason = "they are the symbol's")]
unsafe fn getnameinfo_green(
    _hub: &'static Hub,
    address: *const sockaddr,
    len: socklen_t,
    host: *mut c_char,
    host_len: socklen_t,
    service: *mut c_char,
    service_len: socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller guarantees pointers that are valid for `getnameinfo` until it returns, on any OS thread.
    unsafe { on_pool(|| original::getnameinfo(address, len, host, host_len, service, service_len, flags)) }
        .unwrap_or(libc::EAI_AGAIN)
}

unsafe fn gethostbyname_green(
    _hub: &'static Hub,
    name: *const c_char,
    host: *mut hostent,
    buffer: *mut c_char,
    len: size_t,
    found: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller guarantees pointers that are valid for `gethostbyname_r` until it returns, on any OS thread.
    unsafe { on_pool(|| original::gethostbyname_r(name, host, buffer, len, found, error)) }.unwrap_or(libc::EAGAIN)
}

#[expect(clippy::too_many_arguments, reason = "they are the symbol's")]
unsafe fn gethostbyname2_green(
    _hub: &'static Hub,
    name: *const c_char,
    family: c_int,
    host: *mut hostent,
    buffer: *mut c_char,
    len: size_t,
    found: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller guarantees pointers that are valid for `gethostbyname2_r` until it returns, on any OS thread.
    unsafe { on_pool(|| original::gethostbyname2_r(name, family, host, buffer, len, found, error)) }
        .unwrap_or(libc::EAGAIN)
}

#[expect(clippy::too_many_arguments, reason = "they are the symbol's")]
unsafe fn gethostbyaddr_green(
    _hub: &'static Hub,
    address: *const c_void,
    address_len: socklen_t,
    family: c_int,
    host: *mut hostent,
    buffer: *mut c_char,
    len: size_t,
    found: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller guarantees pointers that are valid for `gethostbyaddr_r` until it returns, on any OS thread.
    unsafe { on_pool(|| original::gethostbyaddr_r(address, address_len, family, host, buffer, len, found, error)) }
        .unwrap_or(libc::EAGAIN)
}
