//! Consumers' packets past the kernel: to the uplink, and back.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use weir_common::{
    DropReason, Slot,
    exit::{ExitConfig, ExitV6},
};
use weir_nat::{AllowAll, NatConfig, NewFlow, Policy, Ports, V6};
use weir_packet::{
    ethernet::{ETHERNET_HEADER, MacAddress, NextHops},
    headers::Transport,
};

use super::TAILROOM;
use crate::{
    exit::{ExitEvents, ExitPlan},
    pipeline::outlet::Device,
    testing::{Consumer, Node, Output, SERVER_V4, SERVER_V6, tcp, udp},
};

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(45, 80, 2, 2);
const EXTERNAL_V6: Ipv6Addr = Ipv6Addr::new(0x2a0c, 0xb641, 2, 0, 0, 0, 0, 2);
const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// Refuses one port.
struct Without(u16);

impl Policy for Without {
    fn allows(&self, flow: &NewFlow) -> bool {
        flow.port != self.0
    }
}

fn hops() -> NextHops {
    let gateways = [IpAddr::from([45, 80, 2, 1]), "2a0c:b641:2::1".parse().expect("an address")];
    NextHops {
        interface: 2,
        source: OWN,
        mtu: 1500,
        gateways: gateways.map(Some),
        on_link: Vec::new(),
        neighbours: gateways.map(|gateway| (gateway, ROUTER)).to_vec(),
    }
}

fn node(workers: u32, policy: impl Policy + 'static) -> Node {
    node_that_asks(workers, policy, Arc::default())
}

fn node_that_asks(
    workers: u32,
    policy: impl Policy + 'static,
    asked: Arc<Mutex<Vec<IpAddr>>>,
) -> Node {
    let mut node = Node::new(8, workers, 0);
    let nat = NatConfig {
        addresses_v4: vec![EXTERNAL],
        v6: V6::Address(EXTERNAL_V6),
        ports: Arc::new(Ports::new(4096, 32767, 32)),
        plan: node.shared.addresses,
        worker: 0,
        workers,
        max_flows: 1024,
        session_flows: 512,
        session_blocks: 16,
        pick_up: false,
        mss: None,
        hash_keys: [3, 4],
    };
    let plan = ExitPlan {
        nat,
        policy: Arc::new(policy),
        hops: Arc::new(hops()),
        guard: ExitConfig::new(&[EXTERNAL], ExitV6::Address(EXTERNAL_V6)).expect("addresses"),
        listen_port: 51820,
        resolve: Arc::new(move |neighbour| asked.lock().expect("a list").push(neighbour)),
        first_id: 7,
    };
    node.pipeline.exit_by(plan, Arc::new(ExitEvents::new(1, 1024)));
    node
}

fn up(node: &mut Node, consumer: &mut Consumer, packets: &[Vec<u8>]) -> Output {
    let messages: Vec<_> = packets.iter().map(|packet| consumer.seal(packet)).collect();
    let endpoint = consumer.endpoint;
    node.iterate(|pipeline| {
        messages.iter().for_each(|message| pipeline.handle_datagram(endpoint, message));
    })
}

fn down(node: &mut Node, packet: &[u8]) -> Output {
    let mut buffer = packet.to_vec();
    buffer.extend([0xaa; TAILROOM]);
    node.iterate(|pipeline| pipeline.handle_return_packet(&mut buffer, packet.len()))
}

/// The consumer sends a datagram to port 53 of a server.
fn ask(node: &mut Node, consumer: &mut Consumer, server: IpAddr) -> Output {
    let question = udp(consumer.v4, server, 40_000, b"question");
    up(node, consumer, &[question])
}

