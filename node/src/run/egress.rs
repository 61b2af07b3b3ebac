//! Chooses how consumers' packets leave: past the kernel's network stack, by the node's own NAT, or
//! through it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use anyhow::{Context as _, bail};
use tracing::{info, warn};
use weir_common::exit::{ExitConfig, ExitV6};

use super::{ebpf::Ebpf, flow_view::Blocks, random, receive::Receive};
use weir_config::{Config, EgressMode, GuardMode, ReceiveMode};
use weir_dataplane::{ExitPlan, Exits, Shared, open_uplink};
use weir_host::{
    listeners,
    next_hop::{self, Judged, Resolver, Watch},
    uplink::Uplink,
};
use weir_nat::{NatConfig, Policy, Ports, V6};
use weir_packet::ethernet::NextHops;

/// The bytes of an IPv4 header and a TCP header without options; an IPv6 header has 20 more.
const V4_TCP_HEADERS: u16 = 40;

/// What the node exits by, decided while the process still has its privileges.
pub(super) enum Egress {
    /// Past the kernel.
    Bypass(Box<Bypass>),
    /// Through the kernel, and why.
    Kernel(String),
}

/// The ports to reserve against the host, if the node may exit past the kernel: decided before the
/// host is prepared, by what can be known then.
pub(super) fn reserved_ports(config: &Config, uplink: &Uplink) -> Option<(u16, u16)> {
    let may_bypass = config.node.egress != EgressMode::Kernel
        && config.node.receive != ReceiveMode::Sockets
        && config.node.xdp != GuardMode::Off
        && matches!(next_hop::read(uplink), Ok(Ok(_)));
    may_bypass.then_some((config.nat.ports.low, config.nat.ports.high))
}

/// What the node needs to exit past the kernel.
pub(super) struct Bypass {
    /// One for each worker.
    sockets: Vec<OwnedFd>,
    hops: NextHops,
    ports: Arc<Ports>,
    v4: Vec<Ipv4Addr>,
    v6: V6,
}

/// How consumers' packets leave, as it is shown.
#[derive(Clone)]
pub(super) struct EgressPath {
    /// `bypass` or `kernel`.
    pub(super) word: &'static str,
    /// By which addresses, or why not.
    pub(super) note: String,
}

impl Egress {
    /// Decides, and opens the sockets.
    ///
    /// # Errors
    ///
    /// Fails if the configuration demands the bypass, and says what is in its way.
    pub(super) fn choose(
        config: &Config,
        uplink: &Uplink,
        receive: &Receive,
        workers: usize,
    ) -> anyhow::Result<Self> {
        let wanted = config.node.egress;
        if wanted == EgressMode::Kernel {
            return Ok(Self::Kernel("node.egress is \"kernel\"".into()));
        }
        match Bypass::prepare(config, uplink, receive, workers) {
            Ok(bypass) => Ok(Self::Bypass(Box::new(bypass))),
            Err(error) if wanted == EgressMode::Auto => {
                info!("consumers' packets leave through the kernel: {error:#}");
                Ok(Self::Kernel(format!("{error:#}")))
            }
            Err(error) => Err(error.context("node.egress is \"bypass\"")),
        }
    }

    /// The blocks of ports that sessions can have.
    pub(super) fn blocks(&self, config: &Config) -> Blocks {
        let ports = match self {
            Self::Kernel(_) => 0,
            Self::Bypass(bypass) => {
                let translated = matches!(bypass.v6, V6::Address(_));
                u64::from(bypass.ports.count()) * (bypass.v4.len() as u64 + u64::from(translated))
            }
        };
        Blocks::new(ports, config.nat.block_ports)
    }

    pub(super) fn describe(&self) -> EgressPath {
        match self {
            Self::Bypass(bypass) => EgressPath { word: "bypass", note: bypass.describe() },
            Self::Kernel(reason) => EgressPath { word: "kernel", note: reason.clone() },
        }
    }
}

impl Bypass {
    fn prepare(
        config: &Config,
        uplink: &Uplink,
        receive: &Receive,
        workers: usize,
    ) -> anyhow::Result<Self> {
        if receive.queues.is_empty() {
            bail!("{}", receive.describe().note);
        }
        if let Some(other) = uplink.ipv6.other() {
            bail!("IPv6 leaves by another interface than {}: {other}", uplink.name);
        }
        let hops = next_hop::read(uplink)??;
        let (v4, v6) = addresses(config, uplink)?;
        let sockets = (0..workers)
            .map(|_| open_uplink(uplink.index))
            .collect::<Result<Vec<_>, _>>()
            .context("cannot open an AF_PACKET socket. Fix: start the node with CAP_NET_RAW")?;
        let range = config.nat.ports;
        let mut ports = Ports::new(range.low, range.high, config.nat.block_ports);
        // What the host has in the range stays its own. From now on it gets no port there by itself.
        let own = listeners::in_range(range.low, range.high)
            .context("cannot read which ports this machine uses")?;
        own.iter().for_each(|socket| ports.spare(socket.port));
        Ok(Self { sockets, hops, ports: Arc::new(ports), v4, v6 })
    }

    fn describe(&self) -> String {
        let v6: Option<String> = match self.v6 {
            V6::None => None,
            V6::Address(address) => Some(address.to_string()),
            V6::Prefix(address, len) => Some(format!("{address}/{len}")),
        };
        let all: Vec<String> = self.v4.iter().map(ToString::to_string).chain(v6).collect();
        format!("{} ports of {}", self.ports.count(), all.join(", "))
    }

