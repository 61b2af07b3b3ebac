//! The addresses that consumers leave by past the kernel, at the start and when the uplink's change.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use anyhow::bail;
use tracing::warn;
use weir_common::exit::{ExitConfig, ExitV6};

use super::ebpf::GuardControl;
use weir_config::{Config, Node};
use weir_dataplane::Exits;
use weir_host::{uplink::Uplink, watch::Conditions};
use weir_nat::{Ports, V6};

/// The addresses that consumers leave by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExitAddresses {
    pub(super) v4: Vec<Ipv4Addr>,
    pub(super) v6: V6,
}

impl ExitAddresses {
    /// The configured addresses, or the uplink's own.
    ///
    /// # Errors
    ///
    /// Fails if the uplink has no such address, or none at all.
    pub(super) fn of(node: &Node, uplink: &Uplink) -> anyhow::Result<Self> {
        choose(node, uplink)
    }

    /// The addresses in words.
    fn describe(&self) -> String {
        let v6: Option<String> = match self.v6 {
            V6::None => None,
            V6::Address(address) => Some(address.to_string()),
            V6::Prefix(address, len) => Some(format!("{address}/{len}")),
        };
        let all: Vec<String> = self.v4.iter().map(ToString::to_string).chain(v6).collect();
        all.join(", ")
    }

    /// The addresses and the number of ports of each, in words.
    pub(super) fn describe_with(&self, ports: &Ports) -> String {
        format!("{} ports of {}", ports.count(), self.describe())
    }

    /// The addresses for the guard.
    ///
    /// # Errors
    ///
    /// Fails if there are more than it takes.
    pub(super) fn guard_config(&self, uplink: &Uplink) -> anyhow::Result<ExitConfig> {
        let v6 = match self.v6 {
            V6::None => ExitV6::None,
            V6::Address(address) => ExitV6::Address(address),
            V6::Prefix(address, len) => ExitV6::Prefix { address, len, host: &uplink.v6 },
        };
        Ok(ExitConfig::new(&self.v4, v6)?)
    }
}

/// Gives the exit the uplink's new addresses when these change.
pub(super) struct AddressFollower {
    node: Node,
    ports: Arc<Ports>,
    guard: GuardControl,
    conditions: Conditions,
    exits: OnceLock<Exits>,
    current: Mutex<ExitAddresses>,
}

impl AddressFollower {
    pub(super) fn new(
        config: &Config,
        current: ExitAddresses,
        ports: Arc<Ports>,
        guard: GuardControl,
        conditions: Conditions,
    ) -> Self {
        let (exits, current) = (OnceLock::new(), Mutex::new(current));
        Self { node: config.node.clone(), ports, guard, conditions, exits, current }
    }

    /// From now on these workers are told what changes.
    pub(super) fn serve(&self, exits: Exits) {
        // Set once, by the one caller.
        self.exits.set(exits).ok();
    }

    /// By how many ports of which addresses consumers leave now.
    pub(super) fn describe(&self) -> String {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.describe_with(&self.ports)
    }

    /// Follows a change of the uplink.
    pub(super) fn follow(&self, uplink: &Uplink) {
        let problem = self.try_follow(uplink).err().map(|error| format!("{error:#}"));
        self.conditions.set_exit_addresses(problem.as_deref());
    }

    fn try_follow(&self, uplink: &Uplink) -> anyhow::Result<()> {
        let Some(exits) = self.exits.get() else { return Ok(()) };
        let wanted = ExitAddresses::of(&self.node, uplink)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == wanted {
            return Ok(());
        }
        let guard = wanted.guard_config(uplink)?;
        // First the workers: what the guard sends them must be theirs.
        exits.set_addresses(&wanted.v4, wanted.v6, guard);
        self.guard.set_exit(&guard, self.ports.words())?;
        warn!(
            "consumers leave by {} now, and no longer by {}: their connections begin anew",
            wanted.describe(),
            current.describe()
        );
        *current = wanted;
        Ok(())
    }
}

/// The addresses that consumers leave by: the configured ones, which must be the uplink's, or its
/// first of each family.
fn choose(node: &Node, uplink: &Uplink) -> anyhow::Result<ExitAddresses> {
    let wanted = &node.addresses;
    for address in wanted {
        let is_own = match address {
            IpAddr::V4(v4) => uplink.v4.contains(v4),
            IpAddr::V6(v6) => uplink.v6.contains(v6),
        };
        if !is_own {
            bail!(
                "{address} is not an address of {}. Fix: give it to the interface (ip address \
                 add), or take it out of node.addresses",
                uplink.name
            );
        }
    }
    let v4: Vec<Ipv4Addr> = wanted
        .iter()
        .filter_map(|it| if let IpAddr::V4(v4) = it { Some(*v4) } else { None })
        .collect();
    let v6: Option<Ipv6Addr> =
        wanted.iter().find_map(|it| if let IpAddr::V6(v6) = it { Some(*v6) } else { None });
    let (v4, v6) = if wanted.is_empty() { own_choice(uplink) } else { (v4, v6) };
    let v6 = match (node.prefix_v6, v6) {
        (Some(prefix), _) => V6::Prefix(prefix.network(), prefix.prefix_len()),
        (None, Some(address)) => V6::Address(address),
        (None, None) => V6::None,
    };
    if v4.is_empty() && v6 == V6::None {
        bail!("{} has no address that consumers could leave by", uplink.name);
    }
    Ok(ExitAddresses { v4, v6 })
}

/// The address of each family that the kernel sends from, or else the uplink's first one.
fn own_choice(uplink: &Uplink) -> (Vec<Ipv4Addr>, Option<Ipv6Addr>) {
    let v4 = match source_towards((Ipv4Addr::new(192, 0, 2, 1), 9).into()) {
        Some(IpAddr::V4(v4)) if uplink.v4.contains(&v4) => Some(v4),
        _ => uplink.v4.first().copied(),
    };
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let v6 = match source_towards((documentation, 9).into()) {
        Some(IpAddr::V6(v6)) if uplink.v6.contains(&v6) => Some(v6),
        _ => uplink.v6.first().copied(),
    };
    (v4.into_iter().collect(), v6)
}

/// The address that the kernel would send from. It is asked by connecting a socket, which sends
/// nothing.
fn source_towards(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}
