//! What is done to the ledger while the node runs: checkpoints, usage records, limits of credit,
//! and the delivery of records.

use std::{
    collections::HashMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    config::{Config, Ledger},
    delivery::{self, UsageFile, Webhook},
    live::Live,
    session::{SessionId, registry::Sessions},
};

/// Between two checkpoints of the counters to the ledger.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    records_every: Duration,
    grace: Duration,
}

impl From<&Ledger> for Rhythm {
    fn from(ledger: &Ledger) -> Self {
        Self {
            records_every: Duration::from_secs(ledger.record_seconds.into()),
            grace: Duration::from_secs(ledger.grace_seconds.into()),
        }
    }
}

/// The tasks.
pub(super) struct Books {
    keeper: JoinHandle<()>,
    /// Aborted when it goes: their cursors are in the ledger.
    deliveries: JoinSet<()>,
}

impl Books {
    /// Waits until nobody writes to the ledger any more. They must have been told to stop.
    pub(super) async fn stop(mut self) {
        self.deliveries.shutdown().await;
        // It cannot be cancelled, and its panic has been reported already.
        self.keeper.await.ok();
    }
}

/// Keeps the ledger until `stopped` says so.
pub(super) fn keep(
    config: &Config,
    rhythm: &Live<Rhythm>,
    sessions: &Arc<Sessions>,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Books> {
    let ledger = &config.ledger;
    let mut deliveries = JoinSet::new();
    if !ledger.webhook.is_empty() {
        let path = &ledger.webhook_secret_file;
        let secret = fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read the webhook's secret {}. Fix: put there what the receiver has too, \
                 for example: head -c 32 /dev/urandom | base64 > {}",
                path.display(),
                path.display()
            )
        })?;
        let webhook = Webhook::new(&ledger.webhook, secret.trim().as_bytes())?;
        deliveries.spawn(delivery::run(Arc::clone(sessions), webhook));
    }
    if !ledger.usage_file.is_empty() {
        let most = u64::from(ledger.usage_file_mib) << 20;
        let file = UsageFile::new(ledger.usage_file.clone().into(), most);
        deliveries.spawn(delivery::run(Arc::clone(sessions), file));
    }
    let keeper = tokio::spawn(turns(Arc::clone(sessions), rhythm.clone(), stopped));
    Ok(Books { keeper, deliveries })
}

/// Once a second, off the packet path.
async fn turns(sessions: Arc<Sessions>, rhythm: Live<Rhythm>, mut stopped: watch::Receiver<bool>) {
    let mut ticks = interval(CHECKPOINT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn =
        Turn { sessions, rhythm, recorded: Instant::now(), paused: HashMap::new(), failing: false };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.changed() => return,
        }
        turn = match tokio::task::spawn_blocking(move || turn.take()).await {
            Ok(turn) => turn,
            Err(error) => {
                warn!(%error, "the ledger is not kept any longer: restart weir, and report this");
                return;
            }
        };
    }
}

struct Turn {
    sessions: Arc<Sessions>,
    rhythm: Live<Rhythm>,
    recorded: Instant,
    paused: HashMap<SessionId, Instant>,
    failing: bool,
}

impl Turn {
    fn take(mut self) -> Self {
        let rhythm = self.rhythm.get();
        // Limits hold also while nothing can be written.
        let enforced = self.sessions.enforce(rhythm.grace, &mut self.paused);
        if let Ok(enforced) = &enforced
            && (enforced.paused, enforced.closed) != (0, 0)
        {
            let (paused, closed) = (enforced.paused, enforced.closed);
            info!(paused, closed, "sessions without credit");
        }
        let mut written =
            enforced.map(drop).and(self.sessions.checkpoint().map(drop).map_err(Into::into));
        if self.recorded.elapsed() >= rhythm.records_every {
            self.recorded = Instant::now();
            written = written.and(self.sessions.record().map(drop).map_err(Into::into));
        }
        match written {
            Ok(()) if self.failing => {
                info!("the ledger can be written again");
                self.failing = false;
            }
            Err(error) if !self.failing => {
                warn!(
                    %error,
                    "the ledger cannot be written: counting goes on in memory, and there is no \
                     new session or credit until it can"
                );
                self.failing = true;
            }
            _ => {}
        }
        self
    }
}
