//! The whole node: started in an order in which nothing is served before everything is in place,
//! and stopped in the reverse order, so that the machine is as it was.

mod flow_table;
mod flows;
mod kernel_side;
mod key_ring;
mod ledger;
mod limits;
mod policy;
mod receive;
mod reload;
mod screen;
mod serve;
mod service;
mod uplink;
mod view;
mod watch;

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU32},
};

use anyhow::{Context as _, anyhow, bail};
use rand_core::{OsRng, RngCore as _};
use rustix::thread::sched_getaffinity;
use tokio::sync::mpsc;
use tracing::{info, warn};
use weir_common::{AddressPlan, SlotPermutation};

use self::{kernel_side::KernelSide, receive::Receive, view::View};
use crate::{logging::Log, sandbox};
use weir_accounts::SharedLimits;
use weir_common::PublicKey;
use weir_config;
use weir_config::{Auto, Config, IoWish, Live, SandboxWish};
use weir_control::resolver::Resolver;
use weir_dataplane::{
    Dataplane, FlowSecret, Io, OnEnd, Reads, Shared, Sockets, Start, UdpSegmentation, XskQueues,
};
use weir_host::{
    Host, HostPlan,
    conntrack::Conntrack,
    tun::{self, Tun},
    watch::{Conditions, Watcher},
};
use weir_ledger::store::Store;
use weir_sessions::{keys::rotation, limits::Limiter, registry::Sessions, wg_quick::Offer};
use weir_wireguard::identity::Identities;
use weir_wireguard::keys;

/// The name of the sessions' database within the state directory.
const LEDGER: &str = "ledger.db";

/// Where the sessions' database is.
#[must_use]
pub fn ledger_path(config: &Config) -> PathBuf {
    config.node.state_dir.join(LEDGER)
}

