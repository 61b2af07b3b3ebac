//! WebSockets to relays, registries and their peers, encrypted or not.

use std::{
    fmt, future::Future, io, net::SocketAddr, path::Path, pin::Pin, sync::Arc, time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config, tungstenite::protocol::WebSocketConfig,
};
use weir_config::WebSocketUrl;
use weir_tls::{NoRoots, Tls};

use super::{ClientError, MAX_MESSAGE_BYTES, Relay};

/// The time that a connection, with its TLS and WebSocket handshakes, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// What may wait to be sent at least, in bytes.
const MIN_WRITE_BUFFER: usize = 64 * 1024;

/// The addresses of a host.
pub type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
/// Looks up the addresses of a host and a port.
pub type Lookup = Arc<dyn Fn(String, u16) -> Found + Send + Sync>;

/// Looks names up with the system's resolver.
#[must_use]
pub fn system_lookup() -> Lookup {
    Arc::new(|host, port| {
        Box::pin(async move {
            let host = host.trim_matches(['[', ']']);
            Ok(tokio::net::lookup_host((host, port)).await?.collect())
        })
    })
}

/// What a WebSocket is on.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A WebSocket, encrypted or not.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// Makes connections to relays. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    lookup: Lookup,
    tls: Option<Tls>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Connector {
    /// One that looks names up so, and trusts these roots for `wss`. Without roots, `wss` fails.
    #[must_use]
    pub fn new(lookup: Lookup, tls: Option<Tls>) -> Self {
        Self { lookup, tls }
    }

    /// One for these URLs: the PEM file, or without one this machine's roots, are read if one of them is
    /// `wss`.
    ///
    /// # Errors
    ///
    /// When there are no certificates to trust then.
    pub fn for_urls(
        lookup: Lookup,
        urls: &[WebSocketUrl],
        ca_file: Option<&Path>,
    ) -> Result<Self, NoRoots> {
        let is_secure = urls.iter().any(WebSocketUrl::is_secure);
        Ok(Self::new(lookup, is_secure.then(|| Tls::new(ca_file)).transpose()?))
    }

    /// Connects to a relay.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, or does not speak WebSocket.
    pub async fn connect(&self, url: &WebSocketUrl) -> Result<Relay, ClientError> {
        Ok(Relay { socket: self.socket(url, MAX_MESSAGE_BYTES).await? })
    }

    /// Opens a WebSocket whose messages are at most this long, in bytes.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached in time, or does not speak WebSocket.
    pub async fn socket(&self, url: &WebSocketUrl, limit: usize) -> Result<Socket, ClientError> {
        let opened = timeout(CONNECT_TIMEOUT, self.open(url, limit)).await;
        opened.map_err(|_| ClientError::Timeout(CONNECT_TIMEOUT))?
    }

    async fn open(&self, url: &WebSocketUrl, limit: usize) -> Result<Socket, ClientError> {
        let host = || format!("{}:{}", url.host(), url.port());
        let found = (self.lookup)(url.host().to_owned(), url.port()).await;
        let addresses = found.map_err(|source| ClientError::Lookup { host: host(), source })?;
        let stream = TcpStream::connect(&addresses[..]).await;
        let stream = stream.map_err(|source| ClientError::Connect { host: host(), source })?;
        // Peers compare their listings in many small messages.
        stream.set_nodelay(true).map_err(|source| ClientError::Connect { host: host(), source })?;
        let stream: Box<dyn Stream> = match (&self.tls, url.is_secure()) {
            (_, false) => Box::new(stream),
            (Some(tls), true) => {
                let secured = tls.connect(url.host(), stream).await;
                let secured =
                    secured.map_err(|source| ClientError::Tls { host: host(), source })?;
                Box::new(secured)
            }
            (None, true) => {
                let source = io::Error::other("no TLS roots were loaded");
                return Err(ClientError::Tls { host: host(), source });
            }
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(MIN_WRITE_BUFFER.max(2 * limit))
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        let (socket, _) = client_async_with_config(url.to_string(), stream, Some(config)).await?;
        Ok(socket)
    }
}
