//! Nothing is shortened, reordered or made right that was wrong, and marks are carried both ways.

use weir_common::DropReason;

use crate::pipeline::Handled;
use crate::{
    outer::{Checksum, Outer},
    pipeline::outlet::Device,
    testing::{Consumer, Node, SERVER_V4, SERVER_V6, frame, tcp, udp},
};
use weir_packet::{
    checksum::Sum,
    ecn::Ecn,
    gso::{BadPacket, Segmenter},
    headers::set_v4_checksum,
    virtio::{Gso, HEADER_LEN, MAX_TUN_PACKET_LEN, NetHeader},
};

/// Two segments of a flow that would be joined.
fn pair(consumer: &Consumer, v6: bool) -> [Vec<u8>; 2] {
    let (own, server) = if v6 { (consumer.v6, SERVER_V6) } else { (consumer.v4, SERVER_V4) };
    [0, 600].map(|sequence| tcp(own, server, sequence, &[7; 600], |_| {}))
}

/// Sends packets in one output, and returns what came out.
fn send(node: &mut Node, consumer: &mut Consumer, packets: &[Vec<u8>]) -> Vec<(Gso, Vec<u8>)> {
    let sealed: Vec<_> = packets.iter().map(|packet| consumer.seal(packet)).collect();
    let output =
        node.iterate(|p| sealed.iter().for_each(|d| p.handle_datagram(consumer.endpoint, d)));
    output.frames.into_iter().map(|(header, packet)| (header.gso, packet)).collect()
}

fn alone(packets: &[Vec<u8>]) -> Vec<(Gso, Vec<u8>)> {
    packets.iter().map(|packet| (Gso::None, packet.clone())).collect()
}

#[test]
fn packets_with_a_wrong_ipv4_header_checksum_are_passed_on_as_they_are() {
    for wrong in [[true, true], [true, false], [false, true]] {
        let mut node = Node::new(4, 1, 0);
        let mut consumer = node.connect(0);
        let mut packets = pair(&consumer, false);
        for (packet, wrong) in packets.iter_mut().zip(wrong) {
            packet[10] ^= u8::from(wrong);
        }
        assert_eq!(send(&mut node, &mut consumer, &packets), alone(&packets), "{wrong:?}");
    }
}

#[test]
fn packets_with_ipv4_options_are_not_joined() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let packets = pair(&consumer, false).map(|mut packet| {
        // Four bytes of "no operation".
        packet.splice(20..20, [1; 4]);
        packet[0] = 0x46;
        let total = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&total);
        set_v4_checksum(&mut packet[..24]);
        packet
    });
    assert_eq!(send(&mut node, &mut consumer, &packets), alone(&packets));
}

#[test]
fn a_fragment_is_overtaken_by_nothing_of_its_flow() {
    for v6 in [false, true] {
        let mut node = Node::new(4, 1, 0);
        let mut consumer = node.connect(0);
        let (own, server) = if v6 { (consumer.v6, SERVER_V6) } else { (consumer.v4, SERVER_V4) };
        let datagram = |fill: u8| udp(own, server, 9, &[fill; 500]);
        let mut fragment = datagram(3);
        if v6 {
            // A fragment header: the last one, at offset 8.
            fragment.splice(40..40, [17, 0, 0, 8, 0, 0, 0, 1]);
            fragment[6] = 44;
            let payload = (fragment.len() as u16 - 40).to_be_bytes();
            fragment[4..6].copy_from_slice(&payload);
        } else {
            fragment[6..8].copy_from_slice(&[0, 1]);
            set_v4_checksum(&mut fragment[..20]);
        }
        let another = udp(own, server, 10, &[9; 500]);
        let packets =
            [datagram(1), datagram(2), fragment.clone(), datagram(4), another, datagram(5)];
        let came = send(&mut node, &mut consumer, &packets);
        let at = came.iter().position(|(_, packet)| *packet == fragment).expect("the fragment");
        let before: usize = came[..at].iter().map(|(_, packet)| packet.len()).sum();
        assert!(before < 3 * packets[0].len(), "two came before it and two leave before it");
        assert!(came[..at].iter().all(|(_, packet)| !packet.ends_with(&[4; 500])));
        assert_eq!(came.len(), 4, "before and behind it packets are joined");
    }
}

/// A super-packet from the internet, as the kernel hands it over.
fn super_packet(consumer: &Consumer, v6: bool, payload: usize) -> (NetHeader, Vec<u8>) {
    let (server, own) = if v6 { (SERVER_V6, consumer.v6) } else { (SERVER_V4, consumer.v4) };
    let packet = udp(server, own, 9, &vec![8; payload]);
    let at = if v6 { 40 } else { 20 };
    let header =
        NetHeader { gso: Gso::Udp, gso_size: 1200, header_len: at + 8, checksum: Some((at, 6)) };
    (header, packet)
}

