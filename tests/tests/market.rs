//! A node's listing, at relays over real WebSockets, and what consumers see of it.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_market::{
    event::{Event, SignedListing, deleted, sign_deletion, sign_listing},
    key::MarketKey,
    listing::Listing,
    testing::listing,
};
use weir_tests::{
    Lab, Namespace, Node, Settings, command,
    foreign_relay::ForeignRelay,
    lab::{MARKET_V4, MARKET_V6, NODE_V4, OPERATOR_V4},
    node::binary,
    relay::{Relay, tag},
    until,
};

/// Longer than anything here takes.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A node that is listed at these relays, with ecash of a mint that is away.
fn settings(lab_keys: &std::path::Path, relays: &[&Relay]) -> Settings {
    at_relays(lab_keys, &relays.iter().map(|relay| relay.url()).collect::<Vec<_>>())
}

fn at_relays(lab_keys: &std::path::Path, urls: &[String]) -> Settings {
    let urls: Vec<String> = urls.iter().map(|url| format!("{url:?}")).collect();
    let key = |name: &str| format!("{:?}", lab_keys.join(name));
    Settings::default()
        .with("cashu", "mints", "[\"https://mint.example\"]")
        .with("cashu", "key_file", &key("cashu.key"))
        .with("market", "enabled", "true")
        .with("market", "key_file", &key("market.key"))
        .with("market", "registries", &format!("[{}]", urls.join(", ")))
        .with("market", "country", "\"DE\"")
        .with("market", "ip_type", "\"residential\"")
}

fn now() -> u64 {
    weir_ledger::unix_now()
}

/// The one listing that a relay has.
fn listed(relay: &Relay) -> Result<SignedListing> {
    let events = relay.events();
    let listings: Vec<_> = events.iter().filter(|event| event["kind"] == 30402).collect();
    let [listing] = listings[..] else { anyhow::bail!("{} listings", listings.len()) };
    Ok(SignedListing::from_json(&listing.to_string(), now())?)
}

fn show(node: &Node<'_>) -> Result<Value> {
    Ok(serde_json::from_str(&node.weir(&["market", "show", "--json"])?)?)
}

