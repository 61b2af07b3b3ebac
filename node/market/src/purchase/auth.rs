//! The authorization of a purchase: an event of the buyer's (kind 24242, BUD-11) that names the exit,
//! its listing, the price, and a time. It is in the header `Authorization: Nostr <base64>`.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use nostr::{
    event::{Event, EventId, Kind, Tag, Tags},
    key::{Keys, PublicKey},
    types::Timestamp,
};

use super::{Reason, Refusal};
use crate::{
    event::{Address, LISTING},
    listing::Price,
};

/// The kind of event.
pub const AUTHORIZATION: u16 = 24242;
/// The longest header, in bytes.
pub const MAX_HEADER: usize = 8 * 1024;
/// For how long an authorization counts, in seconds.
const LIFETIME: u64 = 300;
/// The most tags that are looked at.
const MAX_TAGS: usize = 32;

const ACTION: &str = "vpn-purchase";
const CONTENT: &str = "Purchase VPN access";

/// Some programs leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A buyer's key for one purchase.
#[derive(Clone)]
pub struct BuyerKey(pub(super) Keys);

impl BuyerKey {
    /// A new one. One for each purchase, so that nobody can tell that two have the same buyer.
    #[must_use]
    pub fn random() -> Self {
        Self(Keys::generate())
    }

    /// Its public part.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.0.public_key()
    }
}

impl std::fmt::Debug for BuyerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BuyerKey").field(&self.0.public_key()).finish()
    }
}

/// What a buyer wants to buy, as its listing has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The name of the exit's host, without a scheme; in a letter, the exit's key in hex.
    pub server: String,
    /// The key that signs the listing.
    pub exit: PublicKey,
    /// The listing's identifier.
    pub listing: String,
    /// The price. Without one only a voucher pays.
    pub price: Option<Price>,
}

impl Offer {
    /// The tags of an authorization that counts until `expiration`.
    pub(super) fn tags(&self, expiration: u64) -> Vec<Tag> {
        let address = format!("{LISTING}:{}:{}", self.exit.to_hex(), self.listing);
        let mut tags = vec![
            Tag::custom("t", [ACTION]),
            Tag::custom("expiration", [expiration.to_string()]),
            Tag::custom("server", [self.server.as_str()]),
            Tag::custom("a", [address]),
        ];
        if let Some(price) = &self.price {
            let amount = price.amount.to_string();
            let values = [amount.as_str(), price.currency.as_str(), price.unit.as_str()];
            tags.push(Tag::custom("price", values));
        }
        tags
    }

    /// The value of the header `Authorization`, signed as of `now` (seconds since 1970). It counts
    /// for five minutes.
    #[must_use]
    pub fn authorize(&self, key: &BuyerKey, now: u64) -> String {
        let tags = Tags::from_list(self.tags(now.saturating_add(LIFETIME)));
        let (public, kind) = (key.public(), Kind::from(AUTHORIZATION));
        let created_at = Timestamp::from_secs(now);
        let id = EventId::compute(&public, &created_at, &kind, &tags, CONTENT);
        let signature = key.0.sign_schnorr(id.as_bytes());
        let event = Event::new(id, public, created_at, kind, tags, CONTENT, signature);
        format!("Nostr {}", BASE64.encode(event.as_json()))
    }
}

/// What an exit expects of an authorization.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// The names by which buyers know it.
    pub servers: &'a [String],
    /// The key that signs its listing.
    pub exit: PublicKey,
    /// Its prices. Empty: the price is not looked at.
    pub prices: &'a [Price],
    /// Seconds since 1970.
    pub now: u64,
}

/// An authorization that was read. Nothing in it is believed before [`Authorization::verify`].
#[derive(Clone, Debug)]
pub struct Authorization(Event);

