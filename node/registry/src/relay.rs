//! What a client of the relay may say, and what it is answered (NIP-01, NIP-77). The socket is
//! elsewhere.

use std::{collections::HashMap, sync::Arc};

use nostr::{
    event::{Event, EventId},
    message::ClientMessage,
};
use serde_json::{Value, json};

use crate::{
    filter::{FilterError, Wanted},
    network::Network,
    record::Record,
    refusal::Refusal,
    registry::{Now, Registry},
};

mod reconcile;

pub use reconcile::{MAX_FRAME, vector};
pub(crate) use reconcile::{from_hex, to_hex};

/// The longest message of a client, in bytes.
pub const MAX_MESSAGE: usize = 128 * 1024;
/// The maximum number of subscriptions of one connection.
pub const MAX_SUBSCRIPTIONS: usize = 20;
/// The longest name of a subscription, in characters.
pub const MAX_SUBSCRIPTION_ID: usize = 64;
/// The longest subscriptions of one connection together, in bytes of the messages that asked for them.
pub const MAX_SUBSCRIBED: usize = 64 * 1024;
/// Refusals after which a connection ends.
const MAX_REFUSALS: u32 = 1000;

/// Who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The network that it comes from.
    pub network: Network,
    /// Whether its address is that of a listed peer.
    pub is_peer: bool,
}

/// What to send.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// One message.
    Message(String),
    /// One message that refuses what the client wanted.
    Refused(String),
    /// Stored events, and then the end of them.
    Stored {
        /// The name of the subscription.
        subscription: String,
        /// The events.
        events: Vec<Arc<Record>>,
    },
    /// A last message, and then the connection ends.
    Bye(String),
}

struct Subscription {
    filters: Vec<Wanted>,
    /// The length of the message that asked for it.
    bytes: usize,
}

/// One client's subscriptions.
pub struct Session {
    client: Client,
    subscriptions: HashMap<String, Subscription>,
    reconciliation: Option<reconcile::Reconciliation>,
    refusals: u32,
}

impl Session {
    /// A client that has said nothing yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, subscriptions: HashMap::new(), reconciliation: None, refusals: 0 }
    }

    /// Takes a message.
    pub fn take(&mut self, text: &str, registry: &Registry, now: Now) -> Option<Answer> {
        let answer = match ClientMessage::from_json(text) {
            Ok(message) => self.answer(message, text.len(), registry, now),
            Err(_) => Some(Answer::Refused(malformed(text, registry))),
        };
        self.refusals += u32::from(matches!(answer, Some(Answer::Refused(_))));
        if self.refusals > MAX_REFUSALS {
            return Some(Answer::Bye(notice("rate-limited: too many messages were refused")));
        }
        answer
    }

    fn answer(
        &mut self,
        message: ClientMessage<'_>,
        bytes: usize,
        registry: &Registry,
        now: Now,
    ) -> Option<Answer> {
        let text = match message {
            ClientMessage::Event(event) => {
                let done = registry.publish(&event, self.client.network, now);
                let text = ok(&event.id.to_hex(), done.as_ref().err());
                return Some(match done {
                    Ok(()) => Answer::Message(text),
                    Err(_) => Answer::Refused(text),
                });
            }
            ClientMessage::Req { subscription_id, filters } => {
                let id = subscription_id.as_str();
                let filters = Wanted::read_all(filters.iter().map(AsRef::as_ref));
                return Some(self.request(id, filters, bytes, registry, now));
            }
            ClientMessage::Close(id) => {
                self.subscriptions.remove(id.as_str());
                return None;
            }
            ClientMessage::Count { subscription_id, .. } => closed(
                subscription_id.as_str(),
                "unsupported: this registry does not count (NIP-45)",
            ),
            ClientMessage::Auth(event) => {
                let text = "unsupported: nobody needs to authenticate here (NIP-42)";
                json!(["OK", event.id.to_hex(), false, text]).to_string()
            }
            ClientMessage::NegOpen { subscription_id, filter, initial_message } => {
                let id = subscription_id.as_str();
                let text = self.open(id, &filter, &initial_message, registry, now);
                return Some(Answer::Message(text));
            }
            ClientMessage::NegMsg { subscription_id, message } => match &mut self.reconciliation {
                Some(open) if open.id() == subscription_id.as_str() => {
                    return Some(Answer::Message(open.step(&message)));
                }
                _ => neg_error(subscription_id.as_str(), "closed: no reconciliation is open"),
            },
            ClientMessage::NegClose { .. } => {
                self.reconciliation = None;
                return None;
            }
        };
        Some(Answer::Refused(text))
    }

    fn request(
        &mut self,
        id: &str,
        filters: Result<Vec<Wanted>, FilterError>,
        bytes: usize,
        registry: &Registry,
        now: Now,
    ) -> Answer {
        if id.is_empty() || id.chars().count() > MAX_SUBSCRIPTION_ID {
            let text =
                format!("invalid: a subscription's name has 1 to {MAX_SUBSCRIPTION_ID} characters");
            return Answer::Refused(notice(&text));
        }
        let filters = match filters {
            Ok(filters) => filters,
            Err(error) => return Answer::Refused(closed(id, &error.to_string())),
        };
        if !self.subscriptions.contains_key(id) && self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            let text =
                format!("rate-limited: a connection has at most {MAX_SUBSCRIPTIONS} subscriptions");
            return Answer::Refused(closed(id, &text));
        }
        let others = self.subscriptions.iter().filter(|(other, _)| *other != id);
        if others.map(|(_, it)| it.bytes).sum::<usize>() + bytes > MAX_SUBSCRIBED {
            let text = "rate-limited: the filters of this connection are too long: close some";
            return Answer::Refused(closed(id, text));
        }
        if !self.client.is_peer && !registry.may_ask(self.client.network, now) {
            let text = "rate-limited: this network asks too often: wait a few seconds";
            return Answer::Refused(closed(id, text));
        }
        let events = registry.query(&filters, now.unix);
        self.subscriptions.insert(id.to_owned(), Subscription { filters, bytes });
        Answer::Stored { subscription: id.to_owned(), events }
    }

    fn open(
        &mut self,
        id: &str,
        filter: &nostr::filter::Filter,
        message: &str,
        registry: &Registry,
        now: Now,
    ) -> String {
        if !self.client.is_peer {
            let text = "restricted: only listed peers reconcile (NIP-77): use REQ";
            return neg_error(id, text);
        }
        if id.is_empty() || id.chars().count() > MAX_SUBSCRIPTION_ID {
            return neg_error(id, "invalid: the subscription's name is too long");
        }
        let wanted = match Wanted::read(filter) {
            Ok(wanted) => Wanted { limit: usize::MAX, ..wanted },
            Err(error) => return neg_error(id, &error.to_string()),
        };
        let records = registry.query(&[wanted], now.unix);
        let items = records.iter().map(|record| (record.created_at, record.id));
        match reconcile::Reconciliation::open(id, items) {
            Ok(open) => self.reconciliation.insert(open).step(message),
            Err(error) => neg_error(id, &format!("error: {error}")),
        }
    }

    /// The messages for a new event, one for each subscription that it matches.
    pub fn events<'s>(&'s self, record: &'s Record) -> impl Iterator<Item = String> + 's {
        let matching = self
            .subscriptions
            .iter()
            .filter(|(_, it)| it.filters.iter().any(|filter| filter.matches(record)));
        matching.map(|(id, _)| event(id, record))
    }

    /// Ends all subscriptions, of which the client is told in these messages.
    pub fn close_all(&mut self, text: &str) -> Vec<String> {
        self.subscriptions.drain().map(|(id, _)| closed(&id, text)).collect()
    }
}

