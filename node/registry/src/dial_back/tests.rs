use weir_wireguard::keys::PrivateKey;

use super::*;
use crate::testing::{NOW, listed};

#[test]
fn only_public_addresses_are_called() {
    let is_public = |text: &str| is_public(text.parse().expect("an address"));
    for text in ["198.51.100.7", "192.0.2.1", "2001:db8::7", "100.128.0.1"] {
        assert!(is_public(text), "{text}");
    }
    for text in [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.1.1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
    ] {
        assert!(!is_public(text), "{text}");
    }
    let event = listed(&weir_market::key::MarketKey::random(), "DE", "1 sat/GiB", NOW);
    let address = "192.0.2.1:51820".parse().expect("an address");
    assert_eq!(targets(&Record::new(&event, NOW + 60)), [Target { key: [7; 32], address }]);
}

/// A node that knows the caller's key answers one initiation.
async fn answer(socket: UdpSocket, node: PrivateKey, caller: [u8; 32]) {
    let identity = Identity::new(node.secret().to_bytes());
    let mut tunnel = Tunnel::new(&identity, caller, PeerIndex::of_receiver_index(9 << 8));
    let (mut message, mut out) = ([0; 2048], [0; REPLY_LEN]);
    let (length, from) = socket.recv_from(&mut message).await.expect("an initiation");
    let now = clock::now().tick;
    if let Ok(Reply::Send(length)) = tunnel.initiation(&identity, &message[..length], now, &mut out)
    {
        socket.send_to(&out[..length], from).await.expect("sent");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_node_that_knows_the_registry_answers_and_another_one_does_not() {
    let (registry, stranger, node) =
        (PrivateKey::random(), PrivateKey::random(), PrivateKey::random());
    for (caller, is_known) in [(&registry, true), (&stranger, false)] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let target = Target { key: node.public().0, address };
        let secret = node.secret().to_bytes();
        let node = PrivateKey::parse(&node.print()).expect("a key");
        assert_eq!(node.secret().to_bytes(), secret);
        tokio::spawn(answer(socket, node, registry.public().0));
        let identity = Identity::new(caller.secret().to_bytes());
        let called = call(&identity, &target);
        match is_known {
            true => assert!(called.await.expect("a socket")),
            // It would wait for three answers.
            false => assert!(timeout(Duration::from_millis(500), called).await.is_err()),
        }
    }
}
