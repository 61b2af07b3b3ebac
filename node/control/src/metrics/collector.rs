//! What is written at each scrape, family by family.

use std::{fmt::Error, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use weir_common::{DropReason, account::Counters as Used, account::SessionState};

use super::{
    Series,
    write::{Counters, Gauges, Histograms, gauge, info},
};
use crate::{
    flows::Egress,
    market::view::{MarketState, MarketView, RelayState},
    purchase::PurchaseCounts,
    view::{SharedView, Status},
};
use weir_accounts::{BATCHES, Drops};
use weir_config::Shared;
use weir_ledger::{ecash::MintTotals, state_name, unix_now};
use weir_sessions::{Sessions, Snapshot};

/// A consumer that uses the node shakes hands at least this often.
const CONNECTED_SECONDS: u64 = 180;

pub(super) struct NodeCollector {
    sessions: Arc<Sessions>,
    view: SharedView,
    series: Shared<Series>,
    started: u64,
}

impl std::fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCollector").field("series", &self.series).finish_non_exhaustive()
    }
}

impl NodeCollector {
    pub(super) fn new(sessions: Arc<Sessions>, view: SharedView, series: Shared<Series>) -> Self {
        Self { sessions, view, series, started: unix_now() }
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let encoder = &mut encoder;
        let (status, sessions) = (self.view.status(), self.sessions.list());
        node(encoder, &status, self.started)?;
        flows(encoder, &status)?;
        handshakes(encoder, &status)?;
        session_counts(encoder, &sessions, self.sessions.at_most())?;
        limits(encoder, &status)?;
        tunnel(encoder, &self.sessions.totals())?;
        boundaries(encoder, &status)?;
        drops(encoder, &status)?;
        guard(encoder, &status)?;
        host(encoder, &status, self.view.host_parts())?;
        books(encoder, &status)?;
        ecash(encoder, &self.sessions.ledger().mints())?;
        if let Some(view) = self.view.market() {
            market(encoder, &view)?;
        }
        purchases(encoder, self.view.purchases().as_ref())?;
        let series = self.series.get();
        if series.per_session {
            each_session(encoder, sessions, series.max_sessions)?;
        }
        Ok(())
    }
}

fn node(encoder: &mut DescriptorEncoder<'_>, status: &Status, started: u64) -> Result<(), Error> {
    info(encoder, "build", "Version of weir.", &[("version", &status.version)])?;
    let help = "XDP attach mode: 1 for the mode in use.";
    mode(encoder, "xdp_mode", help, &["native", "generic", "off"], &status.xdp_mode)?;
    let help = "How consumers' data reaches the workers: 1 for the mode in use.";
    mode(encoder, "receive_mode", help, &["af_xdp", "sockets"], &status.receive)?;
    let help = "I/O interface of the workers: 1 for the one in use.";
    mode(encoder, "io_mode", help, &["uring", "syscall"], &status.io)?;
    gauge(
        encoder,
        "uptime_seconds",
        "Seconds since the node started serving.",
        status.uptime_seconds,
    )?;
    let help = "Unix time at which the node started.";
    gauge(encoder, "start_timestamp_seconds", help, started)?;
    let help = "Whether the ledger is writable: 1, or 0 while new sessions and credit are refused.";
    gauge(encoder, "ledger_writable", help, u64::from(status.ledger_error.is_none()))?;
    if let Some(fleet) = &status.fleet {
        let help = "Whether the node is connected to the fleet's server; only with fleet.url.";
        gauge(encoder, "fleet_connected", help, u64::from(fleet == "connected"))?;
    }
    let help = "CPU time of a worker, in seconds.";
    let mut family = Counters::begin(encoder, "worker_busy_seconds", help)?;
    for (worker, seconds) in status.worker_busy_seconds.iter().enumerate() {
        family.sample(&[("worker", &worker.to_string())], *seconds)?;
    }
    Ok(())
}

/// How consumers' packets leave, and the flows that the node translates itself.
fn flows(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    let help = "How consumers' packets leave: 1 for the mode in use.";
    mode(encoder, "egress", help, &Egress::MODES, &status.egress.mode)?;
    let Some(nat) = &status.nat else { return Ok(()) };
    let help = "Open flows of all sessions; only where the node translates them itself.";
    let mut family = Gauges::begin(encoder, "nat_flows", help)?;
    for (protocol, open) in [("tcp", nat.tcp), ("udp", nat.udp), ("icmp", nat.icmp)] {
        family.sample(&[("protocol", protocol)], open)?;
    }
    let help = "Size of the node's flow table.";
    gauge(encoder, "nat_flow_capacity", help, nat.flow_capacity)?;
    let help = "External ports in blocks that sessions hold, of all addresses.";
    gauge(encoder, "nat_ports_used", help, nat.ports_used)?;
    gauge(encoder, "nat_ports", "External ports for consumers, of all addresses.", nat.ports)
}

