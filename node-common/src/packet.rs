//! The guard's parser: what a received frame is to us, and whether it may pass.
//!
//! Only UDP datagrams to our port are judged; everything else is the host's own business. The
//! same code runs in the kernel, over an XDP frame, and in user space, over a slice.

mod ip;

use ip::{Located, locate};

use crate::{
    DropReason, blake2s,
    wire::{
        COOKIE_REPLY_LEN, DATA_OVERHEAD, INITIATION_LEN, Message, NotAMessage, RESPONSE_LEN,
        message_type,
    },
};

/// A received Ethernet frame.
pub trait Frame {
    /// The frame's length in bytes.
    fn len(&self) -> usize;

    /// Whether the frame has no byte at all.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `N` bytes from `offset` on, or `None` where the frame has not that many.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The 64 bytes from `offset` on as little-endian words, or `None` where the frame has not that
    /// many.
    fn block(&self, offset: usize) -> Option<[u32; 16]>;

    /// The little-endian word at `offset`, or 0 where the frame has none.
    #[inline(always)]
    fn word(&self, offset: usize) -> u32 {
        self.bytes(offset).map_or(0, u32::from_le_bytes)
    }
}

impl Frame for [u8] {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn block(&self, offset: usize) -> Option<[u32; 16]> {
        let bytes: &[u8; 64] = self.get(offset..)?.first_chunk()?;
        Some(blake2s::block(bytes))
    }
}

/// What a passing frame is. Each value is an index into the guard's counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A handshake initiation.
    Initiation = 0,
    /// A handshake response.
    Response = 1,
    /// A cookie reply.
    CookieReply = 2,
    /// A data message.
    Data = 3,
    /// No UDP datagram to our port.
    Other = 4,
    /// A fragment of a UDP datagram: its port is not known, or its payload is not whole.
    Fragment = 5,
    /// Return traffic of the node's own NAT (see [`crate::exit`]).
    Return = 6,
}

impl Class {
    /// Every class, in the order of their values.
    pub const ALL: &'static [Self] = &[
        Self::Initiation,
        Self::Response,
        Self::CookieReply,
        Self::Data,
        Self::Other,
        Self::Fragment,
        Self::Return,
    ];
    /// How many classes there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initiation => "initiation",
            Self::Response => "response",
            Self::CookieReply => "cookie_reply",
            Self::Data => "data",
            Self::Other => "other",
            Self::Fragment => "fragment",
            Self::Return => "return",
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on: to the kernel's network stack, or to a worker.
    Pass(Class),
    /// It goes no further.
    Drop(DropReason),
}

/// A verdict, and what is counted with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the frame.
    pub verdict: Verdict,
    /// The UDP payload in bytes; the whole frame's length where there is no datagram to our port
    /// with headers that make sense.
    pub bytes: u32,
    /// To whom the message says that it goes, if it is of a type that says so.
    pub receiver_index: Option<u32>,
    /// Where the UDP payload begins; 0 where there is none to our port.
    pub at: u32,
    /// From where it comes.
    pub source: Source,
}

/// From where a datagram comes, as far as its headers say; nobody vouches for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The IPv6 or IPv4-mapped address in two big-endian halves, as
    /// [`crate::account::WorkerState::address`] has it.
    pub address: [u64; 2],
    /// The UDP port.
    pub port: u16,
}

impl Source {
    /// What limits take for one source: the IPv4 address, or the first half of the IPv6 address, in
    /// a number that no other source has.
    #[must_use]
    #[inline(always)]
    pub const fn network(&self) -> u64 {
        let [high, low] = self.address;
        if high == 0 { low } else { high }
    }

    /// Whether it is this address and port. No datagram comes from port 0, which stands for no
    /// address.
    #[must_use]
    #[inline(always)]
    pub const fn is_at(&self, address: [u64; 2], port: u32) -> bool {
        let [high, low] = self.address;
        let differs = (high ^ address[0]) | (low ^ address[1]) | (self.port as u64 ^ port as u64);
        differs == 0 && port != 0
    }
}

impl Decision {
    /// A decision about a frame as a whole.
    #[inline(always)]
    pub(crate) fn about_frame<F: Frame + ?Sized>(frame: &F, verdict: Verdict) -> Self {
        let bytes = frame.len() as u32;
        Self { verdict, bytes, receiver_index: None, at: 0, source: NOWHERE }
    }
}

