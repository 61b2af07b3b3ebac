//! A node's listing, at relays over real WebSockets, and what consumers see of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_market::event::{SignedListing, deleted};
use weir_tests::{
    Lab, Node, Settings,
    lab::{NODE_V4, OPERATOR_V4, SERVER_V4, SERVERS},
    relay::{Relay, tag},
    until,
};

/// Longer than anything here takes.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A node that is listed at these relays, with ecash of a mint that is away.
fn settings(lab_keys: &std::path::Path, relays: &[&Relay]) -> Settings {
    let urls: Vec<String> = relays.iter().map(|relay| format!("{:?}", relay.url())).collect();
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
    let one = Relay::start(&lab.internet, SERVER_V4.into(), 7447)?;
    let two = Relay::start(&lab.internet, SERVERS[1], 7447)?;
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
    node.configure(all.clone().with("cashu", "gib_price", "77"))?;
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
        let event = weir_market::event::Event::from_json(last.to_string())?;
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
    let relay = Relay::start(&lab.internet, SERVER_V4.into(), 7447)?;
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
    let relay = Relay::start(&lab.internet, SERVER_V4.into(), 7447)?;
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
