//! `weir connect --country`: an exit is found in a registry, paid with ecash, paid on, and left for
//! another one when it dies.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Lab, Node,
    connect::{Capture, Machine, Noise},
    lab::{NODE_V4, SERVER_V4, SERVERS},
    marketplace::Marketplace,
    traffic::tcp::{self, Direction},
    until,
    wallet::Wallet,
};

/// What the first purchase and each further one cost.
const AMOUNT: u64 = 40;
/// What the mint may keep of all exchanges.
const MAX_FEES: u64 = 20;
/// What the wallet has at first.
const FUNDS: u64 = 900;
/// Where the second exit is.
const OTHER_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 4, 2);

/// Where the third one is.
const THIRD_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 5, 2);

/// The address by which the consumer appears on the internet.
fn appears_as(lab: &Lab) -> Result<IpAddr> {
    let listener = lab.internet.enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))?;
    let to = listener.local_addr()?;
    let connect = || Ok(TcpStream::connect_timeout(&to, Duration::from_secs(20))?);
    let _open = lab.consumer.enter(connect)?;
    Ok(listener.accept()?.1.ip())
}

/// Serves this much to the first who comes, at a rate that leaves the time to prepare a payment. Gives
/// its address in the end.
fn serve_slowly(lab: &Lab, mib: u64) -> Result<(SocketAddr, JoinHandle<Result<IpAddr>>)> {
    let listener = lab.internet.enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))?;
    let address = listener.local_addr()?;
    let serve = std::thread::spawn(move || -> Result<IpAddr> {
        let (mut stream, from) = listener.accept()?;
        for _ in 0..mib {
            stream.write_all(&vec![7; 1 << 20])?;
            std::thread::sleep(Duration::from_millis(110));
        }
        Ok(from.ip())
    });
    Ok((address, serve))
}

/// A consumer's wallet with ecash of the market's mint, and the registry where it looks for exits.
struct Purse<'a> {
    wallet: Wallet<'a>,
    path: String,
    registry: String,
}

impl<'a> Purse<'a> {
    /// In the consumer's namespace.
    fn filled(lab: &'a Lab, market: &Marketplace<'_>) -> Result<Self> {
        let wallet = Wallet::new(&lab.consumer)?;
        wallet.run(&["receive", "--trust-mint", &market.mint.send(FUNDS, &[])?])?;
        let path = wallet.path().to_string_lossy().into_owned();
        Ok(Self { wallet, path, registry: market.registry() })
    }

    /// The arguments of a command that buys there.
    fn buys<'s>(&'s self, command: &[&'s str], amounts: &[&'s str]) -> Vec<&'s str> {
        let bought = ["--registry", &self.registry, "--wallet", &self.path];
        [command, &bought, amounts].concat()
    }

    /// Fails unless this much of what it had was spent, and at most [`MAX_FEES`].
    fn ensure_spent(&self, budget: u64, told: &str) -> Result<()> {
        let [balance, ..] = self.wallet.sums()?;
        let expected = FUNDS - budget - MAX_FEES..=FUNDS - budget;
        ensure!(expected.contains(&balance), "{balance} are left:\n{told}");
        Ok(())
    }
}

#[test]
fn an_exit_in_a_country_is_found_paid_and_paid_on_within_the_budget() -> Result<()> {
    const BUDGET: u64 = 2 * AMOUNT + 10;
    let lab = Lab::new()?;
    let market = Marketplace::start(&lab)?;
    let node = Node::start(&lab.node, market.exit(NODE_V4, "DE"))?;
    market.wait_listed("DE", 1)?;
    let purse = Purse::filled(&lab, &market)?;
    let (amount, budget) = (AMOUNT.to_string(), BUDGET.to_string());
    let amounts = ["--amount", &amount, "--budget", &budget];
    let mut machine = Machine::new(&lab)?;
    let nowhere = machine.weir(&purse.buys(&["connect", "--country", "FR"], &amounts));
    let nowhere = format!("{:#}", nowhere.expect_err("there is no exit in FR"));
    ensure!(nowhere.contains("no exit"), "{nowhere}");
    let poor = ["--amount", "40", "--budget", "39"];
    let poor = machine.weir(&purse.buys(&["connect", "--country", "DE"], &poor));
    ensure!(format!("{:#}", poor.expect_err("beyond the budget")).contains("--budget"));
    machine.connect(&purse.buys(&["--country", "DE"], &amounts))?;
    ensure!(appears_as(&lab).with_context(|| machine.log())? == IpAddr::from(NODE_V4));

    // More than three quarters of the first purchase are used, and of the second.
    let server = tcp::Server::start(&lab.internet)?;
    for paid in 1..=2 {
        tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Direction::Down, 1, 34 << 20)
            .with_context(|| machine.log())?;
        until("it pays on", Duration::from_secs(90), || {
            let log = machine.log();
            ensure!(log.matches("Paid ").count() == paid, "{log}");
            Ok(())
        })?;
    }
    let log = machine.log();
    ensure!(log.contains("Paid 40 sat") && log.contains("Paid 10 sat"), "{log}");
    ensure!(log.contains("0 left of the budget"), "{log}");
    machine.disconnect()?;
    purse.ensure_spent(BUDGET, &log)?;
    drop(node);
    Ok(())
}