/// A gauge with 1 for the word that applies.
fn mode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: &[&str],
    now: &str,
) -> Result<(), Error> {
    let mut family = Gauges::begin(encoder, name, help)?;
    for word in all {
        family.sample(&[("mode", word)], u64::from(*word == now))?;
    }
    Ok(())
}

/// What became of handshakes: those that were dropped are also among the drops, which the guard
/// and the node count at different stages.
fn handshakes(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    let dropped = |of: &[DropReason]| {
        let same = |drops: &&Drops| {
            of.iter().any(|reason| {
                drops.stage == reason.stage().as_str() && drops.reason == reason.as_str()
            })
        };
        let packets = status.drops.iter().filter(same).map(|drops| drops.packets);
        packets.fold(0, u64::saturating_add)
    };
    let help = "Handshakes by result, including rejected messages.";
    let mut family = Counters::begin(encoder, "handshakes", help)?;
    for (result, count) in [
        ("completed", status.handshakes),
        ("cookie", status.cookies),
        ("mac1", dropped(&[DropReason::Mac1, DropReason::GuardMac1])),
        (
            "source_rate",
            dropped(&[DropReason::HandshakeSourceRate, DropReason::GuardHandshakeSourceRate]),
        ),
        ("peer_rate", dropped(&[DropReason::PeerInitiations])),
        ("response_rate", dropped(&[DropReason::Responses, DropReason::GuardResponses])),
        ("queue_full", dropped(&[DropReason::HandshakeQueueFull])),
        ("unknown_peer", dropped(&[DropReason::UnknownPeer])),
        ("replay", dropped(&[DropReason::HandshakeReplay])),
        ("invalid", dropped(&[DropReason::HandshakeInvalid])),
    ] {
        family.sample(&[("result", result)], count)?;
    }
    Ok(())
}

fn books(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    let help = "Seconds since the last checkpoint of all counters to the ledger.";
    gauge(encoder, "ledger_age_seconds", help, status.ledger_age_seconds)?;
    let help = "Billed bytes of pay-as-you-go sessions that are not yet paid.";
    gauge(encoder, "unpaid_bytes", help, status.unpaid_bytes)
}

/// What came of each mint's ecash; only with cashu.mints.
fn ecash(encoder: &mut DescriptorEncoder<'_>, mints: &[MintTotals]) -> Result<(), Error> {
    if mints.is_empty() {
        return Ok(());
    }
    let help = "Value of the tokens that the mint has not exchanged yet, in its unit.";
    let mut family = Gauges::begin(encoder, "ecash_unredeemed", help)?;
    for mint in mints {
        family.sample(&[("mint", &mint.url), ("unit", &mint.unit)], mint.unredeemed)?;
    }
    let help = "Value of tokens by what became of it, in the mint's unit.";
    let mut family = Counters::begin(encoder, "ecash_value", help)?;
    for mint in mints {
        for (outcome, value) in [
            ("received", mint.received),
            ("redeemed", mint.redeemed),
            ("fees", mint.fees),
            ("lost", mint.lost),
            ("withdrawn", mint.withdrawn),
        ] {
            let labels = [("mint", &*mint.url), ("unit", &mint.unit), ("outcome", outcome)];
            family.sample(&labels, value)?;
        }
    }
    Ok(())
}

/// Where the node is listed; only with market.enabled.
fn market(encoder: &mut DescriptorEncoder<'_>, view: &MarketView) -> Result<(), Error> {
    let help = "Whether the node is listed: 1 for the state that applies.";
    let mut family = Gauges::begin(encoder, "market_state", help)?;
    for state in MarketState::ALL {
        family.sample(&[("state", state.as_str())], u64::from(state == view.state))?;
    }
    let help = "Unix time at which the listing expires; 0 without a listing.";
    gauge(encoder, "market_expiry_timestamp_seconds", help, view.expires_at.unwrap_or(0))?;
    let help = "Whether the registry or relay has what the node published last: 1 or 0.";
    let mut family = Gauges::begin(encoder, "market_listed", help)?;
    for relay in &view.relays {
        let has = relay.state == RelayState::Accepted;
        family.sample(&[("relay", &relay.url)], u64::from(has))?;
    }
    let help = "Attempts to give a registry or relay a listing or its withdrawal, by result.";
    let mut family = Counters::begin(encoder, "market_publications", help)?;
    for relay in &view.relays {
        for (result, count) in
            [("accepted", relay.accepted), ("refused", relay.refused), ("failed", relay.failed)]
        {
            family.sample(&[("relay", &relay.url), ("result", result)], count)?;
        }
    }
    Ok(())
}

