use proptest::prelude::*;

use super::{render::translated_ports, *};

fn policy() -> Policy {
    Policy::new(&Config::default(), "eth0")
}

#[test]
fn the_default_policy_is_the_golden_one() {
    let golden = include_str!("default.nft");
    let rendered = render(&policy(), &[]);
    assert!(rendered == golden, "the default policy is now:\n{rendered}");
}

#[test]
fn the_operators_lists_come_as_sets_before_the_refused_ranges() {
    let networks = |list: &[&str]| list.iter().map(|it| it.parse().expect("a network")).collect();
    let policy = Policy {
        allow: networks(&["10.1.0.0/16", "fd00:1::/32"]),
        block: networks(&["8.8.8.0/24", "8.8.8.8/32"]),
        blocked_ports: vec![445, 25, 445],
        ..policy()
    };
    let text = render(&policy, &[]);
    assert!(text.contains("elements = { 8.8.8.0/24, 8.8.8.8/32 }"), "{text}");
    assert!(text.contains("ip daddr @blocked4 counter name blocked_destination goto refuse"));
    assert!(text.contains("ip daddr != @allowed4 ip daddr vmap {"), "{text}");
    assert!(text.contains("ip6 daddr != @allowed6 ip6 daddr vmap {"), "{text}");
    assert!(!text.contains("@blocked6"), "{text}");
    assert!(text.contains("tcp dport vmap { 25 : goto smtp, 445 : goto blocked_port }"), "{text}");
}

#[test]
fn the_nodes_own_services_are_open_at_the_gateway_alone() {
    let policy = Policy { own_tcp: vec![8077], own_udp: vec![53], ..policy() };
    let text = render(&policy, &[]);
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
fn counters_go_on_from_where_they_were() {
    let before = [Counter { name: "smtp".into(), packets: 7, bytes: 420 }];
    let text = render(&policy(), &before);
    assert!(text.contains("counter smtp { packets 7 bytes 420 }"), "{text}");
    assert!(text.contains("counter spoofed { packets 0 bytes 0 }"), "{text}");
}

#[test]
fn every_counter_is_used_and_no_other() {
    let full = Policy {
        block: vec!["8.8.8.0/24".parse().expect("a network")],
        blocked_ports: vec![25, 445],
        ..policy()
    };
    let text = render(&full, &[]);
    for (name, _) in COUNTERS {
        assert!(text.contains(&format!("counter name {name} ")), "{name} counts nothing");
    }
    for used in text.split("counter name ").skip(1) {
        let name = used.split(' ').next().expect("a name");
        assert!(COUNTERS.iter().any(|(known, _)| *known == name), "{name} is not listed");
    }
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
