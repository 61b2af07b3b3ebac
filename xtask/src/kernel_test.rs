//! `cargo xtask kernel-test`: weir on Debian's kernels, in machines that QEMU emulates in software.
//! The work is done by the example `kernels` of the tests.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

mod download;

use std::{
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

/// Fetches the kernels that are not there yet, and tries weir on each of them.
///
/// # Errors
/// If something cannot be fetched, installed or built, or weir fails on a kernel.
pub(crate) fn run(profile: &str, json: Option<&Path>) -> Result<()> {
    setup::run()?;
    let missing = NEEDS.iter().filter(|need| !Path::new(need.proof).exists());
    apt::install(&missing.collect::<Vec<_>>())?;
    let fetched = download::all(&workspace::target().join("kernel-test"))?;
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
    workspace::run(test.args(&fetched.kernels)).context("weir fails on a kernel, as shown above")
}
