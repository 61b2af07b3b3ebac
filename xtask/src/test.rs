//! `cargo xtask test`: all tests, those in network namespaces against the program.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    setup,
    workspace::{self, cargo},
};

/// The program that the tests in network namespaces run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// With overflow checks and debug assertions, and the packet path optimised. It is built with
    /// the tests.
    Dev,
    /// As it is shipped.
    Release,
}

/// What happens while the tests are compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lints {
    /// The compiler's own warnings are shown.
    Usual,
    /// Clippy's lints are errors, in benchmarks and libFuzzer's programs too.
    Denied,
}

impl Lints {
    /// A cargo that does so. Clippy is the compiler then, so that nothing is compiled twice.
    fn cargo(self, arguments: &[&str]) -> Command {
        let mut cargo = cargo(arguments);
        if self == Self::Denied {
            cargo.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver").env("RUSTFLAGS", "-Dwarnings");
            cargo.args(["--features", "weir-fuzz/libfuzzer,weir-fuzz-text/libfuzzer"]);
        }
        cargo
    }
}

/// Runs the tests.
///
/// # Errors
/// If something cannot be installed or built, or a test fails.
pub(crate) fn run(program: Program, lints: Lints, arguments: &[String]) -> Result<()> {
    let start = Instant::now();
    setup::run()?;
    println!("building weir and the tests");
    // All members, so that each crate has the same features whatever is run.
    let mut build = lints.cargo(&["test", "--workspace", "--no-run", "--quiet"]);
    match (lints, arguments) {
        (Lints::Denied, _) => build.arg("--all-targets"),
        (Lints::Usual, []) => &mut build,
        (Lints::Usual, _) => build.args(["--test", "program"]),
    };
    workspace::run(&mut build)?;
    let weir = match program {
        Program::Dev => "debug/weir",
        Program::Release => {
            println!("building weir (release)");
            workspace::run(&mut cargo(&["build", "--release", "-p", "weir"]))?;
            "release/weir"
        }
    };
    let mut tests = lints.cargo(&["test", "--no-fail-fast", "--workspace"]);
    tests.args(arguments);
    tests.env("WEIR_BIN", workspace::target().join(weir));
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
    let look = workspace::target().join("debug/examples/privacy");
    // A part of the tests does not build it.
    if !all && !look.exists() {
        return Ok(());
    }
    workspace::run(Command::new(look).arg(logs))
}
