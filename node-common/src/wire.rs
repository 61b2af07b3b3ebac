//! WireGuard's messages on the wire (whitepaper, section 5.4), as far as they can be told without
//! keys.

/// Length of a handshake initiation.
pub const INITIATION_LEN: usize = 148;
/// Length of a handshake response.
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Header (16) and tag (16) of a data message: the length of a keepalive.
pub const DATA_OVERHEAD: usize = 32;
/// The four types, as the first byte of a message.
pub mod message_type {
    /// Handshake initiation.
    pub const INITIATION: u8 = 1;
    /// Handshake response.
    pub const RESPONSE: u8 = 2;
    /// Cookie reply.
    pub const COOKIE_REPLY: u8 = 3;
    /// Data.
    pub const DATA: u8 = 4;
}

/// A well-formed message, and to whom it says that it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1: goes to whoever owns our static key.
    Initiation,
    /// Type 2.
    Response {
        /// The index of the initiation that it answers.
        receiver_index: u32,
    },
    /// Type 3.
    CookieReply {
        /// The index of the handshake message that it answers.
        receiver_index: u32,
    },
    /// Type 4.
    Data {
        /// The index of the receiver's keypair.
        receiver_index: u32,
    },
}

/// Why a UDP payload is no WireGuard message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAMessage {
    /// The type is not 1 to 4, the reserved bytes are not zero, or there is no room for them.
    Type,
    /// The length does not fit the type.
    Length,
}

impl Message {
    /// How many of a message's first bytes [`Message::classify`] looks at.
    pub const PREFIX: usize = 12;

    /// Classifies a message by its first bytes and its length. `prefix` holds the first
    /// [`Message::PREFIX`] bytes, with zeros where the message is shorter; `len` is the message's
    /// whole length in bytes.
    ///
    /// # Errors
    ///
    /// Says what does not fit a message.
    #[inline(always)]
    pub const fn classify(prefix: &[u8; Self::PREFIX], len: usize) -> Result<Self, NotAMessage> {
        let [kind, r0, r1, r2, a0, a1, a2, a3, b0, b1, b2, b3] = *prefix;
        if len < 4 || r0 | r1 | r2 != 0 {
            return Err(NotAMessage::Type);
        }
        let first = u32::from_le_bytes([a0, a1, a2, a3]);
        let second = u32::from_le_bytes([b0, b1, b2, b3]);
        match kind {
            message_type::INITIATION if len == INITIATION_LEN => Ok(Self::Initiation),
            message_type::RESPONSE if len == RESPONSE_LEN => {
                Ok(Self::Response { receiver_index: second })
            }
            message_type::COOKIE_REPLY if len == COOKIE_REPLY_LEN => {
                Ok(Self::CookieReply { receiver_index: first })
            }
            message_type::DATA if len >= DATA_OVERHEAD => Ok(Self::Data { receiver_index: first }),
            1..=4 => Err(NotAMessage::Length),
            _ => Err(NotAMessage::Type),
        }
    }

    /// Classifies a whole message.
    ///
    /// # Errors
    ///
    /// Says what does not fit a message.
    #[inline(always)]
    pub fn parse(payload: &[u8]) -> Result<Self, NotAMessage> {
        match payload.first_chunk() {
            Some(prefix) => Self::classify(prefix, payload.len()),
            // No type is that short.
            None => match payload {
                [1..=4, 0, 0, 0, ..] => Err(NotAMessage::Length),
                _ => Err(NotAMessage::Type),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, len: usize) -> [u8; 256] {
        let mut bytes = [0; 256];
        bytes[0] = kind;
        bytes[4..8].copy_from_slice(&0x0102_0304u32.to_le_bytes());
        bytes[8..12].copy_from_slice(&0x0506_0708u32.to_le_bytes());
        assert!(len <= 256);
        bytes
    }

    #[test]
    fn each_type_has_its_length_and_no_other() {
        for len in 0..=256 {
            let parse = |kind| Message::parse(&message(kind, len)[..len]);
            assert_eq!(parse(1).is_ok(), len == 148, "initiation of {len}");
            assert_eq!(parse(2).is_ok(), len == 92, "response of {len}");
            assert_eq!(parse(3).is_ok(), len == 64, "cookie reply of {len}");
            assert_eq!(parse(4).is_ok(), len >= 32, "data of {len}");
            assert_eq!(parse(0), Err(NotAMessage::Type));
            assert_eq!(parse(5), Err(NotAMessage::Type));
        }
    }

    #[test]
    fn the_receiver_index_is_read_where_the_type_has_it() {
        let parse = |kind, len: usize| Message::parse(&message(kind, len)[..len]);
        assert_eq!(parse(2, 92), Ok(Message::Response { receiver_index: 0x0506_0708 }));
        assert_eq!(parse(3, 64), Ok(Message::CookieReply { receiver_index: 0x0102_0304 }));
        assert_eq!(parse(4, 32), Ok(Message::Data { receiver_index: 0x0102_0304 }));
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        for byte in 1..4 {
            let mut bytes = message(4, 64);
            bytes[byte] = 1;
            assert_eq!(Message::parse(&bytes[..64]), Err(NotAMessage::Type));
        }
    }
}
