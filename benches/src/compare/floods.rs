//! What an attack on the node's port costs those who are connected.

use weir::bench::{load::Shape, rig::NODE};
use weir_tests::flood::{Flood, Kind, Outlet};

use super::{
    case::{Case, Load, packets_for},
    exit::{Exit, Program, Setup},
    parts::{Scale, Target, setup},
    report::{Report, Row},
};

/// Datagrams per second of each attack, if the generator gets that far.
const RATE: u32 = 200_000;
/// Seconds of a run.
const SECONDS: f64 = 3.0;

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// Initiations without a valid first MAC.
    Forged,
    /// Initiations with one, from random sources.
    ValidMac,
    /// The same, from one source.
    ValidMacOneSource,
    /// Data for receiver indexes at random.
    DeadIndexes,
    /// Data for the receiver index of the consumer whose traffic is measured.
    LiveIndex,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Forged, Self::ValidMac, Self::ValidMacOneSource, Self::DeadIndexes, Self::LiveIndex];

    fn name(self) -> &'static str {
        match self {
            Self::Forged => "forged initiations",
            Self::ValidMac => "valid mac1, any source",
            Self::ValidMacOneSource => "valid mac1, one source",
            Self::DeadIndexes => "data, dead indexes",
            Self::LiveIndex => "data, live index",
        }
    }

    /// Begins it, from outside the exit.
    pub(super) fn begin(self, exit: &Exit, live_index: u32) -> anyhow::Result<Flood> {
        let kind = match self {
            Self::Forged => Kind::Forged,
            Self::ValidMac => Kind::ValidMac,
            Self::ValidMacOneSource => Kind::ValidMacOneSource,
            Self::DeadIndexes => Kind::DeadIndexes,
            Self::LiveIndex => Kind::LiveIndex(live_index),
        };
        let outlet = exit.rig.outside.enter(|| Outlet::towards(NODE))?;
        Ok(Flood::out_of(outlet, &exit.access.key, kind, RATE))
    }
}

/// The run that finds out how much a program can do.
#[must_use]
pub fn alone(scale: &Scale, program: Program) -> Case {
    let shape = Shape::new(packets_for(program, scale.packets));
    let (name, load) = ("most".to_owned(), Load::Up);
    let setup = Setup { receive_first: true, ..setup(scale, program) };
    Case { name, setup, load, shape, attack: None }
}

/// A program at half of the `most` packets per second, without and with each attack.
#[must_use]
pub fn cases(scale: &Scale, program: Program, most: f64) -> Vec<Case> {
    let attacks = Attack::ALL.into_iter().map(Some);
    let case = |attack: Option<Attack>| {
        let mut case = alone(scale, program);
        case.name = attack.map_or("no flood", Attack::name).to_owned();
        // The second one sends the latency probes.
        case.setup.sessions = 2;
        case.shape.rate = Some(most / 2.0);
        case.shape.burst = 8;
        case.shape.packets = (most / 2.0 * SECONDS) as usize;
        case.attack = attack;
        case
    };
    [None].into_iter().chain(attacks).map(case).collect()
}

/// What is kept of the goodput, and what one datagram of the flood costs the exit.
#[must_use]
pub fn rows(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    for program in [Program::Weir, Program::WireguardGo, Program::Boringtun] {
        let Some(calm) = report.median("no flood", program) else { continue };
        for attack in Attack::ALL {
            let Some(under) = report.median(attack.name(), program) else { continue };
            let what = format!("{}: {}", program.name(), attack.name());
            let is_ours = program == Program::Weir && attack == Attack::Forged;
            let kept = under.bits_per_second / calm.bits_per_second;
            rows.push(Row::new(
                format!("{what}, {:.0}/s: goodput kept", under.attack_rate),
                kept,
                is_ours.then_some(Target::AtLeast(0.95)),
            ));
            rows.push(Row::new(
                format!("{what}: of the datagrams, taken by the exit's ring"),
                under.attack_taken / under.attack_rate,
                None,
            ));
            // Without what the load that still comes through costs.
            let each = |with: f64, without: f64| {
                (with - without * kept.min(1.0)) / under.attack_taken * 1e6
            };
            rows.push(Row::new(
                format!("{what}: us of the process per datagram"),
                each(under.process_ratio, calm.process_ratio),
                is_ours.then_some(Target::AtMost(0.05)),
            ));
            rows.push(Row::new(
                format!("{what}: us of the receive path per datagram"),
                each(under.receive_ratio, calm.receive_ratio),
                None,
            ));
        }
    }
    rows
}
