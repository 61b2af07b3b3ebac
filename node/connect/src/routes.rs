//! Routing through the tunnel: a table of its own, and rules that send everything there but the
//! tunnel's own datagrams. All of it has our protocol number, and is found and removed by that.
//!
//! | priority | rule | why |
//! |---|---|---|
//! | 5199 | `--via`: the mark of datagrams to an exit: the entry's table | two tunnels |
//! | 5200 | DHCP's ports: table main | a lease is renewed on the local link |
//! | 5201 | to the endpoint: table main, or the entry's | a strict reverse path filter looks answers up without a mark |
//! | 5202 | `--lan`: to private addresses: table main without its default route | the local network |
//! | 5203 | all without the mark: the tunnel's table | |
//!
//! The table ends in an unreachable default route of each family. It stays when the tunnel goes, so
//! that nothing falls through to the table main, and a family without an exit is refused at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, IpProtocol,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange},
};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use crate::{ENTRY_TABLE, INNER_MARK, MARK, PROTOCOL, TABLE, firewall::Lan};

const ENTRY: u32 = 5199;
const DHCP: u32 = 5200;
const ENDPOINT: u32 = 5201;
const LOCAL: u32 = 5202;
const TUNNEL: u32 = 5203;

/// The metrics of default routes in the table. The kernel takes the least that fits, so a socket
/// that is bound to the tunnel in waiting finds that one.
const ACTIVE: u32 = 10;
const WAITING: u32 = 20;
const UNREACHABLE: u32 = 0x7fff_ffff;

/// Which of two default routes a tunnel's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Everything leaves by it.
    Active,
    /// Only sockets that are bound to its interface use it.
    Waiting,
}

/// A tunnel's default routes.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The interface's number.
    pub index: u32,
    /// The consumer's address inside, if IPv4 leaves by it.
    pub v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Exit {
    /// The routes of an interface, with the consumer's address of each family that leaves by it.
    #[must_use]
    pub fn new(index: u32, v4: Option<IpAddr>, v6: Option<IpAddr>) -> Self {
        let v4 = v4.and_then(|it| if let IpAddr::V4(v4) = it { Some(v4) } else { None });
        let v6 = v6.and_then(|it| if let IpAddr::V6(v6) = it { Some(v6) } else { None });
        Self { index, v4, v6 }
    }
}

/// Refuses to go on where others use our table or priorities.
///
/// # Errors
///
/// Names what is in the way.
pub async fn check_free(handle: &Handle) -> anyhow::Result<()> {
    for version in [IpVersion::V4, IpVersion::V6] {
        for rule in rules(handle, version.clone()).await? {
            let priority = priority_of(&rule);
            if (ENTRY..=TUNNEL).contains(&priority) && !is_ours(&rule) {
                bail!(
                    "another program has a routing rule with priority {priority}, which weir uses. \
                     Fix: see \"ip rule\" and move that rule, or stop the program that added it"
                );
            }
        }
        for route in routes(handle, version).await? {
            if route.header.protocol != RouteProtocol::Other(PROTOCOL) {
                let table = table_of(&route);
                bail!(
                    "another program has routes in table {table}, which weir uses. Fix: see \"ip \
                     route show table {table}\" and stop the program that added them"
                );
            }
        }
    }
    Ok(())
}

/// Sends everything without the mark to the table, in which nothing is reachable yet. What is left
/// of a connection before is replaced.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn close(handle: &Handle, lan: Lan, hops: Hops) -> anyhow::Result<()> {
    let tables: &[u32] = match hops {
        Hops::One => &[TABLE],
        Hops::Two => &[TABLE, ENTRY_TABLE],
    };
    for table in tables {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for mut route in [v4, v6] {
            ours(&mut route, *table, UNREACHABLE);
            route.header.kind = RouteType::Unreachable;
            let added = handle.route().add(route).replace().execute().await;
            added.context("cannot add an unreachable route")?;
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut wanted = dhcp(family);
        if lan == Lan::Open {
            wanted.extend(local(family));
        }
        wanted.push(tunnel(family));
        if hops == Hops::Two {
            let mut rule = rule(family, ENTRY, ENTRY_TABLE);
            rule.attributes.push(RuleAttribute::FwMark(INNER_MARK));
            wanted.push(rule);
        }
        for rule in wanted {
            add(handle, rule).await.context("cannot add a routing rule")?;
        }
    }
    Ok(())
}

