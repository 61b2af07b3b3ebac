//! Notifies the service manager that started the node, if there is one (systemd's `sd_notify`).

use std::{
    future,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tracing::debug;

/// The interval at which the service manager is asked for more time to start.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(5);
/// The time that it is asked to wait each time, in microseconds.
const EXTENSION_USEC: u32 = 30_000_000;

/// A step of the start that may take longer than the service manager waits. While this exists, the
/// service manager is asked for more time.
pub(super) struct Starting {
    /// Ends the thread when it is dropped.
    _ends: Sender<()>,
}

/// Begins a step of the start that may take long.
pub(super) fn starting(what: &'static str) -> Starting {
    let (ends, ended) = mpsc::channel::<()>();
    tell(&[NotifyState::Status(what)]);
    let wait = move || {
        while ended.recv_timeout(EXTENSION_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            tell(&[NotifyState::ExtendTimeoutUsec(EXTENSION_USEC)]);
        }
    };
    if let Err(error) = thread::Builder::new().name("weir-starting".into()).spawn(wait) {
        debug!(%error, "cannot ask the service manager to wait");
    }
    Starting { _ends: ends }
}

/// Says that the node serves.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the start waits for something outside the node, and asks for more time. The caller
/// repeats it within `interval`.
pub(super) fn waiting(reason: &str, interval: Duration) {
    // With a wide margin: the node may be short of processor time.
    let more = (interval * 20).as_micros().try_into().unwrap_or(u32::MAX);
    let status = format!("waiting for the uplink: {reason}");
    tell(&[NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(more)]);
}

/// Says that the node reloads its configuration, until [`ready`] is called.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no time for the service manager"),
    }
}

/// Says that the node stops, which takes the time to undo its changes.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("undoing the changes on this machine")]);
}

/// Feeds the watchdog while the control plane runs. Never returns.
pub(super) async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return future::pending().await };
    // Half of the limit, as systemd advises, and never busy.
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(100)));
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "cannot notify the service manager");
    }
}
