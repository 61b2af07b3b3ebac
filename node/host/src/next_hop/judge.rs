//! Whether the kernel's routes are plain, and what they come to. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weir_packet::ethernet::{MacAddress, NextHops};
use weir_policy::refused::{self, Refused};

use super::{
    Judged, NotPlain,
    routing::{Action, Family, Hop, Link, MAX_ROUTES, Neighbour, Route, Routing, State},
};
use crate::uplink::{Ipv6Uplink, Uplink};

/// The most neighbours of a snapshot. Gateways come first, then those that were asked for.
pub(super) const MAX_NEIGHBOURS: usize = 1024;
/// The most networks on the link: each of them is compared with the destination of a new flow.
const MAX_ON_LINK: usize = 64;
/// Interfaces that are made of others. Their kinds, as `ip -d link` shows them.
const COMPOSITE: [&str; 9] =
    ["vlan", "bond", "bridge", "team", "vrf", "macsec", "hsr", "batadv", "openvswitch"];

/// The next hops of the uplink, if the kernel's routes are plain. A stale neighbour is in them only
/// as a gateway, or when it is one of those `asked` for: the kernel is had to confirm these.
pub(super) fn judge(uplink: &Uplink, routing: &Routing, asked: &BTreeSet<IpAddr>) -> Judged {
    let (link, source) = link(uplink, routing)?;
    if let Some(rule) = routing.rules.iter().find(|rule| !rule.is_usual) {
        let (family, flag) = match rule.family {
            Family::V4 => ("IPv4", "-4"),
            Family::V6 => ("IPv6", "-6"),
        };
        return Err(NotPlain::Rule { family, flag, priority: rule.priority });
    }
    if routing.routes.len() > MAX_ROUTES {
        return Err(too_many(uplink, MAX_ROUTES));
    }
    if let Some(route) = routing.routes.iter().find(|route| route.special.is_some()) {
        let what = route.special.unwrap_or_default();
        return Err(NotPlain::Special { destination: route.destination, what });
    }
    let routes = Routes { uplink, routing };
    let v4 = routes.default_of(IpNet::V4(Ipv4Net::default()))?;
    let v6 = routes.default_of(IpNet::V6(Ipv6Net::default()))?;
    let gateways = [v4, v6].map(|default| default.map(|(gateway, _)| gateway));
    let on_link = routes.on_link(gateways)?;
    let lowest = [v4, v6].into_iter().filter_map(|default| default?.1).min();
    let is_wanted =
        |address: &IpAddr| gateways.contains(&Some(*address)) || asked.contains(address);
    Ok(NextHops {
        interface: link.index,
        source,
        mtu: lowest.unwrap_or(link.mtu).min(link.mtu),
        gateways,
        on_link: on_link.into_iter().map(|net| (net.addr(), net.prefix_len())).collect(),
        neighbours: neighbours(&routing.neighbours, gateways, is_wanted),
    })
}

/// The uplink's link and its Ethernet address.
fn link<'r>(uplink: &Uplink, routing: &'r Routing) -> Result<(&'r Link, MacAddress), NotPlain> {
    let name = || uplink.name.clone();
    let Some(link) = routing.links.iter().find(|link| link.index == uplink.index) else {
        return Err(NotPlain::Gone { uplink: name() });
    };
    if let Some(layer) = &link.other_layer {
        return Err(NotPlain::NoEthernet { uplink: name(), layer: layer.clone() });
    }
    let is_port = |port: &Link| port.controller == Some(link.index);
    match &link.kind {
        Some(kind) if COMPOSITE.contains(&kind.as_str()) => {
            return Err(NotPlain::Composite { uplink: name(), kind: kind.clone() });
        }
        _ if routing.links.iter().any(is_port) => {
            return Err(NotPlain::Composite { uplink: name(), kind: "composite".into() });
        }
        _ => {}
    }
    if let Some(index) = link.controller {
        return Err(NotPlain::IsPort { uplink: name(), controller: interface(routing, index) });
    }
    let no_address = || NotPlain::NoEthernet { uplink: name(), layer: "without address".into() };
    Ok((link, link.mac.ok_or_else(no_address)?))
}

fn interface(routing: &Routing, index: u32) -> String {
    let link = routing.links.iter().find(|link| link.index == index);
    link.map_or_else(|| format!("number {index}"), |link| link.name.clone())
}

fn too_many(uplink: &Uplink, max: usize) -> NotPlain {
    NotPlain::TooManyRoutes { uplink: uplink.name.clone(), max }
}

struct Routes<'a> {
    uplink: &'a Uplink,
    routing: &'a Routing,
}

