//! A WireGuard exit in a rig: weir, or another implementation with a NAT rule of its own.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use weir_testkit::{
    Namespace,
    consumer::{Access, Credentials},
    meter::Meter,
    node::{Node, Options},
    rig::{CONSUMERS, Link, NODE, Rig},
    wireguard::{Implementation, WireguardProcess},
};

use super::metering::{Metering, Receivers};

/// An implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// This project.
    Weir,
    /// This project, with consumers' packets through the kernel (`node.egress = "kernel"`).
    WeirKernel,
    /// wireguard-go, as installed.
    WireguardGo,
    /// boringtun-cli.
    Boringtun,
}

impl Program {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::WeirKernel => "weir kernel",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun-cli",
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Tools {
    /// weir.
    pub weir: PathBuf,
    /// boringtun-cli.
    pub boringtun: PathBuf,
}

/// The program of the cable: `cargo xtask build-ebpf` makes it from node-ebpf.
static CABLE: &[u8] = aya::include_bytes_aligned!("../../ebpf/cable.bpf.o");

/// How packets reach the exit; [`Link`] says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// One by one, in pages, as a network card's driver hands them on.
    Frames,
    /// One by one, in the sender's packet buffers.
    Packets,
    /// As the super-packets that the generator sent.
    SuperPackets,
}

impl Arrival {
    fn link(self) -> Link<'static> {
        match self {
            Self::Frames => Link::Cable(CABLE),
            Self::Packets => Link::Veth,
            Self::SuperPackets => Link::VethSuperPackets,
        }
    }
}

/// How an exit is to run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setup {
    /// Which one.
    pub program: Program,
    /// Its cores; weir has one worker on each.
    pub cores: Vec<usize>,
    /// The cores that help weir with the cipher.
    pub cipher_cores: Vec<usize>,
    /// The core of everything else.
    pub generator: usize,
    /// weir's `node.xdp`.
    pub xdp: String,
    /// weir's `node.receive`.
    pub receive: String,
    /// weir's `node.egress`.
    pub egress: String,
    /// weir's `node.defer_interrupts`.
    pub defer_interrupts: bool,
    /// How packets reach it.
    pub arrival: Arrival,
    /// Whether its uplink has no segmentation offload, so that the kernel segments in software.
    pub software_gso: bool,
    /// Sessions.
    pub sessions: u32,
    /// What weir writes down and tells.
    pub metering: Metering,
}

/// A running exit in a rig of its own; both gone when dropped.
pub struct Exit {
    running: Running,
    /// What its consumers need to know.
    pub access: Access,
    /// Its sessions.
    pub credentials: Vec<Credentials>,
    /// Its processor time.
    pub meter: Meter,
    /// Those whom it tells what was used.
    pub receivers: Receivers,
    /// Its surroundings.
    pub rig: Rig,
}

enum Running {
    Weir(Node),
    Other(WireguardProcess),
}

impl Exit {
    /// Starts an exit.
    ///
    /// # Errors
    ///
    /// Fails without root, or when it does not start.
    pub fn start(tools: &Tools, setup: &Setup) -> anyhow::Result<Self> {
        let rig = Rig::new(setup.arrival.link())?;
        rig.set(setup.software_gso, setup.generator)?;
        let mut receivers = Receivers::prepare(setup.metering, &rig.node)?;
        let (running, key, credentials) = match setup.program {
            Program::Weir | Program::WeirKernel => start_weir(tools, setup, &rig, &mut receivers)?,
            Program::WireguardGo | Program::Boringtun => start_other(tools, setup, &rig)?,
        };
        let pid = match &running {
            Running::Weir(node) => node.pid()?,
            Running::Other(other) => other.pid(),
        };
        let kernel_threads = rig.bind_receive(&setup.cores)?;
        let core = setup.cores.first().copied().context("no core for the exit")?;
        let meter = Meter::new(pid, &kernel_threads, core)?;
        let access = Access { from: CONSUMERS, node: NODE, key };
        Ok(Self { running, access, credentials, meter, receivers, rig })
    }

    /// The node, if it is weir.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        match &self.running {
            Running::Weir(node) => Some(node),
            Running::Other(_) => None,
        }
    }
}

type Started = (Running, [u8; 32], Vec<Credentials>);

fn start_weir(
    tools: &Tools,
    setup: &Setup,
    rig: &Rig,
    receivers: &mut Receivers,
) -> anyhow::Result<Started> {
    let (recording, metrics) = receivers.settings();
    let options = Options {
        cores: setup.cores.clone(),
        cipher_cores: setup.cipher_cores.clone(),
        xdp: setup.xdp.clone(),
        receive: setup.receive.clone(),
        egress: setup.egress.clone(),
        defer_interrupts: setup.defer_interrupts,
        max_sessions: setup.sessions + 16,
        // A source may have five at once.
        crowded: setup.sessions > 4,
        recording,
        metrics,
    };
    let node = Node::start(&tools.weir, &rig.node, &options)?;
    receivers.begin(&rig.node)?;
    let add = |index| {
        let new = Credentials::fixed(index, Ipv4Addr::UNSPECIFIED);
        Ok(Credentials { address: node.add(new.public())?, ..new })
    };
    let credentials = (0..setup.sessions).map(add).collect::<anyhow::Result<_>>()?;
    let key = node.public_key()?;
    Ok((Running::Weir(node), key, credentials))
}

fn start_other(tools: &Tools, setup: &Setup, rig: &Rig) -> anyhow::Result<Started> {
    let own = Credentials::fixed(u32::MAX, Ipv4Addr::UNSPECIFIED);
    let pool = u32::from(Ipv4Addr::new(10, 66, 0, 2));
    let credentials: Vec<_> = (0..setup.sessions)
        .map(|index| Credentials::fixed(index, Ipv4Addr::from(pool + index)))
        .collect();
    let mut config = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {}\n",
        STANDARD.encode(own.private),
        NODE.port()
    );
    for peer in &credentials {
        let (key, address) = (STANDARD.encode(peer.public()), peer.address);
        config.push_str(&format!("[Peer]\nPublicKey = {key}\nAllowedIPs = {address}/32\n"));
    }
    let node = &rig.node;
    let other = start_wireguard(tools, setup.program, node, &setup.cores, &config)?;
    let interface = other.interface();
    node.ip(&format!("addr add 10.66.0.1/16 dev {interface}"))?;
    node.ip(&format!("link set {interface} mtu 1420 up"))?;
    node.run("sysctl -q -w net.ipv4.ip_forward=1")?;
    node.run("nft add table inet bench")?;
    node.run("nft add chain inet bench post { type nat hook postrouting priority 100 ; }")?;
    node.run("nft add rule inet bench post ip saddr 10.66.0.0/16 masquerade")?;
    Ok((Running::Other(other), own.public(), credentials))
}

/// Starts wireguard-go or boringtun-cli on `cores` in `namespace` with a configuration for
/// `wg setconf`.
pub(super) fn start_wireguard(
    tools: &Tools,
    program: Program,
    namespace: &Namespace,
    cores: &[usize],
    config: &str,
) -> anyhow::Result<WireguardProcess> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let interface = format!("wb{}x{number}", std::process::id());
    let implementation = match program {
        Program::Boringtun => {
            Implementation::Boringtun { program: &tools.boringtun, threads: cores.len() }
        }
        Program::Weir | Program::WeirKernel | Program::WireguardGo => Implementation::WireguardGo,
    };
    let process = WireguardProcess::start(implementation, namespace, cores, interface)?;
    process.configure(namespace, config)?;
    Ok(process)
}
