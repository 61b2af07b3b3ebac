//! Where the kernel offers less, the node still does its work.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::SERVERS,
    steps::{connected, everything_passes},
};

#[test]
fn everything_passes_with_plain_system_calls() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("node", "io", "\"syscall\"");
    let (node, _added, client) = connected(&lab, settings)?;
    ensure!(node.status()?.io == "syscall", "{:?}", node.status()?);
    everything_passes(&lab, &client)
}

#[test]
fn everything_passes_with_io_uring() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("node", "io", "\"uring\"");
    let (node, _added, client) = connected(&lab, settings)?;
    ensure!(node.status()?.io == "uring", "{:?}", node.status()?);
    everything_passes(&lab, &client)
}

/// As on kernels before 6.7, whatever this one has.
#[test]
fn everything_passes_with_io_uring_without_multishot_reads() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("node", "io", "\"uring-single\"");
    let (node, _added, client) = connected(&lab, settings)?;
    let status = node.status()?;
    ensure!(status.io == "uring", "{status:?}");
    ensure!(status.offloads.iter().any(|note| note.contains("one packet at a time")), "{status:?}");
    everything_passes(&lab, &client)
}

#[test]
fn everything_passes_without_udp_segmentation_and_no_send_has_more_than_one_datagram() -> Result<()>
{
    for io in ["uring", "syscall"] {
        let lab = Lab::new()?;
        let settings = Settings::default().with("node", "io", &format!("{io:?}")).with(
            "node",
            "udp_segmentation",
            "false",
        );
        let (node, _added, client) = connected(&lab, settings)?;
        everything_passes(&lab, &client)?;
        let status = node.status()?;
        ensure!(
            status.offloads.iter().any(|note| note.contains("node.udp_segmentation")),
            "{status:?}"
        );
        let sent = status.boundaries.udp_send;
        ensure!(sent.packets > 1000 && sent.packets == sent.super_packets, "{sent:?}");
    }
    Ok(())
}

#[test]
fn everything_passes_in_each_mode_of_the_guard() -> Result<()> {
    for (wish, mode) in [("required", "native"), ("generic", "generic"), ("off", "off")] {
        let lab = Lab::new()?;
        let settings = Settings::default().with("node", "xdp", &format!("{wish:?}"));
        let (node, _added, client) = connected(&lab, settings)?;
        ensure!(node.status()?.xdp_mode == mode, "{wish}: {:?}", node.status()?);
        everything_passes(&lab, &client)?;
    }
    Ok(())
}

#[test]
fn everything_passes_with_one_worker_and_with_four() -> Result<()> {
    for workers in ["1", "4"] {
        let lab = Lab::new()?;
        let settings = Settings::default().with("node", "workers", workers);
        let (_node, _added, client) = connected(&lab, settings)?;
        everything_passes(&lab, &client)?;
    }
    Ok(())
}

#[test]
fn a_cipher_that_this_machine_has_not_is_refused_and_ring_serves() -> Result<()> {
    let lab = Lab::new()?;
    let mut node = Node::prepare(&lab.node, Settings::default())?;
    node.set_environment("WEIR_AEAD", "rot13");
    let refused = node.restart().err().context("it started")?;
    let refused = format!("{refused:#}\n{}", node.log());
    ensure!(refused.contains("WEIR_AEAD") && refused.contains("rot13"), "{refused}");
    ensure!(refused.contains("Fix: "), "{refused}");
    node.set_environment("WEIR_AEAD", "ring");
    node.restart()?;
    ensure!(node.log().contains("ring"), "{}", node.log());
    let added = node.session_add("consumer")?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(SERVERS[0])?;
    everything_passes(&lab, &client)
}

/// Long runs of one consumer's packets are shared with the helper, whatever order they come in.
#[test]
fn everything_passes_with_a_helper_for_the_cipher() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default()
        .with("node", "workers", "1")
        .with("node", "cores", "[0]")
        .with("node", "cipher_cores", "[1]");
    let (node, _added, client) = connected(&lab, settings)?;
    let turns = || times_on_a_core(node.pid()?, "weir-cipher-0");
    let before = turns()?;
    everything_passes(&lab, &client)?;
    let after = turns()?;
    ensure!(after > before + 10, "the helper was woken {before} times, and later {after}");
    Ok(())
}

/// How often a thread of a process began to wait.
fn times_on_a_core(pid: u32, name: &str) -> Result<u64> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        if fs::read_to_string(thread.join("comm"))?.trim() == name {
            let status = fs::read_to_string(thread.join("status"))?;
            let mut lines = status.lines();
            let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            return Ok(count.context("no count")?.trim().parse()?);
        }
    }
    bail!("no thread {name}")
}
