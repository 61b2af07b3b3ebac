//! The destinations that are refused always: what they are, and under which counter. From the
//! registries of special-purpose addresses of IANA (RFC 6890 and its updates), besides what clouds
//! serve to their own machines.
//!
//! An address that has an IPv4 address inside (NAT64, 6to4, Teredo, IPv4-mapped) is refused whatever
//! that is: such a way around the IPv4 lists is of no use to consumers, who have IPv4 themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The counter of private networks.
const PRIVATE: &str = "private_destination";
/// The counter of the machine's own secrets.
const METADATA: &str = "metadata_destination";
/// The counter of what is not of the internet.
const RESERVED: &str = "reserved_destination";

/// Every counter of what is refused here.
pub const COUNTERS: &[&str] = &[PRIVATE, METADATA, RESERVED];

/// Addresses that are refused.
#[derive(Clone, Copy, Debug)]
pub struct Refused<A> {
    /// The first.
    pub low: A,
    /// The last.
    pub high: A,
    /// The name of their counter.
    pub counter: &'static str,
    /// What they are.
    pub what: &'static str,
}

const fn v4(
    [a, b, c, d]: [u8; 4],
    length: u32,
    counter: &'static str,
    what: &'static str,
) -> Refused<Ipv4Addr> {
    let low = u32::from_be_bytes([a, b, c, d]);
    let high = low | u32::MAX.unbounded_shr(length);
    Refused { low: Ipv4Addr::from_bits(low), high: Ipv4Addr::from_bits(high), counter, what }
}

const fn v6(
    low: Ipv6Addr,
    length: u32,
    counter: &'static str,
    what: &'static str,
) -> Refused<Ipv6Addr> {
    let high = low.to_bits() | u128::MAX.unbounded_shr(length);
    Refused { low, high: Ipv6Addr::from_bits(high), counter, what }
}

const fn link_local(low: [u8; 4], high: [u8; 4]) -> Refused<Ipv4Addr> {
    Refused {
        low: Ipv4Addr::from_bits(u32::from_be_bytes(low)),
        high: Ipv4Addr::from_bits(u32::from_be_bytes(high)),
        counter: PRIVATE,
        what: "link-local (RFC 3927)",
    }
}

/// IPv4, in order.
pub const V4: &[Refused<Ipv4Addr>] = &[
    v4([0, 0, 0, 0], 8, RESERVED, "this network (RFC 791)"),
    v4([10, 0, 0, 0], 8, PRIVATE, "private (RFC 1918)"),
    v4([100, 64, 0, 0], 10, PRIVATE, "carrier-grade NAT (RFC 6598)"),
    v4([127, 0, 0, 0], 8, RESERVED, "loopback (RFC 1122)"),
    // In no reserved range.
    v4([168, 63, 129, 16], 32, METADATA, "the metadata service of Azure"),
    link_local([169, 254, 0, 0], [169, 254, 169, 253]),
    v4([169, 254, 169, 254], 32, METADATA, "the metadata service of clouds"),
    link_local([169, 254, 169, 255], [169, 254, 255, 255]),
    v4([172, 16, 0, 0], 12, PRIVATE, "private (RFC 1918)"),
    v4([192, 0, 0, 0], 24, RESERVED, "protocol assignments (RFC 6890)"),
    v4([192, 0, 2, 0], 24, RESERVED, "documentation (RFC 5737)"),
    v4([192, 88, 99, 0], 24, RESERVED, "relays of 6to4 (RFC 7526)"),
    v4([192, 168, 0, 0], 16, PRIVATE, "private (RFC 1918)"),
    v4([198, 18, 0, 0], 15, RESERVED, "benchmarks (RFC 2544)"),
    v4([198, 51, 100, 0], 24, RESERVED, "documentation (RFC 5737)"),
    v4([203, 0, 113, 0], 24, RESERVED, "documentation (RFC 5737)"),
    v4([224, 0, 0, 0], 4, RESERVED, "multicast (RFC 1112)"),
    v4([240, 0, 0, 0], 4, RESERVED, "reserved, and broadcast (RFC 1112)"),
];

