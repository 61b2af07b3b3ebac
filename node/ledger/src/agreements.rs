//! Agreements, invoices and promises in the ledger. A preimage is here before its hash is shown,
//! and a promise is only ever replaced by a higher one.

use std::collections::HashMap;

use alloy_primitives::{B256, U256, hex};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{Ledger, LedgerError, SessionId, check, row::to_sql, sql, unix_now};
use weir_promise::{
    Agreement, ExchangeMessage, Price, Use,
    invoice::Preimage,
    verify::Paid,
    wire::{self, ExchangeText},
};

/// The maximum number of invoices of a session that can be paid. Beyond it the oldest are deleted: a
/// consumer that asks that often has a newer one.
pub const MAX_OPEN_INVOICES: u32 = 64;

/// An invoice in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredInvoice {
    /// The invoice's hashlock.
    pub hashlock: B256,
    /// What the agreement had cost, in wei.
    pub total: U256,
    /// For this use.
    pub used: Use,
}

/// What a promise needs to be settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The consumer's channel.
    pub channel: String,
    /// What it has promised, in wei.
    pub amount: U256,
    /// The preimage of the promise's hashlock.
    pub preimage: Preimage,
    /// The whole message, as JSON.
    pub message: String,
}

impl Ledger {
    /// Writes down a session's agreement.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written, or the session has one; nothing has changed then.
    pub fn agree(&mut self, id: SessionId, agreement: &Agreement) -> Result<(), LedgerError> {
        self.is_sound()?;
        self.db.execute(
            sql::AGREE,
            params![
                self.numbers.get(&id),
                agreement.id.to_string(),
                agreement.consumer.to_string(),
                agreement.price.per_gib.to_string(),
                agreement.price.per_hour.to_string(),
                to_sql(agreement.unpaid.bytes),
                to_sql(agreement.unpaid.seconds),
                agreement.paid.to_string(),
                to_sql(agreement.paid_for.bytes),
                to_sql(agreement.paid_for.seconds),
            ],
        )?;
        Ok(())
    }

    /// The agreements of the live sessions.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, or a record contradicts itself.
    pub fn agreements(&self) -> Result<HashMap<SessionId, Agreement>, LedgerError> {
        let mut statement = self.db.prepare(sql::AGREEMENTS)?;
        let mut rows = statement.query([])?;
        let mut agreements = HashMap::new();
        while let Some(row) = rows.next()? {
            let id: String = row.get(0)?;
            let wrong = |what: &str| LedgerError::Record { id: id.clone(), what: what.to_owned() };
            let session = id.parse().map_err(|_| wrong("its identifier"))?;
            let consumer: String = row.get(2)?;
            let price = Price {
                per_gib: amount(row, 3)?.saturating_to(),
                per_hour: amount(row, 4)?.saturating_to(),
            };
            let paid = amount(row, 7)?;
            let paid_for = match (row.get::<_, Option<i64>>(8)?, row.get::<_, Option<i64>>(9)?) {
                (Some(bytes), Some(seconds)) => {
                    Use { bytes: bytes.unsigned_abs(), seconds: seconds.unsigned_abs() }
                }
                _ => {
                    let seconds = row.get::<_, i64>(10)?.unsigned_abs();
                    Agreement::guess_paid_for(price, paid, seconds)
                }
            };
            let agreement = Agreement {
                id: amount(row, 1)?,
                consumer: wire::address("consumer", &consumer)
                    .map_err(|_| wrong("the consumer's address"))?,
                price,
                unpaid: read_use(row, 5)?,
                paid,
                paid_for,
            };
            agreements.insert(session, agreement);
        }
        Ok(agreements)
    }

    /// Keeps an invoice over so much use. Only after this may anybody see its hashlock.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; the invoice must not be sent then.
    pub fn add_invoice(
        &mut self,
        id: SessionId,
        total: U256,
        used: Use,
        preimage: &Preimage,
    ) -> Result<(), LedgerError> {
        self.is_sound()?;
        let number = self.numbers.get(&id);
        let change = self.db.transaction()?;
        change.prepare_cached(sql::ADD_INVOICE)?.execute(params![
            preimage.hashlock().to_string(),
            number,
            total.to_string(),
            hex::encode(preimage.expose()),
            to_sql(unix_now()),
            to_sql(used.bytes),
            to_sql(used.seconds),
        ])?;
        change
            .prepare_cached(sql::DROP_OLD_INVOICES)?
            .execute(params![number, MAX_OPEN_INVOICES])?;
        change.commit()?;
        Ok(())
    }

