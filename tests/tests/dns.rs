//! Names for consumers, at the gateway: dnsmasq upstream, dig in the tunnel.

use std::{
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::NamedTempFile;
use weir_tests::{
    Client, Lab, Node, Settings, command,
    lab::{SERVER_V4, SERVER_V6, SERVERS},
    node::Added,
    payer::{GATEWAY_V4, GATEWAY_V6},
    until,
    wgquick::WgQuick,
};

const WWW_V4: &str = "198.41.0.4";
const WWW_V6: &str = "2001:503:ba3e::2:30";
/// More than fits a datagram.
const BIG: usize = 3000;

/// A server on the internet that knows a few names, and writes down what it is asked.
struct Upstream {
    child: Child,
    log: NamedTempFile,
}

impl Upstream {
    fn start(lab: &Lab) -> Result<Self> {
        let log = NamedTempFile::new()?;
        let mut command = lab.internet.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--bind-interfaces", "--user=root", "--log-queries", "--local-ttl=300"]);
        command.args([format!("--listen-address={SERVER_V4},{SERVER_V6}")]);
        command.arg(format!("--log-facility={}", log.path().display()));
        command.args([format!("--host-record=www.weir-test.net,{WWW_V4},{WWW_V6}")]);
        command.arg("--cname=alias.weir-test.net,www.weir-test.net");
        command.arg("--host-record=trap.weir-test.net,192.168.1.1,64:ff9b::192.168.1.1");
        // HTTPS records (type 65) of priority 1 with an ipv4hint: 10.0.0.1 and 198.41.0.4.
        command.arg("--dns-rr=trap.weir-test.net,65,000100000400040a000001");
        command.arg("--dns-rr=www.weir-test.net,65,00010000040004c6290004");
        command.arg("--host-record=printer.local,198.41.0.5");
        command.arg("--local=/weir-test.net/");
        let text: Vec<_> = (0..BIG / 250).map(|_| "x".repeat(250)).collect();
        command.arg(format!("--txt-record=big.weir-test.net,{}", text.join(",")));
        command.arg("--edns-packet-max=4096");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut upstream = Self { child: child.spawn().context("cannot start dnsmasq")?, log };
        until("dnsmasq answers", Duration::from_secs(10), || {
            // It ends when the kernel still makes sure of its IPv6 address.
            if upstream.child.try_wait()?.is_some() {
                upstream.child = child.spawn()?;
            }
            let answer = lab.internet.run(&format!("dig +short @{SERVER_V4} www.weir-test.net"))?;
            ensure!(answer.trim() == WWW_V4, "{answer}");
            Ok(())
        })?;
        Ok(upstream)
    }

    /// How often it was asked for a name.
    fn asked(&self, name: &str) -> Result<usize> {
        let log = fs::read_to_string(self.log.path())?;
        Ok(log.lines().filter(|line| line.contains("query[") && line.contains(name)).count())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn settings() -> Settings {
    Settings::default().with("dns", "upstreams", &format!("[\"{SERVER_V4}\", \"{SERVER_V6}\"]"))
}

/// A consumer of a node, with its configuration as the node printed it.
fn joined(lab: &Lab, settings: Settings) -> Result<(Node<'_>, WgQuick, Client<'_>)> {
    let node = Node::start(&lab.node, settings)?;
    let added = ["session", "add", "--name", "alice", "--prepaid", "--json"];
    let added: Added = serde_json::from_str(&node.weir(&added)?)?;
    let config = WgQuick::parse(&added.config)?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(GATEWAY_V4.parse()?)?;
    Ok((node, config, client))
}

/// What dig prints.
fn dig(lab: &Lab, server: &str, words: &str) -> Result<String> {
    lab.consumer.run(&format!("dig +tries=1 +time=10 @{server} {words}"))
}

fn short(lab: &Lab, server: &str, words: &str) -> Result<String> {
    Ok(dig(lab, server, &format!("+short {words}"))?.trim().to_owned())
}

fn has(answer: &str, what: &str) -> Result<()> {
    ensure!(answer.contains(what), "no {what:?} in {answer}");
    Ok(())
}

#[test]
fn a_printed_configuration_resolves_names_also_while_paused_and_remembers_them() -> Result<()> {
    let lab = Lab::new()?;
    let upstream = Upstream::start(&lab)?;
    let (node, config, client) = joined(&lab, settings())?;
    ensure!(config.dns == [GATEWAY_V4, GATEWAY_V6], "{:?}", config.dns);
    ensure!(client.ping(SERVERS[0], 1).is_err(), "it is paused");
    let billed = |node: &Node<'_>| -> Result<u64> {
        let session = node.session_show("alice")?;
        Ok(session.bytes_up + session.bytes_down)
    };
    let before = billed(&node)?;
    for server in [GATEWAY_V4, GATEWAY_V6] {
        for transport in ["+notcp", "+tcp"] {
            let found = |words: &str| short(&lab, server, &format!("{transport} {words}"));
            let v4 = found("www.weir-test.net A")?;
            ensure!(v4 == WWW_V4, "{server} {transport}: {v4}");
            let v6 = found("www.weir-test.net AAAA")?;
            ensure!(v6 == WWW_V6, "{server} {transport}: {v6}");
        }
    }
    ensure!(billed(&node)? == before, "names cost a paused session nothing");
    let asked = upstream.asked("www.weir-test.net from 45.80.2.2")?
        + upstream.asked("www.weir-test.net from 2a0c")?;
    ensure!(asked == 2, "one question for each type goes upstream, not {asked}");
    let answers: Vec<String> = (0..60)
        .map(|_| dig(&lab, GATEWAY_V4, "+notcp www.weir-test.net A"))
        .collect::<Result<_>>()?;
    let refused = answers.iter().filter(|answer| answer.contains("status: REFUSED")).count();
    ensure!(refused > 0, "who has not paid has all the names that it wants");
    node.weir(&["session", "credit", "alice", "--gib", "1"])?;
    let alias = dig(&lab, GATEWAY_V4, "alias.weir-test.net A")?;
    has(&alias, "CNAME")?;
    has(&alias, WWW_V4)?;

    // Too large for a datagram: by TCP, and dig goes there by itself when it is told.
    let cut = dig(&lab, GATEWAY_V4, "+ignore +notcp big.weir-test.net TXT")?;
    has(&cut, "flags: qr tc rd ra")?;
    let whole = short(&lab, GATEWAY_V6, "big.weir-test.net TXT")?;
    ensure!(whole.matches('x').count() == BIG, "{} of {BIG}", whole.matches('x').count());

    // What stays inside.
    has(&dig(&lab, GATEWAY_V4, "none.weir-test.net A")?, "status: NXDOMAIN")?;
    for private in ["printer.local A", "printer A", "-x 192.168.1.1"] {
        has(&dig(&lab, GATEWAY_V4, private)?, "status: NXDOMAIN")?;
    }
    ensure!(upstream.asked("printer")? == 0 && upstream.asked("168.192")? == 0);
    for kind in ["A", "AAAA", "TYPE65"] {
        let trap = short(&lab, GATEWAY_V4, &format!("trap.weir-test.net {kind}"))?;
        ensure!(trap.is_empty(), "a name of the internet has a private address: {trap}");
    }
    let hint = short(&lab, GATEWAY_V4, "www.weir-test.net TYPE65")?;
    ensure!(hint.contains("198.41.0.4") || hint.contains("C6290004"), "no hint: {hint}");
    has(&dig(&lab, GATEWAY_V4, "weir-test.net ANY")?, "status: NOTIMP")?;
    ensure!(!node.log().contains("weir-test.net"), "a name is in the log: {}", node.log());
    Ok(())
}

#[test]
fn a_dead_upstream_is_said_and_questions_beyond_the_rate_are_refused() -> Result<()> {
    let lab = Lab::new()?;
    let upstream = Upstream::start(&lab)?;
    let (node, _, client) = joined(&lab, settings().with("dns", "per_second", "5"))?;
    // Otherwise the guard's allowance for paused sessions would stop them.
    node.weir(&["session", "credit", "alice", "--gib", "1"])?;
    let first = short(&lab, GATEWAY_V4, "www.weir-test.net A")?;
    ensure!(first == WWW_V4, "{first}");
    drop(upstream);
    has(&dig(&lab, GATEWAY_V4, "other.weir-test.net A")?, "status: SERVFAIL")?;
    let known = short(&lab, GATEWAY_V6, "www.weir-test.net A")?;
    ensure!(known == WWW_V4, "what is remembered is still there: {known}");

    std::thread::sleep(Duration::from_secs(3));
    let list = NamedTempFile::new()?;
    fs::write(list.path(), "www.weir-test.net A\n".repeat(60))?;
    let batch = format!("+noall +comments -f {}", list.path().display());
    let answers = dig(&lab, GATEWAY_V4, &batch)?;
    let (good, refused) =
        (answers.matches("status: NOERROR").count(), answers.matches("status: REFUSED").count());
    ensure!(good >= 10 && refused > 0 && good + refused == 60, "{good} and {refused}");

    // Rubbish ends nothing.
    let rubbish = lab.consumer.enter(|| {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
        for length in [0, 1, 11, 12, 13, 100, 1300] {
            socket.send_to(&vec![0x41; length], (GATEWAY_V4, 53))?;
        }
        Ok(())
    });
    rubbish?;
    std::thread::sleep(Duration::from_secs(3));
    let still = short(&lab, GATEWAY_V4, "www.weir-test.net A")?;
    ensure!(still == WWW_V4, "{still}\n{}", node.log());
    drop(client);
    Ok(())
}

#[test]
fn a_replaced_resolv_conf_is_followed_without_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let _upstream = Upstream::start(&lab)?;
    // The node's own copy of /etc, in which the file is replaced by rename as other programs do.
    let etc = tempfile::tempdir()?;
    let copy = etc.path().join("etc");
    command::run(&mut command::words(&format!("cp -a /etc {}", copy.display())))?;
    let resolv = copy.join("resolv.conf");
    fs::remove_file(&resolv).ok();
    // Nobody is there.
    fs::write(&resolv, "nameserver 45.80.3.9\n")?;
    let settings = Settings::default().with("node", "sandbox", "\"off\"");
    let mut node = Node::prepare(&lab.node, settings)?;
    let script = format!("mount --bind {} /etc && exec \"$@\"", copy.display());
    node.launch_by(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    node.restart()?;
    let added: Added = serde_json::from_str(&node.weir(&[
        "session",
        "add",
        "--name",
        "alice",
        "--prepaid",
        "--json",
    ])?)?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(GATEWAY_V4.parse()?)?;
    has(&dig(&lab, GATEWAY_V4, "www.weir-test.net A")?, "status: SERVFAIL")?;
    fs::write(copy.join("r2"), format!("nameserver {SERVER_V4}\n"))?;
    fs::rename(copy.join("r2"), &resolv)?;
    until("the new server is asked", Duration::from_secs(60), || {
        let found = short(&lab, GATEWAY_V4, "www.weir-test.net A")?;
        ensure!(found == WWW_V4, "{found}");
        Ok(())
    })?;
    // None at all is said, and the last one goes on to be asked.
    fs::write(&resolv, "")?;
    until("it is said", Duration::from_secs(60), || {
        let host = node.status()?.host;
        ensure!(host.iter().any(|it| it.part == "resolver"), "{host:?}");
        Ok(())
    })?;
    has(&dig(&lab, GATEWAY_V4, "alias.weir-test.net A")?, WWW_V4)
}
