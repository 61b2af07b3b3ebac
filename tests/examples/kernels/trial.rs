//! One kernel in an emulated machine.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::Value;
use weir_control::view::Status;
use weir_tests::{
    Client, Lab,
    lab::{CONSUMER_V6, SERVERS},
    node::{Added, Session},
    steps::{everything_passes, outside},
    traffic::{tcp, udp},
    until,
    wgquick::WgQuick,
};

use crate::{
    guest::Guest,
    image::Image,
    network::{self, CONSUMER, TAPS},
    report::{IPV6_FORWARDING, Report, VERIFIER, part},
};

/// Emulation is slow, and so is a machine that does something else too.
const TIMEOUT: Duration = Duration::from_secs(300);
const LOG: &str = "/root/weir.log";
/// The exit status of the node, once there is one.
const ENDED: &str = "/root/weir.ended";
/// Of what the node may change on its host, as lines that begin with their place. Only what has
/// been there before is compared: modules that are loaded meanwhile bring sysctls of their own.
const HOST: &str = "
    ip -o link | sed 's/^/link: /'
    ip -brief address | sed 's/^/address: /'
    ip route show table all | sed 's/^/route: /'
    ip -6 route show table all | sed 's/^/route: /'
    ip rule | sed 's/^/rule: /'
    nft list ruleset | sed 's/^/nft: /'
    ethtool -k up0 | sed 's/^/ethtool: /'
    cd /sys/class/net/up0 && cat napi_defer_hard_irqs gro_flush_timeout | sed 's/^/interrupts: /'
    find /sys/fs/bpf /run /tmp ! -path /run/script ! -path /run/output | sed 's/^/file: /'
    mount | sed 's/^/mount: /'";
const SYSCTLS: &str = "find /proc/sys/net /proc/sys/kernel -type f ! -name nf_conntrack_count \
                       ! -path '*/random/*' ! -name ns_last_pid ! -name pty/nr | xargs grep -Hs . || true";

/// Tries weir on the kernel of an unpacked package.
///
/// # Errors
/// If it cannot be tried. What goes wrong with weir is in the report.
pub(crate) fn run(package: &Path, busybox: &Path) -> Result<Report> {
    let directory = tempfile::tempdir()?;
    let image = Image::make(package, busybox, directory.path())?;
    let lab = Lab::new()?;
    network::prepare(&lab)?;
    let mut report = Report::new(&image.release, "virtio");
    let boot = || Guest::boot(&image, &lab.internet, &TAPS, directory.path());
    let Ok(guest) = report.check(part::BOOTS, boot) else { return Ok(report) };
    let result = parts(&lab, &guest, &mut report);
    let failed = result.is_err();
    report.end(result);
    if failed {
        let log = guest.run(&format!("tail -n 100 {LOG}; dmesg | tail -n 20"));
        println!("the node and its kernel wrote:\n{}", log.unwrap_or_default());
    }
    Ok(report)
}

/// The node's configuration, where nothing of the host's is.
const CONFIG: &str = "/run/weir.toml";

/// The parts in their order, up to the first that fails.
fn parts(lab: &Lab, guest: &Guest, report: &mut Report) -> Result<()> {
    network::configure(guest)?;
    // What a node without eBPF, nftables or flows would have the kernel load.
    guest
        .run("for module in tun nf_tables nft_ct nft_masq wireguard; do modprobe $module; done")?;
    // The kernel adds a route once it has found no duplicate of the link-local address (RFC 4862).
    guest.run("until [ -z \"$(ip -6 address show dev up0 tentative)\" ]; do sleep 0.1; done")?;
    // Whoever makes the runtime directory removes it, with the lock that stays there.
    guest.run("mkdir /run/weir; touch /run/weir/lock")?;
    // Before Linux 6.13 by sysfs, which no other test can change.
    guest.write(CONFIG, "[node]\ndefer_interrupts = true\n")?;
    let host = guest.run(HOST)?;
    let sysctls = sysctls(guest)?;
    let doctor = guest.run("weir doctor --json || true")?;
    report.check(part::STARTS, || start(guest))?;
    let status = status(guest)?;
    let deferred = status.offloads.iter().any(|line| line.ends_with(", interrupts deferred"));
    ensure!(deferred, "the uplink's interrupts are not deferred: {:?}", status.offloads);
    report.facts(&doctor, &status)?;
    report.offers(&status);
    report.fact(VERIFIER, guest.run("kernels verifier")?.trim());
    let forwarding =
        guest.run("[ -e /proc/sys/net/ipv6/conf/up0/force_forwarding ] && echo yes || echo no")?;
    report.fact(IPV6_FORWARDING, forwarding.trim());

    let alice = add(guest, "alice")?;
    let client = Client::connect(&lab.consumer, &alice.config)?;
    let answer = || client.wait_connected(SERVERS[0]);
    report.check(part::CONNECTS, || until("an answer", TIMEOUT, answer))?;
    report.check(part::PASSES, || everything_passes(lab, &client))?;
    report.check(part::CONNECTS_V6, || {
        let config = outside(&alice.config, CONSUMER_V6.into())?;
        client.configure(&config.wg)?;
        until("an answer", TIMEOUT, answer)
    })?;
    let carol = add(guest, "carol")?;
    report.check(part::CONNECT_COMMAND, || crate::connect::connect(guest, &carol))?;
    let bob = add(guest, "bob")?;
    report.check(part::KERNEL_CONNECTS, || connect(guest, &bob))?;
    report.check(part::KERNEL_PASSES, || carry(lab, guest))?;
    report.check(part::HANG, || crate::hang::hang(lab, guest, &client))?;
    report.check(part::KILL, || kill_and_go_on(lab, guest, &client, &[&alice, &bob]))?;
    report.check(part::STOP, || {
        guest.run(&format!("ip -n {CONSUMER} link del wg0; rm /run/wg0.conf"))?;
        stop(guest)?;
        unchanged(&host, &guest.run(HOST)?)?;
        let now = self::sysctls(guest)?;
        for (name, before) in &sysctls {
            ensure!(now.get(name) == Some(before), "{name} was {before:?}: {:?}", now.get(name));
        }
        Ok(())
    })
}

