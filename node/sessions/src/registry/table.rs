//! The sessions that there are, by identifier, key and name.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_common::account::{Counters, SessionState};

use super::{MIN_PREFIX, SessionError, clock::Clock, limits};
use crate::{name, slots::Slots};
use weir_common::PublicKey;
use weir_ledger::{
    Credit, OwnRates, Pause, Receipt, Session, SessionId, Usage, credit::Extra, unix_now,
};
use weir_promise::Agreement;
use weir_wireguard::keys::{self, PresharedKey};

pub(super) struct SessionTable {
    pub(super) by_id: BTreeMap<SessionId, Entry>,
    pub(super) by_key: HashMap<PublicKey, SessionId>,
    pub(super) by_name: HashMap<String, SessionId>,
    pub(super) slots: Slots,
    /// What ended sessions have used.
    pub(super) ended: Counters,
    /// What holds for all of them.
    pub(super) common: limits::Common,
}

pub(super) struct Entry {
    pub(super) session: Session,
    /// What the ledger has.
    pub(super) saved: Counters,
    /// How long it was open.
    pub(super) clock: Clock,
    pub(super) credit: Credit,
    pub(super) rates: OwnRates,
    pub(super) preshared_key: Option<PresharedKey>,
    /// How it pays as it goes, if it does.
    pub(super) agreement: Option<Agreement>,
    pub(super) pause: Option<Pause>,
    /// Since when it has had no credit, as far as this run has seen.
    pub(super) spent_since: Option<Instant>,
    /// When traffic was last counted.
    pub(super) last_activity: u64,
    /// What the last usage record of this run said.
    pub(super) recorded: Option<Usage>,
    /// The last usage record in the ledger, if its consumer has asked for it since it was written.
    pub(super) receipt: Asked,
}

/// What is known of a session's last usage record without a look into the ledger.
#[derive(Clone, Debug, Default)]
pub(super) enum Asked {
    /// Nothing: nobody has asked.
    #[default]
    Unknown,
    /// It, or that there is none yet.
    Known(Option<Arc<Receipt>>),
}

impl Entry {
    pub(super) fn new(session: Session, saved: Counters, extra: Extra) -> Self {
        let clock = Clock::new(extra.seconds, session.state == SessionState::Open);
        Self {
            session,
            saved,
            clock,
            credit: extra.credit,
            rates: OwnRates::default(),
            preshared_key: None,
            agreement: None,
            pause: extra.pause,
            spent_since: None,
            last_activity: extra.last_activity,
            recorded: None,
            receipt: Asked::Unknown,
        }
    }
}

impl Entry {
    /// Whether its bytes or its seconds are limited, or were when it was last judged.
    pub(super) fn is_limited(&self) -> bool {
        let is_credit = self.credit.bytes.is_some() || self.credit.seconds.is_some();
        is_credit || self.agreement.is_some() || self.spent_since.is_some()
    }

    /// Whether it has had no credit for longer than `grace`.
    pub(super) fn is_over(&self, grace: Duration, now: Instant) -> bool {
        self.pause.is_some()
            && self.spent_since.is_some_and(|since| now.saturating_duration_since(since) >= grace)
    }
}

impl SessionTable {
    /// Checks what must be unique and takes a slot.
    pub(super) fn reserve(
        &mut self,
        name: Option<String>,
        public_key: PublicKey,
        max: u32,
    ) -> Result<Session, SessionError> {
        if let Some(id) = self.by_key.get(&public_key) {
            return Err(SessionError::KeyTaken(*id));
        }
        if let Some(id) = name.as_ref().and_then(|name| self.by_name.get(name)) {
            return Err(SessionError::NameTaken(*id));
        }
        let slot = self.slots.take().ok_or(SessionError::Full(max))?;
        let (id, created) = (SessionId::random(), unix_now());
        Ok(Session { id, slot, name, public_key, created, state: SessionState::Open })
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let session = &entry.session;
        self.by_key.insert(session.public_key, session.id);
        if let Some(name) = &session.name {
            self.by_name.insert(name.clone(), session.id);
        }
        self.by_id.insert(session.id, entry);
    }

    pub(super) fn remove(&mut self, session: &Session) {
        self.by_id.remove(&session.id);
        self.by_key.remove(&session.public_key);
        if let Some(name) = &session.name {
            self.by_name.remove(name);
        }
    }

    pub(super) fn find(&self, which: &str) -> Result<&Entry, SessionError> {
        let key = keys::parse_public(which).ok();
        let named = self.by_name.get(which);
        let known = named.or_else(|| key.and_then(|key| self.by_key.get(&key)));
        if let Some(entry) = known.and_then(|id| self.by_id.get(id)) {
            return Ok(entry);
        }
        let not_found = || SessionError::NotFound(which.chars().take(name::MAX_LEN).collect());
        let range = prefix_range(which).ok_or_else(not_found)?;
        let mut found = self.by_id.range(range).map(|(_, entry)| entry);
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry),
            (Some(_), Some(_)) => Err(SessionError::Ambiguous(which.to_owned())),
            (None, _) => Err(not_found()),
        }
    }
}

/// The identifiers that begin with these hex digits.
fn prefix_range(digits: &str) -> Option<RangeInclusive<SessionId>> {
    let sensible = (MIN_PREFIX..=16).contains(&digits.len());
    if !sensible || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let rest = 4 * (16 - digits.len()) as u32;
    let low = u64::from_str_radix(digits, 16).ok()? << rest;
    let high = low | ((1 << rest) - 1);
    Some(SessionId::new(low.max(1))?..=SessionId::new(high)?)
}