#[test]
fn a_node_is_listed_as_it_is_sold_when_full_and_withdrawn_at_its_stop() -> Result<()> {
    let lab = Lab::new()?;
    let keys = tempfile::tempdir()?;
    let one = Relay::start(&lab.internet, MARKET_V4.into(), 7447)?;
    let two = Relay::start(&lab.internet, MARKET_V6.into(), 7447)?;
    let away = Relay::start(&lab.internet, OPERATOR_V4.into(), 7447)?;
    let all = settings(keys.path(), &[&one, &two, &away]);
    drop(away);
    let all = all.with("limits", "sessions", "2").with("voucher", "enabled", "true");
    let mut node = Node::start(&lab.node, all.clone())?;
    until("two relays have the listing", WAIT_TIMEOUT, || {
        ensure!(listed(&one)?.listing == listed(&two)?.listing, "they differ");
        Ok(())
    })?;
    let signed = listed(&one)?;
    let listing = &signed.listing;
    ensure!(listing.country.is_some_and(|country| country.as_str() == "DE"), "{listing:?}");
    ensure!(listing.free_slots == Some(2), "{listing:?}");
    let prices: Vec<_> = listing.prices.iter().map(ToString::to_string).collect();
    ensure!(prices == ["100 sat/GiB"], "{prices:?}");
    let endpoint = listing.endpoints.first().context("an endpoint")?;
    let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
    ensure!(
        // The uplink has several IPv6 addresses.
        addresses.len() == 2
            && addresses[0] == format!("{NODE_V4}:51820")
            && addresses[1].starts_with("[2a0c:b641:2::"),
        "{addresses:?}"
    );
    let view = show(&node)?;
    ensure!(view["key"] == signed.event.pubkey.to_hex().as_str(), "{view}");
    until("the third is named as unreachable", WAIT_TIMEOUT, || {
        let view = show(&node)?;
        let states: Vec<_> = view["relays"].as_array().context("relays")?.iter().collect();
        ensure!(states[0]["state"] == "accepted" && states[2]["state"] == "unreachable", "{view}");
        ensure!(states[2]["answer"].as_str().is_some_and(|why| why.contains("cannot reach")));
        Ok(())
    })?;
    let metrics = node.metrics()?;
    let series = format!(
        "weir_market_listed{{relay=\"{}\"}} 1",
        view["relays"][0]["url"].as_str().context("a URL")?
    );
    ensure!(metrics.contains(&series), "{series}\n{metrics}");

    // Full, and free again.
    node.session_add("a")?;
    node.session_add("b")?;
    until("it is sold", WAIT_TIMEOUT, || {
        ensure!(listed(&one)?.listing.state == weir_market::listing::State::Sold, "active");
        Ok(())
    })?;
    node.weir(&["session", "remove", "b"])?;
    until("it is for sale again", WAIT_TIMEOUT, || {
        ensure!(listed(&one)?.listing.state == weir_market::listing::State::Active, "sold");
        Ok(())
    })?;

    // Another price, without a restart.
    node.configure(all.with("cashu", "gib_price", "77"))?;
    node.hang_up()?;
    until("the new price is listed", WAIT_TIMEOUT, || {
        ensure!(listed(&two)?.listing.prices[0].to_string() == "77 sat/GiB", "the old price");
        Ok(())
    })?;

    node.stop()?;
    for relay in [&one, &two] {
        ensure!(listed(relay).is_err(), "it is still listed");
        let last = relay.received().pop().context("nothing was sent")?;
        ensure!(last["kind"] == 5 && last["pubkey"] == signed.event.pubkey.to_hex().as_str());
        let event = Event::from_json(last.to_string())?;
        event.verify()?;
        ensure!(deleted(&event).addresses == [signed.address()], "{last}");
    }

    // The same key and name again.
    node.restart()?;
    until("it is listed again", WAIT_TIMEOUT, || {
        ensure!(listed(&one)?.address() == signed.address(), "another one");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_withdrawn_node_stays_withdrawn_over_a_restart_and_a_refusal_is_shown() -> Result<()> {
    let lab = Lab::new()?;
    let keys = tempfile::tempdir()?;
    let relay = Relay::start(&lab.internet, MARKET_V4.into(), 7447)?;
    relay.refuse(Some("blocked: not on the list"));
    let mut node = Node::start(&lab.node, settings(keys.path(), &[&relay]))?;
    until("the refusal is shown", WAIT_TIMEOUT, || {
        let text = node.weir(&["market", "show"])?;
        ensure!(text.contains("refused") && text.contains("blocked: not on the list"), "{text}");
        Ok(())
    })?;
    relay.refuse(None);
    node.weir(&["market", "publish"])?;
    until("it is listed", WAIT_TIMEOUT, || listed(&relay).map(drop))?;
    node.weir(&["market", "withdraw"])?;
    until("it is withdrawn", WAIT_TIMEOUT, || {
        ensure!(listed(&relay).is_err(), "listed");
        Ok(())
    })?;
    let before = relay.received().len();
    node.stop()?;
    node.restart()?;
    let view = show(&node)?;
    ensure!(view["state"] == "withdrawn" && view["listing"].is_null(), "{view}");
    ensure!(relay.received().len() == before, "{:?}", relay.received());
    node.weir(&["market", "publish"])?;
    until("it is listed again", WAIT_TIMEOUT, || listed(&relay).map(drop))?;
    let event = relay.events().pop().context("an event")?;
    ensure!(tag(&event, "status") == Some("active"), "{event}");
    Ok(())
}

#[test]
fn nothing_is_sent_without_a_market_section() -> Result<()> {
    let lab = Lab::new()?;
    let keys = tempfile::tempdir()?;
    let relay = Relay::start(&lab.internet, MARKET_V4.into(), 7447)?;
    // Everything is there but the word.
    let off = settings(keys.path(), &[&relay]).with("market", "enabled", "false");
    let mut node = Node::start(&lab.node, off)?;
    node.session_add("a")?;
    node.hang_up()?;
    let refused = node.weir(&["market", "publish"]).expect_err("there is no listing");
    ensure!(format!("{refused:#}").contains("market.enabled = true"), "{refused:#}");
    node.stop()?;
    ensure!(relay.connections() == 0, "{:?}", relay.received());
    ensure!(!keys.path().join("market.key").exists(), "a key was made");
    // The same relay hears of a node that has it.
    let mut node = Node::start(&lab.node, settings(keys.path(), &[&relay]))?;
    until("it is listed", WAIT_TIMEOUT, || listed(&relay).map(drop))?;
    node.stop()
}

/// A consumer without rights, with a home of its own.
struct Consumer<'l> {
    namespace: &'l Namespace,
    home: tempfile::TempDir,
}

impl<'l> Consumer<'l> {
    /// Nobody may enter the directories that the program is built in, so it gets a copy.
    fn new(namespace: &'l Namespace) -> Result<Self> {
        let home = tempfile::tempdir()?;
        std::fs::copy(binary()?, home.path().join("weir"))?;
        command::run(std::process::Command::new("chown").args(["-R", NOBODY]).arg(home.path()))?;
        Ok(Self { namespace, home })
    }

    fn exits(&self, arguments: &[&str]) -> Result<String> {
        let mut program = self.namespace.command("setpriv");
        program
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
            .arg(self.home.path().join("weir"))
            .arg("exits")
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path());
        command::run(&mut program)
    }

    fn exits_json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.exits(&[arguments, &["--json"]].concat())?)?)
    }
}

