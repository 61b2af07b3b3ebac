use base64::{Engine as _, engine::general_purpose::STANDARD};
use nostr::event::Event;
use proptest::prelude::*;
use weir_wireguard::keys::{self, PrivateKey};

use super::{letter::*, *};
use crate::{key::MarketKey, listing::Price};

const NOW: u64 = 1_800_000_000;

fn price() -> Price {
    "100 sat/GiB".parse().expect("a price")
}

fn offer(exit: &MarketKey) -> Offer {
    Offer {
        server: "exit.example.net".into(),
        exit: exit.public(),
        listing: "weir".into(),
        price: Some(price()),
    }
}

fn order() -> Order {
    let client_key = PrivateKey::random().public();
    Order { client_key, payment: Payment::Token("cashuBabc".into()) }
}

fn check(header: &str, exit: &MarketKey, now: u64) -> Result<(), Refusal> {
    let servers = ["other.example.net".to_owned(), "exit.example.net".to_owned()];
    let prices = [price()];
    let expected = Expected { servers: &servers, exit: exit.public(), prices: &prices, now };
    let authorization = Authorization::read(Some(header))?;
    authorization.check(&expected)?;
    authorization.verify()
}

/// An authorization with these tags in place of its own, signed for each of them.
fn with(exit: &MarketKey, change: impl FnOnce(&mut Vec<Vec<String>>)) -> String {
    let key = BuyerKey::random();
    let header = offer(exit).authorize(&key, NOW);
    let json = STANDARD.decode(&header[6..]).expect("base64");
    let mut event: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let mut tags: Vec<Vec<String>> = serde_json::from_value(event["tags"].take()).expect("tags");
    change(&mut tags);
    let tags: Vec<_> =
        tags.into_iter().map(|tag| nostr::event::Tag::parse(tag).expect("a tag")).collect();
    let tags = nostr::event::Tags::from_list(tags);
    let (kind, at) =
        (nostr::event::Kind::from(AUTHORIZATION), nostr::types::Timestamp::from_secs(NOW));
    let id = nostr::event::EventId::compute(&key.public(), &at, &kind, &tags, "");
    let signature = key.0.sign_schnorr(id.as_bytes());
    let event = Event::new(id, key.public(), at, kind, tags, "", signature);
    format!("Nostr {}", STANDARD.encode(event.as_json()))
}

fn set(kind: &'static str, value: &str) -> impl FnOnce(&mut Vec<Vec<String>>) {
    let value = value.to_owned();
    move |tags| {
        let tag = tags.iter_mut().find(|tag| tag[0] == kind).expect("there");
        tag[1] = value;
    }
}

#[test]
fn an_authorization_is_read_as_it_was_made_and_counts_for_a_time() {
    let exit = MarketKey::random();
    let header = offer(&exit).authorize(&BuyerKey::random(), NOW);
    assert_eq!(check(&header, &exit, NOW), Ok(()));
    assert_eq!(check(&header, &exit, NOW + 299), Ok(()));
    let late = check(&header, &exit, NOW + 300).expect_err("late");
    assert_eq!((late.status, late.reason), (401, Reason::ExpiredAuth));
    let other = check(&header, &MarketKey::random(), NOW).expect_err("another exit's");
    assert_eq!((other.status, other.reason), (400, Reason::BadRequest));
}

/// As the protocol's own program reads a header: any case of the scheme, spaces around.
#[test]
fn headers_are_read_as_the_protocols_own_parser_reads_them() {
    let exit = MarketKey::random();
    let header = offer(&exit).authorize(&BuyerKey::random(), NOW);
    let text = &header[6..];
    for good in [
        format!("nostr {text}"),
        format!("  NOSTR   {text}  "),
        format!("Nostr {}", text.trim_end_matches('=')),
    ] {
        assert_eq!(check(&good, &exit, NOW), Ok(()), "{good}");
    }
    let not_json = format!("Nostr {}", STANDARD.encode("rubbish"));
    let array = format!("Nostr {}", STANDARD.encode("[]"));
    for bad in ["", "Nostr", "Nostr ", "Bearer abc", "Nostr ???", &not_json, &array] {
        let refused = check(bad, &exit, NOW).expect_err(bad);
        assert_eq!((refused.status, refused.reason), (401, Reason::BadRequest), "{bad}");
    }
    assert_eq!(Authorization::read(None).expect_err("none").status, 401);
    let long = format!("Nostr {}", "A".repeat(MAX_HEADER));
    assert_eq!(Authorization::read(Some(&long)).expect_err("long").status, 401);
}

