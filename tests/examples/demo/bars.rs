//! Progress bars that follow a counter of bytes.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Runs `work`, which takes about `time` and counts bytes, under a bar with the rate of now.
pub(crate) fn watch<T>(
    name: &str,
    time: Duration,
    work: impl FnOnce(&AtomicU64) -> Result<T>,
) -> Result<T> {
    let bar = ProgressBar::new(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    bar.set_style(
        ProgressStyle::with_template("{prefix:28} [{bar:30}] {msg}")?.progress_chars("=> "),
    );
    bar.set_prefix(name.to_owned());
    let (bytes, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let start = Instant::now();
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(200));
                let now = bytes.load(Ordering::Relaxed);
                let elapsed = start.elapsed().min(time);
                bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
                bar.set_message(format!("{:.2} Gbit/s", (now - last) as f64 * 8.0 / 0.2e9));
                last = now;
            }
        });
        let result = work(&bytes);
        done.store(true, Ordering::Relaxed);
        result
    });
    bar.finish_and_clear();
    result
}
