//! What was seen on a kernel, and the table of all.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::{fmt::Write as _, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use weir_control::view::Status;

/// The findings of `weir doctor` that are the kernel's, and how the table names them.
const FINDINGS: [(&str, &str); 3] =
    [("io_uring", "io_uring (doctor)"), ("eBPF", EBPF), ("TUN", "TUN (doctor)")];
/// What else the node says, which is not in the table.
const NOTES: &str = "the node says";
const EBPF: &str = "eBPF (doctor)";

/// The parts of the test, as the table names them.
pub(crate) mod part {
    pub(crate) const BOOTS: &str = "boots";
    pub(crate) const STARTS: &str = "the node starts";
    pub(crate) const GUARD: &str = "the guard for frames of any size runs in the driver";
    pub(crate) const URING: &str = "io_uring serves";
    pub(crate) const CONNECTS: &str = "wireguard-go connects as a consumer";
    pub(crate) const PASSES: &str = "its TCP and UDP pass unchanged, over IPv4 and IPv6";
    pub(crate) const CONNECTS_V6: &str = "it connects over IPv6 too";
    pub(crate) const CONNECT_COMMAND: &str =
        "weir connect and weir exec use the kernel's WireGuard, and nothing leaves beside it";
    pub(crate) const KERNEL_CONNECTS: &str = "the kernel's own WireGuard connects as a consumer";
    pub(crate) const KERNEL_PASSES: &str =
        "the TCP and UDP of the kernel's WireGuard pass unchanged";
    pub(crate) const HANG: &str = "while the node hangs under load, its host is reached";
    pub(crate) const KILL: &str = "after kill -9, sessions, counters and traffic continue";
    pub(crate) const ELSE: &str = "the steps in between";
    pub(crate) const STOP: &str = "a clean stop leaves nothing behind";
}

/// How the table names the switch for IPv6 forwarding (Linux 6.17).
pub(crate) const IPV6_FORWARDING: &str = "IPv6 forwarding for one interface alone";

/// How the table names the verifier's work.
pub(crate) const VERIFIER: &str = "instructions that the verifier walks (limit: 1,000,000)";

/// One kernel.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// As `uname -r` gives it.
    pub(crate) kernel: String,
    /// What the node's uplink was.
    pub(crate) uplink: &'static str,
    /// What the node chose and found.
    facts: Vec<(String, String)>,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    /// What went wrong.
    error: Option<String>,
}

impl Report {
    pub(crate) fn new(kernel: &str, uplink: &'static str) -> Self {
        println!("\nLinux {kernel}, {uplink}");
        Self { kernel: kernel.to_owned(), uplink, facts: Vec::new(), checks: Vec::new() }
    }