fn start(guest: &Guest) -> Result<()> {
    guest.run(&format!(
        "rm -f {ENDED}
         (weir run --config {CONFIG} >>{LOG} 2>&1; echo $? >{ENDED}) >/dev/null 2>&1 &"
    ))?;
    until("the node serves", TIMEOUT, || {
        if guest.run(&format!("cat {ENDED}")).is_ok() {
            let log = guest.run(&format!("cat {LOG}"))?;
            return Ok(Err(anyhow::anyhow!("it has ended at its start:\n{log}")));
        }
        status(guest).map(|_| Ok(()))
    })?
}

fn end(guest: &Guest, signal: &str) -> Result<String> {
    guest.run(&format!("kill -{signal} $(pidof weir)"))?;
    until("the node's end", TIMEOUT, || guest.run(&format!("cat {ENDED}")))
}

fn stop(guest: &Guest) -> Result<()> {
    let status = end(guest, "TERM")?;
    ensure!(status.trim() == "0", "the node has ended with {status}");
    Ok(())
}

fn status(guest: &Guest) -> Result<Status> {
    Ok(serde_json::from_str(&guest.run("weir status --json")?)?)
}

fn add(guest: &Guest, name: &str) -> Result<Added> {
    Ok(serde_json::from_str(&guest.run(&format!("weir session add --name {name} --json"))?)?)
}

fn session(guest: &Guest, id: &str) -> Result<Session> {
    let mut shown: Value =
        serde_json::from_str(&guest.run(&format!("weir session show {id} --json"))?)?;
    Ok(serde_json::from_value(shown["session"].take())?)
}

/// Makes a tunnel of the kernel's in the consumer's namespace there, and has it answered.
fn connect(guest: &Guest, added: &Added) -> Result<()> {
    let config = WgQuick::parse(&added.config)?;
    guest.write("/run/wg0.conf", &config.wg)?;
    guest.run(&format!(
        "set -e
         ip -n {CONSUMER} link add wg0 type wireguard
         nsenter --net=/run/netns/{CONSUMER} wg setconf wg0 /run/wg0.conf"
    ))?;
    for address in &config.addresses {
        guest.run(&format!("ip -n {CONSUMER} addr add {address} dev wg0"))?;
    }
    guest.run(&format!("ip -n {CONSUMER} link set wg0 mtu {} up", config.mtu.unwrap_or(1420)))?;
    for network in ["45.80.3.0/24", "2a0c:b641:3::/64"] {
        guest.run(&format!("ip -n {CONSUMER} route add {network} dev wg0"))?;
    }
    for server in SERVERS {
        let ping = format!("nsenter --net=/run/netns/{CONSUMER} ping -n -q -c 1 -W 2 {server}");
        until("an answer", TIMEOUT, || guest.run(&ping))?;
    }
    Ok(())
}

/// The traffic of the consumer there.
fn carry(lab: &Lab, guest: &Guest) -> Result<()> {
    let server = tcp::Server::start(&lab.internet)?;
    let mut arguments = String::new();
    for address in SERVERS {
        let echo = udp::Echo::start(&lab.internet, address)?;
        arguments += &format!(" --tcp {} --udp {}", server.at(address), echo.at(address));
    }
    guest.run(&format!("kernels carry {CONSUMER} {arguments}"))?;
    Ok(())
}

fn kill_and_go_on(lab: &Lab, guest: &Guest, client: &Client<'_>, all: &[&Added]) -> Result<()> {
    let show = || -> Result<Vec<Session>> {
        all.iter().map(|added| session(guest, &added.session.id)).collect()
    };
    let before = show()?;
    end(guest, "KILL")?;
    start(guest)?;
    let after = show()?;
    for (old, new) in before.iter().zip(&after) {
        ensure!(old.bytes_up > 0 && old.bytes_down > 0, "nothing was counted: {old:?}");
        let goes_on = new.bytes_up >= old.bytes_up && new.bytes_down >= old.bytes_down;
        ensure!(goes_on && new.state == "open", "{old:?} became {new:?}");
    }
    until("an answer", TIMEOUT, || client.wait_connected(SERVERS[0]))?;
    everything_passes(lab, client)?;
    let ping = format!("nsenter --net=/run/netns/{CONSUMER} ping -n -q -c 1 -W 2 {}", SERVERS[1]);
    until("an answer for the kernel's own WireGuard", TIMEOUT, || guest.run(&ping))?;
    carry(lab, guest)?;
    for (old, new) in after.iter().zip(show()?) {
        ensure!(new.bytes_up > old.bytes_up, "it counts no more: {old:?} became {new:?}");
    }
    Ok(())
}

fn sysctls(guest: &Guest) -> Result<BTreeMap<String, String>> {
    let text = guest.run(SYSCTLS)?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Ok(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn unchanged(before: &str, after: &str) -> Result<()> {
    let differ = |one: &str, other: &str| {
        one.lines()
            .filter(|line| !other.lines().any(|it| it == *line))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let (gone, new) = (differ(before, after), differ(after, before));
    ensure!(gone.is_empty() && new.is_empty(), "gone:\n{gone}\nnew:\n{new}");
    Ok(())
}
