//! The exit policy: one nftables table of weir's own, whose rules are replaced in one transaction.
//!
//! [`render()`] is pure. The cost per packet does not grow with the lists. An established flow
//! takes three comparisons; a new one also takes two lookups in interval sets.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, Output, Stdio},
};

use ipnet::{Ipv4Net, Ipv6Net};

use super::uplink::Uplink;
use weir_config::{Auto, Config, amounts::AtMost, sections::Service};
use weir_policy::{Lists, Networks, Ports};

mod elements;
mod evaluate;
mod foreign;
pub(crate) mod gate;
mod in_force;
mod kernel;
mod legacy;
mod print;
mod render;

pub use elements::ElementEvents;
pub use foreign::{Refusal, Site, Traffic, foreign_drops};
pub use gate::dropped_by_gate;
pub use in_force::{InForce, Look, NewFlows};
pub use render::{Machine, Rendered, render};

/// The table's family and name.
const TABLE: &str = "inet weir";
const NAME: &str = "weir";

/// Every counter of the table, and what it counts. The names are the metric's labels.
pub const COUNTERS: &[(&str, &str)] = &[
    ("spoofed", "from the tunnel, with a source that is not a consumer's address"),
    ("consumer_to_consumer", "from one consumer to another"),
    ("not_uplink", "to a network that is not behind the uplink"),
    ("invalid", "not part of a flow that the kernel can translate"),
    ("blocked_destination", "to a network that the operator blocks"),
    ("private_destination", "to a private or link-local network"),
    ("metadata_destination", "to a cloud metadata address"),
    ("reserved_destination", "to an address that is not on the internet"),
    ("smtp", "mail between servers, TCP port 25"),
    ("blocked_port", "to another port that the operator blocks"),
    ("host_destination", "to this machine"),
    ("inbound", "to a consumer, unsolicited"),
    ("invalid_answer", "to this machine, from a connection that may be a consumer's"),
    ("flow_table", "new, while the kernel's table of flows is nearly full"),
    ("session_flows", "beyond the flows that a session may have at once"),
    ("transit", "from the uplink to another network of this machine"),
    ("tunnel_flows", "to the node's port, beyond the flows that may begin there"),
];

/// The input of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The TUN device.
    pub interface: String,
    /// The only interface by which consumers' packets may leave.
    pub uplink: String,
    /// The uplink for IPv6, if it is a different interface.
    pub uplink_v6: Option<String>,
    /// The UDP port of the node.
    pub listen_port: u16,
    /// The pool of consumers' IPv4 addresses.
    pub pool_v4: Ipv4Net,
    /// The pool of consumers' IPv6 addresses.
    pub pool_v6: Ipv6Net,
    /// The node's address inside the tunnel, IPv4.
    pub gateway_v4: Ipv4Addr,
    /// The node's address inside the tunnel, IPv6.
    pub gateway_v6: Ipv6Addr,
    /// The node's own services, at its addresses inside the tunnel.
    pub services: Vec<Service>,
    /// The blocked ports.
    pub ports: Ports,
    /// Exceptions from `block` and from the ranges that are always refused.
    pub allow: Networks,
    /// Further blocked networks.
    pub block: Networks,
    /// The maximum number of concurrent flows of a session, for each family. `Auto` derives it from
    /// the size of the flow table.
    pub session_flows: Auto<AtMost>,
    /// How the host's own forwarding is restricted.
    pub transit: Transits,
}

/// What this machine may forward apart from consumers' packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transit {
    /// Everything that it forwards without weir.
    #[default]
    AsBefore,
    /// Nothing from the uplink: forwarding was off there before weir enabled it.
    NotFromUplink,
    /// Nothing: forwarding was off on all interfaces.
    None,
}

/// The restriction of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transits {
    /// IPv4.
    pub v4: Transit,
    /// IPv6.
    pub v6: Transit,
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
            services: config.services(),
            ports: lists.blocked_ports(),
            allow: lists.allowed(),
            block: lists.blocked(),
            session_flows: config.limits.session_flows.clone(),
            transit: Transits::default(),
        }
    }
}

