//! Return traffic of the node's NAT, in the kernel.

use weir_common::{
    DropReason,
    exit::{ExitConfig, ExitV6, port_bit},
    packet::{Class, Verdict},
};

use super::{
    Loaded, config,
    exit_frames::{
        HOST_V6, NODE_PORT, OWN_V4, OWN_V6, PORTS, Packet, fragments, ports, segment, table,
    },
};

/// No worker takes it in a test.
const RETURN: Verdict = Verdict::Drop(DropReason::GuardNoWorker);

fn translated() -> ExitConfig {
    ExitConfig::new(&OWN_V4, ExitV6::Address(OWN_V6)).expect("few addresses")
}

fn routed() -> ExitConfig {
    let v6 = ExitV6::Prefix { address: OWN_V6, len: 64, host: &[HOST_V6] };
    ExitConfig::new(&OWN_V4, v6).expect("few addresses")
}

fn set_exit(loaded: &mut Loaded, exit: &ExitConfig, ports: &[u64; 1024]) {
    let guard = loaded.guard.as_mut().expect("taken by drop only");
    guard.set_exit(exit, ports).expect("the kernel takes a configuration");
}

#[test]
fn every_frame_of_the_table_goes_where_it_belongs() {
    for linear in [false, true] {
        let mut loaded = Loaded::new(config(), linear);
        set_exit(&mut loaded, &translated(), &ports());
        for (name, frame, is_return) in table() {
            assert_eq!(loaded.verdict(&frame) == RETURN, is_return, "linear={linear} {name}");
        }
    }
}

#[test]
fn fragments_follow_their_first() {
    for linear in [false, true] {
        let mut loaded = Loaded::new(config(), linear);
        set_exit(&mut loaded, &translated(), &ports());
        for (name, frame, is_return) in fragments() {
            assert_eq!(loaded.verdict(&frame) == RETURN, is_return, "linear={linear} {name}");
        }
    }
}

#[test]
fn a_routed_prefix_is_the_consumers_but_for_the_hosts_address() {
    for linear in [false, true] {
        let mut loaded = Loaded::new(config(), linear);
        set_exit(&mut loaded, &routed(), &[0; 1024]);
        for port in [22, PORTS[0], NODE_PORT] {
            let packet = Packet::inbound(true, 17, segment(443, port));
            assert_eq!(loaded.verdict(&packet.frame()), RETURN, "port {port}");
            let host = Packet { destination: HOST_V6.into(), ..packet }.frame();
            let hosts = match port {
                NODE_PORT => Verdict::Drop(DropReason::GuardType),
                _ => Verdict::Pass(Class::Other),
            };
            assert_eq!(loaded.verdict(&host), hosts, "port {port}");
        }
        let v4 = Packet::inbound(false, 17, segment(443, PORTS[0])).frame();
        assert_eq!(loaded.verdict(&v4), Verdict::Pass(Class::Other));
    }
}

#[test]
fn addresses_and_ports_change_at_run_time() {
    let mut loaded = Loaded::new(config(), false);
    let frame = |v6, port| Packet::inbound(v6, 6, segment(443, port)).frame();
    let verdicts = |loaded: &Loaded| {
        [(false, PORTS[0]), (false, PORTS[1]), (true, PORTS[0])]
            .map(|(v6, port)| loaded.verdict(&frame(v6, port)) == RETURN)
    };
    assert_eq!(verdicts(&loaded), [false; 3], "without a NAT");
    set_exit(&mut loaded, &translated(), &ports());
    assert_eq!(verdicts(&loaded), [true; 3]);
    let without_v6 = ExitConfig::new(&OWN_V4, ExitV6::None).expect("few addresses");
    set_exit(&mut loaded, &without_v6, &ports());
    assert_eq!(verdicts(&loaded), [true, true, false]);
    let mut fewer = ports();
    let (word, bit) = port_bit(PORTS[0]);
    fewer[word as usize] &= !bit;
    set_exit(&mut loaded, &without_v6, &fewer);
    assert_eq!(verdicts(&loaded), [false, true, false]);
    let other = ExitConfig::new(&OWN_V4[1..], ExitV6::Address(OWN_V6)).expect("few addresses");
    set_exit(&mut loaded, &other, &ports());
    assert_eq!(verdicts(&loaded), [false, false, true]);
    set_exit(&mut loaded, &ExitConfig::default(), &ports());
    assert_eq!(verdicts(&loaded), [false; 3]);
}

#[test]
fn a_socket_of_the_host_keeps_its_port_of_the_range() {
    let mut loaded = Loaded::new(config(), false);
    set_exit(&mut loaded, &translated(), &ports());
    let verdict = |v6, protocol| {
        let packet = Packet::inbound(v6, protocol, segment(53, PORTS[0]));
        loaded.verdict(&packet.frame())
    };
    let hosts = Verdict::Pass(Class::Other);
    for (v6, any) in [(false, "0.0.0.0"), (true, "::")] {
        assert_eq!(verdict(v6, 17), RETURN);
        let socket = std::net::UdpSocket::bind((any, PORTS[0])).expect("a free port");
        assert_eq!(verdict(v6, 17), hosts, "a datagram");
        assert_eq!(verdict(v6, 6), RETURN, "a segment");
        drop(socket);
        assert_eq!(verdict(v6, 17), RETURN, "no longer");
        let listener = std::net::TcpListener::bind((any, PORTS[0])).expect("a free port");
        assert_eq!(verdict(v6, 6), hosts, "a segment");
        assert_eq!(verdict(v6, 17), RETURN, "a datagram");
        drop(listener);
    }
}

#[test]
fn the_nodes_own_port_is_never_the_nats() {
    let mut loaded = Loaded::new(config(), false);
    set_exit(&mut loaded, &translated(), &[u64::MAX; 1024]);
    for v6 in [false, true] {
        let to = |port| Packet {
            fragment: Some((1, 0, true)),
            ..Packet::inbound(v6, 17, segment(443, port))
        };
        assert_eq!(loaded.verdict(&to(NODE_PORT + 1).frame()), RETURN);
        // The host puts it together.
        let fragment = Verdict::Pass(Class::Fragment);
        assert_eq!(loaded.verdict(&to(NODE_PORT).frame()), fragment);
    }
}
