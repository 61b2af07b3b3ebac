//! What the table does, by behaviour. `docs/nat.md` says which requirement each test is for.

#![expect(clippy::unwrap_used, reason = "what is not as a test assumes fails it")]

mod blocks;
mod fragments;
mod headers;
mod icmp;
mod limits;
mod model;
mod owner;
mod policy;
mod tcp;
mod udp;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use weir_common::{AddressPlan, DropReason, Slot};

use crate::{AllowAll, Answer, Nat, NatConfig, NewFlow, NoGate, Policy, Ports, Refusal, V6};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(45, 1, 2, 3));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(45, 1, 2, 4));
const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2a0a, 1, 0, 0, 0, 0, 0, 3));
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const EXTERNAL_2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const EXTERNAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0);
const SECOND: u64 = 1_000_000_000;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

fn config() -> NatConfig {
    NatConfig {
        addresses_v4: vec![EXTERNAL],
        v6: V6::Address(EXTERNAL_V6),
        ports: Arc::new(Ports::new(4096, 32767, 32)),
        plan: AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 24, "fd00:66::".parse().unwrap()),
        worker: 0,
        workers: 1,
        max_flows: 4096,
        session_flows: 1024,
        session_blocks: 4,
        pick_up: false,
        mss: None,
        hash_keys: [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321],
    }
}

/// An address and a port, or the identifier of an echo.
type End = (IpAddr, u16);

/// A table and its clock.
struct Lab {
    nat: Nat,
    plan: AddressPlan,
    now: u64,
}

impl Lab {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut NatConfig)) -> Self {
        let mut config = config();
        change(&mut config);
        let plan = config.plan;
        Self { nat: Nat::new(config), plan, now: 1000 * SECOND }
    }

    /// The inner end of a session.
    fn inner(&self, slot: u32, port: u16) -> End {
        (self.plan.address_v4(Slot(slot)).unwrap().into(), port)
    }

    fn inner_v6(&self, slot: u32, port: u16) -> End {
        (self.plan.address_v6(Slot(slot)).unwrap().into(), port)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
    }

    /// Sends a packet of the session whose address it has. A refused packet is unchanged.
    fn up(&mut self, packet: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        self.up_by(packet, &AllowAll)
    }

    fn up_by(&mut self, packet: Vec<u8>, policy: &dyn Policy) -> Result<Vec<u8>, Refusal> {
        let slot = match source(&packet) {
            IpAddr::V4(address) => self.plan.slot_of_v4(address.octets()).unwrap(),
            IpAddr::V6(address) => self.plan.slot_of_v6(address.octets()).unwrap(),
        };
        let mut bytes = packet.clone();
        let done = self.nat.up(&mut bytes, slot, self.now, policy, &mut NoGate);
        match done {
            Ok(()) => Ok(bytes),
            Err(refusal) => {
                assert_eq!(bytes, packet, "a refused packet is unchanged");
                Err(refusal)
            }
        }
    }

    fn down(&mut self, packet: Vec<u8>) -> Result<(u32, Vec<u8>), DropReason> {
        self.down_by(packet, &AllowAll)
    }

    fn down_by(
        &mut self,
        packet: Vec<u8>,
        policy: &dyn Policy,
    ) -> Result<(u32, Vec<u8>), DropReason> {
        let mut bytes = packet.clone();
        match self.nat.down(&mut bytes, self.now, policy) {
            Ok(slot) => Ok((slot.0, bytes)),
            Err(reason) => {
                assert_eq!(bytes, packet, "a dropped packet is unchanged");
                Err(reason)
            }
        }
    }

    /// Sends a datagram, and returns its external end.
    fn udp(&mut self, from: End, to: End) -> End {
        ends(&self.up(udp(from, to)).unwrap()).0
    }

    /// Sends a SYN, and returns its external end.
    fn syn(&mut self, from: End, to: End) -> End {
        ends(&self.up(tcp(from, to, SYN)).unwrap()).0
    }

    /// Opens a connection, and returns its external end.
    fn connect(&mut self, from: End, to: End) -> End {
        let external = self.syn(from, to);
        self.down(tcp(to, external, SYN | ACK)).unwrap();
        self.up(tcp(from, to, ACK)).unwrap();
        external
    }
}

fn builder(from: IpAddr, to: IpAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one version"),
    }
}

fn udp(from: End, to: End) -> Vec<u8> {
    udp_with(from, to, b"payload")
}

fn udp_with(from: End, to: End, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    builder(from.0, to.0).udp(from.1, to.1).write(&mut packet, payload).unwrap();
    packet
}

fn tcp(from: End, to: End, flags: u8) -> Vec<u8> {
    tcp_with(from, to, flags, &[])
}

