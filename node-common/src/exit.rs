//! Return traffic of the node's own NAT: which frames the guard sends to the workers, past the
//! kernel's network stack, and how user space reads them.
//!
//! What the guard sends is what may belong to a flow of the node: its NAT looks closer. Everything
//! else is the host's.

mod config;
mod packet;

pub use self::{
    config::{EXIT_CONFIG_LEN, ExitConfig, ExitConfigError, ExitV6, MAX_EXIT_V4, MAX_HOST_V6},
    packet::{is_for_port, return_packet},
};

use crate::{
    GuardConfig, Slot,
    filter::{self, Memory},
    ip::{
        ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_HEADER, FRAGMENT, ICMP, ICMPV6, TCP, UDP,
        V6_HEADER,
    },
    packet::{Class, Decision, Frame, Verdict},
    xsk::XSK_MAX_LEN,
};

/// The number of 64-bit words in the bitmap of external ports.
pub const PORT_WORDS: usize = 1 << 10;
/// How many first fragments the guard remembers. The ones that were used longest ago are forgotten.
pub const FRAGMENTS: u32 = 4096;
/// How long a first fragment is remembered, in nanoseconds: as long as Linux waits for the rest of
/// an IPv4 datagram (`IP_FRAG_TIME`).
pub const FRAGMENT_TIMEOUT: u64 = 30_000_000_000;

/// What every protocol here has at least, and every fragment but the last: 8 bytes.
const TRANSPORT: usize = 8;

/// The place of a port in the bitmap: the word, and the bit in it.
#[must_use]
#[inline(always)]
pub const fn port_bit(port: u16) -> (u32, u64) {
    ((port >> 6) as u32, 1 << (port & 63))
}

/// What tells the fragments of one packet from those of others (RFC 791, section 3.2; RFC 8200,
/// section 4.5, where the protocol does not count and is always 44).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// The source address in two halves; of IPv4 the second half only.
    pub source: [u64; 2],
    /// The destination address, in the same form.
    pub destination: [u64; 2],
    /// The packet's identification.
    pub id: u32,
    /// The IP protocol number.
    pub protocol: u32,
}

/// Whether a first fragment that was noted at a time still counts. Both times are in nanoseconds, of
/// a clock that never goes back.
#[must_use]
#[inline(always)]
pub const fn is_fresh(noted: u64, now: u64) -> bool {
    now.wrapping_sub(noted) < FRAGMENT_TIMEOUT
}

/// What the guard knows of the NAT and of the fragments before.
pub trait ExitMemory {
    /// Whether the port or ICMP identifier is one of the node's external ones.
    fn has_port(&self, port: u16) -> bool;
    /// Notes that the first fragment of a packet was return traffic.
    fn note_fragment(&self, key: &FragmentKey);
    /// Forgets a packet, if it was noted.
    fn forget_fragment(&self, key: &FragmentKey);
    /// Whether the first fragment of a packet was noted within [`FRAGMENT_TIMEOUT`].
    fn is_fragment_noted(&self, key: &FragmentKey) -> bool;
}

/// Which kind of return traffic a frame is.
pub trait ReturnTraffic {
    /// See [`ExitConfig::is_routed`].
    fn is_routed(&self) -> bool;
    /// See [`ExitConfig::is_translated`].
    fn is_translated(&self) -> bool;
}

/// A frame, read here.
#[derive(Debug)]
pub struct ReadFrame<'a, F: ?Sized, M> {
    /// The frame.
    pub frame: &'a F,
    /// The external addresses.
    pub exit: &'a ExitConfig,
    /// The ports and fragments.
    pub memory: &'a M,
}

impl<F: Frame + ?Sized, M: ExitMemory> ReturnTraffic for ReadFrame<'_, F, M> {
    fn is_routed(&self) -> bool {
        self.exit.is_routed(self.frame)
    }

    fn is_translated(&self) -> bool {
        !self.exit.is_off() && self.exit.is_translated(self.frame, self.memory)
    }
}

