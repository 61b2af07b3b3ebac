//! Fragments of both directions (RFC 4787, REQ-14).

use super::*;

/// Splits a packet into fragments with `len` bytes of payload each.
pub(super) fn split(packet: &[u8], id: u32, len: usize) -> Vec<Vec<u8>> {
    let is_v4 = packet[0] >> 4 == 4;
    let (header, payload) = packet.split_at(if is_v4 { 20 } else { 40 });
    let count = payload.len().div_ceil(len);
    let fragment = |(number, part): (usize, &[u8])| {
        let (place, more) = (number * len / 8, number + 1 < count);
        let mut bytes = header.to_vec();
        if is_v4 {
            bytes[2..4].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
            bytes[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            let place = place as u16 | u16::from(more) << 13;
            bytes[6..8].copy_from_slice(&place.to_be_bytes());
            weir_packet::headers::set_v4_checksum(&mut bytes);
        } else {
            bytes[4..6].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
            bytes[6] = 44;
            let place = (place as u16) << 3 | u16::from(more);
            bytes.extend([packet[6], 0]);
            bytes.extend(place.to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
        bytes.extend(part);
        bytes
    };
    payload.chunks(len).enumerate().map(fragment).collect()
}

/// The identification of a fragment.
fn id(fragment: &[u8]) -> u32 {
    let at = |at: usize| u32::from(u16::from_be_bytes([fragment[at], fragment[at + 1]]));
    if fragment[0] >> 4 == 4 { at(4) } else { at(44) << 16 | at(46) }
}

/// Puts fragments together again, which must belong together.
fn join(fragments: &[Vec<u8>]) -> Vec<u8> {
    let is_v4 = fragments[0][0] >> 4 == 4;
    let mut packet = fragments[0][..if is_v4 { 20 } else { 40 }].to_vec();
    for fragment in fragments {
        assert_eq!(id(fragment), id(&fragments[0]));
        let same = if is_v4 { 12..20 } else { 8..40 };
        assert_eq!(fragment[same.clone()], packet[same]);
        if is_v4 {
            assert!(weir_packet::headers::v4_checksum_is_right(&fragment[..20]));
        }
        packet.extend(&fragment[if is_v4 { 20 } else { 48 }..]);
    }
    let len = packet.len() as u16;
    if is_v4 {
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[6..8].fill(0);
        weir_packet::headers::set_v4_checksum(&mut packet[..20]);
    } else {
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        packet[6] = fragments[0][40];
    }
    packet
}

fn big(from: End, to: End) -> Vec<u8> {
    let payload: Vec<u8> = (0..4000u32).map(|n| n as u8).collect();
    udp_with(from, to, &payload)
}

fn up_fragment(from: End, to: End, number: usize) -> Vec<u8> {
    split(&big(from, to), 7, 1000).remove(number)
}

#[test]
fn fragments_of_both_directions_follow_the_first_one() {
    for to in [(SERVER, 53), (SERVER_V6, 53)] {
        let mut lab = Lab::new();
        let from = if to.0.is_ipv4() { lab.inner(3, 5000) } else { lab.inner_v6(3, 5000) };
        let sent = split(&big(from, to), 7, 1480);
        let seen: Vec<_> = sent.into_iter().map(|part| lab.up(part).unwrap()).collect();
        let whole = join(&seen);
        assert!(checksums_are_right(&whole));
        let external = ends(&whole).0;
        assert_ne!(external.0, from.0);

        let answer = split(&big(to, external), 9, 1480);
        let back: Vec<_> = answer
            .into_iter()
            .map(|part| {
                let (slot, part) = lab.down(part).unwrap();
                assert_eq!(slot, 3);
                part
            })
            .collect();
        let whole = join(&back);
        assert!(checksums_are_right(&whole));
        assert_eq!(ends(&whole), (to, from));
    }
}

#[test]
fn a_large_echo_is_translated() {
    let mut lab = Lab::new();
    for to in [SERVER, SERVER_V6] {
        let from = if to.is_ipv4() { lab.inner(0, 5000) } else { lab.inner_v6(0, 5000) };
        let mut packet = Vec::new();
        if to.is_ipv4() {
            builder(from.0, to)
                .icmpv4_echo_request(5000, 1)
                .write(&mut packet, &[7; 3000])
                .unwrap();
        } else {
            builder(from.0, to)
                .icmpv6_echo_request(5000, 1)
                .write(&mut packet, &[7; 3000])
                .unwrap();
        }
        let sent = split(&packet, 7, 1448);
        let seen: Vec<_> = sent.into_iter().map(|part| lab.up(part).unwrap()).collect();
        assert!(checksums_are_right(&join(&seen)));
    }
}

#[test]
fn fragments_that_come_out_of_order_behind_the_first_one_pass() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 53));
    let parts = split(&big(from, to), 7, 800);
    assert_eq!(parts.len(), 6);
    for order in [[0, 1, 2, 3, 4, 5], [0, 5, 4, 3, 2, 1], [0, 2, 4, 5, 3, 1], [0, 3, 1, 2, 5, 4]] {
        let mut seen = vec![Vec::new(); 6];
        for number in order {
            seen[number] = lab.up(parts[number].clone()).unwrap();
        }
        assert!(checksums_are_right(&join(&seen)), "{order:?}");
    }
}

