//! `weir ledger`: reads the ledger file. The node need not be running.

use std::path::Path;

use alloy_primitives::hex;
use anyhow::{Context as _, bail};

use super::out::Out;
use weir_ledger::check::Reader;

pub(super) fn check(path: &Path, json: bool, out: &mut Out, err: &mut Out) -> anyhow::Result<()> {
    let report = Reader::open(path)?.check().context("the ledger cannot be read")?;
    if json {
        out.json(&serde_json::json!({
            "sessions": report.sessions,
            "records": report.records,
            "problems": report.problems,
        }))?;
    } else {
        for problem in &report.problems {
            err.text(&format!("{}: {problem}\n", path.display()))?;
        }
    }
    if !report.problems.is_empty() {
        bail!(
            "{} is damaged. Fix: stop the node, keep a copy of the file, and restore a backup, or \
             recover what is readable with: sqlite3 {} .recover",
            path.display(),
            path.display()
        );
    }
    if !json {
        out.text(&format!(
            "{}: {} sessions, {} usage records, no problems\n",
            path.display(),
            report.sessions,
            report.records
        ))?;
    }
    Ok(())
}

pub(super) fn export(path: &Path, after: u64, out: &mut Out) -> anyhow::Result<()> {
    Reader::open(path)?.export(after, |record| {
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        out.text(&line)?;
        Ok::<_, anyhow::Error>(())
    })
}

pub(super) fn settlements(path: &Path, out: &mut Out) -> anyhow::Result<()> {
    for settlement in Reader::open(path)?.settlements()? {
        let message: serde_json::Value = serde_json::from_str(&settlement.message)
            .with_context(|| format!("the promise of channel {} is damaged", settlement.channel))?;
        let line = serde_json::json!({
            "channel": settlement.channel,
            "amount": settlement.amount.to_string(),
            "preimage": hex::encode(settlement.preimage.expose()),
            "message": message,
        });
        out.text(&format!("{line}\n"))?;
    }
    Ok(())
}