#[test]
fn when_an_exit_dies_the_consumer_goes_on_at_another_and_nothing_leaves_beside_the_tunnels()
-> Result<()> {
    let lab = Lab::new()?;
    let market = Marketplace::start(&lab)?;
    let second = lab.another_node(4)?;
    let mut nodes = [
        (NODE_V4, Node::start(&lab.node, market.exit(NODE_V4, "DE"))?),
        (OTHER_V4, Node::start(&second, market.exit(OTHER_V4, "DE"))?),
    ];
    market.wait_listed("DE", 2)?;
    let purse = Purse::filled(&lab, &market)?;
    let mut machine = Machine::new(&lab)?;
    let amounts = ["--amount", "40", "--budget", "120"];
    machine.connect(&purse.buys(&["--country", "DE"], &amounts))?;
    // All that weir itself asks from here on goes through the tunnel too.
    let endpoints = [NODE_V4, OTHER_V4].map(|node| SocketAddr::from((node, 51820)));
    let capture = Capture::start(&lab, endpoints.to_vec())?;
    let _noise = Noise::start(&lab)?;
    until("another exit is bought", Duration::from_secs(60), || {
        ensure!(machine.log().contains("to change to it if this exit fails"), "{}", machine.log());
        Ok(())
    })?;
    let first = appears_as(&lab).with_context(|| machine.log())?;
    let chosen = nodes.iter_mut().find(|(address, _)| first == IpAddr::from(*address));
    let (address, chosen) = chosen.with_context(|| format!("an exit at {first}"))?;
    let [other] =
        [NODE_V4, OTHER_V4].into_iter().filter(|it| it != address).collect::<Vec<_>>()[..]
    else {
        anyhow::bail!("two exits");
    };
    chosen.kill()?;
    until("the consumer is at the other exit", Duration::from_secs(90), || {
        let status = machine.status()?;
        let endpoint = status["endpoint"].as_str().unwrap_or_default();
        ensure!(endpoint.starts_with(&other.to_string()), "{status}\n{}", machine.log());
        ensure!(status["state"] == "connected", "{status}");
        Ok(())
    })?;
    let now = appears_as(&lab).with_context(|| machine.log())?;
    ensure!(now == IpAddr::from(other), "{now} after {first}");
    let beside = capture.beside();
    ensure!(beside.is_empty(), "{} packets beside: {beside:?}", beside.len());
    ensure!(capture.tunnel() > 100, "the capture sees nothing");
    machine.disconnect()?;
    let [balance, ..] = purse.wallet.sums()?;
    ensure!(balance >= FUNDS - 120 - MAX_FEES, "{balance} are left:\n{}", machine.log());
    Ok(())
}

#[test]
fn an_entry_in_another_country_is_bought_and_paid_on_too_and_the_consumer_talks_to_it_alone()
-> Result<()> {
    let lab = Lab::new()?;
    let market = Marketplace::start(&lab)?;
    let second = lab.another_node(4)?;
    let exit = Node::start(&lab.node, market.exit(NODE_V4, "DE"))?;
    let entry = Node::start(&second, market.exit(OTHER_V4, "FR"))?;
    market.wait_listed("DE", 1)?;
    market.wait_listed("FR", 1)?;
    let purse = Purse::filled(&lab, &market)?;
    let mut machine = Machine::new(&lab)?;
    let alone = machine.weir(&["connect", "--conf", "x.conf", "--via", "FR"]);
    ensure!(format!("{:#}", alone.expect_err("no market")).contains("--country"));
    let amounts = ["--amount", "40", "--budget", "160"];
    machine.connect(&purse.buys(&["--country", "DE", "--via", "FR"], &amounts))?;
    let capture = Capture::start(&lab, vec![SocketAddr::from((OTHER_V4, 51820))])?;
    let _noise = Noise::start(&lab)?;
    let seen = appears_as(&lab).with_context(|| machine.log())?;
    ensure!(seen == IpAddr::from(NODE_V4), "{seen}");
    // Most of both sessions is used.
    let (address, serve) = serve_slowly(&lab, 34)?;
    let mut stream = lab.consumer.enter(|| Ok(TcpStream::connect(address)?))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let got = io::copy(&mut stream, &mut io::sink()).with_context(|| machine.log())?;
    ensure!(got == 34 << 20, "{got} bytes");
    serve.join().expect("no panic")?;
    until("both are paid on", Duration::from_secs(90), || {
        let log = machine.log();
        let paid: BTreeSet<_> =
            log.lines().filter(|line| line.starts_with("Paid 40 sat")).collect();
        ensure!(paid.len() == 2 && log.contains(" 0 left of the budget"), "{log}");
        Ok(())
    })?;
    let beside = capture.beside();
    ensure!(beside.is_empty(), "{} packets beside: {beside:?}", beside.len());
    ensure!(capture.tunnel() > 5, "the capture sees nothing");
    machine.disconnect()?;
    purse.ensure_spent(160, &machine.log())?;
    drop((exit, entry));
    Ok(())
}

