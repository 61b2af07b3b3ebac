//! `weir watch`.

use std::{net::SocketAddr, path::PathBuf, thread::sleep, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use rand_core::{OsRng, RngCore as _};
use serde::Serialize;
use weir_config::{HttpUrl, WebSocketUrl};
use weir_ledger::unix_now;
use weir_market::{
    attestation::WatcherKey,
    client::Connector,
    event::{Event, SignedListing, sign_attestation},
    history::{HistoryFile, Measurements},
    key::MarketKey,
    listing::{Country, State},
    place::Places,
    view::{Settings, View},
};
use weir_tls::Tls;
use weir_wallet::Wallet;
use weir_watch::{
    NameCheck, Outcome, Published, Targets, Watched, Watcher, budget::Budget, schedule, server,
};

use super::{
    connect::WireguardChoice,
    consumer::{self, Consumer},
    out::Out,
    units, wallet,
};

/// The digits of a key on the screen.
const SHORT_KEY: usize = 12;
/// The pause after something of this machine failed.
const RETRY_DELAY: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  weir watch --serve '[::]:7448'                                    on a server: what to measure against
  sudo weir watch --server http://192.0.2.9:7448                    watch all exits of the registries
  sudo weir watch --server http://192.0.2.9:7448 --country DE --budget 200 --place-file places.csv
  sudo weir watch --once --node 3f9a41c0 --server http://192.0.2.9:7448 --json
  sudo weir watch --once --node 3f9a41c0 --server http://192.0.2.9:7448 --no-publish

A watcher buys at exits like a consumer, at random times, and connects in a network namespace of its
own: the rest of this machine goes on as before. It measures the handshake, the round trip, the rate of
both directions, the exit's resolvers, its bill and the address by which it leaves. Then it signs what
it found, with one reason word, and publishes it at the registries. Consumers name the watchers that they
believe, by their keys. Registries are those of --registry, else those of ~/.config/weir/market.toml.
See docs/watch.md.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WatchArgs {
    /// Measure one exit now, and end
    #[arg(long)]
    once: bool,
    /// Only the exit with this key in the market, or with the first digits of it
    #[arg(long, value_name = "KEY")]
    node: Option<String>,
    /// Only exits of this country, by its two letters, such as DE
    #[arg(long, value_name = "COUNTRY")]
    country: Option<Country>,
    /// The server to measure against, where weir watch --serve runs
    #[arg(long, value_name = "URL")]
    server: Option<HttpUrl>,
    /// A URL that answers with the client's address [default: the server's]
    #[arg(long, value_name = "URL")]
    address_url: Option<HttpUrl>,
    /// A large file to fetch [default: the server's]
    #[arg(long, value_name = "URL")]
    down_url: Option<HttpUrl>,
    /// A name to ask the exit's resolvers for, as NAME or NAME=ADDRESS [default: the server's name]
    #[arg(long, value_name = "NAME")]
    name: Option<NameCheck>,
    /// A database of addresses, as in market.place_files, to look the exit's address up; may be repeated
    #[arg(long = "place-file", value_name = "FILE")]
    place_files: Vec<PathBuf>,
    /// A registry or relay to ask and to publish at; may be repeated
    #[arg(long = "registry", value_name = "URL", value_parser = consumer::registry)]
    registries: Vec<WebSocketUrl>,
    /// Sign and show, but publish nothing
    #[arg(long)]
    no_publish: bool,
    /// The most to spend a day, in the unit of the ecash
    #[arg(long, value_name = "AMOUNT", default_value_t = 100)]
    budget: u64,
    /// MiB to buy at an exit, of which more than a half is used
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    mib: u64,
    /// Hours in which each exit is measured once, on average
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=720))]
    interval: u64,
    /// Pay with ecash of this mint [default: the one of which the wallet has most]
    #[arg(long, value_name = "URL")]
    mint: Option<String>,
    /// The unit of the ecash
    #[arg(long, default_value = "sat")]
    unit: String,
    /// Directory of the wallet, and of what the watcher remembers [default: as for weir wallet]
    #[arg(long, value_name = "DIR")]
    wallet: Option<PathBuf>,
    /// The watcher's key; made if it is not there [default: watcher.key in the wallet's directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A PEM file with CA certificates for wss:// and https:// [default: this machine's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Which WireGuard to use
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    wireguard: WireguardChoice,
    /// Watch nothing, and be what others measure against; needs no root
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["once", "node", "server"])]
    serve: Option<SocketAddr>,
}

/// What `--json` prints for one measurement.
#[derive(Serialize)]
struct Answer<'a> {
    watcher: WatcherKey,
    exit: String,
    #[serde(flatten)]
    watched: &'a Watched,
    unit: &'a str,
    event: &'a Event,
    registries: &'a [Published],
}

