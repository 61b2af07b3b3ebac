//! The responder's reading of a handshake initiation: whose it is, and how old.
//!
//! Noise_IKpsk2 up to the initiator's timestamp (WireGuard whitepaper, sections 5.4.2 and 5.4.3).
//! boringtun reads it again when it answers; it does not say what the timestamp was, and forgets
//! it with the process.

use blake2::{Blake2s256, Digest as _};
use boringtun::x25519::{PublicKey, SharedSecret};
use hmac::{Mac as _, SimpleHmac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use weir_common::wire::INITIATION_LEN;
use zeroize::Zeroizing;

use crate::{identity::Identity, timestamp::Timestamp};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const TAG_LEN: usize = 16;

/// An initiation whose sender has named its static key, but has not yet proved that it has it.
pub struct Claim {
    /// The static public key that the initiation names.
    pub static_public: [u8; 32],
    chaining_key: Zeroizing<[u8; 32]>,
    hash: [u8; 32],
    sealed_timestamp: [u8; Timestamp::LEN + TAG_LEN],
}

impl Claim {
    /// Reads the static key of an initiation. Takes one scalar multiplication. `None` if the
    /// message is not for this key of the node, or has another length.
    #[must_use]
    pub fn read(identity: &Identity, message: &[u8]) -> Option<Self> {
        let message: &[u8; INITIATION_LEN] = message.try_into().ok()?;
        let ephemeral: [u8; 32] = *message.get(8..)?.first_chunk()?;
        let sealed_static: [u8; 32 + TAG_LEN] = *message.get(40..)?.first_chunk()?;
        let sealed_timestamp = *message.get(88..)?.first_chunk()?;

        let chaining_key = hash(&[CONSTRUCTION]);
        let transcript = hash(&[&hash(&[&chaining_key, IDENTIFIER]), identity.public().as_bytes()]);
        let (chaining_key, _) = derive(&chaining_key, &ephemeral);
        let transcript = hash(&[&transcript, &ephemeral]);
        let shared = agree(identity, ephemeral)?;
        let (chaining_key, key) = derive(&chaining_key, shared.as_bytes());
        let static_public = open(&key, &transcript, sealed_static)?;
        let hash = hash(&[&transcript, &sealed_static]);
        Some(Self { static_public, chaining_key, hash, sealed_timestamp })
    }

    /// Proves the claim by the secret that both static keys share (see [`agree`]), and reads the
    /// timestamp. `None` if the sender does not have the key that it named.
    #[must_use]
    pub fn prove(&self, shared: &SharedSecret) -> Option<Timestamp> {
        let (_, key) = derive(&self.chaining_key, shared.as_bytes());
        open(&key, &self.hash, self.sealed_timestamp).map(|bytes| Timestamp::from_tai64n(&bytes))
    }
}

/// The secret that the node's static key shares with another public key. Takes one scalar
/// multiplication. `None` for a public key of low order, with which everybody shares it.
#[must_use]
pub fn agree(identity: &Identity, public: [u8; 32]) -> Option<SharedSecret> {
    let shared = identity.private().diffie_hellman(&PublicKey::from(public));
    shared.was_contributory().then_some(shared)
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// The whitepaper's KDF2 (HKDF of RFC 5869 with BLAKE2s): the next chaining key, and a key.
fn derive(chaining_key: &[u8; 32], input: &[u8]) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>) {
    let secret = Zeroizing::new(hmac(chaining_key, &[input]));
    let first = Zeroizing::new(hmac(&secret, &[&[1]]));
    let second = Zeroizing::new(hmac(&secret, &[&*first, &[2]]));
    (first, second)
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key of 32 bytes is shorter than a block of BLAKE2s: every such key is taken.
    let Ok(mut hmac) = SimpleHmac::<Blake2s256>::new_from_slice(key) else { return [0; 32] };
    parts.iter().for_each(|part| hmac.update(part));
    hmac.finalize().into_bytes().into()
}

/// Opens a sealed field of the handshake: its nonce is zero, its associated data the transcript.
fn open<const SEALED: usize, const PLAIN: usize>(
    key: &[u8; 32],
    transcript: &[u8; 32],
    mut sealed: [u8; SEALED],
) -> Option<[u8; PLAIN]> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    key.open_in_place(nonce, Aad::from(transcript), &mut sealed).ok()?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use boringtun::{
        noise::{Tunn, TunnResult},
        x25519::StaticSecret,
    };

    use super::*;

    fn initiation(consumer: &StaticSecret, node: &Identity) -> Vec<u8> {
        let mut tunn = Tunn::new(consumer.clone(), *node.public(), None, None, 7, None);
        let mut buffer = [0; INITIATION_LEN];
        match tunn.format_handshake_initiation(&mut buffer, false) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            other => panic!("no initiation: {other:?}"),
        }
    }

    fn timestamp(node: &Identity, message: &[u8]) -> Option<Timestamp> {
        let claim = Claim::read(node, message)?;
        claim.prove(&agree(node, claim.static_public)?)
    }

    #[test]
    fn boringtuns_initiations_say_whose_they_are_and_when_they_were_made() {
        let (node, consumer) = (Identity::new([1; 32]), StaticSecret::from([2; 32]));
        let first = initiation(&consumer, &node);
        let claim = Claim::read(&node, &first).expect("an initiation for this node");
        assert_eq!(claim.static_public, PublicKey::from(&consumer).to_bytes());
        let second = initiation(&consumer, &node);
        let times = [&first, &second].map(|message| timestamp(&node, message).expect("a proof"));
        assert!(times[0] < times[1], "{times:?}");
        // boringtun writes UTC and 37 leap seconds.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("a clock").as_secs();
        assert!(times[0].unix_seconds().abs_diff(now) < 300, "{times:?} at {now}");
    }

    #[test]
    fn an_altered_initiation_or_one_for_another_node_is_none() {
        let (node, consumer) = (Identity::new([1; 32]), StaticSecret::from([2; 32]));
        let whole = initiation(&consumer, &node);
        assert!(timestamp(&Identity::new([3; 32]), &whole).is_none());
        for at in 8..116 {
            let mut altered = whole.clone();
            altered[at] ^= 4;
            assert!(timestamp(&node, &altered).is_none(), "byte {at}");
        }
        for len in 0..whole.len() {
            assert!(timestamp(&node, &whole[..len]).is_none(), "{len} bytes");
        }
    }

    /// Anybody can name a consumer's public key: the ephemeral secret is the sender's own.
    #[test]
    fn who_has_only_the_public_key_proves_nothing() {
        let (node, consumer) = (Identity::new([1; 32]), StaticSecret::from([2; 32]));
        let claim = Claim::read(&node, &initiation(&consumer, &node)).expect("a claim");
        let other = agree(&node, PublicKey::from(&StaticSecret::from([9; 32])).to_bytes());
        assert!(claim.prove(&other.expect("a key of full order")).is_none());
    }

    #[test]
    fn a_public_key_of_low_order_shares_no_secret() {
        let node = Identity::new([1; 32]);
        let one: [u8; 32] = std::array::from_fn(|i| u8::from(i == 0));
        assert!(agree(&node, [0; 32]).is_none() && agree(&node, one).is_none());
    }
}
