//! The control plane, from the first request to the signal that ends it.

use std::{io, net::IpAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc::UnboundedReceiver, watch},
};
use tracing::{error, info, warn};

use super::{
    banner,
    blocks::BlockJournal,
    flow_table,
    ledger::{Intervals, LedgerTasks},
    limits,
    market::ListedNode,
    policy::ExitPolicy,
    service,
    status::View,
};
use weir_config::{Config, ListenAddr, Shared};
use weir_control::{
    api::{Api, Listeners, Token},
    ecash::Cashu,
    fleet,
    flows::SharedFlowView,
    gateway::Gateway,
    market::{Market, MarketSettings},
    metrics::Series,
    purchase::Purchase,
    reload::{Outcome, Reload as _, ReloadError, Reloader},
    resolver::Resolver,
    uapi::{self, Device, Uapi},
    view::{NodeView as _, SharedView},
};
use weir_dataplane::ThreadEnded;
use weir_ebpf_loader::GuardLog;
use weir_ledger::SharedLedger;
use weir_sessions::{Sessions, keys::SharedKeyRing, limits::Limiter, wg_quick::PeerTemplate};

/// How long requests inside the tunnel may take after the node was told to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// What the control plane serves, with the values that a reload replaces.
pub(super) struct ControlPlane {
    pub(super) sessions: Arc<Sessions>,
    pub(super) ledger: SharedLedger,
    pub(super) view: Arc<View>,
    pub(super) flows: SharedFlowView,
    pub(super) blocks: Arc<BlockJournal>,
    pub(super) template: Shared<PeerTemplate>,
    pub(super) series: Shared<Series>,
    pub(super) intervals: Shared<Intervals>,
    pub(super) limiter: Arc<Limiter>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) keys: SharedKeyRing,
    pub(super) policy: Arc<ExitPolicy>,
    /// The process that looks names up.
    pub(super) resolver: Resolver,
    /// The uplink's addresses.
    pub(super) addresses: Shared<Vec<IpAddr>>,
    /// What the listing is made from.
    pub(super) market: Shared<MarketSettings>,
    /// The price of a GiB in ecash.
    pub(super) gib_price: Shared<u64>,
    /// The threads of the packet path that have ended.
    pub(super) ended: UnboundedReceiver<ThreadEnded>,
    /// Why the node cannot go on, from the watch over the host.
    pub(super) breaks: UnboundedReceiver<anyhow::Error>,
    /// The machine's name servers.
    pub(super) name_servers: watch::Receiver<Vec<IpAddr>>,
}

