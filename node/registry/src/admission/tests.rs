use nostr::key::Keys;
use weir_market::{event::Refused, key::MarketKey, testing::listing};

use super::*;
use crate::testing::{NOW, deletion, event, listed};

const DAY: u64 = 24 * 3600;

fn published(event: &Event) -> Result<u64, Refusal> {
    judge(event, 0, Origin::Published, NOW)
}

fn copied(event: &Event) -> Result<u64, Refusal> {
    judge(event, 0, Origin::Copied, NOW)
}

/// A listing with these tags beside those that it needs.
fn with(tags: &[&[&str]], created_at: u64) -> Event {
    let needed: [&[&str]; 5] = [
        &["d", "weir"],
        &["t", "europa-protocol"],
        &["t", "wireguard"],
        &["price", "100", "sat", "GiB"],
        &["payment", "voucher"],
    ];
    event(&Keys::generate(), LISTING, &[&needed[..], tags].concat(), created_at)
}

#[test]
fn a_listing_of_weirs_is_kept_until_it_expires() {
    let listing = listed(&MarketKey::random(), "DE", "200 sat/GiB", NOW);
    assert_eq!(published(&listing), Ok(NOW + weir_market::event::LIFETIME));
}

#[test]
fn a_listing_expires_within_a_day() {
    let expires = |at: u64| published(&with(&[&["expiration", &at.to_string()]], NOW));
    assert_eq!(expires(NOW + DAY), Ok(NOW + DAY));
    assert_eq!(expires(NOW + DAY + 1), Err(Refusal::LateExpiration(DAY + 1)));
    assert_eq!(expires(NOW), Err(Refusal::Expired));
    assert_eq!(published(&with(&[], NOW)), Err(Refusal::NoExpiration));
    assert_eq!(published(&with(&[&["expiration", "soon"]], NOW)), Err(Refusal::NoExpiration));
}

#[test]
fn the_clock_of_who_publishes_is_right_within_a_quarter_of_an_hour() {
    let until = (NOW + 3600).to_string();
    let at = |created_at| with(&[&["expiration", &until]], created_at);
    assert_eq!(published(&at(NOW - 900)), Ok(NOW + 3600));
    assert_eq!(published(&at(NOW - 901)), Err(Refusal::Old(901, 900)));
    assert_eq!(published(&at(NOW + 900)), Ok(NOW + 3600));
    assert_eq!(published(&at(NOW + 901)), Err(Refusal::Future(901)));
    assert_eq!(copied(&at(NOW - 901)), Ok(NOW + 3600), "a peer has older ones");
    assert_eq!(copied(&at(NOW - DAY - 1)), Err(Refusal::Old(DAY + 1, DAY)));
    assert_eq!(copied(&at(NOW + 901)), Err(Refusal::Future(901)));
}

#[test]
fn only_some_kinds_are_stored() {
    for kind in [0, 1, 7, 30078, 65535] {
        assert_eq!(published(&event(&Keys::generate(), kind, &[], NOW)), Err(Refusal::Kind(kind)));
    }
    let keys = Keys::generate();
    assert_eq!(published(&deletion(&keys, "weir", NOW)), Ok(NOW + DAY));
    let about: &[&str] = &["d", "30402:00:weir"];
    for kind in [CURATION, REPORT] {
        assert_eq!(published(&event(&keys, kind, &[about], NOW)), Ok(NOW + 7 * DAY));
        let soon = ["expiration", &(NOW + 60).to_string()].map(str::to_owned);
        let soon: Vec<&str> = soon.iter().map(String::as_str).collect();
        assert_eq!(published(&event(&keys, kind, &[about, &soon], NOW)), Ok(NOW + 60));
    }
}

#[test]
fn an_attestation_is_about_a_listing_has_a_reason_and_is_kept_for_three_days() {
    let attested = |d: &str, reason: &str, more: &[&str]| {
        let tags: [&[&str]; 3] = [&["d", d], &["reach", reason], more];
        published(&event(&Keys::generate(), ATTESTATION, &tags, NOW))
    };
    let exit = format!("30402:{}:weir", Keys::generate().public_key().to_hex());
    let none: &[&str] = &["x"];
    assert_eq!(attested(&exit, "ok", none), Ok(NOW + 3 * DAY));
    let at = |at: u64| ["expiration".to_owned(), at.to_string()];
    let (soon, late) = (at(NOW + 60), at(NOW + 30 * DAY));
    assert_eq!(attested(&exit, "no-handshake", &[&soon[0], &soon[1]]), Ok(NOW + 60));
    assert_eq!(attested(&exit, "ok", &[&late[0], &late[1]]), Ok(NOW + 3 * DAY));
    let refused = |why| Err(Refusal::Attestation(why));
    assert_eq!(attested("30402:00:weir", "ok", none), refused(Refused::Subject));
    assert_eq!(attested(&exit, "wonderful", none), refused(Refused::Reason));
    let future =
        event(&Keys::generate(), ATTESTATION, &[&["d", &exit], &["reach", "ok"]], NOW + 901);
    assert_eq!(published(&future), Err(Refusal::Future(901)));
    let old = event(&Keys::generate(), ATTESTATION, &[&["d", &exit], &["reach", "ok"]], NOW - 7200);
    assert_eq!(published(&old), Err(Refusal::Old(7200, 900)));
    assert_eq!(copied(&old), Ok(NOW - 7200 + 3 * DAY));
}

