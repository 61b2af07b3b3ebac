//! `weir watch` at exits with planted faults, and what consumers make of what watchers say.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nostr::filter::Filter;
use serde_json::Value;
use tempfile::TempDir;
use weir_market::{
    attestation::{Attestation, Reason},
    event::{ATTESTATION, Address, LISTING, SignedAttestation, sign_attestation},
    key::MarketKey,
};
use weir_tests::{
    Lab, Node, command,
    connect::Machine,
    lab::{NODE_V4, SERVER_V4},
    marketplace::Marketplace,
    node::binary,
    until,
    wallet::Wallet,
};

/// Where watchers measure, on the lab's internet.
const PORT: u16 = 7448;
/// What the wallet has at first.
const FUNDS: u64 = 900;
/// Where the second exit is.
const OTHER_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 4, 2);
/// A name, and its address.
const NAME: &str = "www.weir-test.net";
const NAME_V4: &str = "198.41.0.4";

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// `weir watch --serve` and a name server on the lab's internet.
fn serve(lab: &Lab) -> Result<[Running; 2]> {
    let weir = binary()?;
    let start = |command: &mut Command| -> Result<Running> {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Running(quiet.spawn()?))
    };
    let mut server = lab.internet.command(weir.to_str().context("a path")?);
    let server = start(server.args(["watch", "--serve", &format!("{SERVER_V4}:{PORT}")]))?;
    let mut names = lab.internet.command("dnsmasq");
    names.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
    names.args(["--bind-interfaces", "--user=root", &format!("--listen-address={SERVER_V4}")]);
    names.arg(format!("--host-record={NAME},{NAME_V4}"));
    let names = start(&mut names)?;
    until("the measurement server answers", Duration::from_secs(30), || {
        lab.internet.run(&format!("curl -sf http://{SERVER_V4}:{PORT}/address")).map(drop)
    })?;
    until("the name server answers", Duration::from_secs(30), || {
        let answer = lab.internet.run(&format!("dig +short @{SERVER_V4} {NAME}"))?;
        ensure!(answer.trim() == NAME_V4, "{answer}");
        Ok(())
    })?;
    Ok([server, names])
}

/// A watcher in the consumer's namespace.
struct Watcher<'a> {
    lab: &'a Lab,
    wallet: Wallet<'a>,
    registry: String,
    directory: TempDir,
}

impl<'a> Watcher<'a> {
    fn new(lab: &'a Lab, market: &Marketplace<'_>) -> Result<Self> {
        let wallet = Wallet::new(&lab.consumer)?;
        wallet.run(&["receive", "--trust-mint", &market.mint.send(FUNDS, &[])?])?;
        let directory = tempfile::tempdir()?;
        let watcher = Self { lab, wallet, registry: market.registry(), directory };
        watcher.place(NODE_V4, "DE")?;
        Ok(watcher)
    }

    /// Writes the operator's database of addresses: one address, in this country.
    fn place(&self, address: Ipv4Addr, country: &str) -> Result<()> {
        Ok(fs::write(self.places(), format!("{address}/24,{country},64500,residential\n"))?)
    }

    fn places(&self) -> PathBuf {
        self.directory.path().join("places.csv")
    }

    fn weir(&self, words: &[&str]) -> Result<String> {
        let weir = binary()?;
        let mut weir = self.lab.consumer.command(weir.to_str().context("a path")?);
        weir.env("HOME", self.directory.path()).env_remove("XDG_CONFIG_HOME");
        command::run(weir.args(words).args(["--registry", &self.registry]))
    }

    /// Measures one exit, and returns what was found.
    fn watch(&self, exit: &str, more: &[&str]) -> Result<Value> {
        let (wallet, places) = (self.wallet.path(), self.places());
        let server = format!("http://{SERVER_V4}:{PORT}");
        let name = format!("{NAME}={NAME_V4}");
        let words = [
            &["watch", "--once", "--json", "--node", exit, "--server", &server, "--name", &name][..],
            &["--wallet", wallet.to_str().context("a path")?, "--mib", "6", "--budget", "800"],
            &["--place-file", places.to_str().context("a path")?],
            more,
        ];
        let said = self.weir(&words.concat())?;
        serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))
    }

    /// Measures one exit, and checks the reason word and that the registry has it.
    fn expect(&self, exit: &str, reason: &str) -> Result<Value> {
        let found = self.watch(exit, &[])?;
        ensure!(found["attestation"]["reason"] == reason, "{reason} is expected: {found:#}");
        ensure!(found["registries"][0]["is_stored"] == true, "{found:#}");
        Ok(found)
    }

    /// `weir exits` in JSON.
    fn exits(&self, more: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.weir(&[&["exits", "--json", "--no-cache"], more].concat())?)?)
    }
}

/// The key of the exit at an address.
fn key(exits: &Value, address: Ipv4Addr) -> Result<String> {
    let all = exits["exits"].as_array().context("exits")?;
    let here = |exit: &&Value| exit["listing"].to_string().contains(&format!("{address}:51820"));
    let exit = all.iter().find(here).with_context(|| format!("no exit at {address}: {exits:#}"))?;
    Ok(exit["key"].as_str().context("a key")?.to_owned())
}

