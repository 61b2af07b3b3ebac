//! Blocks of ports: whose they are, and when (RFC 6888, RFC 7422).

use super::*;
use crate::BlockEvent;

fn events(lab: &mut Lab) -> Vec<BlockEvent> {
    lab.nat.take_events().collect()
}

#[test]
fn a_block_is_taken_with_the_first_flow_and_given_back_with_the_last() {
    let mut lab = Lab::new();
    let external = lab.udp(lab.inner(3, 5000), (SERVER, 53));
    lab.syn(lab.inner(3, 5000), (SERVER, 80));
    let taken = events(&mut lab);
    let [event] = taken[..] else { panic!("{taken:?}") };
    assert_eq!((event.slot, event.address, event.taken), (Slot(3), external.0, true));
    assert_eq!(event.block.first, external.1 / 32 * 32);
    lab.wait(130);
    lab.nat.tick(lab.now);
    assert_eq!(events(&mut lab), [], "the connection still has it");
    lab.wait(130);
    lab.nat.tick(lab.now);
    assert_eq!(events(&mut lab), [BlockEvent { taken: false, ..event }]);
    assert_eq!(lab.nat.flows(), 0);
}

#[test]
fn every_flow_lies_in_a_block_that_its_session_has_at_the_time() {
    let mut lab = Lab::with(|config| config.addresses_v4 = vec![EXTERNAL, EXTERNAL_2]);
    let mut owner = std::collections::HashMap::new();
    for round in 0..2000u32 {
        let slot = round * 7 % 13;
        let from = lab.inner(slot, 1000 + (round * 31 % 300) as u16);
        let packet =
            if round % 3 == 0 { tcp(from, (SERVER, 80), SYN) } else { udp(from, (OTHER, 9)) };
        let sent = lab.up(packet);
        for event in lab.nat.take_events() {
            let block = (event.address, event.block.first);
            if event.taken {
                assert_eq!(owner.insert(block, event.slot), None);
            } else {
                assert_eq!(owner.remove(&block), Some(event.slot));
            }
        }
        if let Ok(out) = sent {
            let (address, port) = ends(&out).0;
            assert_eq!(owner.get(&(address, port / 32 * 32)), Some(&Slot(slot)));
        }
        lab.wait(u64::from(round % 3));
        lab.nat.tick(lab.now);
    }
}

#[test]
fn another_session_waits_for_a_block_and_the_same_one_does_not() {
    // One block in all.
    let mut lab = Lab::with(|config| config.ports = Arc::new(Ports::new(4096, 4127, 32)));
    let no_ports = refused(DropReason::Ports, Answer::Unreachable);
    lab.udp(lab.inner(0, 1), (SERVER, 53));
    assert_eq!(lab.up(udp(lab.inner(1, 1), (SERVER, 53))), Err(no_ports));
    lab.wait(125);
    lab.nat.tick(lab.now);
    assert_eq!(lab.nat.flows(), 0);
    lab.udp(lab.inner(0, 1), (SERVER, 53));
    lab.wait(125);
    lab.nat.tick(lab.now);
    assert_eq!(lab.up(udp(lab.inner(1, 1), (SERVER, 53))), Err(no_ports));
    lab.wait(125);
    lab.udp(lab.inner(1, 1), (SERVER, 53));
}

#[test]
fn another_session_in_the_same_slot_waits_too() {
    let mut lab = Lab::with(|config| config.ports = Arc::new(Ports::new(4096, 4127, 32)));
    let from = lab.inner(0, 1);
    lab.udp(from, (SERVER, 53));
    lab.nat.remove_session(Slot(0));
    assert_eq!(events(&mut lab).len(), 2);
    let no_ports = refused(DropReason::Ports, Answer::Unreachable);
    assert_eq!(lab.up(udp(from, (SERVER, 53))), Err(no_ports));
    lab.wait(125);
    lab.udp(from, (SERVER, 53));
}

