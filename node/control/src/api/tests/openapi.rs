//! The committed description of the API is what the API is.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::view::NodeView;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../../../docs/openapi.json")).expect("JSON")
}

/// The properties of a schema, and those that are required.
fn properties(document: &Value, name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let schema = &document["components"]["schemas"][name];
    let keys = schema["properties"].as_object().unwrap_or_else(|| panic!("{name} is missing"));
    let required = schema["required"].as_array().into_iter().flatten();
    let required = required.filter_map(|name| name.as_str()).map(str::to_owned).collect();
    (keys.keys().cloned().collect(), required)
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

#[tokio::test]
async fn every_described_request_is_answered_and_every_route_is_described() {
    let node = serve_node(4).await;
    let mut described = BTreeSet::new();
    for (path, methods) in document()["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            described.insert(format!("{} {path}", method.to_uppercase()));
            if path.ends_with("stream") {
                continue;
            }
            let asked = path.replace("{which}", "nobody");
            let answer = node.ask(&method.to_uppercase(), &asked, "{}").await;
            let code = if answer.status.is_success() { String::new() } else { code_of(&answer) };
            assert!(
                !["no_such_route", "method_not_allowed"].contains(&code.as_str()),
                "{method} {path}: {code}"
            );
        }
    }
    // The routes are in the source of the router, and nowhere else.
    let source = include_str!("../../api.rs");
    for line in source.lines().filter(|line| line.trim_start().starts_with(".route(")) {
        let path = line.split('"').nth(1).expect("a path");
        for (word, method) in
            [("get(", "GET"), ("post(", "POST"), ("put(", "PUT"), ("delete(", "DELETE")]
        {
            if line.contains(word) {
                assert!(described.contains(&format!("{method} {path}")), "{method} {path}");
            }
        }
    }
    assert!(described.len() >= 12, "{described:?}");
}

fn verdict() -> Value {
    let (rule, reason) = ("default".to_owned(), "allowed by default".to_owned());
    let verdict = weir_policy::Verdict { allowed: true, rule, reason, entry: None };
    serde_json::to_value(verdict).expect("JSON")
}

fn code_of(answer: &Answer) -> String {
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    value["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_described_fields_are_those_of_the_answers() {
    let node = serve_node(4).await;
    let document = document();
    let made = node.ask("POST", "/v1/sessions", r#"{"name": "a"}"#).await.json();
    node.rig.traffic(weir_common::Slot(0), 5);
    node.rig.sessions.record().expect("written");
    let usage = node.ask("GET", "/v1/usage", "").await.json();
    let status = node.ask("GET", "/v1/status", "").await.json();
    let limits = node.ask("GET", "/v1/limits", "").await.json();
    let flows = node.ask("GET", "/v1/flows", "").await.json();
    let ports = weir_ledger::Ports { address: [192, 0, 2, 1].into(), first: 0, length: 1 };
    let span = weir_ledger::BlockSpan {
        session: weir_ledger::SessionId::random(),
        ports,
        since: 1,
        until: Some(2),
    };
    let owners = crate::flows::PortOwners { owners: vec![span.into()] };
    let owners = serde_json::to_value(owners).expect("JSON");
    let error = node.ask("GET", "/v1/sessions/nobody", "").await.json();
    let market = NodeView::market(&StillNode).expect("a listing");
    let market = serde_json::to_value(market).expect("JSON");
    for (name, value) in [
        ("Session", &made["session"]),
        ("MadeSession", &made),
        ("UsagePage", &usage),
        ("Record", &usage["records"][0]),
        ("Status", &status),
        ("Error", &error),
        (
            "NodeKeys",
            &serde_json::to_value(weir_sessions::keys::NodeKeys {
                public_key: String::new(),
                previous_public_key: None,
            })
            .expect("JSON"),
        ),
        ("LimitsView", &limits),
        ("LimitsNow", &limits["now"]),
        ("Quota", &limits["now"]["day"]),
        ("Market", &market),
        ("MarketRelay", &market["relays"][0]),
        ("Verdict", &verdict()),
        ("Egress", &status["egress"]),
        ("Nat", &status["nat"]),
        ("Flows", &flows),
        ("SessionFlows", &flows["sessions"][0]),
        ("PortOwners", &owners),
        ("PortOwner", &owners["owners"][0]),
        ("Outcome", &serde_json::to_value(crate::reload::Outcome::default()).expect("JSON")),
    ] {
        let (described, required) = properties(&document, name);
        assert_eq!(described, keys(value), "{name}");
        assert_eq!(described, required, "{name}: an answer has all of its fields");
    }
    let request = view::CreditRequest { reference: "x".into(), bytes: 1, seconds: 2 };
    let request = serde_json::to_value(request).expect("JSON");
    assert_eq!(properties(&document, "CreditRequest").0, keys(&request));
    assert_eq!(properties(&document, "Limits").0, keys(&limits["limits"]));
    let request = view::RateRequest { up: Some(1), down: Some(2) };
    let request = serde_json::to_value(request).expect("JSON");
    assert_eq!(properties(&document, "RateRequest").0, keys(&request));
    let record: Value =
        serde_json::from_str(include_str!("../../../../../docs/usage-record.schema.json"))
            .expect("JSON");
    assert_eq!(keys(&record["properties"]), keys(&usage["records"][0]));
    assert_eq!(record["properties"], document["components"]["schemas"]["Record"]["properties"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_payment_layer_sells_credit_and_its_total_is_exact() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (one, two) = (rig.add(Some("one")).session, rig.add(Some("two")).session);
    rig.traffic(one.slot, 1000);
    rig.sessions.record().expect("written");
    rig.traffic(one.slot, 234);
    rig.traffic(two.slot, 1 << 20);
    rig.sessions.record().expect("written");
    let (address, token) = ledger::serve_http(&rig, folder.path()).await;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/payment_layer.py");
    let ran = tokio::process::Command::new("python3")
        .args([example, "2.5", "2"])
        .env("WEIR_URL", format!("http://{address}"))
        .env("WEIR_TOKEN", token)
        .output()
        .await
        .expect("python3 is there");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    let total = (1 << 20) + 1234;
    assert!(
        said.lines().all(|line| line.contains(&format!("2 sessions, {total} bytes"))),
        "{said}"
    );
    // Credit begins at what was used, and one chunk was bought, not one a round.
    let credit = |which: &str| rig.sessions.get(which).expect("there").credit.bytes;
    assert_eq!(credit("one"), Some((1 << 30) + 1234));
    assert_eq!(credit("two"), Some((1 << 30) + (1 << 20)));
}
