use proptest::prelude::*;

use super::*;
use crate::{listing::State, testing::listing};

const NOW: u64 = 1_800_000_000;

fn signed() -> Event {
    sign_listing(&MarketKey::random(), &listing("DE", "200 sat/GiB", 1), NOW, 0)
}

/// A listing with these tags changed, signed again by the same words but another key.
fn with(change: impl FnOnce(&mut Vec<Vec<String>>)) -> Event {
    let mut all: Vec<Vec<String>> =
        signed().tags.iter().map(|tag| tag.as_slice().to_vec()).collect();
    change(&mut all);
    let tags = all.into_iter().map(|tag| Tag::parse(tag).expect("a tag")).collect();
    sign(&MarketKey::random(), LISTING, tags, NOW, 0)
}

fn without(kind: &str) -> Event {
    with(|tags| tags.retain(|tag| tag[0] != kind))
}

fn read(event: &Event) -> Result<SignedListing, Refused> {
    SignedListing::from_json(&event.as_json(), NOW)
}

#[test]
fn a_listing_is_read_as_it_was_written() {
    let event = signed();
    let read = read(&event).expect("a listing");
    assert_eq!(read.listing, listing("DE", "200 sat/GiB", 1));
    assert_eq!(read.expires(), NOW + LIFETIME);
    assert_eq!(read.address(), Address::of(&event).expect("it can be replaced"));
    let mut sold = listing("DE", "200 sat/GiB", 1);
    sold.state = State::Sold;
    let event = sign_listing(&MarketKey::random(), &sold, NOW, 0);
    assert_eq!(tags::read(&event.tags), Ok(sold));
}

#[test]
fn what_was_changed_after_it_was_signed_is_refused() {
    let json = signed().as_json();
    for (from, to) in
        [("\"DE\"", "\"FR\""), ("\"200\"", "\"1\""), ("\"content\":\"\"", "\"content\":\"x\"")]
    {
        let forged = json.replacen(from, to, 1);
        assert_ne!(forged, json);
        assert_eq!(
            SignedListing::from_json(&forged, NOW).err(),
            Some(Refused::Signature),
            "{from}"
        );
    }
    // Another key's signature over the same identifier.
    let (mine, mut other) = (signed(), signed());
    other.sig = mine.sig;
    assert_eq!(read(&other).err(), Some(Refused::Signature));
}

#[test]
fn a_listing_counts_for_a_time() {
    let event = signed();
    let at = |now| SignedListing::from_json(&event.as_json(), now).err();
    assert_eq!(at(NOW - MAX_AHEAD), None);
    assert_eq!(at(NOW - MAX_AHEAD - 1), Some(Refused::Future));
    assert_eq!(at(NOW + LIFETIME - 1), None);
    assert_eq!(at(NOW + LIFETIME), Some(Refused::Expired));
    let forever = with(|tags| {
        tags.retain(|tag| tag[0] != "expiration");
        tags.push(["expiration", "99999999999"].map(str::to_owned).into());
    });
    assert_eq!(expires(&forever), NOW + MAX_AGE);
    assert_eq!(expires(&without("expiration")), NOW + MAX_AGE);
}

#[test]
fn what_the_protocol_demands_is_demanded() {
    let long = |tags: &mut Vec<Vec<String>>| tags.push(vec!["x".into(), "y".repeat(9000)]);
    for (event, why) in [
        (without("d"), Refused::Identifier),
        (without("price"), Refused::Price),
        (without("payment"), Refused::Payment),
        (without("t"), Refused::Topic),
        (
            with(|tags| tags.retain(|tag| tag.get(1).is_none_or(|it| it != "wireguard"))),
            Refused::Protocol,
        ),
        (with(long), Refused::Size),
        (sign_deletion(&MarketKey::random(), "weir", NOW), Refused::Kind),
    ] {
        assert_eq!(read(&event).err(), Some(why));
    }
    assert_eq!(SignedListing::from_json("{}", NOW).err(), Some(Refused::Form));
}

/// The rules of the protocol's own parser: either topic, unknown methods kept, prices with an unknown
/// unit left out, countries in words.
#[test]
fn listings_of_others_are_read() {
    let event = with(|tags| {
        let mine = ["l", "L", "basis", "location", "payment", "price", "wg", "reach", "ip-type"];
        tags.retain(|tag| {
            !mine.contains(&tag[0].as_str()) && tag.get(1).is_none_or(|it| it != "europa-protocol")
        });
        for words in [
            &["location", "US-FL", "Florida"][..],
            &["payment", "lightning", "op@example.com", "lnurl-pay"],
            &["payment", "barter", "goats"],
            &["payment"],
            &["price", "100", "sat", "GiB"],
            &["price", "100", "sat", "fortnight"],
            &["price", "-1", "sat", "GiB"],
            &["g", "dhvr5"],
        ] {
            tags.push(words.iter().map(|word| (*word).to_owned()).collect());
        }
    });
    let listing = read(&event).expect("a listing").listing;
    assert_eq!(listing.country.map(|it| it.to_string()).as_deref(), Some("US"));
    let methods: Vec<_> = listing.payments.iter().map(|it| it.method()).collect();
    assert_eq!(methods, ["lightning", "barter"]);
    assert_eq!(listing.prices.len(), 1);
    assert!(listing.endpoints.is_empty());
}

#[test]
fn titles_of_others_cannot_steer_a_terminal() {
    let event = with(|tags| {
        for tag in tags.iter_mut().filter(|tag| tag[0] == "title") {
            tag[1] = format!("a\u{1b}[2J\u{202e}\n{}", "b".repeat(500));
        }
    });
    let title = read(&event).expect("a listing").listing.title;
    assert!(title.starts_with("a[2Jbbb") && title.chars().count() == 80, "{title:?}");
}

#[test]
fn a_deletion_deletes_only_what_is_its_own_keys() {
    let (mine, other) = (MarketKey::random(), MarketKey::random());
    let event = sign_deletion(&mine, "weir", NOW);
    let what = deleted(&event);
    assert_eq!(what.addresses.len(), 1);
    let theirs = format!("{LISTING}:{}:weir", other.public().to_hex());
    let event = sign(&mine, DELETION, vec![tag(["a", &theirs])], NOW, 0);
    assert_eq!(deleted(&event), Deleted::default());
}

#[test]
fn work_is_what_was_committed_to() {
    let event = sign_listing(&MarketKey::random(), &listing("DE", "1 sat/GiB", 1), NOW, 8);
    assert!(event.verify().is_ok() && event.id.check_pow(8));
    assert_eq!(work(&event), 8);
    assert_eq!(work(&signed()), 0, "chance does not count");
}

proptest! {
    #[test]
    fn nothing_that_strangers_send_makes_the_reader_panic(
        words in proptest::collection::vec(proptest::collection::vec(".{0,12}", 1..6), 0..12),
        at in 0_usize..30,
    ) {
        let event = with(|tags| {
            let at = at.min(tags.len());
            tags.splice(at..at, words);
        });
        drop(read(&event));
        drop(deleted(&event));
        let _ = (work(&event), expires(&event), Address::of(&event));
    }
}
