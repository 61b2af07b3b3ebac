use proptest::prelude::*;

use super::*;
use crate::{attestation::Share, event::sign_listing, testing::listing};

const NOW: u64 = 1_800_000_000;

fn exit() -> Address {
    let key = MarketKey::for_tests(7).public().to_bytes();
    Address { kind: LISTING, key, identifier: "weir".into() }
}

/// An attestation that says everything.
fn full() -> Attestation {
    Attestation {
        exit: exit(),
        reason: Reason::Ok,
        seen: Place {
            country: "DE".parse().ok(),
            asn: Some(3320),
            ip_type: Some(IpType::Residential),
        },
        handshake_ms: Some(84),
        rtt_ms: Some(23),
        down: Some(412),
        up: Some(388),
        is_price_honoured: Some(true),
        billed: Some(Share::ONE),
        uptime: Some(Uptime { share: Share::from_thousandths(997), days: 7 }),
    }
}

fn signed(attestation: &Attestation) -> Event {
    sign_attestation(&MarketKey::for_tests(9), attestation, NOW)
}

/// An attestation with these tags, signed.
fn with(tags: &[&[&str]], created_at: u64) -> Event {
    let tags = tags.iter().map(|words| Tag::parse(words.iter().copied()).expect("a tag")).collect();
    sign(&MarketKey::random(), ATTESTATION, tags, created_at, 0)
}

fn read_json(event: &Event) -> Result<SignedAttestation, Refused> {
    SignedAttestation::from_json(&event.as_json(), NOW)
}

#[test]
fn an_attestation_is_read_as_it_was_written() {
    let read = read_json(&signed(&full())).expect("an attestation");
    assert_eq!(read.attestation, full());
    assert_eq!(read.watcher(), MarketKey::for_tests(9).public().into());
    assert_eq!(read.expires(), NOW + ATTESTATION_LIFETIME);
    let words: Vec<_> = read.event.tags.iter().map(|tag| tag.as_slice().join(" ")).collect();
    for tag in [
        "seen DE AS3320 residential",
        "reach ok",
        "rtt 23",
        "down 412",
        "up 388",
        "uptime 0.997 7d",
        "price-honoured yes",
        "billed 1.000",
    ] {
        assert!(words.iter().any(|words| words == tag), "no {tag} in {words:?}");
    }
    for reason in Reason::ALL {
        let bare = Attestation::new(exit(), reason);
        assert_eq!(read_json(&signed(&bare)).expect("one").attestation, bare);
    }
}

#[test]
fn it_must_name_a_listing_and_a_reason() {
    let exit = exit().to_string();
    let (d, ok): (&[&str], &[&str]) = (&["d", &exit], &["reach", "ok"]);
    assert!(read_json(&with(&[d, ok], NOW)).is_ok());
    assert_eq!(read_json(&with(&[ok], NOW)).err(), Some(Refused::Subject));
    assert_eq!(read_json(&with(&[d], NOW)).err(), Some(Refused::Reason));
    let other: &[&str] = &["reach", "splendid"];
    assert_eq!(read_json(&with(&[d, other], NOW)).err(), Some(Refused::Reason));
    let long = format!("{exit}{}", "x".repeat(MAX_IDENTIFIER));
    let upper = exit.to_uppercase().replace("WEIR", "weir");
    assert_ne!(upper, exit);
    let zero = format!("0{exit}");
    let (key, _) = exit.rsplit_once(':').expect("a name");
    let nameless = format!("{key}:");
    let other = exit.replace("30402", "30403");
    for subject in ["", "30402", &long, &upper, &zero, &nameless, &other] {
        let event = with(&[&["d", subject], ok], NOW);
        assert_eq!(read_json(&event).err(), Some(Refused::Subject), "{subject}");
    }
    let listing = sign_listing(&MarketKey::random(), &listing("DE", "1 sat/GiB", 1), NOW, 0);
    assert_eq!(read_json(&listing).err(), Some(Refused::Kind));
}

#[test]
fn what_is_malformed_in_it_is_left_out() {
    let subject = exit().to_string();
    let event = with(
        &[
            &["d", &subject],
            &["reach", "no-handshake"],
            &["seen", "Germany", "3320", "palace"],
            &["rtt", "-1"],
            &["handshake", "600001"],
            &["down", "4.5"],
            &["up", ""],
            &["price-honoured", "maybe"],
            &["billed", "1.0000"],
            &["uptime", "0.997"],
            &["seen", "DE"],
        ],
        NOW,
    );
    let read = read_json(&event).expect("an attestation").attestation;
    assert_eq!(read, Attestation::new(exit(), Reason::NoHandshake));
}