/// Serves until SIGTERM or SIGINT, or until a part of the node has failed.
pub(super) fn until_told(
    config: &Config,
    parts: ControlPlane,
    log: Option<GuardLog>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("weir-control")
        .enable_all()
        .build()
        .context("cannot start the control plane")?;
    let result = runtime.block_on(serve(config, parts, log));
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

async fn serve(config: &Config, parts: ControlPlane, log: Option<GuardLog>) -> anyhow::Result<()> {
    let ControlPlane {
        sessions,
        ledger,
        view,
        flows,
        blocks,
        template,
        series,
        intervals,
        limiter,
        reloader,
        keys,
        policy,
        addresses,
        market,
        gib_price,
        ..
    } = parts;
    let (mut ended, mut breaks) = (parts.ended, parts.breaks);
    let (resolver, name_servers) = (parts.resolver, parts.name_servers);
    let in_force = policy.in_force();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let (stop, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move {
        // An error means that the sender is gone, which is the end as well.
        stopped.wait_for(|stop| *stop).await.ok();
    };

    let listed_template = template.clone();
    let shared: SharedView = view.clone();
    let device = Device {
        sessions: Arc::clone(&sessions),
        template: template.clone(),
        listen_port: config.node.listen_port,
        endpoints: config.api.wg_endpoints,
    };
    let api = Api::new(Arc::clone(&sessions), ledger.usage_log(), shared, template.clone(), series)
        .with_reload(reloader.clone())
        .with_keys(keys)
        .with_judge(policy)
        .with_flows(flows, ledger.port_log())
        .with_limits(Arc::clone(&limiter));
    let group = Some(config.api.socket_group.as_str()).filter(|group| !group.is_empty());
    let metrics = match config.api.metrics {
        ListenAddr::On(address) => Some(address),
        ListenAddr::Off => None,
    };
    let mut listeners = Listeners::bind(&config.api.socket, group, metrics).await?;
    if let ListenAddr::On(address) = config.api.http {
        let token = Token::load_or_create(&config.api.token_file)?;
        listeners = listeners.with_http(address, token).await?;
    }
    let mut log = std::pin::pin!(async {
        match log {
            Some(log) => log.forward().await,
            None => std::future::pending().await,
        }
    });
    let uapi = bind_uapi(config);
    let mut uapi = std::pin::pin!(async {
        match uapi {
            Some(uapi) => uapi.serve(device).await,
            None => std::future::pending().await,
        }
    });
    let cashu = Cashu::new(config, &sessions, &resolver, gib_price)?;
    let listed = ListedNode::new(
        config,
        listed_template,
        addresses,
        Arc::clone(&sessions),
        Arc::clone(&limiter),
        cashu.clone(),
    );
    let market = Market::new(config, market, Arc::new(listed), &resolver)?;
    let api = api.with_market(market.clone());
    let has_ipv6 = weir_host::has_ipv6();
    let gateway =
        Gateway::bind(config, &sessions, name_servers, &resolver, cashu.as_ref(), has_ipv6).await?;
    let purchase = Purchase::bind(config, &sessions, &template, cashu.as_ref(), &resolver).await?;
    if let Some(purchase) = &purchase {
        view.show_purchases(purchase.counts());
    }
    let exchanging = cashu.map(|cashu| tokio::spawn(cashu.run(stopped.clone())));
    let limited = limits::spawn(limiter, stopped.clone());
    let room = flow_table::spawn(in_force, stopped.clone());
    let mut tasks =
        LedgerTasks::start(config, &intervals, &sessions, &ledger, blocks, resolver, stopped)?;
    if !config.fleet.url.is_empty() {
        let link = fleet::Link::connect(&config.fleet).await?;
        view.show_fleet(link.clone());
        tasks.join(&config.fleet, link, ledger.usage_log(), api.router());
    }

    let status = view.status();
    banner::show(config, &status);
    let endpoint = status.endpoint;
    if let Some(market) = &market {
        view.show_market(Arc::clone(market));
    }
    let listing = market.map(|market| tokio::spawn(market.run(stop.subscribe())));
    let mut server = std::pin::pin!(listeners.serve(&api, until(stop.subscribe())));
    let mut gateway = std::pin::pin!(gateway.serve(stop.subscribe()));
    let mut purchase = std::pin::pin!({
        let mut stopped = stop.subscribe();
        async move {
            match purchase {
                Some(purchase) => purchase.serve(stopped).await,
                None => {
                    stopped.wait_for(|stopped| *stopped).await.ok();
                    Ok(())
                }
            }
        }
    });
    let mut reloads = std::pin::pin!(reload_at_hangup(hangup, reloader, &endpoint));
    let mut watchdog = std::pin::pin!(service::feed_watchdog());
    service::ready(&serves(&endpoint));
    let broken = tokio::select! {
        Some(reason) = breaks.recv() => {
            Some(reason.context("this machine no longer meets the node's needs"))
        }
        () = &mut reloads => None,
        () = &mut watchdog => None,
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        served = &mut server => Some(no_longer_served(served)),
        served = &mut log => Some(no_longer_served(served)),
        () = &mut uapi => None,
        served = &mut gateway => Some(no_longer_served(served)),
        served = &mut purchase => Some(served.err().map_or_else(
            || no_longer_served(Ok(())),
            |error| error.context("nothing is sold any more"),
        )),
        // The consumers of the other threads are better off with a node that is started again.
        Some(thread) = ended.recv() => {
            Some(anyhow::Error::new(thread).context("a part of the data plane has failed"))
        }
    };
    info!("stopping");
    service::stopping();
    stop.send_replace(true);
    tasks.stop().await;
    if let Some(listing) = listing {
        listing.await.ok();
    }
    if let Some(exchanging) = exchanging {
        exchanging.await.ok();
    }
    // Its panic has been reported already.
    limited.await.ok();
    room.await.ok();
    if let Some(error) = broken {
        return Err(error);
    }
    // A consumer that goes on sending cannot delay the stop beyond this.
    let served = async { tokio::join!(gateway, purchase) };
    tokio::time::timeout(SHUTDOWN_TIMEOUT, served).await.ok();
    server.await.context(NO_LONGER_SERVED)
}

const NO_LONGER_SERVED: &str = "the API has stopped";

fn no_longer_served(ended: io::Result<()>) -> anyhow::Error {
    let reason = ended.err().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
    anyhow::Error::new(reason).context(NO_LONGER_SERVED)
}

/// Reloads the configuration at each SIGHUP, and logs the result.
async fn reload_at_hangup(mut hangup: Signal, reloader: Arc<Reloader>, endpoint: &str) {
    while hangup.recv().await.is_some() {
        service::reloading();
        let reloader = Arc::clone(&reloader);
        match tokio::task::spawn_blocking(move || reloader.reload()).await {
            Ok(outcome) => log_outcome(outcome),
            Err(error) => error!(%error, "reloading the configuration failed: please report this"),
        }
        service::ready(&serves(endpoint));
    }
}

fn serves(endpoint: &str) -> String {
    format!("serving at {endpoint}")
}

fn log_outcome(outcome: Result<Outcome, ReloadError>) {
    match outcome {
        Ok(Outcome { applied, needs_restart, notes }) => {
            info!(?applied, "the configuration was reloaded");
            for note in notes {
                info!("{note}");
            }
            if !needs_restart.is_empty() {
                warn!(keys = ?needs_restart, "changed, but needs a restart");
            }
        }
        Err(error) => error!("{error}"),
    }
}

/// Binds the socket for `wg`. The node also serves without it.
fn bind_uapi(config: &Config) -> Option<Uapi> {
    let directory = Path::new(&config.api.wg_directory);
    if directory.as_os_str().is_empty() {
        return None;
    }
    let path = uapi::path(directory, &config.tunnel.interface);
    Uapi::bind(&path)
        .inspect_err(|error| warn!(%error, "`wg show` cannot see this node (api.wg_directory)"))
        .ok()
}
