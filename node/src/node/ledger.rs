//! What is done to the ledger while the node runs: checkpoints, usage records, limits of credit,
//! and the delivery of records.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, error, info, warn};
use zeroize::Zeroizing;

use super::ledger_path;
use crate::{
    config::{self, Config, Ledger},
    delivery::{self, UsageFile, Webhook},
    fleet,
    live::Live,
    resolver::Resolver,
    session::{
        SessionError, StoreError,
        registry::Sessions,
        store::{
            retention::Retention,
            scrub::{Scrubbed, scrub},
        },
    },
};

/// Between two looks at what sessions have used.
const TURN: Duration = Duration::from_secs(1);

/// Between two looks for usage records whose time is over.
const FORGET: Duration = Duration::from_secs(600);

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    checkpoints_every: Duration,
    records_every: Duration,
    grace: Duration,
    retention: Option<Retention>,
}

impl From<&Ledger> for Rhythm {
    fn from(ledger: &Ledger) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let days = |days: u32| (days != 0).then(|| u64::from(days) * 86_400);
        Self {
            checkpoints_every: seconds(ledger.checkpoint_seconds),
            records_every: seconds(ledger.record_seconds),
            grace: seconds(ledger.grace_seconds),
            retention: days(ledger.retain_days).map(|delivered| Retention {
                delivered,
                undelivered: days(ledger.retain_undelivered_days),
            }),
        }
    }
}

/// The tasks.
pub(super) struct Books {
    keeper: JoinHandle<()>,
    /// Aborted when it goes: their cursors are in the ledger.
    deliveries: JoinSet<()>,
    /// Ends the check of all of the ledger, where that goes on.
    scrubbing: Arc<AtomicBool>,
}

impl Books {
    /// Takes part in a fleet: publishes usage records there, and takes its commands.
    pub(super) fn join(
        &mut self,
        config: &config::Fleet,
        link: fleet::Link,
        sessions: &Arc<Sessions>,
        api: axum::Router,
    ) {
        let stream = fleet::Stream::new(link.clone(), config);
        self.deliveries.spawn(delivery::run(Arc::clone(sessions), stream));
        if config.commands {
            self.deliveries.spawn(fleet::commands::serve(link, api));
        }
    }

