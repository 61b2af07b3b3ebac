//! The configuration that a consumer gives to `wg-quick` or to a WireGuard app.

use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::Snapshot;
use weir_common::PublicKey;
use weir_wireguard::keys::{self, PresharedKey, PrivateKey};

/// What every consumer of this node is told.
#[derive(Clone, Debug)]
pub struct PeerTemplate {
    /// The node's public key.
    pub node_key: PublicKey,
    /// Where the node is reached: `host:port`.
    pub endpoint: String,
    /// The resolvers that consumers are to use; may be empty.
    pub dns: Vec<IpAddr>,
    /// The MTU inside the tunnel.
    pub mtu: u32,
    /// Seconds between keepalives that consumers are to send; 0 for none.
    pub keepalive: u16,
    /// The bytes that a new prepaid session may use before anything is paid.
    pub free_bytes: u64,
}

/// The configuration of one session, in memory that is wiped. Without the private key there is a
/// comment in its place.
#[must_use]
pub fn config(
    template: &PeerTemplate,
    snapshot: &Snapshot,
    private_key: Option<&PrivateKey>,
    preshared_key: Option<&PresharedKey>,
) -> Zeroizing<String> {
    let mut lines = Zeroizing::new(Vec::with_capacity(16));
    let session = &snapshot.session;
    let name = session.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    lines.push(format!("# weir session {}{name}", session.id));
    lines.push("[Interface]".to_owned());
    lines.push(match private_key {
        Some(key) => format!("PrivateKey = {}", key.print().as_str()),
        None => "# Put your own private key here: PrivateKey = ...".to_owned(),
    });
    lines.push(format!("Address = {}/32, {}/128", snapshot.address_v4, snapshot.address_v6));
    if !template.dns.is_empty() {
        let dns: Vec<_> = template.dns.iter().map(ToString::to_string).collect();
        lines.push(format!("DNS = {}", dns.join(", ")));
    }
    lines.push(format!("MTU = {}", template.mtu));
    lines.push(String::new());
    lines.push("[Peer]".to_owned());
    lines.push(format!("PublicKey = {}", keys::print_public(&template.node_key)));
    if let Some(key) = preshared_key {
        lines.push(format!("PresharedKey = {}", key.print().as_str()));
    }
    lines.push("AllowedIPs = 0.0.0.0/0, ::/0".to_owned());
    lines.push(format!("Endpoint = {}", template.endpoint));
    if template.keepalive > 0 {
        lines.push(format!("PersistentKeepalive = {}", template.keepalive));
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use weir_common::{
        Slot,
        account::{Counters, SessionState},
    };

    use super::*;
    use weir_ledger::{Session, SessionId};

    const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";

    fn snapshot(name: Option<&str>) -> Snapshot {
        let session = Session {
            id: SessionId::new(0x1234_5678_9abc_def0).expect("not zero"),
            slot: Slot(0),
            name: name.map(str::to_owned),
            public_key: PrivateKey::parse(PRIVATE).expect("a key").public(),
            created: 0,
            state: SessionState::Open,
        };
        Snapshot {
            session,
            address_v4: Ipv4Addr::new(10, 66, 0, 2),
            address_v6: "fd00:66::2".parse::<Ipv6Addr>().expect("an address"),
            counters: Counters::default(),
            seconds: 0,
            credit: weir_ledger::Credit::default(),
            own_rates: weir_ledger::OwnRates::default(),
            rates: [0; 2],
            paused_for: None,
        }
    }

    fn template() -> PeerTemplate {
        PeerTemplate {
            node_key: PrivateKey::parse(PRIVATE).expect("a key").public(),
            endpoint: "[2001:db8::1]:51820".to_owned(),
            dns: vec![IpAddr::from([9, 9, 9, 9]), "2620:fe::fe".parse().expect("an address")],
            mtu: 1420,
            keepalive: 25,
            free_bytes: 0,
        }
    }

    #[test]
    fn the_configuration_is_what_wg_quick_reads() {
        let key = PrivateKey::parse(PRIVATE).expect("a key");
        let expected = "\
# weir session 123456789abcdef0 (alice)
[Interface]
PrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=
Address = 10.66.0.2/32, fd00:66::2/128
DNS = 9.9.9.9, 2620:fe::fe
MTU = 1420

[Peer]
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25
";
        let made = config(&template(), &snapshot(Some("alice")), Some(&key), None);
        assert_eq!(made.as_str(), expected);
        let preshared = PresharedKey::new([9; 32]);
        let made = config(&template(), &snapshot(Some("alice")), Some(&key), Some(&preshared));
        let line = "PresharedKey = CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\nAllowedIPs";
        assert_eq!(made.as_str(), expected.replace("AllowedIPs", line));
    }

    #[test]
    fn without_the_private_half_there_is_a_comment_in_its_place() {
        let template = PeerTemplate { dns: Vec::new(), keepalive: 0, ..template() };
        let expected = "\
# weir session 123456789abcdef0
[Interface]
# Put your own private key here: PrivateKey = ...
Address = 10.66.0.2/32, fd00:66::2/128
MTU = 1420

[Peer]
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = [2001:db8::1]:51820
";
        assert_eq!(config(&template, &snapshot(None), None, None).as_str(), expected);
    }
}
