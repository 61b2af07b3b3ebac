//! Rules for the names of interfaces, groups, directories and sockets.

use crate::{Config, kinds::Auto, mistake::Findings};

/// Whether the kernel takes it for an interface's name, and nftables and /proc do without quoting.
fn is_interface_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=15).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with(['-', '.'])
        && !["all", "default", "lo"].contains(&name)
}

pub(super) fn names(config: &Config, findings: &mut Findings<'_>) {
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

pub(super) fn paths(config: &Config, findings: &mut Findings<'_>) {
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