fn part<'v>(exits: &'v Value, key: &str, name: &str) -> Result<&'v Value> {
    let all = exits["exits"].as_array().context("exits")?;
    let exit = all.iter().find(|exit| exit["key"] == key).context("the exit")?;
    let parts = exit["parts"].as_array().context("parts")?;
    parts.iter().find(|part| part["name"] == name).context("a part")
}

/// Drops or rejects on the way what matches, as long as it is not undone.
fn plant(lab: &Lab, rules: &[&str]) -> Result<()> {
    lab.internet.run("nft add table ip fault")?;
    lab.internet.run(
        "nft add chain ip fault input { type filter hook input priority 0 ; policy accept ; }",
    )?;
    lab.internet.run(
        "nft add chain ip fault forward { type filter hook forward priority 0 ; policy accept ; }",
    )?;
    for rule in rules {
        lab.internet.run(&format!("nft add rule ip fault {rule}"))?;
    }
    Ok(())
}

fn undo(lab: &Lab) -> Result<()> {
    lab.internet.run("nft delete table ip fault").map(drop)
}

#[test]
fn exits_with_planted_faults_get_the_right_reason_word() -> Result<()> {
    let lab = Lab::new()?;
    let market = Marketplace::start(&lab)?;
    let _servers = serve(&lab)?;
    let upstream = format!("[\"{SERVER_V4}\"]");
    let settings = market.exit(NODE_V4, "DE").with("dns", "upstreams", &upstream);
    let mut node = Node::start(&lab.node, settings)?;
    market.wait_listed("DE", 1)?;
    let watcher = Watcher::new(&lab, &market)?;
    let exit = key(&watcher.exits(&[])?, NODE_V4)?;

    let good = watcher.expect(&exit, "ok")?;
    let says = &good["attestation"];
    for number in ["handshake_ms", "rtt_ms", "down", "up"] {
        ensure!(says[number].is_u64(), "no {number}: {good:#}");
    }
    ensure!(good["address"] == NODE_V4.to_string(), "{good:#}");
    ensure!(says["seen"]["country"] == "DE" && says["seen"]["asn"] == 64500, "{good:#}");
    ensure!(says["is_price_honoured"] == true && good["names"] == "answered", "{good:#}");
    let billed = says["billed"].as_f64().context("a share")?;
    ensure!((0.9..=1.01).contains(&billed), "{good:#}");
    ensure!(good["down_bytes_per_second"].as_u64() > Some(100_000), "{good:#}");
    ensure!(says["uptime"]["share"] == 1.0, "{good:#}");
    let now = weir_ledger::unix_now();
    let signed = SignedAttestation::from_json(&good["event"].to_string(), now)?;
    ensure!(signed.watcher().to_string() == good["watcher"], "{good:#}");

    // It takes the money and carries nothing to the measurement server.
    let to_server = format!("ip saddr {NODE_V4} tcp dport {PORT}");
    plant(&lab, &[&format!("input {to_server} drop")])?;
    let found = watcher.expect(&exit, "paid-no-traffic")?;
    ensure!(found["spent"].as_u64() > Some(0) && found["attestation"]["down"].is_null());
    undo(&lab)?;
    let names = ["udp", "tcp"].map(|it| format!("input ip saddr {NODE_V4} {it} dport 53 drop"));
    plant(&lab, &names.each_ref().map(String::as_str))?;
    watcher.expect(&exit, "dns-broken")?;
    undo(&lab)?;
    plant(&lab, &[&format!("forward ip daddr {NODE_V4} udp dport 51820 drop")])?;
    let found = watcher.expect(&exit, "no-handshake")?;
    ensure!(found["attestation"]["uptime"]["share"] == 0.25, "{found:#}");
    undo(&lab)?;
    watcher.place(NODE_V4, "NL")?;
    let found = watcher.expect(&exit, "wrong-exit")?;
    ensure!(found["attestation"]["seen"]["country"] == "NL", "{found:#}");
    watcher.place(NODE_V4, "DE")?;
    let reset = "reject with tcp reset";
    plant(&lab, &[&format!("forward ip daddr {NODE_V4} tcp dport 8443 {reset}")])?;
    let found = watcher.expect(&exit, "no-seller")?;
    ensure!(found["spent"] == 0, "{found:#}");
    undo(&lab)?;

    // A watcher whose own line is down says nothing.
    plant(&lab, &[&format!("input tcp dport {PORT} {reset}")])?;
    let own = watcher.watch(&exit, &[]).expect_err("its own line is down");
    ensure!(format!("{own:#}").contains("this machine itself does not reach"), "{own:#}");
    undo(&lab)?;
    let poor = watcher.watch(&exit, &["--mint", "https://mint.example"]).expect_err("no funds");
    ensure!(format!("{poor:#}").contains("nothing is said of it"), "{poor:#}");
    // The newest word counts, and there is one.
    watcher.expect(&exit, "ok")?;
    let mut reader = market.client()?;
    let all = reader.fetch(Filter::new().kind(ATTESTATION.into()))?;
    ensure!(all.len() == 1, "{all:?}");
    node.stop()?;
    Ok(())
}

