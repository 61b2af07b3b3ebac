//! Keys that are no secret.

use core::fmt;

/// A consumer's static public key (X25519), 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// In base64 (RFC 4648), as WireGuard's tools write keys.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in self.0.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            let bits = bits << (8 * (3 - group.len()));
            for place in 0..4 {
                let digit = BASE64[(bits >> (18 - 6 * place)) as usize & 63];
                let digit = if place > group.len() { '=' } else { char::from(digit) };
                fmt::Write::write_char(f, digit)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString as _;

    use super::*;

    #[test]
    fn a_key_is_printed_in_base64() {
        assert_eq!(PublicKey([0; 32]).to_string(), std::format!("{}=", "A".repeat(43)));
        let mut key = [0xff; 32];
        key[..3].copy_from_slice(&[0, 16, 131]);
        assert_eq!(PublicKey(key).to_string(), std::format!("ABCD{}8=", "/".repeat(38)));
    }
}
