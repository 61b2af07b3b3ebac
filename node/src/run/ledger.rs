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
use weir_config::{Config, Ledger, Shared};
use weir_control::{
    delivery::{self, UsageFile, Webhook},
    fleet,
    resolver::Resolver,
};
use weir_ledger::{
    StoreError,
    store::{
        retention::Retention,
        scrub::{Scrubbed, scrub},
    },
    unix_now,
};
use weir_sessions::{SessionError, registry::Sessions};

/// Between two looks at what sessions have used.
const TURN: Duration = Duration::from_secs(1);

/// See [`Rhythm::looks_every`].
const FORGET: Duration = Duration::from_secs(600);

/// By so much the machine's clock may differ from the time that passed between two such looks.
const MAX_CLOCK_STEP: Duration = Duration::from_secs(60);

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    checkpoints_every: Duration,
    records_every: Duration,
    grace: Duration,
    /// Between two looks for usage records and ended sessions whose time is over.
    looks_every: Duration,
    retention: Option<Retention>,
    /// For how long ended sessions are kept, in seconds; `None` for ever.
    sessions_kept: Option<u64>,
}

impl From<&Ledger> for Rhythm {
    fn from(ledger: &Ledger) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let days = |days: u32| (days != 0).then(|| u64::from(days) * 86_400);
        Self {
            checkpoints_every: seconds(ledger.checkpoint_seconds),
            records_every: seconds(ledger.record_seconds),
            grace: seconds(ledger.grace_seconds),
            looks_every: FORGET,
            retention: days(ledger.retain_days).map(|delivered| Retention {
                delivered,
                undelivered: days(ledger.retain_undelivered_days),
            }),
            sessions_kept: days(ledger.retain_sessions_days),
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
        config: &weir_config::Fleet,
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
    rhythm: &Shared<Rhythm>,
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
        forgotten: Look::now(),
        sweeping: false,
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
    rhythm: Shared<Rhythm>,
    /// Who must have a usage record before it may go.
    receivers: Vec<&'static str>,
    /// When the last checkpoint, the last turn of records and the last look for old ones were.
    saved: Instant,
    recorded: Instant,
    forgotten: Look,
    /// Whether there are more rows of ended sessions whose time is over.
    sweeping: bool,
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
        let look = Look::now();
        let is_due = is_due(self.forgotten.at, rhythm.looks_every);
        if (is_due || self.sweeping) && !self.forgotten.is_before(look) {
            info!(
                "the machine's clock was set: old records and sessions go in ten minutes at the earliest"
            );
            self.forgotten = look;
            self.sweeping = false;
            return Ok(());
        }
        if is_due {
            if let Some(retention) = rhythm.retention {
                let gone = self.sessions.forget(retention, &self.receivers)?;
                debug!(gone, "usage records whose time is over");
            }
            self.forgotten = look;
            self.sweeping = true;
        }
        // A little in each turn: so others get the ledger in between.
        if self.sweeping {
            let swept = self.sessions.sweep(rhythm.sessions_kept)?;
            self.sweeping = swept.goes_on;
            debug!(gone = swept.gone, "ended sessions whose time is over");
        }
        Ok(())
    }
}

/// When it was looked for what is old, by two clocks.
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

/// Whether it is time again. Turns come a little early or late.
fn is_due(last: Instant, every: Duration) -> bool {
    last.elapsed() + TURN / 2 >= every
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_ledger::store::check::Reader;
    use weir_sessions::registry::rig::Rig;

    #[test]
    fn ended_sessions_go_in_a_turn_ten_minutes_after_the_last_look() {
        let folder = tempfile::tempdir().expect("a folder");
        let rig = Rig::start(folder.path(), 4);
        rig.add(Some("alice"));
        rig.sessions.remove("alice").expect("removed");
        let rhythm = Rhythm {
            retention: Some(Retention { delivered: 0, undelivered: None }),
            sessions_kept: Some(0),
            ..Rhythm::from(&Ledger::default())
        };
        let now = Instant::now();
        let mut turn = Turn {
            sessions: Arc::clone(&rig.sessions),
            rhythm: Shared::from(rhythm),
            receivers: Vec::new(),
            saved: now,
            recorded: now,
            forgotten: Look::now(),
            sweeping: false,
        };
        let sessions = || {
            let report = Reader::open(&folder.path().join("ledger.db")).expect("opened").check();
            let report = report.expect("read");
            assert_eq!(report.problems, Vec::<String>::new());
            report.sessions
        };
        // It ended more than no second ago once the next one has begun.
        let ended = unix_now();
        while unix_now() <= ended + 1 {
            turn = turn.take();
            assert_eq!(sessions(), 1, "the last look was a moment ago");
        }
        turn.rhythm.set(Rhythm { looks_every: Duration::ZERO, ..rhythm });
        turn.forgotten.clock = 7;
        turn = turn.take();
        assert_eq!(sessions(), 1, "the clock was set");
        turn.take();
        assert_eq!(sessions(), 0);
    }

    #[test]
    fn by_a_clock_that_was_set_nothing_is_judged_before_the_next_look() {
        let first = Look { at: Instant::now(), clock: 1_700_000_000 };
        let later = |seconds: u64, clock: u64| Look {
            at: first.at + Duration::from_secs(seconds),
            clock: first.clock + clock,
        };
        for (passed, clock, is_before) in [
            (600, 600, true),
            (600, 645, true),
            (600, 560, true),
            (600, 700, false),
            (600, 400_000_000, false),
            (600, 0, false),
        ] {
            assert_eq!(first.is_before(later(passed, clock)), is_before, "{passed} {clock}");
        }
        // A clock that stays where it was set is believed from then on.
        assert!(later(600, 400_000_000).is_before(later(1200, 400_000_600)));
        assert!(!later(600, 400_000_000).is_before(later(1200, 1200)), "it was put right");
    }
}
