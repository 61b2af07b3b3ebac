//! The purse: proofs of the node, until the operator takes them out.

use rusqlite::params;

use super::mints::{mint, mint_number};
use crate::{Ledger, LedgerError, row::to_sql, sql, unix_now};

/// A token for the operator's wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// Its number.
    pub number: u64,
    /// The mint's URL.
    pub mint: String,
    /// Its value.
    pub amount: u64,
    /// The token. Anyone who has it can spend it.
    pub token: String,
    /// When it was made.
    pub made: u64,
}

impl Ledger {
    /// Proofs of the purse: number, value, JSON.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn purse(
        &self,
        mint_url: &str,
        limit: u32,
    ) -> Result<Vec<(u64, u64, String)>, LedgerError> {
        let Some(mint) = mint_number(&self.db, mint_url)? else { return Ok(Vec::new()) };
        let mut statement = self.db.prepare_cached(sql::PURSE)?;
        let rows = statement.query_map(params![mint, limit], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
            Ok((number(0)?, number(1)?, row.get(2)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Takes proofs out of the purse, as a token that stays in the ledger until the operator says that it has arrived.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn withdraw(
        &mut self,
        mint_url: &str,
        proofs: &[u64],
        amount: u64,
        token: &str,
    ) -> Result<Withdrawal, LedgerError> {
        self.is_sound()?;
        let made = unix_now();
        let change = self.db.transaction()?;
        let (mint, _) = mint(&change, mint_url)?;
        for number in proofs {
            change.prepare_cached(sql::DROP_FROM_PURSE)?.execute([to_sql(*number)])?;
        }
        let values = params![mint, to_sql(amount), token, to_sql(made)];
        change.execute(sql::ADD_WITHDRAWAL, values)?;
        let number = change.last_insert_rowid().unsigned_abs();
        change.execute(sql::WITHDRAW, params![mint, to_sql(amount)])?;
        change.commit()?;
        Ok(Withdrawal { number, mint: mint_url.into(), amount, token: token.into(), made })
    }

    /// The withdrawals that were not confirmed, the oldest first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn withdrawals(&self) -> Result<Vec<Withdrawal>, LedgerError> {
        let mut statement = self.db.prepare_cached(sql::WITHDRAWALS)?;
        let rows = statement.query_map(params![0, 100], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
            Ok(Withdrawal {
                number: number(0)?,
                mint: row.get(1)?,
                amount: number(2)?,
                token: row.get(3)?,
                made: number(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Deletes a withdrawal's token. Says whether there was one.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn confirm_withdrawal(&mut self, number: u64) -> Result<bool, LedgerError> {
        Ok(self.db.execute(sql::CONFIRM_WITHDRAWAL, [to_sql(number)])? > 0)
    }
}
