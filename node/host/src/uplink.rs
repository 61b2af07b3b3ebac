//! The uplink: the interface towards the internet and the consumers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

mod ipv6_uplink;

pub use ipv6_uplink::Ipv6Uplink;

use super::netlink::{self, NetlinkError};
use weir_config::{Auto, Config, HostPort};

/// An interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its IPv4 addresses.
    pub v4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, without the link-local ones.
    pub v6: Vec<Ipv6Addr>,
    /// By which interface IPv6 leaves this machine.
    pub ipv6: Ipv6Uplink,
    /// The interfaces that it is made of, as a bond is, or a bridge.
    pub ports: Vec<String>,
}

/// Why there is no uplink.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// No default route.
    #[error(
        "this machine has no default route, by which weir finds its uplink. Fix: connect it to \
         the internet, or name the interface as node.uplink in the configuration. Interfaces: {0}."
    )]
    NoDefaultRoute(String),
    /// No interface of that name.
    #[error(
        "no interface {name:?}. Fix: set node.uplink to one of these, or to \"auto\": {others}."
    )]
    Unknown {
        /// The name in the configuration.
        name: String,
        /// The interfaces that exist.
        others: String,
    },
    /// The kernel does not say.
    #[error("cannot read the kernel's interfaces and routes: {0}")]
    Netlink(#[from] NetlinkError),
}

impl Uplink {
    /// The interface that the configuration names, or that of the default route: of IPv4, else
    /// of IPv6.
    ///
    /// # Errors
    ///
    /// Fails when there is none, and says which interfaces there are.
    pub fn find(wanted: &Auto<String>) -> Result<Self, UplinkError> {
        let (links, addresses, v4, v6) = netlink::run(async |handle| {
            let v4 = default_route(&handle, IpVersion::V4).await?;
            let v6 = default_route(&handle, IpVersion::V6).await?;
            Ok((links(&handle).await?, addresses(&handle).await?, v4, v6))
        })?;
        let names = || {
            let names: Vec<String> = links.iter().filter_map(name_of).collect();
            names.join(", ")
        };
        let link = match wanted {
            Auto::Set(name) => links
                .iter()
                .find(|link| name_of(link).as_ref() == Some(name))
                .ok_or_else(|| UplinkError::Unknown { name: name.clone(), others: names() })?,
            Auto::Auto => v4
                .or(v6)
                .and_then(|index| links.iter().find(|link| link.header.index == index))
                .ok_or_else(|| UplinkError::NoDefaultRoute(names()))?,
        };
        let index = link.header.index;
        let elsewhere = v6.filter(|v6| *v6 != index);
        let elsewhere = elsewhere.and_then(|v6| links.iter().find(|link| link.header.index == v6));
        let ipv6 = match (elsewhere.and_then(name_of), wanted) {
            (None, _) => Ipv6Uplink::Same,
            (Some(name), Auto::Auto) => Ipv6Uplink::Other(name),
            (Some(name), Auto::Set(_)) => Ipv6Uplink::Refused(name),
        };
        let is_port = |link: &&LinkMessage| {
            link.attributes
                .iter()
                .any(|it| matches!(it, LinkAttribute::Controller(of) if *of == index))
        };
        let own = || {
            let own = addresses.iter().filter(|address| address.header.index == index);
            own.filter_map(network_of)
        };
        Ok(Self {
            name: name_of(link).unwrap_or_default(),
            index,
            mtu: mtu_of(link).unwrap_or_default(),
            v4: own()
                .filter_map(|net| if let IpNet::V4(net) = net { Some(net.addr()) } else { None })
                .collect(),
            v6: own()
                .filter_map(|net| if let IpNet::V6(net) = net { Some(net.addr()) } else { None })
                .filter(|address| !address.is_unicast_link_local())
                .collect(),
            ipv6,
            ports: links.iter().filter(is_port).filter_map(name_of).collect(),
        })
    }

    /// Its addresses, IPv4 before IPv6.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }

    /// What consumers are told to send to: the configured endpoint, or the first address of the
    /// uplink, IPv4 before IPv6. `None` without either.
    #[must_use]
    pub fn endpoint(&self, config: &Config) -> Option<HostPort> {
        if let Auto::Set(endpoint) = &config.node.endpoint {
            return Some(endpoint.clone());
        }
        let address = self.addresses().next()?;
        Some(HostPort { host: address.to_string(), port: config.node.listen_port })
    }
}

/// Every address of this machine.
///
/// # Errors
///
/// Fails when the kernel does not say.
pub fn own_addresses() -> Result<Vec<IpAddr>, NetlinkError> {
    Ok(networks()?.into_iter().map(|(_, network)| network.addr()).collect())
}

/// The networks in use on this machine, with the interface of each.
pub(super) fn networks() -> Result<Vec<(String, IpNet)>, NetlinkError> {
    let (links, addresses) =
        netlink::run(async |handle| Ok((links(&handle).await?, addresses(&handle).await?)))?;
    let named = |address: &AddressMessage| {
        let link = links.iter().find(|link| link.header.index == address.header.index)?;
        Some((name_of(link)?, network_of(address)?))
    };
    Ok(addresses.iter().filter_map(named).collect())
}

/// How an XDP program is attached to an interface, in a word; `None` without one.
///
/// # Errors
///
/// Fails when the kernel does not say.
pub fn attached_xdp(index: u32) -> Result<Option<String>, NetlinkError> {
    let links = netlink::run(async |handle| links(&handle).await)?;
    let link = links.iter().find(|link| link.header.index == index);
    let attributes = link.map(|link| link.attributes.as_slice()).unwrap_or_default();
    let xdp = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => xdp.iter().find_map(|part| match part {
            LinkXdp::Attached(attached) => Some(*attached),
            _ => None,
        }),
        _ => None,
    });
    Ok(match xdp {
        None | Some(XdpAttached::None) => None,
        Some(XdpAttached::Driver) => Some("native".into()),
        Some(XdpAttached::SocketBuffer) => Some("generic".into()),
        Some(other) => Some(format!("{other:?}").to_lowercase()),
    })
}

/// Whether frames of an interface begin with an Ethernet header, which the guard looks behind: those
/// of PPP, TUN and IP-in-IP tunnels do not. An interface that is gone counts as one with.
///
/// # Errors
///
/// Fails when the kernel does not say.
pub fn has_ethernet_header(index: u32) -> Result<bool, NetlinkError> {
    let links = netlink::run(async |handle| links(&handle).await)?;
    let link = links.iter().find(|link| link.header.index == index);
    let kind = link.map(|link| link.header.link_layer_type);
    Ok(matches!(kind, None | Some(LinkLayerType::Ether | LinkLayerType::Loopback)))
}

pub(super) async fn links(handle: &Handle) -> Result<Vec<LinkMessage>, rtnetlink::Error> {
    handle.link().get().execute().try_collect().await
}

pub(super) async fn addresses(handle: &Handle) -> Result<Vec<AddressMessage>, rtnetlink::Error> {
    handle.address().get().execute().try_collect().await
}

/// The interface of a family's default route with the least metric.
pub(super) async fn default_route(
    handle: &Handle,
    version: IpVersion,
) -> Result<Option<u32>, rtnetlink::Error> {
    let question = match version {
        IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let routes: Vec<RouteMessage> = handle.route().get(question).execute().try_collect().await?;
    let default = routes
        .iter()
        .filter(|route| {
            route.header.destination_prefix_length == 0
                && route.header.kind == RouteType::Unicast
                && route.header.table == RouteHeader::RT_TABLE_MAIN
        })
        .filter_map(|route| Some((metric_of(route), interface_of(route)?)))
        .min();
    Ok(default.map(|(_, index)| index))
}

fn metric_of(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or_default()
}

fn interface_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    })
}

pub(super) fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

pub(super) fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

pub(super) fn network_of(message: &AddressMessage) -> Option<IpNet> {
    // The local address of a point-to-point interface is not its `Address`, which is the peer's.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    debug_assert!(
        matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6),
        "only IP addresses are asked for"
    );
    IpNet::new(address, message.header.prefix_len).ok()
}