/// The first `t` and `server` count, the last `expiration` that is a number, any `a` and `price`.
#[test]
fn tags_are_read_as_the_protocols_own_parser_reads_them() {
    let exit = MarketKey::random();
    let add = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        move |tags: &mut Vec<Vec<String>>| tags.push(words)
    };
    for (what, header) in [
        ("a second t", with(&exit, add(&["t", "other"]))),
        ("a second server", with(&exit, add(&["server", "other"]))),
        ("a second listing", with(&exit, add(&["a", "30402:00:x"]))),
        ("a second price", with(&exit, add(&["price", "1", "sat", "GiB"]))),
        ("words for an expiration", with(&exit, add(&["expiration", "soon"]))),
        ("another form of the price", with(&exit, set("price", "100.0"))),
        ("other tags", with(&exit, add(&["client", "x"]))),
    ] {
        assert_eq!(check(&header, &exit, NOW), Ok(()), "{what}");
    }
    let past = (NOW - 1).to_string();
    for (what, header, reason) in [
        ("t", with(&exit, set("t", "upload")), Reason::BadRequest),
        ("server", with(&exit, set("server", "evil.example.net")), Reason::BadRequest),
        ("a", with(&exit, set("a", "30402:abc:weir")), Reason::BadRequest),
        (
            "kind of a",
            {
                let address = format!("30403:{}:weir", exit.public().to_hex());
                with(&exit, set("a", &address))
            },
            Reason::BadRequest,
        ),
        ("expiration", with(&exit, add(&["expiration", &past])), Reason::ExpiredAuth),
        (
            "no expiration",
            with(&exit, |tags| tags.retain(|tag| tag[0] != "expiration")),
            Reason::BadRequest,
        ),
        (
            "no server",
            with(&exit, |tags| tags.retain(|tag| tag[0] != "server")),
            Reason::BadRequest,
        ),
        ("price", with(&exit, set("price", "99")), Reason::AmountMismatch),
        (
            "no price",
            with(&exit, |tags| tags.retain(|tag| tag[0] != "price")),
            Reason::AmountMismatch,
        ),
        (
            "tags",
            with(&exit, |tags| tags.extend(vec![vec!["x".into(), "y".into()]; 40])),
            Reason::BadRequest,
        ),
    ] {
        assert_eq!(check(&header, &exit, NOW).expect_err(what).reason, reason, "{what}");
    }
}

#[test]
fn a_forged_authorization_is_refused() {
    let exit = MarketKey::random();
    let header = offer(&exit).authorize(&BuyerKey::random(), NOW);
    let json = String::from_utf8(STANDARD.decode(&header[6..]).expect("it")).expect("text");
    let later = json.replace(&(NOW + 300).to_string(), &(NOW + 900).to_string());
    assert_ne!(later, json);
    let forged = check(&format!("Nostr {}", STANDARD.encode(later)), &exit, NOW);
    let forged = forged.expect_err("forged");
    assert_eq!((forged.status, forged.reason), (401, Reason::BadRequest));
}

