//! Runs a node.
//!
//! A node starts in stages, each a type that only the one before it makes, so that nothing is
//! served before everything is in place:
//!
//! 1. [`Prepared`]: the host and the eBPF programs are prepared.
//! 2. [`Sandboxed`](sandboxed::Sandboxed): it is known how consumers' packets leave, the host forwards
//!    if it must, and the process has given up its privileges. No thread handles a packet yet.
//! 3. [`Forwarding`](forwarding::Forwarding): the workers move packets, and there is no session.
//! 4. [`Serving`](serving::Serving): the ledger's sessions are open and the host is watched.
//!
//! [`Machine`](machine::Machine) has what must be undone, whichever stage the node reached.

mod addresses;
mod banner;
mod blocks;
mod choices;
mod dataplane;
mod ebpf;
mod egress;
mod flow_table;
mod flow_view;
mod flows;
mod forwarding;
mod keys;
mod ledger;
mod limits;
mod machine;
mod market;
mod policy;
mod prepare;
mod random;
mod receive;
mod reload;
mod sandboxed;
mod serve;
mod service;
mod serving;
mod sessions;
mod status;
mod uplink;
mod watch;

use std::path::{Path, PathBuf};

use tracing::info;

use self::prepare::Prepared;
use crate::logging::Log;
use weir_config::Config;

/// The name of the sessions' database within the state directory.
const LEDGER: &str = "ledger.db";

/// Where the sessions' database is.
#[must_use]
pub fn ledger_path(config: &Config) -> PathBuf {
    config.node.state_dir.join(LEDGER)
}

/// How a node is started.
#[derive(Clone, Copy)]
struct Options<'a> {
    config: &'a Config,
    /// The configuration's file, which a reload reads again.
    file: Option<&'a Path>,
    log: &'a Log,
}

/// Runs a node until it is told to stop by SIGTERM or SIGINT. At SIGHUP it reads `file`, the
/// configuration that it was started with, again.
///
/// # Errors
///
/// Says what is in the way of serving, and what to do about it. Nothing is left changed then.
pub fn run(config: &Config, file: Option<&Path>, log: &Log) -> anyhow::Result<()> {
    let Some(found) = uplink::wait_for(config)? else {
        info!("stopped before there was an uplink");
        return Ok(());
    };
    let (prepared, mut machine) = Prepared::new(Options { config, file, log }, found)?;
    let outcome = prepared
        .enter_sandbox(&mut machine)
        .and_then(|sandboxed| sandboxed.forward(&mut machine))
        .and_then(|forwarding| forwarding.open(&mut machine))
        .and_then(|serving| serving.until_told(&mut machine));
    // Whether it served or not: the machine is to be as it was.
    machine.undo(outcome)
}
