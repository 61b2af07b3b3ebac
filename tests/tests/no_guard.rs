//! Where the guard would recognise nothing, the node says that it has none.

use anyhow::{Result, ensure};
use weir_tests::{Lab, Node, Settings};

/// An interface whose frames begin with the IP header.
const TUNNEL: &str = "l3up0";

fn lab() -> Result<Lab> {
    let lab = Lab::new()?;
    lab.node.ip(&format!("tuntap add dev {TUNNEL} mode tun"))?;
    lab.node.ip(&format!("addr add 45.80.9.2/24 dev {TUNNEL}"))?;
    lab.node.ip(&format!("link set {TUNNEL} up"))?;
    Ok(lab)
}

fn settings() -> Settings {
    Settings::default().with("node", "uplink", &format!("{TUNNEL:?}"))
}

#[test]
fn an_uplink_without_ethernet_header_has_no_guard_and_start_and_status_say_so() -> Result<()> {
    let lab = lab()?;
    let node = Node::start(&lab.node, settings())?;
    let status = node.status()?;
    ensure!(status.xdp_mode == "off", "{}", status.xdp_mode);
    let says = |text: &str| text.contains("no Ethernet header");
    ensure!(status.offloads.iter().any(|note| says(note)), "{:?}", status.offloads);
    ensure!(says(&node.log()) && node.log().contains("NO GUARD"), "{}", node.log());
    let link = lab.node.ip(&format!("-d link show dev {TUNNEL}"))?;
    ensure!(!link.contains("xdp"), "a guard that recognises nothing is attached: {link}");
    Ok(())
}

#[test]
fn a_guard_that_is_required_is_refused_there_with_the_reason() -> Result<()> {
    let lab = lab()?;
    let settings = settings().with("node", "xdp", "\"required\"");
    let Err(error) = Node::start(&lab.node, settings) else { anyhow::bail!("it started") };
    let said = format!("{error:#}");
    ensure!(said.contains("no Ethernet header") && said.contains("required"), "{said}");
    Ok(())
}
