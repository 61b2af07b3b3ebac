//! The configuration that a consumer gives to `wg-quick` or to a WireGuard app.

use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::Snapshot;
use weir_common::PublicKey;
use weir_wireguard::{
    keys::{PresharedKey, PrivateKey},
    wg_quick::{RECEIPTS, WgQuick},
};

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
/// comment in its place. `signer` is the node's public key for usage receipts.
#[must_use]
pub fn config(
    template: &PeerTemplate,
    snapshot: &Snapshot,
    signer: &str,
    private_key: Option<&PrivateKey>,
    preshared_key: Option<&PresharedKey>,
) -> Zeroizing<String> {
    let session = &snapshot.session;
    let name = session.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let dns: Vec<_> = template.dns.iter().map(ToString::to_string).collect();
    let config = WgQuick {
        comment: &format!("weir session {}{name}", session.id),
        notes: &[(RECEIPTS, signer)],
        private_key,
        addresses: &[format!("{}/32", snapshot.address_v4), format!("{}/128", snapshot.address_v6)],
        dns: &dns,
        mtu: Some(template.mtu),
        peer: &template.node_key,
        preshared_key,
        allowed_ips: &["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        endpoint: &template.endpoint,
        keepalive: template.keepalive,
    };
    config.to_text()
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
            byte_limit: None,
            second_limit: None,
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
# Receipts = SIGNER
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
        let made = config(&template(), &snapshot(Some("alice")), "SIGNER", Some(&key), None);
        assert_eq!(made.as_str(), expected);
        let preshared = PresharedKey::new([9; 32]);
        let made =
            config(&template(), &snapshot(Some("alice")), "SIGNER", Some(&key), Some(&preshared));
        let line = "PresharedKey = CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\nAllowedIPs";
        assert_eq!(made.as_str(), expected.replace("AllowedIPs", line));
    }

    #[test]
    fn without_the_private_half_there_is_a_comment_in_its_place() {
        let template = PeerTemplate { dns: Vec::new(), keepalive: 0, ..template() };
        let expected = "\
# weir session 123456789abcdef0
# Receipts = SIGNER
[Interface]
# Put your own private key here: PrivateKey = ...
Address = 10.66.0.2/32, fd00:66::2/128
MTU = 1420

[Peer]
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = [2001:db8::1]:51820
";
        assert_eq!(config(&template, &snapshot(None), "SIGNER", None, None).as_str(), expected);
    }
}