#[test]
fn a_letter_has_one_recipient_and_a_time_that_is_wrong_on_purpose() {
    let letter = |tags: &[&[&str]], created_at| {
        published(&event(&Keys::generate(), SEALED, tags, created_at))
    };
    let to: &[&str] = &["p", "aa"];
    assert_eq!(letter(&[to], NOW - MAX_LETTER_AGE), Ok(NOW + LETTER_LIFE));
    assert!(matches!(letter(&[to], NOW - MAX_LETTER_AGE - 1), Err(Refusal::Old(..))));
    assert_eq!(letter(&[], NOW), Err(Refusal::Recipient));
    assert_eq!(letter(&[to, to], NOW), Err(Refusal::Recipient));
}

#[test]
fn what_is_too_large_or_useless_is_refused() {
    let until = (NOW + 3600).to_string();
    let expiration: &[&str] = &["expiration", &until];
    let long = "x".repeat(8192);
    let found = published(&with(&[expiration, &["x", &long]], NOW));
    assert!(matches!(found, Err(Refusal::Size(bytes)) if bytes > 8192), "{found:?}");
    let many: Vec<&[&str]> = std::iter::repeat_n(expiration, MAX_TAGS).collect();
    assert_eq!(published(&with(&many, NOW)), Err(Refusal::Tags(MAX_TAGS + 5)));
    let bare = event(&Keys::generate(), LISTING, &[expiration], NOW);
    assert_eq!(published(&bare), Err(Refusal::Listing(Refused::Topic)));
    let of_others = event(&Keys::generate(), DELETION, &[&["a", "30402:00:weir"]], NOW);
    assert_eq!(published(&of_others), Err(Refusal::DeletesNothing));
}

#[test]
fn proof_of_work_is_demanded_of_listings_alone() {
    let key = MarketKey::random();
    let worked = |bits| {
        let event =
            weir_market::event::sign_listing(&key, &listing("DE", "1 sat/GiB", 1), NOW, bits);
        judge(&event, 8, Origin::Published, NOW)
    };
    assert!(worked(8).is_ok());
    assert_eq!(worked(0), Err(Refusal::Work(0, 8)));
    let deletion = deletion(&Keys::generate(), "weir", NOW);
    assert!(judge(&deletion, 8, Origin::Published, NOW).is_ok());
}

#[test]
fn every_refusal_has_a_prefix_that_programs_know_and_a_sentence() {
    let known = ["duplicate", "invalid", "rate-limited", "pow", "restricted", "blocked"];
    let all = [
        Refusal::Duplicate,
        Refusal::Older,
        Refusal::Deleted,
        Refusal::Form("x".into()),
        Refusal::Size(9000),
        Refusal::Tags(200),
        Refusal::Kind(1),
        Refusal::Signature,
        Refusal::Old(1000, 900),
        Refusal::Future(1000),
        Refusal::Expired,
        Refusal::NoExpiration,
        Refusal::LateExpiration(90_000),
        Refusal::Listing(Refused::Price),
        Refusal::Attestation(Refused::Subject),
        Refusal::UnknownExit,
        Refusal::Recipient,
        Refusal::DeletesNothing,
        Refusal::Work(0, 8),
        Refusal::KeyFull(16, LISTING),
        Refusal::NewKeys(5),
        Refusal::TooFast,
        Refusal::Letters,
        Refusal::Attestations,
        Refusal::Full,
        Refusal::PeerKeys,
    ];
    assert_eq!(all.each_ref().map(Refusal::word), Refusal::WORDS);
    for refusal in all {
        assert!(known.contains(&refusal.prefix()), "{refusal:?}");
        assert!(refusal.message().starts_with(&format!("{}: ", refusal.prefix())));
        assert!(refusal.to_string().contains(' '), "{refusal}");
    }
}
