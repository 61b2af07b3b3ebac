//! The messages of a handshake, by Noise_IKpsk2 (whitepaper, sections 5.4.2 and 5.4.3). The MACs at
//! their ends are [`super::cookie`]'s.

use weir_common::wire::{INITIATION_LEN, RESPONSE_LEN, message_type};
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};

use super::{keypair::SessionKeys, symmetric::Symmetric};
use crate::{identity::Identity, timestamp::Timestamp};

const INDEX_LEN: usize = 4;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = crate::aead::TAG_LEN;
const SEALED_STATIC: usize = KEY_LEN + TAG_LEN;
const SEALED_TIMESTAMP: usize = Timestamp::LEN + TAG_LEN;

/// An initiation without its MACs, by its fields.
#[derive(Clone, Copy)]
pub(crate) struct Initiation {
    /// The initiator's index.
    pub(crate) sender: u32,
    /// The initiator's ephemeral key.
    pub(crate) ephemeral: [u8; KEY_LEN],
    /// The initiator's static key, sealed.
    pub(crate) sealed_static: [u8; SEALED_STATIC],
    /// The time, sealed.
    pub(crate) sealed_timestamp: [u8; SEALED_TIMESTAMP],
}

impl Initiation {
    /// Reads the fields. `None` if the length or the type is wrong.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let message: &[u8; INITIATION_LEN] = message.try_into().ok()?;
        let mut fields = Fields(message);
        (fields.take()? == [message_type::INITIATION, 0, 0, 0]).then_some(())?;
        Some(Self {
            sender: u32::from_le_bytes(fields.take()?),
            ephemeral: fields.take()?,
            sealed_static: fields.take()?,
            sealed_timestamp: fields.take()?,
        })
    }

    fn write(&self, out: &mut [u8; INITIATION_LEN]) {
        let fields: [&[u8]; 5] = [
            &[message_type::INITIATION, 0, 0, 0],
            &self.sender.to_le_bytes(),
            &self.ephemeral,
            &self.sealed_static,
            &self.sealed_timestamp,
        ];
        write(&fields, out);
    }
}

/// A response without its MACs, by its fields.
struct Response {
    sender: u32,
    receiver: u32,
    ephemeral: [u8; KEY_LEN],
    sealed_nothing: [u8; TAG_LEN],
}

impl Response {
    fn parse(message: &[u8]) -> Option<Self> {
        let message: &[u8; RESPONSE_LEN] = message.try_into().ok()?;
        let mut fields = Fields(message);
        (fields.take()? == [message_type::RESPONSE, 0, 0, 0]).then_some(())?;
        Some(Self {
            sender: u32::from_le_bytes(fields.take()?),
            receiver: u32::from_le_bytes(fields.take()?),
            ephemeral: fields.take()?,
            sealed_nothing: fields.take()?,
        })
    }

    fn write(&self, out: &mut [u8; RESPONSE_LEN]) {
        let fields: [&[u8]; 5] = [
            &[message_type::RESPONSE, 0, 0, 0],
            &self.sender.to_le_bytes(),
            &self.receiver.to_le_bytes(),
            &self.ephemeral,
            &self.sealed_nothing,
        ];
        write(&fields, out);
    }
}

/// Fields of a message, from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

fn write(fields: &[&[u8]], out: &mut [u8]) {
    let mut rest = out;
    for field in fields {
        let Some((place, behind)) = rest.split_at_mut_checked(field.len()) else { return };
        place.copy_from_slice(field);
        rest = behind;
    }
}

/// An initiator that waits for its response.
pub(crate) struct Initiator {
    symmetric: Symmetric,
    ephemeral: StaticSecret,
    index: u32,
}

