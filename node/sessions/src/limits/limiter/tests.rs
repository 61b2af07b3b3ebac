use std::sync::atomic::Ordering::Relaxed;

use weir_common::{DropReason, Slot, account::SessionState};

use super::*;
use crate::{
    SessionError,
    registry::{
        NewSession,
        rig::{FlowLimit, Rig},
    },
};
use weir_config::amounts::ByteCount;

/// 2026-11-22 22:30:00 UTC, a Sunday.
const NOW: u64 = 1_795_386_600;
const DAY: u64 = 86_400;

fn limiter(rig: &Rig, settings: Limits) -> Limiter {
    let levels = Arc::new(Levels::default());
    let (sessions, accounts) = (Arc::clone(&rig.sessions), Arc::clone(&rig.accounts));
    let flows = Arc::<FlowLimit>::default();
    let limiter =
        Limiter::new(Limits::default(), sessions, rig.ledger.clone(), accounts, levels, flows);
    let limiter = limiter.expect("a ledger");
    // Not by `apply`, which looks at the real clock.
    limiter.state().marks = [Marked::default(); 2];
    limiter.state().settings = settings;
    limiter.look(NOW);
    limiter
}

fn standing(rig: &Rig, slot: u32) -> SessionState {
    rig.accounts.get(Slot(slot)).expect("a slot").standing()
}

#[test]
fn a_used_up_quota_pauses_all_sessions_until_the_day_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (one, _two) = (rig.add(Some("one")), rig.add(Some("two")));
    rig.traffic(one.session.slot, 5000);
    let limiter =
        limiter(&rig, Limits { bytes_per_day: ByteCount::new(1000), ..Limits::default() });
    assert_eq!(limiter.now().day, QuotaNow { bytes: 1000, used: 0, resets: NOW + 5400 });
    rig.traffic(one.session.slot, 999);
    limiter.look(NOW + 1);
    assert_eq!(standing(&rig, 0), SessionState::Open);
    rig.traffic(one.session.slot, 1);
    limiter.look(NOW + 2);
    assert_eq!([standing(&rig, 0), standing(&rig, 1)], [SessionState::Paused; 2]);
    assert_eq!(limiter.now().paused_for.as_deref(), Some("quota"));
    assert_eq!(rig.sessions.get("two").expect("there").paused_for, Some("quota"));
    assert!(matches!(rig.sessions.add(NewSession::default()), Err(SessionError::Quota)));
    // An operator's pause is that of the operator, and outlives the quota's.
    rig.sessions.pause("two").expect("paused");
    assert_eq!(rig.sessions.get("two").expect("there").paused_for, Some("operator"));
    limiter.look(NOW + 5400);
    assert_eq!([standing(&rig, 0), standing(&rig, 1)], [SessionState::Open, SessionState::Paused]);
    assert_eq!(limiter.now().day.used, 0);
    assert!(rig.sessions.add(NewSession::default()).is_ok());
}

#[test]
fn what_was_used_survives_a_restart_and_the_reset_does_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings =
        Limits { bytes_per_month: ByteCount::new(1000), month_reset_day: 10, ..Limits::default() };
    {
        let rig = Rig::start(folder.path(), 4);
        let one = rig.add(Some("one"));
        rig.traffic(one.session.slot, 77);
        let limiter = limiter(&rig, settings.clone());
        rig.traffic(one.session.slot, 1200);
        limiter.look(NOW + 1);
        assert_eq!(limiter.now().month.used, 1200);
        rig.sessions.checkpoint().expect("written");
    }
    let rig = Rig::start(folder.path(), 4);
    let levels = Arc::new(Levels::default());
    let (sessions, accounts) = (Arc::clone(&rig.sessions), Arc::clone(&rig.accounts));
    let marks = {
        let limiter = Limiter::new(
            Limits::default(),
            sessions,
            rig.ledger.clone(),
            accounts,
            levels,
            Arc::<FlowLimit>::default(),
        )
        .expect("a ledger");
        limiter.state().settings = settings;
        limiter.look(NOW + 2);
        assert_eq!(limiter.now().month.used, 1200, "as before");
        assert_eq!(standing(&rig, 0), SessionState::Paused);
        limiter.look(NOW + 17 * DAY);
        assert_eq!(standing(&rig, 0), SessionState::Paused, "2026-12-09");
        limiter.look(NOW + 18 * DAY);
        assert_eq!(standing(&rig, 0), SessionState::Open, "2026-12-10");
        limiter.state().marks[1].marks
    };
    let saved = rig.ledger.lock().quota("month").expect("read");
    assert_eq!(saved, Some(marks), "the reset is in the ledger");
}

