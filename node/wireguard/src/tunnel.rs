//! One consumer's WireGuard: handshakes in both roles, keypairs and timers (whitepaper, sections 5
//! and 6). It has no lock and reads no clock. Times are nanoseconds of a clock that does not go
//! backwards.
//!
//! Transport data takes three steps, so that a caller can open or seal many messages at once:
//! [`Tunnel::begin_open`], the cipher by [`Tunnel::receive_key`], [`Tunnel::finish_open`]; and
//! [`Tunnel::begin_seal`], the cipher by [`Tunnel::send_key`].

mod data;

use rand_core::OsRng;
use weir_common::{
    DropReason, PeerIndex,
    mac1::{Mac1Key, Mac1Keys},
    wire::{DATA_OVERHEAD, INITIATION_LEN, RESPONSE_LEN, message_type},
};
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};

pub use self::data::{Header, Opened, Sealing, padded_len};
pub use crate::noise::timers::{
    KEEPALIVE_TIMEOUT, MAX_JITTER, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT,
};
use crate::{
    identity::Identity,
    initiation::{Claim, agree},
    keys::PresharedKey,
    noise::{
        cookie::CookieJar,
        handshake::Initiator,
        keypair::{Keypair, Role, SessionKeys},
        timers::{REKEY_ON_RECEIVE, Timers},
    },
    timestamp::Timestamp,
};

/// The least room that a reply to a handshake message, or a timer's message, may take.
pub const REPLY_LEN: usize = INITIATION_LEN;

/// What to do after a handshake message or a tick.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    None,
    /// Send so many bytes from the start of the buffer.
    Send(usize),
}

/// The tunnel of one consumer.
pub struct Tunnel {
    local: Local,
    consumer: PublicKey,
    preshared: PresharedKey,
    index: PeerIndex,
    /// The lowest byte of the latest receiver index.
    last_index: u8,
    /// What is sent with.
    current: Option<Box<Keypair>>,
    /// What came before it, for messages that are under way.
    previous: Option<Box<Keypair>>,
    /// The answer to an initiation, until the consumer has shown that it has the keys.
    next: Option<Next>,
    attempt: Option<Box<Attempt>>,
    /// When the latest initiation was sent.
    initiated: Option<u64>,
    newest_sent: Timestamp,
    newest_received: Timestamp,
    cookies: CookieJar,
    timers: Timers,
}

/// The node's key pair, and the secret that it shares with the consumer, once it was needed.
struct Local {
    identity: Identity,
    shared: Option<SharedSecret>,
}

impl Local {
    fn new(identity: &Identity) -> Self {
        Self { identity: identity.clone(), shared: None }
    }

    /// `None` for a consumer's key of low order.
    fn shared(&mut self, consumer: &PublicKey) -> Option<&SharedSecret> {
        if self.shared.is_none() {
            self.shared = Some(agree(&self.identity, consumer.to_bytes())?);
        }
        self.shared.as_ref()
    }
}

/// A keypair that the consumer has not used yet.
struct Next {
    keypair: Box<Keypair>,
    /// The other key of the node, if the handshake was with it.
    local: Option<Box<Local>>,
}

/// A handshake that the node began.
struct Attempt {
    initiator: Initiator,
    since: u64,
    /// When the initiation is to be repeated.
    repeat: u64,
}

impl Tunnel {
    /// A tunnel to the consumer with `public_key`.
    #[must_use]
    pub fn new(identity: &Identity, public_key: [u8; 32], index: PeerIndex) -> Self {
        Self {
            local: Local::new(identity),
            consumer: PublicKey::from(public_key),
            preshared: PresharedKey::default(),
            index,
            last_index: 0,
            current: None,
            previous: None,
            next: None,
            attempt: None,
            initiated: None,
            newest_sent: Timestamp::default(),
            newest_received: Timestamp::default(),
            cookies: CookieJar::default(),
            timers: Timers::default(),
        }
    }

