//! The time of a iteration, read in one place and handed in from there.

use rustix::time::{ClockId, clock_gettime};

/// What the clocks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of a clock that does not go backwards.
    pub nanos: u64,
    /// Seconds since 1970.
    pub unix: u64,
}

impl Now {
    /// Reads the clocks. The date may be some milliseconds old, which makes it cheap.
    #[must_use]
    pub fn read() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let date = clock_gettime(ClockId::RealtimeCoarse);
        Self {
            nanos: now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64,
            unix: u64::try_from(date.tv_sec).unwrap_or_default(),
        }
    }
}

/// For how long this thread was on a processor, in nanoseconds.
#[must_use]
pub(super) fn thread_cpu_nanos() -> u64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}
