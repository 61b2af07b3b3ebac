//! The expected packets are built by another implementation, etherparse, and compared byte by byte.

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpDscp, IpHeaders, IpNumber, Ipv4Header, PacketBuilder, TcpHeader,
    icmpv4, icmpv6,
};
use proptest::prelude::*;

use super::*;

const GATEWAYS: Gateways = Gateways {
    v4: Ipv4Addr::new(10, 66, 0, 1),
    v6: Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 1),
};
const CONSUMER: [u8; 4] = [10, 66, 0, 9];
const SERVER: [u8; 4] = [45, 1, 2, 3];
const CONSUMER_V6: [u8; 16] = Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 9).octets();
const SERVER_V6: [u8; 16] = Ipv6Addr::new(0x2a0a, 1, 0, 0, 0, 0, 0, 3).octets();

/// Every answer.
const ALL: [Answer; 5] = [
    Answer::Reset,
    Answer::Prohibited,
    Answer::Unreachable,
    Answer::TimeExceeded,
    Answer::TooBig(1280),
];
/// Those by ICMP.
const ERRORS: [Answer; 4] =
    [Answer::Prohibited, Answer::Unreachable, Answer::TimeExceeded, Answer::TooBig(1280)];

fn answered(answer: Answer, refused: &[u8]) -> Option<Vec<u8>> {
    let mut out = [0xaa; MAX_ANSWER_LEN];
    let len = write(answer, refused, &GATEWAYS, &mut out)?;
    Some(out[..len].to_vec())
}

/// Which answers a packet has.
fn answers(refused: &[u8]) -> Vec<Answer> {
    ALL.into_iter().filter(|answer| answered(*answer, refused).is_some()).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}
use Family::{V4, V6};

/// A segment from the consumer, or one to it.
fn tcp(family: Family, is_from_consumer: bool, header: TcpHeader, payload: &[u8]) -> Vec<u8> {
    let builder = match (family, is_from_consumer) {
        (V4, true) => PacketBuilder::ipv4(CONSUMER, SERVER, 64),
        (V4, false) => PacketBuilder::ipv4(SERVER, CONSUMER, 64),
        (V6, true) => PacketBuilder::ipv6(CONSUMER_V6, SERVER_V6, 64),
        (V6, false) => PacketBuilder::ipv6(SERVER_V6, CONSUMER_V6, 64),
    };
    let mut packet = Vec::new();
    builder.tcp_header(header).write(&mut packet, payload).expect("a packet");
    packet
}

fn segment(family: Family, payload: &[u8], change: impl FnOnce(&mut TcpHeader)) -> Vec<u8> {
    let mut header = TcpHeader::new(40_000, 443, 1000, 65_000);
    change(&mut header);
    tcp(family, true, header, payload)
}

fn syn(family: Family) -> Vec<u8> {
    segment(family, b"", |header| header.syn = true)
}

/// The reset that is expected, with these numbers.
fn reset(family: Family, sequence: u32, acknowledgment: Option<u32>) -> Vec<u8> {
    let mut header = TcpHeader::new(443, 40_000, sequence, 0);
    (header.rst, header.ack) = (true, acknowledgment.is_some());
    header.acknowledgment_number = acknowledgment.unwrap_or_default();
    tcp(family, false, header, b"")
}

fn datagram(family: Family, payload: &[u8]) -> Vec<u8> {
    let builder = match family {
        V4 => PacketBuilder::ipv4(CONSUMER, SERVER, 7),
        V6 => PacketBuilder::ipv6(CONSUMER_V6, SERVER_V6, 7),
    };
    let mut packet = Vec::new();
    builder.udp(5000, 53).write(&mut packet, payload).expect("a packet");
    packet
}

fn icmp(family: Family, kind: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    match family {
        V4 => {
            let step = PacketBuilder::ipv4(CONSUMER, SERVER, 64).icmpv4_raw(kind, 0, [0; 4]);
            step.write(&mut packet, &[0; 28]).expect("a packet");
        }
        V6 => {
            let step = PacketBuilder::ipv6(CONSUMER_V6, SERVER_V6, 64).icmpv6_raw(kind, 0, [0; 4]);
            step.write(&mut packet, &[0; 48]).expect("a packet");
        }
    }
    packet
}

