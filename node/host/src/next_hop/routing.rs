//! What the kernel knows of the way to the internet, without the forms of netlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteType, RouteVia,
    },
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use weir_packet::ethernet::MacAddress;

use crate::{
    netlink::{self, NetlinkError},
    uplink,
};

/// The most routes that are read: a machine with more is no plain one.
pub(super) const MAX_ROUTES: usize = 4096;

/// All of it, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routing {
    /// All interfaces.
    pub(super) links: Vec<Link>,
    /// All routing rules.
    pub(super) rules: Vec<Rule>,
    /// The routes of the table main that can matter to the uplink; at most [`MAX_ROUTES`] and one.
    pub(super) routes: Vec<Route>,
    /// The uplink's neighbours.
    pub(super) neighbours: Vec<Neighbour>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// In bytes.
    pub(super) mtu: u32,
    /// What its frames begin with; `None` for Ethernet.
    pub(super) other_layer: Option<String>,
    pub(super) mac: Option<MacAddress>,
    /// Of a virtual interface, as `ip -d link` shows it.
    pub(super) kind: Option<String>,
    /// The interface that it is a port of.
    pub(super) controller: Option<u32>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// A routing rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) family: Family,
    pub(super) priority: u32,
    /// Whether it is one of those that the kernel has by itself.
    pub(super) is_usual: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) destination: IpNet,
    pub(super) metric: u32,
    pub(super) action: Action,
    /// What it asks for beside the destination, or does to the packet.
    pub(super) special: Option<&'static str>,
    /// A lower MTU than the interface's.
    pub(super) mtu: Option<u32>,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It sends packets to one of these.
    Send(Vec<Hop>),
    /// It drops packets. The kind of the route, as `ip route` shows it.
    Drop(&'static str),
}

/// One next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hop {
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) address: IpAddr,
    pub(super) mac: Option<MacAddress>,
    pub(super) state: State,
}

/// What the kernel thinks of a neighbour's Ethernet address (`include/uapi/linux/neighbour.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It holds, or is being confirmed.
    Fresh,
    /// Somebody else keeps it: an operator, or a program.
    Kept,
    /// It held some time ago.
    Stale,
    /// It is being asked for.
    Resolving,
    /// There is none.
    Failed,
}

impl Routing {
    /// Reads it for the uplink with this number.
    pub(super) fn read(index: u32) -> Result<Self, NetlinkError> {
        netlink::run(async |handle| {
            let mut routes = Vec::new();
            let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
            let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
            for question in [v4, v6] {
                let mut found = handle.route().get(question).execute();
                while let Some(message) = found.try_next().await? {
                    if routes.len() <= MAX_ROUTES {
                        routes.extend(route(&message).filter(|route| route.matters(index)));
                    }
                }
            }
            Ok(Self {
                links: uplink::links(&handle).await?.iter().filter_map(link).collect(),
                rules: rules(&handle).await?,
                routes,
                neighbours: neighbours(&handle, index).await?,
            })
        })
    }
}

impl Route {
    /// Whether packets to the internet can depend on it.
    fn matters(&self, uplink: u32) -> bool {
        match &self.action {
            Action::Drop(_) => true,
            Action::Send(hops) => self.is_wide() || hops.iter().any(|hop| hop.interface == uplink),
        }
    }

