//! Every key of the configuration, with its default and its meaning.
//!
//! The `///` lines of a key are what `weir config default` prints above it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use alloy_primitives::{Address, address};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weir_common::AddressPlan;

use super::{
    kinds::{
        Auto, HostPort, IoWish, LogFormat, LogLevel, Metrics, ReceiveWish, SandboxWish, Wei,
        XdpWish,
    },
    limits::Limits,
    section::Section,
};
use crate::{PortRule, Protocol};

sections! {
    /// Everything that can be set.
    Config {
        /// The node itself.
        node: Node,
        /// The inside of the tunnel.
        tunnel: Tunnel,
        /// What consumers may reach.
        policy: Policy,
        /// How much passes.
        limits: Limits,
        /// How names are resolved for consumers.
        dns: Dns,
        /// What is written down of what consumers use, and who is told.
        ledger: Ledger,
        /// A payment layer for many nodes.
        fleet: Fleet,
        /// How consumers pay as they go.
        payment: Payment,
        /// How the operator and other programs see the node.
        api: Api,
        /// What the node writes about itself.
        log: Log,
    }
}

section! {
    /// The node itself: its uplink, its port, its keys and its share of the machine.
    Node {
        /// The network interface towards the internet and the consumers.
        /// "auto" takes that of the default route (IPv4, else IPv6), and consumers' IPv6 leaves by
        /// that of its own default route. A start without one waits for it.
        uplink: Auto<String> = Auto::Auto;
        /// The UDP port on which consumers reach the node. 1 to 65535.
        listen_port: u16 = 51820;
        /// The "host:port" that consumers are told. An IPv6 address goes in brackets.
        /// "auto" takes the uplink's own address, also when that changes, and the port above: set
        /// this when the machine is behind NAT, or has a name.
        endpoint: Auto<HostPort> = Auto::Auto;
        /// The node's private key, in base64 as `wg genkey` prints it. Made at the first start,
        /// readable by its owner alone. Whoever has it can pass for this node.
        private_key_file: PathBuf = "/var/lib/weir/private.key".into();
        /// What must survive a reboot: sessions and the ledger.
        state_dir: PathBuf = "/var/lib/weir".into();
        /// What need not survive a reboot: the lock, and the list of changes made on this machine.
        runtime_dir: PathBuf = "/run/weir".into();
        /// The most sessions that can exist at once. 1 to 1048576.
        /// Each takes a few hundred bytes, also while unused.
        max_sessions: u32 = 4096;
        /// How many threads move packets, each with a core of its own. 1 to 256.
        /// "auto" is one for each core that the process may use.
        workers: Auto<u16> = Auto::Auto;
        /// The cores to run them on, by number, for example [2, 3]. Empty: chosen by weir.
        cores: Vec<u16> = Vec::new();
        /// The guard in the kernel in front of the port (XDP).
        /// "auto": in the driver, else in the generic path, else none with a warning.
        /// "native" or "generic": that one, else none with a warning. "off": none.
        /// "required": in the driver or the generic path, else the node does not start.
        xdp: XdpWish = XdpWish::Auto;
        /// How workers talk to the kernel. "auto": io_uring, or plain system calls where io_uring
        /// is not allowed. "uring" or "syscall": that one, or the node does not start.
        /// "uring-single": io_uring as on kernels before 6.7, where each read is begun anew.
        io: IoWish = IoWish::Auto;
        /// Whether several datagrams to one consumer go to the kernel as one, which it or the network
        /// card cuts (UDP GSO). false sends each by itself and takes more CPU: for Linux 7.0 to 7.1.4
        /// and network cards that cut them wrongly, where consumers see many losses.
        udp_segmentation: bool = true;
        /// How consumers' data reaches the workers. "auto": straight from the guard (AF_XDP) where
        /// that is in the driver, else through the kernel's network stack. "direct": straight, or the
        /// node does not start. "sockets": through the stack, where this machine's own firewall and
        /// tcpdump see it.
        receive: ReceiveWish = ReceiveWish::Auto;
        /// Whether the node, once everything is prepared, gives up what it does not need:
        /// capabilities, new privileges, files (Landlock) and system calls (seccomp). "auto": as far
        /// as the kernel lets it. "off": not at all. "required": all, or the node does not start.
        sandbox: SandboxWish = SandboxWish::Auto;
        /// Handshakes per second from one source (an IPv4 address or an IPv6 /64) beyond which
        /// they are dropped. 1 to 1000000.
        handshakes_per_source: u32 = 20;
        /// Handshakes that one source may have at once before the limit above counts.
        /// 1 to 1000000.
        handshakes_per_source_burst: u32 = 5;
        /// Handshakes per second, of all sources together, beyond which a source must first prove
        /// with a cookie that it can receive at its address. 1 to 10000000.
        handshakes_under_load: u32 = 1000;
        /// Handshakes per second, of all sources together, that the guard lets through on each core
        /// that receives; so many again of those with a cookie. It bounds what a flood with forged
        /// sources can cost. 1 to 10000000.
        handshakes_per_core: u32 = 25_000;
    }
}

