//! What the node changes on a machine, with real packets, in network namespaces.
//!
//! There is no data plane here: the tests write consumers' packets to the TUN device themselves,
//! and read from it what would go to consumers. Needs root.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders,
    TcpOptionElement, TransportHeader, icmpv4, icmpv6,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use weir::{
    config::{Auto, check},
    host::{Host, HostPlan, nft, uplink::Uplink},
};

const CONSUMER_V4: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 7);
const CONSUMER_V6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 7);
const NODE_V4: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 2);
const REMOTE_V4: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 1);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2a00, 2, 0, 0, 0, 0, 0, 1);
const SILENCE: Duration = Duration::from_millis(300);

/// A node's namespace with an uplink to an internet's.
struct Net {
    node: String,
    internet: String,
    runtime: tempfile::TempDir,
}

impl Net {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("whost{}-{number}{end}", std::process::id());
        let (node, internet) = (name("n"), name("i"));
        for name in [&node, &internet] {
            sh(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        }
        sh(&format!(
            "ip -n {node} link add up0 type veth peer name in0 netns {internet}
             ip -n {node} addr add {NODE_V4}/24 dev up0
             ip -n {node} addr add 2a00:1::2/64 dev up0 nodad
             ip -n {node} link set up0 up
             ip -n {internet} addr add 11.0.0.1/24 dev in0
             ip -n {internet} addr add 2a00:1::1/64 dev in0 nodad
             ip -n {internet} addr add {REMOTE_V4}/32 dev lo
             ip -n {internet} addr add {REMOTE_V6}/128 dev lo nodad
             ip -n {internet} link set in0 up
             ip -n {node} route add default via 11.0.0.1
             ip -n {node} -6 route add default via 2a00:1::1
             ip -n {internet} route add 10.66.0.0/16 via {NODE_V4}
             ip -n {internet} -6 route add fd66:7765:6972::/64 via 2a00:1::2"
        ));
        // Until the link-local addresses are settled, no neighbour is found.
        sh(&format!(
            "for name in {node} {internet}; do
                 while ip -n $name -6 addr show tentative | grep -q .; do sleep 0.05; done
             done"
        ));
        let runtime = tempfile::tempdir().expect("a directory");
        Self { node, internet, runtime }
    }

    fn plan(&self, text: &str) -> anyhow::Result<HostPlan> {
        let text = format!(
            "{text}\n[node]\nruntime_dir = {:?}\nmax_sessions = 100",
            self.runtime.path().display().to_string()
        );
        let config = check(&text, None).expect("a right configuration");
        HostPlan::new(&config, Uplink::find(&Auto::Auto)?, 2)
    }

    fn prepare(&self, text: &str) -> Host {
        let plan = self.plan(text).expect("a plan");
        Host::prepare(&plan).expect("the machine is prepared")
    }

    /// Everything of the node's machine that weir could have changed.
    fn snapshot(&self) -> String {
        let enter = format!("nsenter --net=/run/netns/{}", self.node);
        sh(&format!(
            "{enter} ip -o addr; {enter} ip route show table all; {enter} ip -6 route show table all
             {enter} ip rule; {enter} nft list ruleset; {enter} ethtool -k up0
             {enter} sysctl -a --pattern '^net.ipv[46].(conf|ip_forward)' 2>&1"
        ))
        .lines()
        // Times and the neighbours' states pass by themselves.
        .map(|line| line.split(" expires ").next().unwrap_or(line).to_owned() + "\n")
        .collect()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.node, &self.internet] {
            sh(&format!("ip netns del {name}"));
        }
    }
}

/// Fails with the lines that differ.
fn assert_same(before: &str, after: &str) {
    let only = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|it| it == *line)).map(Into::into).collect()
    };
    let (gone, new) = (only(before, after), only(after, before));
    assert!(before == after, "gone: {gone:#?}\nnew: {new:#?}");
}

