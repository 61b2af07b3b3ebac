//! What goes by the XSK fast path, beside etherparse: the same payload and the same addresses.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId};
use proptest::{collection::vec, prelude::*};
use weir_common::{
    packet::{Class, Rules, Verdict, judge},
    xsk::{Addresses, XSK_MAX_LEN, XskDatagram, may_go},
};

const PORT: u16 = 51820;
const RULES: Rules = Rules { port: PORT, super_packets: false };

/// A frame with a data message, of either family, now and then with a VLAN tag.
fn frame(v6: bool, tagged: bool, from: [u8; 16], to: [u8; 16], port: u16, data: &[u8]) -> Vec<u8> {
    let mut message = vec![4, 0, 0, 0];
    message.extend([7; 28]);
    message.extend(data);
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let head = |address: [u8; 16]| [address[0], address[1], address[2], address[3]];
    let mut frame = Vec::new();
    let written = if tagged {
        let tagged = ethernet.single_vlan(VlanId::try_new(7).expect("a VLAN"));
        let ip = if v6 { tagged.ipv6(from, to, 64) } else { tagged.ipv4(head(from), head(to), 64) };
        ip.udp(port, PORT).write(&mut frame, &message)
    } else {
        let ip =
            if v6 { ethernet.ipv6(from, to, 64) } else { ethernet.ipv4(head(from), head(to), 64) };
        ip.udp(port, PORT).write(&mut frame, &message)
    };
    written.expect("a frame");
    frame
}

fn check(frame: &[u8]) -> Result<bool, TestCaseError> {
    let decision = judge(frame, RULES);
    let goes =
        decision.verdict == Verdict::Pass(Class::Data) && may_go(frame, decision.at as usize);
    if !goes {
        return Ok(false);
    }
    prop_assert!(frame.len() <= XSK_MAX_LEN);
    let Some(datagram) = XskDatagram::of(frame) else {
        // Nothing but a checksum or a source port that the guard does not look at.
        let [version, ..] = frame[14..] else { unreachable!("the guard has read it") };
        let port = if version == 0x45 { 34 } else { 54 };
        prop_assert!(version == 0x45 || frame[port..port + 2] == [0, 0]);
        return Ok(false);
    };
    let packet = SlicedPacket::from_ethernet(frame).expect("the guard has read it");
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("no UDP") };
    prop_assert_eq!(datagram.payload, udp.payload());
    prop_assert_eq!(datagram.source_port, udp.source_port());
    let addresses = match &packet.net {
        Some(NetSlice::Ipv4(v4)) => {
            let header = v4.header();
            Addresses::V4(header.source(), header.destination())
        }
        Some(NetSlice::Ipv6(v6)) => Addresses::V6(v6.header().source(), v6.header().destination()),
        _ => panic!("no IP"),
    };
    prop_assert_eq!(datagram.addresses, addresses);
    Ok(true)
}

proptest! {
    #[test]
    fn whole_frames_are_read_alike(
        v6: bool,
        tagged in prop::bool::weighted(0.2),
        from: [u8; 16],
        to: [u8; 16],
        port: u16,
        data in vec(any::<u8>(), 0..1800),
        surplus in vec(any::<u8>(), 0..20),
    ) {
        let mut frame = frame(v6, tagged, from, to, port, &data);
        frame.extend(surplus);
        check(&frame)?;
    }

    #[test]
    fn damaged_frames_are_read_alike_or_not_at_all(
        v6: bool,
        data in vec(any::<u8>(), 0..100),
        place in 0..62usize,
        value: u8,
        cut in 0..200usize,
    ) {
        let mut frame = frame(v6, false, [0x2a; 16], [0x2b; 16], 7, &data);
        let place = place % frame.len();
        frame[place] = value;
        frame.truncate(frame.len().saturating_sub(cut.saturating_sub(150)));
        check(&frame)?;
    }
}

/// So that the above is not about nothing.
#[test]
fn usual_frames_go_by_the_xsk_fast_path() {
    for v6 in [false, true] {
        let usual = frame(v6, false, [0x2a; 16], [0x2b; 16], 7, &[1; 1420]);
        assert!(check(&usual).expect("alike"));
        assert!(!check(&frame(v6, true, [0x2a; 16], [0x2b; 16], 7, &[1; 1420])).expect("alike"));
    }
}
