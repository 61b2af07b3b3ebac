//! The limits that hold, kept in step with the time, the traffic, and what the operator says.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::{
    calendar::{Period, minute_of_week},
    demand::Demands,
    share,
};
use crate::{
    Hold, Sessions,
    limits::{LimitsNow, QuotaNow},
};
use weir_accounts::{Accounts, FlowLimits, SharedLimits};
use weir_config::{
    Auto, Limits,
    amounts::{AtMost, BitRate},
    limit::BadLimit,
    limits::{Change, EachSession},
    schedule::{Rule, rule_at},
};
use weir_ledger::{Began, LedgerError, Marks, SharedLedger, billed, unix_now};

/// Between two looks at who wants how much of the node's rate.
const TICK: Duration = Duration::from_millis(20);
/// Each session makes a look longer: then there are fewer of them.
const TICK_PER_SESSION: Duration = Duration::from_micros(10);
/// Between two looks at who is there.
const REFRESH: Duration = Duration::from_secs(1);

/// Their words in the ledger.
const PERIODS: [&str; 2] = ["day", "month"];

fn periods(settings: &Limits) -> [Period; 2] {
    [Period::Day, Period::Month(settings.month_reset_day)]
}

fn has_quota(settings: &Limits) -> bool {
    [settings.bytes_per_day, settings.bytes_per_month].iter().any(|quota| quota.bytes() != 0)
}

/// Holds each session to its number of open flows: the exit policy in the kernel.
pub trait FlowTable: Send + Sync {
    /// The flows of each family that a session may have at once; 0 for no limit.
    fn session_flows(&self) -> u32;

    /// Replaces that limit. May wait for the kernel.
    ///
    /// # Errors
    ///
    /// Says why the kernel does not take it. The limit before stays in force then.
    fn set_session_flows(&self, limit: &Auto<AtMost>) -> anyhow::Result<()>;
}

/// Why the limits are as they were before.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// One of them is none.
    #[error(transparent)]
    Bad(#[from] BadLimit),
    /// The kernel does not limit open flows so.
    #[error("session_flows stays as it was: {0:#}")]
    Flows(anyhow::Error),
}

/// Holds the node to its limits.
pub struct Limiter {
    sessions: Arc<Sessions>,
    ledger: SharedLedger,
    accounts: Arc<Accounts>,
    levels: Arc<SharedLimits>,
    flows: Arc<dyn FlowTable>,
    state: Mutex<State>,
    /// Held while limits change, which may take the kernel its time.
    changing: Mutex<()>,
    changed: Notify,
}

struct State {
    settings: Limits,
    /// The node's rates now, up and down.
    rates: [BitRate; 2],
    demands: Demands,
    measured: Instant,
    refreshed: Option<Instant>,
    marks: [Marked; 2],
    now: LimitsNow,
}

#[derive(Clone, Copy, Default)]
struct Marked {
    marks: Marks,
    is_saved: bool,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("settings", &self.state().settings).finish_non_exhaustive()
    }
}

impl Limiter {
    /// Holds these sessions to the limits of the configuration, from now on. `flows` has its limit
    /// already.
    ///
    /// # Errors
    ///
    /// When the ledger does not say what was used already.
    pub fn new(
        settings: Limits,
        sessions: Arc<Sessions>,
        ledger: SharedLedger,
        accounts: Arc<Accounts>,
        levels: Arc<SharedLimits>,
        flows: Arc<dyn FlowTable>,
    ) -> Result<Self, LedgerError> {
        let mut marks = [Marked::default(); 2];
        for (marked, period) in marks.iter_mut().zip(PERIODS) {
            if let Some(marks) = ledger.lock().quota(period)? {
                *marked = Marked { marks, is_saved: true };
            }
        }
        let state = State {
            settings: Limits::default(),
            rates: [BitRate::OFF; 2],
            demands: Demands::default(),
            measured: Instant::now(),
            refreshed: None,
            marks,
            now: LimitsNow::default(),
        };
        let (state, changing, changed) = (Mutex::new(state), Mutex::default(), Notify::new());
        let limiter = Self { sessions, ledger, accounts, levels, flows, state, changing, changed };
        limiter.put_in_force(settings);
        Ok(limiter)
    }