impl Routes<'_> {
    /// The gateway of a family's default route, and the MTU if that sets one. `None` if the family
    /// has no default route, or one that drops packets or may not be used by consumers.
    fn default_of(&self, any: IpNet) -> Result<Option<(IpAddr, Option<u32>)>, NotPlain> {
        let all = || self.routing.routes.iter().filter(|route| route.destination == any);
        let Some(metric) = all().map(|route| route.metric).min() else { return Ok(None) };
        let best = || all().filter(|route| route.metric == metric);
        let hops: BTreeSet<Hop> = best().flat_map(hops).copied().collect();
        let hop = match (hops.len(), hops.first()) {
            (1, Some(hop)) => hop,
            (0, _) | (_, None) => return Ok(None),
            _ => return Err(self.several(any, &hops)),
        };
        if hop.interface != self.uplink.index {
            // Where the operator has named the uplink, consumers have no IPv6 by another one.
            let other_is_used =
                matches!(any, IpNet::V4(_)) || matches!(self.uplink.ipv6, Ipv6Uplink::Other(_));
            return if other_is_used { Err(self.elsewhere(any, *hop)) } else { Ok(None) };
        }
        let Some(gateway) = hop.gateway else {
            return Err(NotPlain::NoGateway { uplink: self.uplink.name.clone(), destination: any });
        };
        Ok(Some((gateway, best().filter_map(|route| route.mtu).min())))
    }

    /// The networks that are reached without a gateway.
    fn on_link(&self, gateways: [Option<IpAddr>; 2]) -> Result<Vec<IpNet>, NotPlain> {
        let others = || self.routing.routes.iter().filter(|it| it.destination.prefix_len() > 0);
        let mut on_link = BTreeSet::new();
        for route in others() {
            match &route.action {
                Action::Send(hops) if hops.iter().all(|hop| self.is_on_link(hop)) => {
                    on_link.insert(route.destination);
                }
                _ => {}
            }
        }
        if on_link.len() > MAX_ON_LINK {
            return Err(too_many(self.uplink, MAX_ON_LINK));
        }
        for route in others() {
            let destination = route.destination;
            let hops = match &route.action {
                Action::Send(hops) => hops,
                Action::Drop(kind) if is_public(destination) => {
                    return Err(NotPlain::Dropped { destination, kind });
                }
                Action::Drop(_) => continue,
            };
            let hops: BTreeSet<Hop> = hops.iter().copied().collect();
            let Some(hop) = hops.first() else { continue };
            if hops.len() > 1 {
                return Err(self.several(destination, &hops));
            }
            if hop.interface != self.uplink.index {
                if route.is_wide() && is_public(destination) {
                    return Err(self.elsewhere(destination, *hop));
                }
                // Consumers' packets do not leave by other interfaces: what is there is not reached.
                continue;
            }
            let Some(gateway) = hop.gateway else { continue };
            // A part of a network on the link can have no other way than the rest of it.
            let is_within = on_link.iter().any(|net| net.contains(&destination));
            let family = usize::from(matches!(destination, IpNet::V6(_)));
            if is_within || gateways.get(family) != Some(&Some(gateway)) {
                return Err(NotPlain::OtherGateway { destination, gateway });
            }
        }
        Ok(on_link.into_iter().collect())
    }

    fn is_on_link(&self, hop: &Hop) -> bool {
        hop.interface == self.uplink.index && hop.gateway.is_none()
    }

    fn several(&self, destination: IpNet, hops: &BTreeSet<Hop>) -> NotPlain {
        let word = |hop: &Hop| {
            let interface = interface(self.routing, hop.interface);
            match hop.gateway {
                Some(gateway) => format!("via {gateway} dev {interface}"),
                None => format!("dev {interface}"),
            }
        };
        let hops = hops.iter().map(word).collect::<Vec<_>>().join(", ");
        NotPlain::SeveralNextHops { destination, hops }
    }

    fn elsewhere(&self, destination: IpNet, hop: Hop) -> NotPlain {
        let interface = interface(self.routing, hop.interface);
        NotPlain::Elsewhere { destination, interface, uplink: self.uplink.name.clone() }
    }
}

fn hops(route: &Route) -> &[Hop] {
    match &route.action {
        Action::Send(hops) => hops,
        Action::Drop(_) => &[],
    }
}

/// Whether consumers may reach anything of a network, unless the operator has refused it.
fn is_public(network: IpNet) -> bool {
    fn covers<A: Ord>(list: &[Refused<A>], first: &A, last: &A) -> bool {
        list.iter().any(|refused| refused.low <= *first && *last <= refused.high)
    }
    let is_refused = match network {
        IpNet::V4(net) => covers::<Ipv4Addr>(refused::V4, &net.network(), &net.broadcast()),
        IpNet::V6(net) => covers::<Ipv6Addr>(refused::V6, &net.network(), &net.broadcast()),
    };
    !is_refused
}

/// The neighbours whose Ethernet addresses are used, sorted by address.
fn neighbours(
    all: &[Neighbour],
    gateways: [Option<IpAddr>; 2],
    is_wanted: impl Fn(&IpAddr) -> bool,
) -> Vec<(IpAddr, MacAddress)> {
    let usable = |neighbour: &Neighbour| {
        let mac = neighbour.mac.filter(is_of_one_station)?;
        let is_usable = match neighbour.state {
            State::Fresh | State::Kept => true,
            State::Stale => is_wanted(&neighbour.address),
            State::Resolving | State::Failed => false,
        };
        is_usable.then_some((neighbour.address, mac))
    };
    let mut found: Vec<_> = all.iter().filter_map(usable).collect();
    found.sort_unstable_by_key(|(address, _)| {
        (!gateways.contains(&Some(*address)), !is_wanted(address), *address)
    });
    found.truncate(MAX_NEIGHBOURS);
    found.sort_unstable_by_key(|(address, _)| *address);
    found
}

/// Not a broadcast or multicast address, which the kernel keeps as neighbours too.
fn is_of_one_station(mac: &MacAddress) -> bool {
    mac.0 != [0; 6] && mac.0.first().is_some_and(|first| first & 1 == 0)
}

#[cfg(test)]
#[path = "judge/tests.rs"]
mod tests;
