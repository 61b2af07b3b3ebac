//! The symmetric state of a handshake: chaining key and hash (whitepaper, section 5.4).

use std::sync::LazyLock;

use blake2::{Blake2s256, Digest as _};
use hmac::{Mac as _, SimpleHmac};
use x25519_dalek::SharedSecret;
use zeroize::Zeroizing;

use crate::aead::{self, Key, Outcome, TAG_LEN};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// The chaining key and the hash with which every handshake begins.
static BEGINNING: LazyLock<([u8; 32], [u8; 32])> = LazyLock::new(|| {
    let chaining_key = hash(&[CONSTRUCTION]);
    (chaining_key, hash(&[&chaining_key, IDENTIFIER]))
});

/// 32 secret bytes, which wipe themselves.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// Chaining key and hash of a handshake, as far as it has come.
#[derive(Clone)]
pub(crate) struct Symmetric {
    chaining_key: Secret,
    hash: [u8; 32],
}

impl Symmetric {
    /// The state before the first message to the responder with this static key.
    pub(crate) fn new(responder: &[u8; 32]) -> Self {
        let (chaining_key, before) = *BEGINNING;
        Self { chaining_key: Zeroizing::new(chaining_key), hash: hash(&[&before, responder]) }
    }

    /// Mixes bytes that are sent into the hash.
    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// Mixes an ephemeral public key into hash and chaining key.
    pub(crate) fn mix_ephemeral(&mut self, ephemeral: &[u8; 32]) {
        self.mix_hash(ephemeral);
        [self.chaining_key] = derive(&*self.chaining_key, ephemeral);
    }

    /// Mixes an agreed secret into the chaining key.
    pub(crate) fn mix_key(&mut self, shared: &SharedSecret) {
        [self.chaining_key] = derive(&*self.chaining_key, shared.as_bytes());
    }

    /// Mixes an agreed secret into the chaining key, and returns the key of the next sealed field.
    pub(crate) fn mix_key_and_seal(&mut self, shared: &SharedSecret) -> Key {
        let [chaining_key, key] = derive(&*self.chaining_key, shared.as_bytes());
        self.chaining_key = chaining_key;
        Key::new(&key)
    }

    /// Mixes the pre-shared key in, and returns the key of the next sealed field.
    pub(crate) fn mix_preshared_key(&mut self, preshared: &[u8; 32]) -> Key {
        let [chaining_key, temporary, key] = derive(&*self.chaining_key, preshared);
        self.chaining_key = chaining_key;
        self.mix_hash(&*temporary);
        Key::new(&key)
    }

    /// Seals a field into `sealed`, which has exactly its length and that of a tag. The nonce is zero
    /// and the associated data the hash. `None` if the lengths do not fit.
    pub(crate) fn seal(&mut self, key: &Key, field: &[u8], sealed: &mut [u8]) -> Option<()> {
        aead::seal(key, 0, &self.hash, field, sealed).ok()?;
        self.mix_hash(sealed);
        Some(())
    }

    /// Opens a field. `None` if it is not authentic.
    pub(crate) fn open<const LEN: usize>(&mut self, key: &Key, sealed: &[u8]) -> Option<[u8; LEN]> {
        debug_assert_eq!(sealed.len(), LEN + TAG_LEN, "a field and its tag");
        let mut field = [0; LEN];
        let outcome = aead::open(key, 0, &self.hash, sealed, &mut field).ok()?;
        self.mix_hash(sealed);
        (outcome == Outcome::Authentic).then_some(field)
    }

    /// The keys of the session: from initiator to responder, and back.
    pub(crate) fn split(&self) -> [Secret; 2] {
        derive(&*self.chaining_key, &[])
    }
}

/// BLAKE2s of the parts, one behind the other.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// The whitepaper's KDF1 to KDF3: HKDF (RFC 5869) with BLAKE2s.
pub(crate) fn derive<const COUNT: usize>(key: &[u8], input: &[u8]) -> [Secret; COUNT] {
    let secret = Zeroizing::new(hmac(key, &[input]));
    let mut keys: [Secret; COUNT] = std::array::from_fn(|_| Secret::default());
    let mut before: &[u8] = &[];
    for (number, key) in (1..).zip(&mut keys) {
        **key = hmac(&*secret, &[before, &[number]]);
        before = &**key;
    }
    keys
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes a key of any length.
    let Ok(mut hmac) = SimpleHmac::<Blake2s256>::new_from_slice(key) else { return [0; 32] };
    parts.iter().for_each(|part| hmac.update(part));
    hmac.finalize().into_bytes().into()
}
