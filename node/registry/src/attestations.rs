//! What watchers say of one exit: the query of `GET /v1/attestations`, and the answer.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;
use serde_json::value::RawValue;
use weir_market::{
    attestation::{Attestation, WatcherKey},
    event::{ATTESTATION, LISTING, SignedAttestation},
};

use crate::{filter::Wanted, record::Record, registry::Registry};

/// The most attestations of an answer.
pub const MAX_ROWS: usize = 200;
/// The most watchers of a query.
const MAX_WATCHERS: usize = 16;
/// The longest query string, in bytes.
const MAX_QUERY: usize = 2048;

/// Why a query is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a query string.
    #[error("the query string is too long, or is not one")]
    Form,
    /// An unknown key.
    #[error("there is no parameter {0:?}: use exit and watcher")]
    Key(String),
    /// Not a key in hex.
    #[error("{0} must be a key: write its 64 hexadecimal digits")]
    Value(&'static str),
    /// Too many watchers.
    #[error("name at most {MAX_WATCHERS} watchers")]
    Watchers,
    /// The exit is missing.
    #[error("name an exit: exit=KEY")]
    Exit,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationsQuery {
    /// The key that signs the exit's listing.
    pub exit: [u8; 32],
    /// Only these watchers; empty: all.
    pub watchers: BTreeSet<[u8; 32]>,
}

impl AttestationsQuery {
    /// Reads a query string.
    ///
    /// # Errors
    ///
    /// When a parameter is unknown, missing, or has a value that is not one.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > MAX_QUERY {
            return Err(QueryError::Form);
        }
        let pairs: Vec<(String, String)> =
            serde_urlencoded::from_str(text).map_err(|_| QueryError::Form)?;
        let read = |name, value: &str| {
            // A watcher's key and an exit's are of one kind.
            let key = value.parse::<WatcherKey>();
            key.map(|key| *key.as_bytes()).map_err(|_| QueryError::Value(name))
        };
        let (mut exit, mut watchers) = (None, BTreeSet::new());
        for (name, value) in pairs {
            match name.as_str() {
                "exit" => exit = Some(read("exit", &value)?),
                "watcher" => {
                    for word in value.split(',').filter(|word| !word.is_empty()) {
                        watchers.insert(read("watcher", word)?);
                    }
                }
                _ => return Err(QueryError::Key(name.chars().take(64).collect())),
            }
        }
        if watchers.len() > MAX_WATCHERS {
            return Err(QueryError::Watchers);
        }
        Ok(Self { exit: exit.ok_or(QueryError::Exit)?, watchers })
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct AttestationsAnswer {
    /// The newest first.
    pub attestations: Vec<AttestationView>,
}

/// What one watcher says.
#[derive(Debug, Serialize)]
pub struct AttestationView {
    /// The watcher's key, in hex.
    pub watcher: String,
    /// When it was signed, in seconds since 1970.
    pub created_at: u64,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
    /// What it says.
    #[serde(flatten)]
    pub says: Attestation,
    /// The signed event.
    pub event: Box<RawValue>,
}

/// What watchers say of the exit, at `now`. The exit is one that is served.
#[must_use]
pub fn find(registry: &Registry, query: &AttestationsQuery, now: u64) -> AttestationsAnswer {
    let listings = Wanted {
        kinds: Some([LISTING].into()),
        authors: Some([query.exit].into()),
        limit: MAX_ROWS,
        ..Wanted::default()
    };
    let listings = registry.query(&[listings], now);
    let subjects = listings.iter().filter_map(|it| it.address()).map(|it| it.to_string());
    let wanted = Wanted {
        kinds: Some([ATTESTATION].into()),
        authors: (!query.watchers.is_empty()).then(|| query.watchers.clone()),
        tags: vec![(b'd', subjects.collect())],
        limit: MAX_ROWS,
        ..Wanted::default()
    };
    let found = registry.query(&[wanted], now);
    AttestationsAnswer { attestations: found.iter().filter_map(AttestationView::of).collect() }
}

impl AttestationView {
    fn of(record: &Arc<Record>) -> Option<Self> {
        let signed = SignedAttestation::read(record.event()?).ok()?;
        Some(Self {
            watcher: signed.watcher().to_string(),
            created_at: record.created_at,
            expires: record.until,
            says: signed.attestation,
            event: RawValue::from_string(record.json.to_string()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use weir_market::{
        attestation::Reason,
        event::{Address, sign_attestation},
        key::MarketKey,
    };

    use super::*;
    use crate::{
        registry::{Now, Rules},
        testing::{NOW, listed},
    };

    #[test]
    fn what_watchers_say_of_an_exit_is_found_by_its_key() {
        let registry = Registry::new(Rules::default());
        let now = Now { unix: NOW, tick: 1 << 40 };
        let publish = |event: &nostr::event::Event, network: u8| {
            let from = IpAddr::from([192, 0, network, 1]).into();
            assert_eq!(registry.publish(event, from, now), Ok(()));
        };
        let (one, two) = (MarketKey::random(), MarketKey::random());
        let watchers = [MarketKey::random(), MarketKey::random()];
        for key in [&one, &two] {
            let exit = listed(key, "DE", "1 sat/GiB", NOW);
            publish(&exit, 1);
            let exit = Address::of(&exit).expect("a listing");
            for watcher in &watchers {
                let says = Attestation::new(exit.clone(), Reason::NoHandshake);
                publish(&sign_attestation(watcher, &says, NOW), 2);
            }
        }
        let found = |text: String| {
            let query = AttestationsQuery::parse(&text).expect("a query");
            serde_json::to_value(find(&registry, &query, NOW)).expect("JSON")["attestations"]
                .clone()
        };
        let all = found(format!("exit={}", one.public().to_hex()));
        assert_eq!(all.as_array().map(Vec::len), Some(2));
        assert_eq!(all[0]["reason"], "no-handshake");
        assert!(all[0]["exit"].as_str().is_some_and(|it| it.contains(&one.public().to_hex())));
        let event = nostr::event::Event::from_json(all[0]["event"].to_string()).expect("an event");
        assert!(event.verify().is_ok());
        let watcher = watchers[0].public().to_hex();
        let some = found(format!("exit={}&watcher={watcher},", one.public().to_hex()));
        assert_eq!(some.as_array().map(Vec::len), Some(1));
        assert_eq!(some[0]["watcher"], watcher);
        let none = found(format!("exit={watcher}"));
        assert_eq!(none.as_array().map(Vec::len), Some(0));

        let text = include_str!("../../../docs/openapi-registry.json");
        let document: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let keys = |value: &serde_json::Value| {
            let names = value.as_object().into_iter().flatten().map(|(name, _)| name.clone());
            names.collect::<BTreeSet<_>>()
        };
        let documented = &document["components"]["schemas"]["Attestation"]["properties"];
        assert_eq!(keys(&all[0]), keys(documented));
        let words = documented["reason"]["enum"].as_array().expect("words").iter();
        let words: Vec<_> = words.filter_map(serde_json::Value::as_str).collect();
        assert_eq!(words, Reason::ALL.map(Reason::as_str));
    }

    #[test]
    fn a_query_names_one_exit_by_its_key() {
        let key = MarketKey::for_tests(1).public().to_hex();
        for (query, said) in [
            (String::new(), "name an exit"),
            ("exit=3f9a".to_owned(), "exit must be a key"),
            (format!("exit={key}&watcher=x"), "watcher must be a key"),
            (format!("exit={key}&country=DE"), "there is no parameter \"country\""),
            ("a".repeat(3000), "the query string is too long"),
        ] {
            let error = AttestationsQuery::parse(&query).expect_err(&query).to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
