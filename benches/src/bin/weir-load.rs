//! One load through one exit, for a closer look (with a profiler, for example); prints JSON.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::path::PathBuf;

use clap::Parser;
use weir_benches::compare::{
    attack::Attack,
    case::{Case, Load, transport},
    exit::{Arrival, Program, Setup, Tools},
    metering::Metering,
};
use weir_testkit::load::Shape;

/// Offers one load to one exit in namespaces of its own, and says what came through.
#[derive(Debug, Parser)]
struct Arguments {
    /// The exit
    #[arg(long, value_enum, default_value = "weir")]
    program: Program,
    /// Which way
    #[arg(value_enum)]
    load: Load,
    /// Packets in all; up, each takes its size in memory
    #[arg(long, default_value_t = 500_000)]
    packets: usize,
    /// Bytes of an inner packet
    #[arg(long, default_value_t = 1420)]
    size: usize,
    /// Flows of each session
    #[arg(long, default_value_t = 1)]
    flows: usize,
    /// Sessions
    #[arg(long, default_value_t = 1)]
    sessions: u32,
    /// What weir writes down and tells
    #[arg(long, value_enum, default_value = "usual")]
    metering: Metering,
    /// Packets of a session that follow each other
    #[arg(long, default_value_t = 44)]
    burst: usize,
    /// tcp or udp
    #[arg(long, default_value = "tcp")]
    transport: String,
    /// Packets per second; otherwise as fast as they come through
    #[arg(long)]
    rate: Option<f64>,
    /// What is sent at the node's port meanwhile; of a load up only
    #[arg(long, value_enum)]
    attack: Option<Attack>,
    /// How packets reach the exit
    #[arg(long, value_enum, default_value = "packets")]
    arrival: Arrival,
    /// The uplink has no segmentation offload: the kernel segments in software
    #[arg(long)]
    software_gso: bool,
    /// weir's node.xdp
    #[arg(long, default_value = "auto")]
    xdp: String,
    /// weir's node.receive
    #[arg(long, default_value = "auto")]
    receive: String,
    /// weir's node.egress
    #[arg(long, default_value = "auto")]
    egress: String,
    /// The exit's cores
    #[arg(long, value_delimiter = ',', default_value = "1")]
    cores: Vec<usize>,
    /// The generator's core
    #[arg(long, default_value_t = 0)]
    generator: usize,
    /// The weir program
    #[arg(long, env = "WEIR_BIN", default_value = "target/release/weir")]
    weir: PathBuf,
    /// The boringtun-cli program
    #[arg(long, default_value = "target/tools/bin/boringtun-cli")]
    boringtun: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let given = Arguments::parse();
    // Latency probes have a session of their own.
    let misused = given.attack.map_or(0, Attack::sessions);
    let sessions = given.sessions + u32::from(given.rate.is_some()) + misused;
    let case = Case {
        name: String::new(),
        setup: Setup {
            program: given.program,
            cores: given.cores,
            cipher_cores: Vec::new(),
            generator: given.generator,
            xdp: given.xdp,
            receive: given.receive,
            egress: match given.program {
                Program::WeirKernel => "kernel".to_owned(),
                _ => given.egress,
            },
            defer_interrupts: false,
            arrival: given.arrival,
            software_gso: given.software_gso,
            sessions,
            metering: given.metering,
        },
        load: given.load,
        shape: Shape {
            transport: transport(&given.transport)?,
            size: given.size,
            flows: given.flows,
            burst: given.burst,
            rate: given.rate,
            ..Shape::new(given.packets)
        },
        attack: given.attack,
    };
    let outcome = case.run(&Tools { weir: given.weir, boringtun: given.boringtun })?;
    println!("{}", serde_json::to_string_pretty(&outcome)?);
    Ok(())
}
