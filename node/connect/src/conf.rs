//! A wg-quick configuration, as a node or a shop gives it to a consumer. Pure.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use ipnet::IpNet;
use weir_common::PublicKey;
use weir_wireguard::{
    keys::{self, KeyError, PresharedKey, PrivateKey},
    wg_quick,
};

/// The largest configuration that is read, in bytes.
pub const MAX_LEN: usize = 64 * 1024;
/// The MTU inside the tunnel, in bytes, where the configuration names none.
pub const DEFAULT_MTU: u16 = 1420;
/// The least MTU of an interface with IPv6 (RFC 8200, section 5).
const MIN_MTU: u16 = 1280;
/// The most addresses, resolvers or networks of one key.
const MAX_LIST: usize = 64;

/// A consumer's end of a tunnel with one exit.
#[derive(Clone, Debug)]
pub struct Conf {
    /// The consumer's key.
    pub private_key: PrivateKey,
    /// The consumer's addresses inside the tunnel.
    pub addresses: Vec<IpNet>,
    /// The resolvers inside the tunnel.
    pub dns: Vec<IpAddr>,
    /// The MTU inside the tunnel, in bytes.
    pub mtu: u16,
    /// The node's key.
    pub public_key: PublicKey,
    /// The pre-shared key; all zeros is none.
    pub preshared_key: PresharedKey,
    /// Where the node is reached.
    pub endpoint: Endpoint,
    /// What the node may send from, and what is sent to it.
    pub allowed: Vec<IpNet>,
    /// Seconds between keepalives; 0 is none.
    pub keepalive: u16,
    /// The node's public key for usage receipts, in base64, if the file names it.
    pub receipts: Option<String>,
    /// The country that the exit says it is in, if the file names it.
    pub country: Option<String>,
    /// Keys that say something to wg-quick, and nothing here.
    pub ignored: Vec<String>,
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and a port.
    Address(SocketAddr),
    /// A name and a port, to be resolved before anything is closed.
    Name(String, u16),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// It is too long.
    #[error("it is longer than {MAX_LEN} bytes, which no configuration of WireGuard is")]
    TooLong,
    /// A line is not one of a configuration.
    #[error("line {0} is neither [Interface], [Peer], a comment nor \"Key = value\"")]
    Line(usize),
    /// A key is missing.
    #[error("{0} is missing: is this the whole file that the seller gave you?")]
    Missing(&'static str),
    /// A value cannot be used.
    #[error("{key} in line {line} {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// More than one peer.
    #[error(
        "it has more than one [Peer]: weir connects to one exit at a time. Fix: give one file for each"
    )]
    Peers,
    /// Neither family leaves by the tunnel.
    #[error(
        "AllowedIPs has neither 0.0.0.0/0 nor ::/0 with an Address of that family: this is not an \
         exit for all traffic"
    )]
    NoExit,
}

/// What a file says so far.
#[derive(Default)]
struct Partial {
    private_key: Option<PrivateKey>,
    public_key: Option<PublicKey>,
    preshared_key: PresharedKey,
    endpoint: Option<Endpoint>,
    addresses: Vec<IpNet>,
    allowed: Vec<IpNet>,
    dns: Vec<IpAddr>,
    mtu: Option<u16>,
    keepalive: u16,
    ignored: Vec<String>,
}

impl Conf {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// Names the line, or what is missing.
    pub fn parse(text: &str) -> Result<Self, ConfError> {
        if text.len() > MAX_LEN {
            return Err(ConfError::TooLong);
        }
        let mut partial = Partial::default();
        let (mut section, mut peers) = ("", 0);
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            match text.to_ascii_lowercase().as_str() {
                "" => {}
                "[interface]" => section = "interface",
                "[peer]" => {
                    (section, peers) = ("peer", peers + 1);
                }
                _ => {
                    let (key, value) = text.split_once('=').ok_or(ConfError::Line(line))?;
                    partial.take(section, key.trim(), value.trim(), line)?;
                }
            }
        }
        if peers > 1 {
            return Err(ConfError::Peers);
        }
        let note = |name| wg_quick::note(text, name).map(str::to_owned);
        let country = note(wg_quick::COUNTRY);
        let is_country =
            |text: &String| text.len() == 2 && text.bytes().all(|it| it.is_ascii_uppercase());
        let (receipts, country) = (note(wg_quick::RECEIPTS), country.filter(is_country));
        Ok(Conf { receipts, country, ..partial.finish()? })
    }

    /// The consumer's address of a family, if traffic of that family leaves by this tunnel.
    #[must_use]
    pub fn exit_address(&self, is_v6: bool) -> Option<IpAddr> {
        let of_family = |network: &&IpNet| network.addr().is_ipv6() == is_v6;
        let whole: u32 =
            self.allowed.iter().filter(of_family).map(|net| half(net.prefix_len())).sum();
        let address = self.addresses.iter().find(of_family).map(IpNet::addr);
        // Two halves are everything too: some files have them, so that they win over other routes.
        address.filter(|_| whole >= 2)
    }

    /// Where the node answers inside the tunnel: its resolver, if that has a private address.
    #[must_use]
    pub fn gateway(&self) -> Option<IpAddr> {
        self.dns.iter().copied().find(|address| is_private(*address))
    }

    /// Whether an inner packet from this source may come from the node.
    #[must_use]
    pub fn allows(&self, source: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(&source))
    }
}

