//! Undoes a connection: everything that it changed, whether its process lives or was killed. It goes
//! by what is there, not by what was written down.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rtnetlink::Handle;
use rustix::process::{Signal, kill_process};

use crate::{ENTRY_INTERFACE, Slot, dns::Dns, firewall, link, lockdown, routes, state::Directory};

/// The time in which a connection ends by itself.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// The time in which one that was killed is gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// What there was to undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A closed machine, without a process.
    Closed,
    /// A connection that ran.
    Running,
}

/// Ends the connection of this network namespace, if it runs, and undoes what it changed.
///
/// # Errors
///
/// Names the first thing that could not be undone, after everything else was.
pub fn disconnect() -> anyhow::Result<Found> {
    let directory = Directory::here();
    let was_running = end(&directory)?;
    let lock = directory.lock()?;
    let _lock = match lock {
        Ok(lock) => lock,
        Err(pid) => anyhow::bail!("process {pid} has begun a new connection meanwhile"),
    };
    let was_closed = firewall::is_loaded()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let handle = link::netlink().context("cannot open netlink")?;
        undo(&handle, &directory).await
    })?;
    Ok(match (was_running, was_closed) {
        (true, _) => Found::Running,
        (false, true) => Found::Closed,
        (false, false) => Found::Nothing,
    })
}

/// Undoes everything. The table goes last.
///
/// # Errors
///
/// Names the first thing that could not be undone, after everything else was.
pub async fn undo(handle: &Handle, directory: &Directory) -> anyhow::Result<()> {
    let dns = Dns::find(directory).restore();
    let routes = routes::remove_all(handle).await;
    let mut links = Ok(());
    for interface in Slot::ALL.map(Slot::interface).into_iter().chain([ENTRY_INTERFACE]) {
        let removed = link::remove(handle, interface).await;
        links = links.and(removed.context("cannot remove the tunnel's interface"));
    }
    let lockdown = lockdown::remove();
    let table = match firewall::is_loaded() {
        Ok(true) => firewall::remove(),
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    directory.clear();
    dns.and(routes).and(links).and(lockdown).and(table)
}

/// Ends the process of a connection. Says whether there was one.
fn end(directory: &Directory) -> anyhow::Result<bool> {
    let Some(pid) = directory.holder() else { return Ok(false) };
    let is_gone = |limit: Duration| {
        let end = Instant::now() + limit;
        loop {
            match directory.holder() {
                None => return true,
                Some(_) if Instant::now() >= end => return false,
                Some(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    };
    // One that is stopped hears nothing until it goes on.
    for signal in [Signal::TERM, Signal::CONT] {
        kill_process(pid, signal).context("cannot end the connection. Fix: run as root")?;
    }
    if !is_gone(END_TIMEOUT) {
        kill_process(pid, Signal::KILL).ok();
        anyhow::ensure!(is_gone(KILL_TIMEOUT), "process {pid:?} does not end, even when killed");
    }
    Ok(true)
}
