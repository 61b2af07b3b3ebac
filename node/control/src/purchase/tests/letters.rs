//! Orders in letters, without and with a relay.

use futures_util::{SinkExt as _, StreamExt as _};
use nostr::event::Event;
use serde_json::{Value, json};
use tokio_tungstenite::{accept_async, tungstenite::Message};
use weir_market::{client::Connector, purchase::letter::SentOrder};

use super::*;
use crate::purchase::letters::Letters;

fn seal(exit: &Exit, order: &Order) -> SentOrder {
    SentOrder::seal(BuyerKey::random(), &exit.offer, order, unix_now()).expect("sealed")
}

#[tokio::test]
async fn a_letter_buys_what_a_request_buys_and_the_same_again_is_answered_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    let letters = Letters::new(exit.shop.clone());
    let order = paid(exit.mint.token(16));
    let sent = seal(&exit, &order);
    let answer = letters.answer(sent.letter.clone()).await.expect("answered");
    let first = sold(sent.open(&answer).expect("the answer"));
    assert_eq!(first.bytes, Some(128 << 20));
    assert!(!answer.as_json().contains("Interface"), "it is sealed");
    let again = letters.answer(sent.letter.clone()).await.expect("answered");
    assert_eq!(sold(sent.open(&again).expect("the answer")), first);
    assert_eq!(sold(exit.buy(&order).await), first, "over HTTP too");
    assert_eq!(exit.rig.sessions.len(), 1);
    let stolen = seal(&exit, &self::order(order.payment));
    let answer = letters.answer(stolen.letter.clone()).await.expect("answered");
    let Ok(Answer::Refused(refused)) = stolen.open(&answer) else { panic!("sold") };
    assert_eq!(refused.reason, Reason::DoubleSpent);
}

#[tokio::test]
async fn junk_letters_get_no_answer_and_no_slot() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    let letters = Letters::new(exit.shop.clone());
    let other = Offer { exit: MarketKey::random().public(), ..exit.offer.clone() };
    let order = paid("cashuBrubbish");
    let sealed = |offer: &Offer, now| {
        SentOrder::seal(BuyerKey::random(), offer, &order, now).expect("sealed").letter
    };
    let good = sealed(&exit.offer, unix_now());
    let not_ours = sealed(&other, unix_now());
    let expired = sealed(&exit.offer, unix_now() - 3600);
    let mut damaged = good.clone();
    damaged.content.replace_range(40..41, "!");
    for junk in [not_ours, expired, damaged.clone()] {
        assert_eq!(letters.answer(junk).await, None);
    }
    // 10,000 at once: most of them are not even opened.
    let mut answered = 0;
    for number in 0..10_000 {
        let letter = if number % 2 == 0 { damaged.clone() } else { good.clone() };
        answered += u32::from(letters.answer(letter).await.is_some());
    }
    let counts = exit.shop.counts.now();
    assert_eq!(counts.dropped_letters + u64::from(answered), 10_003);
    assert!(answered < 5000, "{answered}");
    assert_eq!(exit.rig.sessions.len(), 0);
}

/// A relay with one subscriber and one letter, which returns what the subscriber publishes.
async fn relay(listener: TcpListener, letter: Event) -> (Value, Event) {
    let (stream, _) = listener.accept().await.expect("accepted");
    let mut socket = accept_async(stream).await.expect("a WebSocket");
    let mut filter = Value::Null;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message.expect("received") else { continue };
        let mut words: Vec<Value> = serde_json::from_str(text.as_str()).expect("JSON");
        match words[0].as_str() {
            Some("REQ") => {
                filter = words.pop().expect("a filter");
                for text in ["rubbish", "[]", r#"["EVENT","weir",{}]"#, r#"["EOSE","weir"]"#] {
                    socket.send(Message::text(text)).await.expect("sent");
                }
                let event: Value = serde_json::from_str(&letter.as_json()).expect("JSON");
                let event = json!(["EVENT", "weir", event]).to_string();
                socket.send(Message::text(event)).await.expect("sent");
            }
            Some("EVENT") => {
                let event = serde_json::from_value(words.pop().expect("it")).expect("an event");
                return (filter, event);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it hung up")
}

#[tokio::test]
async fn letters_come_through_a_relay_and_a_broken_line_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let (stop, stopped) = watch::channel(false);
    let letters = Letters::new(exit.shop.clone());
    let relays = vec![url.parse().expect("a URL")];
    let serving = tokio::spawn(letters.serve(
        relays,
        Connector::new(Resolver::inside().for_relays(), None),
        stopped,
    ));
    // The first connection breaks at once.
    drop(listener.accept().await.expect("accepted"));
    let sent = seal(&exit, &paid(exit.mint.token(16)));
    let (filter, answer) = relay(listener, sent.letter.clone()).await;
    assert_eq!(filter["#p"], json!([exit.offer.exit.to_hex()]));
    assert_eq!(filter["kinds"], json!([1059]));
    sold(sent.open(&answer).expect("the answer"));
    stop.send_replace(true);
    serving.await.expect("ended");
}
