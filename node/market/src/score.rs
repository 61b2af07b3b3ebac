//! Which exit to take: pure arithmetic over verified listings, explained part by part.
//!
//! What is unknown is neutral. A consumer's own history counts most, then what watchers that it names
//! have measured, and least what an exit claims of itself.

use std::{cmp::Ordering, net::IpAddr};

use ipnet::IpNet;
use serde::Serialize;
use weir_config::IpType;

use crate::{
    attestation::Reason,
    event::SignedAttestation,
    listing::{Basis, Country, Listing, Price, Reach, State},
    view::Offer,
};

mod parts;
#[cfg(test)]
mod tests;

use parts::explain;

/// The number of "residential" keys in one network (IPv4 /24, IPv6 /48) from which on they are
/// suspicious.
pub const MAX_NEIGHBOURS: usize = 5;

/// What somebody looks for. What is empty does not matter.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The country of the exit's address.
    pub country: Option<Country>,
    /// The kind of line.
    pub ip_type: Option<IpType>,
    /// The highest price, for one quantity of one currency.
    pub max_price: Option<Price>,
    /// Ways to pay ([`crate::listing::Payment::method`]), of which the exit must take one.
    pub methods: Vec<String>,
    /// Abilities that the exit must have.
    pub features: Vec<String>,
    /// Whether any WireGuard app must be able to reach it.
    pub any_app: bool,
    /// Whether exits that are sold count too.
    pub sold_too: bool,
    /// The order of the result.
    pub sort: Sort,
}

/// The order of exits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The highest score first.
    #[default]
    Score,
    /// The lowest price first.
    Price,
    /// The highest measured capacity first.
    Capacity,
    /// The newest listing first.
    Newest,
}

/// Why an exit does not fit a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// It takes no sessions now.
    #[error("it is sold out")]
    Sold,
    /// It is elsewhere.
    #[error("it is in another country")]
    Country,
    /// It is elsewhere than it says.
    #[error("watchers that you believe have seen its address in another country")]
    SeenElsewhere,
    /// It is another kind of line.
    #[error("its line is of another kind")]
    IpType,
    /// It costs more, or cannot be compared.
    #[error("it has no price up to the highest that is wanted")]
    Price,
    /// It is paid otherwise.
    #[error("it takes none of the ways to pay")]
    Method,
    /// It lacks an ability.
    #[error("it lacks a feature")]
    Feature,
    /// It cannot be reached by any app.
    #[error("not every WireGuard app can reach it")]
    Reach,
}

/// What a consumer remembers of exits.
pub trait History {
    /// What was experienced with the exit that has this key (in hex); `None` if nothing.
    fn of(&self, key: &str) -> Option<Experience>;
}

/// What was experienced with an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Experience {
    /// Connections that worked.
    pub good: u32,
    /// Connections that failed, or were paid and carried nothing.
    pub bad: u32,
    /// Why the last of these failed.
    pub last_failure: Option<Reason>,
    /// The median time until it answered, in milliseconds.
    pub connect_ms: Option<u32>,
}

/// No history.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHistory;

impl History for NoHistory {
    fn of(&self, _: &str) -> Option<Experience> {
        None
    }
}

/// An exit that may be scored.
#[derive(Clone, Debug)]
pub struct Candidate<'v> {
    /// The exit.
    pub offer: &'v Offer,
    /// How many keys claim to be residential in a network of its endpoints.
    pub neighbours: usize,
    /// What believed watchers say of it: the newest of each.
    pub attested: Vec<&'v SignedAttestation>,
}

/// One part of a score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// What it is about.
    pub name: &'static str,
    /// The points that it has.
    pub points: f64,
    /// The points that it could have.
    pub max: f64,
    /// Why it has them.
    pub why: String,
}

/// An exit with its score.
#[derive(Clone, Debug)]
pub struct Scored<'v> {
    /// The exit.
    pub offer: &'v Offer,
    /// The parts, whose sum is the score.
    pub parts: Vec<Part>,
    /// The score, 0 to 100.
    pub score: f64,
    /// The price that was compared.
    pub price: Option<Price>,
}

/// The exits that fit, in the order that is wished for. Equal ones are ordered by their keys, so that
/// the result does not depend on the order of the candidates.
#[must_use]
pub fn choose<'v>(
    candidates: &[Candidate<'v>],
    wish: &Wish,
    history: &dyn History,
) -> Vec<Scored<'v>> {
    let fitting: Vec<_> = candidates
        .iter()
        .filter(|it| fits(&it.offer.signed.listing, &it.attested, wish).is_ok())
        .collect();
    let yardstick = yardstick(fitting.iter().map(|it| &it.offer.signed.listing), wish);
    let cheapest = yardstick.as_ref().and_then(|unit| {
        let prices = fitting.iter().filter_map(|it| price_in(&it.offer.signed.listing, unit));
        prices.min_by(|one, two| one.compare(two).unwrap_or(Ordering::Equal))
    });
    let mut all: Vec<_> = fitting
        .into_iter()
        .map(|candidate| {
            let offer = candidate.offer;
            let listing = &offer.signed.listing;
            let price = yardstick.as_ref().and_then(|unit| price_in(listing, unit));
            let experience = history.of(&offer.key());
            let parts = explain(candidate, price.as_ref(), cheapest.as_ref(), experience);
            let score = parts.iter().map(|part| part.points).sum();
            Scored { offer, parts, score, price }
        })
        .collect();
    all.sort_by(|one, two| order(one, two, wish.sort));
    all
}

