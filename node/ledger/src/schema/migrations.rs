//! The steps from each schema to the next.

/// Each entry takes the ledger from the schema of its index to the next. Entries are added, never
/// altered: ledgers that they made are out there.
pub(super) const MIGRATIONS: &[&str] = &[
    // Who, and what was used, are apart: the second is rewritten each second, the first never.
    "CREATE TABLE sessions (
         number     INTEGER PRIMARY KEY AUTOINCREMENT,
         id         TEXT NOT NULL UNIQUE,
         slot       INTEGER NOT NULL CHECK (slot BETWEEN 0 AND 16777215),
         name       TEXT,
         public_key TEXT NOT NULL,
         created    INTEGER NOT NULL,
         state      TEXT NOT NULL CHECK (state IN ('open', 'paused', 'closed')),
         ended      INTEGER,
         end_reason TEXT,
         CHECK ((ended IS NULL) = (end_reason IS NULL))
     ) STRICT;
     CREATE INDEX sessions_by_slot ON sessions (slot, ended);
     CREATE UNIQUE INDEX live_slot ON sessions (slot) WHERE ended IS NULL;
     CREATE UNIQUE INDEX live_public_key ON sessions (public_key) WHERE ended IS NULL;
     CREATE UNIQUE INDEX live_name ON sessions (name) WHERE ended IS NULL AND name IS NOT NULL;

     CREATE TABLE counters (
         session              INTEGER PRIMARY KEY REFERENCES sessions (number),
         updated              INTEGER NOT NULL,
         bytes_up             INTEGER NOT NULL DEFAULT 0,
         packets_up           INTEGER NOT NULL DEFAULT 0,
         bytes_down           INTEGER NOT NULL DEFAULT 0,
         packets_down         INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_up   INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_down INTEGER NOT NULL DEFAULT 0,
         last_handshake       INTEGER NOT NULL DEFAULT 0,
         seen_datagrams       INTEGER NOT NULL DEFAULT 0,
         seen_bytes           INTEGER NOT NULL DEFAULT 0,
         dropped_datagrams    INTEGER NOT NULL DEFAULT 0,
         dropped_bytes        INTEGER NOT NULL DEFAULT 0
     ) STRICT;

     CREATE TABLE ended_totals (
         one                  INTEGER PRIMARY KEY CHECK (one = 1),
         bytes_up             INTEGER NOT NULL DEFAULT 0,
         packets_up           INTEGER NOT NULL DEFAULT 0,
         bytes_down           INTEGER NOT NULL DEFAULT 0,
         packets_down         INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_up   INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_down INTEGER NOT NULL DEFAULT 0,
         last_handshake       INTEGER NOT NULL DEFAULT 0,
         seen_datagrams       INTEGER NOT NULL DEFAULT 0,
         seen_bytes           INTEGER NOT NULL DEFAULT 0,
         dropped_datagrams    INTEGER NOT NULL DEFAULT 0,
         dropped_bytes        INTEGER NOT NULL DEFAULT 0
     ) STRICT;
     INSERT INTO ended_totals (one) VALUES (1);

     CREATE VIEW usage AS
         SELECT id, name, slot, state, bytes_up, bytes_down, packets_up, packets_down,
                datetime(created, 'unixepoch') AS created_utc,
                datetime(nullif(last_handshake, 0), 'unixepoch') AS last_handshake_utc,
                datetime(updated, 'unixepoch') AS updated_utc,
                datetime(ended, 'unixepoch') AS ended_utc,
                end_reason
         FROM sessions JOIN counters ON session = number;",
    // Amounts of money are decimal text: they have up to 256 bits. The longer one is the higher.
    "ALTER TABLE sessions ADD COLUMN pause_reason TEXT
         CHECK (pause_reason IN ('operator', 'credit'));
     ALTER TABLE counters ADD COLUMN seconds INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE counters ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE counters ADD COLUMN last_activity INTEGER NOT NULL DEFAULT 0;

     CREATE TABLE credit (
         session INTEGER PRIMARY KEY REFERENCES sessions (number),
         bytes   INTEGER CHECK (bytes >= 0),
         seconds INTEGER CHECK (seconds >= 0)
     ) STRICT;
     CREATE TABLE payments (
         session   INTEGER NOT NULL REFERENCES sessions (number),
         reference TEXT NOT NULL,
         bytes     INTEGER NOT NULL,
         seconds   INTEGER NOT NULL,
         made      INTEGER NOT NULL,
         PRIMARY KEY (session, reference)
     ) STRICT, WITHOUT ROWID;

     CREATE TABLE records (
         cursor        INTEGER PRIMARY KEY AUTOINCREMENT,
         session       INTEGER NOT NULL REFERENCES sessions (number),
         sequence      INTEGER NOT NULL,
         bytes_up      INTEGER NOT NULL,
         packets_up    INTEGER NOT NULL,
         bytes_down    INTEGER NOT NULL,
         packets_down  INTEGER NOT NULL,
         seconds       INTEGER NOT NULL,
         last_activity INTEGER NOT NULL,
         end_reason    TEXT,
         signer        TEXT NOT NULL,
         signature     TEXT NOT NULL,
         UNIQUE (session, sequence)
     ) STRICT;
     CREATE TRIGGER records_stay_as_they_are BEFORE UPDATE ON records
         BEGIN SELECT RAISE(ABORT, 'usage records are never altered'); END;
     CREATE TABLE deliveries (
         sink   TEXT PRIMARY KEY,
         cursor INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;

     CREATE TABLE agreements (
         session   INTEGER PRIMARY KEY REFERENCES sessions (number),
         agreement TEXT NOT NULL UNIQUE,
         consumer  TEXT NOT NULL,
         per_gib   TEXT NOT NULL,
         per_hour  TEXT NOT NULL,
         leeway    TEXT NOT NULL,
         paid      TEXT NOT NULL DEFAULT '0'
     ) STRICT;
     CREATE TABLE invoices (
         hashlock TEXT PRIMARY KEY,
         session  INTEGER NOT NULL REFERENCES agreements (session),
         total    TEXT NOT NULL,
         preimage TEXT NOT NULL,
         made     INTEGER NOT NULL,
         paid     INTEGER
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX open_invoices ON invoices (session) WHERE paid IS NULL;
     CREATE TABLE channels (
         channel  TEXT PRIMARY KEY,
         amount   TEXT NOT NULL,
         hashlock TEXT NOT NULL REFERENCES invoices (hashlock),
         message  TEXT NOT NULL,
         updated  INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TRIGGER promises_only_rise BEFORE UPDATE ON channels
         WHEN length(new.amount) < length(old.amount)
             OR length(new.amount) = length(old.amount) AND new.amount <= old.amount
         BEGIN SELECT RAISE(ABORT, 'a promise is only replaced by a higher one'); END;",
    // When a record was written, and the sums over each table.
    "ALTER TABLE records ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE sums (name TEXT PRIMARY KEY, sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
    // Bits per second; NULL is the node's default, 0 is no limit. A quota's count is the total of
    // all sessions less what that was when the period began.
    "CREATE TABLE rates (
         session INTEGER PRIMARY KEY REFERENCES sessions (number),
         up      INTEGER CHECK (up >= 0),
         down    INTEGER CHECK (down >= 0)
     ) STRICT;
     CREATE TABLE quotas (
         period  TEXT PRIMARY KEY CHECK (period IN ('day', 'month')),
         started INTEGER NOT NULL,
         total   INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;",
    // What may be unpaid is in bytes and in seconds. Invoices end: those that nothing is settled
    // with go, so that one has an index for each way in which it is looked up.
    "CREATE INDEX channels_by_hashlock ON channels (hashlock);
     DELETE FROM invoices WHERE hashlock NOT IN (SELECT hashlock FROM channels);
     DROP INDEX open_invoices;
     CREATE INDEX invoices_by_session ON invoices (session);
     ALTER TABLE invoices ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE invoices ADD COLUMN seconds INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE agreements DROP COLUMN leeway;
     ALTER TABLE agreements ADD COLUMN unpaid_bytes INTEGER NOT NULL DEFAULT 67108864;
     ALTER TABLE agreements ADD COLUMN unpaid_seconds INTEGER NOT NULL DEFAULT 300;
     ALTER TABLE agreements ADD COLUMN paid_bytes INTEGER;
     ALTER TABLE agreements ADD COLUMN paid_seconds INTEGER;

     CREATE TABLE income (
         one      INTEGER PRIMARY KEY CHECK (one = 1),
         promised TEXT NOT NULL
     ) STRICT;
     CREATE TABLE retention (
         one   INTEGER PRIMARY KEY CHECK (one = 1),
         swept INTEGER NOT NULL
     ) STRICT;
     INSERT INTO retention (one, swept) VALUES (1, 0);
     ALTER TABLE quotas ADD COLUMN other_started INTEGER;
     ALTER TABLE quotas ADD COLUMN other_total INTEGER;",
    // The newest initiation of each session, which one with the same key goes on from.
    "ALTER TABLE counters ADD COLUMN newest_initiation INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE ended_totals ADD COLUMN newest_initiation INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX sessions_by_public_key ON sessions (public_key);",
    // Ended sessions go, in the order in which they ended. What must outlive them has its own
    // place: what they have used together, the newest initiation of each key (by a hash of the
    // key), and the preimage of what each channel has promised.
    "CREATE TABLE ended_sessions (
         place   INTEGER PRIMARY KEY AUTOINCREMENT,
         session INTEGER NOT NULL UNIQUE REFERENCES sessions (number),
         ended   INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX ended_sessions_by_end ON ended_sessions (ended);
     INSERT INTO ended_sessions (session, ended)
         SELECT number, ended FROM sessions WHERE ended IS NOT NULL ORDER BY ended, number;
     CREATE TABLE swept_totals (
         one                  INTEGER PRIMARY KEY CHECK (one = 1),
         sessions             INTEGER NOT NULL DEFAULT 0,
         bytes_up             INTEGER NOT NULL DEFAULT 0,
         packets_up           INTEGER NOT NULL DEFAULT 0,
         bytes_down           INTEGER NOT NULL DEFAULT 0,
         packets_down         INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_up   INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_down INTEGER NOT NULL DEFAULT 0,
         last_handshake       INTEGER NOT NULL DEFAULT 0,
         seen_datagrams       INTEGER NOT NULL DEFAULT 0,
         seen_bytes           INTEGER NOT NULL DEFAULT 0,
         dropped_datagrams    INTEGER NOT NULL DEFAULT 0,
         dropped_bytes        INTEGER NOT NULL DEFAULT 0,
         newest_initiation    INTEGER NOT NULL DEFAULT 0
     ) STRICT;
     INSERT INTO swept_totals (one) VALUES (1);
     CREATE TABLE initiations (
         place  INTEGER PRIMARY KEY AUTOINCREMENT,
         key    BLOB NOT NULL UNIQUE,
         newest INTEGER NOT NULL,
         ended  INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX initiations_by_end ON initiations (ended);
     DROP INDEX sessions_by_public_key;

     CREATE TABLE promises (
         channel  TEXT PRIMARY KEY,
         amount   TEXT NOT NULL,
         hashlock TEXT NOT NULL,
         message  TEXT NOT NULL,
         updated  INTEGER NOT NULL,
         preimage TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     INSERT INTO promises (channel, amount, hashlock, message, updated, preimage)
         SELECT channel, amount, hashlock, message, updated, preimage
         FROM channels JOIN invoices USING (hashlock);
     DROP TABLE channels;
     ALTER TABLE promises RENAME TO channels;
     CREATE INDEX channels_by_hashlock ON channels (hashlock);
     CREATE TRIGGER promises_only_rise BEFORE UPDATE ON channels
         WHEN length(new.amount) < length(old.amount)
             OR length(new.amount) = length(old.amount) AND new.amount <= old.amount
         BEGIN SELECT RAISE(ABORT, 'a promise is only replaced by a higher one'); END;
     DELETE FROM invoices
         WHERE session IN (SELECT number FROM sessions WHERE ended IS NOT NULL);",
    // Which session had which block of external ports. It outlives the session's own rows, or they
    // it. How long a row is kept counts from `released`, which is `until` unless a clock was ahead.
    "CREATE TABLE port_blocks (
         place    INTEGER PRIMARY KEY AUTOINCREMENT,
         session  TEXT NOT NULL,
         address  TEXT NOT NULL,
         first    INTEGER NOT NULL CHECK (first BETWEEN 0 AND 65535),
         length   INTEGER NOT NULL CHECK (length BETWEEN 1 AND 65536),
         since    INTEGER NOT NULL,
         until    INTEGER CHECK (until >= since),
         released INTEGER,
         CHECK ((until IS NULL) = (released IS NULL))
     ) STRICT;
     CREATE UNIQUE INDEX held_port_blocks ON port_blocks (address, first) WHERE until IS NULL;
     CREATE INDEX port_blocks_by_holder ON port_blocks (session) WHERE until IS NULL;
     CREATE INDEX port_blocks_by_port ON port_blocks (address, first, since);
     CREATE INDEX port_blocks_by_release ON port_blocks (released) WHERE released IS NOT NULL;",
    // Only live sessions have rows here.
    "CREATE TABLE preshared_keys (
         session INTEGER PRIMARY KEY REFERENCES sessions (number),
         key     TEXT NOT NULL
     ) STRICT;",
    // Vouchers, by a hash of the code, and ecash: what came in, what it was exchanged for, and what
    // was taken out. A proof's `y` stays for ever, so that it is never taken twice. No table refers
    // to another with a constraint: to hold it, SQLite would go through the rows of either.
    "CREATE TABLE voucher_batches (
         number   INTEGER PRIMARY KEY AUTOINCREMENT,
         name     TEXT NOT NULL UNIQUE,
         bytes    INTEGER NOT NULL CHECK (bytes >= 0),
         seconds  INTEGER NOT NULL CHECK (seconds >= 0),
         made     INTEGER NOT NULL,
         expires  INTEGER,
         vouchers INTEGER NOT NULL DEFAULT 0,
         used     INTEGER NOT NULL DEFAULT 0,
         revoked  INTEGER
     ) STRICT;
     CREATE TABLE vouchers (
         code    BLOB PRIMARY KEY,
         batch   INTEGER NOT NULL,
         used    INTEGER,
         revoked INTEGER,
         session TEXT
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX vouchers_by_session ON vouchers (session) WHERE session IS NOT NULL;

     CREATE TABLE ecash_mints (
         number     INTEGER PRIMARY KEY,
         url        TEXT NOT NULL UNIQUE,
         unit       TEXT NOT NULL,
         received   INTEGER NOT NULL DEFAULT 0,
         unredeemed INTEGER NOT NULL DEFAULT 0 CHECK (unredeemed >= 0),
         redeemed   INTEGER NOT NULL DEFAULT 0,
         fees       INTEGER NOT NULL DEFAULT 0,
         lost       INTEGER NOT NULL DEFAULT 0,
         withdrawn  INTEGER NOT NULL DEFAULT 0
     ) STRICT;
     CREATE TABLE ecash_keysets (
         mint    INTEGER NOT NULL,
         id      TEXT NOT NULL,
         content TEXT NOT NULL,
         PRIMARY KEY (mint, id)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE ecash_tokens (
         number   INTEGER PRIMARY KEY AUTOINCREMENT,
         hash     BLOB NOT NULL UNIQUE,
         mint     INTEGER NOT NULL,
         session  TEXT,
         amount   INTEGER NOT NULL,
         bytes    INTEGER NOT NULL,
         made     INTEGER NOT NULL,
         credited INTEGER,
         alone    INTEGER NOT NULL DEFAULT 0
     ) STRICT;
     CREATE INDEX ecash_tokens_by_session ON ecash_tokens (session) WHERE session IS NOT NULL;
     CREATE INDEX ecash_tokens_uncredited ON ecash_tokens (mint, number) WHERE credited IS NULL;
     CREATE TABLE ecash_swaps (
         number  INTEGER PRIMARY KEY AUTOINCREMENT,
         mint    INTEGER NOT NULL,
         outputs TEXT NOT NULL,
         made    INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX ecash_swaps_by_mint ON ecash_swaps (mint, number);
     CREATE TABLE ecash_proofs (
         y      BLOB PRIMARY KEY,
         token  INTEGER NOT NULL,
         mint   INTEGER NOT NULL,
         amount INTEGER NOT NULL,
         proof  TEXT,
         swap   INTEGER
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX ecash_proofs_held ON ecash_proofs (mint, token)
         WHERE proof IS NOT NULL AND swap IS NULL;
     CREATE INDEX ecash_proofs_by_swap ON ecash_proofs (swap) WHERE swap IS NOT NULL;
     CREATE INDEX ecash_proofs_open ON ecash_proofs (token) WHERE proof IS NOT NULL;
     CREATE TABLE ecash_purse (
         number INTEGER PRIMARY KEY AUTOINCREMENT,
         mint   INTEGER NOT NULL,
         amount INTEGER NOT NULL,
         proof  TEXT NOT NULL
     ) STRICT;
     CREATE INDEX ecash_purse_by_mint ON ecash_purse (mint, number);
     CREATE TABLE ecash_withdrawals (
         number INTEGER PRIMARY KEY AUTOINCREMENT,
         mint   INTEGER NOT NULL,
         amount INTEGER NOT NULL,
         token  TEXT NOT NULL,
         made   INTEGER NOT NULL
     ) STRICT;",
];
