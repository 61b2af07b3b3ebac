//! The tasks on the ledger while the node runs: checkpoints, usage records, enforcing credit, and
//! delivering records.

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

use super::{blocks::BlockJournal, ledger_path};
use weir_config::{Config, Shared};
use weir_control::{
    delivery::{self, UsageFile, Webhook},
    fleet,
    resolver::Resolver,
};
use weir_ledger::{
    LedgerError, Retention, SharedLedger, UsageLog,
    scrub::{Scrubbed, scrub},
    unix_now,
};
use weir_sessions::{SessionError, registry::Sessions};

/// The interval of the task that checks and writes what sessions have used.
const TICK: Duration = Duration::from_secs(1);
/// The interval at which new blocks of ports are looked for: a TCP flow survives a kill only if its
/// block is in the ledger.
const BLOCKS_INTERVAL: Duration = Duration::from_millis(100);

/// See [`Intervals::retention`].
const RETENTION_INTERVAL: Duration = Duration::from_secs(600);

/// The maximum difference between the machine's clock and the time that passed between two such
/// looks.
const MAX_CLOCK_STEP: Duration = Duration::from_secs(60);

/// How often the tasks run, and how long things are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    checkpoint: Duration,
    record: Duration,
    /// How long a session without credit stays paused before it is closed.
    grace: Duration,
    /// The interval of looks for usage records and ended sessions whose time is over.
    retention: Duration,
    /// How long usage records are kept; `None` for ever.
    records_kept: Option<Retention>,
    /// How long ended sessions are kept, in seconds; `None` for ever.
    sessions_kept: Option<u64>,
    /// How long it is kept who had a block of ports, in seconds; `None` for ever.
    blocks_kept: Option<u64>,
}

impl From<&weir_config::Ledger> for Intervals {
    fn from(ledger: &weir_config::Ledger) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let days = |days: u32| (days != 0).then(|| u64::from(days) * 86_400);
        Self {
            checkpoint: seconds(ledger.checkpoint_seconds),
            record: seconds(ledger.record_seconds),
            grace: seconds(ledger.grace_seconds),
            retention: RETENTION_INTERVAL,
            records_kept: days(ledger.retain_days).map(|delivered| Retention {
                delivered,
                undelivered: days(ledger.retain_undelivered_days),
            }),
            sessions_kept: days(ledger.retain_sessions_days),
            blocks_kept: days(ledger.retain_blocks_days),
        }
    }
}

/// The running tasks.
pub(super) struct LedgerTasks {
    writer: JoinHandle<()>,
    /// Aborted when this is dropped: their cursors are in the ledger.
    deliveries: JoinSet<()>,
    /// Ends the check of all of the ledger, where that goes on.
    scrubbing: Arc<AtomicBool>,
}

impl LedgerTasks {
    /// Starts the tasks, which run until `stopped` says so.
    ///
    /// # Errors
    ///
    /// When the webhook cannot be set up, or there is no thread for the check.
    pub(super) fn start(
        config: &Config,
        intervals: &Shared<Intervals>,
        sessions: &Arc<Sessions>,
        ledger: &SharedLedger,
        blocks: Arc<BlockJournal>,
        resolver: Resolver,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let settings = &config.ledger;
        let mut deliveries = JoinSet::new();
        if !settings.webhook.is_empty() {
            let path = &settings.webhook_secret_file;
            let secret = fs::read_to_string(path).map(Zeroizing::new).with_context(|| {
            format!(
                "cannot read the webhook's secret {}. Fix: put a secret there that the receiver \
                 has too, for example: head -c 32 /dev/urandom | base64 > {}",
                path.display(),
                path.display()
            )
        })?;
            let ca_file = Path::new(&settings.webhook_ca_file);
            let ca_file = (!ca_file.as_os_str().is_empty()).then_some(ca_file);
            let webhook = Webhook::new(&settings.webhook, secret.trim().as_bytes())?;
            let webhook = webhook.with_roots(ca_file)?.with_resolver(resolver);
            deliveries.spawn(delivery::run(ledger.usage_log(), webhook));
        }
        if !settings.usage_file.is_empty() {
            let max_bytes = u64::from(settings.usage_file_mib) << 20;
            let file = UsageFile::new(settings.usage_file.clone().into(), max_bytes);
            deliveries.spawn(delivery::run(ledger.usage_log(), file));
        }
        let mut receivers = Vec::new();
        receivers.extend((!settings.webhook.is_empty()).then_some(delivery::webhook::NAME));
        receivers.extend((!settings.usage_file.is_empty()).then_some(delivery::file::NAME));
        receivers.extend((!config.fleet.url.is_empty()).then_some(fleet::stream::NAME));
        let now = Instant::now();
        let writer = Writer {
            sessions: Arc::clone(sessions),
            ledger: ledger.clone(),
            blocks,
            intervals: intervals.clone(),
            receivers,
            saved: now,
            recorded: now,
            swept: Look::now(),
            sweeping: false,
        };
        let scrubbing = Arc::new(AtomicBool::new(true));
        check_all(ledger_path(config), ledger, &scrubbing).context("cannot start a thread")?;
        let writer = tokio::spawn(run(writer, stopped));
        Ok(Self { writer, deliveries, scrubbing })
    }

    /// Takes part in a fleet: publishes usage records there, and takes its commands.
    pub(super) fn join(
        &mut self,
        config: &weir_config::Fleet,
        link: fleet::Link,
        usage: UsageLog,
        api: axum::Router,
    ) {
        let stream = fleet::Stream::new(link.clone(), config);
        self.deliveries.spawn(delivery::run(usage, stream));
        if config.commands {
            self.deliveries.spawn(fleet::commands::serve(link, api));
        }
    }

