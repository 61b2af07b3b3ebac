//! The exit policy: one nftables table of weir's own, whose rules are replaced in one transaction.
//!
//! [`render`] is pure. Cost per packet does not grow with the lists: an established flow meets
//! three comparisons, a new one two lookups in interval sets besides.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, Output, Stdio},
};

use ipnet::{Ipv4Net, Ipv6Net};

use super::uplink::Uplink;
use crate::{
    config::Config,
    policy::{Lists, Networks, Ports},
};

mod elements;
pub mod gate;
mod in_force;
mod kernel;
mod print;
mod render;

pub use elements::ElementEvents;
pub use in_force::{InForce, Look};
pub use render::{Rendered, render};

/// The table's family and name.
const TABLE: &str = "inet weir";
const NAME: &str = "weir";

/// Every counter of the table, and what it counts. The names are the metric's labels.
pub const COUNTERS: &[(&str, &str)] = &[
    ("spoofed", "from the tunnel, with a source that no consumer can have"),
    ("consumer_to_consumer", "from one consumer to another"),
    ("not_uplink", "to a network that is not behind the uplink"),
    ("invalid", "part of no flow that the kernel could translate"),
    ("blocked_destination", "to a network that the operator blocks"),
    ("private_destination", "to a private or link-local network"),
    ("metadata_destination", "to an address where clouds serve secrets to their machines"),
    ("reserved_destination", "to an address that is not of the internet"),
    ("smtp", "mail between servers, TCP port 25"),
    ("blocked_port", "to another port that the operator blocks"),
    ("host_destination", "to this machine"),
    ("inbound", "to a consumer that did not ask for it"),
];

/// What the table is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The TUN device.
    pub interface: String,
    /// The only interface by which consumers' packets may leave.
    pub uplink: String,
    /// The only one for IPv6, where that is another one.
    pub uplink_v6: Option<String>,
    /// The UDP port of the node.
    pub listen_port: u16,
    /// Where consumers' IPv4 addresses are from.
    pub pool_v4: Ipv4Net,
    /// Where consumers' IPv6 addresses are from.
    pub pool_v6: Ipv6Net,
    /// The node's address inside the tunnel, IPv4.
    pub gateway_v4: Ipv4Addr,
    /// The node's address inside the tunnel, IPv6.
    pub gateway_v6: Ipv6Addr,
    /// TCP ports of the node's own services, at its addresses inside the tunnel.
    pub own_tcp: Vec<u16>,
    /// UDP ports of the same.
    pub own_udp: Vec<u16>,
    /// Ports that are refused.
    pub ports: Ports,
    /// Exceptions from what follows and from the ranges that are always refused.
    pub allow: Networks,
    /// What is refused besides.
    pub block: Networks,
}

impl Policy {
    /// The policy of a configuration and its lists, with consumers' traffic leaving by the uplink.
    #[must_use]
    pub fn new(config: &Config, lists: &Lists, uplink: &Uplink) -> Self {
        let tunnel = &config.tunnel;
        Self {
            interface: tunnel.interface.clone(),
            uplink: uplink.name.clone(),
            uplink_v6: uplink.ipv6.other().map(str::to_owned),
            listen_port: config.node.listen_port,
            pool_v4: tunnel.pool_v4,
            pool_v6: tunnel.pool_v6,
            gateway_v4: tunnel.plan().gateway_v4(),
            gateway_v6: tunnel.plan().gateway_v6(),
            own_tcp: config.own_tcp(),
            own_udp: config.own_udp(),
            ports: lists.blocked_ports(),
            allow: lists.allowed(),
            block: lists.blocked(),
        }
    }
}

/// Packets and bytes under a name of [`COUNTERS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The name.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why the kernel does not have the policy.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no `nft`.
    #[error(
        "the exit policy cannot be installed: there is no command `nft`. Fix: apt-get install \
         nftables."
    )]
    Missing,
    /// `nft` could not be run.
    #[error("cannot run `nft`: {0}")]
    Run(#[from] io::Error),
    /// `nft` refused.
    #[error("nftables refused to {what}: {said}. Fix: {fix}.")]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// The first lines of what it said.
        said: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// The kernel does not take the gate.
    #[error(
        "the kernel does not take the table that keeps consumers' packets in while the exit \
         policy is away: {0}. Fix: use a kernel with nf_tables and nft_objref (modprobe nf_tables \
         says whether yours has them)."
    )]
    Gate(#[source] io::Error),
    /// The kernel does not say.
    #[error(
        "cannot ask the kernel for its nftables: {0}. Fix: start weir as root, or with the \
         capability CAP_NET_ADMIN, on a kernel with nf_tables."
    )]
    Ask(#[source] io::Error),
}

