use proptest::prelude::*;

use super::{
    super::uplink::{Ipv6Uplink, Uplink},
    render::translated_ports,
    *,
};
use weir_config::Protocol;

fn uplink() -> Uplink {
    Uplink {
        name: "eth0".into(),
        index: 2,
        mtu: 1500,
        v4: Vec::new(),
        v6: Vec::new(),
        ipv6: Ipv6Uplink::Same,
        ports: Vec::new(),
    }
}

fn policy_of(text: &str) -> Policy {
    let config = weir_config::check(text, None).expect("a right configuration");
    let lists = Lists::read(&config.policy).expect("right lists");
    Policy::new(&config, &lists, &uplink())
}

/// Both inputs, as on a machine that has one set of an earlier generation.
fn render(policy: &Policy) -> String {
    let machine = Machine { session_flows: DEFAULT_FLOWS, has_timeouts: true };
    let Rendered { sets, rules } = super::render(policy, &machine, 7, &["blocked4_6".into()]);
    sets + &rules
}

fn policy() -> Policy {
    policy_of("")
}

#[test]
fn the_default_policy_is_the_golden_one() {
    let golden = include_str!("default.nft");
    // On a machine whose IPv6 leaves by an interface of its own, so that the two are told apart.
    let rendered = render(&Policy { uplink_v6: Some("six0".into()), ..policy() });
    assert!(rendered == golden, "the default policy is now:\n{rendered}");
}

#[test]
fn with_one_uplink_for_both_families_its_name_is_compared_once() {
    let text = render(&policy());
    assert_eq!(text.matches("oifname != \"eth0\"").count(), 2, "{text}");
    assert!(!text.contains("nfproto ipv4 oifname"), "{text}");
}

#[test]
fn the_operators_lists_come_as_sets_before_the_refused_ranges() {
    let policy = policy_of(
        "[policy]\nallow = [\"10.1.0.0/16\", \"fd00:1::/32\"]\n\
         block = [\"8.8.8.8/32\", \"8.8.8.0/24\", \"8.8.9.0/25\", \"9.9.9.9/32\"]\n\
         blocked_ports = [\"445/tcp\", \"20-30/tcp\", \"445\", \"53/udp\"]",
    );
    let text = render(&policy);
    assert!(text.contains("elements = { 8.8.8.0-8.8.9.127, 9.9.9.9 }"), "{text}");
    let order = [
        "ip daddr @allowed4_7 goto to_port",
        "ip daddr @blocked4_7 counter name blocked_destination goto refuse",
        "ip daddr @private_destination4_7 goto private_destination",
        "ip6 daddr @allowed6_7 goto to_port",
        "ip6 daddr @private_destination6_7 goto",
        "\t\tgoto to_port\n",
    ];
    let places: Vec<_> = order.iter().map(|rule| text.find(rule).expect(rule)).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(!text.contains("@blocked6"), "{text}");
    for rule in [
        "tcp dport 25 goto smtp",
        "elements = { 20-24, 26-30, 445 }",
        "tcp dport @tcp_ports_7 goto blocked_port",
        "elements = { 53, 445 }",
        "udp dport @udp_ports_7 goto blocked_port",
    ] {
        assert!(text.contains(rule), "{text}");
    }
    // Also without lists what is refused always is refused.
    let text = render(&policy_of("[policy]\nblocked_ports = []"));
    assert!(!text.contains("dport @") && !text.contains("tcp dport 25"), "{text}");
}

#[test]
fn the_nodes_own_services_are_open_at_the_gateway_alone() {
    let service = |protocol, port| Service { protocol, port };
    let services = vec![service(Protocol::Tcp, 8077), service(Protocol::Udp, 53)];
    let policy = Policy { services, ..policy() };
    let text = render(&policy);
    let (_, to_host) = text.split_once("chain to_host {").expect("the chain");
    let (to_host, _) = to_host.split_once('}').expect("its end");
    for rule in [
        "ip daddr 10.66.0.1 tcp dport 8077 accept",
        "ip6 daddr fd66:7765:6972:: tcp dport 8077 accept",
        "ip daddr 10.66.0.1 udp dport 53 accept",
    ] {
        let rule = rule.replace("6972:: ", "6972::1 ");
        assert!(to_host.contains(&rule), "{rule} is not in {to_host}");
    }
    assert!(to_host.trim_end().ends_with("counter name host_destination goto refuse"));
    assert_eq!(text.matches("8077").count(), 2, "nowhere else");
}

