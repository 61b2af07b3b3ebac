use proptest::prelude::*;

use super::*;
use crate::{
    attestation::{Attestation, Reason},
    event::{ATTESTATION_LIFETIME, LIFETIME, sign_attestation, sign_deletion, sign_listing},
    key::MarketKey,
    score::NoHistory,
    testing::listing,
};

const NOW: u64 = 1_800_000_000;

fn signed(key: &MarketKey, price: &str, at: u64) -> Event {
    sign_listing(key, &listing("DE", price, 1), at, 0)
}

fn prices(view: &View) -> Vec<String> {
    view.offers().map(|offer| offer.signed.listing.prices[0].to_string()).collect()
}

#[test]
fn of_each_key_the_newest_listing_counts_whoever_shows_an_old_one() {
    let key = MarketKey::random();
    let (old, new) = (signed(&key, "900 sat/GiB", NOW - 60), signed(&key, "100 sat/GiB", NOW));
    for order in [[&old, &new], [&new, &old]] {
        let mut view = View::default();
        for event in order {
            view.admit(event.clone(), "ws://a/", NOW).expect("it counts");
        }
        assert_eq!(prices(&view), ["100 sat/GiB"]);
    }
    let mut view = View::default();
    for registry in ["ws://a/", "ws://b/", "ws://a/"] {
        view.admit(new.clone(), registry, NOW).expect("it counts");
    }
    assert_eq!(view.offers().next().expect("an offer").registries.len(), 2);
}

#[test]
fn what_is_forged_expired_or_of_another_kind_is_refused_by_name() {
    let key = MarketKey::random();
    let mut view = View::default();
    let mut forged = signed(&key, "1 sat/GiB", NOW);
    forged.sig = signed(&MarketKey::random(), "1 sat/GiB", NOW).sig;
    assert_eq!(view.admit(forged, "ws://a/", NOW), Err(Refused::Signature));
    let expired = signed(&key, "1 sat/GiB", NOW - LIFETIME);
    assert_eq!(view.admit(expired, "ws://a/", NOW), Err(Refused::Expired));
    let future = signed(&key, "1 sat/GiB", NOW + 10_000);
    assert_eq!(view.admit(future, "ws://a/", NOW), Err(Refused::Future));
    let other = Event::from_json(
        signed(&key, "1 sat/GiB", NOW).as_json().replace("\"kind\":30402", "\"kind\":1"),
    );
    assert_eq!(view.admit(other.expect("an event"), "ws://a/", NOW), Err(Refused::Kind));
    assert!(view.is_empty());
    // A forged one cannot take the place of the true one, however new it claims to be.
    view.admit(signed(&key, "7 sat/GiB", NOW - 5), "ws://a/", NOW).expect("it counts");
    let mut newer = signed(&key, "1 sat/GiB", NOW);
    newer.sig = signed(&key, "2 sat/GiB", NOW).sig;
    assert_eq!(view.admit(newer, "ws://b/", NOW), Err(Refused::Signature));
    assert_eq!(prices(&view), ["7 sat/GiB"]);
}

#[test]
fn a_withdrawn_listing_is_gone_in_any_order_and_comes_back_when_it_is_published_again() {
    let key = MarketKey::random();
    let listed = signed(&key, "1 sat/GiB", NOW - 10);
    let deletion = sign_deletion(&key, "weir", NOW - 5);
    let strangers = sign_deletion(&MarketKey::random(), "weir", NOW);
    for order in [[&listed, &deletion], [&deletion, &listed]] {
        let mut view = View::default();
        for event in order {
            view.admit(event.clone(), "ws://a/", NOW).expect("it counts");
        }
        assert!(view.is_empty());
        view.admit(signed(&key, "2 sat/GiB", NOW - 4), "ws://a/", NOW).expect("it counts");
        view.admit(strangers.clone(), "ws://a/", NOW).expect("it is one");
        // The old deletion again, and the listing that it deleted.
        view.admit(deletion.clone(), "ws://b/", NOW).expect("it is one");
        view.admit(listed.clone(), "ws://b/", NOW).expect("it is one");
        assert_eq!(prices(&view), ["2 sat/GiB"]);
    }
}

