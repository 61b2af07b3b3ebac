//! Why the kernel must route consumers' packets itself.

use std::net::IpAddr;

use ipnet::IpNet;

/// Why packets cannot be sent without the kernel's routing: a packet path that knows one gateway and
/// the networks on the link would send them elsewhere than the kernel does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPlain {
    /// There is no such interface any more.
    #[error("the uplink {uplink} is gone. Fix: connect it, and restart weir")]
    Gone {
        /// The uplink.
        uplink: String,
    },
    /// Frames of the interface have no Ethernet header.
    #[error(
        "frames of {uplink} have no Ethernet header: its link layer is {layer}. Fix: set \
         node.uplink to an Ethernet interface"
    )]
    NoEthernet {
        /// The uplink.
        uplink: String,
        /// Its link layer.
        layer: String,
    },
    /// The interface is made of others.
    #[error(
        "{uplink} is a {kind} device, and other interfaces send its frames. Fix: set node.uplink \
         to an interface without others below it"
    )]
    Composite {
        /// The uplink.
        uplink: String,
        /// Its kind, as `ip -d link` shows it.
        kind: String,
    },
    /// The interface is a port of another one.
    #[error(
        "{uplink} is a port of the interface {controller}, which decides about its frames. Fix: \
         take it out: ip link set {uplink} nomaster"
    )]
    IsPort {
        /// The uplink.
        uplink: String,
        /// The bridge, bond or VRF.
        controller: String,
    },
    /// A routing rule that is not one of the kernel's own.
    #[error(
        "{family} has policy routing: the rule of priority {priority} leads elsewhere than to the \
         table main. Fix: remove it: ip {flag} rule del priority {priority}"
    )]
    Rule {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The option of `ip` for the family.
        flag: &'static str,
        /// Its priority.
        priority: u32,
    },
    /// There are several gateways for one destination.
    #[error(
        "{destination} has several next hops: {hops}. Fix: leave one route to it, or give each a \
         metric of its own"
    )]
    SeveralNextHops {
        /// The destination; all zeros for the default route.
        destination: IpNet,
        /// The next hops, in words.
        hops: String,
    },
    /// The default route has no gateway.
    #[error(
        "the default route {destination} over {uplink} has no gateway, so every address of the \
         internet is a neighbour. Fix: name one: ip route replace default via ROUTER dev {uplink}"
    )]
    NoGateway {
        /// The uplink.
        uplink: String,
        /// The destination of the default route.
        destination: IpNet,
    },
    /// Packets of a family leave by another interface.
    #[error(
        "the route to {destination} uses {interface}, not {uplink}. Fix: route it over {uplink}, \
         or set node.uplink to {interface}"
    )]
    Elsewhere {
        /// The destination.
        destination: IpNet,
        /// The interface of the route.
        interface: String,
        /// The uplink.
        uplink: String,
    },
    /// A network is behind a gateway of its own.
    #[error(
        "{destination} has a gateway of its own: {gateway}. Fix: remove the route: ip route del \
         {destination}"
    )]
    OtherGateway {
        /// The destination.
        destination: IpNet,
        /// Its gateway.
        gateway: IpAddr,
    },
    /// The kernel drops packets to an address of the internet.
    #[error(
        "the route to {destination} drops packets. Fix: add {destination} to a list of \
         policy.block_files, and remove the route: ip route del {kind} {destination}"
    )]
    Dropped {
        /// The destination.
        destination: IpNet,
        /// The kind of the route, as `ip route` shows it.
        kind: &'static str,
    },
    /// A route that asks for more than the destination, or changes the packet.
    #[error("the route to {destination} {what}. Fix: remove it: ip route del {destination}")]
    Special {
        /// The destination.
        destination: IpNet,
        /// What is special about it.
        what: &'static str,
    },
    /// More routes than are followed.
    #[error(
        "more than {max} routes use {uplink}. Fix: replace them by a default route, if they have \
         one gateway"
    )]
    TooManyRoutes {
        /// The uplink.
        uplink: String,
        /// The most that are followed.
        max: usize,
    },
}
