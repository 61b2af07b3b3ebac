//! One run: an exit, a load, and what came of it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use weir_testkit::flood::Rates;
use weir_testkit::{
    cipher,
    consumer::Consumer,
    counts::Counts,
    download::Download,
    load::{Sealed, Shape, check},
    meter::{Spent, pin},
    packet::Transport,
    rig::{OUTSIDE, SERVER},
    sink::Sink,
};

use super::{
    attack::{Attack, Known},
    exit::{Arrival, Exit, Program, Setup, Tools},
    iperf,
    metering::Metering,
};

/// Which way, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// From the consumer, by our generator.
    Up,
    /// To the consumer, by our generator.
    Down,
    /// From the consumer, iperf3 with four TCP streams.
    IperfUp,
    /// The same, to the consumer.
    IperfDown,
}

/// A case that is run in several rounds.
#[derive(Clone, Debug)]
pub struct Case {
    /// Unique within its part, without the program: `up 64 flows`.
    pub name: String,
    /// The exit.
    pub setup: Setup,
    /// Which way.
    pub load: Load,
    /// The load of the generator.
    pub shape: Shape,
    /// What is sent at the node's port meanwhile; of loads up only.
    pub attack: Option<Attack>,
}

/// What a run gave.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Inner bits per second on the clock.
    pub bits_per_second: f64,
    /// Per second of processor time of the exit and of the kernel's receive path in front of it.
    pub per_exit_second: f64,
    /// Per second of processor time of the exit's process alone.
    pub per_process_second: f64,
    /// Per second of weir's workers; 0 for others.
    pub per_worker_second: f64,
    /// Of the better of worker and process seconds, over the cipher's speed at this size.
    pub cipher_ratio: f64,
    /// Packets lost, of those that arrived.
    pub loss_ratio: f64,
    /// Packets per super-packet at the receiving end.
    pub per_super_packet: f64,
    /// Packets whose content was compared and right.
    pub checked: u64,
    /// Median and 99th percentile of the way through, in microseconds.
    pub latency_us: Option<[f64; 2]>,
    /// Share of the time that the host took the exit's core away.
    pub steal_ratio: f64,
    /// Processor time of the exit's process per second on the clock.
    pub process_ratio: f64,
    /// The same for the kernel's receive path in front of it.
    pub receive_ratio: f64,
    /// Of weir's threads that are not workers, likewise; what a program without workers takes.
    pub control_ratio: f64,
    /// Datagrams per second of the attack.
    pub attack_rate: f64,
    /// Of these, the ones that the exit's receive ring took.
    pub attack_taken: f64,
    /// The share of the generator's core that sending them took.
    pub attack_core: f64,
    /// Processor time, in seconds.
    pub spent: Spent,
}

impl Case {
    /// Runs it once, with the cipher's speed measured on the exit's core just before.
    ///
    /// # Errors
    ///
    /// Fails when the exit does, or its output is wrong.
    pub fn run(&self, tools: &Tools) -> anyhow::Result<Outcome> {
        pin(*self.setup.cores.first().context("no core")?)?;
        let limit = cipher::seal_rate(self.shape.size, Duration::from_millis(100))?;
        pin(self.setup.generator)?;
        let exit = Exit::start(tools, &self.setup)?;
        let mut attack = None;
        let (counts, spent) = match self.load {
            Load::Up => self.up(&exit, &mut attack)?,
            Load::Down => self.down(&exit)?,
            Load::IperfUp | Load::IperfDown => {
                let seconds = (self.shape.packets / 250_000).clamp(2, 10) as u32;
                let down = self.load == Load::IperfDown;
                let transfer = iperf::run(tools, &exit, down, seconds)?;
                let (bytes, seconds) = (transfer.bytes as u64, transfer.seconds);
                (Counts { bytes, seconds, ..Counts::default() }, transfer.spent)
            }
        };
        exit.receivers.check(self.setup.sessions)?;
        let outcome = Outcome::new(&counts, &spent, limit);
        Ok(match attack {
            Some(Rates { sent, taken, core }) => {
                Outcome { attack_rate: sent, attack_taken: taken, attack_core: core, ..outcome }
            }
            None => outcome,
        })
    }

    fn up(&self, exit: &Exit, came_to: &mut Option<Rates>) -> anyhow::Result<(Counts, Spent)> {
        let mut consumers = self.consumers(exit)?;
        let mut sink = Sink::new(&exit.rig.outside, OUTSIDE, SERVER)?;
        let misused = self.attack.map_or(0, Attack::sessions) as usize;
        let mut misused = consumers.split_off(consumers.len().saturating_sub(misused));
        let private_keys = exit.credentials.iter().rev().take(misused.len());
        let private_keys = private_keys.map(|of| of.private).collect();
        let pending = match (self.attack, misused.pop()) {
            (Some(Attack::Responses), Some(silent)) => {
                pending_initiation(silent, &mut sink, self.shape)?
            }
            _ => 0,
        };
        Download::establish(&mut consumers, &mut sink, SERVER, self.shape)?;
        let sealed = Sealed::new(&mut consumers, SERVER, self.shape)?;
        let known =
            Known { live_index: sealed.receiver_index(), pending_index: pending, private_keys };
        let attack = self.attack.map(|attack| attack.begin(exit, &known));
        let attack = attack.transpose()?;
        let measured = sealed.send(&consumers, &mut sink, || exit.meter.read())?;
        if let Some(attack) = attack {
            *came_to = Some(attack.stop()?);
        }
        check(&measured.counts)?;
        Ok((measured.counts, measured.after.since(&measured.before)))
    }