#[test]
fn what_was_fetched_survives_in_the_cache_and_a_damaged_cache_is_fetched_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cache/market");
    let (one, two) = (MarketKey::random(), MarketKey::random());
    let mut view = View::default();
    let mut report = Report { registry: "ws://a/".into(), ..Report::default() };
    let events = vec![
        signed(&one, "1 sat/GiB", NOW),
        signed(&two, "2 sat/GiB", NOW - LIFETIME + 5),
        sign_deletion(&MarketKey::random(), "weir", NOW),
    ];
    view.take(events, &mut report, NOW);
    assert_eq!(view.newest["ws://a/"], NOW);
    Cache::new(&path).store(&view).expect("stored");
    let read = Cache::new(&path).load(NOW).expect("read");
    assert_eq!(prices(&read).len(), 2);
    assert_eq!((read.newest.clone(), read.deletions.len()), (view.newest.clone(), 1));
    assert_eq!(read.offers().next().expect("one").registries.len(), 1);
    assert_eq!(Cache::new(&path).load(NOW + 5).expect("read").len(), 1, "one has expired");
    let file = path.join("listings.ndjson");
    let text = std::fs::read_to_string(&file).expect("there");
    std::fs::write(&file, text.get(..text.len() / 2).expect("half")).expect("written");
    assert!(Cache::new(&path).load(NOW).expect("read").newest.is_empty());
    std::fs::write(&file, "rubbish").expect("written");
    assert!(Cache::new(&path).load(NOW).expect("read").is_empty());
}

/// What a watcher says of the exit with the key 7.
fn attested(watcher: u8, reason: Reason, at: u64) -> Event {
    let exit = Address::of(&signed(&MarketKey::for_tests(7), "1 sat/GiB", NOW)).expect("one");
    sign_attestation(&MarketKey::for_tests(watcher), &Attestation::new(exit, reason), at)
}

fn said(view: &View) -> Vec<(String, Reason)> {
    let offer = view.offers().next().expect("an offer");
    let all = view.attestations(&offer.signed.address(), NOW);
    all.map(|it| (it.watcher().to_string()[..4].to_owned(), it.attestation.reason)).collect()
}

#[test]
fn only_watchers_that_are_named_count_and_of_each_the_newest() {
    let mut view = View::default();
    let exit = signed(&MarketKey::for_tests(7), "1 sat/GiB", NOW);
    view.admit(exit, "ws://a/", NOW).expect("it counts");
    let liar = attested(9, Reason::Ok, NOW);
    assert_eq!(view.admit(liar.clone(), "ws://a/", NOW), Err(Refused::Watcher));
    let watcher = |number: u8| WatcherKey::from(MarketKey::for_tests(number).public());
    view.believe(&[watcher(8)]);
    assert_eq!(view.admit(liar.clone(), "ws://a/", NOW), Err(Refused::Watcher));
    let (old, new) = (attested(8, Reason::Ok, NOW - 60), attested(8, Reason::NoHandshake, NOW));
    for order in [[&old, &new], [&new, &old]] {
        for event in order {
            view.admit(event.clone(), "ws://a/", NOW).expect("it counts");
        }
        assert_eq!(said(&view), [(watcher(8).to_string()[..4].to_owned(), Reason::NoHandshake)]);
    }
    let mut forged = attested(8, Reason::Ok, NOW + 1);
    forged.sig = new.sig;
    assert_eq!(view.admit(forged, "ws://a/", NOW), Err(Refused::Signature));
    let expired = attested(8, Reason::Ok, NOW - ATTESTATION_LIFETIME);
    assert_eq!(view.admit(expired, "ws://a/", NOW), Err(Refused::Expired));
    let future = attested(8, Reason::Ok, NOW + 10_000);
    assert_eq!(view.admit(future, "ws://a/", NOW), Err(Refused::Future));
    view.believe(&[watcher(9)]);
    assert!(said(&view).is_empty(), "it is not believed any more");
    view.admit(liar, "ws://a/", NOW).expect("it is believed now");
    assert_eq!(said(&view).len(), 1);
}

