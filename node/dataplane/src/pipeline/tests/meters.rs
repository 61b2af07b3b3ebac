use boringtun::noise::TunnResult;
use weir_common::{
    DropReason, Slot,
    account::SessionState,
    gcra::Rate,
    mac1::{MAC_LEN, Mac1Key},
    meter::{PAUSED_ANSWERS, PAUSED_DATA, RESPONSES, ROAMING_DATA},
};

use crate::{
    pipeline::gso_batch::BatchKind,
    testing::{Consumer, Node, Output, SERVER_V4, frame, identity, udp},
};
use weir_accounts::Endpoint;
use weir_packet::virtio::NetHeader;

/// How many a rate lets through at once. Time stands still in these tests but where they say so.
fn burst(rate: Rate) -> u64 {
    rate.window / rate.interval
}

fn elsewhere(consumer: &Consumer, port: u16) -> Endpoint {
    let mut from = consumer.endpoint;
    from.remote.set_port(port);
    from
}

fn set_state(node: &Node, state: SessionState) {
    node.shared.accounts.get(Slot(0)).expect("an account").set_state(state);
}

fn from_gateway(node: &mut Node, consumer: &Consumer) -> Output {
    let gateway = node.shared.addresses.gateway_v4().into();
    let (mut bytes, len) = frame(NetHeader::PLAIN, &udp(gateway, consumer.v4, 1, &[7; 900]));
    node.iterate(|p| {
        p.handle_tun_packet(&mut bytes, len);
    })
}

/// Has the node begin a handshake, and gives its initiation.
fn initiation_of_node(node: &mut Node) -> Vec<u8> {
    let output = node.iterate(|p| p.initiate(0));
    let [(BatchKind::Handshake, message)] = &output.datagrams[..] else { panic!("{output:?}") };
    message.clone()
}

/// A response to this initiation with the right first MAC and nothing else right.
fn forged_response(initiation: &[u8]) -> Vec<u8> {
    let mut message = vec![0x5a; 92];
    message[..4].copy_from_slice(&[2, 0, 0, 0]);
    message[8..12].copy_from_slice(&initiation[4..8]);
    let mac = Mac1Key::new(identity().public().as_bytes()).mac(&message);
    message[60..60 + MAC_LEN].copy_from_slice(&mac);
    message
}

#[test]
fn forged_data_from_elsewhere_is_opened_at_a_trickle_and_the_endpoints_always() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let mut forged = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
    forged[20] ^= 1;
    for number in 0..1000 {
        let from = elsewhere(&consumer, 10_000 + number);
        node.iterate(|p| p.handle_datagram(from, &forged));
    }
    let opened = node.dropped(DropReason::Authentication);
    // The keepalive that told the endpoint took one.
    assert_eq!(opened, burst(ROAMING_DATA) - 1);
    assert_eq!(node.dropped(DropReason::Roaming), 1000 - opened);
    for _ in 0..1000 {
        let datagram = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
        assert_eq!(
            node.iterate(|p| p.handle_datagram(consumer.endpoint, &datagram)).frames.len(),
            1
        );
    }
}

#[test]
fn a_consumer_moves_though_forged_data_uses_up_what_is_for_those_who_do() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let mut forged = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
    forged[20] ^= 1;
    let moved = elsewhere(&consumer, 9);
    let mut lost = 0;
    for round in 0.. {
        let flood = elsewhere(&consumer, 10_000);
        node.iterate(|p| (0..3).for_each(|_| p.handle_datagram(flood, &forged)));
        // Sometimes the flood is there first, sometimes the consumer.
        node.now.nanos += ROAMING_DATA.interval * 7 / 10;
        let datagram = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
        if !node.iterate(|p| p.handle_datagram(moved, &datagram)).frames.is_empty() && lost > 0 {
            break;
        }
        // Until then it moves to and fro.
        node.now.nanos += ROAMING_DATA.interval * 7 / 10;
        let datagram = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
        node.iterate(|p| p.handle_datagram(consumer.endpoint, &datagram));
        lost += node.dropped(DropReason::Roaming);
        assert!(round < 1000, "it never gets through");
    }
    for _ in 0..500 {
        let datagram = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
        assert_eq!(node.iterate(|p| p.handle_datagram(moved, &datagram)).frames.len(), 1);
    }
}

