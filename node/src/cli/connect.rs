//! `weir connect` and `weir disconnect`.

use std::{
    convert::Infallible,
    env, fs,
    fs::File,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    str::FromStr,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use weir_connect::{
    disconnect::{self, Found},
    firewall::{self, Lan},
    pay::Payer,
    receipt::{Verified, store::Store},
    run::{self, Ended, Options},
    source,
    spare::Buyer,
    state::{Directory, Money, State, Status},
    tunnel::Kind,
};
use weir_ledger::unix_now;
use weir_market::listing::Country;

use super::{history, out::Out, units};

mod market;
mod means;
mod watch;

pub(super) use market::FromMarket;
pub(super) use means::Means;

const CONNECT_EXAMPLES: &str = "\
Examples:
  sudo weir connect --country DE --budget 500              buy with the wallet, and connect
  sudo weir connect --country DE --via FR                  two nodes, one through the other
  sudo weir connect --conf exit.conf
  sudo weir connect --conf first.conf --conf second.conf   the second if the first fails
  sudo weir connect --conf exit.conf --via entry.conf      two nodes of files
  sudo weir connect --conf exit.conf --lan                 reach printers and other devices too
  sudo weir connect --conf exit.conf --voucher 3f9k2-...   pay when little is left
  sudo weir connect --conf exit.conf --promise-key id.key --budget 50000000000000000   pay as you go
  weir connect --status
  sudo weir connect --status --watch                       live, until you press q

The file is one that a node or a seller gives you: the same that WireGuard apps take.
Before anything else, an nftables table closes this machine: only the tunnel leaves, and nothing
does while there is none. The table stays when weir is killed. Ctrl-C disconnects; so does
weir disconnect. After SIGTERM the tunnel is gone, and this machine stays closed.
Over SSH, a connection without --lan ends your login.";

pub(super) const DISCONNECT_EXAMPLES: &str = "Example:\n  sudo weir disconnect\n\n\
    It undoes everything that weir connect changed, even if that was killed: the tunnel, routes\n\
    and rules, the resolver, and last the nftables table that closes this machine.";

/// Between two looks at a connection in the background.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = CONNECT_EXAMPLES)]
pub(super) struct ConnectArgs {
    /// A configuration for wg-quick; give several to have others to change to
    #[arg(long, value_name = "FILE", required_unless_present_any = ["status", "country", "node"])]
    conf: Vec<PathBuf>,
    #[command(flatten)]
    market: FromMarket,
    /// Reach the exits through a node of this file or, with --country, of this country: it sees who
    /// connects, and the exit sees to whom; give several files to have others to change to
    #[arg(long, value_name = "FILE|COUNTRY")]
    via: Vec<Entry>,
    /// Let devices with private addresses be reached beside the tunnel; never for DNS
    #[arg(long)]
    lan: bool,
    /// Close this machine after a reboot too, before it has a network (systemd)
    #[arg(long)]
    lockdown: bool,
    #[command(flatten)]
    means: Means,
    /// The most to spend in all, in the unit of the ecash; with vouchers, how many of them; with
    /// promises, in wei [default: the first purchase, and every voucher]
    #[arg(long, value_name = "AMOUNT", conflicts_with = "status")]
    budget: Option<u64>,
    /// Return once connected, and stay connected in the background
    #[arg(long)]
    background: bool,
    /// Which WireGuard to use
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    wireguard: WireguardChoice,
    /// Show the connection
    #[arg(long)]
    status: bool,
    /// Keep showing it: a screen on a terminal, else a line a second (with --json: an object)
    #[arg(long, requires = "status")]
    watch: bool,
}

/// The node through which the exits are reached.
#[derive(Clone, Debug)]
enum Entry {
    /// One of the market, in this country.
    Country(Country),
    /// One whose configuration is in this file.
    File(PathBuf),
}

impl FromStr for Entry {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let path = PathBuf::from(text);
        Ok(match text.parse() {
            Ok(country) if !path.exists() => Self::Country(country),
            _ => Self::File(path),
        })
    }
}

/// Which WireGuard to use.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum WireguardChoice {
    /// The kernel's where it exists, else weir's own
    Auto,
    /// The kernel's
    Kernel,
    /// weir's own
    Own,
}

impl WireguardChoice {
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Auto => Kind::Any,
            Self::Kernel => Kind::Kernel,
            Self::Own => Kind::Userspace,
        }
    }
}