/// Installs the policy in the place of the one before it, if there is one; counters go on.
///
/// # Errors
///
/// Says why the kernel does not have it. The rules before are still in force then.
pub fn apply(policy: &Policy) -> Result<(), NftError> {
    let old = kernel::sets(NAME).map_err(NftError::Ask)?;
    let used = |name: &String| name.rsplit_once('_').and_then(|(_, number)| number.parse().ok());
    let last: u32 = old.iter().filter_map(used).max().unwrap_or_default();
    let Rendered { sets, rules } = render(policy, last.wrapping_add(1), &old);
    for (text, what) in [(sets, "take the lists"), (rules, "install the exit policy")] {
        accepted(&run(&["-f", "-"], &text)?, what)?;
    }
    Ok(())
}

/// Removes the table; it need not be there.
///
/// # Errors
///
/// Fails when `nft` cannot be run or refuses.
pub fn remove() -> Result<(), NftError> {
    let output = run(&["-f", "-"], &format!("add table {TABLE}\ndelete table {TABLE}\n"))?;
    accepted(&output, "remove the exit policy")?;
    remove_gate()
}

/// Takes away the chain's rules that mark what the policy has seen: the gate drops everything of
/// consumers' then, until the policy is installed again.
fn close() -> Result<(), NftError> {
    accepted(&run(&["flush", "chain", "inet", NAME, "first"], "")?, "close the exit policy")
}

/// Removes the gate that has no owner; it need not be there.
fn remove_gate() -> Result<(), NftError> {
    let gate = gate::NAME;
    let text = format!("add table inet {gate}\ndelete table inet {gate}\n");
    accepted(&run(&["-f", "-"], &text)?, "remove the gate")
}

/// Every counter of [`COUNTERS`], in that order; all zero without a table.
///
/// # Errors
///
/// Fails when the kernel does not say.
pub fn read_counters() -> Result<Vec<Counter>, NftError> {
    let found = kernel::counters(NAME).map_err(NftError::Ask)?;
    let counter = |name: &str| {
        let found = found.iter().find(|counter| counter.name == name);
        let (packets, bytes) = found.map_or((0, 0), |found| (found.packets, found.bytes));
        Counter { name: name.to_owned(), packets, bytes }
    };
    Ok(COUNTERS.iter().map(|(name, _)| counter(name)).collect())
}

/// Other tables' chains that drop forwarded packets unless one of their rules accepts them, as
/// Docker's and ufw's do. weir's own verdict cannot overrule them.
///
/// # Errors
///
/// Fails when the kernel does not say.
pub fn foreign_drops() -> Result<Vec<String>, NftError> {
    /// NF_INET_FORWARD.
    const FORWARD: u32 = 2;
    let chains = kernel::base_chains().map_err(NftError::Ask)?;
    let drops = chains.iter().filter(|it| it.table != NAME && it.hook == FORWARD && it.drops);
    Ok(drops.map(|it| format!("{} {} {}", it.family, it.table, it.name)).collect())
}

/// Whether the kernel has the policy's table.
///
/// # Errors
///
/// Fails when the kernel does not say.
pub fn is_installed() -> Result<bool, NftError> {
    Ok(print::Print::read(NAME).map_err(NftError::Ask)?.is_some())
}

/// What `nft --version` says.
///
/// # Errors
///
/// Fails when there is no `nft`.
pub fn version() -> Result<String, NftError> {
    let output = run(&["--version"], "")?;
    accepted(&output, "tell its version")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// All rules of this machine, as `nft` prints them.
///
/// # Errors
///
/// Fails when `nft` cannot be run or refuses.
pub fn ruleset() -> Result<String, NftError> {
    let output = run(&["-s", "list", "ruleset"], "")?;
    accepted(&output, "list its rules")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(arguments: &[&str], input: &str) -> Result<Output, NftError> {
    run_program("nft", arguments, input)
}

fn run_program(program: &str, arguments: &[&str], input: &str) -> Result<Output, NftError> {
    // Not every service manager's PATH has sbin.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let child = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NftError::Missing,
        _ => NftError::Run(error),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It says on standard error why it stopped reading.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result?,
        }
    }
    Ok(child.wait_with_output()?)
}

fn accepted(output: &Output, what: &'static str) -> Result<(), NftError> {
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> =
        stderr.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    let said = lines.join(" | ");
    let fix = if stderr.contains("Operation not permitted") {
        "start weir as root, or with the capability CAP_NET_ADMIN"
    } else if stderr.contains("No such file") || stderr.contains("not supported") {
        "use a kernel with nf_tables, nft_chain_nat, nft_masq, nft_reject_inet, nft_fib_inet and \
         nft_ct (modprobe nf_tables says whether yours has them)"
    } else {
        "see what `nft list ruleset` says; if the words above are about weir's own rules, report \
         them"
    };
    Err(NftError::Refused { what, said, fix })
}

#[cfg(test)]
mod tests;
