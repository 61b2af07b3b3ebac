//! How an emulated machine is connected to the lab: by TAP devices in the namespace of the internet,
//! where the lab's own node and a second consumer would be.

use anyhow::Result;
use weir_tests::{
    Lab, Namespace,
    lab::{NODE_V4, NODE_V6},
};

use crate::guest::Guest;

/// What the machine's network cards are connected to, in their order.
pub(crate) const TAPS: [&str; 2] = ["to-node", "to-guest"];
/// The namespace of the consumer in the machine.
pub(crate) const CONSUMER: &str = "consumer";

/// Puts a TAP device in the place of the node's link, and another one beside the consumer's.
pub(crate) fn prepare(lab: &Lab) -> Result<()> {
    let internet = &lab.internet;
    internet.ip("link del to-node")?;
    for (tap, subnet) in TAPS.iter().zip([2, 9]) {
        internet.ip(&format!("tuntap add {tap} mode tap vnet_hdr multi_queue"))?;
        address(
            internet,
            tap,
            &format!("45.80.{subnet}.1/24"),
            &format!("2a0c:b641:{subnet}::1/64"),
        )?;
    }
    // As the lab has it: the router's way to the node is not that of the servers.
    internet.ip("-4 route add 45.80.2.0/24 dev to-node table 100")?;
    internet.ip("-6 route add 2a0c:b641:2::/64 dev to-node table 100")?;
    Ok(())
}

fn address(namespace: &Namespace, interface: &str, v4: &str, v6: &str) -> Result<()> {
    namespace.ip(&format!("addr add {v4} dev {interface}"))?;
    namespace.ip(&format!("addr add {v6} dev {interface} nodad"))?;
    namespace.ip(&format!("link set {interface} up"))?;
    Ok(())
}

/// Gives the machine's first card to the node, and the second one to a consumer in a namespace.
pub(crate) fn configure(guest: &Guest) -> Result<()> {
    guest.run(&format!(
        "set -e
         ip link set eth0 name up0
         ip addr add {NODE_V4}/24 dev up0
         ip addr add {NODE_V6}/64 dev up0 nodad
         ip link set up0 up
         ip route add default via 45.80.2.1
         ip route add default via 2a0c:b641:2::1
         ip netns add {CONSUMER}
         ip link set eth1 name wan0 netns {CONSUMER}
         ip -n {CONSUMER} link set lo up
         ip -n {CONSUMER} addr add 45.80.9.2/24 dev wan0
         ip -n {CONSUMER} addr add 2a0c:b641:9::2/64 dev wan0 nodad
         ip -n {CONSUMER} link set wan0 up
         ip -n {CONSUMER} route add default via 45.80.9.1
         ip -n {CONSUMER} route add default via 2a0c:b641:9::1"
    ))?;
    Ok(())
}
