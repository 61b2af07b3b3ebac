//! Return traffic of the NAT: tables, and any frame beside a slow model that reads it by etherparse.

#[path = "exit/frames.rs"]
mod frames;
#[path = "exit/model.rs"]
mod model;

use std::{
    cell::RefCell,
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
};

use frames::{HOST_V6, NODE_PORT, OWN_V4, OWN_V6, PORTS, Packet, error, icmp, segment};
use proptest::{collection::vec, prelude::*};
use weir_common::{
    AddressPlan, DropReason, GuardConfig, Slot, SlotPermutation,
    account::SessionState,
    exit::{
        ExitConfig, ExitMemory, ExitV6, FRAGMENT_TIMEOUT, FragmentKey, ReadFrame, decide,
        is_for_port, is_fresh, port_bit, return_packet,
    },
    filter::Memory,
    gcra::Rate,
    guard::Lane,
    mac1::Mac1Keys,
    meter::{Meter, Origin},
    packet::{Class, Source, Verdict},
};

/// The memory of a guard without sessions.
struct Node {
    ports: [u64; 1024],
    noted: RefCell<HashSet<FragmentKey>>,
}

impl Node {
    fn new() -> Self {
        Self { ports: frames::ports(), noted: RefCell::default() }
    }

    fn verdict(&self, frame: &[u8], exit: &ExitConfig) -> Verdict {
        let config = GuardConfig {
            plan: AddressPlan::new([10, 66, 0, 0].into(), 16, Ipv6Addr::LOCALHOST),
            permutation: SlotPermutation { keys: [1, 2, 3, 4] },
            workers: 1,
            slots: 1,
            port: NODE_PORT,
            super_packets: 0,
            mac1: Mac1Keys::default(),
            initiations: Rate::UNLIMITED,
            ceiling: Rate::UNLIMITED,
        };
        let traffic = ReadFrame { frame, exit, memory: self };
        let (decision, _) = decide(frame, &config, self, &traffic);
        if decision.verdict == Verdict::Pass(Class::Return) {
            assert_eq!(decision.bytes as usize, frame.len());
        }
        decision.verdict
    }

    fn is_return(&self, frame: &[u8], exit: &ExitConfig) -> bool {
        self.verdict(frame, exit) == Verdict::Pass(Class::Return)
    }
}

impl ExitMemory for Node {
    fn has_port(&self, port: u16) -> bool {
        let (word, bit) = port_bit(port);
        self.ports[word as usize] & bit != 0
    }

    fn note_fragment(&self, key: &FragmentKey) {
        self.noted.borrow_mut().insert(*key);
    }

    fn forget_fragment(&self, key: &FragmentKey) {
        self.noted.borrow_mut().remove(key);
    }

    fn is_fragment_noted(&self, key: &FragmentKey) -> bool {
        self.noted.borrow().contains(key)
    }
}

impl Memory for Node {
    fn standing(&self, _: Slot) -> SessionState {
        SessionState::Vacant
    }

    fn origin(&self, _: Slot, _: &Source) -> Origin {
        Origin::Elsewhere
    }

    fn take(&self, _: Slot, _: Meter, _: Rate) -> bool {
        true
    }

    fn take_initiation(&self, _: u64, _: Rate) -> bool {
        true
    }

    fn take_of_all(&self, _: Lane, _: Rate) -> bool {
        true
    }
}

fn translated() -> ExitConfig {
    ExitConfig::new(&OWN_V4, ExitV6::Address(OWN_V6)).expect("few addresses")
}

fn routed() -> ExitConfig {
    let v6 = ExitV6::Prefix { address: OWN_V6, len: 64, host: &[HOST_V6] };
    ExitConfig::new(&OWN_V4, v6).expect("few addresses")
}

#[test]
fn every_frame_of_the_table_goes_where_it_belongs() {
    let table = frames::table();
    assert!(table.len() > 250, "{}", table.len());
    for (name, frame, is_return) in table {
        assert_eq!(Node::new().is_return(&frame, &translated()), is_return, "{name}");
        assert!(!Node::new().is_return(&frame, &ExitConfig::default()), "{name}, without a NAT");
    }
}

#[test]
fn fragments_follow_their_first() {
    let node = Node::new();
    for (name, frame, is_return) in frames::fragments() {
        assert_eq!(node.is_return(&frame, &translated()), is_return, "{name}");
    }
}

#[test]
fn a_noted_fragment_counts_for_a_while() {
    let noted = 5_000_000_000;
    assert!(is_fresh(noted, noted) && is_fresh(noted, noted + FRAGMENT_TIMEOUT - 1));
    assert!(!is_fresh(noted, noted + FRAGMENT_TIMEOUT));
}