/// The number of tunnels, one in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// One.
    One,
    /// Two: to an entry, and through it to the exit.
    Two,
}

/// How a node's address is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// As without a tunnel, in the table main.
    Directly,
    /// Through the entry.
    ThroughEntry,
}

/// Lets a node's address be looked up where its datagrams go.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn add_endpoint(
    handle: &Handle,
    address: IpAddr,
    reached: Reached,
) -> anyhow::Result<()> {
    add(handle, endpoint(address, reached)).await.context("cannot add the endpoint's routing rule")
}

/// Undoes [`add_endpoint`].
///
/// # Errors
///
/// When the kernel refuses.
pub async fn remove_endpoint(
    handle: &Handle,
    address: IpAddr,
    reached: Reached,
) -> anyhow::Result<()> {
    let gone = handle.rule().del(endpoint(address, reached)).execute().await;
    ignore_missing(gone).context("cannot remove the endpoint's routing rule")
}

/// Gives a tunnel its default routes. An active one takes the place of the active one before; a
/// family that it does not carry becomes unreachable.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn set(handle: &Handle, exit: &Exit, rank: Rank) -> anyhow::Result<()> {
    let metric = metric(rank);
    for mut route in default_routes(exit) {
        ours(&mut route, TABLE, metric);
        let added = handle.route().add(route).replace().execute().await;
        added.context("cannot set the tunnel's default route")?;
    }
    if rank == Rank::Active {
        for (version, is_carried) in
            [(IpVersion::V4, exit.v4.is_some()), (IpVersion::V6, exit.v6.is_some())]
        {
            let all = routes(handle, version).await?.into_iter();
            let others = all.filter(|route| table_of(route) == TABLE);
            let stale = others.filter(|route| {
                let is_own = route.attributes.contains(&RouteAttribute::Oif(exit.index));
                match metric_of(route) {
                    ACTIVE => !is_carried || !is_own,
                    WAITING => is_own,
                    _ => false,
                }
            });
            for route in stale {
                ignore_missing(handle.route().del(route).execute().await)?;
            }
        }
    }
    Ok(())
}

/// Gives the tunnel to the entry the default routes of its table.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn set_entry(handle: &Handle, exit: &Exit) -> anyhow::Result<()> {
    for mut route in default_routes(exit) {
        ours(&mut route, ENTRY_TABLE, ACTIVE);
        let added = handle.route().add(route).replace().execute().await;
        added.context("cannot set the default route to the entry")?;
    }
    Ok(())
}

/// Gives a tunnel the default routes of the table main, in a network namespace that has nothing
/// else.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn set_only(handle: &Handle, exit: &Exit) -> anyhow::Result<()> {
    for route in default_routes(exit) {
        handle.route().add(route).execute().await.context("cannot set the default route")?;
    }
    Ok(())
}

/// The default routes of both families, as far as the tunnel carries them, without a table.
fn default_routes(exit: &Exit) -> Vec<RouteMessage> {
    let v4 = exit.v4.map(|source| {
        let builder = RouteMessageBuilder::<Ipv4Addr>::new().pref_source(source);
        builder.output_interface(exit.index).build()
    });
    let v6 = exit.v6.map(|source| {
        let builder = RouteMessageBuilder::<Ipv6Addr>::new().pref_source(source);
        builder.output_interface(exit.index).build()
    });
    v4.into_iter().chain(v6).collect()
}

/// Removes every route and rule of ours.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn remove_all(handle: &Handle) -> anyhow::Result<()> {
    for version in [IpVersion::V4, IpVersion::V6] {
        for rule in rules(handle, version.clone()).await?.into_iter().filter(is_ours) {
            let gone = handle.rule().del(rule).execute().await;
            ignore_missing(gone).context("cannot remove a routing rule")?;
        }
        for route in routes(handle, version).await? {
            if route.header.protocol == RouteProtocol::Other(PROTOCOL) {
                let gone = handle.route().del(route).execute().await;
                ignore_missing(gone).context("cannot remove a route")?;
            }
        }
    }
    Ok(())
}

const fn metric(rank: Rank) -> u32 {
    match rank {
        Rank::Active => ACTIVE,
        Rank::Waiting => WAITING,
    }
}

