//! A stored event: its JSON, and what queries look at.

use std::sync::Arc;

use nostr::event::Event;
use weir_config::IpType;
use weir_market::{
    event::{Address, LISTING, SignedListing},
    listing::{Capacity, Country, Price, State},
};

/// An event as the registry keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its identifier: the hash of what it says.
    pub id: [u8; 32],
    /// The key that signed it.
    pub key: [u8; 32],
    /// Its kind.
    pub kind: u16,
    /// When it was created, in seconds since 1970.
    pub created_at: u64,
    /// When the registry forgets it, in seconds since 1970.
    pub until: u64,
    /// The event as compact JSON.
    pub json: Box<str>,
    /// The first values of the tags whose name is one letter, with the letters.
    pub tags: Box<[(u8, Arc<str>)]>,
    /// What a listing says, for filters and sorting.
    pub summary: Option<Summary>,
}

/// What of a listing filters and sorting look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The country.
    pub country: Option<Country>,
    /// The kind of line.
    pub ip_type: IpType,
    /// Whether it is for sale.
    pub state: State,
    /// The prices.
    pub prices: Box<[Price]>,
    /// What it carries.
    pub measured: Option<Capacity>,
}

impl Record {
    /// The record of an event that is kept until then.
    #[must_use]
    pub fn new(event: &Event, until: u64) -> Self {
        let tag = |words: &[String]| match words {
            [name, value, ..] => match name.as_bytes() {
                &[letter] if letter.is_ascii_alphabetic() => Some((letter, value.as_str().into())),
                _ => None,
            },
            _ => None,
        };
        let summary = (event.kind.as_u16() == LISTING)
            .then(|| SignedListing::read(event.clone()).ok())
            .flatten();
        Self {
            id: event.id.to_bytes(),
            key: event.pubkey.to_bytes(),
            kind: event.kind.as_u16(),
            created_at: event.created_at.as_secs(),
            until,
            json: event.as_json().into(),
            tags: event.tags.iter().filter_map(|it| tag(it.as_slice())).collect(),
            summary: summary.map(|SignedListing { listing, .. }| Summary {
                country: listing.country,
                ip_type: listing.ip_type,
                state: listing.state,
                prices: listing.prices.into(),
                measured: listing.measured,
            }),
        }
    }

    /// The first value of the tag with this letter.
    #[must_use]
    pub fn tag(&self, letter: u8) -> Option<&str> {
        self.tags.iter().find(|(of, _)| *of == letter).map(|(_, value)| &**value)
    }

    /// The address of an event that its key can replace.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        (30_000..40_000).contains(&self.kind).then(|| Address {
            kind: self.kind,
            key: self.key,
            identifier: self.tag(b'd').unwrap_or_default().to_owned(),
        })
    }

    /// The event itself.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        Event::from_json(&*self.json).ok()
    }

    /// The memory that it and its places in the indexes take, in bytes: an estimate from above.
    #[must_use]
    pub fn cost(&self) -> usize {
        let values: usize = self.tags.iter().map(|(_, value)| value.len()).sum();
        self.json.len() + 768 + 128 * self.tags.len() + values
    }
}
