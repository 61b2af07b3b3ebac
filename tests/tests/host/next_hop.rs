//! The next hops are those that the kernel would take, and follow it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use weir_config::Auto;
use weir_host::{
    next_hop::{self, Judged, NotPlain, Watch},
    uplink::Uplink,
};
use weir_packet::ethernet::{MacAddress, NextHops, NoNextHop};

use super::{
    NODE_V4, REMOTE_V4, REMOTE_V6,
    net::{Net, inside, sh},
};

const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 1);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, 1);
/// How long a change may take to be told of, on a slow machine.
const NOTICED: Duration = Duration::from_secs(60);

/// The Ethernet address of an interface.
fn mac_of(namespace: &str, interface: &str) -> MacAddress {
    let link = sh(&format!("ip -n {namespace} -o link show {interface}"));
    let text = link.split("link/ether ").nth(1).and_then(|it| it.split(' ').next());
    let octets: Vec<u8> = text
        .expect("an Ethernet address")
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).expect("an octet"))
        .collect();
    MacAddress(octets.try_into().expect("six octets"))
}

fn uplink() -> Uplink {
    Uplink::find(&Auto::Auto).expect("an uplink")
}

fn read() -> Judged {
    next_hop::read(&uplink()).expect("the kernel says it")
}

/// The next hops of a node's machine, followed.
struct Followed {
    watch: Watch,
    news: Receiver<Judged>,
    last: Judged,
}

impl Followed {
    fn start() -> Self {
        let (tell, news) = channel();
        let listener = Box::new(move |judged: &Judged| drop(tell.send(judged.clone())));
        let (watch, last) = Watch::start(&uplink(), listener).expect("started");
        Self { watch, news, last }
    }

    /// Waits until the next hops are as wanted.
    fn until(&mut self, what: &str, is_wanted: impl Fn(&Judged) -> bool) {
        let end = Instant::now() + NOTICED;
        while !is_wanted(&self.last) {
            let left = end.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left) {
                Ok(news) => self.last = news,
                Err(error) => panic!("{what}: {error}, the last was {:?}", self.last),
            }
        }
    }

    /// Waits until the next hops are plain, and as wanted.
    fn until_plain(&mut self, what: &str, is_wanted: impl Fn(&NextHops) -> bool) {
        self.until(what, |judged| judged.as_ref().is_ok_and(&is_wanted));
    }

    /// Waits until both gateways' address is this.
    fn until_gateways_are(&mut self, what: &str, mac: MacAddress) {
        self.until_plain(what, |hops| {
            let remotes: [IpAddr; 2] = [REMOTE_V4.into(), REMOTE_V6.into()];
            remotes.iter().all(|remote| hops.find(*remote) == Ok(mac))
        });
    }
}

#[test]
fn a_snapshot_has_what_the_kernel_knows() {
    let net = Net::new();
    let ping = "ping -n -q -c 1 -W 5";
    sh(&format!(
        "for to in {ROUTER_V4} {ROUTER_V6}; do ip netns exec {} {ping} $to > /dev/null; done",
        net.node
    ));
    let (router, own) = (mac_of(&net.internet, "in0"), mac_of(&net.node, "up0"));
    inside(&net.node, || {
        let hops = read().expect("plain");
        assert_eq!(hops.interface, uplink().index);
        assert_eq!((hops.source, hops.mtu), (own, 1500));
        assert_eq!(hops.gateways, [Some(ROUTER_V4.into()), Some(ROUTER_V6.into())]);
        for remote in [IpAddr::from(REMOTE_V4), REMOTE_V6.into(), ROUTER_V4.into()] {
            assert_eq!(hops.find(remote), Ok(router), "{remote}");
        }
        let near = IpAddr::from([11, 0, 0, 7]);
        assert_eq!(hops.find(near), Err(NoNextHop::Unresolved(near)));
        // What a node sets up is no policy routing.
        let host = net.prepare("");
        assert_eq!(read().map(|hops| hops.gateways), Ok(hops.gateways));
        host.undo().expect("undone");
    });
}

#[test]
fn what_is_no_plain_route_is_named() {
    let net = Net::new();
    inside(&net.node, || {
        let ip = |line: &str| sh(&format!("ip {line}"));
        let cases = [
            (
                "route append default via 11.0.0.9",
                "route del default via 11.0.0.9",
                "0.0.0.0/0 has several next hops: via 11.0.0.1 dev up0, via 11.0.0.9 dev up0",
            ),
            (
                "-6 route append default via 2a00:1::9",
                "-6 route del default via 2a00:1::9",
                "::/0 has several next hops",
            ),
            (
                "rule add from 11.0.0.0/8 lookup 100 priority 77",
                "rule del priority 77",
                "ip -4 rule del priority 77",
            ),
            ("-6 rule add fwmark 7 lookup 100 priority 78", "-6 rule del priority 78", "78"),
            ("route add blackhole 9.9.9.0/24", "route del blackhole 9.9.9.0/24", "drops packets"),
            (
                "route add 10.7.0.0/16 via 11.0.0.9",
                "route del 10.7.0.0/16",
                "10.7.0.0/16 has a gateway of its own: 11.0.0.9",
            ),
            (
                "route add default via 11.0.0.1 tos 4",
                "route del default via 11.0.0.1 tos 4",
                "one type of service",
            ),
        ];
        for (make, undo, said) in cases {
            ip(make);
            let words = read().expect_err(make).to_string();
            assert!(words.contains(said), "{make}: {words}");
            ip(undo);
            assert_eq!(read().map(|_| ()), Ok(()), "{undo}");
        }
        ip("route replace default nexthop via 11.0.0.1 nexthop via 11.0.0.9");
        assert!(matches!(read(), Err(NotPlain::SeveralNextHops { .. })), "{:?}", read());
        ip("route replace default via 11.0.0.1");
        // The kernel takes the lower metric, and nothing else.
        ip("route add default via 11.0.0.9 metric 500");
        assert_eq!(read().expect("plain").gateways[0], Some(ROUTER_V4.into()));
        ip("link add br0 type bridge");
        ip("link set up0 master br0");
        let words = read().expect_err("a port").to_string();
        assert!(words.contains("up0 is a port of the interface br0"), "{words}");
    });
}

