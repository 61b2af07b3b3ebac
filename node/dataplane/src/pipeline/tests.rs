mod billing;
mod credit;
mod exit;
mod flow_limits;
mod integrity;
mod iterations;
mod meters;
mod parcels;
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
