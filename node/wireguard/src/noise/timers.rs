//! When something is due (whitepaper, section 6). All times are nanoseconds.

const SECOND: u64 = 1_000_000_000;

/// The messages after which a new handshake is due.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// No counter may reach it.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// The age of a keypair at which its initiator begins a new handshake.
pub const REKEY_AFTER_TIME: u64 = 120 * SECOND;
/// The age from which a keypair is not used any more.
pub const REJECT_AFTER_TIME: u64 = 180 * SECOND;
/// The time after which a handshake is given up.
pub const REKEY_ATTEMPT_TIME: u64 = 90 * SECOND;
/// The interval between two initiations.
pub const REKEY_TIMEOUT: u64 = 5 * SECOND;
/// The time within which received data is answered, by a keepalive if there is nothing else.
pub const KEEPALIVE_TIMEOUT: u64 = 10 * SECOND;
/// The longest delay that is added to [`REKEY_TIMEOUT`] by chance.
pub const MAX_JITTER: u64 = 333 * SECOND / 1000;
/// The time for which a cookie is used.
pub(crate) const COOKIE_LIFETIME: u64 = 120 * SECOND;

/// The age at which the initiator of a keypair begins a new handshake though it only receives.
pub(crate) const REKEY_ON_RECEIVE: u64 = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT;

/// The timers of one peer that depend on its packets.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// When a keepalive is due.
    keepalive: Option<u64>,
    /// When a handshake is due because data was not answered.
    answer: Option<u64>,
    /// Whether a handshake is due because of the age or use of the keys.
    rekey: bool,
}

impl Timers {
    /// Something authentic was received; data if `is_data`.
    #[inline]
    pub(crate) fn received(&mut self, is_data: bool, now: u64) {
        self.answer = None;
        if is_data && self.keepalive.is_none() {
            self.keepalive = Some(now + KEEPALIVE_TIMEOUT);
        }
    }

    /// A data message was sent; with a packet if `is_data`.
    #[inline]
    pub(crate) fn sent(&mut self, is_data: bool, now: u64) {
        self.keepalive = None;
        if is_data && self.answer.is_none() {
            self.answer = Some(now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
        }
    }

    /// The keys are old or much used.
    #[inline]
    pub(crate) fn request_rekey(&mut self) {
        self.rekey = true;
    }

    /// A handshake message was sent, or keys are new: none of this is due any more.
    pub(crate) fn handshake_begun(&mut self) {
        self.answer = None;
        self.rekey = false;
    }

    /// A handshake was given up.
    pub(crate) fn given_up(&mut self) {
        *self = Self::default();
    }

    /// When the first of them is due; 0 for at once.
    pub(crate) fn due(&self) -> Option<u64> {
        let rekey = self.rekey.then_some(0);
        rekey.into_iter().chain(self.keepalive).chain(self.answer).min()
    }

    /// Whether a handshake is due.
    pub(crate) fn wants_handshake(&self, now: u64) -> bool {
        self.rekey || self.answer.is_some_and(|due| now >= due)
    }

    /// Whether a keepalive is due.
    pub(crate) fn wants_keepalive(&self, now: u64) -> bool {
        self.keepalive.is_some_and(|due| now >= due)
    }
}
