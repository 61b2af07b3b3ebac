//! The outer headers of a datagram to a consumer that is sent past the kernel's stack: Ethernet, IPv4
//! (RFC 791) or IPv6 (RFC 8200), UDP (RFC 768).

use std::net::IpAddr;

use weir_accounts::Endpoint;
use weir_packet::{
    checksum::{Sum, pseudo_header},
    ecn::Ecn,
    ethernet::{ETHERNET_HEADER, IPV4_TYPE, IPV6_TYPE, NextHops},
    headers::{UDP, UDP_HEADER, V4_HEADER, V6_HEADER, nonzero_for_udp, set_v4_checksum, write},
};

/// The length of the longest header in bytes.
const MAX_LEN: usize = ETHERNET_HEADER + V6_HEADER + UDP_HEADER;
/// As the kernel's WireGuard and its UDP sockets have it.
const HOP_LIMIT: u8 = 64;

/// The headers of the datagrams to one consumer, but for what differs between them.
pub(crate) struct OuterHeader {
    bytes: [u8; MAX_LEN],
    len: usize,
    /// Where the addresses are.
    addresses: (usize, usize),
}

impl OuterHeader {
    /// The headers from `port` to a consumer. `None` if the kernel's stack must find the way: it knows
    /// an address of ours to send from, or a next hop, that we do not.
    pub(crate) fn new(hops: &NextHops, to: &Endpoint, port: u16, ecn: Ecn) -> Option<Self> {
        let local = to.local?;
        let remote = to.remote.ip();
        let next = hops.find(remote).ok()?;
        let mut bytes = [0; MAX_LEN];
        write(&mut bytes, 0, next.0);
        write(&mut bytes, 6, hops.source.0);
        let (ip_len, addresses) = match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                write(&mut bytes, 12, IPV4_TYPE);
                write(&mut bytes, 14, [0x45, ecn as u8]);
                write(&mut bytes, 22, [HOP_LIMIT, UDP]);
                write(&mut bytes, 26, local.octets());
                write(&mut bytes, 30, remote.octets());
                (V4_HEADER, (26, 34))
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) if !remote.is_unicast_link_local() => {
                write(&mut bytes, 12, IPV6_TYPE);
                write(&mut bytes, 14, [0x60, (ecn as u8) << 4]);
                write(&mut bytes, 20, [UDP, HOP_LIMIT]);
                write(&mut bytes, 22, local.octets());
                write(&mut bytes, 38, remote.octets());
                (V6_HEADER, (22, 54))
            }
            _ => return None,
        };
        let at = ETHERNET_HEADER + ip_len;
        write(&mut bytes, at, port.to_be_bytes());
        write(&mut bytes, at + 2, to.remote.port().to_be_bytes());
        Some(Self { bytes, len: at + UDP_HEADER, addresses })
    }

    /// The length of an IP packet with `payload` bytes of UDP payload.
    pub(crate) fn packet_len(&self, payload: usize) -> usize {
        self.len - ETHERNET_HEADER + payload
    }

    /// The header of the datagram with this payload. `id` is the identification of an IPv4 packet,
    /// which a router may fragment.
    pub(crate) fn complete(&mut self, payload: &[u8], id: u16) -> &[u8] {
        let (ip, udp) = (ETHERNET_HEADER, self.len - UDP_HEADER);
        let udp_len = UDP_HEADER + payload.len();
        let bytes = &mut self.bytes;
        if udp == ip + V4_HEADER {
            write(bytes, ip + 2, ((V4_HEADER + udp_len) as u16).to_be_bytes());
            write(bytes, ip + 4, id.to_be_bytes());
            set_v4_checksum(bytes.get_mut(ip..udp).unwrap_or_default());
        } else {
            write(bytes, ip + 4, (udp_len as u16).to_be_bytes());
        }
        write(bytes, udp + 4, (udp_len as u16).to_be_bytes());
        write(bytes, udp + 6, [0; 2]);
        let (from, to) = self.addresses;
        let pseudo = pseudo_header(bytes.get(from..to).unwrap_or_default(), UDP, udp_len);
        let header: Sum = pseudo.bytes(bytes.get(udp..self.len).unwrap_or_default());
        let checksum = nonzero_for_udp(UDP, header.bytes(payload).checksum());
        write(bytes, udp + 6, checksum.to_be_bytes());
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};
    use weir_packet::{ethernet::MacAddress, headers::Transport};

    use super::*;

    const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn hops(gateway: &str) -> NextHops {
        let gateway: IpAddr = gateway.parse().expect("an address");
        let gateways =
            if gateway.is_ipv4() { [Some(gateway), None] } else { [None, Some(gateway)] };
        let neighbours = vec![(gateway, ROUTER)];
        NextHops { gateways, neighbours, mtu: 1500, ..NextHops::default() }
    }

    fn endpoint(remote: &str, local: &str) -> Endpoint {
        let remote = remote.parse().expect("an address");
        Endpoint { remote, local: Some(local.parse().expect("an address")) }
    }

    #[test]
    fn a_datagram_has_the_headers_that_the_kernel_would_give_it() {
        for (gateway, remote, local) in [
            ("45.80.2.1", "198.51.100.7:4000", "45.80.2.2"),
            ("2a0c::1", "[2a00::7]:4000", "2a0c::2"),
        ] {
            let hops = hops(gateway);
            let to = endpoint(remote, local);
            let mut header = OuterHeader::new(&hops, &to, 51820, Ecn::Ect0).expect("a header");
            for len in [0, 1, 32, 1449] {
                let payload = vec![7; len];
                let mut frame = header.complete(&payload, 0xbeef).to_vec();
                frame.extend(&payload);
                assert_eq!(frame.len(), ETHERNET_HEADER + header.packet_len(len));
                let sliced = SlicedPacket::from_ethernet(&frame).expect("a frame");
                let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
                assert_eq!((udp.source_port(), udp.destination_port()), (51820, 4000));
                assert_eq!(udp.payload(), payload);
                let packet = &frame[ETHERNET_HEADER..];
                let transport = Transport::parse(packet).expect("UDP");
                assert!(transport.checksum_is_right(packet));
                assert_eq!(Ecn::of_packet(packet), Ecn::Ect0);
                if let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net {
                    assert_eq!(ip.header().identification(), 0xbeef);
                    assert!(!ip.header().dont_fragment(), "a router may fragment it");
                    assert!(weir_packet::headers::v4_checksum_is_right(&packet[..20]));
                }
            }
        }
    }

    #[test]
    fn what_the_kernel_must_find_the_way_for_is_left_to_it() {
        let hops = hops("45.80.2.1");
        let mut to = endpoint("198.51.100.7:4000", "45.80.2.2");
        to.local = None;
        assert!(OuterHeader::new(&hops, &to, 51820, Ecn::NotEct).is_none(), "from where?");
        let to = endpoint("[2a00::7]:4000", "2a0c::2");
        assert!(OuterHeader::new(&hops, &to, 51820, Ecn::NotEct).is_none(), "no route");
        let to = endpoint("[2a00::7]:4000", "45.80.2.2");
        assert!(OuterHeader::new(&hops, &to, 51820, Ecn::NotEct).is_none(), "two families");
    }
}
