//! What the exit policy costs: a flow that is judged, by the length of the lists, and lists that are
//! compiled.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use weir_config::{Config, Policy, Protocol};
use weir_policy::{Compiled, FlowSpec, Lists, PolicyContext};

/// Flows that are judged in turn: more than a branch predictor learns.
const FLOWS: usize = 1 << 16;

/// Numbers that look random, the same each time (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Any address of IPv4, or one of 2000::/3.
    fn address(&mut self, is_v4: bool) -> IpAddr {
        let bits = self.next();
        if is_v4 {
            IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
        } else {
            let bits = u128::from(bits) << 64 | u128::from(self.next());
            IpAddr::V6(Ipv6Addr::from_bits(1 << 125 | bits >> 3))
        }
    }
}

/// Lists with `entries` addresses of one family. Half of them are exceptions.
fn lists(entries: usize, is_v4: bool) -> (Lists, PolicyContext) {
    let mut numbers = Numbers(1);
    let mut networks = |count: usize| -> Vec<IpNet> {
        (0..count).map(|_| IpNet::from(numbers.address(is_v4))).collect()
    };
    let (allow, block) = (networks(entries / 2), networks(entries - entries / 2));
    let config =
        Config { policy: Policy { allow, block, ..Policy::default() }, ..Config::default() };
    let lists = Lists::read(&config.policy).expect("no files");
    (lists, PolicyContext::new(&config, [IpAddr::V4(Ipv4Addr::new(45, 80, 2, 2))]))
}

fn flows(is_v4: bool) -> Vec<FlowSpec> {
    let mut numbers = Numbers(2);
    let flow = |_| FlowSpec {
        address: numbers.address(is_v4),
        port: numbers.next() as u16,
        protocol: if numbers.next().is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp },
    };
    (0..FLOWS).map(flow).collect()
}

fn judging(criterion: &mut Criterion) {
    for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
        let flows = flows(is_v4);
        let mut group = criterion.benchmark_group(format!("policy, a flow of {family}"));
        for entries in [0, 1_000, 200_000] {
            let (lists, context) = lists(entries, is_v4);
            let compiled = Compiled::new(&lists, &context);
            let mut at = 0;
            group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
                bencher.iter(|| {
                    at = (at + 1) % FLOWS;
                    black_box(compiled.judge(&flows[at]))
                });
            });
        }
        group.finish();
    }
}

fn compiling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy, compiled");
    for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
        for entries in [1_000, 200_000] {
            let (lists, context) = lists(entries, is_v4);
            group.bench_function(BenchmarkId::new(family, entries), |bencher| {
                bencher.iter(|| Compiled::new(black_box(&lists), &context));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = policy_group;
    config = Criterion::default().sample_size(20);
    targets = judging, compiling
}
criterion_main!(policy_group);
