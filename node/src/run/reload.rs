//! Which parts of the running node a reload can change, and how.

use std::{path::Path, sync::Arc};

use weir_common::gcra::Rate;

use super::{ebpf::GuardControl, ledger::Intervals, policy::ExitPolicy};
use crate::logging::Log;
use weir_config::{Api, Config, Node, Shared};
use weir_control::{
    market::MarketSettings,
    metrics::Series,
    reload::{Applier, Change, Reloader},
};
use weir_dataplane::{HandshakeLimits, HandshakeMailbox};
use weir_host::uplink::Uplink;
use weir_sessions::{limits::Limiter, wg_quick::PeerTemplate};

/// The parts of the running node that a reload changes.
pub(super) struct ReloadTargets {
    pub(super) template: Shared<PeerTemplate>,
    pub(super) series: Shared<Series>,
    pub(super) intervals: Shared<Intervals>,
    pub(super) handshakes: Arc<HandshakeMailbox>,
    pub(super) guard: GuardControl,
    pub(super) limiter: Arc<Limiter>,
    pub(super) policy: Arc<ExitPolicy>,
    pub(super) market: Shared<MarketSettings>,
    pub(super) gib_price: Shared<u64>,
    pub(super) log: Log,
}

impl ReloadTargets {
    /// The reloader of a node that runs with `config`.
    pub(super) fn reloader(
        self,
        config: &Config,
        file: Option<&Path>,
        uplink: &Uplink,
    ) -> Reloader {
        // What can fail comes first: if the first one fails, nothing has changed.
        let appliers: Vec<Box<dyn Applier>> = vec![
            Box::new(PolicyReload { policy: self.policy }),
            Box::new(HandshakeReload { guard: self.guard, thread: self.handshakes }),
            Box::new(MarketReload { settings: self.market }),
            Box::new(gib_price(self.gib_price)),
            Box::new(TunnelReload { template: self.template }),
            Box::new(metrics(self.series)),
            Box::new(ledger(self.intervals)),
            Box::new(LimitsReload { limiter: self.limiter }),
            Box::new(LogReload { log: self.log }),
        ];
        Reloader::new(file.map(Path::to_owned), uplink.mtu, config.clone(), appliers)
    }
}

/// Which sessions have series of their own.
pub(super) fn series(api: &Api) -> Series {
    Series {
        per_session: api.per_session_metrics,
        max_sessions: api.per_session_metrics_max as usize,
    }
}

/// How many handshakes the handshake thread lets through.
pub(super) fn handshake_limits(node: &Node) -> HandshakeLimits {
    HandshakeLimits {
        per_source: Rate::new(node.handshakes_per_source, node.handshakes_per_source_burst),
        before_cookies: node.handshakes_under_load,
    }
}

/// Reloads the lists of the exit policy.
struct PolicyReload {
    policy: Arc<ExitPolicy>,
}

impl Applier for PolicyReload {
    fn keys(&self) -> &'static [&'static str] {
        &[
            "policy.blocked_ports",
            "policy.blocked_port_files",
            "policy.allow",
            "policy.allow_files",
            "policy.block",
            "policy.block_files",
        ]
    }

    fn reads_files(&self) -> bool {
        true
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        let change = ExitPolicy::prepare(&self.policy, config)?;
        Ok(Box::new(move || Ok(vec![change()?])))
    }
}

/// Reloads the limits on handshakes, in the guard and in the handshake thread behind it.
struct HandshakeReload {
    guard: GuardControl,
    thread: Arc<HandshakeMailbox>,
}

impl Applier for HandshakeReload {
    fn keys(&self) -> &'static [&'static str] {
        &[
            "node.handshakes_per_source",
            "node.handshakes_per_source_burst",
            "node.handshakes_under_load",
            "node.handshakes_per_core",
        ]
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        let node = config.node.clone();
        let limits = handshake_limits(&node);
        let (guard, thread) = (self.guard.clone(), Arc::clone(&self.thread));
        Ok(Box::new(move || {
            guard.set_initiations(&node)?;
            thread.set_limits(limits);
            Ok(Vec::new())
        }))
    }
}

