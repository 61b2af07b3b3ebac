use std::{net::IpAddr, sync::atomic::Ordering::Relaxed};

use weir_common::{
    Account, DropReason, Slot,
    account::{Counters, SessionState},
};

use crate::{
    pipeline::gso_batch::BatchKind,
    testing::{Consumer, Node, Output, SERVER_V4, frame, tcp, udp},
};
use weir_packet::virtio::{Gso, NetHeader};

fn account(node: &Node) -> &Account {
    node.shared.accounts.get(Slot(0)).expect("an account")
}

fn billed(counters: &Counters) -> u64 {
    counters.bytes_up + counters.bytes_down
}

fn gateway(node: &Node) -> IpAddr {
    node.shared.addresses.gateway_v4().into()
}

/// The consumer sends `count` datagrams of 1000 bytes to `to`; gives how many reach the TUN device.
fn up(node: &mut Node, consumer: &mut Consumer, to: IpAddr, count: usize) -> usize {
    (0..count)
        .filter(|_| {
            let datagram = consumer.seal(&udp(consumer.v4, to, 1, &[7; 972]));
            !node.iterate(|p| p.handle_datagram(consumer.endpoint, &datagram)).frames.is_empty()
        })
        .count()
}

/// A frame from `from` for the consumer in one output.
fn down(node: &mut Node, header: NetHeader, packet: &[u8]) -> Output {
    let (mut bytes, len) = frame(header, packet);
    node.iterate(|p| {
        p.handle_tun_packet(&mut bytes, len);
    })
}

fn down_plain(node: &mut Node, consumer: &Consumer, from: IpAddr) -> Output {
    down(node, NetHeader::PLAIN, &udp(from, consumer.v4, 1, &[7; 972]))
}

#[test]
fn a_session_gets_its_credit_and_not_a_byte_more() {
    // Up, down, and both in iterations.
    for pattern in [[true, true], [false, false], [true, false]] {
        let mut node = Node::new(4, 1, 0);
        let mut consumer = node.connect(0);
        let limit = billed(&node.counters(Slot(0))) + 100_000;
        account(&node).set_limit(Some(limit));
        let mut passed = 0;
        for is_up in pattern.into_iter().cycle().take(200) {
            passed += if is_up {
                up(&mut node, &mut consumer, SERVER_V4, 1)
            } else {
                down_plain(&mut node, &consumer, SERVER_V4).datagrams.len()
            };
        }
        let used = billed(&node.counters(Slot(0)));
        assert!(used <= limit && limit - used < 1500, "{used} of {limit}");
        // What has 1000 bytes inside has 1032 outside, padded to 16 down.
        assert_eq!(passed, if pattern == [true, true] { 96 } else { passed });
        assert!((94..=96).contains(&passed), "{passed}");
        assert_eq!(account(&node).standing(), SessionState::Paused);
        let reasons = [DropReason::Credit, DropReason::Paused, DropReason::DownCredit];
        let dropped = reasons.map(|reason| node.dropped(reason)).iter().sum::<u64>();
        assert_eq!(dropped as usize, 200 - passed);
    }
}

#[test]
fn a_super_packet_is_cut_where_the_credit_ends() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.connect(0);
    let limit = billed(&node.counters(Slot(0))) + 10 * 1432;
    account(&node).set_limit(Some(limit));
    let packet = tcp(SERVER_V4, consumer.v4, 1, &[7; 40 * 1360], |_| {});
    let header =
        NetHeader { gso: Gso::TcpV4, gso_size: 1360, checksum: Some((20, 16)), ..NetHeader::PLAIN };
    let output = down(&mut node, header, &packet);
    let used = billed(&node.counters(Slot(0)));
    assert!(output.datagrams.len() < 11, "{}", output.datagrams.len());
    assert!(used <= limit && limit - used < 2 * 1500, "{used} of {limit}");
    assert_eq!(output.datagrams.len() as u64 + node.dropped(DropReason::DownCredit), 40);
}

#[test]
fn without_credit_only_the_gateway_is_reached_and_nothing_is_billed() {
    for by_state in [false, true] {
        let mut node = Node::new(4, 1, 0);
        let mut consumer = node.connect(0);
        if by_state {
            account(&node).set_state(SessionState::Paused);
        } else {
            account(&node).set_limit(Some(1));
        }
        let before = node.counters(Slot(0));
        let gateway = gateway(&node);
        assert_eq!(up(&mut node, &mut consumer, SERVER_V4, 3), 0);
        assert_eq!(up(&mut node, &mut consumer, gateway, 3), 3);
        assert!(down_plain(&mut node, &consumer, SERVER_V4).datagrams.is_empty());
        let output = down_plain(&mut node, &consumer, gateway);
        let [(BatchKind::Free, datagram)] = &output.datagrams[..] else { panic!("{output:?}") };
        assert_eq!(consumer.open(datagram), udp(gateway, consumer.v4, 1, &[7; 972]));
        assert_eq!(node.counters(Slot(0)), before);
        let unbilled = account(&node).metered.unbilled_bytes.load(Relaxed);
        assert_eq!(unbilled, 6 * 1032 + datagram.len() as u64);
        let (up, down) = if by_state {
            (DropReason::SessionState, DropReason::DownSessionState)
        } else {
            (DropReason::Credit, DropReason::DownCredit)
        };
        assert_eq!((node.dropped(up), node.dropped(down)), (3, 1));
    }
}

#[test]
fn new_credit_counts_with_the_next_datagram() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    account(&node).set_limit(Some(1));
    assert_eq!(up(&mut node, &mut consumer, SERVER_V4, 2), 0);
    let used = billed(&node.counters(Slot(0)));
    account(&node).set_limit(Some(used + 2 * 1032));
    assert_eq!(account(&node).standing(), SessionState::Open);
    assert_eq!(up(&mut node, &mut consumer, SERVER_V4, 3), 2);
    account(&node).set_limit(None);
    assert_eq!(up(&mut node, &mut consumer, SERVER_V4, 3), 3);
}

#[test]
fn a_paused_session_is_answered_and_a_closed_one_is_not() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    for (state, answers) in [(SessionState::Paused, 1), (SessionState::Closed, 0)] {
        account(&node).set_state(state);
        let initiation = consumer.initiation();
        let output = node.iterate(|p| p.handle_initiation(&initiation));
        assert_eq!(output.datagrams.len(), answers, "{state:?}");
    }
}
