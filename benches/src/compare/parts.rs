//! The parts of the comparison: which cases, and which ratios of theirs have targets.

use weir_testkit::{load::Shape, packet::Transport};

use super::{
    case::{Case, Load, Outcome, Scale, packets_for, setup},
    exit::{Arrival, Program},
    metering::Metering,
};

/// The parts, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Against the peers, by our generator, packets arriving one by one
    Throughput,
    /// Against the peers, iperf3 with four TCP streams
    Iperf,
    /// 1, 8 and 64 flows, interleaved packet by packet
    Flows,
    /// 64 sessions of 16 flows in bursts of 1, 2 and 8, against the peers and against one bulk flow
    Mixed,
    /// Inner packets of 1420, 576 and 128 bytes, TCP and UDP
    Sizes,
    /// 1 and 256 sessions
    Sessions,
    /// 1 and 2 workers
    Workers,
    /// The guard in the driver, and off
    Xdp,
    /// Consumers' data over AF_XDP, and through the kernel's network stack
    Receive,
    /// The uplink's interrupts deferred, and not
    Interrupts,
    /// An uplink without segmentation offload
    Offload,
    /// The way through at half load
    Latency,
    /// Memory and processor time of idle sessions
    Idle,
    /// Floods at the node's port, with a consumer's traffic beside them
    Floods,
    /// Ledger, export and metrics, everything on and off
    Metering,
}

impl Part {
    /// Its name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Iperf => "iperf",
            Self::Flows => "flows",
            Self::Mixed => "mixed",
            Self::Sizes => "sizes",
            Self::Sessions => "sessions",
            Self::Workers => "workers",
            Self::Xdp => "xdp",
            Self::Receive => "receive",
            Self::Interrupts => "interrupts",
            Self::Offload => "offload",
            Self::Latency => "latency",
            Self::Idle => "idle",
            Self::Floods => "floods",
            Self::Metering => "metering",
        }
    }

    /// How many rounds it takes at least to tell what its targets are about.
    #[must_use]
    pub fn least_rounds(self) -> usize {
        // Two in a hundred are less than one run differs from the next.
        if self == Self::Metering { 9 } else { 1 }
    }
}

/// A ratio with a target.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it says.
    pub label: String,
    /// The part's case and program above the line.
    pub of: (String, Program),
    /// The ones below it; the ratio to the cipher, or the value itself, if `None`.
    pub to: Option<(String, Program)>,
    /// What is compared.
    pub value: fn(&Outcome) -> f64,
    /// The target; `None` where there is none.
    pub target: Option<Target>,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

const ALL: [Program; 3] = [Program::Weir, Program::WireguardGo, Program::Boringtun];
const WAYS: [(&str, Load); 2] = [("up", Load::Up), ("down", Load::Down)];
/// What a case is called by how packets arrive. With XDP a veth copies the sender's packet buffers
/// first, which no card's driver does: so what is about XDP is measured both ways.
const ARRIVALS: [(&str, Arrival); 2] = [("", Arrival::Packets), (" frames", Arrival::Frames)];

/// The cases of a part, and the ratios that it gives.
#[must_use]
pub fn plan(part: Part, scale: &Scale) -> (Vec<Case>, Vec<Wanted>) {
    let plan = Plan { scale, cases: Vec::new(), wanted: Vec::new() };
    match part {
        Part::Throughput => plan.throughput(),
        Part::Iperf => plan.iperf(),
        Part::Flows => plan.flows(),
        Part::Mixed => plan.mixed(),
        Part::Sizes => plan.sizes(),
        Part::Sessions => plan.sessions(),
        Part::Workers => plan.workers(),
        Part::Xdp => plan.xdp(),
        Part::Receive => plan.receive(),
        Part::Interrupts => plan.interrupts(),
        Part::Offload => plan.offload(),
        Part::Metering => plan.metering(),
        // These have a shape of their own.
        Part::Latency | Part::Idle | Part::Floods => (Vec::new(), Vec::new()),
    }
}

struct Plan<'a> {
    scale: &'a Scale,
    cases: Vec<Case>,
    wanted: Vec<Wanted>,
}

type Planned = (Vec<Case>, Vec<Wanted>);

