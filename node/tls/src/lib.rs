//! TLS towards servers: which certificates are trusted, and how it is spoken. One rule for webhooks,
//! relays, registries, sellers and mints.
#![forbid(unsafe_code)]

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
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoRoots {
    /// The file has no certificates.
    #[error("{0} has no PEM certificates that can be read. Fix: name a file with CA certificates")]
    File(PathBuf),
    /// The machine has none.
    #[error(
        "this machine has no root certificates. Fix: install ca-certificates, or name a PEM file in \
         the variable SSL_CERT_FILE"
    )]
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
        Self::trusting(match ca_file {
            Some(path) => of_file(path).ok_or_else(|| NoRoots::File(path.to_owned()))?,
            None => of_machine().ok_or(NoRoots::Machine)?,
        })
    }

    /// Trusts these certificates.
    ///
    /// # Errors
    ///
    /// When the versions of TLS are not supported, which does not happen.
    pub fn trusting(roots: RootCertStore) -> Result<Self, NoRoots> {
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

fn of_file(path: &Path) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).ok()? {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}

fn of_machine() -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    (!roots.is_empty()).then_some(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_by_its_name() {
        for path in ["/dev/null", "/nowhere/roots.pem"] {
            let error = Tls::new(Some(Path::new(path))).map(drop).expect_err("no certificates");
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}