/// Runs a node until it is told to stop by SIGTERM or SIGINT. At SIGHUP it reads `file`, the
/// configuration that it was started with, again.
///
/// # Errors
///
/// Says what is in the way of serving, and what to do about it. Nothing is left changed then.
pub fn run(config: &Config, file: Option<&Path>, log: Log) -> anyhow::Result<()> {
    let Some(uplink::Found { uplink, endpoint }) = uplink::wait_for(config)? else {
        info!("told to stop before there was an uplink");
        return Ok(());
    };
    let (key, is_new) = keys::load_or_create(&config.node.private_key_file)?;
    if is_new {
        info!(file = %config.node.private_key_file.display(), "made the node's private key");
    }
    let previous = rotation::previous(&config.node.private_key_file)?;
    let io = choose_io(&config.node.io)?;
    let cores = choose_cores(config)?;
    let plan = HostPlan::new(config, uplink.clone(), cores.len())?;
    let mut host = Host::prepare(&plan)?;
    let tun = host.take_tun().context("the TUN device is gone")?;
    let in_force = host.policy().context("there is no exit policy")?;
    let notes = [host.offloads.describe(), host.notes.clone(), io_notes(config, io)].concat();
    let transits = host.transits;
    // The watch has it while the node serves.
    let mut host = Some(host);

    let addresses = config.tunnel.plan();
    let permutation = random_permutation()?;
    let mut kernel = KernelSide::prepare(
        config,
        addresses,
        permutation,
        cores.len() as u32,
        key_ring::mac1_keys(&key, previous.as_ref()),
    )?;
    // What a killed run counted is not saved yet.
    let mut saved = kernel.is_vacant();
    let outcome = (|| {
        let xdp = kernel.attach(&uplink, config.node.xdp)?;
        let receive = Receive::prepare(&config.node.receive, &xdp, &uplink, cores.len())?;
        let shared_limits = Arc::<SharedLimits>::default();
        let shared = Shared {
            accounts: kernel.accounts(),
            permutation,
            addresses,
            workers: cores.len() as u32,
            mtu: config.tunnel.mtu as usize,
            uso: tun.offloads.uso,
            udp_segmentation: segmentation(&config.node),
            limits: Arc::clone(&shared_limits),
            flow_secret: random_flow_keys()?,
        };
        let node_key = key.public();
        let identities = Identities::new(key_ring::identities(&key, previous.as_ref()));
        let interface = tun.name.clone();
        let resolver = resolver(config)?;
        // Before the first thread that handles what comes from outside.
        let sandbox = sandbox::enter(config, file, kernel.has_mounted())?;
        for missing in &sandbox.missing {
            info!("sandbox: no {missing}");
        }
        let known = Arc::clone(&identities);
        receive.begin(&kernel)?;
        let way = receive.way();
        let (on_end, ended) = mpsc::unbounded_channel();
        let on_end: OnEnd = Arc::new(move |thread| drop(on_end.send(thread)));
        let workers = Workers { io, cores: &cores, direct: receive.direct, on_end };
        let dataplane = start_dataplane(config, shared, known, tun, &mut kernel, workers)?;
        saved = false;
        let opened = open_sessions(config, &kernel, &dataplane, addresses, node_key);
        let limited = opened.and_then(|sessions| {
            let (limits, known) = (config.limits.clone(), Arc::clone(&sessions));
            let limiter = Limiter::new(
                limits,
                known,
                kernel.accounts(),
                shared_limits,
                weir_host::nft::session_flows,
            )?;
            Ok((sessions, Arc::new(limiter)))
        });
        let (sessions, limiter) = match limited {
            Ok(limited) => limited,
            Err(error) => {
                dataplane.stop();
                return Err(error);
            }
        };
        let offer = Offer {
            node_key,
            endpoint: endpoint.to_string(),
            dns: config.dns_servers(),
            mtu: config.tunnel.mtu,
            keepalive: config.tunnel.keepalive,
            free_bytes: config.payment.free_bytes(),
        };
        let (offer, series) = (Live::from(offer), Live::from(reload::series(&config.api)));
        let rhythm = Live::from(ledger::Rhythm::from(&config.ledger));
        let policy = Arc::new(policy::ExitPolicy::new(config, &plan, transits, in_force));
        let reach = reload::Reach {
            policy: Arc::clone(&policy),
            offer: offer.clone(),
            series: series.clone(),
            rhythm: rhythm.clone(),
            handshakes: dataplane.handshakes(),
            guard: kernel.control(),
            limiter: Arc::clone(&limiter),
            log,
        };
        let keys = Arc::new(key_ring::Ring {
            path: config.node.private_key_file.clone(),
            identities,
            guard: kernel.control(),
            offer: offer.clone(),
            changing: Mutex::default(),
        });
        let reloader = Arc::new(reach.reloader(config, file, &uplink));
        let conditions = Conditions::default();
        let uplink_mtu = Arc::new(AtomicU32::new(uplink.mtu));
        let (broken, breaks) = mpsc::unbounded_channel();
        let (servers, name_servers) = watch::name_servers(config);
        let listeners =
            watch::listeners(config, &offer, uplink_mtu.clone(), servers, &resolver, broken);
        let prepared = host.take().context("the host is prepared once")?;
        let watcher = Watcher::start(prepared, plan, config, conditions.clone(), listeners);
        let watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                dataplane.stop();
                return Err(error);
            }
        };
        let view = Arc::new(View::new(view::Parts {
            uplink: uplink.clone(),
            uplink_mtu: Arc::clone(&uplink_mtu),
            xdp,
            receive: way,
            io,
            sandbox,
            notes,
            conditions,
            cores: cores.clone(),
            offer: offer.clone(),
            interface,
            mtu: config.tunnel.mtu,
            sessions: Arc::clone(&sessions),
            counts: dataplane.counts(),
            guard: kernel.counter(),
            limiter: Arc::clone(&limiter),
        }));
        let parts = serve::Parts {
            sessions: &sessions,
            view,
            offer,
            series,
            rhythm,
            limiter,
            reloader: Arc::clone(&reloader),
            keys,
            policy,
            resolver,
            ended,
            breaks,
            name_servers,
        };
        let served = serve::until_told(config, parts, kernel.take_log());
        // A change made after this would not be undone.
        reloader.close();
        dataplane.stop();
        // Until then packets may pass, and what keeps them in must not go.
        let watched = watcher.stop().map(|prepared| host = Some(prepared));
        // Only now is every count final.
        sessions
            .record()
            .and_then(|_| sessions.checkpoint())
            .context("cannot write the last counts to the ledger")?;
        saved = true;
        served.and(watched)
    })();
    // Whether it served or not: the machine is to be as it was.
    let kernel_undone = kernel.undo(saved);
    let host_undone = host.map_or(Ok(()), Host::undo);
    outcome.and(kernel_undone).and(host_undone)
}