#[test]
fn an_attestation_counts_for_a_time_and_a_change_breaks_its_signature() {
    let event = signed(&full());
    let at = |now| SignedAttestation::from_json(&event.as_json(), now).err();
    assert_eq!(at(NOW - MAX_AHEAD), None);
    assert_eq!(at(NOW - MAX_AHEAD - 1), Some(Refused::Future));
    assert_eq!(at(NOW + ATTESTATION_LIFETIME - 1), None);
    assert_eq!(at(NOW + ATTESTATION_LIFETIME), Some(Refused::Expired));
    let exit = exit().to_string();
    let forever = with(&[&["d", &exit], &["reach", "ok"], &["expiration", "99999999999"]], NOW);
    let read = read_json(&forever).expect("an attestation");
    assert_eq!(read.expires(), NOW + ATTESTATION_LIFETIME);
    let forged = event.as_json().replacen("\"ok\"", "\"refused\"", 1);
    assert_eq!(SignedAttestation::from_json(&forged, NOW).err(), Some(Refused::Signature));
    let long = format!("{}{}", event.as_json(), " ".repeat(MAX_EVENT_BYTES));
    assert_eq!(SignedAttestation::from_json(&long, NOW).err(), Some(Refused::Size));
    assert_eq!(SignedAttestation::from_json("[]", NOW).err(), Some(Refused::Form));
}

prop_compose! {
    fn any_place()(
        country in proptest::option::of("[A-Z]{2}"),
        asn in any::<Option<u32>>(),
        ip_type in proptest::option::of(proptest::sample::select(IpType::WORDS.to_vec())),
    ) -> Place {
        Place {
            country: country.and_then(|it| it.parse().ok()),
            asn,
            ip_type: ip_type.and_then(IpType::from_word),
        }
    }
}

prop_compose! {
    fn any_attestation()(
        key in any::<[u8; 32]>(),
        identifier in "[a-z0-9:]{1,40}",
        reason in proptest::sample::select(Reason::ALL.to_vec()),
        seen in any_place(),
        times in proptest::array::uniform2(proptest::option::of(0..=MAX_MILLISECONDS)),
        rates in proptest::array::uniform2(proptest::option::of(0..=MAX_MBITS)),
        is_price_honoured in any::<Option<bool>>(),
        billed in any::<Option<u32>>(),
        uptime in proptest::option::of((any::<u32>(), 1..=MAX_DAYS)),
    ) -> Attestation {
        Attestation {
            exit: Address { kind: LISTING, key, identifier },
            reason,
            seen,
            handshake_ms: times[0],
            rtt_ms: times[1],
            down: rates[0],
            up: rates[1],
            is_price_honoured,
            billed: billed.map(Share::from_thousandths),
            uptime: uptime.map(|(share, days)| {
                Uptime { share: Share::from_thousandths(share), days }
            }),
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_attested_is_read_as_it_was_written(attestation in any_attestation()) {
        // A listing's key is a point of the curve; others name no exit.
        let tags = Tags::from_list(write(&attestation));
        match read(&tags) {
            Ok(read) => prop_assert_eq!(read, attestation),
            Err(refused) => {
                prop_assert_eq!(refused, Refused::Subject);
                prop_assert!(Address::parse(&attestation.exit.to_string()).is_none());
            }
        }
    }

    #[test]
    fn nothing_that_strangers_send_makes_the_reader_panic(
        words in proptest::collection::vec(proptest::collection::vec(".{0,12}", 1..6), 0..12),
        at in 0_usize..12,
    ) {
        let mut all: Vec<Vec<String>> =
            signed(&full()).tags.iter().map(|tag| tag.as_slice().to_vec()).collect();
        let at = at.min(all.len());
        all.splice(at..at, words);
        let tags = all.into_iter().filter_map(|words| Tag::parse(words).ok()).collect();
        let event = sign(&MarketKey::for_tests(3), ATTESTATION, tags, NOW, 0);
        if let Ok(read) = read_json(&event) {
            prop_assert!(read.expires() <= NOW + ATTESTATION_LIFETIME);
            prop_assert_eq!(read.attestation.exit.kind, LISTING);
        }
    }
}
