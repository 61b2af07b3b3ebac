use super::*;
use crate::api;
use weir_sessions::registry::rig::Rig;

async fn ask(api: &Router, request: &str) -> Answer {
    answer(api.clone(), request.as_bytes()).await
}

#[tokio::test]
async fn requests_are_answered_as_over_http() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let api = api::tests::api(&rig).router();
    let made =
        ask(&api, r#"{"method": "POST", "path": "/v1/sessions", "body": {"name": "alice"}}"#).await;
    assert_eq!((made.status, &made.body["session"]["name"]), (201, &json!("alice")), "{made:?}");
    let credit = r#"{"method": "POST", "path": "/v1/sessions/alice/credit",
        "body": {"reference": "p1", "bytes": 1000}}"#;
    for _ in 0..2 {
        let extended = ask(&api, credit).await;
        assert_eq!(extended.status, 200, "{extended:?}");
        assert_eq!(rig.sessions.get("alice").expect("there").credit.bytes, Some(1000));
    }
    let page = ask(&api, r#"{"method": "GET", "path": "/metrics"}"#).await;
    assert!(page.body.as_str().expect("a text").contains("weir_sessions"), "{page:?}");
}

#[tokio::test]
async fn bad_requests_are_answered_with_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let api = api::tests::api(&rig).router();
    for (request, status, code) in [
        ("", 400, "bad_json"),
        ("[]", 400, "bad_json"),
        (r#"{"method": "GET"}"#, 400, "bad_json"),
        (r#"{"method": "GET", "path": "/health", "more": 1}"#, 400, "bad_json"),
        (r#"{"method": "G E T", "path": "/health"}"#, 400, "bad_path"),
        (r#"{"method": "GET", "path": "http://[/"}"#, 400, "bad_path"),
        (r#"{"method": "GET", "path": "/v1/usage/stream"}"#, 400, "bad_path"),
        (r#"{"method": "GET", "path": "/nothing"}"#, 404, "no_such_route"),
        (r#"{"method": "DELETE", "path": "/v1/status"}"#, 405, "method_not_allowed"),
        (r#"{"method": "POST", "path": "/v1/sessions", "body": 7}"#, 400, "bad_json"),
        (
            r#"{"method": "POST", "path": "/v1/sessions/alice/credit", "body": {"reference": "x", "bytes": 1}}"#,
            404,
            "not_found",
        ),
    ] {
        let answer = ask(&api, request).await;
        let found = answer.body["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((answer.status, found), (status, code), "{request}: {answer:?}");
    }
}

#[tokio::test]
async fn a_list_of_three_thousand_sessions_comes_page_by_page() {
    const COUNT: u32 = 3000;
    let folder = tempfile::tempdir().expect("a folder");
    weir_ledger::testing::crowd(&folder.path().join("ledger.db"), COUNT, 0);
    let rig = Rig::start(folder.path(), COUNT + 10);
    let api = api::tests::api(&rig).router();
    let all = ask(&api, r#"{"method": "GET", "path": "/v1/sessions"}"#).await;
    assert_eq!(all.status, 500);
    let message = all.body["error"]["message"].as_str().expect("a message");
    assert!(message.contains("?limit=1000"), "{message}");
    let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/v1/sessions?limit=1000&after={after}");
        let page = ask(&api, &json!({ "method": "GET", "path": path }).to_string()).await;
        assert_eq!(page.status, 200, "{page:?}");
        let sessions = page.body["sessions"].as_array().expect("a list");
        seen.extend(sessions.iter().map(|one| one["id"].as_str().expect("an id").to_owned()));
        pages += 1;
        // One that ends, and one that is made, between two pages.
        if pages == 1 {
            rig.sessions.remove(seen.last().expect("one")).expect("removed");
            rig.add(None);
        }
        let Some(cursor) = page.body["cursor"].as_str() else { break };
        after = cursor.to_owned();
    }
    seen.sort_unstable();
    seen.dedup();
    assert!((3..=4).contains(&pages), "{pages}");
    assert!((3000..=3001).contains(&seen.len()), "{}", seen.len());
    for (path, code) in
        [("/v1/sessions?after=x", "bad_query"), ("/v1/sessions?limit=-1", "bad_query")]
    {
        let answer = ask(&api, &json!({ "method": "GET", "path": path }).to_string()).await;
        assert_eq!(answer.body["error"]["code"], code, "{path}");
    }
}