fn ours(route: &mut RouteMessage, table: u32, metric: u32) {
    route.header.table = RouteHeader::RT_TABLE_UNSPEC;
    route.header.protocol = RouteProtocol::Other(PROTOCOL);
    route.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Table(_)));
    route.attributes.push(RouteAttribute::Table(table));
    route.attributes.push(RouteAttribute::Priority(metric));
}

fn rule(family: AddressFamily, priority: u32, table: u32) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.attributes.push(RuleAttribute::Priority(priority));
    rule.attributes.push(RuleAttribute::Table(table));
    rule.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    rule
}

fn main_table(family: AddressFamily, priority: u32) -> RuleMessage {
    let mut rule = rule(family, priority, RouteHeader::RT_TABLE_MAIN.into());
    rule.header.table = RouteHeader::RT_TABLE_MAIN;
    rule
}

fn dhcp(family: AddressFamily) -> Vec<RuleMessage> {
    let (from, to) = if family == AddressFamily::Inet { (68, 67) } else { (546, 547) };
    let mut rule = main_table(family, DHCP);
    rule.attributes.push(RuleAttribute::IpProtocol(IpProtocol::Udp));
    rule.attributes.push(RuleAttribute::SourcePortRange(RulePortRange { start: from, end: from }));
    rule.attributes.push(RuleAttribute::DestinationPortRange(RulePortRange { start: to, end: to }));
    vec![rule]
}

fn endpoint(address: IpAddr, reached: Reached) -> RuleMessage {
    let mut rule = to(IpNet::from(address), ENDPOINT);
    if reached == Reached::ThroughEntry {
        rule.header.table = RouteHeader::RT_TABLE_UNSPEC;
        let main = RuleAttribute::Table(RouteHeader::RT_TABLE_MAIN.into());
        rule.attributes.retain(|attribute| *attribute != main);
        rule.attributes.push(RuleAttribute::Table(ENTRY_TABLE));
    }
    rule
}

fn to(network: IpNet, priority: u32) -> RuleMessage {
    let is_v6 = network.addr().is_ipv6();
    let family = if is_v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let mut rule = main_table(family, priority);
    rule.header.dst_len = network.prefix_len();
    rule.attributes.push(RuleAttribute::Destination(network.addr()));
    rule
}

fn local(family: AddressFamily) -> Vec<RuleMessage> {
    let networks: &[&str] = if family == AddressFamily::Inet {
        &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "224.0.0.0/24"]
    } else {
        &["fc00::/7", "fe80::/10", "ff02::/16"]
    };
    let networks = networks.iter().filter_map(|text| text.parse().ok());
    let rules = networks.map(|network| {
        let mut rule = to(network, LOCAL);
        rule.attributes.push(RuleAttribute::SuppressPrefixLen(0));
        rule
    });
    rules.collect()
}

fn tunnel(family: AddressFamily) -> RuleMessage {
    let mut rule = rule(family, TUNNEL, TABLE);
    rule.header.flags = RuleFlags::Invert;
    rule.attributes.push(RuleAttribute::FwMark(MARK));
    rule
}

async fn add(handle: &Handle, wanted: RuleMessage) -> Result<(), rtnetlink::Error> {
    let mut request = handle.rule().add();
    *request.message_mut() = wanted;
    match request.execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EEXIST => Ok(()),
        added => added,
    }
}

async fn rules(handle: &Handle, version: IpVersion) -> anyhow::Result<Vec<RuleMessage>> {
    let all = handle.rule().get(version).execute().try_collect().await;
    all.context("cannot read the routing rules")
}

/// All routes of our tables.
async fn routes(handle: &Handle, version: IpVersion) -> anyhow::Result<Vec<RouteMessage>> {
    let question = match version {
        IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let all: Vec<RouteMessage> =
        handle.route().get(question).execute().try_collect().await.context("cannot read routes")?;
    Ok(all.into_iter().filter(|route| [TABLE, ENTRY_TABLE].contains(&table_of(route))).collect())
}

fn table_of(route: &RouteMessage) -> u32 {
    let named = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.unwrap_or_else(|| route.header.table.into())
}

fn metric_of(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or_default()
}

fn priority_of(rule: &RuleMessage) -> u32 {
    let priority = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    priority.unwrap_or_default()
}

fn is_ours(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
}

fn ignore_missing(done: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match done {
        Err(rtnetlink::Error::NetlinkError(error))
            if [-libc::ENOENT, -libc::ESRCH].contains(&error.raw_code()) =>
        {
            Ok(())
        }
        done => done,
    }
}