/// Reloads what new consumer configurations say about the tunnel.
struct TunnelReload {
    template: Shared<PeerTemplate>,
}

impl Applier for TunnelReload {
    fn keys(&self) -> &'static [&'static str] {
        &["tunnel.dns", "tunnel.keepalive"]
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        let (dns, keepalive) = (config.dns_servers(), config.tunnel.keepalive);
        let live = self.template.clone();
        Ok(Box::new(move || {
            live.change(|template| PeerTemplate { dns, keepalive, ..template.clone() });
            Ok(vec!["new consumer configurations use the new tunnel.* values".into()])
        }))
    }
}

/// Reloads a value that its users read anew each time.
struct ValueReload<T> {
    live: Shared<T>,
    keys: &'static [&'static str],
    from: fn(&Config) -> T,
}

impl<T: Send + Sync + 'static> Applier for ValueReload<T> {
    fn keys(&self) -> &'static [&'static str] {
        self.keys
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        let (live, value) = (self.live.clone(), (self.from)(config));
        Ok(Box::new(move || {
            live.set(value);
            Ok(Vec::new())
        }))
    }
}

/// Reloads which sessions have metrics of their own.
fn metrics(live: Shared<Series>) -> ValueReload<Series> {
    let keys = &["api.per_session_metrics", "api.per_session_metrics_max"];
    ValueReload { live, keys, from: |config| series(&config.api) }
}

/// Reloads the intervals at which usage is written, and the times for which it is kept.
fn ledger(live: Shared<Intervals>) -> ValueReload<Intervals> {
    let keys = &[
        "ledger.checkpoint_seconds",
        "ledger.record_seconds",
        "ledger.grace_seconds",
        "ledger.retain_days",
        "ledger.retain_undelivered_days",
        "ledger.retain_sessions_days",
        "ledger.retain_blocks_days",
    ];
    ValueReload { live, keys, from: |config| Intervals::from(&config.ledger) }
}

/// Reloads the price of ecash.
fn gib_price(live: Shared<u64>) -> ValueReload<u64> {
    ValueReload { live, keys: &["cashu.gib_price"], from: |config| config.cashu.gib_price.into() }
}

/// What a listing is made from; without a listing, no database is read.
pub(super) fn market_settings(config: &Config) -> anyhow::Result<MarketSettings> {
    match config.market.enabled {
        true => MarketSettings::load(config),
        false => Ok(MarketSettings::off(config)),
    }
}

/// Reloads what the listing says, and the databases of addresses.
struct MarketReload {
    settings: Shared<MarketSettings>,
}

impl Applier for MarketReload {
    fn keys(&self) -> &'static [&'static str] {
        &[
            "market.title",
            "market.country",
            "market.ip_type",
            "market.place_files",
            "market.endpoints",
            "market.purchase_url",
            "market.proof_of_work",
        ]
    }

    fn reads_files(&self) -> bool {
        true
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        let (live, settings) = (self.settings.clone(), market_settings(config)?);
        Ok(Box::new(move || {
            live.set(settings);
            Ok(Vec::new())
        }))
    }
}

/// Reloads the limits.
struct LimitsReload {
    limiter: Arc<Limiter>,
}

impl Applier for LimitsReload {
    fn keys(&self) -> &'static [&'static str] {
        weir_config::Limits::FULL_KEYS
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        let (limiter, limits) = (Arc::clone(&self.limiter), config.limits.clone());
        Ok(Box::new(move || {
            limiter.apply(limits)?;
            Ok(vec!["limits changed with `weir limits set` are reset to the file's values".into()])
        }))
    }
}

/// Reloads the log's level.
struct LogReload {
    log: Log,
}

impl Applier for LogReload {
    fn keys(&self) -> &'static [&'static str] {
        &["log.level"]
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        let (log, level) = (self.log.clone(), config.log.level);
        Ok(Box::new(move || log.set(level)))
    }
}
