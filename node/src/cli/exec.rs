//! `weir exec`.

use std::{ffi::OsString, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};
use clap::Args;
use weir_connect::{exec, source};

use super::connect::WireguardChoice;

const EXAMPLES: &str = "\
Examples:
  sudo weir exec --conf exit.conf -- curl https://example.net/
  sudo weir exec --conf exit.conf --user \"$USER\" -- firefox

The program runs in a network namespace of its own, whose only way out is the tunnel. If the tunnel
dies, it reaches nothing. The rest of this machine goes on as before, and no route, rule or resolver
of it is changed. The program's resolver is the tunnel's, and it cannot ask this machine's resolver.
A program that runs as root can leave its namespace: name a --user for one that you do not trust.
Exit status: the program's.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExecArgs {
    /// A configuration for wg-quick
    #[arg(long, value_name = "FILE")]
    conf: PathBuf,
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

pub(super) fn run(args: &ExecArgs) -> anyhow::Result<ExitCode> {
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
    let candidate = source::from_files(std::slice::from_ref(&args.conf))?.pop();
    let candidate = candidate.context("no configuration")?;
    let exec =
        exec::Exec { candidate, kind: args.wireguard.kind(), command: args.command.clone(), user };
    Ok(ExitCode::from(exec::run(&exec)?))
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
