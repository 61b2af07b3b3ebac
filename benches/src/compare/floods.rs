//! What an attack on the node's port costs those who are connected.

use std::fmt::Write as _;

use serde::Serialize;
use weir_testkit::flood::{Flood, Kind};
use weir_testkit::{load::Shape, rig::NODE};

use super::{
    case::{Case, Load, packets_for},
    exit::{Exit, Program},
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
    /// Data for the receiver index of the consumer whose traffic is measured, from random sources.
    LiveIndex,
    /// Responses to an initiation of the exit's, forged but for the first MAC, from random sources.
    Responses,
    /// Right initiations of one session's key, from random sources.
    Initiations,
}

/// What an attacker knows who sees the traffic, and has a session of its own.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The receiver index of the consumer whose traffic is measured.
    pub(super) live_index: u32,
    /// The index of an initiation of the exit's that has no answer yet.
    pub(super) pending_index: u32,
    /// The private key of a session.
    pub(super) private_key: [u8; 32],
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Forged,
        Self::ValidMac,
        Self::ValidMacOneSource,
        Self::DeadIndexes,
        Self::LiveIndex,
        Self::Responses,
        Self::Initiations,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Forged => "forged initiations",
            Self::ValidMac => "valid mac1, any source",
            Self::ValidMacOneSource => "valid mac1, one source",
            Self::DeadIndexes => "data, dead indexes",
            Self::LiveIndex => "data, live index",
            Self::Responses => "forged responses",
            Self::Initiations => "initiations of one key",
        }
    }

    /// Whether a session beside those whose traffic is measured is part of it.
    #[must_use]
    pub fn misuses_a_session(self) -> bool {
        matches!(self, Self::Responses | Self::Initiations)
    }

    /// Begins it, from outside the exit.
    pub(super) fn begin(self, exit: &Exit, known: &Known) -> anyhow::Result<Flood> {
        let kind = match self {
            Self::Forged => Kind::Forged,
            Self::ValidMac => Kind::ValidMac,
            Self::ValidMacOneSource => Kind::ValidMacOneSource,
            Self::DeadIndexes => Kind::DeadIndexes,
            Self::LiveIndex => Kind::LiveIndex(known.live_index),
            Self::Responses => Kind::Response(known.pending_index),
            Self::Initiations => Kind::Initiations(known.private_key),
        };
        exit.rig.outside.enter(|| Flood::from_here(NODE, &exit.access.key, kind, RATE))
    }
}

/// The run that finds out how much a program can do.
#[must_use]
pub fn alone(scale: &Scale, program: Program) -> Case {
    let shape = Shape::new(packets_for(program, scale.packets));
    let (name, load) = ("most".to_owned(), Load::Up);
    Case { name, setup: setup(scale, program), load, shape, attack: None }
}

/// A program at half of the `most` packets per second, without and with each attack.
#[must_use]
pub fn cases(scale: &Scale, program: Program, most: f64) -> Vec<Case> {
    let attacks = Attack::ALL.into_iter().map(Some);
    let case = |attack: Option<Attack>| {
        let mut case = alone(scale, program);
        case.name = attack.map_or("no flood", Attack::name).to_owned();
        // The second one sends the latency probes.
        case.setup.sessions = 2 + u32::from(attack.is_some_and(Attack::misuses_a_session));
        case.shape.rate = Some(most / 2.0);
        case.shape.burst = 8;
        case.shape.packets = (most / 2.0 * SECONDS) as usize;
        case.attack = attack;
        case
    };
    [None].into_iter().chain(attacks).map(case).collect()
}

/// A program under an attack.
#[derive(Clone, Debug, Serialize)]
pub struct Flooded {
    /// The program.
    pub program: Program,
    /// The attack.
    pub attack: &'static str,
    /// Datagrams a second that were sent.
    pub rate: f64,
    /// The share of them that found a place in the exit's receive ring.
    pub taken: f64,
    /// The share of the generator's core that sending them took.
    pub attacker: f64,
    /// The share of the goodput without a flood that is left.
    pub kept: f64,
    /// Microseconds of the exit's process for each that was taken.
    pub process_us: f64,
    /// Microseconds of the kernel's receive path, likewise.
    pub receive_us: f64,
}

