//! `cargo xtask test`: all tests, those in network namespaces against weir's release build.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::time::Instant;

use anyhow::Result;

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
    let result = workspace::run(&mut tests);
    let seconds = start.elapsed().as_secs();
    let verdict = if result.is_ok() { "all tests passed" } else { "some tests FAILED" };
    println!("{verdict} ({} min {} s with building)", seconds / 60, seconds % 60);
    result
}
