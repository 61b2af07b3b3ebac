//! Whether a tunnel carries anything. A state is not believed: only answers and bytes count. Pure.

use crate::clock::SECOND;

/// The interval of probes, in nanoseconds.
pub const PROBE_INTERVAL: u64 = 5 * SECOND;
/// Probes in a row without an answer after which a node is left.
pub const MAX_MISSES: u32 = 3;
/// Between two looks beyond which the machine was asleep, or this process was stopped.
const SLEEP: u64 = 2 * PROBE_INTERVAL;
/// Bytes sent in an interval that call for an answer: beyond what probes take.
const MIN_SENT: u64 = 4096;
/// Bytes received in an interval that are no answer to anything but probes.
const MAX_PROBE_ANSWERS: u64 = 512;

/// Why a node is to be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answers no probe.
    NoAnswer,
    /// It answers probes, and carries no traffic.
    NoTraffic,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Send a probe.
    Probe,
    /// Leave the node.
    Leave(Failure),
}

/// The health of one tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    next_probe: u64,
    last_look: u64,
    is_waiting: bool,
    misses: u32,
    silent_intervals: u32,
    sent: u64,
    received: u64,
}

impl Health {
    /// Of a tunnel that has just answered, and has counted this.
    #[must_use]
    pub const fn new(now: u64, sent: u64, received: u64) -> Self {
        Self {
            next_probe: now + PROBE_INTERVAL,
            last_look: now,
            is_waiting: false,
            misses: 0,
            silent_intervals: 0,
            sent,
            received,
        }
    }

    /// The node has answered a probe.
    pub const fn answered(&mut self) {
        self.is_waiting = false;
        self.misses = 0;
    }

    /// Whether the latest probe was due to be answered, and was not.
    #[must_use]
    pub const fn is_doubtful(&self) -> bool {
        self.misses > 0
    }

    /// Looks at the clock and at the bytes that were counted so far. Without `has_probe`, nothing
    /// answers probes at this node, and only bytes count.
    pub fn look(&mut self, now: u64, sent: u64, received: u64, has_probe: bool) -> Step {
        let was_asleep = now.saturating_sub(self.last_look) > SLEEP;
        self.last_look = now;
        if was_asleep {
            // Nothing could be answered meanwhile.
            *self = Self { misses: 0, ..Self::new(now, sent, received) };
            self.is_waiting = true;
            return Step::Probe;
        }
        if now < self.next_probe {
            return Step::Wait;
        }
        self.next_probe = now + PROBE_INTERVAL;
        let (up, down) = (sent.saturating_sub(self.sent), received.saturating_sub(self.received));
        (self.sent, self.received) = (sent, received);
        let floor = if has_probe { MAX_PROBE_ANSWERS } else { 0 };
        match (up >= MIN_SENT, down > floor) {
            (_, true) => self.silent_intervals = 0,
            (true, false) => self.silent_intervals += 1,
            (false, false) => {}
        }
        if has_probe && self.is_waiting {
            self.misses += 1;
        }
        if self.misses >= MAX_MISSES {
            return Step::Leave(Failure::NoAnswer);
        }
        if self.silent_intervals >= MAX_MISSES {
            return Step::Leave(Failure::NoTraffic);
        }
        self.is_waiting = true;
        Step::Probe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second from 1 s on, and says what was to be done at which second.
    fn watch(
        seconds: u64,
        mut counts: impl FnMut(u64) -> (u64, u64),
        answers: bool,
    ) -> (Vec<u64>, Option<(u64, Failure)>) {
        let mut health = Health::new(0, 0, 0);
        let mut probes = Vec::new();
        for second in 1..=seconds {
            let (sent, received) = counts(second);
            match health.look(second * SECOND, sent, received, true) {
                Step::Wait => {}
                Step::Probe => {
                    probes.push(second);
                    if answers {
                        health.answered();
                    }
                }
                Step::Leave(failure) => return (probes, Some((second, failure))),
            }
        }
        (probes, None)
    }

    #[test]
    fn a_node_that_answers_stays() {
        assert_eq!(watch(20, |_| (0, 0), true), (vec![5, 10, 15, 20], None));
    }

    #[test]
    fn three_probes_without_an_answer_are_enough() {
        let (probes, left) = watch(60, |_| (0, 0), false);
        assert_eq!((probes, left), (vec![5, 10, 15], Some((20, Failure::NoAnswer))));
    }

    #[test]
    fn a_node_that_answers_probes_and_carries_nothing_is_left() {
        let (_, left) = watch(60, |second| (second * 10_000, second * 40), true);
        assert_eq!(left, Some((15, Failure::NoTraffic)));
        let (_, left) = watch(60, |second| (second * 10_000, second * 1000), true);
        assert_eq!(left, None, "it answers");
        let (_, left) = watch(60, |second| (second * 100, second * 40), true);
        assert_eq!(left, None, "little was sent");
    }

    #[test]
    fn a_sleep_is_no_miss() {
        let mut health = Health::new(0, 0, 0);
        assert_eq!(health.look(5 * SECOND, 0, 0, true), Step::Probe);
        assert_eq!(health.look(3600 * SECOND, 0, 0, true), Step::Probe);
        health.answered();
        assert_eq!(health.look(3605 * SECOND, 0, 0, true), Step::Probe);
    }
}
