//! Which nodes are called, and how seldom, so that nobody makes a registry flood others.

use std::{collections::HashMap, net::SocketAddr};

use crate::network::Network;

/// Seconds between two calls of one node at one address.
const CALL_INTERVAL: u64 = 3600;
/// Calls into one network within that time.
const MAX_PER_NETWORK: u32 = 64;
/// Seconds for which an answer counts: a listing that is renewed is served while its node is called
/// again.
const ANSWER_LIFE: u64 = 3 * 3600;
/// The maximum number of nodes that are remembered.
const MAX_KNOWN: usize = 1 << 18;

/// A node's key at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) key: [u8; 32],
    pub(super) address: SocketAddr,
}

#[derive(Clone, Copy, Debug, Default)]
struct Call {
    called: u64,
    answered: Option<u64>,
}

/// The calls that were made. Times are seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Calls {
    known: HashMap<Target, Call>,
    networks: HashMap<Network, u32>,
    /// When the count of the networks began.
    since: u64,
}

impl Calls {
    /// Whether a node has answered at one of these a short time ago.
    pub(super) fn has_answered(&self, targets: &[Target], now: u64) -> bool {
        let answered = targets.iter().filter_map(|target| self.known.get(target)?.answered);
        answered.max().is_some_and(|at| now < at.saturating_add(ANSWER_LIFE))
    }

    /// Which of these is to be called now, if any. It counts as called.
    pub(super) fn next(&mut self, targets: &[Target], now: u64) -> Option<Target> {
        if now >= self.since.saturating_add(CALL_INTERVAL) {
            self.since = now;
            self.networks.clear();
            self.known.retain(|_, call| now < call.called.saturating_add(ANSWER_LIFE));
        }
        let is_due = |target: &&Target| {
            let call = self.known.get(target);
            call.is_none_or(|call| now >= call.called.saturating_add(CALL_INTERVAL))
        };
        let target = *targets.iter().find(is_due)?;
        let count = self.networks.entry(target.address.ip().into()).or_default();
        if *count >= MAX_PER_NETWORK || self.known.len() >= MAX_KNOWN {
            return None;
        }
        *count += 1;
        self.known.entry(target).or_default().called = now;
        Some(target)
    }

    /// A call is over.
    pub(super) fn done(&mut self, target: Target, has_answered: bool, now: u64) {
        if let Some(call) = self.known.get_mut(&target) {
            call.answered = has_answered.then_some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn target(host: u8, port: u16) -> Target {
        Target { key: [host; 32], address: ([198, 51, 100, host], port).into() }
    }

    #[test]
    fn a_node_is_called_once_an_hour_and_at_each_of_its_addresses() {
        let mut calls = Calls::default();
        let all = [target(1, 1), target(1, 2)];
        assert_eq!(calls.next(&all, NOW), Some(all[0]));
        assert_eq!(calls.next(&all, NOW), Some(all[1]));
        assert_eq!(calls.next(&all, NOW + 3599), None);
        assert_eq!(calls.next(&all, NOW + 3600), Some(all[0]));
    }

    #[test]
    fn an_answer_counts_until_a_call_fails_or_it_is_old() {
        let mut calls = Calls::default();
        let all = [target(1, 1)];
        assert!(!calls.has_answered(&all, NOW));
        calls.next(&all, NOW);
        assert!(!calls.has_answered(&all, NOW));
        calls.done(all[0], true, NOW);
        assert!(calls.has_answered(&all, NOW + 3 * 3600 - 1));
        assert!(!calls.has_answered(&all, NOW + 3 * 3600));
        assert!(!calls.has_answered(&[target(2, 1)], NOW), "another key");
        calls.next(&all, NOW + 3600);
        assert!(calls.has_answered(&all, NOW + 3600), "while it is called again");
        calls.done(all[0], false, NOW + 3600);
        assert!(!calls.has_answered(&all, NOW + 3600));
    }

    #[test]
    fn a_network_is_not_flooded() {
        let mut calls = Calls::default();
        let called = (0..1000).filter(|port| calls.next(&[target(1, *port)], NOW).is_some());
        assert_eq!(called.count(), 64);
        let elsewhere = Target { key: [1; 32], address: ([203, 0, 113, 1], 1).into() };
        assert_eq!(calls.next(&[elsewhere], NOW), Some(elsewhere));
        assert!(calls.next(&[target(1, 1001)], NOW + 3600).is_some(), "an hour later");
    }
}
