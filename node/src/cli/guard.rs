//! `weir guard`: what the guard in the kernel passes and drops, live.

use std::{fmt::Write as _, thread::sleep, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use super::out::Out;
use weir_control::client::Client;
use weir_control::view::Status;

const INTERVAL: Duration = Duration::from_secs(1);
/// Clears the terminal and moves the cursor to its upper left corner.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// One verdict of the guard.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    /// `pass` or `drop`.
    verdict: &'static str,
    /// The message type, or the reason for which it was dropped.
    kind: String,
    /// Frames since the node started.
    total: u64,
    /// Frames per second since the previous report.
    per_second: f64,
}

/// A report, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report<'a> {
    xdp_mode: &'a str,
    /// Whether a frame may be several datagrams: generic XDP runs behind GRO.
    frames_may_be_merged: bool,
    verdicts: &'a [Row],
}

pub(super) fn show(client: &Client, once: bool, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let mut last: Status = client.get("/v1/status")?;
    let is_live = !once && !json && out.is_terminal();
    loop {
        sleep(INTERVAL);
        let now: Status = client.get("/v1/status")?;
        let rows = rows(&last, &now);
        if json {
            let merged = now.xdp_mode == "generic";
            let xdp_mode = &now.xdp_mode;
            out.json(&Report { xdp_mode, frames_may_be_merged: merged, verdicts: &rows })?;
        } else {
            if is_live {
                out.text(CLEAR)?;
            }
            out.text(&screen(&now.xdp_mode, &rows))?;
        }
        out.flush().context("cannot write the output")?;
        if once {
            return Ok(());
        }
        last = now;
    }
}

/// The guard's verdicts: passed frames by message type, and drops by reason.
fn rows(last: &Status, now: &Status) -> Vec<Row> {
    let seconds = (now.uptime_seconds - last.uptime_seconds).max(0.001);
    let row = |verdict, kind: &str, total: u64, before: Option<u64>| Row {
        verdict,
        kind: kind.to_owned(),
        total,
        per_second: total.saturating_sub(before.unwrap_or(total)) as f64 / seconds,
    };
    let passed = now.guard.iter().map(|count| {
        let before = last.guard.iter().find(|old| old.message == count.message);
        row("pass", &count.message, count.datagrams, before.map(|old| old.datagrams))
    });
    let dropped = now.drops.iter().filter(|drops| drops.stage == "xdp").map(|drops| {
        let same =
            |old: &&weir_accounts::Drops| old.stage == drops.stage && old.reason == drops.reason;
        let before = last.drops.iter().find(same);
        row("drop", &drops.reason, drops.packets, before.map(|old| old.packets))
    });
    if now.guard.is_empty() { Vec::new() } else { passed.chain(dropped).collect() }
}

fn screen(mode: &str, rows: &[Row]) -> String {
    if rows.is_empty() {
        return "guard: off (no XDP program). `weir status` says why.\n".to_owned();
    }
    let mut text = format!("guard: XDP {mode}\n\n{:<24}{:>14}{:>18}\n", "", "per second", "total");
    for Row { verdict, kind, total, per_second } in rows {
        // Writing to a string cannot fail.
        writeln!(text, "{:<24}{per_second:>14.0}{total:>18}", format!("{verdict} {kind}")).ok();
    }
    if mode == "generic" {
        text.push_str("\nGeneric XDP runs after GRO: one frame may be several datagrams.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_control::{testing::StillNode, view::NodeView as _};

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let last = StillNode.status();
        let mut now = last.clone();
        now.uptime_seconds += 2.0;
        for count in &mut now.guard {
            count.datagrams += 500;
        }
        let rows = rows(&last, &now);
        assert!(!rows.is_empty());
        for row in &rows {
            let expected = if row.verdict == "pass" { 250.0 } else { 0.0 };
            assert!((row.per_second - expected).abs() < 0.01, "{row:?}");
        }
        let text = screen("native", &rows);
        assert!(text.lines().any(|line| line.contains("pass") && line.contains(" 250 ")), "{text}");
        assert!(screen("generic", &rows).contains("may be several"));
    }

    #[test]
    fn without_a_guard_it_says_so() {
        let mut status = StillNode.status();
        status.guard.clear();
        assert_eq!(rows(&status, &status), []);
        assert!(screen("off", &[]).contains("weir status"));
    }
}
