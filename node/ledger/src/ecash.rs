//! Ecash in the ledger: tokens that consumers gave, their proofs, swaps with the mint, and what these brought.
//!
//! A token's way, each step in one transaction:
//!
//! 1. [`Ledger::take_token`]: token and proofs are written and credited, or written and held until the mint has
//!    exchanged them.
//! 2. [`Ledger::begin_swap`]: proofs join a swap whose blinded outputs are written before the mint sees them, so that
//!    a lost answer can be asked for again.
//! 3. [`Ledger::finish_swap`]: the mint's signatures are in the purse, and the proofs' secrets are gone.
//! 4. [`Ledger::credit_token`]: a token that was held is credited.
//! 5. [`Ledger::withdraw`]: proofs of the purse become a token for the operator's wallet, which stays until
//!    [`Ledger::confirm_withdrawal`].

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    Credit, Ledger, LedgerError, SessionId, Usage,
    credit::{self, Extended, Extension},
    row::to_sql,
    sql, unix_now,
    vouchers::hex,
};

/// The value of one proof, as it goes into the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProof {
    /// The point of its secret, by which mints know a proof.
    pub y: [u8; 33],
    /// Its value in the mint's unit.
    pub amount: u64,
    /// The proof as JSON.
    pub proof: String,
}

/// A token whose proofs were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What stands for the token, however it is written.
    pub hash: [u8; 32],
    /// The mint's URL.
    pub mint: String,
    /// The mint's unit.
    pub unit: String,
    /// The bytes of credit that it buys.
    pub bytes: u64,
    /// Its proofs.
    pub proofs: Vec<NewProof>,
}

impl NewToken {
    /// The value of all of its proofs.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.proofs.iter().fold(0, |sum, proof| sum.saturating_add(proof.amount))
    }
}

/// When a token is credited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// At once, unless the unredeemed value of its mint would then be more than this.
    UpTo(u64),
    /// After the mint has exchanged its proofs.
    AfterSwap,
}

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was credited.
    Credited(Credit),
    /// It is written, with this number, and is credited after the mint has exchanged it.
    Held(u64),
    /// The same session has given it before, and it is credited.
    Before,
    /// The same session has given it before, and it is not credited yet.
    HeldBefore,
    /// One of its proofs was given before.
    Spent,
    /// The mint's unredeemed value is at its limit: nothing has changed.
    OverLimit,
    /// Too many tokens wait for this mint: nothing has changed.
    TooManyHeld,
    /// The session has ended.
    NoSession,
}

/// The most tokens of a mint that wait for their exchange before they are credited.
pub const MAX_HELD: u64 = 64;

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

/// A token that was exchanged first and is not credited yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncredited {
    /// Its number.
    pub token: u64,
    /// The session that gave it.
    pub session: Option<SessionId>,
}

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

/// A token for the operator's wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// Its number.
    pub number: u64,
    /// The mint's URL.
    pub mint: String,
    /// Its value.
    pub amount: u64,
    /// The token. Whoever has it can spend it.
    pub token: String,
    /// When it was made.
    pub made: u64,
}

