//! Calls a node back before its listing is served: a WireGuard handshake with the listed key at the
//! listed address. A node answers only keys that it knows, so it has a session for the registry's.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use weir_common::PeerIndex;
use weir_market::event::SignedListing;
use weir_wireguard::{
    identity::Identity,
    timestamp::Timestamp,
    tunnel::{REPLY_LEN, Reply, Tunnel},
};

use crate::{clock, record::Record, registry::Registry};

mod calls;

use calls::{Calls, Target};

/// Datagrams of one call.
const MAX_DATAGRAMS: usize = 3;
/// The time for an answer to each.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// Calls at once.
const MAX_CALLS: usize = 64;
/// How often listings are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Calls nodes until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>, identity: Identity) {
    let mut caller = Caller { registry, calls: Calls::default(), targets: HashMap::new() };
    let mut running: JoinSet<(Due, bool)> = JoinSet::new();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(done) = running.join_next() => {
                if let Ok((due, has_answered)) = done {
                    caller.take(&due, has_answered);
                }
            }
            _ = ticks.tick() => {
                for due in caller.next(MAX_CALLS.saturating_sub(running.len())) {
                    let identity = identity.clone();
                    running.spawn(async move {
                        let has_answered = call(&identity, &due.target).await.unwrap_or(false);
                        (due, has_answered)
                    });
                }
            }
        }
    }
}

/// A call that is to be made.
struct Due {
    target: Target,
    listing: [u8; 32],
    /// Where the listing's node may answer too.
    all: Vec<Target>,
}

struct Caller {
    registry: Arc<Registry>,
    calls: Calls,
    /// Where the hidden listings are called.
    targets: HashMap<[u8; 32], Vec<Target>>,
}

impl Caller {
    /// Shows the listings whose nodes have answered, and returns whom to call.
    fn next(&mut self, max: usize) -> Vec<Due> {
        let now = clock::now().unix;
        let hidden = self.registry.hidden();
        let mut before = std::mem::take(&mut self.targets);
        let mut next = Vec::new();
        for record in hidden {
            let id = record.id;
            let targets = before.remove(&id).unwrap_or_else(|| targets(&record));
            if self.calls.has_answered(&targets, now) {
                self.registry.show(&id);
            }
            if next.len() < max
                && let Some(target) = self.calls.next(&targets, now)
            {
                next.push(Due { target, listing: id, all: targets.clone() });
            }
            self.targets.insert(id, targets);
        }
        next
    }

    fn take(&mut self, due: &Due, has_answered: bool) {
        let now = clock::now().unix;
        self.calls.done(due.target, has_answered, now);
        if self.calls.has_answered(&due.all, now) {
            self.registry.show(&due.listing);
        } else {
            // It may be shown for an answer of before.
            self.registry.hide(due.listing);
        }
    }
}

/// Where a listing is called: its addresses that are public. Names are not looked up, so that nobody
/// makes the registry ask for them.
fn targets(record: &Record) -> Vec<Target> {
    let listing = record.event().and_then(|event| SignedListing::read(event).ok());
    let endpoints = listing.into_iter().flat_map(|signed| signed.listing.endpoints);
    let all = endpoints.flat_map(|endpoint| {
        let key = endpoint.key.0;
        endpoint.addresses.into_iter().filter_map(move |address| {
            let ip: IpAddr = address.host.trim_matches(['[', ']']).parse().ok()?;
            let address = SocketAddr::new(ip.to_canonical(), address.port);
            is_public(address.ip()).then_some(Target { key, address })
        })
    });
    all.collect()
}

/// Whether an address may be that of a node on the internet. Others are the registry's own network's.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
                || is_shared)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local())
        }
    }
}

/// Whether a node completes a handshake: it answers an initiation with its key.
async fn call(identity: &Identity, target: &Target) -> std::io::Result<bool> {
    let any: IpAddr = match target.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target.address).await?;
    let mut tunnel = Tunnel::new(identity, target.key, PeerIndex::of_receiver_index(1 << 8));
    let mut out = [0; REPLY_LEN];
    let mut buffer = [0; 2048];
    for number in 0..MAX_DATAGRAMS {
        let (tick, date) = (clock::now().tick, date());
        let reply = match number {
            0 => tunnel.initiate(tick, date, &mut out),
            _ => tunnel.tick(tick, date, &mut out).0,
        };
        if let Reply::Send(length) = reply {
            socket.send(out.get(..length).unwrap_or_default()).await?;
        }
        let answered = timeout(ANSWER_TIMEOUT, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                let message = buffer.get(..length).unwrap_or_default();
                let now = clock::now().tick;
                // A cookie reply is used by the next initiation.
                if let Ok(Reply::Send(length)) = tunnel.handshake(message, now, &mut out) {
                    // It shows the node that the handshake is complete.
                    socket.send(out.get(..length).unwrap_or_default()).await.ok();
                    return std::io::Result::Ok(());
                }
            }
        });
        match answered.await {
            Ok(Ok(())) => return Ok(true),
            // The host says that nobody listens there: perhaps not yet.
            Ok(Err(_)) => tokio::time::sleep(ANSWER_TIMEOUT).await,
            Err(_) => {}
        }
    }
    Ok(false)
}

fn date() -> Timestamp {
    Timestamp::from_unix(clock::now().unix, 0)
}

#[cfg(test)]
mod tests;