/// With `auto`, a session may fill this fraction (1/64) of the kernel's flow table with each
/// family.
const SHARES: u32 = 64;
/// The minimum with `auto`, which is enough for a browser.
const FEWEST_FLOWS: u32 = 256;
const DEFAULT_FLOWS: u32 = 4096;

/// The current maximum number of concurrent flows of a session, for each family: the configured
/// number, or a share of the flow table. 0 means no limit.
#[must_use]
pub fn session_flows(configured: &Auto<AtMost>) -> u32 {
    match configured {
        Auto::Set(at_most) => at_most.get(),
        Auto::Auto => share_of(size_of_flow_table()),
    }
}

/// The size of the kernel's flow table; `None` if connection tracking is not active yet.
fn size_of_flow_table() -> Option<u32> {
    let size = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok()?;
    size.trim().parse().ok()
}

/// The flows that a session may have of a table of this size, if nothing else is configured. `None`
/// for a table whose size is not known yet.
#[must_use]
pub fn share_of(size: Option<u32>) -> u32 {
    let share = size.map_or(DEFAULT_FLOWS, |size| size / SHARES);
    // An unlimited table has size 0.
    if share == 0 { DEFAULT_FLOWS } else { share.clamp(FEWEST_FLOWS, DEFAULT_FLOWS) }
}

/// A counter of [`COUNTERS`] with its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The name.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why the policy is not installed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no `nft`.
    #[error(
        "cannot install the exit policy: there is no command `nft`. Fix: apt-get install nftables."
    )]
    Missing,
    /// `nft` could not be run.
    #[error("cannot run `nft`: {0}")]
    Run(#[from] io::Error),
    /// `nft` refused.
    #[error("nftables refused to {what}: {problem}. Fix: {fix}.")]
    Refused {
        /// The operation that failed.
        what: &'static str,
        /// The first lines of its error output.
        problem: String,
        /// The fix.
        fix: &'static str,
    },
    /// The kernel rejected the gate.
    #[error(
        "the kernel refuses the table that blocks consumers' packets while the exit policy is \
         missing: {0}. Fix: use a kernel with nf_tables and nft_objref (modprobe nf_tables tells \
         whether yours has them)."
    )]
    Gate(#[source] io::Error),
    /// The kernel's tables could not be read.
    #[error(
        "cannot read the kernel's nftables: {0}. Fix: start weir as root, or with the \
         capability CAP_NET_ADMIN, on a kernel with nf_tables."
    )]
    Ask(#[source] io::Error),
}

/// The result of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The maximum number of concurrent flows of a session, for each family; 0 means no limit.
    pub session_flows: u32,
    /// What this kernel does not support of the policy, in words.
    pub note: Option<&'static str>,
}

/// Installs the policy, replacing the previous one. Counters continue.
///
/// # Errors
///
/// Fails if the kernel rejects the policy. The previous rules then stay in force.
pub fn apply(policy: &Policy) -> Result<Applied, NftError> {
    if size_of_flow_table().is_none() {
        // The kernel activates connection tracking with the first NAT chain.
        accepted(&run(&["-f", "-"], render::TRANSLATES)?, "translate addresses")?;
    }
    let session_flows = session_flows(&policy.session_flows);
    let machine = Machine { session_flows, has_timeouts: true };
    let note = match install(policy, &machine) {
        Err(NftError::Refused { problem, .. }) if problem.contains("ct timeout") => {
            install(policy, &Machine { has_timeouts: false, ..machine })?;
            Some(
                "this kernel cannot give flows a time-out of their own (NF_CONNTRACK_TIMEOUT): \
                 consumers' silent TCP connections stay in its flow table for as long as \
                 net.netfilter.nf_conntrack_tcp_timeout_established says",
            )
        }
        result => result.map(|()| None)?,
    };
    Ok(Applied { session_flows, note })
}

fn install(policy: &Policy, machine: &Machine) -> Result<(), NftError> {
    let old = kernel::sets(NAME).map_err(NftError::Ask)?;
    let generation = |name: &String| render::generation_of(name);
    let last: u32 = old.iter().filter_map(generation).max().unwrap_or_default();
    let Rendered { sets, rules } = render(policy, machine, last.wrapping_add(1), &old);
    for (text, what) in [(sets, "take the lists"), (rules, "install the exit policy")] {
        accepted(&run(&["-f", "-"], &text)?, what)?;
    }
    Ok(())
}

