//! `cargo xtask setup`: installs what the demo and the tests need. The other tasks do it first.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

pub(crate) mod apt;
mod cashu_ts;
mod nostr_relay;
mod nutshell;
mod pynostr;
mod wireguard_go;

pub(crate) use wireguard_go::{mirror, source};

use std::path::Path;

use anyhow::Result;

use self::apt::Need;

const NEEDS: &[Need] = &[
    Need::new("gcc", "/usr/bin/gcc", "compiles SQLite and links"),
    Need::new("g++", "/usr/bin/g++", "compiles libFuzzer"),
    Need::new("libc6-dev", "/usr/include/stdlib.h", "compiles SQLite and links"),
    Need::new("iproute2", "/sbin/ip", "makes network namespaces"),
    Need::new("util-linux", "/usr/bin/nsenter", "enters network namespaces"),
    Need::new("procps", "/sbin/sysctl", "sets the namespaces' forwarding"),
    Need::new("nftables", "/usr/sbin/nft", "holds the node's exit policy"),
    Need::new("iptables", "/usr/sbin/iptables-legacy", "is a firewall beside the node's"),
    Need::new("wireguard-tools", "/usr/bin/wg", "configures the consumer"),
    Need::new("iputils-ping", "/bin/ping", "pings through the tunnel"),
    Need::new("iperf3", "/usr/bin/iperf3", "measures throughput"),
    Need::new("prometheus", "/usr/bin/promtool", "checks the metrics and the alerts"),
    Need::new("nats-server", "/usr/sbin/nats-server", "takes the usage records of a fleet"),
    Need::new("libfaketime", "/usr/share/doc/libfaketime/copyright", "sets a node's clock"),
    Need::new("chromium", "/usr/bin/chromium", "shows the node's page"),
    Need::new("dnsmasq-base", "/usr/sbin/dnsmasq", "is the DNS server on the internet"),
    Need::new("bind9-dnsutils", "/usr/bin/dig", "asks for names"),
    Need::new("python3-venv", "/usr/share/doc/python3-venv", "makes a place for Python packages"),
    Need::new("coturn", "/usr/bin/turnutils_natdiscovery", "tells what kind of NAT a node is"),
    Need::new("traceroute", "/usr/share/doc/traceroute", "shows the routers behind a node"),
    Need::new("python3-pyftpdlib", "/usr/share/doc/python3-pyftpdlib", "is an FTP server"),
    Need::new("ngtcp2-client", "/usr/share/doc/ngtcp2-client", "fetches over QUIC"),
    Need::new("ngtcp2-server", "/usr/share/doc/ngtcp2-server", "serves over QUIC"),
    Need::new("dropbear-bin", "/usr/sbin/dropbear", "serves over SSH"),
    Need::new("nodejs", "/usr/bin/node", "runs a second wallet"),
    Need::new("npm", "/usr/bin/npm", "installs the second wallet"),
    Need::new("ethtool", "/usr/sbin/ethtool", "switches offloads"),
];

/// Installs what is missing.
///
/// # Errors
/// If it is not root, or apt cannot install.
pub(crate) fn run() -> Result<()> {
    let missing: Vec<_> = NEEDS.iter().filter(|need| !Path::new(need.proof).exists()).collect();
    apt::install(&missing)?;
    println!("nutshell is the mint, in {}", nutshell::ensure()?.display());
    println!("nostr-relay is a foreign relay, in {}", nostr_relay::ensure()?.display());
    println!("pynostr is the Nostr client, in {}", pynostr::ensure()?.display());
    println!("cashu-ts is the second wallet, in {}", cashu_ts::ensure()?.display());
    println!("wireguard-go {} is the consumer's client", wireguard_go::ensure()?);
    Ok(())
}
