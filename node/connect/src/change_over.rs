//! Which node is used, and when the next one is. Pure: it is told what happened, and says what to
//! do. The next tunnel is up and has answered before the present one goes.

use crate::{
    Slot,
    clock::{MILLISECOND, SECOND},
};

/// The time that a node has to answer for the first time, in nanoseconds.
pub const CONNECT_TIMEOUT: u64 = 6 * SECOND;
/// After all nodes were tried in vain: the time to the next try.
pub const RETRY_DELAY: u64 = 10 * SECOND;

/// Why a node is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It does not answer.
    NoAnswer,
    /// It answers, and carries no traffic.
    NoTraffic,
    /// It bills more than it carried.
    Bill,
    /// Its usage receipt is wrong.
    Receipt,
    /// Its session is paused, and nothing may be paid any more.
    OutOfMoney,
}

impl Cause {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "it does not answer",
            Self::NoTraffic => "it answers, but carries no traffic",
            Self::Bill => "it bills more than it carried",
            Self::Receipt => "its usage receipt is wrong",
            Self::OutOfMoney => "its session is used up, and the budget too",
        }
    }

    /// Whether the node is not to be tried again.
    pub(crate) const fn is_final(self) -> bool {
        self.is_fraud() || matches!(self, Self::OutOfMoney)
    }

    /// Whether the node cheats: then no exit is better than this one.
    pub(crate) const fn is_fraud(self) -> bool {
        matches!(self, Self::Bill | Self::Receipt)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Time,
    /// The node of this tunnel has answered.
    Answered(Slot),
    /// The tunnel cannot be made.
    CannotOpen(Slot),
    /// The node of this tunnel is to be left.
    Failed(Slot, Cause),
}

/// What to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a tunnel to this candidate.
    Open {
        /// Its interface.
        slot: Slot,
        /// The number of the candidate.
        candidate: usize,
    },
    /// Send everything through this tunnel.
    Activate(Slot),
    /// Remove this tunnel.
    Close(Slot),
    /// No candidate answers: it may be because of what they are reached through.
    Doubt,
}

/// The state of a connection with several candidates.
#[derive(Clone, Debug)]
pub struct ChangeOver {
    is_banned: Vec<bool>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// No tunnel.
    Idle { retry: u64, last: Option<usize> },
    /// A tunnel that has not answered yet, perhaps beside one that is used.
    Trying { slot: Slot, candidate: usize, until: u64, tried: usize, old: Option<(Slot, usize)> },
    /// A tunnel that is used. Failures are heard from `hold` on.
    Connected { slot: Slot, candidate: usize, hold: u64 },
}

impl ChangeOver {
    /// Begins with this number of candidates. The first one is tried first.
    #[must_use]
    pub fn new(candidates: usize) -> Self {
        let state = State::Idle { retry: 0, last: None };
        Self { is_banned: vec![false; candidates], state }
    }

    /// The tunnel that is used, with its candidate.
    #[must_use]
    pub const fn active(&self) -> Option<(Slot, usize)> {
        match self.state {
            State::Idle { .. } => None,
            State::Trying { old, .. } => old,
            State::Connected { slot, candidate, .. } => Some((slot, candidate)),
        }
    }

    /// The candidates beside the one in use that may be tried.
    #[must_use]
    pub fn spares(&self) -> usize {
        let used = self.active().map(|(_, candidate)| candidate);
        let others = self.is_banned.iter().enumerate();
        others.filter(|(number, banned)| !**banned && Some(*number) != used).count()
    }

    /// There is one candidate more, the last.
    pub fn add(&mut self) {
        self.is_banned.push(false);
    }

    /// The candidates are reached through another node from now on: what they did not answer before
    /// says nothing.
    pub const fn begin_again(&mut self, now: u64) {
        match &mut self.state {
            State::Idle { retry, .. } => *retry = now,
            State::Trying { until, .. } => *until = now + CONNECT_TIMEOUT,
            State::Connected { hold, .. } => *hold = now,
        }
    }

    /// Whether a tunnel is tried now.
    #[must_use]
    pub const fn is_trying(&self) -> bool {
        matches!(self.state, State::Trying { .. })
    }

