//! Sessions with a pre-shared key.

use anyhow::{Context as _, Result, ensure};
use weir_tests::{Client, Lab, Node, Settings, lab::SERVERS, node::Added};

#[test]
fn a_preshared_key_connects_also_after_a_restart_and_another_one_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let mut node = Node::start(&lab.node, Settings::default())?;
    let added = node.weir(&["session", "add", "--psk", "generate", "--json"])?;
    let added: Added = serde_json::from_str(&added)?;
    let line = added.config.lines().find(|line| line.starts_with("PresharedKey = "));
    let line = line.context("no pre-shared key in the configuration")?;
    let other = "PresharedKey = CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    for wrong in [added.config.replace(line, other), added.config.replace(line, "")] {
        let client = Client::connect(&lab.consumer, &wrong)?;
        ensure!(client.ping(SERVERS[0], 3).is_err(), "another key connects");
    }
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(SERVERS[0])?;
    node.stop()?;
    node.restart()?;
    client.wait_connected(SERVERS[0])?;
    Ok(())
}
