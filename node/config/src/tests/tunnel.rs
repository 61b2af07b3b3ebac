//! The inside of the tunnel: its MTU, pools and name servers.

use super::*;

#[test]
fn an_mtu_that_does_not_fit_is_refused_with_the_largest_that_does() {
    let refused = |text: &str, uplink| {
        let found = check(text, Some(uplink)).expect_err("it does not fit");
        found[0].fix.clone()
    };
    assert_eq!(refused("[tunnel]\nmtu = 1421", 1500), "write mtu = 1420, the largest that fits");
    assert_eq!(refused("", 1400), "write mtu = 1320, the largest that fits");
    assert!(refused("", 1300).contains("raise the uplink's MTU to 1360"), "{}", refused("", 1300));
    assert!(check("[tunnel]\nmtu = 8920", Some(9000)).is_ok());
    let by_v4 = "[node]\nendpoint = \"192.0.2.1:1\"\n[tunnel]\nmtu = ";
    assert!(check(&format!("{by_v4}1440"), Some(1500)).is_ok());
    assert!(refused(&format!("{by_v4}1441"), 1500).contains("1440"));
    assert!(mistake("[tunnel]\nmtu = 1279").problem.contains("out of range"));
}

#[test]
fn a_pool_without_room_for_the_sessions_is_refused() {
    let found = mistake("[tunnel]\npool_v4 = \"10.0.0.0/24\"");
    assert_eq!(
        found.problem,
        "10.0.0.0/24 has room for 253 sessions, but node.max_sessions is 4096"
    );
    assert!(found.fix.starts_with("write a /19 or larger"), "{found}");
    let sessions = "[node]\nmax_sessions = 65534";
    assert_eq!(mistake(sessions).key, "node.max_sessions");
    assert!(check("[node]\nmax_sessions = 65533", None).is_ok());
    assert!(check("[node]\nmax_sessions = 253\n[tunnel]\npool_v4 = \"10.0.0.0/24\"", None).is_ok());
}

#[test]
fn a_pool_of_unfit_addresses_is_refused() {
    for pool in ["127.0.0.0/16", "224.0.0.0/8", "0.0.0.0/0", "169.254.0.0/16"] {
        let found = mistake(&format!("[tunnel]\npool_v4 = \"{pool}\""));
        assert!(found.problem.contains("overlaps"), "{found}");
    }
    let host = mistake("[tunnel]\npool_v4 = \"10.66.0.1/16\"");
    assert_eq!(host.fix, "write the network: \"10.66.0.0/16\"");
    assert!(mistake("[tunnel]\npool_v6 = \"fd00::/120\"").problem.contains("/120"));
    assert!(mistake("[tunnel]\ndns = [\"10.66.0.2\"]").problem.contains("pool"));
}

#[test]
fn consumers_are_told_the_gateway_or_what_the_operator_says() {
    let told = |text: &str| check(text, None).expect("no mistakes").dns_servers();
    let gateway: Vec<std::net::IpAddr> = ["10.66.0.1", "fd66:7765:6972::1"]
        .iter()
        .map(|text| text.parse().expect("an address"))
        .collect();
    assert_eq!(told(""), gateway);
    assert_eq!(told("[tunnel]\ndns = [\"10.66.0.1\"]\n"), gateway[..1]);
    assert!(told("[tunnel]\ndns = []\n").is_empty());
    assert!(!told("[dns]\nenabled = false\n").contains(&gateway[0]));
    for text in [
        "[tunnel]\ndns = [\"10.66.0.1\"]\n[dns]\nenabled = false\n",
        "[tunnel]\ndns = [\"10.66.0.2\"]\n",
        "[dns]\nupstreams = [\"10.66.0.1\"]\n",
        "[dns]\nupstreams = [\"::\"]\n",
        "[dns]\nper_second = 0\n",
    ] {
        mistake(text);
    }
}
