//! Events for tests.
#![expect(clippy::expect_used, reason = "it is for tests")]

use std::sync::OnceLock;

use nostr::{
    event::{Event, EventId, Kind, Tag, Tags},
    key::Keys,
    types::Timestamp,
};
use weir_market::{
    attestation::{Attestation, Reason},
    event::{Address, DELETION, LISTING, REPORT, SEALED, sign_attestation, sign_listing},
    key::MarketKey,
    listing::Listing,
    testing::listing,
};

/// The tests' present, in seconds since 1970.
pub const NOW: u64 = 1_800_000_000;

/// Any event.
///
/// # Panics
///
/// When a tag is empty.
#[must_use]
pub fn event(keys: &Keys, kind: u16, tags: &[&[&str]], created_at: u64) -> Event {
    let tags: Vec<Tag> =
        tags.iter().map(|words| Tag::parse(words.iter().copied()).expect("a tag")).collect();
    let (public, time, kind) =
        (keys.public_key(), Timestamp::from_secs(created_at), Kind::from(kind));
    let id = EventId::compute(&public, &time, &kind, &Tags::from_list(tags.clone()), "");
    let signature = keys.sign_schnorr(id.as_bytes());
    Event::new(id, public, time, kind, tags, "", signature)
}

/// An event that was changed after it was signed.
#[must_use]
pub fn changed(event: &Event, change: impl FnOnce(&mut Event)) -> Event {
    let mut event = event.clone();
    change(&mut event);
    event
}

/// A listing of an exit in this country, by this key.
#[must_use]
pub fn listed(key: &MarketKey, country: &str, price: &str, now: u64) -> Event {
    sign_listing(key, &listing(country, price, 1), now, 0)
}

/// The same with another name, so that it replaces no other.
#[must_use]
pub fn named(key: &MarketKey, id: &str, now: u64) -> Event {
    let listing = Listing { id: id.to_owned(), ..listing("DE", "200 sat/GiB", 1) };
    sign_listing(key, &listing, now, 0)
}

/// The deletion of an address.
#[must_use]
pub fn deletion(keys: &Keys, identifier: &str, created_at: u64) -> Event {
    let address = format!("{LISTING}:{}:{identifier}", keys.public_key().to_hex());
    event(keys, DELETION, &[&["a", &address]], created_at)
}

/// Some events of several kinds, the same in each run of a program.
///
/// # Panics
///
/// When a tag is empty.
#[must_use]
pub fn some() -> &'static [Event] {
    static EVENTS: OnceLock<Vec<Event>> = OnceLock::new();
    EVENTS.get_or_init(|| {
        let key = MarketKey::random();
        let exit = Address::of(&named(&key, "0", NOW)).expect("a listing");
        let named = (0..5).map(|age| named(&key, &age.to_string(), NOW - age));
        let listed =
            ["DE", "FR", "SE"].map(|it| listed(&MarketKey::random(), it, "7 sat/GiB", NOW));
        let keys = Keys::generate();
        let attested =
            sign_attestation(&MarketKey::random(), &Attestation::new(exit, Reason::Ok), NOW - 2);
        let others = [
            attested,
            event(&keys, REPORT, &[&["t", "wireguard"]], NOW - 3),
            event(&keys, SEALED, &[&["p", "node"]], NOW - 4),
            deletion(&keys, "weir", NOW - 5),
        ];
        named.chain(listed).chain(others).collect()
    })
}
