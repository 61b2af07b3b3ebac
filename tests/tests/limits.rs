//! Rates, quotas and times of the week, with real traffic.

use std::{
    io::Read as _,
    net::UdpSocket,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    Lab, Namespace, Node, Settings, iperf,
    lab::SERVERS,
    steps::{beside, connected},
    until,
};

const GATEWAY: &str = "10.66.0.1";
/// Each way, as iperf3 calls them.
const WAYS: [&str; 2] = ["", "-R"];

fn limits(node: &Node<'_>) -> Result<Value> {
    Ok(serde_json::from_str(&node.weir(&["limits", "--json"])?)?)
}

/// Megabits per second of goodput, after a second that does not count.
fn goodput(lab: &Lab, arguments: &str) -> Result<f64> {
    let report = iperf::run(&lab.consumer, SERVERS[0], &format!("-O 1 {arguments}"))?;
    Ok(iperf::received_bits_per_second(&report) / 1e6)
}

/// Expects a goodput in this range. A machine that does something else for a moment carries less:
/// then it is measured again, twice. More than the range is wrong at once.
fn holds(lab: &Lab, range: std::ops::RangeInclusive<f64>, arguments: &str) -> Result<()> {
    let mut got = Vec::new();
    for _ in 0..3 {
        let one = goodput(lab, arguments)?;
        ensure!(one <= *range.end(), "{one} Mbit/s, not {range:?}: {arguments}");
        if range.contains(&one) {
            return Ok(());
        }
        got.push(one);
    }
    anyhow::bail!("{got:?} Mbit/s, not {range:?}: {arguments}")
}

#[test]
fn tcp_holds_its_rate_and_takes_another_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("limits", "session_rate_up", "\"200 Mbit/s\"");
    let (mut node, added, _client) = connected(&lab, settings)?;
    let _server = iperf::Server::start(&lab.internet)?;
    let id = added.session.id.as_str();
    node.weir(&["session", "rate", id, "--up", "50 Mbit/s", "--down", "50mbit"])?;
    for way in WAYS {
        // The limit is of IP packets: their TCP payload is 96 % of them.
        holds(&lab, 45.0..=51.5, &format!("-t 4 {way}"))?;
    }
    ensure!(node.drops("up", "rate_limit")? > 0 && node.drops("down", "rate_limit")? > 0);

    node.stop()?;
    node.restart()?;
    node.weir(&["session", "rate", id, "--up", "50 Mbit/s", "--down", "20 Mbit/s"])?;
    until("the consumer is back", Duration::from_secs(30), || goodput(&lab, "-t 1").map(drop))?;
    holds(&lab, 18.0..=20.8, "-t 3 -R -P 4")?;
    // Without rates of its own it has the node's, which a reload can change.
    node.weir(&["session", "rate", id])?;
    node.configure(Settings::default().with("limits", "session_rate_up", "\"30 Mbit/s\""))?;
    let outcome = node.weir(&["reload"])?;
    ensure!(outcome.contains("limits.session_rate_up"), "{outcome}");
    holds(&lab, 27.0..=31.0, "-t 3")?;
    node.stop()
}

#[test]
fn a_udp_flood_is_cut_to_the_rate_and_what_is_cut_is_not_billed() -> Result<()> {
    let lab = Lab::new()?;
    let (node, added, _client) = connected(&lab, Settings::default())?;
    let _server = iperf::Server::start_at(&lab.internet, Some(SERVERS[0]), 5201)?;
    node.weir(&["limits", "set", "session-rate-up=10 Mbit/s", "session-rate-down=10 Mbit/s"])?;
    for way in WAYS {
        let before = node.session_show(&added.session.id)?;
        // Its own report may get lost in its flood: what was billed tells.
        let flood = Running::start(
            &lab.consumer,
            &format!("-c {} -u -b 60M -l 1300 -O 1 -t 4 {way}", SERVERS[0]),
        )?;
        std::thread::sleep(Duration::from_secs(6));
        drop(flood);
        let after = node.session_show(&added.session.id)?;
        let billed = (after.bytes_up - before.bytes_up).max(after.bytes_down - before.bytes_down);
        // 5 s, 0.3 s of a full bucket, and 5 % for WireGuard; 37 MB were sent.
        ensure!((4_000_000..8_000_000).contains(&billed), "{billed} {way}");
    }
    Ok(())
}

