use etherparse::{PacketBuilder, TcpHeader};
use proptest::prelude::*;

use super::*;

/// A SYN with these options, padded to whole words by their end.
fn syn(is_v4: bool, options: &[u8], change: impl FnOnce(&mut TcpHeader)) -> Vec<u8> {
    let mut header = TcpHeader::new(40_000, 443, 1000, 65_000);
    header.syn = true;
    header.set_options_raw(options).expect("options");
    change(&mut header);
    let builder = if is_v4 {
        PacketBuilder::ipv4([10, 66, 0, 9], [45, 1, 2, 3], 64)
    } else {
        PacketBuilder::ipv6([0xfd; 16], [0x2a; 16], 64)
    };
    let mut packet = Vec::new();
    builder.tcp_header(header).write(&mut packet, b"").expect("a packet");
    packet
}

fn clamped(packet: &[u8], max: u16) -> (bool, Vec<u8>) {
    let mut packet = packet.to_vec();
    // Truncated packets too.
    let parsed = Ip::parse_quoted(&packet);
    (parsed.is_ok_and(|ip| clamp_mss(&mut packet, &ip, max)), packet)
}

#[test]
fn a_larger_segment_size_becomes_the_maximum_with_a_right_checksum() {
    for is_v4 in [true, false] {
        for ack in [true, false] {
            for before in 0..4 {
                // At an even and at an odd offset.
                let options = |mss: u16| {
                    let [high, low] = mss.to_be_bytes();
                    let mut options = vec![1; before];
                    options.extend([2, 4, high, low, 4, 2, 3, 3, 7]);
                    options
                };
                let packet = |mss| syn(is_v4, &options(mss), |header| header.ack = ack);
                assert_eq!(clamped(&packet(1460), 1380), (true, packet(1380)));
                assert_eq!(clamped(&packet(1380), 1380), (false, packet(1380)));
                assert_eq!(clamped(&packet(536), 1380), (false, packet(536)));
            }
        }
    }
}

#[test]
fn what_is_no_syn_stays() {
    let options = [2, 4, 5, 180];
    for is_v4 in [true, false] {
        let stays = |packet: Vec<u8>| assert_eq!(clamped(&packet, 1000), (false, packet));
        stays(syn(is_v4, &options, |header| (header.syn, header.ack) = (false, true)));
        stays(syn(is_v4, &options, |header| header.rst = true));
        stays(syn(is_v4, &[1, 1, 4, 2], |_| {}));
        // The window scale's value looks like the option.
        stays(syn(is_v4, &[254, 6, 2, 4, 5, 180], |_| {}));
        stays(syn(is_v4, &[0, 2, 4, 5, 180], |_| {}));
        stays(syn(is_v4, &[2, 3, 255, 1, 1, 1, 1, 1], |_| {}));
        stays(syn(is_v4, &[8, 0, 2, 4, 5, 180], |_| {}));
        stays(syn(is_v4, &[8, 1, 2, 4, 5, 180], |_| {}));
        stays(syn(is_v4, &[1, 1, 1, 2], |_| {}));
        stays(syn(is_v4, &[1, 1, 2, 4], |_| {}));
        stays(syn(is_v4, &[1, 1, 1, 1, 2, 5, 255, 255], |_| {}));
    }
    let mut later = syn(true, &options, |_| {});
    later[7] = 1;
    assert_eq!(clamped(&later, 1000), (false, later));
    let mut datagram = syn(true, &options, |_| {});
    datagram[9] = 17;
    assert_eq!(clamped(&datagram, 1000), (false, datagram));
}

#[test]
fn an_option_behind_a_changed_one_may_be_broken() {
    let packet = syn(true, &[2, 4, 5, 180, 8, 99, 0, 0], |_| {});
    let expected = syn(true, &[2, 4, 3, 232, 8, 99, 0, 0], |_| {});
    assert_eq!(clamped(&packet, 1000), (true, expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn garbage_is_survived_and_the_checksum_stays_right(
        is_v4 in any::<bool>(),
        options in prop::collection::vec(prop_oneof![0u8..9, any::<u8>()], 0..=40),
        max in any::<u16>(),
    ) {
        let packet = syn(is_v4, &options, |_| {});
        let (changed, after) = clamped(&packet, max);
        prop_assert_eq!(changed, after != packet);
        let l4 = if is_v4 { 20 } else { 40 };
        let addresses = if is_v4 { &after[12..20] } else { &after[8..40] };
        let sum = weir_packet::checksum::pseudo_header(addresses, TCP, after.len() - l4);
        prop_assert_eq!(sum.bytes(&after[l4..]).folded(), 0xffff);
    }

    #[test]
    fn no_bytes_make_it_panic(
        is_v4 in any::<bool>(),
        changes in prop::collection::vec((0usize..80, any::<u8>()), 0..8),
        rest in prop::collection::vec(any::<u8>(), 0..60),
        cut in 0usize..160,
        max in any::<u16>(),
    ) {
        let mut packet = syn(is_v4, &[2, 4, 5, 180, 1, 2, 4, 255, 255, 0], |_| {});
        packet.extend(rest);
        for (at, byte) in changes {
            if let Some(there) = packet.get_mut(at) {
                *there = byte;
            }
        }
        packet.truncate(cut);
        let (changed, after) = clamped(&packet, max);
        prop_assert_eq!(changed, after != packet);
    }
}
