#![expect(clippy::unwrap_used, reason = "what is not as a test assumes fails it")]

use super::*;

mod against_ring;
mod environment;
mod lengths;
#[cfg(target_arch = "x86_64")]
mod poly1305;
#[cfg(target_arch = "x86_64")]
mod vectors;

/// What is tested: a path as callers have it, or AVX-512 also for what it leaves to ring.
#[derive(Clone, Copy, Debug)]
enum Under {
    Path(Path),
    #[cfg(target_arch = "x86_64")]
    Avx512Always,
}

impl Under {
    /// All that this processor can run.
    fn all() -> Vec<Self> {
        let mut all: Vec<_> = Path::available().map(Self::Path).collect();
        #[cfg(target_arch = "x86_64")]
        if avx512::is_available() {
            all.push(Self::Avx512Always);
        }
        all
    }

    fn seal_batch(self, jobs: &mut [Seal<'_>]) {
        match self {
            Self::Path(path) => seal_batch(path, jobs),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `all` has asked for it.
            Self::Avx512Always => unsafe { avx512::all(jobs) },
        }
    }

    fn open_batch(self, jobs: &mut [Open<'_>]) {
        match self {
            Self::Path(path) => open_batch(path, jobs),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `all` has asked for it.
            Self::Avx512Always => unsafe { avx512::all(jobs) },
        }
    }
}

/// Bytes that look random and are the same in each run.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ len as u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}
