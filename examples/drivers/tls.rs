//! An https server: `rustls` on std's own sockets, in patched green threads.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::servers::{self, Outcome, Page};

/// Starts an https server; gives its address, and a client's configuration that trusts it.
pub(crate) fn serve(page: Page) -> Outcome<(SocketAddr, Arc<ClientConfig>)> {
    let made = rcgen::generate_simple_self_signed([String::from("localhost")])?;
    let certificate = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let server = ServerConfig::builder().with_no_client_auth();
    let server = Arc::new(server.with_single_cert(vec![certificate], key)?);
    let address = servers::serve(move |stream| {
        let session = ServerConnection::new(server.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, stream);
        servers::answer(&mut stream, page)?;
        stream.conn.send_close_notify();
        stream.flush()
    })?;
    Ok((address, Arc::new(client)))
}
