//! Tokens that consumers gave: taken once, credited once, or given back.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    mints::{mint, mint_number},
    swaps::swap_total,
};
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

/// A token that was exchanged first and is not credited yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncredited {
    /// Its number.
    pub token: u64,
    /// The session that gave it.
    pub session: Option<SessionId>,
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
        let row = match add(&change, &session, token, accept)? {
            Ok(row) => row,
            Err(taken) => return Ok(taken),
        };
        let taken = match accept {
            Accept::AfterSwap => Taken::Held(row),
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
}

/// Writes a token that nobody has given before, as this session's, within a transaction. Returns its number, or why
/// it is not taken.
pub(crate) fn add(
    change: &Connection,
    session: &str,
    token: &NewToken,
    accept: Accept,
) -> Result<Result<u64, Taken>, LedgerError> {
    for proof in &token.proofs {
        if change.prepare_cached(sql::PROOF_KNOWN)?.exists([proof.y])? {
            return Ok(Err(Taken::Spent));
        }
    }
    change.execute(sql::ADD_MINT, [&token.mint, &token.unit])?;
    let (mint, unredeemed) = mint(change, &token.mint)?;
    let amount = token.amount();
    match accept {
        Accept::UpTo(limit) if unredeemed.saturating_add(amount) > limit => {
            return Ok(Err(Taken::OverLimit));
        }
        Accept::AfterSwap => {
            let held: i64 = change.query_row(sql::HELD_TOKENS, [mint], |row| row.get(0))?;
            if held.unsigned_abs() >= MAX_HELD {
                return Ok(Err(Taken::TooManyHeld));
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
    Ok(Ok(row.unsigned_abs()))
}

pub(crate) fn extension(hash: &[u8; 32], bytes: u64) -> Extension {
    Extension { reference: format!("cashu:{}", hex(&hash[..16])), bytes, seconds: 0 }
}
