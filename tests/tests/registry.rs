//! Registries as nodes, consumers, people and other registries use them.

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use nostr::{event::Event, filter::Filter, key::Keys};
use serde_json::Value;
use weir_market::{
    event::{SignedListing, sign_deletion, sign_listing},
    key::MarketKey,
};
use weir_registry::testing::{changed, event, listed};
use weir_tests::{
    Lab, Node, Settings, command,
    lab::{MARKET_V4, NODE_V4},
    registry::{Registry, foreign_python},
    until,
};

/// Reconciliations happen once a minute.
const SYNC_TIMEOUT: Duration = Duration::from_secs(150);

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn fresh(country: &str, price: &str) -> Event {
    listed(&MarketKey::random(), country, price, now())
}

/// Publishes events, each from a network of its own.
fn publish(registry: &Registry<'_>, events: &[Event]) -> Result<()> {
    for (number, event) in events.iter().enumerate() {
        let mut client = registry.client(&format!("198.51.{number}.1"))?;
        let (stored, said) = client.publish(event)?;
        ensure!(stored && said.is_empty(), "{said}");
    }
    Ok(())
}

fn listings(registry: &Registry<'_>) -> Result<usize> {
    let exits: Value = serde_json::from_str(&registry.get("/v1/exits?state=all")?)?;
    Ok(exits["total"].as_u64().context("no total")? as usize)
}

#[test]
fn a_listing_is_published_found_and_withdrawn() -> Result<()> {
    let registry = Registry::start(&[])?;
    let key = MarketKey::random();
    let german = listed(&key, "DE", "200 sat/GiB", now());
    let mut reader = registry.client("203.0.113.1")?;
    ensure!(reader.fetch(Filter::new().kind(30402.into()))?.is_empty());
    publish(&registry, &[german.clone(), fresh("FR", "100 sat/GiB")])?;
    // The subscription goes on.
    let heard = reader.receive()?;
    ensure!(format!("{heard:?}").contains(&german.id.to_hex()), "{heard:?}");
    let letter = nostr::filter::SingleLetterTag::LOWERCASE_L;
    let found = registry
        .client("203.0.113.2")?
        .fetch(Filter::new().kind(30402.into()).custom_tag(letter, "DE"))?;
    ensure!(found == [german.clone()], "{found:?}");

    let exits: Value = serde_json::from_str(
        &registry.get("/v1/exits?country=DE&ip_type=residential&max_price=200sat/GiB")?,
    )?;
    ensure!(exits["total"] == 1, "{exits}");
    let signed = SignedListing::from_json(&exits["exits"][0]["event"].to_string(), now())?;
    ensure!(signed.event == german);
    let countries: Value = serde_json::from_str(&registry.get("/v1/countries")?)?;
    ensure!(countries["countries"][1]["exits"] == 1, "{countries}");
    ensure!(registry.get("/")?.contains(">2 exits in 2 countries<"));
    ensure!(registry.get("/page.css")?.contains("prefers-color-scheme: dark"));
    ensure!(registry.get("/metrics")?.contains("\nweir_registry_listings 2\n"));
    let (_, about) = registry.ask("/", "Accept: application/nostr+json\r\n")?;
    let about: Value = serde_json::from_str(&about)?;
    ensure!(about["limitation"]["max_limit"] == 5000, "{about}");
    let (head, body) = registry.ask("/v1/exits?max_price=cheap", "")?;
    ensure!(head.contains(" 400 ") && body.contains("\"bad_query\""), "{head}\n{body}");

    let withdrawn = sign_deletion(&key, "weir", now());
    let (stored, said) = registry.client("198.51.0.1")?.publish(&withdrawn)?;
    ensure!(stored, "{said}");
    ensure!(listings(&registry)? == 1);
    let (stored, said) = registry.client("198.51.0.1")?.publish(&german)?;
    ensure!(!stored && said.starts_with("blocked: "), "{said}");
    Ok(())
}

#[test]
fn what_is_expired_forged_too_large_or_of_another_kind_is_refused_by_name() -> Result<()> {
    let registry = Registry::start(&[("proof_of_work", "8")])?;
    let keys = Keys::generate();
    let good = fresh("DE", "1 sat/GiB");
    let until = (now() - 1).to_string();
    let long = "x".repeat(9000);
    for (event, prefix, word) in [
        (changed(&good, |it| it.content = "x".into()), "pow: ", "work"),
        (event(&keys, 30402, &[&["expiration", &until]], now()), "invalid: ", "expired"),
        (event(&keys, 30402, &[], now()), "invalid: ", "no_expiration"),
        (event(&keys, 5, &[&["e", &good.id.to_hex()]], now() - 3600), "invalid: ", "old"),
        (event(&keys, 1984, &[&["x", &long]], now()), "invalid: ", "size"),
        (event(&keys, 1, &[], now()), "restricted: ", "kind"),
        (
            changed(&event(&keys, 1984, &[], now()), |it| it.content = "x".into()),
            "invalid: ",
            "signature",
        ),
    ] {
        let (stored, said) = registry.client("198.51.0.1")?.publish(&event)?;
        ensure!(!stored && said.starts_with(prefix), "{word}: {said}");
        let line = format!("weir_registry_events_refused_total{{reason=\"{word}\"}} 1\n");
        let metrics = registry.get("/metrics")?;
        ensure!(metrics.contains(&line), "no {line} in {metrics}");
    }
    ensure!(listings(&registry)? == 0);
    Ok(())
}

