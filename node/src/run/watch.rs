//! What the watch over the host tells the rest of the node.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use tokio::sync::{mpsc::UnboundedSender, watch};

use super::uplink;
use weir_config::{Config, Shared};
use weir_control::resolver::{Resolver, servers};
use weir_host::{uplink::Uplink, watch::Listeners};
use weir_sessions::wg_quick::PeerTemplate;

/// Whether consumers are answered by the name servers that the machine asks.
pub(super) fn follows_name_servers(config: &Config) -> bool {
    config.dns.enabled && config.dns.upstreams.is_empty()
}

/// The machine's name servers as they are now: the end that tells, and the one that is told. `None`
/// to tell where the gateway asks others, or nobody.
pub(super) fn name_servers(
    config: &Config,
) -> (Option<watch::Sender<Vec<IpAddr>>>, watch::Receiver<Vec<IpAddr>>) {
    let follows = follows_name_servers(config);
    let (servers, others) = servers::read().unwrap_or_default();
    for other in others.iter().filter(|_| follows) {
        tracing::warn!(
            "{other} in /etc/resolv.conf is not used: weir does not support addresses with a \
             zone. Fix: set dns.upstreams to use servers other than {servers:?}"
        );
    }
    let (sender, receiver) = watch::channel(servers);
    (follows.then_some(sender), receiver)
}

/// What is done about changes of the host.
pub(super) fn listeners(
    config: &Config,
    template: &Shared<PeerTemplate>,
    mtu: Arc<AtomicU32>,
    servers: Option<watch::Sender<Vec<IpAddr>>>,
    resolver: &Resolver,
    broken: UnboundedSender<anyhow::Error>,
) -> Listeners {
    let (wanted, port) = (config.node.endpoint.clone(), config.node.listen_port);
    let template = template.clone();
    let resolver = resolver.clone();
    let follow = move |servers: watch::Sender<Vec<IpAddr>>| {
        Box::new(move || {
            let now = match resolver.name_servers() {
                // Somebody waits for a name: the next look is soon enough.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => servers.borrow().clone(),
                now => now?,
            };
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
            uplink::follow(&wanted, port, &template, now);
        }),
        resolver: servers.map(follow),
        // The node may be stopping already.
        broken: Box::new(move |reason| drop(broken.send(reason))),
    }
}
