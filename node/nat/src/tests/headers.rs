//! Hop limits, options, extension headers, and what is no proper packet.

use super::*;

/// Puts options into an IPv4 header, whose length is a multiple of 4.
pub(super) fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut bytes = [&packet[..20], options, &packet[20..]].concat();
    bytes[0] = 0x40 | (5 + options.len() / 4) as u8;
    let len = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    weir_packet::headers::set_v4_checksum(&mut bytes[..20 + options.len()]);
    bytes
}

/// Puts an extension header behind the IPv6 header. Its first byte becomes the next header.
fn with_extension(packet: &[u8], kind: u8, extension: &[u8]) -> Vec<u8> {
    let mut bytes = [&packet[..40], extension, &packet[40..]].concat();
    bytes[40] = packet[6];
    bytes[6] = kind;
    let len = (bytes.len() - 40) as u16;
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
    bytes
}

#[test]
fn the_hop_limit_is_decremented() {
    for to in [SERVER, SERVER_V6] {
        let mut lab = Lab::new();
        let at = if to.is_ipv4() { 8 } else { 7 };
        let from = if to.is_ipv4() { lab.inner(0, 5000) } else { lab.inner_v6(0, 5000) };
        let out = lab.up(udp(from, (to, 53))).unwrap();
        assert_eq!(out[at], 63);
        let (_, back) = lab.down(udp((to, 53), ends(&out).0)).unwrap();
        assert_eq!(back[at], 63);
    }
}

#[test]
fn a_packet_whose_hop_limit_is_used_up_goes_no_further() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let mut packet = udp(from, (SERVER, 53));
    for hops in [0, 1] {
        packet[8] = hops;
        weir_packet::headers::set_v4_checksum(&mut packet[..20]);
        let refusal = refused(DropReason::HopLimit, Answer::TimeExceeded);
        assert_eq!(lab.up(packet.clone()), Err(refusal));
    }
    assert_eq!(lab.nat.flows(), 0);
    let mut answer = udp((SERVER, 53), lab.udp(from, (SERVER, 53)));
    answer[8] = 1;
    assert_eq!(lab.down(answer), Err(DropReason::DownHopLimit));
    // No error is answered with an error.
    let mut message = error(from.0, SERVER, 3, 3, &udp((SERVER, 53), from));
    message[8] = 1;
    assert_eq!(lab.up(message), Err(DropReason::HopLimit.into()));
}

#[test]
fn source_routes_are_refused_and_other_options_pass() {
    let mut lab = Lab::new();
    let packet = udp(lab.inner(0, 5000), (SERVER, 53));
    let out = lab.up(with_options(&packet, &[1, 7, 3, 4])).unwrap();
    assert!(checksums_are_right(&out));
    assert_eq!(out[20..24], [1, 7, 3, 4]);
    for kind in [131, 137] {
        let routed = with_options(&packet, &[1, kind, 7, 4, 45, 9, 9, 9]);
        assert_eq!(lab.up(routed), Err(DropReason::Protocol.into()));
    }
    let overrun = with_options(&packet, &[7, 9, 4, 0]);
    assert_eq!(lab.up(overrun), Err(DropReason::UpMalformed.into()));
}

