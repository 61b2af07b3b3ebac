//! Who is at the other end of a connection, if it comes through a proxy.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The client's address: the connection's, or what a known proxy says of it. Of a chain of proxies,
/// the last address that is not a known proxy's counts: what stands before it, the client may have
/// written.
#[must_use]
pub fn client(connection: IpAddr, forwarded_for: &[&str], proxies: &[IpNet]) -> IpAddr {
    let is_proxy = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    let mut client = connection.to_canonical();
    let hops = forwarded_for.iter().rev().flat_map(|line| line.rsplit(','));
    for hop in hops {
        if !is_proxy(&client) {
            break;
        }
        let Some(address) = parse(hop.trim()) else { break };
        client = address;
    }
    client
}

/// Reads an address with or without a port.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.trim_matches(['[', ']']).parse::<IpAddr>();
    let address = bare.or_else(|_| text.parse::<SocketAddr>().map(|it| it.ip())).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_proxies_are_believed() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let proxies = ["127.0.0.1/32", "10.0.0.0/8"].map(|it| it.parse().expect("a network"));
        for (connection, header, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("127.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:127.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("127.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("127.0.0.1", &["203.0.113.9", "[2001:db8::7]"], "2001:db8::7"),
            ("127.0.0.1", &["203.0.113.9, rubbish"], "127.0.0.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
        ] {
            let found = client(address(connection), header, &proxies);
            assert_eq!(found, address(expected), "{connection} {header:?}");
        }
    }
}
