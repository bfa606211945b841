//! Name look-ups, on the thread pool: glibc's own calls in them cannot be patched.

use libc::{addrinfo, c_char, c_int, sockaddr, socklen_t};

use super::symbol::patch;
use super::{contained, errno, set_errno};
use crate::hub::Hub;
use crate::thread::shield;
use crate::threadpool::unblock;

patch! {
    NAMES getaddrinfo(node: *const c_char, service: *const c_char, hints: *const addrinfo, found: *mut *mut addrinfo) -> c_int => getaddrinfo_green;
    NAMES getnameinfo(address: *const sockaddr, len: socklen_t, host: *mut c_char, host_len: socklen_t, service: *mut c_char, service_len: socklen_t, flags: c_int) -> c_int => getnameinfo_green;
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

/// Runs an original on a pool thread and waits to the end: it writes to what the caller lent.
pub(super) fn elsewhere(call: impl FnOnce() -> c_int) -> Option<c_int> {
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
    let (result, error) = contained(|| shield(|| unblock(job)))?;
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