#[test]
fn a_later_fragment_without_the_first_one_is_dropped() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 53));
    let external = lab.udp(from, to);
    assert_eq!(lab.up(up_fragment(from, to, 1)), Err(DropReason::Fragment.into()));
    assert_eq!(lab.down(up_fragment(to, external, 1)), Err(DropReason::DownFragment));
    // Nor do those of another packet, source or protocol follow.
    lab.up(up_fragment(from, to, 0)).unwrap();
    let other_id = split(&big(from, to), 8, 1000).remove(1);
    assert_eq!(lab.up(other_id), Err(DropReason::Fragment.into()));
    let other_session = up_fragment(lab.inner(1, 5000), to, 1);
    assert_eq!(lab.up(other_session), Err(DropReason::Fragment.into()));
    let mut other_protocol = up_fragment(from, to, 1);
    other_protocol[9] = 6;
    assert_eq!(lab.up(other_protocol), Err(DropReason::Fragment.into()));
    assert!(lab.up(up_fragment(from, to, 1)).is_ok());
}

#[test]
fn a_first_fragment_from_outside_needs_a_flow() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 53));
    let external = lab.udp(from, to);
    let stranger = (OTHER, 53);
    assert_eq!(lab.down(up_fragment(stranger, external, 0)), Err(DropReason::DownFiltered));
    assert_eq!(lab.down(up_fragment(stranger, external, 1)), Err(DropReason::DownFragment));
}

#[test]
fn overlapping_and_repeated_fragments_are_dropped() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 53));
    let packet = big(from, to);
    let (parts, other) = (split(&packet, 7, 1000), split(&packet, 7, 800));
    lab.up(parts[0].clone()).unwrap();
    assert_eq!(lab.up(other[1].clone()), Err(DropReason::Fragment.into()), "overlaps the first");
    lab.up(parts[1].clone()).unwrap();
    assert_eq!(lab.up(parts[1].clone()), Err(DropReason::Fragment.into()), "again");
    lab.up(parts[3].clone()).unwrap();
    assert_eq!(lab.up(other[2].clone()), Err(DropReason::Fragment.into()), "out of the gap");
    lab.up(parts[2].clone()).unwrap();
    // RFC 3128: a later fragment that begins within the transport header.
    let mut tiny = parts[1].clone();
    tiny[6..8].copy_from_slice(&0x2001u16.to_be_bytes());
    lab.up(parts[0].clone()).unwrap();
    weir_packet::headers::set_v4_checksum(&mut tiny[..20]);
    assert_eq!(lab.up(tiny), Err(DropReason::Fragment.into()));
}

#[test]
fn a_first_fragment_without_the_whole_transport_header_is_dropped() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let tiny = split(&tcp(from, to, SYN), 7, 8).remove(0);
    assert_eq!(lab.up(tiny), Err(DropReason::UpMalformed.into()));
    assert_eq!(lab.nat.flows(), 0);
}

