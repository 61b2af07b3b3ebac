//! The exit policy as an exit asks it for each new flow: the decisions of [`crate::judge`], at a
//! cost that hardly depends on the length of the lists.
//!
//! Every address has exactly one rule, whichever lists it is in. So lists, registries, pools and
//! own addresses become one table of ranges per family, and an address costs one binary search: 19
//! steps for 200,000 entries that cannot be merged. A trie would need a search for each list,
//! because an exception wins over a narrower entry of another list.

use std::net::IpAddr;

use weir_config::{PortRule, Protocol, sections::Service};

use crate::{
    lists::Lists,
    merge::Networks,
    ranges::{Bits, Range, Ranges},
    refused::{self, Refused},
    rule::RuleId,
    verdict::{FlowSpec, PolicyContext},
};

/// The decision about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it leaves.
    pub allowed: bool,
    /// The rule that decides. It is counted by the caller.
    pub rule: RuleId,
}

impl From<RuleId> for Decision {
    fn from(rule: RuleId) -> Self {
        Self { allowed: rule.allows(), rule }
    }
}

/// The exit policy of one moment. Lists, addresses of this machine and services are built in: when
/// one of them changes, build another.
#[derive(Clone, Debug)]
pub struct Compiled {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    tcp: PortSet,
    udp: PortSet,
    gateways: [IpAddr; 2],
    services: Box<[Service]>,
}

impl Compiled {
    /// Builds it from the operator's lists, and from what belongs to this machine and to the
    /// consumers.
    #[must_use]
    pub fn new(lists: &Lists, context: &PolicyContext) -> Self {
        let networks =
            [lists.blocked(), lists.allowed(), Networks::of(context.pools), context.own_networks()];
        let [block4, allow4, pools4, own4] = networks
            .each_ref()
            .map(|of| of.v4.iter().map(|(low, high)| (low.to_bits(), high.to_bits())));
        let [block6, allow6, pools6, own6] = networks
            .each_ref()
            .map(|of| of.v6.iter().map(|(low, high)| (low.to_bits(), high.to_bits())));
        Self {
            v4: Ranges::of([
                registered(refused::V4, |address| address.to_bits()),
                layer(RuleId::BlockedDestination, block4),
                layer(RuleId::Allowed, allow4),
                layer(RuleId::ConsumerToConsumer, pools4),
                layer(RuleId::HostDestination, own4),
            ]),
            v6: Ranges::of([
                registered(refused::V6, |address| address.to_bits()),
                layer(RuleId::BlockedDestination, block6),
                layer(RuleId::Allowed, allow6),
                layer(RuleId::ConsumerToConsumer, pools6),
                layer(RuleId::HostDestination, own6),
            ]),
            tcp: PortSet::of(lists, Protocol::Tcp),
            udp: PortSet::of(lists, Protocol::Udp),
            gateways: context.gateways,
            services: context.services.clone().into(),
        }
    }

    /// Decides about a flow of TCP or UDP as [`crate::judge`] does.
    #[must_use]
    #[inline]
    pub fn judge(&self, flow: &FlowSpec) -> Decision {
        let FlowSpec { address, port, protocol } = *flow;
        if self.gateways.contains(&address) && self.services.contains(&Service { protocol, port }) {
            return RuleId::Service.into();
        }
        let rule = self.find(address);
        let blocked = match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        };
        if !rule.allows() || !blocked.contains(port) {
            return rule.into();
        }
        match (protocol, port) {
            (Protocol::Tcp, 25) => RuleId::Smtp.into(),
            _ => RuleId::BlockedPort.into(),
        }
    }

    /// Decides about a flow of a protocol without ports, such as an ICMP echo. Only its destination
    /// counts, as in the kernel's table: its rules on ports match TCP and UDP alone.
    #[must_use]
    #[inline]
    pub fn judge_address(&self, address: IpAddr) -> Decision {
        self.find(address).into()
    }

    /// The number of ranges of addresses, of both families.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// The memory that it takes, in bytes: 5 for a range of IPv4, 17 for one of IPv6, and 16 KiB for
    /// the ports. An entry that has no neighbour takes two ranges, its own and the one behind it.
    #[must_use]
    pub fn memory(&self) -> usize {
        let ports = size_of_val(&*self.tcp.0) + size_of_val(&*self.udp.0);
        let services = size_of_val(&*self.services);
        size_of::<Self>() + self.v4.memory() + self.v6.memory() + ports + services
    }

    #[inline]
    fn find(&self, address: IpAddr) -> RuleId {
        match address {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits()),
        }
    }
}

fn layer<A: Bits>(rule: RuleId, ranges: impl Iterator<Item = (A, A)>) -> Vec<Range<A>> {
    ranges.map(|(low, high)| (low, high, rule)).collect()
}

/// The layer of what registries reserve.
fn registered<A: Copy, B: Bits>(refused: &[Refused<A>], bits: fn(A) -> B) -> Vec<Range<B>> {
    let range = |it: &Refused<A>| {
        // A test has that each name is one of a rule.
        let rule = RuleId::from_name(it.counter).unwrap_or(RuleId::ReservedDestination);
        (bits(it.low), bits(it.high), rule)
    };
    refused.iter().map(range).collect()
}

/// The number of 64-bit words in a bitmap of all ports.
const WORDS: usize = 1 << 10;

/// Ports, as a bitmap.
#[derive(Clone, Debug)]
struct PortSet(Box<[u64; WORDS]>);

impl PortSet {
    /// The ports of a protocol that the lists refuse.
    fn of(lists: &Lists, protocol: Protocol) -> Self {
        let mut words = Box::new([0; WORDS]);
        let rules = lists.ports.iter().map(|(rule, _)| *rule).filter(|rule| rule.is_of(protocol));
        for PortRule { low, high, .. } in rules {
            for port in low..=high {
                if let Some(word) = words.get_mut(usize::from(port / 64)) {
                    *word |= 1 << (port % 64);
                }
            }
        }
        Self(words)
    }

    #[inline]
    fn contains(&self, port: u16) -> bool {
        self.0.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 != 0)
    }
}

#[cfg(test)]
mod tests;
