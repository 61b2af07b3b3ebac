//! The path that every processor has: ring's assembly, one message at a time.

use std::mem::MaybeUninit;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

use super::{Key, Open, Seal, TAG_LEN};

/// Seals the messages one by one.
pub(super) fn seal_batch(jobs: &mut [Seal<'_>]) {
    for run in jobs.chunk_by_mut(|one, next| std::ptr::eq(one.key, next.key)) {
        let Some(first) = run.first() else { continue };
        let key = RingKey::new(first.key);
        run.iter_mut().for_each(|job| key.seal(job, &[]));
    }
}

/// Opens the messages one by one.
pub(super) fn open_batch(jobs: &mut [Open<'_>]) {
    for run in jobs.chunk_by_mut(|one, next| std::ptr::eq(one.key, next.key)) {
        let Some(first) = run.first() else { continue };
        let key = RingKey::new(first.key);
        run.iter_mut().for_each(|job| key.open(job, &[]));
    }
}

/// ring's form of a key: more than 500 bytes, and not wiped by ring. So it lives only as long as a
/// call, and is wiped here.
pub(super) struct RingKey(MaybeUninit<LessSafeKey>);

impl RingKey {
    #[expect(clippy::expect_used, reason = "ring refuses only other lengths of key")]
    pub(super) fn new(key: &Key) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key.0).expect("the length of a key");
        Self(MaybeUninit::new(LessSafeKey::new(key)))
    }

    fn get(&self) -> &LessSafeKey {
        // SAFETY: `new` has written it, and only `drop` overwrites it.
        unsafe { self.0.assume_init_ref() }
    }

    /// Seals one message.
    pub(super) fn seal(&self, job: &mut Seal<'_>, associated: &[u8]) {
        let (text, tag) = job.destination.split_at_mut(job.destination.len() - TAG_LEN);
        let (packet, padding) = text.split_at_mut(job.source.len());
        packet.copy_from_slice(job.source);
        padding.fill(0);
        let aad = Aad::from(associated);
        match self.get().seal_in_place_separate_tag(nonce(job.counter), aad, text) {
            Ok(right) => tag.copy_from_slice(right.as_ref()),
            // It refuses only what is longer than `MAX_TEXT_LEN`. No plaintext may stay behind.
            Err(_) => job.destination.fill(0),
        }
    }

    /// Opens one message.
    pub(super) fn open(&self, job: &mut Open<'_>, associated: &[u8]) {
        job.destination.copy_from_slice(job.ciphertext);
        let (nonce, aad, tag) = (nonce(job.counter), Aad::from(associated), Tag::from(*job.tag));
        let text = &mut *job.destination;
        let opened = self.get().open_in_place_separate_tag(nonce, aad, tag, text, 0..);
        let is_authentic = opened.is_ok();
        job.finish(is_authentic);
    }
}

impl Drop for RingKey {
    fn drop(&mut self) {
        // SAFETY: the pointer is to the field, which nobody reads after this. It owns no memory, and
        // as `MaybeUninit` it may have any bytes.
        unsafe { zeroize::zeroize_flat_type(self.0.as_mut_ptr()) }
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
