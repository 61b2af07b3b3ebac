//! wireguard-go and three nftables rules in the node's place: it tells a broken machine or a broken
//! harness from a broken node.

use std::fs;

use anyhow::Result;
use weir_testkit::wireguard::WireguardProcess;

use crate::{
    Namespace,
    client::wireguard_go,
    command,
    lab::{NODE_V4, UPLINK},
};

/// A running stand-in with one consumer.
#[derive(Debug)]
pub struct StandIn {
    _wireguard: WireguardProcess,
    /// The consumer's configuration.
    pub config: String,
}

impl StandIn {
    /// Starts it.
    ///
    /// # Errors
    /// If one of the commands fails.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let wireguard = wireguard_go(namespace)?;
        let (node_private, node_public) = key_pair()?;
        let (private, public) = key_pair()?;
        let config = format!(
            "[Interface]\nPrivateKey = {private}\nAddress = 10.66.0.2/32, fd66::2/128\n\
             MTU = 1420\n[Peer]\nPublicKey = {node_public}\nEndpoint = {NODE_V4}:51820\n\
             AllowedIPs = 0.0.0.0/0, ::/0\n"
        );
        let wg = format!(
            "[Interface]\nPrivateKey = {node_private}\nListenPort = 51820\n\
             [Peer]\nPublicKey = {public}\nAllowedIPs = 10.66.0.2/32, fd66::2/128\n"
        );
        wireguard.configure(namespace, &wg)?;
        let interface = wireguard.interface();
        namespace.ip(&format!("addr add 10.66.0.1/16 dev {interface}"))?;
        namespace.ip(&format!("addr add fd66::1/64 dev {interface} nodad"))?;
        namespace.ip(&format!("link set {interface} mtu 1420 up"))?;
        namespace.sysctl("net.ipv4.ip_forward", "1")?;
        namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        namespace.run("nft add table inet standin")?;
        namespace
            .run("nft add chain inet standin out { type nat hook postrouting priority 100; }")?;
        namespace.run(&format!("nft add rule inet standin out oifname {UPLINK} masquerade"))?;
        Ok(Self { _wireguard: wireguard, config })
    }
}

fn key_pair() -> Result<(String, String)> {
    let private = command::run(&mut command::words("wg genkey"))?.trim().to_owned();
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), &private)?;
    let script = format!("wg pubkey < {}", file.path().display());
    let public = command::run(command::words("sh -c").arg(script))?.trim().to_owned();
    Ok((private, public))
}
