//! Finds other programs' chains that refuse the node's packets.
//!
//! A packet passes a hook only if every chain there accepts it. weir's own verdict overrules no
//! other, so a chain that refuses one of the node's packets blocks the node, or a part of it.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    super::uplink::networks,
    NAME, NftError, Policy,
    evaluate::{ESTABLISHED, Fate, NEW, Packet},
    gate,
    kernel::{self, BaseChain},
    legacy,
};
use weir_config::Config;

/// A kind of packet that the node depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Packets from consumers to the internet.
    ConsumersOut,
    /// Answers from the internet to consumers.
    ConsumersIn,
    /// Datagrams from consumers to the node's port.
    ToPort,
    /// Datagrams from the node to consumers.
    FromPort,
    /// Unknown.
    Unknown,
}

/// Another program's chain that refuses packets of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Family, table and chain, as `nft` names them.
    pub chain: String,
    /// The refused packets.
    pub traffic: Traffic,
    /// The command that makes it accept them.
    pub fix: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.traffic == Traffic::Unknown {
            return write!(f, "the firewall's chain {} may refuse consumers", self.chain);
        }
        let what = match self.traffic {
            Traffic::ConsumersOut => "traffic from consumers to the internet",
            Traffic::ConsumersIn => "answers from the internet to consumers",
            Traffic::ToPort => "traffic from consumers to the node's port",
            Traffic::FromPort | Traffic::Unknown => "traffic from the node to consumers",
        };
        write!(f, "the firewall's chain {} refuses {what}", self.chain)
    }
}

/// The interfaces, addresses and port of the node's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The TUN device.
    pub interface: String,
    /// The interface towards the internet and the consumers.
    pub uplink: String,
    /// The uplink for IPv6.
    pub uplink_v6: String,
    /// The UDP port of the node.
    pub listen_port: u16,
    /// A consumer's address, for each family.
    pub consumer_v4: Ipv4Addr,
    /// A consumer's address, for each family.
    pub consumer_v6: Ipv6Addr,
    /// The indices of the known interfaces, by name.
    pub indices: HashMap<String, u32>,
    /// Whether the uplink has IPv6, so that a rule for IPv4 alone does not suffice.
    pub has_ipv6: bool,
    /// Whether the kernel forwards consumers' packets, and its chains can refuse them.
    pub is_forwarded: bool,
}

impl Site {
    /// The site of a policy.
    #[must_use]
    pub fn of_policy(policy: &Policy) -> Self {
        let uplinks = [&policy.uplink, policy.uplink_v6.as_ref().unwrap_or(&policy.uplink)];
        Self::new(
            (&policy.interface, uplinks.map(String::as_str), policy.listen_port),
            (policy.pool_v4.hosts().nth(1)).unwrap_or(policy.gateway_v4),
            (policy.pool_v6.hosts().nth(1)).unwrap_or(policy.gateway_v6),
        )
    }

    /// The site of a node that has not started, with these uplinks for IPv4 and IPv6.
    #[must_use]
    pub fn of_config(config: &Config, uplinks: [&str; 2]) -> Self {
        let (tunnel, plan) = (&config.tunnel, config.tunnel.plan());
        Self::new(
            (&tunnel.interface, uplinks, config.node.listen_port),
            tunnel.pool_v4.hosts().nth(1).unwrap_or(plan.gateway_v4()),
            tunnel.pool_v6.hosts().nth(1).unwrap_or(plan.gateway_v6()),
        )
    }

    fn new(
        (interface, [uplink, uplink_v6], listen_port): (&str, [&str; 2], u16),
        consumer_v4: Ipv4Addr,
        consumer_v6: Ipv6Addr,
    ) -> Self {
        let index =
            |name: &&str| Some(((*name).to_owned(), super::super::tun::index_of(name).ok()?));
        let names = [interface, uplink, uplink_v6, "lo"];
        Self {
            interface: interface.to_owned(),
            uplink: uplink.to_owned(),
            uplink_v6: uplink_v6.to_owned(),
            listen_port,
            consumer_v4,
            consumer_v6,
            indices: names.iter().filter_map(index).collect(),
            has_ipv6: networks().is_ok_and(|networks| {
                networks.iter().any(|(name, network)| {
                    let IpAddr::V6(address) = network.addr() else { return false };
                    *name == uplink_v6 && !address.is_unicast_link_local()
                })
            }),
            is_forwarded: true,
        }
    }