impl Ledger {
    /// Takes a verified token of a session: written and credited, or written and held, in one transaction.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn take_token(
        &mut self,
        id: SessionId,
        token: &NewToken,
        used: &Usage,
        accept: Accept,
    ) -> Result<Taken, LedgerError> {
        let Some(number) = self.numbers.get(&id).copied() else { return Ok(Taken::NoSession) };
        self.is_sound()?;
        let session = id.to_string();
        let change = self.db.transaction()?;
        let known: Option<(Option<String>, Option<i64>)> = change
            .query_row(sql::TOKEN, [token.hash], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match known {
            Some((Some(by), credited)) if by == session => {
                return Ok(credited.map_or(Taken::HeldBefore, |_| Taken::Before));
            }
            Some(_) => return Ok(Taken::Spent),
            None => {}
        }
        for proof in &token.proofs {
            if change.prepare_cached(sql::PROOF_KNOWN)?.exists([proof.y])? {
                return Ok(Taken::Spent);
            }
        }
        change.execute(sql::ADD_MINT, [&token.mint, &token.unit])?;
        let (mint, unredeemed) = mint(&change, &token.mint)?;
        let amount = token.amount();
        match accept {
            Accept::UpTo(limit) if unredeemed.saturating_add(amount) > limit => {
                return Ok(Taken::OverLimit);
            }
            Accept::AfterSwap => {
                let held: i64 = change.query_row(sql::HELD_TOKENS, [mint], |row| row.get(0))?;
                if held.unsigned_abs() >= MAX_HELD {
                    return Ok(Taken::TooManyHeld);
                }
            }
            Accept::UpTo(_) => {}
        }
        let now = to_sql(unix_now());
        let credited = matches!(accept, Accept::UpTo(_)).then_some(now);
        let bytes = to_sql(token.bytes);
        let values = params![token.hash, mint, session, to_sql(amount), bytes, now, credited];
        change.execute(sql::ADD_TOKEN, values)?;
        let row = change.last_insert_rowid();
        for proof in &token.proofs {
            let values = params![proof.y, row, mint, to_sql(proof.amount), proof.proof];
            change.prepare_cached(sql::ADD_PROOF)?.execute(values)?;
        }
        change.execute(sql::RECEIVE, params![mint, to_sql(amount)])?;
        let taken = match accept {
            Accept::AfterSwap => Taken::Held(row.unsigned_abs()),
            Accept::UpTo(_) => {
                match credit::add(&change, number, &extension(&token.hash, token.bytes), used)? {
                    Extended::Added(credit) | Extended::Before(credit) => Taken::Credited(credit),
                    Extended::Contradicts => return Ok(Taken::Spent),
                }
            }
        };
        change.commit()?;
        Ok(taken)
    }

    /// Gives a held token back to its session: nothing of it was sent to the mint.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn return_token(&mut self, token: u64, swap: u64) -> Result<(), LedgerError> {
        let change = self.db.transaction()?;
        let (mint, total) = swap_total(&change, swap)?;
        change.execute(sql::DROP_PROOFS_OF, [to_sql(token)])?;
        change.execute(sql::DROP_TOKEN, [to_sql(token)])?;
        change.execute(sql::DROP_SWAP, [to_sql(swap)])?;
        change.execute(sql::RETURN_RECEIVED, params![mint, total])?;
        change.commit()?;
        Ok(())
    }

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

    /// Tokens of a mint that were exchanged, or lost, before they were credited.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn uncredited(&self, mint_url: &str) -> Result<Vec<Uncredited>, LedgerError> {
        let Some(mint) = mint_number(&self.db, mint_url)? else { return Ok(Vec::new()) };
        let mut statement = self.db.prepare_cached(sql::UNCREDITED_TOKENS)?;
        let rows = statement.query_map(params![mint, to_sql(MAX_HELD)], |row| {
            let session: Option<String> = row.get(1)?;
            Ok(Uncredited {
                token: row.get::<_, i64>(0)?.unsigned_abs(),
                session: session.and_then(|session| session.parse().ok()),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Credits a token that was exchanged first, once. `None` if it is credited already or the session has ended;
    /// in the latter case its value stays the node's.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn credit_token(
        &mut self,
        token: u64,
        session: Option<SessionId>,
        used: &Usage,
    ) -> Result<Option<Credit>, LedgerError> {
        let number = session.and_then(|session| self.numbers.get(&session).copied());
        let token = to_sql(token);
        let change = self.db.transaction()?;
        let known: Option<([u8; 32], i64)> = change
            .query_row(sql::UNCREDITED_TOKEN, [token], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((hash, bytes)) = known else { return Ok(None) };
        change.execute(sql::SET_CREDITED, params![token, to_sql(unix_now())])?;
        let credit = match number {
            Some(number) => {
                let extension = extension(&hash, bytes.unsigned_abs());
                match credit::add(&change, number, &extension, used)? {
                    Extended::Added(credit) | Extended::Before(credit) => Some(credit),
                    Extended::Contradicts => None,
                }
            }
            None => None,
        };
        change.commit()?;
        Ok(credit)
    }

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

fn extension(hash: &[u8; 32], bytes: u64) -> Extension {
    Extension { reference: format!("cashu:{}", hex(&hash[..16])), bytes, seconds: 0 }
}

fn mint(db: &Connection, url: &str) -> Result<(i64, u64), LedgerError> {
    Ok(db.query_row(sql::MINT, [url], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?)
}

fn mint_number(db: &Connection, url: &str) -> Result<Option<i64>, LedgerError> {
    Ok(db.query_row(sql::MINT, [url], |row| row.get(0)).optional()?)
}

/// A swap's mint, and the value of its inputs.
fn swap_total(db: &Connection, swap: u64) -> Result<(i64, i64), rusqlite::Error> {
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

#[cfg(test)]
mod tests;
