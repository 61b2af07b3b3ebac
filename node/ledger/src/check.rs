//! Reads a ledger without writing to it: `weir ledger check` and `weir ledger export`.

use std::{collections::HashMap, path::Path};

use rusqlite::{Connection, OpenFlags};

use crate::{
    BlockSpan, LedgerError,
    agreements::{self, Settlement},
    counters,
    error::damaged,
    integrity, port_blocks, records,
    row::{read_counters, to_sql},
    schema, sql,
    usage_record::{RecordKey, UsageRecord},
};

/// What a look through a ledger found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sessions, live and ended.
    pub sessions: u64,
    /// Usage records.
    pub records: u64,
    /// What is wrong, in words. Empty is good.
    pub problems: Vec<String>,
}

/// A ledger, opened for reading. The node may write it meanwhile.
#[derive(Debug)]
pub struct Reader {
    db: Connection,
    signer: Option<String>,
}

impl Reader {
    /// Opens the ledger at `path`.
    ///
    /// # Errors
    ///
    /// When there is none, it cannot be read, is damaged at its very beginning, or has another
    /// schema.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        std::fs::metadata(path)
            .map_err(|source| LedgerError::Io { path: path.to_owned(), source })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(|e| damaged(path, e))?;
        let found: i64 = db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|e| damaged(path, e))?;
        if found != schema::CURRENT {
            let (path, known) = (path.to_owned(), schema::CURRENT);
            return Err(match found > known {
                true => LedgerError::Newer { path, found, known },
                false => LedgerError::Older { path, found },
            });
        }
        // Reading a ledger is no reason to make a key.
        let signer = RecordKey::is_beside(path).then(|| RecordKey::beside(path)).transpose()?;
        Ok(Self { db, signer: signer.map(|key| key.public().to_owned()) })
    }

    /// Hands over every usage record after `cursor`, in order, each once its signature is found
    /// good.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, a record is not as it was signed, or `each` fails.
    pub fn export<E: From<LedgerError>>(
        &self,
        cursor: u64,
        mut each: impl FnMut(&UsageRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk(cursor, |record| {
            // By whichever key: that it is the node's own, the check says.
            if !record.is_signed_by(&record.signer) {
                return Err(LedgerError::Unsigned(record.cursor).into());
            }
            each(record)
        })
    }

    fn walk<E: From<LedgerError>>(
        &self,
        mut cursor: u64,
        mut each: impl FnMut(&UsageRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let batch = records::read_after(&self.db, cursor, records::MAX_RECORDS)?;
            for record in &batch {
                each(record)?;
                cursor = record.cursor;
            }
            if batch.is_empty() {
                return Ok(());
            }
        }
    }

    /// The best promise of each channel, with its preimage: what settlement needs.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn settlements(&self) -> Result<Vec<Settlement>, LedgerError> {
        agreements::settlements(&self.db)
    }

    /// Who held the port of an external address at a moment, in seconds since 1970, the first first.
    /// Usually one: within the second in which a block went from one session to another, both.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn block_owners(
        &self,
        address: std::net::IpAddr,
        port: u16,
        at: u64,
    ) -> Result<Vec<BlockSpan>, LedgerError> {
        port_blocks::owners(&self.db, address, port, at)
    }

    /// Looks for damage, and for anything that the node would never write.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read at all; what can be read and is wrong is in the report.
    pub fn check(&self) -> Result<Report, LedgerError> {
        let mut report = Report::default();
        // One view of it all, while the node goes on writing.
        let view = self.db.unchecked_transaction()?;
        let mut pages = self.db.prepare("PRAGMA integrity_check(20)")?;
        let lines = pages.query_map([], |row| row.get::<_, String>(0))?;
        for line in lines.filter_map(Result::ok).filter(|line| line != "ok") {
            report.problems.push(format!("the file is damaged: {line}"));
        }
        if !report.problems.is_empty() {
            return Ok(report);
        }
        report.sessions = self.count("SELECT count(*) FROM sessions")?;
        report.records = self.count("SELECT count(*) FROM records")?;
        for (what, sql) in RULES {
            match self.count(sql)? {
                0 => {}
                found => report.problems.push(format!("{what}: {found}")),
            }
        }
        match integrity::differences(&view, schema::CURRENT)? {
            Some(differences) => report.problems.extend(differences),
            None => report.problems.push("its checksums are missing".to_owned()),
        }
        self.check_totals(&mut report)?;
        self.check_records(&mut report)?;
        Ok(report)
    }

    fn count(&self, sql: &str) -> Result<u64, LedgerError> {
        Ok(self.db.query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }

    /// What ended sessions have used together, as the node has it, is what those have whose rows are
    /// there, and what those had whose rows are gone.
    fn check_totals(&self, report: &mut Report) -> Result<(), LedgerError> {
        let one = |sql| self.db.query_row(sql, [], |row| read_counters(row, 0));
        let (kept, mut found) = (one(sql::ENDED_TOTALS)?, one(sql::SWEPT_TOTALS)?);
        let mut statement = self.db.prepare(sql::USED_BY_ENDED)?;
        for used in statement.query_map([], |row| read_counters(row, 0))? {
            found = counters::sum(&found, &used?);
        }
        let (kept, found) = (kept.to_array(), found.to_array());
        for (i, name) in weir_common::account::Counters::NAMES.iter().enumerate() {
            // The ledger's numbers stop where SQLite's do. Times are no sums.
            let is_sum = !["last_handshake", "newest_initiation"].contains(name);
            if is_sum && to_sql(kept[i]) != to_sql(found[i]) {
                let (kept, found) = (kept[i], found[i]);
                report.problems.push(format!(
                    "totals of ended sessions do not match the sessions: {name} is {kept}, they have {found}"
                ));
            }
        }
        Ok(())
    }

    fn check_records(&self, report: &mut Report) -> Result<(), LedgerError> {
        let mut latest: HashMap<String, UsageRecord> = HashMap::new();
        let problems = &mut report.problems;
        self.walk(0, |record| {
            if !record.is_signed_by(self.signer.as_deref().unwrap_or(&record.signer)) {
                problems.push(format!("record {} has an invalid signature", record.cursor));
            }
            let before = latest.insert(record.session.clone(), record.clone());
            if before.is_some_and(|before| !follows(record, &before)) {
                problems.push(format!(
                    "record {} has lower counters than an earlier one",
                    record.cursor
                ));
            }
            problems.truncate(100);
            Ok::<_, LedgerError>(())
        })
    }
}

