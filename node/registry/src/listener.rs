//! Connections with limits: in total, of each network, and in time until they become relay
//! connections.

use std::{
    collections::HashMap,
    future::Future as _,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};

use crate::{network::Network, registry::Registry};

/// How long a connection may last that is not a relay connection.
const LIFETIME: Duration = Duration::from_secs(60);
/// The pause after the system could not accept a connection.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// How many connections there may be.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) per_network: usize,
    /// Connections of these count as those of the clients behind them.
    pub(crate) proxies: Vec<IpNet>,
}

/// The open connections.
#[derive(Clone, Debug)]
pub(crate) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    registry: Arc<Registry>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_network: HashMap<Network, usize>,
}

impl Connections {
    pub(crate) fn new(limits: Limits, registry: Arc<Registry>) -> Self {
        Self(Arc::new(Shared { limits, registry, counts: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let is_proxy = self.0.limits.proxies.iter().any(|network| network.contains(&address));
        let mut counts = self.lock();
        if counts.total >= self.0.limits.total {
            return None;
        }
        let of = (!is_proxy).then(|| Network::from(address));
        if let Some(network) = of {
            self.count(&mut counts, network)?;
        }
        counts.total += 1;
        self.0.registry.metrics().connected();
        Some(Place { of, all: self.clone() })
    }

    fn count(&self, counts: &mut Counts, network: Network) -> Option<()> {
        let count = counts.by_network.entry(network).or_default();
        if *count >= self.0.limits.per_network {
            return None;
        }
        *count += 1;
        Some(())
    }

    /// Counts a relay connection through a proxy for the network that it comes from; `None` if there
    /// are too many.
    pub(crate) fn admit_behind_proxy(&self, network: Network) -> Option<NetworkPlace> {
        self.count(&mut self.lock(), network)?;
        Some(NetworkPlace { network, all: self.clone() })
    }

    fn release(&self, network: Network) {
        let mut counts = self.lock();
        if let Some(count) = counts.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                counts.by_network.remove(&network);
            }
        }
    }
}

/// A connection's place among those of its network.
#[derive(Debug)]
pub(crate) struct NetworkPlace {
    network: Network,
    all: Connections,
}

impl Drop for NetworkPlace {
    fn drop(&mut self) {
        self.all.release(self.network);
    }
}

/// A connection's place among all.
#[derive(Debug)]
struct Place {
    of: Option<Network>,
    all: Connections,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(network) = self.of {
            self.all.release(network);
        }
        self.all.lock().total -= 1;
        self.all.0.registry.metrics().disconnected();
    }
}

/// What the server knows of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) address: IpAddr,
    lasting: Arc<AtomicBool>,
}

impl Origin {
    /// The connection has become a relay connection, which ends by itself.
    pub(crate) fn keep(&self) {
        self.lasting.store(true, Relaxed);
    }
}

/// The listener of a registry.
#[derive(Debug)]
pub(crate) struct Limited {
    listener: TcpListener,
    connections: Connections,
}

impl Limited {
    pub(crate) fn new(listener: TcpListener, connections: Connections) -> Self {
        Self { listener, connections }
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (stream, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(RETRY_DELAY).await;
                    continue;
                }
            };
            let Some(place) = self.connections.admit(from.ip()) else {
                self.connections.0.registry.metrics().connection_refused();
                continue;
            };
            let origin = Origin { address: from.ip(), lasting: Arc::default() };
            let end = Box::pin(sleep(LIFETIME));
            return (Connection { stream, origin, end, _place: place }, from);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Limited>> for Origin {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Self {
        stream.io().origin.clone()
    }
}

/// A connection that ends in time, unless it is kept.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    origin: Origin,
    end: Pin<Box<Sleep>>,
    _place: Place,
}

impl Connection {
    fn step<R>(
        &mut self,
        context: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let is_over =
            !self.origin.lasting.load(Relaxed) && self.end.as_mut().poll(context).is_ready();
        // A kept one that was woken by the end of its time goes on.
        if is_over && !self.origin.lasting.load(Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        step(Pin::new(&mut self.stream), context)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().step(context, |stream, context| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().step(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().step(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().step(context, |stream, context| stream.poll_shutdown(context))
    }
}