#[test]
fn a_change_is_followed() {
    let net = Net::new();
    let router = mac_of(&net.internet, "in0");
    inside(&net.node, || {
        let ip = |line: &str| sh(&format!("ip {line}"));
        let mut followed = Followed::start();
        // Nobody else sends anything there.
        followed.until_gateways_are("the kernel asks for the gateways", router);

        let second: IpAddr = [45, 80, 2, 0].into();
        ip("addr add 45.80.2.2/24 dev up0");
        followed.until_plain("an address", |hops| hops.on_link.contains(&(second, 24)));
        ip("addr del 45.80.2.2/24 dev up0");
        followed.until_plain("no address", |hops| !hops.on_link.contains(&(second, 24)));

        ip("link set up0 mtu 1400");
        followed.until_plain("an MTU", |hops| hops.mtu == 1400);

        ip("route append default via 11.0.0.9");
        followed.until("a second gateway", |judged| {
            matches!(judged, Err(NotPlain::SeveralNextHops { .. }))
        });
        ip("route del default via 11.0.0.9");
        followed.until_plain("one gateway", |_| true);
        ip("rule add fwmark 7 lookup 100 priority 77");
        followed.until("a rule", |judged| matches!(judged, Err(NotPlain::Rule { .. })));
        ip("rule del priority 77");
        followed.until_plain("no rule", |_| true);

        ip("link set up0 down");
        followed.until_plain("no route", |hops| hops.gateways == [None, None]);
        ip("link set up0 up");
        ip("addr replace 2a00:1::2/64 dev up0 nodad");
        ip(&format!("route add default via {ROUTER_V4}"));
        ip(&format!("-6 route add default via {ROUTER_V6}"));
        followed.until_gateways_are("the gateways are back", router);

        ip("link del up0");
        followed.until("no uplink", |judged| matches!(judged, Err(NotPlain::Gone { .. })));
        followed.watch.stop().expect("stopped");
    });
}

#[test]
fn a_gateway_that_gets_another_card_is_noticed_though_it_does_not_say_so() {
    let net = Net::new();
    let (router, other) = (mac_of(&net.internet, "in0"), MacAddress([2, 0, 0, 0, 0, 0x77]));
    inside(&net.node, || {
        // The kernel of the test waits less before it doubts.
        sh("for family in ipv4 ipv6; do
                cd /proc/sys/net/$family/neigh/up0
                echo 1000 > base_reachable_time_ms; echo 1 > delay_first_probe_time
                echo 100 > retrans_time_ms
            done");
        let mut followed = Followed::start();
        followed.until_gateways_are("the first card", router);
        sh(&format!("ip -n {} link set in0 address 02:00:00:00:00:77", net.internet));
        followed.until_gateways_are("the second card", other);
        // And one that says so, by a gratuitous ARP, or is seen as the link goes and comes.
        sh(&format!(
            "ip -n {0} link set in0 down; ip -n {0} link set in0 address 02:00:00:00:00:78
             ip -n {0} link set in0 up; ip -n {0} addr replace {ROUTER_V6}/64 dev in0 nodad",
            net.internet
        ));
        followed.until_gateways_are("the third card", MacAddress([2, 0, 0, 0, 0, 0x78]));
        followed.watch.stop().expect("stopped");
    });
}

#[test]
fn a_neighbour_is_found_when_it_is_asked_for() {
    let net = Net::new();
    sh(&format!(
        "ip -n {0} addr add 11.0.0.7/24 dev in0; ip -n {0} addr add 2a00:1::7/64 dev in0 nodad",
        net.internet
    ));
    let router = mac_of(&net.internet, "in0");
    inside(&net.node, || {
        // What a node in its sandbox has that is of use here.
        let kept = CapabilitySet::NET_ADMIN;
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
        set_capabilities(None, sets).expect("capabilities");
        let mut followed = Followed::start();
        followed.until_gateways_are("the gateways", router);
        let resolver = followed.watch.resolver();
        let near: [IpAddr; 2] = [[11, 0, 0, 7].into(), "2a00:1::7".parse().expect("an address")];
        for address in near {
            let hops = followed.last.as_ref().expect("plain");
            assert_eq!(hops.find(address), Err(NoNextHop::Unresolved(address)));
            // Neither is what lies behind the gateway, nor what does not answer, in the way.
            for asked in [REMOTE_V4.into(), [11, 0, 0, 99].into(), address] {
                resolver.resolve(asked);
            }
            followed.until_plain("the neighbour", |hops| hops.find(address) == Ok(router));
        }
        let known = sh("ip neigh show");
        assert!(!known.contains(&REMOTE_V4.to_string()), "{known}");
        assert!(known.contains("11.0.0.7 ") && !known.contains(&NODE_V4.to_string()), "{known}");
        followed.watch.stop().expect("stopped");
    });
}
