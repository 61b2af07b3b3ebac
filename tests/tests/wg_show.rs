//! `wg` and other programs that know WireGuard see the node as one more device.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Lab, Node, Settings, command,
    lab::{CONSUMER_V4, SERVERS},
    steps::connected,
    until,
};

/// Runs `wg` with the node's directory where `wg` looks for sockets: in a mount namespace of its
/// own, so that the machine's directory stays as it is.
fn wg(lab: &Lab, node: &Node<'_>, arguments: &str) -> Result<String> {
    let directory = node.wg_directory();
    let script = format!(
        "mount -t tmpfs none /run && mkdir /run/wireguard && \
         mount --bind {} /run/wireguard && wg {arguments}",
        directory.display()
    );
    let mut unshare: Command = lab.node.command("unshare");
    command::run(unshare.args(["--mount", "sh", "-c", &script]))
}

fn socket(node: &Node<'_>) -> PathBuf {
    node.wg_directory().join("weir0.sock")
}

/// The lines of `wg show all dump` for peers, by key.
fn peers(dump: &str) -> BTreeMap<String, Vec<String>> {
    let lines = dump.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|fields| fields.len() == 9).map(|fields| (fields[1].clone(), fields)).collect()
}

#[test]
fn wg_shows_the_sessions_and_their_bytes() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, added, client) = connected(&lab, Settings::default())?;
    let silent = node.session_add("silent")?.session;
    client.ping(SERVERS[0], 20)?;
    let key = &added.session.public_key;
    until("wg shows what the consumer counted", Duration::from_secs(20), || {
        let peers = peers(&wg(&lab, &node, "show all dump")?);
        let fields = peers.get(key).context("the peer is missing")?;
        let theirs = client.transfer()?;
        ensure!(fields[0] == "weir0" && fields[2] == "(none)", "{fields:?}");
        ensure!(fields[3] == "(none)", "it says where the consumer is: {fields:?}");
        let allowed = format!("{}/32,{}/128", added.session.address_v4, added.session.address_v6);
        ensure!(fields[4] == allowed, "{fields:?}");
        // The clocks are one, and the second may just have begun.
        ensure!(fields[5].parse::<u64>()?.abs_diff(client.last_handshake()?) <= 1, "{fields:?}");
        ensure!(fields[6] == theirs.sent.to_string(), "{fields:?} {theirs:?}");
        ensure!(fields[7] == theirs.received.to_string(), "{fields:?} {theirs:?}");
        let fields = peers.get(&silent.public_key).context("the silent peer is missing")?;
        ensure!(fields[5..8] == ["0", "0", "0"], "{fields:?}");
        Ok(())
    })?;
    let shown = wg(&lab, &node, "show weir0")?;
    ensure!(shown.contains("listening port: 51820") && shown.contains(key), "{shown}");
    ensure!(!shown.contains("private key"), "{shown}");
    let private = std::fs::read_to_string(node.private_key_path())?;
    let mut direct = UnixStream::connect(socket(&node))?;
    direct.write_all(b"get=1\n\n")?;
    direct.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    direct.read_to_string(&mut answer)?;
    ensure!(!answer.contains("private_key") && !answer.contains(private.trim()), "{answer}");

    let refused = wg(&lab, &node, "set weir0 listen-port 1").err().context("it was set")?;
    ensure!(format!("{refused:#}").contains("Operation not permitted"), "{refused:#}");
    let remove = format!("set weir0 peer {key} remove");
    ensure!(wg(&lab, &node, &remove).is_err() && node.session_list()?.len() == 2, "it was set");
    let mode = std::fs::metadata(socket(&node))?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");

    node.kill()?;
    ensure!(socket(&node).exists(), "a killed node leaves its socket");
    node.restart()?;
    ensure!(peers(&wg(&lab, &node, "show all dump")?).len() == 2, "not after a crash");
    node.stop()?;
    ensure!(!socket(&node).exists(), "a stopped node leaves no socket");
    Ok(())
}

#[test]
fn where_consumers_are_is_shown_when_the_operator_wants_it() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("api", "wg_endpoints", "true");
    let (node, added, _client) = connected(&lab, settings)?;
    let endpoints = wg(&lab, &node, "show weir0 endpoints")?;
    let expected = format!("{}\t{CONSUMER_V4}:", added.session.public_key);
    ensure!(endpoints.starts_with(&expected), "{endpoints}");
    ensure!(!node.log().contains(&CONSUMER_V4.to_string()), "{}", node.log());
    Ok(())
}

#[test]
fn hostile_clients_of_the_socket_hold_up_nobody() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let connect = || -> Result<UnixStream> {
        let stream = UnixStream::connect(socket(&node))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(stream)
    };
    // More than have a place at once: silent, in the middle of a line, gone without reading.
    let silent = (0..10).map(|_| connect()).collect::<Result<Vec<_>>>()?;
    for begun in &silent[..5] {
        (&mut &*begun).write_all(b"get=")?;
    }
    for _ in 0..40 {
        connect()?.write_all(b"get=1\n\n")?;
    }
    for bad in [vec![b'a'; 1 << 20], [b"set=1\n".to_vec(), b"b\n".repeat(1 << 18)].concat()] {
        let mut stream = connect()?;
        // The node closes as soon as it has seen enough.
        stream.write_all(&bad).ok();
        stream.shutdown(Shutdown::Write).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        ensure!(answer.is_empty() || answer.starts_with(b"errno=-22"), "{answer:?}");
    }
    until("wg is answered", Duration::from_secs(30), || wg(&lab, &node, "show all dump"))?;
    ensure!(node.status()?.sessions == 0, "the API does not answer");
    ensure!(!node.log().contains("panicked"), "{}", node.log());
    Ok(())
}
