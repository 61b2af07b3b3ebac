//! The rules for new flows: how many may begin, and how long the kernel keeps them.

use super::{CLOSED, TABLE, Table, line};

/// The first byte of a UDP payload: the type of a WireGuard message (whitepaper, section 5.4).
pub(super) const MESSAGE: &str = "@th,64,8";

pub(super) const INITIATION: u8 = 1;

pub(super) const COOKIE_REPLY: u8 = 3;

/// The maximum rate of new flows at the node's port, per second, that the kernel tracks: anyone can
/// forge sources. Initiations beyond it are not tracked. Other messages beyond it are dropped,
/// because only forgeries begin a flow with them. An untracked consumer is affected only if another
/// firewall filters by connection state.
pub(super) const NEW_TUNNELS: u32 = 100;

/// The burst: every consumer of a restarted node.
const NEW_TUNNELS_AT_ONCE: u32 = 4096;

pub(super) fn over(rate: u32) -> String {
    format!("limit rate over {rate}/second burst {NEW_TUNNELS_AT_ONCE} packets")
}

/// Timeout policies: name, protocol, and seconds by state.
const TIMEOUTS: &[(&str, &str, &str)] = &[
    // A keypair lives for REJECT_AFTER_TIME (180 s; whitepaper, section 6.1). AF_XDP data bypasses
    // the kernel's stack, so it does not refresh the flow.
    ("tunnel", "udp", "unreplied : 180, replied : 240"),
    // RFC 5382 section 5 requires at least 2 hours and 4 minutes; the kernel's default is 5 days.
    // TIME_WAIT is shorter than the kernel's 2 minutes, so that closed flows soon stop counting
    // towards a session's limit.
    ("consumer_tcp", "tcp", "established : 7440, time_wait : 30"),
];

/// Creates the timeout policies.
pub(super) fn timeouts(out: &mut String) {
    for (name, protocol, policy) in TIMEOUTS {
        for (family, l3) in [("4", "ip"), ("6", "ip6")] {
            let object = format!("protocol {protocol}; l3proto {l3}; policy = {{ {policy} }};");
            line(out, 0, &format!("add ct timeout {TABLE} {name}{family} {{ {object} }}"));
        }
    }
}

/// The rules that assign a timeout policy to new flows.
fn timeout_rules(name: &str, protocol: &str) -> [String; 2] {
    [("4", "ipv4"), ("6", "ipv6")].map(|(family, protocol_3)| {
        format!("meta nfproto {protocol_3} {protocol}ct timeout set \"{name}{family}\"")
    })
}

/// The chain for new flows at the node's own port. They are tracked for firewalls that filter by
/// connection state, and so that ICMP errors about them are related.
pub(super) fn new_tunnel(out: &mut Table) {
    let mut rules = vec![
        // A confirmed flow: its first packet has passed.
        "ct status confirmed accept".into(),
        // Twice the tracked rate, for datagrams that are redirected here from another port.
        format!("{MESSAGE} {INITIATION} {} counter name tunnel_flows drop", over(2 * NEW_TUNNELS)),
        format!("{MESSAGE} != {INITIATION} {} counter name tunnel_flows drop", over(NEW_TUNNELS)),
    ];
    if out.has_timeouts {
        rules.extend(timeout_rules("tunnel", ""));
    }
    out.chain("new_tunnel", None, &rules);
}

/// The chain for consumers' new flows that no other rule refuses.
pub(super) fn new_flow(out: &mut Table) {
    // A confirmed flow was counted with its first packet, and must not be counted twice.
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
