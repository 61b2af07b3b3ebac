//! Listings for tests.

use std::net::{IpAddr, Ipv4Addr};

use weir_common::PublicKey;
use weir_config::{HostPort, IpType};

use crate::listing::{Basis, Capacity, Country, Endpoint, Listing, Payment, Price, Reach, State};

/// A listing of an exit in this country, with the endpoint 192.0.2.`host`:51820.
///
/// # Panics
///
/// When the country or the price is not one.
#[must_use]
pub fn listing(country: &str, price: &str, host: u8) -> Listing {
    at(country, price, Ipv4Addr::new(192, 0, 2, host).into())
}

/// A listing of an exit in this country, at this address.
///
/// # Panics
///
/// When the country or the price is not one.
#[expect(clippy::expect_used, reason = "it is for tests")]
#[must_use]
pub fn at(country: &str, price: &str, address: IpAddr) -> Listing {
    let country: Country = country.parse().expect("a country");
    let price: Price = price.parse().expect("a price");
    Listing {
        id: "weir".into(),
        title: format!("weir exit {country}"),
        state: State::Active,
        country: Some(country),
        country_basis: Basis::Claimed,
        ip_type: IpType::Residential,
        ip_type_basis: Basis::Database,
        asn: Some(64500),
        prices: vec![price],
        payments: vec![Payment::voucher()],
        endpoints: vec![Endpoint {
            key: PublicKey([7; 32]),
            addresses: vec![HostPort { host: address.to_string(), port: 51820 }],
        }],
        reach: Reach::Direct,
        measured: Some(Capacity { up: 912, down: 934, measured_at: 1_800_000_000 }),
        free_slots: Some(4000),
        features: vec!["ipv6".into()],
    }
}
