//! A flow: an entry of the table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    parse::{Address, v4_of},
    policy::{NewFlow, Protocol},
};

/// Time in units of 2^27 nanoseconds, about an eighth of a second: 18 years in 32 bits.
pub(crate) type Ticks = u32;

/// The time of a clock in nanoseconds.
#[inline(always)]
pub(crate) fn ticks(now: u64) -> Ticks {
    (now >> 27) as Ticks
}

/// Seconds in ticks, rounded up, with one tick for the part of a tick that has passed.
pub(crate) const fn seconds(seconds: u64) -> Ticks {
    ((seconds * 1_000_000_000) >> 27) as Ticks + 2
}

/// An idle UDP flow that had an answer: what RFC 4787, REQ-5 c recommends.
pub(crate) const UDP_TIMEOUT: Ticks = seconds(300);
/// An idle UDP flow without an answer: the least that RFC 4787, REQ-5 allows.
pub(crate) const UDP_UNREPLIED_TIMEOUT: Ticks = seconds(120);
/// An idle ICMP query: RFC 5508, REQ-2.
pub(crate) const ICMP_TIMEOUT: Ticks = seconds(60);
/// An idle TCP connection that is open: RFC 5382, REQ-5.
pub(crate) const TCP_ESTABLISHED_TIMEOUT: Ticks = seconds(2 * 3600 + 4 * 60);
/// An idle TCP connection that opens or closes: RFC 5382, REQ-5; RFC 7857, section 2.
pub(crate) const TCP_TRANSITORY_TIMEOUT: Ticks = seconds(240);

/// Where a flow stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// No flow: the entry is free.
    #[default]
    Free,
    /// UDP and ICMP: nothing has come back yet.
    Unreplied,
    /// UDP and ICMP.
    Replied,
    /// TCP: a SYN of the consumer.
    SynSent,
    /// TCP: a SYN of both sides.
    SynReceived,
    /// TCP.
    Established,
    /// TCP: taken up in the middle, and nothing has come back yet.
    PickedUp,
    /// TCP: a FIN of the consumer.
    FinUp,
    /// TCP: a FIN of the other side.
    FinDown,
    /// TCP: a FIN of both sides.
    Closed,
    /// TCP: a reset, by whom does not matter.
    Reset,
}

impl State {
    /// How long a flow may be idle.
    #[inline(always)]
    pub(crate) fn timeout(self, protocol: Protocol) -> Ticks {
        match self {
            Self::Established => TCP_ESTABLISHED_TIMEOUT,
            Self::Replied if protocol == Protocol::Udp => UDP_TIMEOUT,
            Self::Unreplied if protocol == Protocol::Udp => UDP_UNREPLIED_TIMEOUT,
            Self::Replied | Self::Unreplied => ICMP_TIMEOUT,
            _ => TCP_TRANSITORY_TIMEOUT,
        }
    }

    /// Whether the connection is over.
    #[inline]
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Reset)
    }

    /// Whether nothing has come back yet.
    pub(crate) fn is_unanswered(self) -> bool {
        matches!(self, Self::Unreplied | Self::SynSent | Self::PickedUp)
    }

    /// After a packet of another protocol than TCP.
    #[inline]
    pub(crate) fn after_datagram(self, direction: Direction) -> Self {
        if direction == Direction::Down { Self::Replied } else { self }
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// A remote address in two words.
pub(crate) type Words = [u64; 2];

/// An address in two words.
#[inline(always)]
pub(crate) fn words(address: Address) -> Words {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// What a flow's packets have in common on the consumer's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpKey {
    pub(crate) remote: Words,
    pub(crate) slot: u32,
    pub(crate) port: u16,
    pub(crate) remote_port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) v6: bool,
}

/// What a flow's packets have in common on the internet's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DownKey {
    pub(crate) remote: Words,
    /// The slot where each session has an address of its own, else 0.
    pub(crate) slot: u32,
    pub(crate) port: u16,
    pub(crate) remote_port: u16,
    pub(crate) protocol: Protocol,
    /// The index of the external address.
    pub(crate) external: u8,
}

/// The index of the external IPv6 address, behind those of IPv4.
pub(crate) const EXTERNAL_V6: u8 = 16;
/// In place of an index: each session has an address of the prefix.
pub(crate) const EXTERNAL_PREFIX: u8 = 17;

/// A flow: one cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(crate) struct Flow {
    pub(crate) remote: Words,
    pub(crate) slot: u32,
    /// When it ends, if no packet comes.
    pub(crate) expires: Ticks,
    /// Of the policy that it was judged by.
    pub(crate) generation: u32,
    /// UDP and ICMP: the mapping that its port belongs to.
    pub(crate) mapping: u32,
    /// The next one in the chain of the index by [`UpKey`], or in the list of free entries.
    pub(crate) up_next: u32,
    /// The next one in the chain of the index by [`DownKey`].
    pub(crate) down_next: u32,
    /// The session's flows are a ring.
    pub(crate) older: u32,
    pub(crate) newer: u32,
    pub(crate) port: u16,
    pub(crate) external_port: u16,
    pub(crate) remote_port: u16,
    /// The index of the external address.
    pub(crate) external: u8,
    pub(crate) protocol: Protocol,
    pub(crate) state: State,
    pub(crate) v6: bool,
}

impl Flow {
    #[inline(always)]
    pub(crate) fn up_key(&self) -> UpKey {
        UpKey {
            remote: self.remote,
            slot: self.slot,
            port: self.port,
            remote_port: self.remote_port,
            protocol: self.protocol,
            v6: self.v6,
        }
    }

    #[inline(always)]
    pub(crate) fn down_key(&self) -> DownKey {
        DownKey {
            remote: self.remote,
            slot: if self.external == EXTERNAL_PREFIX { self.slot } else { 0 },
            port: self.external_port,
            remote_port: self.remote_port,
            protocol: self.protocol,
            external: self.external,
        }
    }

    /// Whether the entry has no flow, or one that has ended.
    #[inline(always)]
    pub(crate) fn is_expired(&self, now: Ticks) -> bool {
        self.expires <= now
    }

    /// What the policy is asked.
    pub(crate) fn as_new(&self) -> NewFlow {
        new_flow(self.remote, self.v6, self.remote_port, self.protocol)
    }
}

/// What the policy is asked about a flow.
pub(crate) fn new_flow(remote: Words, v6: bool, port: u16, protocol: Protocol) -> NewFlow {
    let mut octets = [0; 16];
    for (to, from) in octets.iter_mut().zip(remote.iter().flat_map(|word| word.to_ne_bytes())) {
        *to = from;
    }
    let address = if v6 {
        IpAddr::V6(Ipv6Addr::from(octets))
    } else {
        IpAddr::V4(Ipv4Addr::from(v4_of(octets)))
    };
    NewFlow { address, port, protocol }
}
