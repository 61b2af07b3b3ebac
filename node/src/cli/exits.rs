//! `weir exits`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    consumer::{self, Consumer},
    history,
    out::Out,
};
use weir_config::{IpType, WebSocketUrl};
use weir_ledger::unix_now;
use weir_market::{
    attestation::{Attestation, WatcherKey},
    event::Event,
    listing::{Country, Listing, Price},
    score::{MAX_NEIGHBOURS, Part, Scored, Sort, Wish},
    view::{Report, View},
};

mod table;
mod why;

use table::table;
use why::Why;

/// The digits of a key in a table.
const SHORT_KEY: usize = 12;

pub(super) const EXAMPLES: &str = "\
Examples:
  weir exits --registry wss://registry.example
  weir exits --country DE --ip-type residential --max-price 200sat/GiB
  weir exits --country DE --why 3f9a
  weir exits --watcher 79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798
  weir exits --offline --json | jq '.exits[0].listing'

All listings are fetched and filtered here, so that no registry learns what you look for. After the
first time, only changes are fetched. Registries are those of --registry, else those of
~/.config/weir/market.toml, for example: registries = [\"wss://registry.example\"]

What watchers say of exits (weir watch) counts only if you name the watcher, with --watcher or as
watchers = [\"KEY\"] in that file. Your own connections count more, and what an exit says of itself less.

A country or line with a question mark is the operator's word; without one, the operator's database
has it. See docs/market.md.";

#[derive(Debug, Args)]
pub(super) struct ExitsArgs {
    /// The country, by its two letters, such as DE
    #[arg(long, value_name = "COUNTRY")]
    country: Option<Country>,
    /// The kind of line
    #[arg(long, value_name = "TYPE", value_parser = ip_type)]
    ip_type: Option<IpType>,
    /// The highest price, such as 200sat/GiB or 0.1MYST/hour
    #[arg(long, value_name = "PRICE")]
    max_price: Option<Price>,
    /// A way to pay, such as cashu or weir-tunnel/cashu; repeat it for alternatives
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// An ability that the exit must have, such as ipv6; may be repeated
    #[arg(long = "feature", value_name = "FEATURE")]
    features: Vec<String>,
    /// The order
    #[arg(long, value_enum, default_value_t = Order::Score)]
    sort: Order,
    /// The maximum number of exits to print; 0 for all
    #[arg(long, value_name = "N", default_value_t = 30)]
    limit: usize,
    /// Include exits that are sold
    #[arg(long)]
    sold: bool,
    /// Explain the score of the exit with this key, or with the first four or more digits of it
    #[arg(long, value_name = "KEY")]
    why: Option<String>,
    /// A registry or relay to ask, ws:// or wss://; may be repeated
    #[arg(long = "registry", value_name = "URL", value_parser = consumer::registry)]
    registries: Vec<WebSocketUrl>,
    /// A watcher to believe, by its key; may be repeated [default: those of ~/.config/weir/market.toml]
    #[arg(long = "watcher", value_name = "KEY")]
    watchers: Vec<WatcherKey>,
    /// A PEM file with CA certificates for wss:// [default: this machine's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Ask nobody: use what was fetched before
    #[arg(long, conflicts_with = "no_cache")]
    offline: bool,
    /// Fetch everything, and store nothing
    #[arg(long)]
    no_cache: bool,
    /// Directory of the wallet, where weir connect remembers exits [default: as for weir wallet]
    #[arg(long, value_name = "DIR")]
    wallet: Option<PathBuf>,
}

/// An order of exits.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// The highest score first
    Score,
    /// The lowest price first
    Price,
    /// The highest measured capacity first
    Capacity,
    /// The newest listing first
    Newest,
}

impl From<Order> for Sort {
    fn from(order: Order) -> Self {
        match order {
            Order::Score => Self::Score,
            Order::Price => Self::Price,
            Order::Capacity => Self::Capacity,
            Order::Newest => Self::Newest,
        }
    }
}

fn ip_type(word: &str) -> Result<IpType, String> {
    let choices = || format!("write one of {}", IpType::WORDS.join(", "));
    IpType::from_word(word).ok_or_else(choices)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'v> {
    exits: Vec<ExitView<'v>>,
    registries: &'v [Report],
    warnings: Vec<String>,
}

/// An exit in JSON.
#[derive(Serialize)]
struct ExitView<'v> {
    key: String,
    score: f64,
    price: Option<Price>,
    parts: &'v [Part],
    attestations: Vec<AttestationView<'v>>,
    expires_at: u64,
    registries: Vec<&'v str>,
    listing: &'v Listing,
    event: &'v Event,
}

/// What a believed watcher says, in JSON.
#[derive(Serialize)]
struct AttestationView<'v> {
    watcher: WatcherKey,
    at: u64,
    #[serde(flatten)]
    says: &'v Attestation,
}

