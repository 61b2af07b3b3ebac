//! The comparison: weir and its peers in turn on the same rig.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum as _};
use weir_benches::compare::{
    case::{Case, Load, Outcome, Scale, packets_for, setup},
    chart,
    exit::{Program, Tools},
    floods, idle,
    parts::{self, Part, Target},
    report::{CaseResult, Report, Row},
};

/// Compares weir with other WireGuard implementations in network namespaces. Needs root.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Rounds of each case, taken in turns; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One round of a fifth of the packets: to try it out, not to quote
    #[arg(long)]
    quick: bool,
    /// These parts only
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Packets of a run; 1 million take 1.5 GB of memory
    #[arg(long, default_value_t = 1_000_000)]
    packets: usize,
    /// The exit's core
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// The core of everything else
    #[arg(long, default_value_t = 0)]
    generator: usize,
    /// weir's node.egress, where a case does not say
    #[arg(long, default_value = "auto")]
    egress: String,
    /// Where bench.json and bench.svg go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The weir program
    #[arg(long, env = "WEIR_BIN", default_value = "target/release/weir")]
    weir: PathBuf,
    /// The boringtun-cli program
    #[arg(long, env = "BORINGTUN_BIN", default_value = "target/tools/bin/boringtun-cli")]
    boringtun: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let given = Arguments::parse();
    ensure!(
        std::thread::available_parallelism()?.get() >= 2,
        "this needs two processors: one for the exit alone"
    );
    let (rounds, packets) =
        if given.quick { (1, given.packets / 5) } else { (given.rounds.max(1), given.packets) };
    let tools = Tools { weir: given.weir, boringtun: given.boringtun };
    let scale =
        Scale { packets, core: given.core, generator: given.generator, egress: given.egress };
    let only = if given.only.is_empty() { Part::value_variants() } else { &given.only };
    let mut report = Report { machine: machine(&tools), rounds, ..Report::default() };
    for part in Part::value_variants().iter().filter(|part| only.contains(part)) {
        match part {
            Part::Idle => part_done(idle_part(&tools, &scale, given.quick, &mut report)),
            Part::Latency => part_done(latency_part(&tools, &scale, rounds, &mut report)),
            Part::Floods => part_done(floods_part(&tools, &scale, rounds, &mut report)),
            _ => {
                let (cases, wanted) = parts::plan(*part, &scale);
                let rounds = if given.quick { rounds } else { rounds.max(part.least_rounds()) };
                in_turns(part.name(), &cases, rounds, &tools, &mut report)?;
                report.want(&wanted);
            }
        }
    }
    println!("\n{}", report.text());
    if given.quick {
        println!("quick: one short round each; not to be quoted.");
    }
    fs::create_dir_all(&given.out)?;
    // Some parts alone do not take the place of all.
    let stem = match given.only.as_slice() {
        [] => "bench".to_owned(),
        only => {
            format!("bench-{}", only.iter().map(|part| part.name()).collect::<Vec<_>>().join("-"))
        }
    };
    let json = given.out.join(format!("{stem}.json"));
    fs::write(&json, serde_json::to_string_pretty(&report)?).context("cannot write the results")?;
    println!("wrote {}", json.display());
    if let Some(svg) = chart::svg(&report) {
        let path = given.out.join(format!("{stem}.svg"));
        fs::write(&path, svg).context("cannot write the chart")?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// What the other parts found is worth showing, whatever became of this one.
fn part_done(done: anyhow::Result<()>) {
    if let Err(error) = done {
        println!("FAILED: {error:#}");
    }
}

/// All cases, then all again: what the machine does meanwhile meets all of them.
fn in_turns(
    part: &str,
    cases: &[Case],
    rounds: usize,
    tools: &Tools,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut runs: Vec<Vec<Outcome>> = vec![Vec::new(); cases.len()];
    for round in 1..=rounds {
        for (case, runs) in cases.iter().zip(&mut runs) {
            let program = case.setup.program;
            let name = format!("{part}: {}, {}", case.name, program.name());
            match case.run(tools) {
                Ok(outcome) => {
                    println!(
                        "{round}/{rounds} {name}: {:.2} Gbit/s, {:.2} per exit-CPU-second, {:.2} \
                         per process-CPU-second, steal {:.1} %",
                        outcome.bits_per_second / 1e9,
                        outcome.per_exit_second / 1e9,
                        outcome.per_process_second / 1e9,
                        outcome.steal_ratio * 100.0
                    );
                    runs.push(outcome);
                }
                // The others are still worth it; a case without a run has no ratio.
                Err(error) => println!("{round}/{rounds} {name}: FAILED: {error:#}"),
            }
        }
    }
    for (case, runs) in cases.iter().zip(runs).filter(|(_, runs)| !runs.is_empty()) {
        report.cases.push(CaseResult {
            part: part.to_owned(),
            name: case.name.clone(),
            program: case.setup.program,
            median: Outcome::median(&runs),
            runs,
        });
    }
    Ok(())
}

/// Both at half of what wireguard-go can do, and weir at half of what it can do itself.
fn latency_part(
    tools: &Tools,
    scale: &Scale,
    rounds: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let case = |name: &str, program| Case {
        name: name.to_owned(),
        setup: setup(scale, program),
        load: Load::Up,
        shape: weir_testkit::load::Shape::new(packets_for(program, scale.packets)),
        attack: None,
    };
    let mut most = Vec::new();
    for program in [Program::WireguardGo, Program::Weir] {
        let outcome = case("most", program).run(tools)?;
        most.push(outcome.bits_per_second / (1420.0 * 8.0));
    }
    let half = |name: &str, program, rate: f64| {
        let mut case = case(name, program);
        case.setup.sessions = 2;
        case.shape.rate = Some(rate / 2.0);
        // As fine as a flow of a real sender: not 44 at once.
        case.shape.burst = 8;
        case.shape.packets = case.shape.packets.min((rate * 2.0) as usize);
        case
    };
    let (go, own) = (most[0], most[1]);
    let cases = [
        half("half of wireguard-go's", Program::Weir, go),
        half("half of wireguard-go's", Program::WireguardGo, go),
        half("half of its own", Program::Weir, own),
    ];
    in_turns("latency", &cases, rounds, tools, report)?;
    let p99 = |report: &Report, name: &str, program| {
        report.median(name, program).and_then(|median| median.latency_us).map(|pair| pair[1])
    };
    let theirs = p99(report, "half of wireguard-go's", Program::WireguardGo);
    for name in ["half of wireguard-go's", "half of its own"] {
        if let (Some(theirs), Some(ours)) = (theirs, p99(report, name, Program::Weir)) {
            let label = format!("p99 at {name} most, weir / wireguard-go");
            report.rows.push(Row::new(label, ours / theirs, Some(Target::AtMost(1.0))));
        }
    }
    Ok(())
}

/// Each program at half of what it can do, alone and then under each attack.
fn floods_part(
    tools: &Tools,
    scale: &Scale,
    rounds: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut cases = Vec::new();
    for program in [Program::Weir, Program::WireguardGo, Program::Boringtun] {
        let most = floods::alone(scale, program).run(tools)?.bits_per_second / (1420.0 * 8.0);
        cases.extend(floods::cases(scale, program, most));
    }
    in_turns(Part::Floods.name(), &cases, rounds, tools, report)?;
    report.floods = floods::flooded(report);
    report.rows.extend(floods::rows(&report.floods));
    Ok(())
}

fn idle_part(tools: &Tools, scale: &Scale, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    let mut setup = setup(scale, Program::Weir);
    setup.sessions = if quick { 1_000 } else { 10_000 };
    println!("idle: {} sessions", setup.sessions);
    let idle = idle::run(tools, &setup)?;
    let label = format!("KB of memory per session, {} idle sessions", idle.sessions);
    let target = Some(Target::AtMost(20.0));
    report.rows.push(Row::new(label, idle.bytes_per_session / 1000.0, target));
    let label = format!("% of a core, {} idle sessions", idle.sessions);
    report.rows.push(Row::new(label, idle.core_ratio * 100.0, Some(Target::AtMost(1.0))));
    let label = "% of a core, a node without sessions".to_owned();
    report.rows.push(Row::new(label, idle.empty_core_ratio * 100.0, Some(Target::AtMost(0.2))));
    report.idle = Some(idle);
    Ok(())
}

fn machine(tools: &Tools) -> BTreeMap<String, String> {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
    };
    let boringtun = tools.boringtun.to_string_lossy().into_owned();
    let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    [
        ("kernel", said("uname", &["-r"])),
        ("processor", processor),
        ("weir", said(&tools.weir.to_string_lossy(), &["--version"])),
        ("wireguard-go", said("dpkg-query", &["-W", "-f", "${Version}\n", "wireguard-go"])),
        ("boringtun-cli", said(&boringtun, &["--version"])),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}
