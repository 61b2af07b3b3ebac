//! What return traffic is, by the book and by another's parser.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use etherparse::{
    EtherType, Ethernet2HeaderSlice, Icmpv4Slice, Icmpv6Slice, IpNumber, Ipv4HeaderSlice,
    Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, UdpHeaderSlice,
};

use crate::frames::{HOST_V6, OWN_V4, OWN_V6, PORTS};

/// A NAT that remembers fragments.
pub(crate) struct Model {
    has_prefix: bool,
    noted: HashSet<(IpAddr, IpAddr, u32, Option<IpNumber>)>,
}

fn has_port(port: u16) -> bool {
    (PORTS[0]..=PORTS[1]).contains(&port)
}

impl Model {
    pub(crate) fn new(has_prefix: bool) -> Self {
        Self { has_prefix, noted: HashSet::new() }
    }

    pub(crate) fn is_return(&mut self, frame: &[u8]) -> bool {
        let Ok(link) = Ethernet2HeaderSlice::from_slice(frame) else { return false };
        if frame.len() > 1792 || link.destination()[0] & 1 == 1 {
            return false;
        }
        match link.ether_type() {
            EtherType::IPV4 => self.v4(&frame[14..]).unwrap_or(false),
            EtherType::IPV6 => self.v6(&frame[14..]).unwrap_or(false),
            _ => false,
        }
    }

    fn v4(&mut self, packet: &[u8]) -> Option<bool> {
        let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
        let packet = packet.get(..usize::from(header.total_len()))?;
        let payload = packet.get(header.slice().len()..)?;
        let (source, destination) = (header.source_addr(), header.destination_addr());
        let is_martian = source.octets()[0] == 0
            || source.is_loopback()
            || source.is_multicast()
            || source.octets()[0] >= 240;
        if is_martian || !OWN_V4.contains(&destination) {
            return None;
        }
        let key = (
            source.into(),
            destination.into(),
            header.identification().into(),
            Some(header.protocol()),
        );
        if header.fragments_offset().value() > 0 {
            return Some(self.noted.contains(&key));
        }
        let is_return = transport_v4(header.protocol(), payload, destination).unwrap_or(false);
        if header.more_fragments() {
            self.note(key, is_return);
        }
        Some(is_return)
    }

    fn v6(&mut self, packet: &[u8]) -> Option<bool> {
        let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
        let mut payload = packet.get(40..40 + usize::from(header.payload_length()))?;
        let (source, destination) = (header.source_addr(), header.destination_addr());
        let is_local = source.to_bits() >> 64 == 0 || source.octets()[0] >= 0xfe;
        if is_local {
            return None;
        }
        let mut next = header.next_header();
        if self.has_prefix {
            let is_ours = destination.segments()[..4] == OWN_V6.segments()[..4];
            if next == IpNumber::IPV6_ICMP {
                // Without a type it is cut off; the frame may have padding there.
                let [kind, _] = *packet.get(40..)?.first_chunk()?;
                return Some(is_ours && destination != HOST_V6 && !(133..=137).contains(&kind));
            }
            return Some(is_ours && destination != HOST_V6);
        }
        if destination != OWN_V6 {
            return None;
        }
        let mut fragment = None;
        if next == IpNumber::IPV6_FRAGMENTATION_HEADER {
            let header = Ipv6FragmentHeaderSlice::from_slice(payload).ok()?;
            (next, payload) = (header.next_header(), &payload[8..]);
            fragment = Some(header.to_header());
        }
        let is_return = || transport_v6(next, payload, destination).unwrap_or(false);
        let Some(fragment) = fragment.filter(|fragment| fragment.is_fragmenting_payload()) else {
            return Some(is_return());
        };
        let key = (source.into(), destination.into(), fragment.identification, None);
        if fragment.fragment_offset.value() > 0 {
            return Some(self.noted.contains(&key));
        }
        self.note(key, is_return());
        Some(is_return())
    }

    fn note(&mut self, key: (IpAddr, IpAddr, u32, Option<IpNumber>), is_return: bool) {
        if is_return {
            self.noted.insert(key);
        } else {
            self.noted.remove(&key);
        }
    }
}

fn identifier(bytes: [u8; 4]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn transport_v4(protocol: IpNumber, payload: &[u8], destination: Ipv4Addr) -> Option<bool> {
    Some(match protocol {
        // The ports of TCP are where those of UDP are.
        IpNumber::TCP | IpNumber::UDP => {
            has_port(UdpHeaderSlice::from_slice(payload).ok()?.destination_port())
        }
        IpNumber::ICMP => {
            let kind = *payload.first()?;
            match kind {
                0 => has_port(identifier(Icmpv4Slice::from_slice(payload).ok()?.bytes5to8())),
                3 | 11 | 12 => embedded_v4(payload.get(8..)?, destination)?,
                _ => false,
            }
        }
        _ => false,
    })
}

fn embedded_v4(packet: &[u8], destination: Ipv4Addr) -> Option<bool> {
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let payload = packet.get(header.slice().len()..)?;
    if header.source_addr() != destination || header.fragments_offset().value() > 0 {
        return None;
    }
    Some(match header.protocol() {
        IpNumber::TCP | IpNumber::UDP => {
            has_port(UdpHeaderSlice::from_slice(payload).ok()?.source_port())
        }
        IpNumber::ICMP if *payload.first()? == 8 => {
            has_port(identifier(Icmpv4Slice::from_slice(payload).ok()?.bytes5to8()))
        }
        _ => false,
    })
}

fn transport_v6(next: IpNumber, payload: &[u8], destination: Ipv6Addr) -> Option<bool> {
    Some(match next {
        IpNumber::TCP | IpNumber::UDP => {
            has_port(UdpHeaderSlice::from_slice(payload).ok()?.destination_port())
        }
        IpNumber::IPV6_ICMP => {
            let message = Icmpv6Slice::from_slice(payload).ok()?;
            match message.type_u8() {
                129 => has_port(identifier(message.bytes5to8())),
                1..=4 => embedded_v6(payload.get(8..)?, destination)?,
                _ => false,
            }
        }
        _ => false,
    })
}

fn embedded_v6(packet: &[u8], destination: Ipv6Addr) -> Option<bool> {
    let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
    let (mut next, mut payload) = (header.next_header(), packet.get(40..)?);
    if header.source_addr() != destination {
        return None;
    }
    if next == IpNumber::IPV6_FRAGMENTATION_HEADER {
        let fragment = Ipv6FragmentHeaderSlice::from_slice(payload).ok()?;
        if fragment.fragment_offset().value() > 0 {
            return None;
        }
        (next, payload) = (fragment.next_header(), &payload[8..]);
    }
    Some(match next {
        IpNumber::TCP | IpNumber::UDP => {
            has_port(UdpHeaderSlice::from_slice(payload).ok()?.source_port())
        }
        IpNumber::IPV6_ICMP if *payload.first()? == 128 => {
            has_port(identifier(Icmpv6Slice::from_slice(payload).ok()?.bytes5to8()))
        }
        _ => false,
    })
}
