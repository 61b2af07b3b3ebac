//! The node's ports are reserved while it runs, and nobody else's reservation is lost.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

use weir_host::{Host, HostPlan};

use super::net::{Net, assert_same, inside};

const PARAMETER: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

fn reserved() -> String {
    fs::read_to_string(PARAMETER).expect("read").trim().to_owned()
}

#[test]
fn the_nodes_ports_are_reserved_while_it_runs_in_addition_to_others() {
    let net = Net::new();
    inside(&net.node, || {
        fs::write(PARAMETER, "22,30000-40000").expect("written");
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "4000 32767").expect("written");
    });
    let before = net.snapshot();
    assert!(before.contains("ip_local_reserved_ports = 22,30000-40000"), "{before}");
    inside(&net.node, || {
        let plan = net.plan("").expect("a plan");
        assert_eq!(plan.reserved_ports, None);
        let host = Host::prepare(&plan).expect("prepared");
        assert_eq!(reserved(), "22,30000-40000");
        host.undo().expect("undone");

        let plan = HostPlan { reserved_ports: Some((4096, 32767)), ..plan };
        let host = Host::prepare(&plan).expect("prepared");
        assert_eq!(reserved(), "22,4096-40000");
        for _ in 0..50 {
            let any = (Ipv4Addr::UNSPECIFIED, 0);
            let tcp = TcpListener::bind(any).and_then(|socket| socket.local_addr());
            let udp = UdpSocket::bind(any).and_then(|socket| socket.local_addr());
            for address in [tcp.expect("bound"), udp.expect("bound")] {
                assert!(!(4096..=32767).contains(&address.port()), "{address}");
            }
        }
        // A program may ask for one by its number: the node spares it.
        drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).expect("bound"));
        host.undo().expect("undone");
    });
    assert_same(&before, &net.snapshot());
    inside(&net.node, || {
        let plan = net.plan("").expect("a plan");
        let plan = HostPlan { reserved_ports: Some((4096, 32767)), ..plan };
        // The node fails after it has reserved them.
        drop(Host::prepare(&plan).expect("prepared"));
    });
    assert_same(&before, &net.snapshot());
}
