//! Against boringtun, in both roles.

use boringtun::noise::{Tunn, TunnResult, rate_limiter::RateLimiter};
use std::sync::Arc;

use super::*;

/// boringtun's end.
struct Other(Tunn);

impl Other {
    fn new(own: [u8; 32], node: [u8; 32], psk: Option<[u8; 32]>, limit: Option<u64>) -> Self {
        let limiter = limit.map(|limit| {
            let own = PublicKey::from(&StaticSecret::from(own));
            Arc::new(RateLimiter::new(&own, limit))
        });
        let node = *Identity::new(node).public();
        Self(Tunn::new(StaticSecret::from(own), node, psk, None, 5, limiter))
    }

    fn initiate(&mut self) -> Vec<u8> {
        let mut out = [0; 256];
        sent(self.0.format_handshake_initiation(&mut out, true)).expect("an initiation")
    }

    fn take(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; 256];
        sent(self.0.decapsulate(Some(source()), message, &mut out))
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = [0; 2048];
        sent(self.0.encapsulate(packet, &mut out)).expect("keys")
    }

    fn open(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; 2048];
        match self.0.decapsulate(None, message, &mut out) {
            TunnResult::WriteToTunnelV4(packet, _) => Some(packet.to_vec()),
            TunnResult::Done => Some(Vec::new()),
            _ => None,
        }
    }
}

fn sent(result: TunnResult<'_>) -> Option<Vec<u8>> {
    match result {
        TunnResult::WriteToNetwork(message) => Some(message.to_vec()),
        _ => None,
    }
}

/// boringtun as the consumer, and our node, with these pre-shared keys.
fn ends(psk: Option<[u8; 32]>) -> (Other, End) {
    let node = End::new([2; 32], [1; 32]).with_preshared_key(psk.unwrap_or_default());
    (Other::new([1; 32], [2; 32], psk, None), node)
}

fn carries_with(other: &mut Other, node: &mut End) {
    for _ in 0..3 {
        let there = other.seal(&PLAIN);
        assert_eq!(node.open(&there).as_deref(), Ok(&PLAIN[..]));
        let back = node.seal(&PLAIN).expect("keys");
        assert_eq!(other.open(&back).as_deref(), Some(&PLAIN[..]));
    }
}

/// A handshake that boringtun begins.
fn shake_by_other(other: &mut Other, node: &mut End) {
    let initiation = other.initiate();
    let response = node.take(&initiation).expect("authentic").expect("a response");
    let keepalive = other.take(&response).expect("a keepalive");
    assert_eq!(node.open(&keepalive), Ok(Vec::new()));
}

/// A handshake that our node begins.
fn shake_by_node(other: &mut Other, node: &mut End) {
    let initiation = node.initiate().expect("an initiation");
    let response = other.take(&initiation).expect("a response");
    assert!(node.tunnel.has_right_mac1(&response));
    let keepalive = node.take(&response).expect("authentic").expect("a keepalive");
    assert_eq!(other.open(&keepalive), Some(Vec::new()));
}

#[test]
fn both_roles_with_and_without_a_preshared_key_and_rekeys() {
    for psk in [None, Some([9; 32])] {
        for by_node in [[false, false, true], [true, false, true], [true, true, false]] {
            let (mut other, mut node) = ends(psk);
            for by_node in by_node {
                node.now += REKEY_TIMEOUT;
                if by_node {
                    shake_by_node(&mut other, &mut node);
                } else {
                    shake_by_other(&mut other, &mut node);
                }
                carries_with(&mut other, &mut node);
            }
        }
    }
}

#[test]
fn messages_are_lost_repeated_and_late() {
    let (mut other, mut node) = ends(None);
    // The first initiation, the first response and the first keepalive are lost.
    other.initiate();
    let initiation = other.initiate();
    assert!(node.take(&initiation).is_ok());
    let initiation = other.initiate();
    let response = node.take(&initiation).expect("authentic").expect("a response");
    other.take(&response).expect("a keepalive");
    let data: Vec<_> = (0..300).map(|_| other.seal(&PLAIN)).collect();
    for message in data.iter().rev().step_by(2) {
        assert_eq!(node.open(message).as_deref(), Ok(&PLAIN[..]));
        assert_eq!(node.open(message), Err(DropReason::Replay));
    }
    let old = other.seal(&PLAIN);
    shake_by_other(&mut other, &mut node);
    assert_eq!(node.open(&old).as_deref(), Ok(&PLAIN[..]), "the previous keys");
    carries_with(&mut other, &mut node);
}

#[test]
fn another_preshared_key_ends_the_handshake() {
    let mut other = Other::new([1; 32], [2; 32], Some([8; 32]), None);
    let mut node = End::new([2; 32], [1; 32]).with_preshared_key([9; 32]);
    let initiation = other.initiate();
    let response = node.take(&initiation).expect("the key comes later").expect("a response");
    assert!(other.take(&response).is_none());
    let initiation = node.initiate().expect("an initiation");
    let response = other.take(&initiation).expect("a response");
    assert_eq!(node.take(&response), Err(DropReason::HandshakeInvalid));
}

/// boringtun is always under load, and answers only who has its cookie.
#[test]
fn a_cookie_is_used_from_the_next_initiation_on_until_it_is_old() {
    let mut other = Other::new([1; 32], [2; 32], None, Some(0));
    let mut node = End::new([2; 32], [1; 32]);
    let initiation = node.initiate().expect("an initiation");
    assert_eq!(initiation[132..], [0; 16], "no cookie yet");
    let reply = other.take(&initiation).expect("a cookie reply");
    assert_eq!(reply.len(), 64);
    for at in 4..64 {
        let mut altered = reply.clone();
        altered[at] ^= 1;
        assert_eq!(node.take(&altered), Err(DropReason::HandshakeInvalid), "{at}");
    }
    assert_eq!(node.take(&reply), Ok(None));
    node.now += REKEY_TIMEOUT + MAX_JITTER;
    let (again, _) = node.tick();
    let again = again.expect("a repetition");
    assert_ne!(again[132..], [0; 16]);
    let response = other.take(&again).expect("a response");
    let keepalive = node.take(&response).expect("authentic").expect("a keepalive");
    assert_eq!(other.open(&keepalive), Some(Vec::new()));
    assert_eq!(node.take(&reply), Err(DropReason::HandshakeInvalid), "of an older message");
    node.now += 121 * SECOND;
    let late = node.initiate().expect("an initiation");
    assert_eq!(late[132..], [0; 16], "the cookie is old");
}

/// The response is a message that may need a cookie too.
#[test]
fn a_response_is_signed_with_the_cookie() {
    let mut other = Other::new([1; 32], [2; 32], None, Some(0));
    let mut node = End::new([2; 32], [1; 32]);
    let initiation = other.initiate();
    let response = node.take(&initiation).expect("authentic").expect("a response");
    let reply = other.take(&response).expect("a cookie reply");
    assert_eq!(reply.len(), 64);
    assert_eq!(node.take(&reply), Ok(None));
    let initiation = other.initiate();
    let response = node.take(&initiation).expect("authentic").expect("a response");
    let keepalive = other.take(&response).expect("a keepalive");
    assert_eq!(node.open(&keepalive), Ok(Vec::new()));
    carries_with(&mut other, &mut node);
}
