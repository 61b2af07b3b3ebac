//! This machine's other firewalls, and its other networks.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    time::Instant,
};

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use weir_host::{
    nft::{self, Site, Traffic},
    watch,
};

use super::{
    CONSUMER_V4, NODE_V4, REMOTE_V4, SILENCE,
    consumers::Consumers,
    net::{Net, inside, sh},
    policy::counted,
};

/// Has `nft` carry out a text in a namespace.
fn install(namespace: &str, text: &str) {
    sh(&format!("nsenter --net=/run/netns/{namespace} nft -f - <<'END'\n{text}\nEND"));
}

#[test]
fn a_chain_that_refuses_the_nodes_packets_is_named_and_a_usual_one_is_not() {
    use Traffic::{ConsumersIn, ConsumersOut, FromPort, ToPort};
    const INPUT: &str = "type filter hook input priority 0; policy drop; ct state \
                         established,related accept\n iif lo accept\n tcp dport 22 accept\n";
    const OUTPUT: &str = "type filter hook output priority 0; policy drop;\n";
    const FORWARD: &str = "type filter hook forward priority 10; policy accept;\n ct state \
                           established,related accept\n ct state invalid drop\n";
    const STATES: &str = "ct state vmap { established : accept, related : accept, invalid : drop }";
    let cases: Vec<(String, Vec<Traffic>)> = vec![
        (INPUT.into(), vec![ToPort]),
        (format!("{INPUT} udp dport 51820 ct state new accept"), vec![]),
        (format!("{INPUT} udp dport 51821 accept"), vec![ToPort]),
        (format!("{INPUT} udp dport {{ 53, 51000-52000 }} accept"), vec![]),
        (format!("{INPUT} meta l4proto {{ tcp, udp }} th dport {{ 80, 51820 }} accept"), vec![]),
        (format!("{INPUT} iifname \"up*\" meta l4proto udp accept"), vec![]),
        (format!("{INPUT} iif up0 udp dport != 53 accept"), vec![]),
        (format!("{INPUT} udp dport 51820 meta skuid 7 accept"), vec![]),
        (format!("{INPUT} udp dport 51820 limit rate 9/second accept"), vec![]),
        (format!("{INPUT} udp dport 51820 ip saddr 9.9.9.0/24 accept"), vec![ToPort]),
        (format!("{INPUT} udp dport vmap {{ 53 : accept, 51820 : jump ours }}"), vec![]),
        (
            "type filter hook input priority 0; policy accept;\n limit rate over 1/hour drop\n \
             ip saddr 10.0.0.0/8 drop\n udp dport 51820 drop"
                .into(),
            vec![ToPort],
        ),
        (format!("{OUTPUT} {STATES}"), vec![]),
        (OUTPUT.into(), vec![FromPort]),
        (format!("{OUTPUT} udp sport 51820 accept"), vec![]),
        (FORWARD.into(), vec![]),
        (format!("{FORWARD} reject with icmpx admin-prohibited"), vec![ConsumersOut]),
        (format!("{FORWARD} goto ours"), vec![]),
        (format!("{FORWARD} iifname \"weir0\" accept\n drop"), vec![]),
        (
            format!("{FORWARD} iifname vmap {{ \"eth7\" : accept, \"up0\" : accept }}\n drop"),
            vec![ConsumersOut],
        ),
        (
            "type filter hook forward priority 0; policy drop;".into(),
            vec![ConsumersOut, ConsumersIn],
        ),
        (
            "type filter hook forward priority 0; policy drop; oifname weir0 accept\n ip saddr \
             10.66.0.0/16 accept\n ip6 saddr fd66:7765:6972::/64 accept"
                .into(),
            vec![],
        ),
        (
            "type filter hook forward priority 0; policy drop; oifname weir0 accept\n ip saddr \
             10.66.0.0/16 accept"
                .into(),
            vec![ConsumersOut],
        ),
    ];
    let net = Net::new();
    inside(&net.node, || {
        let host = net.prepare("");
        let site = Site::of_policy(&net.plan("").expect("a plan").policy);
        for (rules, expected) in cases {
            install(
                &net.node,
                &format!(
                    "table inet theirs {{\n chain ours {{\n accept\n }}\n chain closed {{\n \
                     {rules}\n }}\n}}"
                ),
            );
            let found = nft::foreign_drops(&site).expect("the kernel says");
            let traffic: Vec<_> = found.iter().map(|it| it.traffic).collect();
            assert_eq!(traffic, expected, "{rules}\n{found:?}");
            // The line to type helps.
            for refusal in &found {
                assert_eq!(refusal.chain, "inet theirs closed");
                sh(&refusal.fix);
            }
            assert_eq!(nft::foreign_drops(&site).expect("the kernel says"), [], "{rules}");
            sh("nft delete table inet theirs");
        }
        drop(host);
    });
}

