//! weir's main job, to be seen: a consumer reaches the internet through the node, and the node
//! counts. `cargo xtask demo` builds what this needs and runs it.
#![expect(clippy::print_stdout, reason = "the demo is for the eyes")]

mod bars;
mod market;
mod phases;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::exit,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use weir_tests::{Client, Lab, Node, Settings, lab, node::Session, sweep};

use self::{phases::run_all, report::Report};

/// What the consumer's kernel hands wireguard-go at once, in bytes.
const BURST: u32 = 56 << 10;

#[derive(Debug, Parser)]
struct Arguments {
    /// Write the results to a file too
    #[arg(long)]
    json: Option<PathBuf>,
    /// Show the market: listings, purchases, and a consumer that changes to another exit
    #[arg(long)]
    market: bool,
    /// How long each of the bulk transfers lasts
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    remove_all_when_interrupted()?;
    if arguments.market {
        let report = market::run(&Lab::new()?)?;
        print!("{}", report.text());
        return write(arguments.json.as_deref(), &serde_json::to_string_pretty(&report)?);
    }
    println!("consumer (wireguard-go) -- internet -- node (weir): three network namespaces");
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    print!("{}", screen(&node.log()));
    let added = node.session_add("demo")?;
    println!("weir session add --name demo: {}", added.session.address_v4);
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.limit_bursts(BURST)?;
    for server in lab::SERVERS {
        client.wait_connected(server)?;
    }
    println!("the consumer is connected with the configuration that weir printed");
    println!(
        "its kernel makes bursts of {} KiB: each is one UDP send of wireguard-go's\n",
        BURST >> 10
    );
    let phases = run_all(&lab, &node, Duration::from_secs(arguments.seconds))?;
    let (session, transfer) = settled(&node, &added.session, &client)?;
    let report = Report::new(phases, &session, transfer, &node.status()?);
    print!("{}", report.text());
    write(arguments.json.as_deref(), &report.json()?)
}

fn write(path: Option<&Path>, json: &str) -> Result<()> {
    if let Some(path) = path {
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The counters of both ends once they have come to rest; a keepalive may be between them.
fn settled(
    node: &Node<'_>,
    session: &Session,
    client: &Client<'_>,
) -> Result<(Session, weir_tests::client::Transfer)> {
    let mut last = (node.session_show(&session.id)?, client.transfer()?);
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(100));
        let now = (node.session_show(&session.id)?, client.transfer()?);
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

/// What the node itself said when it began to serve, without its log.
fn screen(log: &str) -> String {
    log.lines().filter(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect()
}

/// An interrupt runs no destructors, so everything is removed by name. The children are in the
/// namespaces and go with them.
fn remove_all_when_interrupted() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        println!("\ninterrupted: removing everything");
        sweep::own();
        exit(130);
    });
    Ok(())
}