const NOBODY: &str = "65534";

/// The countries and prices of exits.
fn seen(answer: &Value) -> Result<Vec<String>> {
    let all = answer["exits"].as_array().context("no exits")?;
    let word = |exit: &Value| {
        let listing = &exit["listing"];
        let amount = listing["prices"][0]["amount"].as_str().unwrap_or_default();
        format!("{} {amount}", listing["country"].as_str().unwrap_or_default())
    };
    let mut seen: Vec<_> = all.iter().map(word).collect();
    seen.sort();
    Ok(seen)
}

fn value(event: &Event) -> Result<Value> {
    Ok(serde_json::from_str(&event.as_json())?)
}

#[test]
fn a_consumer_without_root_sees_the_market_right_though_a_registry_lies() -> Result<()> {
    let lab = Lab::new()?;
    let honest = Relay::start(&lab.internet, MARKET_V4.into(), 7447)?;
    let lying = Relay::start(&lab.internet, OPERATOR_V4.into(), 7447)?;
    let keys = [1, 2, 3, 4, 5].map(MarketKey::for_tests);
    let [de, fr, nl, gone, forged] = &keys;
    let sign = |key: &MarketKey, listing: &Listing, at: u64| sign_listing(key, listing, at, 0);
    let now = now();

    // The honest one has three exits, of which it was told that one is withdrawn.
    honest.put([
        value(&sign(de, &listing("DE", "100 sat/GiB", 1), now - 60))?,
        value(&sign(fr, &listing("FR", "200 sat/GiB", 2), now - 60))?,
        value(&sign_deletion(gone, "weir", now - 30))?,
    ]);
    // The lying one withholds FR, shows an old price, what was withdrawn, what has expired and what it
    // has forged, and sends what nobody asked for. One exit is true, and with it alone.
    let mut stolen = value(&sign(forged, &listing("SE", "1 sat/GiB", 3), now))?;
    stolen["pubkey"] = value(&sign(de, &listing("DE", "1 sat/GiB", 3), now))?["pubkey"].clone();
    let mut cheap = value(&sign(forged, &listing("SE", "500 sat/GiB", 3), now))?;
    cheap["tags"] = serde_json::from_str(&cheap["tags"].to_string().replace("500", "1"))?;
    let mut other = value(&sign(forged, &listing("SE", "2 sat/GiB", 3), now))?;
    other["kind"] = 1.into();
    lying.put([
        value(&sign(de, &listing("DE", "1 sat/GiB", 1), now - 3600))?,
        value(&sign(gone, &listing("CH", "1 sat/GiB", 4), now - 90))?,
        value(&sign(fr, &listing("FR", "1 sat/GiB", 2), now - 4 * 3600))?,
        value(&sign(nl, &listing("NL", "300 sat/GiB", 5), now - 10))?,
        stolen,
        cheap,
    ]);
    lying.lie([
        "[\"NOTICE\",\"hello\"]".to_owned(),
        "rubbish".to_owned(),
        format!("[\"EVENT\",\"SUB\",{other}]"),
    ]);

    let consumer = Consumer::new(&lab.consumer)?;
    let both = ["--registry", &honest.url(), "--registry", &lying.url()];
    let answer = consumer.exits_json(&both)?;
    ensure!(seen(&answer)? == ["DE 100", "FR 200", "NL 300"], "{:?}", seen(&answer)?);
    let refused = &answer["registries"][1]["refused"];
    ensure!(refused["signature"] == 2 && refused["expired"] == 1, "{refused}");
    ensure!(
        refused["kind"].as_u64() >= Some(1) && refused["form"].as_u64() >= Some(1),
        "{refused}"
    );
    for exit in answer["exits"].as_array().context("exits")? {
        SignedListing::from_json(&exit["event"].to_string(), now)?;
    }

    // Nobody was told what was looked for.
    let answer = consumer.exits_json(&[&both[..], &["--country", "DE"]].concat())?;
    ensure!(seen(&answer)? == ["DE 100"], "{answer}");
    for request in honest.requests() {
        let text = request.to_string();
        ensure!(!text.contains("DE") && !text.contains("#l") && !text.contains("#g"), "{text}");
    }
    // The second time, only what is new was asked for.
    let since = honest.requests().pop().context("a request")?[2]["since"].as_u64();
    ensure!(since.is_some_and(|since| since >= now - 60 - 15 * 60), "{since:?}");

    // What was fetched is there without anybody, and is explained.
    drop((honest, lying));
    let answer = consumer.exits_json(&["--offline", "--max-price", "250sat/GiB"])?;
    ensure!(seen(&answer)? == ["DE 100", "FR 200"], "{answer}");
    let key = answer["exits"][0]["key"].as_str().context("a key")?;
    let why = consumer.exits(&["--offline", "--why", &key[..8]])?;
    for part in ["It fits, and is number 1 of 3", "price", "own history", "of 100 together"] {
        ensure!(why.contains(part), "{part:?} is not in\n{why}");
    }
    let table = consumer.exits(&["--offline", "--country", "FR"])?;
    ensure!(table.contains("200 sat/GiB") && table.lines().count() == 2, "{table}");
    Ok(())
}