/// An event of a subscription.
#[must_use]
pub fn event(subscription: &str, record: &Record) -> String {
    format!("[\"EVENT\",{},{}]", Value::from(subscription), record.json)
}

/// The end of the stored events of a subscription.
#[must_use]
pub fn end_of_stored(subscription: &str) -> String {
    json!(["EOSE", subscription]).to_string()
}

/// A message for people.
#[must_use]
pub fn notice(text: &str) -> String {
    json!(["NOTICE", text]).to_string()
}

fn closed(subscription: &str, text: &str) -> String {
    json!(["CLOSED", subscription, text]).to_string()
}

fn neg_error(subscription: &str, text: &str) -> String {
    json!(["NEG-ERR", subscription, text]).to_string()
}

fn ok(id: &str, refusal: Option<&Refusal>) -> String {
    let is_stored = refusal.is_none_or(Refusal::is_stored);
    let text = refusal.map_or_else(String::new, Refusal::message);
    json!(["OK", id, is_stored, text]).to_string()
}

/// The answer to what is not a message, or has no event that can be read: by its identifier, if there
/// is one, so that the client knows which event was refused.
fn malformed(text: &str, registry: &Registry) -> String {
    let Ok(Value::Array(message)) = serde_json::from_str(text) else {
        return notice("invalid: this is not a message in JSON (NIP-01)");
    };
    if message.first().and_then(Value::as_str) != Some("EVENT") {
        return notice("invalid: this is not a message of a Nostr client (NIP-01)");
    }
    let event = message.get(1).cloned().unwrap_or_default();
    let id = event.get("id").and_then(Value::as_str).and_then(|id| EventId::from_hex(id).ok());
    let error = serde_json::from_value::<Event>(event).err();
    let error = error.map_or_else(|| "it cannot be read".to_owned(), |it| it.to_string());
    let refusal = Refusal::Form(error.chars().take(120).collect());
    registry.metrics().refused(&refusal);
    match id {
        Some(id) => ok(&id.to_hex(), Some(&refusal)),
        None => notice(&refusal.message()),
    }
}

#[cfg(test)]
mod tests;
