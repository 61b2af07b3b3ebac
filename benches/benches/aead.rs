//! What the cipher costs, by path, length and size of a batch: criterion's measurements, and then the
//! ratios to ring of interleaved rounds. The sources are not in the cache.
//!
//! ring's own row is its API with a prepared key, and a copy, because it seals in place.

#![expect(clippy::print_stdout, reason = "the ratios are for whoever runs it")]

use std::{
    array, env,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use weir_wireguard::aead::{Key, Open, Outcome, Path, Seal, TAG_LEN, open_batch, seal_batch};

const LENGTHS: [usize; 6] = [64, 128, 256, 512, 1024, 1420];
const BATCH: usize = 16;
/// Bytes of sources, which no private cache holds.
const COLD: usize = 64 << 20;
const KEY: [u8; 32] = [7; 32];
/// Interleaved rounds, and messages of each.
const ROUNDS: usize = 41;
const MESSAGES: usize = 512;

#[derive(Clone, Copy)]
enum Direction {
    Seal,
    Open,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
enum Cipher {
    /// ring with a prepared key.
    Ring,
    Path(Path),
}

impl Cipher {
    fn all() -> Vec<Self> {
        [Self::Ring].into_iter().chain(Path::available().map(Self::Path)).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Ring => "ring itself".to_owned(),
            Self::Path(path) => path.name().to_owned(),
        }
    }
}

/// Messages of one length, more than the caches hold, and room for a batch of results.
struct Messages {
    key: Key,
    ring: LessSafeKey,
    len: usize,
    stride: usize,
    sealed: Vec<u8>,
    results: Vec<u8>,
    next: usize,
}

impl Messages {
    fn new(len: usize) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &KEY).expect("the length of a key");
        let ring = LessSafeKey::new(key);
        let stride = (len + TAG_LEN).next_multiple_of(64) + 64;
        let mut sealed = vec![5; COLD / stride / BATCH * BATCH * stride];
        for message in sealed.chunks_exact_mut(stride) {
            let (text, rest) = message.split_at_mut(len);
            let tag = ring.seal_in_place_separate_tag(nonce(1), Aad::empty(), text);
            rest[..TAG_LEN].copy_from_slice(tag.expect("short").as_ref());
        }
        let results = vec![0; BATCH * stride];
        Self { key: Key::new(&KEY), ring, len, stride, sealed, results, next: 0 }
    }

    /// Seals or opens the next `COUNT` messages.
    fn batch<const COUNT: usize>(&mut self, cipher: Cipher, direction: Direction) {
        let Self { key, ring, len, stride, sealed, results, next } = self;
        let (len, stride) = (*len, *stride);
        let sources = sealed[*next..].chunks_exact(stride);
        let mut pairs = sources.zip(results.chunks_exact_mut(stride)).take(COUNT);
        let mut pair = || pairs.next().expect("a whole batch");
        match (cipher, direction) {
            (Cipher::Ring, Direction::Seal) => pairs.for_each(|(source, result)| {
                let (text, rest) = result.split_at_mut(len);
                text.copy_from_slice(&source[..len]);
                let tag = ring.seal_in_place_separate_tag(nonce(1), Aad::empty(), text);
                rest[..TAG_LEN].copy_from_slice(tag.expect("short").as_ref());
            }),
            (Cipher::Ring, Direction::Open) => pairs.for_each(|(source, result)| {
                let text = &mut result[..len];
                text.copy_from_slice(&source[..len]);
                let tag = Tag::try_from(&source[len..len + TAG_LEN]).expect("a whole tag");
                let opened =
                    ring.open_in_place_separate_tag(nonce(1), Aad::empty(), tag, text, 0..);
                opened.expect("authentic");
            }),
            (Cipher::Path(path), Direction::Seal) => {
                let mut jobs: [_; COUNT] = array::from_fn(|_| {
                    let (source, result) = pair();
                    let result = &mut result[..len + TAG_LEN];
                    Seal::new(key, 1, &source[..len], 0, result).expect("room")
                });
                seal_batch(path, &mut jobs);
            }
            (Cipher::Path(path), Direction::Open) => {
                let mut jobs: [_; COUNT] = array::from_fn(|_| {
                    let (source, result) = pair();
                    Open::new(key, 1, &source[..len + TAG_LEN], &mut result[..len]).expect("room")
                });
                open_batch(path, &mut jobs);
                assert!(jobs.iter().all(|job| job.outcome() == Outcome::Authentic));
            }
        }
        self.next += COUNT * self.stride;
        if self.next + BATCH * self.stride > self.sealed.len() {
            self.next = 0;
        }
    }

    /// The time of `count` messages in batches.
    fn time(
        &mut self,
        cipher: Cipher,
        direction: Direction,
        batch: usize,
        count: usize,
    ) -> Duration {
        let start = Instant::now();
        for _ in 0..count.div_ceil(batch) {
            match batch {
                1 => self.batch::<1>(cipher, direction),
                _ => self.batch::<BATCH>(cipher, direction),
            }
        }
        start.elapsed()
    }
}

fn nonce(counter: u8) -> Nonce {
    Nonce::assume_unique_for_key([0, 0, 0, 0, counter, 0, 0, 0, 0, 0, 0, 0])
}

fn criterion_rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal 16");
    group.sample_size(20).measurement_time(Duration::from_secs(1));
    for len in [128, 1420] {
        let mut messages = Messages::new(len);
        group.throughput(Throughput::Bytes((BATCH * len) as u64));
        for cipher in Cipher::all() {
            group.bench_function(BenchmarkId::new(cipher.name(), len), |bencher| {
                bencher.iter(|| messages.batch::<BATCH>(cipher, Direction::Seal));
            });
        }
    }
    group.finish();
}

/// Nanoseconds a message in each round.
struct Rounds(Vec<f64>);

impl Rounds {
    fn minimum(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The median of ring's time over this one, round by round.
    fn ratio(&self, ring: &Self) -> f64 {
        let mut ratios: Vec<f64> =
            ring.0.iter().zip(&self.0).map(|(ring, own)| ring / own).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

/// Rounds in which all ciphers take turns, so that what else runs on the machine disturbs them alike.
fn print_ratios() {
    println!("\nns a message (the least), and ring's time / this (median of {ROUNDS} rounds)");
    println!("bytes  batch  direction  cipher           ns  ratio");
    for len in LENGTHS {
        let mut messages = Messages::new(len);
        for batch in [1, BATCH] {
            for (direction, name) in [(Direction::Seal, "seal"), (Direction::Open, "open")] {
                let ciphers = Cipher::all();
                let mut rounds: Vec<_> = ciphers.iter().map(|_| Rounds(Vec::new())).collect();
                for _ in 0..ROUNDS {
                    for (cipher, rounds) in ciphers.iter().zip(&mut rounds) {
                        let time = messages.time(*cipher, direction, batch, MESSAGES);
                        rounds.0.push(time.as_nanos() as f64 / MESSAGES as f64);
                    }
                }
                for (cipher, own) in ciphers.iter().zip(&rounds) {
                    println!(
                        "{len:>5}  {batch:>5}  {name:<9}  {:<12} {:>6.0}  {:>5.2}",
                        cipher.name(),
                        own.minimum(),
                        own.ratio(&rounds[0])
                    );
                }
            }
        }
    }
}

criterion_group!(benches, criterion_rows);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    // Under `cargo test` and when something else was asked for there is only what criterion does.
    if env::args().skip(1).all(|argument| argument == "--bench") {
        print_ratios();
    }
}
