//! `cargo xtask test`: all tests, those in network namespaces against weir's release build.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    setup,
    workspace::{self, cargo},
};

/// Runs the tests.
///
/// # Errors
/// If something cannot be installed or built, or a test fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let start = Instant::now();
    setup::run()?;
    println!("building weir (release)");
    workspace::run(&mut cargo(&["build", "--release", "-p", "weir"]))?;
    println!("building and running the tests");
    let mut tests = cargo(&["test", "--no-fail-fast"]);
    if !arguments.iter().any(|argument| argument == "-p" || argument.starts_with("--package")) {
        tests.arg("--workspace");
    }
    tests.args(arguments);
    tests.env("WEIR_BIN", workspace::target().join("release/weir"));
    // Labs take turns by themselves; this keeps those that wait from being many.
    tests.env("RUST_TEST_THREADS", std::env::var("RUST_TEST_THREADS").unwrap_or("2".into()));
    let logs = workspace::target().join("test-logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).context("cannot empty the directory for nodes' logs")?;
    }
    fs::create_dir_all(&logs).context("cannot make the directory for nodes' logs")?;
    tests.env("WEIR_KEEP_LOGS", &logs);
    let result = workspace::run(&mut tests).and_then(|()| privacy(&logs, arguments.is_empty()));
    let seconds = start.elapsed().as_secs();
    let verdict = if result.is_ok() { "all tests passed" } else { "some tests FAILED" };
    println!("{verdict} ({} min {} s with building)", seconds / 60, seconds % 60);
    result
}

/// Looks through what all nodes wrote. `all` says that all tests ran, so that there must be much.
fn privacy(logs: &Path, all: bool) -> Result<()> {
    let files = fs::read_dir(logs)?.count();
    ensure!(!all || files >= 20, "only {files} logs and scrapes were kept in {}", logs.display());
    let look = ["run", "--quiet", "-p", "weir-tests", "--example", "privacy", "--"];
    workspace::run(cargo(&look).arg(logs))
}