fn sh(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .stderr(Stdio::inherit())
        .output()
        .expect("sh runs");
    assert!(output.status.success(), "failed: {script}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs something in a thread within a namespace.
fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inner = scope.spawn(|| {
            let namespace = fs::File::open(format!("/run/netns/{name}")).expect("the namespace");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the namespace: run this as root");
            work()
        });
        inner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The TUN device, from the consumers' side.
struct Consumers {
    queues: Vec<fs::File>,
}

impl Consumers {
    fn of(host: &mut Host) -> Self {
        let tun = host.take_tun().expect("a TUN device");
        assert_eq!(tun.queues.len(), 2);
        let consumers =
            Self { queues: tun.queues.into_iter().map(|queue: OwnedFd| queue.into()).collect() };
        while consumers.receive(Duration::ZERO).is_some() {}
        consumers
    }

    fn send(&self, packet: &[u8]) {
        let mut frame = vec![0; 10];
        frame.extend_from_slice(packet);
        (&self.queues[0]).write_all(&frame).expect("the TUN device takes the packet");
    }

    fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + patience;
        loop {
            for mut queue in &self.queues {
                let mut frame = [0; 65536];
                if let Ok(length) = queue.read(&mut frame) {
                    return Some(frame[10..length].to_vec());
                }
            }
            if Instant::now() >= end {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn answer(&self, packet: &[u8]) -> Answer {
        self.send(packet);
        self.receive(SILENCE).map_or(Answer::Silence, |packet| Answer::of(&packet))
    }
}

#[derive(Debug, PartialEq)]
enum Answer {
    Silence,
    Echo,
    Prohibited,
    Reset,
    SynAck { mss: Option<u16> },
    Udp(Vec<u8>),
    TooBig { mtu: u32 },
    Other,
}

impl Answer {
    fn of(packet: &[u8]) -> Self {
        let headers = PacketHeaders::from_ip_slice(packet).expect("an IP packet");
        match &headers.net {
            Some(NetHeaders::Ipv4(ip, _)) => {
                assert_eq!(Ipv4Addr::from(ip.destination), CONSUMER_V4)
            }
            Some(NetHeaders::Ipv6(ip, _)) => {
                assert_eq!(Ipv6Addr::from(ip.destination), CONSUMER_V6)
            }
            other => panic!("not IP: {other:?}"),
        }
        match headers.transport {
            Some(TransportHeader::Icmpv4(icmp)) => match icmp.icmp_type {
                Icmpv4Type::EchoReply(_) => Self::Echo,
                Icmpv4Type::DestinationUnreachable(
                    icmpv4::DestUnreachableHeader::FilterProhibited,
                ) => Self::Prohibited,
                Icmpv4Type::DestinationUnreachable(
                    icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu },
                ) => Self::TooBig { mtu: next_hop_mtu.into() },
                _ => Self::Other,
            },
            Some(TransportHeader::Icmpv6(icmp)) => match icmp.icmp_type {
                Icmpv6Type::EchoReply(_) => Self::Echo,
                Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Prohibited) => {
                    Self::Prohibited
                }
                Icmpv6Type::PacketTooBig { mtu } => Self::TooBig { mtu },
                _ => Self::Other,
            },
            Some(TransportHeader::Tcp(tcp)) if tcp.rst => Self::Reset,
            Some(TransportHeader::Tcp(tcp)) if tcp.syn && tcp.ack => {
                let mss = tcp.options_iterator().flatten().find_map(|option| match option {
                    TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
                    _ => None,
                });
                Self::SynAck { mss }
            }
            Some(TransportHeader::Udp(_)) => Self::Udp(headers.payload.slice().to_vec()),
            _ => Self::Other,
        }
    }
}

fn ping(from: impl Into<IpAddr>, to: impl Into<IpAddr>, length: usize) -> Vec<u8> {
    let echo = IcmpEchoHeader { id: 7, seq: 1 };
    let payload = vec![0; length];
    let mut packet = Vec::new();
    let written = match (from.into(), to.into()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            .icmpv4(Icmpv4Type::EchoRequest(echo))
            .write(&mut packet, &payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            .icmpv6(Icmpv6Type::EchoRequest(echo))
            .write(&mut packet, &payload),
        other => panic!("two families: {other:?}"),
    };
    written.expect("a packet");
    packet
}

fn syn(to: impl Into<IpAddr>, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let options = [TcpOptionElement::MaximumSegmentSize(8960)];
    let written = match to.into() {
        IpAddr::V4(to) => PacketBuilder::ipv4(CONSUMER_V4.octets(), to.octets(), 64)
            .tcp(40000, port, 1, 65000)
            .syn()
            .options(&options)
            .expect("options")
            .write(&mut packet, &[]),
        IpAddr::V6(to) => PacketBuilder::ipv6(CONSUMER_V6.octets(), to.octets(), 64)
            .tcp(40000, port, 1, 65000)
            .syn()
            .options(&options)
            .expect("options")
            .write(&mut packet, &[]),
    };
    written.expect("a packet");
    packet
}

fn udp(to: Ipv4Addr, source_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(CONSUMER_V4.octets(), to.octets(), 64)
        .udp(source_port, port)
        .write(&mut packet, payload)
        .expect("a packet");
    packet
}

/// The counters that are not zero.
fn counted() -> Vec<(String, u64)> {
    let counters = nft::read_counters().expect("counters");
    assert_eq!(counters.len(), nft::COUNTERS.len());
    let counters = counters.into_iter().filter(|counter| counter.packets > 0);
    counters.map(|counter| (counter.name, counter.packets)).collect()
}

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

#[test]
fn consumers_reach_the_internet_by_every_protocol() {
    let net = Net::new();
    inside(&net.internet, || {
        let echo = UdpSocket::bind((REMOTE_V4, 7)).expect("a socket");
        let _listener = TcpListener::bind((REMOTE_V4, 80)).expect("a socket");
        let _listener6 = TcpListener::bind((REMOTE_V6, 80)).expect("a socket");
        inside(&net.node, || {
            let mut host = net.prepare("");
            let consumers = Consumers::of(&mut host);
            assert_eq!(consumers.answer(&ping(CONSUMER_V4, REMOTE_V4, 8)), Answer::Echo);
            assert_eq!(consumers.answer(&ping(CONSUMER_V6, REMOTE_V6, 8)), Answer::Echo);
            // The segments that come back fit the tunnel: 1420 less 40 or 60 of headers.
            let v4 = consumers.answer(&syn(REMOTE_V4, 80));
            assert_eq!(v4, Answer::SynAck { mss: Some(1380) });
            let v6 = consumers.answer(&syn(REMOTE_V6, 80));
            assert_eq!(v6, Answer::SynAck { mss: Some(1360) });
            // A flow whose port is the node's own is translated to another one.
            consumers.send(&udp(REMOTE_V4, 51820, 7, b"out"));
            let mut buffer = [0; 100];
            echo.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
            let (length, from) = echo.recv_from(&mut buffer).expect("the datagram");
            assert_eq!(&buffer[..length], b"out");
            assert_eq!(from.ip(), IpAddr::V4(NODE_V4));
            assert_ne!(from.port(), 51820);
            echo.send_to(b"back", from).expect("sent");
            let back = consumers.receive(SILENCE).expect("an answer");
            assert_eq!(Answer::of(&back), Answer::Udp(b"back".to_vec()));
            // The gateway answers pings, and nothing else.
            assert_eq!(
                consumers.answer(&ping(CONSUMER_V4, Ipv4Addr::new(10, 66, 0, 1), 8)),
                Answer::Echo
            );
            assert_eq!(counted(), []);
        });
    });
}

#[test]
fn what_consumers_must_not_reach_is_refused_and_counted_by_name() {
    let net = Net::new();
    inside(&net.node, || {
        let block =
            "[policy]\nblock = [\"12.7.0.0/16\"]\nblocked_ports = [\"25/tcp\", \"445/tcp\"]";
        let mut host = net.prepare(block);
        let consumers = Consumers::of(&mut host);
        sh(&format!(
            "ip -n {0} link add other0 type veth peer name other1; ip -n {0} link set other0 up; ip -n {0} link set other1 up
             ip -n {0} route add 13.0.0.0/24 dev other0",
            net.node
        ));
        let v4 = |text: &str| ping(CONSUMER_V4, text.parse::<Ipv4Addr>().expect("an address"), 8);
        let v6 = |text: &str| ping(CONSUMER_V6, text.parse::<Ipv6Addr>().expect("an address"), 8);
        let foreign_v4 = ping(Ipv4Addr::new(11, 0, 0, 77), REMOTE_V4, 8);
        let foreign_v6 = ping(Ipv6Addr::new(0x2a00, 9, 0, 0, 0, 0, 0, 1), REMOTE_V6, 8);
        sh(&format!(
            "ip netns exec {} nft 'table inet test {{ counter got {{}}; chain got {{
                 type filter hook prerouting priority raw
                 icmp type echo-request counter name got
                 icmpv6 type echo-request counter name got
                 tcp flags syn counter name got
             }}; }}'",
            net.internet
        ));
        // The kernel limits how many ICMP errors it sends to one address.
        fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").expect("written");
        fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").expect("written");
        let arrived =
            || sh(&format!("ip netns exec {} nft list counter inet test got", net.internet));
        use Answer::{Prohibited, Reset, Silence};
        let mut total = std::collections::BTreeMap::<&str, u64>::new();
        for (what, packet, answer, counter) in [
            ("a foreign source", foreign_v4, Silence, "spoofed"),
            ("a foreign source, IPv6", foreign_v6, Silence, "spoofed"),
            ("another consumer", v4("10.66.0.8"), Prohibited, "consumer_to_consumer"),
            ("another consumer, IPv6", v6("fd66:7765:6972::8"), Prohibited, "consumer_to_consumer"),
            ("another interface", v4("13.0.0.1"), Prohibited, "not_uplink"),
            ("RFC 1918", v4("10.0.0.1"), Prohibited, "private_destination"),
            ("RFC 1918", v4("172.31.255.255"), Prohibited, "private_destination"),
            ("RFC 1918", v4("192.168.1.1"), Prohibited, "private_destination"),
            ("CGNAT", v4("100.100.100.200"), Prohibited, "private_destination"),
            ("link-local", v4("169.254.7.7"), Prohibited, "private_destination"),
            ("metadata", v4("169.254.169.254"), Prohibited, "metadata_destination"),
            ("metadata of Azure", v4("168.63.129.16"), Prohibited, "metadata_destination"),
            ("documentation", v4("203.0.113.7"), Prohibited, "reserved_destination"),
            ("benchmarks", v4("198.19.0.1"), Prohibited, "reserved_destination"),
            ("unique local", v6("fd00:ec2::254"), Prohibited, "private_destination"),
            ("documentation, IPv6", v6("2001:db8::7"), Prohibited, "reserved_destination"),
            ("6to4", v6("2002:a00:1::1"), Prohibited, "reserved_destination"),
            ("the operator's block", v4("12.7.1.1"), Prohibited, "blocked_destination"),
            ("mail", syn(REMOTE_V4, 25), Reset, "smtp"),
            ("mail, IPv6", syn(REMOTE_V6, 25), Reset, "smtp"),
            ("SMB", syn(REMOTE_V4, 445), Reset, "blocked_port"),
            ("the gateway's TCP", syn(Ipv4Addr::new(10, 66, 0, 1), 22), Reset, "host_destination"),
            ("the host", v4("11.0.0.2"), Prohibited, "host_destination"),
            ("the host, IPv6", v6("2a00:1::2"), Prohibited, "host_destination"),
        ] {
            let found = consumers.answer(&packet);
            *total.entry(counter).or_default() += 1;
            let expected: Vec<_> = nft::COUNTERS
                .iter()
                .filter_map(|(name, _)| Some(((*name).to_owned(), *total.get(name)?)))
                .collect();
            assert_eq!(counted(), expected, "{what}");
            assert_eq!(found, answer, "{what}");
        }
        assert!(arrived().contains("packets 0 "), "{}", arrived());
        // The exit policy is replaced as a whole, and its counters go on.
        let before = counted();
        nft::apply(&net.plan("").expect("a plan").policy).expect("replaced");
        assert_eq!(counted(), before);
        assert_eq!(consumers.answer(&ping(CONSUMER_V4, REMOTE_V4, 8)), Answer::Echo);
        assert!(arrived().contains("packets 1 "), "{}", arrived());
    });
}

