//! `weir exits`.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{history, out::Out, units};
use weir_config::{IpType, WebSocketUrl};
use weir_ledger::unix_now;
use weir_market::{
    attestation::{Attestation, Reason, WatcherKey},
    client::{Connector, Limits, Tls, system_lookup},
    event::{Event, SignedAttestation},
    history::{Measurement, Measurements},
    listing::{Basis, Country, Listing, Price},
    score::{MAX_NEIGHBOURS, Part, Scored, Sort, Wish},
    view::{ConsumerPaths, Report, Settings, View, read_settings},
};

/// The digits of a key in a table.
const SHORT_KEY: usize = 12;
/// The own connections that are explained.
const MAX_OWN: usize = 5;
/// The least digits that name a key.
const MIN_KEY: usize = 4;

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
    #[arg(long = "registry", value_name = "URL", value_parser = registry)]
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

fn registry(text: &str) -> Result<WebSocketUrl, weir_config::NotWebSocket> {
    text.parse()
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
    let paths = ConsumerPaths::find(|name| std::env::var_os(name));
    let file = paths.settings.as_deref().map(read_settings).transpose()?.flatten();
    let file = file.unwrap_or_default();
    let registries = match args.registries.is_empty() {
        true => file.registries,
        false => args.registries.clone(),
    };
    let watchers = match args.watchers.is_empty() {
        true => file.watchers,
        false => args.watchers.clone(),
    };
    let cache = paths.cache.filter(|_| !args.no_cache);
    let settings = Settings { registries, watchers, cache, limits: Limits::default() };
    if args.offline {
        return Ok(View::cached(&settings, now)?);
    }
    if settings.registries.is_empty() {
        let file = paths.settings.unwrap_or_else(|| "market.toml".into());
        bail!(
            "no registry is named. Fix: weir exits --registry wss://registry.example, or write \
             registries = [\"wss://registry.example\"] to {}",
            file.display()
        );
    }
    let tls = match settings.registries.iter().any(WebSocketUrl::is_secure) {
        true => Some(Tls::new(args.ca_file.as_deref().or(file.ca_file.as_deref()))?),
        false => None,
    };
    let connector = Connector::new(system_lookup(), tls);
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

fn table(all: &[Scored<'_>]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut rows = vec![
        ["KEY", "COUNTRY", "LINE", "PRICE", "MBIT/S", "REACH", "FREE", "SCORE", "TITLE"]
            .map(str::to_owned),
    ];
    rows.extend(all.iter().map(row));
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        // Writing to a string cannot fail.
        writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end()).ok();
    }
    text
}

fn row(scored: &Scored<'_>) -> [String; 9] {
    let listing = &scored.offer.signed.listing;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mark = |basis: Basis| if basis == Basis::Claimed { "?" } else { "" };
    let country = listing.country.map(|it| format!("{it}{}", mark(listing.country_basis)));
    let price = scored.price.as_ref().or(listing.prices.first());
    [
        scored.offer.key().chars().take(SHORT_KEY).collect(),
        or_dash(country),
        format!("{}{}", listing.ip_type.as_str(), mark(listing.ip_type_basis)),
        or_dash(price.map(ToString::to_string)),
        or_dash(listing.measured.map(|it| it.down.to_string())),
        listing.reach.as_str().to_owned(),
        or_dash(listing.free_slots.map(|it| it.to_string())),
        format!("{:.0}", scored.score),
        listing.title.clone(),
    ]
}

/// Explains exits.
struct Why<'a> {
    view: &'a View,
    known: &'a Measurements,
    wish: &'a Wish,
    now: u64,
}

impl Why<'_> {
    fn explain(&self, key: &str, json: bool, out: &mut Out) -> anyhow::Result<()> {
        let Self { view, known, wish, now } = *self;
        if key.len() < MIN_KEY {
            bail!("{key:?} is too short: write four or more digits of the key");
        }
        let named: Vec<_> = view.offers().filter(|offer| offer.key().starts_with(key)).collect();
        let offer = match named[..] {
            [] => bail!("no exit has a key that begins with {key}"),
            [one] => one,
            [_, _, ..] => {
                bail!("{} exits have keys that begin with {key}: write more", named.len())
            }
        };
        let listing = &offer.signed.listing;
        let fit = view.fits(offer, wish, now);
        // Compared with those that fit, whether it does or not.
        let wide = Wish { max_price: wish.max_price.clone(), sold_too: true, ..Wish::default() };
        let wide = if fit.is_ok() { wish.clone() } else { wide };
        let all = view.choose(&wide, known, now);
        let scored = all.iter().find(|scored| scored.offer.key() == offer.key());
        if json {
            return out.json(&scored.map(|scored| exit_view(view, scored, now)));
        }
        let mut text = String::new();
        let title = if listing.title.is_empty() { "without a title" } else { &listing.title };
        writeln!(text, "{}  {title}", offer.key())?;
        match fit {
            Ok(()) => {
                let rank = all.iter().position(|it| it.offer.key() == offer.key());
                let rank = rank.map_or(0, |at| at + 1);
                writeln!(text, "It fits, and is number {rank} of {}.", all.len())?;
            }
            Err(unfit) => writeln!(text, "It does not fit: {unfit}.")?,
        }
        let expires = units::span(offer.signed.expires().saturating_sub(now));
        let registries: Vec<_> = offer.registries.iter().map(String::as_str).collect();
        writeln!(text, "Its listing counts for {expires}. From: {}", registries.join(", "))?;
        if let Some(scored) = scored {
            for Part { name, points, max, why } in &scored.parts {
                writeln!(text, "{points:>5.1} of {max:>2.0}  {name:<12}  {why}")?;
            }
            writeln!(text, "{:>5.1} of 100 together", scored.score)?;
        }
        for measurement in known.of(&offer.key()).iter().rev().take(MAX_OWN) {
            writeln!(text, "{}", own(measurement, now))?;
        }
        for signed in view.attestations(&offer.signed.address(), now) {
            writeln!(text, "{}", attested(signed, now))?;
        }
        out.text(&text)?;
        Ok(())
    }
}

