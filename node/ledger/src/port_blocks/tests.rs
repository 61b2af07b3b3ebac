use std::path::Path;

use super::*;
use crate::{Usage, check::Reader, credit::Extra, testing::like};

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

fn open(folder: &Path) -> Ledger {
    let mut ledger = Ledger::open(&folder.join("ledger.db")).expect("opened");
    ledger.in_no_hurry();
    ledger.live().expect("read");
    ledger
}

fn add(ledger: &mut Ledger, slot: u32) -> SessionId {
    let session = like(slot);
    ledger.insert(&session, &Extra::default()).expect("inserted");
    session.id
}

fn block(first: u16) -> Ports {
    Ports { address: V4, first, length: 32 }
}

fn taken(session: SessionId, first: u16, at: u64) -> BlockEvent {
    BlockEvent::Taken { session, ports: block(first), at }
}

fn released(session: SessionId, first: u16, at: u64) -> BlockEvent {
    BlockEvent::Released { session, ports: block(first), at }
}

fn who(ledger: &Ledger, port: u16, at: u64) -> Vec<SessionId> {
    let found = ledger.block_owners(V4, port, at).expect("read");
    found.iter().map(|span| span.session).collect()
}

fn is_sound(folder: &Path) {
    let report = Reader::open(&folder.join("ledger.db")).expect("opened").check().expect("read");
    assert_eq!(report.problems, Vec::<String>::new());
}

#[test]
fn a_port_is_answered_with_who_held_its_block_at_the_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let (one, two) = (add(&mut ledger, 0), add(&mut ledger, 1));
    ledger
        .write_blocks(&[
            taken(one, 4096, 100),
            taken(two, 4128, 100),
            released(one, 4096, 200),
            taken(two, 4096, 300),
        ])
        .expect("written");
    for (port, at, owners) in [
        (4096, 99, vec![]),
        (4096, 100, vec![one]),
        (4127, 200, vec![one]),
        (4127, 201, vec![]),
        (4127, 299, vec![]),
        (4100, 300, vec![two]),
        (4100, u64::MAX, vec![two]),
        (4128, 150, vec![two]),
        (4095, 150, vec![]),
        (4160, 150, vec![]),
    ] {
        assert_eq!(who(&ledger, port, at), owners, "{port} at {at}");
    }
    let other = "198.51.100.8".parse().expect("an address");
    assert_eq!(ledger.block_owners(other, 4096, 150).expect("read"), []);
    let span = ledger.block_owners(V4, 4100, 150).expect("read");
    assert_eq!(
        span,
        [BlockSpan { session: one, ports: block(4096), since: 100, until: Some(200) }]
    );
    is_sound(folder.path());
}

#[test]
fn within_one_second_both_owners_are_named_in_their_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let (one, two) = (add(&mut ledger, 0), add(&mut ledger, 1));
    ledger
        .write_blocks(&[taken(one, 4096, 100), released(one, 4096, 200), taken(two, 4096, 200)])
        .expect("written");
    assert_eq!(who(&ledger, 4096, 199), [one]);
    assert_eq!(who(&ledger, 4096, 200), [one, two]);
    assert_eq!(who(&ledger, 4096, 201), [two]);
}

#[test]
fn a_block_of_another_size_and_a_whole_address_are_found_by_any_of_their_ports() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let (one, two) = (add(&mut ledger, 0), add(&mut ledger, 1));
    let own: IpAddr = "2001:db8:7::5".parse().expect("an address");
    let large = Ports { address: V4, first: 8192, length: 1024 };
    let whole = Ports { address: own, first: 0, length: 65536 };
    ledger
        .write_blocks(&[
            BlockEvent::Taken { session: one, ports: large, at: 100 },
            BlockEvent::Taken { session: two, ports: whole, at: 100 },
        ])
        .expect("written");
    assert_eq!((who(&ledger, 9215, 100), who(&ledger, 9216, 100)), (vec![one], vec![]));
    for port in [0, 1, 443, 65535] {
        let found = ledger.block_owners(own, port, 100).expect("read");
        assert_eq!(found.iter().map(|span| span.session).collect::<Vec<_>>(), [two], "{port}");
    }
}

#[test]
fn a_session_that_ends_gives_its_blocks_back_and_a_late_event_leaves_none_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let (one, two) = (add(&mut ledger, 0), add(&mut ledger, 1));
    let now = unix_now();
    ledger.write_blocks(&[taken(one, 4096, now), taken(two, 4128, now)]).expect("written");
    ledger.end(one, &Usage::default(), "removed").expect("ended");
    let held = |ledger: &Ledger| -> Vec<_> {
        ledger.open_blocks().expect("read").iter().map(|it| (it.session, it.ports.first)).collect()
    };
    assert_eq!(held(&ledger), [(two, 4128)]);
    // What the packet path did before it heard of the end.
    ledger.write_blocks(&[taken(one, 4160, now), released(one, 4096, now + 9)]).expect("written");
    assert_eq!(held(&ledger), [(two, 4128)]);
    assert_eq!(who(&ledger, 4160, now), [one]);
    assert!(ledger.block_owners(V4, 4096, now).expect("read")[0].until < Some(now + 9));
    drop(ledger);
    assert_eq!(held(&open(folder.path())), [(two, 4128)], "a start goes on with them");
    is_sound(folder.path());
}

