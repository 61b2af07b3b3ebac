//! Where a flood comes out.

use std::{
    fs,
    net::{SocketAddrV4, UdpSocket},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::net::netdevice::name_to_index;

use crate::{command::run, until};

/// The interface of a network namespace that leads to a node, and the node's hardware address.
#[derive(Debug)]
pub(super) struct Outlet {
    /// Its number.
    pub(super) interface: u32,
    /// Who is at the other end.
    pub(super) next_hop: [u8; 6],
    /// The node.
    pub(super) to: SocketAddrV4,
    name: String,
}

impl Outlet {
    /// Finds the way to a node that is a neighbour of the calling thread's namespace.
    ///
    /// # Errors
    /// If nobody answers there.
    pub(super) fn towards(to: SocketAddrV4) -> Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // Whatever comes of it, the kernel must ask who has the address. Nobody listens there.
        socket.send_to(&[0], (*to.ip(), DISCARD))?;
        let (name, next_hop) = until("the node's host", Duration::from_secs(5), || {
            let table = fs::read_to_string("/proc/thread-self/net/arp")?;
            neighbour(&table, &to.ip().to_string()).context("it does not answer")
        })?;
        let interface = name_to_index(&socket, &name).context("an interface")?;
        Ok(Self { interface, next_hop, to, name })
    }

    /// How many frames the other end has taken from programs; in the namespace.
    pub(super) fn taken(&self) -> Result<u64> {
        let text = run(Command::new("ethtool").args(["-S", &self.name]))?;
        let counts = text.lines().filter_map(|line| {
            let (name, value) = line.trim().split_once(": ")?;
            name.ends_with("_xdp_xmit").then(|| value.parse::<u64>().ok())?
        });
        Ok(counts.sum())
    }
}

/// UDP's port for what nobody wants.
const DISCARD: u16 = 9;

/// The interface and the hardware address of an IPv4 address, of the kernel's table.
fn neighbour(table: &str, address: &str) -> Option<(String, [u8; 6])> {
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() != Some(address) {
            return None;
        }
        let (hardware, interface) = (words.nth(2)?, words.nth(1)?);
        let bytes: Vec<u8> =
            hardware.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        let bytes = <[u8; 6]>::try_from(bytes).ok().filter(|bytes| *bytes != [0; 6])?;
        Some((interface.to_owned(), bytes))
    })
}
