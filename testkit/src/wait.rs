//! Waiting for what takes a while.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Asks until the answer is `Ok`, and gives up after `limit` with the last answer.
///
/// # Errors
/// If no answer was `Ok` in time.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= end => {
                bail!("{what}: not within {} s: {error:#}", limit.as_secs())
            }
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}