#[test]
fn a_super_packet_that_is_shorter_than_it_says_is_dropped_and_counted() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.connect(0);
    for v6 in [false, true] {
        let (header, packet) = super_packet(&consumer, v6, 5000);
        assert!(Segmenter::plan(&header, &packet).is_ok());
        for missing in [1, 9, 1000] {
            let short = &packet[..packet.len() - missing];
            assert_eq!(Segmenter::plan(&header, short).err(), Some(BadPacket));
            let before = node.dropped(DropReason::DownMalformed);
            let (mut bytes, len) = frame(header, short);
            let output =
                node.iterate(|p| assert_eq!(p.handle_tun_packet(&mut bytes, len), Handled::Done));
            assert!(output.datagrams.is_empty());
            assert_eq!(node.dropped(DropReason::DownMalformed), before + 1);
        }
        let (mut bytes, len) = frame(NetHeader::PLAIN, &packet[..1000]);
        let output =
            node.iterate(|p| assert_eq!(p.handle_tun_packet(&mut bytes, len), Handled::Done));
        assert!(output.datagrams.is_empty(), "nor is one that is no super-packet");
    }
}

#[test]
fn the_largest_super_packets_fit_the_buffer_and_keep_their_end() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    for (v6, payload) in [(false, 65_507), (true, 65_487), (true, 65_527)] {
        let (header, packet) = super_packet(&consumer, v6, payload);
        let (mut bytes, len) = frame(header, &packet);
        assert!(len <= MAX_TUN_PACKET_LEN, "{len}");
        let output =
            node.iterate(|p| assert_eq!(p.handle_tun_packet(&mut bytes, len), Handled::Done));
        let headers = if v6 { 48 } else { 28 };
        let came: usize =
            output.datagrams.iter().map(|(_, sealed)| consumer.open(sealed).len() - headers).sum();
        assert_eq!(came, payload);
    }
}

#[test]
fn what_follows_a_packet_is_no_part_of_it() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let packet = udp(SERVER_V4, consumer.v4, 9, b"an answer");
    let mut longer = packet.clone();
    longer.extend([0x55; 40]);
    let (mut bytes, len) = frame(NetHeader::PLAIN, &longer);
    let output = node.iterate(|p| assert_eq!(p.handle_tun_packet(&mut bytes, len), Handled::Done));
    assert_eq!(consumer.open(&output.datagrams[0].1), packet);
}

#[test]
fn a_super_packet_with_a_wrong_header_or_a_finished_checksum_is_not_cut() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.connect(0);
    let (header, mut packet) = super_packet(&consumer, false, 5000);
    for checksum in [None, Some((20, 16)), Some((24, 6))] {
        let other = NetHeader { checksum, ..header };
        assert_eq!(Segmenter::plan(&other, &packet).err(), Some(BadPacket), "{checksum:?}");
    }
    packet[10] ^= 1;
    assert_eq!(Segmenter::plan(&header, &packet).err(), Some(BadPacket));
}

/// Gives a packet this mark, with a right checksum.
fn mark(packet: &mut [u8], ecn: Ecn) {
    if packet[0] >> 4 == 6 {
        packet[1] |= (ecn as u8) << 4;
    } else {
        packet[1] = ecn as u8;
        set_v4_checksum(&mut packet[..20]);
    }
}

#[test]
fn a_congestion_mark_on_the_way_reaches_the_packet_or_drops_it() {
    for (v6, inner, outer, wanted) in [
        (false, Ecn::Ect0, Ecn::Ce, Some(Ecn::Ce)),
        (true, Ecn::Ect1, Ecn::Ce, Some(Ecn::Ce)),
        (false, Ecn::Ect0, Ecn::NotEct, Some(Ecn::Ect0)),
        (true, Ecn::NotEct, Ecn::Ect0, Some(Ecn::NotEct)),
        (false, Ecn::NotEct, Ecn::Ce, None),
        (true, Ecn::NotEct, Ecn::Ce, None),
    ] {
        let mut node = Node::new(4, 1, 0);
        let mut consumer = node.connect(0);
        let mut packet = pair(&consumer, v6)[0].clone();
        mark(&mut packet, inner);
        let headers = Outer { from: consumer.endpoint, ecn: outer, checksum: Checksum::Right };
        let sealed = consumer.seal(&packet);
        let output = node.iterate(|p| p.handle_udp_batch(headers, &sealed, sealed.len()));
        let came = output.frames.first().map(|(_, packet)| packet);
        assert_eq!(came.map(|packet| Ecn::of_packet(packet)), wanted, "{inner:?} {outer:?}");
        if let Some(came) = came
            && !v6
        {
            assert_eq!(Sum::default().bytes(&came[..20]).folded(), 0xffff);
        }
        assert_eq!(node.dropped(DropReason::Ecn), u64::from(wanted.is_none()));
    }
}