/// Blocks or allows new flows of consumers.
fn set_new_flows(interface: &str, new_flows: NewFlows) -> Result<(), NftError> {
    let set = format!("{TABLE} {}", render::CLOSED);
    let text = match new_flows {
        NewFlows::Refused => format!("add element {set} {{ \"{interface}\" }}\n"),
        NewFlows::Accepted => format!("flush set {set}\n"),
    };
    accepted(&run(&["-f", "-"], &text)?, "refuse new flows")
}

/// Removes the table, if it exists.
///
/// # Errors
///
/// Fails when `nft` cannot be run or refuses.
pub fn remove() -> Result<(), NftError> {
    let output = run(&["-f", "-"], &format!("add table {TABLE}\ndelete table {TABLE}\n"))?;
    accepted(&output, "remove the exit policy")?;
    remove_gate()
}

/// Removes the rules that mark consumers' packets for the gate. The gate then drops all of them
/// until the policy is installed again.
fn close() -> Result<(), NftError> {
    accepted(&run(&["flush", "chain", "inet", NAME, "first"], "")?, "close the exit policy")
}

/// Removes a gate without an owner, if it exists.
fn remove_gate() -> Result<(), NftError> {
    let gate = gate::NAME;
    let text = format!("add table inet {gate}\ndelete table inet {gate}\n");
    accepted(&run(&["-f", "-"], &text)?, "remove the gate")
}

/// Reads all [`COUNTERS`], in that order; all are zero without a table.
///
/// # Errors
///
/// Fails if the kernel's tables cannot be read.
pub fn read_counters() -> Result<Vec<Counter>, NftError> {
    let found = kernel::counters(NAME).map_err(NftError::Ask)?;
    let counter = |name: &str| {
        let found = found.iter().find(|counter| counter.name == name);
        let (packets, bytes) = found.map_or((0, 0), |found| (found.packets, found.bytes));
        Counter { name: name.to_owned(), packets, bytes }
    };
    Ok(COUNTERS.iter().map(|(name, _)| counter(name)).collect())
}

/// The ruleset's generation (`NFT_MSG_GETGEN`), which changes with each transaction of any program.
///
/// # Errors
///
/// Fails if the kernel's tables cannot be read.
pub fn generation() -> Result<u32, NftError> {
    kernel::Generations::default().now().map_err(NftError::Ask)
}

/// Whether the policy's table exists.
///
/// # Errors
///
/// Fails if the kernel's tables cannot be read.
pub fn is_installed() -> Result<bool, NftError> {
    Ok(print::Print::read(NAME).map_err(NftError::Ask)?.is_some())
}

/// The output of `nft --version`.
///
/// # Errors
///
/// Fails if there is no `nft`.
pub fn version() -> Result<String, NftError> {
    let output = run(&["--version"], "")?;
    accepted(&output, "tell its version")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(arguments: &[&str], input: &str) -> Result<Output, NftError> {
    run_program("nft", arguments, input)
}

fn run_program(program: &str, arguments: &[&str], input: &str) -> Result<Output, NftError> {
    // Some service managers' PATH lacks sbin.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let child = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("LC_ALL", "C")
        // Listing rules needs no lock, and the sandbox may hide the lock's file.
        .env("XTABLES_LOCKFILE", "/dev/null")
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
            // `nft` prints on standard error why it stopped reading.
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
    let problem = lines.join(" | ");
    let fix = if stderr.contains("Operation not permitted") {
        "start weir as root, or with the capability CAP_NET_ADMIN"
    } else if stderr.contains("No such file") || stderr.contains("not supported") {
        "use a kernel with nf_tables, nft_chain_nat, nft_masq, nft_reject_inet, nft_fib_inet and \
         nft_ct (modprobe nf_tables tells whether yours has them)"
    } else {
        "see `nft list ruleset`; if the message above is about weir's own rules, report it"
    };
    Err(NftError::Refused { what, problem, fix })
}

#[cfg(test)]
mod tests;