impl Authorization {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// When there is none, or it is too long or cannot be read.
    pub fn read(header: Option<&str>) -> Result<Self, Refusal> {
        let header = header.ok_or_else(|| {
            Refusal::unauthorized("the request has no authorization: send Authorization: Nostr ...")
        })?;
        if header.len() > MAX_HEADER {
            let what = format!("the authorization is longer than {MAX_HEADER} bytes");
            return Err(Refusal::unauthorized(what));
        }
        let unreadable = || {
            Refusal::unauthorized(
                "the authorization is not \"Nostr\" and a signed event (kind 24242) in base64",
            )
        };
        let header = header.trim();
        let scheme = header.get(..6).ok_or_else(unreadable)?;
        if !scheme.eq_ignore_ascii_case("nostr ") {
            return Err(unreadable());
        }
        let text = header.get(6..).unwrap_or_default().trim();
        let json = BASE64.decode(text).map_err(|_| unreadable())?;
        let json = String::from_utf8(json).map_err(|_| unreadable())?;
        Event::from_json(json).map(Self).map_err(|_| unreadable())
    }

    /// Whether it says what it must, without looking at the signature.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), Refusal> {
        if self.0.kind.as_u16() != AUTHORIZATION {
            let what = "the authorization is not an event of kind 24242";
            return Err(Refusal::new(Reason::BadRequest, what));
        }
        check_tags(&self.0.tags, expected)
    }

    /// Whether its key has signed it: some 100 µs of arithmetic.
    ///
    /// # Errors
    ///
    /// When it has not.
    pub fn verify(&self) -> Result<(), Refusal> {
        self.0.verify().map_err(|_| {
            Refusal::unauthorized("the authorization's signature is wrong: sign the event anew")
        })
    }
}

/// Whether the tags of an authorization are right. As the protocol's own parser reads them, the first
/// `t` and `server` count, the last `expiration` that is a number, and any `a` and `price`.
pub(super) fn check_tags(tags: &Tags, expected: &Expected<'_>) -> Result<(), Refusal> {
    let bad = |what: &str| Err(Refusal::new(Reason::BadRequest, what));
    let (mut action, mut server, mut expiration) = (None, None, None);
    let (mut is_ours, mut prices) = (false, Vec::new());
    if tags.len() > MAX_TAGS {
        return bad("the authorization has more than 32 tags");
    }
    for tag in tags.iter() {
        match (tag.kind(), tag.content()) {
            ("t", Some(value)) if action.is_none() => action = Some(value),
            ("server", Some(value)) if server.is_none() => server = Some(value),
            ("expiration", Some(value)) => expiration = value.parse::<u64>().ok().or(expiration),
            ("a", Some(value)) => {
                let address = Address::parse(value);
                is_ours |= address.is_some_and(|address| {
                    address.kind == LISTING && address.key == expected.exit.to_bytes()
                });
            }
            ("price", Some(_)) => prices.extend(price(tag.as_slice())),
            _ => {}
        }
    }
    if action != Some(ACTION) {
        return bad("the authorization is not for a purchase (t = vpn-purchase)");
    }
    let Some(expiration) = expiration else {
        return bad("the authorization does not say when it expires (expiration)");
    };
    if expiration <= expected.now {
        let what = "the authorization has expired: sign a new one, and check the clock";
        return Err(Refusal::new(Reason::ExpiredAuth, what));
    }
    let is_named = |server: &str| expected.servers.iter().any(|it| it.eq_ignore_ascii_case(server));
    if !server.is_some_and(is_named) {
        return bad("the authorization is for another server (server): see endpoint in /info");
    }
    if !is_ours {
        return bad("the authorization is for another listing (a): see pubkey in /info");
    }
    let is_price = |price: &Price| prices.contains(price);
    if !expected.prices.is_empty() && !expected.prices.iter().any(is_price) {
        let now: Vec<_> = expected.prices.iter().map(ToString::to_string).collect();
        let what = format!("the authorization has another price; it is {} now", now.join(" or "));
        return Err(Refusal::new(Reason::AmountMismatch, what));
    }
    Ok(())
}

fn price(words: &[String]) -> Option<Price> {
    let [_, amount, currency, unit, ..] = words else { return None };
    let (amount, currency) = (amount.parse().ok()?, currency.parse().ok()?);
    Some(Price { amount, currency, unit: unit.parse().ok()? })
}
