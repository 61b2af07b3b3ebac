//! The kernel's flow table: a consumer has a share of it, and leaves nothing there.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use etherparse::PacketBuilder;
use weir_host::{
    conntrack::Conntrack,
    nft::{self, Look, NewFlows},
};

use super::{
    CONSUMER_V4, CONSUMER_V6, NODE_V4, REMOTE_V4, REMOTE_V6, SILENCE,
    consumers::{Answer, Consumers, ping, syn},
    net::{Net, inside, sh},
    policy::counted,
};

/// Of another consumer, and of the node.
const OTHER_V4: [u8; 4] = [10, 66, 0, 8];

fn flows() -> Conntrack {
    Conntrack {
        pool_v4: "10.66.0.0/16".parse().expect("a network"),
        pool_v6: "fd66:7765:6972::/64".parse().expect("a network"),
        gateways: ["10.66.0.1", "fd66:7765:6972::1"].map(|it| it.parse().expect("an address")),
    }
}

fn udp_from(from: IpAddr, to: IpAddr, source_port: u16, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let written = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            .udp(source_port, port)
            .write(&mut packet, b"out"),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            .udp(source_port, port)
            .write(&mut packet, b"out"),
        other => panic!("two families: {other:?}"),
    };
    written.expect("a packet");
    packet
}

/// A server of the internet that remembers who asked last.
struct Server(UdpSocket);

impl Server {
    fn new(address: impl Into<IpAddr>) -> Self {
        let socket = UdpSocket::bind((address.into(), 7)).expect("a socket");
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
        Self(socket)
    }

