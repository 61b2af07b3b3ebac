//! The packet path without I/O, beside the cipher alone at the same size: what is between the two
//! is what weir and boringtun add.

#![expect(clippy::expect_used, reason = "a benchmark that cannot begin must stop")]

use std::{hint::black_box, net::Ipv4Addr, sync::atomic::AtomicU64, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use weir_common::{
    account::add_single_writer,
    packet::{Class, Rules, Verdict, judge},
};
use weir_dataplane::internals::{Device, Now};
use weir_packet::{
    arena::Arena,
    checksum::Sum,
    gro::{Coalescer, Coalescing},
    gso::Segmenter,
    virtio::{HEADER_LEN, NetHeader},
};
use weir_testkit::{
    packet::{SERVER, tcp},
    pipeline::{Node, super_frame},
};

/// Packets per super-packet: what 64 KiB hold at 1452 bytes.
const PACKETS: usize = 44;
const CONSUMER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const SIZES: [usize; 3] = [1420, 576, 128];

fn cipher(c: &mut Criterion) {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &[1; 32]).expect("a key");
    let key = LessSafeKey::new(key);
    let mut group = c.benchmark_group("cipher");
    for size in SIZES {
        group.throughput(Throughput::Bytes((size * PACKETS) as u64));
        let mut buffer = vec![0u8; size];
        let nonce = || Nonce::assume_unique_for_key([0; 12]);
        group.bench_function(BenchmarkId::new("seal", size), |b| {
            b.iter(|| {
                for _ in 0..PACKETS {
                    let tag = key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut buffer);
                    black_box(tag.expect("sealed").as_ref());
                }
            });
        });
    }
    group.finish();
}

