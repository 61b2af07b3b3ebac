use nostr::{event::Event, filter::Filter, key::Keys};
use proptest::prelude::*;
use weir_market::{
    event::{ATTESTATION, REPORT},
    key::MarketKey,
};

use super::*;
use crate::testing::{NOW, deletion, event, listed, named};

const BIG: Capacity = Capacity { events: 1000, bytes: 1 << 30 };

fn record(event: &Event) -> Record {
    Record::new(event, NOW + 10_000)
}

fn put(store: &mut Store, event: &Event) -> Result<(), Refusal> {
    store.insert(record(event)).map(drop)
}

fn ids(store: &Store, filter: &Filter) -> Vec<[u8; 32]> {
    let wanted = Wanted::read(filter).expect("a filter");
    store.query(&[wanted], NOW).iter().map(|it| it.id).collect()
}

/// Whether nothing is left in any index.
fn is_clean(store: &Store) -> bool {
    let Store { ids, addresses, tombstones, ends, counts, hidden, .. } = store;
    ids.is_empty()
        && addresses.is_empty()
        && tombstones.is_empty()
        && ends.is_empty()
        && counts.is_empty()
        && hidden.is_empty()
        && store.index.all().next().is_none()
        && store.classes == [(0, 0); 4]
        && store.slots.iter().all(Option::is_none)
        && store.free.len() == store.slots.len()
}

#[test]
fn the_newest_listing_of_a_key_and_name_wins_in_any_order() {
    let key = MarketKey::random();
    let (old, new) =
        (listed(&key, "DE", "1 sat/GiB", NOW - 1), listed(&key, "FR", "1 sat/GiB", NOW));
    let mut store = Store::new(BIG);
    assert_eq!(put(&mut store, &old), Ok(()));
    assert_eq!(put(&mut store, &old), Err(Refusal::Duplicate));
    assert_eq!(put(&mut store, &new), Ok(()));
    assert_eq!(put(&mut store, &old), Err(Refusal::Older));
    assert_eq!(ids(&store, &Filter::new()), [new.id.to_bytes()]);
    assert_eq!((store.len(), store.listings()), (1, 1));
    assert_eq!(put(&mut store, &named(&key, "second", NOW)), Ok(()), "another name");
    assert_eq!(store.listings(), 2);
}

#[test]
fn of_two_listings_of_one_second_the_lower_identifier_wins() {
    let key = MarketKey::random();
    let (a, b) = (listed(&key, "DE", "1 sat/GiB", NOW), listed(&key, "FR", "1 sat/GiB", NOW));
    let (low, high) = if a.id < b.id { (&a, &b) } else { (&b, &a) };
    for order in [[low, high], [high, low]] {
        let mut store = Store::new(BIG);
        let results = order.map(|event| put(&mut store, event));
        assert_eq!(ids(&store, &Filter::new()), [low.id.to_bytes()], "{results:?}");
    }
}

#[test]
fn a_deletion_deletes_what_is_older_and_keeps_it_out() {
    let keys = Keys::generate();
    let listing = |time| event(&keys, LISTING, &[&["d", "weir"]], time);
    let mut store = Store::new(BIG);
    assert_eq!(put(&mut store, &listing(NOW)), Ok(()));
    assert_eq!(put(&mut store, &deletion(&keys, "other", NOW)), Ok(()));
    assert_eq!(store.listings(), 1, "another name");
    assert_eq!(put(&mut store, &deletion(&Keys::generate(), "weir", NOW)), Ok(()));
    assert_eq!(store.listings(), 1, "another key");
    assert_eq!(put(&mut store, &deletion(&keys, "weir", NOW)), Ok(()));
    assert_eq!(store.listings(), 0);
    assert_eq!(put(&mut store, &listing(NOW)), Err(Refusal::Deleted));
    assert_eq!(put(&mut store, &listing(NOW - 5)), Err(Refusal::Deleted));
    assert_eq!(put(&mut store, &listing(NOW + 1)), Ok(()), "it is listed again");
    assert_eq!(put(&mut store, &deletion(&keys, "weir", NOW - 1)), Ok(()));
    assert_eq!(store.listings(), 1, "an older deletion");
}

