use std::collections::BTreeSet;

use http_body_util::BodyExt as _;
use hyper::Request;
use serde_json::Value;
use tower::ServiceExt as _;
use weir_ledger::vouchers::VoucherTerms;
use weir_sessions::registry::{NewSession, rig::Rig};

use super::{super::page, *};

fn service(rig: &Rig) -> Prepay {
    let mut config = Config::default();
    config.voucher.enabled = true;
    Prepay::new(&config, &rig.sessions, None)
}

fn prepaid(rig: &Rig) -> SessionId {
    let new = NewSession { prepaid: true, ..NewSession::default() };
    rig.sessions.add(new).expect("added").snapshot.session.id
}

fn voucher_of(rig: &Rig, bits: u8) -> Code {
    let code = Code::new([bits; 16]);
    let terms = VoucherTerms { batch: "shop".into(), bytes: 3 << 30, seconds: 0, expires: None };
    rig.ledger.lock().add_vouchers(&terms, &[code.hash()], 1).expect("added");
    code
}

async fn send(
    router: Router,
    id: SessionId,
    method: &str,
    path: &str,
    kind: &str,
    body: String,
) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let mut request = request.body(Body::from(body)).expect("a request");
    request.extensions_mut().insert(ConnectInfo(Caller(id)));
    let answer = router.oneshot(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn a_voucher_is_taken_once_and_what_is_wrong_with_others_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id, other) = (service(&rig), prepaid(&rig), prepaid(&rig));
    let code = voucher_of(&rig, 1);
    let give = async |id, code: &str| {
        let body = serde_json::json!({ "code": code }).to_string();
        let json = "application/json";
        let sent = send(service.routes(), id, "POST", "/v1/pay/voucher", json, body);
        let (status, body) = sent.await;
        (status, serde_json::from_str::<Value>(&body).expect("JSON"))
    };
    let (status, given) = give(id, &code.to_string().to_uppercase()).await;
    assert_eq!((status, &given["status"]), (200, &"credited".into()), "{given}");
    assert_eq!(given["left"]["bytes"], 3u64 << 30);
    assert_eq!(given["left"]["state"], "open");
    let shown = send(service.routes(), id, "GET", "/v1/session", "", String::new()).await;
    assert_eq!(serde_json::from_str::<Value>(&shown.1).expect("JSON"), given["left"]);
    assert_eq!(give(id, &code.to_string()).await.1["status"], "before");
    let (status, refused) = give(other, &code.to_string()).await;
    assert_eq!((status, &refused["error"]["code"]), (402, &"voucher_used".into()));
    assert_eq!(give(other, "nonsense").await.1["error"]["code"], "unknown_voucher");
    // Guessing ends soon, and honest vouchers do not count as guesses.
    let mut codes = BTreeSet::new();
    for _ in 0..MAX_REFUSED {
        codes.insert(give(other, "nonsense").await.1["error"]["code"].to_string());
    }
    assert!(codes.contains("\"too_many_refused\""), "{codes:?}");
    let document: Value =
        serde_json::from_str(include_str!("../../../../../docs/openapi-gateway.json"))
            .expect("JSON");
    for (name, value) in [("Given", &given), ("Left", &given["left"])] {
        let described = document["components"]["schemas"][name]["properties"].as_object();
        let described: BTreeSet<_> = described.expect(name).keys().collect();
        assert_eq!(described, value.as_object().expect("an object").keys().collect(), "{name}");
    }
    let words = document["components"]["schemas"]["Error"].to_string();
    for line in include_str!("../../../../ecash/src/verify.rs").lines() {
        if let Some(word) = line.trim().strip_prefix("Self::").and_then(|it| it.split('"').nth(1)) {
            assert!(words.contains(&format!("`{word}`")), "{word} is not described");
        }
    }
}

#[tokio::test]
async fn a_consumer_gets_its_own_receipt_with_the_nodes_key_and_nothing_of_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, own, other) = (service(&rig), rig.add(Some("own")), rig.add(Some("other")));
    let ask = async |id| {
        let path = "/v1/session/receipt";
        let (status, body) = send(service.routes(), id, "GET", path, "", String::new()).await;
        assert_eq!(status, 200, "{body}");
        (serde_json::from_str::<Answer>(&body).expect("an answer"), body)
    };
    let (answer, _) = ask(own.session.id).await;
    assert_eq!((answer.signer, answer.receipt), (rig.usage.signer(), None));
    rig.traffic(other.session.slot, 5);
    rig.traffic(own.session.slot, 148);
    rig.sessions.record().expect("written");
    let (answer, body) = ask(own.session.id).await;
    let receipt = answer.receipt.expect("a receipt");
    assert_eq!(receipt.verify(&rig.usage.signer()), Ok(()));
    assert_eq!((receipt.billed(), receipt.session), (148, own.session.id.to_string()));
    assert!(!body.contains("cursor"), "it says how many records the node has: {body}");
    assert_eq!(ask(other.session.id).await.0.receipt.map(|it| it.billed()), Some(5));
    let document: Value =
        serde_json::from_str(include_str!("../../../../../docs/openapi-gateway.json"))
            .expect("JSON");
    let shown: Value = serde_json::from_str(&body).expect("JSON");
    for (name, value) in [("ReceiptAnswer", &shown), ("Receipt", &shown["receipt"])] {
        let described = document["components"]["schemas"][name]["properties"].as_object();
        let described: BTreeSet<_> = described.expect(name).keys().collect();
        assert_eq!(described, value.as_object().expect("an object").keys().collect(), "{name}");
    }
    // Asking is bounded, as every request is.
    let path = "/v1/session/receipt";
    let mut refused = 0;
    for _ in 0..2 * BURST {
        let id = own.session.id;
        let (status, _) = send(service.routes(), id, "GET", path, "", String::new()).await;
        refused += u32::from(status == 429);
    }
    assert!(refused > 0, "it answers without end");
}

#[tokio::test]
async fn the_page_takes_a_voucher_and_shows_what_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id) = (service(&rig), prepaid(&rig));
    let code = voucher_of(&rig, 2);
    let form = "application/x-www-form-urlencoded";
    let ask = async |method: &str, path: &str, body: String| {
        send(page::router(&service), id, method, path, form, body).await
    };
    let (status, html) = ask("GET", "/", String::new()).await;
    assert_eq!(status, 200);
    assert!(html.contains("paused: nothing left") && html.contains("<b>0 B</b>"), "{html}");
    let (status, html) = ask("POST", "/", format!("payment=%20{code}%0D%0A")).await;
    assert_eq!(status, 200, "{html}");
    assert!(html.contains("Added: 3.00 GiB.") && html.contains("open</span>"), "{html}");
    let (status, html) = ask("POST", "/", "payment=%3Cscript%3E{state}".into()).await;
    assert_eq!(status, 402);
    assert!(html.contains("no such voucher") && !html.contains("<script"), "{html}");
    assert_eq!(ask("POST", "/", "x=y".into()).await.0, 400);
    assert_eq!(ask("POST", "/", format!("payment={}", "a".repeat(MAX_BODY))).await.0, 400);
    assert_eq!(ask("GET", "/page.css", String::new()).await.0, 200);
    assert_eq!(ask("GET", "/v1/sessions", String::new()).await.0, 404);
    // It needs nothing from elsewhere, and no script.
    for foreign in ["<script", "http:", "https:", " style=", "@import", "{badge}", "{wallet}"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}