#[test]
fn messages_to_the_nodes_port_are_judged_as_ever() {
    for v6 in [false, true] {
        let mut node = Node::new();
        // The port is not the NAT's, whatever the bitmap says.
        let (word, bit) = port_bit(NODE_PORT);
        node.ports[word as usize] |= bit;
        let frame = Packet::inbound(v6, 17, segment(443, NODE_PORT)).frame();
        let no_message = Verdict::Drop(DropReason::GuardType);
        assert_eq!(node.verdict(&frame, &translated()), no_message);
        assert!(is_for_port(&frame, NODE_PORT) && !is_for_port(&frame, NODE_PORT + 1));
        assert!(translated().is_message(&frame, NODE_PORT));
        // In a routed prefix the port is a consumer's, but for the host's own address.
        assert_eq!(routed().is_message(&frame, NODE_PORT), !v6);
        assert_eq!(node.is_return(&frame, &routed()), v6);
        if v6 {
            let own = Packet::inbound(true, 17, segment(443, NODE_PORT));
            let own = Packet { destination: HOST_V6.into(), ..own }.frame();
            assert_eq!(node.verdict(&own, &routed()), no_message);
            assert!(routed().is_message(&own, NODE_PORT));
        }
    }
}

#[test]
fn everything_to_a_routed_prefix_is_return_traffic_but_for_the_hosts_and_discovery() {
    let last = Ipv6Addr::new(0x2001, 0xdb8, 5, 5, 0xffff, 0xffff, 0xffff, 0xffff);
    let outside = Ipv6Addr::new(0x2001, 0xdb8, 5, 6, 0, 0, 0, 9);
    let all = [
        (6, segment(443, 22)),
        (17, segment(443, 53)),
        (58, icmp(128, 1)),
        (58, icmp(1, 1)),
        (132, segment(1, 2)),
        (59, vec![]),
    ];
    for (protocol, transport) in all {
        let good = Packet::inbound(true, protocol, transport);
        let goes = |packet: &Packet| Node::new().is_return(&packet.frame(), &routed());
        let to = |destination: Ipv6Addr| {
            goes(&Packet { destination: destination.into(), ..good.clone() })
        };
        assert!(to(OWN_V6) && to(last), "{good:?}");
        assert!(!to(HOST_V6) && !to(outside), "{good:?}");
        for fragment in [(1, 0, true), (1, 1, false)] {
            assert!(goes(&Packet { fragment: Some(fragment), ..good.clone() }));
        }
        assert!(goes(&Packet { extension: Some(0), ..good.clone() }));
        let source = "fe80::1".parse().expect("an address");
        assert!(!goes(&Packet { source, ..good.clone() }));
        let mut multicast = good.frame();
        multicast[0] |= 1;
        assert!(!Node::new().is_return(&multicast, &routed()));
        let mut cut = good.frame();
        cut.pop();
        assert!(!Node::new().is_return(&cut, &routed()));
    }
    for kind in 132..=138 {
        let frame = Packet::inbound(true, 58, icmp(kind, 1)).frame();
        let is_discovery = (133..=137).contains(&kind);
        assert_eq!(Node::new().is_return(&frame, &routed()), !is_discovery, "type {kind}");
    }
    // Its IPv4 is translated.
    for (name, frame, is_return) in frames::table() {
        if name.starts_with("v6=false") {
            assert_eq!(Node::new().is_return(&frame, &routed()), is_return, "{name}");
        }
    }
}

#[test]
fn user_space_reads_the_packet_as_it_was_sent() {
    for v6 in [false, true] {
        for options in if v6 { 0..=0 } else { 0..=10 } {
            let packet = Packet { options, ..Packet::inbound(v6, 6, segment(443, PORTS[0])) };
            let mut frame = packet.frame();
            frame.extend([9; 7]);
            assert_eq!(return_packet(&frame), Some(packet.bytes().as_slice()));
            for len in 0..packet.frame().len() {
                assert_eq!(return_packet(&frame[..len]), None, "{len} bytes");
            }
        }
    }
    let good = Packet::inbound(false, 6, segment(443, PORTS[0])).frame();
    for at in 12..34 {
        let mut frame = good.clone();
        frame[at] ^= 0x10;
        assert_eq!(return_packet(&frame), None, "byte {at}");
    }
    let mut short = good;
    // A length below the header's, with a checksum that is right for it.
    (short[17], short[25]) = (19, short[25].wrapping_add(9));
    assert_eq!(return_packet(&short), None);
}