pub(super) fn run(args: WatchArgs, json: bool, out: &mut Out, err: &mut Out) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    if let Some(listen) = args.serve {
        let ready = |at| drop(err.text(&format!("watchers can measure against http://{at}\n")));
        return runtime.block_on(server::serve(listen, ready));
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "weir watch makes a network namespace. Fix: run it as root: sudo weir watch ..."
    );
    let directory = wallet::directory(args.wallet.clone())?;
    let purse = Wallet::open(&directory)?;
    let market = Market::new(&args, &directory)?;
    let history = HistoryFile::new(&directory.join("watch.json"));
    let watcher = Watcher {
        wallet: &purse,
        directory: &directory,
        targets: targets(&args)?,
        places: Places::load(&args.place_files)?,
        kind: args.wireguard.kind(),
        unit: args.unit.clone(),
        mint: args.mint.clone(),
        bytes: args.mib << 20,
        budget: Budget::new(&directory.join("watch-budget.json"), args.budget),
        history: history.clone(),
    };
    let mut watching = Watching { args: &args, market, watcher, json, out, err };
    if args.once {
        return runtime.block_on(watching.once());
    }
    let name = watching.market.watcher();
    watching.err.text(&format!("watcher {name}\n"))?;
    loop {
        let pause = match runtime.block_on(watching.next(&history)) {
            Ok(pause) => pause,
            Err(error) if super::out::is_broken_pipe(&error) => return Err(error),
            Err(error) => {
                watching.err.text(&format!("{error:#}\n"))?;
                RETRY_DELAY
            }
        };
        sleep(pause);
    }
}

fn targets(args: &WatchArgs) -> anyhow::Result<Targets> {
    let all = [&args.server, &args.address_url, &args.down_url];
    let is_secure = all.into_iter().flatten().any(HttpUrl::is_secure);
    let tls = if is_secure { Some(Tls::new(args.ca_file.as_deref())?) } else { None };
    Ok(Targets {
        server: args.server.clone(),
        address_url: args.address_url.clone(),
        down_url: args.down_url.clone(),
        name: args.name.clone(),
        tls,
    })
}

/// The registries, and the key that signs.
struct Market {
    connector: Connector,
    settings: Settings,
    key: MarketKey,
}

impl Market {
    fn new(args: &WatchArgs, directory: &std::path::Path) -> anyhow::Result<Self> {
        // A watcher says what it has seen, whatever others say.
        let consumer = Consumer::read(&args.registries, &[], args.ca_file.as_deref())?;
        let connector = consumer.connector("weir watch")?;
        let cache = Some(directory.join("watch-market"));
        let settings = Settings { watchers: Vec::new(), ..consumer.settings(cache) };
        let path = args.key.clone().unwrap_or_else(|| directory.join("watcher.key"));
        let key = MarketKey::load_or_create(&path)?;
        Ok(Self { connector, settings, key })
    }

    fn watcher(&self) -> WatcherKey {
        self.key.public().into()
    }

    /// The exits that are for sale, and that are asked for.
    async fn exits(&self, args: &WatchArgs) -> anyhow::Result<Vec<SignedListing>> {
        let now = unix_now();
        let view = View::fetch(&self.connector, &self.settings, now).await?;
        if let Some(error) = view.reports.iter().find_map(|report| report.error.as_ref())
            && view.reports.iter().all(|report| report.error.is_some())
        {
            bail!("no registry has answered: {error}");
        }
        let node = args.node.as_ref().map(|key| key.to_ascii_lowercase());
        let fits = |signed: &&SignedListing| {
            let listing = &signed.listing;
            (listing.state == State::Active || node.is_some())
                && args.country.is_none_or(|country| listing.country == Some(country))
                && node.as_ref().is_none_or(|key| signed.event.pubkey.to_hex().starts_with(key))
                && signed.expires() > now
        };
        Ok(view.offers().map(|offer| &offer.signed).filter(fits).cloned().collect())
    }
}

struct Watching<'a> {
    args: &'a WatchArgs,
    market: Market,
    watcher: Watcher<'a>,
    json: bool,
    out: &'a mut Out,
    err: &'a mut Out,
}