    fn down(&self, exit: &Exit) -> anyhow::Result<(Counts, Spent)> {
        let mut consumers = self.consumers(exit)?;
        let mut sink = Sink::new(&exit.rig.outside, OUTSIDE, SERVER)?;
        let download = Download::open(&mut consumers, &mut sink, SERVER, self.shape)?;
        let measured = download.send(&mut consumers, &sink, || exit.meter.read())?;
        check(&measured.counts)?;
        Ok((measured.counts, measured.after.since(&measured.before)))
    }

    fn consumers(&self, exit: &Exit) -> anyhow::Result<Vec<Consumer>> {
        let connect = |credentials| {
            Consumer::connect(&exit.rig.outside, &exit.access, credentials, self.shape.size)
        };
        exit.credentials.iter().map(connect).collect()
    }
}

/// Has the node begin a handshake with a consumer that says nothing more; the index of its
/// initiation, for which a node takes responses until it begins the next one, 5 s later.
fn pending_initiation(silent: Consumer, sink: &mut Sink, shape: Shape) -> anyhow::Result<u32> {
    let mut silent = [silent];
    let mut flows = Download::establish(&mut silent, sink, SERVER, shape)?;
    // boringtun's time passes in steps of up to a second: what it sends now is later than what it
    // has received.
    std::thread::sleep(Duration::from_millis(2500));
    flows.answer(sink)?;
    let [silent] = silent;
    silent.await_initiation()
}

impl Outcome {
    fn new(counts: &Counts, spent: &Spent, limit: f64) -> Self {
        let bits = counts.bytes as f64 * 8.0;
        let ratio = |one: f64, two: f64| if two > 0.0 { one / two } else { 0.0 };
        let worker = if spent.workers > 0.0 { spent.workers } else { spent.process };
        Self {
            bits_per_second: counts.bits_per_second(),
            per_exit_second: ratio(bits, spent.process + spent.receive),
            per_process_second: ratio(bits, spent.process),
            per_worker_second: ratio(bits, spent.workers),
            cipher_ratio: ratio(bits, worker) / limit,
            loss_ratio: ratio(counts.lost as f64, (counts.packets + counts.lost) as f64),
            per_super_packet: ratio(counts.packets as f64, counts.super_packets as f64),
            checked: counts.checked,
            latency_us: counts.latency_us,
            steal_ratio: ratio(spent.steal, spent.wall),
            process_ratio: ratio(spent.process, spent.wall),
            receive_ratio: ratio(spent.receive, spent.wall),
            control_ratio: ratio(spent.process - spent.workers, spent.wall),
            attack_rate: 0.0,
            attack_taken: 0.0,
            attack_core: 0.0,
            spent: *spent,
        }
    }

    /// The median of several, field by field.
    #[must_use]
    pub fn median(all: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| {
            let mut values: Vec<f64> = all.iter().map(field).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let has_latency = all.iter().any(|outcome| outcome.latency_us.is_some());
        Self {
            bits_per_second: of(|outcome| outcome.bits_per_second),
            per_exit_second: of(|outcome| outcome.per_exit_second),
            per_process_second: of(|outcome| outcome.per_process_second),
            per_worker_second: of(|outcome| outcome.per_worker_second),
            cipher_ratio: of(|outcome| outcome.cipher_ratio),
            loss_ratio: of(|outcome| outcome.loss_ratio),
            per_super_packet: of(|outcome| outcome.per_super_packet),
            checked: all.iter().map(|outcome| outcome.checked).sum(),
            latency_us: has_latency.then(|| {
                [0, 1].map(|at| {
                    let field = |outcome: &Self| outcome.latency_us.map_or(0.0, |pair| pair[at]);
                    let mut values: Vec<f64> = all.iter().map(field).collect();
                    values.sort_by(f64::total_cmp);
                    values.get(values.len() / 2).copied().unwrap_or_default()
                })
            }),
            steal_ratio: of(|outcome| outcome.steal_ratio),
            process_ratio: of(|outcome| outcome.process_ratio),
            receive_ratio: of(|outcome| outcome.receive_ratio),
            control_ratio: of(|outcome| outcome.control_ratio),
            attack_rate: of(|outcome| outcome.attack_rate),
            attack_taken: of(|outcome| outcome.attack_taken),
            attack_core: of(|outcome| outcome.attack_core),
            spent: Spent::default(),
        }
    }
}

/// A transport by its name.
///
/// # Errors
///
/// Fails for others than `tcp` and `udp`.
pub fn transport(name: &str) -> anyhow::Result<Transport> {
    match name {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        _ => bail!("{name} is neither tcp nor udp"),
    }
}

/// How big everything is.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Packets of a run of weir's, up: each is held in memory.
    pub packets: usize,
    /// The exit's core.
    pub core: usize,
    /// The core of everything else.
    pub generator: usize,
    /// weir's `node.egress`, except of [`Program::WeirKernel`].
    pub egress: String,
}

/// One core, one session, packets one by one, weir's default guard.
#[must_use]
pub fn setup(scale: &Scale, program: Program) -> Setup {
    Setup {
        program,
        cores: vec![scale.core],
        cipher_cores: Vec::new(),
        generator: scale.generator,
        xdp: "auto".to_owned(),
        receive: "auto".to_owned(),
        egress: match program {
            Program::WeirKernel => "kernel".to_owned(),
            _ => scale.egress.clone(),
        },
        defer_interrupts: false,
        arrival: Arrival::Packets,
        software_gso: false,
        sessions: 1,
        metering: Metering::Usual,
    }
}

/// What one program can be sent: slower ones get fewer packets, so that a run stays short.
#[must_use]
pub fn packets_for(program: Program, packets: usize) -> usize {
    match program {
        Program::Weir | Program::WeirKernel => packets,
        Program::WireguardGo => packets / 2,
        Program::Boringtun => packets / 6,
    }
}
