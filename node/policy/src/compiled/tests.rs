use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use weir_config::{Config, Policy};

use super::*;
use crate::judge;

/// The uplink's address of the test's node.
const OWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(45, 80, 2, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, 2)),
];

fn node(policy: Policy) -> (Lists, PolicyContext) {
    let mut config = Config { policy, ..Config::default() };
    (config.payment.enabled, config.payment.port, config.dns.enabled) = (true, 8077, true);
    let lists = Lists::read(&config.policy).expect("right lists");
    (lists, PolicyContext::new(&config, OWN))
}

/// Addresses around which the lists and the questions of the tests lie: of this machine, of pools,
/// on both sides of what registries reserve, with an IPv4 address inside, and free ones.
fn anchors() -> Vec<IpAddr> {
    let texts = "0.0.0.0 8.8.8.0 10.0.0.0 10.66.0.1 10.66.0.255 45.80.2.2 100.64.0.0 168.63.129.16 \
                 169.254.169.254 172.31.255.255 198.51.100.255 223.255.255.255 255.255.255.255 :: \
                 ::ffff:8.8.8.8 64:ff9b::808:808 64:ff9b::a00:1 2001::1 2001:200:: 2002:808:808:: \
                 2a00:1::2 2a00:1::ff fd66:7765:6972::1 fd66:7765:6972::ff fe80::1 \
                 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    texts.split_whitespace().map(|text| text.parse().expect("an address")).collect()
}

/// An address that differs from an anchor in its last bits only.
fn near() -> impl Strategy<Value = IpAddr> {
    (prop::sample::select(anchors()), any::<u16>(), 0u32..=16).prop_map(|(anchor, change, bits)| {
        let change = u32::from(change) & !u32::MAX.unbounded_shl(bits);
        match anchor {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() ^ change)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() ^ u128::from(change))),
        }
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![8 => near(), 1 => any::<Ipv4Addr>().prop_map(IpAddr::V4),
        1 => any::<Ipv6Addr>().prop_map(IpAddr::V6)]
}

/// Long ones mostly, so that they nest and touch; now and then one that covers half of a family.
fn network() -> impl Strategy<Value = IpNet> {
    (address(), prop_oneof![6 => 0u8..=12, 1 => 0u8..=31, 1 => 0u8..=127]).prop_map(
        |(address, host_bits)| {
            let all = if address.is_ipv4() { 32 } else { 128 };
            let length = all - host_bits.min(all - 1);
            IpNet::new(address, length).expect("a length of the family").trunc()
        },
    )
}

fn port_rule() -> impl Strategy<Value = PortRule> {
    let protocol = prop::sample::select(vec![None, Some(Protocol::Tcp), Some(Protocol::Udp)]);
    let ends = prop_oneof![
        (0u16..130, 0u16..70).prop_map(|(low, len)| (low, low + len)),
        any::<(u16, u16)>().prop_map(|(one, two)| (one.min(two), one.max(two))),
    ];
    (protocol, ends).prop_map(|(protocol, (low, high))| PortRule { protocol, low, high })
}

fn policy() -> impl Strategy<Value = Policy> {
    let networks = || prop::collection::vec(network(), 0..12);
    let ports = prop::collection::vec(port_rule(), 0..4);
    (networks(), networks(), ports).prop_map(|(allow, block, blocked_ports)| Policy {
        allow,
        block,
        blocked_ports,
        ..Policy::default()
    })
}

/// The first and last address of a network and their neighbours outside.
fn edges(network: IpNet) -> Vec<IpAddr> {
    let (low, high) = (network.network(), network.broadcast());
    let outside = match (low, high) {
        (IpAddr::V4(low), IpAddr::V4(high)) => [
            low.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
            high.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        ],
        (IpAddr::V6(low), IpAddr::V6(high)) => [
            low.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
            high.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
        ],
        _ => [None, None],
    };
    [low, high].into_iter().chain(outside.into_iter().flatten()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn decides_as_the_policy_test_does(
        policy in policy(),
        asked in prop::collection::vec(address(), 30),
        random_port in any::<u16>(),
    ) {
        let all = policy.allow.iter().chain(&policy.block);
        let edges: Vec<IpAddr> = all.flat_map(|network| edges(*network)).collect();
        let ends = policy.blocked_ports.iter().flat_map(|rule| {
            [rule.low.saturating_sub(1), rule.low, rule.high, rule.high.saturating_add(1)]
        });
        let ports: Vec<u16> = ends.chain([0, 25, 53, 8077, 65535, random_port]).collect();
        let (lists, context) = node(policy);
        let compiled = Compiled::new(&lists, &context);
        for address in asked.into_iter().chain(edges).chain(anchors()) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for &port in &ports {
                    let flow = FlowSpec { address, port, protocol };
                    let (slow, fast) = (judge(&flow, &lists, &context), compiled.judge(&flow));
                    let fast = (fast.allowed, fast.rule.as_str());
                    prop_assert_eq!((slow.allowed, slow.rule.as_str()), fast, "{:?}", flow);
                }
            }
        }
    }

    #[test]
    fn without_ports_only_the_destination_counts(policy in policy(), address in address()) {
        let (lists, context) = node(policy);
        let compiled = Compiled::new(&lists, &context);
        // The decision about TCP, without the rules on ports and without services.
        let mut bare = lists;
        bare.ports.clear();
        let flow = FlowSpec { address, port: 1, protocol: Protocol::Tcp };
        let slow = judge(&flow, &bare, &context);
        let fast = compiled.judge_address(address);
        prop_assert_eq!((slow.allowed, slow.rule.as_str()), (fast.allowed, fast.rule.as_str()));
    }
}

