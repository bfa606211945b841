//! Sockets and TLS.

mod edge;
mod full;
mod parity;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_cut;
#[cfg(feature = "tls")]
mod tls_polled;