/// The addresses and ports of a packet with right checksums.
fn tuple(packet: &[u8]) -> (IpAddr, u16, IpAddr, u16) {
    // Without WireGuard's padding.
    let packet = weir_packet::headers::whole(packet).expect("a whole packet");
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let (source, destination) = match sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        Some(NetSlice::Ipv6(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        _ => panic!("no IP"),
    };
    let transport = Transport::parse(packet).expect("TCP or UDP");
    assert!(transport.checksum_is_right(packet), "the checksum");
    match sliced.transport {
        Some(TransportSlice::Tcp(l4)) => {
            (source, l4.source_port(), destination, l4.destination_port())
        }
        Some(TransportSlice::Udp(l4)) => {
            (source, l4.source_port(), destination, l4.destination_port())
        }
        _ => panic!("neither TCP nor UDP"),
    }
}

/// The IP packet of the one frame that left.
fn only_frame(output: &Output) -> &[u8] {
    assert!(output.frames.is_empty(), "nothing for the TUN device");
    let [(_, frame)] = &output.uplink[..] else { panic!("one frame: {:?}", output.uplink.len()) };
    assert_eq!(frame[..6], ROUTER.0);
    assert_eq!(frame[6..12], OWN.0);
    &frame[ETHERNET_HEADER..]
}

#[test]
fn a_datagram_and_its_answer_are_translated() {
    let mut node = node(1, AllowAll);
    let mut consumer = node.connect(3);
    for (own, server, external) in
        [(consumer.v4, SERVER_V4, EXTERNAL.into()), (consumer.v6, SERVER_V6, EXTERNAL_V6.into())]
    {
        let output = up(&mut node, &mut consumer, &[udp(own, server, 40_000, b"question")]);
        let (source, port, destination, to) = tuple(only_frame(&output));
        assert_eq!((source, destination, to), (external, server, 53));
        assert!((4096..=32767).contains(&port));
        let mut answer = udp(server, external, 53, b"answer!!");
        // The helper sends to port 53: turn it around.
        answer = turned(&answer, 53, port);
        let output = down(&mut node, &answer);
        let [(_, message)] = &output.datagrams[..] else { panic!("one datagram") };
        let opened = consumer.open(message);
        assert_eq!(tuple(&opened), (server, 53, own, 40_000));
        assert!(opened.windows(8).any(|bytes| bytes == b"answer!!"));
    }
    // With the keepalive that ended the handshake.
    assert_eq!(node.counters(Slot(3)).packets_up, 3);
    assert_eq!(node.counters(Slot(3)).packets_down, 2);
}

/// The datagram with these ports.
fn turned(packet: &[u8], source: u16, destination: u16) -> Vec<u8> {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let Some(TransportSlice::Udp(l4)) = sliced.transport else { panic!("no UDP") };
    let builder = match sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            PacketBuilder::ipv4(ip.header().source(), ip.header().destination(), 64)
        }
        Some(NetSlice::Ipv6(ip)) => {
            PacketBuilder::ipv6(ip.header().source(), ip.header().destination(), 64)
        }
        _ => panic!("no IP"),
    };
    let mut out = Vec::new();
    builder.udp(source, destination).write(&mut out, l4.payload()).expect("a packet");
    out
}

#[test]
fn segments_of_a_flow_leave_as_one_super_packet() {
    let mut node = node(1, AllowAll);
    let mut consumer = node.connect(0);
    let syn = tcp(consumer.v4, SERVER_V4, 100, b"", |it| (it.syn, it.ack) = (true, false));
    up(&mut node, &mut consumer, &[syn]);
    let segments: Vec<_> = (0..10)
        .map(|number| tcp(consumer.v4, SERVER_V4, 101 + number * 1000, &[7; 1000], |_| ()))
        .collect();
    let output = up(&mut node, &mut consumer, &segments);
    let [(header, frame)] = &output.uplink[..] else { panic!("one frame") };
    assert_eq!(header.gso_size, 1000);
    assert_eq!(usize::from(header.header_len), ETHERNET_HEADER + 40);
    assert_eq!(header.checksum, Some((ETHERNET_HEADER as u16 + 20, 16)));
    assert_eq!(frame.len(), ETHERNET_HEADER + 40 + 10_000);
    // Refused by the uplink: then one by one, each with its own Ethernet header and checksum.
    let messages: Vec<_> =
        segments.iter().map(|segment| consumer.seal(&moved(segment, 10_000))).collect();
    node.pipeline.begin(node.now);
    messages.iter().for_each(|it| node.pipeline.handle_datagram(consumer.endpoint, it));
    node.pipeline.finish();
    let mut sent = Vec::new();
    node.pipeline.write_segments(Device::Uplink, 0, |frame| {
        sent.push(frame[10..].to_vec());
        true
    });
    assert_eq!(sent.len(), 10);
    for frame in &sent {
        assert_eq!(frame[..6], ROUTER.0);
        assert_eq!(tuple(&frame[ETHERNET_HEADER..]).0, IpAddr::from(EXTERNAL));
    }
}

