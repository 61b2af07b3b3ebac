//! Attestations (kind 30384, NIP-85) and their tags.

use nostr::event::{Event, Tag, Tags};
use weir_config::IpType;

use super::{
    ATTESTATION, Address, LISTING, MAX_AHEAD, MAX_EVENT_BYTES, Refused, all, expiration, first,
    sign, tag, tags::MAX_IDENTIFIER,
};
use crate::{
    attestation::{Attestation, Reason, Uptime, WatcherKey},
    key::MarketKey,
    place::Place,
};

/// For how long an attestation counts, and the longest that weir believes of one, in seconds.
pub const ATTESTATION_LIFETIME: u64 = 3 * 24 * 3600;

/// The largest values that are kept of an attestation of others.
const MAX_MILLISECONDS: u32 = 600_000;
const MAX_MBITS: u32 = 10_000_000;
const MAX_DAYS: u32 = 366;

/// An attestation with the event that proves whose it is.
#[derive(Clone, Debug)]
pub struct SignedAttestation {
    /// The event.
    pub event: Event,
    /// What it says.
    pub attestation: Attestation,
}

impl SignedAttestation {
    /// Reads an attestation, but does not check who signed it, nor its times: see [`Self::verify`].
    ///
    /// # Errors
    ///
    /// Says why the event is not an attestation about a listing.
    pub fn read(event: Event) -> Result<Self, Refused> {
        if event.kind.as_u16() != ATTESTATION {
            return Err(Refused::Kind);
        }
        let attestation = read(&event.tags)?;
        Ok(Self { event, attestation })
    }

    /// Whether its key has signed it, and whether it counts at `now` (seconds since 1970).
    ///
    /// # Errors
    ///
    /// Says why it does not count.
    pub fn verify(&self, now: u64) -> Result<(), Refused> {
        self.times(now)?;
        self.event.verify().map_err(|_| Refused::Signature)
    }

    /// Whether it counts at `now`, if its watcher is believed.
    ///
    /// # Errors
    ///
    /// When it has expired, or is of the future.
    pub fn times(&self, now: u64) -> Result<(), Refused> {
        if self.event.created_at.as_secs() > now.saturating_add(MAX_AHEAD) {
            return Err(Refused::Future);
        }
        if self.expires() <= now {
            return Err(Refused::Expired);
        }
        Ok(())
    }

    /// Reads and verifies an attestation in JSON.
    ///
    /// # Errors
    ///
    /// As [`Self::read`] and [`Self::verify`].
    pub fn from_json(json: &str, now: u64) -> Result<Self, Refused> {
        if json.len() > MAX_EVENT_BYTES {
            return Err(Refused::Size);
        }
        let event = Event::from_json(json).map_err(|_| Refused::Form)?;
        let signed = Self::read(event)?;
        signed.verify(now)?;
        Ok(signed)
    }

    /// When it ceases to count, in seconds since 1970: when it says, but not later than
    /// [`ATTESTATION_LIFETIME`] after its creation.
    #[must_use]
    pub fn expires(&self) -> u64 {
        let longest = self.event.created_at.as_secs().saturating_add(ATTESTATION_LIFETIME);
        expiration(&self.event).map_or(longest, |said| said.min(longest))
    }

    /// The watcher's key.
    #[must_use]
    pub fn watcher(&self) -> WatcherKey {
        self.event.pubkey.into()
    }
}

/// Signs an attestation as of `now` (seconds since 1970). It counts for three days.
#[must_use]
pub fn sign_attestation(key: &MarketKey, attestation: &Attestation, now: u64) -> Event {
    let mut tags = write(attestation);
    tags.push(tag(["expiration", &now.saturating_add(ATTESTATION_LIFETIME).to_string()]));
    sign(key, ATTESTATION, tags, now, 0)
}

/// Reads an attestation. What weir does not know in it is ignored, and what is malformed is left out,
/// but it must name a listing and a reason.
pub(super) fn read(tags: &Tags) -> Result<Attestation, Refused> {
    let subject = first(tags, "d").ok_or(Refused::Subject)?;
    let exit = Address::parse(subject).ok_or(Refused::Subject)?;
    let is_listing = exit.kind == LISTING && (1..=MAX_IDENTIFIER).contains(&exit.identifier.len());
    // One exit has one name, or a watcher could say several things of it at once.
    if !is_listing || exit.to_string() != subject {
        return Err(Refused::Subject);
    }
    let reason = first(tags, "reach").and_then(Reason::from_word).ok_or(Refused::Reason)?;
    let number = |kind: &str, max: u32| {
        let value = first(tags, kind)?.parse::<u32>().ok();
        value.filter(|value| *value <= max)
    };
    Ok(Attestation {
        exit,
        reason,
        seen: all(tags, "seen").next().map(seen).unwrap_or_default(),
        handshake_ms: number("handshake", MAX_MILLISECONDS),
        rtt_ms: number("rtt", MAX_MILLISECONDS),
        down: number("down", MAX_MBITS),
        up: number("up", MAX_MBITS),
        is_price_honoured: match first(tags, "price-honoured") {
            Some("yes") => Some(true),
            Some("no") => Some(false),
            _ => None,
        },
        billed: first(tags, "billed").and_then(|share| share.parse().ok()),
        uptime: all(tags, "uptime").next().and_then(uptime),
    })
}

/// Reads the words after `seen`: a country, an AS and a kind of line, each of which may be empty.
fn seen(words: &[String]) -> Place {
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    Place {
        country: word(0).parse().ok(),
        asn: word(1).strip_prefix("AS").and_then(|number| number.parse().ok()),
        ip_type: IpType::from_word(word(2)),
    }
}

fn uptime(words: &[String]) -> Option<Uptime> {
    let [share, days, ..] = words else { return None };
    let days = days.strip_suffix('d')?.parse().ok().filter(|days| (1..=MAX_DAYS).contains(days))?;
    Some(Uptime { share: share.parse().ok()?, days })
}

/// Writes an attestation.
fn write(attestation: &Attestation) -> Vec<Tag> {
    let mut tags = vec![
        tag(["d", &attestation.exit.to_string()]),
        tag(["reach", attestation.reason.as_str()]),
    ];
    let Place { country, asn, ip_type } = attestation.seen;
    if attestation.seen != Place::default() {
        let country = country.map_or_else(String::new, |it| it.to_string());
        let asn = asn.map_or_else(String::new, |it| format!("AS{it}"));
        tags.push(tag(["seen", &country, &asn, ip_type.map_or("", |it| it.as_str())]));
    }
    for (kind, value) in [
        ("handshake", attestation.handshake_ms),
        ("rtt", attestation.rtt_ms),
        ("down", attestation.down),
        ("up", attestation.up),
    ] {
        tags.extend(value.map(|value| tag([kind, &value.to_string()])));
    }
    let honoured = attestation.is_price_honoured.map(|is| if is { "yes" } else { "no" });
    tags.extend(honoured.map(|word| tag(["price-honoured", word])));
    tags.extend(attestation.billed.map(|share| tag(["billed", &share.to_string()])));
    let uptime = attestation.uptime;
    tags.extend(
        uptime
            .map(|Uptime { share, days }| tag(["uptime", &share.to_string(), &format!("{days}d")])),
    );
    tags
}

#[cfg(test)]
mod tests;
