//! The table at the end, and the same as JSON.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use weir_accounts::{Boundary, Drops};
use weir_control::view::Status;
use weir_tests::{client::Transfer, node::Session};

use crate::phases::Phase;

/// Everything that the demo has found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    phases: Vec<Phase>,
    /// Of the bulk TCP transfers: packets per super-packet.
    aggregation: Aggregation,
    billed: Billed,
    xdp_mode: String,
    io: String,
    drops: Vec<Drops>,
}

/// Packets per super-packet, of the transfers that load each boundary.
#[derive(Debug, Serialize)]
struct Aggregation {
    udp_receive: f64,
    tun_write: f64,
    tun_read: f64,
    udp_send: f64,
}

/// UDP payload bytes of data messages, at both ends.
#[derive(Debug, Serialize)]
struct Billed {
    up: u64,
    down: u64,
    handshakes_up: u64,
    handshakes_down: u64,
    client_sent: u64,
    client_received: u64,
    guard_bytes: u64,
}

impl Report {
    /// Puts the findings together.
    pub(crate) fn new(
        phases: Vec<Phase>,
        session: &Session,
        transfer: Transfer,
        status: &Status,
    ) -> Self {
        let factor = |direction: &str, of: fn(&Phase) -> Boundary| {
            let bulk = phases.iter().filter(|phase| phase.protocol == "tcp");
            let sums = bulk.filter(|phase| phase.direction == direction).map(of).fold(
                Boundary::default(),
                |sum, one| Boundary {
                    super_packets: sum.super_packets + one.super_packets,
                    packets: sum.packets + one.packets,
                    ..sum
                },
            );
            sums.packets as f64 / sums.super_packets.max(1) as f64
        };
        let aggregation = Aggregation {
            udp_receive: factor("up", |phase| phase.boundaries.udp_receive),
            tun_write: factor("up", |phase| phase.boundaries.tun_write),
            tun_read: factor("down", |phase| phase.boundaries.tun_read),
            udp_send: factor("down", |phase| phase.boundaries.udp_send),
        };
        Self {
            aggregation,
            phases,
            billed: Billed {
                up: session.bytes_up,
                down: session.bytes_down,
                handshakes_up: session.handshake_bytes_up,
                handshakes_down: session.handshake_bytes_down,
                client_sent: transfer.sent,
                client_received: transfer.received,
                guard_bytes: session.guard.bytes,
            },
            xdp_mode: status.xdp_mode.clone(),
            io: status.io.clone(),
            drops: status.drops.iter().filter(|drop| drop.packets > 0).cloned().collect(),
        }
    }

    /// The table.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).ok();
        text
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nthroughput                     Gbit/s   lost")?;
        for phase in &self.phases {
            let name = format!(
                "{} over IPv{}, {}",
                phase.protocol.to_uppercase(),
                phase.ip_version,
                phase.direction
            );
            let lost = phase.lost_ratio.map_or("-".into(), |lost| format!("{:.2} %", lost * 100.0));
            writeln!(out, "  {name:<29}{:>6.2} {lost:>8}", phase.bits_per_second / 1e9)?;
        }
        let Aggregation { udp_receive, tun_write, tun_read, udp_send } = &self.aggregation;
        writeln!(out, "\npackets per super-packet, bulk TCP")?;
        writeln!(out, "  up     UDP receive {udp_receive:>5.1}   TUN write {tun_write:>5.1}")?;
        writeln!(out, "  down   TUN read    {tun_read:>5.1}   UDP send  {udp_send:>5.1}")?;
        let billed = &self.billed;
        writeln!(
            out,
            "\nbytes                     billed  + handshakes      the consumer's wg show"
        )?;
        for (name, bytes, handshakes, client) in [
            ("up", billed.up, billed.handshakes_up, billed.client_sent),
            ("down", billed.down, billed.handshakes_down, billed.client_received),
        ] {
            let verdict = match (name, client.abs_diff(bytes + handshakes)) {
                (_, 0) => "equal".to_owned(),
                ("up", lost) if client > bytes => format!("{lost} lost on the way to the node"),
                ("down", lost) if client < bytes => format!("{lost} lost on the way from the node"),
                (_, wrong) => format!("WRONG by {wrong}"),
            };
            writeln!(out, "  {name:<6}{bytes:>24}{handshakes:>14}{client:>28}  {verdict}")?;
        }
        writeln!(out, "  the guard saw {} bytes from the consumer", billed.guard_bytes)?;
        writeln!(out, "\nXDP {}, {}", self.xdp_mode, self.io)?;
        if self.drops.is_empty() {
            writeln!(out, "drops: none")?;
        }
        for drop in &self.drops {
            writeln!(out, "dropped at {}, {}: {}", drop.stage, drop.reason, drop.packets)?;
        }
        Ok(())
    }
}
