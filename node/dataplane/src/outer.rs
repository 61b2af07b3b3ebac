//! The outer headers of a datagram.

use weir_accounts::Endpoint;
use weir_packet::{checksum::pseudo_header, ecn::Ecn, headers::UDP};

/// The outer headers of a received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Outer<'a> {
    /// The source, and our address that it was sent to.
    pub from: Endpoint,
    /// The ECN field.
    pub ecn: Ecn,
    /// The checksum, which proves the source.
    pub checksum: Checksum<'a>,
}

/// The UDP checksum of a received datagram. Its `Debug` output reveals nothing of the datagram.
#[derive(Clone, Copy)]
pub enum Checksum<'a> {
    /// It is right, as the kernel's stack or we have verified.
    Right,
    /// It is wrong. The payload may be intact, but an address or a port may not be.
    Wrong,
    /// It was not verified yet.
    Unverified {
        /// The source and destination in the IP header: 8 bytes, or 32.
        addresses: &'a [u8],
        /// The UDP header and payload.
        udp: &'a [u8],
    },
}

impl std::fmt::Debug for Checksum<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Right => "Right",
            Self::Wrong => "Wrong",
            Self::Unverified { .. } => "Unverified",
        })
    }
}

impl From<Endpoint> for Outer<'_> {
    /// A datagram from the kernel's stack, without an ECN mark.
    #[inline]
    fn from(from: Endpoint) -> Self {
        Self { from, ecn: Ecn::NotEct, checksum: Checksum::Right }
    }
}

impl Outer<'_> {
    /// Whether a right checksum proves the source. Sums the whole datagram if it was not verified yet.
    #[must_use]
    #[inline]
    pub fn vouches(&self) -> bool {
        match self.checksum {
            Checksum::Right => true,
            Checksum::Wrong => false,
            Checksum::Unverified { addresses, udp } => is_right(addresses, udp),
        }
    }

    /// Verifies the checksum, so that the headers do not borrow the datagram.
    #[must_use]
    pub fn verified(&self) -> Outer<'static> {
        let checksum = if self.vouches() { Checksum::Right } else { Checksum::Wrong };
        Outer { from: self.from, ecn: self.ecn, checksum }
    }
}

/// Whether the kernel's stack would accept the checksum: it is right; or there is none, over IPv4
/// (RFC 768; over IPv6, RFC 8200 demands one); or it is the right sum of the pseudo-header only, as in
/// frames that have not left their machine (`CHECKSUM_PARTIAL`).
#[cold]
fn is_right(addresses: &[u8], udp: &[u8]) -> bool {
    let Some(field) = udp.get(6..8).and_then(<[u8]>::first_chunk) else { return false };
    let field = u16::from_be_bytes(*field);
    if field == 0 {
        return addresses.len() == 8;
    }
    let pseudo = pseudo_header(addresses, UDP, udp.len());
    field == pseudo.folded() || pseudo.bytes(udp).folded() == 0xffff
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::testing::{SERVER_V4, SERVER_V6, udp};

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 9));

    /// A packet, and where its addresses and its UDP header begin.
    fn packets() -> [(Vec<u8>, usize, usize); 2] {
        [
            (udp(V4, SERVER_V4, 4000, b"a payload"), 12, 20),
            (udp(V6, SERVER_V6, 4000, b"a payload"), 8, 40),
        ]
    }

    fn vouches(packet: &[u8], addresses: usize, udp: usize) -> bool {
        let from = Endpoint { remote: (V4, 4000).into(), local: None };
        let checksum =
            Checksum::Unverified { addresses: &packet[addresses..udp], udp: &packet[udp..] };
        let outer = Outer { from, ecn: Ecn::NotEct, checksum };
        assert_eq!(outer.vouches(), outer.verified().vouches());
        outer.vouches()
    }

    #[test]
    fn each_flipped_bit_of_addresses_ports_and_payload_is_noticed() {
        for (packet, addresses, udp) in packets() {
            assert!(vouches(&packet, addresses, udp));
            for bit in addresses * 8..packet.len() * 8 {
                let mut damaged = packet.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(!vouches(&damaged, addresses, udp), "bit {bit}");
            }
        }
    }

    #[test]
    fn no_checksum_is_taken_over_ipv4_alone() {
        for (mut packet, addresses, udp) in packets() {
            packet[udp + 6..udp + 8].fill(0);
            assert_eq!(vouches(&packet, addresses, udp), udp == 20);
        }
    }

    #[test]
    fn a_checksum_that_the_device_was_to_complete_vouches_for_the_addresses() {
        for (mut packet, addresses, udp) in packets() {
            let partial = pseudo_header(&packet[addresses..udp], UDP, packet.len() - udp).folded();
            packet[udp + 6..udp + 8].copy_from_slice(&partial.to_be_bytes());
            assert!(vouches(&packet, addresses, udp));
            packet[addresses] ^= 1;
            assert!(!vouches(&packet, addresses, udp));
        }
    }
}
