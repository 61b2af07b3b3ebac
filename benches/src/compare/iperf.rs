//! iperf3 through wireguard-go as the consumer: a tool and a client that everybody knows. On two
//! cores the client's cipher caps the rate; goodput per processor second of the exit does not mind.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use weir_testkit::{
    Namespace,
    meter::{Reading, Spent},
    rig::{NODE, REAL_SERVER},
};

use super::exit::{Exit, Program, Tools, start_wireguard};

const GATEWAY: &str = "45.80.1.1";
const CONSUMER: &str = "45.80.1.2";

/// What an iperf3 run gave.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bytes that the receiver got.
    pub bytes: f64,
    /// Seconds on the clock.
    pub seconds: f64,
    /// The exit's processor time.
    pub spent: Spent,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Four TCP streams for `seconds`, from the internet if `down`.
///
/// # Errors
///
/// Fails when iperf3 or the client does.
pub fn run(tools: &Tools, exit: &Exit, down: bool, seconds: u32) -> anyhow::Result<Transfer> {
    let outside = &exit.rig.outside;
    let consumer = Namespace::new()?;
    consumer
        .ip(&format!("link add wan0 type veth peer name to-consumer netns {}", outside.path()))?;
    consumer.ip(&format!("addr add {CONSUMER}/24 dev wan0"))?;
    consumer.ip("link set wan0 up")?;
    outside.ip(&format!("addr add {GATEWAY}/24 dev to-consumer"))?;
    outside.ip("link set to-consumer up")?;
    outside.run("sysctl -q -w net.ipv4.ip_forward=1")?;
    consumer.ip(&format!("route add default via {GATEWAY}"))?;
    exit.rig.node.ip(&format!("route replace {CONSUMER} via {}", exit.access.from))?;
    let session = exit.credentials.first().context("no session")?;
    let config = format!(
        "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nEndpoint = {NODE}\n\
         AllowedIPs = 0.0.0.0/0\n",
        STANDARD.encode(session.private),
        STANDARD.encode(exit.access.key)
    );
    let generator = rustix::thread::sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..1024).filter(|core| generator.is_set(*core)).collect();
    let client = start_wireguard(tools, Program::WireguardGo, &consumer, &cores, &config)?;
    let interface = client.interface();
    consumer.ip(&format!("addr add {}/32 dev {interface}", session.address))?;
    consumer.ip(&format!("link set {interface} mtu 1420 up"))?;
    consumer.ip(&format!("route add {REAL_SERVER}/32 dev {interface}"))?;
    let server = outside.enter(|| {
        let mut command = Command::new("iperf3");
        command.args(["-s"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("cannot start iperf3")
    })?;
    let _server = Server(server);
    std::thread::sleep(Duration::from_millis(300));
    let before = exit.meter.read()?;
    let report = client_report(&consumer, down, seconds)?;
    let spent = exit.meter.read().map(|after: Reading| after.since(&before))?;
    let sum = &report["end"]["sum_received"];
    let number = |key: &str| sum[key].as_f64().with_context(|| format!("iperf3 gave no {key}"));
    Ok(Transfer { bytes: number("bytes")?, seconds: number("seconds")?, spent })
}

fn client_report(
    consumer: &Namespace,
    down: bool,
    seconds: u32,
) -> anyhow::Result<serde_json::Value> {
    consumer.enter(|| {
        let mut command = Command::new("iperf3");
        command.args(["-J", "-P", "4", "-c", &REAL_SERVER.to_string()]);
        command.args(["-t", &seconds.to_string()]).stdin(Stdio::null());
        if down {
            command.arg("-R");
        }
        let output = command.output().context("cannot start iperf3")?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        ensure!(output.status.success(), "iperf3: {}", report["error"]);
        Ok(report)
    })
}
