//! `weir wallet`.

use std::{env, fmt::Write as _, io::Read as _, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use weir_wallet::{
    Amount, Balance, Mint, Payment, Received, Refund, Sent, SentState, Taken, Trust, Wallet,
    WalletError, default_directory,
};

use super::{out::Out, units};

mod pay;

/// The longest token that is read from standard input, in bytes.
const MAX_INPUT: u64 = 256 * 1024;

/// The arguments of `weir wallet`.
#[derive(Debug, Args)]
pub(super) struct WalletArgs {
    /// Directory of the wallet [default: /var/lib/weir-connect for root, else ~/.local/state/weir-connect]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) wallet: Option<PathBuf>,
    #[command(subcommand)]
    command: WalletCommand,
}

#[derive(Debug, Subcommand)]
enum WalletCommand {
    /// Take a token of another wallet
    #[command(after_help = "Examples:\n  weir wallet receive cashuBo2F0gaJhaUgA...\n  \
        weir wallet receive --trust-mint cashuBo2F0gaJhaUgA...\n  weir wallet receive - < token.txt\n\n\
        The mint exchanges it at once, so that nobody else can spend it. Giving the same token again\n\
        changes nothing. A mint is a custodian: it holds the money. Take ecash only of mints that you trust.")]
    Receive {
        /// The token, from "cashuB" or "cashuA" on; - reads it from standard input
        token: String,
        /// Take it even if the wallet does not know the mint yet
        #[arg(long)]
        trust_mint: bool,
    },
    /// Show what the wallet has; asks nobody
    #[command(
        after_help = "Examples:\n  weir wallet balance\n  weir wallet balance --json | jq .total"
    )]
    Balance,
    /// Make a token for another wallet and print it
    #[command(
        after_help = "Examples:\n  weir wallet send 50\n  weir wallet send 50 --mint https://mint.example\n  \
        weir wallet send 50 --lock 02ab...\n\n\
        Anyone who has the token can spend it, unless it is locked to a key. It stays listed in\n\
        `weir wallet sent` until it is claimed, and can be taken back until then."
    )]
    Send {
        /// How much, in the unit
        amount: u64,
        /// The mint [default: the one of which the wallet has most]
        #[arg(long, value_name = "URL")]
        mint: Option<String>,
        /// The unit
        #[arg(long, default_value = "sat")]
        unit: String,
        /// Lock it to this public key (NUT-11), with the mint's proofs of its signatures
        #[arg(long, value_name = "KEY")]
        lock: Option<String>,
        /// Days after which a locked token can be taken back; 0: never
        #[arg(long, default_value_t = 32, requires = "lock")]
        refund_days: u32,
    },
    /// Pay an exit for more, from inside its tunnel
    #[command(after_help = "Examples:\n  weir wallet pay 10.66.0.1 50\n\n\
        The gateway is the exit's address in the tunnel: the DNS server of the configuration. The same page\n\
        in a browser, http://10.66.0.1/, shows what is left. A payment that was not answered is sent again\n\
        by the next one, and counts: nothing is paid twice.")]
    Pay {
        /// The exit's address in the tunnel
        #[arg(value_parser = pay::gateway)]
        gateway: std::net::SocketAddr,
        /// How much, in the unit that the exit takes
        amount: u64,
    },
    /// List the sent tokens that are not claimed, after asking their mints
    #[command(after_help = "Examples:\n  weir wallet sent\n  weir wallet sent --all\n  \
        weir wallet sent --offline --json | jq -r '.tokens[].token'")]
    Sent {
        /// Ask no mint
        #[arg(long)]
        offline: bool,
        /// List the claimed ones of the last 90 days too
        #[arg(long)]
        all: bool,
    },
    /// Take back a sent token that is not claimed
    #[command(after_help = "Examples:\n  weir wallet reclaim 7\n\n\
        weir wallet sent shows the numbers. A token that is locked to a node can be taken back when its time is over.")]
    Reclaim {
        /// Its number
        number: u64,
    },
    /// Finish exchanges that were interrupted; every other command does so too when it needs the mint
    #[command(after_help = "Example:\n  weir wallet recover")]
    Recover,
    /// List, add or remove the mints whose ecash the wallet takes
    #[command(
        after_help = "Examples:\n  weir wallet mints\n  weir wallet mints add https://mint.example\n  \
        weir wallet mints remove https://mint.example"
    )]
    Mints {
        #[command(subcommand)]
        command: Option<MintsCommand>,
    },
}

