//! Packets that tests are made of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;

/// A server on the internet.
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(45, 1, 2, 3));
/// The same server by IPv6.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2a0a, 1, 0, 0, 0, 0, 0, 3));

/// A TCP segment with a right checksum.
pub fn tcp(
    source: IpAddr,
    destination: IpAddr,
    sequence: u32,
    payload: &[u8],
    change: impl FnOnce(&mut etherparse::TcpHeader),
) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(40_000, 443, sequence, 65_000);
    header.ack = true;
    header.acknowledgment_number = 77;
    change(&mut header);
    let builder = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => PacketBuilder::ipv4(s.octets(), d.octets(), 64),
        (IpAddr::V6(s), IpAddr::V6(d)) => PacketBuilder::ipv6(s.octets(), d.octets(), 64),
        _ => panic!("one family"),
    };
    let mut packet = Vec::new();
    builder.tcp_header(header).write(&mut packet, payload).expect("a packet");
    packet
}

/// A UDP datagram with a right checksum.
pub fn udp(source: IpAddr, destination: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => PacketBuilder::ipv4(s.octets(), d.octets(), 64),
        (IpAddr::V6(s), IpAddr::V6(d)) => PacketBuilder::ipv6(s.octets(), d.octets(), 64),
        _ => panic!("one family"),
    };
    let mut packet = Vec::new();
    builder.udp(port, 53).write(&mut packet, payload).expect("a packet");
    packet
}
