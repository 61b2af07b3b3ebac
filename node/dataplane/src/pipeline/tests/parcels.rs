//! What arrives at another worker than its session's.

use std::net::IpAddr;

use weir_accounts::Endpoint;
use weir_common::DropReason;
use weir_packet::{checksum::pseudo_header, ecn::Ecn, headers::UDP};

use crate::{
    outer::{Checksum, Outer},
    pipeline::parcel::Parcel,
    testing::{Consumer, Node, Output, SERVER_V4, udp},
};

/// Worker 0, and worker 1 with a consumer.
fn workers() -> (Node, Node, Consumer) {
    let first = Node::new(4, 2, 0);
    let mut second = Node::of(first.shared.clone(), 1);
    let consumer = second.connect(1);
    (first, second, consumer)
}

/// What becomes of datagrams that arrive at `first` together.
fn send(
    first: &mut Node,
    second: &mut Node,
    datagrams: &[(Outer<'_>, &[u8])],
) -> (Vec<Parcel>, Output) {
    let arrived = first.iterate(|pipeline| pipeline.handle_datagrams(datagrams.iter().copied()));
    let mut parcels: Vec<_> = arrived
        .parcels
        .into_iter()
        .map(|(owner, parcel)| {
            assert_eq!(owner, 1);
            parcel
        })
        .collect();
    let output = second.iterate(|pipeline| {
        for parcel in &mut parcels {
            assert!(pipeline.has_room_for_parcel());
            pipeline.handle_parcel(parcel);
        }
    });
    (parcels, output)
}

#[test]
fn its_own_worker_serves_a_consumer_whose_datagrams_arrive_at_another_one() {
    let (mut first, mut second, mut consumer) = workers();
    for (count, len, parcels) in [(1u16, 10, 1), (40, 100, 1), (300, 1300, 2)] {
        let packets: Vec<_> =
            (0..count).map(|at| udp(consumer.v4, SERVER_V4, 1000 + at, &vec![7; len])).collect();
        let sealed: Vec<_> = packets.iter().map(|packet| consumer.seal(packet)).collect();
        let datagrams: Vec<(Outer<'_>, &[u8])> = sealed
            .iter()
            .map(|datagram| (Outer::from(consumer.endpoint), datagram.as_slice()))
            .collect();
        let before = second.counters(consumer.slot);
        let (sent, output) = send(&mut first, &mut second, &datagrams);
        assert_eq!(sent.len(), parcels, "{count} packets of {len} bytes");
        let came: Vec<_> = output.frames.iter().map(|(_, packet)| packet.clone()).collect();
        assert_eq!(came, packets, "in their order");
        let now = second.counters(consumer.slot);
        assert_eq!(now.packets_up - before.packets_up, u64::from(count));
        assert!(now.bytes_up - before.bytes_up >= packets.concat().len() as u64);
        for mut parcel in sent {
            parcel.clear();
            assert!(parcel.is_empty());
            first.pipeline.reuse(parcel);
        }
    }
}

#[test]
fn a_source_that_no_checksum_proves_moves_no_consumer() {
    let (mut first, mut second, mut consumer) = workers();
    for (number, is_right) in [false, true, false].into_iter().enumerate() {
        let before = second.endpoint(consumer.slot).expect("it is connected").remote;
        let sealed = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"up"));
        let (from, to) = ([192, 0, 2, 10 + number as u8], [45, 80, 2, 2]);
        let addresses = [from, to].concat();
        let mut datagram = vec![0; 8];
        datagram[..2].copy_from_slice(&4000u16.to_be_bytes());
        datagram.extend_from_slice(&sealed);
        let len = datagram.len() as u16;
        datagram[4..6].copy_from_slice(&len.to_be_bytes());
        let sum = !pseudo_header(&addresses, UDP, datagram.len()).bytes(&datagram).folded();
        let sum = if is_right { sum } else { sum ^ 1 };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        let endpoint = Endpoint { remote: (IpAddr::from(from), 4000).into(), local: None };
        let checksum = Checksum::Unverified { addresses: &addresses, udp: &datagram };
        let outer = Outer { from: endpoint, ecn: Ecn::NotEct, checksum };
        let (_, output) = send(&mut first, &mut second, &[(outer, &datagram[8..])]);
        assert_eq!(output.frames.len(), 1, "the packet itself is authentic");
        let wanted = if is_right { endpoint.remote } else { before };
        assert_eq!(second.endpoint(consumer.slot).map(|it| it.remote), Some(wanted));
    }
}

#[test]
fn what_is_too_long_for_a_parcel_is_dropped() {
    let (mut first, _, consumer) = workers();
    let index = first.shared.permutation.index_of(consumer.slot);
    let mut datagram = vec![4, 0, 0, 0];
    datagram.extend_from_slice(&(index.get() << 8).to_le_bytes());
    datagram.resize(300 << 10, 0);
    let output = first.iterate(|pipeline| pipeline.handle_datagram(consumer.endpoint, &datagram));
    assert!(output.parcels.iter().all(|(_, parcel)| parcel.is_empty()));
    assert_eq!(first.dropped(DropReason::MalformedMessage), 1);
}
