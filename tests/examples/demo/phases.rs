//! What the consumer does, one thing after the other.
#![expect(clippy::print_stdout, reason = "the demo is for the eyes")]

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;
use weir_accounts::{Boundaries, Boundary};
use weir_tests::{
    Lab, Node,
    lab::SERVERS,
    traffic::{
        stream,
        tcp::{self, Direction},
    },
};

use crate::bars::watch;

const FLOWS: usize = 4;
/// 20 datagrams of 1200 bytes in each millisecond are 192 Mbit/s: less than the slowest machine's.
const DATAGRAMS_PER_MILLISECOND: u32 = 20;

/// What one transfer came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Phase {
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    /// The family inside the tunnel: 4 or 6.
    pub(crate) ip_version: u8,
    /// `up` is from consumer to internet.
    pub(crate) direction: &'static str,
    /// What arrived, in bits of payload per second.
    pub(crate) bits_per_second: f64,
    /// The fraction of datagrams that did not arrive (UDP), 0 to 1.
    pub(crate) lost_ratio: Option<f64>,
    /// What crossed the node's four boundaries meanwhile.
    pub(crate) boundaries: Boundaries,
}

/// Runs all transfers.
pub(crate) fn run_all(lab: &Lab, node: &Node<'_>, time: Duration) -> Result<Vec<Phase>> {
    let mut phases = Vec::new();
    for server in SERVERS {
        for direction in [Direction::Up, Direction::Down] {
            phases.push(run(lab, node, server, direction, "tcp", time)?);
        }
    }
    for server in SERVERS {
        for direction in [Direction::Up, Direction::Down] {
            phases.push(run(lab, node, server, direction, "udp", time / 2)?);
        }
    }
    Ok(phases)
}

fn run(
    lab: &Lab,
    node: &Node<'_>,
    server: IpAddr,
    direction: Direction,
    protocol: &'static str,
    time: Duration,
) -> Result<Phase> {
    let ip_version = if server.is_ipv4() { 4 } else { 6 };
    let label = if direction == Direction::Up { "up" } else { "down" };
    let arrow =
        if direction == Direction::Up { "consumer -> internet" } else { "internet -> consumer" };
    let name = format!("{} v{ip_version} {arrow}", protocol.to_uppercase());
    let before = node.status()?.boundaries;
    let (bytes_per_second, lost_ratio) = match protocol {
        "tcp" => {
            let at = tcp::Server::start(&lab.internet)?.at(server);
            let work = |bytes: &_| tcp::for_time(&lab.consumer, at, direction, FLOWS, time, bytes);
            (watch(&name, time, work)?, None)
        }
        _ => {
            let server = stream::Server::start(&lab.internet, server)?;
            let rate = DATAGRAMS_PER_MILLISECOND;
            let work = |bytes: &_| server.stream(&lab.consumer, direction, rate, time, bytes);
            let outcome = watch(&name, time, work).with_context(|| name.clone())?;
            let bytes = outcome.received as f64 * stream::PAYLOAD as f64;
            let lost = 1.0 - outcome.received as f64 / outcome.sent as f64;
            (bytes / time.as_secs_f64(), Some(lost))
        }
    };
    let boundaries = difference(&node.status()?.boundaries, &before);
    let phase = Phase {
        protocol,
        ip_version,
        direction: label,
        bits_per_second: bytes_per_second * 8.0,
        lost_ratio,
        boundaries,
    };
    println!("{name:28} {:6.2} Gbit/s, content checked", phase.bits_per_second / 1e9);
    Ok(phase)
}

fn difference(after: &Boundaries, before: &Boundaries) -> Boundaries {
    let of = |after: Boundary, before: Boundary| Boundary {
        super_packets: after.super_packets - before.super_packets,
        packets: after.packets - before.packets,
        batches: std::array::from_fn(|size| after.batches[size] - before.batches[size]),
    };
    Boundaries {
        udp_receive: of(after.udp_receive, before.udp_receive),
        tun_write: of(after.tun_write, before.tun_write),
        tun_read: of(after.tun_read, before.tun_read),
        udp_send: of(after.udp_send, before.udp_send),
    }
}
