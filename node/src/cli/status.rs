//! `weir status`.

use std::fmt::Write as _;

use super::{out::Out, units};
use weir_accounts::Boundary;
use weir_config::amounts::BitRate;
use weir_control::client::Client;
use weir_control::view::{HostRestored, Status};

pub(super) fn show(client: &Client, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let status: Status = client.get("/v1/status")?;
    if json {
        return out.json(&status);
    }
    out.folded(&screen(&status), 12)?;
    Ok(())
}

/// The node on one screen.
fn screen(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| {
        // Writing to a string cannot fail.
        writeln!(text, "{what:<12}{value}").ok();
    };
    let up = units::span(status.uptime_seconds.max(0.0) as u64);
    line("weir", &format!("{}, up {up}", status.version));
    line("endpoint", &status.endpoint);
    line("public key", &status.public_key);
    line(
        "uplink",
        &format!("{}, MTU {}, XDP {}", status.uplink, status.uplink_mtu, status.xdp_mode),
    );
    line("tunnel", &format!("{}, MTU {}", status.interface, status.mtu));
    line("egress", &format!("{}: {}", status.egress.mode, status.egress.reason));
    if let Some(nat) = &status.nat {
        let (flows, ports) = (nat.flows(), nat.ports_used);
        let flows = format!("{flows} of at most {}", nat.flow_capacity);
        line("flows", &format!("{flows}; ports: {ports} of {}", nat.ports));
    }
    let offloads = status.offloads.iter().map(String::as_str);
    for (row, offload) in offloads.enumerate() {
        line(if row == 0 { "offloads" } else { "" }, offload);
    }
    let busy = status.worker_busy_ratio.iter().map(|ratio| format!("{:.0} %", ratio * 100.0));
    let cores = status.worker_cores.iter().map(ToString::to_string);
    let (busy, cores) = (busy.collect::<Vec<_>>(), cores.collect::<Vec<_>>());
    let workers = format!(
        "{} by {} on {} {}, busy {}",
        cores.len(),
        if status.io == "uring" { "io_uring" } else { "plain system calls" },
        if cores.len() == 1 { "core" } else { "cores" },
        cores.join(", "),
        busy.join(", ")
    );
    line("workers", &workers);
    line("sandbox", &status.sandbox);
    let sessions = format!("{} of at most {}", status.sessions, status.max_sessions);
    line("sessions", &format!("{sessions}; handshakes: {}", status.handshakes));
    let (up, down) = (units::bytes(status.bytes_up), units::bytes(status.bytes_down));
    line("billed", &format!("up {up}, down {down}"));
    if let Some(error) = &status.ledger_error {
        line("LEDGER", &format!("not writable: {error}"));
    }
    for condition in &status.host {
        line("HOST", &format!("{}. Fix: {}", condition.problem, condition.fix));
    }
    let restored = status.restored.iter().filter(|it| it.times > 0);
    let restored: Vec<_> =
        restored.map(|HostRestored { part, times }| format!("{part} {times}")).collect();
    if !restored.is_empty() {
        line("restored", &format!("after changes by other programs: {}", restored.join(", ")));
    }
    if let Some(fleet) = &status.fleet {
        line("fleet", fleet);
    }
    let limits = &status.limits;
    if let Some(reason) = &limits.paused_for {
        line("paused", &format!("all sessions: {reason} (see weir limits)"));
    }
    if (limits.rate_up, limits.rate_down) != (0, 0) {
        let (up, down) = (BitRate::new(limits.rate_up), BitRate::new(limits.rate_down));
        line("rate", &format!("up {up}, down {down}"));
    }
    boundaries(&mut text, status);
    guard(&mut text, status);
    drops(&mut text, status);
    text
}

fn boundaries(text: &mut String, status: &Status) {
    text.push_str("\npackets per batch\n");
    let boundaries = &status.boundaries;
    for (name, boundary) in [
        ("UDP receive", boundaries.udp_receive),
        ("TUN write", boundaries.tun_write),
        ("TUN read", boundaries.tun_read),
        ("UDP send", boundaries.udp_send),
    ] {
        let Boundary { super_packets, packets, .. } = boundary;
        let ratio = match super_packets {
            0 => "-".to_owned(),
            _ => format!("{:.1}", packets as f64 / super_packets as f64),
        };
        writeln!(text, "  {name:<14}{ratio:>6}   {packets} in {super_packets}").ok();
    }
}

fn guard(text: &mut String, status: &Status) {
    if status.guard.is_empty() {
        text.push_str("\nguard: off (no XDP program)\n");
        return;
    }
    text.push_str("\nguard\n");
    for count in &status.guard {
        let (message, bytes) = (&count.message, units::bytes(count.bytes));
        writeln!(text, "  {message:<16}{:>12} datagrams  {bytes:>10}", count.datagrams).ok();
    }
}

fn drops(text: &mut String, status: &Status) {
    let dropped: Vec<_> = status.drops.iter().filter(|drops| drops.packets > 0).collect();
    if dropped.is_empty() {
        text.push_str("\ndrops: none\n");
        return;
    }
    text.push_str("\ndrops\n");
    for drops in dropped {
        let what = format!("{} {}", drops.stage, drops.reason);
        writeln!(text, "  {what:<26}{:>12}", drops.packets).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_control::{testing::StillNode, view::NodeView as _};

    #[test]
    fn the_node_fits_one_screen_and_names_what_matters() {
        let text = screen(&StillNode.status());
        assert!(text.lines().count() <= 40, "{text}");
        for line in [
            "weir        0.1.0, up 12 s",
            "uplink      eth0, MTU 1500, XDP native",
            "egress      bypass: the uplink allows it",
            "flows       43 of at most 262144; ports: 96 of 28672",
            "workers     2 by io_uring on cores 0, 1, busy 25 %, 50 %",
            "sessions    1 of at most 4096; handshakes: 3",
            "HOST        IPv4 has no default route. Fix: ip -4 route add default via ROUTER dev eth0",
            "restored    after changes by other programs: policy 2",
            "paused      all sessions: quota (see weir limits)",
            "rate        up off, down 200 Mbit/s",
            "  UDP receive     44.0   440 in 10",
            "  TUN read           -   0 in 0",
            "  crypto replay             18446744073709551615",
        ] {
            assert!(text.lines().any(|is| is == line), "{line:?} is not in\n{text}");
        }
    }
}
