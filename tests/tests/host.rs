//! What the node changes on a machine, with real packets, in network namespaces.
//!
//! There is no data plane here: the tests write consumers' packets to the TUN device themselves,
//! and read from it what would go to consumers. Needs root.

mod consumers;
mod firewalls;
mod flows;
mod net;
mod next_hop;
mod policy;
mod reserved_ports;

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use net::{Net, assert_same, inside, sh};
use weir_config::{Auto, check};
use weir_host::{Host, HostPlan, uplink::Uplink};

const CONSUMER_V4: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 7);
const CONSUMER_V6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 7);
const NODE_V4: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 2);
const REMOTE_V4: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 1);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2a00, 2, 0, 0, 0, 0, 0, 1);
const SILENCE: Duration = Duration::from_millis(300);

#[test]
fn everything_is_as_before_after_a_clean_stop() {
    let net = Net::new();
    let before = net.snapshot();
    inside(&net.node, || {
        let host = net.prepare("");
        assert!(host.offloads.gro, "{:?}", host.offloads);
        let during = net.snapshot();
        assert!(during.contains("table inet weir"), "{during}");
        assert!(during.contains("inet 10.66.0.1/16"), "{during}");
        assert!(during.contains("inet6 fd66:7765:6972::1/64"), "{during}");
        assert!(during.contains("generic-receive-offload: on"), "{during}");
        host.undo().expect("undone");
        // And once more: nothing is in the way of a second run.
        net.prepare("").undo().expect("undone");
    });
    assert_same(&before, &net.snapshot());
    let left: Vec<_> = fs::read_dir(net.runtime.path())
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

/// Says to [`what_a_killed_run_left_is_taken_over`] that it is the run that is killed, and where.
const RUNTIME: &str = "WEIR_TEST_RUNTIME";

fn prepare_and_wait(runtime: &str) {
    let text = format!("[node]\nruntime_dir = {runtime:?}\nstate_dir = \"{runtime}/state\"");
    let config = check(&text, None).expect("a right configuration");
    let uplink = Uplink::find(&Auto::Auto).expect("an uplink");
    let _host =
        Host::prepare(&HostPlan::new(&config, uplink, 2).expect("a plan")).expect("prepared");
    fs::write(Path::new(runtime).join("ready"), "").expect("written");
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn what_a_killed_run_left_is_taken_over() {
    // It starts itself as the run that is killed.
    if let Ok(runtime) = std::env::var(RUNTIME) {
        return prepare_and_wait(&runtime);
    }
    let net = Net::new();
    let before = net.snapshot();
    let ready = net.runtime.path().join("ready");
    for _ in 0..2 {
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", net.node))
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", "host::what_a_killed_run_left_is_taken_over"])
            .env(RUNTIME, net.runtime.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("nsenter runs");
        let end = Instant::now() + Duration::from_secs(20);
        while !ready.exists() {
            assert!(Instant::now() < end, "the first run does not get ready");
            thread::sleep(Duration::from_millis(10));
        }
        inside(&net.node, || {
            let error = Host::prepare(&net.plan("").expect("a plan")).expect_err("in use");
            assert!(error.to_string().contains("another weir (process "), "{error}");
        });
        child.kill().expect("killed");
        child.wait().expect("ended");
        fs::remove_file(&ready).expect("removed");
    }
    assert!(net.snapshot().contains("table inet weir"), "the killed run left nothing to take over");
    inside(&net.node, || {
        let host = net.prepare("");
        assert!(host.notes.iter().any(|note| note.contains("took over")), "{:?}", host.notes);
        let chains = sh(&format!("ip netns exec {} nft list chains", net.node));
        assert_eq!(chains.matches("chain forward").count(), 1, "{chains}");
        host.undo().expect("undone");
    });
    assert_same(&before, &net.snapshot());
}

#[test]
fn what_somebody_else_changed_meanwhile_is_left_alone() {
    let net = Net::new();
    let parameter = "/proc/sys/net/ipv4/conf/up0/forwarding";
    inside(&net.node, || {
        let host = net.prepare("");
        assert_eq!(fs::read_to_string(parameter).expect("read"), "1\n");
        sh(&format!("ip netns exec {} nft add table inet others", net.node));
        host.undo().expect("undone");
        assert_eq!(fs::read_to_string(parameter).expect("read"), "0\n");
        let tables = sh(&format!("ip netns exec {} nft list tables", net.node));
        assert_eq!(tables, "table inet others\n");
        // Docker starts meanwhile, and relies on forwarding.
        let host = net.prepare("");
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("written");
        host.undo().expect("undone");
        assert_eq!(fs::read_to_string(parameter).expect("read"), "1\n");
        // The uplink was excepted from forwarding before, and is again.
        fs::write(parameter, "0").expect("written");
        net.prepare("").undo().expect("undone");
        assert_eq!(fs::read_to_string(parameter).expect("read"), "0\n");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("written");
        // Forwarding that was on before stays on.
        fs::write(parameter, "1").expect("written");
        net.prepare("").undo().expect("undone");
        assert_eq!(fs::read_to_string(parameter).expect("read"), "1\n");
    });
}

#[test]
fn without_the_exit_policy_nothing_is_changed() {
    let net = Net::new();
    let before = net.snapshot();
    inside(&net.node, || {
        let mut plan = net.plan("").expect("a plan");
        plan.policy.uplink = "no\"name".into();
        let error = Host::prepare(&plan).expect_err("nftables refuses").to_string();
        assert!(error.starts_with("nftables refused to install the exit policy: "), "{error}");
    });
    assert_same(&before, &net.snapshot());
}

#[test]
fn pins_outlive_a_failed_run_and_go_with_a_clean_stop() {
    let net = Net::new();
    let directory = net.runtime.path().join("pins");
    let pin = directory.join("accounts");
    inside(&net.node, || {
        let mut plan = net.plan("").expect("a plan");
        plan.pins = vec![directory.clone(), pin.clone()];
        let host = Host::prepare(&plan).expect("prepared");
        fs::create_dir(&directory).expect("made");
        fs::write(&pin, "").expect("made");
        drop(host);
        assert!(pin.exists());
        let unfit = HostPlan { mtu: 7, ..plan.clone() };
        Host::prepare(&unfit).expect_err("no such MTU");
        assert!(pin.exists());
        Host::prepare(&plan).expect("prepared").undo().expect("undone");
        assert!(!directory.exists());
    });
}

#[test]
fn a_machine_that_does_not_fit_is_refused_with_the_fix_and_left_as_it_was() {
    let net = Net::new();
    let before = net.snapshot();
    let refused = |text: &str| {
        let result = net.plan(text).and_then(|plan| Host::prepare(&plan));
        result.expect_err("refused").to_string()
    };
    inside(&net.node, || {
        let overlap = refused("[tunnel]\npool_v4 = \"11.0.0.0/16\"");
        assert!(overlap.contains("overlaps 11.0.0.0/24, which up0 has. Fix: "), "{overlap}");
        let second = tempfile::tempdir().expect("a directory");
        let first = net.prepare("");
        let mut plan = net.plan("").expect("a plan");
        plan.runtime_dir = second.path().to_owned();
        let two = Host::prepare(&plan).expect_err("one exit policy alone").to_string();
        assert!(two.contains("another weir runs on this machine"), "{two}");
        first.undo().expect("undone");
        sh(&format!("ip -n {} link add weir0 type veth peer name other1", net.node));
        let taken = refused("");
        assert!(taken.contains("the interface \"weir0\" exists already"), "{taken}");
        sh(&format!("ip -n {} link del weir0", net.node));
        sh(&format!("ip -n {} link set up0 mtu 1400", net.node));
        let mtu = refused("");
        assert!(mtu.contains("write mtu = 1320, the largest that fits"), "{mtu}");
        sh(&format!("ip -n {} link set up0 mtu 1500", net.node));
        let uplink = Uplink::find(&Auto::Set("nope0".into())).expect_err("unknown").to_string();
        assert!(uplink.contains("no interface \"nope0\"") && uplink.contains("up0"), "{uplink}");
    });
    assert_same(&before, &net.snapshot());
    inside(&net.node, || {
        sh(&format!("ip -n {0} route del default; ip -n {0} -6 route del default", net.node));
        let none = Uplink::find(&Auto::Auto).expect_err("no route").to_string();
        assert!(none.contains("no default route"), "{none}");
    });
}
