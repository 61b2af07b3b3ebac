//! The table's text.

use std::fmt::{Display, Write as _};

use super::{COUNTERS, Policy, TABLE};
use crate::policy::refused::{self, Refused};

/// The table as input for `nft -f -`, whether it is there or not.
///
/// A packet meets the old rules or the new ones, never neither. So the hooks stay, and only what
/// hangs on them is replaced: with a second table's hooks beside the first's, a packet could pass
/// one before and the other after the change. Sets are replaced, not emptied, and verdicts come from
/// rules and not from maps, whose elements are gone from one moment to the next.
#[must_use]
pub fn render(policy: &Policy) -> String {
    let table = Table::of(policy);
    let mut out = format!("add table {TABLE}\n");
    for (name, _) in COUNTERS {
        line(&mut out, 0, &format!("add counter {TABLE} {name}"));
    }
    out.push_str(&table.chains);
    line(&mut out, 0, &format!("flush table {TABLE}"));
    for (name, kind) in SETS {
        line(&mut out, 0, &format!("add set {TABLE} {name} {{ type {kind}; flags interval; }}"));
        line(&mut out, 0, &format!("delete set {TABLE} {name}"));
    }
    line(&mut out, 0, &format!("table {TABLE} {{"));
    out.push_str(&table.body);
    line(&mut out, 0, "}");
    out
}

/// The operator's lists in the table.
const SETS: [(&str, &str); 4] = [
    ("allowed4", "ipv4_addr"),
    ("allowed6", "ipv6_addr"),
    ("blocked4", "ipv4_addr"),
    ("blocked6", "ipv6_addr"),
];

#[derive(Default)]
struct Table {
    /// What makes the chains, if they are not there.
    chains: String,
    /// Their rules, and the sets.
    body: String,
}

impl Table {
    fn of(policy: &Policy) -> Self {
        let mut table = Self::default();
        fill(&mut table, policy);
        table
    }

    fn chain(&mut self, name: &str, hook: Option<&str>, rules: &[String]) {
        let hook = hook.map(|hook| format!(" {{ type {hook}; policy accept; }}"));
        let made = format!("add chain {TABLE} {name}{}", hook.unwrap_or_default());
        line(&mut self.chains, 0, &made);
        line(&mut self.body, 1, &format!("chain {name} {{"));
        for rule in rules {
            line(&mut self.body, 2, rule);
        }
        line(&mut self.body, 1, "}");
    }
}

fn fill(out: &mut Table, policy: &Policy) {
    let Policy { interface, uplink, listen_port, pool_v4, pool_v6, .. } = policy;
    let (gateway_v4, gateway_v6) = (policy.gateway_v4, policy.gateway_v6);
    sets(&mut out.body, policy);
    refusals(out);

    // Before routing, which may drop a foreign source without counting it (rp_filter), and which
    // answers a packet that goes back where it came from with a redirect. The tunnel's own datagrams need no flow: it would cost a lookup each, and a consumer whose own
    // flow is translated to our port could receive another consumer's datagrams.
    out.chain(
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
    out.chain(
        "last",
        Some("filter hook output priority raw"),
        &[format!("oifname != \"{interface}\" udp sport {listen_port} notrack")],
    );

    let mut from_consumer = vec![
        format!("oifname != \"{uplink}\" counter name not_uplink goto refuse"),
        // Without a flow there is no translation, and the inner address would leave.
        "ct state established,related accept".into(),
        "ct state invalid,untracked goto invalid".into(),
    ];
    from_consumer.extend(destinations(policy));
    from_consumer.push("goto to_port".into());
    out.chain("to_port", None, &ports(policy));
    out.chain("from_consumer", None, &from_consumer);
    out.chain(
        "to_consumer",
        None,
        &["ct state established,related accept".into(), "counter name inbound drop".into()],
    );
    out.chain(
        "forward",
        Some("filter hook forward priority filter"),
        &[
            format!("iifname \"{interface}\" goto from_consumer"),
            format!("oifname \"{interface}\" goto to_consumer"),
        ],
    );
    out.chain("to_host", None, &to_host(policy));
    out.chain(
        "input",
        Some("filter hook input priority filter"),
        &[
            format!("iifname \"{interface}\" goto to_host"),
            format!("iifname != \"lo\" ip daddr {pool_v4} counter name inbound drop"),
            format!("iifname != \"lo\" ip6 daddr {pool_v6} counter name inbound drop"),
        ],
    );
    let clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu";
    out.chain(
        "clamp",
        Some("filter hook forward priority mangle"),
        &[format!("iifname \"{interface}\" {clamp}"), format!("oifname \"{interface}\" {clamp}")],
    );
    let ports = translated_ports(*listen_port);
    out.chain(
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
}

/// What of this machine consumers reach: pings and weir's own services, at the gateway's addresses.
fn to_host(policy: &Policy) -> Vec<String> {
    let (v4, v6) = (policy.gateway_v4, policy.gateway_v6);
    let mut rules = vec![
        "ct state established,related accept".into(),
        format!("ip daddr {v4} icmp type echo-request accept"),
        format!("ip6 daddr {v6} icmpv6 type echo-request accept"),
    ];
    for (protocol, ports) in [("tcp", &policy.own_tcp), ("udp", &policy.own_udp)] {
        for port in ports {
            rules.push(format!("ip daddr {v4} {protocol} dport {port} accept"));
            rules.push(format!("ip6 daddr {v6} {protocol} dport {port} accept"));
        }
    }
    rules.push("counter name host_destination goto refuse".into());
    rules
}

/// The larger half of the ports around the node's own, which no flow may be translated to.
pub(super) fn translated_ports(listen_port: u16) -> String {
    const LOWEST: u16 = 1024;
    if listen_port.saturating_sub(LOWEST) > u16::MAX - listen_port {
        format!("{LOWEST}-{}", listen_port - 1)
    } else {
        format!("{}-{}", listen_port.max(LOWEST - 1) + 1, u16::MAX)
    }
}

fn sets(out: &mut String, policy: &Policy) {
    for (name, networks) in [("allowed", &policy.allow), ("blocked", &policy.block)] {
        set(out, &format!("{name}4"), "ipv4_addr", &networks.v4);
        set(out, &format!("{name}6"), "ipv6_addr", &networks.v6);
    }
}

/// A set of ranges, which are in order and apart: so the kernel need not sort or join them.
fn set<A: Display + PartialEq>(out: &mut String, name: &str, kind: &str, ranges: &[(A, A)]) {
    if ranges.is_empty() {
        return;
    }
    line(out, 1, &format!("set {name} {{"));
    line(out, 2, &format!("type {kind}"));
    line(out, 2, "flags interval");
    out.push_str("\t\telements = { ");
    for (number, range) in ranges.iter().enumerate() {
        if number > 0 {
            // Not too long for the lines in nft's errors.
            out.push_str(if number % 8 == 0 { ",\n\t\t" } else { ", " });
        }
        // Writing to a string does not fail.
        write!(out, "{}", Shown(range)).ok();
    }
    out.push_str(" }\n");
    line(out, 1, "}");
}

/// A range as nft reads it.
struct Shown<'r, A>(&'r (A, A));

impl<A: Display + PartialEq> Display for Shown<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = self.0;
        if low == high { write!(f, "{low}") } else { write!(f, "{low}-{high}") }
    }
}

