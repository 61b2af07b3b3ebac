use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use weir_common::Slot;

use super::{
    kinds::{Auto, GuardMode, ListenAddr},
    *,
};

fn mistakes(text: &str) -> Vec<Mistake> {
    check(text, Some(1500)).expect_err("the text has mistakes")
}

/// The only mistake of a text.
fn mistake(text: &str) -> Mistake {
    let mistakes = mistakes(text);
    let [mistake] = mistakes.as_slice() else {
        panic!("expected one mistake, got {mistakes:#?}");
    };
    mistake.clone()
}

#[test]
fn a_fix_is_that_of_the_error_whatever_the_value_says() {
    for (value, problem, fix) in [
        (
            "\"5. Write nothing: write none\"",
            "\"5. Write nothing: write none\" is not a rate",
            "write for example \"200 Mbit/s\", \"1.5 Gbit/s\" or \"off\"",
        ),
        (
            "5",
            "5 is not a string",
            "write a string in quotes, for example \"200 Mbit/s\" or \"off\"",
        ),
    ] {
        let text = format!("[limits]\nnode_rate_up = {value}\n");
        let mistakes = check(&text, None).expect_err("not a rate");
        let found: Vec<_> =
            mistakes.iter().map(|it| (it.problem.as_str(), it.fix.as_str())).collect();
        assert_eq!(found, [(problem, fix)]);
    }
}

#[test]
fn the_printed_default_is_the_default() {
    assert_eq!(check(&default_text(), Some(1500)), Ok(Config::default()));
    assert_eq!(check("", Some(1500)), Ok(Config::default()));
}

#[test]
fn the_printed_default_explains_every_key() {
    let text = default_text();
    let table: toml::Table = text.parse().expect("the default is TOML");
    let config = Config::default();
    assert_eq!(table.len(), Config::SECTIONS.len());
    for (section, keys) in config.sections().map(|(name, section)| (name, section.keys())) {
        let printed = table[section].as_table().expect("a section");
        assert_eq!(printed.len(), keys.len(), "{section}");
        for key in keys {
            assert!(printed.contains_key(*key), "{section}.{key} is missing");
            let line = text.find(&format!("\n{key} = ")).expect("the key begins a line");
            let above = text[..line].lines().next_back().expect("a line above");
            assert!(above.starts_with("# "), "{section}.{key} is not explained");
        }
    }
}

