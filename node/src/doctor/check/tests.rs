//! Each check, both ways.

use super::*;
use crate::doctor::{
    Report, Verdict,
    facts::{
        Clock, Conntrack, Disk, Egress, Kernel, Nic, Port,
        kernel::{Refusal, TunFact},
    },
};
use weir_config::{Auto, Config, EgressMode, GuardMode, IoMode, ReceiveMode};
use weir_dataplane::Reads;
use weir_host::{
    ethtool::Offloads,
    nft,
    uplink::Ipv6Uplink,
    watch::{Condition, Part},
    xdp_features::XdpFeatures,
};

const NO_XDP: XdpFeatures = XdpFeatures { native: false, zero_copy: false };

/// A machine with nothing to complain of.
fn healthy() -> Facts {
    let offloads = Offloads { tso: true, gso: true, gro: true, ..Offloads::default() };
    Facts {
        configuration: Ok("the defaults".into()),
        config: Config::default(),
        kernel: Kernel {
            release: Ok("6.12.9-amd64".into()),
            capabilities: Ok(u64::MAX),
            seccomp: Ok(0),
            uring: Ok(Reads::Multishot),
            uring_disabled: Some(0),
            guard: Ok(weir_common::guard::name::GUARD),
            lockdown: None,
            bpffs: true,
            tun: TunFact::Made { uso: true },
            nft: Ok("nftables v1.0.6".into()),
            nftables: Ok(()),
            cipher: Ok("avx512"),
        },
        nic: Ok(Nic {
            name: "eth0".into(),
            mtu: 1500,
            driver: Some("virtio_net".into()),
            xdp: Ok(XdpFeatures { native: true, zero_copy: true }),
            attached: Ok(None),
            offloads: Ok(offloads),
            receive_queues: 2,
            has_address: true,
            forwarding: Ok(0),
            sysctls_writable: Ok(true),
            rp_filter: Ok(0),
            ipv6: Ipv6Uplink::Same,
            ports: Vec::new(),
            conditions: Ok(Vec::new()),
            egress: Egress { routes: Ok(Ok(())), services: Ok(None) },
        }),
        policy: Ok(false),
        cores: 2,
        port: Port { number: 51820, free: Ok(()), weir_runs: false },
        refusals: Ok(Vec::new()),
        conntrack: Ok(Conntrack { count: 10, max: 262_144 }),
        clock: Clock { now: 1_800_000_000, synchronised: Ok(true) },
        disk: Disk { directory: "/var/lib/weir".into(), free: Ok(1 << 40), sync: Ok(()) },
    }
}

fn nic(facts: &mut Facts) -> &mut Nic {
    facts.nic.as_mut().expect("a healthy machine has an uplink")
}

fn condition(part: Part, fix: &str) -> Condition {
    Condition { part, problem: "not as it should be".into(), fix: fix.into() }
}

fn no() -> String {
    "no".into()
}

#[test]
fn a_healthy_machine_has_nothing_but_good_findings() {
    let report = Report::from(all(&healthy()));
    assert_eq!(report.verdict, Verdict::Good, "{report:?}");
    let mut checks: Vec<_> = report.findings.iter().map(|finding| finding.check).collect();
    let count = checks.len();
    checks.sort_unstable();
    checks.dedup();
    assert_eq!(checks.len(), count, "each check has one line");
}

#[test]
fn kernels_that_cut_udp_wrongly_are_good_when_mended_or_when_nothing_is_cut() {
    for (release, segmentation) in
        [("7.1.5", true), ("7.2.0-rc1", true), ("6.18.0", true), ("7.0.2-6-pve", false)]
    {
        let mut facts = healthy();
        facts.kernel.release = Ok(release.into());
        facts.config.node.udp_segmentation = segmentation;
        let report = Report::from(all(&facts));
        assert_eq!(report.verdict, Verdict::Good, "{release}: {report:?}");
    }
}

