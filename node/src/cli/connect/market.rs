//! What `weir connect` buys: a session to begin with, and more of it inside the tunnel.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use weir_buy::{BuyError, TopUp};
use weir_config::WebSocketUrl;
use weir_connect::{
    gateway::Gateway,
    pay::{self, Payer},
    source,
    spare::{Bought, Buyer, NotBought},
};
use weir_market::{
    attestation::WatcherKey,
    listing::{Country, Price},
};
use weir_wallet::{
    Wallet,
    http::{Dial, Dialed, Http},
};

use crate::cli::{
    buy::{self, BuyArgs, ForConnect, NotKept},
    consumer,
    out::Out,
};

/// Where to buy, and with what.
#[derive(Debug, Args)]
pub(in crate::cli) struct FromMarket {
    /// Buy at one of the best exits of this country, by its two letters, such as DE
    #[arg(long, value_name = "COUNTRY", conflicts_with = "conf")]
    pub(in crate::cli) country: Option<Country>,
    /// Buy at this exit: its key in the market, or the first digits of it
    #[arg(long, value_name = "KEY", conflicts_with_all = ["conf", "country"])]
    pub(in crate::cli) node: Option<String>,
    /// Only exits at a home's line, by what they say of themselves
    #[arg(long, requires = "country")]
    residential: bool,
    /// The highest price, such as 200sat/GiB
    #[arg(long, value_name = "PRICE", conflicts_with = "conf")]
    max_price: Option<Price>,
    /// What to spend at first, and each time that a quarter is left [default: the price of 1 GiB]
    #[arg(long, value_name = "AMOUNT", conflicts_with = "conf")]
    amount: Option<u64>,
    /// A registry or relay to ask, ws:// or wss:// [default: those of ~/.config/weir/market.toml]
    #[arg(long = "registry", value_name = "URL", value_parser = consumer::registry, conflicts_with = "conf")]
    registries: Vec<WebSocketUrl>,
    /// A watcher to believe, by its key; may be repeated [default: those of ~/.config/weir/market.toml]
    #[arg(long = "watcher", value_name = "KEY", conflicts_with = "conf")]
    watchers: Vec<WatcherKey>,
    /// Pay with ecash of this mint [default: the one of which the wallet has most]
    #[arg(long, value_name = "URL", conflicts_with = "conf")]
    mint: Option<String>,
    /// The unit of the ecash
    #[arg(long, default_value = "sat", conflicts_with = "conf")]
    unit: String,
    /// Directory of the wallet [default: /var/lib/weir-connect]
    #[arg(long, value_name = "DIR", conflicts_with = "conf")]
    pub(in crate::cli) wallet: Option<PathBuf>,
}

impl FromMarket {
    /// Whether to buy at all.
    pub(in crate::cli) const fn is_wanted(&self) -> bool {
        self.country.is_some() || self.node.is_some()
    }

    /// Buys an exit, and an entry in that country if one is named, for at most this much in all.
    pub(in crate::cli) fn buy(
        self,
        entry: Option<Country>,
        budget: Option<u64>,
        err: &mut Out,
    ) -> anyhow::Result<FirstExit> {
        let args = BuyArgs {
            listing: None,
            node: self.node,
            country: self.country,
            residential: self.residential,
            max_price: self.max_price,
            registries: self.registries,
            watchers: self.watchers,
            resume: false,
            open: false,
            gib: None,
            amount: self.amount,
            voucher: None,
            mint: self.mint,
            unit: self.unit,
            wallet: self.wallet,
            qr: false,
            out: None,
        };
        let ForConnect { path, wallet, spent, exit } = buy::for_connect(&args, budget, &[], err)?;
        let ecash = Ecash { wallet, unit: args.unit.clone(), portion: spent };
        let used = Arc::new(Mutex::new(vec![exit]));
        let others = |args| Others { args, used: used.clone(), portion: spent };
        let mut first = FirstExit { path, entry: None, spent, ecash, others: others(args) };
        if entry.is_some() {
            let args = &first.others.args;
            let args = BuyArgs { country: entry, node: None, residential: false, ..args.clone() };
            let left = budget.map(|budget| budget.saturating_sub(spent));
            let mut others = others(args);
            let bought = others.another(left, err).context("no entry was bought")?;
            first.spent = spent.saturating_add(bought.spent);
            first.entry = Some((bought.path, others));
        }
        Ok(first)
    }
}