#[test]
fn an_allowed_network_within_the_refused_ranges_is_reached() {
    let net = Net::new();
    sh(&format!("ip -n {} addr add 192.168.7.1/32 dev lo", net.internet));
    sh(&format!("ip -n {} addr add 192.168.8.1/32 dev lo", net.internet));
    inside(&net.node, || {
        let mut host = net.prepare("[policy]\nallow = [\"192.168.7.0/24\"]");
        let consumers = Consumers::of(&mut host);
        let allowed = ping(CONSUMER_V4, Ipv4Addr::new(192, 168, 7, 1), 8);
        assert_eq!(consumers.answer(&allowed), Answer::Echo);
        let refused = ping(CONSUMER_V4, Ipv4Addr::new(192, 168, 8, 1), 8);
        assert_eq!(consumers.answer(&refused), Answer::Prohibited);
    });
}

#[test]
fn nobody_outside_reaches_a_consumer_that_did_not_ask() {
    let net = Net::new();
    inside(&net.node, || {
        let mut host = net.prepare("");
        let consumers = Consumers::of(&mut host);
        let internet = &net.internet;
        for target in ["10.66.0.7", "fd66:7765:6972::7", "10.66.0.1", "fd66:7765:6972::1"] {
            let pings = format!("nsenter --net=/run/netns/{internet} ping -c1 -W1 {target}");
            let status = Command::new("sh").args(["-c", &pings]).stdout(Stdio::null()).status();
            assert!(!status.expect("ping runs").success(), "{target} answered");
        }
        assert_eq!(consumers.receive(SILENCE), None);
        assert_eq!(counted(), [("inbound".to_owned(), 4)]);
    });
}

