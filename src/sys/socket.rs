//! Sockets and pipes that are ready for use: non-blocking, closed by `exec`, and without `SIGPIPE`.
#![forbid(unsafe_code)]

pub(crate) use super::platform::os::{NO_SIGPIPE, abstract_address, accept, is_read_shut, pipe, share_port, socket};