#[test]
fn a_session_has_at_most_its_share_of_the_blocks() {
    let mut lab = Lab::new();
    for port in 0..4 * 32 {
        let mapped = lab.udp(lab.inner(0, port), (SERVER, 53));
        lab.down(udp((SERVER, 53), mapped)).unwrap();
    }
    let no_ports = refused(DropReason::Ports, Answer::Unreachable);
    assert_eq!(lab.up(udp(lab.inner(0, 4 * 32), (SERVER, 53))), Err(no_ports));
    assert_eq!(events(&mut lab).len(), 4);
    assert!(lab.up(udp(lab.inner(1, 4 * 32), (SERVER, 53))).is_ok());
}

#[test]
fn blocks_of_two_workers_are_disjoint_and_only_the_nodes_ports_are_used() {
    let mut ports = Ports::new(4096, 5119, 32);
    ports.spare(4100);
    ports.spare(5000);
    let ports = Arc::new(ports);
    let mut all = 0;
    for worker in 0..3 {
        let mut seen = std::collections::HashSet::new();
        let mut lab = Lab::with(|config| {
            (config.worker, config.workers) = (worker, 3);
            config.ports = Arc::clone(&ports);
            config.session_blocks = 1000;
        });
        for port in 0..2000 {
            let port = lab.udp(lab.inner(worker, port), (SERVER, 53)).1;
            assert!(ports.contains(port) && ports.worker_of(port, 3) == worker);
            seen.insert(port);
        }
        all += seen.len() as u32;
    }
    assert_eq!(all, ports.count(), "once it has them all, it ends unanswered flows for the next");
}

#[test]
fn a_removed_session_leaves_nothing() {
    let mut lab = Lab::new();
    let from = lab.inner(5, 5000);
    let udp_end = lab.udp(from, (SERVER, 53));
    let tcp_end = lab.connect(from, (SERVER, 80));
    let echo_end = ends(&lab.up(ping(from, SERVER)).unwrap()).0;
    lab.udp(lab.inner_v6(5, 5000), (SERVER_V6, 53));
    lab.udp(lab.inner(6, 5000), (SERVER, 53));
    events(&mut lab);
    lab.nat.remove_session(Slot(5));
    assert_eq!(lab.nat.session_flows(Slot(5)).total(), 0);
    assert_eq!(lab.nat.flows(), 1);
    let given = events(&mut lab);
    assert_eq!(given.len(), 2, "of both versions: {given:?}");
    assert!(given.iter().all(|event| !event.taken && event.slot == Slot(5)));
    assert_eq!(lab.down(udp((SERVER, 53), udp_end)), Err(DropReason::DownNoFlow));
    assert_eq!(lab.down(tcp((SERVER, 80), tcp_end, ACK)), Err(DropReason::DownNoFlow));
    assert_eq!(lab.down(pong(SERVER, echo_end)), Err(DropReason::DownNoFlow));
    lab.nat.remove_session(Slot(5));
    lab.nat.remove_session(Slot(99_999));
    assert_eq!(events(&mut lab), []);
}

#[test]
fn a_restored_block_is_the_sessions_for_a_while_without_a_flow() {
    let mut lab = Lab::new();
    assert!(lab.nat.restore_block(Slot(0), EXTERNAL.into(), 4128));
    assert!(!lab.nat.restore_block(Slot(1), EXTERNAL.into(), 4128), "it is taken");
    assert!(!lab.nat.restore_block(Slot(1), EXTERNAL.into(), 4130), "no block begins here");
    assert!(!lab.nat.restore_block(Slot(1), EXTERNAL.into(), 64), "not the node's ports");
    assert!(!lab.nat.restore_block(Slot(1), EXTERNAL_2.into(), 4160), "not the node's address");
    assert!(!lab.nat.restore_block(Slot(9999), EXTERNAL.into(), 4160), "no session's slot");
    assert!(lab.nat.restore_block(Slot(2), EXTERNAL.into(), 4160));
    assert_eq!(events(&mut lab), [], "the ledger knows of it");
    let external = lab.udp(lab.inner(0, 5001), (SERVER, 53));
    assert_eq!(external.1, 4128 + 5001 % 32);
    for _ in 0..8 {
        lab.nat.tick(lab.now);
        lab.udp(lab.inner(0, 5001), (SERVER, 53));
        lab.wait(50);
    }
    let given = events(&mut lab);
    let [event] = given[..] else { panic!("{given:?}") };
    assert_eq!((event.slot, event.block.first, event.taken), (Slot(2), 4160, false));
}

