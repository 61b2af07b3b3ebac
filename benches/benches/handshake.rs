//! Handshakes as a responder, against boringtun's, and what a tunnel keeps in memory.

#![expect(clippy::print_stdout, reason = "the sizes and ratios are for whoever runs it")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Tunn, TunnResult, rate_limiter::RateLimiter},
    x25519::{PublicKey, StaticSecret},
};
use criterion::{Criterion, criterion_group};
use weir_common::{Slot, SlotPermutation};
use weir_wireguard::{
    identity::Identity,
    tunnel::{REPLY_LEN, Reply, Tunnel},
};

const CONSUMER: [u8; 32] = [1; 32];
const NODE: [u8; 32] = [2; 32];
/// Interleaved rounds, and handshakes of each.
const ROUNDS: usize = 21;
const HANDSHAKES: usize = 50;

/// A consumer that makes initiations, and both kinds of responders.
struct Ends {
    consumer: Tunn,
    identity: Identity,
    ours: Tunnel,
    theirs: Tunn,
}

impl Ends {
    fn new() -> Self {
        let identity = Identity::new(NODE);
        let private = StaticSecret::from(CONSUMER);
        let public = PublicKey::from(&private);
        let index = SlotPermutation { keys: [1, 2, 3, 4] }.index_of(Slot(0));
        let node = StaticSecret::from(NODE);
        // It asks nobody for a cookie.
        let limiter = Arc::new(RateLimiter::new(identity.public(), u64::MAX));
        Self {
            consumer: Tunn::new(private, *identity.public(), None, None, 5, None),
            ours: Tunnel::new(&identity, public.to_bytes(), index),
            theirs: Tunn::new(node, public, None, None, index.get(), Some(limiter)),
            identity,
        }
    }

    fn initiation(&mut self) -> Vec<u8> {
        let mut out = [0; 256];
        match self.consumer.format_handshake_initiation(&mut out, true) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            other => panic!("no initiation: {other:?}"),
        }
    }

    fn answer_by_ours(&mut self, initiation: &[u8]) {
        let mut out = [0; REPLY_LEN];
        let reply = self.ours.initiation(&self.identity, initiation, 1_000_000_000, &mut out);
        assert!(matches!(black_box(reply), Ok(Reply::Send(_))));
    }

    fn answer_by_theirs(&mut self, initiation: &[u8]) {
        let mut out = [0; 256];
        let reply = self.theirs.decapsulate(None, initiation, &mut out);
        assert!(matches!(black_box(reply), TunnResult::WriteToNetwork(_)));
    }
}

fn respond(c: &mut Criterion) {
    let mut group = c.benchmark_group("respond");
    let mut ends = Ends::new();
    group.bench_function("boringtun", |b| {
        b.iter_custom(|count| {
            (0..count)
                .map(|_| {
                    let initiation = ends.initiation();
                    let begin = Instant::now();
                    ends.answer_by_theirs(&initiation);
                    begin.elapsed()
                })
                .sum()
        });
    });
    group.bench_function("weir", |b| {
        b.iter_custom(|count| {
            (0..count)
                .map(|_| {
                    let initiation = ends.initiation();
                    let begin = Instant::now();
                    ends.answer_by_ours(&initiation);
                    begin.elapsed()
                })
                .sum()
        });
    });
    group.finish();
}

/// A responder's time for [`HANDSHAKES`]. What both static keys share is known, as after a first one.
fn round(ends: &mut Ends, mut answer: impl FnMut(&mut Ends, &[u8])) -> Duration {
    let first = ends.initiation();
    answer(ends, &first);
    (0..HANDSHAKES)
        .map(|_| {
            let initiation = ends.initiation();
            let begin = Instant::now();
            answer(ends, &initiation);
            begin.elapsed()
        })
        .sum()
}

/// The median of the ratios of rounds one behind the other.
fn ratio() {
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let ours = round(&mut Ends::new(), Ends::answer_by_ours);
            let theirs = round(&mut Ends::new(), Ends::answer_by_theirs);
            theirs.as_secs_f64() / ours.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("handshakes per second, weir / boringtun: {:.2}", ratios[ROUNDS / 2]);
    let mut ends = Ends::new();
    let idle = ends.ours.memory();
    let initiation = ends.initiation();
    ends.answer_by_ours(&initiation);
    let theirs = size_of::<Tunn>();
    println!("memory of an idle tunnel: {idle} bytes; boringtun's: {theirs}");
    println!("of each of at most three keypairs: {} bytes", ends.ours.memory() - idle);
}

criterion_group! {
    name = handshake;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1)).without_plots();
    targets = respond
}

fn main() {
    handshake();
    ratio();
}