#[derive(Debug, Subcommand)]
enum MintsCommand {
    /// Take ecash of a mint from now on
    #[command(after_help = "Example:\n  weir wallet mints add https://mint.example\n\n\
        A mint is a custodian: it holds the money. Add only mints that you trust.")]
    Add {
        /// The mint
        url: String,
    },
    /// Forget a mint of which the wallet has nothing
    #[command(after_help = "Example:\n  weir wallet mints remove https://mint.example")]
    Remove {
        /// The mint
        url: String,
    },
}

#[derive(Serialize)]
struct Balances {
    mints: Vec<Balance>,
    total: u64,
}

#[derive(Serialize)]
struct AllSent {
    tokens: Vec<Sent>,
    not_asked: Vec<String>,
}

#[derive(Serialize)]
struct AllMints {
    mints: Vec<Mint>,
}

#[derive(Serialize)]
struct Recovered {
    unfinished: Vec<String>,
}

#[derive(Serialize)]
struct MintChanged {
    changed: bool,
}

/// The directory of the wallet: the one that is named, or the user's.
pub(super) fn directory(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let is_root = rustix::process::geteuid().is_root();
    named.or_else(|| default_directory(is_root, |name| env::var_os(name))).context(
        "there is no home directory for the wallet. Fix: name a directory with --wallet DIR",
    )
}