/// What a server at the node's port says to somebody of the internet who asks this port.
fn ask(net: &Net, port: u16) -> Option<u16> {
    let server = UdpSocket::bind((NODE_V4, 51820)).expect("the node's port");
    server.set_read_timeout(Some(SILENCE)).expect("a timeout");
    inside(&net.internet, || {
        let client = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        client.set_read_timeout(Some(SILENCE)).expect("a timeout");
        client.send_to(b"ping", (NODE_V4, port)).expect("sent");
        let (_, from) = server.recv_from(&mut [0; 9]).ok()?;
        server.send_to(b"pong", from).ok()?;
        client.recv_from(&mut [0; 9]).ok().map(|(_, from)| from.port())
    })
}

#[test]
fn usual_firewalls_around_the_nodes_port_leave_it_open() {
    let net = Net::new();
    let usual = [
        "chain in { type filter hook input priority 0; policy drop; ct state established,related \
         accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; udp dport 51820 \
         ct state new accept; }",
        "chain out { type filter hook output priority 0; policy drop; ct state established,related \
         accept; meta l4proto ipv6-icmp accept; }",
    ];
    inside(&net.node, || {
        let host = net.prepare("");
        assert_eq!(ask(&net, 51820), Some(51820));
        for rules in usual {
            install(&net.node, &format!("table inet theirs {{ {rules}; }}"));
            assert_eq!(ask(&net, 51820), Some(51820), "{rules}");
            sh("nft delete table inet theirs");
        }
        // Another port is redirected to the node's.
        install(
            &net.node,
            "table ip hop { chain pre { type nat hook prerouting priority dstnat; udp dport 443 \
             redirect to :51820; }; }",
        );
        assert_eq!(ask(&net, 443), Some(443));
        // Initiations beyond the limit are not tracked, and arrive all the same.
        let server = UdpSocket::bind((NODE_V4, 51820)).expect("the node's port");
        server.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let flows = || sh("grep -c dport=51820 /proc/thread-self/net/nf_conntrack || true");
        let (mut sent, mut arrived) = (0, 0);
        let began = Instant::now();
        inside(&net.internet, || {
            for _ in 0..6000 {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                socket.send_to(&[1; 148], (NODE_V4, 51820)).expect("sent");
                sent += 1;
                arrived += usize::from(server.recv_from(&mut [0; 200]).is_ok());
            }
        });
        assert_eq!((sent, arrived), (6000, 6000));
        let flows: u32 = flows().trim().parse().expect("a number");
        let tracked = 4096 + 100 * (began.elapsed().as_secs() as u32 + 1);
        assert!(flows <= tracked, "{flows} flows of 6000 sources, and no more than {tracked}");
        drop(host);
    });
}

