//! What the watch over the host tells the rest of the node.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use tokio::sync::{mpsc::UnboundedSender, watch};

use super::uplink;
use crate::{
    config::Config,
    gateway::machines_servers,
    host::{uplink::Uplink, watch::Listeners},
    live::Live,
    session::wg_quick::Offer,
};

/// The machine's name servers as they are now: the end that tells, and the one that is told. `None`
/// to tell where the gateway asks others, or nobody.
pub(super) fn resolver(
    config: &Config,
) -> (Option<watch::Sender<Vec<IpAddr>>>, watch::Receiver<Vec<IpAddr>>) {
    let (sender, receiver) = watch::channel(machines_servers().unwrap_or_default());
    let follows = config.dns.enabled && config.dns.upstreams.is_empty();
    (follows.then_some(sender), receiver)
}

/// What is done about changes of the host.
pub(super) fn listeners(
    config: &Config,
    offer: &Live<Offer>,
    mtu: Arc<AtomicU32>,
    servers: Option<watch::Sender<Vec<IpAddr>>>,
    broken: UnboundedSender<anyhow::Error>,
) -> Listeners {
    let (wanted, port) = (config.node.endpoint.clone(), config.node.listen_port);
    let offer = offer.clone();
    let resolver = move |servers: watch::Sender<Vec<IpAddr>>| {
        Box::new(move || {
            let now = machines_servers()?;
            // A file that is being written has none for a moment.
            if !now.is_empty() {
                servers.send_if_modified(|before| {
                    let differs = *before != now;
                    before.clone_from(&now);
                    differs
                });
            }
            Ok(now)
        }) as _
    };
    Listeners {
        uplink: Box::new(move |now: &Uplink| {
            mtu.store(now.mtu, Relaxed);
            uplink::follow(&wanted, port, &offer, now);
        }),
        resolver: servers.map(resolver),
        // The node may be stopping already.
        broken: Box::new(move |reason| drop(broken.send(reason))),
    }
}
