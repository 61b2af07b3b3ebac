mod market;
mod nat;
mod payment;
mod registry;
mod tunnel;

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
        cipher_cores = [2]
        xdp = "generic"
        io = "syscall"
        udp_segmentation = false
        receive = "af_xdp"
        zero_copy = false
        defer_interrupts = true
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
        [cashu]
        mints = ["https://mint.example.net"]
        unit = "usd"
        gib_price = 7
        max_unredeemed = 8
        redeem_seconds = 9
        lock_days = 10
        key_file = "/k"
        ca_file = "/c"
        [purchase]
        listen = "192.0.2.1:443"
        server_names = ["exit.example.net"]
        certificate_file = "/c.pem"
        certificate_key_file = "/k.pem"
        proxies = ["127.0.0.0/8"]
        relays = ["wss://relay.example.net"]
        relay_ca_file = "/ca"
        min_mib = 7
        max_mib = 8
        valid_days = 9
        [voucher]
        enabled = true
        page = false
        page_port = 8080
        [registry]
        listen = "[::]:7000"
        title = "t"
        snapshot = "/s"
        peers = ["wss://peer.example.net"]
        ca_file = "/c"
        proxies = ["127.0.0.1/32"]
        max_listings = 1
        max_mib = 2
        max_connections = 3
        connections_per_network = 4
        keys_per_network = 6
        events_per_second = 7
        proof_of_work = 8
        dial_back = true
        key_file = "/k"
        [market]
        enabled = true
        registries = ["wss://registry.example.net"]
        relays = ["ws://127.0.0.1:7447/x"]
        title = "t"
        country = "DE"
        ip_type = "residential"
        place_files = ["/p.mmdb", "/p.csv"]
        endpoints = ["exit.example.net:51820"]
        purchase_url = "https://exit.example.net/purchase"
        key_file = "/k"
        proof_of_work = 8
        ca_file = "/c"
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
fn keys_that_contradict_each_other_are_refused() {
    let workers = mistake("[node]\nworkers = 3\ncores = [0, 1]");
    assert_eq!(workers.fix, "write workers = 2, or \"auto\"");
    assert!(mistake("[node]\ncores = [0, 0]").problem.contains("twice"));
    let both = mistake("[node]\ncores = [0]\ncipher_cores = [1, 0]");
    assert!(both.problem.contains("twice") && both.problem.contains("core 0"), "{both:?}");
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