/// What became of each program under each attack.
#[must_use]
pub fn flooded(report: &Report) -> Vec<Flooded> {
    let mut all = Vec::new();
    for program in [Program::Weir, Program::WireguardGo, Program::Boringtun] {
        let Some(calm) = report.median("no flood", program) else { continue };
        for attack in Attack::ALL {
            let Some(under) = report.median(attack.name(), program) else { continue };
            let kept = under.bits_per_second / calm.bits_per_second;
            // Without what the load that still comes through costs.
            let each = |with: f64, without: f64| {
                (with - without * kept.min(1.0)) / under.attack_taken * 1e6
            };
            all.push(Flooded {
                program,
                attack: attack.name(),
                rate: under.attack_rate,
                taken: under.attack_taken / under.attack_rate,
                attacker: under.attack_core,
                kept,
                process_us: each(under.process_ratio, calm.process_ratio),
                receive_us: each(under.receive_ratio, calm.receive_ratio),
            });
        }
    }
    all
}

/// What weir must do, beside its targets.
#[must_use]
pub fn rows(all: &[Flooded]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (attack, least) in
        [(Attack::Forged, 0.95), (Attack::LiveIndex, 0.9), (Attack::Responses, 0.9)]
    {
        let ours = |one: &&Flooded| one.program == Program::Weir && one.attack == attack.name();
        let Some(Flooded { rate, kept, process_us, .. }) = all.iter().find(ours) else { continue };
        let what = format!("{}, {rate:.0}/s", attack.name());
        let target = Some(Target::AtLeast(least));
        rows.push(Row::new(format!("{what}: goodput kept"), *kept, target));
        if attack == Attack::Forged {
            let target = Some(Target::AtMost(0.05));
            rows.push(Row::new(format!("{what}: us of the process each"), *process_us, target));
        }
    }
    rows
}

/// A line for each.
#[must_use]
pub fn table(all: &[Flooded]) -> String {
    let mut text = format!(
        "{:<24}{:<15}{:>9}{:>8}{:>10}{:>9}{:>12}{:>12}\n",
        "flood", "program", "sent/s", "taken", "attacker", "goodput", "process us", "receive us"
    );
    for Flooded { program, attack, rate, taken, attacker, kept, process_us, receive_us } in all {
        let program = program.name();
        // Writing to a string cannot fail.
        writeln!(
            text,
            "{attack:<24}{program:<15}{rate:>9.0}{taken:>8.2}{attacker:>10.2}{kept:>9.2}\
             {process_us:>12.2}{receive_us:>12.2}"
        )
        .unwrap_or_default();
    }
    text.push_str(
        "taken: of the datagrams sent, by the exit's receive ring. attacker: of the generator's \
         core. us: for each datagram taken, besides what the load costs.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{case::Outcome, report::CaseResult};

    #[test]
    fn what_the_load_costs_is_not_the_floods() {
        let case = |name: &str, rate, process, attack| CaseResult {
            part: "floods".into(),
            name: name.into(),
            program: Program::Weir,
            median: Outcome {
                bits_per_second: rate,
                process_ratio: process,
                attack_rate: attack,
                attack_taken: attack / 2.0,
                ..Outcome::default()
            },
            runs: Vec::new(),
        };
        // Half of the load costs 0.2, and the rest is of 100,000 datagrams.
        let cases =
            vec![case("no flood", 2e9, 0.4, 0.0), case("forged initiations", 1e9, 0.3, 2e5)];
        let all = flooded(&Report { cases, ..Report::default() });
        let [one] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((one.kept, one.taken), (0.5, 0.5));
        assert!((one.process_us - 1.0).abs() < 1e-9, "{one:?}");
        assert!(table(&all).contains("forged initiations      weir"));
        assert_eq!(rows(&all).iter().map(|row| row.met).collect::<Vec<_>>(), [Some(false); 2]);
    }
}
