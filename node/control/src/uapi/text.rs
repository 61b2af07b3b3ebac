//! The node in the words of the protocol.

use std::fmt::Write as _;

use alloy_primitives::hex;
use weir_common::account::SessionState;

use super::Device;
use weir_sessions::Snapshot;

/// The answer to `get=1`. There is no private key in it, and so `wg` does not know the node's
/// public key, which it derives; programs that look for it find `own_public_key`.
pub(super) fn describe(device: &Device) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    writeln!(text, "own_public_key={}", hex::encode(device.template.get().node_key.0)).ok();
    writeln!(text, "listen_port={}", device.listen_port).ok();
    for snapshot in device.sessions.list() {
        if snapshot.session.state != SessionState::Closed {
            peer(&mut text, device, &snapshot);
        }
    }
    text.push_str("errno=0\n\n");
    text
}

fn peer(text: &mut String, device: &Device, snapshot: &Snapshot) {
    let (session, used) = (&snapshot.session, &snapshot.counters);
    writeln!(text, "public_key={}", hex::encode(session.public_key.0)).ok();
    text.push_str("protocol_version=1\n");
    let endpoint = device.sessions.last_endpoint(session).filter(|_| device.endpoints);
    if let Some(endpoint) = endpoint {
        writeln!(text, "endpoint={}", endpoint.remote).ok();
    }
    writeln!(text, "last_handshake_time_sec={}", used.last_handshake).ok();
    // wgctrl takes a moment without nanoseconds for none.
    writeln!(text, "last_handshake_time_nsec={}", u8::from(used.last_handshake > 0)).ok();
    // As `wg` has it at the consumer's end: handshakes included.
    let received = used.bytes_up.saturating_add(used.handshake_bytes_up);
    let sent = used.bytes_down.saturating_add(used.handshake_bytes_down);
    writeln!(text, "rx_bytes={received}\ntx_bytes={sent}").ok();
    text.push_str("persistent_keepalive_interval=0\n");
    let (v4, v6) = (snapshot.address_v4, snapshot.address_v6);
    writeln!(text, "allowed_ip={v4}/32\nallowed_ip={v6}/128").ok();
}
