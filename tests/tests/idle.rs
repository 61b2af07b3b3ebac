//! A node that nobody uses costs next to nothing.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use weir_tests::{Lab, Node, Settings, process};

#[test]
fn an_idle_node_uses_little_memory_and_no_processor_time() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    sleep(Duration::from_secs(1));
    let pid = node.pid()?;
    let before = process::cpu_ticks(pid)?;
    sleep(Duration::from_secs(5));
    let ticks = process::cpu_ticks(pid)? - before;
    // A tick is 10 ms: this is less than half a percent of one core.
    ensure!(ticks <= 2, "{ticks} ticks in 5 s");
    let memory = process::resident_bytes(pid)?;
    ensure!(memory < 64 << 20, "{} MB", memory >> 20);
    Ok(())
}