pub(super) fn run(
    args: &ExitsArgs,
    json: bool,
    out: &mut Out,
    err: &mut Out,
) -> anyhow::Result<()> {
    let now = unix_now();
    let view = fetch(args, now)?;
    let known = history::load(args.wallet.clone(), err)?;
    let wish = Wish {
        country: args.country,
        ip_type: args.ip_type,
        max_price: args.max_price.clone(),
        methods: args.methods.clone(),
        features: args.features.clone(),
        any_app: false,
        sold_too: args.sold,
        sort: args.sort.into(),
    };
    for line in complaints(&view.reports) {
        // Another registry may have answered, so the result counts.
        err.folded(&format!("{line}\n"), 2)?;
    }
    if !view.reports.is_empty() && view.reports.iter().all(|it| it.error.is_some()) {
        err.text("no registry has answered: this is what was fetched before\n")?;
    }
    if let Some(key) = &args.why {
        return Why { view: &view, known: &known, wish: &wish, now }.explain(key, json, out);
    }
    let mut all = view.choose(&wish, &known, now);
    let found = all.len();
    if args.limit > 0 {
        all.truncate(args.limit);
    }
    let warnings = crowds(&view);
    if json {
        let exits = all.iter().map(|scored| exit_view(&view, scored, now)).collect();
        return out.json(&Answer { exits, registries: &view.reports, warnings });
    }
    out.text(&table(&all))?;
    let shown = if all.len() < found { format!(", {} shown", all.len()) } else { String::new() };
    err.text(&format!("{found} of {} exits fit{shown}\n", view.len()))?;
    for warning in warnings {
        err.folded(&format!("warning: {warning}\n"), 2)?;
    }
    Ok(())
}

fn fetch(args: &ExitsArgs, now: u64) -> anyhow::Result<View> {
    let consumer = Consumer::read(&args.registries, &args.watchers, args.ca_file.as_deref())?;
    let settings = consumer.settings(consumer.cache().filter(|_| !args.no_cache));
    if args.offline {
        return Ok(View::cached(&settings, now)?);
    }
    let connector = consumer.connector("weir exits")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    Ok(runtime.block_on(View::fetch(&connector, &settings, now))?)
}

/// What went wrong with each registry.
fn complaints(reports: &[Report]) -> Vec<String> {
    let mut lines = Vec::new();
    for report in reports {
        if let Some(error) = &report.error {
            lines.push(format!("{}: {error}", report.registry));
        }
        if !report.refused.is_empty() {
            let all: Vec<_> =
                report.refused.iter().map(|(why, count)| format!("{count} ({why})")).collect();
            let all = all.join(", ");
            lines.push(format!("{}: listings that do not count: {all}", report.registry));
        }
    }
    lines
}

/// Networks in which suspiciously many keys claim to be residential.
fn crowds(view: &View) -> Vec<String> {
    let all = view.residential_networks();
    let crowded = all.iter().filter(|(_, keys)| keys.len() > MAX_NEIGHBOURS);
    let warn = |(network, keys): (&ipnet::IpNet, &std::collections::HashSet<_>)| {
        format!(
            "{} keys in {network} claim to be residential: one line rarely has so many exits",
            keys.len()
        )
    };
    crowded.map(warn).collect()
}

fn exit_view<'v>(view: &'v View, scored: &'v Scored<'v>, now: u64) -> ExitView<'v> {
    let attested = view.attestations(&scored.offer.signed.address(), now);
    let attestations = attested.map(|signed| AttestationView {
        watcher: signed.watcher(),
        at: signed.event.created_at.as_secs(),
        says: &signed.attestation,
    });
    ExitView {
        attestations: attestations.collect(),
        key: scored.offer.key(),
        score: scored.score,
        price: scored.price.clone(),
        parts: &scored.parts,
        expires_at: scored.offer.signed.expires(),
        registries: scored.offer.registries.iter().map(String::as_str).collect(),
        listing: &scored.offer.signed.listing,
        event: &scored.offer.signed.event,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use weir_market::{event::sign_listing, key::MarketKey, testing::listing};

    pub(super) const NOW: u64 = 1_800_000_000;

    pub(super) fn view(listings: &[Listing]) -> View {
        let mut view = View::default();
        for listing in listings {
            let event = sign_listing(&MarketKey::random(), listing, NOW, 0);
            view.admit(event, "ws://a/", NOW).expect("it counts");
        }
        view
    }

    #[test]
    fn registries_that_lie_or_are_away_are_named() {
        let report = Report {
            registry: "ws://a/".into(),
            refused: [("signature", 2), ("expired", 1)].into(),
            error: Some("it closed the connection".into()),
            ..Report::default()
        };
        let lines = complaints(&[report, Report::default()]);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains("1 (expired), 2 (signature)"), "{lines:?}");
    }

    #[test]
    fn a_crowd_of_residential_keys_is_warned_of() {
        let crowd: Vec<_> = (1..=6).map(|host| listing("DE", "1 sat/GiB", host)).collect();
        assert!(crowds(&view(&crowd[..5])).is_empty());
        let warnings = crowds(&view(&crowd));
        assert!(warnings[0].starts_with("6 keys in 192.0.2.0/24"), "{warnings:?}");
        let all = view(&crowd);
        let keys: BTreeSet<_> = all.offers().map(weir_market::view::Offer::key).collect();
        assert_eq!(keys.len(), 6);
    }
}
