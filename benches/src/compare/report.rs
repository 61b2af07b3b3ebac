//! The results: runs, medians, and ratios beside their targets.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{
    case::Outcome,
    exit::Program,
    idle::Idle,
    parts::{Target, Wanted},
};

/// Everything that was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Kernel, processor, versions of the programs.
    pub machine: BTreeMap<String, String>,
    /// Rounds of each case.
    pub rounds: usize,
    /// The cases with the medians of their runs.
    pub cases: Vec<CaseResult>,
    /// The ratios.
    pub rows: Vec<Row>,
    /// Idle sessions.
    pub idle: Option<Idle>,
    /// Floods.
    pub floods: Vec<Flooded>,
}

/// A case of one program.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// The part.
    pub part: String,
    /// The case.
    pub name: String,
    /// The program.
    pub program: Program,
    /// The medians, field by field.
    pub median: Outcome,
    /// All rounds.
    pub runs: Vec<Outcome>,
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
    /// The same for the kernel's receive path, in microseconds.
    pub receive_us: f64,
}

/// A ratio, or a value, beside its target.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it says.
    pub label: String,
    /// Its value.
    pub value: f64,
    /// The target in words, if there is one.
    pub target: Option<String>,
    /// Whether it is met.
    pub met: Option<bool>,
}

impl Row {
    /// A row.
    #[must_use]
    pub fn new(label: String, value: f64, target: Option<Target>) -> Self {
        Self {
            label,
            value,
            target: target.map(|target| match target {
                Target::AtLeast(bound) => format!(">= {bound}"),
                Target::AtMost(bound) => format!("<= {bound:.2}"),
            }),
            met: target.map(|target| match target {
                Target::AtLeast(bound) => value >= bound,
                Target::AtMost(bound) => value <= bound,
            }),
        }
    }
}

impl Report {
    /// The median of a case, if it was run.
    #[must_use]
    pub fn median(&self, name: &str, program: Program) -> Option<&Outcome> {
        let found = self.cases.iter().find(|case| case.name == name && case.program == program)?;
        Some(&found.median)
    }

    /// Adds the ratios whose cases were run.
    pub fn want(&mut self, wanted: &[Wanted]) {
        for want in wanted {
            let value =
                |(name, program): &(String, Program)| self.median(name, *program).map(want.value);
            let (Some(of), to) = (value(&want.of), want.to.as_ref().map(value)) else { continue };
            let value = match to {
                None => of,
                Some(Some(to)) if to > 0.0 => of / to,
                Some(_) => continue,
            };
            self.rows.push(Row::new(want.label.clone(), value, want.target));
        }
    }

    /// The tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let mut line = |words: String| writeln!(text, "{words}").unwrap_or_default();
        line(format!(
            "{:<12}{:<26}{:<15}{:>8}{:>9}{:>9}{:>9}{:>8}{:>7}{:>7}{:>7}",
            "part",
            "case",
            "program",
            "Gbit/s",
            "/exit s",
            "/proc s",
            "/wrk s",
            "cipher",
            "pkts",
            "loss",
            "steal"
        ));
        for case in &self.cases {
            let CaseResult { part, name, program, median, .. } = case;
            let gigabits = |rate: f64| format!("{:.2}", rate / 1e9);
            let percent = |ratio: f64| format!("{:.1}%", ratio * 100.0);
            line(format!(
                "{part:<12}{name:<26}{:<15}{:>8}{:>9}{:>9}{:>9}{:>8}{:>7.1}{:>7}{:>7}",
                program.name(),
                gigabits(median.bits_per_second),
                gigabits(median.per_exit_second),
                gigabits(median.per_process_second),
                gigabits(median.per_worker_second),
                percent(median.cipher_ratio),
                median.per_super_packet,
                percent(median.loss_ratio),
                percent(median.steal_ratio),
            ));
            if let Some([half, most]) = median.latency_us {
                line(format!("{:<38}way through: p50 {half:.0} us, p99 {most:.0} us", ""));
            }
        }
        line(String::new());
        if !self.floods.is_empty() {
            line(flood_table(&self.floods));
        }
        line(format!("{:<72}{:>9}  {:<10}", "ratio", "value", "target"));
        for row in &self.rows {
            let met = match row.met {
                Some(true) => "met",
                Some(false) => "NOT met",
                None => "",
            };
            let target = row.target.as_deref().unwrap_or("-");
            line(format!("{:<72}{:>9.2}  {target:<10}{met}", row.label, row.value));
        }
        line(
            "Gbit/s of inner packets, median of the rounds; per second of CPU time of the exit \
             with the kernel's receive path (exit), of its process, of weir's workers. cipher: of \
             ring's seal of such packets on the same core. pkts: per super-packet at the receiver."
                .to_owned(),
        );
        text
    }
}

/// A line for each program and attack.
#[must_use]
pub fn flood_table(all: &[Flooded]) -> String {
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

    fn report() -> Report {
        let case = |program, rate| CaseResult {
            part: "throughput".into(),
            name: "up".into(),
            program,
            median: Outcome { per_exit_second: rate, ..Outcome::default() },
            runs: Vec::new(),
        };
        let cases = vec![case(Program::Weir, 6e9), case(Program::WireguardGo, 2e9)];
        Report { cases, ..Report::default() }
    }

    fn wanted(to: Program, target: Target) -> Wanted {
        Wanted {
            label: "x".into(),
            of: ("up".into(), Program::Weir),
            to: Some(("up".into(), to)),
            value: |outcome| outcome.per_exit_second,
            target: Some(target),
        }
    }

    #[test]
    fn a_ratio_is_beside_its_target() {
        let mut report = report();
        report.want(&[
            wanted(Program::WireguardGo, Target::AtLeast(3.0)),
            wanted(Program::WireguardGo, Target::AtMost(2.9)),
        ]);
        let met: Vec<_> = report.rows.iter().map(|row| (row.value, row.met)).collect();
        assert_eq!(met, [(3.0, Some(true)), (3.0, Some(false))]);
        assert!(report.text().contains("NOT met"));
    }

    #[test]
    fn a_case_that_was_not_run_gives_no_ratio() {
        let mut report = report();
        report.want(&[wanted(Program::Boringtun, Target::AtLeast(3.0))]);
        assert!(report.rows.is_empty());
    }
}
