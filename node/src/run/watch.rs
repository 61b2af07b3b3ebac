//! Connects the watch over the host with the rest of the node.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use tokio::sync::{mpsc::UnboundedSender, watch};

use super::{addresses::AddressFollower, policy::ExitPolicy, uplink};
use weir_config::{Config, Shared};
use weir_control::resolver::{Resolver, servers};
use weir_host::{uplink::Uplink, watch::Listeners};
use weir_sessions::wg_quick::PeerTemplate;

/// Whether the gateway uses the machine's own name servers.
pub(super) fn follows_name_servers(config: &Config) -> bool {
    config.dns.enabled && config.dns.upstreams.is_empty()
}

/// A channel of the machine's current name servers. The sender is `None` if the gateway uses other
/// servers, or serves no DNS.
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

/// The actions on changes of the host.
pub(super) fn listeners(
    config: &Config,
    (template, addresses): (&Shared<PeerTemplate>, Shared<Vec<IpAddr>>),
    mtu: Arc<AtomicU32>,
    servers: Option<watch::Sender<Vec<IpAddr>>>,
    resolver: &Resolver,
    (exit, policy): (Option<Arc<AddressFollower>>, Arc<ExitPolicy>),
    broken: UnboundedSender<anyhow::Error>,
) -> Listeners {
    let (wanted, port) = (config.node.endpoint.clone(), config.node.listen_port);
    let template = template.clone();
    let resolver = resolver.clone();
    let follow = move |servers: watch::Sender<Vec<IpAddr>>| {
        Box::new(move || {
            let now = match resolver.name_servers() {
                // The resolver is busy with a name. The next check is soon enough.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => servers.borrow().clone(),
                now => now?,
            };
            // A file that is being written is empty for a moment.
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
            addresses.set(now.addresses().collect());
            if let Some(exit) = &exit {
                exit.follow(now);
            }
            uplink::follow(&wanted, port, &template, now);
        }),
        addresses: Box::new(move || {
            if let Err(error) = policy.refresh() {
                tracing::warn!(
                    "the exit policy does not know this machine's new addresses: {error:#}"
                );
            }
        }),
        resolver: servers.map(follow),
        // The node may be stopping already.
        broken: Box::new(move |reason| drop(broken.send(reason))),
    }
}
