use std::net::{IpAddr, Ipv4Addr};

use nostr::{
    event::{EventId, Tag, Tags},
    key::{Keys, PublicKey},
};
use weir_market::{
    attestation::{Attestation, Reason},
    event::{REPORT, sign_attestation, sign_deletion},
    key::MarketKey,
};

use super::*;
use crate::testing::{NOW, changed, event, listed, named};

const SECOND: u64 = 1_000_000_000;

fn network(number: u8) -> Network {
    IpAddr::from(Ipv4Addr::new(192, 0, number, 7)).into()
}

/// A time so many seconds later.
fn at(seconds: u64) -> Now {
    Now { unix: NOW + seconds, tick: (1000 + seconds) * SECOND }
}

fn fresh(now: u64) -> Event {
    listed(&MarketKey::random(), "DE", "200 sat/GiB", now)
}

#[test]
fn ten_thousand_listings_of_one_network_are_refused_beyond_its_new_keys() {
    let registry = Registry::new(Rules::default());
    let signed = fresh(NOW + 600);
    let mut refused = 0;
    for number in 0..10_000 {
        // The signature of most is not looked at, so it may be wrong.
        let event = if number < 10 {
            fresh(NOW + 600)
        } else {
            changed(&signed, |it| it.pubkey = PublicKey::from_byte_array(number_key(number)))
        };
        let second = u64::from(number / 10);
        match registry.publish(&event, network(1), at(second)) {
            Ok(()) => {}
            Err(refusal) => {
                assert_eq!(refusal, Refusal::NewKeys(5), "listing {number}");
                refused += 1;
            }
        }
    }
    assert_eq!((refused, registry.size().listings), (9995, 5));
    assert_eq!(registry.publish(&fresh(NOW + 600), network(2), at(1000)), Ok(()));
}

