use super::*;

const GOOD: &str = "# weir session 12\n[Interface]\n\
    PrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n\
    Address = 10.66.0.2/32, fd66:7765:6972::2/128\nDNS = 10.66.0.1, example.net\nMTU = 1400\n\
    PostUp = rm -rf /\n\n[Peer]\nPublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n\
    AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 45.80.2.2:51820\nPersistentKeepalive = 25\n";

fn refused(text: &str) -> ConfError {
    Conf::parse(text).expect_err("it is refused")
}

#[test]
fn a_configuration_of_a_node_is_read_whole() {
    let conf = Conf::parse(GOOD).expect("it is well formed");
    assert_eq!(conf.endpoint, Endpoint::Address("45.80.2.2:51820".parse().expect("address")));
    assert_eq!((conf.mtu, conf.keepalive), (1400, 25));
    assert_eq!(conf.exit_address(false), "10.66.0.2".parse().ok());
    assert_eq!(conf.exit_address(true), "fd66:7765:6972::2".parse().ok());
    assert_eq!(conf.gateway(), "10.66.0.1".parse().ok());
    assert_eq!(conf.ignored, ["PostUp"], "nothing that the file says is run");
}

#[test]
fn what_weir_notes_in_comments_is_read_and_nothing_else() {
    let conf = Conf::parse(&format!("# Receipts = a+/b=\n# Country = DE\n{GOOD}")).expect("good");
    assert_eq!((conf.receipts.as_deref(), conf.country.as_deref()), (Some("a+/b="), Some("DE")));
    for comment in ["# Country = Germany", "# Country = de", "# Land = DE"] {
        let conf = Conf::parse(&format!("{comment}\n{GOOD}")).expect("good");
        assert_eq!((conf.receipts, conf.country), (None, None), "{comment}");
    }
}

#[test]
fn a_family_without_address_or_route_has_no_exit() {
    let conf = Conf::parse(&GOOD.replace("0.0.0.0/0, ::/0", "0.0.0.0/1, 128.0.0.0/1, fd00::/8"));
    let conf = conf.expect("IPv4 leaves");
    assert!(conf.exit_address(false).is_some() && conf.exit_address(true).is_none());
    assert!(conf.allows([9, 9, 9, 9].into()) && !conf.allows("2001:db8::1".parse().expect("v6")));
    assert_eq!(
        refused(&GOOD.replace("0.0.0.0/0, ::/0", "10.0.0.0/8, 0.0.0.0/1")),
        ConfError::NoExit
    );
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    assert_eq!(refused(&GOOD.replace("Endpoint", "# ")), ConfError::Missing("Endpoint"));
    assert_eq!(refused(&GOOD.replace("MTU = 1400", "MTU")), ConfError::Line(6));
    assert_eq!(refused(&format!("{GOOD}[Peer]\n")), ConfError::Peers);
    assert_eq!(refused(&"#".repeat(MAX_LEN + 1)), ConfError::TooLong);
    for (from, to, key) in [
        ("1400", "900", "MTU"),
        ("45.80.2.2:51820", "a b:5", "Endpoint"),
        ("45.80.2.2:51820", "45.80.2.2:0", "Endpoint"),
        ("10.66.0.2/32", "10.66.0.2/33", "Address"),
        ("hSDw", "hS", "PublicKey"),
    ] {
        let error = refused(&GOOD.replace(from, to));
        assert!(matches!(error, ConfError::Value { key: found, .. } if found == key), "{error}");
    }
}

#[test]
fn a_name_with_a_port_is_an_endpoint_too() {
    let conf = Conf::parse(&GOOD.replace("45.80.2.2:51820", "exit.example.net:4")).expect("good");
    assert_eq!(conf.endpoint, Endpoint::Name("exit.example.net".into(), 4));
    let conf = Conf::parse(&GOOD.replace("45.80.2.2:51820", "[2001:db8::1]:4")).expect("good");
    assert_eq!(conf.endpoint.to_string(), "[2001:db8::1]:4");
}
