//! The clock, whose time is in usage records and handshakes.

#![expect(unsafe_code, reason = "adjtimex, which tells whether the clock is synchronised")]

use std::time::{SystemTime, UNIX_EPOCH};

use super::Known;

/// The clock as it is now.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Seconds since 1970.
    pub now: u64,
    /// Whether the kernel considers it synchronised.
    pub synchronised: Known<bool>,
}

impl Clock {
    pub(super) fn gather() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { now, synchronised: synchronised() }
    }
}

fn synchronised() -> Known<bool> {
    // SAFETY: all bits zero are a `timex` of plain numbers.
    let mut time: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: with no mode set the kernel only writes the struct, which outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut time) };
    if state < 0 {
        return Err(format!("adjtimex: {}", std::io::Error::last_os_error()));
    }
    Ok(time.status & libc::STA_UNSYNC == 0)
}
