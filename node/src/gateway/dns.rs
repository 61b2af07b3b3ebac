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
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use weir_common::AddressPlan;

use super::{
    allowance::Allowance,
    door::{Caller, Door, Visit, slot_of},
};
use crate::{
    config::Config,
    session::{SessionId, registry::Sessions},
};

pub mod forwarder;
mod names;

use forwarder::Forwarder;

/// Questions under way at once, of all consumers.
const MOST: usize = 2048;
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
    places: Semaphore,
    forwarder: Forwarder,
}

impl Dns {
    /// The service that the configuration asks for, if it does.
    ///
    /// # Errors
    ///
    /// When the resolver cannot be made.
    pub(super) fn new(config: &Config, sessions: &Arc<Sessions>) -> anyhow::Result<Option<Self>> {
        if !config.dns.enabled {
            return Ok(None);
        }
        let upstreams = match config.dns.upstreams.as_slice() {
            [] => machines_own(),
            servers => servers.to_vec(),
        };
        if upstreams.is_empty() {
            tracing::warn!(
                "this machine has no DNS server in /etc/resolv.conf: consumers who ask the \
                 gateway get no names. Fix: set dns.upstreams, or dns.enabled = false"
            );
        }
        let rate = config.dns.per_second;
        let allow = config.policy.allow.clone();
        Ok(Some(Self(Arc::new(Inner {
            plan: config.tunnel.plan(),
            sessions: Arc::clone(sessions),
            allowance: Allowance::new(rate, rate.saturating_mul(2)),
            places: Semaphore::new(MOST),
            forwarder: Forwarder::new(&upstreams, config.dns.cache.into(), allow)?,
        }))))
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
        mut door: Door,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        loop {
            let (visit, caller) = tokio::select! {
                accepted = door.accept() => accepted,
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            };
            while tasks.try_join_next().is_some() {}
            let service = self.clone();
            // A connection that breaks is its consumer's affair.
            tasks.spawn(async move { drop(service.converse(visit, caller).await) });
        }
    }

    /// Questions and answers, each after its length, one after the other.
    async fn converse(&self, mut visit: Visit, caller: Caller) -> io::Result<()> {
        loop {
            let mut question = vec![0; visit.read_u16().await?.into()];
            visit.read_exact(&mut question).await?;
            let Some(answer) = self.answer(caller.0, &question, false).await else {
                return Ok(());
            };
            let Ok(len) = u16::try_from(answer.len()) else { return Ok(()) };
            visit.write_all(&[&len.to_be_bytes()[..], &answer].concat()).await?;
        }
    }

    async fn answer(&self, from: SessionId, question: &[u8], is_datagram: bool) -> Option<Vec<u8>> {
        let inner = &self.0;
        if !inner.allowance.take(from) {
            return forwarder::refused(question);
        }
        let Ok(_place) = inner.places.try_acquire() else {
            return forwarder::failed(question);
        };
        inner.forwarder.answer(question, is_datagram).await
    }
}

impl Inner {
    fn session_of(&self, from: SocketAddr) -> Option<SessionId> {
        self.sessions.at(slot_of(&self.plan, from.ip())?)
    }
}

/// The servers that this machine asks.
fn machines_own() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let (servers, others) = read_servers(&text);
    for other in others {
        tracing::warn!(
            "{other} in /etc/resolv.conf is not asked: weir knows no addresses with a zone. Fix: \
             set dns.upstreams, if consumers are to get names from elsewhere than {servers:?}"
        );
    }
    servers
}

/// The servers of a `resolv.conf`, and those that are no address by themselves (`fe80::1%eth0`).
fn read_servers(text: &str) -> (Vec<IpAddr>, Vec<&str>) {
    let (mut servers, mut others) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some("nameserver"), Some(server)) = (words.next(), words.next()) {
            match server.parse() {
                Ok(address) => servers.push(address),
                Err(_) => others.push(server),
            }
        }
    }
    (servers, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_servers_are_read_and_nothing_else() {
        let text = "# nameserver 1.1.1.1\nsearch corp.example\nnameserver 127.0.0.53\n\
                    nameserver\t2620:fe::fe # two\nnameserver fe80::1%eth0\noptions edns0\n";
        let expected: [IpAddr; 2] =
            [[127, 0, 0, 53].into(), "2620:fe::fe".parse().expect("an address")];
        assert_eq!(read_servers(text), (expected.to_vec(), vec!["fe80::1%eth0"]));
        assert_eq!(read_servers("nameserver\n"), (Vec::new(), Vec::new()));
    }
}
