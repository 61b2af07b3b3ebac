//! Exchanges with a mint: written down before it sees them, and deleted together with what came of them.

use rusqlite::{OptionalExtension as _, TransactionBehavior::Immediate, params};
use serde::{Deserialize, Serialize};
use weir_ecash::Held;

use super::{Place, Store, proofs, sent};
use crate::{SentState, WalletError};

/// What an exchange is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// A token that was received: the hash by which it is known again.
    Receive { hash: String },
    /// A payment out of the wallet's own proofs.
    Send {
        /// Whom it is for, for people.
        note: String,
        /// The key that it is locked to.
        lock: Option<String>,
        /// From when on it can be taken back, and the secret key for that.
        refund: Option<(u64, String)>,
    },
    /// A sent token that is taken back.
    Reclaim { sent: u64 },
}

/// An exchange that is not finished.
#[derive(Clone, Debug)]
pub(crate) struct OpenSwap {
    pub(crate) number: u64,
    pub(crate) at: Place,
    pub(crate) purpose: Purpose,
    pub(crate) inputs: Vec<Held>,
    /// [`weir_ecash::Outputs`] as JSON.
    pub(crate) outputs: String,
}

/// What came of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    /// What the wallet has more.
    pub(crate) added: u64,
    /// The number of the sent token, if there is one.
    pub(crate) sent: Option<u64>,
}

impl Store {
    /// Writes an exchange down. What it takes from the wallet is no longer in the wallet.
    pub(crate) fn begin_swap(
        &mut self,
        at: &Place,
        purpose: Purpose,
        inputs: Vec<Held>,
        outputs: String,
    ) -> Result<OpenSwap, WalletError> {
        let change = self.db.transaction_with_behavior(Immediate)?;
        if matches!(purpose, Purpose::Send { .. }) {
            proofs::take(&change, &inputs)?;
        }
        let sql =
            "INSERT INTO swaps (url, unit, purpose, inputs, outputs) VALUES (?1, ?2, ?3, ?4, ?5)";
        let purpose_json = serde_json::to_string(&purpose)?;
        let inputs_json = serde_json::to_string(&inputs)?;
        change.execute(sql, params![at.url, at.unit, purpose_json, inputs_json, outputs])?;
        let number = change.last_insert_rowid().unsigned_abs();
        change.commit()?;
        Ok(OpenSwap { number, at: at.clone(), purpose, inputs, outputs })
    }

    /// The exchanges that are not finished: all, or those with one mint.
    pub(crate) fn open_swaps(&self, url: Option<&str>) -> Result<Vec<OpenSwap>, WalletError> {
        let sql = "SELECT number, url, unit, purpose, inputs, outputs FROM swaps
                   WHERE ?1 IS NULL OR url = ?1 ORDER BY number";
        let mut read = self.db.prepare(sql)?;
        let mut rows = read.query([url])?;
        let mut open = Vec::new();
        while let Some(row) = rows.next()? {
            let (purpose, inputs): (String, String) = (row.get(3)?, row.get(4)?);
            open.push(OpenSwap {
                number: row.get(0)?,
                at: Place { url: row.get(1)?, unit: row.get(2)? },
                purpose: serde_json::from_str(&purpose)?,
                inputs: serde_json::from_str(&inputs)?,
                outputs: row.get(5)?,
            });
        }
        Ok(open)
    }

    /// Writes down what the mint gave: the payment and what is the wallet's.
    pub(crate) fn finish_swap(
        &mut self,
        swap: &OpenSwap,
        paid: &[Held],
        kept: &[Held],
        now: u64,
    ) -> Result<Finished, WalletError> {
        let change = self.db.transaction_with_behavior(Immediate)?;
        let was_open = change.execute("DELETE FROM swaps WHERE number = ?1", [swap.number])? > 0;
        let added = kept.iter().map(|proof| proof.amount).sum();
        let mut finished = Finished { added, sent: None };
        if !was_open {
            return Ok(finished);
        }
        proofs::insert(&change, &swap.at, kept)?;
        match &swap.purpose {
            Purpose::Receive { hash } => {
                let sql = "INSERT OR IGNORE INTO received VALUES (?1, ?2, ?3)";
                change.execute(sql, params![hash, added, now])?;
            }
            Purpose::Send { note, lock, refund } => {
                let sent = sent::NewSent { at: &swap.at, note, lock, refund, proofs: paid, now };
                finished.sent = Some(sent::insert(&change, &sent)?);
            }
            Purpose::Reclaim { sent } => sent::set(&change, *sent, SentState::Reclaimed)?,
        }
        change.commit()?;
        Ok(finished)
    }

    /// Gives an exchange up. The inputs that are not in `spent` are the wallet's again if they were before.
    pub(crate) fn abandon_swap(
        &mut self,
        swap: &OpenSwap,
        spent: &[String],
    ) -> Result<(), WalletError> {
        let change = self.db.transaction_with_behavior(Immediate)?;
        change.execute("DELETE FROM swaps WHERE number = ?1", [swap.number])?;
        match swap.purpose {
            Purpose::Receive { .. } => {}
            Purpose::Send { .. } => {
                let back = swap.inputs.iter().filter(|proof| !spent.contains(&proof.y));
                proofs::insert(&change, &swap.at, &back.cloned().collect::<Vec<_>>())?;
            }
            Purpose::Reclaim { sent } if !spent.is_empty() => {
                sent::set(&change, sent, SentState::Claimed)?;
            }
            Purpose::Reclaim { .. } => {}
        }
        change.commit()?;
        Ok(())
    }

    /// What the wallet got for a token that it received before.
    pub(crate) fn received(&self, hash: &str) -> Result<Option<u64>, WalletError> {
        let sql = "SELECT amount FROM received WHERE hash = ?1";
        Ok(self.db.query_row(sql, [hash], |row| row.get(0)).optional()?)
    }
}
