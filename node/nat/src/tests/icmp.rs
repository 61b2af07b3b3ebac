//! RFC 5508.

use super::*;

/// The kinds of errors of each version, and their codes.
const ERRORS: [(IpAddr, &[(u8, u8)]); 2] = [
    (SERVER, &[(3, 0), (3, 1), (3, 3), (3, 4), (11, 0), (12, 0)]),
    (SERVER_V6, &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 0)]),
];

fn router(to: IpAddr) -> IpAddr {
    if to.is_ipv4() { "45.9.9.9".parse().unwrap() } else { "2a0a:9::9".parse().unwrap() }
}

fn inner(lab: &Lab, to: IpAddr) -> End {
    if to.is_ipv4() { lab.inner(3, 5000) } else { lab.inner_v6(3, 5000) }
}

#[test]
fn an_echo_and_its_answer_are_translated() {
    for to in [SERVER, SERVER_V6] {
        let mut lab = Lab::new();
        let from = inner(&lab, to);
        let out = lab.up(ping(from, to)).unwrap();
        assert!(checksums_are_right(&out));
        let (external, _) = ends(&out);
        assert!((4096..32768).contains(&external.1));
        let (slot, back) = lab.down(pong(to, external)).unwrap();
        assert_eq!((slot, ends(&back).1), (3, from));
        assert!(checksums_are_right(&back));
        assert_eq!(lab.down(pong(router(to), external)), Err(DropReason::DownFiltered));
        assert_eq!(lab.down(ping((to, 1), external.0)), Err(DropReason::DownNoFlow));
    }
}

#[test]
fn an_identifier_is_the_same_for_all_destinations() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 77);
    let external = ends(&lab.up(ping(from, SERVER)).unwrap()).0;
    assert_eq!(ends(&lab.up(ping(from, OTHER)).unwrap()).0, external);
    let other = ends(&lab.up(ping(lab.inner(0, 78), SERVER)).unwrap()).0;
    assert_ne!(other, external);
}

#[test]
fn an_echo_may_be_answered_for_a_minute() {
    let mut lab = Lab::new();
    let external = ends(&lab.up(ping(lab.inner(0, 77), SERVER)).unwrap()).0;
    lab.wait(60);
    assert!(lab.down(pong(SERVER, external)).is_ok());
    lab.wait(61);
    assert_eq!(lab.down(pong(SERVER, external)), Err(DropReason::DownNoFlow));
}

/// The packets of a consumer that errors are about, with what they were before their translation.
fn samples(lab: &mut Lab, to: IpAddr) -> Vec<(Vec<u8>, Vec<u8>)> {
    let from = inner(lab, to);
    let packets = [udp(from, (to, 33434)), tcp(from, (to, 443), SYN), ping(from, to)];
    packets.map(|packet| (packet.clone(), lab.up(packet).unwrap())).into()
}

#[test]
fn an_error_from_outside_reaches_the_session_with_what_it_sent() {
    for (to, kinds) in ERRORS {
        for (kind, code) in kinds {
            let mut lab = Lab::new();
            for (sent, seen) in samples(&mut lab, to) {
                let message = error(router(to), source(&seen), *kind, *code, &seen);
                let (slot, back) = lab.down(message).unwrap();
                assert_eq!((slot, destination(&back)), (3, source(&sent)));
                assert_eq!(source(&back), router(to), "traceroute shows the router");
                assert!(checksums_are_right(&back));
                assert!(checksums_are_right(quoted(&back)));
                assert_eq!(ends(quoted(&back)), ends(&sent));
            }
        }
    }
}

#[test]
fn an_error_that_quotes_only_eight_bytes_of_the_transport_is_translated() {
    for (to, kinds) in ERRORS {
        let mut lab = Lab::new();
        let (kind, code) = kinds[0];
        let len = if to.is_ipv4() { 28 } else { 48 };
        for (sent, seen) in samples(&mut lab, to) {
            let message = error(router(to), source(&seen), kind, code, &seen[..len]);
            let (_, back) = lab.down(message).unwrap();
            assert!(checksums_are_right(&back));
            let quoted = quoted(&back);
            assert_eq!((source(quoted), destination(quoted)), (source(&sent), to));
            assert_eq!(quoted[len - 8..len - 4], sent[len - 8..len - 4], "ports");
        }
    }
}

#[test]
fn an_error_of_the_consumer_leaves_with_what_it_received() {
    for (to, kinds) in ERRORS {
        for (kind, code) in kinds {
            let mut lab = Lab::new();
            let from = inner(&lab, to);
            let external = lab.udp(from, (to, 53));
            lab.syn(from, (to, 443));
            lab.up(ping(from, to)).unwrap();
            let answers =
                [udp((to, 53), external), tcp((to, 443), external, ACK), pong(to, external)];
            for arrived in answers {
                let (_, received) = lab.down(arrived.clone()).unwrap();
                let message = error(from.0, to, *kind, *code, &received);
                let out = lab.up(message).unwrap();
                assert_eq!((source(&out), destination(&out)), (external.0, to));
                assert!(checksums_are_right(&out));
                assert!(checksums_are_right(quoted(&out)));
                assert_eq!(ends(quoted(&out)), ends(&arrived));
            }
        }
    }
}