#[test]
fn forged_responses_are_few_and_the_right_one_still_gets_in() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let initiation = initiation_of_node(&mut node);
    let forged = forged_response(&initiation);
    let mut unsigned = forged.clone();
    unsigned[20] ^= 1;
    for number in 0..500 {
        let from = elsewhere(&consumer, 10_000 + number);
        node.iterate(|p| p.handle_datagram(from, &unsigned));
    }
    assert_eq!(node.dropped(DropReason::Mac1), 500, "who does not know the key takes nothing");
    for number in 0..500 {
        let from = elsewhere(&consumer, 10_000 + number);
        node.iterate(|p| p.handle_datagram(from, &forged));
    }
    let tried = node.dropped(DropReason::HandshakeInvalid);
    assert_eq!(tried, burst(RESPONSES.half()));
    assert_eq!(node.dropped(DropReason::Responses), 500 - tried);
    let mut out = [0; 256];
    let TunnResult::WriteToNetwork(response) =
        consumer.tunn.decapsulate(None, &initiation, &mut out)
    else {
        panic!("no response");
    };
    let output = node.iterate(|p| p.handle_datagram(consumer.endpoint, response));
    assert_eq!(output.datagrams.len(), 1, "a keepalive by the new keys: {output:?}");
}

#[test]
fn forged_responses_from_the_endpoint_itself_are_few_too() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.connect(0);
    let forged = forged_response(&initiation_of_node(&mut node));
    for _ in 0..500 {
        node.iterate(|p| p.handle_datagram(consumer.endpoint, &forged));
    }
    assert_eq!(node.dropped(DropReason::HandshakeInvalid), burst(RESPONSES));
}

#[test]
fn cookie_replies_are_few() {
    let mut node = Node::new(4, 1, 0);
    let consumer = node.connect(0);
    let mut forged = vec![0x5a; 64];
    forged[..4].copy_from_slice(&[3, 0, 0, 0]);
    forged[4..8].copy_from_slice(&initiation_of_node(&mut node)[4..8]);
    for _ in 0..500 {
        node.iterate(|p| p.handle_datagram(consumer.endpoint, &forged));
    }
    assert_eq!(node.dropped(DropReason::HandshakeInvalid), burst(RESPONSES));
}

#[test]
fn a_paused_session_and_the_gateway_exchange_a_trickle() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    set_state(&node, SessionState::Paused);
    let gateway = node.shared.addresses.gateway_v4().into();
    let (mut up, mut down) = (0, 0);
    for _ in 0..500 {
        let datagram = consumer.seal(&udp(consumer.v4, gateway, 1, b"x"));
        up += node.iterate(|p| p.handle_datagram(consumer.endpoint, &datagram)).frames.len() as u64;
        down += from_gateway(&mut node, &consumer).datagrams.len() as u64;
    }
    assert_eq!(up, burst(PAUSED_DATA));
    assert_eq!(down, burst(PAUSED_ANSWERS));
    assert_eq!(node.dropped(DropReason::Paused), 500 - up);
    assert_eq!(node.dropped(DropReason::DownPaused), 500 - down);
}

#[test]
fn a_paused_session_that_moves_all_the_time_gets_no_more() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    set_state(&node, SessionState::Paused);
    let gateway = node.shared.addresses.gateway_v4().into();
    let mut up = 0;
    for number in 0..500 {
        let datagram = consumer.seal(&udp(consumer.v4, gateway, 1, b"x"));
        let from = elsewhere(&consumer, 10_000 + number);
        up += node.iterate(|p| p.handle_datagram(from, &datagram)).frames.len() as u64;
    }
    assert_eq!(up, burst(PAUSED_DATA));
}

#[test]
fn nothing_of_a_closed_session_is_opened() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    set_state(&node, SessionState::Closed);
    let mut forged = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
    forged[20] ^= 1;
    node.iterate(|p| p.handle_datagram(consumer.endpoint, &forged));
    assert_eq!(node.dropped(DropReason::Authentication), 0);
    assert_eq!(node.dropped(DropReason::SessionState), 1);
}
