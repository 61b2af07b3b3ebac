//! `cargo xtask kernel-test`: weir on Debian's kernels, in machines that QEMU emulates in software.
//! The work is done by the example `kernels` of the tests.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

mod download;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    setup::{self, apt, apt::Need},
    workspace::{self, cargo},
};

const NEEDS: &[Need] = &[
    Need::new("qemu-system-x86", "/usr/bin/qemu-system-x86_64", "emulates a machine"),
    Need::new("cpio", "/usr/bin/cpio", "packs that machine's files"),
    Need::new("kmod", "/sbin/depmod", "lists what each kernel module depends on"),
    Need::new("binutils", "/usr/bin/strip", "makes that machine's programs small"),
];

/// Where the table is, between two lines.
const DOCS: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- made by cargo xtask kernel-test --docs -->";
const END: &str = "<!-- end -->";

/// Fetches the kernels that are not there yet, and tries weir on each of them.
///
/// # Errors
/// If something cannot be fetched, installed or built, or weir fails on a kernel.
pub(crate) fn run(profile: &str, json: Option<&Path>, docs: bool) -> Result<()> {
    setup::run()?;
    let missing = NEEDS.iter().filter(|need| !Path::new(need.proof).exists());
    apt::install(&missing.collect::<Vec<_>>())?;
    let base = workspace::target().join("kernel-test");
    let fetched = download::all(&base)?;
    println!("building weir ({profile}) and the test");
    let weir = ["build", "--quiet", "-p", "weir", "--bin", "weir", "--profile", profile];
    workspace::run(&mut cargo(&weir))?;
    let example = ["build", "--quiet", "-p", "weir-tests", "--example", "kernels"];
    workspace::run(&mut cargo(&example))?;
    let directory = if profile == "dev" { "debug" } else { profile };
    let mut test = Command::new(workspace::target().join("debug/examples/kernels"));
    test.env("WEIR_BIN", workspace::target().join(directory).join("weir"));
    test.arg("test").arg("--busybox").arg(&fetched.busybox).stdin(Stdio::null());
    if let Some(json) = json {
        test.arg("--json").arg(json);
    }
    let table = base.join("table.md");
    test.arg("--table").arg(&table).args(&fetched.kernels);
    let result = workspace::run(&mut test).context("weir fails on a kernel, as shown above");
    if docs {
        let path = workspace::root().join(DOCS);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCS}"))?;
        let text = with_table(&text, &fs::read_to_string(&table)?)
            .with_context(|| format!("{DOCS} has no line {BEGIN:?} and {END:?}"))?;
        fs::write(&path, text).with_context(|| format!("cannot write {DOCS}"))?;
        println!("the table is in {DOCS}");
    }
    result
}

/// The text with another table between its marks.
fn with_table(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_docs_is_replaced() {
        let text = format!("a\n{BEGIN}\n| old |\n{END}\nb\n");
        let new = with_table(&text, "| new |\n");
        assert_eq!(new, Some(format!("a\n{BEGIN}\n| new |\n{END}\nb\n")));
        assert_eq!(with_table("no marks", "x"), None);
    }
}
