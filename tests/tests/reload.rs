//! A running node takes a changed configuration without ending a session.

use anyhow::{Result, ensure};
use serde_json::Value;
use weir_tests::{Lab, Settings, lab::SERVERS, steps::connected};

fn list(outcome: &Value, key: &str) -> Vec<String> {
    let values = outcome[key].as_array().into_iter().flatten();
    values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

#[test]
fn what_can_change_changes_at_once_and_the_session_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, _added, client) = connected(&lab, Settings::default())?;
    let handshake = client.last_handshake()?;
    node.configure(
        Settings::default()
            .with("tunnel", "dns", "[\"9.9.9.10\"]")
            .with("tunnel", "keepalive", "17")
            .with("node", "handshakes_per_source", "7")
            .with("api", "per_session_metrics", "true")
            .with("node", "max_sessions", "99"),
    )?;
    let outcome: Value = serde_json::from_str(&node.weir(&["reload", "--json"])?)?;
    let applied =
        ["api.per_session_metrics", "node.handshakes_per_source", "tunnel.dns", "tunnel.keepalive"];
    ensure!(list(&outcome, "applied") == applied, "{outcome}");
    ensure!(list(&outcome, "needs_restart") == ["node.max_sessions"], "{outcome}");
    let config = node.session_add("new")?.config;
    ensure!(config.contains("DNS = 9.9.9.10\n"), "{config}");
    ensure!(config.contains("PersistentKeepalive = 17"), "{config}");
    ensure!(node.metrics()?.contains("weir_session_bytes_total{"), "sessions have no series");

    // The same again by signal: nothing is left to change but what needs a restart.
    node.configure(Settings::default().with("node", "max_sessions", "99"))?;
    node.hang_up()?;
    let said = node.log();
    let said = said.lines().rfind(|line| line.contains("needs a restart"));
    ensure!(said.is_some_and(|line| line.contains("node.max_sessions")), "{}", node.log());
    ensure!(node.session_add("last")?.config.contains("DNS = 10.66.0.1, fd66:"));
    for server in SERVERS {
        client.ping(server, 3)?;
    }
    ensure!(client.last_handshake()? == handshake, "the session had to shake hands again");
    node.stop()
}

#[test]
fn a_mistake_leaves_the_old_configuration_in_force() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, _added, client) = connected(&lab, Settings::default())?;
    node.configure(Settings::default().with("tunnel", "dns", "[\"9.9.9.10\"]").with(
        "tunnel",
        "keepalive",
        "\"often\"",
    ))?;
    let error = format!("{:#}", node.weir(&["reload"]).expect_err("there is a mistake"));
    let checked = node.config_path().display().to_string();
    let check = format!("{:#}", node.weir(&["config", "check", &checked]).expect_err("mistake"));
    let named = |text: &str| {
        let mut lines = text.lines().filter_map(|line| line.find("tunnel.keepalive").map(|_| line));
        lines.next().map(|line| line.trim_start_matches("weir: ").to_owned())
    };
    ensure!(error.contains("exit status: 1"), "{error}");
    ensure!(named(&error).is_some_and(|line| line.starts_with(&checked)), "{error}");
    ensure!(named(&error) == named(&check), "reload: {error}\ncheck: {check}");
    node.hang_up()?;
    ensure!(node.log().contains("the configuration is unchanged"), "{}", node.log());
    ensure!(node.session_add("new")?.config.contains("DNS = 10.66.0.1, fd66:"));
    client.ping(SERVERS[0], 3)?;
    node.stop()
}
