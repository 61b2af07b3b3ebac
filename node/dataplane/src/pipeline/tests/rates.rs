//! Rates, at the packet path as a whole.

use weir_common::{DropReason, Slot};

use crate::{
    pipeline::Handled,
    pipeline::gso_batch::BatchKind,
    testing::{Consumer, Node, SERVER_V4, frame, udp},
};
use weir_packet::virtio::NetHeader;

/// 1000 bytes of UDP payload.
const PACKET: usize = 1028;
/// In bytes per second: the bucket of this rate holds 24,000 bytes, 23 such packets.
const RATE: u64 = 80_000;

fn set_rates(node: &Node, slot: Slot, up: u64, down: u64) {
    node.shared.accounts.get(slot).expect("an account").set_rates(up, down);
}

/// Sends packets from the consumer, and returns how many left.
fn up(node: &mut Node, consumer: &mut Consumer, count: usize) -> usize {
    let packet = udp(consumer.v4, SERVER_V4, 1, &[1; 1000]);
    assert_eq!(packet.len(), PACKET);
    let output = node.iterate(|pipeline| {
        for _ in 0..count {
            pipeline.handle_datagram(consumer.endpoint, &consumer.seal(&packet));
        }
    });
    output.frames.iter().map(|(_, bytes)| bytes.len() / 1000).sum()
}

/// Sends packets to the consumer, and returns how many reached it.
fn down(node: &mut Node, consumer: &mut Consumer, count: usize) -> usize {
    let packet = udp(SERVER_V4, consumer.v4, 1, &[1; 1000]);
    let output = node.iterate(|pipeline| {
        for _ in 0..count {
            let (mut buffer, len) = frame(NetHeader::PLAIN, &packet);
            assert_eq!(pipeline.handle_tun_packet(&mut buffer, len), Handled::Done);
        }
    });
    let data = output.datagrams.iter().filter(|(kind, _)| *kind == BatchKind::Metered);
    data.filter(|(_, datagram)| consumer.open(datagram) == packet).count()
}

#[test]
fn what_is_beyond_the_rate_is_dropped_with_its_reason_and_not_billed() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    set_rates(&node, consumer.slot, RATE, RATE);
    let before = node.counters(consumer.slot);
    let sent_up = up(&mut node, &mut consumer, 100);
    let sent_down = down(&mut node, &mut consumer, 100);
    for sent in [sent_up, sent_down] {
        // Up to three of the last twelve may be unlucky while the bucket empties.
        assert!((20..=23).contains(&sent), "{sent}");
    }
    assert_eq!(node.dropped(DropReason::RateLimit), 100 - sent_up as u64);
    assert_eq!(node.dropped(DropReason::DownRateLimit), 100 - sent_down as u64);
    let after = node.counters(consumer.slot);
    assert_eq!(after.packets_up - before.packets_up, sent_up as u64);
    assert_eq!(after.packets_down - before.packets_down, sent_down as u64);
    let account = node.shared.accounts.get(consumer.slot).expect("an account");
    let limited = &account.worker;
    let load =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(load(&limited.limited_up), (100 - sent_up as u64) * PACKET as u64);
    assert_eq!(load(&limited.limited_down), (100 - sent_down as u64) * PACKET as u64);
    assert_eq!(
        load(&account.metered.unbilled_bytes),
        (100 - sent_up as u64) * (PACKET as u64 + 32)
    );
}

#[test]
fn one_ways_rate_is_not_the_others_and_off_is_no_limit() {
    let mut node = Node::new(4, 1, 0);
    let (mut one, mut two) = (node.connect(0), node.connect(1));
    set_rates(&node, one.slot, RATE, 0);
    assert!(up(&mut node, &mut one, 60) <= 23);
    assert_eq!(down(&mut node, &mut one, 60), 60);
    assert_eq!(up(&mut node, &mut two, 60), 60);
    set_rates(&node, one.slot, 0, 0);
    assert_eq!(up(&mut node, &mut one, 60), 60, "live, and at once");
    assert_eq!(node.dropped(DropReason::DownRateLimit), 0);
}

#[test]
fn the_share_of_the_nodes_rate_holds_every_session_apart() {
    let mut node = Node::new(4, 1, 0);
    let (mut one, mut two) = (node.connect(0), node.connect(1));
    node.shared.limits.set_fair_share(RATE, 0);
    set_rates(&node, two.slot, u64::MAX, 0);
    assert!((20..=23).contains(&up(&mut node, &mut one, 100)));
    // The first one's flood has taken nothing of the second one's.
    assert!((20..=23).contains(&up(&mut node, &mut two, 100)));
    assert_eq!(down(&mut node, &mut two, 60), 60);
}

#[test]
fn a_wrong_source_uses_up_no_rate() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    set_rates(&node, consumer.slot, RATE, 0);
    let forged = udp(SERVER_V4, SERVER_V4, 1, &[1; 1000]);
    node.iterate(|pipeline| {
        for _ in 0..100 {
            pipeline.handle_datagram(consumer.endpoint, &consumer.seal(&forged));
        }
    });
    assert_eq!(node.dropped(DropReason::SourceAddress), 100);
    assert!(up(&mut node, &mut consumer, 30) >= 20);
}

#[test]
fn a_rate_is_held_while_time_passes_and_forgets_nothing_of_silence() {
    let mut node = Node::new(4, 1, 0);
    let mut consumer = node.connect(0);
    let (rate, seconds) = (1_000_000, 3);
    set_rates(&node, consumer.slot, rate, rate);
    let (mut sent_up, mut sent_down) = (0, 0);
    for _ in 0..seconds * 100 {
        node.now.nanos += 10_000_000;
        // Twice the rate.
        sent_up += up(&mut node, &mut consumer, 20) as u64;
        sent_down += down(&mut node, &mut consumer, 20) as u64;
    }
    for sent in [sent_up, sent_down] {
        let bytes = sent * PACKET as u64;
        // What was in the bucket before comes on top.
        let (least, most) = (rate * seconds * 98 / 100, rate * seconds + rate * 3 / 10 + 2000);
        assert!((least..=most).contains(&bytes), "{bytes}");
    }
    // Silence fills the bucket once, however long it lasts. The keys last for three minutes.
    node.now.nanos += 170_000_000_000;
    let burst = up(&mut node, &mut consumer, 1000) as u64 * PACKET as u64;
    assert!((rate / 4..=rate * 3 / 10).contains(&burst), "{burst}");
}
