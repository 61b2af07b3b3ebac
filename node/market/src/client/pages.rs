//! Queries, page by page.

use std::collections::HashSet;

use nostr::{event::Event, message::RelayMessage};
use serde_json::json;
use tokio::time::Instant;

use std::time::Duration;

use super::{ClientError, Relay, words};
use crate::{
    attestation::WatcherKey,
    event::{ATTESTATION, DELETION, LISTING, TOPICS},
};

/// The bounds on what is taken of one relay.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time for everything.
    pub time: Duration,
    /// The maximum number of events.
    pub events: usize,
    /// The maximum number of bytes of messages.
    pub bytes: usize,
    /// The number of events that are asked for in one query; a relay may send fewer.
    pub page: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(60), events: 100_000, bytes: 256 << 20, page: 2000 }
    }
}

/// What is asked of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query<'a> {
    /// All listings of the market. No country and no price is named.
    Listings,
    /// The deletions of listings.
    Deletions,
    /// What these watchers say, about all exits.
    Attestations(&'a [WatcherKey]),
}

impl Query<'_> {
    fn filter(self) -> serde_json::Value {
        match self {
            Self::Listings => json!({ "kinds": [LISTING], "#t": TOPICS }),
            Self::Deletions => json!({ "kinds": [DELETION], "#k": [LISTING.to_string()] }),
            Self::Attestations(watchers) => {
                json!({ "kinds": [ATTESTATION], "authors": watchers })
            }
        }
    }
}

/// What a relay has sent.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Its events, each once. Nothing about them is verified.
    pub events: Vec<Event>,
    /// The messages that are not events in JSON.
    pub malformed: usize,
    /// The bytes of its messages.
    pub bytes: usize,
    /// Why the rest is missing, if it is.
    pub broken: Option<String>,
}

impl Relay {
    /// Fetches everything that the relay has since a time (in seconds since 1970), page by page.
    /// What came before a failure is kept.
    pub async fn fetch(&mut self, query: Query<'_>, since: u64, limits: &Limits) -> Fetched {
        let mut fetched = Fetched::default();
        let deadline = Instant::now() + limits.time;
        if let Err(error) = self.pages(query, since, limits, deadline, &mut fetched).await {
            fetched.broken = Some(error.to_string());
        }
        fetched
    }

    async fn pages(
        &mut self,
        query: Query<'_>,
        since: u64,
        limits: &Limits,
        deadline: Instant,
        fetched: &mut Fetched,
    ) -> Result<(), ClientError> {
        let mut seen = HashSet::new();
        let mut until: Option<u64> = None;
        for number in 0_u32.. {
            let mut filter = query.filter();
            filter["limit"] = limits.page.into();
            if since > 0 {
                filter["since"] = since.into();
            }
            if let Some(until) = until {
                filter["until"] = until.into();
            }
            let name = format!("weir{number}");
            self.send(json!(["REQ", name, filter]).to_string(), deadline).await?;
            let page = self.page(&name, limits, deadline, &mut seen, fetched).await?;
            self.send(json!(["CLOSE", name]).to_string(), deadline).await?;
            // A page without anything new ends it, unless more events than fit into one page are
            // of the same second: then the rest of that second is out of reach.
            until = match (page.oldest, page.new) {
                (None, _) => return Ok(()),
                (Some(oldest), 0) if until == Some(oldest) => oldest.checked_sub(1),
                (Some(_), 0) => return Ok(()),
                (Some(oldest), _) => Some(oldest),
            };
            if until.is_none_or(|until| until < since) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads one page up to its end (`EOSE`).
    async fn page(
        &mut self,
        name: &str,
        limits: &Limits,
        deadline: Instant,
        seen: &mut HashSet<[u8; 32]>,
        fetched: &mut Fetched,
    ) -> Result<Page, ClientError> {
        let mut page = Page { oldest: None, new: 0 };
        loop {
            let text = self.receive(deadline, limits.time).await?;
            fetched.bytes += text.len();
            if fetched.bytes > limits.bytes {
                return Err(ClientError::TooMuch("the limit of bytes"));
            }
            match RelayMessage::from_json(text.as_bytes()) {
                Ok(RelayMessage::Event { subscription_id, event })
                    if subscription_id.as_str() == name =>
                {
                    let event = event.into_owned();
                    let at = event.created_at.as_secs();
                    page.oldest = Some(page.oldest.map_or(at, |oldest| oldest.min(at)));
                    if seen.insert(event.id.to_bytes()) {
                        page.new += 1;
                        fetched.events.push(event);
                    }
                    if fetched.events.len() > limits.events {
                        return Err(ClientError::TooMuch("the limit of events"));
                    }
                }
                Ok(RelayMessage::EndOfStoredEvents(subscription_id))
                    if subscription_id.as_str() == name =>
                {
                    return Ok(page);
                }
                Ok(RelayMessage::Closed { subscription_id, message })
                    if subscription_id.as_str() == name =>
                {
                    return Err(ClientError::Refused(words(&message)));
                }
                // Of an earlier page, or a notice.
                Ok(_) => {}
                Err(_) => fetched.malformed += 1,
            }
        }
    }
}

/// What a page had.
struct Page {
    oldest: Option<u64>,
    new: usize,
}
