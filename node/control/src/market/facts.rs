//! Makes a listing of what the node is, and of what its operator wrote. Pure.

use std::net::IpAddr;

use weir_common::PublicKey;
use weir_config::{Config, HostPort, IpType, ListenAddr};
use weir_market::{
    listing::{
        Amount, Basis, Capacity, Currency, Endpoint, Listing, Payment, Price, Reach, State, Unit,
        rounded,
    },
    place::Place,
};

use super::MarketSettings;
use crate::purchase;

/// What a listing says about the running node.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The key with which it answers.
    pub node_key: PublicKey,
    /// The endpoint in new consumer configurations.
    pub endpoint: HostPort,
    /// The uplink's addresses.
    pub addresses: Vec<IpAddr>,
    /// The addresses that consumers leave by, if they are not the uplink's.
    pub exit_addresses: Vec<IpAddr>,
    /// Sessions that exist.
    pub sessions: usize,
    /// Sessions that there may be.
    pub max_sessions: u32,
    /// Whether a quota or the schedule has paused all sessions.
    pub is_paused: bool,
    /// Whether consumers have IPv6.
    pub has_ipv6: bool,
    /// What `weir bench` measured.
    pub measured: Option<Capacity>,
    /// The ecash that it takes.
    pub cashu: Option<CashuFacts>,
}

/// The ecash that a node takes.
#[derive(Clone, Debug)]
pub struct CashuFacts {
    /// The mints.
    pub mints: Vec<String>,
    /// The key that tokens are to be locked to, in hex.
    pub lock: String,
    /// The price of a GiB.
    pub gib_price: u64,
    /// The unit of the price.
    pub unit: String,
}

/// The listing, and what would make it better, in words.
#[must_use]
pub fn listing(id: &str, facts: &Facts, settings: &MarketSettings) -> (Listing, Vec<String>) {
    let config = settings.config();
    let mut notes = Vec::new();
    let endpoints = endpoints(facts, config, &mut notes);
    let place = exit_address(facts, &endpoints).map(|it| settings.find(it)).unwrap_or_default();
    let claimed = Place {
        country: config.market.country.parse().ok(),
        asn: None,
        ip_type: Some(config.market.ip_type).filter(|it| *it != IpType::Unknown),
    };
    let known = place.or(claimed);
    let basis = |is_known: bool| if is_known { Basis::Database } else { Basis::Claimed };
    if known.country.is_none() {
        notes.push(
            "the listing names no country, so most consumers will not find it. Fix: set \
             market.country, or market.place_files"
                .into(),
        );
    }
    if facts.measured.is_none() {
        notes.push(
            "the listing has no capacity. Fix: run `weir bench` with the node's configuration"
                .into(),
        );
    }
    let free = facts.max_sessions.saturating_sub(u32::try_from(facts.sessions).unwrap_or(u32::MAX));
    let is_sold = free == 0 || facts.is_paused;
    let title = match (config.market.title.as_str(), known.country) {
        ("", Some(country)) => format!("weir exit {country}"),
        ("", None) => "weir exit".to_owned(),
        (title, _) => title.to_owned(),
    };
    let url = match config.market.purchase_url.as_str() {
        "" => purchase::url(&config.purchase, host(&endpoints)),
        url => Some(url.to_owned()),
    };
    if url.is_none() && config.purchase.listen != ListenAddr::Off {
        notes.push(
            "the listing does not say where configurations are sold, because the node has no public \
             address. Fix: set market.purchase_url"
                .into(),
        );
    }
    let (prices, payments) = terms(facts, config, url.as_deref());
    let listing = Listing {
        id: id.to_owned(),
        title,
        state: if is_sold { State::Sold } else { State::Active },
        country: known.country,
        country_basis: basis(place.country.is_some()),
        ip_type: known.ip_type.unwrap_or_default(),
        ip_type_basis: basis(place.ip_type.is_some()),
        asn: place.asn,
        prices,
        payments,
        reach: reach(facts, &endpoints),
        endpoints,
        measured: facts.measured,
        free_slots: Some(rounded(free)),
        features: features(facts, config),
    };
    (listing, notes)
}

