//! How fast this machine is as a node: load of our own through the real data plane.
//!
//! [`run`] is `weir bench`: a node in namespaces of its own ([`rig`](weir_testkit::rig)), consumers
//! whose packets are sealed beforehand ([`load`](weir_testkit::load)), and a sink that compares
//! content ([`sink`](weir_testkit::sink)). The development benchmarks use the same parts.

pub mod nic;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use weir_ledger::unix_now;
use weir_market::listing::Capacity;
use weir_testkit::{
    cipher,
    consumer::{Access, Consumer, Credentials},
    counts::Counts,
    download::Download,
    load::{Sealed, Shape, check},
    meter::{Meter, Spent, pin},
    node::{Node, Options, Recording},
    rig::{CONSUMERS, Link, NODE, OUTSIDE, Rig, SERVER},
    sink::Sink,
};
use weir_wireguard::aead;

use self::nic::Nic;

/// Rounds each way; the median counts.
const ROUNDS: usize = 3;
/// Packets of a round from the consumer: 1452 bytes of memory each.
const PACKETS_UP: usize = 250_000;
const PACKETS_DOWN: usize = 1_000_000;
/// The share of traffic that goes to consumers, as most exits see it.
const DOWN_SHARE: f64 = 0.8;
/// What is left of each core for bursts, smaller packets, handshakes and the rest of the machine.
const HEADROOM: f64 = 0.7;

/// What `weir bench` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The cores that workers would have.
    pub cores: Vec<usize>,
    /// What ring seals on each of them, in bits of 1420-byte packets per second.
    pub cipher_bits_per_second: Vec<f64>,
    /// The path of the node's own cipher.
    pub cipher_path: String,
    /// Mode of the guard while measuring.
    pub xdp_mode: String,
    /// How workers talked to the kernel.
    pub io: String,
    /// How data reached them.
    pub receive: String,
    /// From the consumer to the internet.
    pub up: DirectionReport,
    /// From the internet to the consumer.
    pub down: DirectionReport,
    /// The uplink, if there is one.
    pub nic: Option<Nic>,
    /// What all cores together carry, in bits per second, with headroom, if the uplink does.
    pub capacity_bits_per_second: f64,
    /// The same for each direction alone, for the node's listing.
    pub listed: Capacity,
    /// What the capacity follows from.
    pub capacity_basis: String,
    /// Share of the time that the host took away from the measured core.
    pub steal_ratio: f64,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct DirectionReport {
    /// Bits of inner packets per second on the clock.
    pub bits_per_second: f64,
    /// The same per second of worker's processor time.
    pub per_worker_second: f64,
    /// The same per second of processor time of the worker and of the kernel's receive path.
    pub per_core_second: f64,
    /// `per_worker_second` over what the cipher alone does.
    pub cipher_ratio: f64,
    /// Packets per super-packet where they left the node.
    pub packets_per_super_packet: f64,
    /// Packets compared at the other end.
    pub checked: u64,
}

/// Measures; `progress` is told what is going on.
///
/// # Errors
///
/// Fails without root, or when the node does not run here; says what to do.
pub fn run(program: &Path, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Report> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the benchmark creates network namespaces, which requires root. Fix: sudo weir bench"
    );
    let cores = allowed_cores()?;
    let (core, generator) = match cores[..] {
        [] => anyhow::bail!("this process is not allowed to use any CPU core"),
        [only] => (only, only),
        [first, .., last] => (last, first),
    };
    progress("the cipher alone, on each core");
    let mut cipher = cores.iter().map(|core| seal_on(*core)).collect::<anyhow::Result<Vec<_>>>()?;
    pin(generator)?;
    let rig = Rig::new(Link::Veth)?;
    rig.set(false, generator)?;
    let options = Options {
        cores: vec![core],
        cipher_cores: Vec::new(),
        xdp: "auto".into(),
        egress: "auto".to_owned(),
        receive: "auto".into(),
        max_sessions: 16,
        crowded: false,
        recording: Recording::Default,
        metrics: None,
        defer_interrupts: false,
    };
    progress("starting a node in its own network namespaces");
    let node = Node::start(program, &rig.node, &options)?;
    let kernel_threads = rig.bind_receive(&[core])?;
    let meter = Meter::new(node.pid()?, &kernel_threads, core)?;
    let address = node.add(Credentials::fixed(0, SERVER).public())?;
    let bench = Bench {
        access: Access { from: CONSUMERS, node: NODE, key: node.public_key()? },
        credentials: Credentials::fixed(0, address),
        rig: &rig,
        meter: &meter,
    };
    let (mut ups, mut downs) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        progress(&format!("up, from the consumer to the internet, round {round} of {ROUNDS}"));
        ups.push(bench.up(&Shape::new(PACKETS_UP))?);
        progress(&format!("down, from the internet to the consumer, round {round} of {ROUNDS}"));
        downs.push(bench.down(&Shape::new(PACKETS_DOWN))?);
    }
    let all = || ups.iter().chain(&downs);
    let (steal, wall) =
        all().fold((0.0, 0.0), |sum, (_, spent)| (sum.0 + spent.steal, sum.1 + spent.wall));
    let status = node.status()?;
    drop(node);
    // Once more: whatever else ran the first time would make the node look better than it is.
    let limit = cipher.last_mut().context("no core")?;
    *limit = limit.max(seal_on(core)?);
    let (up, down) = (median(&ups, *limit), median(&downs, *limit));
    let nic = Nic::of_this_machine();
    let per_core =
        1.0 / (DOWN_SHARE / down.per_core_second + (1.0 - DOWN_SHARE) / up.per_core_second);
    let by_cores = per_core * cores.len() as f64 * HEADROOM;
    let line = nic.as_ref().and_then(|nic| nic.bits_per_second);
    let (capacity, capacity_basis) = match line {
        Some(line) if line < by_cores => (line, "the uplink's line rate".to_owned()),
        _ => (
            by_cores,
            format!(
                "{} core{} at {:.0} % load, {:.0} % of the traffic down",
                cores.len(),
                if cores.len() == 1 { "" } else { "s" },
                HEADROOM * 100.0,
                DOWN_SHARE * 100.0
            ),
        ),
    };
    let listed = Capacity {
        up: listed(up.per_core_second, cores.len(), line),
        down: listed(down.per_core_second, cores.len(), line),
        measured_at: unix_now(),
    };
    Ok(Report {
        cores,
        cipher_bits_per_second: cipher,
        cipher_path: aead::Path::from_environment()?.name().to_owned(),
        xdp_mode: status.xdp_mode,
        io: status.io,
        receive: status.receive,
        up,
        down,
        nic,
        capacity_bits_per_second: capacity,
        listed,
        capacity_basis,
        steal_ratio: if wall > 0.0 { steal / wall } else { 0.0 },
    })
}

