//! What the tests share: where they run, children of the test binary, what examples print, TLS.

pub(crate) mod child;
pub(crate) mod counted;
pub(crate) mod fresh;
#[cfg(not(lean))]
pub(crate) mod lines;
#[cfg(feature = "tls")]
pub(crate) mod tls;
