//! What the ledger's tasks do, and when.

use super::*;
use weir_control::testing::StillNode;
use weir_ledger::{BlockEvent, check::Reader};
use weir_sessions::registry::rig::Rig;

fn blocks(rig: &Rig) -> Arc<BlockJournal> {
    Arc::new(BlockJournal::new(Arc::new(StillNode), rig.ledger.clone()))
}

#[test]
fn ended_sessions_go_in_a_tick_ten_minutes_after_the_last_look() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    rig.add(Some("alice"));
    rig.sessions.remove("alice").expect("removed");
    let intervals = Intervals {
        records_kept: Some(Retention { delivered: 0, undelivered: None }),
        sessions_kept: Some(0),
        ..Intervals::from(&weir_config::Ledger::default())
    };
    let now = Instant::now();
    let mut writer = Writer {
        sessions: Arc::clone(&rig.sessions),
        ledger: rig.ledger.clone(),
        blocks: blocks(&rig),
        intervals: Shared::from(intervals),
        receivers: Vec::new(),
        saved: now,
        recorded: now,
        swept: Look::now(),
        sweeping: false,
    };
    let sessions = || {
        let report = Reader::open(&folder.path().join("ledger.db")).expect("opened").check();
        let report = report.expect("read");
        assert_eq!(report.problems, Vec::<String>::new());
        report.sessions
    };
    // It ended more than no second ago once the next one has begun.
    let ended = unix_now();
    while unix_now() <= ended + 1 {
        writer = writer.tick();
        assert_eq!(sessions(), 1, "the last look was a moment ago");
    }
    writer.intervals.set(Intervals { retention: Duration::ZERO, ..intervals });
    writer.swept.clock = 7;
    writer = writer.tick();
    assert_eq!(sessions(), 1, "the clock was set");
    writer.tick();
    assert_eq!(sessions(), 0);
}

#[test]
fn blocks_of_ports_go_when_their_time_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let session = rig.add(Some("alice")).session.id;
    let ports = weir_ledger::Ports { address: [192, 0, 2, 7].into(), first: 4096, length: 32 };
    let now = unix_now();
    let write = |ago: u64| {
        let at = now - ago;
        let taken = BlockEvent::Taken { session, ports, at };
        let released = BlockEvent::Released { session, ports, at };
        rig.ledger.lock().write_blocks(&[taken, released]).expect("written");
    };
    let intervals =
        Intervals { retention: Duration::ZERO, ..Intervals::from(&weir_config::Ledger::default()) };
    let since = Instant::now();
    let writer = Writer {
        sessions: Arc::clone(&rig.sessions),
        ledger: rig.ledger.clone(),
        blocks: blocks(&rig),
        intervals: Shared::from(intervals),
        receivers: Vec::new(),
        saved: since,
        recorded: since,
        swept: Look::now(),
        sweeping: false,
    };
    write(31 * 86_400);
    write(29 * 86_400);
    writer.tick();
    let held = |ago: u64| {
        let log = rig.ledger.port_log();
        log.owners(ports.address, 4100, now - ago).expect("read").len()
    };
    assert_eq!((held(31 * 86_400), held(29 * 86_400)), (0, 1));
}

#[test]
fn by_a_clock_that_was_set_nothing_is_judged_before_the_next_look() {
    let first = Look { at: Instant::now(), clock: 1_700_000_000 };
    let later = |seconds: u64, clock: u64| Look {
        at: first.at + Duration::from_secs(seconds),
        clock: first.clock + clock,
    };
    for (passed, clock, is_before) in [
        (600, 600, true),
        (600, 645, true),
        (600, 560, true),
        (600, 700, false),
        (600, 400_000_000, false),
        (600, 0, false),
    ] {
        assert_eq!(first.is_before(later(passed, clock)), is_before, "{passed} {clock}");
    }
    // A clock that stays where it was set is believed from then on.
    assert!(later(600, 400_000_000).is_before(later(1200, 400_000_600)));
    assert!(!later(600, 400_000_000).is_before(later(1200, 1200)), "it was put right");
}
