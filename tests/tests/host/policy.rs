//! What consumers reach, and who reaches them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    process::{Command, Stdio},
    time::Duration,
};

use weir_host::nft;

use super::{
    CONSUMER_V4, CONSUMER_V6, NODE_V4, REMOTE_V4, REMOTE_V6, SILENCE,
    consumers::{Answer, Consumers, ping, syn, udp},
    net::{Net, inside, sh},
};

/// The counters that are not zero.
pub(crate) fn counted() -> Vec<(String, u64)> {
    let counters = nft::read_counters().expect("counters");
    assert_eq!(counters.len(), nft::COUNTERS.len());
    let counters = counters.into_iter().filter(|counter| counter.packets > 0);
    counters.map(|counter| (counter.name, counter.packets)).collect()
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
