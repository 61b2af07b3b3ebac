//! What a watcher says of what it found. Pure.

use std::net::IpAddr;

use serde::Serialize;
use weir_connect::bill::Bill;
use weir_market::{
    attestation::{Attestation, Reason, Share, Uptime},
    event::Address,
    listing::Listing,
    place::Place,
};

/// The share of what the listed price buys that is to be credited, in per cent: mints keep a fee.
const MIN_CREDIT: u128 = 99;

/// Whether the exit's resolvers answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Names {
    /// They were not asked.
    #[default]
    NotAsked,
    /// They answered, and rightly as far as that is known.
    Answered,
    /// They answered with another address than the name has.
    Wrong,
    /// They did not answer.
    Silent,
}

/// A bill, and the own count since the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Bytes that the exit has billed.
    pub billed: u64,
    /// Bytes that the tunnel has counted.
    pub counted: u64,
    /// Whether the one fits the other.
    pub bill: Bill,
}

/// What was bought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bought {
    /// Bytes that the listed price buys for what was paid.
    pub due: u64,
    /// Bytes that the exit credited, if it says so.
    pub credited: Option<u64>,
}

/// What was found inside the tunnel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Milliseconds until the handshake was complete; `None` if it never was.
    pub handshake_ms: Option<u32>,
    /// The median round trip to the exit, in milliseconds.
    pub rtt_ms: Option<u32>,
    /// Whether anything came back from the internet.
    pub is_carrying: bool,
    /// The address by which the exit's traffic leaves, as a server sees it.
    pub address: Option<IpAddr>,
    /// Where that address is.
    pub place: Place,
    /// Bytes per second to the watcher.
    pub down: Option<u64>,
    /// Bytes per second from the watcher.
    pub up: Option<u64>,
    /// The exit's resolvers.
    pub names: Names,
    /// The bill.
    pub compared: Option<Compared>,
}

/// The reason word: the first fault in the order in which a consumer meets them.
#[must_use]
pub fn reason(listing: &Listing, bought: Bought, found: &Found) -> Reason {
    if found.handshake_ms.is_none() {
        return Reason::NoHandshake;
    }
    if !found.is_carrying {
        return Reason::PaidNoTraffic;
    }
    let is_elsewhere = match (listing.country, found.place.country) {
        (Some(listed), Some(seen)) => listed != seen,
        _ => false,
    };
    if is_elsewhere {
        return Reason::WrongExit;
    }
    if matches!(found.names, Names::Wrong | Names::Silent) {
        return Reason::DnsBroken;
    }
    if matches!(found.compared, Some(Compared { bill: Bill::TooHigh { .. }, .. })) {
        return Reason::Overbilled;
    }
    match is_price_honoured(bought) {
        Some(false) => Reason::PriceNotHonoured,
        _ => Reason::Ok,
    }
}

fn is_price_honoured(Bought { due, credited }: Bought) -> Option<bool> {
    let credited = u128::from(credited?) * 100;
    Some(credited >= u128::from(due) * MIN_CREDIT)
}

/// The attestation.
#[must_use]
pub fn attest(
    exit: Address,
    listing: &Listing,
    bought: Bought,
    found: &Found,
    uptime: Option<Uptime>,
) -> Attestation {
    Attestation {
        reason: reason(listing, bought, found),
        seen: found.place,
        handshake_ms: found.handshake_ms,
        rtt_ms: found.rtt_ms,
        down: found.down.map(mbits),
        up: found.up.map(mbits),
        is_price_honoured: is_price_honoured(bought),
        billed: found.compared.and_then(|it| Share::of(it.billed, it.counted)),
        uptime,
        ..Attestation::new(exit, Reason::Ok)
    }
}

/// Bytes per second as Mbit/s, rounded down.
fn mbits(bytes: u64) -> u32 {
    u32::try_from(bytes / 125_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use weir_market::testing::listing;

    use super::*;

    fn good() -> Found {
        Found {
            handshake_ms: Some(80),
            rtt_ms: Some(20),
            is_carrying: true,
            address: Some([192, 0, 2, 1].into()),
            place: Place { country: "DE".parse().ok(), ..Place::default() },
            down: Some(50_000_000),
            up: Some(124_999),
            names: Names::Answered,
            compared: Some(Compared { billed: 997, counted: 1000, bill: Bill::Fits }),
        }
    }

    const PAID: Bought = Bought { due: 1000, credited: Some(990) };

    #[test]
    fn a_good_exit_is_ok_and_what_was_measured_is_attested() {
        let exit = Address { kind: 30402, key: [7; 32], identifier: "weir".into() };
        let listing = listing("DE", "100 sat/GiB", 1);
        let attested = attest(exit.clone(), &listing, PAID, &good(), None);
        let expected = Attestation {
            seen: good().place,
            handshake_ms: Some(80),
            rtt_ms: Some(20),
            down: Some(400),
            up: Some(0),
            is_price_honoured: Some(true),
            billed: Some(Share::from_thousandths(997)),
            ..Attestation::new(exit, Reason::Ok)
        };
        assert_eq!(attested, expected);
    }

    #[test]
    fn each_fault_has_its_word_and_the_first_that_a_consumer_meets_counts() {
        let listing = listing("DE", "100 sat/GiB", 1);
        let mut found = good();
        let word = |found: &Found, bought| reason(&listing, bought, found).as_str();
        assert_eq!(word(&found, PAID), "ok");
        let little = Bought { credited: Some(989), ..PAID };
        assert_eq!(word(&found, little), "price-not-honoured");
        assert_eq!(word(&found, Bought { credited: None, ..PAID }), "ok");
        let bill = Bill::TooHigh { billed: 2000, counted: 1000 };
        found.compared = Some(Compared { billed: 2000, counted: 1000, bill });
        assert_eq!(word(&found, little), "overbilled");
        for names in [Names::Silent, Names::Wrong] {
            found.names = names;
            assert_eq!(word(&found, little), "dns-broken");
        }
        found.place.country = "NL".parse().ok();
        assert_eq!(word(&found, little), "wrong-exit");
        found.is_carrying = false;
        assert_eq!(word(&found, little), "paid-no-traffic");
        found.handshake_ms = None;
        assert_eq!(word(&found, little), "no-handshake");
    }

    #[test]
    fn what_is_not_known_is_no_fault() {
        let listing = listing("DE", "100 sat/GiB", 1);
        let found = Found {
            handshake_ms: Some(1),
            is_carrying: true,
            place: Place::default(),
            ..Found::default()
        };
        assert_eq!(reason(&listing, Bought { due: 1, credited: None }, &found), Reason::Ok);
        let nowhere = Listing { country: None, ..listing };
        assert_eq!(reason(&nowhere, PAID, &good()), Reason::Ok);
    }
}
