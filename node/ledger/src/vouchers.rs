//! Vouchers: codes that the operator makes and sells, each of which extends one session's credit once. The ledger
//! has a hash of each code and no code.

use ring::digest;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    Credit, Ledger, LedgerError, SessionId, Usage,
    credit::{self, Extended, Extension},
    row::to_sql,
    sql,
};

/// The most vouchers that one call adds: a transaction of some ten milliseconds.
pub const MAX_ADDED: usize = 1000;

/// The digits of a code: Crockford's base 32, without what is easily mistaken.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// The digits of 128 bits.
const LENGTH: usize = 26;
/// The digits between two dashes.
const GROUP: usize = 5;
/// The longest text that is read as a code.
const MAX_TEXT: usize = 64;

/// A voucher's code: 128 random bits. Anyone who has it can use it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code([u8; 16]);

impl Code {
    /// A code of these bits.
    #[must_use]
    pub fn new(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// Reads a code as people type it: in either case, with dashes and spaces anywhere, `o` for 0, `i` and `l` for 1.
    /// `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return None;
        }
        let (mut bits, mut count) = (0u128, 0);
        for byte in text.bytes().filter(|byte| !matches!(byte, b'-' | b' ')) {
            let digit = match byte.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other => other,
            };
            let value = DIGITS.iter().position(|known| *known == digit)?;
            // The first of 26 digits has the upper three bits.
            if count == LENGTH || count == 0 && value > 7 {
                return None;
            }
            bits = bits << 5 | value as u128;
            count += 1;
        }
        (count == LENGTH).then(|| Self(bits.to_be_bytes()))
    }

    /// What the ledger knows the code by.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let hash = digest::digest(&digest::SHA256, &self.0);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        bytes
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for place in 0..LENGTH {
            if place > 0 && place % GROUP == 0 && place + 1 < LENGTH {
                f.write_str("-")?;
            }
            let digit = bits >> (5 * (LENGTH - 1 - place)) & 31;
            write!(f, "{}", char::from(DIGITS[digit as usize]))?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code(..)")
    }
}

/// What each voucher of a batch is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoucherTerms {
    /// The batch's name.
    pub batch: String,
    /// Bytes, up and down together.
    pub bytes: u64,
    /// Seconds.
    pub seconds: u64,
    /// The Unix time after which it is not taken; `None` for never.
    pub expires: Option<u64>,
}

/// A batch, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoucherBatch {
    /// Its place in the list.
    pub number: u64,
    /// What each of its vouchers is good for.
    pub terms: VoucherTerms,
    /// When it was made.
    pub made: u64,
    /// How many there are.
    pub vouchers: u64,
    /// How many were used.
    pub used: u64,
    /// When those that were not used were revoked.
    pub revoked: Option<u64>,
}

/// What became of a voucher that a consumer gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoucherUse {
    /// It was added to the session's credit.
    Credited {
        /// The credit now.
        credit: Credit,
        /// Bytes that it was good for.
        bytes: u64,
        /// Seconds that it was good for.
        seconds: u64,
    },
    /// The same session has used it before: nothing has changed.
    Before,
    /// There is no such voucher.
    Unknown,
    /// Another session has used it.
    Used,
    /// The operator has revoked it.
    Revoked,
    /// Its time is over.
    Expired,
    /// The session has ended.
    NoSession,
}

/// A batch's number, its terms (bytes, seconds, end), and when it was revoked.
type BatchRow = (i64, (i64, i64, Option<i64>), Option<i64>);
/// A row of `vouchers` with its batch.
type Row = (i64, Option<i64>, Option<i64>, Option<String>, i64, i64, Option<i64>, Option<i64>);

