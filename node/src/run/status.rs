//! The node's status, as its operator sees it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    ebpf::GuardCounter,
    policy::{self, ExitPolicy},
    receive::ReceivePath,
};
use crate::sandbox::Sandbox;
use weir_config::Shared;
use weir_control::{
    fleet::Link,
    flows::SharedFlowView,
    market::{SharedMarket, view::MarketView},
    purchase,
    view::{HostCondition, HostRestored, NodeView, Status},
};
use weir_dataplane::{Counts, Io};
use weir_ebpf_loader::XdpMode;
use weir_host::{
    uplink::Uplink,
    watch::{Condition, Conditions, Part},
};
use weir_ledger::SharedLedger;
use weir_sessions::{limits::Limiter, registry::Sessions, wg_quick::PeerTemplate};
use weir_wireguard::keys;

/// The parts of the node that its status is read from.
pub(super) struct Sources {
    pub(super) flows: SharedFlowView,
    pub(super) uplink: Uplink,
    /// As it is now, in bytes.
    pub(super) uplink_mtu: Arc<AtomicU32>,
    pub(super) xdp: XdpMode,
    pub(super) receive: ReceivePath,
    pub(super) policy: Arc<ExitPolicy>,
    pub(super) io: Io,
    pub(super) sandbox: Sandbox,
    pub(super) notes: Vec<String>,
    pub(super) conditions: Conditions,
    pub(super) cores: Vec<usize>,
    pub(super) template: Shared<PeerTemplate>,
    pub(super) interface: String,
    pub(super) mtu: u32,
    pub(super) sessions: Arc<Sessions>,
    pub(super) ledger: SharedLedger,
    pub(super) counts: Counts,
    pub(super) guard: GuardCounter,
    pub(super) limiter: Arc<Limiter>,
}

/// Reads the status of the node.
pub(super) struct View {
    sources: Sources,
    started: Instant,
    fleet: OnceLock<Link>,
    purchases: OnceLock<purchase::Counts>,
    market: OnceLock<SharedMarket>,
}

impl View {
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            sources,
            started: Instant::now(),
            fleet: OnceLock::new(),
            market: OnceLock::new(),
            purchases: OnceLock::new(),
        }
    }

    /// Shows this connection too.
    pub(super) fn show_fleet(&self, link: Link) {
        // There is only one.
        self.fleet.set(link).ok();
    }

    /// Shows what became of orders too.
    pub(super) fn show_purchases(&self, counts: purchase::Counts) {
        self.purchases.set(counts).ok();
    }

    /// Shows this listing too.
    pub(super) fn show_market(&self, market: SharedMarket) {
        // There is only one.
        self.market.set(market).ok();
    }
}

impl NodeView for View {
    fn purchases(&self) -> Option<purchase::PurchaseCounts> {
        self.purchases.get().map(purchase::Counts::now)
    }

    fn host_parts(&self) -> &'static [&'static str] {
        &Part::LABELS
    }

    fn market(&self) -> Option<MarketView> {
        self.market.get().map(|market| market.view())
    }

    fn status(&self) -> Status {
        let sources = &self.sources;
        let guard = sources.guard.read();
        let template = sources.template.get();
        let uptime = self.started.elapsed().as_secs_f64();
        let busy: Vec<f64> = sources.counts.cpu().iter().map(Duration::as_secs_f64).collect();
        let totals = sources.sessions.totals();
        let mut offloads = sources.notes.clone();
        if let XdpMode::Off { reason } = &sources.xdp {
            offloads.push(format!("no XDP guard: {reason}"));
        }
        offloads.push(sources.receive.note.clone());
        offloads.extend(sources.counts.refused_offloads());
        let mut drops = sources
            .counts
            .drops(|reason| guard.as_ref().map_or(0, |counts| counts.dropped(reason).datagrams));
        drops.extend(policy::drops(&sources.policy));
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: uptime,
            uplink: sources.uplink.name.clone(),
            uplink_mtu: sources.uplink_mtu.load(Relaxed),
            xdp_mode: sources.xdp.as_str().into(),
            receive: sources.receive.word.into(),
            egress: sources.flows.egress(),
            nat: sources.flows.totals(),
            io: sources.io.as_str().into(),
            sandbox: sources.sandbox.describe(),
            offloads,
            worker_cores: sources.cores.clone(),
            public_key: keys::print_public(&template.node_key),
            endpoint: template.endpoint.clone(),
            interface: sources.interface.clone(),
            mtu: sources.mtu,
            sessions: sources.sessions.len(),
            max_sessions: sources.sessions.at_most(),
            limits: sources.limiter.now(),
            boundaries: sources.counts.boundaries(),
            drops,
            guard: guard.as_ref().map(|counts| counts.messages()).unwrap_or_default(),
            worker_busy_ratio: busy
                .iter()
                .map(|spent| (spent / uptime.max(0.001)).min(1.0))
                .collect(),
            worker_busy_seconds: busy,
            bytes_up: totals.bytes_up,
            bytes_down: totals.bytes_down,
            handshakes: sources.counts.handshakes(),
            cookies: sources.counts.cookies(),
            ledger_age_seconds: sources.ledger.age().as_secs_f64(),
            unpaid_bytes: sources.sessions.unpaid_bytes(),
            earned_wei: sources.ledger.earned().to_string(),
            host: sources.conditions.now().into_iter().map(shown).collect(),
            restored: restored(&sources.conditions),
            host_looks: sources.conditions.looks(),
            ledger_error: sources.ledger.last_error(),
            fleet: self.fleet.get().map(Link::describe),
        }
    }
}

fn shown(condition: Condition) -> HostCondition {
    let Condition { part, problem, fix } = condition;
    HostCondition { part: part.as_str().into(), problem, fix }
}

fn restored(conditions: &Conditions) -> Vec<HostRestored> {
    let shown = |(part, times): (Part, u64)| HostRestored { part: part.as_str().into(), times };
    conditions.restored().into_iter().map(shown).collect()
}