#[test]
fn a_registry_that_floods_or_pages_does_not_hide_the_others() -> Result<()> {
    let lab = Lab::new()?;
    let huge = Relay::start(&lab.internet, MARKET_V4.into(), 7447)?;
    let paging = Relay::start(&lab.internet, OPERATOR_V4.into(), 7447)?;
    huge.lie([format!("[\"NOTICE\",\"{}\"]", "x".repeat(100_000))]);
    let now = now();
    let all: Vec<_> = (1..=40)
        .map(|number| {
            let listing = listing("DE", &format!("{number} sat/GiB"), number);
            // Several of each second, so that pages end within one.
            let at = now - 60 - u64::from(number) / 4;
            value(&sign_listing(&MarketKey::for_tests(number), &listing, at, 0))
        })
        .collect::<Result<_>>()?;
    paging.put(all);
    paging.set_page(7);
    let consumer = Consumer::new(&lab.consumer)?;
    let both = ["--registry", &huge.url(), "--registry", &paging.url(), "--limit", "0"];
    let answer = consumer.exits_json(&both)?;
    ensure!(seen(&answer)?.len() == 40, "{}", seen(&answer)?.len());
    let error = answer["registries"][0]["error"].as_str().context("an error")?;
    ensure!(error.contains("it sent more than"), "{error}");
    ensure!(answer["warnings"][0].as_str().is_some_and(|it| it.starts_with("40 keys in")));
    Ok(())
}

#[test]
fn a_foreign_relay_carries_a_listing_to_consumers_and_its_withdrawal() -> Result<()> {
    let lab = Lab::new()?;
    let keys = tempfile::tempdir()?;
    let relay = ForeignRelay::start(&lab.internet, SocketAddrV4::new(MARKET_V4, 7447))?;
    let mut node = Node::start(&lab.node, at_relays(keys.path(), &[relay.url()]))?;
    let consumer = Consumer::new(&lab.consumer)?;
    let look = || consumer.exits_json(&["--registry", &relay.url(), "--no-cache"]);
    until("the exit is found", WAIT_TIMEOUT, || {
        let answer = look()?;
        ensure!(seen(&answer)? == ["DE 100"], "{answer}");
        Ok(())
    })?;
    node.stop()?;
    let answer = look()?;
    ensure!(seen(&answer)?.is_empty(), "{answer}");
    Ok(())
}
