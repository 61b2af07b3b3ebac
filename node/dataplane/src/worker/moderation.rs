//! When a worker waits a little before it takes what has arrived, as a card moderates its interrupts.
//!
//! At a high rate, a worker that wakes for each frame spends more on waking, and on a system call for
//! each send, than on the frames. What comes in [`DELAY`] costs all that once.

use std::time::Duration;

/// How long the worker waits. The kernel may add its timer slack of 50 us (`PR_SET_TIMERSLACK`).
pub(super) const DELAY: Duration = Duration::from_micros(20);
/// Iterations with as many frames cost little for each anyway.
const ENOUGH_FRAMES: u64 = 64;
/// Above this time for each frame, in nanoseconds, a delay would be felt, and would gather little.
const MAX_NANOS_PER_FRAME: u64 = 25_000;
/// After a pause of this length, in nanoseconds, the next frame is served at once.
const MAX_PAUSE: u64 = 1_000_000;
/// The number of iterations that the averages are about, and before which the worker never waits.
const ITERATIONS: u64 = 16;
/// The fractions of a frame that an average can have.
const SCALE: u64 = 256;

/// The state of one worker.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    /// When the latest iteration with frames began, in nanoseconds.
    begun: u64,
    /// The number of iterations since the last pause.
    iterations: u64,
    /// Frames times [`SCALE`], and the nanoseconds in which they came: averages of the latest iterations,
    /// times [`ITERATIONS`]. A single slow iteration changes little: what is next to a worker on its core
    /// takes its share in pieces.
    frames: u64,
    nanos: u64,
}

impl Moderation {
    /// Notes an iteration that began at `now`, in nanoseconds, and took `frames` frames.
    pub(super) fn iteration(&mut self, now: u64, frames: u32) {
        if frames == 0 {
            return;
        }
        let interval = now.saturating_sub(self.begun);
        self.begun = now;
        if interval >= MAX_PAUSE {
            *self = Self { begun: now, ..Self::default() };
            return;
        }
        self.iterations += 1;
        let fade = |sum: u64| sum - sum / ITERATIONS;
        self.frames = fade(self.frames) + u64::from(frames) * SCALE;
        self.nanos = fade(self.nanos) + interval;
    }

    /// Whether waiting can be due: cheap, and without a clock.
    #[must_use]
    pub(super) fn is_quick(&self) -> bool {
        self.iterations >= ITERATIONS
            && self.nanos * SCALE <= self.frames * MAX_NANOS_PER_FRAME
            && self.frames < ENOUGH_FRAMES * ITERATIONS * SCALE
    }

    /// Whether the iteration that begins at `now` waits for more frames: not for the first one after
    /// a pause.
    #[must_use]
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.is_quick() && now.saturating_sub(self.begun) < MAX_PAUSE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves a steady load, and returns how many frames an iteration takes in the end.
    fn frames_at(nanos_per_frame: u64, iteration: u64) -> u64 {
        let (mut moderation, mut now, mut waiting) = (Moderation::default(), 0, 1);
        for _ in 0..1000 {
            moderation.iteration(now, u32::try_from(waiting).expect("few"));
            let delay = if moderation.is_due(now) { 70_000 } else { 0 };
            let passes = (iteration + delay).max(nanos_per_frame);
            now += passes;
            waiting = passes / nanos_per_frame;
        }
        waiting
    }

    #[test]
    fn a_fast_flow_of_single_frames_is_gathered() {
        assert_eq!(frames_at(5_000, 5_000), 15);
    }

    #[test]
    fn an_iteration_that_is_slow_by_chance_does_not_end_it() {
        let (mut moderation, mut now) = (Moderation::default(), 0);
        for number in 0..100 {
            // Every third comes late, with one frame.
            now += if number % 3 == 0 { 40_000 } else { 10_000 };
            moderation.iteration(now, 1);
        }
        assert!(moderation.is_due(now));
    }

    #[test]
    fn slow_traffic_is_never_delayed() {
        assert_eq!(frames_at(30_000, 5_000), 1);
    }

    #[test]
    fn an_iteration_that_takes_many_frames_is_not_delayed() {
        assert_eq!(frames_at(100, 20_000), 200);
    }

    #[test]
    fn iterations_without_a_frame_change_nothing_and_a_pause_ends_it() {
        let mut moderation = Moderation::default();
        for number in 0..100 {
            moderation.iteration(number * 1000, 1);
            moderation.iteration(number * 1000 + 500, 0);
        }
        assert!(moderation.is_due(100_000));
        assert!(!moderation.is_due(10_000_000), "the first frame is served at once");
        moderation.iteration(10_000_000, 1);
        assert!(!moderation.is_due(10_001_000));
    }
}
