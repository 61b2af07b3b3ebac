use proptest::prelude::*;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn lines(text: &str) -> Places {
    Places(vec![Database::Networks(parse(text).expect("lines"))])
}

#[test]
fn the_smallest_network_that_has_the_address_counts() {
    let places = lines(
        "network,country,asn,type\n\
         192.0.2.0/24,DE,AS64500,residential # comment\n\n\
         192.0.2.128/25,FR,,hosting\n2001:db8::/32,us,64501,\n198.51.100.7,NL,,isp\n",
    );
    let of = |text| places.find(address(text));
    let country = |text| of(text).country.map(|it| it.to_string()).unwrap_or_default();
    assert_eq!(of("192.0.2.1").asn, Some(64500));
    assert_eq!(of("192.0.2.1").ip_type, Some(IpType::Residential));
    assert_eq!(country("192.0.2.1"), "DE");
    assert_eq!(country("192.0.2.200"), "FR");
    assert_eq!(of("192.0.2.200").ip_type, Some(IpType::Hosting));
    assert_eq!(country("2001:db8::1"), "US");
    assert_eq!(of("198.51.100.7").ip_type, Some(IpType::Residential));
    assert_eq!(of("203.0.113.1"), Place::default());
}

#[test]
fn an_earlier_file_counts_and_a_later_one_completes_it() {
    let mut places = lines("192.0.2.0/24,DE,,\n");
    places.0.extend(lines("192.0.2.0/24,FR,64500,hosting\n").0);
    let found = places.find(address("192.0.2.1"));
    assert_eq!(found.country.map(|it| it.to_string()).as_deref(), Some("DE"));
    assert_eq!((found.asn, found.ip_type), (Some(64500), Some(IpType::Hosting)));
}

#[test]
fn a_wrong_line_is_named() {
    for (text, line, problem) in [
        ("# fine\n192.0.2.0/33,DE\n", 2, "is not a network"),
        ("192.0.2.0/24,Germany\n", 1, "is not a country"),
        ("192.0.2.0/24,DE,x\n", 1, "is not the number of an AS"),
        ("192.0.2.0/24,DE,,home\n", 1, "is not one of"),
        ("192.0.2.0/24,DE,,,\n", 1, "more than four"),
    ] {
        let (found, said) = parse(text).expect_err("wrong");
        assert_eq!(found, line, "{text}");
        assert!(said.contains(problem), "{said}");
    }
}

#[test]
fn a_file_that_is_not_there_or_is_not_a_database_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("p.mmdb");
    let error = Places::load(&[&path]).expect_err("missing").to_string();
    assert!(error.contains("p.mmdb") && error.contains("Fix: "), "{error}");
    fs::write(&path, "rubbish").expect("written");
    assert!(matches!(Places::load(&[&path]), Err(PlaceError::Form { .. })));
}

/// The records of the databases that people have, as JSON.
#[test]
fn the_records_of_known_databases_are_read() {
    let place = |json: &str| serde_json::from_str::<Record>(json).expect("a record").place();
    let de = "DE".parse().ok();
    let lite = place(r#"{"country": "Germany", "country_code": "DE", "asn": "AS3320"}"#);
    assert_eq!((lite.country, lite.asn, lite.ip_type), (de, Some(3320), None));
    let city = place(r#"{"country": {"iso_code": "DE", "names": {"en": "Germany"}}}"#);
    assert_eq!(city.country, de);
    let asn = place(r#"{"autonomous_system_number": 3320}"#);
    assert_eq!(asn.asn, Some(3320));
    let paid = place(r#"{"country": "DE", "type": "isp"}"#);
    assert_eq!((paid.country, paid.ip_type), (de, Some(IpType::Residential)));
    let traits = place(r#"{"traits": {"user_type": "cellular", "autonomous_system_number": 7}}"#);
    assert_eq!((traits.asn, traits.ip_type), (Some(7), Some(IpType::Cellular)));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(parse(&text));
        drop(Reader::from_source(bytes));
    }
}
