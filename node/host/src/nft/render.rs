//! The table's text.

use std::fmt::{Display, Write as _};

use super::{COUNTERS, Policy, TABLE, Transit, gate::SEEN};
use weir_config::sections::Service;
use weir_policy::refused::{self, Refused};

/// The table as two inputs for `nft -f -`, one after the other, whether it is there or not.
///
/// A packet meets the old rules or the new ones, never neither. So the hooks stay, and only what
/// hangs on them is replaced: with a second table's hooks beside the first's, a packet could pass
/// one before and the other after the change. And sets are made, under names of their own, before
/// the rules that look into them, because the kernel shows their elements only after the rules that
/// came with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Makes what is missing, and the new sets.
    pub sets: String,
    /// Replaces the rules, and removes the old sets.
    pub rules: String,
}

/// Renders the table, with the names of its sets ending in `generation`; `old` are the names of the
/// sets that are there.
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
    /// What makes the chains, if they are not there.
    chains: String,
    /// Their rules.
    body: String,
    sets: String,
    generation: u32,
    session_flows: u32,
    has_timeouts: bool,
}

/// Has the kernel keep flows.
pub(super) const TRANSLATES: &str = "add table inet weir\nadd chain inet weir translate { type nat hook postrouting priority \
     srcnat; policy accept; }\n";

/// The generation of a set, which its name ends in; `None` for one that is kept.
pub(super) fn generation_of(name: &str) -> Option<u32> {
    let (name, number) = name.rsplit_once('_')?;
    if name.ends_with("_of") { None } else { number.parse().ok() }
}

/// What this machine gives to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The flows of each family that a session may have at once; 0 for no limit.
    pub session_flows: u32,
    /// Whether the kernel has time-outs for certain flows.
    pub has_timeouts: bool,
}

/// The most consumers of a pool.
const MAX_SESSIONS: u32 = 65_535;

/// The sets that are kept when the rules are replaced, and what is in them. The kernel counts a
/// session's flows there, as of the moment at which the set is new.
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

/// The set with the interfaces whose new flows are refused.
pub(super) const CLOSED: &str = "closed";

impl Table {
    /// Makes a set of ranges, which are in order and apart: so the kernel need not sort or join
    /// them. Says how rules name it; nothing without elements.
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
            // Not too long for the lines in nft's errors.
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

