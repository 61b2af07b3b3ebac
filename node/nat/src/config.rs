//! What a table is made of, and what it asks and tells its caller.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use weir_common::{AddressPlan, DropReason, Slot};

use crate::{
    policy::{NewFlow, Protocol},
    ports::{PortBlock, Ports},
};

/// The most external IPv4 addresses of a node.
pub const MAX_ADDRESSES: usize = 16;

/// What a worker's table is made of.
#[derive(Clone, Debug)]
pub struct NatConfig {
    /// The external IPv4 addresses, at most [`MAX_ADDRESSES`]. Without any, IPv4 is refused.
    pub addresses_v4: Vec<Ipv4Addr>,
    /// What consumers' IPv6 packets become.
    pub v6: V6,
    /// The external ports of the node.
    pub ports: Arc<Ports>,
    /// The inner addresses.
    pub plan: AddressPlan,
    /// The number of this worker.
    pub worker: u32,
    /// How many workers there are.
    pub workers: u32,
    /// How many flows this worker has room for.
    pub max_flows: u32,
    /// How many flows a session may have at once.
    pub session_flows: u32,
    /// How many blocks of ports a session may have at once, in each IP version.
    pub session_blocks: u16,
    /// Whether a TCP flow is taken up in the middle, where a block of its session can hold it. So a
    /// restart does not end it.
    pub pick_up: bool,
    /// The largest TCP maximum segment size that a SYN may announce by IPv4 and by IPv6, in bytes.
    pub mss: Option<[u16; 2]>,
    /// Secret random numbers, new at each start: nobody can choose flows that share a hash.
    pub hash_keys: [u64; 2],
}

/// What consumers' IPv6 source addresses become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V6 {
    /// Nothing: IPv6 is refused.
    None,
    /// The uplink's address, with ports translated (NAT66).
    Address(Ipv6Addr),
    /// An address of a prefix that is routed to the node, and its length: the prefix + 2 + the slot.
    /// Ports stay as they are.
    Prefix(Ipv6Addr, u8),
}

/// How many flows a session has, by protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// TCP connections.
    pub tcp: u32,
    /// UDP flows.
    pub udp: u32,
    /// ICMP and ICMPv6 echo.
    pub icmp: u32,
}

impl FlowCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.tcp.saturating_add(self.udp).saturating_add(self.icmp)
    }

    pub(crate) fn of_mut(&mut self, protocol: Protocol) -> &mut u32 {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Icmp => &mut self.icmp,
        }
    }
}

/// A session took a block of ports, or the block is no longer its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEvent {
    /// The session.
    pub slot: Slot,
    /// The block.
    pub block: PortBlock,
    /// The block's external address.
    pub address: IpAddr,
    /// Whether it was taken. Otherwise it was given back.
    pub taken: bool,
}

/// The limits of a session's new flows and destinations.
pub trait FlowGate {
    /// Whether a new flow of the session may begin. Asked once a flow, after the policy.
    ///
    /// # Errors
    ///
    /// The reason that the flow's first packet is dropped for.
    fn admit(&mut self, flow: &NewFlow, now: u64) -> Result<(), DropReason>;
}

/// Admits every flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGate;

impl FlowGate for NoGate {
    fn admit(&mut self, _: &NewFlow, _: u64) -> Result<(), DropReason> {
        Ok(())
    }
}
