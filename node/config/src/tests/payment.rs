//! Prices and identities.

use super::*;

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
