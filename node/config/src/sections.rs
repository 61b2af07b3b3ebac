//! Every key of the configuration, with its default and its meaning.
//!
//! The `///` lines of a key are what `weir config default` prints above it.

mod derived;
mod purchase;
mod registry;
mod text;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use alloy_primitives::{Address, address};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    kinds::{
        Auto, EgressMode, GuardMode, HostPort, IoMode, IpType, ListenAddr, LogFormat, LogLevel,
        ReceiveMode, SandboxMode, Wei,
    },
    limits::Limits,
};
use crate::{PortRange, PortRule, Protocol};

pub use self::{
    derived::{DNS_PORT, Service},
    purchase::Purchase,
    registry::Registry,
    text::text,
};

sections! {
    /// Everything that can be set.
    Config {
        /// The node itself.
        node: Node,
        /// The inside of the tunnel.
        tunnel: Tunnel,
        /// How consumers' flows share the node's addresses and ports.
        nat: Nat,
        /// What consumers may reach.
        policy: Policy,
        /// Rate limits and quotas.
        limits: Limits,
        /// How names are resolved for consumers.
        dns: Dns,
        /// Usage records: what is recorded, and where it is delivered.
        ledger: Ledger,
        /// A payment layer for many nodes.
        fleet: Fleet,
        /// How consumers pay as they go.
        payment: Payment,
        /// Ecash, with which consumers pay in advance.
        cashu: Cashu,
        /// Vouchers and the page for consumers.
        voucher: Voucher,
        /// A registry of many nodes' listings, for `weir registry run`.
        registry: Registry,
        /// How consumers find the node.
        market: Market,
        /// Where strangers buy sessions.
        purchase: Purchase,
        /// How the operator and other programs see the node.
        api: Api,
        /// What the node writes about itself.
        log: Log,
    }
}

