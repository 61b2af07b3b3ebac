mod credit;
mod exit;
mod flow_limits;
mod integrity;
mod meters;
mod rates;
mod tunnel;

use proptest::prelude::*;
use weir_common::{DropReason, Slot, account::SessionState};

use super::{Handled, Misdirected, Owner, TAILROOM};
use crate::{
    mailbox::Initiation,
    pipeline::gso_batch::BatchKind,
    testing::{Consumer, MTU, Node, SERVER_V4, SERVER_V6, frame, tcp, udp},
};
use weir_packet::{
    gso::Segmenter,
    virtio::{Gso, NetHeader},
};

/// A bulk TCP flow of `count` segments from the consumer.
fn flow(consumer: &mut Consumer, count: u32, size: usize, port: u16) -> Vec<Vec<u8>> {
    (0..count)
        .map(|i| {
            let payload = vec![i as u8; size];
            let sequence = 1000 + i * size as u32;
            tcp(consumer.v4, SERVER_V4, sequence, &payload, |header| header.source_port = port)
        })
        .collect()
}

fn sealed(consumer: &mut Consumer, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    packets.iter().map(|packet| consumer.seal(packet)).collect()
}

/// Cuts a frame back into packets.
fn cut(header: &NetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    if header.gso == Gso::None {
        return vec![packet.to_vec()];
    }
    let cut = Segmenter::plan(header, packet).expect("a frame that can be cut");
    let mut packets = Vec::new();
    cut.for_each(&mut packet.to_vec(), |buffer, start, len| {
        packets.push(buffer[start..start + len].to_vec());
    });
    packets
}

/// Without what cutting changes: IPv4 identifications count up from the first packet's, which
/// nobody reads in packets that must not be fragmented (RFC 6864).
fn normal(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

fn same(came: &[Vec<u8>], sent: &[Vec<u8>]) -> bool {
    came.len() == sent.len() && came.iter().zip(sent).all(|(a, b)| normal(a) == normal(b))
}

#[test]
fn a_bulk_flow_becomes_one_super_packet_and_comes_apart_as_it_was() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let packets = flow(&mut consumer, 40, 1360, 1);
    let datagrams = sealed(&mut consumer, &packets).concat();
    let output =
        node.iterate(|p| p.handle_udp_batch(consumer.endpoint, &datagrams, 1360 + 40 + 32));
    let [(header, packet)] = &output.frames[..] else { panic!("one frame") };
    assert_eq!((header.gso, header.gso_size), (Gso::TcpV4, 1360));
    assert!(same(&cut(header, packet), &packets));
}

#[test]
fn interleaved_flows_become_a_super_packet_each() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let flows: Vec<_> = (0..8).map(|port| flow(&mut consumer, 20, 1000, port)).collect();
    let mixed: Vec<_> =
        (0..20).flat_map(|i| flows.iter().map(move |flow| flow[i].clone())).collect();
    let datagrams = sealed(&mut consumer, &mixed).concat();
    let output =
        node.iterate(|p| p.handle_udp_batch(consumer.endpoint, &datagrams, 1000 + 40 + 32));
    assert_eq!(output.frames.len(), 8);
    for ((header, packet), flow) in output.frames.iter().zip(&flows) {
        assert!(same(&cut(header, packet), flow));
    }
}

#[test]
fn packets_that_the_kernel_would_not_join_stay_apart() {
    type Change = fn(&mut etherparse::TcpHeader);
    let changes: &[(&str, Change)] = &[
        ("another acknowledgment", |h| h.acknowledgment_number = 78),
        ("another window", |h| h.window_size = 1),
        ("FIN", |h| h.fin = true),
        ("SYN", |h| h.syn = true),
        ("RST", |h| h.rst = true),
        ("URG", |h| h.urg = true),
        ("ECE", |h| h.ece = true),
        ("CWR", |h| h.cwr = true),
        ("a gap", |h| h.sequence_number += 1),
        ("a repetition", |h| h.sequence_number -= 1000),
        ("options", |h| h.set_options_raw(&[1, 1, 1, 1]).expect("options")),
    ];
    for (what, change) in changes {
        let mut node = Node::new(4, 1, 0);
        let mut consumer = node.connect(0);
        let first = tcp(consumer.v4, SERVER_V4, 0, &[1; 1000], |_| {});
        let second = tcp(consumer.v4, SERVER_V4, 1000, &[2; 1000], change);
        let (one, two) = (consumer.seal(&first), consumer.seal(&second));
        let output = node.iterate(|p| {
            p.handle_datagram(consumer.endpoint, &one);
            p.handle_datagram(consumer.endpoint, &two);
        });
        let frames: Vec<_> = output.frames.iter().map(|(header, p)| (header.gso, p)).collect();
        assert_eq!(frames, [(Gso::None, &first), (Gso::None, &second)], "{what}");
    }
}

