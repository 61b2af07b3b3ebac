//! What is not for this iteration, or not for this worker.

use super::*;

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
    let mut again = Node {
        pipeline: crate::pipeline::Pipeline::new(node.shared.clone(), 0, Default::default()),
        ..node
    };
    let spec = weir_accounts::PeerSpec {
        slot: Slot(0),
        public_key: weir_common::PublicKey([9; 32]),
        preshared_key: None,
        address_v4: again.shared.addresses.address_v4(Slot(0)).expect("an address"),
        address_v6: again.shared.addresses.address_v6(Slot(0)).expect("an address"),
    };
    let index = again.shared.permutation.index_of(Slot(0));
    let tunnel = weir_wireguard::tunnel::Tunnel::new(&crate::testing::identity(), [9; 32], index);
    let accounts = again.shared.accounts.clone();
    again.pipeline.add(Box::new(crate::peer::Peer::new(&spec, tunnel, accounts)));
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
        (Owner::Handshakes, Misdirected::Datagram(one, _)),
        (Owner::Worker(1), Misdirected::TunPacket(two)),
    ] = &output.misdirected[..]
    else {
        panic!("two misdirected, not {:?}", output.misdirected);
    };
    assert_eq!(one[..], initiation[..]);
    assert_eq!(two[..two.len() - TAILROOM], original);
    let [(1, parcel)] = &output.parcels[..] else { panic!("a parcel for worker 1") };
    assert_eq!(parcel.reasons().collect::<Vec<_>>(), [DropReason::WorkerQueueFull], "a datagram");
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
    pub(super) fn tunn_keepalive(&mut self) -> Vec<u8> {
        self.seal(&[])
    }
}

#[test]
fn of_messages_that_are_opened_together_each_is_judged_by_itself_and_in_order() {
    judges_each_by_itself_and_in_order(Node::new(4, 1, 0));
}

#[test]
fn of_messages_that_helpers_open_each_is_judged_by_itself_and_in_order() {
    judges_each_by_itself_and_in_order(Node::with_helpers(4));
}

fn judges_each_by_itself_and_in_order(mut node: Node) {
    let mut consumers = [node.connect(0), node.connect(1)];
    let mut sealed = Vec::new();
    for number in 0..40u8 {
        let consumer = &mut consumers[usize::from(number % 2)];
        let packet = udp(consumer.v4, SERVER_V4, u16::from(number), &[number; 100]);
        sealed.push((consumer.endpoint, consumer.seal(&packet)));
    }
    let mut forged = sealed[20].1.clone();
    forged[60] ^= 1;
    let mut counter = sealed[6].1.clone();
    counter[8..16].fill(0xff);
    let mut keys = sealed[8].1.clone();
    keys[4] ^= 0x80;
    let replay = sealed[2].1.clone();
    for (at, message) in [(10, forged), (11, counter), (12, keys), (13, replay.clone())] {
        sealed.insert(at, (sealed[0].0, message));
    }
    // In the same batch as the first.
    sealed.insert(4, (sealed[0].0, replay));
    let output = node.iterate(|p| {
        p.handle_datagrams(sealed.iter().map(|(from, message)| ((*from).into(), &message[..])));
    });
    let numbers: Vec<u8> = output.frames.iter().map(|(_, packet)| packet[28]).collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    let dropped = [
        (DropReason::Replay, 2),
        (DropReason::Authentication, 1),
        (DropReason::CounterLimit, 1),
        (DropReason::NoKeys, 1),
    ];
    for (reason, count) in dropped {
        assert_eq!(node.dropped(reason), count, "{reason:?}");
    }
    let billed: u64 = [0, 1].map(|slot| node.counters(Slot(slot)).bytes_up).iter().sum();
    assert_eq!(billed, 40 * (128 + 32) + 2 * 32, "each message once, and the first keepalives");
}

#[test]
fn a_consumer_that_moves_within_a_batch_is_where_it_sent_from_last() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let mut elsewhere = consumer.endpoint;
    elsewhere.remote.set_port(9999);
    let sealed: Vec<_> = (0..6u8)
        .map(|number| {
            let from = if number < 3 { consumer.endpoint } else { elsewhere };
            (from, consumer.seal(&udp(consumer.v4, SERVER_V4, u16::from(number), b"x")))
        })
        .collect();
    let output = node.iterate(|p| {
        p.handle_datagrams(sealed.iter().map(|(from, message)| ((*from).into(), &message[..])));
    });
    assert_eq!(output.frames.len(), 6);
    assert_eq!(node.endpoint(Slot(0)), Some(elsewhere));
}

#[test]
fn packets_that_are_sealed_together_open_with_the_keys_of_their_time() {
    opens_with_the_keys_of_its_time(Node::new(4, 1, 0));
}

#[test]
fn packets_that_helpers_seal_open_with_the_keys_of_their_time() {
    opens_with_the_keys_of_its_time(Node::with_helpers(4));
}

fn opens_with_the_keys_of_its_time(mut node: Node) {
    let mut consumers = [node.connect(0), node.connect(1)];
    let packets: Vec<_> = (0..100u8)
        .map(|number| udp(SERVER_V4, consumers[usize::from(number % 2)].v4, 1, &[number; 9]))
        .collect();
    let initiation = consumers[0].initiation();
    let keepalive = consumers[0].seal(&[]);
    let output = node.iterate(|p| {
        for packet in &packets {
            let (mut bytes, len) = frame(NetHeader::PLAIN, packet);
            assert_eq!(p.handle_tun_packet(&mut bytes, len), Handled::Done);
        }
        // A rekey, and the end of a session, with packets that are not sealed yet.
        p.handle_initiation(&initiation);
        p.remove(Slot(1));
        p.handle_datagram(consumers[0].endpoint, &keepalive);
    });
    let datagrams = output.datagrams.iter().filter(|(kind, _)| *kind == BatchKind::Metered);
    let opened: Vec<_> = datagrams
        .map(|(_, datagram)| {
            let receiver = u32::from_le_bytes(datagram[4..8].try_into().expect("an index"));
            // Both consumers begin their receiver indexes with 5, and only one can open it.
            assert_eq!(receiver >> 8, 5);
            let mut out = vec![0; datagram.len()];
            consumers.iter_mut().find_map(|consumer| {
                match consumer.tunn.decapsulate(None, datagram, &mut out) {
                    boringtun::noise::TunnResult::WriteToTunnelV4(packet, _) => {
                        Some(packet.to_vec())
                    }
                    _ => None,
                }
            })
        })
        .collect();
    assert_eq!(opened.len(), 100);
    assert!(opened.iter().all(|packet| packet.as_ref().is_some_and(|p| packets.contains(p))));
}