impl Ledger {
    /// Adds vouchers, at most [`MAX_ADDED`], to a batch, which is made if it does not exist. Says `false`, and adds
    /// none, if the batch exists with other terms or is revoked.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn add_vouchers(
        &mut self,
        terms: &VoucherTerms,
        codes: &[[u8; 32]],
        now: u64,
    ) -> Result<bool, LedgerError> {
        self.is_sound()?;
        let (bytes, seconds) = (to_sql(terms.bytes), to_sql(terms.seconds));
        let expires = terms.expires.map(to_sql);
        let change = self.db.transaction()?;
        let known: Option<BatchRow> = change
            .query_row(sql::VOUCHER_BATCH, [&terms.batch], |row| {
                let terms = (row.get(1)?, row.get(2)?, row.get(3)?);
                Ok((row.get(0)?, terms, row.get(4)?))
            })
            .optional()?;
        let batch = match known {
            Some((number, same, None)) if same == (bytes, seconds, expires) => number,
            Some(_) => return Ok(false),
            None => {
                let values = params![terms.batch, bytes, seconds, to_sql(now), expires];
                change.execute(sql::ADD_VOUCHER_BATCH, values)?;
                change.last_insert_rowid()
            }
        };
        for code in codes.iter().take(MAX_ADDED) {
            change.prepare_cached(sql::ADD_VOUCHER)?.execute(params![code, batch])?;
        }
        let count = to_sql(codes.len().min(MAX_ADDED) as u64);
        change.execute(sql::COUNT_VOUCHERS, params![batch, count])?;
        change.commit()?;
        Ok(true)
    }

    /// Uses a voucher for a session: marked and credited in one transaction.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn use_voucher(
        &mut self,
        id: SessionId,
        code: &Code,
        used: &Usage,
        now: u64,
    ) -> Result<VoucherUse, LedgerError> {
        let Some(number) = self.numbers.get(&id).copied() else { return Ok(VoucherUse::NoSession) };
        self.is_sound()?;
        let change = self.db.transaction()?;
        let session = id.to_string();
        let claim = match claim(&change, &session, code, now)? {
            Ok(claim) => claim,
            Err(refused) => return Ok(refused),
        };
        let credit = match credit::add(&change, number, &claim.extension, used)? {
            Extended::Added(credit) | Extended::Before(credit) => credit,
            Extended::Contradicts => return Ok(VoucherUse::Used),
        };
        let Extension { bytes, seconds, .. } = claim.extension;
        claim.mark(&change, &session, now)?;
        change.commit()?;
        Ok(VoucherUse::Credited { credit, bytes, seconds })
    }

    /// Revokes the vouchers of a batch that were not used. Says whether there is something to revoke.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn revoke_voucher_batch(&mut self, name: &str, now: u64) -> Result<bool, LedgerError> {
        let revoked = self.db.execute(sql::REVOKE_VOUCHER_BATCH, params![name, to_sql(now)])?;
        Ok(revoked > 0)
    }

    /// Revokes one voucher. Says whether it could still have been used.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn revoke_voucher(&mut self, code: &Code, now: u64) -> Result<bool, LedgerError> {
        let values = params![code.hash(), to_sql(now)];
        Ok(self.db.execute(sql::REVOKE_VOUCHER, values)? > 0)
    }

    /// At most `limit` batches after the one with the number `after`, the oldest first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn voucher_batches(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<Vec<VoucherBatch>, LedgerError> {
        let mut statement = self.db.prepare_cached(sql::VOUCHER_BATCHES)?;
        let batches = statement.query_map(params![to_sql(after), limit], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
            let time =
                |column| row.get::<_, Option<i64>>(column).map(|time| time.map(i64::unsigned_abs));
            Ok(VoucherBatch {
                number: number(0)?,
                terms: VoucherTerms {
                    batch: row.get(1)?,
                    bytes: number(2)?,
                    seconds: number(3)?,
                    expires: time(5)?,
                },
                made: number(4)?,
                vouchers: number(6)?,
                used: number(7)?,
                revoked: time(8)?,
            })
        })?;
        Ok(batches.collect::<Result<_, _>>()?)
    }
}

/// A voucher that can be used.
pub(crate) struct Claim {
    hash: [u8; 32],
    batch: i64,
    /// What it is good for.
    pub(crate) extension: Extension,
}

impl Claim {
    /// Marks the voucher as used by a session.
    pub(crate) fn mark(
        &self,
        change: &Connection,
        session: &str,
        now: u64,
    ) -> Result<(), LedgerError> {
        change.execute(sql::USE_VOUCHER, params![self.hash, to_sql(now), session])?;
        change.execute(sql::COUNT_USED_VOUCHER, [self.batch])?;
        Ok(())
    }
}

/// Whether a session can use a voucher, within a transaction; else why not.
pub(crate) fn claim(
    change: &Connection,
    session_id: &str,
    code: &Code,
    now: u64,
) -> Result<Result<Claim, VoucherUse>, LedgerError> {
    let hash = code.hash();
    let row: Option<Row> = change
        .query_row(sql::VOUCHER, [hash], |row| {
            let who = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let what = (row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?);
            Ok((who.0, who.1, who.2, who.3, what.0, what.1, what.2, what.3))
        })
        .optional()?;
    let Some((batch, used_at, revoked, session, bytes, seconds, expires, batch_revoked)) = row
    else {
        return Ok(Err(VoucherUse::Unknown));
    };
    if used_at.is_some() {
        let same = session.is_some_and(|session| session == session_id);
        return Ok(Err(if same { VoucherUse::Before } else { VoucherUse::Used }));
    }
    if revoked.or(batch_revoked).is_some() {
        return Ok(Err(VoucherUse::Revoked));
    }
    if expires.is_some_and(|expires| expires < to_sql(now)) {
        return Ok(Err(VoucherUse::Expired));
    }
    let (bytes, seconds) = (bytes.unsigned_abs(), seconds.unsigned_abs());
    let reference = format!("voucher:{}", hex(&hash[..16]));
    Ok(Ok(Claim { hash, batch, extension: Extension { reference, bytes, seconds } }))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    alloy_primitives::hex::encode(bytes)
}

#[cfg(test)]
mod tests;