#[test]
fn attestations_survive_in_the_cache_and_a_new_watcher_is_asked_for_from_the_beginning() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = |watchers: &[u8]| Settings {
        registries: Vec::new(),
        watchers: watchers.iter().map(|it| MarketKey::for_tests(*it).public().into()).collect(),
        cache: Some(directory.path().to_owned()),
        limits: Limits::default(),
    };
    let mut view = View::cached(&settings(&[8]), NOW).expect("nothing");
    let mut report = Report { registry: "ws://a/".into(), ..Report::default() };
    let exit = signed(&MarketKey::for_tests(7), "1 sat/GiB", NOW);
    let strangers = attested(9, Reason::WrongExit, NOW);
    view.take(vec![exit, attested(8, Reason::Ok, NOW), strangers], &mut report, NOW);
    assert_eq!(report.refused, [("watcher", 1)].into());
    Cache::new(directory.path()).store(&view).expect("stored");
    let read = View::cached(&settings(&[8]), NOW).expect("read");
    assert_eq!(said(&read).len(), 1);
    assert!(read.asked["ws://a/"].is_superset(&read.watchers));
    let more = View::cached(&settings(&[8, 9]), NOW).expect("read");
    assert_eq!(said(&more).len(), 1);
    assert!(!more.asked["ws://a/"].is_superset(&more.watchers));
    let none = View::cached(&settings(&[]), NOW).expect("read");
    assert!(said(&none).is_empty());
    let later = NOW + ATTESTATION_LIFETIME;
    let later = View::cached(&settings(&[8]), later).expect("read");
    assert!(later.attestations.is_empty());
}

#[test]
fn after_a_failure_everything_since_the_last_success_is_asked_for_again() {
    let mut view = View::default();
    let key = MarketKey::random();
    let mut broken = Report {
        registry: "ws://a/".into(),
        error: Some("it closed the connection".into()),
        ..Report::default()
    };
    view.take(vec![signed(&key, "1 sat/GiB", NOW)], &mut broken, NOW);
    assert!(view.newest.is_empty(), "older pages may be missing");
    // One of the future does not hide those of the present.
    let mut whole = Report { registry: "ws://a/".into(), ..Report::default() };
    view.take(vec![signed(&key, "1 sat/GiB", NOW + 600)], &mut whole, NOW);
    assert_eq!(view.newest["ws://a/"], NOW);
}

proptest! {
    /// In whatever order registries send what, the view is the same.
    #[test]
    fn the_union_does_not_depend_on_the_order(
        events in proptest::collection::vec((0_usize..3, 0_u64..4, any::<bool>()), 1..12)
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
    ) {
        let keys = [7, 8, 9].map(MarketKey::for_tests);
        let make = |(key, at, deletes): (usize, u64, bool)| match deletes {
            true => sign_deletion(&keys[key], "weir", NOW + at),
            false => signed(&keys[key], &format!("{at} sat/GiB"), NOW + at),
        };
        let view = |events: Vec<_>| {
            let mut view = View::default();
            for event in events.into_iter().map(make) {
                view.admit(event, "ws://a/", NOW + 10).expect("it counts");
            }
            let all: Vec<_> = view.offers().map(|it| (it.key(), it.signed.event.created_at)).collect();
            let chosen = view.choose(&Wish::default(), &NoHistory, NOW + 10).len();
            (all, chosen)
        };
        prop_assert_eq!(view(events.0), view(events.1));
    }
}
