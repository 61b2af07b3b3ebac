//! Registries as nodes, consumers, people and other registries use them.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use nostr::{event::Event, filter::Filter, key::Keys};
use serde_json::Value;
use weir_market::{
    event::{SignedListing, sign_deletion},
    key::MarketKey,
};
use weir_registry::testing::{changed, event, listed};
use weir_tests::{registry::Registry, until};

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
fn publish(registry: &Registry, events: &[Event]) -> Result<()> {
    for (number, event) in events.iter().enumerate() {
        let mut client = registry.client(&format!("198.51.{number}.1"))?;
        let (stored, said) = client.publish(event)?;
        ensure!(stored && said.is_empty(), "{said}");
    }
    Ok(())
}

fn listings(registry: &Registry) -> Result<usize> {
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
    let has_all = |registry: &Registry| {
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
