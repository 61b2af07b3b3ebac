//! Three nodes and one payment layer behind a JetStream server that is killed again and again.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use weir_ledger::UsageRecord;
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{OPERATOR_V4, SERVERS},
    nats::{Authority, Operator, Server},
    until,
    wgquick::WgQuick,
};

const TIMEOUT: Duration = Duration::from_secs(90);

fn settings(server: &Server<'_>, name: &str) -> Settings {
    Settings::default()
        .with("ledger", "record_seconds", "1")
        .with("fleet", "url", &format!("{:?}", server.url()))
        .with("fleet", "name", &format!("{name:?}"))
        .with("fleet", "token_file", &format!("{:?}", server.token_file()))
}

/// A request to a node's API by way of the server.
fn ask(server: &Server<'_>, node: &str, request: &str) -> Result<(u64, Value)> {
    let (subject, request) = (format!("weir.{node}.api"), request.to_owned());
    let text = server.with(async move |client| {
        let answer = client.request(subject, request.into()).await?;
        Ok(String::from_utf8(answer.payload.to_vec())?)
    })?;
    let answer: Value = serde_json::from_str(&text)?;
    Ok((answer["status"].as_u64().context("no status")?, answer["body"].clone()))
}

fn command(method: &str, path: &str, body: &Value) -> String {
    json!({ "method": method, "path": path, "body": body }).to_string()
}

/// Every message of the stream: whose it is, and the record.
fn messages(server: &Server<'_>) -> Result<Vec<(String, UsageRecord)>> {
    server.with(async |client| {
        let mut stream = jetstream::new(client).get_stream("WEIR").await?;
        let count = usize::try_from(stream.info().await?.state.messages)?;
        let config = consumer::pull::Config {
            ack_policy: consumer::AckPolicy::None,
            ..consumer::pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let mut messages = consumer.messages().await?.take(count);
        let mut all = Vec::new();
        while let Some(message) = messages.next().await {
            let payload = message.map_err(|error| anyhow!("{error}"))?.payload.clone();
            let node: Value = serde_json::from_slice(&payload)?;
            let node = node["node"].as_str().context("no node")?.to_owned();
            all.push((node, serde_json::from_slice(&payload)?));
        }
        Ok(all)
    })
}

#[test]
fn the_totals_of_three_nodes_are_exact_though_the_server_is_killed_under_traffic() -> Result<()> {
    let lab = Lab::new()?;
    let mut server = Server::start(&lab.internet, OPERATOR_V4)?;
    let (second, third) = (lab.another_node(4)?, lab.another_node(5)?);
    let mut nodes = Vec::new();
    for (name, namespace) in [("exit-1", &lab.node), ("exit-2", &second), ("exit-3", &third)] {
        nodes.push((name, Node::start(namespace, settings(&server, name))?));
    }
    let mut clients = Vec::new();
    for (name, node) in &nodes {
        until("the node is at the server", TIMEOUT, || {
            ensure!(node.status()?.fleet.as_deref() == Some("connected"), "{:?}", node.status()?);
            Ok(())
        })?;
        let add = command("POST", "/v1/sessions", &json!({ "name": "consumer" }));
        let (status, made) = ask(&server, name, &add)?;
        ensure!(status == 201, "{made}");
        let config = made["config"].as_str().context("no configuration")?;
        let client = Client::start(&lab.consumer, &WgQuick::parse(config)?)?;
        client.wait_connected(SERVERS[0])?;
        clients.push(client);
    }

    let stop = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        for client in &clients {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // What is lost is not billed twice either.
                    client.ping(SERVERS[0], 20).ok();
                }
            });
        }
        let killed = (0..5).try_for_each(|kill| -> Result<()> {
            thread::sleep(Duration::from_millis(1500 + 300 * kill));
            server.kill()?;
            thread::sleep(Duration::from_millis(400 * kill));
            server.restart()
        });
        stop.store(true, Ordering::Relaxed);
        killed
    })?;

    let close = command("POST", "/v1/sessions/consumer/close", &json!({}));
    for (name, _) in &nodes {
        until("the node is there again", TIMEOUT, || {
            let (status, closed) = ask(&server, name, &close)?;
            ensure!(status == 200, "{closed}");
            Ok(())
        })?;
    }
    until("the last record of each session is in the stream", TIMEOUT, || {
        let all = messages(&server)?;
        let ended = all.iter().filter(|(_, record)| record.end_reason.is_some()).count();
        ensure!(ended == nodes.len(), "{ended} of {}", nodes.len());
        Ok(())
    })?;

    let all = messages(&server)?;
    let mut distinct: HashMap<&str, BTreeMap<(&str, u64), &UsageRecord>> = HashMap::new();
    for (node, record) in &all {
        distinct.entry(node).or_default().insert((&record.session, record.sequence), record);
    }
    let kept: usize = distinct.values().map(BTreeMap::len).sum();
    ensure!(kept == all.len(), "{} messages, of which {kept} are not duplicates", all.len());
    for (name, node) in &nodes {
        let ledger = node.records()?;
        let records: Vec<&UsageRecord> = distinct[name].values().copied().collect();
        ensure!(records == ledger.iter().collect::<Vec<_>>(), "{name}: {records:?} {ledger:?}");
        ensure!(ledger.len() > 5, "{name}: {} records are no traffic", ledger.len());
        let last = ledger.last().context("no record")?;
        ensure!(last.bytes_up > 10_000 && last.bytes_down > 10_000, "{name}: {last:?}");
    }
    Ok(())
}

