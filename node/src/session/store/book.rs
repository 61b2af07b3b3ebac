//! Agreements, invoices and promises in the ledger. A preimage is here before its hash is shown,
//! and a promise is only ever replaced by a higher one.

use std::collections::HashMap;

use alloy_primitives::{Address, B256, U256, hex};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{super::SessionId, Store, StoreError, to_sql, unix_now};
use crate::payment::{
    ExchangeMessage, Price,
    invoice::Preimage,
    verify::Paid,
    wire::{self, ExchangeText},
};

/// How a session pays as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Random; in every invoice and message.
    pub id: U256,
    /// Whose promises pay.
    pub consumer: Address,
    /// What is due.
    pub price: Price,
    /// How much may be due and unpaid, in wei, once anything was paid at all.
    pub leeway: u128,
    /// What was paid, in wei.
    pub paid: U256,
}

impl Agreement {
    /// The bytes that the session may have had, after so many seconds, until it must pay.
    #[must_use]
    pub fn budget(&self, seconds: u64) -> u64 {
        if self.paid.is_zero() { 0 } else { self.price.affordable(self.limit(), seconds) }
    }

    /// The bytes that the session has paid for, after so many seconds.
    #[must_use]
    pub fn covered(&self, seconds: u64) -> u64 {
        if self.paid.is_zero() { 0 } else { self.price.affordable(self.paid, seconds) }
    }

    /// What so much use has cost. `covered` bytes of it are free, or paid otherwise.
    #[must_use]
    pub fn due(&self, bytes: u64, covered: Option<u64>, seconds: u64) -> U256 {
        self.price.due(bytes.saturating_sub(covered.unwrap_or(0)), seconds)
    }

    fn limit(&self) -> U256 {
        self.paid.saturating_add(U256::from(self.leeway))
    }
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

impl Store {
    /// Writes down a session's agreement.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written, or the session has one; nothing has changed then.
    pub fn agree(&mut self, id: SessionId, agreement: &Agreement) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT INTO agreements (session, agreement, consumer, per_gib, per_hour, leeway, paid)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                self.numbers.get(&id),
                agreement.id.to_string(),
                agreement.consumer.to_string(),
                agreement.price.per_gib.to_string(),
                agreement.price.per_hour.to_string(),
                agreement.leeway.to_string(),
                agreement.paid.to_string(),
            ],
        )?;
        Ok(())
    }

    /// The agreements of the live sessions.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, or a record contradicts itself.
    pub fn agreements(&self) -> Result<HashMap<SessionId, Agreement>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT id, agreement, consumer, per_gib, per_hour, leeway, paid
             FROM agreements JOIN sessions ON session = number WHERE ended IS NULL",
        )?;
        let mut rows = statement.query([])?;
        let mut agreements = HashMap::new();
        while let Some(row) = rows.next()? {
            let id: String = row.get(0)?;
            let wrong = |what: &str| StoreError::Record { id: id.clone(), what: what.to_owned() };
            let session = id.parse().map_err(|_| wrong("its identifier"))?;
            let consumer: String = row.get(2)?;
            let agreement = Agreement {
                id: amount(row, 1)?,
                consumer: wire::address("consumer", &consumer)
                    .map_err(|_| wrong("the consumer's address"))?,
                price: Price {
                    per_gib: amount(row, 3)?.saturating_to(),
                    per_hour: amount(row, 4)?.saturating_to(),
                },
                leeway: amount(row, 5)?.saturating_to(),
                paid: amount(row, 6)?,
            };
            agreements.insert(session, agreement);
        }
        Ok(agreements)
    }

    /// Keeps an invoice. Only after this may anybody see its hashlock.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; the invoice must not be sent then.
    pub fn keep_invoice(
        &mut self,
        id: SessionId,
        total: U256,
        preimage: &Preimage,
    ) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT INTO invoices (hashlock, session, total, preimage, made)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                preimage.hashlock().to_string(),
                self.numbers.get(&id),
                total.to_string(),
                hex::encode(preimage.expose()),
                to_sql(unix_now()),
            ],
        )?;
        Ok(())
    }

    /// The session's invoice with this hashlock, else its highest one: hashlock and total.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn invoice(
        &self,
        id: SessionId,
        hashlock: &B256,
    ) -> Result<Option<(B256, U256)>, StoreError> {
        let found = self
            .db
            .query_row(
                "SELECT hashlock, total FROM invoices WHERE session = ?1
                 ORDER BY hashlock = ?2 DESC, length(total) DESC, total DESC LIMIT 1",
                params![self.numbers.get(&id), hashlock.to_string()],
                |row| Ok((row.get::<_, String>(0)?, amount(row, 1)?)),
            )
            .optional()?;
        Ok(found.and_then(|(hashlock, total)| Some((hashlock.parse().ok()?, total))))
    }

    /// The highest amount that a channel has promised us.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn promised(&self, channel: &B256) -> Result<U256, StoreError> {
        let sql = "SELECT amount FROM channels WHERE channel = ?1";
        let amount = self.db.query_row(sql, [channel.to_string()], |row| amount(row, 0));
        Ok(amount.optional()?.unwrap_or_default())
    }

    /// What all channels have promised us, in wei.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn earned(&self) -> Result<U256, StoreError> {
        let mut statement = self.db.prepare("SELECT amount FROM channels")?;
        let mut rows = statement.query([])?;
        let mut sum = U256::ZERO;
        while let Some(row) = rows.next()? {
            sum = sum.saturating_add(amount(row, 0)?);
        }
        Ok(sum)
    }

    /// Takes a verified payment into the books, all of it or nothing.
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
    ) -> Result<(), StoreError> {
        let promise = &message.promise;
        let (number, now) = (self.numbers.get(&id), to_sql(unix_now()));
        let text = serde_json::to_string(&ExchangeText::from(message)).unwrap_or_default();
        let change = self.db.transaction()?;
        change.execute(
            "UPDATE invoices SET paid = ?2 WHERE hashlock = ?1",
            params![promise.hashlock.to_string(), now],
        )?;
        // Whoever pays a lower invoice from now on is refused: nothing is ever settled with those.
        change.execute(
            "DELETE FROM invoices WHERE session = ?1 AND paid IS NULL
                 AND (length(total) < length(?2) OR length(total) = length(?2) AND total <= ?2)",
            params![number, paid.total.to_string()],
        )?;
        change.execute(
            "UPDATE agreements SET paid = ?2 WHERE session = ?1",
            params![number, paid.total.to_string()],
        )?;
        change.execute(
            "INSERT INTO channels (channel, amount, hashlock, message, updated)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (channel) DO UPDATE SET amount = excluded.amount,
                 hashlock = excluded.hashlock, message = excluded.message,
                 updated = excluded.updated",
            params![
                promise.channel_id.to_string(),
                promise.amount.to_string(),
                promise.hashlock.to_string(),
                text,
                now
            ],
        )?;
        change.commit()?;
        Ok(())
    }
}

/// The best promise of each channel, with its preimage: what settlement needs.
pub(super) fn settlements(db: &Connection) -> Result<Vec<Settlement>, StoreError> {
    let mut statement = db.prepare(
        "SELECT channel, amount, preimage, message
         FROM channels JOIN invoices USING (hashlock) ORDER BY channel",
    )?;
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

fn amount(row: &Row<'_>, column: usize) -> rusqlite::Result<U256> {
    let text: String = row.get(column)?;
    wire::number("amount", &text).map_err(|_| corrupt(column))
}

fn corrupt(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "amount".to_owned(), rusqlite::types::Type::Text)
}
