//! RFC 5382 and RFC 7857.

use super::*;

const HOURS_2_MINUTES_4: u64 = 2 * 3600 + 4 * 60;

#[test]
fn a_connection_is_translated_both_ways() {
    for to in [SERVER, SERVER_V6] {
        let mut lab = Lab::new();
        let from = if to.is_ipv4() { lab.inner(3, 5000) } else { lab.inner_v6(3, 5000) };
        let out = lab.up(tcp(from, (to, 443), SYN)).unwrap();
        assert!(checksums_are_right(&out));
        let (external, _) = ends(&out);
        let (slot, back) = lab.down(tcp((to, 443), external, SYN | ACK)).unwrap();
        assert_eq!((slot, ends(&back)), (3, ((to, 443), from)));
        assert!(checksums_are_right(&back));
    }
}

#[test]
fn a_port_has_the_same_external_port_for_all_destinations() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let external = lab.syn(from, (SERVER, 443));
    assert_eq!(lab.syn(from, (SERVER, 80)), external);
    assert_eq!(lab.syn(from, (OTHER, 443)), external);
}

#[test]
fn connections_to_different_endpoints_share_a_port() {
    let mut lab = Lab::with(|config| config.session_blocks = 1);
    // 32 ports, and 100 connections to each of three endpoints: only 32 of each have a port.
    for to in [(SERVER, 443), (SERVER, 80), (OTHER, 443)] {
        let mut ports = std::collections::HashSet::new();
        for port in 0..32 {
            assert!(ports.insert(lab.connect(lab.inner(0, 5000 + port), to)));
        }
        let refusal = refused(DropReason::Ports, Answer::Unreachable);
        assert_eq!(lab.up(tcp(lab.inner(0, 6000), to, SYN)), Err(refusal));
    }
    assert_eq!(lab.nat.session_flows(Slot(0)).tcp, 96);
}

#[test]
fn both_sides_may_open_at_once() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let external = lab.syn(from, to);
    lab.down(tcp(to, external, SYN)).unwrap();
    lab.up(tcp(from, to, SYN | ACK)).unwrap();
    lab.down(tcp(to, external, ACK)).unwrap();
    lab.wait(HOURS_2_MINUTES_4);
    assert!(lab.down(tcp(to, external, ACK)).is_ok());
}

#[test]
fn an_unsolicited_syn_is_dropped_silently_and_a_later_one_of_the_consumer_works() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let external = lab.connect(from, (OTHER, 443));
    assert_eq!(lab.down(tcp(to, external, SYN)), Err(DropReason::DownFiltered));
    assert_eq!(lab.syn(from, to), external);
    assert!(lab.down(tcp(to, external, SYN)).is_ok());
}

#[test]
fn a_connection_may_be_idle_for_two_hours_and_four_minutes() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let external = lab.connect(from, to);
    lab.wait(HOURS_2_MINUTES_4);
    lab.nat.tick(lab.now);
    assert!(lab.down(tcp(to, external, ACK)).is_ok());
    lab.wait(HOURS_2_MINUTES_4 + 1);
    assert_eq!(lab.down(tcp(to, external, ACK)), Err(DropReason::DownNoFlow));
}

#[test]
fn a_connection_that_opens_or_closes_may_be_idle_for_four_minutes() {
    type Step<'a> = (&'a str, &'a [(bool, u8)]);
    let cases: [Step<'_>; 5] = [
        ("opening", &[(true, SYN)]),
        ("half open", &[(true, SYN), (false, SYN | ACK)]),
        ("half closed", &[(true, SYN), (false, SYN | ACK), (true, ACK), (true, FIN | ACK)]),
        (
            "closed",
            &[(true, SYN), (false, SYN | ACK), (true, FIN | ACK), (false, FIN | ACK), (true, ACK)],
        ),
        ("reset", &[(true, SYN), (false, SYN | ACK), (true, ACK), (false, RST)]),
    ];
    for (name, steps) in cases {
        let mut lab = Lab::new();
        let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
        let mut external = (EXTERNAL.into(), 0);
        for (is_up, flags) in steps {
            if *is_up {
                external = ends(&lab.up(tcp(from, to, *flags)).unwrap()).0;
            } else {
                lab.down(tcp(to, external, *flags)).unwrap();
            }
        }
        lab.wait(240);
        lab.nat.tick(lab.now);
        assert!(lab.down(tcp(to, external, ACK)).is_ok(), "{name}");
        lab.wait(241);
        assert!(lab.down(tcp(to, external, ACK)).is_err(), "{name}");
    }
}

#[test]
fn a_reset_is_passed_on_and_ends_nothing_at_once() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let external = lab.connect(from, to);
    assert!(lab.down(tcp(to, external, RST)).is_ok());
    lab.wait(200);
    // It was forged: the consumer goes on.
    assert!(lab.up(tcp(from, to, ACK)).is_ok());
    lab.wait(HOURS_2_MINUTES_4);
    assert!(lab.down(tcp(to, external, ACK)).is_ok());
}

#[test]
fn a_port_is_used_again_after_its_connection_is_over() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let external = lab.connect(from, to);
    lab.up(tcp(from, to, FIN | ACK)).unwrap();
    lab.down(tcp(to, external, FIN | ACK)).unwrap();
    assert_eq!(lab.connect(from, to), external);
    assert_eq!(lab.nat.session_flows(Slot(0)).tcp, 1);
    lab.wait(HOURS_2_MINUTES_4);
    assert!(lab.down(tcp(to, external, ACK)).is_ok());
}

