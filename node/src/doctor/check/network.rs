//! The uplink, the port, the firewall and the flow table.

use crate::doctor::{
    Finding,
    facts::{Facts, Nic},
};
use weir_config::{EgressMode, GuardMode};
use weir_host::{
    uplink::Ipv6Uplink,
    watch::{Condition, Part},
    xdp_features::XdpFeatures,
};

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = match &facts.nic {
        Err(error) => {
            vec![Finding::bad("uplink", error.as_str(), "connect the machine, or set node.uplink")]
        }
        Ok(nic) => vec![
            uplink(nic, facts),
            xdp(nic, facts),
            egress(nic, facts),
            offloads(nic),
            queues(nic, facts),
            mtu(nic, facts),
            forwarding(nic, facts),
            rp_filter(nic),
            ipv6(nic),
            machine(nic),
        ],
    };
    findings.extend([policy(facts), port(facts), firewall(facts), conntrack(facts)]);
    findings
}

fn uplink(nic: &Nic, facts: &Facts) -> Finding {
    let driver = nic.driver.as_deref().unwrap_or("driver unknown");
    let mut found = format!("{}, {driver}", nic.name);
    if !nic.ports.is_empty() {
        let ports = nic.ports.join(", ");
        found += &format!("; made of {ports}, so data goes through the kernel's stack");
    }
    if !nic.has_address && facts.config.node.endpoint.set().is_none() {
        let fix = "set node.endpoint to the \"host:port\" at which consumers reach this machine";
        return Finding::bad("uplink", format!("{found}: it has no address"), fix);
    }
    Finding::good("uplink", found)
}

fn xdp(nic: &Nic, facts: &Facts) -> Finding {
    let name = &nic.name;
    if facts.config.node.xdp == GuardMode::Off {
        return Finding::good("XDP", "off, as set by node.xdp");
    }
    match &nic.attached {
        Ok(Some(mode)) if facts.port.weir_runs => {
            return Finding::good("XDP", format!("{mode} on {name}, by the running weir"));
        }
        Ok(Some(mode)) => {
            return Finding::warning(
                "XDP",
                format!("another XDP program is attached to {name} already ({mode})"),
                format!(
                    "if it is not needed: ip link set dev {name} xdp off. If a killed weir left \
                     it, the next start takes it over"
                ),
            );
        }
        _ => {}
    }
    match &nic.xdp {
        Ok(XdpFeatures { native: true, zero_copy }) => {
            let also = if *zero_copy { ", and zero-copy AF_XDP" } else { "" };
            let mut found = format!("native: the driver of {name} supports it{also}");
            if nic.driver.as_deref() == Some("virtio_net") {
                // virtnet_xdp_set in drivers/net/virtio_net.c.
                found += ". While the guard is attached, virtio_net receives no TCP super-packets \
                          from the hypervisor, so this machine's own downloads use more CPU";
            }
            Finding::good("XDP", found)
        }
        Ok(XdpFeatures { native: false, .. }) => Finding::warning(
            "XDP",
            format!(
                "generic: the driver of {name} does not support XDP, so each datagram costs a \
                 little more CPU"
            ),
            "optional: use a network card whose driver supports XDP (virtio-net, ena, mlx5, ice, \
             ixgbe)",
        ),
        Err(error) => Finding::unknown(
            "XDP",
            format!(
                "unknown until the node starts: only Linux 6.3 and later report what a driver \
                 supports ({error})"
            ),
        ),
    }
}

/// How consumers' packets would leave, decided as at the node's start.
fn egress(nic: &Nic, facts: &Facts) -> Finding {
    let node = &facts.config.node;
    if let Some(setting) = facts.config.kernel_egress() {
        return Finding::good("egress", format!("through the kernel, as set by {setting}"));
    }
    let services = match &nic.egress.services {
        Ok(services) => services.as_ref().map(|services| format!("; {services}")),
        Err(error) => Some(format!("; which ports the machine uses is unknown ({error})")),
    };
    match &nic.egress.routes {
        Ok(Ok(())) => Finding::good(
            "egress",
            format!("bypass: past the kernel's stack{}", services.unwrap_or_default()),
        ),
        Ok(Err(why)) if node.egress == EgressMode::Bypass => Finding::bad(
            "egress",
            format!("node.egress is \"bypass\", but the node cannot follow the routes: {why}"),
            "remove what is named, or set node.egress to \"auto\"",
        ),
        Ok(Err(why)) => Finding::warning(
            "egress",
            format!("through the kernel, which costs more CPU: {why}"),
            "optional: remove what is named. The node then leaves past the kernel's stack",
        ),
        Err(error) => Finding::unknown("egress", error.as_str()),
    }
}