#[test]
fn a_corrupt_packet_is_passed_on_as_it_is_and_joins_nothing() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let mut packets = flow(&mut consumer, 4, 1000, 1);
    packets[1][500] ^= 1;
    let datagrams = sealed(&mut consumer, &packets);
    let output =
        node.iterate(|p| datagrams.iter().for_each(|d| p.handle_datagram(consumer.endpoint, d)));
    let came: Vec<_> = output.frames.iter().flat_map(|(header, p)| cut(header, p)).collect();
    assert!(same(&came, &packets));
    assert_eq!(output.frames[1].0.gso, Gso::None, "the corrupt one is alone");
}

#[test]
fn push_ends_a_super_packet_and_is_on_its_last_packet() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let packets: Vec<_> = (0..6u32)
        .map(|i| tcp(consumer.v6, SERVER_V6, i * 500, &[3; 500], |h| h.psh = i == 2))
        .collect();
    let datagrams = sealed(&mut consumer, &packets);
    let output =
        node.iterate(|p| datagrams.iter().for_each(|d| p.handle_datagram(consumer.endpoint, d)));
    assert_eq!(output.frames.len(), 2);
    let came: Vec<_> = output.frames.iter().flat_map(|(header, p)| cut(header, p)).collect();
    assert!(same(&came, &packets));
}

#[test]
fn udp_of_equal_size_is_joined_and_a_shorter_one_ends_it() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let sizes = [1200, 1200, 1200, 700, 1200];
    let packets: Vec<_> =
        sizes.iter().map(|&size| udp(consumer.v6, SERVER_V6, 9, &vec![5; size])).collect();
    let datagrams = sealed(&mut consumer, &packets);
    let output =
        node.iterate(|p| datagrams.iter().for_each(|d| p.handle_datagram(consumer.endpoint, d)));
    assert_eq!(output.frames.len(), 2);
    assert_eq!(output.frames[0].0.gso, Gso::Udp);
    let came: Vec<_> = output.frames.iter().flat_map(|(header, p)| cut(header, p)).collect();
    assert!(same(&came, &packets));
}

#[test]
fn a_super_packet_from_the_internet_becomes_sealed_packets_of_one_run() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let mut packet = tcp(SERVER_V4, consumer.v4, 9, &vec![8; 20 * 1380], |h| h.psh = true);
    packet[36..38].fill(0x55); // whatever the kernel left in the checksum's place
    let header =
        NetHeader { gso: Gso::TcpV4, gso_size: 1380, header_len: 40, checksum: Some((20, 16)) };
    let (mut bytes, len) = frame(header, &packet);
    let output = node.iterate(|p| {
        assert_eq!(p.handle_tun_packet(&mut bytes, len), Handled::Done);
    });
    assert_eq!(output.batches, [20]);
    for (index, (kind, datagram)) in output.datagrams.iter().enumerate() {
        assert_eq!(*kind, BatchKind::Metered);
        let came = consumer.open(datagram);
        let expected = tcp(SERVER_V4, consumer.v4, 9 + 1380 * index as u32, &[8; 1380], |h| {
            h.psh = index == 19
        });
        let (ip, l4) = came.split_at(20);
        assert_eq!(l4, &expected[20..], "packet {index}");
        assert_eq!(u16::from_be_bytes([ip[4], ip[5]]), index as u16, "identification");
    }
}

#[test]
fn runs_grow_across_super_packets_of_one_consumer() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.connect(0);
    let output = node.iterate(|p| {
        for _ in 0..2 {
            let packet = tcp(SERVER_V4, consumer.v4, 9, &vec![8; 22 * 1380], |_| {});
            let header = NetHeader {
                gso: Gso::TcpV4,
                gso_size: 1380,
                header_len: 40,
                checksum: Some((20, 16)),
            };
            let (mut bytes, len) = frame(header, &packet);
            p.handle_tun_packet(&mut bytes, len);
        }
    });
    assert_eq!(output.batches, [44]);
}

