//! The keys of a session with their counters (whitepaper, sections 5.4.5 and 6.1).

use super::{
    replay::ReplayWindow,
    timers::{REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME},
};
use crate::aead::Key;

/// The keys of a session. They wipe themselves.
pub(crate) struct SessionKeys {
    send: Key,
    receive: Key,
}

impl SessionKeys {
    /// Copies of the secrets.
    pub(crate) fn new(send: &[u8; 32], receive: &[u8; 32]) -> Self {
        Self { send: Key::new(send), receive: Key::new(receive) }
    }

    /// The key for what is sent.
    #[inline]
    pub(crate) fn send_key(&self) -> &Key {
        &self.send
    }

    /// The key for what is received.
    #[inline]
    pub(crate) fn receive_key(&self) -> &Key {
        &self.receive
    }
}

/// Who began the handshake that made the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// A session of two peers.
pub(crate) struct Keypair {
    keys: SessionKeys,
    /// By which the peer addresses it.
    pub(crate) local_index: u32,
    remote_index: u32,
    role: Role,
    created: u64,
    next_counter: u64,
    replay: ReplayWindow,
}

impl Keypair {
    /// A keypair of which no key has been used.
    pub(crate) fn new(
        keys: SessionKeys,
        role: Role,
        local_index: u32,
        remote_index: u32,
        now: u64,
    ) -> Self {
        let replay = ReplayWindow::new();
        Self { keys, local_index, remote_index, role, created: now, next_counter: 0, replay }
    }

    /// Whether it is too old to send or receive.
    #[inline]
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        now >= self.expiry()
    }

    /// When it is not used any more.
    pub(crate) fn expiry(&self) -> u64 {
        self.created.saturating_add(REJECT_AFTER_TIME)
    }

    /// Whether a message can be sent.
    #[inline]
    pub(crate) fn can_send(&self, now: u64) -> bool {
        self.next_counter < REJECT_AFTER_MESSAGES && !self.is_expired(now)
    }

    /// Whether a new handshake is due after sending.
    #[inline]
    pub(crate) fn wants_rekey(&self, now: u64) -> bool {
        self.next_counter > REKEY_AFTER_MESSAGES
            || self.role == Role::Initiator && self.is_older(now, REKEY_AFTER_TIME)
    }

    /// Whether a new handshake is due after receiving: the initiator has nothing to send, but soon
    /// could not receive any more.
    #[inline]
    pub(crate) fn wants_rekey_on_receive(&self, now: u64, age: u64) -> bool {
        self.role == Role::Initiator && self.is_older(now, age)
    }

    #[inline]
    fn is_older(&self, now: u64, age: u64) -> bool {
        now.saturating_sub(self.created) >= age
    }

    /// Takes the next counter. Only after [`Keypair::can_send`].
    #[inline]
    pub(crate) fn take_counter(&mut self) -> u64 {
        let counter = self.next_counter;
        self.next_counter += 1;
        counter
    }

    /// The index by which the peer knows the session.
    #[inline]
    pub(crate) fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// The key for what is sent.
    #[inline]
    pub(crate) fn send_key(&self) -> &Key {
        self.keys.send_key()
    }

    /// The key for what is received.
    #[inline]
    pub(crate) fn receive_key(&self) -> &Key {
        self.keys.receive_key()
    }

    /// Whether a counter may be received. Remembers nothing.
    #[inline]
    pub(crate) fn allows(&self, counter: u64) -> bool {
        self.replay.allows(counter)
    }

    /// Remembers the counter of an authentic message. Returns whether it is allowed.
    #[inline]
    pub(crate) fn accept(&mut self, counter: u64) -> bool {
        self.replay.accept(counter)
    }

    /// For tests at the limits.
    #[cfg(test)]
    pub(crate) fn set_next_counter(&mut self, counter: u64) {
        self.next_counter = counter;
    }
}