impl Initiator {
    /// Begins a handshake with `peer`, and writes its first message without MACs. `shared` is what
    /// both static keys share. `ephemeral` must be fresh. Takes two scalar multiplications. `None` if
    /// the peer's key is of low order.
    pub(crate) fn begin(
        identity: &Identity,
        peer: &PublicKey,
        shared: &SharedSecret,
        ephemeral: StaticSecret,
        index: u32,
        timestamp: Timestamp,
        out: &mut [u8; INITIATION_LEN],
    ) -> Option<Self> {
        let mut symmetric = Symmetric::new(peer.as_bytes());
        let public = PublicKey::from(&ephemeral).to_bytes();
        symmetric.mix_ephemeral(&public);
        let key = symmetric.mix_key_and_seal(&agree(&ephemeral, peer)?);
        let mut sealed_static = [0; SEALED_STATIC];
        symmetric.seal(&key, identity.public().as_bytes(), &mut sealed_static)?;
        let key = symmetric.mix_key_and_seal(shared);
        let mut sealed_timestamp = [0; SEALED_TIMESTAMP];
        symmetric.seal(&key, &timestamp.to_tai64n(), &mut sealed_timestamp)?;
        let sender = index;
        Initiation { sender, ephemeral: public, sealed_static, sealed_timestamp }.write(out);
        Some(Self { symmetric, ephemeral, index })
    }

    /// The index by which the peer answers.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Takes a response. Returns the keys of the session and the peer's index. `None`, and the
    /// initiator waits on, if the message is not an authentic answer.
    pub(crate) fn finish(
        &self,
        identity: &Identity,
        preshared: &[u8; 32],
        message: &[u8],
    ) -> Option<(SessionKeys, u32)> {
        let response = Response::parse(message)?;
        if response.receiver != self.index {
            return None;
        }
        let mut symmetric = self.symmetric.clone();
        let ephemeral = PublicKey::from(response.ephemeral);
        symmetric.mix_ephemeral(&response.ephemeral);
        symmetric.mix_key(&agree(&self.ephemeral, &ephemeral)?);
        symmetric.mix_key(&agree(identity.private(), &ephemeral)?);
        let key = symmetric.mix_preshared_key(preshared);
        symmetric.open::<0>(&key, &response.sealed_nothing)?;
        let [send, receive] = symmetric.split();
        Some((SessionKeys::new(&send, &receive), response.sender))
    }
}

/// A responder that has read an authentic initiation.
pub(crate) struct Responder {
    /// The state after the initiation.
    pub(crate) symmetric: Symmetric,
    /// The initiator's ephemeral key.
    pub(crate) ephemeral: [u8; KEY_LEN],
    /// The initiator's index.
    pub(crate) index: u32,
}

impl Responder {
    /// Answers `peer`, which is the initiator, without MACs. `ephemeral` must be fresh. Takes three
    /// scalar multiplications. `None` if one of the initiator's keys is of low order.
    pub(crate) fn respond(
        mut self,
        peer: &PublicKey,
        preshared: &[u8; 32],
        ephemeral: &StaticSecret,
        index: u32,
        out: &mut [u8; RESPONSE_LEN],
    ) -> Option<SessionKeys> {
        let symmetric = &mut self.symmetric;
        let public = PublicKey::from(ephemeral).to_bytes();
        symmetric.mix_ephemeral(&public);
        symmetric.mix_key(&agree(ephemeral, &PublicKey::from(self.ephemeral))?);
        symmetric.mix_key(&agree(ephemeral, peer)?);
        let key = symmetric.mix_preshared_key(preshared);
        let mut sealed_nothing = [0; TAG_LEN];
        symmetric.seal(&key, &[], &mut sealed_nothing)?;
        let [receive, send] = symmetric.split();
        let (sender, receiver) = (index, self.index);
        Response { sender, receiver, ephemeral: public, sealed_nothing }.write(out);
        Some(SessionKeys::new(&send, &receive))
    }
}

/// The secret of two keys. `None` for a public key of low order, with which everybody shares it.
pub(crate) fn agree(private: &StaticSecret, public: &PublicKey) -> Option<SharedSecret> {
    let shared = private.diffie_hellman(public);
    shared.was_contributory().then_some(shared)
}

const _: () = assert!(
    4 + INDEX_LEN + KEY_LEN + SEALED_STATIC + SEALED_TIMESTAMP + 2 * 16 == INITIATION_LEN
        && 4 + 2 * INDEX_LEN + KEY_LEN + TAG_LEN + 2 * 16 == RESPONSE_LEN
);
