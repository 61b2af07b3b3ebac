//! Which session had which block of the node's external ports, and when: all that is kept of consumers' flows, and
//! what an abuse notice is answered from.
//!
//! A row is a block that a session holds, or held until it gave it back. Destinations are nowhere. A session's blocks
//! are closed in the transaction that ends it. Rows go when their time is over, see [`Ledger::forget_blocks`].
//!
//! Blocks are aligned: one of `n` ports begins at a multiple of `n`, and `n` is a power of two. So whose a port is can
//! be looked up by the 17 ports at which a block with it can begin.

use std::net::IpAddr;

use rusqlite::{Connection, Row, ToSql, params, params_from_iter};

use crate::{
    Ledger, LedgerError, NotAnId, SessionId, retention::Swept, row::to_sql, shared::SharedLedger,
    sql, unix_now,
};

/// Rows of blocks that were given back, at most: some 500 MB. Beyond that, those that were taken first go.
pub(crate) const MAX_BLOCKS: i64 = 1 << 22;

/// Rows that one transaction deletes at most.
const MAX_ROWS: u64 = 400;

/// A block of ports of one external address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The external address.
    pub address: IpAddr,
    /// The first port. A multiple of the length.
    pub first: u16,
    /// The number of ports, a power of two. 65536 is the whole address, as where a session has one of its own.
    pub length: u32,
}

/// A block that a session has taken or given back, with the time in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEvent {
    /// The session holds the block from now on, and no other session does.
    Taken {
        /// The session.
        session: SessionId,
        /// The block.
        ports: Ports,
        /// When.
        at: u64,
    },
    /// The session does not hold the block any more.
    Released {
        /// The session.
        session: SessionId,
        /// The block.
        ports: Ports,
        /// When.
        at: u64,
    },
}

/// Who held a block, and from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSpan {
    /// The session.
    pub session: SessionId,
    /// The block.
    pub ports: Ports,
    /// The second in which it was taken, since 1970.
    pub since: u64,
    /// The second in which it was given back; `None` while it is held.
    pub until: Option<u64>,
}

impl Ledger {
    /// Writes down blocks that were taken and given back, in this order, in one transaction.
    ///
    /// What a session takes that has ended meanwhile is closed at once. What it gives back and does not hold is
    /// ignored.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then, and the same events can be written later.
    pub fn write_blocks(&mut self, events: &[BlockEvent]) -> Result<(), LedgerError> {
        if events.is_empty() {
            return Ok(());
        }
        let now = unix_now();
        let change = self.db.transaction()?;
        for event in events {
            match *event {
                BlockEvent::Taken { session, ports, at } => {
                    let (address, first) = (ports.address.to_string(), ports.first);
                    change.prepare_cached(sql::CLOSE_HELD_BLOCK)?.execute(params![
                        address,
                        first,
                        to_sql(at)
                    ])?;
                    let until = (!self.numbers.contains_key(&session)).then(|| to_sql(now.max(at)));
                    let since = to_sql(at);
                    change.prepare_cached(sql::ADD_BLOCK)?.execute(params![
                        session.to_string(),
                        address,
                        first,
                        ports.length,
                        since,
                        until
                    ])?;
                }
                BlockEvent::Released { session, ports, at } => {
                    change.prepare_cached(sql::RELEASE_BLOCK)?.execute(params![
                        ports.address.to_string(),
                        ports.first,
                        session.to_string(),
                        to_sql(at)
                    ])?;
                }
            }
        }
        change.commit()?;
        Ok(())
    }

    /// The blocks that sessions hold: what a start goes on with.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, or a row contradicts itself.
    pub fn open_blocks(&self) -> Result<Vec<BlockSpan>, LedgerError> {
        let mut statement = self.db.prepare(sql::HELD_BLOCKS)?;
        let mut rows = statement.query([])?;
        let mut held = Vec::new();
        while let Some(row) = rows.next()? {
            held.push(read(row)?);
        }
        Ok(held)
    }

