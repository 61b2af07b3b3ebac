//! What the vector paths share: the parts of a message, whether it is sealed or opened, and the parts
//! of ChaCha20's state.

use subtle::ConstantTimeEq as _;

use super::{Key, Open, Seal, TAG_LEN};

/// Bytes of a block of ChaCha20.
pub(super) const BLOCK_LEN: usize = 64;
/// "expand 32-byte k" (RFC 8439, section 2.3).
pub(super) const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The last three words of the state.
pub(super) type Nonce = [u32; 3];

/// The nonce of a counter (whitepaper, section 5.4.6).
fn nonce(counter: u64) -> Nonce {
    [0, counter as u32, (counter >> 32) as u32]
}

impl Key {
    /// The key as words of the state.
    #[inline]
    pub(super) fn words(&self) -> [u32; 8] {
        let (words, _) = self.0.as_chunks();
        std::array::from_fn(|i| u32::from_le_bytes(words[i]))
    }
}

/// What sealing and opening differ in.
pub(super) trait Job {
    fn key(&self) -> &Key;
    fn nonce(&self) -> Nonce;
    fn text_len(&self) -> usize;
    /// What is read. It may be shorter than the text, which then ends in zeros.
    fn source(&self) -> &[u8];
    /// The source, and where the text goes.
    fn buffers(&mut self) -> (&[u8], &mut [u8]);
    /// What is authenticated, once the text of a message to seal has been written.
    fn ciphertext(&self) -> &[u8];
    /// The lengths that are authenticated with it: of the associated data, which transport data does
    /// not have, and of the text.
    #[inline]
    fn lengths(&self) -> [u64; 2] {
        [0, self.text_len() as u64]
    }
    fn finish(&mut self, tag: &[u8; TAG_LEN]);
}

impl Job for Seal<'_> {
    #[inline]
    fn key(&self) -> &Key {
        self.key
    }

    #[inline]
    fn nonce(&self) -> Nonce {
        nonce(self.counter)
    }

    #[inline]
    fn text_len(&self) -> usize {
        self.destination.len() - TAG_LEN
    }

    #[inline]
    fn source(&self) -> &[u8] {
        self.source
    }

    #[inline]
    fn buffers(&mut self) -> (&[u8], &mut [u8]) {
        let len = self.text_len();
        (self.source, &mut self.destination[..len])
    }

    #[inline]
    fn ciphertext(&self) -> &[u8] {
        &self.destination[..self.text_len()]
    }

    #[inline]
    fn finish(&mut self, tag: &[u8; TAG_LEN]) {
        let len = self.text_len();
        self.destination[len..].copy_from_slice(tag);
    }
}

impl Job for Open<'_> {
    #[inline]
    fn key(&self) -> &Key {
        self.key
    }

    #[inline]
    fn nonce(&self) -> Nonce {
        nonce(self.counter)
    }

    #[inline]
    fn text_len(&self) -> usize {
        self.destination.len()
    }

    #[inline]
    fn source(&self) -> &[u8] {
        self.ciphertext
    }

    #[inline]
    fn buffers(&mut self) -> (&[u8], &mut [u8]) {
        (self.ciphertext, self.destination)
    }

    #[inline]
    fn ciphertext(&self) -> &[u8] {
        self.ciphertext
    }

    #[inline]
    fn finish(&mut self, tag: &[u8; TAG_LEN]) {
        let is_authentic = u128::from_le_bytes(*tag).ct_eq(&u128::from_le_bytes(*self.tag));
        self.finish(is_authentic.into());
    }
}