/// Mbit/s of one direction, with all cores and headroom, as far as the uplink carries it.
fn listed(per_core: f64, cores: usize, line: Option<f64>) -> u32 {
    let by_cores = per_core * cores as f64 * HEADROOM;
    // A float that does not fit becomes the nearest number that does.
    (line.map_or(by_cores, |line| by_cores.min(line)) / 1e6) as u32
}

struct Bench<'a> {
    access: Access,
    credentials: Credentials,
    rig: &'a Rig,
    meter: &'a Meter,
}

impl Bench<'_> {
    fn up(&self, shape: &Shape) -> anyhow::Result<(Counts, Spent)> {
        let mut consumers = [self.consumer(shape)?];
        let mut sink = Sink::new(&self.rig.outside, OUTSIDE, SERVER)?;
        Download::establish(&mut consumers, &mut sink, SERVER, *shape)?;
        let sealed = Sealed::new(&mut consumers, SERVER, *shape)?;
        let measured = sealed.send(&consumers, &mut sink, || self.meter.read())?;
        check(&measured.counts)?;
        Ok((measured.counts, measured.after.since(&measured.before)))
    }

    fn down(&self, shape: &Shape) -> anyhow::Result<(Counts, Spent)> {
        let mut consumers = [self.consumer(shape)?];
        let mut sink = Sink::new(&self.rig.outside, OUTSIDE, SERVER)?;
        let download = Download::open(&mut consumers, &mut sink, SERVER, *shape)?;
        let measured = download.send(&mut consumers, &sink, || self.meter.read())?;
        check(&measured.counts)?;
        Ok((measured.counts, measured.after.since(&measured.before)))
    }

    fn consumer(&self, shape: &Shape) -> anyhow::Result<Consumer> {
        Consumer::connect(&self.rig.outside, &self.access, &self.credentials, shape.size)
    }
}

fn seal_on(core: usize) -> anyhow::Result<f64> {
    let seal = || {
        pin(core)?;
        cipher::seal_rate(1420, Duration::from_millis(400))
    };
    std::thread::scope(|scope| scope.spawn(seal).join())
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

fn allowed_cores() -> anyhow::Result<Vec<usize>> {
    let allowed =
        rustix::thread::sched_getaffinity(None).context("cannot read the allowed CPU cores")?;
    let all = 0..rustix::thread::CpuSet::MAX_CPU;
    Ok(all.filter(|core| allowed.is_set(*core)).collect())
}

fn median(rounds: &[(Counts, Spent)], limit: f64) -> DirectionReport {
    let mut reports: Vec<DirectionReport> = rounds
        .iter()
        .map(|(counts, spent)| {
            let bits = counts.bytes as f64 * 8.0;
            DirectionReport {
                bits_per_second: counts.bits_per_second(),
                per_worker_second: bits / spent.workers,
                per_core_second: bits / (spent.workers + spent.receive),
                cipher_ratio: bits / spent.workers / limit,
                packets_per_super_packet: counts.packets as f64 / counts.super_packets as f64,
                checked: counts.checked,
            }
        })
        .collect();
    reports.sort_by(|one, two| one.per_core_second.total_cmp(&two.per_core_second));
    reports.get(reports.len() / 2).copied().unwrap_or_default()
}