#[test]
fn each_rule_is_met() {
    let (lists, context) = node(Policy {
        allow: vec!["8.8.8.0/24".parse().expect("a network")],
        block: vec!["8.0.0.0/8".parse().expect("a network")],
        blocked_ports: vec!["25".parse().expect("ports"), "445/tcp".parse().expect("ports")],
        ..Policy::default()
    });
    let compiled = Compiled::new(&lists, &context);
    let rule = |to: &str, protocol| {
        let to: std::net::SocketAddr = to.parse().expect("an address with a port");
        compiled.judge(&FlowSpec { address: to.ip(), port: to.port(), protocol }).rule
    };
    use Protocol::{Tcp, Udp};
    for (to, protocol, expected) in [
        ("9.9.9.9:443", Tcp, RuleId::Default),
        ("8.8.8.8:443", Tcp, RuleId::Allowed),
        ("10.66.0.1:53", Udp, RuleId::Service),
        ("10.66.0.1:22", Tcp, RuleId::HostDestination),
        ("45.80.2.2:443", Tcp, RuleId::HostDestination),
        ("10.66.0.9:443", Tcp, RuleId::ConsumerToConsumer),
        ("8.8.7.255:443", Tcp, RuleId::BlockedDestination),
        ("192.168.0.1:443", Tcp, RuleId::PrivateDestination),
        ("169.254.169.254:80", Tcp, RuleId::MetadataDestination),
        ("[::ffff:9.9.9.9]:443", Tcp, RuleId::ReservedDestination),
        ("[64:ff9b::909:909]:443", Tcp, RuleId::ReservedDestination),
        ("8.8.8.8:25", Tcp, RuleId::Smtp),
        ("9.9.9.9:25", Udp, RuleId::BlockedPort),
        ("9.9.9.9:445", Tcp, RuleId::BlockedPort),
        ("9.9.9.9:445", Udp, RuleId::Default),
    ] {
        assert_eq!(rule(to, protocol), expected, "{to}");
    }
    let ping = |to: &str| compiled.judge_address(to.parse().expect("an address"));
    assert_eq!(ping("9.9.9.9"), Decision { allowed: true, rule: RuleId::Default });
    assert_eq!(ping("10.66.0.1"), Decision { allowed: false, rule: RuleId::HostDestination });
}

#[test]
fn every_counter_of_the_registries_is_a_rule_that_refuses() {
    for counter in refused::COUNTERS {
        let rule = RuleId::from_name(counter).expect(counter);
        assert!(!rule.allows(), "{counter}");
    }
}

/// 100,000 addresses of each family, of which no two are neighbours, as exceptions and as blocks.
fn long_lists() -> Policy {
    let v4 = |at: u32| IpNet::V4(Ipv4Net::from(Ipv4Addr::from_bits(0x0b00_0000 + 4 * at)));
    let v6 = |at: u32| {
        let prefix = u128::from(0x2a10_0000 + at / 8) << 96;
        IpNet::V6(Ipv6Net::from(Ipv6Addr::from_bits(prefix + 4 * u128::from(at))))
    };
    Policy {
        allow: (0..100_000).step_by(2).flat_map(|at| [v4(at), v6(at)]).collect(),
        block: (1..100_000).step_by(2).flat_map(|at| [v4(at), v6(at)]).collect(),
        ..Policy::default()
    }
}

#[test]
fn holds_200_000_entries_in_less_than_five_megabytes() {
    let policy = long_lists();
    assert_eq!(policy.allow.len() + policy.block.len(), 200_000);
    let (lists, context) = node(policy);
    let compiled = Compiled::new(&lists, &context);
    for (entries, rule) in
        [(&lists.allow, RuleId::Allowed), (&lists.block, RuleId::BlockedDestination)]
    {
        for (network, _) in entries {
            assert_eq!(compiled.judge_address(network.addr()).rule, rule, "{network}");
            let next = match network.addr() {
                IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + 1).into()),
                IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + 1).into()),
            };
            assert_eq!(compiled.judge_address(next).rule, RuleId::Default, "{next}");
        }
    }
    // Two ranges an entry, and what registries reserve.
    assert!((400_000..400_200).contains(&compiled.ranges()), "{}", compiled.ranges());
    assert!(compiled.memory() < 5_000_000, "{}", compiled.memory());
}