/// Where consumers reach the node: what the operator wrote, or what the uplink has in public.
fn endpoints(facts: &Facts, config: &Config, notes: &mut Vec<String>) -> Vec<Endpoint> {
    let written: Vec<HostPort> =
        config.market.endpoints.iter().filter_map(|text| text.parse().ok()).collect();
    let addresses = if written.is_empty() { found(facts, config) } else { written };
    let (addresses, private): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|it| it.host.parse().map_or(true, is_public));
    if let Some(private) = private.first()
        && addresses.is_empty()
    {
        notes.push(format!(
            "{private} is not a public address, so the listing has no endpoint. Fix: forward the \
             port to this machine, and set market.endpoints to the public address"
        ));
    }
    if addresses.is_empty() {
        return Vec::new();
    }
    vec![Endpoint { key: facts.node_key, addresses }]
}

/// The endpoint in consumers' configurations, and the uplink's first public address of the family
/// that it is not of.
fn found(facts: &Facts, config: &Config) -> Vec<HostPort> {
    let mut all = vec![facts.endpoint.clone()];
    let named: Option<IpAddr> = facts.endpoint.host.parse().ok();
    let port = config.node.listen_port;
    let is_other = |address: &&IpAddr| named.is_some_and(|it| it.is_ipv4() != address.is_ipv4());
    let other = facts.addresses.iter().filter(is_other).find(|address| is_public(**address));
    // A name may have both families already.
    all.extend(other.map(|address| HostPort { host: address.to_string(), port }));
    all
}

/// The address whose country is listed: that by which consumers leave.
fn exit_address(facts: &Facts, endpoints: &[Endpoint]) -> Option<IpAddr> {
    let exits = facts.exit_addresses.iter().chain(&facts.addresses).copied();
    let listed = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let listed = listed.filter_map(|address| address.host.parse().ok());
    // Behind NAT, the address that consumers leave by is often the one at which they reach the node.
    exits.chain(listed).find(|address| is_public(*address))
}

/// The host of the first address that is listed.
fn host(endpoints: &[Endpoint]) -> Option<&str> {
    let mut addresses = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    addresses.next().map(|address| address.host.as_str())
}

/// How the node is reached, as far as it can tell by itself.
fn reach(facts: &Facts, endpoints: &[Endpoint]) -> Reach {
    let mut listed = endpoints.iter().flat_map(|endpoint| &endpoint.addresses).peekable();
    if listed.peek().is_none() {
        return Reach::Unknown;
    }
    let is_own = |address: &HostPort| {
        address.host.parse().is_ok_and(|address: IpAddr| facts.addresses.contains(&address))
    };
    if listed.all(is_own) {
        return Reach::Direct;
    }
    // A machine without a public address that names one has its port forwarded.
    let has_public = facts.addresses.iter().any(|address| is_public(*address));
    if has_public { Reach::Direct } else { Reach::Mapped }
}

/// What it costs and how it is paid.
fn terms(facts: &Facts, config: &Config, url: Option<&str>) -> (Vec<Price>, Vec<Payment>) {
    let (mut prices, mut payments) = (Vec::new(), Vec::new());
    if let Some(cashu) = &facts.cashu
        && let (Some(amount), Ok(currency)) =
            (Amount::whole(cashu.gib_price.into()), cashu.unit.parse::<Currency>())
    {
        prices.push(Price { amount, currency, unit: Unit::GiB });
        for mint in &cashu.mints {
            if let Some(url) = url {
                payments.push(Payment::cashu(mint, &cashu.lock, url));
            }
            payments.push(Payment::tunnel_cashu(mint, &cashu.lock));
        }
    }
    let payment = &config.payment;
    if payment.enabled
        && let Some(hub) = payment.hermes
    {
        for (wei, unit) in [(payment.per_gib.0, Unit::GiB), (payment.per_hour.0, Unit::Hour)] {
            if wei > 0 {
                let amount = Amount::from_atto(wei);
                prices.push(Price { amount, currency: Currency::myst(), unit });
            }
        }
        payments.push(Payment::tunnel_mysterium(payment.chain_id.into(), &hub.to_string()));
    }
    if config.voucher.enabled {
        payments.push(Payment::voucher());
    }
    (prices, payments)
}

fn features(facts: &Facts, config: &Config) -> Vec<String> {
    let all = [("ipv6", facts.has_ipv6), ("dns", config.dns.enabled), ("page", config.has_page())];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

/// Whether the internet can reach an address, by the registries of special addresses (RFC 6890).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (18..20).contains(&b);
            let protocols = a == 192 && b == 0 && c == 0;
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_documentation()
                || shared
                || benchmark
                || protocols
                || a == 0
                || a >= 224)
        }
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            let documentation = segments[0] == 0x2001 && segments[1] == 0xdb8;
            // Global unicast: 2000::/3.
            segments[0] & 0xe000 == 0x2000 && !documentation
        }
    }
}

#[cfg(test)]
mod tests;
