//! RFC 4787.

use super::*;

#[test]
fn a_datagram_and_its_answer_are_translated() {
    for (to, external) in [(SERVER, EXTERNAL.into()), (SERVER_V6, IpAddr::from(EXTERNAL_V6))] {
        let mut lab = Lab::new();
        let from = if to.is_ipv4() { lab.inner(3, 5000) } else { lab.inner_v6(3, 5000) };
        let out = lab.up(udp(from, (to, 53))).unwrap();
        let (mapped, destination) = ends(&out);
        assert_eq!((mapped.0, destination), (external, (to, 53)));
        assert!((4096..32768).contains(&mapped.1));
        assert!(checksums_are_right(&out));
        let (slot, back) = lab.down(udp((to, 53), mapped)).unwrap();
        assert_eq!((slot, ends(&back)), (3, ((to, 53), from)));
        assert!(checksums_are_right(&back));
    }
}

#[test]
fn a_mapping_is_the_same_for_all_destinations() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let mapped = lab.udp(from, (SERVER, 53));
    assert_eq!(lab.udp(from, (SERVER, 54)), mapped);
    assert_eq!(lab.udp(from, (OTHER, 53)), mapped);
    assert_ne!(lab.udp((from.0, 5001), (SERVER, 53)), mapped);
    assert_ne!(lab.udp((from.0, 5032), (SERVER, 53)), mapped, "the same place in the block");
}

#[test]
fn only_who_was_sent_to_may_answer() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let mapped = lab.udp(from, (SERVER, 53));
    assert_eq!(lab.down(udp((SERVER, 54), mapped)), Err(DropReason::DownFiltered));
    assert_eq!(lab.down(udp((OTHER, 53), mapped)), Err(DropReason::DownFiltered));
    assert_eq!(lab.down(tcp((SERVER, 53), mapped, SYN)), Err(DropReason::DownNoFlow));
    let unused = (mapped.0, mapped.1 ^ 1);
    assert_eq!(lab.down(udp((SERVER, 53), unused)), Err(DropReason::DownNoFlow));
    assert_eq!(lab.down(udp((SERVER, 53), (OTHER, mapped.1))), Err(DropReason::NoSession));
    assert!(lab.down(udp((SERVER, 53), mapped)).is_ok());
}

#[test]
fn an_unanswered_flow_lives_two_minutes_and_an_answered_one_five() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let mapped = lab.udp(from, (SERVER, 53));
    lab.wait(120);
    assert!(lab.down(udp((SERVER, 53), mapped)).is_ok());
    lab.wait(300);
    assert!(lab.down(udp((SERVER, 53), mapped)).is_ok());
    lab.wait(301);
    assert_eq!(lab.down(udp((SERVER, 53), mapped)), Err(DropReason::DownNoFlow));

    let mapped = lab.udp(from, (SERVER, 53));
    lab.wait(121);
    assert_eq!(lab.down(udp((SERVER, 53), mapped)), Err(DropReason::DownNoFlow));
}

#[test]
fn the_timer_is_the_same_for_every_port() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 123);
    let mapped = lab.udp(from, (SERVER, 123));
    lab.wait(120);
    assert!(lab.down(udp((SERVER, 123), mapped)).is_ok());
}

#[test]
fn packets_of_both_directions_keep_a_flow() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let mapped = lab.udp(from, (SERVER, 53));
    for _ in 0..10 {
        lab.wait(110);
        assert_eq!(lab.udp(from, (SERVER, 53)), mapped);
    }
    assert!(lab.down(udp((SERVER, 53), mapped)).is_ok());
    for _ in 0..10 {
        lab.wait(290);
        lab.nat.tick(lab.now);
        assert!(lab.down(udp((SERVER, 53), mapped)).is_ok());
    }
    assert_eq!(lab.nat.session_flows(Slot(0)).udp, 1);
}

#[test]
fn a_filter_ends_alone_and_a_mapping_with_its_last_flow() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let mapped = lab.udp(from, (SERVER, 53));
    lab.wait(100);
    lab.udp(from, (OTHER, 53));
    lab.wait(100);
    assert_eq!(lab.down(udp((SERVER, 53), mapped)), Err(DropReason::DownFiltered));
    assert!(lab.down(udp((OTHER, 53), mapped)).is_ok());
}

#[test]
fn two_sessions_never_share_a_port() {
    let mut lab = Lab::new();
    let mut seen = std::collections::HashSet::new();
    for slot in 0..20 {
        for port in 0..50 {
            let from = lab.inner(slot, 6000 + port);
            assert!(seen.insert(lab.udp(from, (SERVER, 53))), "{slot} {port}");
        }
    }
}

