//! The foreign format: Nostr events (NIP-01) that carry listings (NIP-99, kind 30402) with the tags of
//! the Europa Protocol, and what weir adds to them. Everything that is foreign is in this module.

use std::fmt;

pub use nostr::event::Event;
use nostr::{
    event::{EventId, Kind, Tag, Tags},
    key::PublicKey,
    types::Timestamp,
};

use crate::{key::MarketKey, listing::Listing};

mod attested;
mod tags;

pub use attested::{ATTESTATION_LIFETIME, SignedAttestation, sign_attestation};
pub(crate) use tags::{TOPICS, printable};
use tags::{all, first};

/// A listing (NIP-99).
pub const LISTING: u16 = 30402;
/// A deletion (NIP-09).
pub const DELETION: u16 = 5;
/// A watcher's measurement of an exit (NIP-85).
pub const ATTESTATION: u16 = 30384;
/// A list of recommended listings (NIP-51).
pub const CURATION: u16 = 30267;
/// A report about a listing (NIP-56).
pub const REPORT: u16 = 1984;
/// A sealed letter (NIP-59).
pub const SEALED: u16 = 1059;

/// The longest event, in bytes of JSON.
pub const MAX_EVENT_BYTES: usize = 8 * 1024;
/// How long after its creation a listing counts that does not say when it expires, and the longest
/// that weir believes of one that does, in seconds.
pub const MAX_AGE: u64 = 48 * 3600;
/// How far ahead of the reader's clock a listing may have been created, in seconds.
pub const MAX_AHEAD: u64 = 15 * 60;
/// For how long a listing of weir's counts, in seconds.
pub const LIFETIME: u64 = 3 * 3600;

/// Why an event is not a listing, or an attestation, that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// Not an event at all.
    #[error("it is not an event in JSON")]
    Form,
    /// Too many bytes.
    #[error("it is longer than 8192 bytes")]
    Size,
    /// Another kind of event.
    #[error("it is of another kind")]
    Kind,
    /// Its identifier or its signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// It has no `d` tag.
    #[error("it has no identifier (d)")]
    Identifier,
    /// It does not carry the market's topic.
    #[error("it is not of the market (t = europa-protocol)")]
    Topic,
    /// It is for another protocol than WireGuard.
    #[error("it is not for WireGuard (t = wireguard)")]
    Protocol,
    /// It has no price.
    #[error("it has no price")]
    Price,
    /// It has no way to pay.
    #[error("it has no way to pay")]
    Payment,
    /// An attestation that is not about a listing.
    #[error("it does not name a listing (d = 30402:key:identifier)")]
    Subject,
    /// An attestation without a reason word of weir's.
    #[error("it has no reason word (reach) that weir knows")]
    Reason,
    /// An attestation of a watcher that was not asked for.
    #[error("its watcher is not one of those that were named")]
    Watcher,
    /// It has expired, or is too old.
    #[error("it has expired")]
    Expired,
    /// It was created in the future.
    #[error("it was created in the future")]
    Future,
}

impl Refused {
    /// A word for counters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Size => "size",
            Self::Kind => "kind",
            Self::Signature => "signature",
            Self::Identifier => "identifier",
            Self::Topic => "topic",
            Self::Protocol => "protocol",
            Self::Price => "price",
            Self::Payment => "payment",
            Self::Subject => "subject",
            Self::Reason => "reason",
            Self::Watcher => "watcher",
            Self::Expired => "expired",
            Self::Future => "future",
        }
    }
}

/// A listing with the event that proves it.
#[derive(Clone, Debug)]
pub struct SignedListing {
    /// The event.
    pub event: Event,
    /// What it says.
    pub listing: Listing,
}

impl SignedListing {
    /// Reads a listing, but does not check who signed it, nor its times: see [`Self::verify`].
    ///
    /// # Errors
    ///
    /// Says why the event is not a listing of an exit.
    pub fn read(event: Event) -> Result<Self, Refused> {
        if event.kind.as_u16() != LISTING {
            return Err(Refused::Kind);
        }
        let listing = tags::read(&event.tags)?;
        Ok(Self { event, listing })
    }

    /// Whether its key has signed it, and whether it counts at `now` (seconds since 1970).
    ///
    /// # Errors
    ///
    /// Says why it does not count.
    pub fn verify(&self, now: u64) -> Result<(), Refused> {
        times(&self.event, now)?;
        self.event.verify().map_err(|_| Refused::Signature)
    }

    /// Reads and verifies a listing in JSON.
    ///
    /// # Errors
    ///
    /// As [`Self::read`] and [`Self::verify`].
    pub fn from_json(json: &str, now: u64) -> Result<Self, Refused> {
        if json.len() > MAX_EVENT_BYTES {
            return Err(Refused::Size);
        }
        let event = Event::from_json(json).map_err(|_| Refused::Form)?;
        let listing = Self::read(event)?;
        listing.verify(now)?;
        Ok(listing)
    }

    /// When it ceases to count, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> u64 {
        expires(&self.event)
    }

    /// The listing's name in the market: no other listing has the same key and identifier.
    #[must_use]
    pub fn address(&self) -> Address {
        Address {
            kind: LISTING,
            key: self.event.pubkey.to_bytes(),
            identifier: self.listing.id.clone(),
        }
    }
}