/// The exit to begin with.
pub(in crate::cli) struct FirstExit {
    /// Its configuration.
    pub(in crate::cli) path: PathBuf,
    /// The configuration of the entry, if one was asked for, and who buys others.
    pub(in crate::cli) entry: Option<(PathBuf, Others)>,
    /// What was paid for both.
    pub(in crate::cli) spent: u64,
    /// Pays it on.
    pub(in crate::cli) ecash: Ecash,
    /// Buys others.
    pub(in crate::cli) others: Others,
}

/// Buys other nodes that fit as the first did.
pub(in crate::cli) struct Others {
    args: BuyArgs,
    /// The keys of those that were bought, exits and entries.
    used: Arc<Mutex<Vec<String>>>,
    /// What the first one cost.
    portion: u64,
}

impl Others {
    /// Buys one that was not bought before.
    fn another(&mut self, at_most: Option<u64>, err: &mut Out) -> anyhow::Result<ForConnect> {
        // Nobody else buys meanwhile: it might be the same one.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let bought = buy::for_connect(&self.args, at_most, &used, err)?;
        used.push(bought.exit.clone());
        Ok(bought)
    }
}

impl Buyer for Others {
    fn price(&self) -> u64 {
        // A named exit is wanted, and no other.
        if self.args.node.is_some() { 0 } else { self.portion }
    }

    fn buy(&mut self, at_most: u64) -> Result<Bought, NotBought> {
        // It is said by who connects.
        let mut nowhere = Out::nowhere();
        let bought = self.another(Some(at_most), &mut nowhere).map_err(|error| {
            let may_be_paid =
                error.downcast_ref().is_some_and(BuyError::may_be_paid) || error.is::<NotKept>();
            NotBought { error, may_be_paid }
        })?;
        let candidate = source::from_files(&[bought.path]).map(|mut all| all.pop());
        let failed = |error| NotBought { error, may_be_paid: true };
        let candidate = candidate.and_then(|it| it.context("no configuration")).map_err(failed)?;
        Ok(Bought { candidate, spent: bought.spent })
    }
}

/// The node is at the other end of the tunnel: one that takes longer is dead, or does not want to be paid.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(8);

/// Reaches a node's services inside its own tunnel: those of an exit and of its entry have the same
/// address.
#[derive(Debug)]
struct ToGateway(Gateway);

impl Dial for ToGateway {
    fn dial<'a>(&'a self, _: &'a str, _: u16) -> Dialed<'a> {
        Box::pin(self.0.connect())
    }
}

fn to(gateway: &Gateway) -> Http {
    Http::through(Arc::new(ToGateway(gateway.clone()))).with_timeout(GATEWAY_TIMEOUT)
}

/// Pays with the wallet's ecash, inside the tunnel.
pub(in crate::cli) struct Ecash {
    wallet: PathBuf,
    unit: String,
    /// What it pays at a time.
    portion: u64,
}

impl Payer for Ecash {
    fn unit(&self) -> &str {
        &self.unit
    }

    fn prepare<'a>(&'a mut self, gateway: &'a Gateway, at_most: u64) -> pay::Preparation<'a> {
        Box::pin(async move {
            let wallet = Wallet::open(&self.wallet).context("cannot open the wallet")?;
            let top_up = TopUp::new(&wallet, to(gateway), gateway.address())?;
            let wanted = top_up.wanted().await?;
            Ok(top_up.prepare(&wanted, self.portion.min(at_most)).await?)
        })
    }

    fn top_up<'a>(&'a mut self, gateway: &'a Gateway, at_most: u64) -> pay::TopUp<'a> {
        Box::pin(async move {
            let wallet = Wallet::open(&self.wallet).context("cannot open the wallet")?;
            let top_up = TopUp::new(&wallet, to(gateway), gateway.address())?;
            let wanted = top_up.wanted().await?;
            Ok(top_up.pay(&wanted, self.portion.min(at_most)).await?.spent)
        })
    }
}
