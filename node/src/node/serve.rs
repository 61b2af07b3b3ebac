//! The control plane, from the first request to the signal that ends it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use super::screen;
use crate::{
    api::{self, Api, socket},
    config::{Config, Metrics},
    control::{NodeView as _, SharedView},
    kernel::log::GuardLog,
    metrics::Series,
    session::{registry::Sessions, wg_quick::Offer},
};

/// Between two checkpoints of the counters to the ledger.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT.
pub(super) fn until_told(
    config: &Config,
    sessions: &Arc<Sessions>,
    view: Arc<super::View>,
    offer: Offer,
    log: Option<GuardLog>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("weir-control")
        .enable_all()
        .build()
        .context("cannot start the control plane")?;
    let result = runtime.block_on(serve(config, sessions, view, offer, log));
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

async fn serve(
    config: &Config,
    sessions: &Arc<Sessions>,
    view: Arc<super::View>,
    offer: Offer,
    log: Option<GuardLog>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move {
        // An error means that the sender is gone, which is the end as well.
        stopped.wait_for(|stop| *stop).await.ok();
    };

    let series = Series {
        per_session: config.api.per_session_metrics,
        max_sessions: config.api.per_session_metrics_max as usize,
    };
    let shared: SharedView = view.clone();
    let api = Api::new(Arc::clone(sessions), shared, offer, series);
    let group = Some(config.api.socket_group.as_str()).filter(|group| !group.is_empty());
    let (unix, _socket_file) = socket::bind(&config.api.socket, group)?;
    let mut servers = JoinSet::new();
    servers.spawn(api::serve(unix, api.router(), until(stopped.clone())));
    if let Metrics::On(address) = config.api.metrics {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot serve metrics on {address}. Fix: set api.metrics to another address, or \
                 to \"off\"."
            )
        })?;
        servers.spawn(api::serve(listener, api.metrics_router(), until(stopped.clone())));
    }
    if let Some(log) = log {
        servers.spawn(log.forward());
    }
    let checkpoints = tokio::spawn(checkpoints(Arc::clone(sessions), stopped));

    screen::show(config, &view.status());
    tokio::select! {
        _ = terminate.recv() => info!("stopping: SIGTERM"),
        _ = interrupt.recv() => info!("stopping: SIGINT"),
        Some(ended) = servers.join_next() => error!(?ended, "stopping: a server ended by itself"),
    }
    stop.send_replace(true);
    checkpoints.await.ok();
    // Requests under way have a moment; a stream that never ends has no more.
    let rest = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_millis(500), rest).await.is_err() {
        servers.abort_all();
    }
    Ok(())
}

/// Writes the counters to the ledger once a second, off the packet path.
async fn checkpoints(sessions: Arc<Sessions>, mut stopped: watch::Receiver<bool>) {
    let mut ticks = interval(CHECKPOINT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.changed() => return,
        }
        let sessions = Arc::clone(&sessions);
        match tokio::task::spawn_blocking(move || sessions.checkpoint()).await {
            Ok(Ok(_)) if failing => {
                info!("the ledger can be written again");
                failing = false;
            }
            Ok(Err(error)) if !failing => {
                warn!(%error, "the ledger cannot be written; counting goes on in memory");
                failing = true;
            }
            _ => {}
        }
    }
}
