//! The MACs of outgoing handshake messages, and the cookie that a peer under load asks for
//! (whitepaper, sections 5.4.4 and 5.4.7). Those of incoming messages are checked elsewhere.

use blake2::{
    Blake2sMac,
    digest::{FixedOutput as _, KeyInit as _, Update as _, consts::U16},
};
use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead as _, Payload},
};
use weir_common::{mac1::MAC_LEN, wire::COOKIE_REPLY_LEN};

use super::{symmetric::hash, timers::COOKIE_LIFETIME};

const LABEL: &[u8] = b"cookie--";
const LABEL_MAC1: &[u8] = b"mac1----";
const NONCE_LEN: usize = 24;
const COOKIE_LEN: usize = 16;

/// What a peer must remember to prove its address to another one.
#[derive(Default)]
pub(crate) struct CookieJar {
    /// The first MAC of the last message, and the index that it has as its sender.
    last: Option<([u8; MAC_LEN], u32)>,
    /// The cookie, and when it was received.
    cookie: Option<([u8; COOKIE_LEN], u64)>,
}

impl CookieJar {
    /// Writes both MACs to the end of a handshake message to `peer`. `index` is that of its sender.
    pub(crate) fn sign(&mut self, peer: &[u8; 32], index: u32, now: u64, message: &mut [u8]) {
        let Some((head, mac2)) = message.split_last_chunk_mut::<MAC_LEN>() else { return };
        let Some((covered, place)) = head.split_last_chunk_mut::<MAC_LEN>() else { return };
        // Not `Mac1Key`, whose loops are for eBPF and take several times as long.
        let mac1 = mac(&hash(&[LABEL_MAC1, peer]), covered);
        *place = mac1;
        *mac2 = match self.cookie {
            Some((cookie, since)) if now.saturating_sub(since) < COOKIE_LIFETIME => {
                mac(&cookie, head)
            }
            _ => [0; MAC_LEN],
        };
        self.last = Some((mac1, index));
    }

    /// Takes a cookie reply of `peer`. Returns whether it answers the last message.
    pub(crate) fn receive(&mut self, peer: &[u8; 32], message: &[u8], now: u64) -> bool {
        self.open(peer, message).inspect(|cookie| self.cookie = Some((*cookie, now))).is_some()
    }

    fn open(&self, peer: &[u8; 32], message: &[u8]) -> Option<[u8; COOKIE_LEN]> {
        let message: &[u8; COOKIE_REPLY_LEN] = message.try_into().ok()?;
        let (mac1, index) = self.last?;
        let (_, rest) = message.split_first_chunk::<4>()?;
        let (receiver, rest) = rest.split_first_chunk()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if u32::from_le_bytes(*receiver) != index {
            return None;
        }
        let key = hash(&[LABEL, peer]);
        let payload = Payload { msg: sealed, aad: &mac1 };
        let cookie = XChaCha20Poly1305::new(&key.into()).decrypt(nonce.into(), payload).ok()?;
        cookie.try_into().ok()
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; MAC_LEN] {
    // BLAKE2s takes a key of up to 32 bytes.
    let Ok(mut mac) = Blake2sMac::<U16>::new_from_slice(key) else { return [0; MAC_LEN] };
    mac.update(message);
    mac.finalize_fixed().into()
}