/// The segment with a sequence number that is larger by this.
fn moved(segment: &[u8], by: u32) -> Vec<u8> {
    let sliced = SlicedPacket::from_ip(segment).expect("a packet");
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(l4))) = (sliced.net, sliced.transport)
    else {
        panic!("no TCP")
    };
    let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
    tcp(from.into(), to.into(), l4.sequence_number() + by, l4.payload(), |_| ())
}

#[test]
fn few_packets_leave_as_single_frames_in_order() {
    let mut node = node(1, AllowAll);
    node.pipeline.divide_small();
    let mut consumer = node.connect(0);
    let syn = tcp(consumer.v4, SERVER_V4, 100, b"", |it| (it.syn, it.ack) = (true, false));
    let output = up(&mut node, &mut consumer, &[syn]);
    assert_eq!((output.uplink.len(), output.small.len()), (0, 1));
    let two: Vec<_> = (0..2)
        .map(|number| tcp(consumer.v4, SERVER_V4, 101 + number * 1000, &[7; 1000], |_| ()))
        .collect();
    let output = up(&mut node, &mut consumer, &two);
    assert!(output.uplink.is_empty());
    for (number, frame) in output.small.iter().enumerate() {
        let packet = &frame[ETHERNET_HEADER..];
        assert_eq!(tuple(packet).0, IpAddr::from(EXTERNAL));
        assert_eq!(weir_packet::headers::word(packet, 24), 101 + number as u32 * 1000);
    }
    assert_eq!(output.small.len(), 2);
    // A third one ends the iteration before a single: both go the same way.
    let mut many: Vec<_> = (2..6)
        .map(|number| tcp(consumer.v4, SERVER_V4, 101 + number * 1000, &[7; 1000], |_| ()))
        .collect();
    many.push(tcp(consumer.v4, SERVER_V4, 6101, b"", |it| it.fin = true));
    let output = up(&mut node, &mut consumer, &many);
    assert_eq!((output.uplink.len(), output.small.len()), (2, 0));
}

#[test]
fn a_refused_flow_is_answered_and_nothing_leaves() {
    let mut node = node(1, Without(443));
    let mut consumer = node.connect(0);
    let syn = tcp(consumer.v4, SERVER_V4, 100, b"", |it| (it.syn, it.ack) = (true, false));
    let output = up(&mut node, &mut consumer, &[syn]);
    assert!(output.uplink.is_empty() && output.frames.is_empty());
    assert_eq!(node.dropped(DropReason::Policy), 1);
    let [(_, message)] = &output.datagrams[..] else { panic!("one answer") };
    let answer = consumer.open(message);
    assert_eq!(tuple(&answer), (SERVER_V4, 443, consumer.v4, 40_000));
    let Some(TransportSlice::Tcp(reset)) = SlicedPacket::from_ip(&answer).expect("TCP").transport
    else {
        panic!("no TCP")
    };
    assert!(reset.rst() && reset.ack());
    assert_eq!(reset.acknowledgment_number(), 101);
}

#[test]
fn nobody_outside_reaches_a_consumer_that_did_not_ask() {
    let mut node = node(1, AllowAll);
    let mut consumer = node.connect(0);
    let first = ask(&mut node, &mut consumer, SERVER_V4);
    let (_, port, ..) = tuple(only_frame(&first));
    let stranger = IpAddr::from([45, 9, 9, 9]);
    for (from, to_port) in [(stranger, port), (SERVER_V4, port ^ 1), (SERVER_V4, 9)] {
        let packet = turned(&udp(from, EXTERNAL.into(), 53, b"hello"), 53, to_port);
        let output = down(&mut node, &packet);
        assert!(output.datagrams.is_empty(), "{from} {to_port}");
    }
    let refused = node.dropped(DropReason::DownFiltered) + node.dropped(DropReason::DownNoFlow);
    assert_eq!(refused, 3);
}

