//! Ledgers for tests, and what only tests do to one.

use weir_common::{
    Slot,
    account::{Counters, SessionState},
};
use weir_wireguard::keys::PrivateKey;

use std::path::Path;

use crate::{Ledger, Session, SessionId, Usage, credit::Extra, retention, unix_now};

pub fn used(bytes: u64) -> Counters {
    Counters::from_array([bytes; Counters::COUNT])
}

/// Makes a ledger with so many prepaid sessions, and `ended` more that have ended, each with ten
/// usage records.
pub fn crowd(path: &Path, live: u32, ended: u32) {
    let mut ledger = Ledger::open(path).expect("opened");
    let keys: Vec<_> = (0..=u8::MAX).map(|_| PrivateKey::random().public()).collect();
    ledger.in_one_go(|ledger| {
        for number in 0..live + ended {
            // Only live sessions' slots and keys are their own.
            let mut session = Session { public_key: keys[0], ..like(number) };
            session.public_key.0[..4].copy_from_slice(&number.to_be_bytes());
            if number < ended {
                session.slot = Slot(number % 16);
            } else {
                session.slot = Slot(number - ended);
            }
            let credit = crate::Credit { bytes: Some(0), seconds: None };
            ledger.insert(&session, &Extra { credit, ..Extra::default() }).expect("inserted");
            if number < ended {
                for bytes in 0..10 {
                    let usage = Usage { counters: used(bytes), ..Usage::default() };
                    ledger.record(&[(session.id, usage)]).expect("written");
                }
                ledger.end(session.id, &Usage::default(), "removed").expect("ended");
            }
        }
    });
}

/// A session of its own key.
pub fn like(number: u32) -> Session {
    Session {
        id: SessionId::random(),
        slot: Slot(number),
        name: None,
        public_key: PrivateKey::random().public(),
        created: 1_700_000_000,
        state: SessionState::Open,
    }
}

impl Ledger {
    /// Refuses every change from now on, as a full disk does, or no more.
    pub fn refuse_changes(&self, refuse: bool) {
        self.db.pragma_update(None, "query_only", refuse).expect("set");
    }

    /// Waits for no disk from now on.
    pub fn in_no_hurry(&self) {
        self.db.execute_batch("PRAGMA synchronous = OFF").expect("set");
    }

    /// Counts the transactions from now on.
    pub fn count_commits(&mut self) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
        let count = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let counted = std::sync::Arc::clone(&count);
        let hook = move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            false
        };
        self.db.commit_hook(Some(hook)).expect("set");
        count
    }

    /// The rows of a table.
    pub fn count(&self, table: &str) -> usize {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: u32 = self.db.query_row(&sql, [], |row| row.get(0)).expect("counted");
        rows as usize
    }

    /// Does many things without waiting for the disk after each.
    pub fn in_one_go(&mut self, work: impl FnOnce(&mut Self)) {
        self.db.execute_batch("PRAGMA synchronous = OFF").expect("set");
        work(self);
        self.db.execute_batch("PRAGMA synchronous = FULL").expect("set");
    }

    /// Does as if the time of every ended session were over. Says how many went.
    pub fn sweep_all_ended(&mut self) -> usize {
        const DAY: u64 = 86_400;
        let now = unix_now();
        let always = retention::Retention { delivered: 0, undelivered: None };
        self.forget_at(always, &[], now + DAY).expect("done");
        let mut gone = 0;
        loop {
            let swept = self.sweep_at(Some(10 * DAY), 400, now + 11 * DAY).expect("swept");
            gone += swept.gone;
            if !swept.goes_on {
                return gone;
            }
        }
    }
}