#[test]
fn every_key_can_be_set() {
    let text = r#"
        [node]
        uplink = "eth7"
        listen_port = 0x1000
        endpoint = "[2001:db8::7]:1"
        private_key_file = "/k"
        state_dir = "/s"
        runtime_dir = "/r"
        max_sessions = 7
        workers = 2
        cores = [1, 3]
        xdp = "generic"
        io = "syscall"
        udp_segmentation = false
        receive = "af_xdp"
        egress = "bypass"
        addresses = ["192.0.2.7", "2001:db8::7"]
        prefix_v6 = "2001:db8:7::/64"
        sandbox = "off"
        handshakes_per_source = 1
        handshakes_per_source_burst = 2
        handshakes_under_load = 3
        handshakes_per_core = 4
        [tunnel]
        interface = "w"
        pool_v4 = "10.1.0.0/24"
        pool_v6 = "fd00:7::/64"
        mtu = 1300
        dns = ["8.8.8.8"]
        keepalive = 25
        [nat]
        ports = "8192-16383"
        block_ports = 64
        session_blocks = 8
        flows = 4096
        pick_up = false
        [policy]
        blocked_ports = []
        blocked_port_files = ["/p"]
        allow_files = ["/l"]
        block_files = ["/m", "/n"]
        allow = ["10.9.0.0/16"]
        block = ["1.2.3.0/24"]
        [ledger]
        record_seconds = 5
        checkpoint_seconds = 2
        retain_days = 7
        retain_undelivered_days = 8
        retain_sessions_days = 9
        retain_blocks_days = 10
        grace_seconds = 0
        webhook = "http://127.0.0.1:8080/usage"
        webhook_secret_file = "/w"
        webhook_ca_file = "/ca"
        usage_file = "/u"
        usage_file_mib = 1
        [fleet]
        url = "tls://a:4222, nats://b:4222"
        name = "exit-7"
        subject = "exits.eu"
        stream = "EXITS"
        commands = false
        credentials_file = "/c"
        token_file = "/n"
        ca_file = "/ca"
        [dns]
        enabled = false
        upstreams = ["127.0.0.53"]
        per_second = 1
        cache = 0
        [payment]
        enabled = true
        port = 1
        provider = "0x0000000000000000000000000000000000000001"
        chain_id = 1
        hermes = "0x0000000000000000000000000000000000000002"
        registry = "0x0000000000000000000000000000000000000003"
        channel_implementation = "0x0000000000000000000000000000000000000004"
        per_gib = "7"
        per_hour = "340282366920938463463374607431768211455"
        floor_per_gib = "7"
        floor_per_hour = "0"
        free_mib = 1
        approve_url = "http://127.0.0.1/approve"
        approve_ca_file = "/ca"
        unpaid_mib = 1
        unpaid_seconds = 1
        [api]
        socket = "/r/s"
        socket_group = "weir"
        http = "127.0.0.1:8443"
        token_file = "/t"
        wg_directory = ""
        wg_endpoints = true
        metrics = "off"
        per_session_metrics = true
        per_session_metrics_max = 5
        [limits]
        node_rate_up = "1 Mbit/s"
        node_rate_down = "2 Mbit/s"
        session_rate_up = "3 Mbit/s"
        session_rate_down = "4 Mbit/s"
        session_new_flows = 5
        session_destinations = "off"
        session_flows = 6
        sessions = 7
        bytes_per_day = "8 GB"
        bytes_per_month = "9 TB"
        month_reset_day = 10
        utc_offset_minutes = -11
        schedule = ["daily 00:00-01:00 closed"]
        [log]
        level = "debug"
        format = "json"
    "#;
    let config = check(text, Some(1500)).expect("no mistakes");
    let default = Config::default();
    assert_eq!(config.node.listen_port, 4096);
    assert_eq!(config.node.xdp, GuardMode::Generic);
    assert_eq!(config.node.workers, Auto::Set(2));
    assert_eq!(config.api.metrics, ListenAddr::Off);
    for ((name, one), (_, other)) in config.sections().zip(default.sections()) {
        for key in one.keys() {
            assert_ne!(one.describe(key), other.describe(key), "{name}.{key} kept its default");
        }
    }
    assert_eq!(check(&sections::text(&config), Some(1500)), Ok(config));
}

#[test]
fn all_mistakes_are_named_in_one_run_with_their_lines() {
    let text = "[node]\n\
        listen_prot = 1\n\
        workers = \"two\"\n\
        max_sessions = -3\n\
        xdp = \"nativ\"\n\
        [tunnel]\n\
        mtu = 1421\n\
        dns = [\"1.1.1.1\",\n  \"one\"]\n\
        [policy]\n\
        blocked_ports = 25\n\
        [apy]\n\
        socket = 1\n";
    let found: Vec<String> = mistakes(text).iter().map(ToString::to_string).collect();
    let expected = [
        "2:1: node.listen_prot: unknown key. Fix: did you mean \"listen_port\"?",
        "3:11: node.workers: \"two\" is not a whole number. Fix: write \"auto\", or",
        "4:16: node.max_sessions: -3 is out of range. Fix: write a whole number from 0",
        "5:7: node.xdp: \"nativ\" is not one of the choices. Fix: did you mean \"native\"?",
        "7:7: tunnel.mtu: 1421 does not fit the uplink, whose MTU is 1500: the tunnel adds 80",
        "9:3: tunnel.dns: \"one\" is not an IP address. Fix: write for example \"9.9.9.9\"",
        "11:17: policy.blocked_ports: 25 is not a list. Fix: put it in brackets: [25].",
        "12:2: apy: unknown section. Fix: did you mean [api]?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nshould begin with\n{expected}");
    }
}

