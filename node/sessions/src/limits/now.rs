//! The limits in force, as reports have them.

use serde::{Deserialize, Serialize};
use weir_config::limits::EachSession;

/// A quota of a day or a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaNow {
    /// Billed bytes that all sessions together may have; 0 is no limit.
    pub bytes: u64,
    /// What they have had.
    pub used: u64,
    /// When the count begins anew, in seconds since 1970.
    pub resets: u64,
}

/// The limits in force. Rates are in bits per second, of packets inside the tunnel; 0 is
/// no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsNow {
    /// All consumers' uploads together.
    pub rate_up: u64,
    /// All consumers' downloads together.
    pub rate_down: u64,
    /// The most that one session gets of that, up.
    pub share_up: u64,
    /// The most that one session gets of that, down.
    pub share_down: u64,
    /// What each session is held to.
    #[serde(flatten)]
    pub each_session: EachSession,
    /// Why all sessions are paused: `quota` or `schedule`.
    pub paused_for: Option<String>,
    /// The quota of the day.
    pub day: QuotaNow,
    /// The quota of the month.
    pub month: QuotaNow,
}