#[test]
fn a_deletion_by_identifier_is_for_its_own_key() {
    let (keys, other) = (Keys::generate(), Keys::generate());
    let report = event(&keys, REPORT, &[], NOW);
    let by = |keys: &Keys| event(keys, DELETION, &[&["e", &report.id.to_hex()]], NOW);
    let mut store = Store::new(BIG);
    assert_eq!(put(&mut store, &report), Ok(()));
    assert_eq!(put(&mut store, &by(&other)), Ok(()));
    assert!(store.contains(&report.id.to_bytes()));
    assert_eq!(put(&mut store, &by(&keys)), Ok(()));
    assert!(!store.contains(&report.id.to_bytes()));
    assert_eq!(put(&mut store, &report), Err(Refusal::Deleted));
}

#[test]
fn what_has_expired_is_not_served_and_leaves_nothing() {
    let mut store = Store::new(BIG);
    let keys = Keys::generate();
    let key = MarketKey::random();
    for event in [
        listed(&key, "DE", "1 sat/GiB", NOW),
        deletion(&keys, "weir", NOW),
        event(&keys, ATTESTATION, &[&["d", "x"], &["d", "x"], &["l", "DE"]], NOW),
        event(&keys, SEALED, &[&["p", "x"]], NOW),
    ] {
        assert_eq!(put(&mut store, &event), Ok(()));
    }
    let wanted = Wanted::read(&Filter::new()).expect("a filter");
    assert_eq!(store.query(std::slice::from_ref(&wanted), NOW + 9_999).len(), 3);
    assert!(store.query(&[wanted], NOW + 10_000).is_empty(), "before it is forgotten");
    assert_eq!(store.expire(NOW + 9_999), 0);
    assert_eq!(store.expire(NOW + 10_000), 4);
    assert!(is_clean(&store), "{store:?}");
}

#[test]
fn the_numbers_and_the_memory_have_bounds() {
    let mut store = Store::new(Capacity { events: 3, ..BIG });
    let listings = [(); 4].map(|()| listed(&MarketKey::random(), "DE", "1 sat/GiB", NOW));
    let done = listings.each_ref().map(|event| put(&mut store, event));
    assert_eq!(done, [Ok(()), Ok(()), Ok(()), Err(Refusal::Full)]);
    let attestation = |name: &str| event(&Keys::generate(), ATTESTATION, &[&["d", name]], NOW);
    for _ in 0..3 {
        assert_eq!(put(&mut store, &attestation("x")), Ok(()), "listings and others are apart");
    }
    assert_eq!(put(&mut store, &attestation("x")), Err(Refusal::Full));
    let keys = Keys::generate();
    assert_eq!(put(&mut store, &deletion(&keys, "x", NOW)), Ok(()), "a withdrawal has room");

    let cost = record(&listings[0]).cost();
    let mut store = Store::new(Capacity { bytes: 2 * cost + cost / 2, ..BIG });
    let done = listings.each_ref().map(|event| put(&mut store, event));
    assert_eq!(done, [Ok(()), Ok(()), Err(Refusal::Full), Err(Refusal::Full)]);
    assert!(store.bytes() <= 2 * cost + cost / 2);

    // Opinions leave half of the memory to listings.
    let mut store = Store::new(Capacity { bytes: 2 * cost, ..BIG });
    let opinions = (0..100).filter(|_| put(&mut store, &attestation("x")).is_ok()).count();
    assert!((1..100).contains(&opinions) && store.bytes() <= cost, "{opinions}");
    assert_eq!(put(&mut store, &listings[0]), Ok(()));
}