/// What one own connection was like, on a line.
fn own(measurement: &Measurement, now: u64) -> String {
    let word = measurement.failure.map_or("good", Reason::as_str);
    let mut words = vec![format!("{word}, {}", units::ago(measurement.at, now))];
    words.extend(measurement.connect_ms.map(|it| format!("answered in {it} ms")));
    if measurement.connect_ms.is_some() {
        let (down, up) = (units::bytes(measurement.received), units::bytes(measurement.sent));
        words.push(format!("{} with {down} down, {up} up", units::span(measurement.seconds)));
    }
    format!("you  {}", words.join("; "))
}

/// What one watcher says, on a line.
fn attested(signed: &SignedAttestation, now: u64) -> String {
    let says = &signed.attestation;
    let key = signed.watcher().to_string();
    let ago = units::ago(signed.event.created_at.as_secs(), now);
    let number = |value: Option<u32>, name: &str, unit: &str| {
        value.map(|value| format!("{name}{value} {unit}"))
    };
    let mut words = vec![format!("{}, {ago}", says.reason)];
    words.extend(number(says.handshake_ms, "handshake ", "ms"));
    words.extend(number(says.rtt_ms, "rtt ", "ms"));
    words.extend(number(says.down, "", "Mbit/s down"));
    words.extend(number(says.up, "", "Mbit/s up"));
    words.extend(says.seen.country.map(|country| {
        let asn = says.seen.asn.map_or_else(String::new, |asn| format!(", AS{asn}"));
        let line = says.seen.ip_type.map_or_else(String::new, |it| format!(", {}", it.as_str()));
        format!("seen in {country}{asn}{line}")
    }));
    words.extend(says.billed.map(|share| format!("billed {share} of what it carried")));
    words.extend(says.is_price_honoured.map(|is| match is {
        true => "price honoured".to_owned(),
        false => "price not honoured".to_owned(),
    }));
    let uptime = says.uptime;
    words.extend(uptime.map(|it| format!("good in {} of {} days", it.share, it.days)));
    format!("watcher {}  {}", key.get(..SHORT_KEY).unwrap_or_default(), words.join("; "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use weir_market::{
        attestation::Share,
        event::{Address, sign_attestation, sign_listing},
        key::MarketKey,
        place::Place,
        score::NoHistory,
        testing::listing,
    };

    const NOW: u64 = 1_800_000_000;

    fn view(listings: &[Listing]) -> View {
        let mut view = View::default();
        for listing in listings {
            let event = sign_listing(&MarketKey::random(), listing, NOW, 0);
            view.admit(event, "ws://a/", NOW).expect("it counts");
        }
        view
    }

    #[test]
    fn the_table_has_what_one_chooses_by() {
        let view = view(&[listing("DE", "100 sat/GiB", 1), listing("FR", "200 sat/GiB", 2)]);
        let all = view.choose(&Wish::default(), &NoHistory, NOW);
        let text = table(&all);
        assert!(text.starts_with("KEY"), "{text}");
        let line = text.lines().nth(1).expect("an exit");
        for part in ["DE?", "residential", "100 sat/GiB", "934", "direct", "4000", "weir exit DE"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn an_own_connection_is_one_line() {
        let good = Measurement {
            at: NOW - 60,
            connect_ms: Some(80),
            seconds: 120,
            received: 3 << 20,
            sent: 1024,
            ..Measurement::default()
        };
        let text = "you  good, 1 min 0 s ago; answered in 80 ms; 2 min 0 s with 3.00 MiB down, 1.00 KiB up";
        assert_eq!(own(&good, NOW), text);
        let bad =
            Measurement { at: NOW, failure: Some(Reason::NoHandshake), ..Measurement::default() };
        assert_eq!(own(&bad, NOW), "you  no-handshake, 0 s ago");
    }

    #[test]
    fn what_a_watcher_says_is_one_line() {
        let exit = Address { kind: 30402, key: [7; 32], identifier: "weir".into() };
        let says = Attestation {
            handshake_ms: Some(84),
            down: Some(412),
            seen: Place { country: "DE".parse().ok(), asn: Some(3320), ip_type: None },
            billed: Some(Share::ONE),
            ..Attestation::new(exit, Reason::WrongExit)
        };
        let event = sign_attestation(&MarketKey::for_tests(1), &says, NOW - 60);
        let signed = SignedAttestation { event, attestation: says };
        assert_eq!(
            attested(&signed, NOW),
            "watcher 79be667ef9dc  wrong-exit, 1 min 0 s ago; handshake 84 ms; 412 Mbit/s down; \
             seen in DE, AS3320; billed 1.000 of what it carried"
        );
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
