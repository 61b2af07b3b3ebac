//! What values must be in themselves and to each other.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_common::Slot;

use super::{
    Config, OVERHEAD_V4, OVERHEAD_V6,
    kinds::{Auto, EgressMode, ListenAddr},
    limit::OutOfRange,
    mistake::Findings,
    sections::DNS_PORT,
    url::HttpUrl,
};

/// The smallest MTU that IPv6 allows.
const SMALLEST_MTU: u32 = 1280;

pub(super) fn apply(config: &Config, uplink_mtu: Option<u32>, findings: &mut Findings<'_>) {
    ranges(config, findings);
    names(config, findings);
    workers(config, findings);
    nat(config, findings);
    pools(config, findings);
    mtu(config, uplink_mtu, findings);
    policy(config, findings);
    limits(config, findings);
    ledger(config, findings);
    fleet(config, findings);
    dns(config, findings);
    payment(config, findings);
    paths(config, findings);
}

fn limits(config: &Config, findings: &mut Findings<'_>) {
    let limits = &config.limits;
    for OutOfRange { key, value, fix } in limits.out_of_range() {
        findings.blame(&[("limits", key)], format!("{value} is out of range"), fix);
    }
    if limits.sessions > config.node.max_sessions {
        findings.blame(
            &[("limits", "sessions"), ("node", "max_sessions")],
            format!("{} is more than node.max_sessions", limits.sessions),
            format!("write {} or less, or raise node.max_sessions", config.node.max_sessions),
        );
    }
}

fn ledger(config: &Config, findings: &mut Findings<'_>) {
    let ledger = &config.ledger;
    if !ledger.webhook.is_empty()
        && let Err(error) = ledger.webhook.parse::<HttpUrl>()
    {
        findings.blame(
            &[("ledger", "webhook")],
            error.to_string(),
            "write for example \"https://example.net/usage\", or \"\" for none".into(),
        );
    }
    let (delivered, undelivered) = (ledger.retain_days, ledger.retain_undelivered_days);
    if undelivered != 0 && (delivered == 0 || undelivered < delivered) {
        findings.blame(
            &[("ledger", "retain_undelivered_days"), ("ledger", "retain_days")],
            format!(
                "{undelivered} is less than ledger.retain_days, which keeps what was delivered"
            ),
            "write a larger number, or 0 for never".into(),
        );
    }
    if !ledger.usage_file.is_empty() && !ledger.usage_file.starts_with('/') {
        findings.blame(
            &[("ledger", "usage_file")],
            format!("{:?} is not an absolute path", ledger.usage_file),
            "write a path that begins with /, or \"\" for none".into(),
        );
    }
}

fn payment(config: &Config, findings: &mut Findings<'_>) {
    let payment = &config.payment;
    if !payment.enabled {
        return;
    }
    for (key, address) in [
        ("provider", payment.provider),
        ("hermes", payment.hermes),
        ("registry", payment.registry),
        ("channel_implementation", payment.channel_implementation),
    ] {
        if address.is_none_or(|address| address.is_zero()) {
            findings.blame(
                &[("payment", key), ("payment", "enabled")],
                "payments need it".into(),
                "write an address on the chain (0x and 40 hex digits), or enabled = false".into(),
            );
        }
    }
    if !payment.approve_url.is_empty()
        && let Err(error) = payment.approve_url.parse::<HttpUrl>()
    {
        findings.blame(
            &[("payment", "approve_url")],
            error.to_string(),
            "write for example \"https://example.net/approve\", or \"\" for none".into(),
        );
    }
    if config.dns.enabled && payment.port == DNS_PORT {
        findings.blame(
            &[("payment", "port")],
            "53 is the port of the DNS forwarder".into(),
            "write another port, such as 8077, or set dns.enabled = false".into(),
        );
    }
    let floors = [payment.least_per_gib(), payment.least_per_hour()];
    for (key, floor_key, price, floor) in [
        ("per_gib", "floor_per_gib", payment.per_gib.0, floors[0]),
        ("per_hour", "floor_per_hour", payment.per_hour.0, floors[1]),
    ] {
        if floor > price {
            findings.blame(
                &[("payment", floor_key), ("payment", key)],
                format!("\"{floor}\" is above payment.{key}, which is \"{price}\""),
                "write \"auto\" for the price itself, or less than that".into(),
            );
        }
    }
    if floors == [0, 0] {
        findings.blame(
            &[
                ("payment", "floor_per_gib"),
                ("payment", "floor_per_hour"),
                ("payment", "per_gib"),
                ("payment", "per_hour"),
            ],
            "consumers could offer to pay nothing".into(),
            "write a price for a GiB or an hour, or enabled = false".into(),
        );
    }
}

