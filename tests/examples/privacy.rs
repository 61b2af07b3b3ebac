//! Looks through what the nodes of a test run wrote for consumers' addresses and destinations.
//! `cargo xtask test` runs it at its end.
#![expect(clippy::print_stdout, reason = "it tells what it found")]

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use weir_tests::privacy;

fn main() -> Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).context("give the directory")?);
    let (files, found) = privacy::look(&directory)?;
    ensure!(
        found.is_empty(),
        "{} lines say where consumers are or what they reach:\n{}",
        found.len(),
        found.join("\n")
    );
    println!(
        "{files} logs and scrapes of nodes say neither where consumers are nor what they reach"
    );
    Ok(())
}