#[test]
fn packets_are_padded_to_sixteen_but_not_beyond_the_mtu() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    for (payload, padded) in [(0, 32), (4, 32), (5, 48), (MTU - 28, MTU), (MTU - 29, MTU)] {
        let packet = udp(SERVER_V4, consumer.v4, 9, &vec![1; payload]);
        let (mut bytes, len) = frame(NetHeader::PLAIN, &packet);
        let output = node.iterate(|p| {
            p.handle_tun_packet(&mut bytes, len);
        });
        let [(_, datagram)] = &output.datagrams[..] else { panic!("one datagram") };
        assert_eq!(datagram.len(), padded + 32, "payload of {payload}");
        assert_eq!(consumer.open(datagram), packet);
    }
}

#[test]
fn an_unfinished_checksum_is_completed() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let right = udp(SERVER_V6, consumer.v6, 9, b"an answer");
    let mut packet = right.clone();
    // The kernel leaves the pseudo-header's sum there.
    let partial =
        weir_packet::checksum::pseudo_header(&packet[8..40], 17, packet.len() - 40).folded();
    packet[46..48].copy_from_slice(&partial.to_be_bytes());
    let header = NetHeader { checksum: Some((40, 6)), ..NetHeader::PLAIN };
    let (mut bytes, len) = frame(header, &packet);
    let output = node.iterate(|p| {
        p.handle_tun_packet(&mut bytes, len);
    });
    assert_eq!(consumer.open(&output.datagrams[0].1), right);
}

#[test]
fn a_foreign_inner_source_is_billed_but_goes_nowhere() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let other = node.connect(1);
    let before = node.counters(Slot(0));
    for source in [other.v4, SERVER_V4, other.v6, SERVER_V6] {
        let target = if source.is_ipv4() { SERVER_V4 } else { SERVER_V6 };
        let datagram = consumer.seal(&udp(source, target, 1, b"not mine"));
        let output = node.iterate(|p| p.handle_datagram(consumer.endpoint, &datagram));
        assert!(output.frames.is_empty());
    }
    assert_eq!(node.dropped(DropReason::SourceAddress), 4);
    assert_eq!(node.counters(Slot(0)).packets_up, before.packets_up + 4);
    assert_eq!(node.counters(Slot(1)).packets_up, 1, "only its own keepalive");
}

#[test]
fn billed_bytes_are_the_payload_of_authentic_data_messages_and_once_each() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let base = node.counters(Slot(0));
    let packet = udp(consumer.v4, SERVER_V4, 1, &[0; 100]);
    let datagram = consumer.seal(&packet);
    let mut forged = consumer.seal(&packet);
    forged[20] ^= 1;
    node.iterate(|p| {
        p.handle_datagram(consumer.endpoint, &datagram);
        p.handle_datagram(consumer.endpoint, &datagram);
        p.handle_datagram(consumer.endpoint, &forged);
    });
    let counters = node.counters(Slot(0));
    assert_eq!(counters.bytes_up - base.bytes_up, datagram.len() as u64);
    assert_eq!(counters.packets_up - base.packets_up, 1);
    assert_eq!(node.dropped(DropReason::Replay), 1);
    assert_eq!(node.dropped(DropReason::Authentication), 1);
}

#[test]
fn what_the_kernel_did_not_take_is_not_billed() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.connect(0);
    let base = node.counters(Slot(0));
    let (mut bytes, len) = frame(NetHeader::PLAIN, &udp(SERVER_V4, consumer.v4, 1, &[0; 64]));
    node.pipeline.begin(node.now);
    node.pipeline.handle_tun_packet(&mut bytes, len);
    node.pipeline.finish();
    let batch = node.pipeline.gso_batches()[0];
    node.pipeline.udp_send_done(&batch, 0, 0);
    assert_eq!(node.counters(Slot(0)), base);
    assert_eq!(node.dropped(DropReason::UdpSend), 1);
}

#[test]
fn an_endpoint_moves_with_authentic_data_only() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let mut elsewhere = consumer.endpoint;
    elsewhere.remote.set_port(9);
    let mut forged = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
    forged[20] ^= 1;
    node.iterate(|p| p.handle_datagram(elsewhere, &forged));
    let inside = consumer.v4;
    let answer = |node: &mut Node| {
        let (mut bytes, len) = frame(NetHeader::PLAIN, &udp(SERVER_V4, inside, 1, b"y"));
        node.pipeline.begin(node.now);
        node.pipeline.handle_tun_packet(&mut bytes, len);
        node.pipeline.finish();
        node.pipeline.gso_batches()[0].to.remote
    };
    assert_eq!(answer(&mut node), consumer.endpoint.remote);
    // A new handshake is answered where it came from, and moves nothing before data confirms it.
    let initiation = Initiation { from: elsewhere, ..consumer.initiation() };
    let output = node.iterate(|p| p.handle_initiation(&initiation));
    let [(BatchKind::Handshake, response)] = &output.datagrams[..] else { panic!("one response") };
    assert_eq!(answer(&mut node), consumer.endpoint.remote);
    let confirmation = consumer.take_response(response);
    node.iterate(|p| p.handle_datagram(elsewhere, &confirmation));
    assert_eq!(answer(&mut node), elsewhere.remote);
    let keepalive = consumer.tunn_keepalive();
    node.iterate(|p| p.handle_datagram(consumer.endpoint, &keepalive));
    assert_eq!(answer(&mut node), consumer.endpoint.remote);
}

