//! Processor time: of a process, of kernel threads, of a core.

use std::{fs, time::Instant};

use anyhow::Context as _;

/// Whose processor time is read.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// The process.
    pub pid: u32,
    /// Kernel threads that work for it, such as that of an interface's receive queue.
    pub kernel_threads: Vec<u32>,
    /// The core that it runs on.
    pub core: usize,
}

/// Processor time so far.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    process_ns: u64,
    worker_ns: u64,
    kernel_ns: u64,
    core: CoreTicks,
}

/// Processor time between two readings, in seconds.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Spent {
    /// On the clock.
    pub wall: f64,
    /// All threads of the process.
    pub process: f64,
    /// Those of them that are workers (0 for other programs than weir).
    pub workers: f64,
    /// The kernel threads: the receive softirq, where it runs in a thread.
    pub receive: f64,
    /// The core was busy, whatever with.
    pub core_busy: f64,
    /// The core was taken away by the host.
    pub steal: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct CoreTicks {
    busy: u64,
    steal: u64,
}

impl Meter {
    /// Reads.
    ///
    /// # Errors
    ///
    /// Fails when the process is gone.
    pub fn read(&self) -> anyhow::Result<Reading> {
        let (process_ns, worker_ns) = threads(self.pid)?;
        let kernel_ns =
            self.kernel_threads.iter().map(|pid| runtime(*pid, *pid).unwrap_or(0)).sum();
        let core = core_ticks(self.core).context("no such core in /proc/stat")?;
        Ok(Reading { at: Instant::now(), process_ns, worker_ns, kernel_ns, core })
    }
}

impl Reading {
    /// What was spent since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Spent {
        let seconds = |now: u64, then: u64| now.saturating_sub(then) as f64 / 1e9;
        let ticks = |now: u64, then: u64| now.saturating_sub(then) as f64 / 100.0;
        Spent {
            wall: self.at.duration_since(earlier.at).as_secs_f64(),
            process: seconds(self.process_ns, earlier.process_ns),
            workers: seconds(self.worker_ns, earlier.worker_ns),
            receive: seconds(self.kernel_ns, earlier.kernel_ns),
            core_busy: ticks(self.core.busy, earlier.core.busy),
            steal: ticks(self.core.steal, earlier.core.steal),
        }
    }
}

/// Nanoseconds on the processor of all threads of a process, and of those named as workers.
fn threads(pid: u32) -> anyhow::Result<(u64, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.with_context(|| format!("process {pid} is gone"))?;
    let (mut all, mut workers) = (0, 0);
    for task in tasks.flatten() {
        let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let spent = runtime(pid, tid).unwrap_or(0);
        all += spent;
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.starts_with("weir-worker") {
            workers += spent;
        }
    }
    Ok((all, workers))
}

fn runtime(pid: u32, tid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn core_ticks(core: usize) -> Option<CoreTicks> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
    // user nice system idle iowait irq softirq steal
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum();
    Some(CoreTicks { busy, steal: *ticks.get(7)? })
}

/// Kernel threads with names that begin with `prefix`.
#[must_use]
pub fn kernel_threads(prefix: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with(prefix)
    })
    .collect()
}

/// Binds the calling thread, and what it starts from now on, to one core.
///
/// # Errors
///
/// Fails when the process may not use the core.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set)
        .with_context(|| format!("cannot run on core {core}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_is_seen() {
        let meter = Meter { pid: std::process::id(), ..Meter::default() };
        let before = meter.read().expect("we are here");
        let end = Instant::now() + std::time::Duration::from_millis(50);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        let spent = meter.read().expect("we are here").since(&before);
        assert!(spent.process > 0.0 && spent.wall >= 0.05, "{spent:?}");
        assert_eq!(spent.workers, 0.0);
    }
}
