//! The node's key changes while consumers are connected.

use anyhow::{Result, ensure};
use weir_tests::{
    Client, Lab, Settings,
    lab::SERVERS,
    steps::connected,
    traffic::tcp::{self, Direction},
    wgquick::WgQuick,
};

/// A consumer's configuration with another key of the node.
fn with_node_key(config: &str, key: &str) -> String {
    let old = config.lines().find_map(|line| line.strip_prefix("PublicKey = "));
    config.replace(old.unwrap_or_default(), key)
}

fn keys(node: &weir_tests::Node<'_>, what: &str) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&node.weir(&["key", what, "--json"])?)?)
}

#[test]
fn both_keys_connect_until_the_old_one_is_retired_and_no_session_breaks() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, added, client) = connected(&lab, Settings::default())?;
    let server = tcp::Server::start(&lab.internet)?;
    let before = keys(&node, "show")?;
    let rotated = keys(&node, "rotate")?;
    ensure!(rotated["previous_public_key"] == before["public_key"], "{rotated} {before}");
    let key = rotated["public_key"].as_str().unwrap_or_default().to_owned();
    ensure!(node.status()?.public_key == key, "the status has the new key");
    let refused = node.weir(&["key", "rotate"]).expect_err("there are two keys").to_string();
    ensure!(refused.contains("weir key retire"), "{refused}");

    // The connected consumer goes on, and a new session is told the new key.
    tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Direction::Up, 2, 2_000_000)?;
    let other = node.session_add("other")?;
    ensure!(other.config.contains(&key), "{}", other.config);
    // A handshake for the old key still passes, also after a restart.
    node.stop()?;
    node.restart()?;
    client.wait_connected(SERVERS[0])?;
    drop(client);
    let old = Client::connect(&lab.consumer, &added.config)?;
    old.wait_connected(SERVERS[0])?;

    // The consumer gets the new key while it is connected by the old one.
    let changed = with_node_key(&added.config, &key);
    old.configure(&WgQuick::parse(&changed)?.wg)?;
    old.wait_connected(SERVERS[0])?;
    tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Direction::Down, 2, 2_000_000)?;

    let retired = keys(&node, "retire")?;
    ensure!(retired["previous_public_key"].is_null(), "{retired}");
    tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Direction::Up, 2, 2_000_000)?;
    drop(old);
    let mac1 = node.drops("xdp", "mac1")?;
    let late = Client::connect(&lab.consumer, &added.config)?;
    ensure!(late.ping(SERVERS[0], 3).is_err(), "the old key is gone");
    ensure!(node.drops("xdp", "mac1")? > mac1, "its handshakes end in the guard");
    drop(late);
    Client::connect(&lab.consumer, &changed)?.wait_connected(SERVERS[0])
}
