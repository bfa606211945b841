//! Name look-ups, on the thread pool: glibc's own calls in them cannot be patched.

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

/// Arguments on their way to a pool thread, for which the caller waits.
struct Sent<T>(T);
// SAFETY: pointers that the caller keeps valid until the call returns, and it returns only after the pool thread is done.
unsafe impl<T> Send for Sent<T> {}

impl<T> Sent<T> {
    fn into_inner(self) -> T {
        self.0
    }
}

/// Runs an original on a pool thread and waits to the end: it writes to what the caller lent. `None`: it did not run.
pub(super) fn elsewhere(call: impl FnOnce() -> c_int) -> Option<c_int> {
    away(call, unblock_name::<Boxed, (c_int, c_int)>)
}

/// The same on an OS thread of its own, for waits that may last as long as they like.
pub(super) fn apart(call: impl FnOnce() -> c_int) -> Option<c_int> {
    away(call, unblock_apart::<Boxed, (c_int, c_int)>)
}

type Boxed = Box<dyn FnOnce() -> (c_int, c_int) + Send>;

fn away(call: impl FnOnce() -> c_int, unblock: impl FnOnce(Boxed) -> (c_int, c_int)) -> Option<c_int> {
    let call = Sent(call);
    // SAFETY: the closure borrows what outlives this call, and the shield keeps the wait from being left early.
    let boxed: Box<dyn FnOnce() -> c_int + '_> = Box::new(call.into_inner());
    // SAFETY: as above; only the lifetime changes.
    let boxed = Sent(unsafe {
        std::mem::transmute::<Box<dyn FnOnce() -> c_int + '_>, Box<dyn FnOnce() -> c_int + 'static>>(boxed)
    });
    let job = move || {
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
    // SAFETY: the caller's, as libc's.
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
    // SAFETY: the caller's, as libc's.
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
    // SAFETY: the caller's, as libc's.
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
    // SAFETY: the caller's, as libc's.
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
    // SAFETY: the caller's, as libc's.
    let ask = || unsafe { original::gethostbyaddr_r(address, address_len, family, host, buffer, len, found, error) };
    elsewhere(ask).unwrap_or(libc::EAGAIN)
}
