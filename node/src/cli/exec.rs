//! `weir exec`.

use std::{ffi::OsString, fs, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};
use clap::Args;
use weir_connect::{
    exec::{self, Exec, Money},
    source,
};

use super::{
    connect::{FromMarket, Means, WireguardChoice},
    out::Out,
};

const EXAMPLES: &str = "\
Examples:
  sudo weir exec --country DE -- curl https://example.net/
  sudo weir exec --country DE --budget 500 --user \"$USER\" -- firefox
  sudo weir exec --conf exit.conf -- curl https://example.net/

The program runs in a network namespace of its own, whose only way out is the tunnel. If the tunnel
dies, it reaches nothing. The rest of this machine goes on as before, and no route, rule or resolver
of it is changed. The program's resolver is the tunnel's, and it cannot ask this machine's resolver.
A program that runs as root can leave its namespace: name a --user for one that you do not trust.
Exit status: the program's.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExecArgs {
    /// A configuration for wg-quick
    #[arg(long, value_name = "FILE", required_unless_present_any = ["country", "node"])]
    conf: Option<PathBuf>,
    #[command(flatten)]
    market: FromMarket,
    #[command(flatten)]
    means: Means,
    /// The most to spend in all, in the unit of the ecash; with vouchers, how many of them; with
    /// promises, in wei [default: the first purchase, and every voucher]
    #[arg(long, value_name = "AMOUNT")]
    budget: Option<u64>,
    /// Run the program as this user [default: root]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Which WireGuard to use
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    wireguard: WireguardChoice,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

pub(super) fn run(args: ExecArgs, err: &mut Out) -> anyhow::Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "weir exec makes a network namespace. Fix: run it as root: sudo weir exec ..."
    );
    let users = || fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd");
    let user = match &args.user {
        None => None,
        Some(name) => Some(find(&users()?, name).with_context(|| {
            format!("there is no user {name:?} in /etc/passwd. Fix: check the name")
        })?),
    };
    let mut conf = args.conf;
    let mut money = None;
    if args.market.is_wanted() {
        let bought = args.market.buy(None, args.budget, err)?;
        let budget = args.budget.map_or(0, |budget| budget.saturating_sub(bought.spent));
        money = Some(Money::new(Box::new(bought.ecash), budget));
        conf = Some(bought.path);
    } else if let Some((payer, budget)) = args.means.payer(args.budget)? {
        money = Some(Money::new(payer, budget));
    }
    let candidate = source::from_files(conf.as_slice())?.pop().context("no configuration")?;
    let exec = Exec { candidate, kind: args.wireguard.kind(), command: args.command, user };
    // The program has the output, and without a reader it goes on.
    let say = |text: &str| drop(writeln!(std::io::stderr(), "weir: {text}"));
    Ok(ExitCode::from(exec::run(&exec, money, &say)?))
}

/// The numbers of a user and its group (passwd(5)).
fn find(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (found, _, user, group) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (found == name || user == name).then_some(())?;
        Some((user.parse().ok()?, group.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_or_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\nbad\n";
        assert_eq!(find(passwd, "ann"), Some((1000, 1001)));
        assert_eq!(find(passwd, "1000"), Some((1000, 1001)));
        assert_eq!(find(passwd, "an"), None);
        assert_eq!(find(passwd, "bad"), None);
    }
}
