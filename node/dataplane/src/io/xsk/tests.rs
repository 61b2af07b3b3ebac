use weir_common::DropReason;

use super::*;
use crate::testing::{Node, Output, SERVER_V4, udp};

/// A queue whose frames say which one it is.
struct StandIn {
    number: u8,
    waiting: u32,
    lost: u64,
    served: u32,
}

impl ReceiveQueue for StandIn {
    fn is_ready(&self) -> bool {
        self.waiting > 0
    }

    fn take(&mut self, most: u32, _: usize, mut take: impl FnMut(&mut [Frame<'_>])) -> u32 {
        let count = self.waiting.min(most);
        (0..count).for_each(|_| take(&mut [Frame { memory: &mut [self.number], len: 1 }]));
        self.waiting -= count;
        self.served += count;
        count
    }

    fn newly_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

fn queues(waiting: &[u32]) -> XskQueues<StandIn> {
    let queues = waiting.iter().enumerate();
    let queues = queues
        .map(|(number, &waiting)| StandIn { number: number as u8, waiting, lost: 0, served: 0 })
        .collect();
    XskQueues { queues, first: 0, sources: Sources::default() }
}

#[test]
fn queues_that_never_run_dry_get_equal_shares() {
    for count in 1..=16 {
        let mut xsk = queues(&vec![0; count]);
        for _ in 0..10 * count {
            xsk.queues.iter_mut().for_each(|queue| queue.waiting = 600);
            let mut came = 0;
            xsk.share(MAX_FRAMES, GROUP, |frames| came += frames.len() as u32);
            assert_eq!(came, MAX_FRAMES, "the whole room is used");
        }
        let served: Vec<u32> = xsk.queues.iter().map(|queue| queue.served).collect();
        let (least, most) = (served.iter().min(), served.iter().max());
        // A frame more or less, where the room cannot be shared evenly.
        assert!(most.expect("queues") - least.expect("queues") <= 10, "{served:?}");
    }
}

#[test]
fn two_queues_with_600_frames_each_are_both_served_in_the_first_turn() {
    let mut node = Node::new(1, 1, 0);
    let mut xsk = queues(&[600, 600]);
    node.iterate(|pipeline| {
        xsk.take(pipeline);
    });
    assert!(xsk.queues.iter().all(|queue| queue.served >= 200), "each has a share");
    for _ in 1..10 {
        node.iterate(|pipeline| {
            xsk.take(pipeline);
        });
    }
    assert!(!xsk.is_ready());
    let read = node.pipeline.stats().boundaries().udp_receive;
    assert_eq!(read.packets, 1200);
}

#[test]
fn what_a_quiet_queue_leaves_is_for_the_busy_one() {
    let mut xsk = queues(&[10, 5000]);
    let mut of_each = [0; 2];
    for _ in 0..2 {
        xsk.share(MAX_FRAMES, GROUP, |frames| of_each[usize::from(frames[0].memory[0])] += 1);
    }
    assert_eq!(of_each[0], 10);
    assert_eq!(of_each[1], 2 * MAX_FRAMES - 10);
}

#[test]
fn losses_of_each_queue_are_counted_also_where_nothing_was_taken() {
    let mut node = Node::new(1, 1, 0);
    let mut xsk = queues(&[600, 0, 0]);
    xsk.queues[1].lost = 30;
    xsk.queues[2].lost = 4;
    node.iterate(|pipeline| {
        xsk.take(pipeline);
    });
    assert_eq!(node.dropped(DropReason::XskRingFull), 34);
}

/// An Ethernet frame around a datagram from `from` with this source port.
fn frame(from: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = udp(from.into(), SERVER_V4, port, payload);
    packet.splice(..0, [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    packet
}

/// Takes one frame.
fn take(node: &mut Node, sources: Sources, frame: &[u8]) -> Output {
    let mut memory = frame.to_vec();
    let frame = Frame { memory: &mut memory, len: frame.len() };
    node.iterate(|pipeline| receive(pipeline, sources, &mut [frame]))
}

const HOME: [u8; 4] = [45, 80, 1, 2];

#[test]
fn the_endpoint_moves_only_where_a_checksum_vouches_for_it() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.connect(0);
    let sources = Sources::default();
    let mut arrive = |node: &mut Node, change: fn(&mut [u8])| {
        let packet = udp(consumer.v4, SERVER_V4, 1, b"up");
        let mut frame = frame(HOME, 4000, &consumer.seal(&packet));
        change(&mut frame);
        let output = take(node, sources, &frame);
        assert_eq!(output.frames.len(), 1, "the payload is authentic");
        node.endpoint(consumer.slot).map(|endpoint| endpoint.remote)
    };
    let home: SocketAddr = (HOME, 4000).into();
    assert_eq!(arrive(&mut node, |_| {}), Some(home));
    // A bit of the port is flipped, and nothing vouches for it.
    assert_eq!(arrive(&mut node, |frame| frame[34] ^= 1), Some(home));
    assert_eq!(arrive(&mut node, |_| {}), Some(home));
}

#[test]
fn a_private_source_or_port_zero_moves_nothing_and_is_counted() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.connect(0);
    let before = node.endpoint(consumer.slot);
    let packet = udp(consumer.v4, SERVER_V4, 1, b"up");
    for (from, port) in [([192, 168, 7, 7], 4000), (HOME, 0)] {
        let frame = frame(from, port, &consumer.seal(&packet));
        let output = take(&mut node, Sources::default(), &frame);
        assert!(output.frames.is_empty());
    }
    assert_eq!(node.dropped(DropReason::MartianSource), 1);
    assert_eq!(node.dropped(DropReason::MalformedMessage), 1);
    assert_eq!(node.endpoint(consumer.slot), before);
    let lan = Sources::of_uplink(&[[192, 168, 7, 1].into()], &[]);
    let frame = frame([192, 168, 7, 7], 4000, &consumer.seal(&packet));
    take(&mut node, lan, &frame);
    let moved = node.endpoint(consumer.slot).map(|endpoint| endpoint.remote);
    assert_eq!(moved, Some(([192, 168, 7, 7], 4000).into()));
}

#[test]
fn the_congestion_mark_of_a_frame_comes_inward() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.connect(0);
    let mut packet = udp(consumer.v4, SERVER_V4, 1, b"up");
    // ECT(0), and the header's checksum for it.
    packet[1] = 2;
    packet[11] -= 2;
    let mut frame = frame(HOME, 4000, &consumer.seal(&packet));
    frame[15] = 3;
    frame[25] -= 3;
    let output = take(&mut node, Sources::default(), &frame);
    let [(_, came)] = &output.frames[..] else { panic!("one frame") };
    assert_eq!(Ecn::of_packet(came), Ecn::Ce);
}

#[test]
fn each_frame_of_a_batch_is_judged_by_itself() {
    let mut node = Node::new(1, 1, 0);
    let mut consumer = node.connect(0);
    let mut from = |home, payload| {
        let packet = udp(consumer.v4, SERVER_V4, 1, payload);
        frame(home, 4000, &consumer.seal(&packet))
    };
    let elsewhere = [192, 168, 7, 7];
    let mut frames =
        [from(HOME, b"one"), from(HOME, b"two"), from(HOME, b"three"), from(elsewhere, b"four")];
    frames[1][60] ^= 1;
    frames[2].truncate(20);
    let mut batch: Vec<_> = frames
        .iter_mut()
        .map(|frame| Frame { len: frame.len(), memory: frame.as_mut_slice() })
        .collect();
    let output = node.iterate(|pipeline| receive(pipeline, Sources::default(), &mut batch));
    let [(_, came)] = &output.frames[..] else { panic!("{} frames", output.frames.len()) };
    assert!(came.ends_with(b"one"));
    assert_eq!(node.dropped(DropReason::Authentication), 1);
    assert_eq!(node.dropped(DropReason::MalformedMessage), 1);
    assert_eq!(node.dropped(DropReason::MartianSource), 1);
}
