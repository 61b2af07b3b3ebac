use crate::{
    mailbox::Initiation,
    testing::{Consumer, Node, SERVER_V4, udp},
};
use boringtun::{
    noise::{Tunn, TunnResult},
    x25519,
};
use weir_accounts::Endpoint;
use weir_common::DropReason;
use weir_wireguard::{
    identity::Identity,
    timestamp::Timestamp,
    tunnel::{REJECT_AFTER_MESSAGES, REPLY_LEN, Reply, Tunnel, padded_len},
};

/// A data message of the consumer's keys with another counter.
fn with_counter(message: &[u8], counter: u64) -> Vec<u8> {
    let mut message = message.to_vec();
    message[8..16].copy_from_slice(&counter.to_le_bytes());
    message
}

#[test]
fn counters_at_the_limit_are_refused_before_the_cipher() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.connect(0);
    let message = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"x"));
    let counters = [REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, u64::MAX - 1, u64::MAX];
    for counter in counters {
        let message = with_counter(&message, counter);
        node.iterate(|p| p.handle_datagram(consumer.endpoint, &message));
    }
    assert_eq!(node.dropped(DropReason::CounterLimit), counters.len() as u64);
    let below = with_counter(&message, REJECT_AFTER_MESSAGES - 1);
    node.iterate(|p| p.handle_datagram(consumer.endpoint, &below));
    assert_eq!(node.dropped(DropReason::Authentication), 1, "one below is for the cipher to judge");
    let output = node.iterate(|p| p.handle_datagram(consumer.endpoint, &message));
    assert_eq!(output.frames.len(), 1, "and the session goes on");
}

#[test]
fn buffers_that_are_too_small_are_refused_and_not_a_panic() {
    let identity = Identity::new([1; 32]);
    let index = weir_common::SlotPermutation::default().index_of(weir_common::Slot(0));
    let mut tunnel = Tunnel::new(&identity, [9; 32], index);
    let date = Timestamp::default();
    for len in 0..REPLY_LEN {
        let mut out = vec![0; len];
        assert_eq!(tunnel.handshake(&[2; 92], 0, &mut out), Err(DropReason::Truncated));
        let initiation = tunnel.initiation(&identity, &[1; 148], 0, &mut out);
        assert_eq!(initiation, Err(DropReason::Truncated));
        assert_eq!(tunnel.initiate(0, date, &mut out), Reply::None);
        assert_eq!(tunnel.tick(0, date, &mut out), (Reply::None, Some(0)));
        let mut message = vec![0; 148 + 32];
        message[0] = 4;
        assert_eq!(tunnel.open(&message, 0, &mut out), Err(DropReason::Truncated));
    }
    assert!(!tunnel.seal(&[0; 100], 0, 0, &mut [0; 131]));
}

#[test]
fn nothing_is_sealed_or_kept_without_keys() {
    let identity = Identity::new([1; 32]);
    let index = weir_common::SlotPermutation::default().index_of(weir_common::Slot(0));
    let tunnel = Tunnel::new(&identity, [9; 32], index);
    assert!(!tunnel.is_connected(0));
}

#[test]
fn data_messages_of_every_length_are_no_panic() {
    let mut node = Node::new(1, 1, 0);
    let consumer = node.connect(0);
    let index = node.shared.permutation.index_of(weir_common::Slot(0)).get() << 8 | 1;
    for len in 0..300usize {
        let mut message = vec![0; len.max(8)];
        message[0] = 4;
        message[4..8].copy_from_slice(&index.to_le_bytes());
        message.get_mut(8..16).into_iter().for_each(|counter| counter.fill(1));
        node.iterate(|p| p.handle_datagram(consumer.endpoint, &message[..len]));
    }
    assert_eq!(node.dropped(DropReason::MalformedMessage), 32);
    assert_eq!(node.dropped(DropReason::Authentication), 268);
}

#[test]
fn what_is_inside_a_message_cannot_panic_and_is_billed() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.connect(0);
    let before = node.counters(weir_common::Slot(0)).packets_up;
    let inside: [&[u8]; 6] = [&[0], &[0x45], &[0x45; 19], &[0x60; 39], &[0xff; 60], &[0x45; 40]];
    for packet in inside {
        let message = consumer.seal(packet);
        let output = node.iterate(|p| p.handle_datagram(consumer.endpoint, &message));
        assert!(output.frames.is_empty());
    }
    assert_eq!(node.dropped(DropReason::UpMalformed), 6);
    assert_eq!(node.counters(weir_common::Slot(0)).packets_up, before + 6);
}

#[test]
fn an_initiation_cannot_be_replayed() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.add(0);
    let initiation = consumer.initiation();
    let first = node.iterate(|p| p.handle_initiation(&initiation));
    assert_eq!(first.datagrams.len(), 1);
    let second = node.iterate(|p| p.handle_initiation(&initiation));
    assert!(second.datagrams.is_empty());
    assert_eq!(node.dropped(DropReason::HandshakeReplay), 1);
}

