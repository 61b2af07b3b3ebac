//! The rules for what consumers may reach, and the answers to what they may not.

use std::fmt::Display;

use super::{super::Policy, Table};
use weir_config::sections::Service;
use weir_policy::refused::{self, Refused};

/// What consumers reach on this machine: pings and weir's own services, at the gateway's addresses.
pub(super) fn to_host(policy: &Policy) -> Vec<String> {
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

/// The maximum number of answers to refused packets per second, for all consumers together. It is
/// enough for honest mistakes, and bounds the work that a scan causes.
const ANSWERS: u32 = 1000;

/// The chains that count and answer refused packets.
pub(super) fn refusals(out: &mut Table) {
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
pub(super) fn destinations(out: &mut Table, policy: &Policy) -> Vec<String> {
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
pub(super) fn ports(out: &mut Table, policy: &Policy) -> Vec<String> {
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
