//! Processor time: of a process, of kernel threads, of a core.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use perf_event::{Builder, Counter, events::Software};

/// Whose processor time is read.
///
/// By a clock of its own for each thread (`PERF_COUNT_SW_TASK_CLOCK`), and not by what the scheduler
/// says (`/proc/PID/schedstat`). That one is wrong where it matters here: when a packet wakes the
/// receive thread while the node is in a long system call, the scheduler leaves its clock as it is
/// until the switch (`rq_clock_skip_update` in kernel/sched/core.c, 6.18), and counts the rest of
/// the call as the receive thread's.
#[derive(Debug)]
pub struct Meter {
    /// The process.
    pub pid: u32,
    process: Vec<Clock>,
    workers: Vec<Clock>,
    kernel: Vec<Clock>,
    core: usize,
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
    /// A meter of a process's threads, and of those that they start from now on; of kernel threads
    /// that work for it, such as that of an interface's receive queue; and of the core that it runs
    /// on.
    ///
    /// # Errors
    ///
    /// Fails when the process is gone.
    pub fn new(pid: u32, kernel_threads: &[u32], core: usize) -> anyhow::Result<Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let tasks = tasks.with_context(|| format!("process {pid} is gone"))?;
        let (mut process, mut workers) = (Vec::new(), Vec::new());
        for task in tasks.flatten() {
            let Some(thread) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let kind = if name.starts_with("weir-worker") { &mut workers } else { &mut process };
            kind.push(Clock::of(thread));
        }
        let kernel = kernel_threads.iter().copied().map(Clock::of).collect();
        Ok(Self { pid, process, workers, kernel, core })
    }

    /// Reads.
    ///
    /// # Errors
    ///
    /// Fails when the core is gone.
    pub fn read(&self) -> anyhow::Result<Reading> {
        let sum = |clocks: &[Clock]| clocks.iter().map(Clock::nanos).sum::<u64>();
        let worker_ns = sum(&self.workers);
        let process_ns = sum(&self.process) + worker_ns;
        let core = core_ticks(self.core).context("no such core in /proc/stat")?;
        let kernel_ns = sum(&self.kernel);
        Ok(Reading { at: Instant::now(), process_ns, worker_ns, kernel_ns, core })
    }
}

/// The time that a thread, and all that it has started since, was on a processor.
#[derive(Debug)]
struct Clock {
    thread: u32,
    /// None where performance events are not to be had: then the scheduler must do.
    counter: Option<Mutex<Counter>>,
}

impl Clock {
    fn of(thread: u32) -> Self {
        let mut wanted = Builder::new(Software::TASK_CLOCK);
        wanted.observe_pid(thread.cast_signed()).any_cpu().inherit(true).enabled(true);
        let counter = wanted.include_kernel().include_hv().build();
        Self { thread, counter: counter.ok().map(Mutex::new) }
    }

    fn nanos(&self) -> u64 {
        let counted = self.counter.as_ref().and_then(|counter| {
            let mut counter = counter.lock().unwrap_or_else(PoisonError::into_inner);
            counter.read().ok()
        });
        counted.or_else(|| scheduled(self.thread)).unwrap_or(0)
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

/// What the scheduler says.
fn scheduled(thread: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{thread}/schedstat")).ok()?;
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
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    const BUSY_NANOS: u64 = 20_000_000;

    /// Takes that much of a processor, however long that takes.
    fn busy() {
        let spent = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        };
        let end = spent() + BUSY_NANOS;
        while spent() < end {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_busy_thread_is_seen() {
        let meter = Meter::new(std::process::id(), &[], 0).expect("we are here");
        let before = meter.read().expect("there is a core 0");
        busy();
        let spent = meter.read().expect("there is a core 0").since(&before);
        assert!(spent.process > 0.0 && spent.wall > 0.0, "{spent:?}");
        assert_eq!(spent.workers, 0.0);
    }

    #[test]
    fn a_thread_that_is_started_later_is_seen_too() {
        let own = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let clock = Clock::of(own);
        let before = clock.nanos();
        std::thread::spawn(busy).join().expect("it ends");
        let spent = clock.nanos() - before;
        // The scheduler's clock, for want of a better one, is of this thread alone.
        let least = if clock.counter.is_some() { BUSY_NANOS / 2 } else { 0 };
        assert!(spent > least, "{spent} ns");
    }
}
