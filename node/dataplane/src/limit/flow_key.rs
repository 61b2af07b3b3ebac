//! The flow of a packet from a consumer, as keyed hashes that reveal no destination.

use std::net::IpAddr;

use weir_common::ip::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE, V4_HEADER, V6_HEADER};
use weir_packet::extension::{Extension, MAX_EXTENSIONS, Place, Step};

/// The key of the hashes, new at each start of the node. Without it a [`FlowKey`] reveals nothing.
#[derive(Clone, Copy)]
pub struct FlowSecret(pub [u64; 4]);

impl std::fmt::Debug for FlowSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FlowSecret")
    }
}

/// A flow of a session. The source address is the session's, so it is not part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// The hash of destination, protocol, and ports or echo identifier.
    pub hash: u64,
    /// The hash of the destination.
    pub destination: u64,
}

impl FlowKey {
    /// The flow of an IP packet. `None` for a fragment that is not the first: it has no ports, and
    /// begins nothing.
    #[must_use]
    #[inline]
    pub fn of(keys: &FlowSecret, packet: &[u8]) -> Option<Self> {
        let (high, low, protocol, l4) = match packet.first()? >> 4 {
            4 => {
                let header: &[u8; V4_HEADER] = packet.first_chunk()?;
                if Place::v4(u16::from_be_bytes([header[6], header[7]])).offset != 0 {
                    return None;
                }
                let [.., a, b, c, d] = *header;
                let low = 0xffff << 32 | u64::from(u32::from_be_bytes([a, b, c, d]));
                let l4 = packet.get(usize::from(header[0] & 0xf) * 4..).unwrap_or_default();
                (0, low, header[9], l4)
            }
            6 => {
                let header: &[u8; V6_HEADER] = packet.first_chunk()?;
                let address: &[u8; 16] = header.last_chunk()?;
                let address = u128::from_be_bytes(*address);
                let (protocol, l4) = upper_layer(header[6], packet.get(V6_HEADER..)?)?;
                ((address >> 64) as u64, address as u64, protocol, l4)
            }
            _ => return None,
        };
        let rest = u64::from(protocol) << 32 | u64::from(port_bits(protocol, l4));
        Some(Self::hash(keys, high, low, rest))
    }

    /// The flows to a port of a destination.
    #[must_use]
    pub fn to(keys: &FlowSecret, destination: IpAddr, protocol: u8, port: u16) -> Self {
        let (high, low) = match destination {
            IpAddr::V4(address) => (0, 0xffff << 32 | u64::from(address.to_bits())),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                ((bits >> 64) as u64, bits as u64)
            }
        };
        Self::hash(keys, high, low, u64::from(protocol) << 32 | u64::from(port))
    }

    #[inline]
    fn hash(FlowSecret([k0, k1, k2, k3]): &FlowSecret, high: u64, low: u64, rest: u64) -> Self {
        let address = fold(high ^ k0, low ^ k1);
        Self {
            hash: fold(fold(address ^ k2, rest ^ k3), k0 | 1),
            destination: fold(address ^ k3, k2 | 1),
        }
    }
}

/// What tells flows of one protocol to one destination apart.
#[inline]
fn port_bits(protocol: u8, l4: &[u8]) -> u32 {
    let kind = u32::from(l4.first().copied().unwrap_or_default());
    match (protocol, l4) {
        (TCP | UDP | DCCP | SCTP | UDP_LITE, [a, b, c, d, ..]) => {
            u32::from_be_bytes([*a, *b, *c, *d])
        }
        // Echo requests.
        (ICMP, [8, _, _, _, a, b, ..]) | (ICMPV6, [128, _, _, _, a, b, ..]) => {
            kind << 16 | u32::from(u16::from_be_bytes([*a, *b]))
        }
        (ICMP | ICMPV6, _) => kind << 16,
        _ => 0,
    }
}

/// The protocol behind IPv6's extension headers, and its bytes. `None` for a later fragment. Packets
/// with too many count as one flow for each destination.
fn upper_layer(mut protocol: u8, mut payload: &[u8]) -> Option<(u8, &[u8])> {
    for _ in 0..MAX_EXTENSIONS {
        match Step::at(protocol, payload) {
            Step::UpperLayer | Step::Truncated => break,
            Step::Extension { extension: Extension::Fragment(header), .. }
                if header.place.offset != 0 =>
            {
                return None;
            }
            Step::Extension { next, rest, .. } => (protocol, payload) = (next, rest),
        }
    }
    Some((protocol, payload))
}

