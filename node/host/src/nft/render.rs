//! The table's text.

use std::fmt::{Display, Write as _};

use super::{COUNTERS, Policy, TABLE, Transit, gate::SEEN};

mod destinations;
mod flows;

use destinations::{destinations, ports, refusals, to_host};
use flows::{COOKIE_REPLY, INITIATION, MESSAGE, NEW_TUNNELS, new_flow, new_tunnel, over, timeouts};

/// The table as two inputs for `nft -f -`, to be applied in order, whether or not the table exists.
///
/// Every packet meets either the old rules or the new ones. So the base chains stay, and only their
/// rules are replaced: with the hooks of a second table, a packet could pass one table before the
/// change and the other after it. The new sets get new names and are created first, because within
/// one transaction the kernel activates rules before the elements of their sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Creates missing objects, and the new sets.
    pub sets: String,
    /// Replaces the rules, and removes the old sets.
    pub rules: String,
}

/// Renders the table. The names of its sets end in `generation`. `old` lists the existing sets.
#[must_use]
pub fn render(policy: &Policy, machine: &Machine, generation: u32, old: &[String]) -> Rendered {
    let Machine { session_flows, has_timeouts } = *machine;
    let mut table = Table { generation, session_flows, has_timeouts, ..Table::default() };
    fill(&mut table, policy);
    let mut sets = format!("add table {TABLE}\n");
    for (name, _) in COUNTERS {
        line(&mut sets, 0, &format!("add counter {TABLE} {name}"));
    }
    if has_timeouts {
        timeouts(&mut sets);
    }
    let kept = kept_sets(session_flows);
    for (name, shape) in &kept {
        line(&mut sets, 0, &format!("add set {TABLE} {name} {{ {shape} }}"));
    }
    sets.push_str(&table.chains);
    if !table.sets.is_empty() {
        sets.push_str(&format!("table {TABLE} {{\n{}}}\n", table.sets));
    }
    let mut rules = format!("flush table {TABLE}\n");
    for name in old.iter().filter(|name| !kept.iter().any(|(kept, _)| kept == *name)) {
        line(&mut rules, 0, &format!("delete set {TABLE} {name}"));
    }
    rules.push_str(&format!("table {TABLE} {{\n{}}}\n", table.body));
    Rendered { sets, rules }
}

#[derive(Default)]
struct Table {
    /// Creates the chains, if they do not exist.
    chains: String,
    /// Their rules.
    body: String,
    sets: String,
    generation: u32,
    session_flows: u32,
    has_timeouts: bool,
}

/// Activates connection tracking.
pub(super) const TRANSLATES: &str = "add table inet weir\nadd chain inet weir translate { type nat hook postrouting priority \
     srcnat; policy accept; }\n";

/// The generation at the end of a set's name; `None` for a set that is kept.
pub(super) fn generation_of(name: &str) -> Option<u32> {
    let (name, number) = name.rsplit_once('_')?;
    if name.ends_with("_of") { None } else { number.parse().ok() }
}

/// The properties of this machine that the table depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The maximum number of concurrent flows of a session, for each family; 0 means no limit.
    pub session_flows: u32,
    /// Whether the kernel supports timeout policies (`CONFIG_NF_CONNTRACK_TIMEOUT`).
    pub has_timeouts: bool,
}

/// The maximum number of consumers in a pool.
const MAX_SESSIONS: u32 = 65_535;

/// The names and definitions of the sets that survive a replacement of the rules. In them the
/// kernel counts each session's flows, from the creation of the set on.
fn kept_sets(session_flows: u32) -> Vec<(String, String)> {
    let counted = |kind: &str| format!("type {kind}; size {MAX_SESSIONS}; flags dynamic;");
    let mut sets = vec![(CLOSED.to_owned(), "type ifname;".to_owned())];
    if session_flows > 0 {
        sets.extend(
            [("4", "ipv4_addr"), ("6", "ipv6_addr")]
                .map(|(family, kind)| (format!("flows{family}_of_{session_flows}"), counted(kind))),
        );
    }
    sets
}

/// The set of interfaces whose new flows are refused.
pub(super) const CLOSED: &str = "closed";