section! {
    /// The node itself: uplink, port, keys and machine resources.
    Node {
        /// The network interface to the internet and the consumers.
        /// "auto" is the interface of the default route (IPv4, else IPv6); consumers' IPv6 leaves
        /// through that of the IPv6 default route. Without a default route, weir waits for one.
        uplink: Auto<String> = Auto::Auto;
        /// The UDP port on which consumers reach the node. 1 to 65535.
        listen_port: u16 = 51820;
        /// The "host:port" in consumers' configurations. An IPv6 address goes in brackets.
        /// "auto" is the uplink's current address with listen_port. Set this if the machine is
        /// behind NAT or has a DNS name.
        endpoint: Auto<HostPort> = Auto::Auto;
        /// The file with the node's private key, in base64 as `wg genkey` prints it. Created at the
        /// first start, readable only by its owner. Anyone who has it can impersonate this node.
        private_key_file: PathBuf = "/var/lib/weir/private.key".into();
        /// The directory for what must survive a reboot: sessions and the ledger.
        state_dir: PathBuf = "/var/lib/weir".into();
        /// The directory for what need not survive a reboot: the lock and the list of changes made
        /// on this machine.
        runtime_dir: PathBuf = "/run/weir".into();
        /// The maximum number of sessions. 1 to 1048576.
        /// Each takes a few hundred bytes, even while unused.
        max_sessions: u32 = 4096;
        /// The number of worker threads, each pinned to its own core. 1 to 256.
        /// "auto" is one per core that the process may use.
        workers: Auto<u16> = Auto::Auto;
        /// The cores of the workers, by number, for example [2, 3]. Empty: weir chooses them.
        cores: Vec<u16> = Vec::new();
        /// Cores that help the workers to encrypt and decrypt, by number, for example [4, 5]: for a
        /// session that needs more than one core carries. Only long runs of packets are shared. At
        /// most 64. Empty: no helpers.
        cipher_cores: Vec<u16> = Vec::new();
        /// The guard in the kernel in front of the port (XDP attach mode).
        /// "auto": native (in the driver), else generic, else none with a warning.
        /// "native" or "generic": that mode, else none with a warning. "off": no guard.
        /// "required": native or generic, else the node does not start.
        xdp: GuardMode = GuardMode::Auto;
        /// The workers' I/O interface. "auto": io_uring, or plain system calls where io_uring is
        /// not allowed. "uring" or "syscall": that one, or the node does not start.
        /// "uring-single": io_uring without multishot reads, as on kernels before 6.7.
        io: IoMode = IoMode::Auto;
        /// Whether to send several datagrams to one consumer as one batch that the kernel or the
        /// network card segments (UDP GSO). false sends each datagram alone and uses more CPU: for
        /// Linux 7.0 to 7.1.4 and network cards that segment wrongly, seen as packet loss.
        udp_segmentation: bool = true;
        /// How consumers' data reaches the workers. "auto": over AF_XDP where the guard runs in the
        /// driver, else through UDP sockets. "af_xdp": from the guard past the kernel's network
        /// stack, or the node does not start. "sockets": through the stack, where this machine's
        /// firewall and tcpdump see it.
        receive: ReceiveMode = ReceiveMode::Auto;
        /// Whether the network card receives frames into the node's own memory and sends them from
        /// there, where its driver supports that (AF_XDP zero-copy) and consumers' packets can leave
        /// past the kernel's network stack. false: the kernel copies them. For drivers whose
        /// zero-copy mode is faulty.
        zero_copy: bool = true;
        /// Whether the uplink's interrupts are put off where consumers' packets leave past the
        /// kernel's network stack: what follows within 200 us of another frame may wait so long,
        /// also for other programs, and many packets then cost one interrupt. For nodes with many
        /// consumers, whose network card has room for what comes in that time (`ethtool -g`; 1024
        /// frames or more). Where it has not, bursts lose packets.
        defer_interrupts: bool = false;
        /// How consumers' packets leave. "auto": by the node's own NAT, past the kernel's network
        /// stack, where the uplink allows it, else through the kernel. "bypass": by the node's own
        /// NAT, or the node does not start. "kernel": through the kernel's forwarding and nftables,
        /// where this machine's firewall and tcpdump see them.
        egress: EgressMode = EgressMode::Auto;
        /// The uplink's addresses that consumers leave by, for example ["198.51.100.7",
        /// "198.51.100.8"]; a session keeps one of each family. At most 256. Empty: the uplink's
        /// first of each family. Not with egress = "kernel", where the kernel chooses.
        addresses: Vec<IpAddr> = Vec::new();
        /// An IPv6 network that is routed to this machine, for example "2001:db8:7::/64": each
        /// session has an address of its own in it. Empty: sessions share the uplink's address.
        /// Not with egress = "kernel".
        prefix_v6: Option<Ipv6Net> = None;
        /// Whether the node drops what it no longer needs after its start: capabilities, new
        /// privileges, access to files (Landlock) and system calls (seccomp). "auto": as far as the
        /// kernel supports it. "off": nothing. "required": all, or the node does not start.
        sandbox: SandboxMode = SandboxMode::Auto;
        /// The limit of handshakes per second from one source (an IPv4 address or an IPv6 /64).
        /// More are dropped. 1 to 1000000.
        handshakes_per_source: u32 = 20;
        /// The burst of handshakes that one source may send above that limit. 1 to 1000000.
        handshakes_per_source_burst: u32 = 5;
        /// Handshakes per second from all sources together above which the node is under load: a
        /// source must then prove its address with a cookie. 1 to 10000000.
        handshakes_under_load: u32 = 1000;
        /// Handshakes per second from all sources together that the guard passes on each receiving
        /// core. Applied separately to handshakes with and without a cookie. It bounds the cost of
        /// a flood with forged sources. 1 to 10000000.
        handshakes_per_core: u32 = 25_000;
    }
}

