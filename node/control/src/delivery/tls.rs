//! TLS towards a server of the operator's.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, ensure};
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

/// Whom we believe, and how we speak.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Believes those whose certificates are in a PEM file, or, without one, those of this machine.
    /// `key` of the configuration names the file.
    pub(crate) fn new(ca_file: Option<&Path>, key: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let bad = || format!("{key} {}: no PEM certificates in it", path.display());
                for certificate in CertificateDer::pem_file_iter(path).with_context(bad)? {
                    roots.add(certificate.with_context(bad)?).with_context(bad)?;
                }
                ensure!(!roots.is_empty(), bad());
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                ensure!(
                    !roots.is_empty(),
                    "this machine has no root certificates. Fix: install \
                     ca-certificates, or set {key}"
                );
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Speaks TLS with the host of this name.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        self.0
            .connect(name, stream)
            .await
            .with_context(|| format!("the TLS handshake with {host} failed"))
    }
}