#[test]
fn a_restored_block_of_the_ipv6_address_is_given_back_too() {
    let mut lab = Lab::new();
    assert!(lab.nat.restore_block(Slot(0), EXTERNAL_V6.into(), 4128));
    assert!(!lab.nat.restore_block(Slot(1), EXTERNAL_V6.into(), 4128), "it is taken");
    assert!(lab.nat.restore_block(Slot(1), EXTERNAL.into(), 4128), "another address");
    for _ in 0..8 {
        lab.nat.tick(lab.now);
        lab.wait(50);
    }
    let given: Vec<_> = events(&mut lab).iter().map(|it| (it.slot, it.address.is_ipv6())).collect();
    assert_eq!(given, [(Slot(0), true), (Slot(1), false)]);
}

#[test]
fn a_restored_block_ends_with_its_session() {
    let mut lab = Lab::new();
    assert!(lab.nat.restore_block(Slot(0), EXTERNAL.into(), 4128));
    lab.nat.remove_session(Slot(0));
    assert_eq!(events(&mut lab).len(), 1);
    assert!(lab.nat.restore_block(Slot(1), EXTERNAL.into(), 4128));
    for _ in 0..8 {
        lab.wait(100);
        lab.nat.tick(lab.now);
    }
    assert_eq!(events(&mut lab).len(), 1);
}

#[test]
fn flows_of_an_address_that_is_gone_end_and_others_go_on() {
    let mut lab = Lab::with(|config| config.addresses_v4 = vec![EXTERNAL, EXTERNAL_2]);
    let ends: Vec<End> = (0..4).map(|slot| lab.udp(lab.inner(slot, 5000), (SERVER, 53))).collect();
    assert!(
        lab.nat.restore_block(Slot(0), EXTERNAL.into(), 32736)
            || ends[0].0 != IpAddr::from(EXTERNAL)
    );
    events(&mut lab);
    lab.nat.set_addresses(vec![EXTERNAL_2], V6::Address(EXTERNAL_V6));
    for (slot, end) in ends.iter().enumerate() {
        let answer = lab.down(udp((SERVER, 53), *end));
        if end.0 == IpAddr::from(EXTERNAL_2) {
            assert!(answer.is_ok());
        } else {
            assert_eq!(answer, Err(DropReason::NoSession));
            assert_eq!(lab.nat.session_flows(Slot(slot as u32)).total(), 0);
        }
        let now = lab.udp(lab.inner(slot as u32, 5000), (SERVER, 53));
        assert_eq!(now.0, IpAddr::from(EXTERNAL_2));
    }
    let given = events(&mut lab);
    let of_the_old = given.iter().filter(|event| event.address == IpAddr::from(EXTERNAL));
    assert!(of_the_old.clone().count() >= 2 && of_the_old.clone().all(|event| !event.taken));

    // IPv6 alike, and a prefix.
    lab.udp(lab.inner_v6(0, 1), (SERVER_V6, 53));
    lab.nat.set_addresses(vec![EXTERNAL_2], V6::Prefix(PREFIX, 64));
    lab.udp(lab.inner_v6(0, 1), (SERVER_V6, 53));
    let before = lab.nat.flows();
    lab.nat.set_addresses(vec![EXTERNAL_2], V6::None);
    assert_eq!(lab.nat.flows(), before - 1);
}

#[test]
fn without_room_for_events_no_block_changes_hands_unseen() {
    let mut lab = Lab::with(|config| config.max_flows = 1);
    let mut refused_at = None;
    for round in 0..10_000 {
        lab.now += 125 * SECOND;
        if lab.up(udp(lab.inner(round % 250, 5), (SERVER, 53))).is_err() {
            refused_at = Some(round);
            break;
        }
    }
    assert!(refused_at.is_some());
    let seen = events(&mut lab);
    let mut held = 0i32;
    for event in &seen {
        held += if event.taken { 1 } else { -1 };
        assert!((0..=1).contains(&held));
    }
    assert!(lab.up(udp(lab.inner(0, 5), (SERVER, 53))).is_ok());
}
