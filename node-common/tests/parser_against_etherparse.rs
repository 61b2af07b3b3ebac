//! The parser beside etherparse, which reads the same frames in its own way.

use etherparse::{
    IpFragOffset, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId,
    err::packet::SliceError,
};
use proptest::{collection::vec, prelude::*};
use weir_common::{
    DropReason,
    packet::{Class, Decision, Rules, Source, Verdict, judge},
    wire::{Message, NotAMessage},
};

const PORT: u16 = 51820;
const RULES: Rules = Rules { port: PORT, super_packets: false };

/// What etherparse makes of a frame: the payload to our port, or `None` for what is none of ours.
fn payload_by_oracle(frame: &[u8]) -> Result<Option<Vec<u8>>, SliceError> {
    let packet = SlicedPacket::from_ethernet(frame)?;
    let fragmented = match &packet.net {
        Some(NetSlice::Ipv4(v4)) => v4.header().is_fragmenting_payload(),
        Some(NetSlice::Ipv6(v6)) => v6.is_payload_fragmented(),
        _ => false,
    };
    Ok(match packet.transport {
        Some(TransportSlice::Udp(udp)) if udp.destination_port() == PORT && !fragmented => {
            Some(udp.payload().to_vec())
        }
        _ => None,
    })
}

/// Where the payload of a frame with UDP begins, and from where it comes.
fn place_by_oracle(frame: &[u8]) -> Option<(u32, Source)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
    let at = udp.payload().as_ptr() as usize - frame.as_ptr() as usize;
    let address = match &packet.net {
        Some(NetSlice::Ipv4(v4)) => v4.header().source_addr().to_ipv6_mapped(),
        Some(NetSlice::Ipv6(v6)) => v6.header().source_addr(),
        _ => return None,
    };
    let address = address.to_bits();
    let source =
        Source { address: [(address >> 64) as u64, address as u64], port: udp.source_port() };
    Some((at as u32, source))
}

fn decision_by_oracle(payload: &[u8]) -> (Verdict, Option<u32>) {
    match Message::parse(payload) {
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
    }
}

#[derive(Clone, Debug)]
struct Spec {
    v6: bool,
    vlans: u8,
    options: u8,
    port: u16,
    payload: Vec<u8>,
}

impl Spec {
    fn build(&self) -> Vec<u8> {
        use etherparse::{
            IpHeaders, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Header, ip_number,
        };

        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip = if self.v6 {
            let header = Ipv6Header {
                source: [1; 16],
                destination: [2; 16],
                hop_limit: 9,
                next_header: ip_number::UDP,
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
        } else {
            let options = vec![1; usize::from(self.options) * 4];
            let header = Ipv4Header {
                time_to_live: 9,
                protocol: ip_number::UDP,
                source: [192, 0, 2, 1],
                destination: [192, 0, 2, 2],
                options: Ipv4Options::try_from(options.as_slice()).expect("at most 40 bytes"),
                fragment_offset: IpFragOffset::ZERO,
                ..Ipv4Header::default()
            };
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        };
        let vlan = |id| VlanId::try_new(id).expect("a VLAN");
        let step = match self.vlans {
            0 => link.ip(ip),
            1 => link.single_vlan(vlan(7)).ip(ip),
            _ => link.double_vlan(vlan(7), vlan(8)).ip(ip),
        };
        let mut frame = Vec::new();
        step.udp(40000, self.port).write(&mut frame, &self.payload).expect("memory");
        frame
    }
}

fn spec() -> impl Strategy<Value = Spec> {
    let port = prop_oneof![4 => Just(PORT), 1 => any::<u16>()];
    let len = prop_oneof![Just(32usize), Just(64), Just(92), Just(148), 0usize..300];
    let payload = (0u8..6, len, any::<[u8; 8]>(), prop_oneof![9 => Just(0u8), 1 => any::<u8>()])
        .prop_map(|(kind, len, index, reserved)| {
            let mut payload = vec![kind, 0, 0, reserved];
            payload.extend(index);
            payload.resize(len.max(12), 0x5a);
            payload.truncate(len);
            payload
        });
    (any::<bool>(), 0u8..3, 0u8..=10, port, payload)
        .prop_map(|(v6, vlans, options, port, payload)| Spec { v6, vlans, options, port, payload })
}

proptest! {
    #[test]
    fn well_formed_frames_are_judged_by_their_payload(spec in spec(), padding in 0usize..30) {
        let mut frame = spec.build();
        frame.resize(frame.len() + padding, 0);
        let decision = judge(frame.as_slice(), RULES);
        match payload_by_oracle(&frame).expect("well-formed") {
            None => {
                let verdict = Verdict::Pass(Class::Other);
                let bytes = frame.len() as u32;
                prop_assert_eq!(decision, Decision { verdict, bytes, receiver_index: None, at: 0, source: Source::default() });
            }
            Some(payload) => {
                let (verdict, receiver_index) = decision_by_oracle(&payload);
                let bytes = payload.len() as u32;
                let (at, source) = place_by_oracle(&frame).expect("well-formed");
                let expected = Decision { verdict, bytes, receiver_index, at, source };
                prop_assert_eq!(decision, expected);
            }
        }
    }

    /// Whatever arrives: a frame that etherparse reads as ours has the same verdict here, and a
    /// frame that passes as one of ours is one that etherparse reads as ours.
    #[test]
    fn mangled_frames_never_pass_as_messages_that_they_are_not(
        spec in spec(),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = spec.build();
        for (place, value) in mutations {
            let place = place.index(frame.len());
            frame[place] = value;
        }
        frame.truncate(cut.index(frame.len() * 4));
        let decision = judge(frame.as_slice(), RULES);
        match payload_by_oracle(&frame) {
            Ok(Some(payload)) => {
                let (verdict, receiver_index) = decision_by_oracle(&payload);
                let bytes = payload.len() as u32;
                let (at, source) = place_by_oracle(&frame).expect("parsed just now");
                let expected = Decision { verdict, bytes, receiver_index, at, source };
                // etherparse takes a UDP length of zero for "all that there is", and follows more
                // extension headers than we do.
                let stricter = decision.verdict == Verdict::Drop(DropReason::GuardHeader)
                    || decision.verdict == Verdict::Pass(Class::Other);
                prop_assert!(decision == expected || stricter, "{decision:?}, not {expected:?}");
            }
            Ok(None) | Err(_) => {
                let passes_as_ours = matches!(
                    decision.verdict,
                    Verdict::Pass(
                        Class::Initiation | Class::Response | Class::CookieReply | Class::Data
                    )
                );
                prop_assert!(!passes_as_ours, "{decision:?}");
            }
        }
    }

    #[test]
    fn noise_is_never_a_panic(frame in vec(any::<u8>(), 0..200)) {
        let _decision = judge(frame.as_slice(), RULES);
    }
}

#[test]
fn a_frame_that_is_cut_off_passes_as_none_of_ours_or_is_dropped() {
    for v6 in [false, true] {
        for vlans in 0..3 {
            let mut payload = vec![4, 0, 0, 0];
            payload.resize(96, 1);
            let whole = Spec { v6, vlans, options: 3, port: PORT, payload }.build();
            let udp = whole.len() - 96;
            for len in 0..whole.len() {
                let expected = if len < udp {
                    Verdict::Pass(Class::Other)
                } else {
                    Verdict::Drop(DropReason::GuardHeader)
                };
                assert_eq!(judge(&whole[..len], RULES).verdict, expected, "v6={v6} cut to {len}");
            }
            assert_eq!(judge(whole.as_slice(), RULES).verdict, Verdict::Pass(Class::Data));
        }
    }
}
