//! What strangers send to buy, and what an exit answers.

use std::{str, sync::OnceLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use weir_market::{
    key::MarketKey,
    listing::Price,
    purchase::{Answer, Authorization, Expected, Info, Order, Payment, letter::OpenedOrder},
};

fn exit() -> &'static MarketKey {
    static EXIT: OnceLock<MarketKey> = OnceLock::new();
    EXIT.get_or_init(MarketKey::random)
}

/// An event of an authorization, the body of an order, a letter, an answer and a description: no
/// text makes a reader panic, and what is read is read again as it is written.
pub fn orders(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        authorization(text);
        letter(text);
        let headers = Payment::from_headers(Some(text), None);
        if let Ok(payment) = &headers {
            let (_, value) = payment.header();
            assert_eq!(Payment::from_headers(Some(value), None), headers);
        }
        drop(Payment::from_headers(None, Some(text)));
        if let Ok(info) = serde_json::from_str::<Info>(text) {
            let again = serde_json::to_string(&info).expect("JSON");
            assert_eq!(serde_json::from_str::<Info>(&again).expect("read"), info);
            drop(info.prices.iter().map(|price| price.price()).collect::<Vec<_>>());
        }
    }
    let payment = || Payment::Voucher("code".into());
    if let Ok(order) = Order::read(bytes, payment()) {
        assert_eq!(Order::read(order.body().as_bytes(), payment()), Ok(order));
    }
    if let Ok(answer) = Answer::from_json(bytes, 400) {
        let json = answer.to_json();
        // An escaped letter takes more room than the letter.
        if json.len() <= weir_market::purchase::MAX_ANSWER {
            assert_eq!(Answer::from_json(json.as_bytes(), 400), Ok(answer));
        }
    }
}

fn authorization(text: &str) {
    drop(Authorization::read(Some(text)));
    let header = format!("Nostr {}", STANDARD.encode(text));
    let Ok(read) = Authorization::read(Some(&header)) else { return };
    let prices: [Price; 1] = ["100 sat/GiB".parse().expect("a price")];
    let servers = ["exit.example.net".to_owned()];
    let expected = Expected { servers: &servers, exit: exit().public(), prices: &prices, now: 7 };
    // The exit's key is new in every run, so nobody can have signed for it.
    assert!(read.check(&expected).is_err());
    drop(read.verify());
}

fn letter(text: &str) {
    let Ok(letter) = serde_json::from_str(text) else { return };
    assert!(OpenedOrder::open(exit(), &letter).is_err(), "nobody has sealed for this key");
}
