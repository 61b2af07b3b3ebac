//! The exit policy: one nftables table of weir's own, replaced as a whole in one transaction.
//!
//! [`render`] is pure. Cost per packet does not grow with the lists: an established flow meets
//! three comparisons, a new one two lookups in interval sets besides.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, Output, Stdio},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::Config;

mod ranges;

use ranges::{REFUSED_V4, REFUSED_V6};

/// The table's family and name.
const TABLE: &str = "inet weir";

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
    ("blocked_port", "to another TCP port that the operator blocks"),
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
    /// TCP ports that are refused.
    pub blocked_ports: Vec<u16>,
    /// Exceptions from the refused ranges.
    pub allow: Vec<IpNet>,
    /// What is refused besides.
    pub block: Vec<IpNet>,
}

impl Policy {
    /// The policy of a configuration, with consumers' traffic leaving by `uplink`.
    #[must_use]
    pub fn new(config: &Config, uplink: &str) -> Self {
        let tunnel = &config.tunnel;
        Self {
            interface: tunnel.interface.clone(),
            uplink: uplink.to_owned(),
            listen_port: config.node.listen_port,
            pool_v4: tunnel.pool_v4,
            pool_v6: tunnel.pool_v6,
            gateway_v4: tunnel.gateway_v4(),
            gateway_v6: tunnel.gateway_v6(),
            blocked_ports: config.policy.blocked_ports.clone(),
            allow: config.policy.allow.clone(),
            block: config.policy.block.clone(),
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
    /// Its answer is not what it should be.
    #[error("cannot read nftables' counters: {0}")]
    Answer(String),
}

/// The table as input for `nft -f -`. It begins with its counters at the values in `before`.
#[must_use]
pub fn render(policy: &Policy, before: &[Counter]) -> String {
    let mut out = format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    for (name, _) in COUNTERS {
        let start = before.iter().find(|counter| counter.name == *name);
        let (packets, bytes) = start.map_or((0, 0), |start| (start.packets, start.bytes));
        line(&mut out, 1, &format!("counter {name} {{ packets {packets} bytes {bytes} }}"));
    }
    let Policy { interface, uplink, listen_port, pool_v4, pool_v6, .. } = policy;
    let (gateway_v4, gateway_v6) = (policy.gateway_v4, policy.gateway_v6);
    sets(&mut out, policy);
    refusals(&mut out);

    // Before routing, which may drop a foreign source without counting it (rp_filter), and which
    // answers a packet that goes back where it came from with a redirect. The tunnel's own datagrams need no flow: it would cost a lookup each, and a consumer whose own
    // flow is translated to our port could receive another consumer's datagrams.
    chain(
        &mut out,
        "first",
        Some("filter hook prerouting priority raw"),
        &[
            format!("iifname \"{interface}\" ip saddr != {pool_v4} counter name spoofed drop"),
            format!("iifname \"{interface}\" ip6 saddr != {pool_v6} counter name spoofed drop"),
            format!(
                "iifname \"{interface}\" ip daddr {pool_v4} ip daddr != {gateway_v4} \
                 counter name consumer_to_consumer goto refuse"
            ),
            format!(
                "iifname \"{interface}\" ip6 daddr {pool_v6} ip6 daddr != {gateway_v6} \
                 counter name consumer_to_consumer goto refuse"
            ),
            format!(
                "iifname != \"{interface}\" udp dport {listen_port} fib daddr type local notrack"
            ),
        ],
    );
    chain(
        &mut out,
        "last",
        Some("filter hook output priority raw"),
        &[format!("oifname != \"{interface}\" udp sport {listen_port} notrack")],
    );

    let mut from_consumer = vec![
        format!("oifname != \"{uplink}\" counter name not_uplink goto refuse"),
        // Without a flow there is no translation, and the inner address would leave.
        "ct state vmap { established : accept, related : accept, invalid : goto invalid, \
         untracked : goto invalid }"
            .into(),
    ];
    from_consumer.extend(destinations(policy));
    if !policy.blocked_ports.is_empty() {
        let verdicts: Vec<String> = sorted(&policy.blocked_ports)
            .iter()
            .map(|port| {
                let to = if *port == 25 { "smtp" } else { "blocked_port" };
                format!("{port} : goto {to}")
            })
            .collect();
        from_consumer.push(format!("tcp dport vmap {{ {} }}", verdicts.join(", ")));
    }
    from_consumer.push("accept".into());
    chain(&mut out, "from_consumer", None, &from_consumer);
    chain(
        &mut out,
        "to_consumer",
        None,
        &["ct state established,related accept".into(), "counter name inbound drop".into()],
    );
    chain(
        &mut out,
        "forward",
        Some("filter hook forward priority filter"),
        &[
            format!("iifname \"{interface}\" goto from_consumer"),
            format!("oifname \"{interface}\" goto to_consumer"),
        ],
    );
    chain(
        &mut out,
        "to_host",
        None,
        &[
            "ct state established,related accept".into(),
            format!("ip daddr {gateway_v4} icmp type echo-request accept"),
            format!("ip6 daddr {gateway_v6} icmpv6 type echo-request accept"),
            "counter name host_destination goto refuse".into(),
        ],
    );
    chain(
        &mut out,
        "input",
        Some("filter hook input priority filter"),
        &[
            format!("iifname \"{interface}\" goto to_host"),
            format!("iifname != \"lo\" ip daddr {pool_v4} counter name inbound drop"),
            format!("iifname != \"lo\" ip6 daddr {pool_v6} counter name inbound drop"),
        ],
    );
    let clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu";
    chain(
        &mut out,
        "clamp",
        Some("filter hook forward priority mangle"),
        &[format!("iifname \"{interface}\" {clamp}"), format!("oifname \"{interface}\" {clamp}")],
    );
    let ports = translated_ports(*listen_port);
    chain(
        &mut out,
        "translate",
        Some("nat hook postrouting priority srcnat"),
        &[
            format!("oifname != \"{uplink}\" accept"),
            format!("ip saddr {pool_v4} meta l4proto udp masquerade to :{ports}"),
            format!("ip6 saddr {pool_v6} meta l4proto udp masquerade to :{ports}"),
            format!("ip saddr {pool_v4} masquerade"),
            format!("ip6 saddr {pool_v6} masquerade"),
        ],
    );
    out.push_str("}\n");
    out
}

/// The larger half of the ports around the node's own, which no flow may be translated to.
fn translated_ports(listen_port: u16) -> String {
    const LOWEST: u16 = 1024;
    if listen_port.saturating_sub(LOWEST) > u16::MAX - listen_port {
        format!("{LOWEST}-{}", listen_port - 1)
    } else {
        format!("{}-{}", listen_port.max(LOWEST - 1) + 1, u16::MAX)
    }
}

fn sets(out: &mut String, policy: &Policy) {
    for (name, networks) in [("allowed", &policy.allow), ("blocked", &policy.block)] {
        for (family, kind) in [("4", "ipv4_addr"), ("6", "ipv6_addr")] {
            let elements = of_family(networks, family);
            if elements.is_empty() {
                continue;
            }
            line(out, 1, &format!("set {name}{family} {{"));
            line(out, 2, &format!("type {kind}"));
            line(out, 2, "flags interval");
            line(out, 2, "auto-merge");
            line(out, 2, &format!("elements = {{ {} }}", elements.join(", ")));
            line(out, 1, "}");
        }
    }
}

fn of_family(networks: &[IpNet], family: &str) -> Vec<String> {
    let of = |network: &&IpNet| matches!(network, IpNet::V4(_)) == (family == "4");
    networks.iter().filter(of).map(|network| network.trunc().to_string()).collect()
}

/// The chains in which a refusal is counted and answered.
fn refusals(out: &mut String) {
    chain(
        out,
        "refuse",
        None,
        &[
            "meta l4proto tcp reject with tcp reset".into(),
            "reject with icmpx type admin-prohibited".into(),
        ],
    );
    for name in [
        "private_destination",
        "metadata_destination",
        "reserved_destination",
        "smtp",
        "blocked_port",
    ] {
        chain(out, name, None, &[format!("counter name {name} goto refuse")]);
    }
    chain(out, "invalid", None, &["counter name invalid drop".into()]);
}

/// The rules on a new flow's destination.
fn destinations(policy: &Policy) -> Vec<String> {
    let mut rules = Vec::new();
    for (protocol, family, refused) in [("ip", "4", REFUSED_V4), ("ip6", "6", REFUSED_V6)] {
        if !of_family(&policy.block, family).is_empty() {
            rules.push(format!(
                "{protocol} daddr @blocked{family} counter name blocked_destination goto refuse"
            ));
        }
        let exception = if of_family(&policy.allow, family).is_empty() {
            String::new()
        } else {
            format!("{protocol} daddr != @allowed{family} ")
        };
        let verdicts: Vec<String> =
            refused.iter().map(|(network, why)| format!("{network} : goto {why}")).collect();
        rules.push(format!("{exception}{protocol} daddr vmap {{ {} }}", verdicts.join(", ")));
    }
    rules
}

fn sorted(ports: &[u16]) -> Vec<u16> {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn chain(out: &mut String, name: &str, hook: Option<&str>, rules: &[String]) {
    line(out, 1, &format!("chain {name} {{"));
    if let Some(hook) = hook {
        line(out, 2, &format!("type {hook}; policy accept;"));
    }
    for rule in rules {
        line(out, 2, rule);
    }
    line(out, 1, "}");
}

fn line(out: &mut String, depth: usize, text: &str) {
    for _ in 0..depth {
        out.push('\t');
    }
    out.push_str(text);
    out.push('\n');
}

/// Installs the policy in the place of the one before it, if there is one; counters go on.
///
/// # Errors
///
/// Says why the kernel does not have it. What was there before is still there then.
pub fn apply(policy: &Policy) -> Result<(), NftError> {
    let before = if exists()? { read_counters()? } else { Vec::new() };
    let output = run(&["-f", "-"], &render(policy, &before))?;
    accepted(&output, "install the exit policy")
}

/// Whether there is a table of this name.
///
/// # Errors
///
/// Fails when `nft` cannot be run or refuses.
pub fn exists() -> Result<bool, NftError> {
    let output = run(&["list", "tables"], "")?;
    accepted(&output, "list its tables")?;
    let wanted = format!("table {TABLE}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().any(|line| line.trim() == wanted))
}

/// Removes the table; it need not be there.
///
/// # Errors
///
/// Fails when `nft` cannot be run or refuses.
pub fn remove() -> Result<(), NftError> {
    let output = run(&["-f", "-"], &format!("add table {TABLE}\ndelete table {TABLE}\n"))?;
    accepted(&output, "remove the exit policy")
}

/// Every counter of [`COUNTERS`], in that order.
///
/// # Errors
///
/// Fails when there is no table, or `nft` cannot be run.
pub fn read_counters() -> Result<Vec<Counter>, NftError> {
    let output = run(&["-j", "list", "counters", "table", "inet", "weir"], "")?;
    accepted(&output, "list the policy's counters")?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| NftError::Answer(error.to_string()))?;
    let found = answer.get("nftables").and_then(serde_json::Value::as_array);
    let found = found.ok_or_else(|| NftError::Answer("it has no list \"nftables\"".into()))?;
    let counter = |name: &str| {
        let named = |entry: &&serde_json::Value| entry.get("name").is_some_and(|it| it == name);
        let entry = found.iter().filter_map(|entry| entry.get("counter")).find(named);
        let number =
            |key| entry.and_then(|entry| entry.get(key)).and_then(serde_json::Value::as_u64);
        Counter {
            name: name.to_owned(),
            packets: number("packets").unwrap_or_default(),
            bytes: number("bytes").unwrap_or_default(),
        }
    };
    Ok(COUNTERS.iter().map(|(name, _)| counter(name)).collect())
}

/// Other tables' chains that drop forwarded packets unless one of their rules accepts them, as
/// Docker's and ufw's do. weir's own verdict cannot overrule them.
///
/// # Errors
///
/// Fails when `nft` cannot be run or refuses.
pub fn foreign_drops() -> Result<Vec<String>, NftError> {
    let output = run(&["-j", "list", "chains"], "")?;
    accepted(&output, "list its chains")?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| NftError::Answer(error.to_string()))?;
    let text = |chain: &serde_json::Value, key: &str| {
        chain.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let drops = |entry: &serde_json::Value| {
        let chain = entry.get("chain")?;
        let foreign = text(chain, "table") != "weir"
            && text(chain, "hook") == "forward"
            && text(chain, "policy") == "drop"
            && ["ip", "ip6", "inet"].contains(&text(chain, "family").as_str());
        foreign.then(|| {
            format!("{} {} {}", text(chain, "family"), text(chain, "table"), text(chain, "name"))
        })
    };
    let chains = answer.get("nftables").and_then(serde_json::Value::as_array);
    Ok(chains.map(|chains| chains.iter().filter_map(drops).collect()).unwrap_or_default())
}

fn run(arguments: &[&str], input: &str) -> Result<Output, NftError> {
    // Not every service manager's PATH has sbin.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let child = Command::new("nft")
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