/// What looks names up, and the machine's name servers, if anybody is to ask: outside of a sandbox.
fn resolver(config: &Config) -> anyhow::Result<Resolver> {
    let is_asked = !config.ledger.webhook.is_empty()
        || !config.payment.approve_url.is_empty()
        || watch::follows_name_servers(config);
    match config.node.sandbox {
        SandboxWish::Auto | SandboxWish::Required if is_asked => Resolver::start(),
        _ => Ok(Resolver::inside()),
    }
}

/// How the workers work.
struct Workers<'a> {
    io: Io,
    cores: &'a [usize],
    direct: Vec<XskQueues>,
    on_end: OnEnd,
}

fn start_dataplane(
    config: &Config,
    shared: Shared,
    identities: Arc<Identities>,
    tun: Tun,
    kernel: &mut KernelSide,
    workers: Workers<'_>,
) -> anyhow::Result<Dataplane> {
    let Workers { io, cores, direct, on_end } = workers;
    let port = config.node.listen_port;
    let bind = || {
        weir_dataplane::bind(port).with_context(|| {
            format!(
                "cannot take UDP port {port}. Fix: stop what uses it (ss -ulpn), or set \
                 node.listen_port."
            )
        })
    };
    let sockets = cores.iter().map(|_| bind()).collect::<anyhow::Result<Vec<_>>>()?;
    let (handshake_sockets, handshakes_steered) = if kernel.steers() {
        let own = bind()?;
        let readers: Vec<&Sockets> = sockets.iter().chain([&own]).collect();
        let v4: Vec<BorrowedFd<'_>> = readers.iter().map(|pair| pair.v4.as_fd()).collect();
        let v6: Vec<BorrowedFd<'_>> =
            readers.iter().filter_map(|pair| pair.v6.as_ref().map(|v6| v6.as_fd())).collect();
        kernel.steer_udp(&v4, &v6)?;
        (own, true)
    } else {
        let first = sockets.first().context("there is no worker")?;
        let v6 = first.v6.as_ref().map(|v6| v6.try_clone()).transpose()?;
        (Sockets { v4: first.v4.try_clone()?, v6 }, false)
    };
    if let (Some(program), Some(queue)) = (kernel.steering_program()?, tun.queues.first()) {
        tun::set_steering(queue.as_fd(), program.as_fd()).context(
            "the kernel does not take the program that chooses the TUN queue (Linux 4.16 does)",
        )?;
    }
    let start = Start {
        shared,
        identities,
        io,
        cores: cores.to_vec(),
        sockets,
        direct,
        queues: tun.queues,
        handshake_sockets,
        handshakes_steered,
        limits: reload::handshake_limits(&config.node),
        on_end,
    };
    Dataplane::start(start).context("cannot start the workers")
}