fn fleet(config: &Config, findings: &mut Findings<'_>) {
    let fleet = &config.fleet;
    if fleet.url.is_empty() {
        return;
    }
    let is_server = |url: &str| {
        let host = url.trim().strip_prefix("nats://").or(url.trim().strip_prefix("tls://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ']))
    };
    if !fleet.url.split(',').all(is_server) {
        findings.blame(
            &[("fleet", "url")],
            format!("{:?} is not the address of a NATS server", fleet.url),
            "write for example \"nats://10.0.0.7:4222\", or \"\" for none".into(),
        );
    }
    let is_word = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=64).contains(&text.len()) && text.bytes().all(plain)
    };
    for (key, text) in [("name", &fleet.name), ("stream", &fleet.stream)] {
        if !is_word(text) {
            findings.blame(
                &[("fleet", key), ("fleet", "url")],
                format!("{text:?} is not a valid node name for the fleet"),
                "write 1 to 64 letters, digits, \"-\" or \"_\", such as \"exit-7\"".into(),
            );
        }
    }
    if !fleet.subject.split('.').all(is_word) {
        findings.blame(
            &[("fleet", "subject")],
            format!("{:?} is not a valid subject prefix", fleet.subject),
            "write words with dots between them, such as \"weir\"".into(),
        );
    }
    for (key, path) in [
        ("credentials_file", &fleet.credentials_file),
        ("token_file", &fleet.token_file),
        ("ca_file", &fleet.ca_file),
    ] {
        if !path.is_empty() && !path.starts_with('/') {
            findings.blame(
                &[("fleet", key)],
                format!("{path:?} is not an absolute path"),
                "write a path that begins with /, or \"\" for none".into(),
            );
        }
    }
}