/// The guard's whole decision: that of [`filter::decide`], but for return traffic.
#[inline(always)]
pub fn decide<F: Frame + ?Sized, M: Memory, T: ReturnTraffic>(
    frame: &F,
    config: &GuardConfig,
    memory: &M,
    traffic: &T,
) -> (Decision, Option<Slot>) {
    if traffic.is_routed() {
        return (Decision::about_frame(frame, Verdict::Pass(Class::Return)), None);
    }
    let (mut decision, slot) = filter::decide(frame, config, memory);
    let is_hosts = matches!(decision.verdict, Verdict::Pass(Class::Other | Class::Fragment));
    if is_hosts && traffic.is_translated() {
        decision.verdict = Verdict::Pass(Class::Return);
    }
    (decision, slot)
}

impl ExitConfig {
    /// Whether a frame is to the routed IPv6 prefix. Neighbour discovery (RFC 4861) there is the
    /// host's, as is the prefix's part that is the host's own.
    #[must_use]
    #[inline(always)]
    pub fn is_routed<F: Frame + ?Sized>(&self, frame: &F) -> bool {
        self.has_prefix() && self.read_routed(frame).unwrap_or(false)
    }

    #[inline(always)]
    fn read_routed<F: Frame + ?Sized>(&self, frame: &F) -> Option<bool> {
        if link(frame)? != ETHER_TYPE_IPV6 {
            return None;
        }
        let destination = address_v6(frame, ETHERNET_HEADER + 24)?;
        if !self.prefix_contains(destination) {
            return None;
        }
        let V6 { next, .. } = V6::read(frame)?;
        if next == ICMPV6 {
            let [kind, _] = frame.bytes(ETHERNET_HEADER + V6_HEADER)?;
            return Some(!(133..=137).contains(&kind));
        }
        Some(true)
    }

    /// Whether a frame is to one of the NAT's addresses, and to a port of its own.
    #[must_use]
    #[inline(always)]
    pub fn is_translated<F: Frame + ?Sized, M: ExitMemory>(&self, frame: &F, memory: &M) -> bool {
        let is_return = match link(frame) {
            Some(ETHER_TYPE_IPV4) => self.read_v4(frame, memory),
            Some(ETHER_TYPE_IPV6) => self.read_v6(frame, memory),
            _ => None,
        };
        is_return.unwrap_or(false)
    }

    #[inline(always)]
    fn read_v4<F: Frame + ?Sized, M: ExitMemory>(&self, frame: &F, memory: &M) -> Option<bool> {
        let destination = u32::from_be_bytes(frame.bytes(ETHERNET_HEADER + 16)?);
        if !self.has_v4(destination) {
            return None;
        }
        let [version_ihl, _, l0, l1, i0, i1, f0, f1, _, protocol, _, _, source @ ..] =
            frame.bytes::<16>(ETHERNET_HEADER)?;
        let header = header_v4(version_ihl)?;
        let end = ETHERNET_HEADER + usize::from(u16::from_be_bytes([l0, l1]));
        let source = u32::from_be_bytes(source);
        if end > frame.len() || !is_host_v4(source) {
            return None;
        }
        let key = FragmentKey {
            source: [0, source.into()],
            destination: [0, destination.into()],
            id: u16::from_be_bytes([i0, i1]).into(),
            protocol: protocol.into(),
        };
        let flags = u16::from_be_bytes([f0, f1]);
        if flags & 0x1fff != 0 {
            return Some(memory.is_fragment_noted(&key));
        }
        let at = ETHERNET_HEADER + header;
        let is_return =
            transport_v4(frame, at, end, protocol, destination, memory).unwrap_or(false);
        if flags & 0x2000 != 0 {
            note_first(&key, is_return, memory);
        }
        Some(is_return)
    }

