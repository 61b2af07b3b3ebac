//! The flow table: a packet of a flow that is there, of a new one, and of one for which another ends.

#![expect(clippy::expect_used, reason = "a benchmark that cannot begin must stop")]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weir_common::{AddressPlan, Slot};
use weir_nat::{AllowAll, Nat, NatConfig, NoGate, Ports, V6};
use weir_packet::headers::{destination, half, source, write};
use weir_testkit::packet::{SERVER, tcp};

/// Packets of one measurement.
const BATCH: usize = 256;
const NOW: u64 = 1_000_000_000_000;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

fn plan() -> AddressPlan {
    AddressPlan::new(Ipv4Addr::new(10, 64, 0, 0), 10, Ipv6Addr::UNSPECIFIED)
}

fn nat(max_flows: u32, session_flows: u32) -> Nat {
    Nat::new(NatConfig {
        addresses_v4: (1..=16).map(|last| Ipv4Addr::new(198, 51, 100, last)).collect(),
        v6: V6::None,
        ports: Arc::new(Ports::new(1024, 65_535, 32)),
        plan: plan(),
        worker: 0,
        workers: 1,
        max_flows,
        session_flows,
        session_blocks: 8,
        pick_up: false,
        mss: Some([1380, 1360]),
        hash_keys: [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321],
    })
}

/// How many flows a session has.
const SESSION_FLOWS: u32 = 128;

/// A segment of a flow: each session has 32 ports, and sends from each of them to four servers. The
/// checksum is not right, which costs the same.
fn segment(flow: u32, flags: u8) -> (Slot, Vec<u8>) {
    let slot = Slot(flow / SESSION_FLOWS);
    let from = plan().address_v4(slot).expect("a slot of the plan");
    let server = Ipv4Addr::from_bits(SERVER.to_bits() + flow / 32 % 4);
    let mut packet = tcp(from, server, 1024 + (flow % 32) as u16, 1, 128);
    write(&mut packet, 33, [flags]);
    (slot, packet)
}

fn up(nat: &mut Nat, packet: &mut [u8], slot: Slot) {
    nat.up(packet, slot, NOW, &AllowAll, &mut NoGate).expect("translated");
}

/// Opens flows 0 to `flows - 1`, and answers each. Returns the first bytes of each packet that left.
fn open(nat: &mut Nat, flows: u32) -> Vec<[u8; 24]> {
    let mut left = Vec::new();
    for flow in 0..flows {
        let (slot, mut packet) = segment(flow, SYN);
        up(nat, &mut packet, slot);
        left.push(*packet.first_chunk().expect("a segment"));
        nat.down(&mut answer(&packet, SYN | ACK), NOW, &AllowAll).expect("translated");
        let (slot, mut packet) = segment(flow, ACK);
        up(nat, &mut packet, slot);
        nat.take_events();
    }
    left
}

/// A segment that goes back where a translated one came from.
fn answer(packet: &[u8], flags: u8) -> Vec<u8> {
    let (Some(IpAddr::V4(external)), Some(IpAddr::V4(server))) =
        (source(packet), destination(packet))
    else {
        panic!("not IPv4")
    };
    let mut answer = tcp(server, external, half(packet, 22), 1, 128);
    write(&mut answer, 22, half(packet, 20).to_be_bytes());
    write(&mut answer, 33, [flags]);
    answer
}

/// Numbers below a power of two, in an order that no cache foresees.
fn scattered(round: u32, flows: u32) -> u32 {
    round.wrapping_mul(0x9e37_79b1).rotate_left(13).wrapping_mul(0x85eb_ca6b) & (flows - 1)
}

fn hit(c: &mut Criterion) {
    let mut group = c.benchmark_group("nat/hit");
    group.throughput(Throughput::Elements(BATCH as u64));
    for flows in [1 << 7, 1 << 16, 1 << 20] {
        let mut nat = nat(flows, 1024);
        let left = open(&mut nat, flows);
        let mut round = 0;
        let mut batch = |flags: u8| -> Vec<(Slot, Vec<u8>)> {
            let mut next = || {
                round += 1;
                segment(scattered(round, flows), flags)
            };
            (0..BATCH).map(|_| next()).collect()
        };
        group.bench_function(BenchmarkId::new("up", flows), |b| {
            b.iter_batched_ref(
                || batch(ACK),
                |packets| {
                    for (slot, packet) in packets {
                        up(&mut nat, packet, *slot);
                    }
                },
                BatchSize::SmallInput,
            );
        });
        // Others than those that were just looked up.
        let mut back = 1 << 20;
        group.bench_function(BenchmarkId::new("down", flows), |b| {
            b.iter_batched_ref(
                || {
                    let mut next = || {
                        back += 1;
                        answer(&left[scattered(back, flows) as usize], ACK)
                    };
                    (0..BATCH).map(|_| next()).collect::<Vec<_>>()
                },
                |answers| {
                    for packet in answers {
                        black_box(nat.down(packet, NOW, &AllowAll).expect("translated"));
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A flow that begins, is answered with a reset, and makes room for the next one: what a scan or a
/// busy client costs once its session has all the flows that it may have.
fn begin_and_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("nat/begin and end");
    group.throughput(Throughput::Elements(BATCH as u64));
    for flows in [1 << 10, 1 << 20] {
        let mut nat = nat(flows, SESSION_FLOWS);
        open(&mut nat, flows);
        for flow in 0..flows {
            let (slot, mut packet) = segment(flow, RST);
            up(&mut nat, &mut packet, slot);
        }
        let mut round = 0u32;
        group.bench_function(BenchmarkId::new("evicting", flows), |b| {
            b.iter_batched_ref(
                || {
                    let mut next = || {
                        round += 1;
                        let (slot, mut syn) = segment(scattered(round, flows), SYN);
                        // A port that the session has not had yet.
                        let port = (2048 + round % 60_000) as u16;
                        write(&mut syn, 20, port.to_be_bytes());
                        let mut reset = syn.clone();
                        write(&mut reset, 33, [RST]);
                        (slot, syn, reset)
                    };
                    (0..BATCH).map(|_| next()).collect::<Vec<_>>()
                },
                |packets| {
                    for (slot, syn, reset) in packets {
                        up(&mut nat, syn, *slot);
                        up(&mut nat, reset, *slot);
                    }
                    nat.take_events();
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// New flows in a table that has room, until it has none.
fn begin(c: &mut Criterion) {
    let mut group = c.benchmark_group("nat/begin");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("room", |b| {
        b.iter_batched_ref(
            || (nat(1 << 16, 1024), (0..BATCH as u32).map(|n| segment(n, SYN)).collect::<Vec<_>>()),
            |(nat, packets)| {
                for (slot, packet) in packets {
                    up(nat, packet, *slot);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, hit, begin, begin_and_end);
criterion_main!(benches);
