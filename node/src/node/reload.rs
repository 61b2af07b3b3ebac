//! Which parts of the running node a reload can change, and how.

use std::{path::Path, sync::Arc};

use weir_common::gcra::Rate;

use super::{kernel_side::GuardControl, ledger::Intervals, policy::ExitPolicy};
use crate::logging::Log;
use weir_config::{Api, Config, Live, Node};
use weir_control::{
    metrics::Series,
    reload::{Applier, Change, Reloader},
};
use weir_dataplane::handshake::{HandshakeInbox, Limits};
use weir_host::uplink::Uplink;
use weir_sessions::{limits::Limiter, wg_quick::Offer};

/// What a reload reaches.
pub(super) struct Reach {
    pub(super) offer: Live<Offer>,
    pub(super) series: Live<Series>,
    pub(super) intervals: Live<Intervals>,
    pub(super) handshakes: Arc<HandshakeInbox>,
    pub(super) guard: GuardControl,
    pub(super) limiter: Arc<Limiter>,
    pub(super) policy: Arc<ExitPolicy>,
    pub(super) log: Log,
}

impl Reach {
    /// The reloader of a node that runs with `config`.
    pub(super) fn reloader(
        self,
        config: &Config,
        file: Option<&Path>,
        uplink: &Uplink,
    ) -> Reloader {
        // What can fail comes first: if the first one fails, nothing has changed.
        let appliers: Vec<Box<dyn Applier>> = vec![
            Box::new(Refused { policy: self.policy }),
            Box::new(HandshakeRates { guard: self.guard, thread: self.handshakes }),
            Box::new(Told { offer: self.offer }),
            Box::new(seen(self.series)),
            Box::new(kept(self.intervals)),
            Box::new(Limited { limiter: self.limiter }),
            Box::new(Logged { log: self.log }),
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
pub(super) fn handshake_limits(node: &Node) -> Limits {
    Limits {
        per_source: Rate::new(node.handshakes_per_source, node.handshakes_per_source_burst),
        before_cookies: node.handshakes_under_load,
    }
}

/// What consumers may reach.
struct Refused {
    policy: Arc<ExitPolicy>,
}

impl Applier for Refused {
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

/// How many handshakes pass: in the guard, and in the handshake thread behind it.
struct HandshakeRates {
    guard: GuardControl,
    thread: Arc<HandshakeInbox>,
}

impl Applier for HandshakeRates {
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

/// What consumers are told in the configurations that they get from now on.
struct Told {
    offer: Live<Offer>,
}

impl Applier for Told {
    fn keys(&self) -> &'static [&'static str] {
        &["tunnel.dns", "tunnel.keepalive"]
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        let (dns, keepalive) = (config.dns_servers(), config.tunnel.keepalive);
        let live = self.offer.clone();
        Ok(Box::new(move || {
            live.change(|offer| Offer { dns, keepalive, ..offer.clone() });
            Ok(vec!["new consumer configurations use the new tunnel.* values".into()])
        }))
    }
}

/// A value that others read anew each time they use it.
struct Read<T> {
    live: Live<T>,
    keys: &'static [&'static str],
    from: fn(&Config) -> T,
}

impl<T: Send + Sync + 'static> Applier for Read<T> {
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

/// Which sessions Prometheus sees.
fn seen(live: Live<Series>) -> Read<Series> {
    let keys = &["api.per_session_metrics", "api.per_session_metrics_max"];
    Read { live, keys, from: |config| series(&config.api) }
}

/// How often usage is written down, and how long a session without credit is kept.
fn kept(live: Live<Intervals>) -> Read<Intervals> {
    let keys = &[
        "ledger.checkpoint_seconds",
        "ledger.record_seconds",
        "ledger.grace_seconds",
        "ledger.retain_days",
        "ledger.retain_undelivered_days",
        "ledger.retain_sessions_days",
    ];
    Read { live, keys, from: |config| Intervals::from(&config.ledger) }
}

/// How much passes.
struct Limited {
    limiter: Arc<Limiter>,
}

impl Applier for Limited {
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

/// How much is logged.
struct Logged {
    log: Log,
}

impl Applier for Logged {
    fn keys(&self) -> &'static [&'static str] {
        &["log.level"]
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        let (log, level) = (self.log.clone(), config.log.level);
        Ok(Box::new(move || log.set(level)))
    }
}
