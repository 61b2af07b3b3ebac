use weir_ledger::{BlockEvent, Ports};

use super::*;

/// A port in the middle of the block that the tests write down.
const PORT: &str = "address=192.0.2.1&port=4100";

#[tokio::test]
async fn flows_are_counted_by_session_and_say_nothing_of_destinations() {
    let node = serve_node(4).await;
    let flows = node.ask("GET", "/v1/flows", "").await;
    assert_eq!(
        flows.json(),
        serde_json::json!({
            "egress": {"mode": "bypass", "reason": "the uplink allows it"},
            "nat": {"tcp": 40, "udp": 2, "icmp": 1, "flow_capacity": 262_144,
                "ports_used": 96, "ports": 28672},
            "sessions": [
                {"session": "00000000000000a1", "tcp": 40, "udp": 0, "icmp": 0, "blocks": 2},
                {"session": "00000000000000a2", "tcp": 0, "udp": 2, "icmp": 1, "blocks": 1},
            ],
        })
    );
    let status = node.ask("GET", "/v1/status", "").await.json();
    assert_eq!(status["egress"], flows.json()["egress"]);
    assert_eq!(status["nat"], flows.json()["nat"]);
}

#[tokio::test]
async fn a_port_and_a_time_are_answered_with_a_session_and_a_span() {
    let node = serve_node(4).await;
    let session = node.rig.add(Some("alice")).session.id;
    let ports = Ports { address: [192, 0, 2, 1].into(), first: 4096, length: 32 };
    let events = [
        BlockEvent::Taken { session, ports, at: 1_700_000_000 },
        BlockEvent::Released { session, ports, at: 1_700_000_060 },
    ];
    node.rig.ledger.lock().write_blocks(&events).expect("written");
    let owner = serde_json::json!({"owners": [{
        "session": session.to_string(), "address": "192.0.2.1", "first_port": 4096,
        "last_port": 4127, "since": 1_700_000_000, "until": 1_700_000_060,
    }]});
    for time in ["1700000030", "2023-11-14T22:13:50Z", "2023-11-14T23:13:50%2B01:00"] {
        let answer = node.ask("GET", &format!("/v1/flows/owner?{PORT}&time={time}"), "").await;
        assert_eq!(answer.json(), owner, "{time}");
    }
    let nobody = node.ask("GET", &format!("/v1/flows/owner?{PORT}&time=1700000061"), "").await;
    assert_eq!(nobody.json(), serde_json::json!({"owners": []}));
}

#[tokio::test]
async fn a_question_that_is_incomplete_is_answered_with_an_example() {
    let node = serve_node(4).await;
    for query in [
        "",
        PORT,
        "address=192.0.2.1&port=4100&time=yesterday",
        "address=192.0.2.1&port=4100&time=2023-11-14T22:13:50",
        "address=192.0.2.1&port=65536&time=0",
        "address=alice&port=1&time=0",
        "address=192.0.2.1&port=1&time=0&to=9.9.9.9",
    ] {
        let answer = node.ask("GET", &format!("/v1/flows/owner?{query}"), "").await;
        assert_eq!(answer.code(), "bad_query", "{query}");
        let said = answer.json()["error"]["message"].to_string();
        assert!(said.contains("time=2026-11-29T13:45:10Z"), "{said}");
    }
}