#[test]
fn an_error_of_form_has_a_line() {
    let found = mistakes("[node]\nlisten_port = \n[tunnel]\nmtu = 12 80\n");
    assert!(found.iter().any(|mistake| mistake.line == 2), "{found:#?}");
    assert!(found.iter().any(|mistake| mistake.line == 4), "{found:#?}");
    let twice = mistake("[node]\nlisten_port = 1\nlisten_port = 2\n");
    assert_eq!(twice.line, 3, "{twice}");
}

#[test]
fn a_key_in_the_wrong_section_is_sent_to_its_own() {
    assert_eq!(mistake("[node]\nmtu = 1400").fix, "move it below [tunnel]");
    assert_eq!(mistake("listen_port = 1").fix, "move it below [node]");
}

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
fn keys_that_contradict_each_other_are_refused() {
    let workers = mistake("[node]\nworkers = 3\ncores = [0, 1]");
    assert_eq!(workers.fix, "write workers = 2, or \"auto\"");
    assert!(mistake("[node]\ncores = [0, 0]").problem.contains("twice"));
    // An exception from a wider network is none.
    let policy = "[policy]\nallow = [\"10.1.2.0/24\"]\nblock = [\"10.0.0.0/8\"]";
    assert!(check(policy, None).is_ok());
    for bad in ["25", "\"25/sctp\"", "\"0\"", "\"9-8\""] {
        let found = mistake(&format!("[policy]\nblocked_ports = [{bad}]"));
        assert!(found.fix.contains("25/tcp"), "{found}");
    }
    assert!(mistake("[policy]\nallow = [\"10.66.3.0/24\"]").problem.contains("overlaps the pool"));
    assert!(mistake("[node]\nruntime_dir = \"/var/lib/weir\"").problem.contains("state_dir"));
    assert!(mistake("[node]\nuplink = \"weir0\"").problem.contains("tunnel.interface"));
}

#[test]
fn names_that_the_kernel_or_nftables_would_take_otherwise_are_refused() {
    for name in ["", "a b", "with/slash", "quote\\\"", "sixteen-letters-", "lo", "*", "-x"] {
        let found = mistake(&format!("[tunnel]\ninterface = \"{name}\""));
        assert!(found.problem.contains("is not a valid interface name"), "{found}");
    }
    assert!(check("[node]\nuplink = \"eth0.7\"", None).is_ok());
}

#[test]
fn endpoints_are_addresses_or_names_with_a_port() {
    for good in ["a:1", "exit.example.net:51820", "192.0.2.1:65535", "[::1]:7"] {
        let config = check(&format!("[node]\nendpoint = \"{good}\""), None).expect(good);
        assert_eq!(config.node.endpoint.set().map(ToString::to_string).as_deref(), Some(good));
    }
    for bad in ["a", "a:0", "a:65536", "::1:7", "[a]:7", ":7", "1.2.3:7", "a b:7", "a\\n:7"] {
        assert!(check(&format!("[node]\nendpoint = \"{bad}\""), None).is_err(), "{bad}");
    }
}

#[test]
fn slots_have_addresses_of_their_own_up_to_the_last() {
    let tunnel = Tunnel::default();
    assert_eq!(tunnel.plan().gateway_v4(), Ipv4Addr::new(10, 66, 0, 1));
    assert_eq!(
        tunnel.plan().gateway_v6(),
        "fd66:7765:6972::1".parse::<Ipv6Addr>().expect("an address")
    );
    assert_eq!(tunnel.plan().address_v4(Slot(0)), Some(Ipv4Addr::new(10, 66, 0, 2)));
    assert_eq!(tunnel.plan().address_v4(Slot(65532)), Some(Ipv4Addr::new(10, 66, 255, 254)));
    assert_eq!(tunnel.plan().address_v4(Slot(65533)), None);
    assert_eq!(tunnel.plan().address_v4(Slot(u32::MAX)), None);
    assert_eq!(tunnel.plan().capacity(), 65533);
}

