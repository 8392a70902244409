//! Certificates by which nodes recognise each other. Both sides of a connection present a certificate, signed by the
//! same authority.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config;

/// TLS for both sides of a connection between nodes.
#[derive(Clone)]
pub struct NodeTls {
    /// Accepts connections from nodes that present a certificate.
    pub acceptor: TlsAcceptor,
    /// Connects to nodes that present a certificate.
    pub connector: TlsConnector,
    /// The name that the other node's certificate must contain. `None` means the host in that node's address.
    pub server_name: Option<String>,
}

/// A certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cluster.tls.{key}: {problem}")]
pub struct TlsError {
    key: &'static str,
    problem: String,
}

impl NodeTls {
    /// Reads the certificates and the key.
    ///
    /// # Errors
    /// Returns an error that names the file that cannot be used.
    pub fn new(config: &config::ClusterTlsSettings) -> Result<Self, TlsError> {
        // An error means that another part of the process has already installed a cryptography provider for rustls,
        // which works as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = RootCertStore::empty();
        for certificate in certificates("ca_file", &config.ca_file)? {
            roots.add(certificate).map_err(|error| fault("ca_file", &error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("cert_file", &config.cert_file)?;
        let key = || PrivateKeyDer::from_pem_file(&config.key_file).map_err(|error| fault("key_file", &error));
        let verifier =
            WebPkiClientVerifier::builder(roots.clone()).build().map_err(|error| fault("ca_file", &error))?;
        let server = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(|error| fault("cert_file", &error))?;
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(|error| fault("cert_file", &error))?;
        Ok(Self {
            acceptor: Arc::new(server).into(),
            connector: Arc::new(client).into(),
            server_name: config.server_name.clone(),
        })
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| fault(key, &error))?;
    if certificates.is_empty() {
        return Err(TlsError { key, problem: format!("{} contains no certificate in PEM format", path.display()) });
    }
    Ok(certificates)
}

fn fault(key: &'static str, error: &dyn std::fmt::Display) -> TlsError {
    TlsError { key, problem: error.to_string() }
}
