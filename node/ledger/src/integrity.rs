//! Integrity: a checksum over the rows of each table. It detects content that weir did not write.
//! SQLite's own check detects damage to the structure of the file, but no flipped bit in a number.
//!
//! Each row has a hash, and a table's sum is that of its rows, whatever their order. Triggers of
//! weir's own connection keep the sums, in the transaction of the change itself; they are not in
//! the file, so that what another program writes does not fit them.

use std::collections::BTreeMap;

use rusqlite::{
    Connection, Params, Rows,
    functions::{Context, FunctionFlags},
    types::ValueRef,
};

use crate::{LedgerError, schema, sql};

/// The tables whose rows are each of one session, and the column that says of which.
///
/// The rows of ended sessions never change again, until they go. Their part of the sum is written down when a
/// session ends, so that a start can check what is of live sessions without a look at the others.
const OF_SESSIONS: [(&str, &str); 6] = [
    ("sessions", "number"),
    ("counters", "session"),
    ("credit", "session"),
    ("payments", "session"),
    ("rates", "session"),
    ("agreements", "session"),
];

/// The tables with a handful of rows, and those that have rows of live sessions only.
const SMALL: [&str; 7] = [
    "ended_totals",
    "swept_totals",
    "quotas",
    "deliveries",
    "income",
    "retention",
    "preshared_keys",
];

/// The tables that a start does not look at: only the check beside the running node does.
#[cfg(test)]
const BIG: [&str; 15] = [
    "records",
    "invoices",
    "channels",
    "ended_sessions",
    "initiations",
    "port_blocks",
    "voucher_batches",
    "vouchers",
    "ecash_mints",
    "ecash_keysets",
    "ecash_tokens",
    "ecash_swaps",
    "ecash_proofs",
    "ecash_purse",
    "ecash_withdrawals",
];

/// The name of the sum over the definitions of the tables. No table can have it.
const SCHEMA: &str = "(definitions)";

/// The SQL function that adds a row to a sum (1), or takes it away (-1): sum, sign, table, values.
const FUNCTION: &str = "weir_sum";

/// Installs triggers that keep the sums through every change by this connection.
pub(crate) fn install_triggers(db: &Connection) -> Result<(), LedgerError> {
    // SQLite says nothing of rows that INSERT OR REPLACE removes unless triggers are recursive.
    db.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA recursive_triggers = ON")?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function(FUNCTION, -1, flags, add)?;
    let mut triggers = String::new();
    for table in tables(db)? {
        for change in ["INSERT", "UPDATE", "DELETE"] {
            triggers.push_str(&trigger(db, &table, change)?);
        }
    }
    Ok(db.execute_batch(&triggers)?)
}

/// What makes the trigger that keeps a table's sum through one kind of change.
fn trigger(db: &Connection, table: &str, change: &str) -> Result<String, LedgerError> {
    let columns = columns(db, table)?;
    let values = |row: &str| {
        let names = columns.iter().map(|name| format!("{row}.\"{name}\""));
        names.collect::<Vec<_>>().join(", ")
    };
    let without = format!("{FUNCTION}(sum, -1, '{table}', {})", values("OLD"));
    let with = |sum: &str| format!("{FUNCTION}({sum}, 1, '{table}', {})", values("NEW"));
    let sum = match change {
        "INSERT" => with("sum"),
        "UPDATE" => with(&without),
        _ => without,
    };
    Ok(format!(
        "CREATE TEMP TRIGGER sum_{table}_{change} AFTER {change} ON main.{table}
         BEGIN UPDATE sums SET sum = {sum} WHERE name = '{table}'; END;\n"
    ))
}

/// Has `updates` change most of the rows of a table, within a transaction, and keeps its sum at once
/// instead of row by row. What was wrong with the sum before stays wrong.
pub(crate) fn through(
    db: &Connection,
    table: &str,
    updates: impl FnOnce() -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let all = format!("SELECT * FROM main.{table}");
    let before = sum(db, table, &all)?;
    db.execute_batch(&format!("DROP TRIGGER temp.sum_{table}_UPDATE"))?;
    updates()?;
    let change = sum(db, table, &all)?.wrapping_sub(before);
    raise(db, table, change)?;
    Ok(db.execute_batch(&trigger(db, table, "UPDATE")?)?)
}