#[test]
fn a_file_with_mistakes_is_reported_with_its_name() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "[node]\nxpd = 1\n").expect("written");
    let error = Config::load(Some(file.path())).expect_err("a mistake").to_string();
    assert!(error.starts_with(&format!("{}:2:1: node.xpd: ", file.path().display())), "{error}");
    let missing = Config::load(Some(Path::new("/nowhere/weir.toml"))).expect_err("no file");
    assert!(missing.to_string().contains("/nowhere/weir.toml"), "{missing}");
    assert_eq!(Config::load(None).expect("defaults"), Config::default());
}

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(text in "\\PC*", cut in 0usize..3000) {
        drop(check(&text, Some(1500)));
        let default = default_text();
        let cut = default.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(default.len());
        drop(check(&format!("{}{text}{}", &default[..cut], &default[cut..]), Some(1500)));
    }

    #[test]
    fn every_mistake_is_within_the_text(key in "[a-z_]{1,12}", value in "[-0-9a-z\"\\[\\],.:/]{0,20}") {
        let text = format!("[node]\n{key} = {value}\n");
        if let Err(mistakes) = check(&text, Some(1500)) {
            for mistake in mistakes {
                prop_assert!((1..=3).contains(&mistake.line), "{}", mistake);
                prop_assert!(!mistake.fix.is_empty());
            }
        }
    }
}

