//! A configuration for `wg-quick` and the WireGuard apps, as text. There is one printer, for nodes and
//! for buyers.

use zeroize::Zeroizing;

use crate::keys::{self, PresharedKey, PrivateKey};
use weir_common::PublicKey;

/// The note with a node's public key for usage receipts, in base64.
pub const RECEIPTS: &str = "Receipts";
/// The note with the country that an exit says it is in.
pub const COUNTRY: &str = "Country";

/// The longest note that is read, in bytes.
const MAX_NOTE: usize = 100;

/// One end of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct WgQuick<'a> {
    /// A comment in the first line; may be empty.
    pub comment: &'a str,
    /// Names and values that weir reads. For other programs they are comments.
    pub notes: &'a [(&'static str, &'a str)],
    /// The own key. Without it there is a comment in its place.
    pub private_key: Option<&'a PrivateKey>,
    /// The own addresses inside the tunnel.
    pub addresses: &'a [String],
    /// The resolvers; may be empty.
    pub dns: &'a [String],
    /// The MTU inside the tunnel, in bytes.
    pub mtu: Option<u32>,
    /// The other end's key.
    pub peer: &'a PublicKey,
    /// A secret beside the keys.
    pub preshared_key: Option<&'a PresharedKey>,
    /// What goes through the tunnel.
    pub allowed_ips: &'a [String],
    /// Where the other end is reached.
    pub endpoint: &'a str,
    /// Seconds between keepalives; 0 for none.
    pub keepalive: u16,
}

impl WgQuick<'_> {
    /// The text, in memory that is wiped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut lines = Zeroizing::new(Vec::with_capacity(20));
        if !self.comment.is_empty() {
            lines.push(format!("# {}", self.comment));
        }
        for (name, value) in self.notes {
            lines.push(format!("# {name} = {value}"));
        }
        lines.push("[Interface]".to_owned());
        lines.push(match self.private_key {
            Some(key) => format!("PrivateKey = {}", key.print().as_str()),
            None => "# Put your own private key here: PrivateKey = ...".to_owned(),
        });
        lines.push(format!("Address = {}", self.addresses.join(", ")));
        if !self.dns.is_empty() {
            lines.push(format!("DNS = {}", self.dns.join(", ")));
        }
        if let Some(mtu) = self.mtu {
            lines.push(format!("MTU = {mtu}"));
        }
        lines.push(String::new());
        lines.push("[Peer]".to_owned());
        lines.push(format!("PublicKey = {}", keys::print_public(self.peer)));
        if let Some(key) = self.preshared_key {
            lines.push(format!("PresharedKey = {}", key.print().as_str()));
        }
        lines.push(format!("AllowedIPs = {}", self.allowed_ips.join(", ")));
        lines.push(format!("Endpoint = {}", self.endpoint));
        if self.keepalive > 0 {
            lines.push(format!("PersistentKeepalive = {}", self.keepalive));
        }
        // The capacity is enough from the start: a growing string would leave copies of the key.
        let len = lines.iter().map(|line| line.len() + 1).sum();
        let mut text = Zeroizing::new(String::with_capacity(len));
        for line in lines.iter() {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// The value of a note in a configuration, if it is there once and is printable.
#[must_use]
pub fn note<'t>(config: &'t str, name: &str) -> Option<&'t str> {
    let notes = config.lines().filter_map(|line| {
        let (found, value) = line.trim().strip_prefix('#')?.split_once('=')?;
        let value = value.trim();
        let fits = (1..=MAX_NOTE).contains(&value.len());
        let is_plain = value.bytes().all(|byte| byte.is_ascii_graphic());
        (found.trim() == name && fits && is_plain).then_some(value)
    });
    let mut notes = notes.fuse();
    notes.next().filter(|_| notes.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";

    #[test]
    fn everything_is_printed_in_its_place_and_what_is_not_there_is_left_out() {
        let key = PrivateKey::parse(KEY).expect("a key");
        let (peer, preshared) = (key.public(), PresharedKey::new([9; 32]));
        let own = |text: &str| vec![text.to_owned()];
        let (addresses, dns, allowed) = (own("10.66.0.2/32"), own("10.66.0.1"), own("::/0"));
        let whole = WgQuick {
            comment: "weir session 12",
            notes: &[(RECEIPTS, KEY), (COUNTRY, "DE")],
            private_key: Some(&key),
            addresses: &addresses,
            dns: &dns,
            mtu: Some(1420),
            peer: &peer,
            preshared_key: Some(&preshared),
            allowed_ips: &allowed,
            endpoint: "192.0.2.1:51820",
            keepalive: 25,
        };
        let text = whole.to_text();
        assert_eq!(
            text.as_str(),
            format!(
                "# weir session 12\n# Receipts = {KEY}\n# Country = DE\n[Interface]\n\
                 PrivateKey = {KEY}\nAddress = 10.66.0.2/32\nDNS = 10.66.0.1\nMTU = 1420\n\n\
                 [Peer]\nPublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n\
                 PresharedKey = CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n\
                 AllowedIPs = ::/0\nEndpoint = 192.0.2.1:51820\nPersistentKeepalive = 25\n"
            )
        );
        assert_eq!((note(&text, RECEIPTS), note(&text, COUNTRY)), (Some(KEY), Some("DE")));
        let least = WgQuick {
            comment: "",
            notes: &[],
            private_key: None,
            dns: &[],
            mtu: None,
            preshared_key: None,
            keepalive: 0,
            ..whole
        };
        assert_eq!(
            least.to_text().as_str(),
            "[Interface]\n# Put your own private key here: PrivateKey = ...\n\
             Address = 10.66.0.2/32\n\n[Peer]\n\
             PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n\
             AllowedIPs = ::/0\nEndpoint = 192.0.2.1:51820\n"
        );
    }

    #[test]
    fn a_note_is_there_once_and_printable_or_not_at_all() {
        assert_eq!(note("#Country=DE\r\n", COUNTRY), Some("DE"));
        for text in [
            "Country = DE",
            "# country = DE",
            "# Country = D\u{1b}[2J",
            "# Country = ",
            "# Country = DE\n# Country = FR",
        ] {
            assert_eq!(note(text, COUNTRY), None, "{text:?}");
        }
        assert_eq!(note(&format!("# Country = {}", "x".repeat(101)), COUNTRY), None);
    }
}