section! {
    /// The inside of the tunnel: consumers' addresses and configurations.
    Tunnel {
        /// The name of the TUN device through which consumers' packets reach the kernel.
        interface: String = "weir0".into();
        /// The IPv4 network of the consumers; its first address is the gateway (this node).
        /// Must have room for node.max_sessions, and must not be in use on this machine.
        pool_v4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 66, 0, 0), 16);
        /// The IPv6 network of the consumers; its first address is the gateway. A /64.
        pool_v6: Ipv6Net =
            Ipv6Net::new_assert(Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 0), 64);
        /// The MTU inside the tunnel, in bytes. 1280 to 65535, and at least 80 less than the
        /// uplink's MTU (60 if consumers reach the node only over IPv4).
        mtu: u32 = 1420;
        /// The DNS servers in consumers' configurations, for example ["9.9.9.9"].
        /// "auto" is the gateway, or public servers if dns.enabled is false.
        dns: Auto<Vec<IpAddr>> = Auto::Auto;
        /// PersistentKeepalive in consumers' configurations, in seconds. 0 to 65535; 0 is off.
        /// 25 keeps an idle consumer behind NAT reachable.
        keepalive: u16 = 0;
    }
}

section! {
    /// How consumers' flows share the node's addresses and ports, where the node does NAT itself
    /// (see node.egress). See docs/flows.md.
    Nat {
        /// The ports of the node's addresses that are reserved for consumers: "FIRST-LAST". The
        /// host cannot use them. Keep them outside the host's own range
        /// (`sysctl net.ipv4.ip_local_port_range`).
        ports: PortRange = PortRange { low: 4096, high: 32767 };
        /// The number of ports in a block. A session holds whole blocks, and the ledger has which
        /// and when. A power of two from 8 to 1024.
        block_ports: u16 = 32;
        /// The maximum number of blocks of one session at an address. 1 to 8192.
        session_blocks: u32 = 64;
        /// The size of the node's flow table. 1024 to 16777216. Each flow takes about 128 bytes.
        flows: u32 = 262_144;
        /// Whether a TCP connection that the node does not know, as after a restart, goes on
        /// where its port is still in a block of its session. false: it is reset.
        pick_up: bool = true;
    }
}

section! {
    /// What consumers may reach. Private, link-local, shared (CGNAT), metadata, multicast and
    /// reserved addresses, this machine and other consumers are always refused.
    Policy {
        /// Ports to refuse, for example ["25/tcp", "6881-6999", "53/udp"]; without a protocol, both
        /// TCP and UDP. 25 is mail between servers: a node that allows it soon lands on blocklists.
        /// Ports 465 and 587 (mail submission) carry no such risk.
        blocked_ports: Vec<PortRule> =
            vec![PortRule { protocol: Some(Protocol::Tcp), low: 25, high: 25 }];
        /// Files with more ports to refuse, one per line; # begins a comment. Like all files here,
        /// they are read again at a reload.
        blocked_port_files: Vec<PathBuf> = Vec::new();
        /// Networks to allow although they are in a refused range or in a list of blocked networks,
        /// for example ["192.168.7.0/24"].
        allow: Vec<IpNet> = Vec::new();
        /// Files with more networks and addresses to allow, one per line.
        allow_files: Vec<PathBuf> = Vec::new();
        /// Networks to refuse in addition, for example ["198.51.7.0/24", "2001:db8:7::/48"].
        block: Vec<IpNet> = Vec::new();
        /// Files with more networks and addresses to refuse, one per line. The cost per packet does
        /// not grow with the number of lines.
        block_files: Vec<PathBuf> = Vec::new();
    }
}

section! {
    /// The DNS forwarder for consumers, at the gateway's addresses inside the tunnel.
    Dns {
        /// Whether the forwarder runs.
        enabled: bool = true;
        /// The upstream servers, reached over the machine's own routes, for example ["9.9.9.9"].
        /// Empty: the machine's own servers (/etc/resolv.conf).
        upstreams: Vec<IpAddr> = Vec::new();
        /// Queries per second that each consumer may send; the burst is twice that. 1 to 100000.
        per_second: u32 = 50;
        /// The number of cached answers. 0 to 1048576.
        cache: u32 = 8192;
    }
}