/// A packet with a fragment header of IPv6, or the fields of one of IPv4.
fn fragment(packet: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[6..8].copy_from_slice(&(u16::from(more) << 13 | offset).to_be_bytes());
        return packet;
    }
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    let header = [packet[6], 0, high, low, 0, 0, 0, 1];
    extended(&mut packet, 44, &header);
    packet
}

/// Puts an extension header behind the fixed header of IPv6.
fn extended(packet: &mut Vec<u8>, kind: u8, header: &[u8]) {
    packet.splice(40..40, header.iter().copied());
    packet[6] = kind;
    let len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
}

#[test]
fn a_reset_has_the_numbers_of_rfc_9293() {
    for family in [V4, V6] {
        let reset_of = |refused: &[u8]| answered(Answer::Reset, refused).expect("a reset");
        assert_eq!(reset_of(&syn(family)), reset(family, 0, Some(1001)));
        // Without ACK, what is acknowledged is all of the segment: data, SYN and FIN.
        let all = segment(family, b"hello", |header| (header.syn, header.fin) = (true, true));
        assert_eq!(reset_of(&all), reset(family, 0, Some(1007)));
        let last = segment(family, b"", |header| {
            (header.syn, header.sequence_number) = (true, u32::MAX);
        });
        assert_eq!(reset_of(&last), reset(family, 0, Some(0)));
        // Options are no data.
        let options = segment(family, b"abc", |header| {
            header.set_options_raw(&[2, 4, 5, 180, 1, 3, 3, 7]).expect("options");
        });
        assert_eq!(reset_of(&options), reset(family, 0, Some(1003)));
        let with_ack = segment(family, b"hello", |header| {
            (header.ack, header.fin, header.acknowledgment_number) = (true, true, 0xdead_beef);
        });
        assert_eq!(reset_of(&with_ack), reset(family, 0xdead_beef, None));
    }
}

#[test]
fn no_reset_answers_a_reset_or_what_is_no_right_segment() {
    for family in [V4, V6] {
        let header_len = if family == V4 { 20 } else { 40 };
        for ack in [true, false] {
            let reset = segment(family, b"", |header| (header.rst, header.ack) = (true, ack));
            assert_eq!(answers(&reset), ERRORS);
        }
        let good = syn(family);
        assert_eq!(answers(&good), ALL);
        let with = |at: usize, change: u8| {
            let mut bad = good.clone();
            bad[header_len + at] ^= change;
            bad
        };
        assert_eq!(answers(&with(16, 1)), ERRORS, "the checksum");
        assert_eq!(answers(&with(12, 0x10)), ERRORS, "a data offset of 4");
        assert_eq!(answers(&with(12, 0xa0)), ERRORS, "a data offset beyond the end");
        assert_eq!(answers(&datagram(family, b"hello")), ERRORS);
    }
}

/// The error that etherparse builds.
fn error(answer: Answer, family: Family, quote: &[u8]) -> Vec<u8> {
    use icmpv4::{DestUnreachableHeader as V4Code, TimeExceededCode as V4Time};
    use icmpv6::{DestUnreachableCode as V6Code, TimeExceededCode as V6Time};
    let mut packet = Vec::new();
    match family {
        V4 => {
            let kind = match answer {
                Answer::Prohibited => Icmpv4Type::DestinationUnreachable(V4Code::FilterProhibited),
                Answer::Unreachable => Icmpv4Type::DestinationUnreachable(V4Code::Host),
                Answer::TimeExceeded => Icmpv4Type::TimeExceeded(V4Time::TtlExceededInTransit),
                Answer::TooBig(mtu) => {
                    Icmpv4Type::DestinationUnreachable(V4Code::FragmentationNeeded {
                        next_hop_mtu: mtu,
                    })
                }
                Answer::Reset => panic!("no error"),
            };
            let mut header = Ipv4Header::new(0, 64, IpNumber::ICMP, GATEWAYS.v4.octets(), CONSUMER)
                .expect("a header");
            header.dscp = IpDscp::try_new(48).expect("internetwork control");
            let builder = PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()));
            builder.icmpv4(kind).write(&mut packet, quote).expect("a packet");
        }
        V6 => {
            let kind = match answer {
                Answer::Prohibited => Icmpv6Type::DestinationUnreachable(V6Code::Prohibited),
                Answer::Unreachable => Icmpv6Type::DestinationUnreachable(V6Code::Address),
                Answer::TimeExceeded => Icmpv6Type::TimeExceeded(V6Time::HopLimitExceeded),
                Answer::TooBig(mtu) => Icmpv6Type::PacketTooBig { mtu: mtu.into() },
                Answer::Reset => panic!("no error"),
            };
            let builder = PacketBuilder::ipv6(GATEWAYS.v6.octets(), CONSUMER_V6, 64);
            builder.icmpv6(kind).write(&mut packet, quote).expect("a packet");
        }
    }
    packet
}