#[test]
fn a_key_has_a_few_listings() {
    let key = MarketKey::random();
    let mut store = Store::new(BIG);
    for number in 0..16 {
        assert_eq!(put(&mut store, &named(&key, &number.to_string(), NOW)), Ok(()));
    }
    let one_more = put(&mut store, &named(&key, "one more", NOW));
    assert_eq!(one_more, Err(Refusal::KeyFull(16, LISTING)));
    assert_eq!(put(&mut store, &named(&key, "3", NOW + 1)), Ok(()), "a newer version");
}

#[test]
fn a_new_letter_takes_the_place_of_the_oldest() {
    let mut store = Store::new(BIG);
    let letter = || event(&Keys::generate(), SEALED, &[&["p", "node"]], NOW);
    let first = letter();
    assert_eq!(store.insert(Record::new(&first, NOW + 1)).map(drop), Ok(()));
    for _ in 0..64 {
        assert_eq!(put(&mut store, &letter()), Ok(()));
    }
    assert_eq!(store.len(), 64);
    assert!(!store.contains(&first.id.to_bytes()));
}

#[test]
fn letters_are_served_only_to_who_names_the_recipient() {
    let mut store = Store::new(BIG);
    let letter = event(&Keys::generate(), SEALED, &[&["p", "aa"]], NOW);
    assert_eq!(put(&mut store, &letter), Ok(()));
    let sealed = Filter::new().kind(SEALED.into());
    for filter in [Filter::new(), sealed.clone(), Filter::new().id(letter.id)] {
        assert!(ids(&store, &filter).is_empty(), "{filter:?}");
    }
    let tag = nostr::filter::SingleLetterTag::LOWERCASE_P;
    assert_eq!(ids(&store, &sealed.custom_tag(tag, "aa")), [letter.id.to_bytes()]);
}

#[test]
fn a_hidden_listing_is_served_once_it_is_shown() {
    let mut store = Store::new(BIG);
    let event = listed(&MarketKey::random(), "DE", "1 sat/GiB", NOW);
    let id = event.id.to_bytes();
    assert_eq!(put(&mut store, &event), Ok(()));
    store.hide(id);
    assert!(ids(&store, &Filter::new()).is_empty() && store.served(NOW).next().is_none());
    assert_eq!(store.all().count(), 1);
    assert!(store.show(&id).is_some());
    assert_eq!(ids(&store, &Filter::new()), [id]);
    assert!(store.show(&id).is_none(), "it was shown before");
}

#[test]
fn answers_are_newest_first_and_as_long_as_was_asked() {
    let mut store = Store::new(BIG);
    let key = MarketKey::random();
    let events = [3, 1, 2, 0].map(|age| named(&key, &age.to_string(), NOW - age));
    for event in &events {
        assert_eq!(put(&mut store, event), Ok(()));
    }
    let of = |at: usize| events[at].id.to_bytes();
    assert_eq!(ids(&store, &Filter::new()), [of(3), of(1), of(2), of(0)]);
    assert_eq!(ids(&store, &Filter::new().limit(2)), [of(3), of(1)]);
    let page = Filter::new().limit(2).until((NOW - 1).into());
    assert_eq!(ids(&store, &page), [of(1), of(2)], "the next page");
    assert_eq!(ids(&store, &Filter::new().limit(0)), [[0; 32]; 0]);
}

/// What the filters of this module find, in the plainest way.
fn slow(records: &[Record], filter: &Filter) -> Vec<[u8; 32]> {
    let has = |record: &Record, letter: char, values: &BTreeSet<String>| {
        record.tags.iter().any(|(of, value)| char::from(*of) == letter && values.contains(&**value))
    };
    let mut found: Vec<&Record> = records
        .iter()
        .filter(|record| {
            let kind = |kinds: &BTreeSet<nostr::event::Kind>| {
                kinds.iter().any(|kind| kind.as_u16() == record.kind)
            };
            filter.kinds.as_ref().is_none_or(kind)
                && filter
                    .ids
                    .as_ref()
                    .is_none_or(|all| all.iter().any(|id| id.to_bytes() == record.id))
                && filter
                    .authors
                    .as_ref()
                    .is_none_or(|all| all.iter().any(|key| key.to_bytes() == record.key))
                && filter.since.is_none_or(|since| record.created_at >= since.as_secs())
                && filter.until.is_none_or(|until| record.created_at <= until.as_secs())
                && filter
                    .generic_tags
                    .iter()
                    .all(|(letter, values)| has(record, letter.as_char(), values))
        })
        .collect();
    found.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(a.id.cmp(&b.id)));
    found.iter().take(filter.limit.unwrap_or(500)).map(|record| record.id).collect()
}