pub(super) fn run(
    args: WalletArgs,
    json: bool,
    out: &mut Out,
    err: &mut Out,
) -> anyhow::Result<()> {
    let wallet = Wallet::open(&directory(args.wallet)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    match args.command {
        WalletCommand::Receive { token, trust_mint } => {
            let trust = if trust_mint { Trust::New } else { Trust::Known };
            let token = read_token(token)?;
            received(&runtime.block_on(wallet.receive(&token, trust))?, json, out)
        }
        WalletCommand::Balance => balance(wallet.balances()?, json, out),
        WalletCommand::Send { amount, mint, unit, lock, refund_days } => {
            ensure!(amount > 0, "the amount is 0: a token is worth at least 1 {unit}");
            let days = std::time::Duration::from_hours(u64::from(refund_days) * 24);
            let refund = if refund_days == 0 { Refund::Never } else { Refund::After(days) };
            let lock = lock.as_deref().map(|key| (key, refund));
            let mint = mint.as_deref();
            let amount = Amount::Exactly(amount);
            let payment = Payment { mint, unit: &unit, amount, lock, note: "weir wallet send" };
            sent(&runtime.block_on(wallet.send(&payment))?, json, out, err)
        }
        WalletCommand::Pay { gateway, amount } => {
            runtime.block_on(pay::run(&wallet, gateway, amount, json, out))
        }
        WalletCommand::Sent { offline, all } => {
            let failed = match offline {
                true => Vec::new(),
                false => runtime.block_on(wallet.check_sent())?,
            };
            let mut tokens = wallet.sent()?;
            tokens.retain(|it| all || it.state == SentState::Unclaimed);
            list(tokens, &failed, json, out, err)
        }
        WalletCommand::Reclaim { number } => match runtime.block_on(wallet.reclaim(number)) {
            Err(WalletError::RefundLater(number, after)) => {
                let wait = after.saturating_sub(weir_ledger::unix_now());
                bail!(
                    "the token {number} is locked to its payee, and can be taken back in {}",
                    units::span(wait)
                )
            }
            taken => reclaimed(&taken?, json, out),
        },
        WalletCommand::Recover => recovered(&runtime.block_on(wallet.recover())?, json, out),
        WalletCommand::Mints { command: None } => mints(wallet.mints()?, json, out),
        WalletCommand::Mints { command: Some(MintsCommand::Add { url }) } => {
            let changed = wallet.add_mint(&url)?;
            if url.starts_with("http://") {
                err.text(
                    "The URL is not https: anyone between you and the mint can take the ecash.\n",
                )?;
            }
            mint_changed(changed, "the wallet knew it before\n", json, out)
        }
        WalletCommand::Mints { command: Some(MintsCommand::Remove { url }) } => {
            mint_changed(wallet.remove_mint(&url)?, "the wallet did not know it\n", json, out)
        }
    }
}

fn read_token(token: String) -> anyhow::Result<String> {
    if token != "-" {
        return Ok(token);
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text);
    read.context("cannot read the token from standard input")?;
    Ok(text)
}

fn received(received: &Received, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if json {
        return out.json(received);
    }
    let Received { mint, unit, amount, fee, before } = received;
    let before = if *before { ", which the wallet has received before" } else { "" };
    out.text(&format!(
        "received {amount} {unit} of {mint}{before}; the mint's fee was {fee} {unit}\n"
    ))?;
    Ok(())
}

fn balance(mints: Vec<Balance>, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if json {
        let total = mints.iter().map(|it| it.balance).sum();
        return out.json(&Balances { mints, total });
    }
    if mints.is_empty() {
        out.text(
            "The wallet is empty. Fill it from any Cashu wallet with: weir wallet receive TOKEN\n",
        )?;
        return Ok(());
    }
    let mut text = String::new();
    for Balance { mint, unit, balance, unfinished, unclaimed } in &mints {
        writeln!(text, "{balance:>8} {unit}  {mint}")?;
        if *unfinished > 0 {
            writeln!(
                text,
                "{unfinished:>8} {unit}  in an exchange that was interrupted: weir wallet recover"
            )?;
        }
        if *unclaimed > 0 {
            writeln!(text, "{unclaimed:>8} {unit}  sent and not claimed: weir wallet sent")?;
        }
    }
    out.text(&text)?;
    Ok(())
}

fn sent(sent: &Sent, json: bool, out: &mut Out, err: &mut Out) -> anyhow::Result<()> {
    if json {
        return out.json(sent);
    }
    out.text(&format!("{}\n", sent.token.as_deref().unwrap_or_default()))?;
    err.text(&format!(
        "{} {}. If nobody claims it, take it back with: weir wallet reclaim {}\n",
        sent.amount, sent.unit, sent.number
    ))?;
    Ok(())
}

fn list(
    tokens: Vec<Sent>,
    failed: &[WalletError],
    json: bool,
    out: &mut Out,
    err: &mut Out,
) -> anyhow::Result<()> {
    if json {
        let not_asked = failed.iter().map(ToString::to_string).collect();
        return out.json(&AllSent { tokens, not_asked });
    }
    for error in failed {
        err.text(&format!("{error}\n"))?;
    }
    if tokens.is_empty() {
        out.text("no sent token is unclaimed\n")?;
        return Ok(());
    }
    let mut text = String::from("  NO.    AMOUNT  STATE       FOR\n");
    for sent in &tokens {
        let state = match sent.state {
            SentState::Unclaimed => "unclaimed",
            SentState::Claimed => "claimed",
            SentState::Reclaimed => "taken back",
        };
        let amount = format!("{} {}", sent.amount, sent.unit);
        let locked = match (&sent.lock, sent.refund_after, sent.state) {
            (Some(_), Some(after), SentState::Unclaimed) => {
                let wait = after.saturating_sub(weir_ledger::unix_now());
                format!(", locked to its payee for {}", units::span(wait))
            }
            (Some(_), None, SentState::Unclaimed) => ", locked to its payee".to_owned(),
            _ => String::new(),
        };
        writeln!(text, "{:5}  {amount:>8}  {state:10}  {}{locked}", sent.number, sent.note)?;
        if let Some(token) = &sent.token {
            writeln!(text, "       {token}")?;
        }
    }
    out.text(&text)?;
    Ok(())
}

fn reclaimed(taken: &Taken, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if json {
        return out.json(taken);
    }
    let Taken { unit, amount, fee, .. } = taken;
    out.text(&format!("took back {amount} {unit}; the mint's fee was {fee} {unit}\n"))?;
    Ok(())
}

fn recovered(failed: &[WalletError], json: bool, out: &mut Out) -> anyhow::Result<()> {
    let unfinished: Vec<_> = failed.iter().map(ToString::to_string).collect();
    if json {
        return out.json(&Recovered { unfinished });
    }
    match unfinished.is_empty() {
        true => out.text("no exchange is unfinished\n")?,
        false => out.text(&format!("{}\n", unfinished.join("\n")))?,
    }
    Ok(())
}

fn mints(mints: Vec<Mint>, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if json {
        return out.json(&AllMints { mints });
    }
    if mints.is_empty() {
        out.text(
            "The wallet knows no mint. Add one that you trust with: weir wallet mints add URL\n",
        )?;
        return Ok(());
    }
    let mut text = String::new();
    for mint in &mints {
        let all = mint.balances.iter().map(|it| format!("{} {}", it.balance, it.unit));
        let all: Vec<_> = all.collect();
        let all = if all.is_empty() { "0".to_owned() } else { all.join(", ") };
        writeln!(text, "{}  {all}", mint.url)?;
    }
    out.text(&text)?;
    Ok(())
}

fn mint_changed(changed: bool, no: &str, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if json {
        return out.json(&MintChanged { changed });
    }
    out.text(if changed { "done\n" } else { no })?;
    Ok(())
}
