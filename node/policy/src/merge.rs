//! Lists of any length as the fewest ranges, in order and without overlap: what the kernel's sets
//! take fastest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use weir_config::{PortRule, Protocol};

/// Networks as ranges of addresses, first and last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// IPv4.
    pub v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// IPv6.
    pub v6: Vec<(Ipv6Addr, Ipv6Addr)>,
}

impl Networks {
    /// The ranges of these networks.
    pub fn of(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        let v4 = merged(v4, |last, next| last.checked_add(1).is_none_or(|after| next <= after));
        let v6 = merged(v6, |last, next| last.checked_add(1).is_none_or(|after| next <= after));
        let v4 = v4.into_iter().map(|(low, high)| (low.into(), high.into())).collect();
        let v6 = v6.into_iter().map(|(low, high)| (low.into(), high.into())).collect();
        Self { v4, v6 }
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => has(&self.v4, v4),
            IpAddr::V6(v6) => has(&self.v6, v6),
        }
    }

    /// How many ranges there are, of both families.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Ports as ranges, first and last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// TCP.
    pub tcp: Vec<(u16, u16)>,
    /// UDP.
    pub udp: Vec<(u16, u16)>,
}

impl Ports {
    /// The ranges of these rules.
    pub fn of(rules: impl IntoIterator<Item = PortRule> + Clone) -> Self {
        let of = |protocol| {
            let rules = rules.clone().into_iter().filter(|rule| rule.is_of(protocol));
            let ranges = rules.map(|rule| (rule.low, rule.high)).collect();
            merged(ranges, |last, next| last.checked_add(1).is_none_or(|after| next <= after))
        };
        Self { tcp: of(Protocol::Tcp), udp: of(Protocol::Udp) }
    }

    /// Whether a port is in one of them.
    #[must_use]
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp => has(&self.tcp, port),
            Protocol::Udp => has(&self.udp, port),
        }
    }
}

fn has<T: Ord>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|(low, _)| *low <= value);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, high)| value <= *high)
}

/// `touches` says whether a range that begins with its second argument continues one that ends
/// with its first.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>, touches: impl Fn(T, T) -> bool) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match merged.last_mut() {
            Some((_, end)) if touches(*end, low) => *end = (*end).max(high),
            _ => merged.push((low, high)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks::of(list.iter().map(|it| it.parse::<IpNet>().expect("a network")))
    }

    #[test]
    fn neighbours_and_duplicates_become_one() {
        let merged =
            networks(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.7/32", "255.255.255.255/32", "::/1"]);
        let range = |a: [u8; 4], b: [u8; 4]| (a.into(), b.into());
        let last = range([255; 4], [255; 4]);
        assert_eq!(merged.v4, [range([10, 0, 0, 0], [10, 0, 1, 255]), last]);
        assert_eq!(merged.v6.len(), 1);
        assert!(merged.contains([10, 0, 1, 255].into()) && !merged.contains([10, 0, 2, 0].into()));
        let ports = Ports::of(["25/tcp", "26-30", "1/udp"].map(|it| it.parse().expect("ports")));
        assert_eq!((ports.tcp, ports.udp), (vec![(25, 30)], vec![(1, 1), (26, 30)]));
    }

    proptest! {
        #[test]
        fn the_ranges_have_what_the_networks_have_and_are_apart(
            list in prop::collection::vec((any::<u8>(), 24u8..=32), 0..40),
            asked in any::<u8>(),
        ) {
            let networks: Vec<IpNet> = list
                .iter()
                .map(|(host, length)| IpNet::new([10, 0, 0, *host].into(), *length).expect("fits"))
                .collect();
            let ranges = Networks::of(networks.iter().copied());
            let address = IpAddr::from([10, 0, 0, asked]);
            let is_in = networks.iter().any(|network| network.contains(&address));
            prop_assert_eq!(ranges.contains(address), is_in);
            for pair in ranges.v4.windows(2) {
                prop_assert!(pair[0].1.to_bits() + 1 < pair[1].0.to_bits());
            }
        }
    }
}
