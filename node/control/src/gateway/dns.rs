//! Names for consumers: a forwarder over UDP and TCP at the gateway's addresses.
//!
//! [`forwarder`] answers a message; what is here brings messages in and answers out, and keeps
//! consumers from taking each other's share. No name and no consumer is logged.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::serve::Listener as _;
use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use weir_common::AddressPlan;

use super::{
    allowance::Allowance,
    listener::{Caller, SessionConnection, SessionListener, slot_of},
};
use weir_config::{Config, Shared};
use weir_ledger::SessionId;
use weir_sessions::registry::Sessions;

pub mod forwarder;
mod names;

use forwarder::Forwarder;

/// The maximum number of questions under way at once, from all consumers.
const MAX_QUERIES: usize = 2048;
/// What a paused session may ask, per second and at once: enough to find who to pay, and no tunnel.
const PAUSED_PER_SECOND: u32 = 2;
const PAUSED_BURST: u32 = 20;
/// The largest question, in bytes.
const MAX_QUESTION: usize = 4096;

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Dns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plan: AddressPlan,
    sessions: Arc<Sessions>,
    allowance: Allowance,
    /// Of paused sessions.
    paused_allowance: Allowance,
    permits: Semaphore,
    forwarder: Shared<Forwarder>,
    /// The machine's own servers, where those are asked.
    resolver: Option<watch::Receiver<Vec<IpAddr>>>,
    cache: u64,
    allow: Vec<IpNet>,
}

impl Dns {
    /// The service that the configuration asks for, if it does.
    ///
    /// # Errors
    ///
    /// When the resolver cannot be made.
    pub(super) fn new(
        config: &Config,
        sessions: &Arc<Sessions>,
        mut resolver: watch::Receiver<Vec<IpAddr>>,
    ) -> anyhow::Result<Option<Self>> {
        if !config.dns.enabled {
            return Ok(None);
        }
        let upstreams = match config.dns.upstreams.as_slice() {
            [] => resolver.borrow_and_update().clone(),
            servers => servers.to_vec(),
        };
        if upstreams.is_empty() {
            tracing::warn!(
                "this machine has no DNS server in /etc/resolv.conf: the gateway cannot resolve \
                 names for consumers. Fix: set dns.upstreams, or dns.enabled = false"
            );
        }
        let rate = config.dns.per_second;
        let (cache, allow) = (config.dns.cache.into(), config.policy.allow.clone());
        let forwarder = Forwarder::new(&upstreams, cache, allow.clone())?;
        Ok(Some(Self(Arc::new(Inner {
            plan: config.tunnel.plan(),
            sessions: Arc::clone(sessions),
            allowance: Allowance::new(rate, rate.saturating_mul(2)),
            paused_allowance: Allowance::new(
                rate.min(PAUSED_PER_SECOND),
                rate.saturating_mul(2).min(PAUSED_BURST),
            ),
            permits: Semaphore::new(MAX_QUERIES),
            forwarder: Shared::from(forwarder),
            resolver: config.dns.upstreams.is_empty().then_some(resolver),
            cache,
            allow,
        }))))
    }

    /// Asks the machine's name servers of the time, until `stopped` says so.
    pub(super) async fn follow(self, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
        let inner = &self.0;
        let Some(mut resolver) = inner.resolver.clone() else { return Ok(()) };
        loop {
            tokio::select! {
                changed = resolver.changed() => if changed.is_err() { return Ok(()) },
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            }
            let servers = resolver.borrow_and_update().clone();
            match Forwarder::new(&servers, inner.cache, inner.allow.clone()) {
                Ok(forwarder) => {
                    tracing::info!(
                        servers = servers.len(),
                        "the machine's name servers have changed"
                    );
                    inner.forwarder.set(forwarder);
                }
                Err(error) => tracing::warn!("keeping the previous name servers: {error:#}"),
            }
        }
    }

    /// Answers datagrams until `stopped` says so.
    pub(super) async fn serve_udp(
        self,
        socket: UdpSocket,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let socket = Arc::new(socket);
        let mut tasks = JoinSet::new();
        let mut buffer = [0; MAX_QUESTION];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            };
            while tasks.try_join_next().is_some() {}
            // An error is about one consumer, such as one that is gone already.
            let Ok((len, from)) = received else { continue };
            let Some(session) = self.0.session_of(from) else { continue };
            let question = buffer[..len].to_vec();
            let (service, socket) = (self.clone(), Arc::clone(&socket));
            tasks.spawn(async move {
                if let Some(answer) = service.answer(session, &question, true).await {
                    socket.send_to(&answer, from).await.ok();
                }
            });
        }
    }

    /// Answers connections until `stopped` says so.
    pub(super) async fn serve_tcp(
        self,
        mut listener: SessionListener,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        loop {
            let (connection, caller) = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            };
            while tasks.try_join_next().is_some() {}
            let service = self.clone();
            // A connection that breaks is its consumer's affair.
            tasks.spawn(async move { drop(service.converse(connection, caller).await) });
        }
    }

    /// Questions and answers, each after its length, one after the other.
    async fn converse(&self, mut connection: SessionConnection, caller: Caller) -> io::Result<()> {
        loop {
            let mut question = vec![0; connection.read_u16().await?.into()];
            connection.read_exact(&mut question).await?;
            let Some(answer) = self.answer(caller.0, &question, false).await else {
                return Ok(());
            };
            let Ok(len) = u16::try_from(answer.len()) else { return Ok(()) };
            connection.write_all(&[&len.to_be_bytes()[..], &answer].concat()).await?;
        }
    }

    async fn answer(&self, from: SessionId, question: &[u8], is_datagram: bool) -> Option<Vec<u8>> {
        let inner = &self.0;
        let is_paused = inner.sessions.is_paused(from);
        let allowance = if is_paused { &inner.paused_allowance } else { &inner.allowance };
        if !allowance.take(from) {
            return forwarder::refused(question);
        }
        let Ok(_permit) = inner.permits.try_acquire() else {
            return forwarder::failed(question);
        };
        inner.forwarder.get().answer(question, is_datagram).await
    }
}

impl Inner {
    fn session_of(&self, from: SocketAddr) -> Option<SessionId> {
        self.sessions.at(slot_of(&self.plan, from.ip())?)
    }
}