#[test]
fn ten_thousand_listings_from_one_address_are_refused_beyond_the_quota() -> Result<()> {
    let registry = Registry::start(&[("events_per_second", "1000000")])?;
    let mut refused = 0;
    let mut client = registry.client("198.51.100.1")?;
    let mut published = 0;
    while published < 10_000 {
        let event = fresh("DE", "1 sat/GiB");
        match client.publish(&event) {
            Ok((true, _)) => published += 1,
            Ok((false, said)) => {
                ensure!(said.starts_with("rate-limited: 5 new keys of this network"), "{said}");
                refused += 1;
                published += 1;
            }
            // A connection ends after a thousand refusals; the next does not get further.
            Err(_) => client = registry.client("198.51.100.2")?,
        }
    }
    ensure!(refused == 9995 && listings(&registry)? == 5, "{refused} refused");
    publish(&registry, &[fresh("FR", "1 sat/GiB")])
}

#[test]
fn a_registry_that_restarts_has_its_listings_again() -> Result<()> {
    let mut registry = Registry::start(&[])?;
    publish(&registry, &[fresh("DE", "1 sat/GiB"), fresh("FR", "1 sat/GiB")])?;
    let before = registry.client("203.0.113.1")?.fetch(Filter::new())?;
    registry.stop()?;
    registry.run()?;
    let after = registry.client("203.0.113.1")?.fetch(Filter::new())?;
    ensure!(before.len() == 2 && before == after, "{before:?} {after:?}");
    Ok(())
}