    /// Waits until no task writes to the ledger. They must have been told to stop.
    pub(super) async fn stop(mut self) {
        self.scrubbing.store(false, Relaxed);
        self.deliveries.shutdown().await;
        // It cannot be cancelled, and its panic has been reported already.
        self.writer.await.ok();
    }
}

/// Checks the whole ledger once, in its own thread. The start checked only what it read.
fn check_all(path: PathBuf, ledger: &SharedLedger, goes_on: &Arc<AtomicBool>) -> io::Result<()> {
    let (ledger, goes_on) = (ledger.clone(), Arc::clone(goes_on));
    let check = move || match scrub(&path, move || goes_on.load(Relaxed)) {
        Ok(Scrubbed::Sound) => info!("the whole ledger was checked and has no errors"),
        Ok(Scrubbed::Stopped) => {}
        Ok(Scrubbed::Damaged(what)) => {
            ledger.set_damage(&what);
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

/// Runs the writer once a second, off the packet path.
async fn run(mut writer: Writer, mut stopped: watch::Receiver<bool>) {
    let [mut ticks, mut looks] = [TICK, BLOCKS_INTERVAL].map(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_tick = tokio::select! {
            _ = ticks.tick() => true,
            _ = looks.tick() => false,
            _ = stopped.changed() => return,
        };
        if !is_tick && !writer.blocks.has_news() {
            continue;
        }
        let work = move || if is_tick { writer.tick() } else { writer.write_blocks() };
        writer = match tokio::task::spawn_blocking(work).await {
            Ok(writer) => writer,
            Err(error) => {
                warn!(%error, "the ledger is no longer updated: restart weir, and report this");
                return;
            }
        };
    }
}

/// Writes to the ledger what it is time for.
struct Writer {
    sessions: Arc<Sessions>,
    ledger: SharedLedger,
    blocks: Arc<BlockJournal>,
    intervals: Shared<Intervals>,
    /// The receivers that must have a usage record before it is deleted.
    receivers: Vec<&'static str>,
    /// When the last checkpoint, the last records and the last look for old ones were.
    saved: Instant,
    recorded: Instant,
    swept: Look,
    /// Whether there are more rows of ended sessions or blocks of ports whose time is over.
    sweeping: bool,
}

impl Writer {
    fn write_blocks(self) -> Self {
        if let Err(error) = self.blocks.write() {
            // The tick tries again, and reports it.
            debug!(%error, "cannot write blocks of ports");
        }
        self
    }

    fn tick(mut self) -> Self {
        let intervals = self.intervals.get();
        // Limits hold also while nothing can be written.
        let enforced = self.sessions.enforce(intervals.grace, Instant::now());
        if let Ok(enforced) = &enforced
            && (enforced.paused, enforced.closed) != (0, 0)
        {
            let (paused, closed) = (enforced.paused, enforced.closed);
            info!(paused, closed, "sessions without credit");
        }
        let written = enforced.map(drop).and(self.write(*intervals).map_err(Into::into));
        let last_error = written.err().map(|error: SessionError| error.to_string());
        let before = self.ledger.set_last_error(last_error.clone());
        match (before, last_error) {
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

    /// Writes what it is time for. The next tick tries again what failed.
    fn write(&mut self, intervals: Intervals) -> Result<(), LedgerError> {
        if is_due(self.saved, intervals.checkpoint) || self.ledger.last_error().is_some() {
            self.sessions.checkpoint()?;
            self.saved = Instant::now();
        }
        self.blocks.write()?;
        if is_due(self.recorded, intervals.record) {
            self.sessions.record()?;
            self.recorded = Instant::now();
        }
        let look = Look::now();
        let is_due = is_due(self.swept.at, intervals.retention);
        if (is_due || self.sweeping) && !self.swept.is_before(look) {
            info!(
                "the machine's clock was set: old records, sessions and blocks of ports go in ten \
                 minutes at the earliest"
            );
            self.swept = look;
            self.sweeping = false;
            return Ok(());
        }
        if is_due {
            if let Some(retention) = intervals.records_kept {
                let gone = self.ledger.forget(retention, &self.receivers)?;
                debug!(gone, "usage records whose time is over");
            }
            self.swept = look;
            self.sweeping = true;
        }
        // A little in each tick, so that others get the ledger in between.
        if self.sweeping {
            let blocks = self.ledger.lock().forget_blocks(intervals.blocks_kept)?;
            let swept = self.ledger.lock().sweep(intervals.sessions_kept)?;
            self.sweeping = swept.goes_on || blocks.goes_on;
            debug!(gone = blocks.gone, "blocks of ports whose time is over");
            debug!(gone = swept.gone, "ended sessions whose time is over");
        }
        Ok(())
    }
}

/// When something was looked for, by two clocks.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    /// By the machine's clock, in seconds since 1970.
    clock: u64,
}

impl Look {
    fn now() -> Self {
        Self { at: Instant::now(), clock: unix_now() }
    }

    /// Whether the machine's clock went on as time did until `later`. One that is years ahead for
    /// some minutes, as while a machine boots, must not delete anything.
    fn is_before(self, later: Self) -> bool {
        let passed = later.at.saturating_duration_since(self.at).as_secs();
        self.clock.saturating_add(passed).abs_diff(later.clock) <= MAX_CLOCK_STEP.as_secs()
    }
}

/// Whether it is time again. Ticks come a little early or late.
fn is_due(last: Instant, every: Duration) -> bool {
    last.elapsed() + TICK / 2 >= every
}

#[cfg(test)]
mod tests;