#[test]
fn a_session_that_is_not_open_passes_nothing() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    node.shared.accounts.get(Slot(0)).expect("an account").set_state(SessionState::Closed);
    let datagram = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
    let (mut bytes, len) = frame(NetHeader::PLAIN, &udp(SERVER_V4, consumer.v4, 1, b"y"));
    let output = node.iterate(|p| {
        p.handle_datagram(consumer.endpoint, &datagram);
        p.handle_tun_packet(&mut bytes, len);
    });
    assert!(output.frames.is_empty() && output.datagrams.is_empty());
    assert_eq!(node.dropped(DropReason::SessionState), 1);
    assert_eq!(node.dropped(DropReason::DownSessionState), 1);
}

#[test]
fn without_keys_a_packet_starts_a_handshake_and_is_not_kept() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.add(0);
    let packet = udp(SERVER_V4, consumer.v4, 1, b"y");
    let send = |node: &mut Node| {
        let (mut bytes, len) = frame(NetHeader::PLAIN, &packet);
        node.iterate(|p| {
            p.handle_tun_packet(&mut bytes, len);
        })
    };
    assert!(send(&mut node).datagrams.is_empty(), "nobody knows where to");
    assert_eq!(node.dropped(DropReason::NoEndpoint), 1);
    consumer.endpoint.save(&node.shared.accounts.get(Slot(0)).expect("an account").worker);
    let mut again =
        Node { pipeline: super::Pipeline::new(node.shared.clone(), 0, Default::default()), ..node };
    let spec = weir_accounts::PeerSpec {
        slot: Slot(0),
        public_key: weir_common::PublicKey([9; 32]),
        address_v4: again.shared.addresses.address_v4(Slot(0)).expect("an address"),
        address_v6: again.shared.addresses.address_v6(Slot(0)).expect("an address"),
    };
    let index = again.shared.permutation.index_of(Slot(0));
    let tunnel =
        weir_wireguard::tunnel::Tunnel::new(&super::super::testing::identity(), [9; 32], index);
    let accounts = again.shared.accounts.clone();
    again.pipeline.add(Box::new(super::Peer::new(&spec, tunnel, accounts)));
    let output = send(&mut again);
    assert_eq!(
        output.datagrams.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [BatchKind::Handshake]
    );
    assert_eq!(again.dropped(DropReason::NotConnected), 1);
    assert!(send(&mut again).datagrams.is_empty(), "one handshake at a time");
}

#[test]
fn strays_go_to_their_owner_unchanged() {
    let mut node = Node::new(8, 2, 0);
    let index = node.shared.permutation.index_of(Slot(3));
    let mut datagram = vec![4, 0, 0, 0];
    datagram.extend_from_slice(&(index.get() << 8).to_le_bytes());
    datagram.resize(64, 0);
    let from = weir_accounts::Endpoint { remote: ([198, 51, 100, 1], 1).into(), local: None };
    let address = std::net::IpAddr::V4(node.shared.addresses.address_v4(Slot(3)).expect("one"));
    let (mut bytes, len) = frame(NetHeader::PLAIN, &udp(SERVER_V4, address, 1, b"y"));
    let original = bytes[..len].to_vec();
    let mut initiation = vec![1, 0, 0, 0];
    initiation.resize(148, 7);
    let output = node.iterate(|p| {
        p.handle_datagram(from, &datagram);
        p.handle_datagram(from, &initiation);
        p.handle_tun_packet(&mut bytes, len);
    });
    let [
        (Owner::Worker(1), Misdirected::Datagram(one, _)),
        (Owner::Handshakes, Misdirected::Datagram(two, _)),
        (Owner::Worker(1), Misdirected::TunPacket(three)),
    ] = &output.misdirected[..]
    else {
        panic!("three misdirected, not {:?}", output.misdirected);
    };
    assert_eq!((&one[..], &two[..]), (&datagram[..], &initiation[..]));
    assert_eq!(three[..three.len() - TAILROOM], original);
}

