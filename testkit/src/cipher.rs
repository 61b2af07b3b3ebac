//! How fast the cipher alone is: the limit of any WireGuard data plane with it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Packets of a batch; they stay in the nearest cache as those of a worker's batch do.
const PACKETS: usize = 44;

/// Bits of packets of `size` bytes that ring seals in a second on the core where this runs. The
/// best of several short runs: other load makes a run slower, and none faster.
///
/// # Errors
///
/// Fails when ring does, which it does not for packets.
pub fn seal_rate(size: usize, time: Duration) -> anyhow::Result<f64> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &[1; 32]).map_err(|_| anyhow!("no key"))?;
    let key = LessSafeKey::new(key);
    let mut packets = vec![vec![0x5a; size]; PACKETS];
    let mut counter = 0u64;
    let mut best: f64 = 0.0;
    let end = Instant::now() + time;
    while Instant::now() < end {
        let start = Instant::now();
        let mut sealed = 0;
        while start.elapsed() < Duration::from_millis(20) {
            for packet in &mut packets {
                counter += 1;
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&counter.to_le_bytes());
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), packet);
                black_box(tag.map_err(|_| anyhow!("ring cannot seal"))?.as_ref());
            }
            sealed += PACKETS;
        }
        best = best.max((sealed * size * 8) as f64 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}
