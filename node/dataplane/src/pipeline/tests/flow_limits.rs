//! Limits on what sessions reach, at the packet path as a whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_common::{DropReason, account::SessionState};

use crate::testing::{Consumer, Node, SERVER_V4, SERVER_V6, udp};
use weir_accounts::FlowLimits;

fn limit(node: &Node, new_flows: u32, destinations: u32) {
    node.shared.limits.set_flow_limits(FlowLimits { new_flows, destinations });
}

/// Sends these packets in one output, and returns how many left.
fn send(node: &mut Node, consumer: &mut Consumer, packets: &[Vec<u8>]) -> usize {
    let output = node.iterate(|pipeline| {
        for packet in packets {
            pipeline.handle_datagram(consumer.endpoint, &consumer.seal(packet));
        }
    });
    // Payloads of one byte and of different flows: nothing is joined.
    output.frames.len()
}

fn hosts_v4(own: IpAddr, count: u16) -> Vec<Vec<u8>> {
    let host = |i: u16| IpAddr::V4(Ipv4Addr::new(45, 2, (i >> 8) as u8, i as u8));
    (0..count).map(|i| udp(own, host(i), 1, b"x")).collect()
}

fn hosts_v6(own: IpAddr, count: u16) -> Vec<Vec<u8>> {
    let host = |i| IpAddr::V6(Ipv6Addr::new(0x2a0a, 2, 0, 0, 0, 0, 0, i));
    (0..count).map(|i| udp(own, host(i), 1, b"x")).collect()
}

fn ports(own: IpAddr, to: IpAddr, count: u16) -> Vec<Vec<u8>> {
    (1..=count).map(|port| udp(own, to, port, b"x")).collect()
}

#[test]
fn a_scan_is_stopped_with_its_reason_and_not_billed_and_others_go_on() {
    let mut node = Node::new(4, 1, 0);
    let (mut one, mut two) = (node.connect(0), node.connect(1));
    limit(&node, 200, 30);
    let open = udp(one.v4, SERVER_V4, 7, b"x");
    assert_eq!(send(&mut node, &mut one, std::slice::from_ref(&open)), 1);
    let before = node.counters(one.slot);
    let own = one.v4;
    assert_eq!(send(&mut node, &mut one, &hosts_v4(own, 100)), 29, "30 with the first");
    assert_eq!(node.dropped(DropReason::Destinations), 71);
    let after = node.counters(one.slot);
    assert_eq!(after.packets_up - before.packets_up, 29);
    let own = one.v6;
    assert_eq!(send(&mut node, &mut one, &hosts_v6(own, 20)), 0, "both families count together");
    assert_eq!(send(&mut node, &mut one, &[open]), 1, "what was open goes on");
    let own = two.v6;
    assert_eq!(send(&mut node, &mut two, &hosts_v6(own, 30)), 30);
    assert_eq!(node.dropped(DropReason::NewFlows), 0);
}

#[test]
fn new_flows_to_one_host_are_held_to_the_rate() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    limit(&node, 4, 30);
    for (own, server) in [(consumer.v4, SERVER_V4), (consumer.v6, SERVER_V6)] {
        let sent = send(&mut node, &mut consumer, &ports(own, server, 100));
        assert_eq!(sent, if server.is_ipv4() { 20 } else { 0 }, "both families count together");
    }
    assert_eq!(node.dropped(DropReason::NewFlows), 180);
    // Four more in a second.
    node.now.nanos += 1_000_000_000;
    let own = consumer.v6;
    assert_eq!(send(&mut node, &mut consumer, &ports(own, SERVER_V6, 200)[100..]), 4);
    limit(&node, 0, 0);
    let own = consumer.v4;
    assert_eq!(send(&mut node, &mut consumer, &ports(own, SERVER_V4, 100)), 100, "live");
}

#[test]
fn the_gateway_is_no_destination() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    limit(&node, 1, 1);
    let (v4, v6) = (node.shared.addresses.gateway_v4(), node.shared.addresses.gateway_v6());
    for (own, gateway) in [(consumer.v4, IpAddr::V4(v4)), (consumer.v6, IpAddr::V6(v6))] {
        let questions = ports(own, gateway, 200);
        assert_eq!(send(&mut node, &mut consumer, &questions), 200);
    }
    let own = consumer.v4;
    assert_eq!(send(&mut node, &mut consumer, &hosts_v4(own, 5)), 1, "and used up nothing");
    assert_eq!(node.dropped(DropReason::Destinations), 4);
}

#[test]
fn later_fragments_belong_to_no_new_flow() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    limit(&node, 1, 1);
    let own = consumer.v4;
    let mut fragments = hosts_v4(own, 50);
    for fragment in &mut fragments {
        fragment[7] = 9;
    }
    assert_eq!(send(&mut node, &mut consumer, &fragments), 50);
    assert_eq!(send(&mut node, &mut consumer, &hosts_v4(own, 5)), 1, "they used up nothing");
}

#[test]
fn what_does_not_pass_anyway_uses_up_nothing() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    limit(&node, 200, 3);
    let forged = hosts_v4(SERVER_V4, 50);
    assert_eq!(send(&mut node, &mut consumer, &forged), 0);
    assert_eq!(node.dropped(DropReason::SourceAddress), 50);
    let account = node.shared.accounts.get(consumer.slot).expect("an account");
    account.set_state(SessionState::Paused);
    let own = consumer.v4;
    assert_eq!(send(&mut node, &mut consumer, &hosts_v4(own, 50)), 0);
    let dropped = [DropReason::SessionState, DropReason::Paused].map(|reason| node.dropped(reason));
    assert_eq!(dropped.iter().sum::<u64>(), 50);
    let account = node.shared.accounts.get(consumer.slot).expect("an account");
    account.set_state(SessionState::Open);
    assert_eq!(send(&mut node, &mut consumer, &hosts_v4(own, 3)), 3);
    assert_eq!(node.dropped(DropReason::Destinations), 0);
}

#[test]
fn a_silent_session_gives_its_memory_back_and_one_that_sends_keeps_it() {
    let mut node = Node::new(4, 1, 0);
    let (mut one, mut two) = (node.connect(0), node.connect(1));
    limit(&node, 200, 3);
    for consumer in [&mut one, &mut two] {
        let own = consumer.v4;
        assert_eq!(send(&mut node, consumer, &hosts_v4(own, 4)), 3);
    }
    let tick = |node: &mut Node, times| {
        for _ in 0..times {
            // Of two sessions each has its output every second time.
            node.iterate(|pipeline| pipeline.tick());
        }
    };
    tick(&mut node, 150);
    let own = one.v4;
    assert_eq!(send(&mut node, &mut one, &hosts_v4(own, 4)), 3, "it still knows them");
    tick(&mut node, 49);
    let others = |own| hosts_v4(own, 50).split_off(40);
    // Only a moment has passed, so that only what is forgotten makes room.
    let own = two.v4;
    assert_eq!(send(&mut node, &mut two, &others(own)), 0);
    tick(&mut node, 200);
    assert_eq!(send(&mut node, &mut two, &others(own)), 3);
    let own = one.v4;
    assert_eq!(send(&mut node, &mut one, &others(own)), 3);
}
