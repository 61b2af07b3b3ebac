//! This machine's own kernel, in the lab's namespaces.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{Client, Lab, Node, Settings, lab::SERVERS, node, steps::everything_passes};

use crate::{
    report::{IPV6_FORWARDING, Report, VERIFIER, part},
    verifier,
};

/// Tries weir on it, for what the table has of the others.
///
/// # Errors
/// If it cannot be tried. What goes wrong with weir is in the report.
pub(crate) fn run() -> Result<Report> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    // What follows is the name of whoever built it.
    let version = release.trim().split('-').next().unwrap_or_default();
    let lab = Lab::new()?;
    let mut report = Report::new(version, "veth");
    let node = Node::prepare(&lab.node, Settings::default())?;
    let result = parts(&lab, node, &mut report);
    report.end(result);
    Ok(report)
}

fn parts(lab: &Lab, mut node: Node<'_>, report: &mut Report) -> Result<()> {
    let mut doctor = lab.node.command(node::binary()?.to_str().context("a path that is no text")?);
    let doctor = doctor.args(["doctor", "--json"]).output()?;
    let host = |node: &Node<'_>| -> Result<String> {
        Ok([
            lab.node.ip("-o link")?,
            lab.node.ip("-brief address")?,
            lab.node.run("nft list ruleset")?,
            format!("{:?}", node.pins()),
        ]
        .join("\n"))
    };
    let before = host(&node)?;
    report.check(part::STARTS, || node.restart())?;
    let status = node.status()?;
    report.facts(&String::from_utf8_lossy(&doctor.stdout), &status)?;
    report.offers(&status);
    report.fact(VERIFIER, verifier::walked());
    let switch = Path::new("/proc/sys/net/ipv6/conf/lo/force_forwarding");
    report.fact(IPV6_FORWARDING, if switch.exists() { "yes" } else { "no" });
    let alice = node.session_add("alice")?;
    let client = Client::connect(&lab.consumer, &alice.config)?;
    report.check(part::CONNECTS, || client.wait_connected(SERVERS[0]))?;
    report.check(part::PASSES, || everything_passes(lab, &client))?;
    report.check(part::KILL, || {
        let old = node.session_show(&alice.session.id)?;
        node.kill()?;
        node.restart()?;
        let after = node.session_show(&alice.session.id)?;
        ensure!(after.bytes_up >= old.bytes_up && after.bytes_down >= old.bytes_down);
        client.wait_connected(SERVERS[0])?;
        everything_passes(lab, &client)
    })?;
    report.check(part::STOP, || {
        node.stop()?;
        let now = host(&node)?;
        ensure!(now == before, "before:\n{before}\nafter:\n{now}");
        Ok(())
    })
}
