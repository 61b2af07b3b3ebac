//! Ethernet addresses, and which of them a packet to the internet goes to.

use std::net::IpAddr;

pub use weir_common::ip::ETHERNET_HEADER;
use weir_common::ip::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// The EtherType of IPv4.
pub const IPV4_TYPE: [u8; 2] = ETHER_TYPE_IPV4.to_be_bytes();
/// The EtherType of IPv6.
pub const IPV6_TYPE: [u8; 2] = ETHER_TYPE_IPV6.to_be_bytes();

/// The uplink's next hops, as the kernel has them at one moment: where the packets of a destination
/// go. A change makes another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextHops {
    /// The interface's number.
    pub interface: u32,
    /// The interface's address.
    pub source: MacAddress,
    /// The interface's MTU in bytes.
    pub mtu: u32,
    /// The gateways' addresses, for IPv4 and IPv6. `None` without a default route over the uplink.
    pub gateways: [Option<IpAddr>; 2],
    /// The networks that are reached without a gateway: address and prefix length.
    pub on_link: Vec<(IpAddr, u8)>,
    /// The known neighbours, sorted by address.
    pub neighbours: Vec<(IpAddr, MacAddress)>,
}

/// Why there is no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNextHop {
    /// The family has no route.
    NoRoute,
    /// The neighbour's address is not known: ask the kernel for it.
    Unresolved(IpAddr),
}

impl NextHops {
    /// The neighbour that gets the packets to `destination`.
    ///
    /// # Errors
    ///
    /// Says what is missing.
    pub fn find(&self, destination: IpAddr) -> Result<MacAddress, NoNextHop> {
        let is_on_link = self.on_link.iter().any(|(net, len)| contains(*net, *len, destination));
        let neighbour = if is_on_link {
            destination
        } else {
            let [v4, v6] = self.gateways;
            let gateway = if destination.is_ipv4() { v4 } else { v6 };
            gateway.ok_or(NoNextHop::NoRoute)?
        };
        let at = self.neighbours.binary_search_by(|(address, _)| address.cmp(&neighbour));
        let found = at.ok().and_then(|at| self.neighbours.get(at));
        found.map(|(_, mac)| *mac).ok_or(NoNextHop::Unresolved(neighbour))
    }
}

fn contains(network: IpAddr, prefix_len: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(prefix_len.min(32))
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(prefix_len.min(128))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_is_on_the_link_goes_to_itself_and_the_rest_to_the_gateway() {
        let hops = NextHops {
            gateways: [Some(address("45.80.2.1")), None],
            on_link: vec![(address("45.80.2.2"), 24), (address("2a0c::2"), 64)],
            neighbours: vec![(address("45.80.2.1"), ROUTER), (address("45.80.2.7"), NEAR)],
            ..NextHops::default()
        };
        assert_eq!(hops.find(address("9.9.9.9")), Ok(ROUTER));
        assert_eq!(hops.find(address("45.80.2.7")), Ok(NEAR));
        for (to, wanted) in [
            ("45.80.2.8", NoNextHop::Unresolved(address("45.80.2.8"))),
            ("2a0c::9", NoNextHop::Unresolved(address("2a0c::9"))),
            ("2a00::1", NoNextHop::NoRoute),
        ] {
            assert_eq!(hops.find(address(to)), Err(wanted), "{to}");
        }
    }

    #[test]
    fn prefixes_end_where_they_say() {
        let net = address("45.80.2.0");
        assert!(contains(net, 24, address("45.80.2.255")));
        assert!(!contains(net, 24, address("45.80.3.0")));
        assert!(contains(net, 0, address("1.1.1.1")));
        assert!(contains(net, 32, net) && !contains(net, 32, address("45.80.2.1")));
        assert!(!contains(net, 0, address("::1")));
        assert!(contains(address("2a0c::"), 64, address("2a0c::ffff")));
        assert!(!contains(address("2a0c::"), 64, address("2a0c:0:0:1::")));
    }
}