section! {
    /// The inside of the tunnel: the addresses that consumers get, and what they are told.
    Tunnel {
        /// The name of the network device through which consumers' packets reach the kernel.
        interface: String = "weir0".into();
        /// The IPv4 network of the consumers; its first address is the gateway (this node).
        /// Must have room for max_sessions, and not be in use elsewhere on this machine.
        pool_v4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 66, 0, 0), 16);
        /// The IPv6 network of the consumers; its first address is the gateway. A /64.
        pool_v6: Ipv6Net =
            Ipv6Net::new_assert(Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 0), 64);
        /// The largest IP packet inside the tunnel, in bytes. 1280 to 65535, and at least 80 less
        /// than the uplink's (60 when consumers reach the node by IPv4 alone).
        mtu: u32 = 1420;
        /// The DNS servers in the configuration that consumers get, for example ["9.9.9.9"].
        /// "auto" is the gateway, and public ones where dns.enabled is false.
        dns: Auto<Vec<IpAddr>> = Auto::Auto;
        /// Seconds between keepalives that consumers are told to send, 0 to 65535. 0 is none;
        /// 25 keeps a consumer behind NAT reachable while it is silent.
        keepalive: u16 = 0;
    }
}

section! {
    /// What consumers may reach. Private, link-local, shared (CGNAT), metadata, multicast and
    /// reserved addresses, this machine and other consumers are refused always.
    Policy {
        /// Ports that are refused, for example ["25/tcp", "6881-6999", "53/udp"]; without a protocol,
        /// of both. 25 is mail between servers: a node that lets it out is soon on every blocklist.
        /// Ports 465 and 587, for sending one's own mail, are no such risk.
        blocked_ports: Vec<PortRule> =
            vec![PortRule { protocol: Some(Protocol::Tcp), low: 25, high: 25 }];
        /// Files with more such ports, one a line; # begins a comment. Read again at a reload, as
        /// all files here.
        blocked_port_files: Vec<PathBuf> = Vec::new();
        /// Networks that are allowed though they are refused ranges, or in a list of refused
        /// ones, for example ["192.168.7.0/24"].
        allow: Vec<IpNet> = Vec::new();
        /// Files with more such networks and addresses, one a line.
        allow_files: Vec<PathBuf> = Vec::new();
        /// Networks that are refused besides, for example ["198.51.7.0/24", "2001:db8:7::/48"].
        block: Vec<IpNet> = Vec::new();
        /// Files with more such networks and addresses, one a line. Hundreds of thousands of
        /// lines cost a packet no more than a few.
        block_files: Vec<PathBuf> = Vec::new();
    }
}

section! {
    /// The DNS forwarder for consumers, at the gateway's addresses inside the tunnel.
    Dns {
        /// Whether there is one.
        enabled: bool = true;
        /// The servers that it asks, by the machine's own routes, for example ["9.9.9.9"].
        /// Empty: those of the machine (/etc/resolv.conf).
        upstreams: Vec<IpAddr> = Vec::new();
        /// Questions per second that a consumer may ask; twice as many at once. 1 to 100000.
        per_second: u32 = 50;
        /// How many answers are remembered. 0 to 1048576.
        cache: u32 = 8192;
    }
}

section! {
    /// What is written down of what consumers use, and who is told. docs/payments.md explains it.
    Ledger {
        /// Seconds between two usage records of a session that is used. 1 to 86400.
        record_seconds: u32 = 60;
        /// Seconds between two checkpoints of the counters to the disk. 1 to 60. A crash of weir
        /// loses nothing; a power cut loses what was counted since the last one.
        checkpoint_seconds: u32 = 1;
        /// Days for which usage records are kept once the webhook, the usage file and the fleet,
        /// as far as there are any, have them. 0 to 36500; 0 is for ever. The last record of each
        /// session, which says all that the others did, is kept as long as the session.
        retain_days: u32 = 30;
        /// Days after which usage records go also when one of those has not got them.
        /// 0 to 36500; 0 is never, else no fewer than retain_days.
        retain_undelivered_days: u32 = 0;
        /// Days for which a session is kept in the ledger after its end, with its last record,
        /// and never shorter than retain_days and retain_undelivered_days keep that record.
        /// 0 to 36500; 0 is for ever.
        retain_sessions_days: u32 = 90;
        /// Seconds for which a session without credit is kept, paused, before it is closed.
        /// 0 to 31536000.
        grace_seconds: u32 = 300;
        /// The URL to which usage records are pushed, "https://host/path" or
        /// "http://host:port/path". Empty: none.
        webhook: String = String::new();
        /// The file with the secret by which those pushes are signed.
        webhook_secret_file: PathBuf = "/var/lib/weir/webhook.secret".into();
        /// The file with the certificates, in PEM, that an https webhook's must be signed by.
        /// Empty: those of this machine.
        webhook_ca_file: String = String::new();
        /// The file to which usage records are appended, one JSON object a line. Empty: none.
        usage_file: String = String::new();
        /// How large that file grows, in MiB, before it is renamed away. 1 to 1048576.
        usage_file_mib: u32 = 64;
    }
}