const fn at(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

/// IPv6, in order and without gap outside of 2000::/3, from which alone the internet has addresses.
pub const V6: &[Refused<Ipv6Addr>] = &[
    v6(at(0, 0, 0), 16, RESERVED, "unspecified, loopback, and IPv4-mapped addresses (RFC 4291)"),
    v6(at(1, 0, 0), 16, RESERVED, "not assigned"),
    v6(at(2, 0, 0), 15, RESERVED, "not assigned"),
    v6(at(4, 0, 0), 14, RESERVED, "not assigned"),
    v6(at(8, 0, 0), 13, RESERVED, "not assigned"),
    v6(at(0x10, 0, 0), 12, RESERVED, "not assigned"),
    v6(at(0x20, 0, 0), 11, RESERVED, "not assigned"),
    v6(
        at(0x40, 0, 0),
        10,
        RESERVED,
        "NAT64, with an IPv4 address inside (RFC 6052), or not assigned",
    ),
    v6(at(0x80, 0, 0), 9, RESERVED, "not assigned"),
    v6(at(0x100, 0, 0), 8, RESERVED, "discard-only and dummy (RFC 6666, RFC 9780)"),
    v6(at(0x200, 0, 0), 7, RESERVED, "not assigned"),
    v6(at(0x400, 0, 0), 6, RESERVED, "not assigned"),
    v6(at(0x800, 0, 0), 5, RESERVED, "not assigned"),
    v6(at(0x1000, 0, 0), 4, RESERVED, "not assigned"),
    v6(at(0x2001, 0, 0), 32, RESERVED, "Teredo, with an IPv4 address inside (RFC 4380)"),
    Refused {
        low: at(0x2001, 1, 0),
        high: Ipv6Addr::from_bits(at(0x2001, 0x200, 0).to_bits() - 1),
        counter: RESERVED,
        what: "protocol assignments: benchmarks, ORCHID, remote ids (RFC 2928)",
    },
    v6(at(0x2001, 0xdb8, 0), 32, RESERVED, "documentation (RFC 3849)"),
    v6(at(0x2002, 0, 0), 16, RESERVED, "6to4, with an IPv4 address inside (RFC 3056)"),
    v6(at(0x3fff, 0, 0), 20, RESERVED, "documentation (RFC 9637)"),
    v6(at(0x4000, 0, 0), 2, RESERVED, "not assigned, or segments of routers (RFC 9602)"),
    v6(at(0x8000, 0, 0), 2, RESERVED, "not assigned"),
    v6(at(0xc000, 0, 0), 3, RESERVED, "not assigned"),
    v6(at(0xe000, 0, 0), 4, RESERVED, "not assigned"),
    v6(at(0xf000, 0, 0), 5, RESERVED, "not assigned"),
    v6(at(0xf800, 0, 0), 6, RESERVED, "not assigned"),
    v6(at(0xfc00, 0, 0), 7, PRIVATE, "private (RFC 4193)"),
    v6(at(0xfe00, 0, 0), 9, RESERVED, "not assigned"),
    v6(at(0xfe80, 0, 0), 10, PRIVATE, "link-local (RFC 4291)"),
    v6(at(0xfec0, 0, 0), 10, PRIVATE, "site-local (RFC 3879)"),
    v6(at(0xff00, 0, 0), 8, RESERVED, "multicast (RFC 4291)"),
];

/// Under which counter an address is refused, and what it is.
#[must_use]
pub fn find(address: IpAddr) -> Option<(&'static str, &'static str)> {
    fn of<A: Ord + Copy>(list: &[Refused<A>], address: A) -> Option<(&'static str, &'static str)> {
        let found = list.iter().find(|it| it.low <= address && address <= it.high)?;
        Some((found.counter, found.what))
    }
    match address {
        IpAddr::V4(address) => of(V4, address),
        IpAddr::V6(address) => of(V6, address),
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    /// The registries' entries that are not globally reachable, or that hold an IPv4 address, and
    /// the other networks that are not of the internet.
    const REGISTRY: &[&str] = &[
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
        "2001::/32",
        "2001:1::1/128",
        "2001:2::/48",
        "2001:10::/28",
        "2001:20::/28",
        "2001:30::/28",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "4000::/3",
        "fe00::/9",
        "168.63.129.16/32",
    ];

    #[test]
    fn the_registries_are_refused_to_their_edges_and_their_neighbours_are_not() {
        for network in REGISTRY {
            let network: IpNet = network.parse().expect("a network");
            for address in [network.network(), network.broadcast()] {
                assert!(find(address).is_some(), "{address} of {network} is not refused");
            }
        }
        for open in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "192.175.48.1",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2000::",
            "2001:200::",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::",
            "2003::",
            "2620:4f:8000::1",
            "3ffe:ffff:ffff::",
            "3fff:1000::",
        ] {
            let address: IpAddr = open.parse().expect("an address");
            assert_eq!(find(address), None, "{open} is refused");
        }
    }

    #[test]
    fn the_ranges_are_in_order_and_apart_and_leave_no_gap_outside_of_2000() {
        for pair in V4.windows(2) {
            assert!(pair[0].high < pair[1].low, "{}", pair[1].low);
        }
        for pair in V6.windows(2) {
            let (high, low) = (pair[0].high.to_bits(), pair[1].low.to_bits());
            assert!(high < low, "{}", pair[1].low);
            let inside = high >> 125 == 1 || low >> 125 == 1;
            assert!(inside || high + 1 == low, "a gap before {}", pair[1].low);
        }
        assert_eq!(V6.last().map(|last| last.high.to_bits()), Some(u128::MAX));
    }
}
