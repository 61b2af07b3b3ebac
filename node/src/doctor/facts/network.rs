//! The uplink, the port and the flows.

use std::{fs, io, net::UdpSocket, os::unix::net::UnixStream, path::PathBuf};

use super::{Known, number, read};
use weir_config::Config;
use weir_host::{
    ethtool::Offloads,
    listeners, next_hop,
    uplink::{self, Ipv6Uplink, Uplink},
    watch::{Condition, Expected, View},
    xdp_features::{self, XdpFeatures},
};

/// The uplink.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its driver, if known.
    pub driver: Option<String>,
    /// The XDP features that its driver supports.
    pub xdp: Known<XdpFeatures>,
    /// The attach mode of an existing XDP program: `native`, `generic` or another word.
    pub attached: Known<Option<String>>,
    /// Its offloads.
    pub offloads: Known<Offloads>,
    /// Its receive queues; `None` if sysfs does not show them.
    pub receive_queues: usize,
    /// Its addresses.
    pub has_address: bool,
    /// Whether IPv4 forwarding is on for it.
    pub forwarding: Known<u8>,
    /// Whether /proc/sys is writable.
    pub sysctls_writable: Known<bool>,
    /// The stricter of its own and the global `rp_filter`.
    pub rp_filter: Known<u8>,
    /// The interface by which IPv6 leaves.
    pub ipv6: Ipv6Uplink,
    /// Its lower interfaces (of a bond, bridge or VLAN).
    pub ports: Vec<String>,
    /// The conditions that a running node would report.
    pub conditions: Known<Vec<Condition>>,
    /// What matters for leaving past the kernel's stack.
    pub egress: Egress,
}

/// What matters for leaving past the kernel's stack.
#[derive(Clone, Debug)]
pub struct Egress {
    /// Whether the node can follow the routes without the kernel, or why not.
    pub routes: Known<Result<(), String>>,
    /// The host's own services in the node's port range, in one line.
    pub services: Known<Option<String>>,
}

impl Egress {
    fn gather(config: &Config, uplink: &Uplink) -> Self {
        let routes = match (uplink.ipv6.other(), next_hop::read(uplink)) {
            (Some(other), _) => {
                Ok(Err(format!("IPv6 leaves by another interface than {}: {other}", uplink.name)))
            }
            (None, Ok(judged)) => Ok(judged.map(drop).map_err(|why| why.to_string())),
            (None, Err(error)) => Err(error.to_string()),
        };
        let (low, high) = (config.nat.ports.low, config.nat.ports.high);
        let sockets = listeners::in_range(low, high).map_err(|error| error.to_string());
        let services = sockets.map(|sockets| {
            listeners::describe(&sockets, &listeners::programs(&sockets), (low, high))
        });
        Self { routes, services }
    }
}

impl Nic {
    pub(super) fn gather(config: &Config) -> Result<Self, String> {
        let uplink = Uplink::find(&config.node.uplink).map_err(|error| error.to_string())?;
        let conditions = conditions(config, &uplink);
        let egress = Egress::gather(config, &uplink);
        let Uplink { name, index, mtu, v4, v6, ipv6, ports } = uplink;
        let path = PathBuf::from("/sys/class/net").join(&name);
        let driver = fs::read_link(path.join("device/driver")).ok();
        let queues = fs::read_dir(path.join("queues")).into_iter().flatten().flatten();
        let is_receive = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("rx-");
        let rp_filter = |of: &str| number::<u8>(&format!("/proc/sys/net/ipv4/conf/{of}/rp_filter"));
        let forwarding = format!("/proc/sys/net/ipv4/conf/{name}/forwarding");
        Ok(Self {
            mtu,
            driver: driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned())),
            xdp: xdp_features::read(index).map_err(|error| error.to_string()),
            attached: uplink::attached_xdp(index).map_err(|error| error.to_string()),
            offloads: Offloads::read(&name).map_err(|error| error.to_string()),
            receive_queues: queues.filter(|entry| is_receive(&entry.file_name())).count(),
            has_address: !v4.is_empty() || !v6.is_empty(),
            forwarding: number(&forwarding),
            // Opening changes nothing.
            sysctls_writable: match fs::OpenOptions::new().write(true).open(&forwarding) {
                Ok(_) => Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::EROFS) => Ok(false),
                Err(error) => Err(error.to_string()),
            },
            rp_filter: rp_filter("all").and_then(|all| Ok(all.max(rp_filter(&name)?))),
            ipv6,
            ports,
            conditions,
            egress,
            name,
        })
    }
}

fn conditions(config: &Config, uplink: &Uplink) -> Known<Vec<Condition>> {
    let view = View::read().map_err(|error| error.to_string())?;
    // Other programs' firewalls are checked even without an uplink; see `Facts::refusals`.
    Ok(Expected::new(config, uplink, &view).judge(&view))
}

/// The UDP port of the node.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Whether it can be bound, or why not.
    pub free: Result<(), String>,
    /// Whether a node answers on the API's socket.
    pub weir_runs: bool,
}

impl Port {
    pub(super) fn gather(config: &Config) -> Self {
        let number = config.node.listen_port;
        let weir_runs = UnixStream::connect(&config.api.socket).is_ok();
        let free = match UdpSocket::bind(("::", number)) {
            // No IPv6 on this machine.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                UdpSocket::bind(("0.0.0.0", number)).map(drop)
            }
            bound => bound.map(drop),
        };
        let free = free.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => "it is in use".to_owned(),
            _ => error.to_string(),
        });
        Self { number, free, weir_runs }
    }
}

/// The kernel's table of flows.
#[derive(Clone, Copy, Debug)]
pub struct Conntrack {
    /// The number of flows in it.
    pub count: u64,
    /// The maximum number of flows.
    pub max: u64,
}

impl Conntrack {
    pub(super) fn gather() -> Known<Self> {
        let path = "/proc/sys/net/netfilter/nf_conntrack";
        read(&format!("{path}_max")).map_err(|_| {
            "the kernel has no flow table yet; the exit policy creates it".to_owned()
        })?;
        Ok(Self { count: number(&format!("{path}_count"))?, max: number(&format!("{path}_max"))? })
    }
}