#[test]
fn a_block_that_changed_hands_without_a_word_is_held_by_the_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let (one, two) = (add(&mut ledger, 0), add(&mut ledger, 1));
    // A kill swallowed that the first gave it back.
    ledger.write_blocks(&[taken(one, 4096, 100)]).expect("written");
    ledger.write_blocks(&[taken(two, 4096, 200), released(one, 4096, 300)]).expect("written");
    assert_eq!(who(&ledger, 4096, 250), [two]);
    assert_eq!(who(&ledger, 4096, 400), [two], "it was not the first's to give back");
    assert_eq!(ledger.open_blocks().expect("read").len(), 1);
}

#[test]
fn many_events_are_one_transaction_and_all_or_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let one = add(&mut ledger, 0);
    let commits = ledger.count_commits();
    let events: Vec<_> = (0..500u16).map(|n| taken(one, 4096 + 32 * n, 100)).collect();
    ledger.write_blocks(&events).expect("written");
    ledger.write_blocks(&[]).expect("nothing to write");
    assert_eq!(commits.load(std::sync::atomic::Ordering::Relaxed), 1);
    ledger.refuse_changes(true);
    let more = [released(one, 4096, 200), taken(one, 32, 200)];
    assert!(ledger.write_blocks(&more).is_err());
    ledger.refuse_changes(false);
    assert_eq!(ledger.open_blocks().expect("read").len(), 500);
    ledger.write_blocks(&more).expect("written now");
    assert_eq!(ledger.open_blocks().expect("read").len(), 500);
    assert_eq!(ledger.count("port_blocks"), 501);
}

#[test]
fn rows_go_when_their_time_is_over_and_blocks_that_are_held_do_not() {
    const DAY: u64 = 86_400;
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let one = add(&mut ledger, 0);
    let now = 1_700_000_000;
    let mut events = vec![taken(one, 8192, now - 90 * DAY)];
    for n in 0..5 {
        let at = now - 31 * DAY + u64::from(n) * DAY;
        events.extend([taken(one, 4096 + 32 * n, at - 9), released(one, 4096 + 32 * n, at)]);
    }
    ledger.write_blocks(&events).expect("written");
    let kept = Some(30 * DAY);
    let swept = |ledger: &mut Ledger, kept, rows, now| {
        ledger.forget_blocks_at(kept, rows, MAX_BLOCKS, now).expect("swept")
    };
    assert_eq!(swept(&mut ledger, None, 400, now).gone, 0, "they are kept forever");
    assert_eq!(swept(&mut ledger, kept, 400, now).gone, 1);
    let some = swept(&mut ledger, kept, 2, now + 30 * DAY);
    assert_eq!((some.gone, some.goes_on), (2, true));
    let rest = swept(&mut ledger, kept, 400, now + 30 * DAY);
    assert_eq!((rest.gone, rest.goes_on), (2, false));
    assert_eq!(who(&ledger, 8192, now), [one], "it is held");
    is_sound(folder.path());
}

#[test]
fn what_a_clock_stamped_that_was_ahead_goes_after_its_time_and_keeps_its_span() {
    const DAY: u64 = 86_400;
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let one = add(&mut ledger, 0);
    let now = 1_700_000_000;
    let ahead = now + 9000 * DAY;
    ledger
        .write_blocks(&[taken(one, 4096, ahead), released(one, 4096, ahead + 5)])
        .expect("written");
    let sweep = |ledger: &mut Ledger, now| {
        ledger.forget_blocks_at(Some(30 * DAY), 400, MAX_BLOCKS, now).expect("swept").gone
    };
    assert_eq!(sweep(&mut ledger, now), 0);
    assert_eq!(who(&ledger, 4096, ahead + 2), [one]);
    assert_eq!(sweep(&mut ledger, now + 31 * DAY), 1);
}

#[test]
fn beyond_the_most_rows_those_that_were_taken_first_go_and_none_that_is_held() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let one = add(&mut ledger, 0);
    let mut events = vec![taken(one, 8192, 50)];
    for n in 0..20 {
        events.extend([taken(one, 4096, 100 + n), released(one, 4096, 100 + n)]);
    }
    ledger.write_blocks(&events).expect("written");
    assert_eq!(ledger.forget_blocks_at(None, 400, 5, 1000).expect("swept").gone, 15);
    assert_eq!(ledger.count("port_blocks"), 6);
    assert_eq!(who(&ledger, 8192, 1000), [one]);
    assert_eq!((who(&ledger, 4096, 100), who(&ledger, 4096, 119)), (vec![], vec![one]));
    is_sound(folder.path());
}