section! {
    /// Usage records: what is recorded, and where it is delivered. See docs/payments.md.
    Ledger {
        /// Seconds between two usage records of an active session. 1 to 86400.
        record_seconds: u32 = 60;
        /// Seconds between two checkpoints of the counters to the disk. 1 to 60. A crash of weir
        /// loses nothing; a power failure loses the counts since the last checkpoint.
        checkpoint_seconds: u32 = 1;
        /// Days for which usage records are kept after their delivery to the configured webhook,
        /// usage file and fleet. 0 to 36500; 0 means forever. The last record of each session,
        /// which has its totals, is kept as long as the session.
        retain_days: u32 = 30;
        /// Days after which usage records are deleted even if they were not delivered.
        /// 0 to 36500; 0 means never. Not less than retain_days.
        retain_undelivered_days: u32 = 0;
        /// Days for which an ended session and its last record are kept in the ledger, and never
        /// shorter than retain_days and retain_undelivered_days keep that record. 0 to 36500; 0
        /// means forever.
        retain_sessions_days: u32 = 90;
        /// Days for which it is kept which session had which block of ports, after the session has
        /// given the block back. Only with this can an abuse notice be answered that names an
        /// address, a port and a time. 0 to 36500; 0 means forever.
        retain_blocks_days: u32 = 30;
        /// Seconds for which a session without credit stays paused before it is closed.
        /// 0 to 31536000.
        grace_seconds: u32 = 300;
        /// The URL to which usage records are posted, "https://host/path" or
        /// "http://host:port/path". Empty: none.
        webhook: String = String::new();
        /// The file with the secret that signs those requests.
        webhook_secret_file: PathBuf = "/var/lib/weir/webhook.secret".into();
        /// The PEM file with the CA certificates for an https webhook.
        /// Empty: this machine's root certificates.
        webhook_ca_file: String = String::new();
        /// The file to which usage records are appended, one JSON object per line. Empty: none.
        usage_file: String = String::new();
        /// The size in MiB at which that file is rotated. 1 to 1048576.
        usage_file_mib: u32 = 64;
    }
}

section! {
    /// A payment layer for many nodes: usage records go to a NATS JetStream stream, and commands
    /// come as requests over the same connection. See docs/payments.md.
    Fleet {
        /// The server, "nats://host:4222" or "tls://host:4222"; separate the servers of a cluster
        /// with commas. Empty: none.
        url: String = String::new();
        /// This node's name in the fleet: letters, digits, "-" and "_". It must be unique.
        name: String = String::new();
        /// The prefix of the NATS subjects.
        subject: String = "weir".into();
        /// The JetStream stream. If it does not exist, the first node creates it on disk.
        stream: String = "WEIR".into();
        /// Whether the node accepts commands. Anyone who may publish to this node's subject can
        /// then do what the `weir` commands do.
        commands: bool = true;
        /// The file with the node's NATS credentials (.creds). Empty: none.
        credentials_file: String = String::new();
        /// The file with the token for the server. Empty: none.
        token_file: String = String::new();
        /// The PEM file with the CA certificates for the server.
        /// Empty: this machine's root certificates.
        ca_file: String = String::new();
    }
}