const LETTERS: [&str; 3] = ["d", "t", "L"];

fn records() -> impl Strategy<Value = Vec<Record>> {
    let tags = proptest::collection::vec((0..LETTERS.len(), 0..3_u8), 0..4);
    let one = (any::<[u8; 32]>(), 0..3_u8, 0..4_usize, 0..6_u64, tags);
    let kinds = [LISTING, ATTESTATION, REPORT, DELETION];
    let record = one.prop_map(move |(id, key, kind, age, tags)| Record {
        id,
        key: [key; 32],
        kind: kinds[kind],
        created_at: NOW - age,
        until: NOW + 1,
        json: "{}".into(),
        tags: tags
            .iter()
            .map(|(letter, value)| (LETTERS[*letter].as_bytes()[0], value.to_string().into()))
            .collect(),
        summary: None,
    });
    proptest::collection::vec(record, 0..40)
}

fn filters() -> impl Strategy<Value = Filter> {
    let kinds = proptest::option::of(proptest::collection::vec(0..4_usize, 0..3));
    let tags = proptest::collection::vec(
        (0..LETTERS.len(), proptest::collection::vec(0..4_u8, 0..3)),
        0..3,
    );
    let times = (proptest::option::of(0..8_u64), proptest::option::of(0..8_u64));
    let limit = proptest::option::of(0..20_usize);
    (kinds, tags, times, limit).prop_map(|(kinds, tags, (since, until), limit)| {
        let all = [LISTING, ATTESTATION, REPORT, DELETION];
        let mut filter = Filter::new();
        filter.kinds = kinds.map(|some| some.iter().map(|at| all[*at].into()).collect());
        for (letter, values) in tags {
            let letter = LETTERS[letter].parse().expect("a letter");
            let values: BTreeSet<String> = values.iter().map(u8::to_string).collect();
            filter.generic_tags.insert(letter, values);
        }
        filter.since = since.map(|age| (NOW - age).into());
        filter.until = until.map(|age| (NOW - age).into());
        filter.limit = limit;
        filter
    })
}

proptest! {
    #[test]
    fn a_query_finds_what_the_plainest_search_finds(
        records in records(),
        mut filter in filters(),
        authors in proptest::option::of(proptest::collection::vec(0..4_u8, 0..3)),
        some_ids in proptest::option::of(proptest::collection::vec(any::<prop::sample::Index>(), 0..5)),
    ) {
        let mut store = Store::new(BIG);
        let stored: Vec<Record> =
            records.into_iter().filter(|it| store.insert(it.clone()).is_ok()).collect();
        let stored: Vec<Record> =
            stored.into_iter().filter(|it| store.contains(&it.id)).collect();
        filter.authors = authors.map(|some| {
            some.iter().map(|key| nostr::key::PublicKey::from_byte_array([*key; 32])).collect()
        });
        filter.ids = some_ids.map(|some| {
            let some = some.iter().filter(|_| !stored.is_empty());
            let some = some.map(|at| stored[at.index(stored.len())].id);
            some.filter_map(|id| nostr::event::EventId::from_slice(&id).ok()).collect()
        });
        prop_assert_eq!(ids(&store, &filter), slow(&stored, &filter));
        // What is removed leaves nothing behind.
        store.expire(NOW + 1);
        prop_assert!(is_clean(&store));
    }
}