#[test]
fn io_uring_without_multishot_reads_is_good() {
    let mut facts = healthy();
    facts.kernel.uring = Ok(Reads::Single);
    let report = Report::from(all(&facts));
    assert_eq!(report.verdict, Verdict::Good, "{report:?}");
    let found = report.findings.iter().find(|finding| finding.check == "io_uring");
    assert!(found.is_some_and(|finding| finding.found.contains("6.7")), "{report:?}");
}

#[test]
fn each_fault_is_found_by_its_check_alone() {
    use Verdict::{Bad, Unknown, Warning};
    type Break = fn(&mut Facts);
    let cases: &[(&str, Verdict, &str, Break)] = &[
        ("configuration", Bad, "config check", |it| it.configuration = Err(no())),
        ("kernel", Bad, "5.10", |it| it.kernel.release = Ok("5.4.0-generic".into())),
        ("kernel", Warning, "backports", |it| it.kernel.release = Ok("6.1.0-18-amd64".into())),
        ("kernel", Unknown, "", |it| it.kernel.release = Ok("what".into())),
        ("kernel", Warning, "node.udp_segmentation", |it| {
            it.kernel.release = Ok("7.0.2-6-pve".into());
        }),
        ("kernel", Warning, "7.1.5", |it| it.kernel.release = Ok("7.1.4".into())),
        ("capabilities", Warning, "root", |it| it.kernel.capabilities = Ok(1 << 12)),
        ("capabilities", Warning, "NET_RAW", |it| {
            it.kernel.capabilities = Ok(!(1 << 13));
        }),
        ("capabilities", Unknown, "", |it| it.kernel.capabilities = Ok(0)),
        ("seccomp", Unknown, "", |it| it.kernel.seccomp = Err(no())),
        ("io_uring", Warning, "io_uring_disabled=0", |it| {
            it.kernel.uring = Err(no());
            it.kernel.uring_disabled = Some(2);
        }),
        ("io_uring", Bad, "seccomp.json", |it| {
            it.kernel.uring = Err(no());
            it.kernel.seccomp = Ok(2);
            it.config.node.io = IoMode::Uring;
        }),
        ("cipher", Bad, "unset WEIR_AEAD", |it| it.kernel.cipher = Err(no())),
        ("eBPF", Warning, "lockdown", |it| {
            it.kernel.lockdown = Some("integrity".into());
            it.kernel.guard = Err(Refusal { refused: true, reason: no(), log: vec![] });
        }),
        ("eBPF", Bad, "newer kernel", |it| {
            it.config.node.xdp = GuardMode::Required;
            it.kernel.guard =
                Err(Refusal { refused: false, reason: no(), log: vec!["R2 is bad".into()] });
        }),
        ("bpffs", Warning, "mount -t bpf", |it| it.kernel.bpffs = false),
        ("TUN", Warning, "6.2", |it| it.kernel.tun = TunFact::Made { uso: false }),
        ("TUN", Bad, "modprobe tun", |it| it.kernel.tun = TunFact::Refused(no())),
        ("TUN", Bad, "modprobe tun", |it| {
            it.kernel.tun = TunFact::NotTried { device: false, why: no() };
        }),
        ("TUN", Unknown, "", |it| it.kernel.tun = TunFact::NotTried { device: true, why: no() }),
        ("nft", Bad, "apt-get install nftables", |it| it.kernel.nft = Err(no())),
        ("uplink", Bad, "node.endpoint", |it| nic(it).has_address = false),
        ("egress", Warning, "optional", |it| nic(it).egress.routes = Ok(Err(no()))),
        ("egress", Unknown, "", |it| nic(it).egress.routes = Err(no())),
        ("egress", Bad, "node.egress", |it| {
            it.config.node.egress = EgressMode::Bypass;
            nic(it).egress.routes = Ok(Err(no()));
        }),
        ("XDP", Warning, "optional", |it| nic(it).xdp = Ok(NO_XDP)),
        ("XDP", Unknown, "", |it| nic(it).xdp = Err(no())),
        ("XDP", Warning, "ip link set dev eth0 xdp off", |it| {
            nic(it).attached = Ok(Some("native".into()));
        }),
        ("offloads", Warning, "ethtool -K eth0", |it| nic(it).offloads = Ok(Offloads::default())),
        ("queues", Warning, "ethtool -L eth0", |it| {
            nic(it).receive_queues = 1;
            it.cores = 8;
        }),
        ("MTU", Bad, "write mtu = 1320", |it| nic(it).mtu = 1400),
        ("forwarding", Bad, "--sysctl", |it| nic(it).sysctls_writable = Ok(false)),
        ("forwarding", Unknown, "", |it| nic(it).sysctls_writable = Err(no())),
        ("rp_filter", Unknown, "", |it| nic(it).rp_filter = Err(no())),
        ("IPv6", Warning, "auto", |it| nic(it).ipv6 = Ipv6Uplink::Refused("six0".into())),
        ("machine", Warning, "insert rule", |it| {
            nic(it).conditions = Ok(vec![condition(Part::Firewall, "nft insert rule")]);
        }),
        ("machine", Bad, "up", |it| {
            nic(it).conditions = Ok(vec![condition(Part::Uplink, "ip link set eth0 up")]);
        }),
        ("machine", Unknown, "", |it| nic(it).conditions = Err(no())),
        ("exit policy", Bad, "weir status", |it| {
            it.port.weir_runs = true;
            nic(it).forwarding = Ok(1);
        }),
        ("exit policy", Unknown, "", |it| it.policy = Err(no())),
        ("forwarding", Bad, "weir status", |it| {
            it.config.node.egress = EgressMode::Kernel;
            it.port.weir_runs = true;
            it.policy = Ok(true);
        }),
        ("port", Bad, "ss -ulpn", |it| it.port.free = Err(no())),
        ("firewall", Warning, "udp dport 51820 accept", |it| {
            it.refusals = Ok(vec![nft::Refusal {
                chain: "inet filter input".into(),
                traffic: nft::Traffic::ToPort,
                fix: "nft insert rule inet filter input udp dport 51820 accept".into(),
            }]);
        }),
        ("flow table", Bad, "nf_conntrack_max", |it| {
            it.conntrack = Ok(Conntrack { count: 90_000, max: 100_000 });
        }),
        ("flow table", Warning, "nf_conntrack_max", |it| {
            it.conntrack = Ok(Conntrack { count: 0, max: 8192 });
        }),
        ("clock", Bad, "timesyncd", |it| it.clock.now = 0),
        ("clock", Warning, "timesyncd", |it| it.clock.synchronised = Ok(false)),
        ("disk", Bad, "state_dir", |it| it.disk.free = Ok(1 << 20)),
        ("disk", Warning, "free some space", |it| it.disk.free = Ok(200 << 20)),
        ("fsync", Unknown, "", |it| it.disk.sync = Err(no())),
    ];
    for (check, verdict, fix, break_it) in cases {
        let mut facts = healthy();
        break_it(&mut facts);
        let findings = all(&facts);
        let others: Vec<_> = findings
            .iter()
            .filter(|finding| finding.check != *check && finding.verdict != Verdict::Good)
            .collect();
        assert!(others.is_empty(), "{check}: {others:?}");
        let finding = findings.iter().find(|finding| finding.check == *check).expect(check);
        assert_eq!(finding.verdict, *verdict, "{finding:?}");
        let said = finding.fix.clone().unwrap_or_default();
        assert!(said.contains(fix), "{check}: {said:?} does not say {fix:?}");
        assert!(*verdict == Unknown || finding.fix.is_some(), "{finding:?} says not what to do");
    }
}

