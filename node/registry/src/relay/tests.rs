use std::net::IpAddr;

use negentropy::{Negentropy, NegentropyStorageVector};
use nostr::{
    filter::Filter,
    message::{RelayMessage, SubscriptionId},
};
use weir_market::key::MarketKey;

use super::*;
use crate::{
    registry::Rules,
    testing::{NOW, listed, named},
};

fn now() -> Now {
    Now { unix: NOW, tick: 1 << 40 }
}

fn registry() -> Registry {
    Registry::new(Rules { keys_per_network: 100, events_per_second: 1000, ..Rules::default() })
}

fn session(is_peer: bool) -> Session {
    let network = IpAddr::from([192, 0, 2, 1]).into();
    Session::new(Client { network, is_peer })
}

/// The text of a single message.
fn text(answer: Option<Answer>) -> String {
    match answer {
        Some(Answer::Message(text) | Answer::Refused(text) | Answer::Bye(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn request(id: &str, filter: Filter) -> String {
    ClientMessage::req(SubscriptionId::new(id), vec![filter]).as_json()
}

#[test]
fn an_event_is_answered_by_ok_and_a_reason() {
    let (registry, mut session) = (registry(), session(false));
    let event = listed(&MarketKey::random(), "DE", "1 sat/GiB", NOW);
    let id = event.id.to_hex();
    let message = ClientMessage::event(event).as_json();
    let said = text(session.take(&message, &registry, now()));
    assert_eq!(said, format!("[\"OK\",\"{id}\",true,\"\"]"));
    let said = text(session.take(&message, &registry, now()));
    assert_eq!(said, format!("[\"OK\",\"{id}\",true,\"duplicate: this event is stored already\"]"));
    let forged = message.replace("\"DE\"", "\"FR\"");
    let said = text(session.take(&forged, &registry, now()));
    assert!(said.starts_with(&format!("[\"OK\",\"{id}\",true,\"duplicate: ")), "{said}");
    let broken = message.replace("\"created_at\"", "\"made_at\"");
    let said = text(session.take(&broken, &registry, now()));
    assert!(said.starts_with(&format!("[\"OK\",\"{id}\",false,\"invalid: ")), "{said}");
}

#[test]
fn a_subscription_gets_what_is_stored_and_what_comes() {
    let (registry, mut session) = (registry(), session(false));
    let publish = |country: &str| {
        let event = listed(&MarketKey::random(), country, "1 sat/GiB", NOW);
        let network = IpAddr::from([192, 0, 2, 2]).into();
        assert_eq!(registry.publish(&event, network, now()), Ok(()));
        event
    };
    let mut live = registry.subscribe();
    let (german, _) = (publish("DE"), publish("FR"));
    let tag = nostr::filter::SingleLetterTag::LOWERCASE_L;
    let filter = Filter::new().kind(30402.into()).custom_tag(tag, "DE");
    match session.take(&request("\"x", filter), &registry, now()) {
        Some(Answer::Stored { subscription, events }) => {
            assert_eq!((subscription.as_str(), events.len()), ("\"x", 1));
            let message = event(&subscription, &events[0]);
            let message = RelayMessage::from_json(message).expect("a message");
            let RelayMessage::Event { event, .. } = message else { panic!("{message:?}") };
            assert_eq!(event.as_ref(), &german);
        }
        other => panic!("{other:?}"),
    }
    let heard: Vec<usize> =
        (0..2).map(|_| session.events(&live.try_recv().expect("an event")).count()).collect();
    assert_eq!(heard, [1, 0]);
    assert_eq!(session.take("[\"CLOSE\",\"\\\"x\"]", &registry, now()), None);
    publish("DE");
    assert_eq!(session.events(&live.try_recv().expect("an event")).count(), 0);
}

#[test]
fn subscriptions_have_limits_with_words() {
    let (registry, mut session) = (registry(), session(false));
    for number in 0..MAX_SUBSCRIPTIONS {
        let answer = session.take(&request(&number.to_string(), Filter::new()), &registry, now());
        assert!(matches!(answer, Some(Answer::Stored { .. })), "{answer:?}");
    }
    let one = Filter::new();
    let many = vec![one.clone(); 11];
    let many = ClientMessage::req(SubscriptionId::new("1"), many).as_json();
    let name = "x".repeat(60);
    let long = (0..1000).map(|number| format!("{name}{number}"));
    let tag = nostr::filter::SingleLetterTag::LOWERCASE_D;
    let long = Filter::new().custom_tags(tag, long);
    let values = Filter::new().kinds((0..1025).map(nostr::event::Kind::from));
    for (message, said) in [
        (request("one more", one.clone()), "[\"CLOSED\",\"one more\",\"rate-limited: "),
        (many, "[\"CLOSED\",\"1\",\"invalid: a subscription has at most 10 filters"),
        (request("1", values), "[\"CLOSED\",\"1\",\"invalid: a filter has at most 1024"),
        (request("1", long), "[\"CLOSED\",\"1\",\"rate-limited: the filters of this connection"),
        (request("1", Filter::new().search("x")), "[\"CLOSED\",\"1\",\"unsupported: "),
        (request(&"x".repeat(65), one), "[\"NOTICE\",\"invalid: "),
        ("[\"COUNT\",\"1\",{}]".to_owned(), "[\"CLOSED\",\"1\",\"unsupported: "),
        ("rubbish".to_owned(), "[\"NOTICE\",\"invalid: "),
        ("[\"HELLO\"]".to_owned(), "[\"NOTICE\",\"invalid: "),
        ("[]".to_owned(), "[\"NOTICE\",\"invalid: "),
    ] {
        let answer = text(session.take(&message, &registry, now()));
        assert!(answer.starts_with(said), "{answer}\n{said}");
    }
}

#[test]
fn who_asks_too_often_is_told_and_at_last_the_connection_ends() {
    let (registry, mut session) = (registry(), session(false));
    let message = request("x", Filter::new());
    let mut refused = 0;
    for _ in 0..300 {
        if let Some(Answer::Refused(text)) = session.take(&message, &registry, now()) {
            assert!(text.contains("rate-limited: this network asks too often"), "{text}");
            refused += 1;
        }
    }
    assert_eq!(refused, 100);
    let ended = (0..MAX_REFUSALS)
        .any(|_| matches!(session.take("rubbish", &registry, now()), Some(Answer::Bye(_))));
    assert!(ended);
}

/// Reconciles a set with the registry; returns what it lacks.
fn reconcile(session: &mut Session, registry: &Registry, filter: &Filter) -> Result<usize, String> {
    let mut set: Negentropy<'_, NegentropyStorageVector> =
        Negentropy::owned(vector(std::iter::empty()).expect("a set"), MAX_FRAME).expect("a set");
    let first = to_hex(&set.initiate().expect("a message"));
    let open = ClientMessage::neg_open(SubscriptionId::new("n"), filter.clone(), first);
    let mut answer = text(session.take(&open.as_json(), registry, now()));
    let mut need = Vec::new();
    loop {
        let message = RelayMessage::from_json(&answer).expect("a message");
        let RelayMessage::NegMsg { message, .. } = message else { return Err(answer) };
        let query = from_hex(&message).expect("hex");
        let next = set.reconcile_with_ids(&query, &mut Vec::new(), &mut need).expect("NIP-77");
        let Some(next) = next else { return Ok(need.len()) };
        let next = format!("[\"NEG-MSG\",\"n\",\"{}\"]", to_hex(&next));
        answer = text(session.take(&next, registry, now()));
    }
}

#[test]
fn only_listed_peers_reconcile() {
    let registry = registry();
    let key = MarketKey::random();
    for number in 0..10 {
        let event = named(&key, &number.to_string(), NOW - number);
        let network = IpAddr::from([192, 0, 2, 2]).into();
        assert_eq!(registry.publish(&event, network, now()), Ok(()));
    }
    let all = Filter::new().kind(30402.into());
    assert_eq!(reconcile(&mut session(true), &registry, &all), Ok(10));
    let some = all.clone().since((NOW - 3).into());
    assert_eq!(reconcile(&mut session(true), &registry, &some), Ok(4));
    let refused = reconcile(&mut session(false), &registry, &all).expect_err("refused");
    assert!(refused.starts_with("[\"NEG-ERR\",\"n\",\"restricted: "), "{refused}");
    let mut peer = session(true);
    for (message, said) in [
        ("[\"NEG-MSG\",\"n\",\"61\"]", "closed: "),
        ("[\"NEG-OPEN\",\"n\",{},\"xyz\"]", "invalid: "),
        ("[\"NEG-OPEN\",\"n\",{},\"70\"]", "invalid: "),
    ] {
        let answer = text(peer.take(message, &registry, now()));
        assert!(answer.starts_with(&format!("[\"NEG-ERR\",\"n\",\"{said}")), "{answer}");
    }
}
