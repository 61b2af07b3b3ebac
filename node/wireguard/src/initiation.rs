//! The responder's reading of a handshake initiation: whose it is, and how old.
//!
//! Noise_IKpsk2 up to the initiator's timestamp (WireGuard whitepaper, sections 5.4.2 and 5.4.3).
//! The handshake thread reads it to find the session, and the session's worker reads it again to
//! answer.

use x25519_dalek::{PublicKey, SharedSecret};

use crate::{
    identity::Identity,
    noise::{
        handshake::{self, Initiation, Responder},
        symmetric::Symmetric,
    },
    timestamp::Timestamp,
};

/// An initiation whose sender has named its static key, but has not yet proved that it has it.
pub struct Claim {
    /// The static public key that the initiation names.
    pub static_public: [u8; 32],
    symmetric: Symmetric,
    initiation: Initiation,
}

impl Claim {
    /// Reads the static key of an initiation. Takes one scalar multiplication. `None` if the
    /// message is not for this key of the node, or has another length.
    #[must_use]
    pub fn read(identity: &Identity, message: &[u8]) -> Option<Self> {
        let initiation = Initiation::parse(message)?;
        let mut symmetric = Symmetric::new(identity.public().as_bytes());
        symmetric.mix_ephemeral(&initiation.ephemeral);
        let key = symmetric.mix_key_and_seal(&agree(identity, initiation.ephemeral)?);
        let static_public = symmetric.open(&key, &initiation.sealed_static)?;
        Some(Self { static_public, symmetric, initiation })
    }

    /// Proves the claim by the secret that both static keys share (see [`agree`]), and reads the
    /// timestamp. `None` if the sender does not have the key that it named.
    #[must_use]
    pub fn prove(&self, shared: &SharedSecret) -> Option<Timestamp> {
        self.accept(shared).map(|(timestamp, _)| timestamp)
    }

    /// As [`Claim::prove`], with what answers the initiation.
    pub(crate) fn accept(&self, shared: &SharedSecret) -> Option<(Timestamp, Responder)> {
        let Initiation { sender, ephemeral, sealed_timestamp, .. } = self.initiation;
        let mut symmetric = self.symmetric.clone();
        let key = symmetric.mix_key_and_seal(shared);
        let timestamp = symmetric.open(&key, &sealed_timestamp)?;
        let responder = Responder { symmetric, ephemeral, index: sender };
        Some((Timestamp::from_tai64n(&timestamp), responder))
    }
}

/// The secret that the node's static key shares with another public key. Takes one scalar
/// multiplication. `None` for a public key of low order, with which everybody shares it.
#[must_use]
pub fn agree(identity: &Identity, public: [u8; 32]) -> Option<SharedSecret> {
    handshake::agree(identity.private(), &PublicKey::from(public))
}

#[cfg(test)]
mod tests {
    use boringtun::{
        noise::{Tunn, TunnResult},
        x25519::StaticSecret,
    };
    use weir_common::wire::INITIATION_LEN;

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
