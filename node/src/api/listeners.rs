//! The places at which the API is served.

use std::{future::Future, io, net::SocketAddr, path::Path, time::Duration};

use axum::{Router, serve::Listener};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use super::{
    Api, Token,
    patience::Limited,
    socket::{self, SocketError, SocketFile},
};

/// Connections at once, at each of them.
const MOST: usize = 64;
/// How long a connection may be silent. Longer than Prometheus waits between two scrapes.
const SILENCE: Duration = Duration::from_secs(90);
/// How long requests under way may take after the node was told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TCP port for those who have the token.
    #[error(
        "cannot listen on {address} for the API: {source}. Choose another address and port with \
         api.http in the configuration, or \"off\""
    )]
    Http {
        /// The address and port.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The TCP port.
    #[error(
        "cannot listen on {address} for metrics: {source}. Choose another address and port with \
         api.metrics in the configuration, or \"off\""
    )]
    Metrics {
        /// The address and port.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

/// The places, bound and not yet served.
#[derive(Debug)]
pub struct Listeners {
    socket: UnixListener,
    file: SocketFile,
    metrics: Option<TcpListener>,
    http: Option<(TcpListener, Token)>,
}

impl Listeners {
    /// Binds the Unix socket (for its owner, or for `group` too) and the TCP port for Prometheus.
    ///
    /// # Errors
    ///
    /// When one of the two cannot be bound; see [`ListenError`].
    pub async fn bind(
        socket: &Path,
        group: Option<&str>,
        metrics: Option<SocketAddr>,
    ) -> Result<Self, ListenError> {
        let (socket, file) = socket::bind(socket, group)?;
        let metrics = match metrics {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| ListenError::Metrics { address, source })?,
            ),
            None => None,
        };
        Ok(Self { socket, file, metrics, http: None })
    }

    /// Binds a TCP port for the whole API too, for those who have the token.
    ///
    /// # Errors
    ///
    /// When it cannot be bound.
    pub async fn with_http(self, address: SocketAddr, token: Token) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ListenError::Http { address, source })?;
        Ok(Self { http: Some((listener, token)), ..self })
    }

    /// The address of the port for those who have the token.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// The address of the port for Prometheus.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Answers requests until `stop` is done, then gives those under way two seconds. Removes the
    /// socket's file at the end.
    ///
    /// # Errors
    ///
    /// When a listener fails for good.
    pub async fn serve(self, api: &Api, stop: impl Future<Output = ()>) -> io::Result<()> {
        let (stopping, stopped) = watch::channel(false);
        let control = until(self.socket, api.router(), stopped.clone());
        let scraped = async {
            match self.metrics {
                Some(listener) => until(listener, api.metrics_router(), stopped.clone()).await,
                None => Ok(()),
            }
        };
        let tokened = async {
            match self.http {
                Some((listener, token)) => {
                    until(listener, api.http_router(&token), stopped.clone()).await
                }
                None => Ok(()),
            }
        };
        let served = async { tokio::try_join!(control, scraped, tokened).map(|_| ()) };
        let deadline = async {
            stop.await;
            stopping.send_replace(true);
            tokio::time::sleep(GRACE).await;
        };
        let done = tokio::select! {
            done = served => done,
            () = deadline => Ok(()),
        };
        drop(self.file);
        done
    }
}

async fn until<L>(listener: L, router: Router, mut stopped: watch::Receiver<bool>) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let listener = Limited::new(listener, MOST, SILENCE);
    let stop = async move {
        // The sender goes only after it has said so.
        stopped.wait_for(|stopped| *stopped).await.ok();
    };
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}