section! {
    /// Pay-as-you-go payments inside the tunnel, in the format of the Mysterium network.
    /// See docs/payments.md. Amounts are in wei (10^-18 of a token), in quotes.
    Payment {
        /// Whether prepaid sessions can pay at http://GATEWAY:PORT/v1/pay.
        enabled: bool = false;
        /// The TCP port, at the gateway's addresses inside the tunnel. 1 to 65535.
        port: u16 = 8077;
        /// The address on the chain that consumers pay: 0x and 40 hex digits.
        provider: Option<Address> = None;
        /// The chain on which promises are settled. 137 is Polygon. 1 to 4294967295.
        chain_id: u32 = 137;
        /// The hub through which promises are settled.
        hermes: Option<Address> = Some(address!("80ed28d84792d8b153bf2f25f0c4b7a1381de4ab"));
        /// The contract that creates the consumers' channels.
        registry: Option<Address> = Some(address!("87F0F4b7e0FAb14A565C87BAbbA6c40c92281b51"));
        /// The implementation contract of those channels.
        channel_implementation: Option<Address> =
            Some(address!("6b423D3885B4877b5760E149364f85f185f477aD"));
        /// The price of a GiB, up and down together.
        per_gib: Wei = Wei(100_000_000_000_000_000);
        /// The price of an hour.
        per_hour: Wei = Wei(60_000_000_000_000);
        /// The lowest price of a GiB that a consumer may offer. "auto" is per_gib.
        floor_per_gib: Auto<Wei> = Auto::Auto;
        /// The lowest price of an hour that a consumer may offer. "auto" is per_hour.
        floor_per_hour: Auto<Wei> = Auto::Auto;
        /// Free MiB of a new prepaid session. 0 to 1048576.
        free_mib: u32 = 0;
        /// MiB that a session may use ahead of payment, after its first payment. 1 to 1048576.
        unpaid_mib: u32 = 64;
        /// Seconds that a session may use ahead of payment, after its first payment. 1 to 86400.
        unpaid_seconds: u32 = 300;
        /// The URL of the service that approves promises before they are credited,
        /// "https://host/path" or "http://host:port/path". An answer of 200 to 299 within 5 seconds
        /// approves; anything else refuses. Empty: promises are credited without a check that
        /// their channels exist and have funds.
        approve_url: String = String::new();
        /// The PEM file with the CA certificates for an https URL.
        /// Empty: this machine's root certificates.
        approve_ca_file: String = String::new();
    }
}

section! {
    /// Ecash (Cashu): tokens that consumers give inside the tunnel, and that are locked to the node's
    /// key. See docs/payments.md. A mint is a custodian: it can refuse to exchange its tokens.
    Cashu {
        /// The mints whose tokens are taken, "https://host/path" or "http://host:port". Empty: none.
        mints: Vec<String> = Vec::new();
        /// The unit of the tokens.
        unit: String = "sat".into();
        /// The price of a GiB, up and down together, in that unit. 1 to 1000000000.
        gib_price: u32 = 100;
        /// The value of the tokens of each mint that are credited before the mint has exchanged them.
        /// Beyond it, a token is exchanged first. 0 to 1000000000; 0 means always first.
        max_unredeemed: u32 = 10_000;
        /// Seconds between two exchanges at the mints. 1 to 86400.
        redeem_seconds: u32 = 60;
        /// Days for which nobody but the node may be able to spend a token. 1 to 3650.
        lock_days: u32 = 7;
        /// The file with the key that tokens are locked to. Created at the first start that needs it.
        key_file: PathBuf = "/var/lib/weir/cashu.key".into();
        /// The PEM file with the CA certificates for the mints.
        /// Empty: this machine's root certificates.
        ca_file: String = String::new();
    }
}

section! {
    /// Vouchers (`weir voucher make`), and the page inside the tunnel where consumers see what is left
    /// and give a voucher or a token. See docs/payments.md.
    Voucher {
        /// Whether vouchers are taken inside the tunnel, at http://GATEWAY:PORT/v1/pay/voucher, where
        /// PORT is payment.port.
        enabled: bool = false;
        /// Whether the page is served at http://GATEWAY/, if the node takes vouchers or ecash.
        page: bool = true;
        /// The TCP port of the page, at the gateway's addresses inside the tunnel. 1 to 65535.
        page_port: u16 = 80;
    }
}

