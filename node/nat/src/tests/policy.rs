//! The exit policy: asked once a flow, and again when it has changed.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::*;
use crate::Protocol;

#[test]
fn the_policy_is_asked_once_a_flow_with_its_destination() {
    let mut lab = Lab::new();
    let asked = std::sync::Mutex::new(Vec::new());
    let policy = By(|flow: &NewFlow| {
        asked.lock().unwrap().push(*flow);
        true
    });
    let from = lab.inner(0, 5000);
    for _ in 0..3 {
        lab.up_by(udp(from, (SERVER, 53)), &policy).unwrap();
        lab.up_by(tcp(from, (SERVER, 443), SYN), &policy).unwrap();
        lab.up_by(ping(from, SERVER), &policy).unwrap();
        lab.up_by(udp(lab.inner_v6(0, 1), (SERVER_V6, 54)), &policy).unwrap();
    }
    let flow = |address, port, protocol| NewFlow { address, port, protocol };
    let flows = [
        flow(SERVER, 53, Protocol::Udp),
        flow(SERVER, 443, Protocol::Tcp),
        flow(SERVER, 0, Protocol::Icmp),
        flow(SERVER_V6, 54, Protocol::Udp),
    ];
    assert_eq!(*asked.lock().unwrap(), flows);
}

#[test]
fn a_refused_flow_leaves_nothing() {
    let mut lab = Lab::new();
    let refusal = refused(DropReason::Policy, Answer::Prohibited);
    let packet = udp(lab.inner(0, 5000), (SERVER, 53));
    assert_eq!(lab.up_by(packet, &By(|_: &NewFlow| false)), Err(refusal));
    assert_eq!(lab.nat.flows(), 0);
    assert_eq!(lab.nat.take_events().count(), 0);
}

#[test]
fn a_flow_that_is_no_longer_allowed_ends_at_its_next_packet_in_either_direction() {
    let not_53 = By(|flow: &NewFlow| flow.port != 53);
    let refusal = refused(DropReason::Policy, Answer::Prohibited);
    for is_up in [true, false] {
        let mut lab = Lab::new();
        let from = lab.inner(0, 5000);
        let mapped = lab.udp(from, (SERVER, 53));
        lab.udp(from, (SERVER, 54));
        lab.nat.policy_changed();
        if is_up {
            assert_eq!(lab.up_by(udp(from, (SERVER, 53)), &not_53), Err(refusal));
        } else {
            let answer = udp((SERVER, 53), mapped);
            assert_eq!(lab.down_by(answer, &not_53), Err(DropReason::DownNoFlow));
        }
        assert!(lab.up_by(udp(from, (SERVER, 54)), &not_53).is_ok());
        assert_eq!(lab.nat.session_flows(Slot(0)).udp, 1);
    }
}

#[test]
fn an_error_about_a_flow_that_is_no_longer_allowed_is_dropped() {
    let nothing = By(|_: &NewFlow| false);
    let mut lab = Lab::new();
    let from = lab.inner(0, 5000);
    let sent = lab.up(udp(from, (SERVER, 53))).unwrap();
    lab.nat.policy_changed();
    let message = error(OTHER, ends(&sent).0.0, 3, 3, &sent);
    assert_eq!(lab.down_by(message, &nothing), Err(DropReason::DownNoFlow));
    let (_, received) = {
        let mapped = lab.udp(from, (SERVER, 53));
        lab.down(udp((SERVER, 53), mapped)).unwrap()
    };
    lab.nat.policy_changed();
    let message = error(from.0, SERVER, 3, 3, &received);
    assert_eq!(lab.up_by(message, &nothing), Err(DropReason::Policy.into()));
    assert_eq!(lab.nat.flows(), 0);
}

#[test]
fn a_flow_is_judged_again_once_after_a_change() {
    let mut lab = Lab::new();
    let asked = AtomicU32::new(0);
    let policy = By(|_: &NewFlow| {
        asked.fetch_add(1, Relaxed);
        true
    });
    let from = lab.inner(0, 5000);
    let mapped = ends(&lab.up_by(udp(from, (SERVER, 53)), &policy).unwrap()).0;
    for round in 1..4 {
        for _ in 0..3 {
            lab.up_by(udp(from, (SERVER, 53)), &policy).unwrap();
            lab.down_by(udp((SERVER, 53), mapped), &policy).unwrap();
        }
        assert_eq!(asked.load(Relaxed), round);
        lab.nat.policy_changed();
    }
}