/// How many halves of the address space a prefix of this length is.
const fn half(prefix: u8) -> u32 {
    match prefix {
        0 => 2,
        1 => 1,
        _ => 0,
    }
}

/// Whether an address is for private networks (RFC 1918, RFC 6598, RFC 4193).
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || a == 100 && b & 0xc0 == 64
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

impl Partial {
    fn take(
        &mut self,
        section: &str,
        key: &str,
        value: &str,
        line: usize,
    ) -> Result<(), ConfError> {
        let wrong = |key, reason: String| ConfError::Value { key, line, reason };
        let bad_key = |key| move |error: KeyError| wrong(key, format!("is wrong: {error}"));
        match (section, key.to_ascii_lowercase().as_str()) {
            ("interface", "privatekey") => {
                let parsed = PrivateKey::parse(value).map_err(bad_key("PrivateKey"))?;
                self.private_key = Some(parsed);
            }
            ("interface", "address") => list(&mut self.addresses, value, network)
                .map_err(|text| wrong("Address", format!("has {text:?}, which is no address")))?,
            ("interface", "dns") => {
                // Search domains may stand there too.
                for text in value.split(',').map(str::trim).take(MAX_LIST) {
                    self.dns.extend(text.parse::<IpAddr>().ok());
                }
            }
            ("interface", "mtu") => {
                let mtu = value.parse().ok().filter(|mtu| *mtu >= MIN_MTU);
                let reason = || format!("is {value:?}: give {MIN_MTU} to 65535");
                self.mtu = Some(mtu.ok_or_else(|| wrong("MTU", reason()))?);
            }
            ("peer", "publickey") => {
                let parsed = keys::parse_public(value).map_err(bad_key("PublicKey"))?;
                self.public_key = Some(parsed);
            }
            ("peer", "presharedkey") => {
                self.preshared_key = PresharedKey::parse(value).map_err(bad_key("PresharedKey"))?;
            }
            ("peer", "allowedips") => list(&mut self.allowed, value, network).map_err(|text| {
                wrong("AllowedIPs", format!("has {text:?}, which is no network"))
            })?,
            ("peer", "endpoint") => {
                let parsed = endpoint(value);
                let reason = || format!("is {value:?}: give \"host:port\"");
                self.endpoint = Some(parsed.ok_or_else(|| wrong("Endpoint", reason()))?);
            }
            ("peer", "persistentkeepalive") => {
                let seconds = if value == "off" { Ok(0) } else { value.parse() };
                let reason =
                    |_| wrong("PersistentKeepalive", format!("is {value:?}: give seconds"));
                self.keepalive = seconds.map_err(reason)?;
            }
            ("interface" | "peer", _) => self.ignored.push(key.chars().take(40).collect()),
            _ => return Err(ConfError::Line(line)),
        }
        Ok(())
    }

    fn finish(self) -> Result<Conf, ConfError> {
        let conf = Conf {
            private_key: self.private_key.ok_or(ConfError::Missing("PrivateKey"))?,
            public_key: self.public_key.ok_or(ConfError::Missing("PublicKey"))?,
            endpoint: self.endpoint.ok_or(ConfError::Missing("Endpoint"))?,
            preshared_key: self.preshared_key,
            addresses: self.addresses,
            allowed: self.allowed,
            dns: self.dns,
            mtu: self.mtu.unwrap_or(DEFAULT_MTU),
            keepalive: self.keepalive,
            receipts: None,
            country: None,
            ignored: self.ignored,
        };
        if conf.addresses.is_empty() {
            return Err(ConfError::Missing("Address"));
        }
        if conf.exit_address(false).is_none() && conf.exit_address(true).is_none() {
            return Err(ConfError::NoExit);
        }
        Ok(conf)
    }
}

/// Adds what a list separated by commas has; the error is the item that cannot be read.
fn list<T>(to: &mut Vec<T>, value: &str, parse: impl Fn(&str) -> Option<T>) -> Result<(), String> {
    for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let parsed = parse(text).filter(|_| to.len() < MAX_LIST);
        to.push(parsed.ok_or_else(|| text.chars().take(60).collect::<String>())?);
    }
    Ok(())
}

/// A network, or an address without a prefix length.
fn network(text: &str) -> Option<IpNet> {
    IpNet::from_str(text).or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()
}

fn endpoint(text: &str) -> Option<Endpoint> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(Endpoint::Address(address));
    }
    let (name, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter));
    is_name.then(|| Endpoint::Name(name.to_owned(), port))
}

#[cfg(test)]
mod tests;