    /// Whether there is no tunnel, and no candidate that may be tried again.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        matches!(self.state, State::Idle { .. }) && self.is_banned.iter().all(|banned| *banned)
    }

    /// When [`Event::Time`] is due next; `None` if it is not.
    #[must_use]
    pub const fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Idle { retry, .. } => Some(retry),
            State::Trying { until, .. } => Some(until),
            State::Connected { .. } => None,
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, now: u64, event: Event) -> Vec<Action> {
        match (self.state, event) {
            (State::Idle { retry, last }, Event::Time) if now >= retry => {
                self.try_next(now, Slot::A, last, 0, None)
            }
            (State::Trying { slot, candidate, old, .. }, Event::Answered(from)) if from == slot => {
                self.state = State::Connected { slot, candidate, hold: now };
                let close = old.map(|(old, _)| Action::Close(old));
                [Action::Activate(slot)].into_iter().chain(close).collect()
            }
            (State::Trying { until, .. }, Event::Time) if now >= until => self.give_up(now),
            (State::Trying { slot, .. }, Event::CannotOpen(failed)) if failed == slot => {
                self.give_up(now)
            }
            (State::Connected { slot, candidate, hold }, Event::Failed(failed, cause))
                if failed == slot && (now >= hold || cause.is_fraud()) =>
            {
                self.leave(now, slot, candidate, cause)
            }
            _ => Vec::new(),
        }
    }

    fn leave(&mut self, now: u64, slot: Slot, candidate: usize, cause: Cause) -> Vec<Action> {
        let is_alone = self.next(Some(candidate), Some(candidate)).is_none();
        if is_alone && !cause.is_fraud() {
            // There is nothing better: it may come back, or be paid by hand.
            self.state = State::Connected { slot, candidate, hold: now + RETRY_DELAY };
            return if cause.is_final() { Vec::new() } else { vec![Action::Doubt] };
        }
        if cause.is_final()
            && let Some(banned) = self.is_banned.get_mut(candidate)
        {
            *banned = true;
        }
        if is_alone {
            self.state = State::Idle { retry: now + RETRY_DELAY, last: Some(candidate) };
            return vec![Action::Close(slot)];
        }
        self.try_next(now, slot.other(), Some(candidate), 0, Some((slot, candidate)))
    }

    /// The candidate that is tried has not answered.
    fn give_up(&mut self, now: u64) -> Vec<Action> {
        let State::Trying { slot, candidate, tried, old, .. } = self.state else {
            return Vec::new();
        };
        let mut actions = vec![Action::Close(slot)];
        actions.extend(self.try_next(now, slot, Some(candidate), tried, old));
        actions
    }

    /// Tries the candidate after `last`, or rests if all were tried.
    fn try_next(
        &mut self,
        now: u64,
        slot: Slot,
        last: Option<usize>,
        tried: usize,
        old: Option<(Slot, usize)>,
    ) -> Vec<Action> {
        let except = old.map(|(_, candidate)| candidate);
        let count = (0..self.is_banned.len())
            .filter(|number| self.is_banned.get(*number) == Some(&false) && Some(*number) != except)
            .count();
        match self.next(last, except).filter(|_| tried < count) {
            Some(candidate) => {
                let until = now + CONNECT_TIMEOUT;
                self.state = State::Trying { slot, candidate, until, tried: tried + 1, old };
                vec![Action::Open { slot, candidate }]
            }
            None => {
                let retry = now + RETRY_DELAY;
                self.state = match old {
                    Some((slot, candidate)) => State::Connected { slot, candidate, hold: retry },
                    None => State::Idle { retry, last },
                };
                if tried > 0 { vec![Action::Doubt] } else { Vec::new() }
            }
        }
    }

    /// The candidate after `last` that may be tried.
    fn next(&self, last: Option<usize>, except: Option<usize>) -> Option<usize> {
        let count = self.is_banned.len();
        let start = last.map_or(0, |last| last + 1);
        (start..start + count)
            .map(|number| number % count)
            .find(|number| self.is_banned.get(*number) == Some(&false) && Some(*number) != except)
    }
}

/// How often a connection looks around: more often while it tries a node.
#[must_use]
pub const fn tick(is_trying: bool) -> u64 {
    if is_trying { 50 * MILLISECOND } else { 250 * MILLISECOND }
}

#[cfg(test)]
mod tests;