pub(super) fn run(
    args: ConnectArgs,
    json: bool,
    out: &mut Out,
    err: &mut Out,
) -> anyhow::Result<()> {
    if args.status && args.watch {
        return watch::run(|| (look(), unix_now()), json, out);
    }
    if args.status {
        return show(json, out);
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "weir connect changes routes and nftables. Fix: run it as root: sudo weir connect ..."
    );
    if args.background {
        return in_background(out);
    }
    let mut conf = args.conf;
    let mut entries = Vec::new();
    let mut entry_country = None;
    for via in args.via {
        match via {
            Entry::File(path) => entries.push(path),
            Entry::Country(country) => {
                ensure!(
                    args.market.is_wanted(),
                    "--via {country} buys an entry of the market. Fix: give --country too, or a file"
                );
                if let Some(other) = entry_country.replace(country) {
                    bail!("--via names two countries, and {other} is one of them. Fix: name one");
                }
            }
        }
    }
    let remember = history::remember(args.market.wallet.clone());
    let mut buyer: Option<Box<dyn Buyer>> = None;
    let mut entry_buyer: Option<Box<dyn Buyer>> = None;
    let mut spent = 0;
    let (payer, budget): (Option<Box<dyn Payer>>, u64) = if args.market.is_wanted() {
        ensure!(
            Directory::here().holder().is_none(),
            "this machine is connected already, and nothing was bought. Fix: weir disconnect"
        );
        let bought = args.market.buy(entry_country, args.budget, err)?;
        conf.push(bought.path);
        buyer = Some(Box::new(bought.others));
        if let Some((path, others)) = bought.entry {
            entries.push(path);
            entry_buyer = Some(Box::new(others));
        }
        spent = bought.spent;
        let left = args.budget.map_or(0, |budget| budget.saturating_sub(bought.spent));
        (Some(Box::new(bought.ecash)), left)
    } else if let Some((payer, budget)) = args.means.payer(args.budget)? {
        (Some(payer), budget)
    } else {
        (None, 0)
    };
    let options = Options {
        candidates: source::from_files(&conf)?,
        entries: source::from_files(&entries)?,
        lan: if args.lan { Lan::Open } else { Lan::Closed },
        kind: args.wireguard.kind(),
        lockdown: args.lockdown,
        payer,
        buyer,
        entry_buyer,
        budget,
        spent,
        remember,
    };
    for candidate in &options.candidates {
        let ignored = &candidate.conf.ignored;
        if !ignored.is_empty() {
            let name = &candidate.name;
            out.text(&format!("{name}: weir ignores {}.\n", ignored.join(", ")))?;
        }
    }
    // Without a reader it goes on.
    let mut say = |text: &str| drop(out.text(&format!("{text}\n")).and_then(|()| out.flush()));
    let ended = run::run(options, &mut say)?;
    out.text(match ended {
        Ended::Open => "Disconnected. This machine is open again.\n",
        Ended::Closed => {
            "The tunnel is gone. This machine stays closed; to open it: weir disconnect\n"
        }
    })?;
    Ok(())
}

/// Starts the same command without `--background`, and waits until it is connected.
fn in_background(out: &mut Out) -> anyhow::Result<()> {
    let directory = Directory::here();
    if directory.holder().is_none() {
        // A status of a connection before must not be taken for the new one's.
        directory.clear();
    }
    let log_path = directory.file("log");
    if let Some(parent) = log_path.parent() {
        fs::create_dir_all(parent)?;
    }
    let log = File::create(&log_path).context("cannot write a log")?;
    let words = env::args_os().skip(1).filter(|word| word != "--background");
    let mut child = Command::new(env::current_exe()?)
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A terminal's Ctrl-C is not for it.
        .process_group(0)
        .spawn()
        .context("cannot start weir again")?;
    let connected = wait(&mut child, &directory);
    let said = fs::read_to_string(&log_path).unwrap_or_default();
    out.text(&said)?;
    connected
}

fn wait(child: &mut Child, directory: &Directory) -> anyhow::Result<()> {
    loop {
        if child.try_wait()?.is_some() {
            bail!("it ended without a connection, as shown above");
        }
        if directory.read().is_some_and(|status| status.state == State::Connected) {
            return Ok(());
        }
        sleep(LOOK_INTERVAL);
    }
}

pub(super) fn disconnect(json: bool, out: &mut Out) -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "weir disconnect changes routes and nftables. Fix: run it as root: sudo weir disconnect"
    );
    let found = disconnect::disconnect()?;
    if json {
        return out.json(&serde_json::json!({ "was_connected": found != Found::Nothing }));
    }
    out.text(match found {
        Found::Nothing => "There was no connection. This machine is open.\n",
        Found::Closed => "There was no tunnel any more. This machine is open again.\n",
        Found::Running => "Disconnected. This machine is open again.\n",
    })?;
    Ok(())
}

/// What the connection of this network namespace does.
fn look() -> Status {
    let directory = Directory::here();
    let status = match directory.holder() {
        Some(_) => directory.read().unwrap_or_default(),
        None => Status::default(),
    };
    // Only root may look at the table.
    let dropped = firewall::dropped();
    let state = match status.state {
        State::Off if dropped.is_some() => State::Closed,
        state => state,
    };
    // Without a connection it is the last one's. Only root may read it.
    let receipt = status.receipt.or_else(|| match state {
        State::Off | State::Closed => Store::default().newest(),
        State::Connecting | State::Connected => None,
    });
    Status { state, dropped, receipt, ..status }
}