fn number_key(number: u32) -> [u8; 32] {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

#[test]
fn ten_thousand_listings_of_one_key_are_refused_beyond_its_few() {
    let registry = Registry::new(Rules { events_per_second: 1_000_000, ..Rules::default() });
    let key = MarketKey::random();
    let signed = named(&key, "0", NOW);
    let mut stored = 0;
    for number in 0..10_000 {
        let event = match number {
            0..20 => named(&key, &number.to_string(), NOW),
            // As above.
            _ => changed(&signed, |it| {
                it.id = EventId::from_slice(&number_key(number)).expect("an id");
                it.tags = named_tags(&signed, number);
            }),
        };
        match registry.publish(&event, network(1), at(0)) {
            Ok(()) => stored += 1,
            Err(refusal) => assert_eq!(refusal, Refusal::KeyFull(16, LISTING)),
        }
    }
    assert_eq!((stored, registry.size().listings), (16, 16));
}

fn named_tags(event: &Event, number: u32) -> Tags {
    let tags = event.tags.iter().map(|tag| match tag.kind() {
        "d" => Tag::custom("d", [number.to_string()]),
        _ => tag.clone(),
    });
    Tags::from_list(tags.collect())
}

#[test]
fn a_key_that_is_known_publishes_on_when_its_network_has_no_new_keys_left() {
    let registry = Registry::new(Rules { keys_per_network: 1, ..Rules::default() });
    let key = MarketKey::random();
    let publish = |event: &Event, second| registry.publish(event, network(1), at(second));
    assert_eq!(publish(&listed(&key, "DE", "1 sat/GiB", NOW), 0), Ok(()));
    assert_eq!(publish(&fresh(NOW), 1), Err(Refusal::NewKeys(1)));
    assert_eq!(publish(&listed(&key, "DE", "2 sat/GiB", NOW + 2), 2), Ok(()));
    let withdrawn = sign_deletion(&key, "weir", NOW + 3);
    assert_eq!(publish(&withdrawn, 3), Ok(()));
    assert_eq!(registry.size().listings, 0);
    assert_eq!(publish(&listed(&key, "DE", "2 sat/GiB", NOW + 4), 4), Ok(()), "it comes back");
}

#[test]
fn a_forged_listing_is_refused_and_costs_no_new_key() {
    let registry = Registry::new(Rules { keys_per_network: 1, ..Rules::default() });
    let (mine, other) = (fresh(NOW), fresh(NOW));
    let forged = [
        changed(&mine, |it| it.sig = other.sig),
        changed(&mine, |it| it.id = other.id),
        changed(&mine, |it| it.content = "x".into()),
    ];
    for event in forged {
        assert_eq!(registry.publish(&event, network(1), at(0)), Err(Refusal::Signature));
    }
    assert_eq!(registry.publish(&mine, network(1), at(0)), Ok(()));
    let text = registry.metrics().encode(registry.size()).expect("text");
    for line in [
        "weir_registry_events_refused_total{reason=\"signature\"} 3",
        "weir_registry_events_refused_total{reason=\"new_keys\"} 0",
        "weir_registry_events_stored_total 1",
        "weir_registry_listings 1",
    ] {
        assert!(text.lines().any(|is| is == line), "no {line} in {text}");
    }
}

#[test]
fn a_letter_costs_no_new_key_and_is_not_copied() {
    let registry = Registry::new(Rules { keys_per_network: 1, ..Rules::default() });
    let letter = || event(&Keys::generate(), SEALED, &[&["p", "node"]], NOW);
    for _ in 0..10 {
        assert_eq!(registry.publish(&letter(), network(1), at(0)), Ok(()));
    }
    let mut allowance = PeerAllowance::default();
    assert_eq!(registry.copy(&letter(), &mut allowance, at(0)), Err(Refusal::Kind(SEALED)));
}

#[test]
fn what_would_be_refused_is_not_copied_and_a_peer_cannot_fill_the_registry() {
    let capacity = Capacity { events: 4, bytes: 1 << 20 };
    let registry = Registry::new(Rules { capacity, ..Rules::default() });
    let mut allowance = PeerAllowance::default();
    let mut copy = |event: &Event, seconds| registry.copy(event, &mut allowance, at(seconds));
    let forged = changed(&fresh(NOW), |it| it.content = "x".into());
    assert_eq!(copy(&forged, 0), Err(Refusal::Signature));
    assert_eq!(copy(&event(&Keys::generate(), 1, &[], NOW), 0), Err(Refusal::Kind(1)));
    assert_eq!(copy(&fresh(NOW - 7200), 0), Ok(()), "an older one than clients may publish");
    assert_eq!(copy(&event(&Keys::generate(), REPORT, &[], NOW), 0), Ok(()));
    assert_eq!(copy(&fresh(NOW), 0), Err(Refusal::PeerKeys));
    assert_eq!(copy(&fresh(NOW + DAY), DAY), Ok(()), "the next day");
}

#[test]
fn subscribers_hear_of_new_events_and_of_a_hidden_listing_once_it_is_shown() {
    for dial_back in [false, true] {
        let registry = Registry::new(Rules { dial_back, ..Rules::default() });
        let mut live = registry.subscribe();
        let event = fresh(NOW);
        let id = event.id.to_bytes();
        assert_eq!(registry.publish(&event, network(1), at(0)), Ok(()));
        assert_eq!(live.try_recv().is_ok(), !dial_back);
        assert_eq!(registry.listings(NOW).is_empty(), dial_back);
        registry.show(&id);
        assert_eq!(live.try_recv().is_ok(), dial_back);
        assert_eq!(registry.listings(NOW).len(), 1);
    }
}

/// A watcher's word about an exit.
fn attested(watcher: &MarketKey, exit: &Event, reason: Reason, at: u64) -> Event {
    let exit = Address::of(exit).expect("a listing");
    sign_attestation(watcher, &Attestation::new(exit, reason), at)
}

#[test]
fn attestations_are_about_listed_exits_and_the_newest_of_each_watcher_stays() {
    let registry = Registry::new(Rules::default());
    let (exit, stranger) = (fresh(NOW), fresh(NOW));
    assert_eq!(registry.publish(&exit, network(1), at(0)), Ok(()));
    let watchers = [MarketKey::random(), MarketKey::random()];
    let publish = |event: &Event, second| registry.publish(event, network(2), at(second));
    let unknown = attested(&watchers[0], &stranger, Reason::Ok, NOW);
    assert_eq!(publish(&unknown, 0), Err(Refusal::UnknownExit));
    for watcher in &watchers {
        assert_eq!(publish(&attested(watcher, &exit, Reason::Ok, NOW), 0), Ok(()));
    }
    let newer = attested(&watchers[0], &exit, Reason::NoHandshake, NOW + 1);
    assert_eq!(publish(&newer, 1), Ok(()));
    let older = attested(&watchers[0], &exit, Reason::WrongExit, NOW);
    assert_eq!(publish(&older, 2), Err(Refusal::Older));
    let future = attested(&watchers[0], &exit, Reason::Ok, NOW + 3600);
    assert!(matches!(publish(&future, 2), Err(Refusal::Future(_))));

    let subject = Address::of(&exit).expect("a listing").to_string();
    let wanted = Wanted {
        kinds: Some([ATTESTATION].into()),
        tags: vec![(b'd', [subject].into())],
        limit: 10,
        ..Wanted::default()
    };
    let found = registry.query(std::slice::from_ref(&wanted), NOW + 2);
    let ids: Vec<_> = found.iter().map(|record| record.id).collect();
    assert_eq!((found.len(), ids[0]), (2, newer.id.to_bytes()));
    let one = Wanted { authors: Some([watchers[1].public().to_bytes()].into()), ..wanted.clone() };
    assert_eq!(registry.query(&[one], NOW + 2).len(), 1);
    assert!(registry.query(&[wanted], NOW + 4 * DAY).is_empty(), "they have expired");
    registry.expire(NOW + 4 * DAY);
    assert_eq!(registry.size().events, 0);
}

#[test]
fn a_network_has_a_rate_of_attestations_and_a_peers_are_taken_before_their_exits() {
    let registry = Registry::new(Rules { events_per_second: 1_000_000, ..Rules::default() });
    let exit = fresh(NOW);
    assert_eq!(registry.publish(&exit, network(1), at(0)), Ok(()));
    let watcher = MarketKey::random();
    let mut stored = 0;
    for number in 0..300 {
        let event = attested(&watcher, &exit, Reason::Ok, NOW + number);
        match registry.publish(&event, network(2), at(0)) {
            Ok(()) => stored += 1,
            Err(refusal) => assert_eq!(refusal, Refusal::Attestations),
        }
    }
    assert_eq!((stored, registry.size().events), (256, 2));
    let stranger = attested(&watcher, &fresh(NOW), Reason::Ok, NOW);
    assert_eq!(registry.copy(&stranger, &mut PeerAllowance::default(), at(0)), Ok(()));
}