    /// The session's invoice with this hashlock, else its highest one.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn invoice(
        &self,
        id: SessionId,
        hashlock: &B256,
    ) -> Result<Option<StoredInvoice>, LedgerError> {
        let read = |row: &Row<'_>| {
            let text: String = row.get(0)?;
            let hashlock = text.parse().map_err(|_| corrupt(0))?;
            Ok(StoredInvoice { hashlock, total: amount(row, 1)?, used: read_use(row, 2)? })
        };
        let number = self.numbers.get(&id);
        let mut named = self.db.prepare_cached(sql::INVOICE)?;
        if let Some(found) =
            named.query_row(params![number, hashlock.to_string()], read).optional()?
        {
            return Ok(Some(found));
        }
        let mut highest = self.db.prepare_cached(sql::HIGHEST_INVOICE)?;
        Ok(highest.query_row([number], read).optional()?)
    }

    /// The highest amount that a channel has promised us.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn promised(&self, channel: &B256) -> Result<U256, LedgerError> {
        let mut statement = self.db.prepare_cached(sql::PROMISED)?;
        let amount = statement.query_row([channel.to_string()], |row| amount(row, 0));
        Ok(amount.optional()?.unwrap_or_default())
    }

    /// What all channels have promised us, in wei.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn earned(&self) -> Result<U256, LedgerError> {
        let kept = self.db.query_row(sql::INCOME, [], |row| amount(row, 0)).optional()?;
        Ok(kept.unwrap_or_default())
    }

    /// Records a verified payment for an invoice over `paid_for`, all of it or nothing.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written, or has a higher promise of the channel: nothing is paid
    /// then.
    pub fn accept(
        &mut self,
        id: SessionId,
        message: &ExchangeMessage,
        paid: &Paid,
        paid_for: Use,
    ) -> Result<(), LedgerError> {
        self.is_sound()?;
        let promise = &message.promise;
        let channel = promise.channel_id.to_string();
        let (number, now) = (self.numbers.get(&id), to_sql(unix_now()));
        let text = serde_json::to_string(&ExchangeText::from(message)).unwrap_or_default();
        let more = promise.amount.saturating_sub(self.promised(&promise.channel_id)?);
        let earned = self.earned()?.saturating_add(more);
        let change = self.db.transaction()?;
        change
            .prepare_cached(sql::SET_INVOICE_PAID)?
            .execute(params![promise.hashlock.to_string(), now])?;
        change.prepare_cached(sql::SET_PAID)?.execute(params![
            number,
            paid.total.to_string(),
            to_sql(paid_for.bytes),
            to_sql(paid_for.seconds),
        ])?;
        change.prepare_cached(sql::SET_PROMISE)?.execute(params![
            channel,
            promise.amount.to_string(),
            promise.hashlock.to_string(),
            text,
            now
        ])?;
        change.execute(sql::SET_INCOME, [earned.to_string()])?;
        // Whoever pays a lower invoice from now on is refused.
        change
            .prepare_cached(sql::DROP_PAID_INVOICES)?
            .execute(params![number, paid.total.to_string()])?;
        change.commit()?;
        Ok(())
    }
}

/// What all channels have promised, in an older ledger that does not have the sum.
pub(crate) fn sum_promises(db: &Connection) -> Result<U256, LedgerError> {
    let mut statement = db.prepare(check::PROMISES)?;
    let mut rows = statement.query([])?;
    let mut sum = U256::ZERO;
    while let Some(row) = rows.next()? {
        sum = sum.saturating_add(amount(row, 0)?);
    }
    Ok(sum)
}

/// The best promise of each channel, with its preimage: what settlement needs.
pub(crate) fn settlements(db: &Connection) -> Result<Vec<Settlement>, LedgerError> {
    let mut statement = db.prepare(check::SETTLEMENTS)?;
    let rows = statement.query_map([], |row| {
        let preimage: String = row.get(2)?;
        let preimage = hex::decode_to_array(preimage).map_err(|_| corrupt(2))?;
        Ok(Settlement {
            channel: row.get(0)?,
            amount: amount(row, 1)?,
            preimage: Preimage::new(preimage),
            message: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read_use(row: &Row<'_>, first: usize) -> rusqlite::Result<Use> {
    let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(Use { bytes: number(first)?, seconds: number(first + 1)? })
}

fn amount(row: &Row<'_>, column: usize) -> rusqlite::Result<U256> {
    let text: String = row.get(column)?;
    wire::number("amount", &text).map_err(|_| corrupt(column))
}

fn corrupt(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "amount".to_owned(), rusqlite::types::Type::Text)
}
