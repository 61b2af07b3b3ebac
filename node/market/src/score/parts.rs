//! The parts of a score.

use super::{Candidate, Experience, MAX_NEIGHBOURS, Part, is_claimed};
use crate::listing::{Price, Reach};
use weir_config::IpType;

/// The most that each part can give. Their sum is 100.
const HISTORY: f64 = 30.0;
const PRICE: f64 = 30.0;
const CAPACITY: f64 = 10.0;
const REACH: f64 = 10.0;
const PLACE: f64 = 5.0;
const REGISTRIES: f64 = 5.0;
const NETWORK: f64 = 5.0;
const FREE: f64 = 5.0;

/// The capacity, in Mbit/s down, that has all points of its part: more is of no use to one consumer.
const ENOUGH_MBITS: f64 = 1000.0;
/// The free slots that have all points.
const ENOUGH_SLOTS: f64 = 100.0;
/// The number of registries that has all points.
const ENOUGH_REGISTRIES: f64 = 2.0;

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
        Some(Experience { good, bad }) => {
            // One good connection before there is any, so that a single failure is not the end.
            let share = f64::from(good) / (f64::from(good) + f64::from(bad) * 2.0).max(1.0);
            (share, format!("{good} connections worked, {bad} failed"))
        }
    };
    let mut parts = vec![part("own history", HISTORY, history, why)];
    let (share, why) = match (price, cheapest) {
        (Some(price), Some(cheapest)) => {
            let (own, least) = (price.approximate(), cheapest.approximate());
            let share = if own <= 0.0 { 1.0 } else { least / own };
            (share, format!("{price}; the lowest is {cheapest}"))
        }
        _ => (0.5, "it has no price that can be compared: neutral".to_owned()),
    };
    parts.push(part("price", PRICE, share, why));
    let (share, why) = match listing.measured {
        None => (0.5, "not measured: neutral".to_owned()),
        Some(measured) => {
            let why = format!("{} Mbit/s down, measured by the exit itself", measured.down);
            (f64::from(measured.down) / ENOUGH_MBITS, why)
        }
    };
    parts.push(part("capacity", CAPACITY, share, why));
    let (share, why) = match listing.reach {
        Reach::Direct => (1.0, "at its own address"),
        Reach::Mapped => (0.9, "through a port that a router forwards"),
        Reach::Unknown => (0.5, "it does not say: neutral"),
        Reach::Punch => (0.3, "the exit must start the handshake too"),
        Reach::Relay => (0.2, "through another exit"),
    };
    parts.push(part("reach", REACH, share, why.to_owned()));
    let (share, why) = match (listing.country, is_claimed(listing)) {
        (None, _) => (0.0, "it names no country"),
        (Some(_), true) => (0.5, "the operator's word: neutral"),
        (Some(_), false) => (1.0, "the operator's database has it"),
    };
    parts.push(part("place", PLACE, share, why.to_owned()));
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
