//! Servers: streams, protocols, TLS, HTTP.

#[cfg(feature = "hyper")]
mod http;
#[cfg(feature = "hyper")]
mod http_limits;
mod linger;
mod protocol;
mod stream;
#[cfg(feature = "tls")]
mod tls;
