//! The market: a registry, a mint, three exits in two countries, and a consumer who buys.
#![expect(clippy::print_stdout, reason = "the demo is for the eyes")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use weir_tests::{
    Client, Lab, Node,
    connect::{Capture, Machine, Noise},
    lab::{NODE_V4, SERVER_V4, SERVERS},
    marketplace::Marketplace,
    payer::GATEWAY_V4,
    traffic::tcp::{self, Direction},
    until,
    wallet::Wallet,
};

const SECOND_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 4, 2);
const THIRD_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 5, 2);
/// What the consumer has at first, in sat.
const FUNDS: u64 = 900;
/// What a purchase is for, in sat: as many MiB.
const AMOUNT: &str = "40";
/// What `weir connect` may spend in all, in sat.
const BUDGET: u64 = 160;
const MIB: u64 = 1 << 20;

/// What the demo has found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bought_at: IpAddr,
    topped_up_sat: u64,
    seconds_to_connect: f64,
    first_exit: IpAddr,
    paid_on: usize,
    next_exit: IpAddr,
    seconds_to_change: f64,
    packets_beside: usize,
    spent_sat: u64,
}

/// Runs it. Returns the findings.
pub(crate) fn run(lab: &Lab) -> Result<Report> {
    println!("registry and mint on the internet; exits in DE, DE and FR: six network namespaces");
    let market = Marketplace::start(lab)?;
    let (second, third) = (lab.another_node(4)?, lab.another_node(5)?);
    let mut nodes = [
        (NODE_V4, Node::start(&lab.node, market.exit(NODE_V4, "DE"))?),
        (SECOND_V4, Node::start(&second, market.exit(SECOND_V4, "DE"))?),
        (THIRD_V4, Node::start(&third, market.exit(THIRD_V4, "FR"))?),
    ];
    market.wait_listed("DE", 2)?;
    market.wait_listed("FR", 1)?;
    let wallet = Wallet::new(&lab.consumer)?;
    wallet.run(&["receive", "--trust-mint", &market.mint.send(FUNDS, &[])?])?;
    let (at, purse) = (market.registry(), wallet.path().to_string_lossy().into_owned());
    let mut machine = Machine::new(lab)?;
    println!("\n$ weir exits --country DE");
    print!("{}", machine.weir(&["exits", "--registry", &at, "--country", "DE"])?);

    let (bought_at, topped_up_sat) = any_app(lab, &wallet, &at)?;

    println!("\n$ weir connect --country DE --amount {AMOUNT} --budget {BUDGET}");
    let budget = BUDGET.to_string();
    let arguments = ["--country", "DE", "--registry", &at, "--wallet", &purse];
    let begin = Instant::now();
    machine.connect(&[&arguments[..], &["--amount", AMOUNT, "--budget", &budget]].concat())?;
    let seconds_to_connect = begin.elapsed().as_secs_f64();
    let endpoints = nodes.each_ref().map(|(address, _)| SocketAddr::from((*address, 51820)));
    let capture = Capture::start(lab, endpoints.to_vec())?;
    let _noise = Noise::start(lab)?;
    until("a second exit is bought", Duration::from_secs(60), || {
        ensure!(machine.log().contains("to change to it"), "{}", machine.log());
        Ok(())
    })?;
    let first_exit = appears_as(lab)?;
    download(lab, 34)?;
    until("it pays on", Duration::from_secs(60), || {
        ensure!(machine.log().contains("Paid "), "{}", machine.log());
        Ok(())
    })?;
    print!("{}", machine.log());

    println!("\nthe exit at {first_exit} is killed");
    let chosen = nodes.iter_mut().find(|(address, _)| first_exit == IpAddr::from(*address));
    let begin = Instant::now();
    chosen.context("one of the exits")?.1.kill()?;
    let next_exit = until("the consumer goes on at another exit", Duration::from_secs(90), || {
        let next = appears_as(lab)?;
        ensure!(next != first_exit, "still {next}\n{}", machine.log());
        Ok(next)
    })?;
    let seconds_to_change = begin.elapsed().as_secs_f64();
    download(lab, 4)?;
    print!("{}", machine.weir(&["connect", "--status"])?);
    let packets_beside = capture.beside().len();
    let paid_on = machine.log().matches("Paid ").count();
    machine.disconnect()?;
    let [balance, ..] = wallet.sums()?;
    let spent_sat = FUNDS.saturating_sub(balance);
    Ok(Report {
        bought_at,
        topped_up_sat,
        seconds_to_connect,
        first_exit,
        paid_on,
        next_exit,
        seconds_to_change,
        packets_beside,
        spent_sat,
    })
}

/// Buys a configuration for any WireGuard app, uses it with wireguard-go, and pays on in the tunnel.
fn any_app(lab: &Lab, wallet: &Wallet<'_>, registry: &str) -> Result<(IpAddr, u64)> {
    println!("\n$ weir buy --country DE --amount {AMOUNT}");
    let arguments = ["--registry", registry, "--country", "DE", "--amount", AMOUNT];
    let bought = wallet.buy(&arguments)?;
    let config = bought["config"].as_str().context("no configuration")?;
    let client = Client::connect(&lab.consumer, config)?;
    client.wait_connected(SERVERS[0])?;
    let exit = appears_as(lab)?;
    download(lab, 8)?;
    println!("8 MiB came through wireguard-go, from {exit}");
    let paid = wallet.run(&["pay", GATEWAY_V4, AMOUNT])?;
    let spent = paid["spent"].as_u64().context("nothing was paid")?;
    println!("{spent} sat more were paid inside the tunnel");
    Ok((exit, spent))
}

/// The address by which the consumer appears on the internet.
fn appears_as(lab: &Lab) -> Result<IpAddr> {
    let listener = lab.internet.enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))?;
    let to = listener.local_addr()?;
    let connect = || Ok(TcpStream::connect_timeout(&to, Duration::from_secs(2))?);
    let _open = lab.consumer.enter(connect)?;
    Ok(listener.accept()?.1.ip())
}

fn download(lab: &Lab, mib: u64) -> Result<()> {
    let server = tcp::Server::start(&lab.internet)?;
    tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Direction::Down, 1, mib * MIB)?;
    Ok(())
}

impl Report {
    /// One screen.
    pub(crate) fn text(&self) -> String {
        let Self { bought_at, topped_up_sat, seconds_to_connect, first_exit, .. } = self;
        let Self { paid_on, next_exit, seconds_to_change, packets_beside, spent_sat, .. } = self;
        format!(
            "\nany app    bought at {bought_at}, {topped_up_sat} sat more paid in the tunnel\n\
             connected  in {seconds_to_connect:.1} s, at {first_exit}; payments inside: {paid_on}\n\
             changed    to {next_exit}, {seconds_to_change:.1} s after the exit was killed\n\
             beside     {packets_beside} packets left beside the tunnels\n\
             spent      {spent_sat} sat of {FUNDS}, the mint's fees included\n"
        )
    }
}