fn ranges(config: &Config, findings: &mut Findings<'_>) {
    let node = &config.node;
    let workers = node.workers.set().copied().unwrap_or(1);
    for (section, key, value, low, high) in [
        ("node", "listen_port", u32::from(node.listen_port), 1, 65535),
        ("node", "max_sessions", node.max_sessions, 1, Slot::MAX_COUNT),
        ("node", "workers", workers.into(), 1, 256),
        ("node", "handshakes_per_source", node.handshakes_per_source, 1, 1_000_000),
        ("node", "handshakes_per_source_burst", node.handshakes_per_source_burst, 1, 1_000_000),
        ("node", "handshakes_under_load", node.handshakes_under_load, 1, 10_000_000),
        ("node", "handshakes_per_core", node.handshakes_per_core, 1, 10_000_000),
        ("nat", "session_blocks", config.nat.session_blocks, 1, 8192),
        ("nat", "flows", config.nat.flows, 1024, 1 << 24),
        ("tunnel", "mtu", config.tunnel.mtu, SMALLEST_MTU, 65535),
        ("dns", "per_second", config.dns.per_second, 1, 100_000),
        ("dns", "cache", config.dns.cache, 0, 1 << 20),
        ("ledger", "record_seconds", config.ledger.record_seconds, 1, 86_400),
        ("ledger", "checkpoint_seconds", config.ledger.checkpoint_seconds, 1, 60),
        ("ledger", "retain_days", config.ledger.retain_days, 0, 36_500),
        ("ledger", "retain_undelivered_days", config.ledger.retain_undelivered_days, 0, 36_500),
        ("ledger", "retain_sessions_days", config.ledger.retain_sessions_days, 0, 36_500),
        ("ledger", "retain_blocks_days", config.ledger.retain_blocks_days, 0, 36_500),
        ("ledger", "grace_seconds", config.ledger.grace_seconds, 0, 31_536_000),
        ("ledger", "usage_file_mib", config.ledger.usage_file_mib, 1, 1 << 20),
        ("payment", "port", config.payment.port.into(), 1, 65535),
        ("payment", "chain_id", config.payment.chain_id, 1, u32::MAX),
        ("payment", "free_mib", config.payment.free_mib, 0, 1 << 20),
        ("payment", "unpaid_mib", config.payment.unpaid_mib, 1, 1 << 20),
        ("payment", "unpaid_seconds", config.payment.unpaid_seconds, 1, 86_400),
        ("api", "per_session_metrics_max", config.api.per_session_metrics_max, 0, Slot::MAX_COUNT),
    ] {
        if !(low..=high).contains(&value) {
            findings.blame(
                &[(section, key)],
                format!("{value} is out of range"),
                format!("write a number from {low} to {high}"),
            );
        }
    }
    for (key, listen) in [("metrics", config.api.metrics), ("http", config.api.http)] {
        if let ListenAddr::On(address) = listen
            && address.port() == 0
        {
            findings.blame(
                &[("api", key)],
                format!("{address} has no port"),
                "write a port from 1 to 65535 after the address, or \"off\"".into(),
            );
        }
    }
    if config.api.http == config.api.metrics && config.api.http != ListenAddr::Off {
        findings.blame(
            &[("api", "http"), ("api", "metrics")],
            "it is also api.metrics".into(),
            "write another port for one of the two".into(),
        );
    }
}

/// Whether the kernel takes it for an interface's name, and nftables and /proc do without quoting.
fn is_interface_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=15).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with(['-', '.'])
        && !["all", "default", "lo"].contains(&name)
}

fn names(config: &Config, findings: &mut Findings<'_>) {
    let rule = "write 1 to 15 letters, digits, \"_\", \"-\" or \".\", such as";
    let interface = &config.tunnel.interface;
    if !is_interface_name(interface) {
        findings.blame(
            &[("tunnel", "interface")],
            format!("{interface:?} is not a valid interface name"),
            format!("{rule} \"weir0\""),
        );
    }
    if let Auto::Set(uplink) = &config.node.uplink {
        if !is_interface_name(uplink) {
            findings.blame(
                &[("node", "uplink")],
                format!("{uplink:?} is not a valid interface name"),
                format!("{rule} \"eth0\"; `ip link` lists the interfaces; or write \"auto\""),
            );
        } else if uplink == interface {
            findings.blame(
                &[("node", "uplink"), ("tunnel", "interface")],
                format!("{uplink:?} is also tunnel.interface, which weir creates itself"),
                "name the interface towards the internet, or write \"auto\"".into(),
            );
        }
    }
    let group = &config.api.socket_group;
    if group.bytes().any(|byte| byte.is_ascii_control() || b":/ ".contains(&byte)) {
        findings.blame(
            &[("api", "socket_group")],
            format!("{group:?} is not a valid group name"),
            "write the name of a group in /etc/group, or \"\" for none".into(),
        );
    }
}

fn workers(config: &Config, findings: &mut Findings<'_>) {
    let (cores, workers) = (&config.node.cores, &config.node.workers);
    let mut seen = Vec::new();
    for core in cores {
        if seen.contains(core) {
            findings.blame(
                &[("node", "cores")],
                format!("core {core} is listed twice"),
                "name each core once: a core serves one worker".into(),
            );
            return;
        }
        seen.push(*core);
    }
    if let Auto::Set(workers) = workers
        && !cores.is_empty()
        && usize::from(*workers) != cores.len()
    {
        findings.blame(
            &[("node", "workers"), ("node", "cores")],
            format!("{workers} workers contradict node.cores, which names {} cores", cores.len()),
            format!("write workers = {}, or \"auto\"", cores.len()),
        );
    }
}