    /// Whether everything that was tried went well.
    pub(crate) fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.error.is_none())
    }

    /// Does one part, and says how it went.
    pub(crate) fn check<T>(
        &mut self,
        what: &'static str,
        part: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let result = part();
        let seconds = start.elapsed().as_secs();
        let error = result.as_ref().err().map(|error| format!("{error:#}"));
        match &error {
            None => println!("  {what}: yes ({seconds} s)"),
            Some(error) => println!("  {what}: NO ({seconds} s)\n{error}"),
        }
        self.checks.push(Check { what, error });
        result
    }

    /// Takes down what went wrong between the parts, too.
    pub(crate) fn end(&mut self, parts: Result<()>) {
        let Err(error) = parts else { return };
        let error = Some(format!("{error:#}"));
        if self.checks.iter().all(|check| check.error != error) {
            println!("  {}: NO\n{}", part::ELSE, error.as_deref().unwrap_or_default());
            self.checks.push(Check { what: part::ELSE, error });
        }
    }

    /// Adds a fact, which is one line.
    pub(crate) fn fact(&mut self, what: &str, found: impl AsRef<str>) {
        let found: Vec<_> = found.as_ref().lines().collect();
        let found = found.join(" ");
        println!("  {what}: {found}");
        self.facts.push((what.to_owned(), found));
    }

    /// What `weir doctor --json` and `weir status --json` say of the kernel.
    pub(crate) fn facts(&mut self, doctor: &str, status: &Status) -> Result<()> {
        self.fact("XDP guard", &status.xdp_mode);
        self.fact("egress", &status.egress.mode);
        self.fact("I/O", &status.io);
        for note in &status.offloads {
            let known = [("uplink: ", "offloads of the uplink"), ("receive ", "receive path")];
            let known = known
                .iter()
                .find_map(|(start, what)| note.strip_prefix(start).map(|found| (*what, found)));
            let (what, found) = known.unwrap_or((NOTES, note));
            self.fact(what, found);
        }
        self.fact("sandbox", &status.sandbox);
        let doctor: Value = serde_json::from_str(doctor)?;
        let findings = doctor["findings"].as_array().context("no findings")?;
        for (check, what) in FINDINGS {
            let finding = findings.iter().find(|finding| finding["check"] == check);
            let found = finding.context("weir doctor looks at something else")?["found"].as_str();
            self.fact(what, found.context("a finding without words")?);
        }
        Ok(())
    }

    /// What is expected of each kernel's offer. A node serves without it, too.
    pub(crate) fn offers(&mut self, status: &Status) {
        let guard = || {
            ensure!(status.xdp_mode == "native", "the guard is {}", status.xdp_mode);
            let takes = self.facts.iter().find(|(what, _)| what == EBPF).map(|(_, found)| found);
            let takes = takes.map_or("", String::as_str);
            ensure!(takes.contains("all programs"), "weir doctor says: {takes}");
            Ok(())
        };
        let (guard, is_uring) = (guard(), status.io == "uring");
        // They stand in the report.
        self.check(part::GUARD, || guard).ok();
        self.check(part::URING, || {
            ensure!(is_uring, "plain system calls do");
            Ok(())
        })
        .ok();
    }

    fn cell(&self, row: &str) -> String {
        let fact = self.facts.iter().find(|(what, _)| what == row).map(|(_, found)| found.clone());
        let check = || {
            let check = self.checks.iter().find(|check| check.what == row)?;
            Some(if check.error.is_none() { "yes" } else { "NO" }.to_owned())
        };
        fact.or_else(check).unwrap_or_else(|| "not tried".to_owned())
    }
}

/// The longest line that a document may have.
const MAX_COLUMNS: usize = 120;

/// All of them in Markdown: side by side in a table, and below it a list of what is too long for
/// one.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut rows: Vec<&str> = Vec::new();
    for report in reports {
        let facts = report.facts.iter().map(|(what, _)| what.as_str());
        for row in facts.chain(report.checks.iter().map(|check| check.what)) {
            if row != NOTES && !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    let mut text = String::from("| Linux");
    for report in reports {
        let _infallible = write!(text, " | {}, {}", report.kernel, report.uplink);
    }
    let _infallible = writeln!(text, " |\n|---{}|", "|---".repeat(reports.len()));
    let mut list = String::new();
    for row in rows {
        let cells: Vec<_> = reports.iter().map(|report| report.cell(row)).collect();
        let line = format!("| {row} | {} |", cells.join(" | "));
        if line.len() <= MAX_COLUMNS {
            let _infallible = writeln!(text, "{line}");
            continue;
        }
        let _infallible = writeln!(list, "- {row}");
        for (report, cell) in reports.iter().zip(cells) {
            list.push_str(&wrapped("  - ", &format!("{}: {cell}", report.kernel)));
        }
    }
    if !list.is_empty() {
        let _infallible = write!(text, "\n{list}");
    }
    text
}

/// An item of a list, in as many lines as it needs.
fn wrapped(mark: &str, item: &str) -> String {
    let (mut text, mut line) = (String::new(), mark.trim_end().to_owned());
    for word in item.split_whitespace() {
        if line.len() + 1 + word.len() > MAX_COLUMNS {
            let _infallible = writeln!(text, "{line}");
            line = " ".repeat(mark.len() - 1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _infallible = writeln!(text, "{line}");
    text
}
