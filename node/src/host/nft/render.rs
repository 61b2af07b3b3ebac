//! The table's text.

use ipnet::IpNet;

use super::{
    COUNTERS, Counter, Policy, TABLE,
    ranges::{REFUSED_V4, REFUSED_V6},
};

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
    chain(&mut out, "to_host", None, &to_host(policy));
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

/// What of this machine consumers reach: pings and weir's own services, at the gateway's addresses.
fn to_host(policy: &Policy) -> Vec<String> {
    let (v4, v6) = (policy.gateway_v4, policy.gateway_v6);
    let mut rules = vec![
        "ct state established,related accept".into(),
        format!("ip daddr {v4} icmp type echo-request accept"),
        format!("ip6 daddr {v6} icmpv6 type echo-request accept"),
    ];
    for (protocol, ports) in [("tcp", &policy.own_tcp), ("udp", &policy.own_udp)] {
        for port in sorted(ports) {
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
