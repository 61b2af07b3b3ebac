//! A WireGuard configuration that a stranger sent.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use weir_common::PublicKey;
use weir_config::HostPort;
use weir_wireguard::{
    keys::{self, PresharedKey, PrivateKey},
    wg_quick::{self, COUNTRY, RECEIPTS, WgQuick},
};
use zeroize::Zeroizing;

/// The most addresses, servers and networks of a configuration.
const MAX_VALUES: usize = 32;

/// A configuration for one exit.
#[derive(Clone, Debug)]
pub struct WgConfig {
    /// The buyer's key.
    pub private_key: PrivateKey,
    /// Its addresses inside the tunnel.
    pub addresses: Vec<IpNet>,
    /// The servers for names.
    pub dns: Vec<IpAddr>,
    /// The MTU inside the tunnel.
    pub mtu: Option<u16>,
    /// The exit's key.
    pub peer: PublicKey,
    /// A secret beside the keys.
    pub preshared_key: Option<PresharedKey>,
    /// Where the exit answers.
    pub endpoint: HostPort,
    /// What goes through the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds between keepalives; 0: none.
    pub keepalive: u16,
    /// The exit's public key for usage receipts, in base64.
    pub receipts: Option<String>,
    /// The country that the exit's listing names.
    pub country: Option<String>,
}

/// What the exit sent is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAConfig {
    /// A line is not understood.
    #[error("line {0} of the exit's configuration cannot be read")]
    Line(usize),
    /// It could run commands, or do something else that a buyer does not expect.
    #[error("the exit's configuration has {0:?}, which no exit needs")]
    Unexpected(String),
    /// Something is missing.
    #[error("the exit's configuration has no {0}")]
    Missing(&'static str),
}

impl WgConfig {
    /// Reads what an exit sent, and fills in the buyer's key.
    ///
    /// # Errors
    ///
    /// When it is none, or has more in it than a tunnel needs, such as commands.
    pub fn read(text: &str, private_key: PrivateKey) -> Result<Self, NotAConfig> {
        let (mut addresses, mut dns, mut mtu) = (Vec::new(), Vec::new(), None);
        let (mut peer, mut preshared_key, mut endpoint) = (None, None, None);
        let (mut allowed_ips, mut keepalive) = (Vec::new(), 0);
        let mut section = String::new();
        let mut peers = 0;
        for (number, line) in text.lines().enumerate() {
            let bad = || NotAConfig::Line(number + 1);
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if line.starts_with('[') {
                section = line.to_ascii_lowercase();
                peers += usize::from(section == "[peer]");
                if !["[interface]", "[peer]"].contains(&section.as_str()) || peers > 1 {
                    return Err(NotAConfig::Unexpected(shown(line)));
                }
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(bad)?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            match (section.as_str(), name.as_str()) {
                // A placeholder, or the exit's own idea.
                ("[interface]", "privatekey") => {}
                ("[interface]", "address") => extend(&mut addresses, value, net).ok_or_else(bad)?,
                ("[interface]", "dns") => {
                    extend(&mut dns, value, |it| it.parse().ok()).ok_or_else(bad)?;
                }
                ("[interface]", "mtu") => {
                    let value: u16 = value.parse().map_err(|_| bad())?;
                    mtu = Some(value).filter(|mtu| (576..=9000).contains(mtu));
                }
                ("[peer]", "publickey") => {
                    peer = Some(keys::parse_public(value).map_err(|_| bad())?);
                }
                ("[peer]", "presharedkey") => {
                    preshared_key = Some(PresharedKey::parse(value).map_err(|_| bad())?);
                }
                ("[peer]", "endpoint") => endpoint = Some(value.parse().map_err(|_| bad())?),
                ("[peer]", "allowedips") => {
                    extend(&mut allowed_ips, value, net).ok_or_else(bad)?;
                }
                ("[peer]", "persistentkeepalive") if value.eq_ignore_ascii_case("off") => {}
                ("[peer]", "persistentkeepalive") => {
                    keepalive = value.parse().map_err(|_| bad())?;
                }
                _ => return Err(NotAConfig::Unexpected(shown(line))),
            }
        }
        let missing = NotAConfig::Missing;
        if addresses.is_empty() {
            return Err(missing("address"));
        }
        if allowed_ips.is_empty() {
            return Err(missing("networks (AllowedIPs)"));
        }
        Ok(Self {
            private_key,
            addresses,
            dns,
            mtu,
            peer: peer.ok_or(missing("key of the exit (PublicKey)"))?,
            preshared_key,
            endpoint: endpoint.ok_or(missing("endpoint"))?,
            allowed_ips,
            keepalive,
            receipts: wg_quick::note(text, RECEIPTS).map(str::to_owned),
            country: None,
        })
    }

    /// The configuration as `wg-quick` and the apps read it, in memory that is wiped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let receipts = self.receipts.as_deref().map(|key| (RECEIPTS, key));
        let country = self.country.as_deref().map(|country| (COUNTRY, country));
        let notes: Vec<_> = receipts.into_iter().chain(country).collect();
        let config = WgQuick {
            comment: "",
            notes: &notes,
            private_key: Some(&self.private_key),
            addresses: &texts(&self.addresses),
            dns: &texts(&self.dns),
            mtu: self.mtu.map(u32::from),
            peer: &self.peer,
            preshared_key: self.preshared_key.as_ref(),
            allowed_ips: &texts(&self.allowed_ips),
            endpoint: &self.endpoint.to_string(),
            keepalive: self.keepalive,
        };
        config.to_text()
    }
}