/// The sizes that a block of ports can have.
const BLOCK_PORTS: std::ops::RangeInclusive<u16> = 8..=1024;

/// How many external addresses there can be: the packet path numbers them in a byte.
const MAX_ADDRESSES: usize = 256;

fn nat(config: &Config, findings: &mut Findings<'_>) {
    let (node, nat) = (&config.node, &config.nat);
    let (ports, block) = (nat.ports, nat.block_ports);
    if !block.is_power_of_two() || !BLOCK_PORTS.contains(&block) {
        findings.blame(
            &[("nat", "block_ports")],
            format!("{block} is not a power of two from 8 to 1024"),
            "write 8, 16, 32, 64, 128, 256, 512 or 1024".into(),
        );
    } else if ports.blocks(block) == 0 {
        findings.blame(
            &[("nat", "ports"), ("nat", "block_ports")],
            format!(
                "{ports} has no whole block: a block is {block} ports from a multiple of {block}"
            ),
            "write a larger range, such as \"4096-32767\"".into(),
        );
    }
    // Through the kernel, nothing is reserved.
    if node.egress != EgressMode::Kernel && ports.contains(node.listen_port) {
        findings.blame(
            &[("nat", "ports"), ("node", "listen_port")],
            format!("{ports} includes node.listen_port, which is {}", node.listen_port),
            format!(
                "write a range without {0}, or another listen_port, such as 51820; consumers' \
                 configurations name that port",
                node.listen_port
            ),
        );
    }
    external_addresses(config, findings);
    prefix_v6(config, findings);
}

fn external_addresses(config: &Config, findings: &mut Findings<'_>) {
    let key = &[("node", "addresses")];
    let addresses = &config.node.addresses;
    if addresses.len() > MAX_ADDRESSES {
        findings.blame(
            key,
            format!("there are {} addresses", addresses.len()),
            format!("name {MAX_ADDRESSES} or fewer"),
        );
    }
    for (at, address) in addresses.iter().enumerate() {
        let is_external = match address {
            IpAddr::V4(v4) => {
                !(v4.is_unspecified()
                    || v4.is_loopback()
                    || v4.is_multicast()
                    || v4.is_broadcast()
                    || v4.is_link_local())
            }
            IpAddr::V6(v6) => {
                !(v6.is_unspecified()
                    || v6.is_loopback()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
                    || v6.to_ipv4_mapped().is_some())
            }
        };
        if !is_external {
            findings.blame(
                key,
                format!("{address} cannot be an address of the uplink that consumers leave by"),
                "name addresses of the uplink, or write [] for its first of each family".into(),
            );
        } else if addresses[..at].contains(address) {
            findings.blame(
                key,
                format!("{address} is listed twice"),
                "name each address once".into(),
            );
        }
    }
}

fn prefix_v6(config: &Config, findings: &mut Findings<'_>) {
    let Some(prefix) = config.node.prefix_v6 else { return };
    let key = ("node", "prefix_v6");
    let network = IpNet::V6(prefix.trunc());
    let room = 1u128.checked_shl(128 - u32::from(prefix.prefix_len()));
    let wanted = u128::from(config.node.max_sessions);
    if prefix != prefix.trunc() {
        findings.blame(
            &[key],
            format!("{prefix} is an address within a network"),
            format!("write the network: \"{network}\""),
        );
    } else if let Some(unfit) = NO_POOL_V6
        .iter()
        .find(|unfit| unfit.parse::<IpNet>().is_ok_and(|unfit| overlap(&network, &unfit)))
    {
        findings.blame(
            &[key],
            format!("{prefix} overlaps {unfit}, which is not routed on the internet"),
            "write the network that your provider routes to this machine, or \"\"".into(),
        );
    } else if overlap(&network, &IpNet::V6(config.tunnel.pool_v6.trunc())) {
        findings.blame(
            &[key, ("tunnel", "pool_v6")],
            format!("{prefix} overlaps tunnel.pool_v6, the consumers' inner addresses"),
            "write the network that your provider routes to this machine, or \"\"".into(),
        );
    // Its first address is nobody's (RFC 4291, section 2.6.1).
    } else if room.is_some_and(|room| room <= wanted) {
        let bits = 128 - (wanted + 1).next_power_of_two().trailing_zeros();
        findings.blame(
            &[key, ("node", "max_sessions")],
            format!("{prefix} has no room for node.max_sessions, which is {wanted}"),
            format!("write a /{bits} or larger, or lower max_sessions"),
        );
    }
}

