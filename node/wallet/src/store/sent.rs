//! Tokens that the wallet has sent.

use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior::Immediate, params};
use serde::Serialize;
use weir_ecash::{Held, wallet_token};

use super::{Place, Store, proofs};
use crate::WalletError;

/// How long a token that was claimed or taken back stays listed, in seconds.
const KEPT_SECONDS: u64 = 90 * 86_400;

/// What became of a sent token, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SentState {
    /// Nobody has exchanged it.
    Unclaimed,
    /// Its payee has exchanged it.
    Claimed,
    /// This wallet has taken it back.
    Reclaimed,
}

impl SentState {
    fn word(self) -> &'static str {
        match self {
            Self::Unclaimed => "unclaimed",
            Self::Claimed => "claimed",
            Self::Reclaimed => "reclaimed",
        }
    }
}

/// A token that the wallet has sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Its number in this wallet.
    pub number: u64,
    /// The mint.
    pub mint: String,
    /// The unit.
    pub unit: String,
    /// What it is worth, before the mint's fee for its redemption.
    pub amount: u64,
    /// What it is for.
    pub note: String,
    /// When it was made, in seconds since 1970.
    pub at: u64,
    /// What became of it.
    pub state: SentState,
    /// The token itself, while it is unclaimed.
    pub token: Option<String>,
    /// The key that it is locked to.
    pub lock: Option<String>,
    /// The Unix time from which it can be taken back, if it is locked.
    pub refund_after: Option<u64>,
}

/// The proofs of a sent token, and the mint that signed them.
pub(crate) struct SentProofs {
    pub(crate) number: u64,
    pub(crate) at: Place,
    pub(crate) proofs: Vec<Held>,
}

/// How a sent token can be spent by this wallet.
pub(crate) enum Spendable {
    /// As it is.
    Open,
    /// With this key, from this time on.
    From(u64, String),
    /// Never.
    No,
}

pub(super) struct NewSent<'a> {
    pub(super) at: &'a Place,
    pub(super) note: &'a str,
    pub(super) lock: &'a Option<String>,
    pub(super) refund: &'a Option<(u64, String)>,
    pub(super) proofs: &'a [Held],
    pub(super) now: u64,
}

pub(super) fn insert(db: &Connection, new: &NewSent<'_>) -> Result<u64, WalletError> {
    let sql = "INSERT INTO sent (url, unit, amount, note, at, state, proofs, lock, refund_after, refund_key)
               VALUES (?1, ?2, ?3, ?4, ?5, 'unclaimed', ?6, ?7, ?8, ?9)";
    let amount: u64 = new.proofs.iter().map(|proof| proof.amount).sum();
    let proofs = serde_json::to_string(new.proofs)?;
    let (after, key) = new.refund.clone().unzip();
    let Place { url, unit } = new.at;
    db.execute(sql, params![url, unit, amount, new.note, new.now, proofs, new.lock, after, key])?;
    Ok(db.last_insert_rowid().unsigned_abs())
}

/// Notes what became of a token that was unclaimed, and deletes what was money.
pub(super) fn set(db: &Connection, number: u64, state: SentState) -> Result<(), WalletError> {
    let sql = "UPDATE sent SET state = ?2, proofs = NULL, refund_key = NULL
               WHERE number = ?1 AND state = 'unclaimed'";
    db.execute(sql, params![number, state.word()])?;
    Ok(())
}

impl Store {
    /// Sends proofs as they are, without an exchange.
    pub(crate) fn send_as_is(
        &mut self,
        at: &Place,
        chosen: &[Held],
        note: &str,
        now: u64,
    ) -> Result<u64, WalletError> {
        let change = self.db.transaction_with_behavior(Immediate)?;
        proofs::take(&change, chosen)?;
        let new = NewSent { at, note, lock: &None, refund: &None, proofs: chosen, now };
        let number = insert(&change, &new)?;
        change.commit()?;
        Ok(number)
    }

