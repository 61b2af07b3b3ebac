//! What the wallet has.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde::Serialize;
use weir_ecash::Held;

use super::{Place, Purpose, Store};
use crate::WalletError;

/// What the wallet has at a mint in one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// The mint.
    pub mint: String,
    /// The unit.
    pub unit: String,
    /// What can be spent.
    pub balance: u64,
    /// What is in exchanges that are not finished.
    pub unfinished: u64,
    /// What was sent and, as far as is known, not claimed.
    pub unclaimed: u64,
}

impl Store {
    pub(crate) fn proofs(&self, at: &Place) -> Result<Vec<Held>, WalletError> {
        let sql = "SELECT y, amount, keyset, json FROM proofs WHERE url = ?1 AND unit = ?2";
        let mut read = self.db.prepare(sql)?;
        let rows = read.query_map([&at.url, &at.unit], |row| {
            let (y, amount) = (row.get(0)?, row.get(1)?);
            Ok(Held { y, amount, keyset: row.get(2)?, json: row.get(3)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All that the wallet has, by mint and unit.
    pub(crate) fn balances(&self) -> Result<Vec<Balance>, WalletError> {
        let mut all: BTreeMap<(String, String), Balance> = BTreeMap::new();
        let mut sums = |sql: &str, add: fn(&mut Balance, u64)| -> Result<(), WalletError> {
            let mut read = self.db.prepare(sql)?;
            let rows = read.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
            for row in rows {
                let (place, amount) = row?;
                add(all.entry(place).or_default(), amount);
            }
            Ok(())
        };
        sums("SELECT url, unit, SUM(amount) FROM proofs GROUP BY url, unit", |all, amount| {
            all.balance = amount;
        })?;
        sums(
            "SELECT url, unit, SUM(amount) FROM sent WHERE state = 'unclaimed' GROUP BY url, unit",
            |all, amount| all.unclaimed = amount,
        )?;
        for swap in self.open_swaps(None)? {
            // What is being taken back is still counted as unclaimed.
            if !matches!(swap.purpose, Purpose::Reclaim { .. }) {
                let entry = all.entry((swap.at.url.clone(), swap.at.unit.clone())).or_default();
                entry.unfinished += swap.inputs.iter().map(|proof| proof.amount).sum::<u64>();
            }
        }
        let named = |((mint, unit), balance)| Balance { mint, unit, ..balance };
        Ok(all.into_iter().map(named).collect())
    }
}

pub(super) fn insert(db: &Connection, at: &Place, proofs: &[Held]) -> Result<(), WalletError> {
    let sql = "INSERT OR IGNORE INTO proofs (y, url, unit, amount, keyset, json)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut write = db.prepare(sql)?;
    for proof in proofs {
        let Held { y, amount, keyset, json } = proof;
        write.execute(params![y, at.url, at.unit, amount, keyset, json])?;
    }
    Ok(())
}

/// Removes proofs, all of which must be there.
pub(super) fn take(db: &Connection, proofs: &[Held]) -> Result<(), WalletError> {
    let mut write = db.prepare("DELETE FROM proofs WHERE y = ?1")?;
    for proof in proofs {
        if write.execute([&proof.y])? != 1 {
            return Err(rusqlite::Error::QueryReturnedNoRows.into());
        }
    }
    Ok(())
}