/// What became of orders; only with the section `purchase`.
fn purchases(
    encoder: &mut DescriptorEncoder<'_>,
    counts: Option<&PurchaseCounts>,
) -> Result<(), Error> {
    let Some(counts) = counts else { return Ok(()) };
    let help = "Orders of strangers by how they came and what became of them.";
    let mut family = Counters::begin(encoder, "purchase_orders", help)?;
    for (way, result, count) in &counts.orders {
        family.sample(&[("way", way.as_str()), ("result", result)], *count)?;
    }
    let help = "Sealed letters that were not opened, or had no order in them.";
    Counters::begin(encoder, "purchase_letters_dropped", help)?.sample(&[], counts.dropped_letters)
}

fn session_counts(
    encoder: &mut DescriptorEncoder<'_>,
    sessions: &[Snapshot],
    max: u32,
) -> Result<(), Error> {
    let mut family = Gauges::begin(encoder, "sessions", "Sessions by state.")?;
    for state in [SessionState::Open, SessionState::Paused, SessionState::Closed] {
        let count = sessions.iter().filter(|snapshot| snapshot.session.state == state).count();
        family.sample(&[("state", state_name(state))], count as u64)?;
    }
    let since = unix_now().saturating_sub(CONNECTED_SECONDS);
    let connected = sessions.iter().filter(|session| session.counters.last_handshake > since);
    let help = "Sessions with a handshake in the last three minutes.";
    gauge(encoder, "sessions_connected", help, connected.count() as u64)?;
    gauge(encoder, "sessions_max", "Maximum number of sessions.", u64::from(max))
}

fn limits(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    let now = &status.limits;
    let help = "Rate limit of all sessions together, in bytes per second; 0 for no limit.";
    let mut family = Gauges::begin(encoder, "rate_limit_bytes_per_second", help)?;
    family.sample(&[("direction", "up")], now.rate_up / 8)?;
    family.sample(&[("direction", "down")], now.rate_down / 8)?;
    let help = "Fair share of one session, in bytes per second; 0 for no limit.";
    let mut family = Gauges::begin(encoder, "rate_share_bytes_per_second", help)?;
    family.sample(&[("direction", "up")], now.share_up / 8)?;
    family.sample(&[("direction", "down")], now.share_down / 8)?;
    for (limit, number) in now.each_session.shown() {
        gauge(encoder, limit.metric, limit.help, number)?;
    }
    let quotas = [("day", now.day), ("month", now.month)];
    let help = "Billed bytes that all sessions together may use in the period; 0 for no limit.";
    let mut family = Gauges::begin(encoder, "quota_bytes", help)?;
    for (period, quota) in quotas {
        family.sample(&[("period", period)], quota.bytes)?;
    }
    let help = "Billed bytes of all sessions since the start of the period.";
    let mut family = Gauges::begin(encoder, "quota_used_bytes", help)?;
    for (period, quota) in quotas {
        family.sample(&[("period", period)], quota.used)?;
    }
    let help = "Why all sessions are paused: 1 for the reason that applies.";
    let mut family = Gauges::begin(encoder, "node_paused", help)?;
    for reason in ["quota", "schedule"] {
        let held = now.paused_for.as_deref() == Some(reason);
        family.sample(&[("reason", reason)], u64::from(held))?;
    }
    Ok(())
}

fn tunnel(encoder: &mut DescriptorEncoder<'_>, total: &Used) -> Result<(), Error> {
    let help = "Billed bytes of all sessions, including ended ones.";
    let mut family = Counters::begin(encoder, "tunnel_bytes", help)?;
    family.sample(&[("direction", "up")], total.bytes_up)?;
    family.sample(&[("direction", "down")], total.bytes_down)?;
    let help = "Billed data messages of all sessions, including ended ones.";
    let mut family = Counters::begin(encoder, "tunnel_packets", help)?;
    family.sample(&[("direction", "up")], total.packets_up)?;
    family.sample(&[("direction", "down")], total.packets_down)
}

fn boundaries(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    let boundaries = [
        ("udp_receive", status.boundaries.udp_receive),
        ("tun_write", status.boundaries.tun_write),
        ("tun_read", status.boundaries.tun_read),
        ("udp_send", status.boundaries.udp_send),
    ];
    let help = "Packets per batch (one GRO or GSO unit) at each boundary.";
    let mut family = Histograms::begin(encoder, "batch_packets", help)?;
    for (name, boundary) in boundaries {
        family.sample(&[("boundary", name)], boundary.packets, &BATCHES, &boundary.batches)?;
    }
    Ok(())
}