    #[inline(always)]
    fn read_v6<F: Frame + ?Sized, M: ExitMemory>(&self, frame: &F, memory: &M) -> Option<bool> {
        let destination = address_v6(frame, ETHERNET_HEADER + 24)?;
        if !self.has_v6(destination) {
            return None;
        }
        let V6 { mut next, end, source } = V6::read(frame)?;
        let mut at = ETHERNET_HEADER + V6_HEADER;
        let (mut id, mut flags) = (0, 0);
        if next == FRAGMENT {
            let [following, _, f0, f1, rest @ ..] = frame.bytes::<8>(at)?;
            (id, flags) = (u32::from_be_bytes(rest), u16::from_be_bytes([f0, f1]));
            next = following;
            at += 8;
        }
        let key = FragmentKey { source, destination, id, protocol: FRAGMENT.into() };
        if flags & 0xfff8 != 0 {
            return Some(memory.is_fragment_noted(&key));
        }
        let is_return = transport_v6(frame, at, end, next, destination, memory).unwrap_or(false);
        // Without this bit it is whole, in one fragment.
        if flags & 1 != 0 {
            note_first(&key, is_return, memory);
        }
        Some(is_return)
    }
}

/// A first fragment decides for those that follow it; the identification may have been used before.
#[inline(always)]
fn note_first<M: ExitMemory>(key: &FragmentKey, is_return: bool, memory: &M) {
    if is_return {
        memory.note_fragment(key);
    } else {
        memory.forget_fragment(key);
    }
}

/// The type of a frame to one receiver that the sockets have room for.
#[inline(always)]
fn link<F: Frame + ?Sized>(frame: &F) -> Option<u16> {
    if frame.len() > XSK_MAX_LEN {
        return None;
    }
    let [first, _, _, _, _, _, _, _, _, _, _, _, t0, t1] = frame.bytes(0)?;
    (first & 1 == 0).then_some(u16::from_be_bytes([t0, t1]))
}

/// An IPv6 header that fits its frame, from a source that the host would answer to.
struct V6 {
    next: u8,
    end: usize,
    source: [u64; 2],
}

impl V6 {
    #[inline(always)]
    fn read<F: Frame + ?Sized>(frame: &F) -> Option<Self> {
        let [version, _, _, _, l0, l1, next, _] = frame.bytes(ETHERNET_HEADER)?;
        let source = address_v6(frame, ETHERNET_HEADER + 8)?;
        let end = ETHERNET_HEADER + V6_HEADER + usize::from(u16::from_be_bytes([l0, l1]));
        let is_right = version >> 4 == 6 && end <= frame.len() && is_host_v6(source);
        is_right.then_some(Self { next, end, source })
    }
}

#[inline(always)]
fn address_v6<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<[u64; 2]> {
    let address = u128::from_be_bytes(frame.bytes(at)?);
    Some([(address >> 64) as u64, address as u64])
}

#[inline(always)]
fn header_v4(version_ihl: u8) -> Option<usize> {
    let header = usize::from(version_ihl & 0x0f) * 4;
    (version_ihl >> 4 == 4 && header >= 20).then_some(header)
}

/// Neither "this network" nor loopback, multicast or reserved: the host drops those.
#[inline(always)]
const fn is_host_v4(address: u32) -> bool {
    let first = address >> 24;
    first != 0 && first != 127 && first < 224
}

/// Neither unspecified, loopback or IPv4-mapped, nor link-local or multicast. `64:ff9b::/96` is the
/// IPv4 internet behind a NAT64 (RFC 6052).
#[inline(always)]
const fn is_host_v6(address: [u64; 2]) -> bool {
    address[0] != 0 && address[0] >> 56 < 0xfe
}

