//! Every statement that runs while the ledger is locked. They are here together so that a test can
//! ask for the plan of each: none may go through a table that grows with what was used, or with the
//! sessions that there ever were.

/// The columns of the counters, in the order of [`weir_common::account::Counters::NAMES`].
macro_rules! counters {
    () => {
        "bytes_up, packets_up, bytes_down, packets_down, handshake_bytes_up, \
         handshake_bytes_down, last_handshake, seen_datagrams, seen_bytes, dropped_datagrams, \
         dropped_bytes, newest_initiation"
    };
}

macro_rules! statements {
    ($($(#[$about:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$about])* pub(crate) const $name: &str = $sql;)*

        /// All of them, by name.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// What each ended session has used: the check asks, without the lock.
pub(crate) const USED_BY_ENDED: &str = concat!(
    "SELECT ",
    counters!(),
    " FROM sessions JOIN counters ON session = number WHERE ended IS NOT NULL"
);

statements! {
    // Sessions. `INDEXED BY` holds the planner to the live ones.
    LIVE = concat!(
        "SELECT number, id, slot, name, public_key, created, state, ", counters!(), "
         FROM sessions INDEXED BY live_slot CROSS JOIN counters ON session = number
         WHERE ended IS NULL ORDER BY number"
    );
    EXTRAS = "SELECT id, credit.bytes, credit.seconds, pause_reason, counters.seconds, last_activity
         FROM sessions INDEXED BY live_slot CROSS JOIN counters ON counters.session = number
             LEFT JOIN credit ON credit.session = number
         WHERE ended IS NULL";
    AGREEMENTS = "SELECT id, agreement, consumer, per_gib, per_hour, unpaid_bytes, unpaid_seconds,
             paid, paid_bytes, paid_seconds, counters.seconds
         FROM sessions INDEXED BY live_slot CROSS JOIN agreements ON agreements.session = number
             CROSS JOIN counters ON counters.session = number
         WHERE ended IS NULL";
    RATES = "SELECT id, up, down
         FROM sessions INDEXED BY live_slot CROSS JOIN rates ON session = number
         WHERE ended IS NULL";
    /// From one slot to the next by the index, however many sessions each has had.
    FREED_SLOTS = "WITH RECURSIVE used (slot) AS (
             SELECT min(slot) FROM sessions
             UNION ALL
             SELECT (SELECT min(slot) FROM sessions WHERE slot > used.slot) FROM used
             WHERE slot IS NOT NULL
         )
         SELECT slot FROM used
         WHERE slot IS NOT NULL AND NOT EXISTS (
             SELECT 1 FROM sessions WHERE slot = used.slot AND ended IS NULL)
         ORDER BY
             (SELECT ended FROM sessions WHERE slot = used.slot ORDER BY ended DESC LIMIT 1),
             (SELECT number FROM sessions WHERE slot = used.slot
                 ORDER BY ended DESC, number DESC LIMIT 1)";
    ADD_SESSION = "INSERT INTO sessions (id, slot, name, public_key, created, state, pause_reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    ADD_COUNTERS = "INSERT INTO counters (session, updated, newest_initiation)
         VALUES (?1, ?2, ?3)";
    PUBLIC_KEY = "SELECT public_key FROM sessions WHERE number = ?1";
    /// Of the sessions that have ended and had the key.
    NEWEST_INITIATION = "SELECT newest FROM initiations WHERE key = ?1";
    /// The row moves to the end: it is the key of the session that ended last.
    SAVE_INITIATION = "INSERT OR REPLACE INTO initiations (key, newest, ended)
         VALUES (?1, ?2, ?3)";
    PRESHARED_KEYS = "SELECT id, key
         FROM sessions INDEXED BY live_slot CROSS JOIN preshared_keys ON session = number
         WHERE ended IS NULL";
    ADD_PRESHARED_KEY = "INSERT INTO preshared_keys (session, key) VALUES (?1, ?2)";
    DROP_PRESHARED_KEY = "DELETE FROM preshared_keys WHERE session = ?1";
    ADD_CREDIT = "INSERT INTO credit (session, bytes, seconds) VALUES (?1, ?2, ?3)";
    END_SESSION = "UPDATE sessions SET ended = max(created, ?2), end_reason = ?3, state = 'closed',
             pause_reason = NULL
         WHERE number = ?1";
    ADD_ENDED = "INSERT INTO ended_sessions (session, ended)
         SELECT number, ended FROM sessions WHERE number = ?1";
    SET_PAUSE = "UPDATE sessions SET state = ?2, pause_reason = ?3 WHERE number = ?1";

    // Counters.
    RAISE = "UPDATE counters SET updated = ?2, bytes_up = max(bytes_up, ?3),
             packets_up = max(packets_up, ?4), bytes_down = max(bytes_down, ?5),
             packets_down = max(packets_down, ?6), handshake_bytes_up = max(handshake_bytes_up, ?7),
             handshake_bytes_down = max(handshake_bytes_down, ?8),
             last_handshake = max(last_handshake, ?9), seen_datagrams = max(seen_datagrams, ?10),
             seen_bytes = max(seen_bytes, ?11), dropped_datagrams = max(dropped_datagrams, ?12),
             dropped_bytes = max(dropped_bytes, ?13),
             newest_initiation = max(newest_initiation, ?14)
         WHERE session = ?1";
    SAVE_SECONDS = "UPDATE counters SET seconds = ?2 WHERE session = ?1 AND seconds < ?2";
    COUNTERS = concat!("SELECT ", counters!(), " FROM counters WHERE session = ?1");
    /// As many as there are: sessions are numbered one by one, and those that were swept are
    /// counted.
    COUNTERS_ROWS = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'sessions'), 0)
         - (SELECT sessions FROM swept_totals WHERE one = 1)";
    ENDED_TOTALS = concat!("SELECT ", counters!(), " FROM ended_totals WHERE one = 1");
    SET_ENDED_TOTALS = concat!(
        "UPDATE ended_totals SET (", counters!(), ")
             = (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) WHERE one = 1"
    );
    SWEPT_TOTALS = concat!("SELECT ", counters!(), " FROM swept_totals WHERE one = 1");
    SET_SWEPT_TOTALS = concat!(
        "UPDATE swept_totals SET sessions = sessions + ?13, (", counters!(), ")
             = (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) WHERE one = 1"
    );

    // The end of sessions' rows. `place > 0` has the planner begin at the first.
    OLDEST_ENDED = "SELECT place, session, ended,
             (SELECT cursor FROM records WHERE records.session = ended_sessions.session
              ORDER BY sequence DESC LIMIT 1)
         FROM ended_sessions WHERE place > 0 ORDER BY place LIMIT ?1";
    /// What a clock stamped that was ahead counts from now on.
    RESTAMP_ENDED = "UPDATE ended_sessions SET ended = ?1 WHERE place IN (
             SELECT place FROM ended_sessions WHERE ended > ?1 LIMIT ?2)";
    SWEEP_PAYMENTS = "DELETE FROM payments WHERE session = ?1 AND reference IN (
             SELECT reference FROM payments WHERE session = ?1 LIMIT ?2) RETURNING *";
    SWEEP_RECORDS = "DELETE FROM records WHERE cursor IN (
             SELECT cursor FROM records WHERE session = ?1 LIMIT ?2)";
    SWEEP_CREDIT = "DELETE FROM credit WHERE session = ?1 RETURNING *";
    SWEEP_RATES = "DELETE FROM rates WHERE session = ?1 RETURNING *";
    SWEEP_AGREEMENT = "DELETE FROM agreements WHERE session = ?1 RETURNING *";
    SWEEP_COUNTERS = "DELETE FROM counters WHERE session = ?1 RETURNING *";
    SWEEP_ENDED = "DELETE FROM ended_sessions WHERE place = ?1";
    SWEEP_SESSION = "DELETE FROM sessions WHERE number = ?1 RETURNING *";
    RESTAMP_INITIATIONS = "UPDATE initiations SET ended = ?1 WHERE place IN (
             SELECT place FROM initiations WHERE ended > ?1 LIMIT ?2)";
    DROP_OLD_INITIATIONS = "DELETE FROM initiations WHERE place IN (
             SELECT place FROM initiations WHERE ended < ?1 ORDER BY ended LIMIT ?2)";
    DROP_INITIATIONS_BEYOND = "DELETE FROM initiations WHERE place IN (
             SELECT place FROM initiations
             WHERE place <= (SELECT max(place) FROM initiations) - ?1 ORDER BY place LIMIT ?2)";

    // Credit.
    PAYMENT = "SELECT bytes, seconds FROM payments WHERE session = ?1 AND reference = ?2";
    ADD_PAYMENT = "INSERT INTO payments (session, reference, bytes, seconds, made)
         VALUES (?1, ?2, ?3, ?4, ?5)";
    CREDIT = "SELECT bytes, seconds FROM credit WHERE session = ?1";
    SET_CREDIT = "INSERT OR REPLACE INTO credit (session, bytes, seconds) VALUES (?1, ?2, ?3)";

    // Usage records.
    RECORDS_AFTER = "SELECT cursor, id, name, public_key, sequence, bytes_up, packets_up,
             bytes_down, packets_down, seconds, created, last_activity, records.end_reason, signer,
             signature
         FROM records JOIN sessions ON session = number
         WHERE cursor > ?1 ORDER BY cursor LIMIT ?2";
    LAST_RECORD = "SELECT cursor, id, name, public_key, sequence, bytes_up, packets_up, bytes_down,
             packets_down, seconds, created, last_activity, records.end_reason, signer, signature
         FROM records JOIN sessions ON session = number
         WHERE session = ?1 ORDER BY sequence DESC LIMIT 1";
    /// Of the records that there are, or that are gone.
    LAST_CURSOR = "SELECT max(coalesce((SELECT max(cursor) FROM records), 0),
             (SELECT swept FROM retention WHERE one = 1))";
    NEXT_SEQUENCE = "UPDATE counters SET sequence = sequence + 1, seconds = max(seconds, ?2),
             last_activity = max(last_activity, ?3)
         WHERE session = ?1";
    RECORD_OF = "SELECT 0, id, name, public_key, sequence, bytes_up, packets_up, bytes_down,
             packets_down, seconds, created, max(last_activity, created), ?2, '', ''
         FROM sessions JOIN counters ON session = number WHERE number = ?1";
    ADD_RECORD = "INSERT INTO records (session, sequence, bytes_up, packets_up, bytes_down,
             packets_down, seconds, last_activity, end_reason, signer, signature, made)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    /// One that was kept as its session's last, and is no longer.
    DROP_FORMER_LAST = "DELETE FROM records WHERE session = ?1 AND sequence = ?2
             AND cursor <= (SELECT swept FROM retention WHERE one = 1)";
    SWEPT = "SELECT swept FROM retention WHERE one = 1";
    SET_SWEPT = "UPDATE retention SET swept = ?1 WHERE one = 1";
    OLDEST_RECORDS = "SELECT cursor, made, records.sequence = counters.sequence
         FROM records CROSS JOIN counters USING (session)
         WHERE cursor > ?1 ORDER BY cursor LIMIT ?2";
    NEXT_MADE_BEFORE = "SELECT cursor, made FROM records WHERE cursor > ?1 AND made <= ?2
         ORDER BY cursor LIMIT 1";
    DROP_RECORD = "DELETE FROM records WHERE cursor = ?1";
    DELIVERED = "SELECT cursor FROM deliveries WHERE sink = ?1";
    SET_DELIVERED = "INSERT INTO deliveries (sink, cursor) VALUES (?1, ?2)
         ON CONFLICT (sink) DO UPDATE SET cursor = max(cursor, excluded.cursor)";

    // Agreements, invoices and promises.
    AGREE = "INSERT INTO agreements (session, agreement, consumer, per_gib, per_hour, unpaid_bytes,
             unpaid_seconds, paid, paid_bytes, paid_seconds)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    SET_PAID = "UPDATE agreements SET paid = ?2, paid_bytes = ?3, paid_seconds = ?4
         WHERE session = ?1";
    ADD_INVOICE = "INSERT INTO invoices (hashlock, session, total, preimage, made, bytes, seconds)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    INVOICE = "SELECT hashlock, total, bytes, seconds FROM invoices
         WHERE hashlock = ?2 AND session = ?1";
    /// The longer text is the higher amount.
    HIGHEST_INVOICE = "SELECT hashlock, total, bytes, seconds FROM invoices WHERE session = ?1
         ORDER BY length(total) DESC, total DESC LIMIT 1";
    SET_INVOICE_PAID = "UPDATE invoices SET paid = ?2 WHERE hashlock = ?1";
    /// All but the newest ?2 that are not paid, and what a channel needs.
    DROP_OLD_INVOICES = "DELETE FROM invoices WHERE session = ?1 AND hashlock IN (
             SELECT hashlock FROM invoices WHERE session = ?1 AND paid IS NULL
             ORDER BY made DESC, length(total) DESC, total DESC LIMIT -1 OFFSET ?2)
         AND NOT EXISTS (SELECT 1 FROM channels WHERE channels.hashlock = invoices.hashlock)";
    /// Those up to what is paid: with these nothing is ever settled.
    DROP_PAID_INVOICES = "DELETE FROM invoices WHERE session = ?1
         AND (length(total) < length(?2) OR length(total) = length(?2) AND total <= ?2)
         AND NOT EXISTS (SELECT 1 FROM channels WHERE channels.hashlock = invoices.hashlock)";
    DROP_INVOICES = "DELETE FROM invoices WHERE session = ?1";
    PROMISED = "SELECT amount FROM channels WHERE channel = ?1";
    /// With the invoice's preimage, so that the promise needs no other row to be settled.
    SET_PROMISE = "INSERT INTO channels (channel, amount, hashlock, message, updated, preimage)
         VALUES (?1, ?2, ?3, ?4, ?5, (SELECT preimage FROM invoices WHERE hashlock = ?3))
         ON CONFLICT (channel) DO UPDATE SET amount = excluded.amount,
             hashlock = excluded.hashlock, message = excluded.message,
             updated = excluded.updated, preimage = excluded.preimage";
    INCOME = "SELECT promised FROM income WHERE one = 1";
    SET_INCOME = "INSERT OR REPLACE INTO income (one, promised) VALUES (1, ?1)";

    // Blocks of external ports. A clock may have been set back since a block was taken.
    CLOSE_HELD_BLOCK = "UPDATE port_blocks SET until = max(since, ?3), released = max(since, ?3)
         WHERE address = ?1 AND first = ?2 AND until IS NULL";
    ADD_BLOCK = "INSERT INTO port_blocks (session, address, first, length, since, until, released)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)";
    RELEASE_BLOCK = "UPDATE port_blocks SET until = max(since, ?4), released = max(since, ?4)
         WHERE address = ?1 AND first = ?2 AND until IS NULL AND session = ?3";
    RELEASE_BLOCKS_OF = "UPDATE port_blocks SET until = max(since, ?2), released = max(since, ?2)
         WHERE until IS NULL AND session = (SELECT id FROM sessions WHERE number = ?1)";
    HELD_BLOCKS = "SELECT session, address, first, length, since, until
         FROM port_blocks INDEXED BY held_port_blocks WHERE until IS NULL ORDER BY address, first";
    /// ?4 to ?20 are the ports at which a block with the port can begin.
    BLOCK_OWNERS = "SELECT session, address, first, length, since, until
         FROM port_blocks INDEXED BY port_blocks_by_port
         WHERE address = ?1
             AND first IN (?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                 ?19, ?20)
             AND since <= ?3 AND first + length > ?2 AND (until IS NULL OR until >= ?3)
         ORDER BY place";
    RESTAMP_BLOCKS = "UPDATE port_blocks SET released = ?1 WHERE place IN (
             SELECT place FROM port_blocks WHERE released > ?1 LIMIT ?2)";
    DROP_OLD_BLOCKS = "DELETE FROM port_blocks WHERE place IN (
             SELECT place FROM port_blocks WHERE released < ?1 ORDER BY released LIMIT ?2)";
    DROP_BLOCKS_BEYOND = "DELETE FROM port_blocks WHERE until IS NOT NULL AND place IN (
             SELECT place FROM port_blocks
             WHERE place <= (SELECT max(place) FROM port_blocks) - ?1
                 AND until IS NOT NULL ORDER BY place LIMIT ?2)";

    // Vouchers.
    VOUCHER_BATCH = "SELECT number, bytes, seconds, expires, revoked FROM voucher_batches
         WHERE name = ?1";
    ADD_VOUCHER_BATCH = "INSERT INTO voucher_batches (name, bytes, seconds, made, expires)
         VALUES (?1, ?2, ?3, ?4, ?5)";
    COUNT_VOUCHERS = "UPDATE voucher_batches SET vouchers = vouchers + ?2 WHERE number = ?1";
    ADD_VOUCHER = "INSERT INTO vouchers (code, batch) VALUES (?1, ?2)";
    VOUCHER = "SELECT batch, vouchers.used, vouchers.revoked, session, bytes, seconds, expires,
             voucher_batches.revoked
         FROM vouchers JOIN voucher_batches ON batch = number WHERE code = ?1";
    USE_VOUCHER = "UPDATE vouchers SET used = ?2, session = ?3 WHERE code = ?1";
    COUNT_USED_VOUCHER = "UPDATE voucher_batches SET used = used + 1 WHERE number = ?1";
    REVOKE_VOUCHER = "UPDATE vouchers SET revoked = ?2
         WHERE code = ?1 AND used IS NULL AND revoked IS NULL";
    REVOKE_VOUCHER_BATCH = "UPDATE voucher_batches SET revoked = ?2
         WHERE name = ?1 AND revoked IS NULL";
    VOUCHER_BATCHES = "SELECT number, name, bytes, seconds, made, expires, vouchers, used, revoked
         FROM voucher_batches WHERE number > ?1 ORDER BY number LIMIT ?2";
    /// A session that has ended leaves no trace at what it was paid with.
    FORGET_VOUCHERS_OF = "UPDATE vouchers SET session = NULL
         WHERE session = (SELECT id FROM sessions WHERE number = ?1)";

    // Ecash.
    ADD_MINT = "INSERT INTO ecash_mints (url, unit) VALUES (?1, ?2) ON CONFLICT (url) DO NOTHING";
    MINT = "SELECT number, unredeemed FROM ecash_mints WHERE url = ?1";
    MINTS = "SELECT url, unit, received, unredeemed, redeemed, fees, lost, withdrawn
         FROM ecash_mints WHERE number > 0 ORDER BY number";
    SET_KEYSET = "INSERT OR REPLACE INTO ecash_keysets (mint, id, content) VALUES (?1, ?2, ?3)";
    DROP_KEYSETS = "DELETE FROM ecash_keysets WHERE mint = ?1";
    KEYSETS = "SELECT content FROM ecash_keysets WHERE mint = ?1 ORDER BY id";
    TOKEN = "SELECT session, credited FROM ecash_tokens WHERE hash = ?1";
    ADD_TOKEN = "INSERT INTO ecash_tokens (hash, mint, session, amount, bytes, made, credited)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    PROOF_KNOWN = "SELECT 1 FROM ecash_proofs WHERE y = ?1";
    ADD_PROOF = "INSERT INTO ecash_proofs (y, token, mint, amount, proof)
         VALUES (?1, ?2, ?3, ?4, ?5)";
    RECEIVE = "UPDATE ecash_mints SET received = received + ?2, unredeemed = unredeemed + ?2
         WHERE number = ?1";
    /// Held proofs of one mint that no swap has, those that came first first.
    HELD_PROOFS = "SELECT y, token, ecash_proofs.amount, proof, alone
         FROM ecash_proofs INDEXED BY ecash_proofs_held CROSS JOIN ecash_tokens ON number = token
         WHERE ecash_proofs.mint = ?1 AND proof IS NOT NULL AND swap IS NULL
         ORDER BY token LIMIT ?2";
    HELD_PROOFS_OF = "SELECT y, token, amount, proof, 1
         FROM ecash_proofs INDEXED BY ecash_proofs_open
         WHERE token = ?1 AND proof IS NOT NULL AND swap IS NULL";
    ADD_SWAP = "INSERT INTO ecash_swaps (mint, outputs, made) VALUES (?1, ?2, ?3)";
    JOIN_SWAP = "UPDATE ecash_proofs SET swap = ?2 WHERE y = ?1 AND swap IS NULL
         AND proof IS NOT NULL";
    SWAPS = "SELECT number, outputs FROM ecash_swaps WHERE mint = ?1 ORDER BY number LIMIT ?2";
    SWAP_PROOFS = "SELECT y, token, amount, proof, 0 FROM ecash_proofs WHERE swap = ?1";
    SWAP_TOTAL = "SELECT mint, coalesce((SELECT sum(amount) FROM ecash_proofs WHERE swap = ?1), 0)
         FROM ecash_swaps WHERE number = ?1";
    SWAP_TOKENS = "SELECT count(DISTINCT token) FROM ecash_proofs WHERE swap = ?1";
    REDEEM_PROOFS = "UPDATE ecash_proofs SET proof = NULL, swap = NULL WHERE swap = ?1";
    RELEASE_PROOFS = "UPDATE ecash_proofs SET swap = NULL WHERE swap = ?1";
    SET_ALONE = "UPDATE ecash_tokens SET alone = 1
         WHERE number IN (SELECT token FROM ecash_proofs WHERE swap = ?1)";
    LOSE_PROOF = "UPDATE ecash_proofs SET proof = NULL, swap = NULL
         WHERE y = ?1 AND swap = ?2 RETURNING amount";
    LOSE = "UPDATE ecash_mints SET unredeemed = unredeemed - ?2, lost = lost + ?2
         WHERE number = ?1";
    DROP_SWAP = "DELETE FROM ecash_swaps WHERE number = ?1";
    ADD_TO_PURSE = "INSERT INTO ecash_purse (mint, amount, proof) VALUES (?1, ?2, ?3)";
    REDEEM = "UPDATE ecash_mints SET unredeemed = unredeemed - ?2, redeemed = redeemed + ?3,
             fees = fees + (?2 - ?3)
         WHERE number = ?1";
    /// Those that were exchanged at the mint first, and are not credited yet.
    UNCREDITED_TOKENS = "SELECT number, session, bytes FROM ecash_tokens
             INDEXED BY ecash_tokens_uncredited
         WHERE mint = ?1 AND credited IS NULL AND NOT EXISTS (
             SELECT 1 FROM ecash_proofs INDEXED BY ecash_proofs_open
             WHERE token = number AND proof IS NOT NULL)
         LIMIT ?2";
    HELD_TOKENS = "SELECT count(*) FROM ecash_tokens INDEXED BY ecash_tokens_uncredited
         WHERE mint = ?1 AND credited IS NULL";
    UNCREDITED_TOKEN = "SELECT hash, bytes FROM ecash_tokens
         WHERE number = ?1 AND credited IS NULL";
    SET_CREDITED = "UPDATE ecash_tokens SET credited = ?2 WHERE number = ?1";
    DROP_PROOFS_OF = "DELETE FROM ecash_proofs WHERE y IN (
             SELECT y FROM ecash_proofs INDEXED BY ecash_proofs_open
             WHERE token = ?1 AND proof IS NOT NULL)";
    DROP_TOKEN = "DELETE FROM ecash_tokens WHERE number = ?1";
    RETURN_RECEIVED = "UPDATE ecash_mints SET received = received - ?2,
             unredeemed = unredeemed - ?2
         WHERE number = ?1";
    FORGET_TOKENS_OF = "UPDATE ecash_tokens SET session = NULL
         WHERE credited IS NOT NULL
             AND session = (SELECT id FROM sessions WHERE number = ?1)";
    PURSE = "SELECT number, amount, proof FROM ecash_purse WHERE mint = ?1
         ORDER BY number LIMIT ?2";
    DROP_FROM_PURSE = "DELETE FROM ecash_purse WHERE number = ?1";
    ADD_WITHDRAWAL = "INSERT INTO ecash_withdrawals (mint, amount, token, made)
         VALUES (?1, ?2, ?3, ?4)";
    WITHDRAW = "UPDATE ecash_mints SET withdrawn = withdrawn + ?2 WHERE number = ?1";
    WITHDRAWALS = "SELECT ecash_withdrawals.number, url, amount, token, made
         FROM ecash_withdrawals JOIN ecash_mints ON ecash_mints.number = mint
         WHERE ecash_withdrawals.number > ?1 ORDER BY ecash_withdrawals.number LIMIT ?2";
    CONFIRM_WITHDRAWAL = "DELETE FROM ecash_withdrawals WHERE number = ?1";

    // Limits.
    SET_RATES = "INSERT OR REPLACE INTO rates (session, up, down) VALUES (?1, ?2, ?3)";
    QUOTA = "SELECT started, total, other_started, other_total FROM quotas WHERE period = ?1";
    SET_QUOTA = "INSERT OR REPLACE INTO quotas (period, started, total, other_started,
             other_total)
         VALUES (?1, ?2, ?3, ?4, ?5)";

    // Sums: a row for each table.
    SUM = "SELECT sum FROM sums WHERE name = ?1";
    SET_SUM = "UPDATE sums SET sum = ?2 WHERE name = ?1";
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::{Ledger, integrity};
    use weir_common::account::Counters;

    /// What a plan may go through: a row for each live session or each block that one holds, the
    /// slots as they are found one by one, and what has one row, or one for each table.
    const BOUNDED: &[&str] = &[
        "SCAN sessions USING INDEX live_slot",
        "SCAN sessions USING COVERING INDEX live_slot",
        "SCAN used",
        "SCAN sqlite_sequence",
        "SCAN port_blocks USING INDEX held_port_blocks",
        "SCAN CONSTANT ROW",
    ];

    fn plan(db: &Connection, sql: &str) -> Vec<String> {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
        // Each is planned with what is bound to it: here, nothing.
        let rows = statement.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>();
        rows.expect("a plan")
    }

    #[test]
    fn no_statement_under_the_lock_goes_through_what_grows() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::open(&folder.path().join("ledger.db")).expect("opened");
        let of_live = integrity::live_statements();
        let of_live = of_live.iter().map(|sql| ("live rows", sql.as_str()));
        let mut steps = 0;
        for (name, sql) in ALL.iter().copied().chain(of_live) {
            for step in plan(&ledger.db, sql) {
                steps += 1;
                let scans = step.starts_with("SCAN") && !BOUNDED.contains(&step.as_str());
                assert!(!scans, "{name}: {step}");
            }
        }
        assert!(steps > ALL.len() / 2, "{steps} steps of {} statements", ALL.len());
    }

    #[test]
    fn a_scan_would_be_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::open(&folder.path().join("ledger.db")).expect("opened");
        // As an earlier weir looked for an invoice.
        let sql = "SELECT hashlock, total FROM invoices WHERE session + 0 = ?1
             ORDER BY hashlock = ?2 DESC, length(total) DESC LIMIT 1";
        let steps = plan(&ledger.db, sql);
        assert!(steps.iter().any(|step| step == "SCAN invoices"), "{steps:?}");
    }

    /// Statements elsewhere would have no plan that a test has seen. `check.rs` reads a ledger
    /// without its lock; `schema.rs` and `integrity.rs` go through all of it, once.
    #[test]
    fn statements_are_nowhere_else() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let files: Vec<_> = std::fs::read_dir(folder)
            .expect("there")
            .map(|file| file.expect("it").path())
            .collect();
        let mut seen = 0;
        for file in files.iter().filter(|file| file.is_file()) {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if ["sql.rs", "tests.rs", "testing.rs", "check.rs", "schema.rs", "integrity.rs"]
                .contains(&name)
            {
                continue;
            }
            let text = std::fs::read_to_string(file).expect("read");
            for verb in ["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE ", "\"WITH "] {
                assert!(!text.contains(verb), "{name} has a statement of its own: {verb}");
            }
            seen += 1;
        }
        assert!(seen >= 8, "{seen} files");
    }

    /// The schema, and the statements that name every counter, agree with the list of counters.
    #[test]
    fn every_counter_has_its_columns() {
        let names = Counters::NAMES;
        assert_eq!(counters!(), names.join(", "));
        let one_line = |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let each = names.iter().enumerate();
        let raised: Vec<_> = each.map(|(i, it)| format!("{it} = max({it}, ?{})", i + 3)).collect();
        assert_eq!(
            one_line(RAISE),
            format!("UPDATE counters SET updated = ?2, {} WHERE session = ?1", raised.join(", "))
        );
        let values: Vec<_> = (1..=Counters::COUNT).map(|number| format!("?{number}")).collect();
        assert!(one_line(SET_ENDED_TOTALS).contains(&format!("= ({}) WHERE", values.join(", "))));
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::open(&folder.path().join("ledger.db")).expect("opened");
        for table in ["counters", "ended_totals"] {
            let sql = format!("SELECT name FROM pragma_table_info('{table}')");
            let mut statement = ledger.db.prepare(&sql).expect("a statement");
            let columns = statement.query_map([], |row| row.get(0)).expect("rows");
            let columns: Vec<String> = columns.collect::<Result<_, _>>().expect("names");
            let missing: Vec<_> =
                names.iter().filter(|name| !columns.iter().any(|it| it == *name)).collect();
            assert!(missing.is_empty(), "{table} has no {missing:?}");
        }
    }
}