impl Table {
    /// Creates a set of ranges, which must be sorted and disjoint. Returns the name by which rules
    /// refer to it, or `None` without elements.
    fn set<A: Display + PartialEq>(
        &mut self,
        name: &str,
        kind: &str,
        ranges: &[(A, A)],
    ) -> Option<String> {
        let name = format!("{name}_{}", self.generation);
        let out = &mut self.sets;
        let (first, rest) = ranges.split_first()?;
        line(out, 1, &format!("set {name} {{"));
        line(out, 2, &format!("type {kind}"));
        line(out, 2, "flags interval");
        // Writing to a string does not fail.
        write!(out, "\t\telements = {{ {}", Shown(first)).ok();
        for (number, range) in rest.iter().enumerate() {
            // nft repeats the line in an error, so keep lines short.
            let between = if number % 8 == 7 { ",\n\t\t" } else { ", " };
            write!(out, "{between}{}", Shown(range)).ok();
        }
        out.push_str(" }\n");
        line(out, 1, "}");
        Some(format!("@{name}"))
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
    let Policy { interface, listen_port, pool_v4, pool_v6, .. } = policy;
    let (gateway_v4, gateway_v6) = (policy.gateway_v4, policy.gateway_v6);
    refusals(out);

    // These chains run before routing. Routing may drop a foreign source without counting it
    // (rp_filter), and answers a packet that leaves by its own interface with a redirect. Every
    // packet passes `first` and `clamp`, so these compare each interface name at most once.
    out.chain(
        "from_tunnel",
        None,
        &[
            format!("ip saddr != {pool_v4} counter name spoofed drop"),
            format!("ip6 saddr != {pool_v6} counter name spoofed drop"),
            format!(
                "ip daddr {pool_v4} ip daddr != {gateway_v4} counter name consumer_to_consumer \
                 goto refuse"
            ),
            format!(
                "ip6 daddr {pool_v6} ip6 daddr != {gateway_v6} counter name consumer_to_consumer \
                 goto refuse"
            ),
            format!("meta mark set meta mark or {SEEN:#010x}"),
        ],
    );
    out.chain(
        "first",
        Some("filter hook prerouting priority raw"),
        &[
            format!("iifname \"{interface}\" goto from_tunnel"),
            format!(
                "udp dport {listen_port} {MESSAGE} {INITIATION} fib daddr type local {} notrack",
                over(NEW_TUNNELS)
            ),
        ],
    );
    out.chain(
        "last",
        Some("filter hook output priority raw"),
        &[format!(
            "udp sport {listen_port} {MESSAGE} {COOKIE_REPLY} {} notrack",
            over(NEW_TUNNELS)
        )],
    );

    let mut from_consumer = not_uplink(policy, "counter name not_uplink goto refuse");
    from_consumer.extend([
        // A packet without a flow is not translated, so its inner source address would leave the
        // node.
        "ct state established,related accept".into(),
        "ct state invalid,untracked goto invalid".into(),
    ]);
    from_consumer.extend(destinations(out, policy));
    from_consumer.push("goto to_port".into());
    new_flow(out);
    let to_port = ports(out, policy);
    out.chain("to_port", None, &to_port);
    out.chain("from_consumer", None, &from_consumer);
    out.chain(
        "to_consumer",
        None,
        &["ct state established,related accept".into(), "counter name inbound drop".into()],
    );
    let mut forward = vec![
        format!("iifname \"{interface}\" goto from_consumer"),
        format!("oifname \"{interface}\" goto to_consumer"),
    ];
    forward.extend(transit(out, policy));
    out.chain("forward", Some("filter hook forward priority filter"), &forward);
    out.chain("to_host", None, &to_host(policy));
    new_tunnel(out);
    let uplinks = match &policy.uplink_v6 {
        None => format!("\"{}\"", policy.uplink),
        Some(v6) => format!("{{ \"{}\", \"{v6}\" }}", policy.uplink),
    };
    out.chain(
        "input",
        Some("filter hook input priority filter"),
        &[
            format!("iifname \"{interface}\" goto to_host"),
            format!("iifname != \"lo\" ip daddr {pool_v4} counter name inbound drop"),
            format!("iifname != \"lo\" ip6 daddr {pool_v6} counter name inbound drop"),
            format!("udp dport {listen_port} ct state new goto new_tunnel"),
            // An answer to a consumer that was not translated back. This machine has no such
            // connection and would reset it. Invalid ICMP is excluded, because it may concern flows
            // that other programs leave untracked, and UDP, which is invalid only if its checksum
            // is wrong.
            format!(
                "iifname {uplinks} meta l4proto {{ tcp, sctp, dccp }} ct state invalid counter \
                 name invalid_answer drop"
            ),
        ],
    );
    let clamp = "tcp option maxseg size set rt mtu";
    out.chain(
        "clamp_syn",
        None,
        &[format!("iifname \"{interface}\" {clamp}"), format!("oifname \"{interface}\" {clamp}")],
    );
    out.chain(
        "clamp",
        Some("filter hook forward priority mangle"),
        &["tcp flags & (syn | rst) == syn goto clamp_syn".into()],
    );
    let ports = translated_ports(*listen_port);
    out.chain(
        "translate",
        Some("nat hook postrouting priority srcnat"),
        &[
            not_uplink(policy, "accept"),
            vec![
                format!("ip saddr {pool_v4} meta l4proto udp masquerade to :{ports}"),
                format!("ip6 saddr {pool_v6} meta l4proto udp masquerade to :{ports}"),
                format!("ip saddr {pool_v4} masquerade"),
                format!("ip6 saddr {pool_v6} masquerade"),
            ],
        ]
        .concat(),
    );
}

/// The rules for packets that leave by another interface than the uplink of their family.
fn not_uplink(policy: &Policy, verdict: &str) -> Vec<String> {
    let uplink = &policy.uplink;
    match &policy.uplink_v6 {
        None => vec![format!("oifname != \"{uplink}\" {verdict}")],
        Some(v6) => vec![
            format!("meta nfproto ipv4 oifname != \"{uplink}\" {verdict}"),
            format!("meta nfproto ipv6 oifname != \"{v6}\" {verdict}"),
        ],
    }
}

/// Drops other packets that the host forwards only because weir enabled forwarding.
fn transit(out: &mut Table, policy: &Policy) -> Vec<String> {
    let Policy { uplink, uplink_v6, transit, .. } = policy;
    // Packets from and to the tunnel have left the chain already.
    let from = match (transit.v4, transit.v6) {
        (Transit::AsBefore, Transit::AsBefore) => return Vec::new(),
        (v4, v6) => [("ipv4", uplink, v4), ("ipv6", uplink_v6.as_ref().unwrap_or(uplink), v6)],
    };
    out.chain(
        "transit",
        None,
        &[
            // A program on this machine opened the flow, or asked for it (such as a container's
            // port).
            "ct state established,related accept".into(),
            "ct status dnat accept".into(),
            "counter name transit drop".into(),
        ],
    );
    let rule = |(protocol, uplink, kind)| match kind {
        Transit::AsBefore => None,
        Transit::NotFromUplink => {
            Some(format!("iifname \"{uplink}\" meta nfproto {protocol} goto transit"))
        }
        Transit::None => Some(format!("meta nfproto {protocol} goto transit")),
    };
    from.into_iter().filter_map(rule).collect()
}

/// The larger range of ports below or above the node's own port. No flow may be translated to that
/// port.
pub(super) fn translated_ports(listen_port: u16) -> String {
    const LOWEST: u16 = 1024;
    if listen_port.saturating_sub(LOWEST) > u16::MAX - listen_port {
        format!("{LOWEST}-{}", listen_port - 1)
    } else {
        format!("{}-{}", listen_port.max(LOWEST - 1) + 1, u16::MAX)
    }
}

/// A range in nft's syntax.
struct Shown<'r, A>(&'r (A, A));

impl<A: Display + PartialEq> Display for Shown<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = self.0;
        if low == high { write!(f, "{low}") } else { write!(f, "{low}-{high}") }
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    for _ in 0..depth {
        out.push('\t');
    }
    out.push_str(text);
    out.push('\n');
}
