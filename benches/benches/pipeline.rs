//! The packet path without I/O, beside the cipher alone at the same size: what is between the two
//! is what weir and boringtun add.

#![expect(clippy::expect_used, reason = "a benchmark that cannot begin must stop")]

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use weir::dataplane::checksum::Sum;
use weir_benches::{Node, SERVER, super_frame, tcp};

/// Packets per super-packet: what 64 KiB hold at 1452 bytes.
const PACKETS: usize = 44;
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

fn ingress(c: &mut Criterion) {
    let mut group = c.benchmark_group("consumer_to_internet");
    for (size, flows) in [(1420, 1), (1420, 8), (1420, 64), (576, 1), (128, 1)] {
        let mut node = Node::new(4).expect("a node");
        let mut consumer = node.connect(0).expect("a consumer");
        // As many receive buffers as a turn of a busy worker has.
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
                    node.pipeline.begin();
                    for buffer in buffers.iter() {
                        node.pipeline.receive(endpoint, buffer, size + 32);
                    }
                    node.pipeline.finish();
                    let packets: u32 =
                        node.pipeline.frames().iter().map(|f| u32::from(f.packets)).sum();
                    assert_eq!(packets as usize, PACKETS * BUFFERS);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn egress(c: &mut Criterion) {
    let mut group = c.benchmark_group("internet_to_consumer");
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
                    node.pipeline.begin();
                    for frame in frames.iter_mut() {
                        node.pipeline.transmit(frame, len);
                    }
                    node.pipeline.finish();
                    let datagrams: u32 =
                        node.pipeline.runs().iter().map(|run| u32::from(run.datagrams)).sum();
                    assert_eq!(datagrams as usize, PACKETS * FRAMES);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    let bytes = vec![0x5a; 1420];
    group.throughput(Throughput::Bytes(1420));
    group.bench_function("1420B", |b| b.iter(|| Sum::default().bytes(black_box(&bytes)).folded()));
    group.finish();
}

criterion_group! {
    name = pure;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1)).without_plots();
    targets = cipher, checksum, ingress, egress
}
criterion_main!(pure);
