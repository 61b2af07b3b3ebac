//! Frames from the internet, built by hand: what a frame says is never computed by the code under
//! test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The external addresses of the node that the frames are for.
pub(crate) const OWN_V4: [Ipv4Addr; 2] =
    [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 9)];
/// The IPv6 address of NAT66, which is also within the routed prefix.
pub(crate) const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 5, 0, 0, 0, 9);
/// The host's own address in the routed prefix.
pub(crate) const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 5, 0, 0, 0, 1);
/// The first and the last of the node's external ports.
pub(crate) const PORTS: [u16; 2] = [4097, 8190];
/// The node's UDP port.
pub(crate) const NODE_PORT: u16 = 51820;

const FOREIGN_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const FOREIGN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 7, 0, 0, 0, 7);

/// The bitmap of [`PORTS`].
pub(crate) fn ports() -> [u64; 1024] {
    let mut words = [0; 1024];
    for port in PORTS[0]..=PORTS[1] {
        words[usize::from(port) / 64] |= 1 << (port % 64);
    }
    words
}

/// An IP packet.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// IPv4 options in words of 4 bytes.
    pub(crate) options: u8,
    /// Identification, offset in units of 8 bytes, and whether more follow.
    pub(crate) fragment: Option<(u32, u16, bool)>,
    /// An IPv6 extension header of this type, and 8 bytes, in front of the rest.
    pub(crate) extension: Option<u8>,
    pub(crate) transport: Vec<u8>,
}

impl Packet {
    /// From the internet to the node.
    pub(crate) fn inbound(v6: bool, protocol: u8, transport: Vec<u8>) -> Self {
        let (source, destination) = match v6 {
            true => (FOREIGN_V6.into(), OWN_V6.into()),
            false => (FOREIGN_V4.into(), OWN_V4[0].into()),
        };
        let (options, fragment, extension) = (0, None, None);
        Self { source, destination, protocol, options, fragment, extension, transport }
    }

    /// From the node to the internet, as an ICMP error has it.
    pub(crate) fn outbound(v6: bool, protocol: u8, transport: Vec<u8>) -> Self {
        let Self { source, destination, .. } = Self::inbound(v6, 0, Vec::new());
        let (source, destination) = (destination, source);
        Self { source, destination, ..Self::inbound(v6, protocol, transport) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.v4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.v6(source, destination),
            _ => panic!("of one family"),
        }
    }

    fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let header = 20 + usize::from(self.options) * 4;
        let (id, offset, more) = self.fragment.unwrap_or((1, 0, false));
        let mut packet = vec![0x45 + self.options, 0];
        packet.extend((header as u16 + self.transport.len() as u16).to_be_bytes());
        packet.extend((id as u16).to_be_bytes());
        packet.extend((offset | u16::from(more) << 13).to_be_bytes());
        packet.extend([60, self.protocol, 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.resize(header, 1);
        let sum: u32 =
            packet.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(&self.transport);
        packet
    }

    fn v6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut next = self.protocol;
        let mut body = self.transport.clone();
        if let Some((id, offset, more)) = self.fragment {
            let mut header = vec![next, 0];
            header.extend((offset << 3 | u16::from(more)).to_be_bytes());
            header.extend(id.to_be_bytes());
            (next, body) = (44, [header, body].concat());
        }
        if let Some(kind) = self.extension {
            (next, body) = (kind, [vec![next, 0, 1, 4, 0, 0, 0, 0], body].concat());
        }
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend([next, 60]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(body);
        packet
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(if self.source.is_ipv6() { [0x86, 0xdd] } else { [8, 0] });
        frame.extend(self.bytes());
        frame
    }
}

/// The first 8 bytes of TCP, and the whole of UDP's header.
pub(crate) fn segment(source: u16, destination: u16) -> Vec<u8> {
    let mut segment = source.to_be_bytes().to_vec();
    segment.extend(destination.to_be_bytes());
    segment.extend([0, 8, 0, 0]);
    segment
}

pub(crate) fn icmp(kind: u8, id: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    message
}

pub(crate) fn error(kind: u8, about: &Packet) -> Vec<u8> {
    [icmp(kind, 0), about.bytes()].concat()
}

/// The types of a family's echo reply and request, and its protocol number of ICMP.
const fn echo(v6: bool) -> (u8, u8, u8) {
    if v6 { (129, 128, 58) } else { (0, 8, 1) }
}

/// Each with whether a NAT to [`OWN_V4`] and [`OWN_V6`] with [`PORTS`] takes it.
pub(crate) fn table() -> Vec<(String, Vec<u8>, bool)> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        let mut add = |name: &str, frame: Vec<u8>, is_return: bool| {
            all.push((format!("v6={v6} {name}"), frame, is_return));
        };
        transports(v6, &mut add);
        errors(v6, &mut add);
        headers(v6, &mut add);
    }
    all
}

