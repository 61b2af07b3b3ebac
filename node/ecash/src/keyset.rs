//! What is known of a mint: its keysets of one unit.

use std::str::FromStr as _;

use cashu::{CurrencyUnit, Id, KeySetInfo, Keys, KeysResponse, KeysetResponse, MintUrl};
use serde::{Deserialize, Serialize};

/// The most keysets of a mint that are kept. A mint makes a new one a few times a year.
const MAX_KEYSETS: usize = 64;
/// The most keys of a keyset: one for each power of two.
const MAX_KEYS: usize = 64;

/// Why what a mint says of its keysets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysetsError {
    /// It is not in the format.
    #[error("the mint's answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The identifier is not that of the keys.
    #[error("keyset {0} of the mint has another identifier than its keys give")]
    WrongId(String),
    /// The mint says too much.
    #[error("the mint has too many keysets, or a keyset too many keys")]
    TooMany,
    /// There is nothing to pay with.
    #[error("the mint has no active keyset of the unit {0:?}")]
    NoneActive(String),
}

/// A mint's URL as it is compared and stored; `None` if it is none.
#[must_use]
pub fn mint_url(text: &str) -> Option<String> {
    let is_http = text.starts_with("http://") || text.starts_with("https://");
    let url = is_http.then(|| MintUrl::from_str(text).ok()).flatten()?;
    Some(url.to_string())
}

/// A mint's keysets of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keysets {
    unit: CurrencyUnit,
    sets: Vec<Keyset>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keyset {
    pub(crate) info: KeySetInfo,
    /// `None` for one that was no longer active when it was first seen.
    pub(crate) keys: Option<Keys>,
}

impl Keysets {
    /// None yet.
    #[must_use]
    pub fn new(unit: &str) -> Self {
        // Every text is a unit, if of nobody's.
        let unit = CurrencyUnit::from_str(unit).unwrap_or_else(|_| CurrencyUnit::custom(unit));
        Self { unit, sets: Vec::new() }
    }

    /// The unit.
    #[must_use]
    pub fn unit(&self) -> String {
        self.unit.to_string()
    }

    /// Those that were stored: see [`Keysets::stored`]. What cannot be read is left out.
    #[must_use]
    pub fn restore<'a>(unit: &str, stored: impl IntoIterator<Item = &'a str>) -> Self {
        let mut keysets = Self::new(unit);
        let sets = stored.into_iter().take(MAX_KEYSETS);
        keysets.sets = sets.filter_map(|json| serde_json::from_str(json).ok()).collect();
        keysets
    }

    /// Each keyset's identifier and content.
    ///
    /// # Errors
    ///
    /// When JSON cannot be written, which does not happen.
    pub fn stored(&self) -> Result<Vec<(String, String)>, KeysetsError> {
        let mut stored = Vec::new();
        for set in &self.sets {
            stored.push((set.info.id.to_string(), serde_json::to_string(set)?));
        }
        Ok(stored)
    }

    /// Takes in the mint's list (`GET /v1/keysets`), and says whose keys are missing. What is not on the list any
    /// more is no longer active.
    ///
    /// # Errors
    ///
    /// When the list cannot be used. Nothing has changed then.
    pub fn update(&mut self, list: &[u8]) -> Result<Vec<String>, KeysetsError> {
        let list: KeysetResponse = serde_json::from_slice(list)?;
        let ours: Vec<_> = list.keysets.into_iter().filter(|it| it.unit == self.unit).collect();
        if ours.len() > MAX_KEYSETS {
            return Err(KeysetsError::TooMany);
        }
        if !ours.iter().any(|info| info.active) {
            return Err(KeysetsError::NoneActive(self.unit()));
        }
        for set in &mut self.sets {
            set.info.active = false;
        }
        let mut missing = Vec::new();
        for info in ours {
            if info.active && self.get(&info.id).is_none_or(|known| known.keys.is_none()) {
                missing.push(info.id.to_string());
            }
            match self.sets.iter_mut().find(|known| known.info.id == info.id) {
                Some(known) => known.info = info,
                None => self.sets.push(Keyset { info, keys: None }),
            }
        }
        // Those that the mint has named last stay.
        let excess = self.sets.len().saturating_sub(MAX_KEYSETS);
        self.sets.drain(..excess);
        Ok(missing)
    }

    /// Takes in the keys of a keyset (`GET /v1/keys/{id}`).
    ///
    /// # Errors
    ///
    /// When they are not those of the identifier.
    pub fn add_keys(&mut self, answer: &[u8]) -> Result<(), KeysetsError> {
        let answer: KeysResponse = serde_json::from_slice(answer)?;
        for keyset in answer.keysets {
            if keyset.keys.keys().len() > MAX_KEYS {
                return Err(KeysetsError::TooMany);
            }
            if keyset.verify_id().is_err() {
                return Err(KeysetsError::WrongId(keyset.id.to_string()));
            }
            if let Some(known) = self.sets.iter_mut().find(|known| known.info.id == keyset.id) {
                known.keys = Some(keyset.keys);
            }
        }
        Ok(())
    }

    /// Whether a token can be verified: there is an active keyset with its keys.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.active().is_some()
    }

    pub(crate) fn currency_unit(&self) -> &CurrencyUnit {
        &self.unit
    }

    pub(crate) fn infos(&self) -> Vec<KeySetInfo> {
        self.sets.iter().map(|set| set.info.clone()).collect()
    }

    pub(crate) fn get(&self, id: &Id) -> Option<&Keyset> {
        self.sets.iter().find(|set| set.info.id == *id)
    }

    /// The active keyset with the lowest fee, for what the mint gives.
    pub(crate) fn active(&self) -> Option<(&Keyset, &Keys)> {
        let active = self.sets.iter().filter(|set| set.info.active);
        let with_keys = active.filter_map(|set| Some((set, set.keys.as_ref()?)));
        with_keys.min_by_key(|(set, _)| set.info.input_fee_ppk)
    }

    /// What the mint keeps for exchanging proofs of these keysets (NUT-02).
    pub(crate) fn fee<'a>(&self, ids: impl IntoIterator<Item = &'a Id>) -> u64 {
        let of = |id| self.get(id).map_or(0, |set| set.info.input_fee_ppk);
        ids.into_iter().fold(0u64, |sum, id| sum.saturating_add(of(id))).div_ceil(1000)
    }
}
