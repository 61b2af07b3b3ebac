//! The one place that reads clocks.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::registry::Now;

/// The present time.
pub(crate) fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let tick = START.get_or_init(Instant::now).elapsed();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // A bucket of the past is full: the clock begins well after 0.
    Now { unix, tick: u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX).saturating_add(1 << 40) }
}