fn follows(record: &UsageRecord, before: &UsageRecord) -> bool {
    record.sequence > before.sequence
        && record.falls_behind(before).is_none()
        && before.end_reason.is_none()
}

/// The best promise of each channel, with what settles it.
pub(crate) const SETTLEMENTS: &str = "SELECT channel, amount, preimage, message
     FROM channels ORDER BY channel";

/// What each channel has promised.
pub(crate) const PROMISES: &str = "SELECT amount FROM channels";

/// What must not be found, and how to count it.
const RULES: [(&str, &str); 7] = [
    ("references to missing rows", "SELECT count(*) FROM pragma_foreign_key_check"),
    (
        "sessions without counters",
        "SELECT count(*) FROM sessions WHERE number NOT IN (SELECT session FROM counters)",
    ),
    (
        "sessions whose records exceed their counters",
        "SELECT count(DISTINCT session) FROM records JOIN counters AS c USING (session)
         WHERE records.bytes_up > c.bytes_up OR records.bytes_down > c.bytes_down
             OR records.sequence > c.sequence",
    ),
    (
        "ended sessions whose last record does not match their final counters",
        "SELECT count(*) FROM sessions JOIN counters AS c ON c.session = number
             JOIN records AS r ON r.session = number AND r.sequence = c.sequence
         WHERE ended IS NOT NULL AND (r.end_reason IS NULL
             OR r.bytes_up <> c.bytes_up OR r.bytes_down <> c.bytes_down)",
    ),
    (
        "ended sessions whose rows would never be removed",
        "SELECT count(*) FROM sessions
         WHERE ended IS NOT NULL AND number NOT IN (SELECT session FROM ended_sessions)",
    ),
    (
        "live sessions whose rows would be removed",
        "SELECT count(*) FROM ended_sessions JOIN sessions ON number = session
         WHERE sessions.ended IS NULL",
    ),
    (
        "blocks of ports that no live session holds, and that were not given back",
        "SELECT count(*) FROM port_blocks WHERE until IS NULL
             AND session NOT IN (SELECT id FROM sessions WHERE ended IS NULL)",
    ),
];