#[test]
fn errors_of_a_narrower_path_reach_the_consumer() {
    let net = Net::new();
    sh(&format!(
        "i='ip -n {0}'; $i link add narrow0 mtu 1300 type veth peer name narrow1; $i link set narrow0 up; $i link set narrow1 up
         $i addr add 12.1.0.1/24 dev narrow0; $i addr add 2a00:3::1/64 dev narrow0 nodad
         nsenter --net=/run/netns/{0} sysctl -qw net.ipv4.ip_forward=1
         nsenter --net=/run/netns/{0} sysctl -qw net.ipv6.conf.all.forwarding=1",
        net.internet
    ));
    inside(&net.node, || {
        let mut host = net.prepare("");
        let consumers = Consumers::of(&mut host);
        let v4 = ping(CONSUMER_V4, Ipv4Addr::new(12, 1, 0, 9), 1372);
        assert_eq!(consumers.answer(&v4), Answer::TooBig { mtu: 1300 });
        let v6 = ping(CONSUMER_V6, Ipv6Addr::new(0x2a00, 3, 0, 0, 0, 0, 0, 9), 1372);
        assert_eq!(consumers.answer(&v6), Answer::TooBig { mtu: 1300 });
    });
}

/// Not a test: the process that [`what_a_killed_run_left_is_taken_over`] kills.
#[test]
#[ignore = "run by another test"]
fn prepare_and_wait() {
    let runtime = std::env::var("WEIR_TEST_RUNTIME").expect("run by another test");
    let text = format!("[node]\nruntime_dir = {runtime:?}");
    let config = check(&text, None).expect("a right configuration");
    let uplink = Uplink::find(&Auto::Auto).expect("an uplink");
    let _host =
        Host::prepare(&HostPlan::new(&config, uplink, 2).expect("a plan")).expect("prepared");
    fs::write(Path::new(&runtime).join("ready"), "").expect("written");
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn what_a_killed_run_left_is_taken_over() {
    let net = Net::new();
    let before = net.snapshot();
    let ready = net.runtime.path().join("ready");
    for _ in 0..2 {
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", net.node))
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", "prepare_and_wait", "--ignored"])
            .env("WEIR_TEST_RUNTIME", net.runtime.path())
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
fn a_table_that_drops_what_it_does_not_know_is_named() {
    let net = Net::new();
    inside(&net.node, || {
        sh(&format!(
            "ip netns exec {} nft 'table ip filter {{ chain FORWARD {{
                 type filter hook forward priority 0; policy drop; }}; }}'",
            net.node
        ));
        let host = net.prepare("");
        let named = |note: &String| note.contains("(ip filter FORWARD)") && note.contains("weir0");
        assert!(host.notes.iter().any(named), "{:?}", host.notes);
    });
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
        assert!(taken.contains("there is an interface \"weir0\" already"), "{taken}");
        sh(&format!("ip -n {} link del weir0", net.node));
        sh(&format!("ip -n {} link set up0 mtu 1400", net.node));
        let mtu = refused("");
        assert!(mtu.contains("write mtu = 1320, the largest that fits"), "{mtu}");
        sh(&format!("ip -n {} link set up0 mtu 1500", net.node));
        let uplink = Uplink::find(&Auto::Set("nope0".into())).expect_err("unknown").to_string();
        assert!(
            uplink.contains("there is no interface \"nope0\"") && uplink.contains("up0"),
            "{uplink}"
        );
    });
    assert_same(&before, &net.snapshot());
    inside(&net.node, || {
        sh(&format!("ip -n {0} route del default; ip -n {0} -6 route del default", net.node));
        let none = Uplink::find(&Auto::Auto).expect_err("no route").to_string();
        assert!(none.contains("no default route"), "{none}");
    });
}