#[test]
fn a_flow_ends_with_its_session() {
    let mut node = node(1, AllowAll);
    let mut consumer = node.connect(0);
    let first = ask(&mut node, &mut consumer, SERVER_V4);
    let (_, port, ..) = tuple(only_frame(&first));
    let answer = turned(&udp(SERVER_V4, EXTERNAL.into(), 53, b"answer"), 53, port);
    assert_eq!(down(&mut node, &answer).datagrams.len(), 1);
    node.pipeline.remove(Slot(0));
    // The next one in the slot.
    node.connect(0);
    assert!(down(&mut node, &answer).datagrams.is_empty());
    assert_eq!(node.dropped(DropReason::DownNoFlow), 1);
}

#[test]
fn the_gateway_stays_on_the_tun_device() {
    let mut node = node(1, AllowAll);
    let mut consumer = node.connect(0);
    let gateway = node.shared.addresses.gateway_v4().into();
    let output = ask(&mut node, &mut consumer, gateway);
    assert!(output.uplink.is_empty());
    let [(_, packet)] = &output.frames[..] else { panic!("one packet") };
    assert_eq!(tuple(packet), (consumer.v4, 40_000, gateway, 53));
}

#[test]
fn what_has_no_link_address_yet_waits_for_it() {
    let asked = Arc::<Mutex<Vec<IpAddr>>>::default();
    let mut node = node_that_asks(1, AllowAll, Arc::clone(&asked));
    let mut consumer = node.connect(0);
    let empty = NextHops { neighbours: Vec::new(), ..hops() };
    node.pipeline.exit().expect("an exit").set_hops(Arc::new(empty));
    let output = ask(&mut node, &mut consumer, SERVER_V4);
    assert!(output.uplink.is_empty());
    assert_eq!(*asked.lock().expect("a list"), [IpAddr::from([45, 80, 2, 1])]);
    node.pipeline.exit().expect("an exit").set_hops(Arc::new(hops()));
    let output = node.iterate(crate::pipeline::Pipeline::release_held);
    assert_eq!(output.uplink.len(), 1);
    assert_eq!(output.uplink[0].1[..6], ROUTER.0);
    assert!(node.iterate(crate::pipeline::Pipeline::release_held).uplink.is_empty(), "once");
    assert_eq!(node.dropped(DropReason::NextHop), 0);
}

#[test]
fn without_a_route_nothing_leaves() {
    let mut node = node(1, AllowAll);
    let mut consumer = node.connect(0);
    node.pipeline.exit().expect("an exit").set_hops(Arc::default());
    assert!(ask(&mut node, &mut consumer, SERVER_V4).uplink.is_empty());
    assert_eq!(node.dropped(DropReason::NextHop), 1);
}

#[test]
fn what_arrives_at_another_worker_is_handed_over() {
    let mut node = node(2, AllowAll);
    // A port of worker 1's.
    let packet = turned(&udp(SERVER_V4, EXTERNAL.into(), 53, b"answer"), 53, 4096 + 32);
    let output = down(&mut node, &packet);
    let [(1, parcel)] = &output.parcels[..] else { panic!("a parcel for worker 1") };
    let reasons: Vec<_> = parcel.reasons().collect();
    assert_eq!(reasons, [DropReason::DownWorkerQueueFull], "a packet from the uplink");
}

#[test]
fn a_packet_too_big_for_the_tunnel_is_fragmented_or_its_sender_told() {
    let mut node = node(1, AllowAll);
    let mut consumer = node.connect(0);
    let first = ask(&mut node, &mut consumer, SERVER_V4);
    let (_, port, ..) = tuple(only_frame(&first));
    let mut large = turned(&udp(SERVER_V4, EXTERNAL.into(), 53, &[7; 1440]), 53, port);
    let output = down(&mut node, &large);
    assert!(output.datagrams.is_empty(), "it must not be fragmented");
    let told = only_frame(&output);
    let sliced = SlicedPacket::from_ip(told).expect("a packet");
    assert!(matches!(sliced.transport, Some(TransportSlice::Icmpv4(_))));
    assert_eq!(node.dropped(DropReason::DownTooBig), 1);
    large[6] = 0;
    weir_packet::headers::set_v4_checksum(&mut large[..20]);
    let output = down(&mut node, &large);
    assert_eq!(output.datagrams.len(), 2);
}