#[test]
fn a_full_turn_asks_for_another_and_loses_nothing() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.connect(0);
    let packet = tcp(SERVER_V4, consumer.v4, 9, &vec![8; 40 * 1380], |_| {});
    let header =
        NetHeader { gso: Gso::TcpV4, gso_size: 1380, header_len: 40, checksum: Some((20, 16)) };
    node.pipeline.begin(node.now);
    let mut sent = 0;
    loop {
        let (mut bytes, len) = frame(header, &packet);
        let original = bytes.clone();
        match node.pipeline.handle_tun_packet(&mut bytes, len) {
            Handled::Done => sent += 1,
            Handled::NextIteration => {
                assert_eq!(bytes, original, "the frame is as it was");
                break;
            }
        }
        assert!(sent < 1000, "the output has an end");
    }
    node.pipeline.finish();
    let datagrams: u32 =
        node.pipeline.gso_batches().iter().map(|batch| u32::from(batch.datagrams)).sum();
    assert_eq!(datagrams, sent * 40);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever mix of flows comes, each flow comes out complete, in order and unchanged.
    #[test]
    fn every_flow_keeps_its_bytes_and_its_order(
        plan in prop::collection::vec((0u16..5, 0usize..3, any::<bool>(), any::<bool>()), 1..120),
    ) {
        let mut node = Node::new(4, 1, 0);
        let mut consumer = node.connect(0);
        let mut sequences = [0u32; 5];
        let sizes = [100, 733, 1360];
        let packets: Vec<Vec<u8>> = plan
            .iter()
            .map(|&(port, size, push, six)| {
                let (from, to) =
                    if six { (consumer.v6, SERVER_V6) } else { (consumer.v4, SERVER_V4) };
                let payload = vec![port as u8; sizes[size]];
                let place = &mut sequences[usize::from(port)];
                let sequence = *place;
                *place += payload.len() as u32;
                if port == 4 {
                    return udp(from, to, port, &payload);
                }
                tcp(from, to, sequence, &payload, |h| { h.psh = push; h.source_port = port; })
            })
            .collect();
        let datagrams = sealed(&mut consumer, &packets);
        let output = node.iterate(|p| datagrams.iter().for_each(|d| p.handle_datagram(consumer.endpoint, d)));
        let came: Vec<_> = output.frames.iter().flat_map(|(header, p)| cut(header, p)).collect();
        prop_assert_eq!(came.len(), packets.len());
        let flow_of = |packet: &Vec<u8>| {
            let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
            (packet[0] >> 4, packet[at + 1])
        };
        for version in [4, 6] {
            for port in 0..5u8 {
                let of = |list: &[Vec<u8>]| -> Vec<Vec<u8>> {
                    list.iter().filter(|p| flow_of(p) == (version, port)).cloned().collect()
                };
                prop_assert!(same(&of(&came), &of(&packets)), "flow {} of IPv{}", port, version);
            }
        }
    }

    /// Nothing that a frame can hold makes the node panic.
    #[test]
    fn no_frame_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..6, size in 0u16..100) {
        let mut node = Node::new(4, 1, 0);
        let consumer = node.connect(0);
        if let Some(head) = bytes.first_chunk_mut::<10>() {
            head[1] = kind;
            head[4..6].copy_from_slice(&size.to_ne_bytes());
        }
        if let (Some(destination), std::net::IpAddr::V4(address)) = (bytes.get_mut(26..30), consumer.v4) {
            destination.copy_from_slice(&address.octets());
            bytes[10] = 0x45 | bytes[10] & 0x0f;
        }
        let len = bytes.len();
        bytes.resize(len + TAILROOM, 0);
        node.iterate(|p| { p.handle_tun_packet(&mut bytes, len); });
    }

    /// Nothing that a datagram can hold makes the node panic.
    #[test]
    fn no_datagram_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..6, known: bool, segment in 0usize..80) {
        let mut node = Node::new(4, 1, 0);
        let consumer = node.connect(0);
        if let Some(head) = bytes.first_chunk_mut::<12>() {
            *head = [0; 12];
            head[0] = kind;
            if known {
                let index = node.shared.permutation.index_of(Slot(0)).get() << 8 | 1;
                head[4..8].copy_from_slice(&index.to_le_bytes());
                head[8..12].copy_from_slice(&index.to_le_bytes());
            }
        }
        let output = node.iterate(|p| p.handle_udp_batch(consumer.endpoint, &bytes, segment));
        prop_assert!(output.frames.is_empty());
    }
}

impl Consumer {
    fn tunn_keepalive(&mut self) -> Vec<u8> {
        self.seal(&[])
    }
}
