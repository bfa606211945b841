//! Configurations of TLS for `localhost`.
//!
//! `tests/it/tls` has a certificate for `localhost` that is its own authority, from 2020 to 2119, and its key, which is
//! no secret. By openssl: `req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost`, then `ca
//! -selfsign -startdate 20200101000000Z -enddate 21200101000000Z` with `subjectAltName=DNS:localhost` and
//! `basicConstraints=critical,CA:FALSE`.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(include_bytes!("../tls/certificate.pem")).unwrap()
}

pub(crate) fn server_config() -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../tls/key.pem")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![certificate()], key).unwrap())
}

pub(crate) fn client_config(trusts: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if trusts {
        roots.add(certificate()).unwrap();
    }
    Arc::new(
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}
