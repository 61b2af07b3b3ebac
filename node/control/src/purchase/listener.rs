//! Connections of buyers: bounded in number, by source, in time and in size.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, serve::Listener};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};
use tower::ServiceExt as _;

use super::tls::Certificate;
use crate::{
    connections::{Connections, Limits, Network},
    gateway::allowance::Allowance,
};

/// A connection never lives longer than this, and a purchase that waits for a mint takes half of it.
const LIFETIME: Duration = Duration::from_secs(30);
const LIMITS: Limits = Limits { total: 512, per_source: 8, lifetime: LIFETIME, idle: LIFETIME };
/// Connections that a source may open: per second, and at once. A handshake of TLS is a signature.
const OPENED_PER_SECOND: u32 = 10;
const OPENED_BURST: u32 = 50;
/// How long a request's headers may take.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes: a token and an authorization are in it.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
/// The time that pending requests get when the node stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The listener, bound and not yet served.
#[derive(Debug)]
pub(super) struct Server {
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    proxies: Vec<IpNet>,
    connections: Connections<Network>,
    router: Router,
}

/// Whose requests come over a connection.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Buyer(Network),
    /// A proxy says it in a header.
    Proxy(IpAddr),
}

impl Server {
    pub(super) fn new(
        listener: TcpListener,
        certificate: Option<Arc<Certificate>>,
        proxies: Vec<IpNet>,
        router: Router,
    ) -> Self {
        Self { listener, certificate, proxies, connections: Connections::new(LIMITS), router }
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until `stopped` says so.
    pub(super) async fn serve(self, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
        let Self { mut listener, certificate, proxies, connections, router } = self;
        let follow = certificate.clone().map(|it| tokio::spawn(it.follow(stopped.clone())));
        let opened = Allowance::new(OPENED_PER_SECOND, OPENED_BURST);
        let mut serving = JoinSet::new();
        loop {
            let accepted = async {
                let permit = connections.permit().await;
                (permit, Listener::accept(&mut listener).await)
            };
            let (permit, (stream, from)) = tokio::select! {
                accepted = accepted => accepted,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            let address = from.ip().to_canonical();
            let is_proxy = proxies.iter().any(|network| network.contains(&address));
            let (connection, peer) = match is_proxy {
                true => (connections.trusted(permit, stream), Peer::Proxy(address)),
                false => {
                    let source = Network::from(address);
                    if !opened.take(source) {
                        continue;
                    }
                    (connections.stranger(permit, source, stream), Peer::Buyer(source))
                }
            };
            let (router, certificate) = (router.clone(), certificate.clone());
            serving.spawn(async move {
                match certificate {
                    // Its time is bounded by the connection's.
                    Some(certificate) => {
                        if let Ok(stream) = certificate.acceptor().accept(connection).await {
                            converse(stream, peer, router).await;
                        }
                    }
                    None => converse(connection, peer, router).await,
                }
            });
            while serving.try_join_next().is_some() {}
        }
        let done = async { while serving.join_next().await.is_some() {} };
        tokio::time::timeout(SHUTDOWN_TIMEOUT, done).await.ok();
        if let Some(follow) = follow {
            follow.await.ok();
        }
        Ok(())
    }
}

/// Answers the requests of one connection.
async fn converse(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let source = peer.source(&request);
        request.extensions_mut().insert(source);
        let answered = router.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, Infallible>(answered.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(io), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a buyer's connection has ended");
    }
}

impl Peer {
    /// The network that a request counts for: the last address that a proxy has added.
    fn source<B>(self, request: &Request<B>) -> Network {
        match self {
            Self::Buyer(network) => network,
            Self::Proxy(proxy) => {
                let all = request.headers().get_all("x-forwarded-for");
                let last = all.iter().next_back().and_then(|value| value.to_str().ok());
                let last = last.and_then(|value| value.rsplit(',').next());
                let address = last.and_then(|text| text.trim().parse::<IpAddr>().ok());
                Network::from(address.unwrap_or(proxy))
            }
        }
    }
}
