//! The listeners of the API.

use std::{future::Future, io, net::SocketAddr, path::Path, time::Duration};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use super::{
    Api, Token,
    socket::{self, SocketError, SocketFile},
};
use crate::connections::{Connection, Connections, Limits, Network, Trust};

/// The limits of each listener. Metrics need no authentication, so a connection that Prometheus
/// keeps is closed before its next scrape, which opens another.
const LIMITS: Limits = Limits {
    total: 128,
    per_source: 16,
    lifetime: Duration::from_secs(20),
    idle: Duration::from_secs(90),
};
/// The time that pending requests get when the node stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TCP port for clients with the token.
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

/// The listeners, bound and not yet served.
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

    /// Also binds a TCP port for the whole API, for clients with the token.
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

    /// The address of the port for clients with the token.
    #[cfg(test)]
    pub(crate) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// The address of the port for Prometheus.
    #[cfg(test)]
    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
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
        // A client that may open the socket's file has authenticated to the kernel.
        let control = axum::serve(Known::new(self.socket, LIMITS), api.router())
            .with_graceful_shutdown(until(&stopped));
        let control = async { control.await };
        let scraped = async {
            match self.metrics {
                Some(listener) => {
                    let listener = Strangers::new(listener, LIMITS);
                    let router = api.metrics_router();
                    axum::serve(listener, router).with_graceful_shutdown(until(&stopped)).await
                }
                None => Ok(()),
            }
        };
        let tokened = async {
            match self.http {
                Some((listener, token)) => {
                    let listener = Strangers::new(listener, LIMITS);
                    let router = api.http_router(&token);
                    let router = router.into_make_service_with_connect_info::<Trust>();
                    axum::serve(listener, router).with_graceful_shutdown(until(&stopped)).await
                }
                None => Ok(()),
            }
        };
        let served = async { tokio::try_join!(control, scraped, tokened).map(|_| ()) };
        let deadline = async {
            stop.await;
            stopping.send_replace(true);
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
        };
        let done = tokio::select! {
            done = served => done,
            () = deadline => Ok(()),
        };
        drop(self.file);
        done
    }
}

fn until(stopped: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopped = stopped.clone();
    async move {
        // The sender goes only after it has said so.
        stopped.wait_for(|stopped| *stopped).await.ok();
    }
}

/// A listener whose clients authenticate with the token.
#[derive(Debug)]
pub(super) struct Strangers {
    listener: TcpListener,
    connections: Connections<Network>,
}

impl Strangers {
    pub(super) fn new(listener: TcpListener, limits: Limits) -> Self {
        Self { listener, connections: Connections::new(limits) }
    }
}

impl Listener for Strangers {
    type Io = Connection<tokio::net::TcpStream, Network>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let permit = self.connections.permit().await;
        let (stream, from) = Listener::accept(&mut self.listener).await;
        (self.connections.stranger(permit, from.ip().into(), stream), from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Strangers>> for Trust {
    fn connect_info(stream: IncomingStream<'_, Strangers>) -> Self {
        stream.io().trust()
    }
}

/// A listener whose clients need no token.
#[derive(Debug)]
pub(super) struct Known {
    listener: UnixListener,
    connections: Connections<()>,
}

impl Known {
    pub(super) fn new(listener: UnixListener, limits: Limits) -> Self {
        Self { listener, connections: Connections::new(limits) }
    }
}

impl Listener for Known {
    type Io = Connection<tokio::net::UnixStream, ()>;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let permit = self.connections.permit().await;
        let (stream, from) = Listener::accept(&mut self.listener).await;
        (self.connections.trusted(permit, stream), from)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