    /// Replaces all limits, while the node runs: those of a configuration that was read again. May
    /// wait for the kernel.
    ///
    /// # Errors
    ///
    /// When the kernel does not take one of them; nothing has changed then.
    pub fn apply(&self, settings: Limits) -> Result<(), LimitError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(settings)
    }

    fn replace(&self, settings: Limits) -> Result<(), LimitError> {
        // What can fail comes first.
        self.flows.set_session_flows(&settings.session_flows).map_err(LimitError::Flows)?;
        self.put_in_force(settings);
        Ok(())
    }

    fn put_in_force(&self, settings: Limits) {
        let (up, down) = (settings.session_rate_up.bits(), settings.session_rate_down.bits());
        self.sessions.set_default_rates(up, down);
        self.sessions.set_at_most(settings.sessions);
        self.levels.set_flow_limits(FlowLimits {
            new_flows: settings.session_new_flows.get(),
            destinations: settings.session_destinations.get(),
        });
        self.state().settings = settings;
        self.look(unix_now());
        self.share();
        self.changed.notify_one();
    }

    /// Changes some of the limits, until the node stops or [`Limiter::apply`] is called. May wait
    /// for the kernel.
    ///
    /// # Errors
    ///
    /// When one of them is none, or the kernel does not take it; nothing has changed then.
    pub fn change(&self, change: &Change) -> Result<(), LimitError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settings = self.settings();
        change.apply_to(&mut settings, self.sessions.max())?;
        self.replace(settings)
    }

    /// The limits as they were set.
    #[must_use]
    pub fn settings(&self) -> Limits {
        self.state().settings.clone()
    }

    /// The limits in force, and how much of the quotas is used.
    #[must_use]
    pub fn now(&self) -> LimitsNow {
        let mut now = self.state().now.clone();
        let total = billed(&self.sessions.totals());
        let marks = self.state().marks;
        now.day.used = marks[0].marks.used(total);
        now.month.used = marks[1].marks.used(total);
        [now.share_up, now.share_down] =
            self.levels.fair_share().map(|bytes| bytes.saturating_mul(8));
        let contacts = self.levels.flow_limits();
        now.each_session = EachSession {
            session_new_flows: contacts.new_flows,
            session_destinations: contacts.destinations,
            session_flows: self.flows.session_flows(),
        };
        now
    }

    /// Waits until the limits were changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Looks at the clock and the quotas. To be called about once a second; may write to the ledger.
    pub fn look(&self, now: u64) {
        // Of thousands of sessions the sum is not made each second for nothing.
        let total = self.is_total_needed(now).then(|| billed(&self.sessions.totals()));
        let mut state = self.state();
        let settings = state.settings.clone();
        if total.is_none() && has_quota(&settings) {
            // Set since the look above, by a change that looks for itself.
            return;
        }
        let offset = i64::from(settings.utc_offset_minutes) * 60;
        let mut quotas = [QuotaNow::default(); 2];
        let limits = [settings.bytes_per_day, settings.bytes_per_month];
        for (index, period) in periods(&settings).into_iter().enumerate() {
            let (started, resets) = period.around(now, offset);
            let marked = &mut state.marks[index];
            let previous = period.around(started.saturating_sub(1), offset).0;
            let began = Began { this: started, previous };
            let marks = total.map_or(marked.marks, |total| marked.marks.at(began, total));
            if marks != marked.marks {
                *marked = Marked { marks, is_saved: false };
            }
            let used = total.map_or(0, |total| marks.used(total));
            quotas[index] = QuotaNow { bytes: limits[index].bytes(), used, resets };
        }
        let is_used_up = |quota: &QuotaNow| quota.bytes != 0 && quota.used >= quota.bytes;
        let rule = rule_at(&settings.schedule, minute_of_week(now, offset));
        let hold = match rule {
            _ if quotas.iter().any(is_used_up) => Some(Hold::Quota),
            Some(Rule::Closed) => Some(Hold::Schedule),
            _ => None,
        };
        state.rates = [settings.node_rate_up, settings.node_rate_down];
        if let Some(Rule::Rates { up, down }) = rule {
            state.rates = [up.unwrap_or(state.rates[0]), down.unwrap_or(state.rates[1])];
        }
        let [rate_up, rate_down] = state.rates.map(BitRate::bits);
        let paused_for = hold.map(|hold| hold.as_str().to_owned());
        let [day, month] = quotas;
        state.now =
            LimitsNow { rate_up, rate_down, paused_for, day, month, ..LimitsNow::default() };
        drop(state);
        if self.sessions.held() != hold {
            match hold {
                Some(Hold::Quota) => warn!("the quota is used up: all sessions are paused"),
                Some(Hold::Schedule) => info!("closed by the schedule: all sessions are paused"),
                None => info!("open again: the node's limits no longer pause sessions"),
            }
            self.sessions.hold(hold);
        }
        self.save_marks();
    }

    /// Whether a quota is set, or the mark of a period that begins is to be made.
    fn is_total_needed(&self, now: u64) -> bool {
        let state = self.state();
        let settings = &state.settings;
        let offset = i64::from(settings.utc_offset_minutes) * 60;
        let begins = |(period, marked): (Period, &Marked)| {
            marked.marks.now.started != period.around(now, offset).0
        };
        has_quota(settings) || periods(settings).into_iter().zip(&state.marks).any(begins)
    }

    /// Where a period has begun, the ledger must know: tries until it does.
    fn save_marks(&self) {
        for (index, period) in PERIODS.into_iter().enumerate() {
            let Marked { marks, is_saved } = self.state().marks[index];
            if is_saved {
                continue;
            }
            match self.ledger.lock().set_quota(period, marks) {
                Ok(()) => self.state().marks[index].is_saved = true,
                Err(error) => warn!(%error, period, "cannot record that a quota has been reset"),
            }
        }
    }

    /// Shares the node's rates between the sessions. Returns when to call it again; `None` is not
    /// before the limits were changed.
    pub fn share(&self) -> Option<Duration> {
        let mut state = self.state();
        let state = &mut *state;
        if state.rates == [BitRate::OFF; 2] {
            self.levels.set_fair_share(0, 0);
            state.refreshed = None;
            return None;
        }
        let now = Instant::now();
        let is_fresh = |at: Instant| now.duration_since(at) < REFRESH;
        if !state.refreshed.is_some_and(is_fresh) {
            state.demands.refresh(&self.accounts);
            state.refreshed = Some(now);
        }
        let mut wants = state.demands.measure(&self.accounts, now.duration_since(state.measured));
        state.measured = now;
        let mut level = |way: usize| match state.rates[way] {
            BitRate::OFF => 0,
            rate => share::level(rate.bytes(), &mut wants[way]),
        };
        self.levels.set_fair_share(level(0), level(1));
        Some(TICK + TICK_PER_SESSION * state.demands.len() as u32)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
