//! What a node logs, and that it says nothing about consumers however much it logs.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::SERVERS,
    privacy,
    steps::{connected, everything_passes},
};

fn level(level: &str) -> Settings {
    Settings::default().with("log", "level", &format!("{level:?}"))
}

#[test]
fn a_reload_changes_how_much_is_logged() -> Result<()> {
    let lab = Lab::new()?;
    let mut node = Node::start(&lab.node, level("error"))?;
    node.session_add("first")?;
    ensure!(!node.log().contains("session added"), "{}", node.log());
    node.configure(level("info"))?;
    let outcome: Value = serde_json::from_str(&node.weir(&["reload", "--json"])?)?;
    ensure!(outcome["applied"] == serde_json::json!(["log.level"]), "{outcome}");
    node.session_add("second")?;
    ensure!(node.log().matches("session added").count() == 1, "{}", node.log());
    ensure!(!node.log().contains('\x1b'), "there are colours in a file");
    node.configure(level("warn"))?;
    node.weir(&["reload"])?;
    node.session_add("third")?;
    ensure!(node.log().matches("session added").count() == 1, "{}", node.log());
    node.stop()
}

#[test]
fn in_json_each_line_is_an_object() -> Result<()> {
    let lab = Lab::new()?;
    let mut node = Node::start(&lab.node, Settings::default().with("log", "format", "\"json\""))?;
    node.session_add("first")?;
    node.stop()?;
    let log = node.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect::<Result<_>>()?;
    for said in ["serves consumers", "session added", "stopping"] {
        let is_said = |line: &Value| line["fields"]["message"] == said && line["level"] == "INFO";
        ensure!(lines.iter().any(is_said), "no {said} in {log}");
    }
    Ok(())
}

/// Traffic of all kinds, names, a move, and what the node drops, with all that can be logged.
#[test]
fn at_no_level_is_a_consumer_or_its_destination_in_the_log() -> Result<()> {
    let lab = Lab::new()?;
    for environment in [None, Some("trace")] {
        let mut node = Node::prepare(&lab.node, level("debug"))?;
        if let Some(levels) = environment {
            node.set_environment("WEIR_LOG", levels);
        }
        node.restart()?;
        let added = node.session_add("consumer")?;
        let client = Client::connect(&lab.consumer, &added.config)?;
        client.wait_connected(SERVERS[0])?;
        everything_passes(&lab, &client)?;
        // Refused, unanswered and asked of the gateway.
        for line in [
            "dig +time=1 +tries=1 @10.66.0.1 secret-name.example",
            "ping -c 1 -W 1 10.0.0.1",
            "ping -c 1 -W 1 169.254.169.254",
        ] {
            lab.consumer.run(line).ok();
        }
        drop(client);
        node.weir(&["session", "remove", &added.session.id])?;
        node.stop()?;
        let log = node.log();
        let has_all = log.contains("TRACE") && log.contains("DEBUG");
        ensure!(environment.is_none() || has_all, "not all is in the log: {log}");
        let leaks = privacy::leaks(&log);
        ensure!(leaks.is_empty(), "{leaks:?}");
        let session = &added.session;
        for inner in [session.address_v4.to_string(), session.address_v6.to_string()] {
            let said = log.lines().find(|line| line.contains(&inner));
            ensure!(said.is_none(), "a consumer's inner address is in {said:?}");
        }
        ensure!(!log.contains("secret-name"), "a name is in the log");
    }
    // A node whose log nobody changed says no more either.
    let (node, _added, _client) = connected(&lab, Settings::default())?;
    ensure!(privacy::leaks(&node.log()).is_empty(), "{}", node.log());
    Ok(())
}
