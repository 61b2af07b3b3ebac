//! The source addresses of frames on the XSK fast path, which the kernel's routing does not check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The families in which the uplink's network may have private addresses. Public addresses are always
/// allowed.
///
/// The stack drops a source that has no route by the interface (`rp_filter`, ip-sysctl.rst). The fast
/// path bypasses that check. Without this one, a consumer could forge a source and have answers sent
/// into the operator's own networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    v4: bool,
    v6: bool,
}

impl Sources {
    /// Allows private addresses in the families in which the uplink has a private address itself.
    #[must_use]
    pub fn of_uplink(v4: &[Ipv4Addr], v6: &[Ipv6Addr]) -> Self {
        Self {
            v4: v4.iter().any(|address| is_private_v4(*address)),
            v6: v6.iter().any(|address| is_private_v6(*address)),
        }
    }

    /// Whether a datagram may come from this address.
    #[must_use]
    #[inline]
    pub fn allow(self, source: IpAddr) -> bool {
        match source {
            IpAddr::V4(source) => self.v4 || !is_private_v4(source),
            IpAddr::V6(source) => self.v6 || !is_private_v6(source),
        }
    }
}

/// Private (RFC 1918), shared (RFC 6598), link-local (RFC 3927), or broadcast.
const fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && second & 0xc0 == 64;
    address.is_private() || is_shared || address.is_link_local() || address.is_broadcast()
}

/// Unique local (RFC 4193), or link-local.
const fn is_private_v6(address: Ipv6Addr) -> bool {
    address.is_unique_local() || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: [&str; 9] = [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.7.1",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.169.254",
        "fd00::1",
        "fc00::1",
    ];
    const PUBLIC: [&str; 8] = [
        "9.255.255.255",
        "11.0.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "2a00::1",
        "2001:db8::1",
    ];

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn private_sources_are_taken_where_the_uplink_has_such_an_address_itself() {
        let public = Sources::of_uplink(
            &[Ipv4Addr::new(45, 80, 2, 2)],
            &["2a0c::2".parse().expect("an address")],
        );
        let private =
            Sources::of_uplink(&[Ipv4Addr::new(192, 168, 1, 5)], &["fd00::5".parse().expect("v6")]);
        for text in PRIVATE {
            assert!(!public.allow(address(text)) && private.allow(address(text)), "{text}");
        }
        for text in PUBLIC {
            assert!(public.allow(address(text)) && private.allow(address(text)), "{text}");
        }
        let only_v4 = Sources::of_uplink(&[Ipv4Addr::new(10, 0, 0, 5)], &[]);
        assert!(only_v4.allow(address("10.9.9.9")) && !only_v4.allow(address("fd00::1")));
    }
}