#[test]
fn a_stray_segment_of_a_consumers_connection_is_not_answered_by_this_machine() {
    let net = Net::new();
    inside(&net.internet, || {
        let listener = TcpListener::bind((REMOTE_V4, 80)).expect("a socket");
        install(
            &net.internet,
            "table inet see { counter resets {}; chain in { type filter hook prerouting priority \
             raw; tcp flags & rst == rst counter name resets; }; }",
        );
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
            .expect("a raw socket");
        inside(&net.node, || {
            let mut host = net.prepare("");
            let consumers = Consumers::of(&mut host);
            consumers.send(&super::consumers::syn(REMOTE_V4, 80));
            let answer = consumers.receive(SILENCE).expect("an answer");
            let answer = etherparse::TcpHeaderSlice::from_slice(&answer[20..]).expect("TCP");
            let next = answer.sequence_number() + 1;
            let segment = |from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16), seq, ack, data| {
                let mut packet = Vec::new();
                PacketBuilder::ipv4(from.octets(), to.octets(), 64)
                    .tcp(ports.0, ports.1, seq, 65000)
                    .ack(ack)
                    .write(&mut packet, data)
                    .expect("a packet");
                packet
            };
            consumers.send(&segment(CONSUMER_V4, REMOTE_V4, (40000, 80), 2, next, b""));
            let (_connection, peer) = listener.accept().expect("a connection");
            // Far beyond the window.
            let beyond = next.wrapping_add(400_000_000);
            let unrelated = segment(REMOTE_V4, NODE_V4, (80, peer.port()), beyond, 2, b"xx");
            raw.send_to(&unrelated, &SocketAddr::from((NODE_V4, 0)).into()).expect("sent");
            // What is behind it has arrived by then.
            let ping = super::consumers::ping(CONSUMER_V4, REMOTE_V4, 8);
            assert_eq!(consumers.answer(&ping), super::consumers::Answer::Echo);
            assert_eq!(counted(), [("invalid_answer".to_owned(), 1)]);
            // The connection is open still: what ends it resets it.
            let resets = inside(&net.internet, || sh("nft list counter inet see resets"));
            assert!(resets.contains("packets 0 "), "{resets}");
        });
    });
}

#[test]
fn the_tables_of_legacy_iptables_are_looked_through() {
    let net = Net::new();
    inside(&net.node, || {
        let host = net.prepare("");
        let site = Site::of_policy(&net.plan("").expect("a plan").policy);
        assert_eq!(nft::foreign_drops(&site).expect("the kernel says"), []);
        sh("iptables-legacy -P FORWARD DROP");
        let found = nft::foreign_drops(&site).expect("the kernel says");
        let traffic: Vec<_> = found.iter().map(|it| it.traffic).collect();
        assert_eq!(traffic, [Traffic::ConsumersOut, Traffic::ConsumersIn], "{found:?}");
        for refusal in &found {
            assert_eq!(refusal.chain, "iptables-legacy filter FORWARD");
            sh(&refusal.fix);
        }
        assert_eq!(nft::foreign_drops(&site).expect("the kernel says"), []);
        drop(host);
    });
}

#[test]
fn a_chain_of_iptables_is_named_with_the_command_that_opens_it() {
    let net = Net::new();
    inside(&net.node, || {
        install(
            &net.node,
            "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }",
        );
        let host = net.prepare("");
        // The watch over the machine names it, while it is there.
        assert!(!host.notes.iter().any(|note| note.contains("chain")), "{:?}", host.notes);
        let site = Site::of_policy(&net.plan("").expect("a plan").policy);
        let found = watch::firewalls(&site).expect("the kernel says");
        let [condition] = &found[..] else { panic!("one for the chain: {found:?}") };
        let said = condition.to_string();
        let refuses = "the firewall's chain ip filter FORWARD refuses traffic from consumers";
        assert!(said.contains(refuses), "{said}");
        assert!(said.contains("iptables -t filter -I FORWARD -i weir0 -j ACCEPT"), "{said}");
        assert!(said.contains("iptables -t filter -I FORWARD -o weir0 -j ACCEPT"), "{said}");
    });
}

