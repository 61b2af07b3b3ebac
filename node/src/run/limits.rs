//! Applies the limits as time passes and traffic changes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};
use tracing::warn;

use weir_ledger::unix_now;
use weir_sessions::limits::Limiter;

/// The interval at which the schedule and the quotas are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the task that applies the limits, until `stopped` says so.
pub(super) fn spawn(limiter: Arc<Limiter>, mut stopped: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut checked = Instant::now();
        loop {
            let until_check = CHECK_INTERVAL.saturating_sub(checked.elapsed());
            let wait = limiter.share().map_or(until_check, |next| next.min(until_check));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = limiter.changed() => {}
                _ = stopped.changed() => return,
            }
            if checked.elapsed() >= CHECK_INTERVAL {
                checked = Instant::now();
                let limiter = Arc::clone(&limiter);
                let check = tokio::task::spawn_blocking(move || limiter.look(unix_now()));
                if let Err(error) = check.await {
                    warn!(%error, "the limits are no longer applied: restart weir, and report \
                        this");
                    return;
                }
            }
        }
    })
}