    /// The same with a pre-shared key.
    #[must_use]
    pub fn with_preshared_key(self, preshared: PresharedKey) -> Self {
        Self { preshared, ..self }
    }

    /// The memory of the tunnel with its keys, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let next = self.next.as_ref().map(|next| &next.keypair);
        let keypairs = [self.current.as_ref(), self.previous.as_ref(), next];
        let keypairs = keypairs.into_iter().flatten().count() * size_of::<Keypair>();
        let attempt = self.attempt.as_ref().map_or(0, |_| size_of::<Attempt>());
        size_of::<Self>() + keypairs + attempt
    }

    /// Whether the present keys were agreed with this key of the node.
    #[must_use]
    pub fn is_for(&self, identity: &Identity) -> bool {
        self.local.identity.public() == identity.public()
    }

    /// Whether packets can be sealed: a handshake was completed and its keys are not used up.
    #[must_use]
    #[inline]
    pub fn is_connected(&self, now: u64) -> bool {
        self.current.as_ref().is_some_and(|keypair| keypair.can_send(now))
    }

    /// Whether the first MAC of a handshake response is made with the node's key. Costs five hashes,
    /// and no scalar multiplication.
    #[must_use]
    pub fn has_right_mac1(&self, response: &[u8]) -> bool {
        let key = Mac1Key::new(self.local.identity.public().as_bytes());
        Mac1Keys::one(key).fit_response(response, 0)
    }

    /// Takes a handshake response or cookie reply. `out` must have room for [`REPLY_LEN`] bytes.
    ///
    /// # Errors
    ///
    /// Says that the message is not authentic, or not asked for.
    pub fn handshake(
        &mut self,
        message: &[u8],
        now: u64,
        out: &mut [u8],
    ) -> Result<Reply, DropReason> {
        if out.len() < REPLY_LEN {
            return Err(DropReason::Truncated);
        }
        if message.first() == Some(&message_type::COOKIE_REPLY) {
            let taken = self.cookies.receive(self.consumer.as_bytes(), message, now);
            return if taken { Ok(Reply::None) } else { Err(DropReason::HandshakeInvalid) };
        }
        self.response(message, now).ok_or(DropReason::HandshakeInvalid)?;
        // It shows the consumer that the node has the keys.
        Ok(self.keepalive(now, out))
    }

    /// Takes an initiation for the node's key of `identity`, which may be another than that of the
    /// present keys. `out` must have room for [`REPLY_LEN`] bytes. The MACs were checked before.
    ///
    /// # Errors
    ///
    /// Says that the message is not authentic, or not newer than all before.
    pub fn initiation(
        &mut self,
        identity: &Identity,
        message: &[u8],
        now: u64,
        out: &mut [u8],
    ) -> Result<Reply, DropReason> {
        let out: &mut [u8; RESPONSE_LEN] = out
            .get_mut(..REPLY_LEN)
            .and_then(<[u8]>::first_chunk_mut)
            .ok_or(DropReason::Truncated)?;
        let claim = Claim::read(identity, message).ok_or(DropReason::HandshakeInvalid)?;
        if claim.static_public != self.consumer.to_bytes() {
            return Err(DropReason::HandshakeInvalid);
        }
        let mut other = (!self.is_for(identity)).then(|| Box::new(Local::new(identity)));
        let local = other.as_deref_mut().unwrap_or(&mut self.local);
        let shared = local.shared(&self.consumer).ok_or(DropReason::HandshakeInvalid)?;
        let (timestamp, responder) = claim.accept(shared).ok_or(DropReason::HandshakeInvalid)?;
        if timestamp <= self.newest_received {
            return Err(DropReason::HandshakeReplay);
        }
        self.newest_received = timestamp;
        let (index, remote_index) = (self.next_index(), responder.index);
        let ephemeral = StaticSecret::random_from_rng(OsRng);
        let keys = responder
            .respond(&self.consumer, self.preshared.as_bytes(), &ephemeral, index, out)
            .ok_or(DropReason::HandshakeInvalid)?;
        self.cookies.sign(self.consumer.as_bytes(), index, now, out);
        let keypair = Box::new(Keypair::new(keys, Role::Responder, index, remote_index, now));
        self.previous = None;
        self.next = Some(Next { keypair, local: other });
        self.timers.received(false, now);
        Ok(Reply::Send(RESPONSE_LEN))
    }

    /// Begins a handshake, unless one is under way or one began a moment ago. `date` is the present
    /// time. `out` must have room for [`REPLY_LEN`] bytes.
    pub fn initiate(&mut self, now: u64, date: Timestamp, out: &mut [u8]) -> Reply {
        let is_too_early =
            self.initiated.is_some_and(|before| now.saturating_sub(before) < REKEY_TIMEOUT);
        if self.attempt.is_some() || is_too_early {
            return Reply::None;
        }
        self.send_initiation(now, now, date, out).unwrap_or(Reply::None)
    }

    /// Does what the timers ask for, and says when they have something to do again, unless a message is
    /// received or sent before: call it then, or a second later at most. `None` while there are no keys
    /// and no handshake is under way. `date` is the present time. `out` must have room for
    /// [`REPLY_LEN`] bytes.
    pub fn tick(&mut self, now: u64, date: Timestamp, out: &mut [u8]) -> (Reply, Option<u64>) {
        if out.len() < REPLY_LEN {
            return (Reply::None, Some(now));
        }
        self.forget_expired(now);
        let reply = match self.attempt.as_ref().map(|attempt| (attempt.since, attempt.repeat)) {
            Some((since, _)) if now.saturating_sub(since) >= REKEY_ATTEMPT_TIME => {
                self.attempt = None;
                self.timers.given_up();
                Reply::None
            }
            Some((since, repeat)) if now >= repeat => {
                self.send_initiation(since, now, date, out).unwrap_or(Reply::None)
            }
            None if self.timers.wants_handshake(now) => self.initiate(now, date, out),
            Some(_) | None => Reply::None,
        };
        let reply = match reply {
            Reply::None if self.timers.wants_keepalive(now) => self.keepalive(now, out),
            reply => reply,
        };
        (reply, self.next_tick())
    }

    /// When a key expires, or a timer has something to do.
    fn next_tick(&self) -> Option<u64> {
        let next = self.next.as_ref().map(|next| &next.keypair);
        let keypairs = [self.current.as_ref(), self.previous.as_ref(), next];
        let expiry = keypairs.into_iter().flatten().map(|keypair| keypair.expiry()).min();
        let attempt = self
            .attempt
            .as_ref()
            .map(|attempt| attempt.repeat.min(attempt.since.saturating_add(REKEY_ATTEMPT_TIME)));
        let alive = expiry.into_iter().chain(attempt).min()?;
        Some(self.timers.due().map_or(alive, |due| due.min(alive)))
    }

    /// Wipes keys that are too old for any use: earlier than the whitepaper asks for, which is three
    /// times their lifetime (section 6.3).
    fn forget_expired(&mut self, now: u64) {
        self.current.take_if(|keypair| keypair.is_expired(now));
        self.previous.take_if(|keypair| keypair.is_expired(now));
        self.next.take_if(|next| next.keypair.is_expired(now));
    }

    /// Writes an initiation of a handshake that began at `since`.
    fn send_initiation(
        &mut self,
        since: u64,
        now: u64,
        date: Timestamp,
        out: &mut [u8],
    ) -> Option<Reply> {
        let out: &mut [u8; INITIATION_LEN] = out.first_chunk_mut()?;
        let index = self.next_index();
        let ephemeral = StaticSecret::random_from_rng(OsRng);
        let timestamp = date.max(self.newest_sent.next());
        self.local.shared(&self.consumer)?;
        let Local { identity, shared } = &self.local;
        let initiator = Initiator::begin(
            identity,
            &self.consumer,
            shared.as_ref()?,
            ephemeral,
            index,
            timestamp,
            out,
        )?;
        self.cookies.sign(self.consumer.as_bytes(), index, now, out);
        // The message is as random as its keys.
        let [.., a, b] = *out.first_chunk::<40>()?;
        let jitter = u64::from(u16::from_le_bytes([a, b])) * MAX_JITTER / u64::from(u16::MAX);
        self.attempt =
            Some(Box::new(Attempt { initiator, since, repeat: now + REKEY_TIMEOUT + jitter }));
        self.newest_sent = timestamp;
        self.initiated = Some(now);
        self.timers.handshake_begun();
        Some(Reply::Send(INITIATION_LEN))
    }

    /// Takes a response. `None` if it does not answer the latest initiation.
    fn response(&mut self, message: &[u8], now: u64) -> Option<()> {
        let initiator = &self.attempt.as_ref()?.initiator;
        let index = initiator.index();
        let preshared = self.preshared.as_bytes();
        let (keys, remote_index) = initiator.finish(&self.local.identity, preshared, message)?;
        self.use_as_initiator(keys, index, remote_index, now);
        Some(())
    }

    fn use_as_initiator(&mut self, keys: SessionKeys, index: u32, remote_index: u32, now: u64) {
        let keypair = Box::new(Keypair::new(keys, Role::Initiator, index, remote_index, now));
        let before = self.current.replace(keypair);
        // The consumer may have begun to use the answer to its own initiation.
        self.previous = match self.next.take() {
            Some(Next { keypair, local: None }) => Some(keypair),
            _ => before,
        };
        self.attempt = None;
        self.timers.received(false, now);
        self.timers.handshake_begun();
    }

    /// The consumer has shown that it has the next keys.
    #[cold]
    fn promote(&mut self) {
        let Some(Next { keypair, local }) = self.next.take() else { return };
        self.previous = self.current.replace(keypair);
        if let Some(local) = local {
            self.local = *local;
            // Nothing of the other key stays in use.
            self.previous = None;
        }
        self.attempt = None;
        self.timers.handshake_begun();
    }

    /// A receiver index that no keypair or handshake of the tunnel has.
    fn next_index(&mut self) -> u32 {
        loop {
            self.last_index = self.last_index.wrapping_add(1);
            let index = self.index.get() << 8 | u32::from(self.last_index);
            let attempt = self.attempt.as_ref().map(|attempt| attempt.initiator.index());
            if attempt != Some(index) && self.keypair(index).is_none() {
                return index;
            }
        }
    }

    /// The keypair with this receiver index.
    #[inline]
    fn keypair(&self, index: u32) -> Option<&Keypair> {
        let next = self.next.as_ref().map(|next| &next.keypair);
        [self.current.as_ref(), next, self.previous.as_ref()]
            .into_iter()
            .flatten()
            .map(AsRef::as_ref)
            .find(|keypair| keypair.local_index == index)
    }

    /// Seals a keepalive, if there are keys.
    fn keepalive(&mut self, now: u64, out: &mut [u8]) -> Reply {
        let sealed = out.get_mut(..DATA_OVERHEAD).is_some_and(|out| self.seal(&[], 0, now, out));
        if sealed { Reply::Send(DATA_OVERHEAD) } else { Reply::None }
    }

    /// After a message was received or sent: whether the keys have to be renewed.
    #[inline]
    fn check_age(&mut self, now: u64, is_received: bool) {
        let wants = self.current.as_ref().is_some_and(|keypair| {
            if is_received {
                keypair.wants_rekey_on_receive(now, REKEY_ON_RECEIVE)
            } else {
                keypair.wants_rekey(now)
            }
        });
        if wants && self.attempt.is_none() {
            self.timers.request_rekey();
        }
    }
}

#[cfg(test)]
mod tests;
