//! Name look-ups, on the thread pool: the calls that glibc makes inside them cannot be patched.

use libc::{addrinfo, c_char, c_int, c_void, hostent, size_t, sockaddr, socklen_t};

use super::symbol::patch;
use super::{contained, errno, set_errno};
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

/// Sends arguments to another OS thread, while the caller waits for it.
struct Sent<T>(T);
// SAFETY: the pointers inside are valid until the caller's call returns, and it returns only after the other OS thread
// is done with them.
unsafe impl<T> Send for Sent<T> {}

impl<T> Sent<T> {
    /// The value. A method, because a closure that named the field would capture only that, without the `Send`.
    fn into_inner(self) -> T {
        self.0
    }
}

/// Runs an original call on a pool thread, and waits until it is done, because it writes to the caller's memory.
/// `None`: it did not run.
pub(super) fn elsewhere(call: impl FnOnce() -> c_int) -> Option<c_int> {
    away(call, unblock_name::<Boxed, (c_int, c_int)>)
}

/// As [`elsewhere`], on an OS thread of its own: for waits of any length, which must not keep a pool thread busy.
pub(super) fn apart(call: impl FnOnce() -> c_int) -> Option<c_int> {
    away(call, unblock_apart::<Boxed, (c_int, c_int)>)
}

type Boxed = Box<dyn FnOnce() -> (c_int, c_int) + Send>;

/// Runs `call` by `unblock`, on another OS thread.
fn away(call: impl FnOnce() -> c_int, unblock: impl FnOnce(Boxed) -> (c_int, c_int)) -> Option<c_int> {
    let call = Sent(call);
    let boxed: Box<dyn FnOnce() -> c_int + '_> = Box::new(call.into_inner());
    // SAFETY: only the lifetime changes. What the closure borrows outlives this function, and the shield below keeps a
    // kill from ending the wait before the closure has run.
    let boxed = Sent(unsafe {
        std::mem::transmute::<Box<dyn FnOnce() -> c_int + '_>, Box<dyn FnOnce() -> c_int + 'static>>(boxed)
    });
    let job = move || {
        // errno is a thread-local of the OS thread that made the call: carry it over.
        let result = boxed.into_inner()();
        (result, errno())
    };
    let (result, error) = contained(|| shield(|| unblock(Box::new(job))))?;
    set_errno(error);
    Some(result)
}

unsafe fn getaddrinfo_green(
    _hub: &'static Hub,
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    found: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: the caller guarantees pointers that are valid for `getaddrinfo` until it returns.
    elsewhere(|| unsafe { original::getaddrinfo(node, service, hints, found) }).unwrap_or(libc::EAI_AGAIN)
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
    // SAFETY: the caller guarantees pointers that are valid for `getnameinfo` until it returns.
    let ask = || unsafe { original::getnameinfo(address, len, host, host_len, service, service_len, flags) };
    elsewhere(ask).unwrap_or(libc::EAI_AGAIN)
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
    // SAFETY: the caller guarantees pointers that are valid for `gethostbyname_r` until it returns.
    let ask = || unsafe { original::gethostbyname_r(name, host, buffer, len, found, error) };
    elsewhere(ask).unwrap_or(libc::EAGAIN)
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
    // SAFETY: the caller guarantees pointers that are valid for `gethostbyname2_r` until it returns.
    let ask = || unsafe { original::gethostbyname2_r(name, family, host, buffer, len, found, error) };
    elsewhere(ask).unwrap_or(libc::EAGAIN)
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
    // SAFETY: the caller guarantees pointers that are valid for `gethostbyaddr_r` until it returns.
    let ask = || unsafe { original::gethostbyaddr_r(address, address_len, family, host, buffer, len, found, error) };
    elsewhere(ask).unwrap_or(libc::EAGAIN)
}