    /// Waits until nobody writes to the ledger any more. They must have been told to stop.
    pub(super) async fn stop(mut self) {
        self.scrubbing.store(false, Relaxed);
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
    resolver: Resolver,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Books> {
    let ledger = &config.ledger;
    let mut deliveries = JoinSet::new();
    if !ledger.webhook.is_empty() {
        let path = &ledger.webhook_secret_file;
        let secret = fs::read_to_string(path).map(Zeroizing::new).with_context(|| {
            format!(
                "cannot read the webhook's secret {}. Fix: put a secret there that the receiver \
                 has too, for example: head -c 32 /dev/urandom | base64 > {}",
                path.display(),
                path.display()
            )
        })?;
        let ca_file = Path::new(&ledger.webhook_ca_file);
        let ca_file = (!ca_file.as_os_str().is_empty()).then_some(ca_file);
        let webhook = Webhook::new(&ledger.webhook, secret.trim().as_bytes())?;
        let webhook = webhook.with_roots(ca_file)?.with_resolver(resolver);
        deliveries.spawn(delivery::run(Arc::clone(sessions), webhook));
    }
    if !ledger.usage_file.is_empty() {
        let most = u64::from(ledger.usage_file_mib) << 20;
        let file = UsageFile::new(ledger.usage_file.clone().into(), most);
        deliveries.spawn(delivery::run(Arc::clone(sessions), file));
    }
    let mut receivers = Vec::new();
    receivers.extend((!ledger.webhook.is_empty()).then_some(delivery::webhook::NAME));
    receivers.extend((!ledger.usage_file.is_empty()).then_some(delivery::file::NAME));
    receivers.extend((!config.fleet.url.is_empty()).then_some(fleet::stream::NAME));
    let now = Instant::now();
    let turn = Turn {
        sessions: Arc::clone(sessions),
        rhythm: rhythm.clone(),
        receivers,
        saved: now,
        recorded: now,
        forgotten: now,
    };
    let scrubbing = Arc::new(AtomicBool::new(true));
    check_all(ledger_path(config), sessions, &scrubbing).context("cannot start a thread")?;
    let keeper = tokio::spawn(turns(turn, stopped));
    Ok(Books { keeper, deliveries, scrubbing })
}

/// Looks at all of the ledger once, which the start did not, in a thread of its own.
fn check_all(path: PathBuf, sessions: &Arc<Sessions>, goes_on: &Arc<AtomicBool>) -> io::Result<()> {
    let (sessions, goes_on) = (Arc::clone(sessions), Arc::clone(goes_on));
    let check = move || match scrub(&path, move || goes_on.load(Relaxed)) {
        Ok(Scrubbed::Sound) => info!("the whole ledger was checked and has no errors"),
        Ok(Scrubbed::Stopped) => {}
        Ok(Scrubbed::Damaged(what)) => {
            sessions.set_damage(&what);
            error!(
                ledger = %path.display(),
                "the ledger is damaged ({what}): new sessions and credit are refused from now on; \
                 sessions with credit continue. Fix: stop the node, keep a copy of the \
                 ledger, and restore it from a backup; `weir ledger check` shows details."
            );
        }
        Err(error) => warn!(%error, "cannot check the ledger"),
    };
    thread::Builder::new().name("weir-scrub".into()).spawn(check)?;
    Ok(())
}

/// Once a second, off the packet path.
async fn turns(mut turn: Turn, mut stopped: watch::Receiver<bool>) {
    let mut ticks = interval(TURN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.changed() => return,
        }
        turn = match tokio::task::spawn_blocking(move || turn.take()).await {
            Ok(turn) => turn,
            Err(error) => {
                warn!(%error, "the ledger is no longer updated: restart weir, and report this");
                return;
            }
        };
    }
}

struct Turn {
    sessions: Arc<Sessions>,
    rhythm: Live<Rhythm>,
    /// Who must have a usage record before it may go.
    receivers: Vec<&'static str>,
    /// When the last checkpoint, the last turn of records and the last look for old ones were.
    saved: Instant,
    recorded: Instant,
    forgotten: Instant,
}

impl Turn {
    fn take(mut self) -> Self {
        let rhythm = self.rhythm.get();
        // Limits hold also while nothing can be written.
        let enforced = self.sessions.enforce(rhythm.grace, Instant::now());
        if let Ok(enforced) = &enforced
            && (enforced.paused, enforced.closed) != (0, 0)
        {
            let (paused, closed) = (enforced.paused, enforced.closed);
            info!(paused, closed, "sessions without credit");
        }
        let written = enforced.map(drop).and(self.write(*rhythm).map_err(Into::into));
        let trouble = written.err().map(|error: SessionError| error.to_string());
        let before = self.sessions.set_trouble(trouble.clone());
        match (before, trouble) {
            (Some(_), None) => info!("the ledger is writable again"),
            (None, Some(error)) => warn!(
                error,
                "cannot write the ledger: counting continues in memory, and new sessions and \
                 credit are refused until it is writable"
            ),
            _ => {}
        }
        self
    }

    /// Writes what it is time for. What failed is tried again in the next turn.
    fn write(&mut self, rhythm: Rhythm) -> Result<(), StoreError> {
        if is_due(self.saved, rhythm.checkpoints_every) || self.sessions.trouble().is_some() {
            self.sessions.checkpoint()?;
            self.saved = Instant::now();
        }
        if is_due(self.recorded, rhythm.records_every) {
            self.sessions.record()?;
            self.recorded = Instant::now();
        }
        if let Some(retention) = rhythm.retention.filter(|_| is_due(self.forgotten, FORGET)) {
            let gone = self.sessions.forget(retention, &self.receivers)?;
            self.forgotten = Instant::now();
            debug!(gone, "usage records whose time is over");
        }
        Ok(())
    }
}

/// Whether it is time again. Turns come a little early or late.
fn is_due(last: Instant, every: Duration) -> bool {
    last.elapsed() + TURN / 2 >= every
}
