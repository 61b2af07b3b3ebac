//! The ledger against a slow model: any order of ends, payments, deliveries, sweeps and failures.

use super::*;

/// What may happen to a ledger.
#[derive(Clone, Debug)]
enum Step {
    Add,
    Use(prop::sample::Index, u64),
    Pay(prop::sample::Index),
    UsageRecord,
    End(prop::sample::Index),
    Deliver,
    Forget,
    /// One transaction, with this number of rows.
    Sweep(u64),
    SweepAll,
    /// The disk is full after this number of rows of `counters`.
    FailedSweep(i64),
    Days(u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any = any::<prop::sample::Index>;
    let step = prop_oneof![
        6 => Just(Step::Add),
        4 => (any(), 1..1u64 << 40).prop_map(|(i, n)| Step::Use(i, n)),
        3 => any().prop_map(Step::Pay),
        2 => Just(Step::UsageRecord),
        5 => any().prop_map(Step::End),
        2 => Just(Step::Deliver),
        2 => Just(Step::Forget),
        3 => (1u64..20).prop_map(Step::Sweep),
        1 => Just(Step::SweepAll),
        1 => (0i64..4).prop_map(Step::FailedSweep),
        3 => (1u64..6).prop_map(Step::Days),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..80)
}

/// What there must be, kept slowly and without SQL.
#[derive(Default)]
struct Model {
    day: u64,
    live: Vec<(Session, u64)>,
    /// In the order in which they ended: identifier, the day, the cursor of the last record.
    ended: Vec<(String, u64, u64)>,
    /// What all ended sessions have used.
    ended_bytes: u64,
    delivered: u64,
    /// Up to where records were let go.
    released: u64,
}

impl Model {
    fn may_go(&self) -> usize {
        let is_over = |(_, day, cursor): &&(String, u64, u64)| {
            self.day >= day + 10 && *cursor <= self.released
        };
        self.ended.iter().take_while(is_over).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// In whatever order sessions end, are delivered and are swept: exactly those go whose time is
    /// over, the totals are those of all that ever were, and the ledger passes both checks.
    #[test]
    fn totals_and_checks_hold_over_any_order_of_ends_and_sweeps(steps in steps()) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut ledger = open(folder.path());
        let mut model = Model::default();
        let mut references = 0;
        // Stamps of one day are a few seconds apart here.
        let start = unix_now() + 600;
        for step in steps {
            let now = start + model.day * DAY;
            let chosen = |index: prop::sample::Index| {
                (!model.live.is_empty()).then(|| index.index(model.live.len()))
            };
            let swept = match step {
                Step::Add => {
                    let slot = (0..).find(|slot| model.live.iter().all(|(s, _)| s.slot.0 != *slot));
                    let session = session(slot.expect("one is free"));
                    ledger.insert(&session, &Extra::default()).expect("inserted");
                    model.live.push((session, 0));
                    None
                }
                Step::Use(index, bytes) => {
                    if let Some(chosen) = chosen(index) {
                        model.live[chosen].1 += bytes;
                    }
                    None
                }
                Step::Pay(index) => {
                    if let Some(chosen) = chosen(index) {
                        references += 1;
                        pay(&mut ledger, model.live[chosen].0.id, format!("p{references}"));
                    }
                    None
                }
                Step::UsageRecord => {
                    let used: Vec<_> =
                        model.live.iter().map(|(s, bytes)| (s.id, usage(*bytes))).collect();
                    ledger.record(&used).expect("written");
                    None
                }
                Step::End(index) => {
                    if let Some(chosen) = chosen(index) {
                        let (session, bytes) = model.live.remove(chosen);
                        ledger.end(session.id, &usage(bytes), "removed").expect("ended");
                        let stamp = "UPDATE ended_sessions SET ended = ?1
                             WHERE place = (SELECT max(place) FROM ended_sessions)";
                        ledger.db.execute(stamp, [to_sql(now)]).expect("stamped");
                        let cursor = ledger.last_cursor().expect("read");
                        model.ended.push((session.id.to_string(), model.day, cursor));
                        model.ended_bytes += bytes;
                    }
                    None
                }
                Step::Deliver => {
                    model.delivered = ledger.last_cursor().expect("read");
                    ledger.set_delivered("webhook", model.delivered).expect("written");
                    None
                }
                Step::Forget => {
                    ledger.forget_at(RECORDS_KEPT, &["webhook"], now).expect("done");
                    // Records are stamped with the real time, which is before the first day.
                    if model.day >= 1 {
                        model.released = model.delivered;
                    }
                    None
                }
                Step::Sweep(rows) => Some(ledger.sweep_at(KEPT, rows, now + 1).expect("swept")),
                Step::SweepAll => {
                    let gone = sweep_all(&mut ledger, 7, now + 1);
                    Some(Swept { gone, goes_on: false })
                }
                Step::FailedSweep(after) => {
                    let trigger = format!(
                        "CREATE TEMP TRIGGER full BEFORE DELETE ON counters
                             WHEN (SELECT count(*) FROM counters) + {after}
                                 <= (SELECT count(*) FROM sessions)
                             BEGIN SELECT RAISE(ABORT, 'full'); END;"
                    );
                    ledger.db.execute_batch(&trigger).expect("made");
                    let before = ledger.count("payments");
                    let outcome = ledger.sweep_at(KEPT, MAX_ROWS, now + 1);
                    ledger.db.execute_batch("DROP TRIGGER temp.full").expect("dropped");
                    if outcome.is_err() {
                        prop_assert_eq!(ledger.count("payments"), before);
                    }
                    outcome.ok()
                }
                Step::Days(days) => {
                    model.day += days;
                    None
                }
                Step::Reopen => {
                    drop(ledger);
                    ledger = open(folder.path());
                    None
                }
            };
            if let Some(swept) = swept {
                let may_go = model.may_go();
                prop_assert!(swept.gone <= may_go, "{} of {}", swept.gone, may_go);
                if !swept.goes_on {
                    prop_assert_eq!(swept.gone, may_go);
                }
                model.ended.drain(..swept.gone);
                prop_assert_eq!(problems(folder.path()), Vec::<String>::new());
            }
            let ids: Vec<_> = model.ended.iter().map(|(id, ..)| id.clone()).collect();
            prop_assert_eq!(ended_ids(&ledger), ids);
            let total = usage(model.ended_bytes).counters.bytes_up;
            prop_assert_eq!(ledger.ended().expect("read").bytes_up, total);
            let rows: i64 = ledger.db.query_row(sql::COUNTERS_ROWS, [], |row| row.get(0))
                .expect("read");
            prop_assert_eq!(rows as usize, ledger.count("counters"));
        }
        prop_assert_eq!(problems(folder.path()), Vec::<String>::new());
    }
}
