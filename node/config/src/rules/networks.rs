//! Rules for networks: the pools, DNS servers, the MTU, and what the policy allows.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_common::Slot;

use crate::{Config, OVERHEAD_V4, OVERHEAD_V6, mistake::Findings};

/// The smallest MTU that IPv6 allows.
pub(super) const SMALLEST_MTU: u32 = 1280;

/// Networks that cannot be a pool of addresses, whatever the machine.
const NO_POOL_V4: &[&str] =
    &["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"];

pub(super) const NO_POOL_V6: &[&str] = &["::/16", "fe80::/10", "ff00::/8"];

/// Whether two networks share an address.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

pub(super) fn pools(config: &Config, findings: &mut Findings<'_>) {
    let tunnel = &config.tunnel;
    let v4 = IpNet::V4(tunnel.pool_v4.trunc());
    let v6 = IpNet::V6(tunnel.pool_v6.trunc());
    for (key, written, pool) in
        [("pool_v4", IpNet::V4(tunnel.pool_v4), v4), ("pool_v6", IpNet::V6(tunnel.pool_v6), v6)]
    {
        if written != pool {
            findings.blame(
                &[("tunnel", key)],
                format!("{written} is an address within a network"),
                format!("write the network: \"{pool}\""),
            );
            continue;
        }
        let unfit = NO_POOL_V4
            .iter()
            .chain(NO_POOL_V6)
            .find(|unfit| unfit.parse::<IpNet>().is_ok_and(|unfit| overlap(&pool, &unfit)));
        if let Some(unfit) = unfit {
            findings.blame(
                &[("tunnel", key)],
                format!("{pool} overlaps {unfit}, which cannot be assigned to consumers"),
                match pool {
                    IpNet::V4(_) => "choose a private network, such as \"10.66.0.0/16\"".into(),
                    IpNet::V6(_) => "choose a local one, such as \"fd66:7765:6972::/64\"".into(),
                },
            );
        }
    }
    let (wanted, room) = (config.node.max_sessions, tunnel.plan().capacity());
    if wanted > room && wanted <= Slot::MAX_COUNT {
        let prefix = 32 - u64::from(wanted + 3).next_power_of_two().trailing_zeros();
        findings.blame(
            &[("tunnel", "pool_v4"), ("node", "max_sessions")],
            format!("{v4} has room for {room} sessions, but node.max_sessions is {wanted}"),
            format!("write a /{prefix} or larger, or set max_sessions = {room} or less"),
        );
    }
    if tunnel.pool_v6.prefix_len() != 64 {
        findings.blame(
            &[("tunnel", "pool_v6")],
            format!("/{} is not a /64", tunnel.pool_v6.prefix_len()),
            format!("write a network of length 64, such as \"{}/64\"", v6.network()),
        );
    }
    let plan = tunnel.plan();
    let gateways = [IpAddr::V4(plan.gateway_v4()), IpAddr::V6(plan.gateway_v6())];
    for server in tunnel.dns.set().into_iter().flatten() {
        if config.dns.enabled && gateways.contains(server) {
            continue;
        }
        if [v4, v6].iter().any(|pool| pool.contains(server)) {
            findings.blame(
                &[("tunnel", "dns"), ("tunnel", "pool_v4"), ("tunnel", "pool_v6")],
                format!("{server} is within the consumers' pool, which has no DNS server"),
                "name a server on the internet".into(),
            );
        } else if server.is_unspecified() || server.is_loopback() || server.is_multicast() {
            findings.blame(
                &[("tunnel", "dns")],
                format!("consumers cannot reach a server at {server}"),
                "name a server on the internet".into(),
            );
        }
    }
}

pub(super) fn dns(config: &Config, findings: &mut Findings<'_>) {
    let tunnel = &config.tunnel;
    let pools = [IpNet::V4(tunnel.pool_v4), IpNet::V6(tunnel.pool_v6)];
    for server in &config.dns.upstreams {
        if server.is_unspecified()
            || server.is_multicast()
            || pools.iter().any(|pool| pool.contains(server))
        {
            findings.blame(
                &[("dns", "upstreams"), ("tunnel", "pool_v4"), ("tunnel", "pool_v6")],
                format!("this machine cannot query a server at {server}"),
                "name a DNS server, or write [] for the machine's own".into(),
            );
        }
    }
}

pub(super) fn mtu(config: &Config, uplink_mtu: Option<u32>, findings: &mut Findings<'_>) {
    let Some(uplink_mtu) = uplink_mtu else { return };
    if let Some((problem, fix)) = misfit(config, uplink_mtu) {
        findings.blame(&[("tunnel", "mtu")], problem, fix);
    }
}

/// Why the tunnel's MTU does not fit an uplink, and what to write instead.
pub fn misfit(config: &Config, uplink_mtu: u32) -> Option<(String, String)> {
    let by_v4_alone = config
        .node
        .endpoint
        .set()
        .is_some_and(|endpoint| matches!(endpoint.host.parse(), Ok(IpAddr::V4(_))));
    let (overhead, family) =
        if by_v4_alone { (OVERHEAD_V4, "IPv4") } else { (OVERHEAD_V6, "IPv6") };
    let largest = uplink_mtu.saturating_sub(overhead);
    if config.tunnel.mtu <= largest {
        return None;
    }
    let problem = format!(
        "{} does not fit the uplink, whose MTU is {uplink_mtu}: the tunnel adds {overhead} bytes \
         over {family}",
        config.tunnel.mtu
    );
    let fix = if largest < SMALLEST_MTU {
        format!(
            "raise the uplink's MTU to {} or more; the tunnel cannot have less than {SMALLEST_MTU}",
            SMALLEST_MTU + overhead
        )
    } else {
        format!("write mtu = {largest}, the largest that fits")
    };
    Some((problem, fix))
}

pub(super) fn policy(config: &Config, findings: &mut Findings<'_>) {
    let policy = &config.policy;
    let pools = [IpNet::V4(config.tunnel.pool_v4), IpNet::V6(config.tunnel.pool_v6)];
    for network in &policy.allow {
        if network.prefix_len() == 0 {
            findings.blame(
                &[("policy", "allow")],
                format!(
                    "{network} would allow every address, including the provider's own network"
                ),
                "name the networks that consumers are to reach".into(),
            );
        } else if let Some(pool) = pools.iter().find(|pool| overlap(network, pool)) {
            findings.blame(
                &[("policy", "allow"), ("tunnel", "pool_v4"), ("tunnel", "pool_v6")],
                format!("{network} overlaps the pool {pool}: consumers never reach each other"),
                "remove it, or choose another pool".into(),
            );
        }
    }
}
