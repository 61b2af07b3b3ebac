//! weir on other kernels than this machine's: each boots in an emulated machine, in which the node
//! runs, and is reached through its virtio network card from the lab's namespaces.
//! `cargo xtask kernel-test` fetches the kernels and runs this.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

mod carry;
mod connect;
mod guest;
mod hang;
mod image;
mod network;
mod own;
mod report;
mod trial;
mod verifier;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};

use self::report::Report;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Try the node on kernels
    Test(Test),
    /// Move traffic out of a namespace: what the consumer in an emulated machine does
    Carry(carry::Traffic),
    /// Say how far the verifier walked through the programs of the node that runs
    Verifier,
}

#[derive(Debug, Args)]
struct Test {
    /// A busybox without libraries
    #[arg(long)]
    busybox: PathBuf,
    /// Write the results to a file too
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table to a file too, in Markdown
    #[arg(long)]
    table: Option<PathBuf>,
    /// Unpacked packages of kernels
    kernels: Vec<PathBuf>,
}

fn main() -> Result<()> {
    match Arguments::parse().mode {
        Mode::Test(test) => try_all(&test),
        Mode::Carry(traffic) => traffic.run(),
        Mode::Verifier => {
            println!("{}", verifier::walked());
            Ok(())
        }
    }
}

fn try_all(test: &Test) -> Result<()> {
    let mut reports = Vec::new();
    for kernel in &test.kernels {
        reports.push(trial::run(kernel, &test.busybox)?);
    }
    reports.push(own::run()?);
    let table = report::table(&reports);
    println!("\n{table}");
    for (path, text) in
        [(&test.json, serde_json::to_string_pretty(&reports)?), (&test.table, table)]
    {
        if let Some(path) = path {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let failed: Vec<_> = reports.iter().filter(|report| !report.passed()).collect();
    let names: Vec<_> = failed.iter().map(|report: &&Report| report.kernel.as_str()).collect();
    ensure!(failed.is_empty(), "it fails on Linux {}", names.join(", "));
    Ok(())
}
