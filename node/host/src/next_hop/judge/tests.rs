use super::*;
use crate::next_hop::routing::Rule;

const UPLINK: u32 = 2;
const OTHER: u32 = 3;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn route(destination: &str, gateway: Option<&str>, interface: u32) -> Route {
    let hop = Hop { interface, gateway: gateway.map(address) };
    Route {
        destination: destination.parse().expect("a network"),
        metric: 0,
        action: Action::Send(vec![hop]),
        special: None,
        mtu: None,
    }
}

fn dropping(destination: &str) -> Route {
    Route { action: Action::Drop("blackhole"), ..route(destination, None, UPLINK) }
}

fn neighbour(text: &str, last: u8, state: State) -> Neighbour {
    Neighbour { address: address(text), mac: Some(mac(last)), state }
}

fn uplink() -> Uplink {
    Uplink {
        name: "eth0".into(),
        index: UPLINK,
        mtu: 1500,
        v4: Vec::new(),
        v6: Vec::new(),
        ipv6: Ipv6Uplink::Same,
        ports: Vec::new(),
    }
}

/// A machine with one uplink, both families, and another interface.
fn machine() -> Routing {
    let link = |index, name: &str, last| Link {
        index,
        name: name.into(),
        mtu: 1500,
        other_layer: None,
        mac: Some(mac(last)),
        kind: None,
        controller: None,
    };
    let rule = |family, priority| Rule { family, priority, is_usual: true };
    Routing {
        links: vec![link(UPLINK, "eth0", 0xe0), link(OTHER, "eth1", 0xe1)],
        rules: vec![rule(Family::V4, 0), rule(Family::V4, 32766), rule(Family::V6, 32766)],
        routes: vec![
            route("0.0.0.0/0", Some("45.80.2.1"), UPLINK),
            route("45.80.2.0/24", None, UPLINK),
            route("10.0.0.0/8", None, OTHER),
            route("::/0", Some("fe80::1"), UPLINK),
            route("fe80::/64", None, UPLINK),
            route("2a0c::/64", None, UPLINK),
        ],
        neighbours: vec![
            neighbour("fe80::1", 1, State::Stale),
            neighbour("45.80.2.1", 1, State::Stale),
            neighbour("45.80.2.7", 7, State::Fresh),
        ],
    }
}

fn judged(change: impl FnOnce(&mut Routing)) -> Judged {
    let mut routing = machine();
    change(&mut routing);
    judge(&uplink(), &routing, &BTreeSet::new())
}

/// The snapshot of [`machine`].
fn plain() -> NextHops {
    NextHops {
        interface: UPLINK,
        source: mac(0xe0),
        mtu: 1500,
        gateways: [Some(address("45.80.2.1")), Some(address("fe80::1"))],
        on_link: vec![(address("45.80.2.0"), 24), (address("2a0c::"), 64), (address("fe80::"), 64)],
        neighbours: vec![
            (address("45.80.2.1"), mac(1)),
            (address("45.80.2.7"), mac(7)),
            (address("fe80::1"), mac(1)),
        ],
    }
}