/// Multiplies two words to twice their length, and folds that.
#[inline(always)]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::IpAddr};

    use etherparse::PacketBuilder;
    use weir_common::ip::{DESTINATION_OPTIONS, FRAGMENT};

    use super::*;
    use crate::testing::{SERVER_V4, SERVER_V6, tcp, udp};

    const KEYS: FlowSecret = FlowSecret([
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0,
        0x082e_fa98_ec4e_6c89,
    ]);
    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 66, 0, 2));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 2));

    fn flow(packet: &[u8]) -> FlowKey {
        FlowKey::of(&KEYS, packet).expect("a flow")
    }

    fn echo(id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 66, 0, 2], [45, 1, 2, 3], 64);
        builder.icmpv4_echo_request(id, sequence).write(&mut packet, payload).expect("a packet");
        packet
    }

    #[test]
    fn packets_of_a_flow_are_one_and_other_ports_protocols_and_destinations_are_others() {
        for (own, server) in [(V4, SERVER_V4), (V6, SERVER_V6)] {
            let one = flow(&tcp(own, server, 1, b"abc", |_| {}));
            assert_eq!(one, flow(&tcp(own, server, 77, b"", |header| header.syn = true)));
            let to_port = tcp(own, server, 1, b"", |header| header.destination_port = 80);
            let from_port = tcp(own, server, 1, b"", |header| header.source_port = 9);
            let datagram = udp(own, server, 40_000, b"");
            for other in [to_port, from_port, datagram] {
                let other = flow(&other);
                assert_ne!(one.hash, other.hash);
                assert_eq!(one.destination, other.destination, "the same one by another flow");
            }
        }
        let there = flow(&udp(V4, SERVER_V4, 1, b""));
        let elsewhere = flow(&udp(V4, IpAddr::from([45, 1, 2, 4]), 1, b""));
        assert_ne!(there.destination, elsewhere.destination);
        assert_ne!(there.hash, elsewhere.hash);
    }

    #[test]
    fn an_echo_is_known_by_its_identifier_and_other_icmp_by_its_type() {
        assert_eq!(flow(&echo(7, 1, b"x")), flow(&echo(7, 2, b"yz")));
        assert_ne!(flow(&echo(7, 1, b"")).hash, flow(&echo(8, 1, b"")).hash);
        let mut unreachable = echo(7, 1, b"");
        unreachable[20] = 3;
        let mut another = unreachable.clone();
        another[24..26].copy_from_slice(&[1, 2]);
        assert_eq!(flow(&unreachable), flow(&another));
        assert_ne!(flow(&unreachable).hash, flow(&echo(7, 1, b"")).hash);
    }

    #[test]
    fn only_the_first_fragment_belongs_to_a_flow() {
        let mut packet = udp(V4, SERVER_V4, 1, &[0; 64]);
        let whole = flow(&packet);
        packet[6] = 0x20;
        assert_eq!(flow(&packet), whole, "more fragments follow");
        packet[7] = 1;
        assert_eq!(FlowKey::of(&KEYS, &packet), None);

        let plain = udp(V6, SERVER_V6, 1, &[0; 64]);
        let mut packet = plain.clone();
        // Options of hop and destination, and the fragment header behind them.
        let extensions = [[FRAGMENT, 0, 0, 0, 0, 0, 0, 0], [UDP, 0, 0, 1, 0, 0, 0, 9]].concat();
        packet.splice(40..40, extensions);
        packet[6] = DESTINATION_OPTIONS;
        assert_eq!(flow(&packet), flow(&plain), "extension headers make no other flow");
        packet[51] = 9;
        assert_eq!(FlowKey::of(&KEYS, &packet), None);
    }

    #[test]
    fn what_is_cut_short_is_a_flow_by_its_destination() {
        let packet = tcp(V4, SERVER_V4, 1, b"", |_| {});
        assert_eq!(flow(&packet[..22]), flow(&packet[..20]));
        assert_eq!(flow(&packet[..20]).destination, flow(&packet).destination);
        let mut options = packet;
        options[0] = 0x4f;
        options.truncate(30);
        assert!(FlowKey::of(&KEYS, &options).is_some());
        assert_eq!(FlowKey::of(&KEYS, &[0x60; 39]), None, "no IP packet");
        let mut endless = udp(V6, SERVER_V6, 1, &[0; 400]);
        endless[6] = DESTINATION_OPTIONS;
        endless[40..].fill(0);
        assert!(FlowKey::of(&KEYS, &endless).is_some());
    }

    #[test]
    fn neighbours_are_spread_and_another_key_spreads_them_otherwise() {
        let hashes = |keys: &FlowSecret| -> HashSet<u64> {
            let packets = (0..4096u32).map(|i| {
                let [.., c, d] = i.to_be_bytes();
                udp(V4, IpAddr::from([45, 1, c, d]), 1, b"")
            });
            packets
                .filter_map(|packet| Some(FlowKey::of(keys, &packet)?.destination >> 40))
                .collect()
        };
        let one = hashes(&KEYS);
        // 24 bits of 4096 hashes: half a pair is equal by chance.
        assert!(one.len() > 4085, "{}", one.len());
        let other = hashes(&FlowSecret([9, 8, 7, 6].map(|key: u64| key.wrapping_mul(KEYS.0[0]))));
        assert!(one.intersection(&other).count() < 20);
    }
}