/// A session has ended: what the tables have of it is as it stays.
pub(crate) fn seal(db: &Connection, number: i64) -> Result<(), LedgerError> {
    for (table, key) in OF_SESSIONS {
        let mut statement = db.prepare_cached(&rows_of(table, key))?;
        let rows = statement.query([number])?;
        raise(db, &of_ended(table), sum_rows(rows, table)?)?;
    }
    Ok(())
}

/// Has a statement delete rows of a session that has ended and return them, so that what is kept
/// of ended sessions falls by them. Says how many they were.
pub(crate) fn sweep(
    db: &Connection,
    table: &str,
    delete: &str,
    which: impl Params,
) -> Result<u64, LedgerError> {
    let mut statement = db.prepare_cached(delete)?;
    let swept = sum_rows(statement.query(which)?, table)?;
    let count = db.changes();
    if count > 0 {
        raise(db, &of_ended(table), swept.wrapping_neg())?;
    }
    Ok(count)
}

fn raise(db: &Connection, name: &str, by: i64) -> Result<(), LedgerError> {
    let kept: i64 = db.prepare_cached(sql::SUM)?.query_row([name], |row| row.get(0))?;
    db.prepare_cached(sql::SET_SUM)?.execute((name, kept.wrapping_add(by)))?;
    Ok(())
}

/// The name of the sum over what ended sessions have of a table. No table can have it.
fn of_ended(table: &str) -> String {
    format!("{table} (ended)")
}

fn rows_of(table: &str, key: &str) -> String {
    format!("SELECT * FROM main.{table} WHERE {key} = ?1")
}

fn rows_of_live(table: &str, key: &str) -> String {
    match table {
        "sessions" => "SELECT * FROM sessions INDEXED BY live_slot WHERE ended IS NULL".into(),
        _ => format!(
            "SELECT {table}.* FROM sessions INDEXED BY live_slot
             CROSS JOIN {table} ON {table}.{key} = number WHERE sessions.ended IS NULL"
        ),
    }
}

/// The statements that look at what is of live sessions, or of one.
#[cfg(test)]
pub(crate) fn live_statements() -> Vec<String> {
    let of = |(table, key)| [rows_of(table, key), rows_of_live(table, key)];
    OF_SESSIONS.into_iter().flat_map(of).collect()
}

/// Whether the ledger has a place for sums: those of an older schema have none.
pub(crate) fn are_kept(db: &Connection) -> Result<bool, LedgerError> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'sums'";
    Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0)
}

/// Writes the sums of the content as it is, in a ledger of this schema.
pub(crate) fn rewrite(db: &Connection, schema: i64) -> Result<(), LedgerError> {
    db.execute("DELETE FROM sums", [])?;
    for (name, sum) in found(db, schema)? {
        db.execute("INSERT INTO sums (name, sum) VALUES (?1, ?2)", (name, sum))?;
    }
    Ok(())
}

/// What is not as weir wrote it, in words, in a ledger of this schema: a look at all of it. `None`
/// where there are no sums at all.
pub(crate) fn differences(
    db: &Connection,
    schema: i64,
) -> Result<Option<Vec<String>>, LedgerError> {
    let Some(kept) = kept(db)? else { return Ok(None) };
    Ok(Some(compare(kept, found(db, schema)?)))
}

/// As [`differences`], of what a start needs alone: the rows of live sessions, and what has a
/// handful of rows. How many sessions there were, and what they have used, does not matter.
pub(crate) fn differences_of_live(db: &Connection) -> Result<Option<Vec<String>>, LedgerError> {
    let Some(mut kept) = kept(db)? else { return Ok(None) };
    let mut of_live = BTreeMap::new();
    let mut found = BTreeMap::new();
    for (table, key) in OF_SESSIONS {
        let of_all = kept.remove(table);
        if let Some((all, ended)) = of_all.zip(kept.remove(&of_ended(table))) {
            of_live.insert(table.to_owned(), all.wrapping_sub(ended));
        }
        found.insert(table.to_owned(), sum(db, table, &rows_of_live(table, key))?);
    }
    for table in SMALL {
        of_live.extend(kept.remove_entry(table));
        found.insert(table.to_owned(), sum(db, table, &format!("SELECT * FROM main.{table}"))?);
    }
    of_live.extend(kept.remove_entry(SCHEMA));
    found.insert(SCHEMA.to_owned(), sum(db, SCHEMA, DEFINITIONS)?);
    Ok(Some(compare(of_live, found)))
}

