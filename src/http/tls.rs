//! The handshake of a server's connection.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use rustls::ServerConfig;

use super::connection::{Duplex, Greet};
use crate::net::tls::TlsStream;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The configuration with the protocols that the server speaks.
fn speaking(config: &ServerConfig, http2: bool) -> Arc<ServerConfig> {
    let mut config = config.clone();
    let protocols = &mut config.alpn_protocols;
    if protocols.is_empty() {
        protocols.extend([HTTP2, HTTP1].map(<[u8]>::to_vec));
    }
    protocols.retain(|protocol| http2 || protocol != HTTP2);
    Arc::new(config)
}

pub(super) fn greet<I>(config: &ServerConfig, patience: Duration) -> Greet<I>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let configs = [false, true].map(|http2| speaking(config, http2));
    Arc::new(move |socket, http2| {
        let config = configs[usize::from(http2)].clone();
        Box::pin(async move {
            let stream = TlsStream::accept_async(config, socket, patience).await?;
            let is_http2 = stream.connection().alpn_protocol() == Some(HTTP2);
            let stream: Box<dyn Duplex> = Box::new(stream);
            Ok((stream, is_http2))
        })
    })
}
