//! What the node tells the service manager that started it (systemd's `sd_notify`). Without one
//! nothing is told.

use std::{
    future,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tracing::debug;

/// Between two words to the service manager that the start goes on.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(5);
/// How much longer than that it is to wait each time.
const EXTENSION_USEC: u32 = 30_000_000;

/// A part of the start that may take longer than the service manager waits: as long as this is
/// there, it is asked to wait on.
pub(super) struct Starting {
    /// Ends the thread when it goes.
    _ends: Sender<()>,
}

/// The start is at something that may take its time.
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

/// The node serves.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The start waits for something that comes from outside, and goes on to wait: beyond the time
/// that a start may take, if need be. To be told again within `interval`.
pub(super) fn waiting(reason: &str, interval: Duration) {
    // Not by a hair: the node may be short of processor time.
    let more = (interval * 20).as_micros().try_into().unwrap_or(u32::MAX);
    let status = format!("waiting for the uplink: {reason}");
    tell(&[NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(more)]);
}

/// The node reads its configuration again; [`ready`] ends that.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no time for the service manager"),
    }
}

/// The node stops, and needs its time to undo its changes.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("undoing the changes on this machine")]);
}

/// Tells the watchdog, while the control plane runs, that it does. Never ends.
pub(super) async fn beat() {
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