fn transports(v6: bool, add: &mut dyn FnMut(&str, Vec<u8>, bool)) {
    let (reply, request, icmp_protocol) = echo(v6);
    for (port, is_return) in [
        (PORTS[0], true),
        (PORTS[0] - 1, false),
        (PORTS[1], true),
        (PORTS[1] + 1, false),
        (0, false),
        (22, false),
        (65535, false),
    ] {
        let packet = |protocol, transport| Packet::inbound(v6, protocol, transport).frame();
        add(&format!("TCP to {port}"), packet(6, segment(443, port)), is_return);
        add(&format!("UDP to {port}"), packet(17, segment(443, port)), is_return);
        add(&format!("TCP from {port}"), packet(6, segment(port, 443)), false);
        add(&format!("echo reply {port}"), packet(icmp_protocol, icmp(reply, port)), is_return);
        add(&format!("echo request {port}"), packet(icmp_protocol, icmp(request, port)), false);
        add(&format!("SCTP to {port}"), packet(132, segment(443, port)), false);
        // ICMP of the other family.
        let (reply, _, icmp_protocol) = echo(!v6);
        add(&format!("foreign echo reply {port}"), packet(icmp_protocol, icmp(reply, port)), false);
    }
}

fn errors(v6: bool, add: &mut dyn FnMut(&str, Vec<u8>, bool)) {
    let (reply, request, protocol) = echo(v6);
    let port = PORTS[0];
    let error_kinds: &[u8] = if v6 { &[1, 2, 3, 4] } else { &[3, 11, 12] };
    let other_kinds: &[u8] = if v6 { &[5, 100, 128, 130, 134] } else { &[4, 5, 8, 9, 13] };
    let mut about = |name: &str, kind: u8, about: &Packet, is_return: bool| {
        let frame = Packet::inbound(v6, protocol, error(kind, about)).frame();
        add(&format!("error {kind} about {name}"), frame, is_return);
    };
    let tcp = Packet::outbound(v6, 6, segment(port, 443));
    for &kind in error_kinds {
        about("TCP", kind, &tcp, true);
        about("UDP", kind, &Packet { protocol: 17, ..tcp.clone() }, true);
        about("echo", kind, &Packet::outbound(v6, protocol, icmp(request, port)), true);
        about("an echo reply", kind, &Packet::outbound(v6, protocol, icmp(reply, port)), false);
        about("the host's TCP", kind, &Packet::outbound(v6, 6, segment(22, port)), false);
        about("the host's echo", kind, &Packet::outbound(v6, protocol, icmp(request, 7)), false);
        about("SCTP", kind, &Packet { protocol: 132, ..tcp.clone() }, false);
        let foreign = Packet { source: tcp.destination, ..tcp.clone() };
        about("another's packet", kind, &foreign, false);
        about("a cut packet", kind, &Packet { transport: vec![16; 7], ..tcp.clone() }, false);
        let fragment = |offset| Packet { fragment: Some((1, offset, true)), ..tcp.clone() };
        about("a first fragment", kind, &fragment(0), true);
        about("a later fragment", kind, &fragment(1), false);
        if !v6 {
            about("options", kind, &Packet { options: 10, ..tcp.clone() }, true);
        }
    }
    for &kind in other_kinds {
        about("no error", kind, &tcp, false);
    }
    let mut broken = error(error_kinds[0], &tcp);
    broken[8] ^= 0x10;
    add("an error about no IP", Packet::inbound(v6, protocol, broken).frame(), false);
}

