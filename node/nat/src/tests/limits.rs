//! Full tables, shares, and the memory of it all.

use super::*;
use crate::FlowGate;

#[test]
fn a_session_has_at_most_its_share_of_the_flows() {
    let mut lab = Lab::with(|config| config.session_flows = 10);
    for port in 0..10 {
        lab.connect(lab.inner(0, port), (SERVER, 80));
    }
    let full = refused(DropReason::FlowTable, Answer::Unreachable);
    assert_eq!(lab.up(tcp(lab.inner(0, 10), (SERVER, 80), SYN)), Err(full));
    assert_eq!(lab.up(udp(lab.inner(0, 10), (SERVER, 80))), Err(full));
    assert_eq!(lab.nat.session_flows(Slot(0)).tcp, 10);
    lab.udp(lab.inner(1, 10), (SERVER, 80));
}

#[test]
fn what_is_over_or_unanswered_of_a_session_makes_room_for_its_next() {
    let mut lab = Lab::with(|config| config.session_flows = 10);
    let to = (SERVER, 80);
    for port in 0..8 {
        lab.connect(lab.inner(0, port), to);
    }
    let closed = lab.connect(lab.inner(0, 8), to);
    let unanswered = lab.udp(lab.inner(0, 9), (SERVER, 53));
    lab.down(tcp(to, closed, RST)).unwrap();
    lab.udp(lab.inner(0, 20), (OTHER, 53));
    assert_eq!(lab.nat.session_flows(Slot(0)).tcp, 8, "the reset one ended");
    lab.udp(lab.inner(0, 21), (OTHER, 53));
    assert!(lab.down(udp((SERVER, 53), unanswered)).is_err(), "the oldest one without an answer");
    assert_eq!(lab.nat.session_flows(Slot(0)).total(), 10);
    for port in 0..8 {
        assert!(lab.up(tcp(lab.inner(0, port), to, ACK)).is_ok(), "open connections stay");
    }
}

#[test]
fn a_full_table_has_room_for_none_but_whose_flows_may_end() {
    let mut lab = Lab::with(|config| config.max_flows = 64);
    for port in 0..63 {
        lab.connect(lab.inner(0, port), (SERVER, 80));
    }
    lab.udp(lab.inner(1, 1), (SERVER, 53));
    assert_eq!((lab.nat.flows(), lab.nat.capacity()), (64, 64));
    let full = refused(DropReason::FlowTable, Answer::Unreachable);
    assert_eq!(lab.up(udp(lab.inner(2, 1), (SERVER, 53))), Err(full), "it has none");
    assert_eq!(lab.up(udp(lab.inner(0, 99), (SERVER, 53))), Err(full), "all are open");
    lab.udp(lab.inner(1, 2), (SERVER, 53));
    assert_eq!(lab.nat.session_flows(Slot(1)).udp, 1);
    // What has expired makes room for everybody, without a tick.
    lab.wait(121);
    lab.udp(lab.inner(2, 1), (SERVER, 53));
}

#[test]
fn closed_connections_behind_many_open_ones_are_found_in_the_end() {
    let mut lab = Lab::with(|config| config.session_flows = 300);
    let to = (SERVER, 80);
    lab.nat.session_blocks = 100;
    for port in 0..299 {
        lab.connect(lab.inner(0, port), to);
    }
    let last = lab.connect(lab.inner(0, 299), to);
    lab.down(tcp(to, last, RST)).unwrap();
    let tries = (0..10).find(|_| lab.up(tcp(lab.inner(0, 999), to, SYN)).is_ok());
    assert!(tries.is_some());
}

#[test]
fn ticks_end_what_has_expired() {
    let mut lab = Lab::with(|config| config.session_blocks = 100);
    for slot in 0..10 {
        for port in 0..100 {
            lab.udp(lab.inner(slot, port), (SERVER, 53));
        }
    }
    assert_eq!(lab.nat.flows(), 1000);
    for _ in 0..1000 {
        lab.now += 121 * SECOND / 1000;
        lab.nat.tick(lab.now);
    }
    for _ in 0..1000 {
        lab.now += SECOND / 25;
        lab.nat.tick(lab.now);
    }
    assert_eq!(lab.nat.flows(), 0);
    assert_eq!(lab.nat.session_flows(Slot(0)).total(), 0);
}

/// Admits a number of flows, and counts how often it is asked.
struct Gate(u32, u32);

impl FlowGate for Gate {
    fn admit(&mut self, _: &NewFlow, _: u64) -> Result<(), DropReason> {
        self.1 += 1;
        self.0 = self.0.checked_sub(1).ok_or(DropReason::NewFlows)?;
        Ok(())
    }
}

#[test]
fn the_gate_is_asked_once_a_flow_and_after_the_policy() {
    let mut lab = Lab::new();
    let mut gate = Gate(1, 0);
    let mut up = |mut packet: Vec<u8>, policy: &dyn Policy, gate: &mut Gate| {
        lab.nat.up(&mut packet, Slot(0), lab.now, policy, gate)
    };
    let from = config().plan.address_v4(Slot(0)).unwrap();
    let packet = |port| udp((from.into(), 5000), (SERVER, port));
    assert!(up(packet(1), &By(|_: &NewFlow| false), &mut gate).is_err());
    assert_eq!(gate.1, 0);
    assert_eq!(up(packet(1), &AllowAll, &mut gate), Ok(()));
    assert_eq!(up(packet(1), &AllowAll, &mut gate), Ok(()));
    assert_eq!(gate.1, 1);
    assert_eq!(up(packet(2), &AllowAll, &mut gate), Err(DropReason::NewFlows.into()));
    assert_eq!(gate.1, 2);
    assert_eq!(lab.nat.flows(), 1);
}

#[test]
fn a_million_flows_take_at_most_128_mib() {
    let keys = crate::hash::Keys::new([1, 2]);
    let table = crate::table::Table::new(1_000_000, keys);
    let mappings = crate::mapping::Mappings::new(1_000_000, keys);
    let bytes = table.size() + mappings.size();
    assert!(bytes <= 128 << 20, "{bytes}");
    assert_eq!(size_of::<crate::flow::Flow>(), 64);
}