#[test]
fn what_the_configuration_does_not_want_is_no_fault() {
    let mut facts = healthy();
    facts.kernel.uring = Err(no());
    facts.config.node.io = IoMode::Syscall;
    nic(&mut facts).xdp = Ok(NO_XDP);
    facts.config.node.xdp = GuardMode::Off;
    nic(&mut facts).has_address = false;
    let endpoint = "node.example:51820".parse().expect("an endpoint");
    facts.config.node.endpoint = Auto::Set(endpoint);
    assert_eq!(Report::from(all(&facts)).verdict, Verdict::Good);
}

#[test]
fn a_running_node_has_its_port_and_its_program() {
    let mut facts = healthy();
    facts.port = Port { number: 51820, free: Err(no()), weir_runs: true };
    facts.policy = Ok(true);
    nic(&mut facts).forwarding = Ok(1);
    nic(&mut facts).attached = Ok(Some("native".into()));
    assert_eq!(Report::from(all(&facts)).verdict, Verdict::Good);
}

#[test]
fn only_a_node_that_exits_through_the_kernel_needs_its_forwarding() {
    let refusal = nft::Refusal {
        chain: "ip filter FORWARD".into(),
        traffic: nft::Traffic::ConsumersOut,
        fix: "iptables -t filter -I FORWARD -i weir0 -j ACCEPT".into(),
    };
    let mut facts = healthy();
    facts.port.weir_runs = true;
    facts.policy = Ok(true);
    facts.refusals = Ok(vec![refusal]);
    nic(&mut facts).attached = Ok(Some("native".into()));
    assert_eq!(Report::from(all(&facts)).verdict, Verdict::Good);
    type Change = fn(&mut Facts);
    let changes: [Change; 4] = [
        |it| it.config.node.egress = EgressMode::Kernel,
        |it| it.config.node.receive = ReceiveMode::Sockets,
        |it| nic(it).attached = Ok(Some("generic".into())),
        |it| nic(it).egress.routes = Ok(Err(no())),
    ];
    for change in changes {
        let mut facts = facts.clone();
        change(&mut facts);
        let findings = all(&facts);
        let verdict = |check| findings.iter().find(|it| it.check == check).expect(check).verdict;
        assert_eq!(verdict("forwarding"), Verdict::Bad);
        assert_eq!(verdict("firewall"), Verdict::Warning);
    }
}

