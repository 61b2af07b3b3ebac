//! A node that nobody uses sleeps.

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{Lab, Node, Settings, process, until};

/// For how many looks at the machine the node is left alone.
const LOOKS: u64 = 10;
/// How often it is asked for their number at most.
const ROUNDS: u32 = 60;
/// What the watching thread may sleep for a look: once, and for its slow questions to the kernel.
const MAX_OF_WATCH: u64 = 10;
/// What the control plane may sleep in all that time for each look, who asks it for its status
/// included. A timer of 20 ms would be beyond it.
const MAX_OF_CONTROL: u64 = 100;
/// What the packet threads may sleep in all: no packet comes but what the kernel sends by itself.
const MAX_OF_PACKETS: u64 = 20;

/// Counts, and no times: those are the part `idle` of the benchmark.
#[test]
fn an_idle_nodes_threads_sleep_and_it_uses_little_memory() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let pid = node.pid()?;
    let looks = || Ok::<_, anyhow::Error>(node.status()?.host_looks);
    // What belongs to the start is over.
    let first = until("the watch looks", Duration::from_secs(60), || {
        let looks = looks()?;
        ensure!(looks >= 2, "{looks}");
        Ok(looks)
    })?;
    let before = process::sleeps(pid)?;
    let mut last = first;
    for _ in 0..ROUNDS {
        // Who asks wakes the control plane, so it is asked seldom.
        sleep(Duration::from_secs(5));
        last = looks()?;
        if last >= first + LOOKS {
            break;
        }
    }
    ensure!(last >= first + LOOKS, "the watch looks no more: {last} looks, {first} before");
    let after = process::sleeps(pid)?;
    let looks = last - first;
    let mut slept = BTreeMap::<&str, u64>::new();
    for (name, times) in &after {
        let part = ["weir-watch", "weir-worker", "weir-handshake"]
            .into_iter()
            .find(|part| name.starts_with(part))
            .unwrap_or("control");
        *slept.entry(part).or_default() +=
            times.saturating_sub(before.get(name).copied().unwrap_or_default());
    }
    let of = |part: &str| slept.get(part).copied().with_context(|| format!("no {part}: {after:?}"));
    ensure!(of("weir-watch")? >= looks, "{slept:?} in {looks} looks");
    ensure!(of("weir-watch")? <= looks * MAX_OF_WATCH, "{slept:?} in {looks} looks");
    ensure!(of("control")? <= looks * MAX_OF_CONTROL, "{slept:?} in {looks} looks");
    let packets = of("weir-worker")? + of("weir-handshake")?;
    ensure!(packets <= MAX_OF_PACKETS, "{slept:?} in {looks} looks");
    let memory = process::data_bytes(pid)?;
    ensure!(memory < 32 << 20, "{} MiB", memory >> 20);
    Ok(())
}