fn order(one: &Scored<'_>, two: &Scored<'_>, sort: Sort) -> Ordering {
    let by_score = two.score.total_cmp(&one.score);
    let capacity =
        |it: &Scored<'_>| it.offer.signed.listing.measured.map_or(0, |measured| measured.down);
    let first = match sort {
        Sort::Score => by_score,
        Sort::Price => match (&one.price, &two.price) {
            (Some(one), Some(two)) => one.compare(two).unwrap_or(Ordering::Equal),
            (one, two) => two.is_some().cmp(&one.is_some()),
        },
        Sort::Capacity => capacity(two).cmp(&capacity(one)),
        Sort::Newest => two.offer.signed.event.created_at.cmp(&one.offer.signed.event.created_at),
    };
    let key = |it: &Scored<'_>| it.offer.signed.address();
    first.then(by_score).then_with(|| key(one).cmp(&key(two)))
}

/// Whether a listing fits, about which believed watchers say this.
///
/// # Errors
///
/// Says why not.
pub fn fits(listing: &Listing, attested: &[&SignedAttestation], wish: &Wish) -> Result<(), Unfit> {
    if listing.state == State::Sold && !wish.sold_too {
        return Err(Unfit::Sold);
    }
    if wish.country.is_some_and(|country| listing.country != Some(country)) {
        return Err(Unfit::Country);
    }
    if let Some(country) = wish.country {
        let seen: Vec<_> = attested.iter().filter_map(|it| it.attestation.seen.country).collect();
        let elsewhere = seen.iter().filter(|it| **it != country).count();
        if elsewhere * 2 > seen.len() {
            return Err(Unfit::SeenElsewhere);
        }
    }
    if wish.ip_type.is_some_and(|ip_type| listing.ip_type != ip_type) {
        return Err(Unfit::IpType);
    }
    if let Some(max) = &wish.max_price {
        let affordable = |price: &Price| price.compare(max).is_some_and(Ordering::is_le);
        if !listing.prices.iter().any(affordable) {
            return Err(Unfit::Price);
        }
    }
    let takes = |method: &String| listing.payments.iter().any(|it| it.method() == *method);
    if !wish.methods.is_empty() && !wish.methods.iter().any(takes) {
        return Err(Unfit::Method);
    }
    if !wish.features.iter().all(|feature| listing.features.contains(feature)) {
        return Err(Unfit::Feature);
    }
    if wish.any_app && matches!(listing.reach, Reach::Punch | Reach::Relay) {
        return Err(Unfit::Reach);
    }
    Ok(())
}

/// The quantity and currency in which prices are compared: those of the highest price that is
/// wanted, else those in which most of the exits have a price.
fn yardstick<'l>(listings: impl Iterator<Item = &'l Listing>, wish: &Wish) -> Option<Price> {
    if let Some(max) = &wish.max_price {
        return max.in_base();
    }
    let mut counts: Vec<(Price, usize)> = Vec::new();
    for price in listings.flat_map(|listing| &listing.prices).filter_map(Price::in_base) {
        let has_room = counts.len() < 64;
        match counts.iter_mut().find(|(unit, _)| unit.compare(&price).is_some()) {
            Some((_, count)) => *count += 1,
            // Strangers cannot make this long: most exits have a price in one of the first.
            None if has_room => counts.push((price, 1)),
            None => {}
        }
    }
    // The first of equals, by name, so that the order of listings does not matter.
    counts.sort_by_key(|(unit, count)| {
        (std::cmp::Reverse(*count), unit.currency.as_str().to_ascii_lowercase(), unit.unit.as_str())
    });
    counts.into_iter().next().map(|(unit, _)| unit)
}

/// A listing's lowest price that can be compared with `unit`, for the smallest quantity.
fn price_in(listing: &Listing, unit: &Price) -> Option<Price> {
    let comparable = listing.prices.iter().filter(|price| price.compare(unit).is_some());
    let lowest = comparable.min_by(|one, two| one.compare(two).unwrap_or(Ordering::Equal));
    lowest.and_then(Price::in_base)
}

/// The networks (IPv4 /24, IPv6 /48) of a listing's endpoints.
pub fn networks(listing: &Listing) -> impl Iterator<Item = IpNet> {
    let addresses = listing.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|address| {
        let address: IpAddr = address.host.parse().ok()?;
        let length = if address.is_ipv4() { 24 } else { 48 };
        Some(IpNet::new(address, length).ok()?.trunc())
    })
}

/// One of the best `among`, by a random number: not always the best, so that load spreads and a
/// choice says less about who made it.
#[must_use]
pub fn pick<'s, 'v>(scored: &'s [Scored<'v>], among: usize, random: u64) -> Option<&'s Scored<'v>> {
    let best = scored.get(..among.clamp(1, scored.len().max(1))).unwrap_or(scored);
    let index = usize::try_from(random % u64::try_from(best.len().max(1)).ok()?).ok()?;
    best.get(index)
}

/// Whether the place is only claimed.
pub(crate) fn is_claimed(listing: &Listing) -> bool {
    listing.country_basis == Basis::Claimed || listing.ip_type_basis == Basis::Claimed
}