#[test]
fn an_error_comes_from_the_gateway_and_quotes_what_fits() {
    for (family, max_quote) in [(V4, 576 - 28), (V6, 1280 - 48)] {
        for answer in ERRORS {
            for len in [0, 1, 8, 400, 519, 520, 521, 1183, 1184, 1185, 1400] {
                let refused = datagram(family, &vec![7; len]);
                let found = answered(answer, &refused).expect("an error");
                let quote = &refused[..refused.len().min(max_quote)];
                assert_eq!(found, error(answer, family, quote), "{family:?} {answer:?} {len}");
                assert!(found.len() <= max_quote + if family == V4 { 28 } else { 48 });
            }
        }
    }
}

#[test]
fn bytes_behind_the_packet_are_not_quoted() {
    for family in [V4, V6] {
        let refused = datagram(family, b"hello");
        let with_rest = [refused.clone(), vec![9; 30]].concat();
        let found = answered(Answer::Prohibited, &with_rest);
        assert_eq!(found, Some(error(Answer::Prohibited, family, &refused)));
    }
}

#[test]
fn no_error_is_about_an_error() {
    for kind in 0..=255 {
        let is_query = matches!(kind, 0 | 8 | 9 | 10 | 13..=18);
        let expected: &[Answer] = if is_query { &ERRORS } else { &[] };
        assert_eq!(answers(&icmp(V4, kind)), expected, "ICMP {kind}");
        let is_informational = kind >= 128 && kind != 137;
        let expected: &[Answer] = if is_informational { &ERRORS } else { &[] };
        assert_eq!(answers(&icmp(V6, kind)), expected, "ICMPv6 {kind}");
    }
    // Also behind an extension header.
    let mut hidden = icmp(V6, 1);
    extended(&mut hidden, 60, &[58, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(answers(&hidden), []);
    let mut open = icmp(V6, 128);
    extended(&mut open, 60, &[58, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(answers(&open), ERRORS);
    // And without its type, which may be that of an error.
    let mut empty = icmp(V4, 8);
    empty.truncate(20);
    empty[3] = 20;
    assert_eq!(answers(&empty), []);
}

#[test]
fn only_the_first_fragment_is_answered_and_by_icmp_alone() {
    for family in [V4, V6] {
        for whole in [syn(family), datagram(family, &[1; 64])] {
            assert_eq!(answers(&fragment(&whole, 0, true)), ERRORS, "{family:?}");
            assert_eq!(answers(&fragment(&whole, 1, true)), [], "{family:?}");
            assert_eq!(answers(&fragment(&whole, 100, false)), [], "{family:?}");
        }
        // A fragment that is the whole packet (RFC 6946) is no fragment.
        assert_eq!(answers(&fragment(&syn(family), 0, false)), ALL);
    }
}

#[test]
fn only_packets_between_hosts_are_answered() {
    let with_v4 = |at: usize, address: [u8; 4]| {
        let mut packet = datagram(V4, b"hello");
        packet[at..at + 4].copy_from_slice(&address);
        answers(&packet)
    };
    for at in [12, 16] {
        for address in
            [[0; 4], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 1, 1, 1], [255; 4]]
        {
            assert_eq!(with_v4(at, address), [], "{address:?} at {at}");
        }
        assert_eq!(with_v4(at, [223, 255, 255, 255]), ERRORS);
    }
    let with_v6 = |at: usize, address: &str| {
        let address: Ipv6Addr = address.parse().expect("an address");
        let mut packet = datagram(V6, b"hello");
        packet[at..at + 16].copy_from_slice(&address.octets());
        answers(&packet)
    };
    for address in ["::", "::1"] {
        assert_eq!(with_v6(8, address), [], "from {address}");
        assert_eq!(with_v6(24, address), [], "to {address}");
    }
    assert_eq!(with_v6(8, "ff02::1"), []);
    assert_eq!(with_v6(24, "ff0e::1"), [Answer::TooBig(1280)], "RFC 4443, section 2.4 (e.3)");
    // A segment to a group has a right checksum of its own.
    let mut group = Vec::new();
    let builder = PacketBuilder::ipv4(CONSUMER, [224, 0, 0, 5], 64);
    builder.tcp(1, 2, 3, 4).syn().write(&mut group, b"").expect("a packet");
    assert_eq!(answers(&group), []);
}

#[test]
fn what_is_not_a_whole_packet_or_has_no_room_is_not_answered() {
    for family in [V4, V6] {
        let refused = syn(family);
        for len in 0..refused.len() {
            assert_eq!(answers(&refused[..len]), [], "{len} bytes");
        }
        for answer in ALL {
            let needed = answered(answer, &refused).expect("an answer").len();
            let mut out = vec![0; needed];
            assert_eq!(write(answer, &refused, &GATEWAYS, &mut out), Some(needed));
            assert_eq!(write(answer, &refused, &GATEWAYS, &mut out[1..]), None);
        }
    }
    let mut short_header = datagram(V4, b"hello");
    short_header[0] = 0x44;
    assert_eq!(answers(&short_header), []);
}

#[test]
fn extension_headers_are_looked_through_and_not_for_ever() {
    let mut segment = syn(V6);
    extended(&mut segment, 43, &[6, 0, 4, 0, 0, 0, 0, 0]);
    extended(&mut segment, 0, &[43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answered(Answer::Reset, &segment), Some(reset(V6, 0, Some(1001))));
    let mut authenticated = syn(V6);
    extended(
        &mut authenticated,
        51,
        &[6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9],
    );
    assert_eq!(answered(Answer::Reset, &authenticated), Some(reset(V6, 0, Some(1001))));
    let mut endless = syn(V6);
    for _ in 0..20 {
        let next = endless[6];
        extended(&mut endless, 60, &[next, 0, 1, 4, 0, 0, 0, 0]);
    }
    assert_eq!(answers(&endless), []);
    let mut beyond = syn(V6);
    extended(&mut beyond, 60, &[6, 255, 1, 4, 0, 0, 0, 0]);
    assert_eq!(answers(&beyond), []);
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![prop::sample::select(ALL.to_vec()), any::<u16>().prop_map(Answer::TooBig),]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn garbage_is_survived_and_no_answer_is_answered_by_an_error(
        start in prop::sample::select(vec![
            vec![], syn(V4), syn(V6), datagram(V4, &[3; 700]), datagram(V6, &[3; 1500]),
            icmp(V4, 8), icmp(V6, 128), fragment(&datagram(V6, &[1; 40]), 0, true),
        ]),
        changes in prop::collection::vec((0usize..64, any::<u8>()), 0..6),
        rest in prop::collection::vec(any::<u8>(), 0..120),
        cut in 0usize..2000,
        out_len in prop_oneof![4 => Just(MAX_ANSWER_LEN), 1 => 0usize..1400],
        answer in any_answer(),
    ) {
        let mut refused = [start, rest].concat();
        for (at, byte) in changes {
            if let Some(there) = refused.get_mut(at) {
                *there = byte;
            }
        }
        refused.truncate(cut);
        let mut out = vec![0; out_len];
        if let Some(len) = write(answer, &refused, &GATEWAYS, &mut out) {
            let written = &out[..len];
            prop_assert!(len <= MAX_ANSWER_LEN);
            let parsed = etherparse::PacketHeaders::from_ip_slice(written);
            prop_assert!(parsed.is_ok(), "{:?}", parsed);
            // A reset is not answered by a reset, nor an error by an error.
            let again = if answer == Answer::Reset { Answer::Reset } else { Answer::Prohibited };
            prop_assert_eq!(answered(again, written), None);
        }
    }
}
