//! A WebSocket to a peer, with or without TLS.

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config, tungstenite::protocol::WebSocketConfig,
};
use weir_config::WebSocketUrl;

use crate::relay::MAX_MESSAGE;

/// The time in which a peer must answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream of bytes, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a peer.
pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// The certificates that are believed.
#[derive(Clone)]
pub(super) struct Roots(Arc<ClientConfig>);

impl Roots {
    /// Those in a PEM file, or, without one, this machine's.
    pub(super) fn load(ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let bad = || format!("registry.ca_file {} has no PEM certificates", path.display());
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
                    "this machine has no root certificates. Fix: install ca-certificates, or set \
                     registry.ca_file"
                );
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// Connects to a peer.
pub(super) async fn connect(url: &WebSocketUrl, roots: Option<&Roots>) -> anyhow::Result<Socket> {
    timeout(ANSWER_TIMEOUT, open(url, roots)).await.context("it does not answer")?
}

async fn open(url: &WebSocketUrl, roots: Option<&Roots>) -> anyhow::Result<Socket> {
    let host = url.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, url.port())).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = if url.is_secure() {
        let roots = roots.context("there are no root certificates")?;
        let name = ServerName::try_from(host.to_owned())?;
        let tls = TlsConnector::from(Arc::clone(&roots.0)).connect(name, stream).await;
        Box::new(tls.context("the TLS handshake failed")?)
    } else {
        Box::new(stream)
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(4 * MAX_MESSAGE))
        .max_frame_size(Some(4 * MAX_MESSAGE))
        .read_buffer_size(16 * 1024);
    let (socket, _) = client_async_with_config(url.to_string(), stream, Some(config))
        .await
        .map_err(io::Error::other)
        .context("it does not speak WebSocket")?;
    Ok(socket)
}
