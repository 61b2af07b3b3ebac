//! Chooses how consumers' packets leave: past the kernel's network stack, by the node's own NAT, or
//! through it.

use std::{
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use anyhow::{Context as _, bail};
use tracing::info;

use super::{
    addresses::{AddressFollower, ExitAddresses},
    ebpf::Ebpf,
    flow_view::Blocks,
    policy::ExitPolicy,
    random,
    receive::Receive,
};
use weir_config::{Auto, Config, EgressMode, amounts::AtMost};
use weir_dataplane::{ExitPlan, Exits, Shared, open_uplink};
use weir_host::{
    Forwarding, listeners,
    next_hop::{self, Judged, Resolver, Watch},
    uplink::Uplink,
    watch::Conditions,
};
use weir_nat::{NatConfig, Ports, V6};
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
    let may_bypass =
        config.kernel_egress().is_none() && matches!(next_hop::read(uplink), Ok(Ok(_)));
    may_bypass.then_some((config.nat.ports.low, config.nat.ports.high))
}

/// When the kernel begins to forward: not before it is known that it must.
pub(super) fn forwarding(config: &Config) -> Forwarding {
    match config.kernel_egress() {
        None => Forwarding::OnDemand,
        Some(_) => Forwarding::AtOnce,
    }
}

/// What the node needs to exit past the kernel.
pub(super) struct Bypass {
    /// One for each worker.
    sockets: Vec<OwnedFd>,
    hops: NextHops,
    ports: Arc<Ports>,
    addresses: ExitAddresses,
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
                let ExitAddresses { v4, v6 } = &bypass.addresses;
                let translated = matches!(v6, V6::Address(_));
                u64::from(bypass.ports.count()) * (v4.len() as u64 + u64::from(translated))
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
        let addresses = ExitAddresses::of(&config.node, uplink)?;
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
        Ok(Self { sockets, hops, ports: Arc::new(ports), addresses })
    }

    fn describe(&self) -> String {
        self.addresses.describe_with(&self.ports)
    }

    /// Has the guard send what comes back to the workers, follows the next hops, and returns what
    /// each worker exits with.
    pub(super) fn begin(
        self,
        config: &Config,
        uplink: &Uplink,
        shared: &Shared,
        policy: &Arc<ExitPolicy>,
        ebpf: &Ebpf,
        conditions: &Conditions,
    ) -> anyhow::Result<(Vec<(ExitPlan, OwnedFd)>, Follower)> {
        let guard = self.addresses.guard_config(uplink)?;
        ebpf.control().set_exit(&guard, self.ports.words())?;
        let addresses = AddressFollower::new(
            config,
            self.addresses.clone(),
            Arc::clone(&self.ports),
            ebpf.control(),
            conditions.clone(),
        );
        let follower = Follower::start(uplink, self.hops.clone(), addresses, conditions.clone())?;
        let flows = policy.for_workers()?;
        let hops = follower.current();
        let workers = self.sockets.len() as u32;
        let keys = random::flow_secret()?.0;
        let mss = config.tunnel.mtu.saturating_sub(u32::from(V4_TCP_HEADERS)) as u16;
        let plan = |worker: u32| {
            Ok(ExitPlan {
                nat: NatConfig {
                    addresses_v4: self.addresses.v4.clone(),
                    v6: self.addresses.v6,
                    ports: Arc::clone(&self.ports),
                    plan: shared.addresses,
                    worker,
                    workers,
                    max_flows: (config.nat.flows / workers.max(1)).max(1),
                    session_flows: session_flows(&config.limits.session_flows, config.nat.flows),
                    session_blocks: config.nat.session_blocks.min(u32::from(u16::MAX)) as u16,
                    pick_up: config.nat.pick_up,
                    mss: Some([mss, mss.saturating_sub(20)]),
                    hash_keys: [keys[0], keys[1]],
                },
                policy: Arc::clone(&flows),
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

/// The most flows of one session, in a table of `flows` flows.
pub(super) fn session_flows(limit: &Auto<AtMost>, flows: u32) -> u32 {
    match limit {
        Auto::Set(limit) if limit.get() > 0 => limit.get(),
        Auto::Set(_) => flows,
        // As of the kernel's table.
        Auto::Auto => weir_host::nft::share_of(Some(flows)),
    }
}

/// Follows the next hops, and tells the workers.
pub(super) struct Follower {
    watch: Watch,
    resolver: Resolver,
    current: Arc<Mutex<Arc<NextHops>>>,
    exits: Arc<OnceLock<Exits>>,
    addresses: Arc<AddressFollower>,
}

impl Follower {
    fn start(
        uplink: &Uplink,
        before: NextHops,
        addresses: AddressFollower,
        conditions: Conditions,
    ) -> anyhow::Result<Self> {
        let current = Arc::new(Mutex::new(Arc::new(before)));
        let exits = Arc::<OnceLock<Exits>>::default();
        let (seen, told) = (Arc::clone(&current), Arc::clone(&exits));
        let listener = move |judged: &Judged| {
            conditions.set_next_hops(judged.as_ref().err());
            let hops = Arc::new(hops_of(judged));
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&hops);
            if let Some(exits) = told.get() {
                exits.set_hops(&hops);
            }
        };
        let (watch, judged) = Watch::start(uplink, Box::new(listener))?;
        *current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(hops_of(&judged));
        let resolver = watch.resolver();
        let addresses = Arc::new(addresses);
        Ok(Self { watch, resolver, current, exits, addresses })
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
        self.addresses.serve(exits.clone());
        // Set once, by the one caller.
        self.exits.set(exits).ok();
    }

    /// Follows the uplink's addresses.
    pub(super) fn addresses(&self) -> Arc<AddressFollower> {
        Arc::clone(&self.addresses)
    }

    /// Ends following.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.watch.stop()
    }
}

/// The next hops, or none: then no packet leaves.
fn hops_of(judged: &Judged) -> NextHops {
    judged.as_ref().cloned().unwrap_or_default()
}
