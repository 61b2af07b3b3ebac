//! Swaps: proofs of tokens are exchanged at their mint for proofs of the node.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::mints::{mint, mint_number};
use crate::{Ledger, LedgerError, row::to_sql, sql, unix_now};

/// A proof that is not exchanged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldProof {
    /// The point of its secret.
    pub y: [u8; 33],
    /// The number of its token.
    pub token: u64,
    /// Its value.
    pub amount: u64,
    /// The proof as JSON.
    pub proof: String,
    /// Whether its token is to be exchanged by itself, because the mint refused it with others.
    pub alone: bool,
}

/// A swap that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSwap {
    /// Its number.
    pub number: u64,
    /// The blinded outputs and what opens them, as JSON.
    pub outputs: String,
    /// The proofs that are exchanged.
    pub inputs: Vec<HeldProof>,
}

impl Ledger {
    /// Proofs of a mint that no swap has, at most `limit`, those that came first first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn held_proofs(&self, mint_url: &str, limit: u32) -> Result<Vec<HeldProof>, LedgerError> {
        let Some(mint) = mint_number(&self.db, mint_url)? else { return Ok(Vec::new()) };
        held(&self.db, sql::HELD_PROOFS, params![mint, limit])
    }

    /// The proofs of one token that no swap has.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn held_proofs_of(&self, token: u64) -> Result<Vec<HeldProof>, LedgerError> {
        held(&self.db, sql::HELD_PROOFS_OF, params![to_sql(token)])
    }

    /// Has proofs join a swap, whose outputs are to be sent to the mint only after this. `None`, and nothing has
    /// changed, if one of them is not free.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn begin_swap(
        &mut self,
        mint_url: &str,
        inputs: &[[u8; 33]],
        outputs: &str,
    ) -> Result<Option<u64>, LedgerError> {
        let change = self.db.transaction()?;
        let (mint, _) = mint(&change, mint_url)?;
        change.execute(sql::ADD_SWAP, params![mint, outputs, to_sql(unix_now())])?;
        let swap = change.last_insert_rowid();
        for y in inputs {
            if change.prepare_cached(sql::JOIN_SWAP)?.execute(params![y, swap])? != 1 {
                return Ok(None);
            }
        }
        change.commit()?;
        Ok(Some(swap.unsigned_abs()))
    }

    /// The swaps of a mint that are not finished, at most `limit`, the oldest first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn open_swaps(&self, mint_url: &str, limit: u32) -> Result<Vec<OpenSwap>, LedgerError> {
        let Some(mint) = mint_number(&self.db, mint_url)? else { return Ok(Vec::new()) };
        let mut statement = self.db.prepare_cached(sql::SWAPS)?;
        let rows = statement.query_map(params![mint, limit], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        let mut swaps = Vec::new();
        for row in rows {
            let (number, outputs) = row?;
            let inputs = held(&self.db, sql::SWAP_PROOFS, params![number])?;
            swaps.push(OpenSwap { number: number.unsigned_abs(), outputs, inputs });
        }
        Ok(swaps)
    }

    /// The mint has exchanged a swap's proofs for these, each a value and a proof as JSON. `false`, and nothing has
    /// changed, if the swap is finished already.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn finish_swap(
        &mut self,
        swap: u64,
        outputs: &[(u64, String)],
    ) -> Result<bool, LedgerError> {
        let swap = to_sql(swap);
        let change = self.db.transaction()?;
        let Some((mint, total)) = swap_total(&change, swap.unsigned_abs()).optional()? else {
            return Ok(false);
        };
        let mut redeemed = 0u64;
        for (amount, proof) in outputs {
            redeemed = redeemed.saturating_add(*amount);
            change.prepare_cached(sql::ADD_TO_PURSE)?.execute(params![
                mint,
                to_sql(*amount),
                proof
            ])?;
        }
        change.execute(sql::REDEEM_PROOFS, [swap])?;
        change.execute(sql::DROP_SWAP, [swap])?;
        change.execute(sql::REDEEM, params![mint, total, to_sql(redeemed)])?;
        change.commit()?;
        Ok(true)
    }

    /// Gives a swap up that the mint has refused. `spent` are the proofs of it that the mint says were spent
    /// elsewhere, which are lost. The others are exchanged again, each token by itself if there were several.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn abandon_swap(&mut self, swap: u64, spent: &[[u8; 33]]) -> Result<u64, LedgerError> {
        let swap = to_sql(swap);
        let change = self.db.transaction()?;
        let Some((mint, _)) = swap_total(&change, swap.unsigned_abs()).optional()? else {
            return Ok(0);
        };
        let tokens: i64 = change.query_row(sql::SWAP_TOKENS, [swap], |row| row.get(0))?;
        if tokens > 1 {
            change.execute(sql::SET_ALONE, [swap])?;
        }
        let mut lost = 0;
        for y in spent {
            let amount: Option<i64> = change
                .prepare_cached(sql::LOSE_PROOF)?
                .query_row(params![y, swap], |row| row.get(0))
                .optional()?;
            lost += amount.unwrap_or(0);
        }
        change.execute(sql::RELEASE_PROOFS, [swap])?;
        change.execute(sql::DROP_SWAP, [swap])?;
        change.execute(sql::LOSE, params![mint, lost])?;
        change.commit()?;
        Ok(lost.unsigned_abs())
    }
}

/// A swap's mint, and the value of its inputs.
pub(super) fn swap_total(db: &Connection, swap: u64) -> Result<(i64, i64), rusqlite::Error> {
    db.query_row(sql::SWAP_TOTAL, [to_sql(swap)], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn held(
    db: &Connection,
    sql: &str,
    which: impl rusqlite::Params,
) -> Result<Vec<HeldProof>, LedgerError> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(which, |row| {
        Ok(HeldProof {
            y: row.get(0)?,
            token: row.get::<_, i64>(1)?.unsigned_abs(),
            amount: row.get::<_, i64>(2)?.unsigned_abs(),
            proof: row.get(3)?,
            alone: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
