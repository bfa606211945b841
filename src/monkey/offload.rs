//! Calls that another OS thread makes in the caller's place: where no event tells when a call would return. Also name
//! look-ups, which are always made so, on the thread pool: the calls that glibc makes inside them cannot be patched.

use libc::{addrinfo, c_char, c_int, c_void, hostent, size_t, sockaddr, socklen_t};

use super::gate::contained;
use super::symbol::{Lent, elsewhere, errno, fail, set_errno};
use crate::thread::{lend, shield};
use crate::threadpool::{unblock_apart, unblock_name};

elsewhere! {
    NAMES getaddrinfo(node: *const c_char, service: *const c_char, hints: *const addrinfo, found: *mut *mut addrinfo) -> c_int => on_pool, libc::EAI_AGAIN;
    NAMES getnameinfo(address: *const sockaddr, len: socklen_t, host: *mut c_char, host_len: socklen_t, service: *mut c_char, service_len: socklen_t, flags: c_int) -> c_int => on_pool, libc::EAI_AGAIN;
    NAMES gethostbyname_r(name: *const c_char, host: *mut hostent, buffer: *mut c_char, len: size_t, found: *mut *mut hostent, error: *mut c_int) -> c_int => on_pool, libc::EAGAIN;
    NAMES gethostbyname2_r(name: *const c_char, family: c_int, host: *mut hostent, buffer: *mut c_char, len: size_t, found: *mut *mut hostent, error: *mut c_int) -> c_int => on_pool, libc::EAGAIN;
    NAMES gethostbyaddr_r(address: *const c_void, address_len: socklen_t, family: c_int, host: *mut hostent, buffer: *mut c_char, len: size_t, found: *mut *mut hostent, error: *mut c_int) -> c_int => on_pool, libc::EAGAIN;
}

type Boxed = Box<dyn FnOnce() -> c_int + Send>;

/// Makes a call on a pool thread, and waits until it is done, because it writes to the caller's memory. `None`: it was
/// not made.
fn on_pool<R: Send>(call: Lent<impl FnOnce() -> R>) -> Option<R> {
    offload(call, unblock_name::<Boxed, c_int>)
}

/// As [`on_pool`], on an OS thread of its own: for waits of any length, which must not keep a pool thread busy.
pub(super) fn on_own_thread<R: Send>(call: Lent<impl FnOnce() -> R>) -> Option<R> {
    offload(call, unblock_apart::<Boxed, c_int>)
}

/// As [`on_own_thread`]; fails with `ENOMEM` if there is no OS thread for it.
pub(super) fn on_own_thread_or_fail<R: From<i8> + Send>(call: Lent<impl FnOnce() -> R>) -> R {
    on_own_thread(call).unwrap_or_else(|| {
        fail(libc::ENOMEM);
        R::from(-1)
    })
}

/// Makes `call` by `unblock`, on another OS thread. The shield keeps a kill from ending the wait before that.
fn offload<R: Send>(call: Lent<impl FnOnce() -> R>, unblock: impl FnOnce(Boxed) -> c_int) -> Option<R> {
    let mut result = None;
    let make = || result = Some(call.into_inner()());
    // errno is a thread-local of the OS thread that made the call: carry it over.
    let with_errno = |make: Box<dyn FnOnce() + Send>| -> Boxed {
        Box::new(move || {
            make();
            errno()
        })
    };
    let error = contained(|| lend(make, |make| shield(|| unblock(with_errno(make)))))?;
    set_errno(error);
    result
}
