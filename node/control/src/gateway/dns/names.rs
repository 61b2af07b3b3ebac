//! What stays inside: names that mean nothing on the internet, and addresses that no name of the
//! internet should have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::{Name, RecordType};

/// Names below these are a private network's, or nobody's (RFC 6761, 6762, 7686, 8375, and what
/// routers and companies use without asking). A question about one tells something of who asks,
/// and no server on the internet has an answer.
const PRIVATE: &[&str] = &[
    "localhost",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "onion",
    "invalid",
    "test",
    "alt",
];

/// Whether a question must not leave this machine.
pub(super) fn is_private(name: &Name, kind: RecordType) -> bool {
    let lower = name.to_lowercase().to_ascii();
    let lower = lower.trim_end_matches('.');
    if lower.is_empty() {
        return false;
    }
    // A word alone is a machine next to the consumer. Only its place in the root is public.
    if !lower.contains('.') && matches!(kind, RecordType::A | RecordType::AAAA | RecordType::HTTPS)
    {
        return true;
    }
    let below = |suffix: &&str| {
        lower.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if PRIVATE.iter().any(below) {
        return true;
    }
    // Reverse names of private networks, also of whole parts of them.
    lower.ends_with(".arpa")
        && name.parse_arpa_name().is_ok_and(|network| {
            let bits = if network.addr().is_ipv4() { 8 } else { 16 };
            network.prefix_len() >= bits && is_private_address(network.addr())
        })
}

/// Whether an address is of a private network, or of the machine itself, or an IPv6 address that
/// stands for such an IPv4 address.
pub(super) fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.segments()[0] & 0xffc0 == 0xfec0
                // NAT64 of a network's own (RFC 8215).
                || v6.segments()[..3] == [0x64, 0xff9b, 1]
                || embedded(v6).into_iter().flatten().any(is_private_v4)
        }
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || a == 0
        || (a == 100 && b & 0xc0 == 64)
        || v4.is_broadcast()
}

/// The IPv4 addresses that packets to an IPv6 address may be brought to by a translator, a tunnel or
/// the host itself.
fn embedded(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let segments = v6.segments();
    let at = |segment: usize| {
        Ipv4Addr::from_bits(u32::from(segments[segment]) << 16 | u32::from(segments[segment + 1]))
    };
    let by_prefix = match segments {
        // IPv4-compatible and IPv4-mapped (RFC 4291), IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(at(6)),
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(at(6)),
        // 6to4 (RFC 3056).
        [0x2002, ..] => Some(at(1)),
        // Teredo (RFC 4380), which writes the client's address with all bits turned.
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!at(6).to_bits())),
        _ => None,
    };
    // ISATAP (RFC 5214): the interface identifier, below any prefix.
    let by_interface = segments[4] & 0xfcff == 0 && segments[5] == 0x5efe;
    [by_prefix, by_interface.then(|| at(6))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private(name: &str) -> bool {
        is_private(&Name::from_ascii(name).expect("a name"), RecordType::A)
    }

    #[test]
    fn private_names_stay_inside_and_public_ones_do_not() {
        for name in [
            "printer.",
            "Printer.LOCAL.",
            "nas.home.arpa.",
            "x.internal.",
            "localhost.",
            "a.b.onion.",
            "1.0.168.192.in-addr.arpa.",
            "7.10.in-addr.arpa.",
            "5.127.100.in-addr.arpa.",
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.6.d.f.ip6.arpa.",
        ] {
            assert!(private(name), "{name}");
        }
        for name in [
            ".",
            "example.org.",
            "notlocal.org.",
            "mylocal.",
            "local.example.org.",
            "9.9.9.9.in-addr.arpa.",
            "e.f.0.0.8.1.a.0.2.ip6.arpa.",
            "in-addr.arpa.",
        ] {
            assert_eq!(private(name), name == "mylocal.", "{name}");
        }
        let root = |kind| is_private(&Name::from_ascii("org.").expect("a name"), kind);
        assert!(!root(RecordType::NS) && !root(RecordType::DS) && root(RecordType::A));
    }

    #[test]
    fn private_addresses_are_known_in_every_spelling() {
        for address in [
            "10.1.2.3",
            "192.168.1.1",
            "172.31.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "::",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "::ffff:0:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::909:909",
            "2002:c0a8:101::1",
            "2001:0:909:909:0:0:f5ff:fffe",
            "2001:db8::5efe:10.0.0.1",
            "2001:db8::200:5efe:192.168.1.1",
            "ff02::1",
        ] {
            assert!(is_private_address(address.parse().expect("an address")), "{address}");
        }
        for address in ["9.9.9.9", "172.32.0.1", "100.128.0.1", "2620:fe::fe", "::ffff:9.9.9.9"]
            .into_iter()
            .chain(["::9.9.9.9", "64:ff9b::9.9.9.9", "2002:909:909::1", "2001:db8::5efe:9.9.9.9"])
            .chain(["2001:0:a00:1:0:0:f6f6:f6f6", "2001:db8::5eff:10.0.0.1"])
        {
            assert!(!is_private_address(address.parse().expect("an address")), "{address}");
        }
    }
}
