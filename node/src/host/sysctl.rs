//! Kernel parameters below /proc/sys/net, of the network namespace of this thread.
//!
//! Forwarding is turned on for the interfaces that need it, and not for the whole machine where
//! the kernel allows that: a machine that was no router does not become one between its other
//! networks, and what else hangs on the machine-wide switches stays as it is.

use std::{fs, io, path::PathBuf};

use super::changes::{Change, Changes};

/// A parameter by its path below /proc/sys, such as `net/ipv4/ip_forward`.
pub(super) fn read(parameter: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(parameter))?.trim().to_owned())
}

/// Sets a parameter.
pub(super) fn write(parameter: &str, value: &str) -> io::Result<()> {
    fs::write(path(parameter), value)
}

fn path(parameter: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(parameter)
}

/// Whether this machine speaks IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    path("net/ipv6/conf/all").exists()
}

/// What is set on the TUN device alone. It goes with the device, so nothing is recorded.
pub(super) fn prepare_tun(interface: &str) -> io::Result<()> {
    // A second line of defence behind the worker's check of each source.
    write(&format!("net/ipv4/conf/{interface}/rp_filter"), "1")?;
    write(&format!("net/ipv4/conf/{interface}/send_redirects"), "0")?;
    write(&format!("net/ipv4/conf/{interface}/forwarding"), "1")?;
    if has_ipv6() {
        let set = |key: &str, value| write(&format!("net/ipv6/conf/{interface}/{key}"), value);
        set("disable_ipv6", "0")?;
        // No link-local address: consumers have no use for one, and would be sent its reports.
        set("addr_gen_mode", "1")?;
        set("accept_ra", "0")?;
        if has_forwarding_by_interface(interface) {
            set("force_forwarding", "1")?;
        }
    }
    Ok(())
}

/// Lets packets from the uplink reach the TUN device, and back.
pub(super) fn forward(changes: &mut Changes, uplink: &str) -> io::Result<()> {
    set(changes, &format!("net/ipv4/conf/{uplink}/forwarding"), "1")?;
    if !has_ipv6() {
        return Ok(());
    }
    if has_forwarding_by_interface(uplink) {
        set(changes, &format!("net/ipv6/conf/{uplink}/force_forwarding"), "1")
    } else {
        forward_everywhere_v6(changes)
    }
}

/// Since Linux 6.17.
fn has_forwarding_by_interface(interface: &str) -> bool {
    path(&format!("net/ipv6/conf/{interface}/force_forwarding")).exists()
}

/// The only way before Linux 6.17. It makes every interface a router's, which takes its routes
/// and addresses by router advertisements no more unless `accept_ra` is 2.
pub(super) fn forward_everywhere_v6(changes: &mut Changes) -> io::Result<()> {
    const ALL: &str = "net/ipv6/conf/all/forwarding";
    if read(ALL)? == "1" && !changes.has_sysctl(ALL) {
        return Ok(());
    }
    let mut interfaces = Vec::new();
    for entry in fs::read_dir(path("net/ipv6/conf"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "all" && name != "default" {
            interfaces.push(name);
        }
    }
    for name in &interfaces {
        let accept_ra = format!("net/ipv6/conf/{name}/accept_ra");
        // An interface may vanish meanwhile.
        if read(&accept_ra).is_ok_and(|value| value == "1") {
            set(changes, &accept_ra, "2")?;
        }
    }
    for name in interfaces.iter().map(String::as_str).chain(["default"]) {
        // The machine-wide switch sets all of them, also when it is turned off again.
        let forwarding = format!("net/ipv6/conf/{name}/forwarding");
        if read(&forwarding).is_ok_and(|value| value == "1") {
            changes.record(Change::Sysctl { parameter: forwarding, old: "1".into(), set: None })?;
        }
    }
    set(changes, ALL, "1")
}

/// Records a parameter's value and sets it.
fn set(changes: &mut Changes, parameter: &str, value: &str) -> io::Result<()> {
    let explain = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot set /proc/sys/{parameter} to {value}: {error}"),
        )
    };
    let old = read(parameter).map_err(explain)?;
    if old == value && !changes.has_sysctl(parameter) {
        return Ok(());
    }
    changes.record(Change::Sysctl { parameter: parameter.into(), old, set: Some(value.into()) })?;
    write(parameter, value).map_err(explain)
}
