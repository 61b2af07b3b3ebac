//! A running node has given up what it does not need, and still does all of its work.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{SERVERS, UPLINK},
    steps::everything_passes,
    until,
};

/// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_BPF.
const KEPT: u64 = 1 << 10 | 1 << 12 | 1 << 39;

/// Gives this thread, and what it starts, a bpffs where systemd has one.
fn mount_bpffs() -> Result<()> {
    #[expect(deprecated, reason = "the namespace is left by the thread's end only")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).context("run this as root")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None)?)
}

fn required() -> Settings {
    Settings::default().with("node", "sandbox", "\"required\"")
}

/// What the node may have changed.
fn host(lab: &Lab) -> Result<String> {
    let sysctls = lab.node.run("sysctl -a --ignore --pattern forwarding|accept_ra")?;
    let offloads = lab.node.run(&format!("ethtool -k {UPLINK}"))?;
    Ok(lab.node.ip("-o link")? + &lab.node.run("nft list ruleset")? + &sysctls + &offloads)
}

/// Looks at all threads of a node, uses it, lets it read its configuration again, and stops it.
fn works_confined(lab: &Lab, node: &mut Node<'_>, settings: &Settings) -> Result<()> {
    let pid = node.pid()?;
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).with_context(|| format!("no {name}"))
        };
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            let bits = u64::from_str_radix(field(set)?, 16)?;
            ensure!(bits == KEPT, "{set} {bits:x} in\n{status}");
        }
        ensure!(field("NoNewPrivs:")? == "1" && field("Seccomp:")? == "2", "{status}");
        threads += 1;
    }
    ensure!(threads >= 4, "only {threads} threads");
    let said = node.status()?.sandbox;
    ensure!(said.contains("Landlock") && said.contains("seccomp"), "{said}");
    ensure!(node.status()?.xdp_mode == "native", "{:?}", node.status()?);

    let added = node.session_add("confined")?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(SERVERS[0])?;
    everything_passes(lab, &client)?;
    // What others take away is put back from within, too.
    lab.node.run("nft flush ruleset")?;
    let parameter = if node.status()?.egress.mode == "kernel" {
        format!("net.ipv4.conf.{UPLINK}.forwarding")
    } else {
        "net.ipv4.conf.weir0.rp_filter".to_owned()
    };
    lab.node.sysctl(&parameter, "0")?;
    until("the policy and the kernel parameter are back", Duration::from_secs(30), || {
        for part in ["policy", "forwarding"] {
            let restored = node.status()?.restored;
            ensure!(restored.iter().any(|it| it.part == part && it.times == 1), "{restored:?}");
        }
        Ok(())
    })?;
    everything_passes(lab, &client)?;
    node.configure(settings.clone().with("ledger", "record_seconds", "7"))?;
    node.hang_up()?;
    ensure!(node.log().contains("record_seconds"), "{}", node.log());
    drop(client);
    node.stop()
}

#[test]
fn a_running_node_has_three_capabilities_landlock_and_seccomp_and_undoes_everything() -> Result<()>
{
    mount_bpffs()?;
    let lab = Lab::new()?;
    let before = host(&lab)?;
    let mut node = Node::start(&lab.node, required())?;
    works_confined(&lab, &mut node, &required())?;
    ensure!(host(&lab)? == before, "before:\n{before}\nafter:\n{}", host(&lab)?);
    ensure!(node.pins().is_empty(), "left pinned: {:?}", node.pins());
    // Killed, and taken over by the next.
    node.configure(required())?;
    node.restart()?;
    node.kill()?;
    node.restart()?;
    node.stop()?;
    ensure!(host(&lab)? == before, "before:\n{before}\nafter:\n{}", host(&lab)?);
    ensure!(node.pins().is_empty(), "left pinned: {:?}", node.pins());
    Ok(())
}

#[test]
fn the_capabilities_of_the_unit_are_enough() -> Result<()> {
    mount_bpffs()?;
    let lab = Lab::new()?;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let unit = fs::read_to_string(root.join("packaging/systemd/weir.service"))?;
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = set.context("no bounding set")?.replace("CAP_", "+").replace(' ', ",");
    // This takes more of the node: it makes the host a router.
    let settings = required().with("node", "egress", "\"kernel\"");
    let mut node = Node::prepare(&lab.node, settings.clone())?;
    let bounding = format!("--bounding-set=-all,{}", names.to_lowercase());
    node.launch_by(&["setpriv", &bounding, "--inh-caps=-all", "--no-new-privs"]);
    node.restart()?;
    works_confined(&lab, &mut node, &settings)
}

#[test]
fn a_node_whose_guard_the_verifier_refuses_says_so_in_a_line_and_leaves_nothing() -> Result<()> {
    mount_bpffs()?;
    let lab = Lab::new()?;
    let mut node = Node::prepare(&lab.node, Settings::default())?;
    // Without CAP_PERFMON the verifier refuses what the guard does with pointers.
    node.launch_by(&["setpriv", "--bounding-set=-perfmon,-sys_admin", "--inh-caps=-all"]);
    node.restart()?;
    let status = node.status()?;
    ensure!(status.xdp_mode == "off", "{status:?}");
    let note = status.offloads.iter().find(|note| note.contains("no XDP guard"));
    let note = note.with_context(|| format!("{status:?}"))?;
    ensure!(note.contains("verifier refuses") && !note.contains('\n'), "{note}");
    node.stop()?;
    ensure!(node.pins().is_empty(), "left pinned: {:?}", node.pins());
    Ok(())
}

#[test]
fn what_is_required_and_not_to_be_had_is_named() -> Result<()> {
    let lab = Lab::new()?;
    // Nothing is mounted at /sys/fs/bpf, so that the node mounts one of its own.
    #[expect(deprecated, reason = "the namespace is left by the thread's end only")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).context("run this as root")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("none", "/sys/fs/bpf", "tmpfs", MountFlags::empty(), None)?;
    let mut node = Node::prepare(&lab.node, required())?;
    let said = format!("{:#}", node.restart().expect_err("there is no Landlock"));
    ensure!(said.contains("node.sandbox") && said.contains("mount -t bpf"), "{said}");
    node.configure(Settings::default())?;
    node.restart()?;
    ensure!(node.status()?.sandbox.contains("no Landlock"), "{:?}", node.status()?);
    node.stop()?;
    ensure!(node.mounts().is_empty(), "left mounted: {:?}", node.mounts());
    Ok(())
}
