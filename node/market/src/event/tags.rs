//! A listing's tags.

use nostr::event::{Tag, Tags};
use weir_config::{HostPort, IpType};
use weir_wireguard::keys;

use super::Refused;
use crate::listing::{Basis, Capacity, Endpoint, Listing, Payment, Price, Reach, State};

/// The market's topics. The second is the one before version 0.7 of the protocol.
pub(crate) const TOPICS: [&str; 2] = ["europa-protocol", "vpn-marketplace"];
const PROTOCOL: &str = "wireguard";
/// The namespace of the country's label (NIP-32).
const COUNTRY_NAMESPACE: &str = "ISO-3166-1";

/// The bounds on what is kept of a listing of others.
const MAX_TEXT: usize = 80;
const MAX_WORD: usize = 300;
const MAX_LIST: usize = 16;
pub(super) const MAX_IDENTIFIER: usize = 200;

/// The first value of the first tag of this kind.
pub(super) fn first<'t>(tags: &'t Tags, kind: &str) -> Option<&'t str> {
    tags.iter().find(|tag| tag.kind() == kind).and_then(Tag::content)
}

pub(super) fn all<'t>(tags: &'t Tags, kind: &'static str) -> impl Iterator<Item = &'t [String]> {
    let tags = tags.iter().filter(move |tag| tag.kind() == kind);
    tags.map(|tag| tag.as_slice().get(1..).unwrap_or_default())
}

/// Text of others on one line: what would move a terminal's cursor or turn its text around is left
/// out.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let is_plain = |letter: &char| {
        let turns = matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{2028}'..='\u{2029}');
        !letter.is_control() && !turns
    };
    text.chars().filter(is_plain).take(max).collect()
}

/// Reads a listing. What weir does not know in it is ignored, and what is malformed is left out, unless
/// nothing is left that the protocol demands.
pub(super) fn read(tags: &Tags) -> Result<Listing, Refused> {
    let is_topic =
        |topic: &str| all(tags, "t").any(|words| words.first().is_some_and(|it| it == topic));
    if !TOPICS.into_iter().any(is_topic) {
        return Err(Refused::Topic);
    }
    if !is_topic(PROTOCOL) {
        return Err(Refused::Protocol);
    }
    let id = first(tags, "d").filter(|id| !id.is_empty() && id.len() <= MAX_IDENTIFIER);
    let id = id.ok_or(Refused::Identifier)?.to_owned();
    let prices: Vec<_> = all(tags, "price").filter_map(price).take(MAX_LIST).collect();
    if prices.is_empty() {
        return Err(Refused::Price);
    }
    let payments: Vec<_> = all(tags, "payment").filter_map(payment).take(MAX_LIST).collect();
    if payments.is_empty() {
        return Err(Refused::Payment);
    }
    let sold = first(tags, "status") == Some("sold");
    let country = all(tags, "l").find_map(|words| match words {
        [country, namespace, ..] if namespace == COUNTRY_NAMESPACE => country.parse().ok(),
        _ => None,
    });
    // Listings that weir did not write say it in words: "US", "US-FL", "Florida, USA".
    let country = country.or_else(|| {
        let words = all(tags, "location").flatten();
        let code = |word: &String| match word.split_once('-') {
            Some((country, _)) if word.len() <= 6 => country.parse().ok(),
            _ => word.parse().ok(),
        };
        words.take(MAX_LIST).find_map(code)
    });
    let basis = |what: &str| {
        let said = all(tags, "basis").find_map(|words| match words {
            [of, basis, ..] if of == what => Some(basis.as_str()),
            _ => None,
        });
        if said == Some(Basis::Database.as_str()) { Basis::Database } else { Basis::Claimed }
    };
    Ok(Listing {
        id,
        title: printable(first(tags, "title").unwrap_or_default(), MAX_TEXT),
        state: if sold { State::Sold } else { State::Active },
        country,
        country_basis: if country.is_some() { basis("country") } else { Basis::Claimed },
        ip_type: first(tags, "ip-type").and_then(IpType::from_word).unwrap_or_default(),
        ip_type_basis: basis("ip-type"),
        asn: first(tags, "asn").and_then(|asn| asn.parse().ok()),
        prices,
        payments,
        endpoints: all(tags, "wg").filter_map(endpoint).take(4).collect(),
        reach: first(tags, "reach").map(Reach::from_word).unwrap_or_default(),
        measured: all(tags, "measured").find_map(capacity),
        free_slots: first(tags, "free-slots").and_then(|slots| slots.parse().ok()),
        features: all(tags, "features")
            .flatten()
            .map(|feature| printable(feature, MAX_TEXT))
            .filter(|feature| !feature.is_empty())
            .take(MAX_LIST)
            .collect(),
    })
}

