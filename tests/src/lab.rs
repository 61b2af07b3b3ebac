//! Three namespaces: consumer, internet, node.
//!
//! ```text
//!  consumer                 internet                      node
//!  wan0 ---------- to-consumer  [servers on lo]  to-node ---------- up0
//!  45.80.1.2                 45.80.3.1                      45.80.2.2
//! ```

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, ensure};

use weir_testkit::lab_lock::LabLock;
pub use weir_testkit::settings::UPLINK;

use crate::{Namespace, sweep};

/// The consumer's interface towards the internet.
pub const CONSUMER_LINK: &str = "wan0";

/// Where the consumer is.
pub const CONSUMER_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 1, 2);
/// Where the consumer is, by IPv6.
pub const CONSUMER_V6: Ipv6Addr = Ipv6Addr::new(0x2a0c, 0xb641, 1, 0, 0, 0, 0, 2);
/// Where the consumer is after it has moved.
pub const MOVED_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 1, 77);
/// Where the consumer is after it has moved, by IPv6.
pub const MOVED_V6: Ipv6Addr = Ipv6Addr::new(0x2a0c, 0xb641, 1, 0, 0, 0, 0, 0x77);
/// Where the node is.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 2, 2);
/// Where the node is, by IPv6.
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2a0c, 0xb641, 2, 0, 0, 0, 0, 2);
/// Another address of the node's host, which no consumer needs to reach.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 2, 9);
/// Another address of the node's host, by IPv6.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2a0c, 0xb641, 2, 0, 0, 0, 0, 9);
/// Where the servers are.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 3, 1);
/// Where the servers are, by IPv6.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2a0c, 0xb641, 3, 0, 0, 0, 0, 1);
/// Where a server of the operator's own is, which no consumer reaches.
pub const OPERATOR_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 3, 4);
/// Where a server of the operator's own is, by IPv6.
pub const OPERATOR_V6: Ipv6Addr = Ipv6Addr::new(0x2a0c, 0xb641, 3, 0, 0, 0, 0, 4);
/// Where mints and registries of the market are, which exits name in logs: they are no secret.
pub const MARKET_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 3, 5);
/// Where registries of the market are, by IPv6.
pub const MARKET_V6: Ipv6Addr = Ipv6Addr::new(0x2a0c, 0xb641, 3, 0, 0, 0, 0, 5);
/// Where clouds keep their machines' secrets. It answers here, so that only a policy hides it.
pub const METADATA_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The servers' address of each family.
pub const SERVERS: [IpAddr; 2] = [IpAddr::V4(SERVER_V4), IpAddr::V6(SERVER_V6)];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The three namespaces and the right to use the machine for them.
#[derive(Debug)]
pub struct Lab {
    /// Where clients run.
    pub consumer: Namespace,
    /// Where the servers are, and the routers between the others.
    pub internet: Namespace,
    /// Where the node runs.
    pub node: Namespace,
    _lock: LabLock,
}

