//! What a consumer is told about a packet that does not leave.

/// The answer to a refused packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// TCP: a reset (RFC 9293, section 3.5.2).
    Reset,
    /// ICMP: communication administratively prohibited (RFC 1812, section 5.2.7.1; RFC 4443,
    /// section 3.1).
    Prohibited,
    /// ICMP: no room for another flow: host unreachable (RFC 5508, REQ-8) or address unreachable.
    Unreachable,
    /// ICMP: time exceeded in transit (RFC 792; RFC 4443, section 3.3).
    TimeExceeded,
    /// ICMP: the packet is larger than this, in bytes, and may not be fragmented (RFC 1191; RFC 8201).
    TooBig(u16),
}
