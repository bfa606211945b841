//! Servers: streams, protocols, TLS, HTTP.

#[cfg(feature = "hyper")]
mod http;
#[cfg(feature = "http2")]
mod http2;
#[cfg(feature = "hyper")]
mod http_limits;
#[cfg(feature = "hyper")]
mod http_upgrade;
#[cfg(all(feature = "hyper", feature = "tls"))]
mod https;
mod linger;
mod protocol;
mod stream;
#[cfg(feature = "tls")]
mod tls;
