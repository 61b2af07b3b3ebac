//! Where a node is listed, and what it says about itself.

use super::*;

#[test]
fn a_listing_needs_somewhere_to_go_a_price_and_plain_words() {
    let registry = "registries = [\"ws://a\"]\n";
    for (text, key, problem) in [
        ("enabled = true\n", "market.enabled", "nowhere to publish"),
        (&*format!("enabled = true\n{registry}"), "market.enabled", "no price to list"),
        ("registries = [\"https://a.example\"]\n", "market.registries", "neither with wss://"),
        ("relays = [\"wss://\"]\n", "market.relays", "not a URL"),
        ("relays = [\"ws://a\", \"ws://a\"]\n", "market.relays", "listed twice"),
        ("country = \"Germany\"\n", "market.country", "is not a country"),
        ("ip_type = \"home\"\n", "market.ip_type", "is not one of the choices"),
        ("title = \"a\\u001bb\"\n", "market.title", "control characters"),
        ("place_files = [\"places.csv\"]\n", "market.place_files", "is not an absolute path"),
        ("endpoints = [\"a\"]\n", "market.endpoints", "it has no port"),
        ("purchase_url = \"exit.example\"\n", "market.purchase_url", "neither with https://"),
        ("ca_file = \"ca.pem\"\n", "market.ca_file", "is not an absolute path"),
        ("proof_of_work = 25\n", "market.proof_of_work", "out of range"),
    ] {
        let found = mistake(&format!("[market]\n{text}"));
        assert_eq!(found.key, key, "{found}");
        assert!(found.problem.contains(problem), "{found}");
    }
    let text = "[cashu]\nmints = [\"https://mint.example\"]\n[market]\nenabled = true\n\
                registries = [\"wss://a.example\"]\ncountry = \"DE\"\nip_type = \"hosting\"\n";
    assert!(check(text, Some(1500)).is_ok_and(|config| config.market.enabled));
    assert!(!Config::default().market.enabled);
}
