use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::resolver::Resolver;
use weir_promise::{Price, wire::InvoiceText};
use weir_sessions::registry::{NewSession, payer::Consumer, rig::Rig};

fn config() -> Payment {
    let address = alloy_primitives::Address::repeat_byte(7);
    Payment { enabled: true, provider: Some(address), ..Payment::default() }
}

fn service(rig: &Rig) -> Pay {
    Pay::new(&config(), &rig.sessions, &Resolver::inside()).expect("right").expect("it is on")
}

fn prepaid(rig: &Rig, free_bytes: u64) -> SessionId {
    let new = NewSession { prepaid: true, free_bytes, ..NewSession::default() };
    rig.sessions.add(new).expect("added").snapshot.session.id
}

fn offered(service: &Pay) -> Offered {
    let consumer = alloy_primitives::Address::repeat_byte(9);
    Offered { consumer, price: terms::price(&service.0.config) }
}

#[test]
fn without_the_configurations_word_there_is_no_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    assert!(
        Pay::new(&Payment::default(), &rig.sessions, &Resolver::inside()).expect("right").is_none()
    );
}

#[test]
fn free_bytes_come_first_and_cost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id) = (service(&rig), prepaid(&rig, 1000));
    let slot = rig.sessions.get(&id.to_string()).expect("there").session.slot;
    assert_eq!(service.0.account(id).expect("there").state, "open");
    rig.traffic(slot, 900);
    service.0.agree(id, &offered(&service)).expect("agreed");
    let account = service.0.account(id).expect("there");
    assert_eq!((account.state.as_str(), account.covered_bytes), ("open", 900));
    assert_eq!(account.agreement.expect("agreed").due, "0");
    assert_eq!(account.invoice.expect("the first").agreement_total, "1");
    rig.traffic(slot, 100 + (1 << 30));
    rig.sessions.enforce(Duration::MAX, Instant::now()).expect("enforced");
    let account = service.0.account(id).expect("there");
    assert_eq!((account.state.as_str(), account.covered_bytes), ("paused", 1000));
    let price = terms::price(&service.0.config).per_gib;
    assert_eq!(account.agreement.expect("agreed").due, price.to_string());
}

#[test]
fn asking_again_makes_no_new_invoice_within_a_second() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id) = (service(&rig), prepaid(&rig, 0));
    service.0.agree(id, &offered(&service)).expect("agreed");
    let asked = || service.0.account(id).expect("there").invoice.expect("due");
    let first = asked();
    assert_eq!(asked(), first);
    let slot = rig.sessions.get(&id.to_string()).expect("there").session.slot;
    rig.traffic(slot, 1 << 30);
    assert_eq!(asked(), first, "more is due, but not for long");
    std::thread::sleep(INVOICE_AGE);
    let second = asked();
    assert!(second.agreement_total.len() > first.agreement_total.len(), "{second:?}");
    std::thread::sleep(INVOICE_AGE);
    assert_eq!(asked(), second, "no more is due");
}

#[test]
fn an_agreement_is_made_once_and_never_below_the_floor() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id) = (service(&rig), prepaid(&rig, 0));
    let good = offered(&service);
    let free = Offered { price: Price::default(), ..good };
    assert!(matches!(service.0.agree(id, &free), Err(PayError::TooCheap(_))));
    service.0.agree(id, &good).expect("agreed");
    service.0.agree(id, &good).expect("the same again");
    let other = Offered { consumer: alloy_primitives::Address::repeat_byte(8), ..good };
    assert!(matches!(service.0.agree(id, &other), Err(PayError::Agreed)));
}

#[test]
fn the_described_fields_are_those_of_the_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id) = (service(&rig), prepaid(&rig, 0));
    service.0.agree(id, &offered(&service)).expect("agreed");
    let account = service.0.account(id).expect("there");
    let document: Value =
        serde_json::from_str(include_str!("../../../../../docs/openapi-gateway.json"))
            .expect("JSON");
    let described = |name: &str| -> BTreeSet<String> {
        let schema = &document["components"]["schemas"][name]["properties"];
        schema.as_object().unwrap_or_else(|| panic!("{name}")).keys().cloned().collect()
    };
    let keys = |value: Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let value = serde_json::to_value(&account).expect("JSON");
    assert_eq!(described("Terms"), keys(value["terms"].clone()));
    assert_eq!(described("Agreement"), keys(value["agreement"].clone()));
    assert_eq!(described("Invoice"), keys(value["invoice"].clone()));
    assert_eq!(described("Account"), keys(value));
    let request = AgreementRequest {
        consumer: String::new(),
        per_gib: Some(String::new()),
        per_hour: Some(String::new()),
    };
    assert_eq!(described("AgreementRequest"), keys(serde_json::to_value(request).expect("JSON")));
    let invoice: InvoiceText = account.invoice.expect("due");
    assert_eq!(invoice.agreement_total, "1");
    // The words of the refusals are in the code, and nowhere else.
    let source = include_str!("refusal.rs");
    let codes = document["components"]["schemas"]["Error"].to_string();
    for line in source.lines().filter(|line| line.trim_start().starts_with("Refusal::")) {
        let code = line.split('"').nth(1).expect("a word");
        assert!(codes.contains(&format!("`{code}`")), "{code} is not described");
    }
}