/// Whether consumers' packets leave past the kernel's stack, so that nothing is forwarded. A driver
/// that does not say whether it supports XDP is believed to.
fn is_bypass(nic: &Nic, facts: &Facts) -> bool {
    let is_native = match &nic.attached {
        Ok(Some(mode)) if facts.port.weir_runs => mode == "native",
        _ => !matches!(nic.xdp, Ok(XdpFeatures { native: false, .. })),
    };
    let is_plain = nic.ports.is_empty() && matches!(nic.egress.routes, Ok(Ok(())));
    is_native && is_plain && facts.config.kernel_egress().is_none()
}

fn offloads(nic: &Nic) -> Finding {
    let offloads = match &nic.offloads {
        Ok(offloads) => offloads,
        Err(error) => return Finding::unknown("offloads", error.as_str()),
    };
    let words = offloads.describe().join("; ");
    if offloads.tso && offloads.gso {
        // The node itself turns GRO on.
        return Finding::good("offloads", words);
    }
    let fix = format!("ethtool -K {} tso on gso on", nic.name);
    Finding::warning("offloads", format!("{words}: sending uses more CPU"), fix)
}

fn queues(nic: &Nic, facts: &Facts) -> Finding {
    let workers = facts.config.node.workers.set().map_or(facts.cores, |count| usize::from(*count));
    let found = format!("{} receive queues, {workers} workers", nic.receive_queues);
    match nic.receive_queues {
        0 => Finding::unknown("queues", "sysfs does not show the receive queues"),
        1 if workers > 2 => Finding::warning(
            "queues",
            format!("{found}: one core receives for all workers"),
            format!("ethtool -L {} combined {workers}", nic.name),
        ),
        _ => Finding::good("queues", found),
    }
}

fn mtu(nic: &Nic, facts: &Facts) -> Finding {
    match weir_config::misfit(&facts.config, nic.mtu) {
        Some((problem, fix)) => Finding::bad("MTU", format!("tunnel.mtu: {problem}"), fix),
        None => Finding::good(
            "MTU",
            format!("{} on {}, {} in the tunnel", nic.mtu, nic.name, facts.config.tunnel.mtu),
        ),
    }
}

fn forwarding(nic: &Nic, facts: &Facts) -> Finding {
    let is_bypass = is_bypass(nic, facts);
    match (&nic.forwarding, &nic.sysctls_writable) {
        (Ok(off), _) if *off != 1 && facts.port.weir_runs && !is_bypass => Finding::bad(
            "forwarding",
            format!("off for {}, although weir is running: consumers have no IPv4", nic.name),
            "see `weir status`; weir turns it on again within a second if it can",
        ),
        (Ok(1), _) => Finding::good("forwarding", format!("on for {}", nic.name)),
        (_, Ok(true)) if is_bypass => {
            Finding::good("forwarding", "off; past the kernel's stack, a node needs none")
        }
        (_, Ok(true)) => Finding::good("forwarding", "off; a node turns it on while it runs"),
        (_, Ok(false)) => Finding::bad(
            "forwarding",
            "off, and /proc/sys is read-only",
            format!("in a container: --sysctl net.ipv4.conf.{}.forwarding=1", nic.name),
        ),
        (_, Err(_)) => Finding::unknown(
            "forwarding",
            "off; root is needed to tell whether a node can turn it on",
        ),
    }
}

fn rp_filter(nic: &Nic) -> Finding {
    match nic.rp_filter {
        Ok(0) => Finding::good("rp_filter", "off"),
        Ok(1) => Finding::good(
            "rp_filter",
            "strict: answers must arrive on the interface of the route, as they do with one uplink",
        ),
        Ok(_) => Finding::good("rp_filter", "loose"),
        Err(ref error) => Finding::unknown("rp_filter", error.as_str()),
    }
}