#[test]
fn what_the_kernel_opens_at_the_gateway_is_what_the_policy_test_allows() {
    use weir_policy::{Compiled, FlowSpec, PolicyContext, judge};
    let mut opened = 0;
    for (pays, pay_port, resolves) in
        [(false, 8077, false), (true, 8077, false), (true, 443, true), (false, 8077, true)]
    {
        let mut config = Config::default();
        (config.payment.enabled, config.payment.port) = (pays, pay_port);
        config.dns.enabled = resolves;
        let lists = Lists::read(&config.policy).expect("right lists");
        let text = render(&Policy::new(&config, &lists, &uplink()));
        let (_, to_host) = text.split_once("chain to_host {").expect("the chain");
        let context = PolicyContext::new(&config, []);
        let compiled = Compiled::new(&lists, &context);
        for address in ["10.66.0.1", "fd66:7765:6972::1"] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for port in [22, 53, 443, 8077] {
                    let address: std::net::IpAddr = address.parse().expect("an address");
                    let family = if address.is_ipv4() { "ip" } else { "ip6" };
                    let word = protocol.as_str();
                    let rule = format!("{family} daddr {address} {word} dport {port} accept");
                    let opens = to_host.contains(&rule);
                    let flow = FlowSpec { address, port, protocol };
                    let verdict = judge(&flow, &lists, &context);
                    assert_eq!(verdict.allowed, opens, "{rule} {verdict:?}");
                    assert_eq!(compiled.judge(&flow).allowed, opens, "{rule}");
                    opened += usize::from(opens);
                }
            }
        }
    }
    assert_eq!(opened, 2 + 6 + 4, "services at two addresses");
}

#[test]
fn every_counter_is_used_and_no_other() {
    let mut full =
        policy_of("[policy]\nblock = [\"8.8.8.0/24\"]\nblocked_ports = [\"25/tcp\", \"445\"]");
    full.transit.v4 = Transit::NotFromUplink;
    let text = render(&full);
    for (name, _) in COUNTERS {
        assert!(text.contains(&format!("counter name {name} ")), "{name} counts nothing");
    }
    for used in text.split("counter name ").skip(1) {
        let name = used.split(' ').next().expect("a name");
        assert!(COUNTERS.iter().any(|(known, _)| *known == name), "{name} is not listed");
    }
}

#[test]
fn a_machine_that_forwarded_nothing_forwards_for_consumers_alone() {
    let with = |v4, v6| render(&Policy { transit: Transits { v4, v6 }, ..policy() });
    let text = with(Transit::NotFromUplink, Transit::NotFromUplink);
    for rule in [
        "\t\toifname \"weir0\" goto to_consumer\n\t\tiifname \"eth0\" meta nfproto ipv4 goto transit\n",
        "iifname \"eth0\" meta nfproto ipv6 goto transit\n",
        "\t\tct status dnat accept\n\t\tcounter name transit drop\n",
    ] {
        assert!(text.contains(rule), "{rule} is not in {text}");
    }
    // Before Linux 6.17 forwarding of IPv6 is turned on for all interfaces at once.
    let text = with(Transit::AsBefore, Transit::None);
    assert!(text.contains("\n\t\tmeta nfproto ipv6 goto transit\n"), "{text}");
    assert!(!text.contains("nfproto ipv4 goto transit"), "{text}");
    assert!(!with(Transit::AsBefore, Transit::AsBefore).contains("goto transit"));
}

#[test]
fn a_sessions_share_follows_from_the_size_of_the_table_and_the_configuration() {
    for (size, share) in [
        (None, 4096),
        (Some(0), 4096),
        (Some(4096), 256),
        (Some(65_536), 1024),
        (Some(262_144), 4096),
        (Some(1 << 24), 4096),
    ] {
        assert_eq!(share_of(size), share, "of {size:?}");
    }
    let configured = |text: &str| {
        let policy = policy_of(&format!("[limits]\nsession_flows = {text}"));
        session_flows(&policy.session_flows)
    };
    assert_eq!((configured("7"), configured("\"off\"")), (7, 0));
    let error = weir_config::check("[limits]\nsession_flows = 65001", None).expect_err("too many");
    assert!(format!("{error:?}").contains("session_flows"), "{error:?}");
    // What has been counted stays when the rules are replaced, unless another number counts.
    let old = ["flows4_of_9".to_owned(), "flows4_of_5".to_owned(), "blocked4_41".to_owned()];
    let machine = Machine { session_flows: 9, has_timeouts: false };
    let Rendered { sets, rules } = super::render(&policy(), &machine, 42, &old);
    let gone: Vec<_> = rules.lines().filter(|line| line.starts_with("delete")).collect();
    assert_eq!(gone, ["delete set inet weir flows4_of_5", "delete set inet weir blocked4_41"]);
    assert!(sets.contains("add set inet weir flows6_of_9 { type ipv6_addr; "), "{sets}");
    assert!(!sets.contains("ct timeout") && !rules.contains("ct timeout"), "{sets}{rules}");
    let numbers: Vec<_> = old.iter().map(|name| render::generation_of(name)).collect();
    assert_eq!(numbers, [None, None, Some(41)]);
    let off = Machine { session_flows: 0, ..machine };
    let Rendered { sets, rules } = super::render(&policy(), &off, 42, &[]);
    assert!(!sets.contains("flows4") && !rules.contains("ct count"), "{sets}{rules}");
}

#[test]
fn without_nft_the_package_is_named() {
    let error = run_program("weir-test-no-such-command", &[], "").expect_err("there is none");
    assert!(error.to_string().contains("apt-get install nftables"), "{error}");
}

proptest! {
    #[test]
    fn no_flow_is_translated_to_the_nodes_own_port(listen in 1u16..) {
        let ports = translated_ports(listen);
        let (low, high) = ports.split_once('-').expect("a range");
        let (low, high): (u16, u16) = (low.parse().expect("low"), high.parse().expect("high"));
        prop_assert!(low <= high && !(low..=high).contains(&listen));
        prop_assert!(low >= 1024 && high - low >= 32000);
    }
}
