//! Processes that are ours: their end, their memory, their sleep.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until;

/// Sends a signal to a child that has not been waited for.
///
/// # Errors
/// If the child is gone.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    kill_process(Pid::from_child(child), signal).context("cannot signal a child")?;
    Ok(())
}

/// Waits for the child's end.
///
/// # Errors
/// If it has not ended within `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    until("the end of a process", limit, || match child.try_wait()? {
        Some(status) => Ok(status),
        None => bail!("process {} still runs", child.id()),
    })
}

/// Kills a process that is not our child and waits until it is gone. One that is gone already is
/// no error.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid)
        && kill_process(pid, Signal::KILL).is_ok()
    {
        let gone = || match kill_process(pid, Signal::KILL) {
            Ok(()) if !is_zombie(pid) => bail!("process {pid:?} still runs"),
            _ => Ok(()),
        };
        until("the end of a killed process", Duration::from_secs(5), gone).ok();
    }
}

/// Resident memory in bytes.
///
/// # Errors
/// If the process is gone.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    memory(pid, &["VmRSS:"])
}

/// Resident memory in bytes, without what is mapped from files: the program itself, whose size
/// depends on how it was built.
///
/// # Errors
/// If the process is gone.
pub fn data_bytes(pid: u32) -> Result<u64> {
    memory(pid, &["RssAnon:", "RssShmem:"])
}

/// The sum of some lines of `/proc/PID/status`, in bytes.
fn memory(pid: u32, names: &[&str]) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    names.iter().try_fold(0, |sum, name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        let kib: u64 = kib.with_context(|| format!("no {name}"))?.parse()?;
        Ok(sum + kib * 1024)
    })
}

/// How often the threads of each name have gone to sleep since they were started.
///
/// # Errors
/// If the process is gone.
pub fn sleeps(pid: u32) -> Result<BTreeMap<String, u64>> {
    let mut sleeps = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let name = value("Name:").context("no name in status")?.trim();
        let times = value("voluntary_ctxt_switches:").context("no switches in status")?;
        *sleeps.entry(name.to_owned()).or_default() += times.trim().parse::<u64>()?;
    }
    Ok(sleeps)
}

/// How many threads the process has.
///
/// # Errors
/// If the process is gone.
pub fn threads(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

fn is_zombie(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}
