//! A registry with many listings: bytes, memory and seconds.
//!
//! `cargo run --release -p weir-benches --bin weir-registry-cost [-- LISTINGS]`
#![expect(clippy::print_stdout, reason = "it is a benchmark's program")]

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use weir_market::{event::sign_listing, key::MarketKey, testing::listing};
use weir_registry::{
    exits::{self, ExitsQuery},
    filter::{MAX_LIMIT, Wanted},
    network::Network,
    registry::{Now, Registry, Rules},
    relay::vector,
    snapshot,
};
use weir_testkit::process::resident_bytes;

const LISTINGS: u32 = 20_000;
const NOW: u64 = 1_800_000_000;

fn network(number: u32) -> Network {
    IpAddr::from(Ipv4Addr::from_bits(number << 8)).into()
}

/// Does something, and says how long it took.
fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = act();
    println!("{what}: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    done
}

fn main() -> Result<()> {
    let count = std::env::args().nth(1).map_or(Ok(LISTINGS), |text| text.parse())?;
    let countries = ["DE", "FR", "SE", "US", "NL", "JP", "BR", "GB", "PL", "IT"];
    let events: Vec<_> = timed("sign", || {
        let all = (0..count).map(|number| {
            let price = format!("{} sat/GiB", 50 + number % 400);
            let country = countries[number as usize % countries.len()];
            let created_at = NOW - u64::from(number % 900);
            let listing = listing(country, &price, number as u8);
            sign_listing(&MarketKey::random(), &listing, created_at, 0)
        });
        all.collect()
    });
    let bytes: usize = events.iter().map(|event| event.as_json().len()).sum();
    println!(
        "events: {count}, JSON {:.1} MB, {} bytes each",
        bytes as f64 / 1e6,
        bytes / count as usize
    );

    let registry = Registry::new(Rules::default());
    let before = resident_bytes(std::process::id())?;
    timed("publish all, each from a network of its own (judge, verify, store)", || {
        for (number, event) in events.iter().enumerate() {
            let now = Now { unix: NOW, tick: 1 << 40 };
            registry.publish(event, network(number as u32), now).context("refused")?;
        }
        anyhow::Ok(())
    })?;
    let resident = resident_bytes(std::process::id())?.saturating_sub(before);
    let size = registry.size();
    println!(
        "memory: {:.1} MB resident, {} bytes for each listing; the estimate is {:.1} MB",
        resident as f64 / 1e6,
        resident / u64::from(count),
        size.bytes as f64 / 1e6
    );

    let fetched = timed("fetch all, newest first, in pages of the maximum limit", || {
        let mut fetched = HashMap::new();
        let mut wanted = Wanted { limit: MAX_LIMIT, ..Wanted::default() };
        loop {
            let page = registry.query(std::slice::from_ref(&wanted), NOW);
            let before = fetched.len();
            fetched.extend(page.iter().map(|record| (record.id, record.json.len())));
            wanted.until = page.last().map(|record| record.created_at);
            if fetched.len() == before {
                return fetched.values().sum::<usize>();
            }
        }
    });
    ensure!(fetched == bytes, "{fetched} bytes of {bytes}");
    for query in
        ["country=DE&max_price=200sat/GiB&sort=price", "sort=price", "sort=speed&limit=500"]
    {
        let query_name = query;
        let query = ExitsQuery::parse(query)?;
        let text = timed(&format!("GET /v1/exits?{query_name}"), || {
            let found = exits::select(registry.listings(NOW), &query);
            serde_json::to_string(&exits::answer(&found, &query))
        })?;
        println!("  {} bytes", text.len());
    }
    let all = registry.all();
    timed("prepare a reconciliation (NIP-77)", || {
        vector(all.iter().map(|record| (record.created_at, record.id)))
    })?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("snapshot");
    timed("write the snapshot", || snapshot::write(&path, &registry))?;
    let again = Registry::new(Rules::default());
    let restored =
        timed("read the snapshot, with every signature", || snapshot::read(&path, &again, NOW))?;
    ensure!(restored.events == count as usize, "{restored:?}");
    Ok(())
}