impl Watching<'_> {
    /// Measures one exit: the one that is named, or any.
    async fn once(&mut self) -> anyhow::Result<()> {
        let exits = self.market.exits(self.args).await?;
        let exit = match (&self.args.node, exits.as_slice()) {
            (_, []) => bail!("no exit of the market fits. Fix: see weir exits"),
            (_, [one]) => one,
            (Some(key), all) => {
                bail!("{} exits have keys that begin with {key}: write more", all.len())
            }
            (None, all) => {
                let number = OsRng.next_u64() % all.len() as u64;
                all.get(number as usize).context("no exit")?
            }
        };
        match self.watcher.watch(exit, unix_now()).await? {
            Outcome::Watched(watched) => self.publish(exit, &watched).await,
            Outcome::Skipped(why) => {
                bail!("the exit was not measured, and nothing is said of it: {why}")
            }
        }
    }

    /// Measures the next exit, if one is due. Returns the pause after it.
    async fn next(&mut self, history: &HistoryFile) -> anyhow::Result<Duration> {
        let interval = self.args.interval * 3600;
        let exits = self.market.exits(self.args).await?;
        let known = history.load()?;
        let last: Vec<u64> = exits.iter().map(|exit| last(&known, exit)).collect();
        let picked = schedule::pick(&last, interval, unix_now(), OsRng.next_u64());
        if let Some(exit) = picked.and_then(|number| exits.get(number)) {
            match self.watcher.watch(exit, unix_now()).await? {
                Outcome::Watched(watched) => self.publish(exit, &watched).await?,
                Outcome::Skipped(why) => {
                    let key = exit.event.pubkey.to_hex();
                    let key = key.get(..SHORT_KEY).unwrap_or_default();
                    self.err.text(&format!("exit {key} was not measured: {why}\n"))?;
                }
            }
        }
        let pause = schedule::pause(exits.len(), interval, OsRng.next_u64());
        Ok(Duration::from_secs(pause))
    }

    async fn publish(&mut self, exit: &SignedListing, watched: &Watched) -> anyhow::Result<()> {
        let event = sign_attestation(&self.market.key, &watched.attestation, watched.at);
        let Market { connector, settings, .. } = &self.market;
        let registries = match self.args.no_publish {
            true => Vec::new(),
            false => Published::at_all(connector, &settings.registries, &event).await,
        };
        let exit = exit.event.pubkey.to_hex();
        if self.json {
            let answer = Answer {
                watcher: self.market.watcher(),
                exit,
                watched,
                unit: &self.args.unit,
                event: &event,
                registries: &registries,
            };
            // One line for each, so that a program can read them as they come.
            self.out.text(&format!("{}\n", serde_json::to_string(&answer)?))?;
        } else {
            self.out.text(&screen(&exit, watched, &self.args.unit))?;
            for Published { registry, is_stored, answer } in &registries {
                let state = if *is_stored { "stored" } else { "not stored" };
                let answer = if answer.is_empty() { String::new() } else { format!(": {answer}") };
                self.out.text(&format!("  {registry}: {state}{answer}\n"))?;
            }
        }
        self.out.flush()?;
        let is_lost = !registries.is_empty() && registries.iter().all(|it| !it.is_stored);
        ensure!(!is_lost, "no registry has stored the attestation");
        Ok(())
    }
}

/// When an exit was measured last; 0 is never.
fn last(known: &Measurements, exit: &SignedListing) -> u64 {
    known.of(&exit.event.pubkey.to_hex()).last().map_or(0, |measurement| measurement.at)
}

/// A measurement for people.
fn screen(exit: &str, watched: &Watched, unit: &str) -> String {
    let says = &watched.attestation;
    let mut words = Vec::new();
    words.extend(says.handshake_ms.map(|it| format!("handshake {it} ms")));
    words.extend(says.rtt_ms.map(|it| format!("rtt {it} ms")));
    let rate = |bytes: u64| units::rate(bytes as f64);
    words.extend(watched.down_bytes_per_second.map(|it| format!("{} down", rate(it))));
    words.extend(watched.up_bytes_per_second.map(|it| format!("{} up", rate(it))));
    words.extend(watched.address.map(|address| {
        let country = says.seen.country.map_or_else(String::new, |it| format!(" in {it}"));
        format!("leaves by {address}{country}")
    }));
    words.extend(says.billed.map(|share| format!("billed {share} of the own count")));
    words.push(format!("paid {} {unit}", watched.spent));
    words.extend(watched.detail.clone());
    let exit = exit.get(..SHORT_KEY).unwrap_or_default();
    format!("exit {exit}  {}: {}\n", says.reason, words.join("; "))
}

#[cfg(test)]
mod tests {
    use weir_market::{
        attestation::{Attestation, Reason, Share},
        event::Address,
        place::Place,
    };
    use weir_watch::judge::Names;

    use super::*;

    #[test]
    fn a_measurement_is_shown_on_a_line() {
        let exit = Address { kind: 30402, key: [7; 32], identifier: "weir".into() };
        let watched = Watched {
            at: 1,
            attestation: Attestation {
                handshake_ms: Some(84),
                rtt_ms: Some(23),
                seen: Place { country: "NL".parse().ok(), ..Place::default() },
                billed: Some(Share::ONE),
                ..Attestation::new(exit, Reason::WrongExit)
            },
            detail: None,
            down_bytes_per_second: Some(51_500_000),
            up_bytes_per_second: None,
            address: Some([192, 0, 2, 1].into()),
            names: Names::Answered,
            spent: 8,
        };
        assert_eq!(
            screen("3f9a41c0deadbeef", &watched, "sat"),
            "exit 3f9a41c0dead  wrong-exit: handshake 84 ms; rtt 23 ms; 412 Mbit/s down; \
             leaves by 192.0.2.1 in NL; billed 1.000 of the own count; paid 8 sat\n"
        );
    }
}
