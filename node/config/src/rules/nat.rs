//! The rules of the node's own NAT: ports, external addresses, the routed prefix.

use std::net::IpAddr;

use ipnet::IpNet;

use super::networks::{NO_POOL_V6, overlap};
use crate::{Config, kinds::EgressMode, mistake::Findings};

/// The sizes that a block of ports can have.
const BLOCK_PORTS: std::ops::RangeInclusive<u16> = 8..=1024;

/// How many external addresses there can be: the packet path numbers them in a byte.
const MAX_ADDRESSES: usize = 256;

pub(super) fn nat(config: &Config, findings: &mut Findings<'_>) {
    let (node, nat) = (&config.node, &config.nat);
    let (ports, block) = (nat.ports, nat.block_ports);
    if !block.is_power_of_two() || !BLOCK_PORTS.contains(&block) {
        findings.blame(
            &[("nat", "block_ports")],
            format!("{block} is not a power of two from 8 to 1024"),
            "write 8, 16, 32, 64, 128, 256, 512 or 1024".into(),
        );
    } else if ports.blocks(block) == 0 {
        findings.blame(
            &[("nat", "ports"), ("nat", "block_ports")],
            format!(
                "{ports} has no whole block: a block is {block} ports from a multiple of {block}"
            ),
            "write a larger range, such as \"4096-32767\"".into(),
        );
    }
    // Through the kernel, nothing is reserved.
    if node.egress != EgressMode::Kernel && ports.contains(node.listen_port) {
        findings.blame(
            &[("nat", "ports"), ("node", "listen_port")],
            format!("{ports} includes node.listen_port, which is {}", node.listen_port),
            format!(
                "write a range without {0}, or another listen_port, such as 51820; consumers' \
                 configurations name that port",
                node.listen_port
            ),
        );
    }
    external_addresses(config, findings);
    prefix_v6(config, findings);
}

fn external_addresses(config: &Config, findings: &mut Findings<'_>) {
    let key = &[("node", "addresses")];
    let addresses = &config.node.addresses;
    if addresses.len() > MAX_ADDRESSES {
        findings.blame(
            key,
            format!("there are {} addresses", addresses.len()),
            format!("name {MAX_ADDRESSES} or fewer"),
        );
    }
    for (at, address) in addresses.iter().enumerate() {
        let is_external = match address {
            IpAddr::V4(v4) => {
                !(v4.is_unspecified()
                    || v4.is_loopback()
                    || v4.is_multicast()
                    || v4.is_broadcast()
                    || v4.is_link_local())
            }
            IpAddr::V6(v6) => {
                !(v6.is_unspecified()
                    || v6.is_loopback()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
                    || v6.to_ipv4_mapped().is_some())
            }
        };
        if !is_external {
            findings.blame(
                key,
                format!("{address} cannot be an address of the uplink that consumers leave by"),
                "name addresses of the uplink, or write [] for its first of each family".into(),
            );
        } else if addresses[..at].contains(address) {
            findings.blame(
                key,
                format!("{address} is listed twice"),
                "name each address once".into(),
            );
        }
    }
}

fn prefix_v6(config: &Config, findings: &mut Findings<'_>) {
    let Some(prefix) = config.node.prefix_v6 else { return };
    let key = ("node", "prefix_v6");
    let network = IpNet::V6(prefix.trunc());
    let room = 1u128.checked_shl(128 - u32::from(prefix.prefix_len()));
    let wanted = u128::from(config.node.max_sessions);
    if prefix != prefix.trunc() {
        findings.blame(
            &[key],
            format!("{prefix} is an address within a network"),
            format!("write the network: \"{network}\""),
        );
    } else if let Some(unfit) = NO_POOL_V6
        .iter()
        .find(|unfit| unfit.parse::<IpNet>().is_ok_and(|unfit| overlap(&network, &unfit)))
    {
        findings.blame(
            &[key],
            format!("{prefix} overlaps {unfit}, which is not routed on the internet"),
            "write the network that your provider routes to this machine, or \"\"".into(),
        );
    } else if overlap(&network, &IpNet::V6(config.tunnel.pool_v6.trunc())) {
        findings.blame(
            &[key, ("tunnel", "pool_v6")],
            format!("{prefix} overlaps tunnel.pool_v6, the consumers' inner addresses"),
            "write the network that your provider routes to this machine, or \"\"".into(),
        );
    // Its first address is nobody's (RFC 4291, section 2.6.1).
    } else if room.is_some_and(|room| room <= wanted) {
        let bits = 128 - (wanted + 1).next_power_of_two().trailing_zeros();
        findings.blame(
            &[key, ("node", "max_sessions")],
            format!("{prefix} has no room for node.max_sessions, which is {wanted}"),
            format!("write a /{bits} or larger, or lower max_sessions"),
        );
    }
}
