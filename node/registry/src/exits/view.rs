//! An exit as JSON: what its listing says, and the signed event that proves it.

use serde::Serialize;
use serde_json::value::RawValue;
use weir_config::IpType;
use weir_market::{
    event::SignedListing,
    listing::{Basis, Capacity, Payment, Price, Reach, State},
};
use weir_wireguard::keys;

use crate::record::Record;

/// One exit.
#[derive(Debug, Serialize)]
pub struct ExitView {
    /// The key that signs the listing, in hex.
    pub pubkey: String,
    /// The listing's name among those of its key.
    pub id: String,
    /// A name for people.
    pub title: String,
    /// `active` or `sold`.
    pub state: State,
    /// The country's two letters.
    pub country: Option<String>,
    /// `claimed` by the operator, or from a `database` of the operator's.
    pub country_basis: Basis,
    /// The kind of line.
    #[serde(serialize_with = "word")]
    pub ip_type: IpType,
    /// As for the country.
    pub ip_type_basis: Basis,
    /// The autonomous system.
    pub asn: Option<u32>,
    /// The prices, each an alternative.
    pub prices: Vec<Price>,
    /// The ways to pay.
    pub payments: Vec<Payment>,
    /// Where WireGuard answers.
    pub endpoints: Vec<EndpointView>,
    /// How the exit is reached.
    pub reach: Reach,
    /// What it carries, in Mbit/s, as the node has measured.
    pub measured: Option<Capacity>,
    /// How many more sessions it takes, about.
    pub free_slots: Option<u32>,
    /// Abilities.
    pub features: Vec<String>,
    /// When the listing was signed, in seconds since 1970.
    pub created_at: u64,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
    /// The signed event.
    pub event: Box<RawValue>,
}

/// A WireGuard endpoint.
#[derive(Debug, Serialize)]
pub struct EndpointView {
    /// The node's public key.
    pub public_key: String,
    /// `address:port`.
    pub addresses: Vec<String>,
}

fn word<S: serde::Serializer>(ip_type: &IpType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(ip_type.as_str())
}

impl ExitView {
    /// The view of a stored listing; `None` for other events.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        let SignedListing { listing, event } = SignedListing::read(record.event()?).ok()?;
        Some(Self {
            pubkey: event.pubkey.to_hex(),
            id: listing.id,
            title: listing.title,
            state: listing.state,
            country: listing.country.map(|country| country.to_string()),
            country_basis: listing.country_basis,
            ip_type: listing.ip_type,
            ip_type_basis: listing.ip_type_basis,
            asn: listing.asn,
            prices: listing.prices,
            payments: listing.payments,
            endpoints: listing
                .endpoints
                .iter()
                .map(|endpoint| EndpointView {
                    public_key: keys::print_public(&endpoint.key),
                    addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            reach: listing.reach,
            measured: listing.measured,
            free_slots: listing.free_slots,
            features: listing.features,
            created_at: record.created_at,
            expires: record.until,
            event: RawValue::from_string(record.json.to_string()).ok()?,
        })
    }
}
