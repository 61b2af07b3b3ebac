//! The kernel's flow table, asked and changed by ctnetlink
//! (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).
//!
//! A flow that outlives its session would hand the next consumer of the address whatever the
//! internet still sends to the former one.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::ControlFlow,
};

use ipnet::{Ipv4Net, Ipv6Net};

use super::nfnetlink::{Message, attribute, attributes, find, nested, request, walk};

/// NFNL_SUBSYS_CTNETLINK in the upper half; IPCTNL_MSG_CT_GET and IPCTNL_MSG_CT_DELETE.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// Within a tuple, and within that.
const TUPLE_IP: u16 = 1;
const IP_V4_SRC: u16 = 1;
const IP_V6_SRC: u16 = 3;
/// Within a filter: which parts of the tuples must be equal. Bit 0 is the source
/// (`net/netfilter/nf_internals.h`).
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
const SOURCE: u32 = 1;

/// With more consumers than these, one walk through the whole table costs less than one for each.
const MAX_FILTERED: usize = 4;

/// How often the table is searched again after something was found in it. Packets that were under
/// way at the first time may have made flows, once.
const MAX_WALKS: usize = 8;

/// The flows of consumers in the network namespace of the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Conntrack {
    /// Where consumers' IPv4 addresses are from.
    pub pool_v4: Ipv4Net,
    /// Where consumers' IPv6 addresses are from.
    pub pool_v6: Ipv6Net,
    /// The node's own addresses among them.
    pub gateways: [IpAddr; 2],
}