    /// Whether it is a default route, or one of the few that together stand for one, as those of a
    /// VPN do.
    pub(super) fn is_wide(&self) -> bool {
        let narrow = if matches!(self.destination, IpNet::V4(_)) { 8 } else { 16 };
        self.destination.prefix_len() < narrow
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: uplink::name_of(message)?,
        mtu: uplink::mtu_of(message).unwrap_or_default(),
        other_layer: match message.header.link_layer_type {
            LinkLayerType::Ether => None,
            other => Some(format!("{other:?}").to_lowercase()),
        },
        mac: None,
        kind: None,
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(address) => link.mac = mac(address),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}

fn mac(bytes: &[u8]) -> Option<MacAddress> {
    bytes.try_into().ok().map(MacAddress)
}

async fn rules(handle: &Handle) -> Result<Vec<Rule>, rtnetlink::Error> {
    let mut rules = Vec::new();
    for (version, family) in [(IpVersion::V4, Family::V4), (IpVersion::V6, Family::V6)] {
        match handle.rule().get(version).execute().try_collect::<Vec<_>>().await {
            Ok(found) => rules.extend(found.iter().map(|message| rule(family, message))),
            // A kernel without the family, or without rules at all.
            Err(rtnetlink::Error::NetlinkError(error))
                if [-libc::EOPNOTSUPP, -libc::EAFNOSUPPORT].contains(&error.raw_code()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rules)
}

/// RT_TABLE_DEFAULT, RT_TABLE_MAIN, RT_TABLE_LOCAL.
const USUAL_TABLES: [u32; 3] = [253, 254, 255];

fn rule(family: Family, message: &RuleMessage) -> Rule {
    let header = &message.header;
    let mut priority = 0;
    let mut table = u32::from(header.table);
    let mut is_of_vrf = false;
    let mut is_plain = header.src_len == 0
        && header.dst_len == 0
        && header.tos == 0
        && !header.flags.contains(RuleFlags::Invert);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::L3MDev(value) => is_of_vrf = *value,
            RuleAttribute::Protocol(_) => {}
            // What all rules have, which suppress nothing.
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            _ => is_plain = false,
        }
    }
    // The kernel makes the rule of VRFs with the first of them. It is of no interface outside them.
    let leads_to_usual = USUAL_TABLES.contains(&table) || is_of_vrf;
    let is_usual = is_plain && header.action == RuleAction::ToTable && leads_to_usual;
    Rule { family, priority, is_usual }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The gateway, which of IPv4 can be one of IPv6 (RFC 5549).
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(gateway) => address(gateway),
        RouteAttribute::Via(RouteVia::Inet(gateway)) => Some(IpAddr::V4(*gateway)),
        RouteAttribute::Via(RouteVia::Inet6(gateway)) => Some(IpAddr::V6(*gateway)),
        _ => None,
    })
}

/// A route of the table main that is in use.
fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let is_main = table.unwrap_or(header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN);
    if !is_main || header.flags.intersects(RouteFlags::Dead | RouteFlags::Cloned) {
        return None;
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut destination, mut metric, mut mtu, mut interface) = (any, 0, None, None);
    let mut hops = Vec::new();
    let mut special = match (header.tos, header.source_prefix_length) {
        (0, 0) => None,
        (_, 0) => Some("is for one type of service only"),
        _ => Some("is for some source addresses only"),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = address(to)?,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::EncapType(_) => special = Some("puts packets into others"),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::MultiPath(all) => hops.extend(all.iter().map(|hop| Hop {
                interface: hop.interface_index,
                gateway: gateway(&hop.attributes),
            })),
            _ => {}
        }
    }
    if let (true, Some(interface)) = (hops.is_empty(), interface) {
        hops.push(Hop { interface, gateway: gateway(&message.attributes) });
    }
    let action = match header.kind {
        RouteType::Unicast => Action::Send(hops),
        RouteType::BlackHole => Action::Drop("blackhole"),
        RouteType::Unreachable => Action::Drop("unreachable"),
        RouteType::Prohibit => Action::Drop("prohibit"),
        RouteType::Throw => Action::Drop("throw"),
        _ => return None,
    };
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?.trunc();
    Some(Route { destination, metric, action, special, mtu })
}

async fn neighbours(handle: &Handle, index: u32) -> Result<Vec<Neighbour>, rtnetlink::Error> {
    let mut neighbours = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut found = handle.neighbours().get().set_address_family(family).execute();
        while let Some(message) = found.try_next().await? {
            if message.header.ifindex == index {
                neighbours.extend(neighbour(&message));
            }
        }
    }
    Ok(neighbours)
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut link_address) = (None, None);
    let mut is_kept = message.header.flags.contains(NeighbourFlags::ExtLearned);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => {
                address = Some(IpAddr::V4(*to));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => {
                address = Some(IpAddr::V6(*to));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => link_address = mac(bytes),
            NeighbourAttribute::ExtFlags(flags) => {
                is_kept |= flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    let state = match message.header.state {
        NeighbourState::Permanent | NeighbourState::Noarp => State::Kept,
        NeighbourState::Incomplete => State::Resolving,
        NeighbourState::Reachable | NeighbourState::Delay | NeighbourState::Probe => State::Fresh,
        NeighbourState::Stale if is_kept => State::Kept,
        NeighbourState::Stale => State::Stale,
        _ => State::Failed,
    };
    Some(Neighbour { address: address?, mac: link_address, state })
}
