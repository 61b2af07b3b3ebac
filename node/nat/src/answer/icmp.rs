//! ICMP errors (RFC 792, RFC 1812, RFC 4443).

use weir_common::ip::{ICMP, ICMP_HEADER, ICMPV6};
use weir_packet::{
    checksum::Sum,
    headers::{V4_HEADER, V6_HEADER, write},
};

use super::{
    Answer, Gateways, MAX_ANSWER_LEN,
    original::{Addresses, Original},
    write_ip_header,
};

/// The longest error of IPv4, in bytes (RFC 1812, section 4.3.2.3).
const MAX_V4: usize = 576;

/// The precedence of errors, internetwork control, with the default type of service (RFC 1812,
/// section 4.3.2.5; RFC 1349, section 5.1).
const INTERNETWORK_CONTROL: u8 = 6 << 5;

/// Writes the error.
pub(super) fn error(
    answer: Answer,
    original: &Original<'_>,
    gateways: &Gateways,
    out: &mut [u8],
) -> Option<usize> {
    if !may_be_told(answer, original) {
        return None;
    }
    let header = header(answer, original.addresses.is_v4())?;
    let (addresses, protocol, traffic_class, max_quote) = match original.addresses {
        Addresses::V4 { source, .. } => (
            Addresses::V4 { source: gateways.v4, destination: source },
            ICMP,
            INTERNETWORK_CONTROL,
            MAX_V4 - V4_HEADER - ICMP_HEADER,
        ),
        Addresses::V6 { source, .. } => (
            Addresses::V6 { source: gateways.v6, destination: source },
            ICMPV6,
            0,
            MAX_ANSWER_LEN - V6_HEADER - ICMP_HEADER,
        ),
    };
    let quote = original.packet.get(..max_quote).unwrap_or(original.packet);
    let message_len = ICMP_HEADER + quote.len();
    let (message, len) = write_ip_header(&addresses, protocol, traffic_class, message_len, out)?;
    write(message, 0, header);
    message.get_mut(ICMP_HEADER..)?.copy_from_slice(quote);
    // ICMP has no pseudo-header (RFC 792), ICMPv6 has one (RFC 4443, section 2.3).
    let pseudo_header = match addresses {
        Addresses::V4 { .. } => Sum::default(),
        Addresses::V6 { .. } => addresses.pseudo_header(ICMPV6, message_len),
    };
    let checksum = pseudo_header.bytes(message).checksum();
    write(message, 2, checksum.to_be_bytes());
    Some(len)
}

/// Type, code, a checksum of 0, and the field behind it. `None` for a reset.
fn header(answer: Answer, is_v4: bool) -> Option<[u8; ICMP_HEADER]> {
    let (kind, code, field) = match (answer, is_v4) {
        (Answer::Reset, _) => return None,
        (Answer::Prohibited, true) => (3, 13, 0),
        (Answer::Unreachable, true) => (3, 1, 0),
        (Answer::TimeExceeded, true) => (11, 0, 0),
        (Answer::TooBig(mtu), true) => (3, 4, mtu),
        (Answer::Prohibited, false) => (1, 1, 0),
        (Answer::Unreachable, false) => (1, 3, 0),
        (Answer::TimeExceeded, false) => (3, 0, 0),
        (Answer::TooBig(mtu), false) => (2, 0, mtu),
    };
    let [high, low] = u16::to_be_bytes(field);
    Some([kind, code, 0, 0, 0, 0, high, low])
}

/// Whether the sender of a packet may be told about it (RFC 1812, section 4.3.2.7; RFC 4443,
/// section 2.4 (e)).
fn may_be_told(answer: Answer, original: &Original<'_>) -> bool {
    let Original { addresses, protocol, payload, .. } = original;
    // A path's MTU is found out for multicast too.
    let tells_of_multicast = matches!(answer, Answer::TooBig(_)) && addresses.is_v6_multicast();
    let is_of_hosts = addresses.has_unicast_source()
        && (addresses.has_unicast_destination() || tells_of_multicast);
    let kind = payload.first().copied();
    let is_error = match (*protocol, addresses.is_v4()) {
        (ICMP, true) => !kind.is_some_and(is_query),
        (ICMPV6, false) => !kind.is_some_and(is_informational),
        _ => false,
    };
    is_of_hosts && !is_error
}

/// Whether a type of ICMP is a query or its reply: echo, router discovery, timestamp, information,
/// address mask. What is not known may be an error.
fn is_query(kind: u8) -> bool {
    matches!(kind, 0 | 8..=10 | 13..=18)
}

/// Whether a type of ICMPv6 is neither an error nor a redirect.
fn is_informational(kind: u8) -> bool {
    const REDIRECT: u8 = 137;
    kind >= 128 && kind != REDIRECT
}
