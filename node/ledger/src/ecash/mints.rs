//! What is known of each mint, and what its ecash came to.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{Ledger, LedgerError, sql};

/// What a mint's ecash came to, in the mint's unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MintTotals {
    /// The mint's URL.
    pub url: String,
    /// Its unit.
    pub unit: String,
    /// The value of all tokens that were taken.
    pub received: u64,
    /// The part of it that the mint has not exchanged yet.
    pub unredeemed: u64,
    /// What the mint gave in exchange.
    pub redeemed: u64,
    /// What the mint kept.
    pub fees: u64,
    /// What the mint says was spent elsewhere.
    pub lost: u64,
    /// The part of `redeemed` that was taken out.
    pub withdrawn: u64,
}

impl Ledger {
    /// What came of each mint's ecash.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn mint_totals(&self) -> Result<Vec<MintTotals>, LedgerError> {
        let mut statement = self.db.prepare_cached(sql::MINTS)?;
        let rows = statement.query_map([], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
            Ok(MintTotals {
                url: row.get(0)?,
                unit: row.get(1)?,
                received: number(2)?,
                unredeemed: number(3)?,
                redeemed: number(4)?,
                fees: number(5)?,
                lost: number(6)?,
                withdrawn: number(7)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Replaces what is known of a mint's keysets: each an identifier and its content as JSON.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn set_keysets(
        &mut self,
        mint_url: &str,
        unit: &str,
        keysets: &[(String, String)],
    ) -> Result<(), LedgerError> {
        let change = self.db.transaction()?;
        change.execute(sql::ADD_MINT, [mint_url, unit])?;
        let (mint, _) = mint(&change, mint_url)?;
        change.execute(sql::DROP_KEYSETS, [mint])?;
        for (id, content) in keysets {
            change.execute(sql::SET_KEYSET, params![mint, id, content])?;
        }
        change.commit()?;
        Ok(())
    }

    /// What is known of a mint's keysets, as JSON.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn keysets(&self, mint_url: &str) -> Result<Vec<String>, LedgerError> {
        let Some(mint) = mint_number(&self.db, mint_url)? else { return Ok(Vec::new()) };
        let mut statement = self.db.prepare_cached(sql::KEYSETS)?;
        let rows = statement.query_map([mint], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

pub(super) fn mint(db: &Connection, url: &str) -> Result<(i64, u64), LedgerError> {
    Ok(db.query_row(sql::MINT, [url], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?)
}

pub(super) fn mint_number(db: &Connection, url: &str) -> Result<Option<i64>, LedgerError> {
    Ok(db.query_row(sql::MINT, [url], |row| row.get(0)).optional()?)
}