    fn asked_by(&self) -> Option<SocketAddr> {
        match self.0.recv_from(&mut [0; 100]) {
            Ok((_, from)) => Some(from),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_consumer_has_no_more_flows_than_its_share_and_others_go_on() {
    let net = Net::new();
    inside(&net.internet, || {
        let servers = [Server::new(REMOTE_V4), Server::new(REMOTE_V6)];
        inside(&net.node, || {
            let mut host = net.prepare("[limits]\nsession_flows = 5");
            let consumers = Consumers::of(&mut host);
            let pairs: [(IpAddr, IpAddr); 2] =
                [(CONSUMER_V4.into(), REMOTE_V4.into()), (CONSUMER_V6.into(), REMOTE_V6.into())];
            for ((from, to), server) in pairs.into_iter().zip(&servers) {
                for port in 1000..1009 {
                    // A flow takes one place, however often it asks.
                    for _ in 0..3 {
                        consumers.send(&udp_from(from, to, port, 7));
                    }
                }
                let passed = std::iter::from_fn(|| server.asked_by()).count();
                assert_eq!(passed, 15, "{from}");
            }
            assert_eq!(counted(), [("session_flows".to_owned(), 2 * 4 * 3)]);
            // Another consumer, and the host.
            consumers.send(&udp_from(OTHER_V4.into(), REMOTE_V4.into(), 1000, 7));
            assert!(servers[0].asked_by().is_some(), "another consumer finds no place");
            let own = UdpSocket::bind((NODE_V4, 0)).expect("a socket");
            own.send_to(b"own", (REMOTE_V4, 7)).expect("sent");
            assert!(servers[0].asked_by().is_some(), "the host finds no place");
            // What has been counted stays when the rules are replaced.
            let plan = net.plan("[limits]\nsession_flows = 5").expect("a plan");
            nft::apply(&plan.policy).expect("replaced");
            consumers.send(&udp_from(CONSUMER_V4.into(), REMOTE_V4.into(), 2000, 7));
            assert_eq!(servers[0].asked_by(), None);
            // The next consumer of the address has its whole share.
            flows().forget(&[(CONSUMER_V4, CONSUMER_V6)]).expect("forgotten");
            for port in 3000..3005 {
                consumers.send(&udp_from(CONSUMER_V4.into(), REMOTE_V4.into(), port, 7));
            }
            assert_eq!(std::iter::from_fn(|| servers[0].asked_by()).count(), 5);
        });
    });
}

#[test]
fn a_nearly_full_table_takes_no_new_flows_of_consumers_and_those_of_the_host() {
    let net = Net::new();
    inside(&net.internet, || {
        let server = Server::new(REMOTE_V4);
        inside(&net.node, || {
            let mut host = net.prepare("");
            let consumers = Consumers::of(&mut host);
            let ask = |port| {
                consumers.send(&udp_from(CONSUMER_V4.into(), REMOTE_V4.into(), port, 7));
                server.asked_by()
            };
            let open = ask(1000);
            assert!(open.is_some());
            let in_force = host.policy().expect("the exit policy");
            in_force.set_new_flows(NewFlows::Refused).expect("closed");
            assert_eq!(ask(1001), None);
            assert_eq!(ask(1000), open, "an open flow goes on");
            // What weir and packets change in the table is no interference with it.
            assert_eq!(in_force.look(None).expect("the kernel says"), Look::Intact);
            // It stays so when the rules are replaced.
            nft::apply(&net.plan("").expect("a plan").policy).expect("replaced");
            assert_eq!(ask(1002), None);
            assert_eq!(counted(), [("flow_table".to_owned(), 2)]);
            let own = UdpSocket::bind((NODE_V4, 0)).expect("a socket");
            own.send_to(b"own", (REMOTE_V4, 7)).expect("sent");
            assert!(server.asked_by().is_some(), "the host finds no place");
            in_force.set_new_flows(NewFlows::Accepted).expect("open");
            assert!(ask(1003).is_some());
        });
    });
}

#[test]
fn a_consumers_flows_go_by_every_protocol_and_those_of_others_stay() {
    let net = Net::new();
    inside(&net.internet, || {
        let servers = [Server::new(REMOTE_V4), Server::new(REMOTE_V6)];
        let _listener = TcpListener::bind((REMOTE_V4, 80)).expect("a socket");
        let _listener6 = TcpListener::bind((REMOTE_V6, 80)).expect("a socket");
        inside(&net.node, || {
            let mut host = net.prepare("");
            let consumers = Consumers::of(&mut host);
            let open = || {
                consumers.send(&udp_from(CONSUMER_V4.into(), REMOTE_V4.into(), 1000, 7));
                consumers.send(&udp_from(CONSUMER_V6.into(), REMOTE_V6.into(), 1000, 7));
                for packet in [syn(REMOTE_V4, 80), syn(REMOTE_V6, 80)] {
                    assert!(matches!(consumers.answer(&packet), Answer::SynAck { .. }));
                }
                for packet in [ping(CONSUMER_V4, REMOTE_V4, 8), ping(CONSUMER_V6, REMOTE_V6, 8)] {
                    assert_eq!(consumers.answer(&packet), Answer::Echo);
                }
                let asked = servers.each_ref().map(|it| it.asked_by().expect("a datagram"));
                consumers.send(&udp_from(OTHER_V4.into(), REMOTE_V4.into(), 1000, 7));
                (asked, servers[0].asked_by().expect("a datagram of the other"))
            };
            let of_consumer = || {
                let table = sh("cat /proc/thread-self/net/nf_conntrack");
                let is_theirs = |line: &&str| {
                    line.contains(&format!("src={CONSUMER_V4} "))
                        || line.contains("src=fd66:7765:6972:0000:0000:0000:0000:0007 ")
                };
                table.lines().filter(is_theirs).count()
            };
            let ends: [(&str, fn()); 2] = [
                ("removed", || {
                    flows().forget(&[(CONSUMER_V4, CONSUMER_V6)]).expect("forgotten");
                }),
                ("no session's any more", || {
                    let others = (OTHER_V4.into(), "fd66:7765:6972::8".parse().expect("one"));
                    flows().forget_all_but(&[others]).expect("forgotten");
                }),
            ];
            for (how, end) in ends {
                let (asked, other) = open();
                assert_eq!(of_consumer(), 6, "{how}");
                end();
                assert_eq!(of_consumer(), 0, "{how}");
                while consumers.receive(Duration::from_millis(50)).is_some() {}
                // The internet goes on answering.
                for (server, from) in servers.iter().zip(asked) {
                    server.0.send_to(b"late", from).expect("sent");
                }
                assert_eq!(consumers.receive(SILENCE), None, "{how}");
                servers[0].0.send_to(b"for the other", other).expect("sent");
                assert!(consumers.receive(SILENCE).is_some(), "{how}: the other's flow is gone");
            }
        });
    });
}

#[test]
fn a_consumers_silent_connection_is_forgotten_after_two_hours_and_four_minutes() {
    let net = Net::new();
    inside(&net.internet, || {
        let _listener = TcpListener::bind((REMOTE_V4, 80)).expect("a socket");
        inside(&net.node, || {
            let mut host = net.prepare("");
            assert_eq!(host.notes, Vec::<String>::new());
            let consumers = Consumers::of(&mut host);
            consumers.send(&syn(REMOTE_V4, 80));
            let answer = consumers.receive(SILENCE).expect("an answer");
            let answer = etherparse::TcpHeaderSlice::from_slice(&answer[20..]).expect("TCP");
            let mut packet = Vec::new();
            PacketBuilder::ipv4(CONSUMER_V4.octets(), REMOTE_V4.octets(), 64)
                .tcp(40000, 80, 2, 65000)
                .ack(answer.sequence_number() + 1)
                .write(&mut packet, &[])
                .expect("a packet");
            consumers.send(&packet);
            let table = sh("cat /proc/thread-self/net/nf_conntrack");
            let flow = table.lines().find(|line| line.contains("ESTABLISHED")).expect("a flow");
            // ipv4 2 tcp 6 SECONDS ESTABLISHED
            let seconds: u32 =
                flow.split_whitespace().nth(4).and_then(|it| it.parse().ok()).expect("seconds");
            assert!((7300..=7440).contains(&seconds), "{flow}");
        });
    });
}