#[test]
fn a_machine_that_was_no_router_becomes_none_for_its_neighbours() {
    let net = Net::new();
    let inner = format!("{}x", net.node);
    sh(&format!(
        "ip netns add {inner}; ip -n {inner} link set lo up
         ip -n {0} link add lan0 type veth peer name lan1 netns {inner}
         ip -n {0} addr add 10.9.9.1/24 dev lan0; ip -n {0} addr add fd09::1/64 dev lan0 nodad
         ip -n {0} link set lan0 up
         ip -n {inner} addr add 10.9.9.2/24 dev lan1; ip -n {inner} addr add fd09::2/64 dev lan1 nodad
         ip -n {inner} link set lan1 up
         ip -n {inner} route add default via 10.9.9.1; ip -n {inner} -6 route add default via fd09::1
         ip -n {1} route add 10.9.9.0/24 via {NODE_V4}; ip -n {1} -6 route add fd09::/64 via 2a00:1::2
         while ip -n {inner} -6 addr show tentative | grep -q .; do sleep 0.05; done",
        net.node, net.internet
    ));
    let listeners = inside(&inner, || {
        ["10.9.9.2:9", "[fd09::2]:9"].map(|address| {
            let socket = UdpSocket::bind(address).expect("a socket");
            socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
            socket
        })
    });
    // Which of the two families gets through.
    let reached = || {
        inside(&net.internet, || {
            let sockets = ["0.0.0.0:0", "[::]:0"].map(|it| UdpSocket::bind(it).expect("a socket"));
            for (socket, target) in sockets.iter().zip(["10.9.9.2:9", "[fd09::2]:9"]) {
                socket.send_to(b"hello", target).expect("sent");
            }
        });
        listeners.each_ref().map(|socket| match socket.recv(&mut [0; 9]) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        })
    };
    inside(&net.node, || {
        assert_eq!(reached(), [false, false], "the machine is a router already");
        let mut host = net.prepare("");
        assert_eq!(reached(), [false, false]);
        assert_eq!(counted(), [("transit".to_owned(), 2)]);
        // Consumers are forwarded.
        let consumers = Consumers::of(&mut host);
        let ping = super::consumers::ping(CONSUMER_V4, REMOTE_V4, 8);
        assert_eq!(consumers.answer(&ping), super::consumers::Answer::Echo);
        // What somebody translates on purpose passes, as a container's port.
        install(
            &net.node,
            "table ip hop { chain pre { type nat hook prerouting priority dstnat; udp dport 99 dnat \
             to 10.9.9.2:9; }; }",
        );
        inside(&net.internet, || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.send_to(b"hello", (NODE_V4, 99)).expect("sent");
        });
        listeners[0].recv(&mut [0; 9]).expect("the container's port is reached");
        // A run that is killed leaves forwarding on: the next one knows that it was weir's.
        drop(consumers);
        let changes = net.runtime.path().join("changes.json");
        let left = std::fs::read(&changes).expect("the list of changes");
        host.undo().expect("undone");
        for parameter in ["ipv4/conf/up0/forwarding", "ipv6/conf/up0/force_forwarding"] {
            // Before Linux 6.17 there is no such switch, and all/forwarding is on the list.
            let path = format!("/proc/sys/net/{parameter}");
            if std::path::Path::new(&path).exists() {
                std::fs::write(path, "1").expect("written");
            }
        }
        std::fs::write(&changes, left).expect("written");
        let host = net.prepare("");
        assert_eq!(reached(), [false, false], "after a run that was killed");
        host.undo().expect("undone");
        // A machine that is a router stays one.
        for everywhere in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{everywhere}"), "1").expect("written");
        }
        assert_eq!(reached(), [true, true]);
        let host = net.prepare("");
        assert_eq!(reached(), [true, true]);
        host.undo().expect("undone");
    });
    sh(&format!("ip netns del {inner}"));
}
