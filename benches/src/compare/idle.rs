//! What idle sessions cost: memory and processor time.

use std::{fs, time::Duration};

use anyhow::Context as _;
use serde::Serialize;
use weir::bench::{consumer::Consumer, meter::pin};

use super::exit::{Exit, Setup, Tools};

const WATCH: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Idle {
    /// Connected sessions.
    pub sessions: u32,
    /// Resident memory for each, in bytes: the growth by all of them, from a node without any.
    pub bytes_per_session: f64,
    /// Resident memory of the node with all of them, in bytes.
    pub resident: f64,
    /// Share of a core that the node takes while nothing happens.
    pub core_ratio: f64,
}

/// Starts weir with the sessions, connects each, and watches it do nothing.
///
/// # Errors
///
/// Fails when one of them does not connect.
pub fn run(tools: &Tools, setup: &Setup) -> anyhow::Result<Idle> {
    pin(setup.generator)?;
    // The room is there from the start, whoever uses it: it counts as well.
    let empty = {
        let none = Setup { sessions: 0, ..setup.clone() };
        resident(Exit::start(tools, &none)?.meter.pid)?
    };
    let exit = Exit::start(tools, setup)?;
    for credentials in &exit.credentials {
        Consumer::connect(&exit.rig.outside, &exit.access, credentials, 1420)?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let full = resident(exit.meter.pid)?;
    let before = exit.meter.read()?;
    std::thread::sleep(WATCH);
    let spent = exit.meter.read()?.since(&before);
    Ok(Idle {
        sessions: setup.sessions,
        bytes_per_session: (full - empty) / f64::from(setup.sessions.max(1)),
        resident: full,
        core_ratio: spent.process / spent.wall,
    })
}

fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the node is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<f64>()? * 1024.0)
}