#[test]
fn a_fragment_is_for_no_port() {
    let good = Packet::inbound(false, 17, segment(443, NODE_PORT));
    assert!(is_for_port(&good.frame(), NODE_PORT));
    for fragment in [(1, 0, true), (1, 1, false)] {
        let fragment = Packet { fragment: Some(fragment), ..good.clone() };
        assert!(!is_for_port(&fragment.frame(), NODE_PORT));
    }
    assert!(!is_for_port(&Packet { protocol: 6, ..good }.frame(), NODE_PORT));
    for v6 in [false, true] {
        let good = Packet::inbound(v6, 17, segment(443, NODE_PORT)).frame();
        let port = good.len() - 6;
        for len in 0..port + 2 {
            assert!(!is_for_port(&good[..len], NODE_PORT), "{len} bytes");
        }
        assert!(is_for_port(&good[..port + 2], NODE_PORT));
    }
}

/// A packet that is close to what the NAT takes.
fn packet() -> impl Strategy<Value = Packet> {
    let port = || prop_oneof![Just(PORTS[0]), Just(PORTS[1] + 1), 4090u16..8200, any::<u16>()];
    let inner = (any::<bool>(), 0u8..8, port(), port(), 0u8..4, 0u16..3, any::<bool>()).prop_map(
        |(v6, kind, one, other, options, offset, whole)| {
            let (protocol, transport) = transport(v6, kind, one, other, None);
            let fragment = (!whole).then_some((5, offset / 2, true));
            Packet { options, fragment, ..Packet::outbound(v6, protocol, transport) }
        },
    );
    let fragment = prop_oneof![
        3 => Just(None),
        2 => (0u32..3, 0u16..2, any::<bool>()).prop_map(Some),
    ];
    let extension = prop_oneof![5 => Just(None), 1 => Just(Some(60u8))];
    (inner, 0u8..12, port(), port(), 0u8..3, fragment, extension).prop_map(
        |(inner, kind, one, other, options, fragment, extension)| {
            let v6 = inner.source.is_ipv6();
            let (protocol, transport) = transport(v6, kind, one, other, Some(&inner));
            Packet { options, fragment, extension, ..Packet::inbound(v6, protocol, transport) }
        },
    )
}

fn transport(v6: bool, kind: u8, one: u16, other: u16, inner: Option<&Packet>) -> (u8, Vec<u8>) {
    let icmp_protocol = if v6 { 58 } else { 1 };
    match (kind, inner) {
        (0 | 1, _) => (6, segment(one, other)),
        (2, _) => (17, segment(one, other)),
        (3, _) => (icmp_protocol, icmp(if v6 { 129 } else { 0 }, one)),
        (4, _) => (icmp_protocol, icmp(if v6 { 128 } else { 8 }, one)),
        (5, _) => (132, segment(one, other)),
        (kind, Some(inner)) => (icmp_protocol, error(if v6 { kind - 6 } else { kind }, inner)),
        (_, None) => (17, segment(one, other)),
    }
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let mutations = prop_oneof![
        1 => Just(vec![]),
        1 => vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ];
    (packet(), mutations, any::<prop::sample::Index>(), 0usize..30).prop_map(
        |(packet, mutations, cut, padding)| {
            let mut frame = packet.frame();
            for (place, value) in mutations {
                let place = place.index(frame.len());
                frame[place] = value;
            }
            frame.resize(frame.len() + padding, 0);
            frame.truncate(cut.index(frame.len() * 4));
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_frames_is_judged_as_by_the_model(frames in vec(damaged(), 1..12)) {
        for (exit, prefix) in [(translated(), false), (routed(), true)] {
            let node = Node::new();
            let mut model = model::Model::new(prefix);
            for frame in &frames {
                // What the guard judges as a message is another test's.
                if is_for_port(frame, NODE_PORT) {
                    continue;
                }
                let by_guard = exit.is_routed(frame.as_slice())
                    || exit.is_translated(frame.as_slice(), &node);
                prop_assert_eq!(by_guard, model.is_return(frame), "prefix: {}", prefix);
            }
        }
    }
}

/// So that the above is not about nothing.
#[test]
fn the_strategy_makes_return_traffic_of_every_kind() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut kinds = HashSet::new();
    for _ in 0..4000 {
        let packet = packet().new_tree(&mut runner).expect("a packet").current();
        if Node::new().is_return(&packet.frame(), &translated()) {
            let is_error = packet.transport.len() > 8;
            let v6 = matches!(packet.source, IpAddr::V6(_));
            kinds.insert((v6, packet.protocol, is_error, packet.fragment.is_some()));
        }
    }
    // Two families; TCP, UDP, replies and errors; whole and first fragments.
    assert_eq!(kinds.len(), 16, "{kinds:?}");
}