#[test]
fn registries_copy_from_each_other_and_one_that_lost_all_gets_it_back() -> Result<()> {
    let (mut one, mut two) = (Registry::prepare()?, Registry::prepare()?);
    for (registry, peer) in [(&one, &two), (&two, &one)] {
        registry.configure(&[("peers", &format!("[\"{}\"]", peer.url()))])?;
    }
    one.run()?;
    let key = MarketKey::random();
    let withdrawn = listed(&key, "SE", "1 sat/GiB", now());
    publish(&one, &[fresh("DE", "1 sat/GiB"), withdrawn.clone(), fresh("FR", "1 sat/GiB")])?;
    let deletion = sign_deletion(&key, "weir", now());
    let (stored, said) = one.client("198.51.1.1")?.publish(&deletion)?;
    ensure!(stored, "{said}");
    two.run()?;
    let all = one.client("203.0.113.1")?.fetch(Filter::new())?;
    ensure!(all.len() == 3, "{all:?}");
    let has_all = |registry: &Registry<'_>| {
        let found = registry.client("203.0.113.1")?.fetch(Filter::new())?;
        ensure!(found == all, "{found:?}");
        Ok(())
    };
    until("the second has what the first has", SYNC_TIMEOUT, || has_all(&two))?;
    let (stored, said) = two.client("198.51.1.1")?.publish(&withdrawn)?;
    ensure!(!stored && said.starts_with("blocked: "), "it was withdrawn: {said}");

    one.stop()?;
    std::fs::remove_file(one.snapshot())?;
    one.run()?;
    until("the first has it again", SYNC_TIMEOUT, || has_all(&one))?;

    // What comes now is passed on at once, both ways.
    for (from, to, country) in [(&one, &two, "NL"), (&two, &one, "NO")] {
        let before = listings(to)?;
        let mut client = from.client(&format!("198.51.{before}.77"))?;
        let (stored, said) = client.publish(&fresh(country, "1 sat/GiB"))?;
        ensure!(stored, "{said}");
        until("a new listing is passed on", SYNC_TIMEOUT, || {
            ensure!(listings(to)? == before + 1);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn who_is_not_a_peer_may_not_reconcile() -> Result<()> {
    let registry = Registry::start(&[])?;
    let mut client = registry.client("203.0.113.1")?;
    client.send("[\"NEG-OPEN\",\"n\",{},\"6100000200\"]")?;
    let said = format!("{:?}", client.receive()?);
    ensure!(said.contains("restricted: only listed peers reconcile"), "{said}");
    Ok(())
}

/// What the foreign client prints, line by line.
fn foreign_client(registry: &Registry<'_>, what: &str) -> Result<Vec<String>> {
    let mut client = Command::new(foreign_python()?);
    client.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nostr_client.py"));
    let said = command::run(client.args([&registry.url(), what]))?;
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

#[test]
fn a_foreign_client_reads_and_verifies_our_listings_and_publishes_one_that_we_read() -> Result<()> {
    let registry = Registry::start(&[])?;
    let ours = [fresh("DE", "200 sat/GiB"), fresh("FR", "100 sat/GiB")];
    publish(&registry, &ours)?;
    let mut expected = ours.map(|event| event.id.to_hex());
    expected.sort();
    ensure!(foreign_client(&registry, "read")? == expected);

    let published = foreign_client(&registry, "publish")?;
    let [id] = published.as_slice() else { bail!("{published:?}") };
    let exits: Value = serde_json::from_str(&registry.get("/v1/exits?country=SE")?)?;
    ensure!(exits["total"] == 1, "{exits}");
    let theirs = SignedListing::from_json(&exits["exits"][0]["event"].to_string(), now())?;
    ensure!(theirs.event.id.to_hex() == *id && theirs.listing.title == "An exit of others");
    Ok(())
}

/// What a browser makes of the page, and what it complains of.
fn browse(url: &str) -> Result<(String, String)> {
    let profile = tempfile::tempdir()?;
    let mut chromium = Command::new("timeout");
    chromium.args(["120", "chromium", "--headless=new", "--no-sandbox", "--disable-gpu"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display()));
    chromium.args(["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", url]);
    let output = chromium.output().context("chromium is missing: cargo xtask setup")?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{stderr}");
    let complaints: Vec<&str> = stderr.lines().filter(|line| line.contains("CONSOLE")).collect();
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), complaints.join("\n")))
}

#[test]
fn a_browser_shows_the_page_and_has_nothing_to_complain_of() -> Result<()> {
    let registry = Registry::start(&[("title", "\"An <i>open</i> registry\"")])?;
    publish(&registry, &[fresh("DE", "200 sat/GiB"), fresh("FR", "100 sat/GiB")])?;
    let (dom, complaints) = browse(&format!("{}?country=DE&max_price=", registry.page()))?;
    ensure!(complaints.is_empty(), "{complaints}");
    for shown in [
        "<title>An &lt;i&gt;open&lt;/i&gt; registry</title>",
        ">2 exits in 2 countries</span>",
        "<option value=\"DE\" selected=\"\">",
        ">weir exit DE</td>",
        ">200 sat/GiB</td>",
        ">1 to 1 of 1</span>",
    ] {
        ensure!(dom.contains(shown), "no {shown} in {dom}");
    }
    ensure!(!dom.contains(">weir exit FR</td>"), "{dom}");
    Ok(())
}

#[test]
fn a_listing_of_a_node_that_does_not_answer_is_not_served() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let key = directory.path().join("registry.key");
    let key = format!("{:?}", key.to_str().context("a path")?);
    let registry = Registry::start(&[("dial_back", "true"), ("key_file", &key)])?;
    let (_, about) = registry.ask("/", "Accept: application/nostr+json\r\n")?;
    let about: Value = serde_json::from_str(&about)?;
    let public = about["wireguard_key"].as_str().context("no key")?;
    ensure!(weir_wireguard::keys::parse_public(public).is_ok(), "{public}");
    // The registry calls no address of its own machine.
    let listing = weir_market::testing::at("DE", "1 sat/GiB", [127, 0, 0, 1].into());
    publish(&registry, &[sign_listing(&MarketKey::random(), &listing, now(), 0)])?;
    ensure!(listings(&registry)? == 0);
    let found = registry.client("203.0.113.1")?.fetch(Filter::new())?;
    ensure!(found.is_empty(), "{found:?}");
    let metrics = registry.get("/metrics")?;
    ensure!(metrics.contains("\nweir_registry_listings_hidden 1\n"), "{metrics}");
    Ok(())
}

#[test]
fn a_node_that_is_called_back_is_served_and_one_with_another_key_is_not() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let mut registry = Registry::prepare_in(&lab.internet, MARKET_V4)?;
    let key = registry.snapshot().with_file_name("registry.key");
    let key = format!("{:?}", key.to_str().context("a path")?);
    registry.configure(&[("dial_back", "true"), ("key_file", &key)])?;
    registry.run()?;
    let (_, about) = registry.ask("/", "Accept: application/nostr+json\r\n")?;
    let about: Value = serde_json::from_str(&about)?;
    let public = about["wireguard_key"].as_str().context("no key")?;
    node.weir(&["session", "add", "--name", "registry", "--public-key", public, "--prepaid"])?;

    let shown: Value = serde_json::from_str(&node.weir(&["--json", "key", "show"])?)?;
    let found = shown["public_key"].as_str().with_context(|| shown.to_string())?;
    let mut listing = weir_market::testing::at("DE", "1 sat/GiB", NODE_V4.into());
    let liar = listing.clone();
    listing.endpoints[0].key = weir_wireguard::keys::parse_public(found)?;
    let mut client = registry.client("203.0.113.1")?;
    for listing in [&listing, &liar] {
        let event = sign_listing(&MarketKey::random(), listing, now(), 0);
        let (stored, said) = client.publish(&event)?;
        ensure!(stored, "{said}");
    }
    until("the node has answered", Duration::from_secs(60), || {
        ensure!(listings(&registry)? == 1);
        Ok(())
    })?;
    let metrics = registry.get("/metrics")?;
    ensure!(metrics.contains("\nweir_registry_listings_hidden 1\n"), "{metrics}");
    Ok(())
}