fn price(words: &[String]) -> Option<Price> {
    let [amount, currency, unit, ..] = words else { return None };
    Some(Price {
        amount: amount.parse().ok()?,
        currency: currency.parse().ok()?,
        unit: unit.parse().ok()?,
    })
}

fn payment(words: &[String]) -> Option<Payment> {
    let fits = |word: &&String| word.len() <= MAX_WORD && !word.chars().any(char::is_control);
    let kept: Vec<&String> = words.iter().take(8).filter(fits).collect();
    (kept.len() == words.len().min(8)).then(|| Payment::new(kept.into_iter().cloned()))?
}

fn endpoint(words: &[String]) -> Option<Endpoint> {
    let (key, addresses) = words.split_first()?;
    let key = keys::read_public(key).ok()?;
    let addresses: Vec<HostPort> =
        addresses.iter().take(4).filter_map(|address| address.parse().ok()).collect();
    (!addresses.is_empty()).then_some(Endpoint { key, addresses })
}

fn capacity(words: &[String]) -> Option<Capacity> {
    let [up_word, up, down_word, down, measured_at, ..] = words else { return None };
    if up_word != "up" || down_word != "down" {
        return None;
    }
    Some(Capacity {
        up: up.parse().ok()?,
        down: down.parse().ok()?,
        measured_at: measured_at.parse().ok()?,
    })
}

/// Writes a listing.
pub(super) fn write(listing: &Listing) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut tag = |kind: &str, values: Vec<String>| tags.push(Tag::custom(kind, values));
    let one = |text: &str| vec![text.to_owned()];
    tag("d", one(&listing.id));
    tag("title", one(&listing.title));
    for topic in TOPICS.into_iter().chain([PROTOCOL]) {
        tag("t", one(topic));
    }
    for Price { amount, currency, unit } in &listing.prices {
        let words = [amount.to_string(), currency.as_str().into(), unit.as_str().into()];
        tag("price", words.into());
    }
    for payment in &listing.payments {
        tag("payment", payment.words().to_vec());
    }
    let status = match listing.state {
        State::Active => "active",
        State::Sold => "sold",
    };
    tag("status", one(status));
    if let Some(country) = listing.country {
        tag("location", one(country.as_str()));
        tag("L", one(COUNTRY_NAMESPACE));
        tag("l", vec![country.to_string(), COUNTRY_NAMESPACE.into()]);
        tag("basis", vec!["country".into(), listing.country_basis.as_str().into()]);
    }
    tag("ip-type", one(listing.ip_type.as_str()));
    tag("basis", vec!["ip-type".into(), listing.ip_type_basis.as_str().into()]);
    if let Some(asn) = listing.asn {
        tag("asn", one(&asn.to_string()));
    }
    for Endpoint { key, addresses } in &listing.endpoints {
        let addresses = addresses.iter().map(ToString::to_string);
        tag("wg", std::iter::once(keys::print_public(key)).chain(addresses).collect());
    }
    tag("reach", one(listing.reach.as_str()));
    if let Some(Capacity { up, down, measured_at }) = listing.measured {
        let words = ["up", &up.to_string(), "down", &down.to_string(), &measured_at.to_string()];
        tag("measured", words.map(str::to_owned).into());
    }
    if let Some(slots) = listing.free_slots {
        tag("free-slots", one(&slots.to_string()));
    }
    if !listing.features.is_empty() {
        tag("features", listing.features.clone());
    }
    tags
}