/// Networks that cannot be a pool of addresses, whatever the machine.
const NO_POOL_V4: &[&str] =
    &["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"];
const NO_POOL_V6: &[&str] = &["::/16", "fe80::/10", "ff00::/8"];

/// Whether two networks share an address.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn pools(config: &Config, findings: &mut Findings<'_>) {
    let tunnel = &config.tunnel;
    let v4 = IpNet::V4(tunnel.pool_v4.trunc());
    let v6 = IpNet::V6(tunnel.pool_v6.trunc());
    for (key, written, pool) in
        [("pool_v4", IpNet::V4(tunnel.pool_v4), v4), ("pool_v6", IpNet::V6(tunnel.pool_v6), v6)]
    {
        if written != pool {
            findings.blame(
                &[("tunnel", key)],
                format!("{written} is an address within a network"),
                format!("write the network: \"{pool}\""),
            );
            continue;
        }
        let unfit = NO_POOL_V4
            .iter()
            .chain(NO_POOL_V6)
            .find(|unfit| unfit.parse::<IpNet>().is_ok_and(|unfit| overlap(&pool, &unfit)));
        if let Some(unfit) = unfit {
            findings.blame(
                &[("tunnel", key)],
                format!("{pool} overlaps {unfit}, which cannot be assigned to consumers"),
                match pool {
                    IpNet::V4(_) => "choose a private network, such as \"10.66.0.0/16\"".into(),
                    IpNet::V6(_) => "choose a local one, such as \"fd66:7765:6972::/64\"".into(),
                },
            );
        }
    }
    let (wanted, room) = (config.node.max_sessions, tunnel.plan().capacity());
    if wanted > room && wanted <= Slot::MAX_COUNT {
        let prefix = 32 - u64::from(wanted + 3).next_power_of_two().trailing_zeros();
        findings.blame(
            &[("tunnel", "pool_v4"), ("node", "max_sessions")],
            format!("{v4} has room for {room} sessions, but node.max_sessions is {wanted}"),
            format!("write a /{prefix} or larger, or set max_sessions = {room} or less"),
        );
    }
    if tunnel.pool_v6.prefix_len() != 64 {
        findings.blame(
            &[("tunnel", "pool_v6")],
            format!("/{} is not a /64", tunnel.pool_v6.prefix_len()),
            format!("write a network of length 64, such as \"{}/64\"", v6.network()),
        );
    }
    let plan = tunnel.plan();
    let gateways = [IpAddr::V4(plan.gateway_v4()), IpAddr::V6(plan.gateway_v6())];
    for server in tunnel.dns.set().into_iter().flatten() {
        if config.dns.enabled && gateways.contains(server) {
            continue;
        }
        if [v4, v6].iter().any(|pool| pool.contains(server)) {
            findings.blame(
                &[("tunnel", "dns"), ("tunnel", "pool_v4"), ("tunnel", "pool_v6")],
                format!("{server} is within the consumers' pool, which has no DNS server"),
                "name a server on the internet".into(),
            );
        } else if server.is_unspecified() || server.is_loopback() || server.is_multicast() {
            findings.blame(
                &[("tunnel", "dns")],
                format!("consumers cannot reach a server at {server}"),
                "name a server on the internet".into(),
            );
        }
    }
}

