use weir_market::{
    event::sign_listing,
    key::MarketKey,
    listing::{Listing, State},
    testing::listing,
};

use super::*;
use crate::testing::NOW;

fn record(listing: &Listing, created_at: u64) -> Arc<Record> {
    let event = sign_listing(&MarketKey::random(), listing, created_at, 0);
    Arc::new(Record::new(&event, NOW + 3600))
}

fn all() -> Vec<Arc<Record>> {
    let sold = Listing { state: State::Sold, ..listing("DE", "1 sat/GiB", 1) };
    let office = Listing { ip_type: IpType::Business, ..listing("DE", "300 sat/GiB", 2) };
    let slow = Listing { measured: None, ..listing("FR", "200000 sat/TiB", 3) };
    let by_time = listing("FR", "7 sat/hour", 4);
    let listings = [sold, office, slow, by_time, listing("SE", "0.1 MYST/GiB", 5)];
    listings.iter().zip(0..).map(|(it, age)| record(it, NOW - age)).collect()
}

/// The countries and first prices of what a query finds.
fn found(query: &str) -> Vec<String> {
    let query = ExitsQuery::parse(query).expect(query);
    let found = select(all(), &query);
    let answer = answer(&found, &query);
    let text =
        |exit: &ExitView| format!("{} {}", exit.country.as_deref().unwrap_or("-"), exit.prices[0]);
    answer.exits.iter().map(text).collect()
}

#[test]
fn exits_are_found_by_country_line_and_price() {
    let german = "DE 300 sat/GiB";
    assert_eq!(found("country=de"), [german]);
    assert_eq!(found("country=de&state=all"), ["DE 1 sat/GiB", german]);
    assert_eq!(found("country=DE,SE&sort=newest"), [german, "SE 0.1 MYST/GiB"]);
    assert_eq!(found("ip_type=business"), [german]);
    assert_eq!(found("max_price=200sat/GiB"), ["FR 200000 sat/TiB"]);
    assert_eq!(found("max_price=1+sat/minute".replace("minute", "day").as_str()), [""; 0]);
    assert_eq!(found("max_price=168 sat/day"), ["FR 7 sat/hour"]);
    assert_eq!(found("max_price=1%20MYST%2FGiB"), ["SE 0.1 MYST/GiB"]);
    assert_eq!(found("country=&ip_type=&max_price=&sort=").len(), 4, "a form that was left empty");
}

#[test]
fn exits_are_ordered_and_cut() {
    // Prices that cannot be compared come last, the newest first.
    let cheapest = ["FR 200000 sat/TiB", "DE 300 sat/GiB", "FR 7 sat/hour", "SE 0.1 MYST/GiB"];
    assert_eq!(found(""), cheapest);
    assert_eq!(found("limit=2"), cheapest[..2]);
    assert_eq!(found("limit=2&offset=3"), cheapest[3..]);
    assert_eq!(found("offset=4"), [""; 0]);
    assert_eq!(found("sort=newest")[0], "DE 300 sat/GiB");
    assert_eq!(found("sort=speed")[3], "FR 200000 sat/TiB", "it says nothing of its speed");
}

#[test]
fn an_answer_says_where_the_next_begins_and_has_the_signed_events() {
    let query = ExitsQuery::parse("limit=3").expect("a query");
    let first = answer(&select(all(), &query), &query);
    assert_eq!((first.total, first.next_offset), (4, Some(3)));
    let last = ExitsQuery::parse(&query.from_row(3)).expect("a query");
    assert_eq!(answer(&select(all(), &last), &last).next_offset, None);
    let json = serde_json::to_value(&first).expect("JSON");
    let exit = &json["exits"][0];
    let event = nostr::event::Event::from_json(exit["event"].to_string()).expect("an event");
    assert!(event.verify().is_ok());
    assert_eq!(exit["pubkey"], event.pubkey.to_hex());
    assert_eq!(exit["country"], "FR");
    assert_eq!(exit["ip_type"], "residential");
    assert_eq!(exit["prices"][0]["unit"], "TiB");
    assert_eq!(exit["endpoints"][0]["addresses"][0], "192.0.2.3:51820");
    assert_eq!(exit["payments"][0][0], "voucher");
}

#[test]
fn a_wrong_query_is_refused_by_its_parameter() {
    for (query, said) in [
        ("country=Germany", "country is \"Germany\""),
        ("ip_type=home", "ip_type is \"home\": write residential"),
        ("max_price=cheap", "max_price is \"cheap\""),
        ("sort=quality", "sort is \"quality\": write price"),
        ("state=sold", "state is \"sold\""),
        ("limit=0", "limit is \"0\": write a number from 1 to 500"),
        ("limit=501", "limit is \"501\""),
        ("offset=-1", "offset is \"-1\""),
        ("nation=DE", "there is no parameter \"nation\""),
    ] {
        let error = ExitsQuery::parse(query).expect_err(query).to_string();
        assert!(error.starts_with(said), "{error}");
    }
    assert_eq!(ExitsQuery::parse(&"a".repeat(3000)), Err(QueryError::Form));
}

#[test]
fn a_query_is_read_as_it_is_linked() {
    let text = "country=DE%2CFR&ip_type=cellular&max_price=0.5+sat%2FGiB&sort=speed&state=all&\
                limit=7&offset=14";
    let query = ExitsQuery::parse(text).expect("a query");
    assert_eq!(query.from_row(14), text);
}

#[test]
fn countries_count_what_is_for_sale() {
    let counts = countries(all().iter());
    let short: Vec<_> = counts.iter().map(|it| (it.country.as_str(), it.exits)).collect();
    assert_eq!(short, [("FR", 2), ("DE", 1), ("SE", 1)]);
    assert_eq!(counts[1].ip_types, BTreeMap::from([("business", 1)]));
}

/// The names of an object's properties in a schema of the documents.
fn documented(document: &serde_json::Value, schema: &str) -> Vec<String> {
    let properties = &document["components"]["schemas"][schema]["properties"];
    keys(properties)
}

fn keys(value: &serde_json::Value) -> Vec<String> {
    let names = value.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn the_documented_parameters_and_fields_are_those_that_there_are() {
    let text = include_str!("../../../../docs/openapi-registry.json");
    let document: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let parameters = document["paths"]["/v1/exits"]["get"]["parameters"].as_array().expect("some");
    let query: Vec<String> = parameters
        .iter()
        .map(|it| format!("{}={}", it["name"].as_str().unwrap_or_default(), it["example"]))
        .map(|pair| pair.replace('"', ""))
        .collect();
    let read = ExitsQuery::parse(&query.join("&")).expect("the examples");
    assert_eq!(read.from_row(0).split('&').count() + 1, query.len(), "state=active is the default");
    let query = ExitsQuery::parse("limit=1").expect("a query");
    let answer = serde_json::to_value(answer(&select(all(), &query), &query)).expect("JSON");
    assert_eq!(keys(&answer), documented(&document, "Exits"));
    assert_eq!(keys(&answer["exits"][0]), documented(&document, "Exit"));
    let country = serde_json::to_value(&countries(all().iter())[0]).expect("JSON");
    assert_eq!(keys(&country), documented(&document, "Country"));
}
