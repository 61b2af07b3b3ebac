//! What keeps the limits in step with the time and the traffic while the node runs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};
use tracing::warn;

use weir_ledger::unix_now;
use weir_sessions::limits::Limiter;

/// Between two looks at the clock and the quotas.
const LOOK: Duration = Duration::from_secs(1);

/// Holds the node to its limits until `stopped` says so.
pub(super) fn keep(limiter: Arc<Limiter>, mut stopped: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut looked = Instant::now();
        loop {
            let until_look = LOOK.saturating_sub(looked.elapsed());
            let patience = limiter.share().map_or(until_look, |next| next.min(until_look));
            tokio::select! {
                () = tokio::time::sleep(patience) => {}
                () = limiter.changed() => {}
                _ = stopped.changed() => return,
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                let limiter = Arc::clone(&limiter);
                let look = tokio::task::spawn_blocking(move || limiter.look(unix_now()));
                if let Err(error) = look.await {
                    warn!(%error, "the limits are no longer applied: restart weir, and report \
                        this");
                    return;
                }
            }
        }
    })
}