fn dns(config: &Config, findings: &mut Findings<'_>) {
    let tunnel = &config.tunnel;
    let pools = [IpNet::V4(tunnel.pool_v4), IpNet::V6(tunnel.pool_v6)];
    for server in &config.dns.upstreams {
        if server.is_unspecified()
            || server.is_multicast()
            || pools.iter().any(|pool| pool.contains(server))
        {
            findings.blame(
                &[("dns", "upstreams"), ("tunnel", "pool_v4"), ("tunnel", "pool_v6")],
                format!("this machine cannot query a server at {server}"),
                "name a DNS server, or write [] for the machine's own".into(),
            );
        }
    }
}

fn mtu(config: &Config, uplink_mtu: Option<u32>, findings: &mut Findings<'_>) {
    let Some(uplink_mtu) = uplink_mtu else { return };
    if let Some((problem, fix)) = misfit(config, uplink_mtu) {
        findings.blame(&[("tunnel", "mtu")], problem, fix);
    }
}

/// Why the tunnel's MTU does not fit an uplink, and what to write instead.
pub fn misfit(config: &Config, uplink_mtu: u32) -> Option<(String, String)> {
    let by_v4_alone = config
        .node
        .endpoint
        .set()
        .is_some_and(|endpoint| matches!(endpoint.host.parse(), Ok(IpAddr::V4(_))));
    let (overhead, family) =
        if by_v4_alone { (OVERHEAD_V4, "IPv4") } else { (OVERHEAD_V6, "IPv6") };
    let largest = uplink_mtu.saturating_sub(overhead);
    if config.tunnel.mtu <= largest {
        return None;
    }
    let problem = format!(
        "{} does not fit the uplink, whose MTU is {uplink_mtu}: the tunnel adds {overhead} bytes \
         over {family}",
        config.tunnel.mtu
    );
    let fix = if largest < SMALLEST_MTU {
        format!(
            "raise the uplink's MTU to {} or more; the tunnel cannot have less than {SMALLEST_MTU}",
            SMALLEST_MTU + overhead
        )
    } else {
        format!("write mtu = {largest}, the largest that fits")
    };
    Some((problem, fix))
}

fn policy(config: &Config, findings: &mut Findings<'_>) {
    let policy = &config.policy;
    let pools = [IpNet::V4(config.tunnel.pool_v4), IpNet::V6(config.tunnel.pool_v6)];
    for network in &policy.allow {
        if network.prefix_len() == 0 {
            findings.blame(
                &[("policy", "allow")],
                format!(
                    "{network} would allow every address, including the provider's own network"
                ),
                "name the networks that consumers are to reach".into(),
            );
        } else if let Some(pool) = pools.iter().find(|pool| overlap(network, pool)) {
            findings.blame(
                &[("policy", "allow"), ("tunnel", "pool_v4"), ("tunnel", "pool_v6")],
                format!("{network} overlaps the pool {pool}: consumers never reach each other"),
                "remove it, or choose another pool".into(),
            );
        }
    }
}

fn paths(config: &Config, findings: &mut Findings<'_>) {
    let node = &config.node;
    if node.runtime_dir == node.state_dir {
        findings.blame(
            &[("node", "runtime_dir"), ("node", "state_dir")],
            format!("{} is also node.state_dir", node.runtime_dir.display()),
            "use two directories: runtime_dir may be lost at a reboot".into(),
        );
    }
    let directory = &config.api.wg_directory;
    // The socket's name is "INTERFACE.sock", and while it is made its ending is 8 digits.
    let wg = directory.len() + config.tunnel.interface.len() + 10;
    if !directory.is_empty() && (!directory.starts_with('/') || wg > 107) {
        findings.blame(
            &[("api", "wg_directory")],
            format!("{directory:?} is not an absolute path, or too long for a Unix socket's"),
            "write \"/var/run/wireguard\", where `wg` looks, or \"\" for none".into(),
        );
    }
    let socket = config.api.socket.as_os_str().len();
    if socket > 107 {
        findings.blame(
            &[("api", "socket")],
            format!("the path has {socket} bytes, and a Unix socket's can have 107"),
            "write a shorter path, such as \"/run/weir/weir.sock\"".into(),
        );
    }
}