fn ipv6(nic: &Nic) -> Finding {
    match (&nic.ipv6, nic.ipv6.note(&nic.name)) {
        (_, None) => Finding::good("IPv6", format!("through {}, as IPv4, if at all", nic.name)),
        (Ipv6Uplink::Refused(_), Some(note)) => {
            let (found, fix) = note.split_once(" Fix: ").unwrap_or((&note, ""));
            Finding::warning("IPv6", found.trim_end_matches('.'), fix)
        }
        (_, Some(note)) => Finding::good("IPv6", note),
    }
}

/// The conditions that a running node would report, found by the node's own code.
fn machine(nic: &Nic) -> Finding {
    let conditions = match &nic.conditions {
        Ok(conditions) => conditions,
        Err(error) => return Finding::unknown("machine", error.as_str()),
    };
    // These have checks of their own.
    let others = conditions.iter().filter(|it| !matches!(it.part, Part::Mtu | Part::Address));
    let mut others = others.filter(|it| !is_ipv6_elsewhere(it, nic));
    let Some(first) = others.next() else {
        return Finding::good(
            "machine",
            "links, routes and other programs' chains let a node work",
        );
    };
    let found = match first.part {
        Part::Uplink => Finding::bad("machine", &first.problem, &first.fix),
        _ => Finding::warning("machine", &first.problem, &first.fix),
    };
    found.with(others.map(ToString::to_string).collect())
}

/// Whether the check of IPv6 reports this already.
fn is_ipv6_elsewhere(condition: &Condition, nic: &Nic) -> bool {
    let is_refused = matches!(nic.ipv6, Ipv6Uplink::Refused(_));
    is_refused && condition.part == Part::DefaultRoute && condition.problem.contains("IPv6")
}

fn policy(facts: &Facts) -> Finding {
    match &facts.policy {
        Ok(true) => Finding::good("exit policy", "in force"),
        Ok(false) if facts.port.weir_runs => Finding::bad(
            "exit policy",
            "weir is running, but the kernel has no table `inet weir`: consumers' traffic is \
             blocked",
            "see `weir status`; weir restores it within a second if it can",
        ),
        Ok(false) => {
            Finding::good("exit policy", "not installed; a node installs it while it runs")
        }
        Err(error) => Finding::unknown("exit policy", error.as_str()),
    }
}

fn port(facts: &Facts) -> Finding {
    let number = facts.port.number;
    match &facts.port.free {
        Ok(()) => Finding::good("port", format!("UDP {number} is free")),
        Err(_) if facts.port.weir_runs => {
            Finding::good("port", format!("UDP {number} is used by the running weir"))
        }
        Err(why) => Finding::bad(
            "port",
            format!("UDP {number} cannot be bound: {why}"),
            "stop what uses it (ss -ulpn), or set node.listen_port",
        ),
    }
}

fn firewall(facts: &Facts) -> Finding {
    let number = facts.port.number;
    let refusals = match &facts.refusals {
        Ok(refusals) => refusals,
        Err(_) => return Finding::unknown("firewall", "unknown without root"),
    };
    let is_bypass = facts.nic.as_ref().is_ok_and(|nic| is_bypass(nic, facts));
    let mut refusals = refusals.iter().filter(|it| !(is_bypass && it.traffic.is_forwarded()));
    let Some(first) = refusals.next() else {
        return Finding::good(
            "firewall",
            format!(
                "nothing on this machine blocks UDP {number} or consumers; the provider may (test \
                 from outside)"
            ),
        );
    };
    let detail = refusals.map(|refusal| format!("{refusal}: {}", refusal.fix)).collect();
    Finding::warning("firewall", first.to_string(), first.fix.as_str()).with(detail)
}

fn conntrack(facts: &Facts) -> Finding {
    let flows = match &facts.conntrack {
        Ok(flows) => flows,
        Err(error) => return Finding::unknown("flow table", error.as_str()),
    };
    let found = format!("{} of {} flows", flows.count, flows.max);
    let fix = |max: u64| format!("sysctl -w net.netfilter.nf_conntrack_max={max}");
    if flows.count.saturating_mul(10) >= flows.max.saturating_mul(8) {
        let found =
            format!("{found}: nearly full; when it is full, new flows of consumers are dropped");
        return Finding::bad("flow table", found, fix(flows.max.saturating_mul(4).max(262_144)));
    }
    if flows.max < 65_536 {
        let found = format!("{found}: few for a node (a browsing consumer has some hundreds)");
        return Finding::warning("flow table", found, fix(262_144));
    }
    Finding::good("flow table", found)
}