/// The stage of what the exit policy refuses.
const POLICY: &str = "policy";

fn drops(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    let mut family = Counters::begin(encoder, "drops", "Dropped packets by stage and reason.")?;
    for known in DropReason::ALL {
        let (stage, reason) = (known.stage().as_str(), known.as_str());
        let packets = status
            .drops
            .iter()
            .filter(|drops| drops.stage == stage && drops.reason == reason)
            .fold(0u64, |sum, drops| sum.saturating_add(drops.packets));
        family.sample(&[("stage", stage), ("reason", reason)], packets)?;
    }
    // Those of the exit policy are named by its table.
    for drops in status.drops.iter().filter(|drops| drops.stage == POLICY) {
        family.sample(&[("stage", POLICY), ("reason", &drops.reason)], drops.packets)?;
    }
    Ok(())
}

fn guard(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    let help = "Frames counted by the guard in the kernel, by message type.";
    let mut family = Counters::begin(encoder, "guard_datagrams", help)?;
    for count in &status.guard {
        family.sample(&[("message", &count.message)], count.datagrams)?;
    }
    let help = "UDP payload bytes counted by the guard in the kernel, by message type.";
    let mut family = Counters::begin(encoder, "guard_bytes", help)?;
    for count in &status.guard {
        family.sample(&[("message", &count.message)], count.bytes)?;
    }
    Ok(())
}

fn host(encoder: &mut DescriptorEncoder<'_>, status: &Status, parts: &[&str]) -> Result<(), Error> {
    let help = "1 while this part of the host is not as the node needs it.";
    let mut family = Gauges::begin(encoder, "host_condition", help)?;
    for part in parts.iter().copied() {
        let holds = status.host.iter().any(|condition| condition.part == part);
        family.sample(&[("part", part)], u64::from(holds))?;
    }
    let help = "Times the node restored a part of the host that another program had changed.";
    let mut family = Counters::begin(encoder, "host_restored", help)?;
    for restored in &status.restored {
        family.sample(&[("part", &restored.part)], restored.times)?;
    }
    let help = "How often the node looked at what it has changed on the machine.";
    Counters::begin(encoder, "host_looks", help)?.sample(&[], status.host_looks)
}

/// A counter of one session and its labels beside the session itself.
type PerSession = (&'static str, &'static str, &'static [Direction]);
type Direction = (Option<&'static str>, fn(&Used) -> u64);

const PER_SESSION: &[PerSession] = &[
    (
        "session_bytes",
        "Billed bytes of a session: authenticated data messages.",
        &[(Some("up"), |used| used.bytes_up), (Some("down"), |used| used.bytes_down)],
    ),
    (
        "session_packets",
        "Billed data messages of a session.",
        &[(Some("up"), |used| used.packets_up), (Some("down"), |used| used.packets_down)],
    ),
    (
        "session_guard_bytes",
        "UDP payload bytes that the guard saw for a session, before authentication.",
        &[(None, |used| used.seen_bytes)],
    ),
    (
        "session_guard_datagrams",
        "Datagrams that the guard saw for a session, before authentication.",
        &[(None, |used| used.seen_datagrams)],
    ),
];

fn each_session(
    encoder: &mut DescriptorEncoder<'_>,
    mut sessions: Vec<Snapshot>,
    max: usize,
) -> Result<(), Error> {
    sessions.sort_by_key(|snapshot| snapshot.session.slot);
    let omitted = sessions.len().saturating_sub(max);
    let help = "Sessions without series of their own, beyond api.per_session_metrics_max.";
    gauge(encoder, "session_series_omitted", help, omitted as u64)?;
    sessions.truncate(max);
    let sessions: Vec<_> =
        sessions.iter().map(|one| (one.session.id.to_string(), &one.counters)).collect();
    for (name, help, directions) in PER_SESSION {
        let mut family = Counters::begin(encoder, name, help)?;
        for (id, used) in &sessions {
            for (direction, value) in *directions {
                let session = ("session", id.as_str());
                match direction {
                    Some(way) => family.sample(&[session, ("direction", way)], value(used))?,
                    None => family.sample(&[session], value(used))?,
                }
            }
        }
    }
    let help = "Unix time of a session's last completed handshake.";
    let mut family = Gauges::begin(encoder, "session_last_handshake_timestamp_seconds", help)?;
    for (id, used) in sessions.iter().filter(|(_, used)| used.last_handshake > 0) {
        family.sample(&[("session", id)], used.last_handshake)?;
    }
    Ok(())
}