/// The name of an event that its key can replace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The kind of event.
    pub kind: u16,
    /// The key that signs it.
    pub key: [u8; 32],
    /// The `d` tag.
    pub identifier: String,
}

impl Address {
    /// The address of an event that can be replaced; `None` for the other kinds.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        let kind = event.kind.as_u16();
        (30_000..40_000).contains(&kind).then(|| Self {
            kind,
            key: event.pubkey.to_bytes(),
            identifier: first(&event.tags, "d").unwrap_or_default().to_owned(),
        })
    }

    /// Reads `kind:key:identifier`, the value of an `a` tag.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (key, identifier) = rest.split_once(':')?;
        let key = PublicKey::from_hex(key).ok()?.to_bytes();
        Some(Self { kind: kind.parse().ok()?, key, identifier: identifier.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        for byte in self.key {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ":{}", self.identifier)
    }
}

/// When an event ceases to count, in seconds since 1970: when it says, but not later than
/// [`MAX_AGE`] after its creation.
#[must_use]
pub fn expires(event: &Event) -> u64 {
    let longest = event.created_at.as_secs().saturating_add(MAX_AGE);
    expiration(event).map_or(longest, |said| said.min(longest))
}

/// What an event says about when it expires (NIP-40), in seconds since 1970.
#[must_use]
pub fn expiration(event: &Event) -> Option<u64> {
    first(&event.tags, "expiration").and_then(|text| text.parse().ok())
}

/// Whether an event counts at `now`.
///
/// # Errors
///
/// When it has expired, or is of the future.
pub fn times(event: &Event, now: u64) -> Result<(), Refused> {
    if event.created_at.as_secs() > now.saturating_add(MAX_AHEAD) {
        return Err(Refused::Future);
    }
    if expires(event) <= now {
        return Err(Refused::Expired);
    }
    Ok(())
}

/// What a deletion (NIP-09) deletes: events by their addresses up to its own time, and events by
/// their identifiers. Only events of its own key count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// By their addresses.
    pub addresses: Vec<Address>,
    /// By their identifiers.
    pub ids: Vec<[u8; 32]>,
}

/// What of its own key's a deletion deletes.
#[must_use]
pub fn deleted(event: &Event) -> Deleted {
    let mut all = Deleted::default();
    let own = event.pubkey.to_bytes();
    for tag in event.tags.iter() {
        match (tag.kind(), tag.content()) {
            ("a", Some(address)) => {
                all.addresses.extend(Address::parse(address).filter(|it| it.key == own));
            }
            ("e", Some(id)) => all.ids.extend(EventId::from_hex(id).ok().map(EventId::to_bytes)),
            _ => {}
        }
    }
    all
}

/// Signs a listing as of `now` (seconds since 1970). It counts for three hours. `work` is the number
/// of leading zero bits of its identifier (NIP-13), for which this takes about 2^`work` hashes.
#[must_use]
pub fn sign_listing(key: &MarketKey, listing: &Listing, now: u64, work: u8) -> Event {
    let mut all = tags::write(listing);
    all.push(tag(["expiration", &now.saturating_add(LIFETIME).to_string()]));
    sign(key, LISTING, all, now, work)
}

/// Signs the deletion of a listing, as of `now`.
#[must_use]
pub fn sign_deletion(key: &MarketKey, identifier: &str, now: u64) -> Event {
    let address = format!("{LISTING}:{}:{identifier}", key.public().to_hex());
    let all = vec![
        tag(["a", &address]),
        tag(["k", &LISTING.to_string()]),
        tag(["expiration", &now.saturating_add(MAX_AGE).to_string()]),
    ];
    sign(key, DELETION, all, now, 0)
}

fn sign(key: &MarketKey, kind: u16, tags: Vec<Tag>, now: u64, work: u8) -> Event {
    let public = key.public();
    let kind = Kind::from(kind);
    let created_at = Timestamp::from_secs(now);
    let mut nonce = 0_u64;
    let (id, tags) = loop {
        let mut tags = tags.clone();
        if work > 0 {
            tags.push(tag(["nonce", &nonce.to_string(), &work.to_string()]));
        }
        let id = EventId::compute(&public, &created_at, &kind, &Tags::from_list(tags.clone()), "");
        if id.check_pow(work) {
            break (id, tags);
        }
        nonce += 1;
    };
    let signature = key.0.sign_schnorr(id.as_bytes());
    Event::new(id, public, created_at, kind, tags, "", signature)
}

fn tag<const N: usize>(words: [&str; N]) -> Tag {
    let [kind, values @ ..] = words.as_slice() else { return Tag::custom("", [""; 0]) };
    Tag::custom(*kind, values.iter().copied())
}

/// The proof of work that an event has and committed to (NIP-13), in bits. What it has by chance
/// beyond that does not count.
#[must_use]
pub fn work(event: &Event) -> u8 {
    let nonce = event.tags.iter().find(|tag| tag.kind() == "nonce");
    let target = nonce.and_then(|tag| tag.as_slice().get(2)?.parse::<u8>().ok()).unwrap_or(0);
    let zeros = event.id.as_bytes().iter().position(|byte| *byte != 0);
    let bits = zeros.map_or(255, |at| {
        at as u32 * 8 + event.id.as_bytes().get(at).map_or(0, |byte| byte.leading_zeros())
    });
    target.min(u8::try_from(bits).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests;