impl Plan<'_> {
    fn case(&self, name: &str, program: Program, load: Load) -> Case {
        let mut packets = packets_for(program, self.scale.packets);
        // Nothing is held in memory that way.
        if load == Load::Down {
            packets *= 2;
        }
        Case {
            name: name.to_owned(),
            setup: setup(self.scale, program),
            load,
            shape: Shape::new(packets),
            attack: None,
        }
    }

    fn want(
        &mut self,
        label: String,
        of: (&str, Program),
        to: Option<(&str, Program)>,
        value: fn(&Outcome) -> f64,
        target: Option<f64>,
    ) {
        self.wanted.push(Wanted {
            label,
            of: (of.0.to_owned(), of.1),
            to: to.map(|(name, program)| (name.to_owned(), program)),
            value,
            target: target.map(Target::AtLeast),
        });
    }

    fn against_peers(&mut self, way: &str, is_target: bool) {
        for (peer, target) in [(Program::WireguardGo, 3.0), (Program::Boringtun, 8.0)] {
            let label = format!("{way}: per exit-CPU-second, weir / {}", peer.name());
            let target = is_target.then_some(target);
            let value = |outcome: &Outcome| outcome.per_exit_second;
            self.want(label, (way, Program::Weir), Some((way, peer)), value, target);
        }
    }

    fn throughput(mut self) -> Planned {
        for (way, load) in WAYS {
            for program in ALL {
                self.cases.push(self.case(way, program, load));
            }
            self.against_peers(way, true);
            let target = if load == Load::Up { 0.65 } else { 0.55 };
            let label = format!("{way}: per worker-CPU-second / ring's seal");
            let value = |outcome: &Outcome| outcome.cipher_ratio;
            self.want(label, (way, Program::Weir), None, value, Some(target));
        }
        // As a card's driver hands packets on; and without the receive path and XDP at all.
        let others =
            [("frames", Arrival::Frames, "auto"), ("super-packets", Arrival::SuperPackets, "off")];
        for (way, load) in WAYS {
            for (what, arrival, xdp) in others {
                let name = format!("{way} {what}");
                for program in ALL {
                    let mut case = self.case(&name, program, load);
                    case.setup.arrival = arrival;
                    xdp.clone_into(&mut case.setup.xdp);
                    self.cases.push(case);
                }
                self.against_peers(&name, false);
                let label = format!("{name}: per worker-CPU-second / ring's seal");
                let value = |outcome: &Outcome| outcome.cipher_ratio;
                self.want(label, (&name, Program::Weir), None, value, None);
            }
        }
        self.done()
    }

    fn iperf(mut self) -> Planned {
        for (way, load) in [("iperf up", Load::IperfUp), ("iperf down", Load::IperfDown)] {
            for program in ALL {
                let mut case = self.case(way, program, load);
                case.shape.packets = self.scale.packets;
                self.cases.push(case);
            }
            self.against_peers(way, true);
        }
        self.done()
    }

    fn flows(mut self) -> Planned {
        for (way, load) in WAYS {
            for flows in [1, 8, 64] {
                let mut case = self.case(&format!("{way} {flows} flows"), Program::Weir, load);
                case.shape.flows = flows;
                self.cases.push(case);
            }
            self.keeps(way, ["64 flows", "1 flows"], 0.8);
        }
        self.done()
    }

    /// What a provider carries: many consumers with many flows each, whose packets come in short
    /// bursts. Up, the flows of a burst alternate; down, a burst is of one flow.
    fn mixed(mut self) -> Planned {
        const OURS: [Program; 2] = [Program::Weir, Program::WeirKernel];
        let per_exit_second = |outcome: &Outcome| outcome.per_exit_second;
        for (way, load) in WAYS {
            let bulk = format!("{way} bulk");
            for program in OURS {
                self.cases.push(self.case(&bulk, program, load));
            }
            for burst in [1, 2, 8] {
                let name = format!("{way} mixed, bursts of {burst}");
                for program in [OURS.as_slice(), &ALL[1..]].concat() {
                    let mut case = self.case(&name, program, load);
                    case.setup.sessions = 64;
                    case.shape.flows = 16;
                    case.shape.burst = burst;
                    self.cases.push(case);
                }
                // The targets are for what browsing and short transfers look like.
                let target = |target| (burst == 2).then_some(target);
                for program in OURS {
                    let is_target = program == Program::Weir;
                    let to_bulk = target(0.55).filter(|_| is_target);
                    let label = format!("{name}: per exit-CPU-second, {} / bulk", program.name());
                    let (of, to) = ((name.as_str(), program), (bulk.as_str(), program));
                    self.want(label, of, Some(to), per_exit_second, to_bulk);
                    for (peer, least) in
                        [(Program::WireguardGo, Some(4.0)), (Program::Boringtun, None)]
                    {
                        let least = least.and_then(target).filter(|_| is_target);
                        let (own, peers) = (program.name(), peer.name());
                        let label = format!("{name}: per exit-CPU-second, {own} / {peers}");
                        self.want(label, of, Some((&name, peer)), per_exit_second, least);
                    }
                }
                let label = format!("{name}: per exit-CPU-second, weir / weir kernel");
                let [of, to] = OURS.map(|program| (name.as_str(), program));
                self.want(label, of, Some(to), per_exit_second, None);
            }
        }
        self.done()
    }

    fn sizes(mut self) -> Planned {
        for transport in [Transport::Tcp, Transport::Udp] {
            for size in [1420, 576, 128] {
                for (way, load) in WAYS {
                    for program in [Program::Weir, Program::WireguardGo] {
                        let name = format!("{way} {transport:?} {size} B");
                        let mut case = self.case(&name, program, load);
                        case.shape.transport = transport;
                        case.shape.size = size;
                        self.cases.push(case);
                    }
                    let name = format!("{way} {transport:?} {size} B");
                    let label = format!("{name}: per exit-CPU-second, weir / wireguard-go");
                    let value = |outcome: &Outcome| outcome.per_exit_second;
                    let peer = Some((name.as_str(), Program::WireguardGo));
                    self.want(label, (&name, Program::Weir), peer, value, None);
                }
            }
        }
        self.done()
    }

    fn sessions(mut self) -> Planned {
        for (way, load) in WAYS {
            for sessions in [1, 256] {
                let name = format!("{way} {sessions} sessions");
                let mut case = self.case(&name, Program::Weir, load);
                case.setup.sessions = sessions;
                self.cases.push(case);
            }
            self.keeps(way, ["256 sessions", "1 sessions"], 0.85);
        }
        self.done()
    }

    fn workers(mut self) -> Planned {
        for (way, load) in WAYS {
            for workers in [1, 2] {
                let mut case = self.case(&format!("{way} {workers} workers"), Program::Weir, load);
                // As many sessions in both cases, so that each worker has some.
                case.setup.sessions = 8;
                if workers == 2 {
                    case.setup.cores = vec![self.scale.core, self.scale.generator];
                }
                self.cases.push(case);
            }
            self.keeps(way, ["2 workers", "1 workers"], 0.9);
            // What the second core's other tenants cost, of which the second worker can do nothing.
            let beside = format!("{way} 1 worker beside the generator");
            let mut case = self.case(&beside, Program::Weir, load);
            case.setup.sessions = 8;
            case.setup.cores = vec![self.scale.generator];
            self.cases.push(case);
            let label = format!(
                "{way}: per exit-CPU-second, one worker on the generator's core / on its own"
            );
            let value = |outcome: &Outcome| outcome.per_exit_second;
            let alone = format!("{way} 1 workers");
            self.want(label, (&beside, Program::Weir), Some((&alone, Program::Weir)), value, None);
            let label = format!("{way}: per exit-CPU-second, 2 workers / 1 workers");
            let both = format!("{way} 2 workers");
            self.want(label, (&both, Program::Weir), Some((&alone, Program::Weir)), value, None);
            // The fat consumer: what a second core gives one session.
            let names = [false, true].map(|helped| {
                let name = format!("{way} one session{}", if helped { ", a helper" } else { "" });
                let mut case = self.case(&name, Program::Weir, load);
                if helped {
                    case.setup.cipher_cores = vec![self.scale.generator];
                }
                self.cases.push(case);
                name
            });
            let goodput = |outcome: &Outcome| outcome.bits_per_second;
            let label = format!("{way}: goodput of one session, with a helper / without");
            let [without, with] = [&names[0], &names[1]].map(|name| (name.as_str(), Program::Weir));
            self.want(label, with, Some(without), goodput, None);
        }
        self.done()
    }

    fn xdp(mut self) -> Planned {
        for (way, load) in WAYS {
            for (of_what, arrival) in ARRIVALS {
                let name = |xdp: &str| format!("{way}{of_what} xdp {xdp}");
                for xdp in ["native", "off"] {
                    let mut case = self.case(&name(xdp), Program::Weir, load);
                    xdp.clone_into(&mut case.setup.xdp);
                    case.setup.arrival = arrival;
                    self.cases.push(case);
                }
                let label = format!("{way}{of_what}: per exit-CPU-second, XDP native / off");
                let value = |outcome: &Outcome| outcome.per_exit_second;
                let (of, to) = (name("native"), name("off"));
                let to = Some((to.as_str(), Program::Weir));
                self.want(label, (&of, Program::Weir), to, value, Some(0.9));
            }
        }
        self.done()
    }

    fn receive(mut self) -> Planned {
        // On the way down nothing but acknowledgements is received.
        for (of_what, arrival) in ARRIVALS {
            let name = |receive: &str| format!("up{of_what} {receive}");
            for receive in ["af_xdp", "sockets"] {
                let mut case = self.case(&name(receive), Program::Weir, Load::Up);
                receive.clone_into(&mut case.setup.receive);
                case.setup.arrival = arrival;
                self.cases.push(case);
            }
            let (of, to) = (name("af_xdp"), name("sockets"));
            let exit: fn(&Outcome) -> f64 = |outcome| outcome.per_exit_second;
            let process: fn(&Outcome) -> f64 = |outcome| outcome.per_process_second;
            for (what, value) in [("exit", exit), ("process", process)] {
                let label = format!("up{of_what}: per {what}-CPU-second, af_xdp / sockets");
                let to = Some((to.as_str(), Program::Weir));
                self.want(label, (&of, Program::Weir), to, value, None);
            }
        }
        self.done()
    }

    fn interrupts(mut self) -> Planned {
        for (way, load) in WAYS {
            for (what, is_mixed) in [("bulk", false), ("mixed, bursts of 2", true)] {
                let name = |how: &str| format!("{way} {what}, {how}");
                for (how, deferred) in [("deferred", true), ("at once", false)] {
                    let mut case = self.case(&name(how), Program::Weir, load);
                    if is_mixed {
                        (case.setup.sessions, case.shape.flows, case.shape.burst) = (64, 16, 2);
                    }
                    case.setup.defer_interrupts = deferred;
                    self.cases.push(case);
                }
                let (of, to) = (name("deferred"), name("at once"));
                let value = |outcome: &Outcome| outcome.per_exit_second;
                let label =
                    format!("{way} {what}: per exit-CPU-second, interrupts deferred / at once");
                let to = Some((to.as_str(), Program::Weir));
                self.want(label, (&of, Program::Weir), to, value, None);
            }
        }
        self.done()
    }

    fn offload(mut self) -> Planned {
        for (way, load) in WAYS {
            let name = format!("{way} without offload");
            for program in ALL {
                let mut case = self.case(&name, program, load);
                case.setup.software_gso = true;
                self.cases.push(case);
            }
            self.against_peers(&name, false);
        }
        self.done()
    }

    fn metering(mut self) -> Planned {
        const OFF: Metering = Metering::Off;
        const MORE: [Metering; 3] = [Metering::On, Metering::EverySecond, Metering::Scraped];
        for (way, load) in WAYS {
            let name = |metering: Metering| format!("{way} {}", metering.name());
            for metering in [OFF].into_iter().chain(MORE) {
                let mut case = self.case(&name(metering), Program::Weir, load);
                case.setup.sessions = 256;
                case.setup.metering = metering;
                // Some seconds, in each of which something is written down.
                if load == Load::Down {
                    case.shape.packets *= 2;
                }
                self.cases.push(case);
            }
            let goodput: fn(&Outcome) -> f64 = |outcome| outcome.bits_per_second;
            let per_second: fn(&Outcome) -> f64 = |outcome| outcome.per_exit_second;
            for metering in MORE {
                for (what, value) in [("goodput", goodput), ("per exit-CPU-second", per_second)] {
                    let label = format!("{way}: {what}, {} / off", metering.name());
                    let (of, to) = (name(metering), name(OFF));
                    let to = Some((to.as_str(), Program::Weir));
                    self.want(label, (&of, Program::Weir), to, value, Some(0.98));
                }
            }
            for metering in [OFF].into_iter().chain(MORE) {
                let label =
                    format!("{way}: ms of control plane's CPU a second, {}", metering.name());
                let value = |outcome: &Outcome| outcome.control_ratio * 1000.0;
                self.want(label, (&name(metering), Program::Weir), None, value, None);
            }
        }
        self.done()
    }

    fn keeps(&mut self, way: &str, [of, to]: [&str; 2], target: f64) {
        let label = format!("{way}: per worker-CPU-second, {of} / {to}");
        let (of, to) = (format!("{way} {of}"), format!("{way} {to}"));
        let value = |outcome: &Outcome| outcome.per_worker_second;
        let to = Some((to.as_str(), Program::Weir));
        self.want(label, (&of, Program::Weir), to, value, Some(target));
    }

    fn done(self) -> Planned {
        (self.cases, self.wanted)
    }
}
