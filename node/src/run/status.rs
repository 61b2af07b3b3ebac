//! The node as its operator sees it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{ebpf::GuardCounter, policy, receive::ReceivePath};
use crate::sandbox::Sandbox;
use weir_config::Shared;
use weir_control::{
    fleet::Link,
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

/// What there is to see.
pub(super) struct Parts {
    pub(super) uplink: Uplink,
    /// As it is now, in bytes.
    pub(super) uplink_mtu: Arc<AtomicU32>,
    pub(super) xdp: XdpMode,
    pub(super) receive: ReceivePath,
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

/// Describes the node from its parts.
pub(super) struct View {
    parts: Parts,
    started: Instant,
    fleet: OnceLock<Link>,
}

impl View {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts, started: Instant::now(), fleet: OnceLock::new() }
    }

    /// Shows this connection too.
    pub(super) fn show_fleet(&self, link: Link) {
        // There is one only.
        self.fleet.set(link).ok();
    }
}

impl NodeView for View {
    fn host_parts(&self) -> &'static [&'static str] {
        &Part::LABELS
    }

    fn status(&self) -> Status {
        let parts = &self.parts;
        let guard = parts.guard.read();
        let template = parts.template.get();
        let uptime = self.started.elapsed().as_secs_f64();
        let busy: Vec<f64> = parts.counts.cpu().iter().map(Duration::as_secs_f64).collect();
        let totals = parts.sessions.totals();
        let mut offloads = parts.notes.clone();
        if let XdpMode::Off { reason } = &parts.xdp {
            offloads.push(format!("no XDP guard: {reason}"));
        }
        offloads.push(parts.receive.note.clone());
        offloads.extend(parts.counts.refused_offloads());
        let mut drops = parts
            .counts
            .drops(|reason| guard.as_ref().map_or(0, |counts| counts.dropped(reason).datagrams));
        drops.extend(policy::drops());
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: uptime,
            uplink: parts.uplink.name.clone(),
            uplink_mtu: parts.uplink_mtu.load(Relaxed),
            xdp_mode: parts.xdp.as_str().into(),
            receive: parts.receive.word.into(),
            io: parts.io.as_str().into(),
            sandbox: parts.sandbox.describe(),
            offloads,
            worker_cores: parts.cores.clone(),
            public_key: keys::print_public(&template.node_key),
            endpoint: template.endpoint.clone(),
            interface: parts.interface.clone(),
            mtu: parts.mtu,
            sessions: parts.sessions.len(),
            max_sessions: parts.sessions.at_most(),
            limits: parts.limiter.now(),
            boundaries: parts.counts.boundaries(),
            drops,
            guard: guard.as_ref().map(|counts| counts.messages()).unwrap_or_default(),
            worker_busy_ratio: busy
                .iter()
                .map(|spent| (spent / uptime.max(0.001)).min(1.0))
                .collect(),
            worker_busy_seconds: busy,
            bytes_up: totals.bytes_up,
            bytes_down: totals.bytes_down,
            handshakes: parts.counts.handshakes(),
            cookies: parts.counts.cookies(),
            ledger_age_seconds: parts.ledger.age().as_secs_f64(),
            unpaid_bytes: parts.sessions.unpaid_bytes(),
            earned_wei: parts.ledger.earned().to_string(),
            host: parts.conditions.now().into_iter().map(shown).collect(),
            restored: restored(&parts.conditions),
            host_looks: parts.conditions.looks(),
            ledger_error: parts.ledger.last_error(),
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
