//! The rules that values must satisfy, by themselves and together.

use weir_common::Slot;

use super::{
    Config,
    kinds::{Auto, ListenAddr},
    limit::OutOfRange,
    mistake::Findings,
};

mod billing;
mod market;
mod names;
mod nat;
mod networks;
mod purchase;
mod registry;

use networks::SMALLEST_MTU;
pub use networks::{misfit, overlap};

pub(super) fn apply(config: &Config, uplink_mtu: Option<u32>, findings: &mut Findings<'_>) {
    ranges(config, findings);
    names::names(config, findings);
    workers(config, findings);
    nat::nat(config, findings);
    networks::pools(config, findings);
    networks::mtu(config, uplink_mtu, findings);
    networks::policy(config, findings);
    limits(config, findings);
    billing::ledger(config, findings);
    billing::fleet(config, findings);
    networks::dns(config, findings);
    billing::payment(config, findings);
    billing::prepayment(config, findings);
    market::market(config, findings);
    purchase::purchase(config, findings);
    names::paths(config, findings);
    registry::registry(config, findings);
}

/// The maximum number of cores that help with the cipher. More would share less than a group each.
const MAX_CIPHER_CORES: usize = 64;

fn limits(config: &Config, findings: &mut Findings<'_>) {
    let limits = &config.limits;
    for OutOfRange { key, value, fix } in limits.out_of_range() {
        findings.blame(&[("limits", key)], format!("{value} is out of range"), fix);
    }
    if limits.sessions > config.node.max_sessions {
        findings.blame(
            &[("limits", "sessions"), ("node", "max_sessions")],
            format!("{} is more than node.max_sessions", limits.sessions),
            format!("write {} or less, or raise node.max_sessions", config.node.max_sessions),
        );
    }
}

fn ranges(config: &Config, findings: &mut Findings<'_>) {
    let node = &config.node;
    let workers = node.workers.set().copied().unwrap_or(1);
    for (section, key, value, low, high) in [
        ("node", "listen_port", u32::from(node.listen_port), 1, 65535),
        ("node", "max_sessions", node.max_sessions, 1, Slot::MAX_COUNT),
        ("node", "workers", workers.into(), 1, 256),
        ("node", "handshakes_per_source", node.handshakes_per_source, 1, 1_000_000),
        ("node", "handshakes_per_source_burst", node.handshakes_per_source_burst, 1, 1_000_000),
        ("node", "handshakes_under_load", node.handshakes_under_load, 1, 10_000_000),
        ("node", "handshakes_per_core", node.handshakes_per_core, 1, 10_000_000),
        ("nat", "session_blocks", config.nat.session_blocks, 1, 8192),
        ("nat", "flows", config.nat.flows, 1024, 1 << 24),
        ("tunnel", "mtu", config.tunnel.mtu, SMALLEST_MTU, 65535),
        ("dns", "per_second", config.dns.per_second, 1, 100_000),
        ("dns", "cache", config.dns.cache, 0, 1 << 20),
        ("ledger", "record_seconds", config.ledger.record_seconds, 1, 86_400),
        ("ledger", "checkpoint_seconds", config.ledger.checkpoint_seconds, 1, 60),
        ("ledger", "retain_days", config.ledger.retain_days, 0, 36_500),
        ("ledger", "retain_undelivered_days", config.ledger.retain_undelivered_days, 0, 36_500),
        ("ledger", "retain_sessions_days", config.ledger.retain_sessions_days, 0, 36_500),
        ("ledger", "retain_blocks_days", config.ledger.retain_blocks_days, 0, 36_500),
        ("ledger", "grace_seconds", config.ledger.grace_seconds, 0, 31_536_000),
        ("ledger", "usage_file_mib", config.ledger.usage_file_mib, 1, 1 << 20),
        ("payment", "port", config.payment.port.into(), 1, 65535),
        ("payment", "chain_id", config.payment.chain_id, 1, u32::MAX),
        ("payment", "free_mib", config.payment.free_mib, 0, 1 << 20),
        ("payment", "unpaid_mib", config.payment.unpaid_mib, 1, 1 << 20),
        ("payment", "unpaid_seconds", config.payment.unpaid_seconds, 1, 86_400),
        ("cashu", "gib_price", config.cashu.gib_price, 1, 1_000_000_000),
        ("cashu", "max_unredeemed", config.cashu.max_unredeemed, 0, 1_000_000_000),
        ("cashu", "redeem_seconds", config.cashu.redeem_seconds, 1, 86_400),
        ("cashu", "lock_days", config.cashu.lock_days, 1, 3650),
        ("purchase", "min_mib", config.purchase.min_mib, 1, 1 << 30),
        ("purchase", "max_mib", config.purchase.max_mib, 1, 1 << 30),
        ("purchase", "valid_days", config.purchase.valid_days, 0, 3650),
        ("voucher", "page_port", config.voucher.page_port.into(), 1, 65535),
        ("market", "proof_of_work", config.market.proof_of_work.into(), 0, 24),
        ("api", "per_session_metrics_max", config.api.per_session_metrics_max, 0, Slot::MAX_COUNT),
    ] {
        if !(low..=high).contains(&value) {
            findings.blame(
                &[(section, key)],
                format!("{value} is out of range"),
                format!("write a number from {low} to {high}"),
            );
        }
    }
    for (key, listen) in [("metrics", config.api.metrics), ("http", config.api.http)] {
        if let ListenAddr::On(address) = listen
            && address.port() == 0
        {
            findings.blame(
                &[("api", key)],
                format!("{address} has no port"),
                "write a port from 1 to 65535 after the address, or \"off\"".into(),
            );
        }
    }
    if config.api.http == config.api.metrics && config.api.http != ListenAddr::Off {
        findings.blame(
            &[("api", "http"), ("api", "metrics")],
            "it is also api.metrics".into(),
            "write another port for one of the two".into(),
        );
    }
}

fn workers(config: &Config, findings: &mut Findings<'_>) {
    let (cores, workers) = (&config.node.cores, &config.node.workers);
    let helpers = &config.node.cipher_cores;
    let mut seen = Vec::new();
    let keys = cores.iter().map(|core| ("cores", core));
    for (key, core) in keys.chain(helpers.iter().map(|core| ("cipher_cores", core))) {
        if seen.contains(core) {
            findings.blame(
                &[("node", key)],
                format!("core {core} is listed twice"),
                "name each core once: a core serves one worker, or helps".into(),
            );
            return;
        }
        seen.push(*core);
    }
    if helpers.len() > MAX_CIPHER_CORES {
        findings.blame(
            &[("node", "cipher_cores")],
            format!("{} cores are too many", helpers.len()),
            format!("name at most {MAX_CIPHER_CORES}"),
        );
    }
    if let Auto::Set(workers) = workers
        && !cores.is_empty()
        && usize::from(*workers) != cores.len()
    {
        findings.blame(
            &[("node", "workers"), ("node", "cores")],
            format!("{workers} workers contradict node.cores, which names {} cores", cores.len()),
            format!("write workers = {}, or \"auto\"", cores.len()),
        );
    }
}
