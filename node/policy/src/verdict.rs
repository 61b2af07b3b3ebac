//! What happens to a new flow, and by which rule: the same decisions as the kernel's, in the same
//! order, with the place of the entry that decides.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    lists::{Entry, Lists},
    merge::Networks,
    refused,
};
use weir_config::{Config, Protocol, sections::Service};

/// The first packet of a flow of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// Where it goes.
    pub address: IpAddr,
    /// To which port.
    pub port: u16,
    /// By which protocol.
    pub protocol: Protocol,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it leaves.
    pub allowed: bool,
    /// The counter of what is refused; `allowed` by an exception, `service` for the node's own,
    /// `default` without a rule.
    pub rule: String,
    /// The rule in words.
    pub reason: String,
    /// Where the entry stands: `policy.block`, or `/etc/weir/block.txt:17`.
    pub entry: Option<String>,
}

/// What belongs to this machine and to the other consumers.
#[derive(Clone, Debug)]
pub struct PolicyContext {
    /// Addresses of this machine, with its gateways inside the tunnel.
    pub own: Vec<IpAddr>,
    pub(super) pools: [IpNet; 2],
    pub(super) gateways: [IpAddr; 2],
    /// The node's own services at its gateways.
    pub(super) services: Vec<Service>,
}

impl PolicyContext {
    /// Those of a node with this configuration on a machine with these addresses.
    #[must_use]
    pub fn new(config: &Config, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let tunnel = &config.tunnel;
        let plan = tunnel.plan();
        let gateways = [IpAddr::V4(plan.gateway_v4()), IpAddr::V6(plan.gateway_v6())];
        Self {
            own: gateways.into_iter().chain(addresses).collect(),
            pools: [IpNet::V4(tunnel.pool_v4), IpNet::V6(tunnel.pool_v6)],
            gateways,
            services: config.services(),
        }
    }

    /// The addresses of this machine as ranges.
    pub(super) fn own_networks(&self) -> Networks {
        Networks::of(self.own.iter().copied().map(IpNet::from))
    }
}

/// Judges flows by the policy in force.
pub trait Judge: Send + Sync {
    /// Judges a flow.
    ///
    /// # Errors
    ///
    /// Says why the policy cannot be known.
    fn judge(&self, flow: &FlowSpec) -> anyhow::Result<Verdict>;
}

/// A shared [`Judge`].
pub type SharedJudge = Arc<dyn Judge>;

/// Judges a flow. The uplink is taken to be the way to its destination.
#[must_use]
pub fn judge(flow: &FlowSpec, lists: &Lists, context: &PolicyContext) -> Verdict {
    let FlowSpec { address, port, protocol } = *flow;
    let refuse = |rule: &str, reason: String, entry: Option<String>| Verdict {
        allowed: false,
        rule: rule.to_owned(),
        reason,
        entry,
    };
    if context.gateways.contains(&address) && context.services.contains(&Service { protocol, port })
    {
        let (rule, reason) = ("service".to_owned(), "a service of the node".to_owned());
        return Verdict { allowed: true, rule, reason, entry: None };
    }
    if context.own.contains(&address) {
        return refuse("host_destination", format!("{address} is this machine"), None);
    }
    if let Some(pool) = context.pools.iter().find(|pool| pool.contains(&address)) {
        let reason = format!("{address} is in the consumers' pool {pool}");
        return refuse("consumer_to_consumer", reason, None);
    }
    let exception = narrowest(&lists.allow, address);
    if exception.is_none() {
        if let Some((network, origin)) = narrowest(&lists.block, address) {
            let reason = format!("{network} is blocked");
            return refuse("blocked_destination", reason, Some(lists.name(*origin)));
        }
        if let Some((counter, what)) = refused::find(address) {
            return refuse(counter, format!("{address} is not an internet address: {what}"), None);
        }
    }
    let blocks = |rule: &weir_config::PortRule| {
        rule.is_of(protocol) && (rule.low..=rule.high).contains(&port)
    };
    if let Some((rule, origin)) = lists.ports.iter().find(|(rule, _)| blocks(rule)) {
        let counter = match (protocol, port) {
            (Protocol::Tcp, 25) => "smtp",
            _ => "blocked_port",
        };
        let reason = format!("port {rule} is blocked");
        return refuse(counter, reason, Some(lists.name(*origin)));
    }
    let (rule, reason, entry) = match exception {
        Some((network, origin)) => {
            ("allowed", format!("{network} is allowed"), Some(lists.name(*origin)))
        }
        None => ("default", "allowed by default".to_owned(), None),
    };
    Verdict { allowed: true, rule: rule.to_owned(), reason, entry }
}

/// The entry that says most precisely something about `address`.
fn narrowest(entries: &[Entry<IpNet>], address: IpAddr) -> Option<&Entry<IpNet>> {
    let of = entries.iter().filter(|(network, _)| network.contains(&address));
    of.max_by_key(|(network, _)| network.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, protocol: Protocol) -> (bool, String, Option<String>) {
        let mut config = weir_config::check(
            "[policy]\nblock = [\"8.0.0.0/8\"]\nallow = [\"8.8.8.0/24\", \"10.1.0.0/16\"]\n\
             blocked_ports = [\"25/tcp\", \"6881-6999\"]",
            None,
        )
        .expect("right");
        (config.payment.enabled, config.payment.port) = (true, 8077);
        let lists = Lists::read(&config.policy).expect("right lists");
        let context = PolicyContext::new(&config, ["45.80.2.2".parse().expect("an address")]);
        let to: std::net::SocketAddr = text.parse().expect("an address with a port");
        let flow = FlowSpec { address: to.ip(), port: to.port(), protocol };
        let verdict = judge(&flow, &lists, &context);
        (verdict.allowed, verdict.rule, verdict.entry)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        use Protocol::{Tcp, Udp};
        let key = |key: &str| Some(format!("policy.{key}"));
        for (to, protocol, allowed, rule, entry) in [
            ("9.9.9.9:443", Tcp, true, "default", None),
            ("[2a00::1]:443", Udp, true, "default", None),
            ("8.1.1.1:443", Tcp, false, "blocked_destination", key("block")),
            ("8.8.8.8:443", Tcp, true, "allowed", key("allow")),
            ("8.8.8.8:25", Tcp, false, "smtp", key("blocked_ports")),
            ("8.8.8.8:25", Udp, true, "allowed", key("allow")),
            ("10.1.2.3:80", Tcp, true, "allowed", key("allow")),
            ("10.2.2.3:80", Tcp, false, "private_destination", None),
            ("169.254.169.254:80", Tcp, false, "metadata_destination", None),
            ("[64:ff9b::a00:1]:80", Tcp, false, "reserved_destination", None),
            ("9.9.9.9:6900", Udp, false, "blocked_port", key("blocked_ports")),
            ("45.80.2.2:22", Tcp, false, "host_destination", None),
            ("10.66.0.1:8077", Tcp, true, "service", None),
            ("10.66.0.1:8077", Udp, false, "host_destination", None),
            ("10.66.0.1:53", Udp, true, "service", None),
            ("10.66.0.1:53", Tcp, true, "service", None),
            ("[fd66:7765:6972::1]:53", Udp, true, "service", None),
            ("45.80.2.2:53", Udp, false, "host_destination", None),
            ("10.66.0.1:22", Tcp, false, "host_destination", None),
            ("10.66.0.9:22", Tcp, false, "consumer_to_consumer", None),
        ] {
            assert_eq!(asked(to, protocol), (allowed, rule.to_owned(), entry), "{to}");
        }
    }
}