impl Conntrack {
    /// Removes every flow of these consumers. None is left when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// When the kernel does not remove them; some may be left then.
    pub fn forget(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()> {
        let addresses: HashSet<IpAddr> =
            consumers.iter().flat_map(|(v4, v6)| [IpAddr::V4(*v4), IpAddr::V6(*v6)]).collect();
        let filters: Vec<Filter> = if consumers.len() <= MAX_FILTERED {
            addresses.iter().flat_map(|address| Filter::of(*address)).collect()
        } else {
            Filter::all().to_vec()
        };
        let is_theirs = |address: &IpAddr| addresses.contains(address);
        filters.iter().try_for_each(|filter| remove(filter, &is_theirs))
    }

    /// Removes the flows of all other consumers there could be.
    ///
    /// # Errors
    ///
    /// As [`Conntrack::forget`].
    pub fn forget_all_but(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()> {
        let live: HashSet<IpAddr> =
            consumers.iter().flat_map(|(v4, v6)| [IpAddr::V4(*v4), IpAddr::V6(*v6)]).collect();
        let is_left = |address: &IpAddr| {
            let is_consumers = match address {
                IpAddr::V4(address) => self.pool_v4.contains(address),
                IpAddr::V6(address) => self.pool_v6.contains(address),
            };
            is_consumers && !self.gateways.contains(address) && !live.contains(address)
        };
        Filter::all().iter().try_for_each(|filter| remove(filter, &is_left))
    }
}

/// What the kernel is asked for: a family's flows, and of them those that a tuple's source has, if
/// there is one. Kernels before Linux 5.8 answer with all of the family.
#[derive(Clone, Debug)]
struct Filter {
    family: u8,
    attributes: Vec<u8>,
}

impl Filter {
    fn all() -> [Self; 2] {
        [libc::AF_INET, libc::AF_INET6]
            .map(|family| Self { family: family as u8, attributes: Vec::new() })
    }

    /// By which flows are found that an address began, and those that are forwarded to it.
    fn of(address: IpAddr) -> [Self; 2] {
        let (family, source) = match address {
            IpAddr::V4(address) => (libc::AF_INET, attribute(IP_V4_SRC, &address.octets())),
            IpAddr::V6(address) => (libc::AF_INET6, attribute(IP_V6_SRC, &address.octets())),
        };
        [(TUPLE_ORIG, FILTER_ORIG_FLAGS), (TUPLE_REPLY, FILTER_REPLY_FLAGS)].map(
            |(tuple, flags)| {
                let mut attributes = nested(tuple, &nested(TUPLE_IP, &source));
                attributes.extend(nested(FILTER, &attribute(flags, &SOURCE.to_ne_bytes())));
                Self { family: family as u8, attributes }
            },
        )
    }
}

/// Removes the flows whose source, of either direction, is one of these. None are left then.
fn remove(filter: &Filter, is_theirs: &dyn Fn(&IpAddr) -> bool) -> io::Result<()> {
    for _ in 0..MAX_WALKS {
        let mut found = Vec::new();
        walk(GET, filter.family, &filter.attributes, &mut |family, flow| {
            if [TUPLE_ORIG, TUPLE_REPLY]
                .iter()
                .filter_map(|it| source(flow, *it))
                .any(|it| is_theirs(&it))
            {
                found.push(named_in_full(family, flow));
            }
            ControlFlow::Continue(())
        })?;
        if found.is_empty() {
            return Ok(());
        }
        request(DELETE, &found, |error| match error.raw_os_error() {
            // It has ended by itself meanwhile.
            Some(libc::ENOENT) => Ok(()),
            _ => Err(error),
        })?;
    }
    Err(io::Error::other("new flows keep appearing while they are removed"))
}

/// The source of a flow's tuple.
fn source(flow: &[u8], tuple: u16) -> Option<IpAddr> {
    let ip = find(find(flow, tuple), TUPLE_IP);
    attributes(ip).find_map(|(kind, value)| match kind {
        IP_V4_SRC => Some(IpAddr::from(*value.first_chunk::<4>()?)),
        IP_V6_SRC => Some(IpAddr::from(*value.first_chunk::<16>()?)),
        _ => None,
    })
}

/// What names this flow and no other, also where another has its tuple by then.
fn named_in_full(family: u8, flow: &[u8]) -> Message {
    let mut name = nested(TUPLE_ORIG, find(flow, TUPLE_ORIG));
    for kind in [ZONE, ID] {
        let value = find(flow, kind);
        if !value.is_empty() {
            name.extend(attribute(kind, value));
        }
    }
    (family, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(original: IpAddr, reply: IpAddr) -> Vec<u8> {
        let tuple = |kind, source| {
            let source = match source {
                IpAddr::V4(address) => attribute(IP_V4_SRC, &address.octets()),
                IpAddr::V6(address) => attribute(IP_V6_SRC, &address.octets()),
            };
            nested(kind, &nested(TUPLE_IP, &[attribute(2, &[9; 4]), source].concat()))
        };
        let id = attribute(ID, &[1, 2, 3, 4]);
        [attribute(3, &[0; 4]), tuple(TUPLE_ORIG, original), tuple(TUPLE_REPLY, reply), id].concat()
    }

    #[test]
    fn a_flow_has_a_source_in_each_direction() {
        let (one, two) = (IpAddr::from([10, 66, 0, 2]), IpAddr::from([1, 1, 1, 1]));
        let six = IpAddr::from([0xfd, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(source(&flow(one, two), TUPLE_ORIG), Some(one));
        assert_eq!(source(&flow(one, two), TUPLE_REPLY), Some(two));
        assert_eq!(source(&flow(six, two), TUPLE_ORIG), Some(six));
        assert_eq!(source(b"", TUPLE_ORIG), None);
    }

    #[test]
    fn a_flow_is_named_by_its_tuple_and_number() {
        let (one, two) = (IpAddr::from([10, 66, 0, 2]), IpAddr::from([1, 1, 1, 1]));
        let (family, name) = named_in_full(2, &flow(one, two));
        assert_eq!(family, 2);
        assert_eq!(source(&name, TUPLE_ORIG), Some(one));
        assert_eq!((find(&name, ID), find(&name, TUPLE_REPLY)), (&[1, 2, 3, 4][..], &[][..]));
    }
}