#[test]
fn sessions_and_credit_are_commanded_by_request_and_nonsense_is_answered() -> Result<()> {
    let lab = Lab::new()?;
    let mut server = Server::start(&lab.internet, OPERATOR_V4)?;
    let node = Node::start(&lab.node, settings(&server, "exit-1"))?;
    let add = command("POST", "/v1/sessions", &json!({ "name": "alice", "prepaid": true }));
    let (status, made) = until("the node answers", TIMEOUT, || ask(&server, "exit-1", &add))?;
    ensure!(status == 201 && made["session"]["state"] == "paused", "{made}");
    let credit = json!({ "reference": "p1", "bytes": 1_000_000 });
    let credit = command("POST", "/v1/sessions/alice/credit", &credit);
    for _ in 0..2 {
        let (status, extended) = ask(&server, "exit-1", &credit)?;
        ensure!(status == 200 && extended["session"]["credit_bytes"] == 1_000_000, "{extended}");
    }
    ensure!(node.session_show("alice")?.state == "open", "{:?}", node.session_show("alice")?);
    for (request, status, code) in [
        ("nonsense", 400, "bad_json"),
        (r#"{"method": "POST", "path": "/v1/sessions", "body": {"name": 7}}"#, 400, "bad_json"),
        (r#"{"method": "GET", "path": "/v1/sessions/nobody"}"#, 404, "not_found"),
    ] {
        let (found, answer) = ask(&server, "exit-1", request)?;
        ensure!(found == status && answer["error"]["code"] == code, "{request}: {answer}");
    }
    server.kill()?;
    until("the status says that the server is away", TIMEOUT, || {
        let fleet = node.status()?.fleet.unwrap_or_default();
        ensure!(fleet.contains("no connection to nats://"), "{fleet}");
        Ok(())
    })?;
    server.restart()?;
    let list = command("GET", "/v1/sessions", &json!({}));
    let (_, listed) = until("the node is there again", TIMEOUT, || ask(&server, "exit-1", &list))?;
    ensure!(listed["sessions"].as_array().map(Vec::len) == Some(1), "{listed}");
    Ok(())
}

/// Waits until the status, the metric and the log say why there is no connection, and what to do.
fn refused(node: &Node<'_>, server: &Server<'_>, words: [&str; 2]) -> Result<()> {
    until("the status says why", TIMEOUT, || {
        let fleet = node.status()?.fleet.unwrap_or_default();
        let expected = format!("no connection to {}: ", server.url());
        let says = fleet.starts_with(&expected) && words.iter().all(|word| fleet.contains(word));
        ensure!(says, "not {words:?}: {fleet}");
        Ok(())
    })?;
    ensure!(node.metrics()?.lines().any(|line| line == "weir_fleet_connected 0"), "connected?");
    let log = node.log();
    let told = |line: &&str| words.iter().all(|word| line.contains(word));
    let times = log.lines().filter(told).count();
    ensure!(times == 1, "the log says {words:?} {times} times:\n{log}");
    Ok(())
}

#[test]
fn by_tls_and_credentials_a_node_trusts_and_is_trusted_or_says_what_is_missing() -> Result<()> {
    let lab = Lab::new()?;
    let (ours, theirs) = (Authority::new()?, Authority::new()?);
    let (known, unknown) = (Operator::new(), Operator::new());
    let mut server = Server::secured(&lab.internet, OPERATOR_V4, &theirs, &unknown)?;
    let files = tempfile::tempdir()?;
    let [ca, credentials] = ["ca.pem", "exit-1.creds"].map(|name| files.path().join(name));
    fs::write(&ca, ours.certificate())?;
    fs::write(&credentials, known.node("exit-1")?)?;
    let settings = Settings::default()
        .with("ledger", "record_seconds", "1")
        .with("fleet", "url", &format!("{:?}", server.url()))
        .with("fleet", "name", "\"exit-1\"")
        .with("fleet", "ca_file", &format!("{ca:?}"))
        .with("fleet", "credentials_file", &format!("{credentials:?}"));
    let mut node = Node::start(&lab.node, settings)?;
    let added = node.session_add("consumer")?;
    let client = Client::start(&lab.consumer, &WgQuick::parse(&added.config)?)?;
    client.wait_connected(SERVERS[0])?;

    refused(&node, &server, ["certificate", "Fix: make the server's certificate name"])?;
    server.kill()?;
    server.secure(&ours, &unknown)?;
    server.restart()?;
    refused(&node, &server, ["authorization violation", "Fix: make the server accept"])?;
    server.kill()?;
    server.secure(&ours, &known)?;
    server.restart()?;
    // Nobody tells the node.
    until("the node is at the server", TIMEOUT, || {
        ensure!(node.status()?.fleet.as_deref() == Some("connected"), "{:?}", node.status()?.fleet);
        Ok(())
    })?;
    ensure!(node.metrics()?.lines().any(|line| line == "weir_fleet_connected 1"), "no connection?");
    client.ping(SERVERS[0], 20)?;
    let close = command("POST", "/v1/sessions/consumer/close", &json!({}));
    let (status, closed) = until("the node answers", TIMEOUT, || ask(&server, "exit-1", &close))?;
    ensure!(status == 200, "{closed}");
    let ledger = until("all records are in the stream", TIMEOUT, || {
        let stored: Vec<UsageRecord> = messages(&server)?.into_iter().map(|(_, one)| one).collect();
        let ledger = node.records()?;
        ensure!(stored == ledger, "{stored:?} {ledger:?}");
        Ok(ledger)
    })?;
    ensure!(ledger.last().is_some_and(|last| last.end_reason.is_some()), "{ledger:?}");
    node.stop()
}
