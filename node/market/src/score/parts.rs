//! The parts of a score.

use std::fmt::Write as _;

use super::{Candidate, Experience, MAX_NEIGHBOURS, Part, is_claimed};
use crate::{
    attestation::Reason,
    event::SignedAttestation,
    listing::{Listing, Price, Reach},
};
use weir_config::IpType;

/// The most that each part can give. Their sum is 100. What is unknown has half. So an own failure
/// outweighs the best that watchers can say, and what they say outweighs all claims of the exit
/// together: its capacity, reach, place and free slots.
const HISTORY: f64 = 30.0;
const WATCHERS: f64 = 22.0;
const PRICE: f64 = 22.0;
const CAPACITY: f64 = 6.0;
const REACH: f64 = 6.0;
const PLACE: f64 = 4.0;
const REGISTRIES: f64 = 4.0;
const NETWORK: f64 = 4.0;
const FREE: f64 = 2.0;

/// The capacity, in Mbit/s down, that has all points of its part: more is of no use to one consumer.
const ENOUGH_MBITS: f64 = 1000.0;
/// The free slots that have all points.
const ENOUGH_SLOTS: f64 = 100.0;
/// The number of registries that has all points.
const ENOUGH_REGISTRIES: f64 = 2.0;
/// The watchers that are named in an explanation.
const MAX_NAMED: usize = 3;
/// The digits of a watcher's key in an explanation.
const SHORT_KEY: usize = 8;

pub(super) fn explain(
    candidate: &Candidate<'_>,
    price: Option<&Price>,
    cheapest: Option<&Price>,
    experience: Option<Experience>,
) -> Vec<Part> {
    let offer = candidate.offer;
    let listing = &offer.signed.listing;
    let part = |name, max: f64, share: f64, why: String| Part {
        name,
        points: max * share.clamp(0.0, 1.0),
        max,
        why,
    };
    let (history, why) = match experience {
        None => (0.5, "you have not used it: neutral".to_owned()),
        Some(experience) => own(experience),
    };
    let mut parts = vec![part("own history", HISTORY, history, why)];
    let (share, why) = watchers(&candidate.attested);
    parts.push(part("watchers", WATCHERS, share, why));
    let (share, why) = match (price, cheapest) {
        (Some(price), Some(cheapest)) => {
            let (own, least) = (price.approximate(), cheapest.approximate());
            let share = if own <= 0.0 { 1.0 } else { least / own };
            (share, format!("{price}; the lowest is {cheapest}"))
        }
        _ => (0.5, "it has no price that can be compared: neutral".to_owned()),
    };
    parts.push(part("price", PRICE, share, why));
    let (share, why) = capacity(listing, &candidate.attested);
    parts.push(part("capacity", CAPACITY, share, why));
    let (share, why) = match listing.reach {
        Reach::Direct => (1.0, "at its own address"),
        Reach::Mapped => (0.9, "through a port that a router forwards"),
        Reach::Unknown => (0.5, "it does not say: neutral"),
        Reach::Punch => (0.3, "the exit must start the handshake too"),
        Reach::Relay => (0.2, "through another exit"),
    };
    parts.push(part("reach", REACH, share, why.to_owned()));
    let (share, why) = place(listing, &candidate.attested);
    parts.push(part("place", PLACE, share, why));
    let registries = offer.registries.len();
    let why = format!("{registries} of your registries have this listing");
    let share = registries as f64 / ENOUGH_REGISTRIES;
    parts.push(part("registries", REGISTRIES, share, why));
    let crowd = candidate.neighbours;
    let (share, why) = if listing.ip_type == IpType::Residential && crowd > MAX_NEIGHBOURS {
        let why = format!("{crowd} keys in its network claim to be residential");
        (MAX_NEIGHBOURS as f64 / crowd as f64 / 2.0, why)
    } else {
        (1.0, "no crowd of residential keys in its network".to_owned())
    };
    parts.push(part("network", NETWORK, share, why));
    let (share, why) = match listing.free_slots {
        None => (0.5, "it does not say: neutral".to_owned()),
        Some(free) => (f64::from(free) / ENOUGH_SLOTS, format!("{free} or more")),
    };
    parts.push(part("free slots", FREE, share, why));
    parts
}

