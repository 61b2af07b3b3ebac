//! Whether somebody sets the machine's clock.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::{Condition, Part, Watch};

/// By how many seconds the clock must be set to be worth a word.
const CLOCK_STEP: f64 = 1.0;
/// For how long a step of the clock is shown.
const CLOCK_SHOWN: Duration = Duration::from_secs(600);

impl Watch {
    pub(super) fn look_at_clock(&mut self) {
        if let Some(step) = self.clock.step(Clock::read()) {
            let direction = if step > 0.0 { "forward" } else { "back" };
            let problem =
                format!("this machine's clock was set {direction} by {:.0} s", step.abs());
            let fix = "check what sets the time (timedatectl): usage records carry it";
            self.clock.shown_since = Some(Instant::now());
            self.conditions.set(&[Part::Clock], vec![Condition::new(Part::Clock, problem, fix)]);
        } else if self.clock.shown_since.is_some_and(|since| since.elapsed() >= CLOCK_SHOWN) {
            self.clock.shown_since = None;
            self.conditions.set(&[Part::Clock], Vec::new());
        }
    }
}

/// How far the machine's time is from the time since it was booted.
pub(super) struct Clock {
    offset: f64,
    shown_since: Option<Instant>,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { offset: Self::read(), shown_since: None }
    }

    /// By how many seconds the clock was set since the last question.
    fn step(&mut self, offset: f64) -> Option<f64> {
        let step = offset - std::mem::replace(&mut self.offset, offset);
        (step.abs() >= CLOCK_STEP).then_some(step)
    }

    fn read() -> f64 {
        let seconds = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
        };
        seconds(ClockId::Realtime) - seconds(ClockId::Boottime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_once_and_one_that_is_slewed_is_not() {
        let mut clock = Clock { offset: 1000.0, shown_since: None };
        assert_eq!(clock.step(1000.0005), None);
        assert_eq!(clock.step(4600.0005), Some(3600.0));
        assert_eq!(clock.step(4600.0), None);
        assert_eq!(clock.step(4500.0), Some(-100.0));
    }
}