#[test]
fn a_clock_that_was_12_years_ahead_for_a_minute_stops_no_reset_and_forgets_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Limits {
        bytes_per_day: ByteCount::new(1000),
        bytes_per_month: ByteCount::new(1500),
        ..Limits::default()
    };
    let ahead = NOW + 12 * 365 * DAY;
    let used = {
        let rig = Rig::start(folder.path(), 4);
        let slot = rig.add(Some("one")).session.slot;
        let limiter = limiter(&rig, settings.clone());
        rig.traffic(slot, 600);
        limiter.look(ahead);
        rig.traffic(slot, 300);
        limiter.look(ahead + 60);
        rig.sessions.checkpoint().expect("written");
        limiter.now().day.used
    };
    assert_eq!(used, 300, "to that clock it is another day");
    // The wrong day is in the ledger by now.
    let rig = Rig::start(folder.path(), 4);
    let (sessions, accounts) = (Arc::clone(&rig.sessions), Arc::clone(&rig.accounts));
    let saved = ["day", "month"].map(|period| rig.ledger.lock().quota(period).expect("read"));
    let flows = Arc::<FlowLimit>::default();
    let limiter = Limiter::new(
        Limits::default(),
        sessions,
        rig.ledger.clone(),
        accounts,
        Arc::default(),
        flows,
    );
    let limiter = limiter.expect("a ledger");
    // As they were saved: `new` has looked at the real clock.
    limiter.state().marks =
        saved.map(|marks| Marked { marks: marks.expect("saved"), is_saved: true });
    limiter.state().settings = settings;
    limiter.look(NOW + 60);
    assert_eq!((limiter.now().day.used, limiter.now().month.used), (900, 900));
    rig.traffic(Slot(0), 100);
    limiter.look(NOW + 61);
    assert_eq!(standing(&rig, 0), SessionState::Paused, "1000 are used up");
    limiter.look(NOW + 5400);
    assert_eq!(standing(&rig, 0), SessionState::Open, "the next day begins at midnight");
    assert_eq!((limiter.now().day.used, limiter.now().month.used), (0, 1000));
}

#[test]
fn a_schedule_changes_rates_and_closes() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    rig.add(Some("one"));
    let window = |text: &str| text.parse().expect("a window");
    let settings = Limits {
        node_rate_up: BitRate::new(8000),
        node_rate_down: BitRate::new(16_000),
        schedule: vec![window("Sun 23:00-23:30 closed"), window("Sun 23:00-24:00 down=8mbit")],
        ..Limits::default()
    };
    let limiter = limiter(&rig, settings);
    let rates = || (limiter.now().rate_up, limiter.now().rate_down);
    assert_eq!(rates(), (8000, 16_000));
    limiter.look(NOW + 1800);
    assert_eq!(standing(&rig, 0), SessionState::Paused);
    assert_eq!(rig.sessions.get("one").expect("there").paused_for, Some("schedule"));
    limiter.look(NOW + 3600);
    assert_eq!(standing(&rig, 0), SessionState::Open);
    assert_eq!(rates(), (8000, 8_000_000));
    limiter.look(NOW + 5400);
    assert_eq!(rates(), (8000, 16_000));
}

#[test]
fn the_nodes_rate_is_shared_between_those_who_want_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    (0..3).for_each(|_| drop(rig.add(None)));
    let settings = Limits { node_rate_down: BitRate::new(8_000_000), ..Limits::default() };
    let limiter = limiter(&rig, settings);
    assert!(limiter.share().is_some());
    assert_eq!(limiter.levels.get(), [0, 1_000_000], "nobody wants anything yet");
    for slot in 0..2 {
        let account = rig.accounts.get(Slot(slot)).expect("a slot");
        account.whereabouts.limited_down.store(1500, Relaxed);
    }
    limiter.share();
    assert_eq!(limiter.levels.get(), [0, 500_000]);
    limiter.change(&Change { node_rate_down: Some(0), ..Change::default() }).expect("changed");
    assert_eq!(limiter.levels.get(), [0, 0]);
    assert_eq!(limiter.share(), None);
}