/// The share of own connections that worked, of which a failure counts twice.
fn own(Experience { good, bad, last_failure, connect_ms }: Experience) -> (f64, String) {
    let (worked, failed) = (f64::from(good), f64::from(bad));
    let share = worked / (worked + failed * 2.0).max(1.0);
    let mut why = format!("{good} connections worked, {bad} failed");
    // Writing to a string cannot fail.
    if let Some(reason) = last_failure {
        write!(why, " (last: {reason})").ok();
    }
    if let Some(milliseconds) = connect_ms {
        write!(why, "; it answers in {milliseconds} ms").ok();
    }
    (share, why)
}

/// The share of believed watchers for whom the exit was good when they last looked.
fn watchers(attested: &[&SignedAttestation]) -> (f64, String) {
    if attested.is_empty() {
        return (0.5, "no watcher that you believe has measured it: neutral".to_owned());
    }
    let bad: Vec<_> = attested.iter().filter(|it| !it.attestation.reason.is_ok()).collect();
    let good = attested.len() - bad.len();
    let mut why = format!("{good} of {} that you believe say {}", attested.len(), Reason::Ok);
    for (number, signed) in bad.iter().take(MAX_NAMED).enumerate() {
        let key = signed.watcher().to_string();
        let key = key.get(..SHORT_KEY).unwrap_or_default();
        let mark = if number == 0 { ";" } else { "," };
        write!(why, "{mark} {key} says {}", signed.attestation.reason).ok();
    }
    if bad.len() > MAX_NAMED {
        write!(why, ", and {} more", bad.len() - MAX_NAMED).ok();
    }
    (good as f64 / attested.len() as f64, why)
}

/// What watchers have measured, or else what the exit says of itself.
fn capacity(listing: &Listing, attested: &[&SignedAttestation]) -> (f64, String) {
    let mut measured: Vec<u32> = attested.iter().filter_map(|it| it.attestation.down).collect();
    measured.sort_unstable();
    // Of an even number the lower one: a single watcher cannot raise it.
    let median = measured.get(measured.len().saturating_sub(1) / 2);
    match (median, listing.measured) {
        (Some(down), _) => {
            let count = measured.len();
            let why = format!("{down} Mbit/s down, the median of {count} that you believe");
            (f64::from(*down) / ENOUGH_MBITS, why)
        }
        (None, Some(measured)) => {
            let why = format!("{} Mbit/s down, measured by the exit itself", measured.down);
            (f64::from(measured.down) / ENOUGH_MBITS, why)
        }
        (None, None) => (0.5, "not measured: neutral".to_owned()),
    }
}

/// Where watchers have seen the exit's address, or else what its operator says.
fn place(listing: &Listing, attested: &[&SignedAttestation]) -> (f64, String) {
    let Some(country) = listing.country else { return (0.0, "it names no country".to_owned()) };
    let agrees = |signed: &&SignedAttestation| -> Option<bool> {
        let seen = signed.attestation.seen;
        let line = seen.ip_type.filter(|_| listing.ip_type != IpType::Unknown);
        Some(seen.country? == country && line.is_none_or(|it| it == listing.ip_type))
    };
    let seen: Vec<bool> = attested.iter().filter_map(agrees).collect();
    if !seen.is_empty() {
        let (agreed, all) = (seen.iter().filter(|it| **it).count(), seen.len());
        let line = listing.ip_type.as_str();
        let why = format!("{country}, {line}: {agreed} of {all} that you believe agree");
        return (agreed as f64 / all as f64, why);
    }
    match is_claimed(listing) {
        true => (0.5, "the operator's word: neutral".to_owned()),
        false => (1.0, "the operator's database has it".to_owned()),
    }
}