#[test]
fn fragments_that_take_too_long_are_dropped() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 53));
    lab.up(up_fragment(from, to, 0)).unwrap();
    lab.wait(16);
    assert_eq!(lab.up(up_fragment(from, to, 1)), Err(DropReason::Fragment.into()));
}

#[test]
fn two_sessions_with_the_same_identification_get_different_ones() {
    let mut lab = Lab::new();
    for to in [(SERVER, 53), (SERVER_V6, 53)] {
        let inner = |lab: &Lab, slot| {
            if to.0.is_ipv4() { lab.inner(slot, 5000) } else { lab.inner_v6(slot, 5000) }
        };
        let mut ids = std::collections::HashSet::new();
        for slot in 0..20 {
            let part = up_fragment(inner(&lab, slot), to, 0);
            assert!(ids.insert(id(&lab.up(part).unwrap())));
        }
    }
    // Those of two workers are different, too.
    let mut ids = std::collections::HashSet::new();
    for worker in 0..3 {
        let mut lab = Lab::with(|config| (config.worker, config.workers) = (worker, 3));
        for _ in 0..1000 {
            let part = up_fragment(lab.inner(worker, 5000), (SERVER, 53), 0);
            assert!(ids.insert(id(&lab.up(part).unwrap())));
            lab.nat.remove_session(Slot(worker));
            lab.wait(125);
        }
    }
}

#[test]
fn a_packet_that_may_become_fragments_gets_another_identification() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 53));
    let mut packet = udp(from, to);
    packet[6] &= !0x40;
    weir_packet::headers::set_v4_checksum(&mut packet[..20]);
    let ids = [0; 3].map(|_| {
        let out = lab.up(packet.clone()).unwrap();
        assert!(checksums_are_right(&out));
        id(&out)
    });
    assert_eq!([ids[0] + 1, ids[0] + 2], [ids[1], ids[2]], "so that they can be coalesced");
    // What may not become fragments keeps its own (RFC 6864, section 4.1).
    packet[6] |= 0x40;
    packet[4..6].copy_from_slice(&[0xab, 0xcd]);
    weir_packet::headers::set_v4_checksum(&mut packet[..20]);
    assert_eq!(id(&lab.up(packet).unwrap()), 0xabcd);
}

#[test]
fn a_session_has_a_bounded_number_of_packets_on_the_way_in_fragments() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 53));
    let first = |id| split(&big(from, to), id, 1000).remove(0);
    let passed = (0..1000).filter(|id| lab.up(first(*id)).is_ok()).count();
    assert_eq!(passed, 128);
    assert!(lab.up(up_fragment(lab.inner(1, 5000), to, 0)).is_ok());
    for _ in 0..20 {
        lab.wait(2);
        lab.nat.tick(lab.now);
    }
    assert!(lab.up(first(2000)).is_ok());
    // Those that are complete do not count.
    for id in 0..1000 {
        for part in split(&big(from, to), id, 1000) {
            lab.up(part).unwrap();
        }
    }
}

#[test]
fn fragments_end_with_their_session_and_with_the_policy() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 53));
    lab.up(up_fragment(from, to, 0)).unwrap();
    lab.nat.remove_session(Slot(0));
    assert_eq!(lab.up(up_fragment(from, to, 1)), Err(DropReason::Fragment.into()));
    lab.up(up_fragment(from, to, 0)).unwrap();
    lab.nat.policy_changed();
    assert_eq!(lab.up(up_fragment(from, to, 1)), Err(DropReason::Fragment.into()));
}

#[test]
fn a_whole_packet_with_a_fragment_header_needs_no_other() {
    let mut lab = Lab::new();
    let from = lab.inner_v6(0, 5000);
    let packet = udp(from, (SERVER_V6, 53));
    let atomic = split(&packet, 7, 8000).remove(0);
    let out = lab.up(atomic).unwrap();
    assert!(checksums_are_right(&join(&[out])));
}
