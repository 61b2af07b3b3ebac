//! The control plane, from the first request to the signal that ends it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

use super::{ledger, screen};
use crate::{
    api::{Api, Listeners, Token},
    config::{Config, Metrics},
    control::{NodeView as _, SharedView},
    kernel::log::GuardLog,
    metrics::Series,
    session::{registry::Sessions, wg_quick::Offer},
};

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
    let metrics = match config.api.metrics {
        Metrics::On(address) => Some(address),
        Metrics::Off => None,
    };
    let mut listeners = Listeners::bind(&config.api.socket, group, metrics).await?;
    if let Metrics::On(address) = config.api.http {
        let token = Token::load_or_create(&config.api.token_file)?;
        listeners = listeners.with_http(address, token).await?;
    }
    let mut log = std::pin::pin!(async {
        match log {
            Some(log) => log.forward().await,
            None => std::future::pending().await,
        }
    });
    let books = ledger::keep(config, sessions, stopped)?;

    screen::show(config, &view.status());
    let mut server = std::pin::pin!(listeners.serve(&api, until(stop.subscribe())));
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut server => Some(ended),
        ended = &mut log => Some(ended),
    };
    info!("stopping");
    stop.send_replace(true);
    books.stop().await;
    match ended {
        Some(ended) => ended.and(Err(std::io::ErrorKind::ConnectionAborted.into())),
        None => server.await,
    }
    .context("the API could not be served any longer")
}
