//! What a registry makes of what strangers send.

use std::{net::IpAddr, sync::OnceLock};

use nostr::{filter::Filter, message::RelayMessage};
use weir_registry::{
    exits::{self, ExitsQuery},
    filter::Wanted,
    network::Network,
    registry::{Now, Registry, Rules},
    relay::{Answer, Client, Session, event},
    testing::{NOW, some},
};

fn now() -> Now {
    Now { unix: NOW, tick: 1 << 40 }
}

fn network() -> Network {
    IpAddr::from([192, 0, 2, 1]).into()
}

/// A registry with some events of most kinds.
fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let rules = Rules { keys_per_network: 1000, events_per_second: 10_000, ..Rules::default() };
        let registry = Registry::new(rules);
        for event in some() {
            registry.publish(event, network(), now()).expect("it is good");
        }
        registry
    })
}

/// A message is answered in the relay's own words, to a peer too. Nothing that is not signed is stored.
pub fn relay(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for is_peer in [false, true] {
        let client = Client { network: network(), is_peer };
        let mut session = Session::new(client);
        // Twice: the second may depend on what the first has opened.
        for _ in 0..2 {
            let messages = match session.take(&text, registry(), now()) {
                None => Vec::new(),
                Some(Answer::Message(text) | Answer::Refused(text) | Answer::Bye(text)) => {
                    vec![text]
                }
                Some(Answer::Stored { subscription, events }) => {
                    events.iter().take(3).map(|record| event(&subscription, record)).collect()
                }
            };
            for message in messages {
                let read = RelayMessage::from_json(&message);
                assert!(read.is_ok(), "{message} is no message of a relay");
            }
        }
    }
    assert_eq!(registry().all().len(), some().len(), "something forged is stored");
}

/// The indexes find what a search through all events finds.
pub fn filters(bytes: &[u8]) {
    let Ok(filter) = Filter::from_json(bytes) else { return };
    let Ok(wanted) = Wanted::read(&filter) else { return };
    let all = registry().all();
    let plain = all.iter().filter(|record| wanted.matches(record)).take(wanted.limit);
    let plain: Vec<_> = plain.map(|record| record.id).collect();
    let found = registry().query(&[wanted], NOW);
    assert_eq!(found.iter().map(|record| record.id).collect::<Vec<_>>(), plain);
}

/// A query is read again from its own link, and its answer has no more rows than it wants.
pub fn queries(bytes: &[u8]) {
    match ExitsQuery::parse(&String::from_utf8_lossy(bytes)) {
        Ok(query) => {
            let again = ExitsQuery::parse(&query.from_row(query.offset)).expect("its own link");
            assert_eq!(again, query);
            let found = exits::select(registry().listings(NOW), &query);
            let answer = exits::answer(&found, &query);
            assert!(answer.exits.len() <= query.limit && answer.total <= some().len());
        }
        Err(error) => assert!(error.to_string().len() < 512),
    }
}
