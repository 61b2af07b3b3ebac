//! The established packet path allocates nothing.

#![expect(unsafe_code, reason = "counts what the allocator is asked for")]
#![expect(clippy::expect_used, reason = "a test")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use weir_common::DropReason;
use weir_dataplane::internals::{Device, Now};
use weir_testkit::{
    packet::{SERVER, tcp},
    pipeline::{Node, super_frame},
};
use weir_wireguard::aead::{Key, Open, Outcome, Path, Seal, TAG_LEN, open_batch, seal_batch};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(act: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    act();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))) > 0);
}

#[test]
fn the_cipher_allocates_nothing() {
    const LENGTHS: [usize; 6] = [0, 32, 128, 576, 1420, 1420];
    let key = Key::new(&[7; 32]);
    let text = [5; 1420];
    for path in Path::available() {
        let (mut sealed, mut opened) = ([[0; 1420 + TAG_LEN]; 6], [[0; 1420]; 6]);
        let mut seals = LENGTHS.iter().zip(&mut sealed).map(|(len, sealed)| {
            Seal::new(&key, 1, &text[..*len], 0, &mut sealed[..len + TAG_LEN]).expect("room")
        });
        let mut seals: [_; 6] = std::array::from_fn(|_| seals.next().expect("six"));
        assert_eq!(allocations(|| seal_batch(path, &mut seals)), 0, "{}", path.name());
        let mut opens = LENGTHS.iter().zip(&sealed).zip(&mut opened).map(|((len, from), to)| {
            Open::new(&key, 1, &from[..len + TAG_LEN], &mut to[..*len]).expect("room")
        });
        let mut opens: [_; 6] = std::array::from_fn(|_| opens.next().expect("six"));
        assert_eq!(allocations(|| open_batch(path, &mut opens)), 0, "{}", path.name());
        assert!(opens.iter().all(|open| open.outcome() == Outcome::Authentic), "{}", path.name());
    }
}

#[test]
fn packets_held_to_a_rate_allocate_nothing() {
    let mut node = Node::new(4).expect("a node");
    let mut consumer = node.connect(0).expect("a consumer");
    // Some pass, most do not: a bucket holds 300 ms of its rate.
    node.set_rates(0, 1_000_000, 2_000_000);
    node.set_fair_share(1_500_000, 1_500_000);
    let mut iterations = Vec::new();
    for sequence in 0..20 {
        let packet = tcp(consumer.address, SERVER, 7, sequence * 1380, 1420);
        let datagrams = consumer.seal(std::iter::repeat_n(packet.as_slice(), 40));
        iterations.push((datagrams, super_frame(consumer.address, 1, 44, 1420)));
    }
    let (mut up, mut down) = (0, 0);
    let mut iteration = |(datagrams, (frame, len)): &mut (Vec<u8>, (Vec<u8>, usize))| {
        let pipeline = &mut node.pipeline;
        pipeline.begin(Now::read());
        pipeline.handle_udp_batch(consumer.endpoint, datagrams, 1452);
        pipeline.handle_tun_packet(frame, *len);
        pipeline.finish();
        up +=
            pipeline.packets(Device::Tun).iter().map(|frame| u64::from(frame.packets)).sum::<u64>();
        down += pipeline.gso_batches().iter().map(|run| u64::from(run.datagrams)).sum::<u64>();
    };
    let (first, rest) = iterations.split_at_mut(2);
    first.iter_mut().for_each(&mut iteration);
    assert_eq!(allocations(|| rest.iter_mut().for_each(&mut iteration)), 0);
    let dropped = |reason| node.pipeline.stats().dropped(reason);
    assert_eq!(up + dropped(DropReason::RateLimit), 20 * 40);
    assert_eq!(down + dropped(DropReason::DownRateLimit), 20 * 44);
    assert!((100..700).contains(&up) && (100..700).contains(&down), "{up} {down}");
}

#[test]
fn packets_of_an_established_session_allocate_nothing() {
    let mut node = Node::new(4).expect("a node");
    let mut consumer = node.connect(0).expect("a consumer");
    node.limit_flows();
    let mut sequence = 0;
    let mut iterations = Vec::new();
    for _ in 0..20 {
        let packets: Vec<_> = (0..200u32)
            .map(|i| {
                sequence += 1380;
                tcp(consumer.address, SERVER, (i % 16) as u16, sequence, 1420)
            })
            .collect();
        let datagrams = consumer.seal(packets.iter().map(Vec::as_slice));
        iterations.push((datagrams, super_frame(consumer.address, 1, 44, 1420)));
    }
    let mut iteration = |(datagrams, (frame, len)): &mut (Vec<u8>, (Vec<u8>, usize))| {
        let pipeline = &mut node.pipeline;
        pipeline.begin(Now::read());
        pipeline.handle_udp_batch(consumer.endpoint, datagrams, 1452);
        pipeline.handle_tun_packet(frame, *len);
        pipeline.tick();
        pipeline.finish();
        assert_eq!(
            pipeline.packets(Device::Tun).len(),
            200,
            "16 interleaved flows with gaps join nothing"
        );
        assert!(pipeline.gso_batches().iter().any(|run| run.datagrams == 44));
        for frame in pipeline.packets(Device::Tun) {
            pipeline.write_done(Device::Tun, frame, true);
        }
        for run in pipeline.gso_batches() {
            pipeline.udp_send_done(run, run.datagrams, run.bytes);
        }
    };
    let (first, rest) = iterations.split_at_mut(10);
    first.iter_mut().for_each(&mut iteration);
    assert_eq!(allocations(|| rest.iter_mut().for_each(&mut iteration)), 0);
}

#[test]
fn a_scan_that_is_stopped_allocates_nothing() {
    let mut node = Node::new(4).expect("a node");
    let mut consumer = node.connect(0).expect("a consumer");
    node.limit_flows();
    let mut iterations = Vec::new();
    for iteration in 0..20 {
        let hosts =
            (0..200u32).map(|i| std::net::Ipv4Addr::from_bits(0x2d02_0000 + iteration * 200 + i));
        let packets: Vec<_> = hosts.map(|host| tcp(consumer.address, host, 1, 0, 128)).collect();
        iterations.push(consumer.seal(packets.iter().map(Vec::as_slice)));
    }
    let mut passed = 0;
    let mut iteration = |datagrams: &mut Vec<u8>| {
        node.pipeline.begin(Now::read());
        node.pipeline.handle_udp_batch(consumer.endpoint, datagrams, 160);
        node.pipeline.finish();
        passed += node.pipeline.packets(Device::Tun).len();
    };
    let (first, rest) = iterations.split_at_mut(2);
    first.iter_mut().for_each(&mut iteration);
    assert_eq!(allocations(|| rest.iter_mut().for_each(&mut iteration)), 0);
    let dropped = node.pipeline.stats().dropped(DropReason::Destinations) as usize;
    assert_eq!(passed + dropped, 4000);
    // A second or so may pass meanwhile, on a machine that has other things to do.
    assert!((1000..2000).contains(&passed), "{passed}");
}