#[test]
fn a_segment_of_no_connection_is_answered_with_a_reset() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let reset = refused(DropReason::Protocol, Answer::Reset);
    assert_eq!(lab.up(tcp(from, to, ACK)), Err(reset));
    assert_eq!(lab.up(tcp(from, to, SYN | ACK)), Err(reset));
    assert_eq!(lab.up(tcp(from, to, RST)), Err(DropReason::Protocol.into()));
    assert_eq!(lab.nat.flows(), 0);
}

#[test]
fn a_connection_is_taken_up_in_the_middle_where_its_block_is_the_sessions() {
    let mut before = Lab::new();
    let (from, to) = (before.inner(0, 5000), (SERVER, 443));
    let external = before.connect(from, to);
    let block = before.nat.take_events().next().unwrap().block;

    let mut lab = Lab::with(|config| {
        config.pick_up = true;
        config.hash_keys = [9, 10];
    });
    let reset = refused(DropReason::Protocol, Answer::Reset);
    assert_eq!(lab.up(tcp(from, to, ACK)), Err(reset), "it has no block");
    assert!(lab.nat.restore_block(Slot(0), EXTERNAL.into(), block.first));
    assert_eq!(ends(&lab.up(tcp(from, to, ACK)).unwrap()).0, external);
    assert!(lab.down(tcp(to, external, ACK)).is_ok());
    lab.wait(HOURS_2_MINUTES_4);
    assert!(lab.down(tcp(to, external, ACK)).is_ok());
    assert_eq!(lab.up(tcp(lab.inner(1, 5000), to, ACK)), Err(reset), "another session");
    assert_eq!(lab.up(tcp((from.0, 5001), to, RST)), Err(DropReason::Protocol.into()));
}

#[test]
fn a_syn_announces_at_most_the_configured_segment_size() {
    let mss = |packet: &[u8], at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let options = [1, 2, 4, 0x05, 0xb4, 0, 0, 0];
    for (to, ip_len, limit) in [(SERVER, 20, 1380), (SERVER_V6, 40, 1360)] {
        let mut lab = Lab::with(|config| config.mss = Some([1380, 1360]));
        let from = if to.is_ipv4() { lab.inner(0, 5000) } else { lab.inner_v6(0, 5000) };
        let to = (to, 443);
        // The option lies at an odd offset here, and at an even one there.
        for (options, at) in [(&options[..], 23), (&options[1..5], 22)] {
            let out = lab.up(tcp_with(from, to, SYN, options)).unwrap();
            assert_eq!(mss(&out, ip_len + at), limit);
            assert!(checksums_are_right(&out));
            let answer = tcp_with(to, ends(&out).0, SYN | ACK, options);
            let (_, back) = lab.down(answer).unwrap();
            assert_eq!(mss(&back, ip_len + at), limit);
            assert!(checksums_are_right(&back));
        }
        let small = [2, 4, 0x02, 0x00];
        assert_eq!(mss(&lab.up(tcp_with(from, to, SYN, &small)).unwrap(), ip_len + 22), 512);
        let out = lab.up(tcp_with(from, to, ACK, &options)).unwrap();
        assert_eq!(mss(&out, ip_len + 23), 0x05b4, "only a SYN has it");
    }
}

#[test]
fn broken_options_of_a_syn_pass_as_they_are() {
    let mut lab = Lab::with(|config| config.mss = Some([1000, 1000]));
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    for options in [[2, 3, 5, 5], [3, 0, 2, 4], [8, 10, 2, 4], [0, 2, 4, 5], [1, 1, 2, 4]] {
        let out = lab.up(tcp_with(from, to, SYN, &options)).unwrap();
        assert_eq!(out[40..44], options);
        assert!(checksums_are_right(&out));
    }
}

#[test]
fn a_port_of_an_expired_connection_is_used_again() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let external = lab.syn(from, to);
    lab.wait(300);
    assert_eq!(lab.syn((from.0, 5032), to), external);
    assert_eq!(lab.nat.flows(), 1);
    lab.nat.remove_session(Slot(0));
    let taken: Vec<bool> = lab.nat.take_events().map(|event| event.taken).collect();
    assert_eq!(taken, [true, false], "the block was kept meanwhile, and is given back now");
}

#[test]
fn a_reset_of_the_consumer_keeps_no_flow() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let external = lab.syn(from, to);
    for _ in 0..3 {
        lab.wait(70);
        lab.up(tcp(from, to, RST)).unwrap();
    }
    lab.wait(31);
    assert_eq!(lab.down(tcp(to, external, ACK)), Err(DropReason::DownNoFlow));
}

#[test]
fn all_ports_of_all_blocks_serve_connections_to_one_endpoint() {
    let mut lab = Lab::new();
    let to = (SERVER, 443);
    let ports: std::collections::HashSet<End> =
        (0..128).map(|port| lab.connect(lab.inner(0, 5000 + port * 7), to)).collect();
    assert_eq!(ports.len(), 128);
    let refusal = refused(DropReason::Ports, Answer::Unreachable);
    assert_eq!(lab.up(tcp(lab.inner(0, 9000), to, SYN)), Err(refusal));
    assert_eq!(lab.nat.take_events().count(), 4);
}