#[test]
fn receivers_and_sockets_that_cannot_work_are_named() {
    let text = "[ledger]\nwebhook = \"ftp://example.net/\"\nusage_file = \"usage\"\n\
        record_seconds = 0\nretain_undelivered_days = 29\n\
        [api]\nhttp = \"127.0.0.1:9587\"\nwg_directory = \"wg\"\n";
    let found: Vec<String> = mistakes(text).iter().map(ToString::to_string).collect();
    for (line, key) in [
        (2, "ledger.webhook"),
        (3, "ledger.usage_file"),
        (4, "ledger.record_seconds"),
        (5, "ledger.retain_undelivered_days"),
        (7, "api.http"),
        (8, "api.wg_directory"),
    ] {
        let named = |is: &&String| is.starts_with(&format!("{line}:")) && is.contains(key);
        assert!(found.iter().find(named).is_some(), "{key} is not in {found:?}");
    }
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn payments_without_an_identity_a_price_or_a_sensible_floor_are_mistakes() {
    let node = "provider = \"0x0000000000000000000000000000000000000001\"\n";
    for (text, key, problem) in [
        ("enabled = true\n", "payment.enabled", "payments need it"),
        ("enabled = true\nprovider = \"0x12\"\n", "payment.provider", "is not an address"),
        ("per_gib = \"1.5\"\n", "payment.per_gib", "not a whole number of wei"),
        ("per_gib = \"+1\"\n", "payment.per_gib", "not a whole number of wei"),
        ("per_gib = 5\n", "payment.per_gib", "is not a string"),
        (
            &format!("enabled = true\n{node}per_gib = \"0\"\nper_hour = \"0\"\n"),
            "payment.per_gib",
            "pay nothing",
        ),
        (
            &format!("enabled = true\n{node}floor_per_gib = \"0\"\nfloor_per_hour = \"0\"\n"),
            "payment.floor_per_gib",
            "pay nothing",
        ),
        (
            &format!("enabled = true\n{node}per_gib = \"5\"\nfloor_per_gib = \"6\"\n"),
            "payment.floor_per_gib",
            "is above payment.per_gib",
        ),
        ("unpaid_mib = 0\n", "payment.unpaid_mib", "out of range"),
    ] {
        let found = mistake(&format!("[payment]\n{text}"));
        assert_eq!(found.key, key, "{text}");
        assert!(found.problem.contains(problem), "{text}: {found}");
    }
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

#[test]
fn ports_that_are_not_the_nodes_to_give_are_refused() {
    for (text, key, problem, fix) in [
        ("[nat]\nports = \"0-9\"", "nat.ports", "is not a range of ports", "from 1 to 65535"),
        ("[nat]\nports = 7", "nat.ports", "7 is not a string", "\"4096-32767\""),
        ("[nat]\nports = \"4097-4159\"\nblock_ports = 64", "nat.ports", "no whole block", "4096"),
        ("[nat]\nblock_ports = 48", "nat.block_ports", "power of two", "8, 16, 32"),
        ("[nat]\nblock_ports = 4", "nat.block_ports", "power of two", "8, 16, 32"),
        ("[nat]\nsession_blocks = 0", "nat.session_blocks", "out of range", "1 to 8192"),
        ("[nat]\nflows = 1000", "nat.flows", "out of range", "1024"),
        (
            "[node]\nlisten_port = 5000\negress = \"auto\"",
            "node.listen_port",
            "4096-32767 includes node.listen_port, which is 5000",
            "write a range without 5000",
        ),
        (
            "[node]\negress = \"auto\"\n[nat]\nports = \"50000-52000\"",
            "nat.ports",
            "50000-52000 includes node.listen_port, which is 51820",
            "write a range without 51820",
        ),
    ] {
        let found = mistake(text);
        assert_eq!(found.key, key, "{text}");
        assert!(found.problem.contains(problem), "{text}: {found}");
        assert!(found.fix.contains(fix), "{text}: {found}");
    }
    assert!(check("[nat]\nports = \"4096-4127\"", None).is_ok(), "one block is enough");
    let kernel = "[node]\nlisten_port = 5000\negress = \"kernel\"";
    assert!(check(kernel, None).is_ok(), "nothing is reserved there");
}

#[test]
fn addresses_that_consumers_cannot_leave_by_are_refused() {
    for (addresses, problem) in [
        ("\"127.0.0.1\"", "127.0.0.1 cannot be"),
        ("\"0.0.0.0\"", "0.0.0.0 cannot be"),
        ("\"fe80::1\"", "fe80::1 cannot be"),
        ("\"::ffff:192.0.2.1\"", "cannot be"),
        ("\"192.0.2.7\", \"192.0.2.7\"", "192.0.2.7 is listed twice"),
        ("\"192.0.2.0/24\"", "is not an IP address"),
    ] {
        let found = mistake(&format!("[node]\naddresses = [{addresses}]"));
        assert_eq!(found.key, "node.addresses");
        assert!(found.problem.contains(problem), "{found}");
    }
    // Behind a provider's NAT, the uplink's own address is private.
    assert!(check("[node]\naddresses = [\"10.0.0.7\", \"fd00::7\"]", None).is_ok());
    let many: Vec<_> = (0..257).map(|n| format!("\"198.51.{}.{}\"", n / 256, n % 256)).collect();
    let found = mistake(&format!("[node]\naddresses = [{}]", many.join(", ")));
    assert_eq!(found.fix, "name 256 or fewer");
}

#[test]
fn a_routed_prefix_has_room_for_the_sessions_and_is_no_address() {
    for (prefix, problem, fix) in [
        ("2001:db8::7/64", "an address within a network", "write the network: \"2001:db8::/64\""),
        ("2001:db8::/116", "no room for node.max_sessions", "write a /115 or larger"),
        ("fe80::/64", "overlaps fe80::/10", "your provider routes"),
        ("fd66:7765:6972::/48", "overlaps tunnel.pool_v6", "your provider routes"),
        ("192.0.2.0/24", "is not an IPv6 network", "2001:db8:7::/64"),
    ] {
        let found = mistake(&format!("[node]\nprefix_v6 = \"{prefix}\""));
        assert_eq!(found.key, "node.prefix_v6", "{prefix}");
        assert!(found.problem.contains(problem) && found.fix.contains(fix), "{prefix}: {found}");
    }
    for prefix in ["", "2001:db8:7::/64", "2001:db8:7::/115", "2001:db8::/32"] {
        assert!(check(&format!("[node]\nprefix_v6 = \"{prefix}\""), None).is_ok(), "{prefix}");
    }
}