/// What the parser must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The node's UDP port.
    pub port: u16,
    /// Frames may be several datagrams that were merged into one (generic XDP runs behind GRO):
    /// a handshake message may be followed by others then.
    pub super_packets: bool,
}

/// Judges a frame.
#[inline(always)]
pub fn judge<F: Frame + ?Sized>(frame: &F, rules: Rules) -> Decision {
    let about_frame = |verdict| Decision::about_frame(frame, verdict);
    let (at, space, address) = match locate(frame) {
        Located::Other => return about_frame(Verdict::Pass(Class::Other)),
        Located::Fragment => return about_frame(Verdict::Pass(Class::Fragment)),
        Located::Udp { at, space, address } => (at, space, address),
    };
    let Some([s0, s1, p0, p1, l0, l1, _, _]) = frame.bytes(at) else {
        return about_frame(Verdict::Pass(Class::Other));
    };
    if u16::from_be_bytes([p0, p1]) != rules.port {
        return about_frame(Verdict::Pass(Class::Other));
    }
    // A UDP length below the IP payload's is legal: what follows is RFC 9868's surplus area,
    // which the kernel cuts off before a socket sees it.
    let udp_len = u32::from(u16::from_be_bytes([l0, l1]));
    let contradiction = about_frame(Verdict::Drop(DropReason::GuardHeader));
    if udp_len < UDP_HEADER || udp_len > space {
        return contradiction;
    }
    let len = udp_len - UDP_HEADER;
    let Some(prefix) = prefix(frame, at + UDP_HEADER as usize, len) else { return contradiction };
    let at = at as u32 + UDP_HEADER;
    let source = Source { address, port: u16::from_be_bytes([s0, s1]) };
    Decision { at, source, ..judge_message(&prefix, len, rules) }
}

const UDP_HEADER: u32 = 8;
/// Of what is no datagram to our port.
const NOWHERE: Source = Source { address: [0; 2], port: 0 };

/// A message's first bytes, as [`Message::classify`] wants them.
#[inline(always)]
fn prefix<F: Frame + ?Sized>(frame: &F, offset: usize, len: u32) -> Option<[u8; Message::PREFIX]> {
    if len as usize >= Message::PREFIX {
        return frame.bytes(offset);
    }
    let mut prefix = [0; Message::PREFIX];
    // Shorter ones are of no type, or of none's length: four bytes tell which.
    if len >= 4 {
        let [kind, r0, r1, r2] = frame.bytes(offset)?;
        (prefix[0], prefix[1], prefix[2], prefix[3]) = (kind, r0, r1, r2);
    }
    Some(prefix)
}

#[inline(always)]
fn judge_message(prefix: &[u8; Message::PREFIX], bytes: u32, rules: Rules) -> Decision {
    let len = match prefix[0] {
        message_type::INITIATION if rules.super_packets => first_len(bytes, INITIATION_LEN),
        message_type::RESPONSE if rules.super_packets => first_len(bytes, RESPONSE_LEN),
        message_type::COOKIE_REPLY if rules.super_packets => first_len(bytes, COOKIE_REPLY_LEN),
        _ => bytes as usize,
    };
    let (verdict, receiver_index) = match Message::classify(prefix, len) {
        Ok(Message::Initiation) => (Verdict::Pass(Class::Initiation), None),
        Ok(Message::Response { receiver_index }) => {
            (Verdict::Pass(Class::Response), Some(receiver_index))
        }
        Ok(Message::CookieReply { receiver_index }) => {
            (Verdict::Pass(Class::CookieReply), Some(receiver_index))
        }
        Ok(Message::Data { receiver_index }) => (Verdict::Pass(Class::Data), Some(receiver_index)),
        Err(NotAMessage::Type) => (Verdict::Drop(DropReason::GuardType), None),
        Err(NotAMessage::Length) => (Verdict::Drop(DropReason::GuardLength), None),
    };
    Decision { verdict, bytes, receiver_index, at: 0, source: NOWHERE }
}

/// The length of a super-packet's first message, if that is of `exact` bytes and what follows has
/// room for the shortest datagram that can follow, an empty data message.
#[inline(always)]
fn first_len(bytes: u32, exact: usize) -> usize {
    let bytes = bytes as usize;
    if bytes >= exact + DATA_OVERHEAD { exact } else { bytes }
}
