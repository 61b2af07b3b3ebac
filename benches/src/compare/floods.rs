//! What an attack on the node's port costs those who are connected.

use weir_testkit::load::Shape;

use super::{
    attack::Attack,
    case::{Case, Load, Scale, packets_for, setup},
    exit::Program,
    parts::Target,
    report::{Flooded, Report, Row},
};

/// Seconds of a run.
const SECONDS: f64 = 3.0;

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
        case.setup.sessions = 2 + attack.map_or(0, Attack::sessions);
        case.shape.rate = Some(most / 2.0);
        case.shape.burst = 8;
        case.shape.packets = (most / 2.0 * SECONDS) as usize;
        case.attack = attack;
        case
    };
    [None].into_iter().chain(attacks).map(case).collect()
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
    for (attack, least) in [
        (Attack::Forged, 0.95),
        (Attack::LiveIndex, 0.9),
        (Attack::Responses, 0.9),
        (Attack::Handshakes, 0.95),
    ] {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        case::Outcome,
        report::{CaseResult, flood_table},
    };

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
        assert!(flood_table(&all).contains("forged initiations      weir"));
        assert_eq!(rows(&all).iter().map(|row| row.met).collect::<Vec<_>>(), [Some(false); 2]);
    }
}