    /// Whether packets of this kind pass the kernel's chains.
    pub(super) fn has(&self, traffic: Traffic) -> bool {
        self.is_forwarded || !traffic.is_forwarded()
    }
}

/// Hooks, as the kernel numbers them (NF_INET_*).
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// NF_IP_PRI_CONNTRACK: at a lower priority, a packet has no flow yet.
const CONNTRACK: i32 = -200;

/// A host on the internet whose address and port few rules name.
const SOMEBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
];
const THEIR_PORT: u16 = 443;
const OTHER_PORT: u16 = 40_000;

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;

impl Traffic {
    const ALL: [Self; 4] = [Self::ToPort, Self::FromPort, Self::ConsumersOut, Self::ConsumersIn];

    /// Whether it leaves the host by another interface than it came, if the kernel routes it.
    #[must_use]
    pub fn is_forwarded(self) -> bool {
        matches!(self, Self::ConsumersOut | Self::ConsumersIn)
    }

    /// A made-up packet of this kind at a hook, or `None` if they do not pass it.
    fn at(self, site: &Site, hook: u32, priority: i32, is_v4: bool) -> Option<Packet> {
        let uplink = if is_v4 { &site.uplink } else { &site.uplink_v6 };
        let (tunnel, uplink) = (Some(site.interface.clone()), Some(uplink.clone()));
        let (hooks, iifname, oifname): (&[u32], _, _) = match self {
            Self::ConsumersOut => (&[PREROUTING, FORWARD, POSTROUTING], tunnel, uplink),
            Self::ConsumersIn => (&[PREROUTING, FORWARD, POSTROUTING], uplink, tunnel),
            Self::ToPort => (&[PREROUTING, INPUT], uplink, None),
            Self::FromPort => (&[OUTPUT, POSTROUTING], None, uplink),
            Self::Unknown => return None,
        };
        hooks.contains(&hook).then_some(())?;
        let somebody = Some(SOMEBODY[usize::from(!is_v4)]);
        let consumer = Some(if is_v4 { site.consumer_v4.into() } else { site.consumer_v6.into() });
        let untranslated = hook == PREROUTING;
        let (source, target, ports, protocol, ct_state) = match self {
            Self::ConsumersOut => (consumer, somebody, (OTHER_PORT, THEIR_PORT), TCP, NEW),
            Self::ConsumersIn => {
                let target = consumer.filter(|_| !untranslated);
                (somebody, target, (THEIR_PORT, OTHER_PORT), TCP, ESTABLISHED)
            }
            Self::ToPort => (somebody, None, (OTHER_PORT, site.listen_port), UDP, NEW),
            Self::FromPort | Self::Unknown => {
                (None, somebody, (site.listen_port, OTHER_PORT), UDP, ESTABLISHED)
            }
        };
        let is_tracked = !matches!(hook, PREROUTING | OUTPUT) || priority > CONNTRACK;
        let mut network = header(is_v4, protocol, source, target);
        let transport = network.len();
        network.extend([ports.0, ports.1].iter().flat_map(|port| port.to_be_bytes()).map(Some));
        network.extend([None; 8]);
        // TCP flags: SYN or ACK.
        network.extend([Some(0x50), Some(if ct_state == NEW { 0x02 } else { 0x10 })]);
        Some(Packet {
            family: if is_v4 { libc::AF_INET } else { libc::AF_INET6 } as u8,
            iifname: iifname.filter(|_| hook != POSTROUTING),
            oifname: oifname.filter(|_| hook != PREROUTING),
            indices: site.indices.clone(),
            ct_state: is_tracked.then_some(ct_state),
            protocol,
            network,
            transport,
            ours: match self {
                Self::ConsumersOut | Self::ConsumersIn => vec![site.interface.clone().into()],
                Self::ToPort | Self::FromPort | Self::Unknown => {
                    vec![site.listen_port.to_be_bytes().to_vec()]
                }
            },
        })
    }

    /// The match in iptables' syntax.
    pub(super) fn iptables_rule(self, site: &Site) -> String {
        let Site { interface, uplink, listen_port, .. } = site;
        match self {
            Self::ConsumersOut => format!("-i {interface}"),
            Self::ConsumersIn => format!("-o {interface}"),
            Self::ToPort => format!("-i {uplink} -p udp --dport {listen_port}"),
            Self::FromPort | Self::Unknown => format!("-o {uplink} -p udp --sport {listen_port}"),
        }
    }