#[test]
fn packets_with_different_marks_are_not_joined() {
    for v6 in [false, true] {
        let mut node = Node::new(4, 1, 0);
        let mut consumer = node.connect(0);
        let mut packets = pair(&consumer, v6);
        packets.iter_mut().for_each(|packet| mark(packet, Ecn::Ect0));
        let outers = [Ecn::NotEct, Ecn::Ce];
        let sealed: Vec<_> = packets.iter().map(|packet| consumer.seal(packet)).collect();
        let output = node.iterate(|p| {
            for (sealed, ecn) in sealed.iter().zip(outers) {
                let headers = Outer { from: consumer.endpoint, ecn, checksum: Checksum::Right };
                p.handle_datagram(headers, sealed);
            }
        });
        let marks: Vec<_> =
            output.frames.iter().map(|(header, p)| (header.gso, Ecn::of_packet(p))).collect();
        assert_eq!(marks, [(Gso::None, Ecn::Ect0), (Gso::None, Ecn::Ce)]);
    }
}

#[test]
fn a_packet_is_sent_with_the_mark_that_it_has() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.connect(0);
    let marks = [Ecn::Ect0, Ecn::Ect0, Ecn::Ce, Ecn::NotEct];
    node.pipeline.begin(node.now);
    for (number, ecn) in marks.into_iter().enumerate() {
        let mut packet = udp(SERVER_V4, consumer.v4, 1, &[number as u8; 100]);
        mark(&mut packet, ecn);
        let (mut bytes, len) = frame(NetHeader::PLAIN, &packet);
        assert_eq!(node.pipeline.handle_tun_packet(&mut bytes, len), Handled::Done);
    }
    node.pipeline.finish();
    let batches: Vec<_> =
        node.pipeline.gso_batches().iter().map(|batch| (batch.ecn, batch.datagrams)).collect();
    assert_eq!(batches, [(Ecn::Ect0, 2), (Ecn::Ce, 1), (Ecn::NotEct, 1)]);
}

/// A device that takes no super-packets: what it was given otherwise, virtio headers included.
fn refuse_super_packets(node: &mut Node) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    for index in 0..node.pipeline.packets(Device::Tun).len() {
        let frame = node.pipeline.packets(Device::Tun)[index];
        let bytes: Vec<u8> =
            node.pipeline.packet_bytes(Device::Tun, &frame).flatten().copied().collect();
        if frame.gso == Gso::None {
            taken.push(bytes);
            node.pipeline.write_done(Device::Tun, &frame, true);
        } else {
            node.pipeline.write_segments(Device::Tun, index, |bytes| {
                taken.push(bytes.to_vec());
                true
            });
        }
    }
    taken
}

#[test]
fn a_device_that_refuses_super_packets_gets_each_packet_as_it_came() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let mut packets = Vec::new();
    for (own, server) in [(consumer.v4, SERVER_V4), (consumer.v6, SERVER_V6)] {
        packets.extend((0..5u32).map(|i| {
            let len = if i == 4 { 300 } else { 1000 };
            tcp(own, server, 1000 * i, &vec![i as u8; len], |header| header.psh = i == 4)
        }));
        packets.extend([900, 900, 40].map(|len| udp(own, server, 9, &vec![5; len])));
    }
    let sealed: Vec<_> = packets.iter().map(|packet| consumer.seal(packet)).collect();
    let written = node.pipeline.stats().boundaries().tun_write.packets;
    node.pipeline.begin(node.now);
    sealed.iter().for_each(|datagram| node.pipeline.handle_datagram(consumer.endpoint, datagram));
    node.pipeline.finish();
    assert!(node.pipeline.packets(Device::Tun).iter().all(|frame| frame.gso != Gso::None));
    let plain = NetHeader::PLAIN.to_bytes();
    for frame in refuse_super_packets(&mut node) {
        let (header, packet) = frame.split_at(HEADER_LEN);
        assert_eq!(header, plain);
        let at = packets.iter().position(|sent| sent == packet);
        packets.swap_remove(at.expect("each leaves once, and as it came"));
    }
    assert!(packets.is_empty(), "{} are missing", packets.len());
    assert_eq!(node.pipeline.stats().boundaries().tun_write.packets, written + 16);
    assert_eq!(node.dropped(DropReason::TunWrite), 0);
}

#[test]
fn a_device_that_goes_on_refusing_is_given_none_for_a_minute_and_the_status_says_so() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let without = |node: &Node| {
        node.pipeline.stats().without.tun_tcp.load(std::sync::atomic::Ordering::Relaxed)
    };
    let mut tried = 0;
    for _ in 0..20 {
        let packets = pair(&consumer, false);
        let sealed: Vec<_> = packets.iter().map(|packet| consumer.seal(packet)).collect();
        node.pipeline.begin(node.now);
        sealed
            .iter()
            .for_each(|datagram| node.pipeline.handle_datagram(consumer.endpoint, datagram));
        node.pipeline.finish();
        tried += node
            .pipeline
            .packets(Device::Tun)
            .iter()
            .filter(|frame| frame.gso != Gso::None)
            .count();
        assert_eq!(refuse_super_packets(&mut node).len(), 2);
    }
    assert_eq!(tried, 8);
    assert!(without(&node));
    node.now.nanos += 60_000_000_000;
    let packets = pair(&consumer, false);
    let came = send(&mut node, &mut consumer, &packets);
    assert_eq!(came.len(), 1, "it is tried again, and taken now");
    assert!(!without(&node));
}