#[test]
fn all_flows_of_a_session_have_one_external_address() {
    let mut lab = Lab::with(|config| config.addresses_v4 = vec![EXTERNAL, EXTERNAL_2]);
    let mut used = std::collections::HashSet::new();
    for slot in 0..8 {
        let address = lab.udp(lab.inner(slot, 1), (SERVER, 53)).0;
        used.insert(address);
        for port in 2..100 {
            assert_eq!(lab.udp(lab.inner(slot, port), (SERVER, 53)).0, address);
        }
        assert_eq!(lab.syn(lab.inner(slot, 1), (SERVER, 80)).0, address);
        assert_eq!(ends(&lab.up(ping(lab.inner(slot, 1), SERVER)).unwrap()).0.0, address);
    }
    assert_eq!(used.len(), 2);
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let mut packet = udp(from, (SERVER, 53));
    packet[26..28].fill(0);
    let out = lab.up(packet).unwrap();
    assert_eq!(out[26..28], [0, 0]);
    let mut answer = udp((SERVER, 53), ends(&out).0);
    answer[26..28].fill(0);
    assert_eq!(lab.down(answer).unwrap().1[26..28], [0, 0]);
}

#[test]
fn a_datagram_without_a_checksum_is_dropped_in_ipv6() {
    let mut lab = Lab::new();
    let from = lab.inner_v6(0, 5000);
    let mapped = lab.udp(from, (SERVER_V6, 53));
    let mut packet = udp(from, (SERVER_V6, 53));
    packet[46..48].fill(0);
    assert_eq!(lab.up(packet), Err(DropReason::UpMalformed.into()));
    let mut answer = udp((SERVER_V6, 53), mapped);
    answer[46..48].fill(0);
    assert_eq!(lab.down(answer), Err(DropReason::DownMalformed));
}

#[test]
fn a_checksum_that_becomes_zero_is_written_as_ones() {
    // Some payload among these makes the translated sum 0.
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let mut seen = 0;
    for word in 0..=u16::MAX {
        let out = lab.up(udp_with(from, (SERVER, 53), &word.to_be_bytes())).unwrap();
        assert_ne!(out[26..28], [0, 0]);
        if out[26..28] == [0xff, 0xff] {
            assert!(checksums_are_right(&out));
            seen += 1;
        }
    }
    assert_eq!(seen, 1);
}

#[test]
fn consumers_do_not_reach_the_nodes_own_addresses() {
    let mut lab = Lab::new();
    let mapped = lab.udp(lab.inner(0, 5000), (SERVER, 53));
    let refusal = refused(DropReason::Policy, Answer::Prohibited);
    assert_eq!(lab.up(udp(lab.inner(1, 5000), mapped)), Err(refusal));
    assert_eq!(lab.up(udp(lab.inner_v6(1, 5000), (EXTERNAL_V6.into(), 5000))), Err(refusal));
}

#[test]
fn a_prefix_gives_each_session_an_address_and_keeps_ports() {
    let mut lab = Lab::with(|config| config.v6 = V6::Prefix(PREFIX, 64));
    let from = lab.inner_v6(7, 5000);
    let out = lab.up(udp(from, (SERVER_V6, 53))).unwrap();
    let own = "2001:db8:ff::9".parse::<IpAddr>().unwrap();
    assert_eq!(ends(&out).0, (own, 5000));
    assert!(checksums_are_right(&out));
    let (slot, back) = lab.down(udp((SERVER_V6, 53), (own, 5000))).unwrap();
    assert_eq!((slot, ends(&back).1), (7, from));
    assert!(checksums_are_right(&back));
    // Filtered as ever, and nobody else's.
    assert_eq!(lab.down(udp((SERVER_V6, 54), (own, 5000))), Err(DropReason::DownNoFlow));
    let next = "2001:db8:ff::a".parse::<IpAddr>().unwrap();
    assert_eq!(lab.down(udp((SERVER_V6, 53), (next, 5000))), Err(DropReason::DownNoFlow));
    let nobody = "2001:db8:ff::1:0:9".parse::<IpAddr>().unwrap();
    assert_eq!(lab.down(udp((SERVER_V6, 53), (nobody, 5000))), Err(DropReason::NoSession));
    let refusal = refused(DropReason::Policy, Answer::Prohibited);
    assert_eq!(lab.up(udp(from, (next, 53))), Err(refusal), "no consumer reaches another");
    assert_eq!(lab.nat.take_events().count(), 0);
}
