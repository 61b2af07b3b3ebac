//! `weir buy`.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use rand_core::{OsRng, RngCore as _};
use serde::Serialize;
use weir_buy::{Buyer, Funds, Open, OpenState, Plan, Purchase, Wish};
use weir_config::{IpType, WebSocketUrl};
use weir_connect::source;
use weir_ledger::unix_now;
use weir_market::{
    attestation::WatcherKey,
    event::{MAX_EVENT_BYTES, SignedListing},
    listing::{Country, Price},
};
use weir_wallet::{Wallet, http::Http};

use super::{consumer, history, out::Out, qr, units, wallet};

mod market;

/// The arguments of `weir buy`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("how_much").args(["gib", "amount", "voucher"]))]
#[command(group = clap::ArgGroup::new("where")
    .args(["listing", "node", "country", "resume", "open"]).required(true))]
pub(super) struct BuyArgs {
    /// The exit's listing, as the market has it: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) listing: Option<PathBuf>,
    /// The exit's key in the market, or its first digits
    #[arg(long, value_name = "KEY")]
    pub(super) node: Option<String>,
    /// One of the best exits of this country, by its two letters, such as DE
    #[arg(long, value_name = "COUNTRY")]
    pub(super) country: Option<Country>,
    /// Only exits at a home's line, by what they say of themselves
    #[arg(long)]
    pub(super) residential: bool,
    /// The highest price, such as 200sat/GiB
    #[arg(long, value_name = "PRICE")]
    pub(super) max_price: Option<Price>,
    /// A registry or relay to ask, ws:// or wss:// [default: those of ~/.config/weir/market.toml]
    #[arg(long = "registry", value_name = "URL", value_parser = consumer::registry)]
    pub(super) registries: Vec<WebSocketUrl>,
    /// A watcher to believe, by its key; may be repeated [default: those of ~/.config/weir/market.toml]
    #[arg(long = "watcher", value_name = "KEY")]
    pub(super) watchers: Vec<WatcherKey>,
    /// Go on with purchases that were interrupted or refused
    #[arg(long, conflicts_with = "how_much")]
    pub(super) resume: bool,
    /// List purchases that were interrupted or refused
    #[arg(long, conflicts_with = "how_much")]
    pub(super) open: bool,
    /// GiB to buy, up and down together [default: 1]
    #[arg(long, value_name = "N")]
    pub(super) gib: Option<u64>,
    /// Spend this much instead, in the unit
    #[arg(long, value_name = "AMOUNT")]
    pub(super) amount: Option<u64>,
    /// Pay with a voucher instead
    #[arg(long, value_name = "CODE")]
    pub(super) voucher: Option<String>,
    /// Pay with ecash of this mint [default: the one of which the wallet has most]
    #[arg(long, value_name = "URL")]
    pub(super) mint: Option<String>,
    /// The unit of the ecash
    #[arg(long, default_value = "sat")]
    pub(super) unit: String,
    /// Directory of the wallet [default: /var/lib/weir-connect for root, else ~/.local/state/weir-connect]
    #[arg(long, value_name = "DIR")]
    pub(super) wallet: Option<PathBuf>,
    /// Show the configuration as a QR code for a WireGuard app
    #[arg(long, conflicts_with = "out")]
    pub(super) qr: bool,
    /// Write the configuration to a new file, readable only by its owner
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Bought {
    exit: String,
    config: String,
    expires_at: Option<u64>,
    bytes: Option<u64>,
    spent: u64,
    unit: Option<String>,
}

#[derive(Serialize)]
struct AllOpen {
    purchases: Vec<Open>,
}

pub(super) fn run(args: BuyArgs, json: bool, out: &mut Out, err: &mut Out) -> anyhow::Result<()> {
    let directory = wallet::directory(args.wallet.clone())?;
    let wallet = Wallet::open(&directory)?;
    let buyer = Buyer::new(&wallet, &directory, Http::default());
    if args.open {
        return list(buyer.open()?, json, out);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let mut place = Place::new(&args)?;
    if !args.resume {
        let plan = match &args.listing {
            Some(path) => plan(&args, &read_listing(path)?, &wallet)?,
            None => choose(&args, &wallet, &[], err)?,
        };
        let bought = runtime.block_on(buyer.buy(&plan));
        return show(&bought?, &buyer, &mut place, json, out, err);
    }
    let resumed = runtime.block_on(buyer.resume())?;
    if resumed.is_empty() && !json {
        out.text("no purchase was interrupted\n")?;
    }
    let mut failed = 0;
    for (id, bought) in resumed {
        let shown = bought.map_err(Into::into);
        let shown = shown.and_then(|it| show(&it, &buyer, &mut place, json, out, err));
        if let Err(error) = shown {
            failed += 1;
            err.text(&format!("purchase {id}: {error:#}\n"))?;
        }
    }
    ensure!(failed == 0, "{failed} purchases are still open: see weir buy --open");
    Ok(())
}

/// What was bought for `weir connect`.
pub(super) struct ForConnect {
    /// The configuration, which stays.
    pub(super) path: PathBuf,
    /// The wallet that paid.
    pub(super) wallet: PathBuf,
    /// What was paid.
    pub(super) spent: u64,
    /// The exit's key in the market.
    pub(super) exit: String,
}

/// It was paid.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep {}; weir buy --resume shows it", .0.display())]
pub(super) struct NotKept(PathBuf);

/// Buys at another exit than these, for at most this much, and keeps the configuration beside the wallet.
pub(super) fn for_connect(
    args: &BuyArgs,
    at_most: Option<u64>,
    except: &[String],
    err: &mut Out,
) -> anyhow::Result<ForConnect> {
    let directory = wallet::directory(args.wallet.clone())?;
    let wallet = Wallet::open(&directory)?;
    let buyer = Buyer::new(&wallet, &directory, Http::default());
    let plan = choose(args, &wallet, except, err)?;
    if let Some(at_most) = at_most {
        let cost = plan.cost();
        ensure!(
            cost <= at_most,
            "this costs {cost} {unit}, and the budget is {at_most}. Fix: a larger --budget, or a smaller \
             --amount",
            unit = args.unit
        );
    }
    let kept = directory.join("exits");
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let mut bought = runtime.block_on(buyer.buy(&plan))?;
    bought.config.country = plan.country;
    let path = kept.join(format!("{}.conf", bought.id));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&path).and_then(|mut file| {
        writeln!(file, "{}{}", source::EXIT_COMMENT, bought.exit)?;
        file.write_all(bought.config.to_text().as_bytes()).and_then(|()| file.sync_all())
    });
    written.with_context(|| NotKept(path.clone()))?;
    err.text(&summary(&bought))?;
    err.text(&format!("To connect with it again: weir connect --conf {}\n", path.display()))?;
    buyer.shown(&bought.id).with_context(|| NotKept(path.clone()))?;
    Ok(ForConnect { path, wallet: directory, spent: bought.spent, exit: bought.exit })
}

/// Where the configuration goes.
enum Place {
    Screen,
    Qr,
    /// The file is made before anything is paid, and removed if nothing is written to it.
    File(PathBuf, Option<File>),
}

impl Place {
    fn new(args: &BuyArgs) -> anyhow::Result<Self> {
        Ok(match (&args.out, args.qr) {
            (Some(path), _) => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
                let file = file.with_context(|| format!("cannot make {}", path.display()))?;
                Self::File(path.clone(), Some(file))
            }
            (None, true) => Self::Qr,
            (None, false) => Self::Screen,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::File(path, Some(_)) = self {
            drop(fs::remove_file(path));
        }
    }
}

fn read_listing(path: &Path) -> anyhow::Result<SignedListing> {
    let most = MAX_EVENT_BYTES as u64 * 2;
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().lock().take(most).read_to_string(&mut text),
        _ => File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read the listing {}", path.display()))?;
    SignedListing::from_json(text.trim(), unix_now()).map_err(|refused| {
        anyhow::anyhow!("the listing {} does not count: {refused}", path.display())
    })
}

/// The first exit of those that fit at which this wallet can buy. The others are left out with a word.
fn choose(
    args: &BuyArgs,
    wallet: &Wallet,
    except: &[String],
    err: &mut Out,
) -> anyhow::Result<Plan> {
    let known = history::load(args.wallet.clone(), err)?;
    let listings = market::find(&market::Search {
        country: args.country,
        key: args.node.as_deref(),
        ip_type: args.residential.then_some(IpType::Residential),
        max_price: args.max_price.clone(),
        except,
        known: &known,
        registries: &args.registries,
        watchers: &args.watchers,
        method: if args.voucher.is_some() { "voucher" } else { "cashu" },
        random: OsRng.next_u64(),
    })?;
    ensure!(
        !listings.is_empty(),
        "no exit of the market fits that any WireGuard app can reach and that sells for this payment"
    );
    for listing in &listings {
        match plan(args, listing, wallet) {
            Ok(plan) => return Ok(plan),
            Err(error) => {
                let key = listing.event.pubkey.to_hex();
                let key = key.get(..12).unwrap_or_default();
                err.text(&format!("left out {key}: {error:#}\n"))?;
            }
        }
    }
    bail!("nothing can be bought at the {} exits that fit", listings.len())
}

fn plan(args: &BuyArgs, listing: &SignedListing, wallet: &Wallet) -> anyhow::Result<Plan> {
    if let Some(code) = &args.voucher {
        return Ok(Plan::with_voucher(listing, code)?);
    }
    let wish = match (args.gib, args.amount) {
        (_, Some(amount)) => Wish::Spend(amount),
        (gib, None) => Wish::Bytes(gib.unwrap_or(1).saturating_mul(1 << 30)),
    };
    let funds = wallet.balances()?.into_iter();
    let funds: Vec<_> =
        funds.map(|it| Funds { mint: it.mint, unit: it.unit, balance: it.balance }).collect();
    Ok(Plan::with_ecash(listing, wish, &args.unit, &funds, args.mint.as_deref())?)
}

fn show(
    bought: &Purchase,
    buyer: &Buyer<'_>,
    place: &mut Place,
    json: bool,
    out: &mut Out,
    err: &mut Out,
) -> anyhow::Result<()> {
    let config = bought.config.to_text();
    match place {
        Place::File(path, file) => {
            let Some(mut open) = file.take() else {
                bail!("--out has room for one configuration: run weir buy --resume again")
            };
            let written = open.write_all(config.as_bytes()).and_then(|()| open.sync_all());
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        Place::Qr if !json => match qr::render(&config) {
            Some(code) => out.text(&code)?,
            None => out.text(&config)?,
        },
        Place::Screen if !json => out.text(&config)?,
        _ => {}
    }
    if json {
        let Purchase { exit, expires_at, bytes, spent, unit, .. } = bought.clone();
        let config = config.to_string();
        out.json(&Bought { exit, config, expires_at, bytes, spent, unit })?;
    } else {
        err.text(&summary(bought))?;
    }
    out.flush()?;
    // Only now: what was not shown to the end can be shown again.
    buyer.shown(&bought.id)?;
    Ok(())
}

fn summary(bought: &Purchase) -> String {
    let what = bought.bytes.map_or_else(|| "A tunnel".to_owned(), units::bytes);
    let exit = bought.exit.get(..12).unwrap_or_default();
    let paid = match &bought.unit {
        Some(unit) => format!("for {} {unit}", bought.spent),
        None => "for a voucher".to_owned(),
    };
    let end = bought.expires_at.map_or_else(String::new, |at| {
        format!(", to be used within {}", units::span(at.saturating_sub(unix_now())))
    });
    format!("{what} at the exit {exit}, {paid}{end}.\n")
}

fn list(purchases: Vec<Open>, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if json {
        return out.json(&AllOpen { purchases });
    }
    if purchases.is_empty() {
        out.text("no purchase is open\n")?;
        return Ok(());
    }
    for open in &purchases {
        let state = match open.state {
            OpenState::Paying => "not paid",
            OpenState::Unanswered => "not answered",
            OpenState::Sold => "bought, not shown",
            OpenState::Refused => "refused",
        };
        let exit = open.exit.get(..12).unwrap_or_default();
        let age = units::span(unix_now().saturating_sub(open.at));
        let reason = open.reason.as_ref().map_or_else(String::new, |it| format!(": {it}"));
        out.text(&format!("{}  {age} ago  exit {exit}  {state}{reason}\n", open.id))?;
    }
    out.text("Go on with them: weir buy --resume\n")?;
    Ok(())
}
