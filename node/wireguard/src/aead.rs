//! ChaCha20-Poly1305 (RFC 8439) as WireGuard uses it (whitepaper, section 5.4.6), for many messages of
//! one call.
//!
//! [`seal_batch`] and [`open_batch`] carry transport data: the nonce is 32 zero bits and the counter,
//! little-endian, and there is no associated data. [`seal`] and [`open`] are for single messages with
//! associated data, as in handshakes.
//!
//! A [`Path`] is one implementation, chosen at run time. All of them give the same bytes.
//!
//! # Secrets
//!
//! - No branch and no address depends on a key, a text or a tag. Lengths, counters and the result of
//!   an authentication are public.
//! - A [`Key`] wipes itself. What a call derives from it is wiped before the call returns. ring's
//!   internals are the exception: they leave copies on the stack, which only the next calls overwrite.
#![expect(unsafe_code, reason = "the intrinsics of the vector paths, and wiping what ring keeps")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod by_ring;
#[cfg(target_arch = "x86_64")]
mod job;
mod path;

use thiserror::Error;
use zeroize::{Zeroize as _, ZeroizeOnDrop};

pub use path::{ENVIRONMENT, Path, PathError};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Bytes of a tag, which follows the ciphertext.
pub const TAG_LEN: usize = 16;
/// The most bytes of plaintext in one message, padding included: an IP packet cannot have more.
pub const MAX_TEXT_LEN: usize = 65_536;

/// A key of one direction of a keypair. It wipes itself when it is dropped.
#[derive(ZeroizeOnDrop)]
pub struct Key([u8; KEY_LEN]);

impl Key {
    /// A copy of `bytes`, which stay the caller's to wipe.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(*bytes)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A message whose buffers do not fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LengthError {
    /// The destination has another length than the message will have.
    #[error("the destination has {actual} bytes, where the message takes {expected}")]
    Destination {
        /// What the message takes.
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// The plaintext has more than [`MAX_TEXT_LEN`] bytes.
    #[error("the text has more than {MAX_TEXT_LEN} bytes")]
    TooLong,
    /// The message to open is shorter than a tag.
    #[error("the message is shorter than its tag of {TAG_LEN} bytes")]
    TooShort,
}

/// One message to seal.
#[derive(Debug)]
pub struct Seal<'a> {
    key: &'a Key,
    counter: u64,
    source: &'a [u8],
    destination: &'a mut [u8],
}

impl<'a> Seal<'a> {
    /// Will seal `source` and `padding` zero bytes under `key` and `counter`, and write ciphertext and
    /// tag to all of `destination`. A counter must never be used twice with one key.
    ///
    /// # Errors
    ///
    /// Fails if `destination` does not have exactly the length of the text, padding included, and
    /// [`TAG_LEN`], or if the text is too long.
    pub fn new(
        key: &'a Key,
        counter: u64,
        source: &'a [u8],
        padding: usize,
        destination: &'a mut [u8],
    ) -> Result<Self, LengthError> {
        let text = source.len().checked_add(padding).filter(|text| *text <= MAX_TEXT_LEN);
        let expected = text.ok_or(LengthError::TooLong)? + TAG_LEN;
        let actual = destination.len();
        if actual != expected {
            return Err(LengthError::Destination { expected, actual });
        }
        Ok(Self { key, counter, source, destination })
    }
}

/// What became of a message to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not been opened yet.
    Pending,
    /// The tag is right. The plaintext is in the destination.
    Authentic,
    /// The tag is wrong. The destination is all zeros.
    Forged,
}

/// One message to open.
#[derive(Debug)]
pub struct Open<'a> {
    key: &'a Key,
    counter: u64,
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_LEN],
    destination: &'a mut [u8],
    outcome: Outcome,
}

impl<'a> Open<'a> {
    /// Will open `source`, a ciphertext with its tag, and write the plaintext to all of `destination`.
    ///
    /// # Errors
    ///
    /// Fails if `source` is shorter than a tag or longer than the longest message, or if `destination`
    /// does not have exactly the length of the text.
    pub fn new(
        key: &'a Key,
        counter: u64,
        source: &'a [u8],
        destination: &'a mut [u8],
    ) -> Result<Self, LengthError> {
        let (ciphertext, tag) = source.split_last_chunk().ok_or(LengthError::TooShort)?;
        if ciphertext.len() > MAX_TEXT_LEN {
            return Err(LengthError::TooLong);
        }
        let (expected, actual) = (ciphertext.len(), destination.len());
        if actual != expected {
            return Err(LengthError::Destination { expected, actual });
        }
        Ok(Self { key, counter, ciphertext, tag, destination, outcome: Outcome::Pending })
    }

    /// What became of the message.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Says whether the tag is right, and wipes what was written if it is not.
    fn finish(&mut self, is_authentic: bool) {
        self.outcome = if is_authentic {
            Outcome::Authentic
        } else {
            self.destination.zeroize();
            Outcome::Forged
        };
    }
}

/// Seals all messages. They may have different keys and lengths. Neighbours with the same key, by
/// address, cost less. It allocates nothing.
pub fn seal_batch(path: Path, jobs: &mut [Seal<'_>]) {
    match path.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a path exists only where the processor can run it.
        path::Kind::Avx512 => unsafe { avx512::seal_batch(jobs) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        path::Kind::Avx2 => unsafe { avx2::all(jobs) },
        path::Kind::Ring => by_ring::seal_batch(jobs),
    }
}

/// Opens all messages, as [`seal_batch`] seals them. [`Open::outcome`] says which ones are authentic.
pub fn open_batch(path: Path, jobs: &mut [Open<'_>]) {
    match path.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a path exists only where the processor can run it.
        path::Kind::Avx512 => unsafe { avx512::open_batch(jobs) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        path::Kind::Avx2 => unsafe { avx2::all(jobs) },
        path::Kind::Ring => by_ring::open_batch(jobs),
    }
}

/// Seals one message with associated data: `source` under `key` and `counter`, ciphertext and tag to
/// all of `destination`.
///
/// # Errors
///
/// Fails as [`Seal::new`] does.
pub fn seal(
    key: &Key,
    counter: u64,
    associated: &[u8],
    source: &[u8],
    destination: &mut [u8],
) -> Result<(), LengthError> {
    let mut job = Seal::new(key, counter, source, 0, destination)?;
    by_ring::RingKey::new(key).seal(&mut job, associated);
    Ok(())
}

/// Opens one message with associated data. The plaintext goes to all of `destination`, which is all
/// zeros after a wrong tag.
///
/// # Errors
///
/// Fails as [`Open::new`] does.
pub fn open(
    key: &Key,
    counter: u64,
    associated: &[u8],
    source: &[u8],
    destination: &mut [u8],
) -> Result<Outcome, LengthError> {
    let mut job = Open::new(key, counter, source, destination)?;
    by_ring::RingKey::new(key).open(&mut job, associated);
    Ok(job.outcome)
}

#[cfg(test)]
mod tests;
