//! Sales to strangers: a session, and what it was paid with, in one transaction. A node that is killed has either
//! taken nothing, or it has both, and the same order again finds the session.

use rusqlite::OptionalExtension as _;
use weir_common::account::{Counters, SessionState};

use crate::{
    Credit, Ledger, LedgerError, Pause, Session, SessionId, Usage,
    credit::{self, Extended, Extra},
    ecash::{Accept, NewToken, Taken, tokens},
    ledger::add_session,
    sql,
    vouchers::{self, Code, VoucherUse},
};

/// A session that was written, as it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its first counters.
    pub counters: Counters,
    /// Its credit, and whether it is paused.
    pub extra: Extra,
    /// The token that the mint is to exchange before it is credited.
    pub held: Option<u64>,
}

/// Who has given a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Giver {
    /// The live session that has; `None` once that has ended.
    pub session: Option<SessionId>,
    /// Whether it is credited.
    pub is_credited: bool,
}

impl Ledger {
    /// Who has given a token of this hash.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn token_giver(&self, hash: [u8; 32]) -> Result<Option<Giver>, LedgerError> {
        let known: Option<(Option<String>, Option<i64>)> = self
            .db
            .prepare_cached(sql::TOKEN)?
            .query_row([hash], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(known.map(|(session, credited)| Giver {
            session: session.and_then(|session| session.parse().ok()),
            is_credited: credited.is_some(),
        }))
    }

    /// Who has used a voucher.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn voucher_giver(&self, code: &Code) -> Result<Option<Giver>, LedgerError> {
        let known: Option<(Option<i64>, Option<String>)> = self
            .db
            .prepare_cached(sql::VOUCHER)?
            .query_row([code.hash()], |row| Ok((row.get(1)?, row.get(3)?)))
            .optional()?;
        let Some((Some(_), session)) = known else { return Ok(None) };
        let session = session.and_then(|session| session.parse().ok());
        Ok(Some(Giver { session, is_credited: true }))
    }

    /// Adds a session that is paid with a verified token, which nobody has given before. It may use what the token
    /// buys, for at most `seconds`.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn sell_for_token(
        &mut self,
        session: &Session,
        seconds: Option<u64>,
        token: &NewToken,
        accept: Accept,
    ) -> Result<Result<Begun, Taken>, LedgerError> {
        self.is_sound()?;
        let pause = matches!(accept, Accept::AfterSwap).then_some(Pause::Credit);
        let credit = Credit { bytes: Some(0), seconds };
        let mut extra = Extra { credit, pause, ..Extra::default() };
        let change = self.db.transaction()?;
        let row = match tokens::add(&change, &session.id.to_string(), token, accept)? {
            Ok(row) => row,
            Err(taken) => return Ok(Err(taken)),
        };
        let state = pause.map_or(SessionState::Open, |_| SessionState::Paused);
        let session = Session { state, ..session.clone() };
        let (number, counters) = add_session(&change, &session, &extra, None)?;
        if pause.is_none() {
            let extension = tokens::extension(&token.hash, token.bytes);
            match credit::add(&change, number, &extension, &Usage::default())? {
                Extended::Added(credit) | Extended::Before(credit) => extra.credit = credit,
                Extended::Contradicts => return Ok(Err(Taken::Spent)),
            }
        }
        change.commit()?;
        self.numbers.insert(session.id, number);
        Ok(Ok(Begun { counters, extra, held: pause.map(|_| row) }))
    }

    /// Adds a session that is paid with a voucher. It may use what the voucher is good for: without a limit of
    /// bytes if that is time alone, and for at most `seconds` if it is bytes alone.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn sell_for_voucher(
        &mut self,
        session: &Session,
        seconds: Option<u64>,
        code: &Code,
        now: u64,
    ) -> Result<Result<Begun, VoucherUse>, LedgerError> {
        self.is_sound()?;
        let change = self.db.transaction()?;
        let id = session.id.to_string();
        let claim = match vouchers::claim(&change, &id, code, now)? {
            Ok(claim) => claim,
            Err(refused) => return Ok(Err(refused)),
        };
        let seconds = seconds.filter(|_| claim.extension.seconds == 0);
        let bytes = (claim.extension.bytes > 0).then_some(0);
        let mut extra = Extra { credit: Credit { bytes, seconds }, ..Extra::default() };
        let (number, counters) = add_session(&change, session, &extra, None)?;
        match credit::add(&change, number, &claim.extension, &Usage::default())? {
            Extended::Added(credit) | Extended::Before(credit) => extra.credit = credit,
            Extended::Contradicts => return Ok(Err(VoucherUse::Used)),
        }
        claim.mark(&change, &id, now)?;
        change.commit()?;
        self.numbers.insert(session.id, number);
        Ok(Ok(Begun { counters, extra, held: None }))
    }
}