#[test]
fn an_error_about_no_flow_is_dropped() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let external = lab.udp(from, (SERVER, 53));
    let unsent = error(OTHER, external.0, 3, 3, &udp(external, (SERVER, 54)));
    assert_eq!(lab.down(unsent), Err(DropReason::DownFiltered));
    let elsewhere = error(OTHER, external.0, 3, 3, &udp((OTHER, 1), (SERVER, 53)));
    assert_eq!(lab.down(elsewhere), Err(DropReason::DownNoFlow));
    let about_nothing = error(from.0, SERVER, 3, 3, &udp((SERVER, 54), from));
    assert_eq!(lab.up(about_nothing), Err(DropReason::Protocol.into()));
    // To somebody else than who sent what it quotes.
    let elsewhere = error(from.0, OTHER, 3, 3, &udp((SERVER, 53), from));
    assert_eq!(lab.up(elsewhere), Err(DropReason::Protocol.into()));
}

#[test]
fn an_error_with_a_wrong_checksum_is_dropped() {
    for (to, kinds) in ERRORS {
        let mut lab = Lab::new();
        let (kind, code) = kinds[0];
        let (_, seen) = samples(&mut lab, to).remove(0);
        let mut message = error(router(to), source(&seen), kind, code, &seen);
        *message.last_mut().unwrap() ^= 1;
        assert_eq!(lab.down(message), Err(DropReason::DownMalformed));
        if to.is_ipv4() {
            let mut damaged = seen.clone();
            damaged[8] ^= 1;
            let message = error(router(to), source(&seen), kind, code, &damaged);
            assert_eq!(lab.down(message), Err(DropReason::DownMalformed), "the quoted header");
        }
    }
}

#[test]
fn a_wrong_transport_checksum_of_what_an_error_quotes_does_not_matter() {
    let mut lab = Lab::new();
    let (sent, mut seen) = samples(&mut lab, SERVER).remove(0);
    *seen.last_mut().unwrap() ^= 1;
    let (_, back) = lab.down(error(OTHER, source(&seen), 3, 3, &seen)).unwrap();
    assert!(checksums_are_right(&back));
    assert!(!checksums_are_right(quoted(&back)));
    assert_eq!(ends(quoted(&back)), ends(&sent));
}

#[test]
fn an_error_about_a_packet_with_options_is_translated() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let sent = headers::with_options(&udp(from, (SERVER, 53)), &[7, 3, 4, 0]);
    let seen = lab.up(sent.clone()).unwrap();
    let (_, back) = lab.down(error(OTHER, source(&seen), 11, 0, &seen)).unwrap();
    assert!(checksums_are_right(&back));
    assert!(checksums_are_right(quoted(&back)));
    assert_eq!(ends(quoted(&back)), ends(&sent));
}

#[test]
fn an_error_neither_ends_nor_keeps_a_flow() {
    let mut lab = Lab::new();
    let (from, to) = (lab.inner(0, 5000), (SERVER, 443));
    let syn = lab.up(tcp(from, to, SYN)).unwrap();
    let external = ends(&syn).0;
    for _ in 0..3 {
        lab.down(error(OTHER, external.0, 3, 1, &syn)).unwrap();
        lab.wait(80);
    }
    assert!(lab.nat.session_flows(Slot(0)).tcp == 1);
    lab.wait(1);
    assert_eq!(lab.down(error(OTHER, external.0, 3, 1, &syn)), Err(DropReason::DownNoFlow));
}

#[test]
fn other_messages_are_refused() {
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let external = lab.udp(from, (SERVER, 53));
    for kind in [0, 4, 5, 9, 10, 13, 15, 17] {
        let message = error(from.0, SERVER, kind, 0, &udp((SERVER, 53), from));
        assert_eq!(lab.up(message), Err(DropReason::Protocol.into()), "{kind}");
        let message = error(SERVER, external.0, kind, 0, &udp(external, (SERVER, 53)));
        assert_eq!(lab.down(message), Err(DropReason::DownNoFlow), "{kind}");
    }
    for kind in [129, 130, 133, 134, 135, 136, 137] {
        let message = error(lab.inner_v6(0, 0).0, SERVER_V6, kind, 0, b"12345678");
        assert_eq!(lab.up(message), Err(DropReason::Protocol.into()), "{kind}");
        let message = error(SERVER_V6, EXTERNAL_V6.into(), kind, 0, b"12345678");
        assert_eq!(lab.down(message), Err(DropReason::DownNoFlow), "{kind}");
    }
}
