//! iperf3, for throughput with a tool that everybody knows.

use std::{
    net::IpAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{Namespace, command, until};

const PORT: u16 = 5201;

/// A running iperf3 server; gone when dropped.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts a server on all addresses of a namespace.
    ///
    /// # Errors
    /// If it does not listen.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        Self::start_at(namespace, None, PORT)
    }

    /// The same on one address, which iperf3 needs for UDP where there are several, and on a port of
    /// its own: a server has one client at a time.
    ///
    /// # Errors
    /// If it does not listen.
    pub fn start_at(namespace: &Namespace, address: Option<IpAddr>, port: u16) -> Result<Self> {
        let mut command = namespace.command("iperf3");
        command.args(["-s", "-p", &port.to_string()]).stdin(Stdio::null());
        if let Some(address) = address {
            command.args(["-B", &address.to_string()]);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self(child.context("cannot start iperf3")?);
        until("iperf3 listens", Duration::from_secs(10), || {
            let listening = namespace.run(&format!("ss -Hltn sport = :{port}"))?;
            anyhow::ensure!(!listening.is_empty(), "no listener on {port}");
            Ok(())
        })?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs iperf3 against a server with more arguments, such as `-R -P 4 -t 5`, and gives its JSON.
///
/// # Errors
/// If it fails.
pub fn run(client: &Namespace, server: IpAddr, arguments: &str) -> Result<Value> {
    run_on(client, server, PORT, arguments)
}

/// The same against a server on another port.
///
/// # Errors
/// If it fails.
pub fn run_on(client: &Namespace, server: IpAddr, port: u16, arguments: &str) -> Result<Value> {
    let mut command = client.command("iperf3");
    command.args(["-J", "-c", &server.to_string(), "-p", &port.to_string()]);
    Ok(serde_json::from_str(&command::run(command.args(arguments.split_whitespace()))?)?)
}

/// What the receiving side got, in bits per second.
#[must_use]
pub fn received_bits_per_second(report: &Value) -> f64 {
    let end = &report["end"];
    let sum = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
    sum["bits_per_second"].as_f64().unwrap_or(0.0)
}
