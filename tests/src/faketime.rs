//! A clock of the node's own, which the test sets: Debian's libfaketime, loaded into the node.
//!
//! Only the time of day is another one. What measures how long something takes goes on as it does
//! when somebody sets a machine's clock.

use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use crate::Node;

/// A day, in seconds.
pub const DAY: u64 = 86_400;

/// The loader puts the machine's own directory for `$LIB`.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

/// The clock of one node.
#[derive(Debug)]
pub struct Clock {
    /// The library reads it each time somebody asks what time it is. It is beside the node's
    /// configuration, where its sandbox lets it read.
    file: PathBuf,
    /// The machine's time when it said noon of today.
    noon: u64,
    /// Noon of today.
    today: u64,
}

impl Clock {
    /// Gives a node that has not been started a clock, which says noon of today: no test is long
    /// enough to meet a midnight that it does not want.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn of(node: &mut Node<'_>) -> Result<Self> {
        let file = node.config_path().with_file_name("clock");
        let noon = now()?;
        let clock = Self { file, noon, today: noon - noon % DAY + DAY / 2 };
        clock.set(0)?;
        node.set_environment("LD_PRELOAD", LIBRARY);
        node.set_environment("FAKETIME_TIMESTAMP_FILE", &clock.file.to_string_lossy());
        node.set_environment("FAKETIME_NO_CACHE", "1");
        node.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        node.set_environment("NO_FAKE_STAT", "1");
        Ok(clock)
    }

    /// Puts it to the noon of so many days from today, and as long after that as the test has run.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self, days: i64) -> Result<()> {
        let offset = self.noon_of(days).cast_signed() - self.noon.cast_signed();
        // In one step: half a number would be a time as well.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{offset:+}\n"))?;
        Ok(fs::rename(&new, &self.file)?)
    }

    /// Noon of so many days from today, in seconds since 1970.
    #[must_use]
    pub fn noon_of(&self, days: i64) -> u64 {
        self.today.saturating_add_signed(days * DAY.cast_signed())
    }
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