fn up(c: &mut Criterion) {
    let mut group = c.benchmark_group("up");
    for (size, flows) in [(1420, 1), (1420, 8), (1420, 64), (576, 1), (128, 1)] {
        let mut node = Node::new(4).expect("a node");
        let mut consumer = node.connect(0).expect("a consumer");
        node.limit_flows();
        // As many receive buffers as an iteration of a busy worker has.
        const BUFFERS: usize = 8;
        group.throughput(Throughput::Bytes((size * PACKETS * BUFFERS) as u64));
        let mut sequences = vec![0u32; flows];
        let (from, endpoint) = (consumer.address, consumer.endpoint);
        group.bench_function(BenchmarkId::new(format!("{size}B"), flows), |b| {
            b.iter_batched_ref(
                || {
                    let mut packets = Vec::new();
                    for next in 0..PACKETS * BUFFERS {
                        let flow = next % flows;
                        let at = sequences[flow];
                        packets.push(tcp(from, SERVER, flow as u16 + 1, at, size));
                        sequences[flow] = at.wrapping_add((size - 40) as u32);
                    }
                    packets
                        .chunks(PACKETS)
                        .map(|chunk| consumer.seal(chunk.iter().map(Vec::as_slice)))
                        .collect::<Vec<_>>()
                },
                |buffers| {
                    node.pipeline.begin(Now::read());
                    for buffer in buffers.iter() {
                        node.pipeline.handle_udp_batch(endpoint, buffer, size + 32);
                    }
                    node.pipeline.finish();
                    let packets: u32 = node
                        .pipeline
                        .packets(Device::Tun)
                        .iter()
                        .map(|f| u32::from(f.packets))
                        .sum();
                    assert_eq!(packets as usize, PACKETS * BUFFERS);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn down(c: &mut Criterion) {
    let mut group = c.benchmark_group("down");
    for size in SIZES {
        let mut node = Node::new(4).expect("a node");
        let consumer = node.connect(0).expect("a consumer");
        const FRAMES: usize = 8;
        group.throughput(Throughput::Bytes((size * PACKETS * FRAMES) as u64));
        let (frame, len) = super_frame(consumer.address, 1, PACKETS, size);
        group.bench_function(format!("{size}B"), |b| {
            b.iter_batched_ref(
                || vec![frame.clone(); FRAMES],
                |frames| {
                    node.pipeline.begin(Now::read());
                    for frame in frames.iter_mut() {
                        node.pipeline.handle_tun_packet(frame, len);
                    }
                    node.pipeline.finish();
                    let datagrams: u32 = node
                        .pipeline
                        .gso_batches()
                        .iter()
                        .map(|run| u32::from(run.datagrams))
                        .sum();
                    assert_eq!(datagrams as usize, PACKETS * FRAMES);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Coalescing alone: packets that lie in the arena, as the cipher leaves them there.
fn join(c: &mut Criterion) {
    const TURN: usize = 8 * PACKETS;
    let mut group = c.benchmark_group("coalesce");
    group.throughput(Throughput::Elements(TURN as u64));
    for flows in [1, 8, 64] {
        let mut arena = Arena::new(1 << 20);
        let mut chunks = Vec::new();
        for next in 0..TURN {
            let sequence = (next / flows * 1380) as u32;
            let packet = tcp(CONSUMER, SERVER, (next % flows) as u16 + 1, sequence, 1420);
            let taken = arena.take(HEADER_LEN + packet.len()).expect("room for an iteration");
            taken.1[HEADER_LEN..].copy_from_slice(&packet);
            chunks.push(taken.0);
        }
        let mut coalescer = Coalescer::new(true);
        group.bench_function(format!("{flows} flows"), |b| {
            b.iter_batched_ref(
                // Coalescing writes into the first packet of each frame.
                || arena.clone(),
                |arena| {
                    coalescer.begin(Coalescing { tcp: true, udp: true });
                    for chunk in &chunks {
                        coalescer.push(arena, *chunk);
                    }
                    coalescer.finish(arena);
                    assert!(coalescer.tun_packets().len() >= flows);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Cutting alone, with the checksum that each packet needs.
fn cut(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    group.throughput(Throughput::Elements(PACKETS as u64));
    let (frame, len) = super_frame(CONSUMER, 1, PACKETS, 1420);
    let header = frame.first_chunk().and_then(NetHeader::parse).expect("a header");
    group.bench_function("1420B", |b| {
        b.iter_batched_ref(
            || frame.clone(),
            |frame| {
                let packet = &mut frame[HEADER_LEN..len];
                let cut = Segmenter::plan(&header, packet).expect("a super-packet");
                let mut packets = 0;
                cut.for_each(packet, |buffer, start, len| {
                    black_box(&buffer[start..start + len]);
                    packets += 1;
                });
                assert_eq!(packets, PACKETS);
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    let bytes = vec![0x5a; 1420];
    group.throughput(Throughput::Bytes(1420));
    group.bench_function("1420B", |b| b.iter(|| Sum::default().bytes(black_box(&bytes)).folded()));
    group.finish();
}

/// The guard's parser, as user space runs it, on an IPv4 frame with a data message.
fn parse(c: &mut Criterion) {
    let mut frame = vec![0; 14 + 20 + 8 + 1452];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&(20 + 8 + 1452u16).to_be_bytes());
    frame[23] = 17;
    frame[36..38].copy_from_slice(&51820u16.to_be_bytes());
    frame[38..40].copy_from_slice(&(8 + 1452u16).to_be_bytes());
    frame[42] = 4;
    let rules = Rules { port: 51820, super_packets: false };
    let verdict = judge(frame.as_slice(), rules).verdict;
    assert_eq!(verdict, Verdict::Pass(Class::Data), "the bench parses what it says");
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    group.bench_function("data", |b| b.iter(|| judge(black_box(frame.as_slice()), rules)));
    group.finish();
}

fn account(c: &mut Criterion) {
    let counter = AtomicU64::new(0);
    let mut group = c.benchmark_group("account");
    group.throughput(Throughput::Elements(1));
    group.bench_function("add", |b| b.iter(|| add_single_writer(&counter, black_box(1452))));
    group.finish();
}

criterion_group! {
    name = pure;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1)).without_plots();
    targets = cipher, checksum, parse, account, join, cut, up, down
}
criterion_main!(pure);
