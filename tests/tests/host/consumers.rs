//! Consumers without a data plane: their packets, and what comes back to them.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders,
    TcpOptionElement, TransportHeader, icmpv4, icmpv6,
};
use weir_host::Host;

use super::{CONSUMER_V4, CONSUMER_V6, SILENCE};

/// The TUN device, from the consumers' side.
pub(crate) struct Consumers {
    queues: Vec<fs::File>,
}

impl Consumers {
    pub(crate) fn of(host: &mut Host) -> Self {
        let tun = host.take_tun().expect("a TUN device");
        assert_eq!(tun.queues.len(), 2);
        let consumers =
            Self { queues: tun.queues.into_iter().map(|queue: OwnedFd| queue.into()).collect() };
        while consumers.receive(Duration::ZERO).is_some() {}
        consumers
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        let mut frame = vec![0; 10];
        frame.extend_from_slice(packet);
        (&self.queues[0]).write_all(&frame).expect("the TUN device takes the packet");
    }

    pub(crate) fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + timeout;
        loop {
            for mut queue in &self.queues {
                let mut frame = [0; 65536];
                if let Ok(length) = queue.read(&mut frame) {
                    return Some(frame[10..length].to_vec());
                }
            }
            if Instant::now() >= end {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn answer(&self, packet: &[u8]) -> Answer {
        self.send(packet);
        self.receive(SILENCE).map_or(Answer::Silence, |packet| Answer::of(&packet))
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Silence,
    Echo,
    Prohibited,
    Reset,
    SynAck { mss: Option<u16> },
    Udp(Vec<u8>),
    TooBig { mtu: u32 },
    Other,
}

impl Answer {
    pub(crate) fn of(packet: &[u8]) -> Self {
        let headers = PacketHeaders::from_ip_slice(packet).expect("an IP packet");
        match &headers.net {
            Some(NetHeaders::Ipv4(ip, _)) => {
                assert_eq!(Ipv4Addr::from(ip.destination), CONSUMER_V4)
            }
            Some(NetHeaders::Ipv6(ip, _)) => {
                assert_eq!(Ipv6Addr::from(ip.destination), CONSUMER_V6)
            }
            other => panic!("not IP: {other:?}"),
        }
        match headers.transport {
            Some(TransportHeader::Icmpv4(icmp)) => match icmp.icmp_type {
                Icmpv4Type::EchoReply(_) => Self::Echo,
                Icmpv4Type::DestinationUnreachable(
                    icmpv4::DestUnreachableHeader::FilterProhibited,
                ) => Self::Prohibited,
                Icmpv4Type::DestinationUnreachable(
                    icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu },
                ) => Self::TooBig { mtu: next_hop_mtu.into() },
                _ => Self::Other,
            },
            Some(TransportHeader::Icmpv6(icmp)) => match icmp.icmp_type {
                Icmpv6Type::EchoReply(_) => Self::Echo,
                Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Prohibited) => {
                    Self::Prohibited
                }
                Icmpv6Type::PacketTooBig { mtu } => Self::TooBig { mtu },
                _ => Self::Other,
            },
            Some(TransportHeader::Tcp(tcp)) if tcp.rst => Self::Reset,
            Some(TransportHeader::Tcp(tcp)) if tcp.syn && tcp.ack => {
                let mss = tcp.options_iterator().flatten().find_map(|option| match option {
                    TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
                    _ => None,
                });
                Self::SynAck { mss }
            }
            Some(TransportHeader::Udp(_)) => Self::Udp(headers.payload.slice().to_vec()),
            _ => Self::Other,
        }
    }
}

pub(crate) fn ping(from: impl Into<IpAddr>, to: impl Into<IpAddr>, length: usize) -> Vec<u8> {
    let echo = IcmpEchoHeader { id: 7, seq: 1 };
    let payload = vec![0; length];
    let mut packet = Vec::new();
    let written = match (from.into(), to.into()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            .icmpv4(Icmpv4Type::EchoRequest(echo))
            .write(&mut packet, &payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            .icmpv6(Icmpv6Type::EchoRequest(echo))
            .write(&mut packet, &payload),
        other => panic!("two families: {other:?}"),
    };
    written.expect("a packet");
    packet
}

pub(crate) fn syn(to: impl Into<IpAddr>, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let options = [TcpOptionElement::MaximumSegmentSize(8960)];
    let written = match to.into() {
        IpAddr::V4(to) => PacketBuilder::ipv4(CONSUMER_V4.octets(), to.octets(), 64)
            .tcp(40000, port, 1, 65000)
            .syn()
            .options(&options)
            .expect("options")
            .write(&mut packet, &[]),
        IpAddr::V6(to) => PacketBuilder::ipv6(CONSUMER_V6.octets(), to.octets(), 64)
            .tcp(40000, port, 1, 65000)
            .syn()
            .options(&options)
            .expect("options")
            .write(&mut packet, &[]),
    };
    written.expect("a packet");
    packet
}

pub(crate) fn udp(to: Ipv4Addr, source_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(CONSUMER_V4.octets(), to.octets(), 64)
        .udp(source_port, port)
        .write(&mut packet, payload)
        .expect("a packet");
    packet
}