#[test]
fn fewer_sessions_than_there_are_only_stops_new_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    (0..3).for_each(|_| drop(rig.add(None)));
    let limiter = limiter(&rig, Limits::default());
    limiter.change(&Change { sessions: Some(2), ..Change::default() }).expect("changed");
    assert_eq!((rig.sessions.len(), rig.sessions.at_most()), (3, 2));
    assert!(matches!(rig.sessions.add(NewSession::default()), Err(SessionError::AtMost(2))));
    let ids: Vec<_> = rig.sessions.list().iter().map(|one| one.session.id.to_string()).collect();
    rig.sessions.remove(&ids[0]).expect("removed");
    assert!(rig.sessions.add(NewSession::default()).is_err(), "two are there");
    rig.sessions.remove(&ids[1]).expect("removed");
    assert!(rig.sessions.add(NewSession::default()).is_ok());
    limiter.change(&Change { sessions: Some(0), ..Change::default() }).expect("changed");
    assert!(rig.sessions.add(NewSession::default()).is_ok());
}

#[test]
fn a_change_that_the_kernel_refuses_changes_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let flows = Arc::<FlowLimit>::default();
    let (sessions, accounts) = (Arc::clone(&rig.sessions), Arc::clone(&rig.accounts));
    let table = Arc::clone(&flows) as Arc<dyn FlowTable>;
    let limiter =
        Limiter::new(Limits::default(), sessions, rig.ledger, accounts, Arc::default(), table);
    let limiter = limiter.expect("a ledger");
    assert_eq!(limiter.now().each_session.session_flows, FlowLimit::SHARE);
    let change = |json: &str| limiter.change(&serde_json::from_str(json).expect("JSON"));
    change(r#"{"session_flows": 40}"#).expect("changed");
    assert_eq!(limiter.now().each_session.session_flows, 40);
    change(r#"{"sessions": 3}"#).expect("changed");
    assert_eq!(limiter.now().each_session.session_flows, 40, "what is not named stays");
    flows.refuses.store(true, Relaxed);
    let error = change(r#"{"session_flows": "auto", "sessions": 2}"#).expect_err("refused");
    assert_eq!(error.to_string(), "session_flows stays as it was: nft says no");
    let settings = limiter.settings();
    assert_eq!((settings.session_flows, settings.sessions), (Auto::Set(AtMost::new(40)), 3));
    flows.refuses.store(false, Relaxed);
    change(r#"{"session_flows": "auto"}"#).expect("changed");
    assert_eq!(limiter.now().each_session.session_flows, FlowLimit::SHARE);
    limiter.apply(Limits::default()).expect("as in the file");
    assert_eq!(limiter.settings(), Limits::default());
}

#[test]
fn sessions_without_a_rate_of_their_own_have_the_nodes() {
    use weir_ledger::OwnRates;
    let folder = tempfile::tempdir().expect("a folder");
    {
        let rig = Rig::start(folder.path(), 4);
        (0..3).for_each(|index| drop(rig.add(Some(["a", "b", "c"][index]))));
        let limiter = limiter(&rig, Limits::default());
        let own = OwnRates { up: Some(80_000), down: Some(0) };
        rig.sessions.set_rates("b", own).expect("set");
        rig.sessions.set_rates("c", OwnRates { up: Some(1), down: None }).expect("set");
        let change = Change {
            session_rate_up: Some(8000),
            session_rate_down: Some(16_000),
            ..Change::default()
        };
        limiter.change(&change).expect("changed");
        let rates = |slot| {
            let control = &rig.accounts.get(Slot(slot)).expect("a slot").control;
            (control.rate_up.load(Relaxed), control.rate_down.load(Relaxed))
        };
        assert_eq!([rates(0), rates(1), rates(2)], [(1000, 2000), (10_000, 0), (1, 2000)]);
        assert_eq!(rig.sessions.get("c").expect("there").rates, [1, 16_000]);
        let late = rig.add(Some("late"));
        assert_eq!(rates(late.session.slot.0), (1000, 2000));
    }
    let rig = Rig::start(folder.path(), 4);
    let own = OwnRates { up: Some(80_000), down: Some(0) };
    assert_eq!(rig.sessions.get("b").expect("there").own_rates, own);
    let control = &rig.accounts.get(Slot(1)).expect("a slot").control;
    assert_eq!(control.rate_up.load(Relaxed), 10_000, "also after a restart");
    assert!(DropReason::RateLimit.as_str() == DropReason::DownRateLimit.as_str());
}