#[inline(always)]
fn transport_v4<F: Frame + ?Sized, M: ExitMemory>(
    frame: &F,
    at: usize,
    end: usize,
    protocol: u8,
    destination: u32,
    memory: &M,
) -> Option<bool> {
    let [kind, _, p0, p1, i0, i1, _, _] = transport(frame, at, end)?;
    match (protocol, kind) {
        (TCP | UDP, _) => Some(memory.has_port(u16::from_be_bytes([p0, p1]))),
        // Echo reply.
        (ICMP, 0) => Some(memory.has_port(u16::from_be_bytes([i0, i1]))),
        // Destination unreachable, time exceeded, parameter problem.
        (ICMP, 3 | 11 | 12) => embedded_v4(frame, at + 8, end, destination, memory),
        _ => None,
    }
}

/// The packet in an ICMP error, whose source is the error's destination (RFC 1812, section 4.3.2).
#[inline(always)]
fn embedded_v4<F: Frame + ?Sized, M: ExitMemory>(
    frame: &F,
    at: usize,
    end: usize,
    destination: u32,
    memory: &M,
) -> Option<bool> {
    let [version_ihl, _, _, _, _, _, f0, f1, _, protocol, _, _, source @ ..] =
        frame.bytes::<16>(at)?;
    let header = header_v4(version_ihl)?;
    if u16::from_be_bytes([f0, f1]) & 0x1fff != 0 || u32::from_be_bytes(source) != destination {
        return None;
    }
    let [p0, p1, _, _, i0, i1, _, _] = transport(frame, at + header, end)?;
    match (protocol, p0) {
        (TCP | UDP, _) => Some(memory.has_port(u16::from_be_bytes([p0, p1]))),
        // Echo request.
        (ICMP, 8) => Some(memory.has_port(u16::from_be_bytes([i0, i1]))),
        _ => None,
    }
}

#[inline(always)]
fn transport_v6<F: Frame + ?Sized, M: ExitMemory>(
    frame: &F,
    at: usize,
    end: usize,
    protocol: u8,
    destination: [u64; 2],
    memory: &M,
) -> Option<bool> {
    let [kind, _, p0, p1, i0, i1, _, _] = transport(frame, at, end)?;
    match (protocol, kind) {
        (TCP | UDP, _) => Some(memory.has_port(u16::from_be_bytes([p0, p1]))),
        // Echo reply.
        (ICMPV6, 129) => Some(memory.has_port(u16::from_be_bytes([i0, i1]))),
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        (ICMPV6, 1..=4) => embedded_v6(frame, at + 8, end, destination, memory),
        _ => None,
    }
}

/// As [`embedded_v4`] (RFC 4443, section 2.2). The packet may have been sent as fragments.
#[inline(always)]
fn embedded_v6<F: Frame + ?Sized, M: ExitMemory>(
    frame: &F,
    at: usize,
    end: usize,
    destination: [u64; 2],
    memory: &M,
) -> Option<bool> {
    let [version, _, _, _, _, _, mut next, _] = frame.bytes(at)?;
    if version >> 4 != 6 || address_v6(frame, at + 8)? != destination {
        return None;
    }
    let mut at = at + V6_HEADER;
    if next == FRAGMENT {
        let [following, _, f0, f1] = frame.bytes(at)?;
        if u16::from_be_bytes([f0, f1]) & 0xfff8 != 0 {
            return None;
        }
        next = following;
        at += 8;
    }
    let [p0, p1, _, _, i0, i1, _, _] = transport(frame, at, end)?;
    match (next, p0) {
        (TCP | UDP, _) => Some(memory.has_port(u16::from_be_bytes([p0, p1]))),
        // Echo request.
        (ICMPV6, 128) => Some(memory.has_port(u16::from_be_bytes([i0, i1]))),
        _ => None,
    }
}

/// The first bytes of a transport header, which are within the packet.
#[inline(always)]
fn transport<F: Frame + ?Sized>(frame: &F, at: usize, end: usize) -> Option<[u8; TRANSPORT]> {
    if at + TRANSPORT > end { None } else { frame.bytes(at) }
}