section! {
    /// A payment layer for many nodes: usage records to a NATS JetStream stream, and commands as
    /// requests over the same connection. docs/payments.md explains it.
    Fleet {
        /// The server, "nats://host:4222" or "tls://host:4222"; several, with commas between them,
        /// are one cluster. Empty: none.
        url: String = String::new();
        /// This node's name there: letters, digits, "-" and "_". No other node may have it.
        name: String = String::new();
        /// What the subjects begin with.
        subject: String = "weir".into();
        /// The stream. The first node makes it, on the server's disk, if there is none.
        stream: String = "WEIR".into();
        /// Whether commands are taken. Who may publish to this node's subject there, can do what
        /// the `weir` commands do.
        commands: bool = true;
        /// The file with the node's NATS credentials (.creds). Empty: none.
        credentials_file: String = String::new();
        /// The file with a token for the server. Empty: none.
        token_file: String = String::new();
        /// The file with the certificates, in PEM, that the server's must be signed by.
        /// Empty: those of this machine.
        ca_file: String = String::new();
    }
}

section! {
    /// Payment as consumers go, inside the tunnel, in the format of the Mysterium network.
    /// docs/payments.md explains it. Amounts are in wei (10^-18 of a token), in quotes.
    Payment {
        /// Whether prepaid sessions can pay at http://GATEWAY:PORT/v1/pay.
        enabled: bool = false;
        /// The TCP port, at the gateway's addresses inside the tunnel. 1 to 65535.
        port: u16 = 8077;
        /// The node's identity on the chain, to which consumers pay: 0x and 40 hex digits.
        provider: Option<Address> = None;
        /// The chain on which promises are settled. 137 is Polygon. 1 to 4294967295.
        chain_id: u32 = 137;
        /// The hub through which promises are settled.
        hermes: Option<Address> = Some(address!("80ed28d84792d8b153bf2f25f0c4b7a1381de4ab"));
        /// The contract that makes the consumers' channels.
        registry: Option<Address> = Some(address!("87F0F4b7e0FAb14A565C87BAbbA6c40c92281b51"));
        /// The code of those channels.
        channel_implementation: Option<Address> =
            Some(address!("6b423D3885B4877b5760E149364f85f185f477aD"));
        /// What a GiB costs, up and down together.
        per_gib: Wei = Wei(100_000_000_000_000_000);
        /// What an hour costs.
        per_hour: Wei = Wei(60_000_000_000_000);
        /// The least per GiB that a consumer may offer. "auto" is the price.
        floor_per_gib: Auto<Wei> = Auto::Auto;
        /// The least per hour that a consumer may offer. "auto" is the price.
        floor_per_hour: Auto<Wei> = Auto::Auto;
        /// MiB that a new prepaid session may use for nothing. 0 to 1048576.
        free_mib: u32 = 0;
        /// MiB that may be used and not be paid yet, once anything was paid. 1 to 1048576.
        unpaid_mib: u32 = 64;
        /// Seconds that may be used and not be paid yet, once anything was paid. 1 to 86400.
        unpaid_seconds: u32 = 300;
        /// The URL that is asked before a promise is credited, "https://host/path" or
        /// "http://host:port/path": an answer of 200 to 299 within 5 seconds takes it, anything
        /// else sells nothing. Empty: promises are credited on trust, and whether their channels
        /// exist and have funds shows at their settlement.
        approve_url: String = String::new();
        /// The file with the certificates, in PEM, that an https URL's must be signed by.
        /// Empty: those of this machine.
        approve_ca_file: String = String::new();
    }
}