/// An address, with or without the length of its network.
fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Reads a list. `None` if something in it is wrong, or it is too long.
fn extend<T>(to: &mut Vec<T>, list: &str, read: impl Fn(&str) -> Option<T>) -> Option<()> {
    for value in list.split(',').map(str::trim) {
        to.push(read(value)?);
    }
    (to.len() <= MAX_VALUES).then_some(())
}

fn texts<T: fmt::Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn shown(line: &str) -> String {
    line.chars().filter(|letter| !letter.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_written_without_anything_else(
            lines in proptest::collection::vec("(\\[Peer\\]|[A-Za-z]{2,10} ?= ?[ -~]{0,20}|[ -~]{0,20})", 0..6),
        ) {
            let text = sent().replace("MTU = 1420\n", &format!("{}\n", lines.join("\n")));
            if let Ok(config) = WgConfig::read(&text, PrivateKey::random()) {
                let text = config.to_text();
                proptest::prop_assert_eq!(text.matches('=').count() >= 6, true);
                let known = ["[", "PrivateKey", "Address", "DNS", "MTU", "PublicKey", "PresharedKey"];
                let known = known.iter().chain(&["AllowedIPs", "Endpoint", "PersistentKeepalive"]);
                let known: Vec<_> = known.collect();
                let is_known = |line: &str| {
                    line.is_empty() || line.starts_with("# Receipts = ") || known.iter().any(|word| line.starts_with(**word))
                };
                proptest::prop_assert!(text.lines().all(is_known), "{}", *text);
            }
        }
    }

    const PEER: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";

    fn sent() -> String {
        format!(
            "# weir session 1\n[Interface]\n# Put your own private key here: PrivateKey = ...\n\
             Address = 10.66.0.2/32, fd66::2/128\nDNS = 10.66.0.1\nMTU = 1420\n\n[Peer]\n\
             PublicKey = {PEER}\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 192.0.2.1:51820\n\
             PersistentKeepalive = 25\n"
        )
    }

    #[test]
    fn what_a_node_sends_gets_the_buyers_key_and_reads_the_same_again() {
        let key = PrivateKey::random();
        let config = WgConfig::read(&sent(), key.clone()).expect("a configuration");
        let text = config.to_text();
        assert!(text.contains(&format!("PrivateKey = {}\n", key.print().as_str())), "{}", *text);
        assert!(text.contains("Address = 10.66.0.2/32, fd66::2/128\n"));
        assert!(text.contains("Endpoint = 192.0.2.1:51820\nPersistentKeepalive = 25\n"));
        let again = WgConfig::read(&text, key).expect("a configuration").to_text();
        assert_eq!(again, text);
    }

    #[test]
    fn the_key_for_receipts_is_kept_and_the_country_is_the_listings() {
        let text = format!("# Receipts = {PEER}\n# Country = FR\n{}", sent());
        let mut config = WgConfig::read(&text, PrivateKey::random()).expect("a configuration");
        assert_eq!((config.receipts.as_deref(), config.country.as_deref()), (Some(PEER), None));
        config.country = Some("DE".into());
        let start = format!("# Receipts = {PEER}\n# Country = DE\n[Interface]\n");
        assert!(config.to_text().starts_with(&start), "{}", *config.to_text());
    }

    #[test]
    fn commands_and_whatever_else_no_exit_needs_are_refused() {
        for line in ["PostUp = rm -rf /", "preup=curl x|sh", "SaveConfig = true", "Table = 7"] {
            let text = sent().replace("DNS =", &format!("{line}\nDNS ="));
            let refused = WgConfig::read(&text, PrivateKey::random()).expect_err("refused");
            assert_eq!(refused, NotAConfig::Unexpected(line.to_owned()));
        }
        let two = format!("{}[Peer]\nPublicKey = {PEER}\n", sent());
        assert!(WgConfig::read(&two, PrivateKey::random()).is_err());
        let two = sent().replace("25\n", "25\u{b}PostUp = x\n");
        assert!(WgConfig::read(&two, PrivateKey::random()).is_err(), "a hidden line");
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        for (from, to, what) in [
            ("Address = 10.66.0.2/32, fd66::2/128", "", "address"),
            ("Endpoint = 192.0.2.1:51820", "", "endpoint"),
            ("AllowedIPs = 0.0.0.0/0, ::/0", "", "networks (AllowedIPs)"),
        ] {
            let text = sent().replace(from, to);
            let refused = WgConfig::read(&text, PrivateKey::random()).expect_err("refused");
            assert_eq!(refused, NotAConfig::Missing(what));
        }
        let text = sent().replace("10.66.0.1", "dns.example");
        let refused = WgConfig::read(&text, PrivateKey::random()).expect_err("refused");
        assert_eq!(refused, NotAConfig::Line(5));
    }
}
