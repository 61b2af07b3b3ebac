//! `weir doctor`.

use std::{fmt::Write as _, path::Path};

use super::out::Out;
use crate::doctor::{self, Report, Verdict};

pub(super) fn run(config: Option<&Path>, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let report = doctor::run(config);
    if json {
        out.json(&report)?;
    } else {
        out.folded(&screen(&report), 24)?;
    }
    out.flush()?;
    let bad = report.findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    anyhow::ensure!(bad == 0, "{bad} of these checks keep the node from running");
    Ok(())
}

fn screen(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let (verdict, check) = (finding.verdict.as_str(), finding.check);
        // Writing to a string cannot fail.
        writeln!(text, "{verdict:<8} {check:<14} {}", finding.found).ok();
        for line in &finding.detail {
            writeln!(text, "{:<23}   | {line}", "").ok();
        }
        if let Some(fix) = &finding.fix {
            writeln!(text, "{:<23}   -> {fix}", "").ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Finding;

    #[test]
    fn each_line_has_its_verdict_what_the_kernel_said_and_what_to_do() {
        let finding = Finding {
            check: "eBPF",
            verdict: Verdict::Warning,
            found: "refused".into(),
            fix: Some("use a newer kernel".into()),
            detail: vec!["R2 is bad".into()],
        };
        let text = screen(&vec![finding].into());
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            ["warning  eBPF           refused", "| R2 is bad", "-> use a newer kernel"]
        );
    }
}