#[test]
fn extension_headers_are_walked_and_source_routes_refused() {
    let mut lab = Lab::new();
    let packet = udp(lab.inner_v6(0, 5000), (SERVER_V6, 53));
    let padding = [0, 0, 1, 4, 0, 0, 0, 0];
    let mut extended = packet.clone();
    for kind in [60, 43, 0] {
        extended = with_extension(
            &extended,
            kind,
            &if kind == 43 { [0, 0, 2, 0, 0, 0, 0, 0] } else { padding },
        );
        let out = lab.up(extended.clone()).unwrap();
        assert!(checksums_are_right(&out), "{kind}");
        assert_eq!(source(&out), IpAddr::from(EXTERNAL_V6));
    }
    let type_0 = with_extension(&packet, 43, &[0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(lab.up(type_0), Err(DropReason::Protocol.into()));
    let not_used_up = with_extension(&packet, 43, &[0, 0, 4, 1, 0, 0, 0, 0]);
    assert_eq!(lab.up(not_used_up), Err(DropReason::Protocol.into()));
    let late = with_extension(&with_extension(&packet, 0, &padding), 60, &padding);
    assert_eq!(lab.up(late), Err(DropReason::UpMalformed.into()), "hop by hop comes first");
    let mut many = packet;
    for _ in 0..10 {
        many = with_extension(&many, 60, &padding);
    }
    assert_eq!(lab.up(many), Err(DropReason::Protocol.into()));
}

#[test]
fn other_protocols_are_refused() {
    let mut lab = Lab::new();
    let mut packet = udp(lab.inner(0, 5000), (SERVER, 53));
    let mut answer = udp((SERVER, 53), lab.udp(lab.inner(0, 5000), (SERVER, 53)));
    for protocol in [2, 4, 41, 47, 50, 58, 132] {
        packet[9] = protocol;
        answer[9] = protocol;
        assert_eq!(lab.up(packet.clone()), Err(DropReason::Protocol.into()));
        assert_eq!(lab.down(answer.clone()), Err(DropReason::DownNoFlow));
    }
}

#[test]
fn a_packet_of_another_source_or_session_is_refused() {
    let mut lab = Lab::with(|config| (config.worker, config.workers) = (1, 2));
    let mut up = |mut packet: Vec<u8>, slot| {
        lab.nat.up(&mut packet, Slot(slot), lab.now, &AllowAll, &mut NoGate)
    };
    let plan = config().plan;
    let of = |slot| udp((plan.address_v4(Slot(slot)).unwrap().into(), 5), (SERVER, 53));
    assert_eq!(up(of(1), 1), Ok(()));
    assert_eq!(up(of(3), 1), Err(DropReason::SourceAddress.into()));
    assert_eq!(up(of(2), 2), Err(DropReason::SourceAddress.into()), "another worker's");
    assert_eq!(up(of(3), 9999), Err(DropReason::SourceAddress.into()));
}

#[test]
fn every_truncation_of_a_packet_is_dropped() {
    let mut lab = Lab::new();
    for to in [SERVER, SERVER_V6] {
        let from = if to.is_ipv4() { lab.inner(0, 5000) } else { lab.inner_v6(0, 5000) };
        for packet in [udp(from, (to, 53)), tcp(from, (to, 80), SYN), ping(from, to)] {
            let seen = lab.up(packet.clone()).unwrap();
            for len in 0..packet.len() {
                let mut cut = packet[..len].to_vec();
                let refusal = lab.nat.up(&mut cut, Slot(0), lab.now, &AllowAll, &mut NoGate);
                assert_eq!(refusal, Err(DropReason::UpMalformed.into()));
                assert_eq!(lab.down(seen[..len].to_vec()), Err(DropReason::DownMalformed));
            }
            let longer = [&packet[..], &[0]].concat();
            assert_eq!(lab.up(longer), Err(DropReason::UpMalformed.into()));
        }
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut lab = Lab::new();
    for to in [SERVER, SERVER_V6] {
        let from = if to.is_ipv4() { lab.inner(0, 5000) } else { lab.inner_v6(0, 5000) };
        for mut packet in [udp(from, (to, 53)), tcp(from, (to, 80), SYN), ping(from, to)] {
            *packet.last_mut().unwrap() ^= 0x40;
            let out = lab.up(packet).unwrap();
            assert!(!checksums_are_right(&out));
        }
    }
    let mut packet = udp(lab.inner(0, 5000), (SERVER, 53));
    packet[10] ^= 0x40;
    assert!(!checksums_are_right(&lab.up(packet).unwrap()), "of the IPv4 header");
}

#[test]
fn a_version_without_an_address_is_refused() {
    let mut lab = Lab::with(|config| (config.addresses_v4, config.v6) = (Vec::new(), V6::None));
    let refusal = refused(DropReason::NextHop, Answer::Unreachable);
    assert_eq!(lab.up(udp(lab.inner(0, 1), (SERVER, 53))), Err(refusal));
    assert_eq!(lab.up(udp(lab.inner_v6(0, 1), (SERVER_V6, 53))), Err(refusal));
    assert_eq!(lab.down(udp((SERVER, 53), (EXTERNAL.into(), 1))), Err(DropReason::NoSession));
}

#[test]
fn an_ipv4_destination_in_an_ipv6_packet_is_another_flow() {
    let mut lab = Lab::new();
    lab.udp(lab.inner(0, 5000), (SERVER, 53));
    let IpAddr::V4(server) = SERVER else { panic!() };
    let mapped = IpAddr::V6(server.to_ipv6_mapped());
    let external = lab.udp(lab.inner_v6(0, 5000), (mapped, 53));
    assert_eq!(external.0, IpAddr::from(EXTERNAL_V6));
    assert_eq!(lab.nat.flows(), 2);
}