#[test]
fn what_the_kernel_does_without_doubt_is_followed() {
    assert_eq!(judged(|_| {}), Ok(plain()));
    let v6_alone = |hops: &mut NextHops| hops.gateways[0] = None;
    type Case = (&'static str, fn(&mut Routing), fn(&mut NextHops));
    let cases: [Case; 12] = [
        ("no IPv4 default route", |it| drop(it.routes.remove(0)), v6_alone),
        (
            "a second default route of a higher metric",
            |it| {
                it.routes.push(Route { metric: 9, ..route("0.0.0.0/0", Some("45.80.2.9"), OTHER) })
            },
            |_| {},
        ),
        (
            "the same default route twice",
            |it| it.routes.push(route("0.0.0.0/0", Some("45.80.2.1"), UPLINK)),
            |_| {},
        ),
        ("a default route that drops", |it| it.routes[0] = dropping("0.0.0.0/0"), v6_alone),
        (
            "a route by the default gateway",
            |it| it.routes.push(route("168.63.129.16/32", Some("45.80.2.1"), UPLINK)),
            |_| {},
        ),
        ("a private network is dropped", |it| it.routes.push(dropping("10.0.0.0/9")), |_| {}),
        ("a reserved one too", |it| it.routes.push(dropping("2002:a00::/24")), |_| {}),
        (
            "a public network by another interface",
            |it| it.routes.push(route("9.9.9.0/24", None, OTHER)),
            |_| {},
        ),
        (
            "a wide private network by another interface",
            |it| it.routes.push(route("fc00::/7", None, OTHER)),
            |_| {},
        ),
        (
            "an IPv4 gateway of IPv6",
            |it| it.routes[0] = route("0.0.0.0/0", Some("fe80::1"), UPLINK),
            |hops| hops.gateways[0] = Some(address("fe80::1")),
        ),
        ("a lower MTU of a route", |it| it.routes[3].mtu = Some(1280), |hops| hops.mtu = 1280),
        (
            "a host on the link",
            |it| it.routes.push(route("45.80.3.1/32", None, UPLINK)),
            |hops| hops.on_link.insert(1, (address("45.80.3.1"), 32)),
        ),
    ];
    for (what, change, wanted) in cases {
        let mut hops = plain();
        wanted(&mut hops);
        // Without its IPv4 default route, nobody keeps a stale neighbour fresh.
        if !hops.gateways.contains(&Some(address("45.80.2.1"))) {
            hops.neighbours.remove(0);
        }
        assert_eq!(judged(change), Ok(hops), "{what}");
    }
}

#[test]
fn what_is_not_plain_is_named_with_the_fix() {
    type Case = (&'static str, fn(&mut Routing));
    let cases: [Case; 17] = [
        ("the uplink eth0 is gone", |it| drop(it.links.remove(0))),
        ("link layer is ppp", |it| it.links[0].other_layer = Some("ppp".into())),
        ("eth0 is a vlan device", |it| it.links[0].kind = Some("vlan".into())),
        ("eth0 is a composite device", |it| it.links[1].controller = Some(UPLINK)),
        ("eth0 is a port of the interface eth1", |it| it.links[0].controller = Some(OTHER)),
        ("ip -6 rule del priority 32766", |it| it.rules[2].is_usual = false),
        ("several next hops: via 45.80.2.1 dev eth0, via 45.80.2.9 dev eth0", |it| {
            it.routes.push(route("0.0.0.0/0", Some("45.80.2.9"), UPLINK));
        }),
        ("::/0 has several next hops: via fe80::1 dev eth0, dev eth1", |it| {
            let Action::Send(hops) = &mut it.routes[3].action else { panic!("it sends") };
            hops.push(Hop { interface: OTHER, gateway: None });
        }),
        ("has no gateway", |it| it.routes[0] = route("0.0.0.0/0", None, UPLINK)),
        ("0.0.0.0/0 uses eth1, not eth0", |it| {
            it.routes[0] = route("0.0.0.0/0", Some("10.0.0.1"), OTHER);
        }),
        ("128.0.0.0/1 uses eth1, not eth0", |it| it.routes.push(route("128.0.0.0/1", None, OTHER))),
        ("2000::/3 uses eth1, not eth0", |it| it.routes.push(route("2000::/3", None, OTHER))),
        ("10.1.0.0/16 has a gateway of its own: 45.80.2.9", |it| {
            it.routes.push(route("10.1.0.0/16", Some("45.80.2.9"), UPLINK));
        }),
        ("45.80.2.128/25 has a gateway of its own", |it| {
            it.routes.push(route("45.80.2.128/25", Some("45.80.2.1"), UPLINK));
        }),
        ("blackhole 9.9.9.0/24", |it| it.routes.push(dropping("9.9.9.0/24"))),
        ("9.9.9.0/24 puts packets into others", |it| {
            let special = Some("puts packets into others");
            it.routes.push(Route { special, ..route("9.9.9.0/24", None, UPLINK) });
        }),
        ("more than 64 routes use eth0", |it| {
            let nets = (0..65).map(|net| route(&format!("46.0.{net}.0/24"), None, UPLINK));
            it.routes.extend(nets);
        }),
    ];
    for (said, change) in cases {
        let words = judged(change).expect_err(said).to_string();
        assert!(words.contains(said) && words.contains(". Fix: "), "{words:?} without {said:?}");
    }
    let full = |it: &mut Routing| it.routes.resize(MAX_ROUTES + 1, route("9.0.0.0/8", None, 2));
    assert!(matches!(judged(full), Err(NotPlain::TooManyRoutes { max: MAX_ROUTES, .. })));
}

#[test]
fn ipv6_by_another_interface_is_missing_only_where_consumers_have_none_today() {
    let mut routing = machine();
    routing.routes[3] = route("::/0", Some("fe80::1"), OTHER);
    let judged = |ipv6| judge(&Uplink { ipv6, ..uplink() }, &routing, &BTreeSet::new());
    let other = judged(Ipv6Uplink::Other("eth1".into())).expect_err("IPv6 would be lost");
    assert!(matches!(other, NotPlain::Elsewhere { .. }), "{other}");
    for ipv6 in [Ipv6Uplink::Same, Ipv6Uplink::Refused("eth1".into())] {
        let hops = judged(ipv6).expect("IPv4 is plain");
        assert_eq!(hops.gateways, [Some(address("45.80.2.1")), None]);
    }
}

#[test]
fn a_neighbour_is_used_while_its_address_can_be_right() {
    let used = |state, last: u8, asked: &[&str]| {
        let mut routing = machine();
        routing.neighbours = vec![neighbour("45.80.2.7", last, state)];
        let asked = asked.iter().map(|text| address(text)).collect();
        let hops = judge(&uplink(), &routing, &asked).expect("plain");
        !hops.neighbours.is_empty()
    };
    for (state, wanted) in [
        (State::Fresh, true),
        (State::Kept, true),
        (State::Stale, false),
        (State::Resolving, false),
        (State::Failed, false),
    ] {
        assert_eq!(used(state, 7, &[]), wanted, "{state:?}");
    }
    assert!(used(State::Stale, 7, &["45.80.2.7"]));
    let mut routing = machine();
    for broadcast in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [0; 6]] {
        let mac = Some(MacAddress(broadcast));
        routing.neighbours = vec![Neighbour { mac, ..neighbour("45.80.2.255", 0, State::Kept) }];
        let hops = judge(&uplink(), &routing, &BTreeSet::new()).expect("plain");
        assert_eq!(hops.neighbours, []);
    }
}

#[test]
fn of_too_many_neighbours_the_gateways_and_those_asked_for_stay() {
    let mut routing = machine();
    routing.routes[0] = route("0.0.0.0/0", Some("45.80.255.1"), UPLINK);
    let many = |net: u16| neighbour(&format!("45.80.{}.{}", net / 256, net % 256), 7, State::Fresh);
    routing.neighbours = (0..2000).map(many).collect();
    routing.neighbours.push(neighbour("45.80.255.1", 1, State::Stale));
    routing.neighbours.push(neighbour("45.80.254.1", 1, State::Stale));
    let asked = BTreeSet::from([address("45.80.254.1")]);
    let hops = judge(&uplink(), &routing, &asked).expect("plain");
    assert_eq!(hops.neighbours.len(), MAX_NEIGHBOURS);
    assert!(hops.neighbours.is_sorted_by_key(|(address, _)| *address));
    for wanted in ["45.80.254.1", "45.80.255.1"] {
        assert!(hops.neighbours.contains(&(address(wanted), mac(1))), "{wanted}");
    }
}