/// Answers to refused packets per second, of all consumers together: enough for people who err,
/// and little work when somebody scans.
const ANSWERS: u32 = 1000;

/// The chains in which a refusal is counted and answered.
fn refusals(out: &mut Table) {
    out.chain(
        "refuse",
        None,
        &[
            format!("limit rate over {ANSWERS}/second burst {ANSWERS} packets drop"),
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
        out.chain(name, None, &[format!("counter name {name} goto refuse")]);
    }
    out.chain("invalid", None, &["counter name invalid drop".into()]);
}

/// The rules on a new flow's destination.
fn destinations(policy: &Policy) -> Vec<String> {
    let (allow, block) = (&policy.allow, &policy.block);
    let mut rules = destination("ip", 4, refused::V4, !allow.v4.is_empty(), !block.v4.is_empty());
    rules.extend(destination("ip6", 6, refused::V6, !allow.v6.is_empty(), !block.v6.is_empty()));
    rules
}

fn destination<A: Display + PartialEq + Copy>(
    protocol: &str,
    family: u8,
    refused: &[Refused<A>],
    allows: bool,
    blocks: bool,
) -> Vec<String> {
    let mut rules = Vec::new();
    if allows {
        rules.push(format!("{protocol} daddr @allowed{family} goto to_port"));
    }
    if blocks {
        rules.push(format!(
            "{protocol} daddr @blocked{family} counter name blocked_destination goto refuse"
        ));
    }
    for counter in refused::COUNTERS {
        let of = refused.iter().filter(|it| it.counter == *counter);
        let ranges: Vec<String> = of.map(|it| Shown(&(it.low, it.high)).to_string()).collect();
        if !ranges.is_empty() {
            rules.push(format!("{protocol} daddr {{ {} }} goto {counter}", ranges.join(", ")));
        }
    }
    rules
}

/// The rules on a new flow's port.
fn ports(policy: &Policy) -> Vec<String> {
    const SMTP: u16 = 25;
    let mut rules = Vec::new();
    let mut tcp = policy.ports.tcp.clone();
    if let Some(at) = tcp.iter().position(|(low, high)| (*low..=*high).contains(&SMTP)) {
        let (low, high) = tcp.remove(at);
        rules.push(format!("tcp dport {SMTP} goto smtp"));
        tcp.extend([(low, SMTP - 1), (SMTP + 1, high)].iter().filter(|(low, high)| low <= high));
        tcp.sort_unstable();
    }
    for (protocol, ranges) in [("tcp", &tcp), ("udp", &policy.ports.udp)] {
        if !ranges.is_empty() {
            let ranges: Vec<String> = ranges.iter().map(|it| Shown(it).to_string()).collect();
            rules.push(format!("{protocol} dport {{ {} }} goto blocked_port", ranges.join(", ")));
        }
    }
    rules.push("accept".into());
    rules
}

fn line(out: &mut String, depth: usize, text: &str) {
    for _ in 0..depth {
        out.push('\t');
    }
    out.push_str(text);
    out.push('\n');
}
