//! The time of an iteration. Only the worker and the handshake thread read it; all else takes it as
//! an argument.

use rustix::time::{ClockId, clock_gettime};
use weir_wireguard::timestamp::Timestamp;

/// The time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub nanos: u64,
    /// The Unix time in seconds.
    pub unix: u64,
    /// The nanoseconds of the Unix time.
    pub unix_nanos: u32,
}

impl Now {
    /// Reads the clocks. The Unix time may be some milliseconds old, which makes it cheap.
    #[must_use]
    pub fn read() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let date = clock_gettime(ClockId::RealtimeCoarse);
        Self {
            nanos: now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64,
            unix: u64::try_from(date.tv_sec).unwrap_or_default(),
            unix_nanos: u32::try_from(date.tv_nsec).unwrap_or_default(),
        }
    }

    /// The date, as initiations state it.
    pub(crate) fn date(self) -> Timestamp {
        Timestamp::from_unix(self.unix, self.unix_nanos)
    }
}

/// The CPU time of this thread in nanoseconds.
#[must_use]
pub(super) fn thread_cpu_nanos() -> u64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}