/// An iperf3 client that runs until it is dropped.
struct Running(Child);

impl Running {
    fn start(namespace: &Namespace, words: &str) -> Result<Self> {
        let mut command = namespace.command("iperf3");
        command.args(words.split_whitespace()).stdin(Stdio::null());
        Ok(Self(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?))
    }

    /// Fails with what it wrote where it has ended.
    fn check(&mut self) -> Result<()> {
        let Some(status) = self.0.try_wait()? else { return Ok(()) };
        let mut written = String::new();
        if let Some(stderr) = &mut self.0.stderr {
            stderr.read_to_string(&mut written)?;
        }
        anyhow::bail!("iperf3 has ended: {status}: {written}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Each session's billed rate in one direction, in Mbit/s, measured for this number of seconds.
/// The node's own count: iperf3's comes over a connection that competes with its others.
fn billed_rates(node: &Node<'_>, way: &str, seconds: u64) -> Result<Vec<f64>> {
    let (before, start) = (node.session_list()?, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let (after, seconds) = (node.session_list()?, start.elapsed().as_secs_f64());
    let bytes = before.iter().zip(&after).map(|(before, after)| match way {
        "" => after.bytes_up - before.bytes_up,
        _ => after.bytes_down - before.bytes_down,
    });
    Ok(bytes.map(|bytes| bytes as f64 * 8e-6 / seconds).collect())
}

/// Expects that each of these rates is within 20 % of their mean, and that within its limits.
fn is_even(rates: &[f64], mean: std::ops::RangeInclusive<f64>) -> Result<()> {
    let got = rates.iter().sum::<f64>() / rates.len() as f64;
    ensure!(mean.contains(&got), "a mean of {got}, not {mean:?}: {rates:?}");
    for one in rates {
        ensure!((0.8 * got..=1.2 * got).contains(one), "{one} in {rates:?}");
    }
    Ok(())
}

#[test]
fn a_greedy_session_does_not_starve_the_rest() -> Result<()> {
    const SESSIONS: usize = 10;
    /// Megabits per second.
    const SHARE: f64 = 8.0;
    let lab = Lab::new()?;
    let settings = Settings::default().with("limits", "node_rate_up", "\"80 Mbit/s\"").with(
        "limits",
        "node_rate_down",
        "\"80 Mbit/s\"",
    );
    let node = Node::start(&lab.node, settings)?;
    let mut consumers = Vec::new();
    for index in 0..SESSIONS {
        let added = node.session_add(&format!("consumer{index}"))?;
        let (client, own) = beside(&lab, &added, 1000 + index)?;
        consumers.push((client, own));
    }
    for way in WAYS {
        let ports: Vec<u16> = (5300..).take(SESSIONS).collect();
        let start = |port: &u16| iperf::Server::start_at(&lab.internet, Some(SERVERS[0]), *port);
        let _servers = ports.iter().map(start).collect::<Result<Vec<_>>>()?;
        let mut running = Vec::new();
        for (index, (port, (_, own))) in ports.iter().zip(&consumers).enumerate() {
            let flows = if index == 0 { 64 } else { 1 };
            let words = format!("-c {} -p {port} -B {own} -P {flows} -t 600 {way}", SERVERS[0]);
            running.push(Running::start(&lab.consumer, &words)?);
        }
        // So long that a flow of TCP that has lost a packet has recovered and caught up.
        std::thread::sleep(Duration::from_secs(4));
        // A machine that does something else for a moment makes a flow wait for its timers: then
        // there is another look.
        let mut looks = Vec::new();
        while looks.last().is_none_or(Result::is_err) {
            ensure!(looks.len() < 3, "{way}: {looks:?}");
            let rates = billed_rates(&node, way, 20)?;
            running.iter_mut().try_for_each(Running::check)?;
            // Billed bytes are up to 3 % more than the IP packets that the rate is of.
            looks.push(is_even(&rates, 0.8 * SHARE..=1.1 * SHARE));
        }
    }
    // What nobody else wants is a single session's.
    let (_, own) = &consumers[3];
    let _server = iperf::Server::start_at(&lab.internet, Some(SERVERS[0]), 5201)?;
    holds(&lab, 60.0..=82.0, &format!("-B {own} -t 3"))?;
    Ok(())
}

/// Sends so many datagrams of 1300 bytes, a few a millisecond, to whoever does not listen.
fn flood(lab: &Lab, count: usize) -> Result<()> {
    let socket = lab.consumer.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    for index in 0..count {
        // An ICMP error of an earlier one is no matter.
        socket.send_to(&[7; 1300], (SERVERS[0], 9)).ok();
        if index % 4 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

#[test]
fn a_used_up_quota_stops_all_sessions_also_after_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("limits", "bytes_per_month", "\"2 MB\"");
    let (mut node, _added, client) = connected(&lab, settings)?;
    flood(&lab, 4_000)?;
    let paused = |node: &Node<'_>| {
        until("the quota is used up", Duration::from_secs(10), || {
            let limits = limits(node)?;
            ensure!(limits["now"]["paused_for"] == "quota", "{limits}");
            Ok(limits["now"]["month"]["used"].as_u64().unwrap_or(0))
        })
    };
    let stopped = |node: &Node<'_>| -> Result<()> {
        ensure!(client.ping(SERVERS[0], 2).is_err(), "there is still traffic");
        client.ping(GATEWAY.parse()?, 2).context("the gateway is still there")?;
        ensure!(node.session_list()?[0].state == "paused");
        let refused = node.session_add("another").err().context("a new session")?.to_string();
        ensure!(refused.contains("quota"), "{refused}");
        Ok(())
    };
    let used = paused(&node)?;
    ensure!(used >= 2_000_000, "{used}");
    stopped(&node)?;
    ensure!(node.metrics()?.contains("weir_node_paused{reason=\"quota\"} 1"));
    node.stop()?;
    node.restart()?;
    until("the consumer is back", Duration::from_secs(30), || {
        client.ping(GATEWAY.parse()?, 1).map(drop)
    })?;
    ensure!(paused(&node)? >= used, "what was used is forgotten");
    stopped(&node)?;
    node.weir(&["limits", "set", "bytes-per-month=1 GB"])?;
    client.wait_connected(SERVERS[0])?;
    node.session_add("another")?;
    node.stop()
}

#[test]
fn a_schedule_closes_the_node_and_slows_it_down() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, Settings::default())?;
    let _server = iperf::Server::start(&lab.internet)?;
    node.weir(&["limits", "set", "schedule=daily 00:00-24:00 closed", "sessions=1"])?;
    ensure!(client.ping(SERVERS[0], 2).is_err(), "there is traffic while closed");
    let status = node.weir(&["status"])?;
    ensure!(status.contains("all sessions: schedule"), "{status}");
    let full = node.session_add("second").err().context("one is there")?.to_string();
    ensure!(full.contains("limits.sessions"), "{full}");
    node.weir(&["limits", "set", "schedule=daily 00:00-24:00 down=10mbit", "sessions=off"])?;
    client.wait_connected(SERVERS[0])?;
    holds(&lab, 8.8..=10.4, "-t 3 -R")?;
    ensure!(limits(&node)?["now"]["rate_down"] == 10_000_000);
    node.session_add("second")?;
    Ok(())
}