#[test]
fn an_order_is_read_as_it_was_written() {
    let order = order();
    let read = Order::read(order.body().as_bytes(), order.payment.clone());
    assert_eq!(read, Ok(order.clone()));
    assert_eq!(order.payment.header(), ("x-cashu", "cashuBabc"));
    let key = keys::print_public(&order.client_key);
    let more = format!(r#" {{"protocol":"wireguard","client_pubkey":"{key}","client_id":"x"}}"#);
    assert_eq!(Order::read(more.as_bytes(), order.payment.clone()), Ok(order.clone()));
    let openvpn = format!(r#"{{"protocol":"openvpn","client_pubkey":"{key}"}}"#);
    let array = format!(r#"["wireguard","{key}"]"#);
    let long = format!("{more}{}", " ".repeat(MAX_BODY));
    for bad in [
        "",
        "{}",
        "null",
        r#"{"protocol":"wireguard"}"#,
        r#"{"protocol":"wireguard","client_pubkey":"abc"}"#,
        r#"{"protocol":"wireguard","client_pubkey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}"#,
        &openvpn,
        &array,
        &long,
    ] {
        let refused = Order::read(bad.as_bytes(), order.payment.clone()).expect_err(bad);
        assert_eq!((refused.status, refused.reason), (400, Reason::BadRequest), "{bad}");
    }
}

#[test]
fn there_is_one_payment() {
    let of = Payment::from_headers;
    assert_eq!(of(Some(" cashuA1 "), None), Ok(Payment::Token("cashuA1".into())));
    assert_eq!(of(None, Some("c0de")), Ok(Payment::Voucher("c0de".into())));
    let reason = |token, voucher| of(token, voucher).expect_err("refused").reason;
    assert_eq!(reason(None, None), Reason::BadRequest);
    assert_eq!(reason(Some("cashuA1"), Some("c0de")), Reason::BadRequest);
    assert_eq!(reason(Some("creqA1"), None), Reason::InvalidToken);
    let long = format!("cashuB{}", "a".repeat(MAX_PAYMENT));
    assert_eq!(reason(Some(&long), None), Reason::InvalidToken);
    assert_eq!(reason(None, Some("")), Reason::InvalidVoucher);
    let shown = format!("{:?}", Payment::Token("cashuA1".into()));
    assert!(!shown.contains("A1"), "{shown}");
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    let sold = Answer::Sold(Sold {
        config: "[Interface]\n".into(),
        expires_at: Some(NOW),
        bytes: Some(1 << 30),
    });
    assert_eq!(Answer::from_json(sold.to_json().as_bytes(), 200), Ok(sold));
    for reason in Reason::ALL {
        assert_eq!(Reason::from_word(reason.as_str()), reason);
        let refused = Answer::Refused(Refusal::new(reason, "why"));
        let json = refused.to_json();
        assert_eq!(Answer::from_json(json.as_bytes(), refused.status()), Ok(refused));
    }
    // As the protocol's own program answers.
    let foreign =
        br#"{"status":"ok","config":"[Interface]\nPrivateKey = <PASTE>","expires_at":null}"#;
    let Ok(Answer::Sold(sold)) = Answer::from_json(foreign, 200) else { panic!("not sold") };
    assert_eq!((sold.expires_at, sold.bytes), (None, None));
    let foreign = br#"{"status":"error","reason":"no-cashu-in-listing"}"#;
    let Ok(Answer::Refused(refused)) = Answer::from_json(foreign, 503) else { panic!("sold") };
    assert_eq!(refused.reason, Reason::Other("no-cashu-in-listing".into()));
    let evil = "{\"status\":\"error\",\"reason\":\"policy\",\"message\":\"a\\u001b[2Jb\"}";
    let Ok(Answer::Refused(refused)) = Answer::from_json(evil.as_bytes(), 400) else {
        panic!("sold")
    };
    assert_eq!(refused.message, "a[2Jb");
    for bad in ["", "[]", "{}", r#"{"status":"ok"}"#, r#"{"status":"error"}"#, r#"{"status":1}"#] {
        assert_eq!(Answer::from_json(bad.as_bytes(), 200), Err(NotAnAnswer::Form), "{bad}");
    }
    let long = vec![b' '; MAX_ANSWER + 1];
    assert_eq!(Answer::from_json(&long, 200), Err(NotAnAnswer::TooLong));
}

/// The document of the protocol's own specification.
#[test]
fn the_protocols_own_description_is_read() {
    let text = r#"{
        "software": "europa-node", "version": "0.5.0", "spec_version": "vpn-marketplace/1",
        "pubkey": "ab", "endpoint": "vpn.operator.example", "title": "...", "summary": "...",
        "protocols": ["wireguard"],
        "region": {"country": "US", "sub": "US-FL", "geohash": "dhvr5"},
        "prices": [{"amount": 100, "currency": "sat", "unit": "hour"}],
        "policies": ["no-logs"], "payment_methods": ["lightning", "cashu"],
        "mints": ["https://mint.example.com"],
        "cashu_purchase_endpoints": ["https://vpn.operator.example/purchase"],
        "lightning_endpoints": ["https://vpn.operator.example/lnurlp"]
    }"#;
    let info: Info = serde_json::from_str(text).expect("read");
    assert_eq!(info.prices[0].price(), "100 sat/hour".parse().ok());
    assert_eq!(info.region.country.as_deref(), Some("US"));
    let again = serde_json::to_string(&info).expect("written");
    assert_eq!(serde_json::from_str::<Info>(&again).expect("read"), info);
}

#[test]
fn a_letter_is_for_its_exit_alone_and_its_answer_for_the_buyer_alone() {
    let (exit, other) = (MarketKey::random(), MarketKey::random());
    let order = order();
    let key = BuyerKey::random();
    let sent = SentOrder::seal(key.clone(), &offer(&exit), &order, NOW).expect("sealed");
    assert!(!sent.letter.as_json().contains("cashuB"));
    assert_ne!(sent.letter.pubkey, sent.public(), "the envelope does not tell the buyer");
    let not_ours = OpenedOrder::open(&other, &sent.letter).expect_err("another's");
    assert_eq!(not_ours, NotALetter::NotOurs);
    let opened = OpenedOrder::open(&exit, &sent.letter).expect("opened");
    assert_eq!(opened.buyer, sent.public());
    assert_eq!(opened.order(), Ok(order));
    let (servers, prices) = ([exit.public().to_hex()], [price()]);
    let expected = Expected { servers: &servers, exit: exit.public(), prices: &prices, now: NOW };
    assert_eq!(opened.check(&expected), Ok(()));
    let late = opened.check(&Expected { now: NOW + 600, ..expected.clone() });
    assert_eq!(late.expect_err("late").reason, Reason::ExpiredAuth);

    let answer = Answer::Refused(Refusal::new(Reason::Policy, "no"));
    let letter = opened.answer(&exit, &answer, NOW).expect("sealed");
    assert_eq!(sent.open(&letter), Ok(answer.clone()));
    let forged = opened.answer(&other, &answer, NOW).expect("sealed");
    assert_eq!(sent.open(&forged), Err(NotALetter::Content), "not the exit's");
    let second = SentOrder::seal(key, &offer(&exit), &self::order(), NOW).expect("sealed");
    assert_eq!(second.open(&letter), Err(NotALetter::Content), "of another order");
}

#[test]
fn a_damaged_letter_is_refused() {
    let exit = MarketKey::random();
    let sent = SentOrder::seal(BuyerKey::random(), &offer(&exit), &order(), NOW).expect("sealed");
    let mut damaged = sent.letter.clone();
    damaged.content.replace_range(40..41, "!");
    assert_eq!(OpenedOrder::open(&exit, &damaged).expect_err("damaged"), NotALetter::Sealed);
    let mut long = sent.letter;
    long.content = "a".repeat(MAX_LETTER + 1);
    assert_eq!(OpenedOrder::open(&exit, &long).expect_err("long"), NotALetter::TooLong);
}

#[test]
fn the_longest_payment_fits_into_a_letter() {
    let exit = MarketKey::random();
    let payment = Payment::Token(format!("cashuB{}", "a".repeat(MAX_PAYMENT - 6)));
    let order = Order { payment, ..order() };
    let sent = SentOrder::seal(BuyerKey::random(), &offer(&exit), &order, NOW).expect("sealed");
    let opened = OpenedOrder::open(&exit, &sent.letter).expect("opened");
    assert_eq!(opened.order(), Ok(order));
}

proptest! {
    #[test]
    fn nothing_makes_the_readers_panic(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(Authorization::read(Some(&text)));
        drop(Order::read(&bytes, Payment::Voucher("x".into())));
        drop(Answer::from_json(&bytes, 200));
        drop(serde_json::from_str::<Info>(&text));
    }
}
