//! A node's surroundings: two namespaces, joined as a node and its uplink's network are.
//!
//! ```text
//!  outside: consumers and servers          node
//!  out0 45.80.2.1 ------------------ up0 45.80.2.2
//! ```
//!
//! With [`Link::Cable`] frames arrive as from a network card.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Context as _;
use rustix::{process::Pid, thread::CpuSet};

use super::{
    cable::{self, Cable},
    meter::kernel_threads,
    namespace::Namespace,
    settings::UPLINK,
};

/// The interface at the other end.
pub const OUTSIDE: &str = "out0";
/// The consumers' outer address.
pub const CONSUMERS: Ipv4Addr = Ipv4Addr::new(45, 80, 2, 1);
/// Where the node listens.
pub const NODE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(45, 80, 2, 2), 51820);
/// The address of the load's server. No host has it: what reaches it is counted and thrown away.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(45, 80, 3, 7);
/// The address of real servers, on the loopback interface outside.
pub const REAL_SERVER: Ipv4Addr = Ipv4Addr::new(45, 80, 3, 1);

/// What joins the two namespaces, and so how packets reach the node.
#[derive(Clone, Copy, Debug)]
pub enum Link<'a> {
    /// A cable whose eBPF program is in this object. Packets arrive one by one, in pages, as a
    /// network card's driver hands them on. GRO merges them on the node's core, in a kernel thread
    /// that can be told apart from the node.
    Cable(&'a [u8]),
    /// A veth pair that segments. Packets arrive one by one too, but in the sender's packet
    /// buffers: XDP makes the node's core copy each.
    Veth,
    /// A veth pair that passes on whole the super-packets that the generator sends. The receive
    /// path runs on the generator's core: what the node costs without it.
    VethSuperPackets,
}

/// Two joined namespaces; gone when dropped, or when this process ends.
#[derive(Debug)]
pub struct Rig {
    /// Consumers and servers.
    pub outside: Namespace,
    /// The node.
    pub node: Namespace,
    one_by_one: bool,
    cable: Option<Cable>,
    old_threads: Vec<u32>,
}

impl Rig {
    /// Makes the namespaces.
    ///
    /// # Errors
    ///
    /// Fails without root, without `ip`, or where there can be no cable.
    pub fn new(link: Link<'_>) -> anyhow::Result<Self> {
        let (outside, node) = (Namespace::new()?, Namespace::new()?);
        let old_threads = kernel_threads(&receive_thread());
        let cable = if let Link::Cable(object) = link {
            Some(Cable::new(object, (&outside, OUTSIDE), (&node, UPLINK))?)
        } else {
            let peer = outside.path();
            node.ip(&format!("link add {UPLINK} type veth peer name {OUTSIDE} netns {peer}"))?;
            None
        };
        node.ip(&format!("addr add {}/24 dev {UPLINK}", NODE.ip()))?;
        node.ip(&format!("link set {UPLINK} up"))?;
        outside.ip(&format!("addr add {CONSUMERS}/24 dev {OUTSIDE}"))?;
        outside.ip(&format!("link set {OUTSIDE} up"))?;
        outside.ip(&format!("addr add {REAL_SERVER}/32 dev lo"))?;
        outside.ip(&format!("route add blackhole {SERVER}"))?;
        node.ip(&format!("route add default via {CONSUMERS}"))?;
        // The load's windows are wider than TCP allows. Where conntrack is missing, none minds.
        node.run("sysctl -q -w net.netfilter.nf_conntrack_tcp_be_liberal=1").ok();
        let one_by_one = !matches!(link, Link::VethSuperPackets);
        Ok(Self { outside, node, one_by_one, cable, old_threads })
    }

    /// Sets how packets arrive, whether the node's uplink segments in software, and that the
    /// generator's core receives what the node sends.
    ///
    /// # Errors
    ///
    /// Fails without `ethtool`.
    pub fn set(&self, software_gso: bool, generator: usize) -> anyhow::Result<()> {
        let onoff = |on: bool| if on { "on" } else { "off" };
        let whole = onoff(!self.one_by_one);
        self.outside
            .run(&format!("ethtool -K {OUTSIDE} tso {whole} tx-udp-segmentation {whole}"))?;
        self.node.run(&format!("ethtool -K {UPLINK} gro {}", onoff(self.one_by_one)))?;
        let hard = onoff(!software_gso);
        self.node.run(&format!(
            "ethtool -K {UPLINK} tso {hard} gso {hard} tx-udp-segmentation {hard}"
        ))?;
        if self.one_by_one {
            self.node.set_attribute(UPLINK, "threaded", "1")?;
        }
        let (namespace, peer) = match &self.cable {
            None => (&self.outside, OUTSIDE),
            Some(cable) => {
                // A redirected frame is its bytes and nothing else: they must have the checksum.
                self.outside.run(&format!("ethtool -K {OUTSIDE} tx off"))?;
                (&cable.namespace, cable::TOWARDS_NODE)
            }
        };
        // What the node sends is received on the sender's core otherwise, and charged to the node.
        let mask = format!("{:x}", 1u64 << generator.min(31));
        namespace.set_attribute(peer, "queues/rx-0/rps_cpus", &mask)
    }

    /// Binds the kernel threads that receive for the node to its cores; gives them. To be called
    /// when the node runs: attaching XDP may make new ones.
    ///
    /// # Errors
    ///
    /// Fails when they cannot be bound.
    pub fn bind_receive(&self, cores: &[usize]) -> anyhow::Result<Vec<u32>> {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        let mut threads = kernel_threads(&receive_thread());
        threads.retain(|pid| !self.old_threads.contains(pid));
        for pid in &threads {
            rustix::thread::sched_setaffinity(Pid::from_raw(pid.cast_signed()), &set)
                .context("cannot bind the receive thread")?;
        }
        Ok(threads)
    }
}

fn receive_thread() -> String {
    format!("napi/{UPLINK}")
}