#[test]
fn a_watcher_that_nobody_believes_changes_nothing_and_one_that_is_believed_does() -> Result<()> {
    let lab = Lab::new()?;
    let market = Marketplace::start(&lab)?;
    let second = lab.another_node(4)?;
    let _nodes = [
        Node::start(&lab.node, market.exit(NODE_V4, "DE"))?,
        Node::start(&second, market.exit(OTHER_V4, "DE"))?,
    ];
    market.wait_listed("DE", 2)?;
    let consumer = Watcher::new(&lab, &market)?;
    let before = consumer.exits(&[])?;
    let (good, bad) = (key(&before, NODE_V4)?, key(&before, OTHER_V4)?);
    let first = |exits: &Value| exits["exits"][0]["key"].as_str().unwrap_or_default().to_owned();

    // The liar praises one and slanders the other, whichever is first now.
    let (liar, honest) = (MarketKey::random(), MarketKey::random());
    let now = weir_ledger::unix_now();
    let word = |watcher: &MarketKey, exit: &str, reason| {
        let exit = Address::parse(&format!("{LISTING}:{exit}:weir")).context("an address")?;
        let event = sign_attestation(watcher, &Attestation::new(exit, reason), now);
        let (stored, said) = market.client()?.publish(&event)?;
        ensure!(stored, "{said}");
        anyhow::Ok(())
    };
    let preferred = first(&before);
    let other = if preferred == good { bad } else { good };
    word(&liar, &preferred, Reason::PaidNoTraffic)?;
    word(&liar, &other, Reason::Ok)?;
    let scores = |exits: &Value| {
        let all = exits["exits"].as_array().cloned().unwrap_or_default();
        let all = all.iter().map(|exit| (exit["key"].to_string(), exit["score"].to_string()));
        all.collect::<Vec<_>>()
    };
    let after = consumer.exits(&[])?;
    ensure!(scores(&after) == scores(&before), "{after:#}");
    ensure!(after["exits"][0]["attestations"].as_array().is_some_and(Vec::is_empty));

    // Believed, by the option and by the file.
    word(&honest, &preferred, Reason::WrongExit)?;
    let named = honest.public().to_hex();
    let believed = consumer.exits(&["--watcher", &named])?;
    ensure!(first(&believed) == other, "{believed:#}");
    let part_of = part(&believed, &preferred, "watchers")?;
    ensure!(part_of["points"] == 0.0 && part_of["why"].to_string().contains("wrong-exit"));
    let neutral = part(&believed, &other, "watchers")?;
    ensure!(neutral["why"].to_string().contains("neutral"), "{neutral}");
    let folder = consumer.directory.path().join(".config/weir");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("market.toml"), format!("watchers = [\"{named}\"]\n"))?;
    ensure!(scores(&consumer.exits(&[])?) == scores(&believed), "the file is not read");
    let why = consumer.weir(&["exits", "--no-cache", "--why", &preferred])?;
    ensure!(why.contains("wrong-exit") && why.contains(&named[..8]), "{why}");
    Ok(())
}

#[test]
fn what_own_connections_were_like_is_remembered_and_explained() -> Result<()> {
    let lab = Lab::new()?;
    let market = Marketplace::start(&lab)?;
    let _node = Node::start(&lab.node, market.exit(NODE_V4, "DE"))?;
    market.wait_listed("DE", 1)?;
    let wallet = Wallet::new(&lab.consumer)?;
    wallet.run(&["receive", "--trust-mint", &market.mint.send(FUNDS, &[])?])?;
    let (at, purse) = (market.registry(), wallet.path().to_string_lossy().into_owned());
    let mut machine = Machine::new(&lab)?;
    let known = ["--registry", &at, "--wallet", &purse];
    let exits = |machine: &Machine<'_>| -> Result<Value> {
        let words = [&["exits", "--json", "--no-cache"], &known[..]].concat();
        Ok(serde_json::from_str(&machine.weir(&words)?)?)
    };
    let exit = key(&exits(&machine)?, NODE_V4)?;
    let before = exits(&machine)?;
    let neutral = part(&before, &exit, "own history")?;
    ensure!(neutral["points"] == 15.0, "{neutral}");
    let words = [&["--country", "DE", "--amount", "8"], &known[..]].concat();
    machine.connect(&words)?;
    machine.disconnect()?;
    let after = exits(&machine)?;
    let own = part(&after, &exit, "own history")?;
    ensure!(own["points"] == 30.0, "{own}");
    let why = machine.weir(&[&["exits", "--no-cache", "--why", &exit], &known[..]].concat())?;
    ensure!(why.contains("1 connections worked") && why.contains("you  good"), "{why}");
    Ok(())
}