fn show(json: bool, out: &mut Out) -> anyhow::Result<()> {
    let status = look();
    if json {
        return out.json(&status);
    }
    out.text(&render(&status, unix_now()))?;
    Ok(())
}

fn render(status: &Status, now: u64) -> String {
    let unknown = || "?".to_owned();
    let mut text = match status.state {
        State::Off => {
            "off        nothing is closed. Connect: sudo weir connect --conf FILE\n".into()
        }
        State::Closed => {
            "closed     no tunnel, and nothing leaves. Connect, or open this machine: \
                          sudo weir disconnect\n"
                .to_owned()
        }
        State::Connecting => "connecting nothing leaves until a node answers\n".to_owned(),
        State::Connected => {
            let since = status.since.map_or_else(unknown, |since| units::ago(since, now));
            let node = status.node.clone().unwrap_or_else(unknown);
            let endpoint = status.endpoint.clone().unwrap_or_else(unknown);
            let interface = status.interface.clone().unwrap_or_else(unknown);
            let engine = status.engine.clone().unwrap_or_else(unknown);
            let (down, up) = (units::bytes(status.received), units::bytes(status.sent));
            let country = status.country.as_ref().map(|it| format!(" in {it}")).unwrap_or_default();
            format!(
                "connected  {node}{country} at {endpoint}, {since}\n\
                 tunnel     {interface}, {engine}\n\
                 carried    {down} down, {up} up\n"
            )
        }
    };
    if let Some(entry) = &status.entry {
        text.push_str(&format!("through    {} at {}\n", entry.node, entry.endpoint));
    }
    if let Some(billed) = status.billed_bytes {
        let left = status.left_bytes.map_or_else(|| "no limit".to_owned(), units::bytes);
        text.push_str(&format!("left       {left}; billed {}\n", units::bytes(billed)));
    }
    if let Some(verified) = &status.receipt {
        text.push_str(&format!("receipt    {}\n", receipt(verified, now)));
    }
    if let Some(Money { unit, spent, budget }) = &status.money {
        text.push_str(&format!("spent      {spent} of {budget} {unit}\n"));
    }
    if let Some(dropped) = status.dropped {
        text.push_str(&format!("beside it  {dropped} packets were dropped\n"));
    }
    if let Some(change) = &status.last_change {
        text.push_str(&format!("before     {change}\n"));
    }
    text
}

/// A usage receipt in words.
fn receipt(verified: &Verified, now: u64) -> String {
    let Verified { node, pinned, receipt, at } = verified;
    let (sum, time) = (units::bytes(receipt.billed()), units::span(receipt.seconds));
    let (number, checked) = (receipt.sequence, units::ago(*at, now));
    let origin = pinned.origin.as_str();
    format!("number {number} of {node}: {sum} in {time}, verified {checked}; {origin}")
}

#[cfg(test)]
mod tests {
    use weir_connect::state;

    use super::*;

    #[test]
    fn a_connection_is_shown_on_one_screen() {
        let verified = watch::tests::receipt();
        let status = Status {
            state: State::Connected,
            node: Some("exit.conf".into()),
            endpoint: Some("45.80.2.2:51820".into()),
            interface: Some("weir-a".into()),
            engine: Some("weir's own WireGuard".into()),
            since: Some(1000),
            received: 3 << 20,
            sent: 1 << 20,
            billed_bytes: Some(4 << 20),
            left_bytes: Some(1 << 30),
            dropped: Some(7),
            country: Some("DE".into()),
            money: Some(Money { unit: "sat".into(), spent: 140, budget: 500 }),
            entry: Some(state::Entry {
                node: "entry.conf".into(),
                endpoint: "45.80.4.2:51820".into(),
            }),
            receipt: Some(verified),
            ..Status::default()
        };
        let text = render(&status, 1060);
        assert!(text.starts_with("connected  exit.conf in DE at 45.80.2.2:51820, "), "{text}");
        let receipt = "receipt    number 7 of exit.conf: 1.50 GiB in 10 min 0 s, verified 10 s ago; the \
                       configuration names its key\n";
        assert!(text.contains(receipt), "{text}");
        assert!(text.contains("spent      140 of 500 sat\n"), "{text}");
        assert!(text.contains("through    entry.conf at 45.80.4.2:51820\n"), "{text}");
        assert!(text.contains("3.00 MiB down, 1.00 MiB up"), "{text}");
        assert!(text.contains("left       1.00 GiB; billed 4.00 MiB"), "{text}");
        assert!(text.contains("7 packets were dropped"), "{text}");
        assert!(render(&Status::default(), 0).starts_with("off "));
    }
}
