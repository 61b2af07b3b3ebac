//! What the listing says about the running node.

use std::{fs, net::IpAddr, path::PathBuf, sync::Arc};

use weir_config::{Config, HostPort, Shared};
use weir_control::{
    ecash::Cashu,
    market::{
        NodeFacts, capacity_path,
        facts::{CashuFacts, Facts, is_public},
    },
};
use weir_market::listing::Capacity;
use weir_sessions::{limits::Limiter, registry::Sessions, wg_quick::PeerTemplate};

/// The parts of the node that a listing describes.
pub(super) struct ListedNode {
    pub(super) template: Shared<PeerTemplate>,
    pub(super) addresses: Shared<Vec<IpAddr>>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) limiter: Arc<Limiter>,
    pub(super) cashu: Option<Arc<Cashu>>,
    pub(super) exit_addresses: Vec<IpAddr>,
    pub(super) has_prefix_v6: bool,
    pub(super) capacity: PathBuf,
}

impl ListedNode {
    pub(super) fn new(
        config: &Config,
        template: Shared<PeerTemplate>,
        addresses: Shared<Vec<IpAddr>>,
        sessions: Arc<Sessions>,
        limiter: Arc<Limiter>,
        cashu: Option<Arc<Cashu>>,
    ) -> Self {
        Self {
            template,
            addresses,
            sessions,
            limiter,
            cashu,
            exit_addresses: config.node.addresses.clone(),
            has_prefix_v6: config.node.prefix_v6.is_some(),
            capacity: capacity_path(config),
        }
    }

    /// What `weir bench` left. Without it, the listing has no capacity.
    fn measured(&self) -> Option<Capacity> {
        serde_json::from_slice(&fs::read(&self.capacity).ok()?).ok()
    }
}

impl NodeFacts for ListedNode {
    fn facts(&self) -> Facts {
        let template = self.template.get();
        let addresses = self.addresses.get();
        let has_v6 = |address: &IpAddr| address.is_ipv6() && is_public(*address);
        let endpoint = template
            .endpoint
            .parse()
            .unwrap_or_else(|_| HostPort { host: template.endpoint.clone(), port: 0 });
        let cashu = self.cashu.as_ref().map(|cashu| {
            let (gib_price, unit) = cashu.price();
            CashuFacts {
                mints: cashu.mints().map(str::to_owned).collect(),
                lock: cashu.lock(),
                gib_price,
                unit: unit.to_owned(),
            }
        });
        Facts {
            node_key: template.node_key,
            endpoint,
            exit_addresses: self.exit_addresses.clone(),
            sessions: self.sessions.len(),
            max_sessions: self.sessions.at_most(),
            is_paused: self.limiter.now().paused_for.is_some(),
            has_ipv6: self.has_prefix_v6 || addresses.iter().any(has_v6),
            addresses: addresses.to_vec(),
            measured: self.measured(),
            cashu,
        }
    }
}
