//! How long a session was open. Steps of the machine's clock do not count.

use std::time::{Duration, Instant};

/// Counts while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    before: Duration,
    since: Option<Instant>,
}

impl Clock {
    /// A clock that goes on from so many seconds.
    pub(super) fn new(seconds: u64, runs: bool) -> Self {
        Self { before: Duration::from_secs(seconds), since: runs.then(Instant::now) }
    }

    /// Whole seconds.
    pub(super) fn seconds(&self) -> u64 {
        self.before.saturating_add(self.running()).as_secs()
    }

    /// Starts it, or stops it.
    pub(super) fn run(&mut self, runs: bool) {
        self.before = self.before.saturating_add(self.running());
        self.since = runs.then(Instant::now);
    }

    fn running(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