    // Before routing, which may drop a foreign source without counting it (rp_filter), and which
    // answers a packet that goes back where it came from with a redirect.
    // Every packet passes `first` and `clamp`: no name is compared twice, and none for nothing.
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
        // Without a flow there is no translation, and the inner address would leave.
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
            // connection, and would end it by a reset. Of ICMP, what is invalid may be about flows
            // that others leave untracked; UDP is invalid by its checksum alone.
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

/// What becomes of a packet that leaves by another interface than the uplink of its family.
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

/// The first byte of a UDP datagram's payload: what a WireGuard message is.
const MESSAGE: &str = "@th,64,8";
const INITIATION: u8 = 1;
const COOKIE_REPLY: u8 = 3;

/// New flows a second at the node's port that the kernel's table takes. Anybody can make up
/// sources. What is beyond is not tracked, or dropped where nothing but a forgery is to be
/// expected; a consumer that is not tracked notices only if another firewall asks for a state.
const NEW_TUNNELS: u32 = 100;
/// At once: every consumer of a node that was restarted.
const NEW_TUNNELS_AT_ONCE: u32 = 4096;

fn over(rate: u32) -> String {
    format!("limit rate over {rate}/second burst {NEW_TUNNELS_AT_ONCE} packets")
}

/// How long flows are kept: their name, protocol, and seconds by state.
const TIMEOUTS: &[(&str, &str, &str)] = &[
    // As long as keys live without a packet through this machine's stack (REJECT_AFTER_TIME): data
    // that AF_XDP takes is none.
    ("tunnel", "udp", "unreplied : 180, replied : 240"),
    // RFC 5382 section 5: no less than 2 hours and 4 minutes. The kernel's own is 5 days. What has
    // ended takes none of a session's places for long: the kernel's own is 2 minutes.
    ("consumer_tcp", "tcp", "established : 7440, time_wait : 30"),
];

/// Makes the time-outs, if this kernel has them.
fn timeouts(out: &mut String) {
    for (name, protocol, policy) in TIMEOUTS {
        for (family, l3) in [("4", "ip"), ("6", "ip6")] {
            let object = format!("protocol {protocol}; l3proto {l3}; policy = {{ {policy} }};");
            line(out, 0, &format!("add ct timeout {TABLE} {name}{family} {{ {object} }}"));
        }
    }
}

/// What gives new flows a time-out.
fn timeout_rules(name: &str, protocol: &str) -> [String; 2] {
    [("4", "ipv4"), ("6", "ipv6")].map(|(family, protocol_3)| {
        format!("meta nfproto {protocol_3} {protocol}ct timeout set \"{name}{family}\"")
    })
}

/// The chain of what begins a flow at the node's own port. It is tracked so that firewalls which
/// ask for a state work, and ICMP errors about it are related.
fn new_tunnel(out: &mut Table) {
    let mut rules = vec![
        // Its first packet has passed.
        "ct status confirmed accept".into(),
        // More than are tracked: what comes by another port that is redirected to this one.
        format!("{MESSAGE} {INITIATION} {} counter name tunnel_flows drop", over(2 * NEW_TUNNELS)),
        format!("{MESSAGE} != {INITIATION} {} counter name tunnel_flows drop", over(NEW_TUNNELS)),
    ];
    if out.has_timeouts {
        rules.extend(timeout_rules("tunnel", ""));
    }
    out.chain("new_tunnel", None, &rules);
}

/// The chain of consumers' new flows that nothing else refuses.
fn new_flow(out: &mut Table) {
    // Its first packet has passed: counted twice, it would take two places.
    let mut rules = vec![
        "ct status confirmed accept".into(),
        format!("iifname @{CLOSED} counter name flow_table drop"),
    ];
    if out.session_flows > 0 {
        for (family, protocol) in [("4", "ip"), ("6", "ip6")] {
            rules.push(format!(
                "add @flows{family}_of_{0} {{ {protocol} saddr ct count over {0} }} counter name \
                 session_flows drop",
                out.session_flows
            ));
        }
    }
    if out.has_timeouts {
        rules.extend(timeout_rules("consumer_tcp", "meta l4proto tcp "));
    }
    rules.push("accept".into());
    out.chain("new_flow", None, &rules);
}

/// Refuses what forwarding for consumers would let through besides.
fn transit(out: &mut Table, policy: &Policy) -> Vec<String> {
    let Policy { uplink, uplink_v6, transit, .. } = policy;
    // What comes from the tunnel or goes there has left the chain before.
    let from = match (transit.v4, transit.v6) {
        (Transit::AsBefore, Transit::AsBefore) => return Vec::new(),
        (v4, v6) => [("ipv4", uplink, v4), ("ipv6", uplink_v6.as_ref().unwrap_or(uplink), v6)],
    };
    out.chain(
        "transit",
        None,
        &[
            // Somebody on this machine has opened it, or wants it: a container's port, say.
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

/// What of this machine consumers reach: pings and weir's own services, at the gateway's addresses.
fn to_host(policy: &Policy) -> Vec<String> {
    let (v4, v6) = (policy.gateway_v4, policy.gateway_v6);
    let mut rules = vec![
        "ct state established,related accept".into(),
        format!("ip daddr {v4} icmp type echo-request accept"),
        format!("ip6 daddr {v6} icmpv6 type echo-request accept"),
    ];
    for Service { protocol, port } in &policy.services {
        let protocol = protocol.as_str();
        rules.push(format!("ip daddr {v4} {protocol} dport {port} accept"));
        rules.push(format!("ip6 daddr {v6} {protocol} dport {port} accept"));
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
fn destinations(out: &mut Table, policy: &Policy) -> Vec<String> {
    let (allow, block) = (&policy.allow, &policy.block);
    let v4 = ("ip", "4", "ipv4_addr");
    let mut rules = destination(out, v4, refused::V4, &allow.v4, &block.v4);
    let v6 = ("ip6", "6", "ipv6_addr");
    rules.extend(destination(out, v6, refused::V6, &allow.v6, &block.v6));
    rules
}

fn destination<A: Display + PartialEq + Copy>(
    out: &mut Table,
    (protocol, family, kind): (&str, &str, &str),
    refused: &[Refused<A>],
    allow: &[(A, A)],
    block: &[(A, A)],
) -> Vec<String> {
    let mut rules = Vec::new();
    if let Some(set) = out.set(&format!("allowed{family}"), kind, allow) {
        rules.push(format!("{protocol} daddr {set} goto to_port"));
    }
    if let Some(set) = out.set(&format!("blocked{family}"), kind, block) {
        rules.push(format!("{protocol} daddr {set} counter name blocked_destination goto refuse"));
    }
    for counter in refused::COUNTERS {
        let of = refused.iter().filter(|it| it.counter == *counter);
        let ranges: Vec<(A, A)> = of.map(|it| (it.low, it.high)).collect();
        if let Some(set) = out.set(&format!("{counter}{family}"), kind, &ranges) {
            rules.push(format!("{protocol} daddr {set} goto {counter}"));
        }
    }
    rules
}

/// The rules on a new flow's port.
fn ports(out: &mut Table, policy: &Policy) -> Vec<String> {
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
        let set = out.set(&format!("{protocol}_ports"), "inet_service", ranges);
        rules.extend(set.map(|set| format!("{protocol} dport {set} goto blocked_port")));
    }
    rules.push("goto new_flow".into());
    rules
}

fn line(out: &mut String, depth: usize, text: &str) {
    for _ in 0..depth {
        out.push('\t');
    }
    out.push_str(text);
    out.push('\n');
}