impl Lab {
    /// Builds the namespaces, links and addresses.
    ///
    /// # Errors
    /// Without root, or if one of the commands fails.
    pub fn new() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root. Fix: run the tests as root"
        );
        let lock = LabLock::wait()?;
        sweep::dead();
        let id = sweep::namespace(COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self {
            consumer: Namespace::create(&format!("{id}-consumer"))?,
            internet: Namespace::create(&format!("{id}-internet"))?,
            node: Namespace::create(&format!("{id}-node"))?,
            _lock: lock,
        };
        lab.connect()?;
        Ok(lab)
    }

    /// Takes the consumer's first address of a family away, so that it goes on from another one.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn move_consumer(&self, like: IpAddr) -> Result<()> {
        if like.is_ipv4() {
            self.consumer.ip(&format!("addr del {CONSUMER_V4}/24 dev {CONSUMER_LINK}"))?;
        } else {
            self.consumer.ip(&format!(
                "addr change {MOVED_V6}/64 dev {CONSUMER_LINK} valid_lft forever preferred_lft forever"
            ))?;
            self.consumer.ip(&format!("addr del {CONSUMER_V6}/64 dev {CONSUMER_LINK}"))?;
        }
        Ok(())
    }

    /// One more namespace for a node, with an uplink of its own. Its subnets have this number,
    /// which is 4 or more.
    ///
    /// # Errors
    /// If one of the commands fails.
    pub fn another_node(&self, subnet: u8) -> Result<Namespace> {
        let node = Namespace::create(&format!("{}{subnet}", self.node.name()))?;
        let (router, name) = (format!("to-node{subnet}"), node.name());
        self.internet
            .ip(&format!("link add {router} type veth peer name {UPLINK} netns {name}"))?;
        for (namespace, interface, host) in
            [(&self.internet, router.as_str(), 1), (&node, UPLINK, 2)]
        {
            namespace.ip(&format!("addr add 45.80.{subnet}.{host}/24 dev {interface}"))?;
            namespace
                .ip(&format!("addr add 2a0c:b641:{subnet}::{host}/64 dev {interface} nodad"))?;
            namespace.ip(&format!("link set {interface} up"))?;
        }
        node.ip(&format!("route add default via 45.80.{subnet}.1"))?;
        node.ip(&format!("route add default via 2a0c:b641:{subnet}::1"))?;
        Ok(node)
    }

    fn connect(&self) -> Result<()> {
        let Self { consumer, internet, node, .. } = self;
        let pairs = [(consumer, CONSUMER_LINK, "to-consumer"), (node, UPLINK, "to-node")];
        for (side, name, router) in pairs {
            let peer = side.name();
            internet.ip(&format!("link add {router} type veth peer name {name} netns {peer}"))?;
        }
        let addresses = [
            (consumer, CONSUMER_LINK, format!("{CONSUMER_V4}/24"), format!("{CONSUMER_V6}/64")),
            (consumer, CONSUMER_LINK, format!("{MOVED_V4}/24"), format!("{MOVED_V6}/64")),
            (internet, "to-consumer", "45.80.1.1/24".into(), "2a0c:b641:1::1/64".into()),
            (internet, "to-node", "45.80.2.1/24".into(), "2a0c:b641:2::1/64".into()),
            (internet, "lo", format!("{SERVER_V4}/32"), format!("{SERVER_V6}/128")),
            (internet, "lo", format!("{OPERATOR_V4}/32"), format!("{OPERATOR_V6}/128")),
            (internet, "lo", format!("{MARKET_V4}/32"), format!("{MARKET_V6}/128")),
            (internet, "lo", format!("{METADATA_V4}/32"), "fd00:ec2::254/128".into()),
            (node, UPLINK, format!("{NODE_V4}/24"), format!("{NODE_V6}/64")),
            (node, UPLINK, format!("{HOST_V4}/24"), format!("{HOST_V6}/64")),
        ];
        for (namespace, interface, v4, v6) in addresses {
            namespace.ip(&format!("addr add {v4} dev {interface}"))?;
            namespace.ip(&format!("addr add {v6} dev {interface} nodad"))?;
            namespace.ip(&format!("link set {interface} up"))?;
        }
        for (namespace, subnet) in [(consumer, 1), (node, 2)] {
            namespace.ip(&format!("route add default via 45.80.{subnet}.1"))?;
            namespace.ip(&format!("route add default via 2a0c:b641:{subnet}::1"))?;
        }
        // What the servers learn of a path's MTU must not change what the router forwards, as it
        // would with one routing table: on the internet they are different machines.
        for (family, network) in [("-4", "45.80.2.0/24"), ("-6", "2a0c:b641:2::/64")] {
            internet.ip(&format!("{family} route add {network} dev to-node table 100"))?;
            internet.ip(&format!("{family} rule add iif to-consumer table 100"))?;
        }
        // Of two addresses of one prefix the kernel prefers the later one for IPv6.
        consumer.ip(&format!("addr change {MOVED_V6}/64 dev {CONSUMER_LINK} preferred_lft 0"))?;
        node.ip(&format!("addr change {HOST_V6}/64 dev {UPLINK} preferred_lft 0"))?;
        // When the first address goes, the other one stays.
        consumer.sysctl("net.ipv4.conf.all.promote_secondaries", "1")?;
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.icmp_ratelimit", "0"),
            ("net.ipv6.icmp.ratelimit", "0"),
        ] {
            internet.sysctl(key, value)?;
        }
        Ok(())
    }
}