#[test]
fn without_root_nothing_that_takes_root_is_called_bad() {
    let mut facts = healthy();
    facts.kernel.capabilities = Ok(0);
    facts.kernel.guard = Err(Refusal { refused: true, reason: no(), log: vec![] });
    facts.kernel.tun = TunFact::NotTried { device: true, why: no() };
    facts.kernel.nftables = Err(no());
    facts.refusals = Err(no());
    nic(&mut facts).sysctls_writable = Err(no());
    facts.disk.sync = Err(no());
    assert_eq!(Report::from(all(&facts)).verdict, Verdict::Unknown);
}

#[test]
fn without_an_uplink_the_rest_is_still_judged() {
    let mut facts = healthy();
    facts.nic = Err(no());
    let findings = all(&facts);
    let bad: Vec<_> =
        findings.iter().filter(|it| it.verdict != Verdict::Good).map(|it| it.check).collect();
    assert_eq!(bad, ["uplink"]);
    assert!(findings.iter().any(|it| it.check == "disk"));
}

/// What a check found on this machine.
fn found(facts: &Facts, check: &str) -> String {
    let finding = all(facts).into_iter().find(|finding| finding.check == check);
    finding.expect("a finding").found
}

#[test]
fn egress_says_which_way_and_which_setting_chose_it() {
    let mut facts = healthy();
    assert!(found(&facts, "egress").starts_with("bypass"));
    nic(&mut facts).egress.services = Ok(Some("1 host service listens: tcp 50000".into()));
    assert!(found(&facts, "egress").contains("tcp 50000"), "the host's own services are named");
    facts.config.node.receive = ReceiveMode::Sockets;
    assert!(found(&facts, "egress").ends_with("node.receive"));
    facts.config.node.egress = EgressMode::Kernel;
    assert!(found(&facts, "egress").ends_with("node.egress"));
}

#[test]
fn only_virtio_net_is_said_to_lose_super_packets_to_the_guard() {
    let mut facts = healthy();
    assert!(found(&facts, "XDP").contains("downloads"));
    nic(&mut facts).driver = Some("mlx5_core".into());
    assert!(!found(&facts, "XDP").contains("downloads"));
}