    /// Who held the port at a moment, in seconds since 1970: see [`owners`].
    pub(crate) fn block_owners(
        &self,
        address: IpAddr,
        port: u16,
        at: u64,
    ) -> Result<Vec<BlockSpan>, LedgerError> {
        owners(&self.db, address, port, at)
    }

    /// Deletes some rows of blocks that were given back more than `kept` seconds ago (`None` for never), and of the
    /// oldest beyond [`MAX_BLOCKS`].
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn forget_blocks(&mut self, kept: Option<u64>) -> Result<Swept, LedgerError> {
        self.forget_blocks_at(kept, MAX_ROWS, MAX_BLOCKS, unix_now())
    }

    pub(crate) fn forget_blocks_at(
        &mut self,
        kept: Option<u64>,
        max_rows: u64,
        max_blocks: i64,
        now: u64,
    ) -> Result<Swept, LedgerError> {
        // In a ledger that is damaged, whatever is there may be needed to repair it.
        if self.is_sound().is_err() {
            return Ok(Swept::default());
        }
        let limit = to_sql(max_rows);
        let change = self.db.transaction()?;
        let mut old = 0;
        if let Some(kept) = kept {
            change.prepare_cached(sql::RESTAMP_BLOCKS)?.execute(params![to_sql(now), limit])?;
            let before = to_sql(now.saturating_sub(kept));
            old = change.prepare_cached(sql::DROP_OLD_BLOCKS)?.execute(params![before, limit])?;
        }
        let beyond =
            change.prepare_cached(sql::DROP_BLOCKS_BEYOND)?.execute(params![max_blocks, limit])?;
        change.commit()?;
        Ok(Swept { gone: old + beyond, goes_on: old.max(beyond) as u64 >= max_rows })
    }
}

/// Who held the port at a moment, in seconds since 1970, the first first. Usually one: within the second in which a
/// block went from one session to another, both.
pub(crate) fn owners(
    db: &Connection,
    address: IpAddr,
    port: u16,
    at: u64,
) -> Result<Vec<BlockSpan>, LedgerError> {
    let address: Box<dyn ToSql> = Box::new(address.to_string());
    let at: Box<dyn ToSql> = Box::new(to_sql(at));
    let port = i64::from(port);
    let firsts = (0..=16u32).map(|bits| Box::new(port >> bits << bits) as Box<dyn ToSql>);
    let values = [address, Box::new(port), at].into_iter().chain(firsts);
    let mut statement = db.prepare_cached(sql::BLOCK_OWNERS)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<BlockSpan, LedgerError> {
    let id: String = row.get(0)?;
    let wrong = |what: String| LedgerError::Record { id: id.clone(), what };
    let address: String = row.get(1)?;
    Ok(BlockSpan {
        session: id.parse().map_err(|e: NotAnId| wrong(e.to_string()))?,
        ports: Ports {
            address: address
                .parse()
                .map_err(|_| wrong(format!("it holds ports of the address {address:?}")))?,
            first: row.get(2)?,
            length: row.get(3)?,
        },
        since: row.get::<_, i64>(4)?.unsigned_abs(),
        until: row.get::<_, Option<i64>>(5)?.map(i64::unsigned_abs),
    })
}

/// Answers whose a port was, and nothing else of the ledger. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PortLog(SharedLedger);

impl PortLog {
    pub(crate) fn new(ledger: SharedLedger) -> Self {
        Self(ledger)
    }

    /// Who held the port at a moment, in seconds since 1970, the first first. Usually one: within the second in which
    /// a block went from one session to another, both.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn owners(
        &self,
        address: IpAddr,
        port: u16,
        at: u64,
    ) -> Result<Vec<BlockSpan>, LedgerError> {
        self.0.lock().block_owners(address, port, at)
    }
}

#[cfg(test)]
mod tests;