section! {
    /// How the operator, the payment layer and Prometheus see the node.
    Api {
        /// The Unix socket of the `weir` commands.
        socket: PathBuf = "/run/weir/weir.sock".into();
        /// The group whose members may use that socket. Empty: its owner alone.
        socket_group: String = String::new();
        /// "address:port" on which the API, and the page for browsers, are served over HTTP to
        /// those who have the token, or "off". It is not encrypted: use an address of this machine
        /// or of a private network.
        http: Metrics = Metrics::Off;
        /// The file with that token. Made at the first start that needs it, readable by its owner
        /// alone. Whoever has it can do what the `weir` commands do.
        token_file: PathBuf = "/var/lib/weir/api.token".into();
        /// The directory of the socket for `wg show` and other programs that speak WireGuard's
        /// userspace API, named after tunnel.interface. `wg` looks in this one alone. Empty: none.
        wg_directory: String = "/var/run/wireguard".into();
        /// Whether that socket says where consumers are (their address and port). Whoever exports
        /// or logs what it says would keep that.
        wg_endpoints: bool = false;
        /// "address:port" on which Prometheus gets the metrics, or "off".
        metrics: Metrics = Metrics::default();
        /// Whether the metrics also have series of each session, by its identifier. They say how
        /// much each consumer uses and when, to whoever reads the metrics.
        per_session_metrics: bool = false;
        /// The most sessions with series of their own; beyond, there are only sums. 0 to 1048576.
        per_session_metrics_max: u32 = 1000;
    }
}

section! {
    /// What the node writes about itself, to standard error (with systemd: the journal). Consumers'
    /// addresses and what they reach are not in it, at any level.
    Log {
        /// "error", "warn", "info" or "debug", each with those before it. The variable WEIR_LOG of
        /// the environment, if there is one, counts instead.
        level: LogLevel = LogLevel::Info;
        /// "text", or "json": one object a line, for programs.
        format: LogFormat = LogFormat::Text;
    }
}

impl Tunnel {
    /// The arithmetic of the addresses inside the tunnel.
    #[must_use]
    pub fn plan(&self) -> AddressPlan {
        let (v4, v6) = (self.pool_v4, self.pool_v6);
        AddressPlan::new(v4.network(), v4.prefix_len(), v6.network())
    }
}

/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// A port at the gateway's addresses that consumers reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// By this protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// What consumers are told where the node resolves no names itself.
const PUBLIC_DNS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe)),
];

impl Config {
    /// The node's own services, at the gateway's addresses inside the tunnel. The exit policy and
    /// `weir policy test` both are made from this list.
    #[must_use]
    pub fn services(&self) -> Vec<Service> {
        let pay = self.payment.enabled.then_some((Protocol::Tcp, self.payment.port));
        let dns = [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, DNS_PORT));
        let dns = self.dns.enabled.then_some(dns).into_iter().flatten();
        let all = pay.into_iter().chain(dns);
        all.map(|(protocol, port)| Service { protocol, port }).collect()
    }

    /// The DNS servers that consumers are told.
    #[must_use]
    pub fn dns_servers(&self) -> Vec<IpAddr> {
        let plan = self.tunnel.plan();
        match &self.tunnel.dns {
            Auto::Set(servers) => servers.clone(),
            Auto::Auto if self.dns.enabled => {
                vec![plan.gateway_v4().into(), plan.gateway_v6().into()]
            }
            Auto::Auto => PUBLIC_DNS.to_vec(),
        }
    }
}

impl Payment {
    /// The lowest price of a GiB that is taken, in wei.
    #[must_use]
    pub fn least_per_gib(&self) -> u128 {
        self.floor_per_gib.set().unwrap_or(&self.per_gib).0
    }

    /// The lowest price of an hour that is taken, in wei.
    #[must_use]
    pub fn least_per_hour(&self) -> u128 {
        self.floor_per_hour.set().unwrap_or(&self.per_hour).0
    }

    /// The bytes that a new prepaid session has for nothing.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        if self.enabled { u64::from(self.free_mib) << 20 } else { 0 }
    }
}

/// A configuration as a TOML file in which every key is explained.
#[must_use]
pub fn text(config: &Config) -> String {
    let mut text = String::from(
        "# The configuration of weir. Every key is here with its default: what is left out of a\n\
         # file keeps it. `weir config check FILE` names every mistake in one.\n",
    );
    for (name, section) in config.sections() {
        write_section(&mut text, name, section);
    }
    text
}

fn write_section(text: &mut String, name: &str, section: &dyn Section) {
    text.push('\n');
    write_comment(text, section.about());
    text.push_str(&format!("[{name}]\n"));
    for key in section.keys() {
        let (about, value) = section.describe(key);
        text.push('\n');
        write_comment(text, about);
        text.push_str(&format!("{key} = {value}\n"));
    }
}

fn write_comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        text.push_str(&format!("#{line}\n"));
    }
}