fn tcp_with(from: End, to: End, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(from.1, to.1, 1000, 65_000);
    header.fin = flags & FIN != 0;
    header.syn = flags & SYN != 0;
    header.rst = flags & RST != 0;
    header.ack = flags & ACK != 0;
    header.set_options_raw(options).unwrap();
    let mut packet = Vec::new();
    builder(from.0, to.0).tcp_header(header).write(&mut packet, b"segment").unwrap();
    packet
}

/// An echo request. The port of `from` is its identifier.
fn ping(from: End, to: IpAddr) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = builder(from.0, to);
    if to.is_ipv4() {
        builder.icmpv4_echo_request(from.1, 7).write(&mut packet, b"echo").unwrap();
    } else {
        builder.icmpv6_echo_request(from.1, 7).write(&mut packet, b"echo").unwrap();
    }
    packet
}

/// An echo reply. The port of `to` is its identifier.
fn pong(from: IpAddr, to: End) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = builder(from, to.0);
    if from.is_ipv4() {
        builder.icmpv4_echo_reply(to.1, 7).write(&mut packet, b"echo").unwrap();
    } else {
        builder.icmpv6_echo_reply(to.1, 7).write(&mut packet, b"echo").unwrap();
    }
    packet
}

/// An ICMP error that quotes the beginning of a packet. `kind` and `code` are its first bytes.
fn error(from: IpAddr, to: IpAddr, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = builder(from, to);
    if from.is_ipv4() {
        builder.icmpv4_raw(kind, code, [0; 4]).write(&mut packet, quoted).unwrap();
    } else {
        builder.icmpv6_raw(kind, code, [0; 4]).write(&mut packet, quoted).unwrap();
    }
    packet
}

/// What an ICMP error quotes.
fn quoted(packet: &[u8]) -> &[u8] {
    let len = if packet[0] >> 4 == 4 { 20 } else { 40 };
    &packet[len + 8..]
}

fn source(packet: &[u8]) -> IpAddr {
    weir_packet::headers::source(packet).unwrap()
}

fn destination(packet: &[u8]) -> IpAddr {
    weir_packet::headers::destination(packet).unwrap()
}

/// The source and the destination of a packet, with its ports. An echo's identifier stands on both
/// sides.
fn ends(packet: &[u8]) -> (End, End) {
    let headers = PacketHeaders::from_ip_slice(packet).unwrap();
    let (from, to) = match headers.transport.unwrap() {
        TransportHeader::Udp(udp) => (udp.source_port, udp.destination_port),
        TransportHeader::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
        _ => {
            let at = if packet[0] >> 4 == 4 { 24 } else { 44 };
            let id = u16::from_be_bytes([packet[at], packet[at + 1]]);
            (id, id)
        }
    };
    ((source(packet), from), (destination(packet), to))
}

/// Computes every checksum of a packet anew, and compares it with what the packet has.
fn checksums_are_right(packet: &[u8]) -> bool {
    let headers = PacketHeaders::from_ip_slice(packet).unwrap();
    let payload = headers.payload.slice();
    match (headers.net.unwrap(), headers.transport.unwrap()) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            ip.header_checksum == ip.calc_header_checksum()
                && match transport {
                    TransportHeader::Udp(udp) => {
                        udp.checksum == udp.calc_checksum_ipv4(&ip, payload).unwrap()
                    }
                    TransportHeader::Tcp(tcp) => {
                        tcp.checksum == tcp.calc_checksum_ipv4(&ip, payload).unwrap()
                    }
                    TransportHeader::Icmpv4(icmp) => {
                        icmp.checksum == icmp.icmp_type.calc_checksum(payload)
                    }
                    _ => false,
                }
        }
        (NetHeaders::Ipv6(ip, _), transport) => match transport {
            TransportHeader::Udp(udp) => {
                udp.checksum == udp.calc_checksum_ipv6(&ip, payload).unwrap()
            }
            TransportHeader::Tcp(tcp) => {
                tcp.checksum == tcp.calc_checksum_ipv6(&ip, payload).unwrap()
            }
            TransportHeader::Icmpv6(icmp) => {
                let sum = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload);
                icmp.checksum == sum.unwrap()
            }
            _ => false,
        },
        _ => false,
    }
}

fn refused(reason: DropReason, answer: Answer) -> Refusal {
    Refusal { reason, answer: Some(answer) }
}

/// Allows what its closure allows.
struct By<F>(F);

impl<F: Fn(&NewFlow) -> bool + Send + Sync> Policy for By<F> {
    fn allows(&self, flow: &NewFlow) -> bool {
        (self.0)(flow)
    }
}