    /// The addresses that belong to the exit, for the guard.
    fn guard_config(&self, uplink: &Uplink) -> anyhow::Result<ExitConfig> {
        let v6 = match self.v6 {
            V6::None => ExitV6::None,
            V6::Address(address) => ExitV6::Address(address),
            V6::Prefix(address, len) => ExitV6::Prefix { address, len, host: &uplink.v6 },
        };
        Ok(ExitConfig::new(&self.v4, v6)?)
    }

    /// Has the guard send what comes back to the workers, follows the next hops, and returns what
    /// each worker exits with.
    pub(super) fn begin(
        self,
        config: &Config,
        uplink: &Uplink,
        shared: &Shared,
        policy: &Arc<dyn Policy>,
        ebpf: &Ebpf,
    ) -> anyhow::Result<(Vec<(ExitPlan, OwnedFd)>, Follower)> {
        let guard = self.guard_config(uplink)?;
        ebpf.set_exit(&guard, self.ports.words())?;
        let follower = Follower::start(uplink, self.hops.clone())?;
        let hops = follower.current();
        let workers = self.sockets.len() as u32;
        let keys = random::flow_secret()?.0;
        let mss = config.tunnel.mtu.saturating_sub(u32::from(V4_TCP_HEADERS)) as u16;
        let plan = |worker: u32| {
            Ok(ExitPlan {
                nat: NatConfig {
                    addresses_v4: self.v4.clone(),
                    v6: self.v6,
                    ports: Arc::clone(&self.ports),
                    plan: shared.addresses,
                    worker,
                    workers,
                    max_flows: (config.nat.flows / workers.max(1)).max(1),
                    session_flows: session_flows(config),
                    session_blocks: config.nat.session_blocks.min(u32::from(u16::MAX)) as u16,
                    pick_up: config.nat.pick_up,
                    mss: Some([mss, mss.saturating_sub(20)]),
                    hash_keys: [keys[0], keys[1]],
                },
                policy: Arc::clone(policy),
                hops: Arc::clone(&hops),
                guard,
                listen_port: config.node.listen_port,
                first_id: random::flow_secret()?.0[0] as u16,
                resolve: follower.resolve(),
            })
        };
        let plans = (0..workers).map(plan).collect::<anyhow::Result<Vec<_>>>()?;
        Ok((plans.into_iter().zip(self.sockets).collect(), follower))
    }
}

/// The most flows of one session.
fn session_flows(config: &Config) -> u32 {
    use weir_config::Auto;
    match &config.limits.session_flows {
        Auto::Set(limit) if limit.get() > 0 => limit.get(),
        Auto::Set(_) => config.nat.flows,
        // As of the kernel's table.
        Auto::Auto => weir_host::nft::share_of(Some(config.nat.flows)),
    }
}

/// The addresses that consumers leave by: the configured ones, which must be the uplink's, or its
/// first of each family.
fn addresses(config: &Config, uplink: &Uplink) -> anyhow::Result<(Vec<Ipv4Addr>, V6)> {
    let wanted = &config.node.addresses;
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
    let v6 = match (config.node.prefix_v6, v6) {
        (Some(prefix), _) => V6::Prefix(prefix.network(), prefix.prefix_len()),
        (None, Some(address)) => V6::Address(address),
        (None, None) => V6::None,
    };
    if v4.is_empty() && v6 == V6::None {
        bail!("{} has no address that consumers could leave by", uplink.name);
    }
    Ok((v4, v6))
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

/// Follows the next hops, and tells the workers.
pub(super) struct Follower {
    watch: Watch,
    resolver: Resolver,
    current: Arc<Mutex<Arc<NextHops>>>,
    exits: Arc<OnceLock<Exits>>,
}

impl Follower {
    fn start(uplink: &Uplink, before: NextHops) -> anyhow::Result<Self> {
        let current = Arc::new(Mutex::new(Arc::new(before)));
        let exits = Arc::<OnceLock<Exits>>::default();
        let (seen, told) = (Arc::clone(&current), Arc::clone(&exits));
        let listener = move |judged: &Judged| {
            let hops = Arc::new(hops_of(judged));
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&hops);
            if let Some(exits) = told.get() {
                exits.set_hops(&hops);
            }
        };
        let (watch, judged) = Watch::start(uplink, Box::new(listener))?;
        *current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(hops_of(&judged));
        let resolver = watch.resolver();
        Ok(Self { watch, resolver, current, exits })
    }

    fn current(&self) -> Arc<NextHops> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn resolve(&self) -> Arc<dyn Fn(IpAddr) + Send + Sync> {
        let resolver = self.resolver.clone();
        Arc::new(move |neighbour| resolver.resolve(neighbour))
    }

    /// From now on the workers are told what changes.
    pub(super) fn follow(&self, exits: Exits) {
        exits.set_hops(&self.current());
        // Set once, by the one caller.
        self.exits.set(exits).ok();
    }

    /// Ends following.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.watch.stop()
    }
}

/// The next hops, or none: then no packet leaves.
fn hops_of(judged: &Judged) -> NextHops {
    match judged {
        Ok(hops) => hops.clone(),
        Err(reason) => {
            warn!("consumers' packets cannot leave: {reason}");
            NextHops::default()
        }
    }
}