#[test]
fn a_rekey_keeps_traffic_flowing_on_old_and_new_keys() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.connect(0);
    let old = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"old"));
    let initiation = consumer.initiation();
    let output = node.iterate(|p| p.handle_initiation(&initiation));
    let mut out = [0; 256];
    let TunnResult::WriteToNetwork(keepalive) =
        consumer.tunn.decapsulate(None, &output.datagrams[0].1, &mut out)
    else {
        panic!("the response was not accepted");
    };
    let keepalive = keepalive.to_vec();
    let new = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"new"));
    assert_ne!(old[4..8], new[4..8], "another receiver index");
    let output = node.iterate(|p| {
        for message in [&keepalive, &new, &old] {
            p.handle_datagram(consumer.endpoint, message);
        }
    });
    let bytes: Vec<u8> = output.frames.into_iter().flat_map(|(_, packet)| packet).collect();
    for text in [b"new", b"old"] {
        assert!(bytes.windows(3).any(|at| at == text), "both packets came");
    }
}

#[test]
fn padding_stays_within_the_mtu() {
    for (len, padded) in
        [(0, 0), (1, 16), (16, 16), (1408, 1408), (1409, 1420), (1420, 1420), (1500, 1500)]
    {
        assert_eq!(padded_len(len, 1420), padded);
    }
}

/// A consumer of a node whose key changes: its keys with either.
fn with_key_of(consumer: &Consumer, identity: &Identity) -> Tunn {
    let private = x25519::StaticSecret::from([consumer.slot.0 as u8 + 100; 32]);
    Tunn::new(private, *identity.public(), None, None, 9, None)
}

#[test]
fn a_consumer_moves_to_the_nodes_new_key_while_its_old_session_goes_on_until_then() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.connect(0);
    let new_identity = Identity::new([8; 32]);
    let old = with_key_of(&consumer, &new_identity);
    let old = std::mem::replace(&mut consumer.tunn, old);
    let initiation = Initiation { identity: new_identity, ..consumer.initiation() };
    let output = node.iterate(|p| p.handle_initiation(&initiation));
    let response = output.datagrams[0].1.clone();

    // Nobody has shown the new keys yet: a replay of an initiation gets nobody out of his session.
    let mut new = std::mem::replace(&mut consumer.tunn, old);
    let before = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"old"));
    let output = node.iterate(|p| p.handle_datagram(consumer.endpoint, &before));
    assert_eq!(output.frames.len(), 1, "the old session goes on");
    let replayed = node.iterate(|p| p.handle_initiation(&initiation));
    assert!(replayed.datagrams.is_empty(), "a replay is refused");

    let mut out = [0; 256];
    let TunnResult::WriteToNetwork(keepalive) = new.decapsulate(None, &response, &mut out) else {
        panic!("the response was not accepted");
    };
    let keepalive = keepalive.to_vec();
    std::mem::swap(&mut consumer.tunn, &mut new);
    let after = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"new"));
    let output = node.iterate(|p| {
        p.handle_datagram(consumer.endpoint, &keepalive);
        p.handle_datagram(consumer.endpoint, &after);
    });
    assert_eq!(output.frames.len(), 1, "the new session carries traffic");
    let late = new.encapsulate(&udp(consumer.v4, SERVER_V4, 1, b"late"), &mut out).clone_message();
    let output = node.iterate(|p| p.handle_datagram(consumer.endpoint, &late));
    assert!(output.frames.is_empty(), "the old keys are gone");
}

#[test]
fn a_replay_for_the_nodes_other_key_does_not_move_the_endpoint() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.connect(0);
    let at_home = consumer.endpoint;
    let other = Identity::new([8; 32]);
    let tunn = with_key_of(&consumer, &other);
    let old = std::mem::replace(&mut consumer.tunn, tunn);
    // Sent once, long ago: the tunnel remembers nothing of that key.
    let captured = Initiation { identity: other, ..consumer.initiation() };
    consumer.tunn = old;
    let elsewhere = Endpoint { remote: ([203, 0, 113, 9], 999).into(), local: None };
    let replayed =
        node.iterate(|p| p.handle_initiation(&Initiation { from: elsewhere, ..captured }));
    assert_eq!(replayed.datagrams.len(), 1, "it is answered, as it may be a first one");
    let account = node.shared.accounts.get(consumer.slot).expect("an account");
    let known = Endpoint::load(&account.worker);
    assert_eq!(known, Some(at_home), "answers go where the consumer is");
    let message = consumer.seal(&udp(consumer.v4, SERVER_V4, 1, b"here"));
    assert_eq!(node.iterate(|p| p.handle_datagram(at_home, &message)).frames.len(), 1);
}

trait Message {
    fn clone_message(self) -> Vec<u8>;
}

impl Message for TunnResult<'_> {
    fn clone_message(self) -> Vec<u8> {
        let TunnResult::WriteToNetwork(message) = self else { panic!("no message: {self:?}") };
        message.to_vec()
    }
}