fn compare(mut kept: BTreeMap<String, i64>, found: BTreeMap<String, i64>) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, sum) in found {
        if kept.remove(&name) != Some(sum) {
            differences.push(format!("the content of {name} was changed by another program"));
        }
    }
    differences.extend(kept.keys().map(|name| format!("there is a checksum, but no table {name}")));
    differences
}

/// The sums in the ledger; `None` without any.
fn kept(db: &Connection) -> Result<Option<BTreeMap<String, i64>>, LedgerError> {
    let mut statement = db.prepare("SELECT name, sum FROM sums")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let kept: BTreeMap<String, i64> = rows.collect::<Result<_, _>>()?;
    Ok((!kept.is_empty()).then_some(kept))
}

const DEFINITIONS: &str = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema";

fn found(db: &Connection, schema: i64) -> Result<BTreeMap<String, i64>, LedgerError> {
    let mut sums = BTreeMap::new();
    for table in tables(db)? {
        sums.insert(table.clone(), sum(db, &table, &format!("SELECT * FROM main.{table}"))?);
    }
    if schema >= schema::ENDED_APART {
        for (table, key) in OF_SESSIONS {
            let of_ended_rows = format!(
                "SELECT * FROM main.{table} WHERE {key} IN (
                     SELECT number FROM main.sessions WHERE ended IS NOT NULL)"
            );
            sums.insert(of_ended(table), sum(db, table, &of_ended_rows)?);
        }
    }
    sums.insert(SCHEMA.to_owned(), sum(db, SCHEMA, DEFINITIONS)?);
    Ok(sums)
}

fn sum(db: &Connection, table: &str, sql: &str) -> Result<i64, LedgerError> {
    let mut statement = db.prepare(sql)?;
    let rows = statement.query([])?;
    sum_rows(rows, table)
}

fn sum_rows(mut rows: Rows<'_>, table: &str) -> Result<i64, LedgerError> {
    let width = rows.as_ref().map_or(0, |statement| statement.column_count());
    let mut sum = 0i64;
    while let Some(row) = rows.next()? {
        let mut hash = RowHash::new(table.as_bytes());
        for column in 0..width {
            hash.value(row.get_ref(column)?);
        }
        sum = sum.wrapping_add(hash.end());
    }
    Ok(sum)
}

/// [`FUNCTION`].
fn add(context: &Context<'_>) -> rusqlite::Result<i64> {
    let (sum, sign): (i64, i64) = (context.get(0)?, context.get(1)?);
    let mut hash = RowHash::new(context.get_raw(2).as_bytes().unwrap_or_default());
    for value in 3..context.len() {
        hash.value(context.get_raw(value));
    }
    Ok(sum.wrapping_add(hash.end().wrapping_mul(sign)))
}

/// A hash over a row's values, with their kinds and lengths. It is to find accidents, not intent,
/// and is made ten thousand times a second. Each step is reversible, so that one altered value
/// always shows.
struct RowHash(u64);

impl RowHash {
    fn new(table: &[u8]) -> Self {
        let mut hash = Self(0);
        hash.bytes(0, table);
        hash
    }

    fn value(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.step(1),
            ValueRef::Integer(number) => {
                self.step(2);
                self.step(number.cast_unsigned());
            }
            ValueRef::Real(number) => {
                self.step(3);
                self.step(number.to_bits());
            }
            ValueRef::Text(text) => self.bytes(4, text),
            ValueRef::Blob(blob) => self.bytes(5, blob),
        }
    }

    fn bytes(&mut self, kind: u64, bytes: &[u8]) {
        self.step(kind);
        self.step(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.step(u64::from_le_bytes(*word));
        }
        self.step(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }

    fn step(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = (mixed ^ (mixed >> 32)).wrapping_add(1);
    }

    fn end(&self) -> i64 {
        self.0.cast_signed()
    }
}

fn tables(db: &Connection) -> Result<Vec<String>, LedgerError> {
    let mut statement = db.prepare(
        "SELECT name FROM main.sqlite_schema
         WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> 'sums'",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

fn columns(db: &Connection, table: &str) -> Result<Vec<String>, LedgerError> {
    let mut statement = db.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
