use weir_config::Config as Settings;

use super::*;

fn facts() -> Facts {
    Facts {
        node_key: PublicKey([7; 32]),
        endpoint: HostPort { host: "45.80.2.2".into(), port: 51820 },
        addresses: vec![[45, 80, 2, 2].into(), "2a0c:b641:2::2".parse().expect("an address")],
        exit_addresses: Vec::new(),
        sessions: 96,
        max_sessions: 4096,
        is_paused: false,
        has_ipv6: true,
        measured: None,
        cashu: Some(CashuFacts {
            mints: vec!["https://mint.example".into()],
            lock: "02aa".into(),
            gib_price: 100,
            unit: "sat".into(),
        }),
    }
}

fn settings(change: impl FnOnce(&mut Settings)) -> MarketSettings {
    let mut config = Config::default();
    config.market.country = "de".into();
    change(&mut config);
    MarketSettings::off(&config)
}

fn made(facts: &Facts, settings: &MarketSettings) -> Listing {
    listing("weir", facts, settings).0
}

fn addresses(listing: &Listing) -> Vec<String> {
    let all = listing.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    all.map(ToString::to_string).collect()
}

#[test]
fn the_listing_says_what_the_node_is_and_takes() {
    let listing = made(&facts(), &settings(|_| {}));
    assert_eq!(listing.title, "weir exit DE");
    assert_eq!((listing.state, listing.country_basis), (State::Active, Basis::Claimed));
    assert_eq!(listing.prices.iter().map(ToString::to_string).collect::<Vec<_>>(), ["100 sat/GiB"]);
    let methods: Vec<_> = listing.payments.iter().map(Payment::method).collect();
    assert_eq!(methods, ["weir-tunnel/cashu"]);
    assert_eq!(addresses(&listing), ["45.80.2.2:51820", "[2a0c:b641:2::2]:51820"]);
    assert_eq!((listing.reach, listing.free_slots), (Reach::Direct, Some(4000)));
    assert_eq!(listing.features, ["ipv6", "dns"]);
}

#[test]
fn a_purchase_url_vouchers_and_promises_are_ways_to_pay() {
    let settings = settings(|config| {
        config.market.purchase_url = "https://exit.example/purchase".into();
        config.voucher.enabled = true;
        config.payment.enabled = true;
    });
    let listing = made(&facts(), &settings);
    let methods: Vec<_> = listing.payments.iter().map(Payment::method).collect();
    assert_eq!(methods, ["cashu", "weir-tunnel/cashu", "weir-tunnel/mysterium", "voucher"]);
    let prices: Vec<_> = listing.prices.iter().map(ToString::to_string).collect();
    assert_eq!(prices, ["100 sat/GiB", "0.1 MYST/GiB", "0.00006 MYST/hour"]);
}

#[test]
fn where_it_sells_is_what_the_purchases_listener_is_unless_it_is_written() {
    let selling = |change: fn(&mut Settings)| {
        settings(|config| {
            config.cashu.mints = vec!["https://mint.example".into()];
            config.purchase.listen = ListenAddr::On("0.0.0.0:8443".parse().expect("an address"));
            change(config);
        })
    };
    let url = |facts: &Facts, settings: &MarketSettings| {
        let (listing, notes) = listing("weir", facts, settings);
        let words = listing.payments.iter().map(Payment::words).find(|words| words[0] == "cashu");
        (words.map(|words| words[3].clone()), notes.join("\n"))
    };
    let named = selling(|config| config.purchase.server_names = vec!["exit.example".into()]);
    let expected = Some("http://exit.example:8443/purchase".to_owned());
    assert_eq!(url(&facts(), &named).0, expected);
    let nameless = selling(|_| {});
    assert_eq!(url(&facts(), &nameless).0.as_deref(), Some("http://45.80.2.2:8443/purchase"));
    let written = selling(|config| config.market.purchase_url = "https://shop.example/buy".into());
    assert_eq!(url(&facts(), &written).0.as_deref(), Some("https://shop.example/buy"));
    // Without a public address nobody can be told where.
    let endpoint = HostPort { host: "192.168.1.7".into(), port: 51820 };
    let behind = Facts { endpoint, addresses: vec![[192, 168, 1, 7].into()], ..facts() };
    let (none, notes) = url(&behind, &nameless);
    assert!(none.is_none() && notes.contains("Fix: set market.purchase_url"), "{notes}");
    // Who sells nothing names no place.
    assert_eq!(url(&facts(), &settings(|_| {})).0, None);
}

#[test]
fn a_node_that_is_full_or_paused_is_sold() {
    let settings = settings(|_| {});
    let full = Facts { sessions: 4096, ..facts() };
    assert_eq!(made(&full, &settings).state, State::Sold);
    assert_eq!(made(&full, &settings).free_slots, Some(0));
    let paused = Facts { is_paused: true, ..facts() };
    assert_eq!(made(&paused, &settings).state, State::Sold);
    let more = Facts { sessions: 5000, ..facts() };
    assert_eq!(made(&more, &settings).state, State::Sold);
}

#[test]
fn a_private_address_is_not_listed_and_the_note_says_what_to_do() {
    let behind = Facts {
        endpoint: HostPort { host: "192.168.1.7".into(), port: 51820 },
        addresses: vec![[192, 168, 1, 7].into(), "fd00::7".parse().expect("an address")],
        ..facts()
    };
    let (listed, notes) = listing("weir", &behind, &settings(|_| {}));
    assert_eq!((addresses(&listed), listed.reach), (Vec::new(), Reach::Unknown));
    let note = notes.iter().find(|note| note.contains("192.168.1.7")).expect("a note");
    assert!(note.contains("Fix: forward") && note.contains("market.endpoints"), "{note}");
    let forwarded = settings(|config| config.market.endpoints = vec!["45.80.9.9:51820".into()]);
    let listing = made(&behind, &forwarded);
    assert_eq!(addresses(&listing), ["45.80.9.9:51820"]);
    assert_eq!(listing.reach, Reach::Mapped);
}

#[test]
fn a_database_outweighs_what_the_operator_typed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("places.csv");
    std::fs::write(&file, "45.80.2.0/24,FR,64500,hosting\n").expect("written");
    let mut config = Config::default();
    config.market.country = "DE".into();
    config.market.ip_type = IpType::Residential;
    config.market.place_files = vec![file];
    let settings = MarketSettings::load(&config).expect("loaded");
    let listing = made(&facts(), &settings);
    assert_eq!(listing.country.map(|it| it.to_string()).as_deref(), Some("FR"));
    assert_eq!((listing.country_basis, listing.ip_type_basis), (Basis::Database, Basis::Database));
    assert_eq!((listing.ip_type, listing.asn), (IpType::Hosting, Some(64500)));
}

#[test]
fn special_addresses_are_not_public() {
    for address in [
        "10.1.1.1",
        "100.64.0.1",
        "192.0.2.1",
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "169.254.1.1",
        "198.18.0.1",
        "fe80::1",
        "fd00::1",
        "2001:db8::1",
        "::1",
    ] {
        assert!(!is_public(address.parse().expect("an address")), "{address}");
    }
    for address in ["45.80.2.2", "8.8.8.8", "2a0c:b641:2::2"] {
        assert!(is_public(address.parse().expect("an address")), "{address}");
    }
}
