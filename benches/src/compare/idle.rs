//! What idle sessions cost: memory and processor time.

use std::{fs, time::Duration};

use anyhow::Context as _;
use serde::Serialize;
use weir_testkit::{consumer::Consumer, meter::pin};

use super::exit::{Exit, Setup, Tools};

const SETTLE: Duration = Duration::from_secs(2);
/// The watch over the machine looks at everything once in this time.
const WATCH: Duration = Duration::from_secs(30);

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
    /// The same of a node without sessions: its watch over the machine, and its timers.
    pub empty_core_ratio: f64,
}

/// Starts weir with the sessions, connects each, and watches it do nothing.
///
/// # Errors
///
/// Fails when one of them does not connect.
pub fn run(tools: &Tools, setup: &Setup) -> anyhow::Result<Idle> {
    pin(setup.generator)?;
    // The room is there from the start, whoever uses it: it counts as well.
    let (empty, empty_core_ratio) = {
        let none = Setup { sessions: 0, ..setup.clone() };
        let exit = Exit::start(tools, &none)?;
        (resident(exit.meter.pid)?, core_ratio(&exit)?)
    };
    let exit = Exit::start(tools, setup)?;
    for credentials in &exit.credentials {
        Consumer::connect(&exit.rig.outside, &exit.access, credentials, 1420)?;
    }
    let core_ratio = core_ratio(&exit)?;
    let full = resident(exit.meter.pid)?;
    Ok(Idle {
        sessions: setup.sessions,
        bytes_per_session: (full - empty) / f64::from(setup.sessions.max(1)),
        resident: full,
        core_ratio,
        empty_core_ratio,
    })
}

/// Share of a core that the node takes from now on, once what belongs to its start is over.
fn core_ratio(exit: &Exit) -> anyhow::Result<f64> {
    std::thread::sleep(SETTLE);
    let before = exit.meter.read()?;
    std::thread::sleep(WATCH);
    let spent = exit.meter.read()?.since(&before);
    Ok(spent.process / spent.wall)
}

fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the node is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<f64>()? * 1024.0)
}