fn headers(v6: bool, add: &mut dyn FnMut(&str, Vec<u8>, bool)) {
    let good = Packet::inbound(v6, 17, segment(443, PORTS[0]));
    let to = |destination| Packet { destination, ..good.clone() }.frame();
    let from = |source| Packet { source, ..good.clone() }.frame();
    let changed = |at: usize, value: u8| {
        let mut frame = good.frame();
        frame[at] = value;
        frame
    };
    if v6 {
        add("another destination", to(FOREIGN_V6.into()), false);
        add("a host of the same network", to(HOST_V6.into()), false);
        for source in ["::", "::1", "fe80::1", "ff02::1", "::ffff:1.2.3.4"] {
            add(&format!("from {source}"), from(source.parse().expect("an address")), false);
        }
        add("from a NAT64", from("64:ff9b::102:304".parse().expect("an address")), true);
        add("from a private source", from("fd00::1".parse().expect("an address")), true);
        for kind in [0, 43, 60] {
            let packet = Packet { extension: Some(kind), ..good.clone() };
            add(&format!("an extension {kind}"), packet.frame(), false);
        }
        let atomic = Packet { fragment: Some((1, 0, false)), ..good.clone() };
        add("an atomic fragment", atomic.frame(), true);
        let extended = Packet { extension: Some(60), ..atomic };
        add("an extension before a fragment", extended.frame(), false);
        add("IP version 4", changed(14, 0x45), false);
    } else {
        add("the second address", to(OWN_V4[1].into()), true);
        add("another destination", to(FOREIGN_V4.into()), false);
        add("an unused place of the list", to(Ipv4Addr::UNSPECIFIED.into()), false);
        for source in ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            add(&format!("from {source}"), from(source.parse().expect("an address")), false);
        }
        for source in ["1.0.0.1", "126.0.0.1", "128.0.0.1", "223.0.0.1", "10.0.0.1"] {
            add(&format!("from {source}"), from(source.parse().expect("an address")), true);
        }
        for options in 1..=10 {
            let packet = Packet { options, ..good.clone() };
            add(&format!("{options} options"), packet.frame(), true);
        }
        add("an IP header of 4 words", changed(14, 0x44), false);
        add("IP version 6", changed(14, 0x65), false);
        add("a wrong header checksum", changed(24, 1), true);
        add("no DF", changed(20, 0x40), true);
    }
    add("multicast at the link", changed(0, 3), false);
    add("broadcast at the link", changed(0, 0xff), false);
    let mut tagged = good.frame();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    add("a VLAN tag", tagged, false);
    let mut padded = good.frame();
    padded.resize(60.max(padded.len()), 0xff);
    add("padding", padded, true);
    let ip = if v6 { 40 } else { 20 };
    for len in 14..good.frame().len() {
        add(&format!("cut to {len}"), good.frame()[..len].to_vec(), false);
    }
    // What follows the packet is no part of it.
    let mut short = good.frame();
    let at = if v6 { 18 } else { 16 };
    short[at + 1] -= 1;
    add("an IP length of 7 bytes less", short, false);
    for (len, is_return) in [(1792, true), (1793, false)] {
        let mut large = good.clone();
        large.transport.resize(len - 14 - ip, 0);
        add(&format!("a frame of {len}"), large.frame(), is_return);
    }
}

/// Fragments in the order in which they arrive, with whether the NAT takes each.
pub(crate) fn fragments() -> Vec<(String, Vec<u8>, bool)> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        let (reply, _, icmp_protocol) = echo(v6);
        let tcp = Packet::inbound(v6, 6, segment(443, PORTS[0]));
        let mut add = |name: &str, packet: &Packet, fragment, is_return| {
            let packet = Packet { fragment: Some(fragment), ..packet.clone() };
            all.push((format!("v6={v6} {name}"), packet.frame(), is_return));
        };
        add("a last one before the first", &tcp, (7, 2, false), false);
        add("the first", &tcp, (7, 0, true), true);
        add("the last", &tcp, (7, 2, false), true);
        add("one in the middle", &tcp, (7, 1, true), true);
        add("another packet's", &tcp, (8, 1, true), false);
        let udp = Packet { protocol: 17, ..tcp.clone() };
        // Over IPv6, the next header of later fragments does not count.
        add("another protocol's", &udp, (7, 1, true), v6);
        let other: IpAddr = if v6 { HOST_V6.into() } else { Ipv4Addr::new(9, 9, 9, 9).into() };
        add("another source's", &Packet { source: other, ..tcp.clone() }, (7, 1, true), false);
        add("the host's first, with this id", &host(&tcp), (7, 0, true), false);
        add("the host's last", &host(&tcp), (7, 2, false), false);
        add(
            "the first of a reply",
            &Packet::inbound(v6, icmp_protocol, icmp(reply, PORTS[1])),
            (9, 0, true),
            true,
        );
        add(
            "the rest of a reply",
            &Packet::inbound(v6, icmp_protocol, vec![1; 64]),
            (9, 1, false),
            true,
        );
        add(
            "a short last one",
            &Packet { transport: vec![1], ..udp.clone() },
            (10, 1, false),
            false,
        );
        add("its first", &udp, (10, 0, true), true);
        add("a short last one again", &Packet { transport: vec![1], ..udp }, (10, 1, false), true);
    }
    all
}

fn host(packet: &Packet) -> Packet {
    Packet { transport: segment(443, 22), ..packet.clone() }
}