/// Sends a payment as a consumer does, and says how it was answered.
async fn send(service: &Pay, id: SessionId, message: &ExchangeMessage) -> (u16, String) {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    let body = serde_json::to_vec(&ExchangeText::from(message)).expect("JSON");
    let mut request = hyper::Request::post("/v1/pay").body(Body::from(body)).expect("a request");
    request.extensions_mut().insert(ConnectInfo(Caller(id)));
    let answer = service.router().oneshot(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let value: Value = serde_json::from_slice(&body).expect("JSON");
    let code = value["error"]["code"].as_str().or(value["state"].as_str()).unwrap_or_default();
    (status, code.to_owned())
}

/// A consumer that has agreed, with its answer to the first invoice.
fn asked(rig: &Rig, service: &Pay) -> (SessionId, Consumer, ExchangeMessage) {
    let (id, mut alice) = (prepaid(rig, 0), Consumer::new());
    let offer = Offered { consumer: alice.address(), ..offered(service) };
    service.0.agree(id, &offer).expect("agreed");
    let status = service.0.payment_status(id).expect("there");
    let invoice = service.0.invoice(&status).expect("made").expect("due");
    let message = alice.answer_by(&service.0.terms, &invoice);
    (id, alice, message)
}

#[tokio::test]
async fn payments_with_a_bad_signature_are_metered_before_anything_is_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let service = service(&rig);
    let (id, _, good) = asked(&rig, &service);
    let mut bad = good;
    bad.promise.signature[5] ^= 1;
    // The rate of requests is another meter's.
    let allowance = || (0..10).for_each(|_| service.0.allowance.give_back(&id));
    for round in 0..MAX_REFUSED {
        allowance();
        let (status, code) = send(&service, id, &bad).await;
        assert_eq!(status, 402, "{round}: {code}");
    }
    allowance();
    // The ledger's lock is held: what waits for it would never come to an end here.
    let locked = rig.ledger.lock();
    let answered = futures_util::FutureExt::now_or_never(send(&service, id, &bad));
    assert_eq!(answered, Some((429, "too_many_refused".to_owned())));
    drop(locked);
    let other = prepaid(&rig, 0);
    let (status, code) = send(&service, other, &bad).await;
    assert_eq!((status, code.as_str()), (409, "no_agreement"), "each session has its own");
    // Of the good ones, none counts.
    service.0.refused.give_back(&id);
    allowance();
    assert_eq!(send(&service, id, &good).await, (200, "open".to_owned()));
    allowance();
    assert_eq!(send(&service, id, &good).await, (402, "replayed".to_owned()));
    assert_eq!(send(&service, id, &good).await.0, 429);
}

/// A server that answers each request so, and counts them.
async fn approver(answer: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}")
                && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0)
            {}
            let text = String::from_utf8_lossy(&request).into_owned();
            heard.lock().expect("not poisoned").push(text);
            if answer.is_empty() {
                // It says nothing, and holds the connection.
                std::future::pending::<()>().await;
            }
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    });
    (format!("http://{address}/approve"), asked)
}

#[tokio::test]
async fn what_is_not_approved_buys_nothing() {
    for (answer, status, code) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, "open"),
        ("HTTP/1.1 204 No Content\r\n\r\n", 200, "open"),
        ("HTTP/1.1 402 Payment Required\r\ncontent-length: 0\r\n\r\n", 402, "not_approved"),
        ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", 503, "approval_unavailable"),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", 503, "approval_unavailable"),
        ("rubbish\r\n\r\n", 503, "approval_unavailable"),
        ("", 503, "approval_unavailable"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let rig = Rig::start(folder.path(), 4);
        let (approve_url, heard) = approver(answer).await;
        let config = Payment { approve_url, ..config() };
        let mut service = Pay::new(&config, &rig.sessions, &Resolver::inside())
            .expect("right")
            .expect("it is on");
        if answer.is_empty() {
            let inner = Arc::get_mut(&mut service.0).expect("nobody else has it");
            let approver = inner.approver.take().expect("there is one");
            inner.approver = Some(approver.with_timeout(Duration::from_millis(200)));
        }
        let (id, alice, good) = asked(&rig, &service);
        let mut bad = good;
        bad.signature[5] ^= 1;
        assert_eq!(send(&service, id, &bad).await.0, 402, "{answer}");
        assert_eq!(heard.lock().expect("not poisoned").len(), 0, "nobody is asked of rubbish");
        assert_eq!(send(&service, id, &good).await, (status, code.to_owned()), "{answer}");
        let is_sold = status == 200;
        let question = heard.lock().expect("not poisoned").concat();
        assert!(question.contains(&alice.address().to_string()), "{question}");
        let account = service.0.account(id).expect("there");
        assert_eq!(account.state, if is_sold { "open" } else { "paused" }, "{answer}");
        assert_eq!(rig.ledger.earned().is_zero(), !is_sold, "{answer}");
    }
}

#[tokio::test]
async fn where_nobody_can_be_asked_nothing_is_sold() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let approve_url = format!("http://{}/", listener.local_addr().expect("an address"));
    drop(listener);
    let config = Payment { approve_url, ..config() };
    let service =
        Pay::new(&config, &rig.sessions, &Resolver::inside()).expect("right").expect("it is on");
    let (id, _, good) = asked(&rig, &service);
    for _ in 0..MAX_REFUSED + 3 {
        let (status, code) = send(&service, id, &good).await;
        assert_eq!((status, code.as_str()), (503, "approval_unavailable"), "it is not refused");
    }
    assert_eq!(service.0.account(id).expect("there").state, "paused");
}
