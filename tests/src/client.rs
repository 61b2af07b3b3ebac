//! wireguard-go as a consumer.

use std::{
    fs,
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use weir_testkit::wireguard::{Implementation, WireguardProcess};

use crate::{
    Namespace, command,
    lab::{HOST_V4, HOST_V6, METADATA_V4},
    sweep, until,
    wgquick::WgQuick,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A WireGuard interface served by wireguard-go; gone when dropped.
#[derive(Debug)]
pub struct Client<'a> {
    namespace: &'a Namespace,
    addresses: Vec<IpAddr>,
    wireguard: WireguardProcess,
}

/// What `wg show transfer` says: the UDP payload of everything that was authenticated or sent,
/// handshakes included, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// From the node.
    pub received: u64,
    /// To the node.
    pub sent: u64,
}

impl<'a> Client<'a> {
    /// Starts an interface with a configuration as the node prints it. All test servers are
    /// routed through it; the node's endpoint stays outside.
    ///
    /// # Errors
    /// If wireguard-go does not start or one of the commands fails.
    pub fn connect(namespace: &'a Namespace, config: &str) -> Result<Self> {
        Self::connect_with(namespace, &WgQuick::parse(config)?)
    }

    /// As [`Self::connect`], but with a configuration that the test has changed.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_with(namespace: &'a Namespace, config: &WgQuick) -> Result<Self> {
        let client = Self::start(namespace, config)?;
        for subnet in ["45.80.3.0/24", "10.66.0.0/16", "2a0c:b641:3::/64", "fd66::/16"] {
            client.route(subnet)?;
        }
        for host in [IpAddr::from(HOST_V4), HOST_V6.into(), METADATA_V4.into()] {
            client.route(&host.to_string())?;
        }
        client.route("fd00:ec2::254")?;
        Ok(client)
    }

    /// As [`Self::connect_with`], but without routes: a second client in the same namespace, whose
    /// traffic is bound to its interface or address.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn start(namespace: &'a Namespace, config: &WgQuick) -> Result<Self> {
        let addresses = config.addresses.iter().map(|text| bare(text)).collect::<Result<_>>()?;
        let wireguard = wireguard_go(namespace)?;
        let client = Self { namespace, addresses, wireguard };
        client.configure(&config.wg)?;
        for address in &config.addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            let interface = client.interface();
            namespace.ip(&format!("addr add {address} dev {interface} {nodad}"))?;
        }
        let mtu = config.mtu.unwrap_or(1420);
        namespace.ip(&format!("link set {} mtu {mtu} up", client.interface()))?;
        Ok(client)
    }

    /// Gives `wg setconf` another configuration.
    ///
    /// # Errors
    /// If `wg` fails.
    pub fn configure(&self, wg: &str) -> Result<()> {
        self.wireguard.configure(self.namespace, wg)
    }

    /// Runs `wg set` with a line of words for this interface.
    ///
    /// # Errors
    /// If `wg` fails.
    pub fn set(&self, words: &str) -> Result<()> {
        self.namespace.run(&format!("wg set {} {words}", self.interface()))?;
        Ok(())
    }

    /// Has it give up its keys, as after two minutes: it takes another identity, and its own of
    /// `config` again.
    ///
    /// # Errors
    /// If `wg` fails, or the configuration has no private key.
    pub fn forget_keys(&self, config: &str) -> Result<()> {
        let own = config.lines().find_map(|line| line.strip_prefix("PrivateKey = "));
        let other = command::run(&mut command::words("wg genkey"))?;
        for key in [other.trim(), own.context("no private key")?.trim()] {
            let file = tempfile::NamedTempFile::new()?;
            fs::write(file.path(), key)?;
            self.set(&format!("private-key {}", file.path().display()))?;
        }
        Ok(())
    }

    /// Lets the consumer's kernel hand wireguard-go bursts of at most `bytes` of TCP. A full burst
    /// of 64 KiB is, encrypted, a little more than one UDP send can have, so that wireguard-go
    /// makes two of it: a full one and a remainder of one or two datagrams.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn limit_bursts(&self, bytes: u32) -> Result<()> {
        self.namespace.ip(&format!("link set {} gso_max_size {bytes}", self.interface()))?;
        Ok(())
    }

    /// Sends what is for `destination` through the tunnel.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn route(&self, destination: &str) -> Result<()> {
        let source = self.addresses.iter().find(|own| own.is_ipv6() == destination.contains(':'));
        let source = source.map_or(String::new(), |source| format!("src {source}"));
        self.namespace
            .ip(&format!("route replace {destination} dev {} {source}", self.interface()))?;
        Ok(())
    }

    /// Pings through the tunnel until an answer comes.
    ///
    /// # Errors
    /// If none has come after 30 s.
    pub fn wait_connected(&self, destination: IpAddr) -> Result<()> {
        until("an answer through the tunnel", Duration::from_secs(30), || {
            self.ping(destination, 1).map(|_| ())
        })
    }

    /// Sends `count` pings through the tunnel; an error if any stays without an answer.
    ///
    /// # Errors
    /// If `ping` fails.
    pub fn ping(&self, destination: IpAddr, count: u32) -> Result<String> {
        self.namespace.run(&format!(
            "ping -n -q -I {} -c {count} -i 0.02 -W 2 {destination}",
            self.interface()
        ))
    }

    /// Its inner address of the same family as `like`.
    ///
    /// # Errors
    /// If the configuration had none.
    pub fn address(&self, like: IpAddr) -> Result<IpAddr> {
        let found = self.addresses.iter().find(|own| own.is_ipv6() == like.is_ipv6());
        found.copied().context("the configuration has no address of this family")
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        self.wireguard.interface()
    }

    /// Where it runs.
    #[must_use]
    pub fn namespace(&self) -> &'a Namespace {
        self.namespace
    }

    /// What it counted.
    ///
    /// # Errors
    /// If `wg` fails.
    pub fn transfer(&self) -> Result<Transfer> {
        let text = self.namespace.run(&format!("wg show {} transfer", self.interface()))?;
        let mut numbers = text.split_whitespace().skip(1);
        let mut next = || -> Result<u64> { Ok(numbers.next().context("no transfer")?.parse()?) };
        Ok(Transfer { received: next()?, sent: next()? })
    }

    /// When it last completed a handshake, in seconds since 1970; 0 is never.
    ///
    /// # Errors
    /// If `wg` fails.
    pub fn last_handshake(&self) -> Result<u64> {
        let text =
            self.namespace.run(&format!("wg show {} latest-handshakes", self.interface()))?;
        Ok(text.split_whitespace().nth(1).context("no handshake time")?.parse()?)
    }
}

/// Starts wireguard-go with an interface of its own.
///
/// # Errors
/// If it does not start.
pub(crate) fn wireguard_go(namespace: &Namespace) -> Result<WireguardProcess> {
    let interface = sweep::interface(COUNT.fetch_add(1, Ordering::Relaxed));
    WireguardProcess::start(Implementation::WireguardGo, namespace, &[], interface)
}

fn bare(address: &str) -> Result<IpAddr> {
    let text = address.split('/').next().unwrap_or_default();
    text.parse().with_context(|| format!("no address: {address}"))
}