    /// The command that makes a chain accept these packets.
    fn fix(self, chain: &BaseChain, site: &Site) -> String {
        let Site { interface, listen_port, .. } = site;
        let BaseChain { family, table, name, .. } = chain;
        // Tables that iptables manages must be changed with iptables.
        let is_iptables = ["filter", "mangle", "raw", "security"].contains(&table.as_str());
        let by_iptables =
            *family != "inet" && is_iptables && name.bytes().all(|byte| byte.is_ascii_uppercase());
        if by_iptables {
            let command = if *family == "ip" { "iptables" } else { "ip6tables" };
            let rule = self.iptables_rule(site);
            return format!("{command} -t {table} -I {name} {rule} -j ACCEPT");
        }
        let rule = match self {
            Self::ConsumersOut => format!("iifname {interface}"),
            Self::ConsumersIn => format!("oifname {interface}"),
            Self::ToPort => format!("udp dport {listen_port}"),
            Self::FromPort | Self::Unknown => format!("udp sport {listen_port}"),
        };
        format!("nft insert rule {family} {table} {name} {rule} accept")
    }
}

/// An IP header; unknown bytes are `None`.
fn header(
    is_v4: bool,
    protocol: u8,
    source: Option<IpAddr>,
    target: Option<IpAddr>,
) -> Vec<Option<u8>> {
    let length = if is_v4 { 4 } else { 16 };
    let bytes = |address: Option<IpAddr>| match address {
        Some(IpAddr::V4(address)) => address.octets().map(Some).to_vec(),
        Some(IpAddr::V6(address)) => address.octets().map(Some).to_vec(),
        None => vec![None; length],
    };
    let mut header: Vec<Option<u8>> = if is_v4 {
        // DF, and a TTL of 64.
        let fixed = [Some(0x45), Some(0), None, None, None, None, Some(0x40), Some(0), Some(64)];
        [&fixed[..], &[Some(protocol), None, None]].concat()
    } else {
        let fixed = [Some(0x60), Some(0), Some(0), Some(0), None, None];
        [&fixed[..], &[Some(protocol), Some(64)]].concat()
    };
    header.extend(bytes(source));
    header.extend(bytes(target));
    header
}

/// Lists other tables' chains that refuse the node's packets, each with the command to fix it.
///
/// # Errors
///
/// Fails if the kernel's tables cannot be read.
pub fn foreign_drops(site: &Site) -> Result<Vec<Refusal>, NftError> {
    let is_own = |chain: &BaseChain| [NAME, gate::NAME].contains(&chain.table.as_str());
    let mut tables = HashMap::new();
    let mut refusals: Vec<Refusal> = Vec::new();
    let all = kernel::base_chains().map_err(NftError::Ask)?;
    for chain in all.iter().filter(|it| !is_own(it) && it.kind != "nat") {
        let key = (chain.number, chain.table.clone());
        if !tables.contains_key(&key) {
            let chains = kernel::chains(chain.number, &chain.table).map_err(NftError::Ask)?;
            tables.insert(key.clone(), chains);
        }
        let Some(rules) = tables.get(&key) else { continue };
        let policy = if chain.drops { Fate::Refused } else { Fate::Accepted };
        let families: &[bool] = match chain.family {
            "ip" => &[true],
            "ip6" => &[false],
            _ if site.has_ipv6 => &[true, false],
            _ => &[true],
        };
        for traffic in Traffic::ALL.into_iter().filter(|traffic| site.has(*traffic)) {
            let refuses = |is_v4: &bool| {
                let packet = traffic.at(site, chain.hook, chain.priority, *is_v4);
                packet.is_some_and(|packet| {
                    rules.judge(&chain.name, policy, &packet) == Fate::Refused
                })
            };
            if families.iter().any(refuses) {
                refusals.push(Refusal {
                    chain: format!("{} {} {}", chain.family, chain.table, chain.name),
                    traffic,
                    fix: traffic.fix(chain, site),
                });
            }
        }
    }
    refusals.extend(legacy::refusals(site));
    Ok(refusals)
}