section! {
    /// How consumers find the node: a signed listing at registries and Nostr relays. See
    /// docs/market.md. Unless this is enabled, nothing about this node leaves the machine.
    Market {
        /// Whether the node publishes a listing.
        enabled: bool = false;
        /// The registries, "wss://host:port/path" or "ws://host:port/path". At most 16.
        registries: Vec<String> = Vec::new();
        /// Other Nostr relays that carry the listing, written in the same way. At most 16.
        relays: Vec<String> = Vec::new();
        /// The node's name for people. At most 80 characters. Empty: "weir exit", and the country.
        title: String = String::new();
        /// The two letters of the country of the node's address, for example "DE". If one of
        /// place_files has the address, its country is listed instead.
        country: String = String::new();
        /// The kind of line: "residential", "cellular", "hosting", "business" or "unknown". If one
        /// of place_files has the address, its kind is listed instead.
        ip_type: IpType = IpType::Unknown;
        /// Databases of addresses that the operator supplies: MaxMind's format (.mmdb), or lines of
        /// "network,country,asn,type". What an earlier file says counts. weir fetches none. Empty:
        /// country and ip_type are listed as claimed.
        place_files: Vec<PathBuf> = Vec::new();
        /// The "host:port" pairs at which consumers reach the node, at most 4, for example
        /// ["exit.example.net:51820"]. Empty: node.endpoint, or the uplink's public address of each
        /// family with node.listen_port.
        endpoints: Vec<String> = Vec::new();
        /// The URL at which consumers buy a configuration with ecash, "https://host/path". Empty:
        /// that of purchase.listen, if it is on: the first of purchase.server_names with the port,
        /// and https if there is a certificate or a proxy.
        purchase_url: String = String::new();
        /// The file with the key that signs the listing. Created when it is first needed, readable
        /// only by its owner. Anyone who has it can change this node's listing.
        key_file: PathBuf = "/var/lib/weir/market.key".into();
        /// Bits of proof of work (NIP-13) in the listing, for registries that demand it. 0 to 24.
        proof_of_work: u16 = 0;
        /// The PEM file with the CA certificates for wss URLs.
        /// Empty: this machine's root certificates.
        ca_file: String = String::new();
    }
}

section! {
    /// Access for the operator, the payment layer and Prometheus.
    Api {
        /// The Unix socket of the `weir` commands.
        socket: PathBuf = "/run/weir/weir.sock".into();
        /// The group whose members may use that socket. Empty: only its owner.
        socket_group: String = String::new();
        /// The "address:port" for the API and the status page over HTTP, protected by the token, or
        /// "off". It is not encrypted: use a loopback address or an address in a private network.
        http: ListenAddr = ListenAddr::Off;
        /// The file with that token. Created at the first start that needs it, readable only by its
        /// owner. Anyone who has the token can do what the `weir` commands do.
        token_file: PathBuf = "/var/lib/weir/api.token".into();
        /// The directory of the socket for `wg show` and other programs that use WireGuard's
        /// userspace API: INTERFACE.sock. `wg` looks only in the default directory. Empty: none.
        wg_directory: String = "/var/run/wireguard".into();
        /// Whether that socket shows consumers' endpoints (address and port). A program that exports
        /// or logs its output would store them.
        wg_endpoints: bool = false;
        /// The "address:port" for Prometheus metrics, or "off".
        metrics: ListenAddr = ListenAddr::On(SocketAddr::from((Ipv4Addr::LOCALHOST, 9587)));
        /// Whether the metrics include series for each session, by its identifier. They show every
        /// reader of the metrics how much each consumer uses and when.
        per_session_metrics: bool = false;
        /// The maximum number of sessions with their own series. 0 to 1048576.
        per_session_metrics_max: u32 = 1000;
    }
}

section! {
    /// The node's log, on standard error (with systemd: the journal). It never contains consumers'
    /// addresses or destinations, at any level.
    Log {
        /// "error", "warn", "info" or "debug"; each includes those before it. The environment
        /// variable WEIR_LOG overrides it.
        level: LogLevel = LogLevel::Info;
        /// "text", or "json": one object per line, for programs.
        format: LogFormat = LogFormat::Text;
    }
}
