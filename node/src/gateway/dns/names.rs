//! What stays inside: names that mean nothing on the internet, and addresses that no name of the
//! internet should have.

use std::net::IpAddr;

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

/// Whether an address is of a private network, or of the machine itself.
pub(super) fn is_private_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || a == 0
                || (a == 100 && b & 0xc0 == 64)
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.segments()[0] & 0xffc0 == 0xfec0
        }
    }
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
            "ff02::1",
        ] {
            assert!(is_private_address(address.parse().expect("an address")), "{address}");
        }
        for address in ["9.9.9.9", "172.32.0.1", "100.128.0.1", "2620:fe::fe", "::ffff:9.9.9.9"] {
            assert!(!is_private_address(address.parse().expect("an address")), "{address}");
        }
    }
}