    /// The sent tokens, the newest last.
    pub(crate) fn sent(&self) -> Result<Vec<Sent>, WalletError> {
        let mut read = self.db.prepare(&format!("{SELECT} ORDER BY number"))?;
        let mut rows = read.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read_sent(row)?);
        }
        Ok(all)
    }

    /// One of them.
    pub(crate) fn sent_token(&self, number: u64) -> Result<Sent, WalletError> {
        let mut read = self.db.prepare(&format!("{SELECT} WHERE number = ?1"))?;
        let mut rows = read.query([number])?;
        let row = rows.next()?.ok_or(WalletError::NoSuchToken(number))?;
        read_sent(row)
    }

    /// The proofs of what is unclaimed.
    pub(crate) fn unclaimed(&self) -> Result<Vec<SentProofs>, WalletError> {
        let sql = "SELECT number, url, unit, proofs FROM sent WHERE state = 'unclaimed' AND proofs IS NOT NULL";
        let mut read = self.db.prepare(sql)?;
        let mut rows = read.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let at = Place { url: row.get(1)?, unit: row.get(2)? };
            let proofs: String = row.get(3)?;
            let proofs = serde_json::from_str(&proofs)?;
            all.push(SentProofs { number: row.get(0)?, at, proofs });
        }
        Ok(all)
    }

    /// How this wallet can spend a sent token.
    pub(crate) fn spendable(&self, number: u64) -> Result<Spendable, WalletError> {
        let sql = "SELECT lock IS NULL, refund_after, refund_key FROM sent WHERE number = ?1";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let found: Option<(bool, Option<u64>, Option<String>)> =
            self.db.query_row(sql, [number], read).optional()?;
        Ok(match found {
            Some((true, ..)) => Spendable::Open,
            Some((false, Some(after), Some(key))) => Spendable::From(after, key),
            _ => Spendable::No,
        })
    }

    pub(crate) fn set_note(&self, number: u64, note: &str) -> Result<(), WalletError> {
        self.db.execute("UPDATE sent SET note = ?2 WHERE number = ?1", params![number, note])?;
        Ok(())
    }

    pub(crate) fn set_sent(
        &mut self,
        number: u64,
        state: SentState,
        now: u64,
    ) -> Result<(), WalletError> {
        set(&self.db, number, state)?;
        let sql = "DELETE FROM sent WHERE state != 'unclaimed' AND at < ?1";
        self.db.execute(sql, [now.saturating_sub(KEPT_SECONDS)])?;
        Ok(())
    }
}

const SELECT: &str =
    "SELECT number, url, unit, amount, note, at, state, proofs, lock, refund_after FROM sent";

fn read_sent(row: &Row<'_>) -> Result<Sent, WalletError> {
    let (mint, unit): (String, String) = (row.get(1)?, row.get(2)?);
    let (state, proofs): (String, Option<String>) = (row.get(6)?, row.get(7)?);
    let lock: Option<String> = row.get(8)?;
    let state = match state.as_str() {
        "unclaimed" => SentState::Unclaimed,
        "reclaimed" => SentState::Reclaimed,
        _ => SentState::Claimed,
    };
    let token = match proofs {
        None => None,
        Some(json) => {
            let proofs: Vec<Held> = serde_json::from_str(&json)?;
            let text = |proof: &Held| match lock {
                // A payee that takes it offline needs the mint's proof of its signature.
                Some(_) => Ok(proof.json.clone()),
                None => proof.without_dleq(),
            };
            let proofs: Result<Vec<_>, _> = proofs.iter().map(text).collect();
            Some(wallet_token(&mint, &unit, proofs?.iter().map(String::as_str))?)
        }
    };
    Ok(Sent {
        number: row.get(0)?,
        amount: row.get(3)?,
        note: row.get(4)?,
        at: row.get(5)?,
        refund_after: row.get(9)?,
        mint,
        unit,
        state,
        token,
        lock,
    })
}
