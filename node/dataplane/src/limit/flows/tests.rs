//! What a session may reach, against an exact model that remembers everything.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 77 * SECOND;
/// The highest limits that the configuration allows: more would fill the filter.
const DEFAULT: FlowLimits = FlowLimits { new_flows: 200, destinations: 1000 };

/// Port `port` of destination `destination`, as if hashed.
fn flow(destination: u64, port: u64) -> FlowKey {
    let mix = |number: u64| {
        let z = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let destination = mix(destination.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
    FlowKey { hash: mix(destination ^ (port + 1).wrapping_mul(0xd134_2543_de82_ef95)), destination }
}

fn passes(
    flow_limiter: &mut FlowLimiter,
    limits: FlowLimits,
    flow: &FlowKey,
    now: u64,
) -> Result<(), DropReason> {
    if flow_limiter.knows(limits, flow) { Ok(()) } else { flow_limiter.admit(limits, flow, now) }
}

/// How many of these pass.
fn passed(
    flow_limiter: &mut FlowLimiter,
    limits: FlowLimits,
    flows: impl Iterator<Item = (FlowKey, u64)>,
) -> usize {
    flows.filter(|(flow, now)| passes(flow_limiter, limits, flow, *now).is_ok()).count()
}

#[test]
fn exactly_so_many_destinations_pass_and_one_more_does_not() {
    for limits in [
        FlowLimits { new_flows: 0, destinations: 50 },
        FlowLimits { new_flows: 200, destinations: 50 },
    ] {
        let mut flow_limiter = FlowLimiter::default();
        let mut to = |number, now| passes(&mut flow_limiter, limits, &flow(number, 443), now);
        assert!((0..50).all(|number| to(number, START).is_ok()), "at the limit");
        assert_eq!(to(50, START), Err(DropReason::Destinations), "one over it");
        assert!((0..50).all(|number| to(number, START).is_ok()), "those that are known go on");
        // A fiftieth of ten seconds later there is place for one, tried before or not.
        assert_eq!(to(50, START + SECOND / 5 - 1), Err(DropReason::Destinations));
        assert_eq!(to(50, START + SECOND / 5), Ok(()));
        assert_eq!(to(51, START + SECOND / 5), Err(DropReason::Destinations));
    }
}

#[test]
fn exactly_so_many_flows_pass_and_one_more_does_not() {
    let limits = FlowLimits { new_flows: 10, destinations: 1 };
    let mut flow_limiter = FlowLimiter::default();
    let mut to = |port, now| passes(&mut flow_limiter, limits, &flow(7, port), now);
    assert!((0..50).all(|port| to(port, START).is_ok()), "a burst of five seconds");
    assert_eq!(to(50, START), Err(DropReason::NewFlows));
    assert!((0..50).all(|port| to(port, START).is_ok()), "open flows go on");
    assert_eq!(to(50, START + SECOND / 10 - 1), Err(DropReason::NewFlows));
    assert_eq!(to(50, START + SECOND / 10), Ok(()));
    assert_eq!(to(51, START + SECOND / 10), Err(DropReason::NewFlows));
}

#[test]
fn what_is_refused_for_one_limit_uses_up_nothing_of_the_other() {
    let limits = FlowLimits { new_flows: 1, destinations: 3 };
    let mut flow_limiter = FlowLimiter::default();
    let mut to =
        |destination, port| passes(&mut flow_limiter, limits, &flow(destination, port), START);
    assert_eq!([to(1, 1), to(2, 1), to(3, 1)], [Ok(()); 3]);
    assert!((4..100).all(|destination| to(destination, 1) == Err(DropReason::Destinations)));
    assert_eq!([to(1, 2), to(1, 3)], [Ok(()); 2], "of five flows two were left");
    assert_eq!(to(1, 4), Err(DropReason::NewFlows));

    let limits = FlowLimits { new_flows: 1, destinations: 3 };
    let mut flow_limiter = FlowLimiter::default();
    let mut to =
        |destination, port, now| passes(&mut flow_limiter, limits, &flow(destination, port), now);
    assert!((0..5).all(|port| to(1, port, START).is_ok()));
    assert!((2..100).all(|number| to(number, 1, START) == Err(DropReason::NewFlows)));
    let later = START + 5 * SECOND;
    assert_eq!([to(2, 1, later), to(3, 1, later)], [Ok(()); 2], "two destinations were left");
}

#[test]
fn a_flow_that_goes_on_is_never_new_again_and_a_silent_one_is() {
    let limits = FlowLimits { new_flows: 1, destinations: 0 };
    let mut flow_limiter = FlowLimiter::default();
    let (steady, silent) = (flow(1, 1), flow(2, 2));
    passes(&mut flow_limiter, limits, &silent, START).expect("new");
    // Others take all that there is, through many windows.
    for step in 0..300u64 {
        let now = START + step * SECOND / 4;
        passes(&mut flow_limiter, limits, &steady, now).expect("it goes on");
        passes(&mut flow_limiter, limits, &flow(step + 10, 1), now).ok();
        assert!(passes(&mut flow_limiter, limits, &flow(step + 1000, 1), now).is_err() || step < 5);
    }
    let end = START + 75 * SECOND;
    passes(&mut flow_limiter, limits, &flow(9000, 1), end).expect("a place that became free");
    assert_eq!(passes(&mut flow_limiter, limits, &silent, end), Err(DropReason::NewFlows));
}

#[test]
fn a_changed_limit_holds_at_once_and_owes_nothing_of_the_old_one() {
    let slow = FlowLimits { new_flows: 1, destinations: 2 };
    let mut flow_limiter = FlowLimiter::default();
    let ports = |ports: std::ops::Range<u64>, now| ports.map(move |port| (flow(1, port), now));
    assert_eq!(passed(&mut flow_limiter, slow, ports(0..100, START)), 5);
    let fast = FlowLimits { new_flows: 300, destinations: 0 };
    let later = START + SECOND;
    let got = passed(&mut flow_limiter, fast, ports(0..3000, later));
    assert!((305..307).contains(&got), "what is known, and the second that has passed: {got}");
    assert_eq!(passed(&mut flow_limiter, slow, ports(5000..5100, later)), 0);
    let off = FlowLimits::default();
    assert!(off.is_off() && !slow.is_off());
}

/// A scan of one port of many destinations, so many a second.
fn scan(
    first: u64,
    count: u64,
    per_second: u64,
    start: u64,
) -> impl Iterator<Item = (FlowKey, u64)> {
    (0..count).map(move |i| (flow(first + i, 443), start + i * SECOND / per_second))
}

#[test]
fn a_scan_gets_its_burst_and_then_little_more_than_the_limit() {
    // 30 seconds: 1000 at once, and 100 a second. Of the rest 1 in 1000 passes at most.
    let mut flow_limiter = FlowLimiter::default();
    let got = passed(&mut flow_limiter, DEFAULT, scan(0, 300_000, 10_000, START));
    let allowed = 1000 + 30 * 100;
    assert!((allowed - 1..allowed + 296_000 / 1000).contains(&got), "{got}");

    // One host's ports: 1000 at once and 200 a second.
    let mut flow_limiter = FlowLimiter::default();
    let ports = (0..300_000).map(|port| (flow(1, port), START + port * SECOND / 10_000));
    let got = passed(&mut flow_limiter, DEFAULT, ports);
    let allowed = 1000 + 30 * 200;
    assert!((allowed - 1..allowed + 293_000 / 1000).contains(&got), "{got}");
}

#[test]
fn who_keeps_many_flows_alive_gets_no_free_scan_by_it() {
    let mut flow_limiter = FlowLimiter::default();
    let limits = FlowLimits { destinations: 0, ..DEFAULT };
    let (mut alive, mut now) = (0, START);
    // Two minutes in which nothing is let go that has once passed.
    for _ in 0..24 {
        now += FLOW_WINDOW;
        alive += 1000;
        passed(&mut flow_limiter, limits, (0..alive).map(|port| (flow(1, port), now)));
    }
    let got = passed(&mut flow_limiter, limits, scan(1 << 40, 100_000, 100_000, now));
    assert!((200..533).contains(&got), "a second of the rate, and 1 in 300: {got} of 100000");
}

#[test]
fn at_the_highest_limits_a_scan_is_stopped_too() {
    let limits = FlowLimits { new_flows: MAX_NEW_FLOWS, destinations: MAX_DESTINATIONS };
    let mut flow_limiter = FlowLimiter::default();
    let got = passed(&mut flow_limiter, limits, scan(0, 300_000, 10_000, START));
    let allowed = 1500 + 30 * 150;
    assert!((allowed - 1..allowed + 294_000 / 100).contains(&got), "{got}");
    let mut flow_limiter = FlowLimiter::default();
    let ports = (0..300_000).map(|port| (flow(1, port), START + port * SECOND / 10_000));
    let got = passed(&mut flow_limiter, limits, ports);
    let allowed = 1500 + 30 * 300;
    assert!((allowed - 1..allowed + 289_500 / 100).contains(&got), "{got}");
}

/// Exactly who was reached when.
#[derive(Default)]
struct Model {
    flows: HashMap<u64, u64>,
    destinations: HashMap<u64, u64>,
}

impl Model {
    fn reach(&mut self, flow: &FlowKey, now: u64) {
        self.flows.insert(flow.hash, now);
        self.destinations.insert(flow.destination, now);
    }

    /// Whether so many were reached in the last window, this one included.
    fn is_within(&self, limits: FlowLimits, flow: &FlowKey, now: u64) -> bool {
        let others = |seen: &HashMap<u64, u64>, own: u64, window: u64| {
            let is_recent = |(hash, at): &(&u64, &u64)| **hash != own && now - **at < window;
            seen.iter().filter(is_recent).count() as u64
        };
        let flows = others(&self.flows, flow.hash, FLOW_WINDOW);
        let destinations = others(&self.destinations, flow.destination, DESTINATION_WINDOW);
        (limits.new_flows == 0 || flows < u64::from(limits.new_flows) * 5)
            && (limits.destinations == 0 || destinations < u64::from(limits.destinations))
    }
}

proptest! {
    /// The promise: who reaches no more than the limits say in any window loses nothing.
    #[test]
    fn who_keeps_to_the_limits_is_never_refused(
        new_flows in 0u32..8,
        destinations in 0u32..20,
        steps in proptest::collection::vec((0u64..1_500_000_000, 0u64..40, 0u64..6), 1..600),
    ) {
        let limits = FlowLimits { new_flows, destinations };
        let (mut flow_limiter, mut model) = (FlowLimiter::default(), Model::default());
        let mut now = START;
        for (gap, destination, port) in steps {
            now += gap;
            let flow = flow(destination, port);
            if limits.is_off() || !model.is_within(limits, &flow, now) {
                continue;
            }
            prop_assert_eq!(passes(&mut flow_limiter, limits, &flow, now), Ok(()));
            model.reach(&flow, now);
        }
    }

    /// And whoever else does, what was reached in this window is reached again.
    #[test]
    fn what_passed_passes_again_within_its_window(
        steps in proptest::collection::vec((0u64..400_000_000, 0u64..300), 1..600),
    ) {
        let limits = FlowLimits { new_flows: 5, destinations: 10 };
        let (mut flow_limiter, mut last) = (FlowLimiter::default(), HashMap::new());
        let mut now = START;
        for (gap, destination) in steps {
            now += gap;
            let flow = flow(destination, 1);
            let outcome = passes(&mut flow_limiter, limits, &flow, now);
            let is_recent = last.get(&destination).is_some_and(|at| now - at < FLOW_WINDOW);
            prop_assert!(outcome.is_ok() || !is_recent);
            if outcome.is_ok() {
                last.insert(destination, now);
            }
        }
    }
}