#[test]
fn when_an_entry_dies_the_consumer_goes_on_through_another_one_that_was_bought_before() -> Result<()>
{
    let lab = Lab::new()?;
    let market = Marketplace::start(&lab)?;
    let [second, third] = [lab.another_node(4)?, lab.another_node(5)?];
    let exit = Node::start(&lab.node, market.exit(NODE_V4, "DE"))?;
    let mut entries = [
        (OTHER_V4, Node::start(&second, market.exit(OTHER_V4, "FR"))?),
        (THIRD_V4, Node::start(&third, market.exit(THIRD_V4, "FR"))?),
    ];
    market.wait_listed("DE", 1)?;
    market.wait_listed("FR", 2)?;
    let purse = Purse::filled(&lab, &market)?;
    let mut machine = Machine::new(&lab)?;
    let amounts = ["--amount", "40", "--budget", "240"];
    machine.connect(&purse.buys(&["--country", "DE", "--via", "FR"], &amounts))?;
    let endpoints = [OTHER_V4, THIRD_V4].map(|node| SocketAddr::from((node, 51820)));
    let capture = Capture::start(&lab, endpoints.to_vec())?;
    let _noise = Noise::start(&lab)?;
    until("another entry is bought", Duration::from_secs(60), || {
        ensure!(machine.log().contains("to change to it if this entry fails"), "{}", machine.log());
        Ok(())
    })?;
    let through = |machine: &Machine<'_>| -> Result<String> {
        Ok(machine.status()?["entry"]["endpoint"].as_str().unwrap_or_default().to_owned())
    };
    let first = through(&machine)?;
    let used = entries.iter_mut().find(|(at, _)| first.starts_with(&at.to_string()));
    used.with_context(|| format!("no entry at {first}"))?.1.kill()?;
    until("it goes through the other entry", Duration::from_secs(60), || {
        ensure!(through(&machine)? != first, "{}", machine.log());
        lab.consumer.run(&format!("ping -n -q -c 1 -W 1 {SERVER_V4}")).map(drop)
    })?;
    let seen = appears_as(&lab).with_context(|| machine.log())?;
    ensure!(seen == IpAddr::from(NODE_V4), "{seen}");
    let beside = capture.beside();
    ensure!(beside.is_empty(), "{} packets beside: {beside:?}", beside.len());
    machine.disconnect()?;
    // The exit, and two entries.
    purse.ensure_spent(3 * AMOUNT, &machine.log())?;
    drop((exit, entries));
    Ok(())
}

#[test]
fn a_program_runs_at_an_exit_that_is_bought_for_it_and_paid_on_within_the_budget() -> Result<()> {
    const BUDGET: u64 = 2 * AMOUNT + 30;
    const MIB: u64 = 86;
    let lab = Lab::new()?;
    let market = Marketplace::start(&lab)?;
    let node = Node::start(&lab.node, market.exit(NODE_V4, "DE"))?;
    market.wait_listed("DE", 1)?;
    let purse = Purse::filled(&lab, &market)?;
    let (amount, budget) = (AMOUNT.to_string(), BUDGET.to_string());
    let machine = Machine::new(&lab)?;
    let before = machine.everything()?;
    // The second payment is due less than 10 s after the first one. So the session is paused by then,
    // and reaches no mint: it is paid with what was prepared.
    let (address, serve) = serve_slowly(&lab, MIB)?;
    let port = address.port();
    // What it sends meanwhile must not keep the payment out.
    let fetch = format!(
        "import socket, threading, time\n\
         def noise():\n    \
             udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
             while True:\n        \
                 try: udp.sendto(b'noise', ('{SERVER_V4}', 9))\n        \
                 except OSError: pass\n        \
                 time.sleep(0.001)\n\
         threading.Thread(target=noise, daemon=True).start()\n\
         socket.setdefaulttimeout(60)\n\
         s = socket.create_connection(('{SERVER_V4}', {port}))\nn = 0\n\
         while True:\n    b = s.recv(65536)\n    n += len(b)\n    if not b: break\nprint(n)"
    );
    let amounts_and_program =
        ["--amount", &amount, "--budget", &budget, "--", "python3", "-c", &fetch];
    let arguments = purse.buys(&["exec", "--country", "DE"], &amounts_and_program);
    let done = machine.command(&arguments)?.output()?;
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "{told}");
    let got = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    ensure!(got == (MIB << 20).to_string(), "{got} bytes: {told}");
    ensure!(serve.join().expect("no panic")? == IpAddr::from(NODE_V4));
    ensure!(told.contains("weir: Paid 40 sat. 30 left of the budget."), "{told}");
    ensure!(told.contains("weir: Paid 30 sat. 0 left of the budget."), "{told}");
    assert_eq!(machine.everything()?, before, "exec changes nothing outside");
    purse.ensure_spent(BUDGET, &told)?;
    drop(node);
    Ok(())
}
