//! What is billed, and who may send at all.

use super::*;

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
