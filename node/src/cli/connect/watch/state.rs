//! What the live view knows: the last status, and the rates between it and those before.

use std::collections::VecDeque;

use weir_connect::state::{State, Status};

use crate::cli::units;

/// The number of rates that are kept, more than any terminal has columns.
const HISTORY: usize = 512;
/// Seconds after which counts that did not change mean that nothing is carried.
const STALE: u64 = 2;

/// Everything that is on the screen.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) status: Status,
    /// Bytes per second to and from the node, the latest last.
    pub(super) up: VecDeque<u64>,
    pub(super) down: VecDeque<u64>,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl View {
    /// Takes the status of this second.
    pub(super) fn take(&mut self, status: Status, now: u64) {
        let old = &self.status;
        let is_same = status.state == State::Connected
            && (old.state, &old.node, old.since) == (status.state, &status.node, status.since);
        if !is_same {
            // Another tunnel, whose counts begin anew.
            self.up.clear();
            self.down.clear();
        } else if let (Some(before), Some(at)) = (old.counted_ms, status.counted_ms) {
            let rate = |now: u64, then: u64| match at.checked_sub(before) {
                Some(0) | None => None,
                Some(ms) => Some(now.saturating_sub(then).saturating_mul(1000) / ms),
            };
            let rates = rate(status.sent, old.sent).zip(rate(status.received, old.received));
            let is_idle = now.saturating_sub(at / 1000) > STALE;
            if let Some((up, down)) = rates.or_else(|| is_idle.then_some((0, 0))) {
                push(&mut self.up, up);
                push(&mut self.down, down);
            }
        }
        (self.status, self.now) = (status, now);
    }

    /// Bytes per second, up and down.
    pub(super) fn rates(&self) -> Option<(f64, f64)> {
        Some((*self.up.back()? as f64, *self.down.back()? as f64))
    }

    /// What the session has left, in words.
    pub(super) fn left(&self) -> Option<String> {
        let time = self.status.left_seconds.map(units::span);
        let bytes = self.status.left_bytes.map(units::bytes);
        match (bytes, time) {
            (Some(bytes), Some(time)) => Some(format!("{bytes} and {time}")),
            (None, None) => self.status.billed_bytes.map(|_| "no limit".to_owned()),
            (bytes, time) => bytes.or(time),
        }
    }
}

fn push(history: &mut VecDeque<u64>, rate: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(rate);
}