fn open_sessions(
    config: &Config,
    kernel: &KernelSide,
    dataplane: &Dataplane,
    addresses: AddressPlan,
    node_key: PublicKey,
) -> anyhow::Result<Arc<Sessions>> {
    // It takes its time after a change of the schema, and where damage was found.
    let _starting = service::starting("reading the ledger");
    let store = Store::open(&ledger_path(config))?;
    let max = config.node.max_sessions;
    let address_of = Box::new(move |slot: weir_common::Slot| {
        (slot.0 < max).then_some(())?;
        Some((addresses.address_v4(slot)?, addresses.address_v6(slot)?))
    });
    let peers = dataplane.control();
    let flows = Arc::new(flows::KernelFlows(Conntrack {
        pool_v4: config.tunnel.pool_v4,
        pool_v6: config.tunnel.pool_v6,
        gateways: [addresses.gateway_v4().into(), addresses.gateway_v6().into()],
    }));
    Ok(Arc::new(Sessions::open(store, kernel.accounts(), peers, flows, address_of, node_key)?))
}

fn choose_io(wish: &IoWish) -> anyhow::Result<Io> {
    match (wish, weir_dataplane::probe()) {
        (IoWish::Syscall, _) => Ok(Io::Syscall),
        (IoWish::UringSingle, Ok(_)) => Ok(Io::Uring(Reads::Single)),
        (IoWish::Auto | IoWish::Uring, Ok(reads)) => Ok(Io::Uring(reads)),
        (IoWish::Uring | IoWish::UringSingle, Err(error)) => bail!(
            "io_uring cannot be used here ({error}). Fix: allow it (sysctl \
             kernel.io_uring_disabled=0; in a container, a seccomp profile with io_uring), or set \
             node.io to \"auto\"."
        ),
        (IoWish::Auto, Err(error)) => {
            warn!(%error, "io_uring cannot be used here: plain system calls take more CPU");
            Ok(Io::Syscall)
        }
    }
}

/// What the operator is told of how packets come and go.
fn io_notes(config: &Config, io: Io) -> Vec<String> {
    let single =
        "io_uring reads the TUN device one frame at a time (Linux 6.7 has multishot reads)";
    let apart = "datagrams are sent one by one (node.udp_segmentation is false)";
    let notes = [
        (io == Io::Uring(Reads::Single)).then_some(single),
        (!config.node.udp_segmentation).then_some(apart),
    ];
    notes.into_iter().flatten().map(str::to_owned).collect()
}

fn segmentation(node: &weir_config::Node) -> UdpSegmentation {
    if node.udp_segmentation { UdpSegmentation::On } else { UdpSegmentation::Off }
}

/// The cores of the workers: the configured ones, or the first of those that we may use.
fn choose_cores(config: &Config) -> anyhow::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None).context("cannot ask for the cores of this process")?;
    let allowed: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let wanted: Vec<usize> = config.node.cores.iter().map(|core| usize::from(*core)).collect();
    if let Some(core) = wanted.iter().find(|core| !allowed.contains(core)) {
        bail!("node.cores: this process may not use core {core}. It may use {allowed:?}.");
    }
    let cores = if wanted.is_empty() { allowed } else { wanted };
    let count = match &config.node.workers {
        Auto::Auto => cores.len(),
        Auto::Set(count) => usize::from(*count),
    };
    // More workers than cores share them.
    Ok(cores.iter().copied().cycle().take(count).collect())
}

fn random_bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut random = [0; N];
    OsRng.try_fill_bytes(&mut random).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(random)
}

fn random_flow_keys() -> anyhow::Result<FlowSecret> {
    let random = random_bytes::<32>()?;
    let (words, _) = random.as_chunks::<8>();
    let mut keys = [0; 4];
    for (key, word) in keys.iter_mut().zip(words) {
        *key = u64::from_ne_bytes(*word);
    }
    Ok(FlowSecret(keys))
}

fn random_permutation() -> anyhow::Result<SlotPermutation> {
    let random = random_bytes::<16>()?;
    let (words, _) = random.as_chunks::<4>();
    let mut keys = [0; 4];
    for (key, word) in keys.iter_mut().zip(words) {
        *key = u32::from_ne_bytes(*word);
    }
    Ok(SlotPermutation { keys })
}
