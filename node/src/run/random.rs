//! The secrets that a run chooses.

use anyhow::anyhow;
use rand_core::{OsRng, RngCore as _};
use weir_common::SlotPermutation;

use weir_dataplane::FlowSecret;

/// Keys for the hashes by which flows are known.
pub(super) fn flow_secret() -> anyhow::Result<FlowSecret> {
    let random = bytes::<32>()?;
    let (words, _) = random.as_chunks::<8>();
    let mut keys = [0; 4];
    for (key, word) in keys.iter_mut().zip(words) {
        *key = u64::from_ne_bytes(*word);
    }
    Ok(FlowSecret(keys))
}

/// The permutation that hides which slot a peer index means.
pub(super) fn permutation() -> anyhow::Result<SlotPermutation> {
    let random = bytes::<16>()?;
    let (words, _) = random.as_chunks::<4>();
    let mut keys = [0; 4];
    for (key, word) in keys.iter_mut().zip(words) {
        *key = u32::from_ne_bytes(*word);
    }
    Ok(SlotPermutation { keys })
}

fn bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut random = [0; N];
    OsRng.try_fill_bytes(&mut random).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(random)
}
