//! TLS towards relays and sellers.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

/// Why no certificate can be verified.
#[derive(Debug, thiserror::Error)]
pub enum NoRoots {
    /// The file has no certificates.
    #[error("{0} has no PEM certificates that can be read. Fix: name a file with CA certificates")]
    File(PathBuf),
    /// The machine has none.
    #[error("this machine has no root certificates. Fix: install ca-certificates")]
    Machine,
    /// The TLS library does not work here.
    #[error("TLS does not work here: {0}")]
    Library(String),
}

/// The roots that are trusted, and how TLS is spoken. Cheap to clone.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Trusts the certificates in a PEM file or, without one, this machine's roots.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, NoRoots> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let bad = || NoRoots::File(path.to_owned());
                for certificate in CertificateDer::pem_file_iter(path).map_err(|_| bad())? {
                    let certificate = certificate.map_err(|_| bad())?;
                    roots.add(certificate).map_err(|_| bad())?;
                }
                if roots.is_empty() {
                    return Err(bad());
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(NoRoots::Machine);
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| NoRoots::Library(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Speaks TLS with the host of this name.
    ///
    /// # Errors
    ///
    /// When the host cannot prove its name.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.0.connect(name, stream).await
    }
}
