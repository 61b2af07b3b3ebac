use std::{net::SocketAddr, path::Path};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use weir_ecash::testing::key;
use weir_ledger::{
    unix_now,
    vouchers::{Code, VoucherTerms},
};
use weir_market::purchase::{Answer, BuyerKey, Offer, Order, Payment, Reason, Refusal, Sold};
use weir_sessions::registry::{Sessions, rig::Rig};
use weir_wireguard::keys::PrivateKey;

use super::*;
use crate::ecash::tests::{Network, TestMint, cashu, round, start};

mod kill;
mod letters;
mod tls;

const NAME: &str = "exit.example.net";

/// An exit that sells, in a folder.
struct Exit {
    rig: Rig,
    mint: Arc<TestMint>,
    cashu: Arc<Cashu>,
    shop: Shop,
    offer: Offer,
}

impl Exit {
    async fn open(folder: &Path, max_unredeemed: u32) -> Self {
        let rig = start(folder);
        let mint = TestMint::new(0);
        let cashu = cashu(&rig, &mint, max_unredeemed);
        round(&cashu).await.expect("the keys are fetched");
        Self::with(rig, mint, cashu)
    }

    fn with(rig: Rig, mint: Arc<TestMint>, cashu: Arc<Cashu>) -> Self {
        let market = MarketKey::random();
        let price = "128 sat/GiB".parse().ok();
        let exit = market.public();
        let offer = Offer { server: NAME.into(), exit, listing: "weir".into(), price };
        let shop = shop(&rig.sessions, &cashu, market);
        Self { rig, mint, cashu, shop, offer }
    }

    /// Sends an order with a fresh authorization, as its buyer does.
    async fn buy(&self, order: &Order) -> Answer {
        let authorization = self.offer.authorize(&BuyerKey::random(), unix_now());
        let (header, value) = order.payment.header();
        let request = format!(
            "POST /purchase HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n{header}: {value}\r\n"
        );
        self.ask(&request, &order.body()).await
    }

    async fn ask(&self, head: &str, body: &str) -> Answer {
        let (status, _, body) = ask(&self.shop, head, body).await;
        Answer::from_json(body.as_bytes(), status).expect("an answer")
    }

    async fn refused(&self, order: &Order) -> Reason {
        let Answer::Refused(refusal) = self.buy(order).await else { panic!("sold") };
        refusal.reason
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.purchase.server_names = vec![NAME.into()];
    config.purchase.min_mib = 16;
    config.purchase.max_mib = 1024;
    config.voucher.enabled = true;
    config
}

fn shop(sessions: &Arc<Sessions>, cashu: &Arc<Cashu>, market: MarketKey) -> Shop {
    let template = PeerTemplate {
        node_key: PrivateKey::random().public(),
        endpoint: "192.0.2.1:51820".into(),
        dns: vec![[9, 9, 9, 9].into()],
        mtu: 1420,
        keepalive: 25,
        free_bytes: 0,
    };
    Shop::new(&config(), market, sessions, &template.into(), Some(cashu))
}

fn order(payment: Payment) -> Order {
    Order { client_key: PrivateKey::random().public(), payment }
}

fn paid(token: impl Into<String>) -> Order {
    order(Payment::Token(token.into()))
}

/// One request over a connection of its own: the status, the head, the body.
async fn ask(shop: &Shop, head: &str, body: &str) -> (u16, String, String) {
    let (address, stop) = serve(shop, None, Vec::new()).await;
    let stream = TcpStream::connect(address).await.expect("connected");
    let answer = exchange(stream, head, body).await;
    drop(stop);
    answer
}

async fn exchange(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    head: &str,
    body: &str,
) -> (u16, String, String) {
    let length = body.len();
    let request = format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), head.to_owned(), body.to_owned())
}

async fn serve(
    shop: &Shop,
    certificate: Option<Arc<super::tls::Certificate>>,
    proxies: Vec<ipnet::IpNet>,
) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let server = Server::new(listener, certificate, proxies, http::router(shop.clone()));
    let address = server.address().expect("an address");
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(server.serve(stopped));
    (address, stop)
}

fn sold(answer: Answer) -> Sold {
    match answer {
        Answer::Sold(sold) => sold,
        Answer::Refused(refusal) => panic!("{refusal}"),
    }
}

#[tokio::test]
async fn a_token_buys_a_configuration_and_the_same_order_again_gets_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    exit.mint.set(Network::Down);
    let order = paid(exit.mint.token(16));
    let before = unix_now();
    let first = sold(exit.buy(&order).await);
    assert_eq!(first.bytes, Some(128 << 20));
    let days = first.expires_at.expect("it ends") - before;
    assert!((30 * 86_400..31 * 86_400).contains(&days), "{days}");
    let snapshot = exit.rig.sessions.list().pop().expect("a session");
    assert_eq!(snapshot.session.public_key, order.client_key);
    let address = format!("Address = {}/32", snapshot.address_v4);
    for line in [&address, "Endpoint = 192.0.2.1:51820", "DNS = 9.9.9.9", "MTU = 1420"] {
        assert!(first.config.lines().any(|it| it.starts_with(line)), "{line}: {}", first.config);
    }
    assert!(!first.config.contains("\nPrivateKey"), "{}", first.config);
    assert_eq!(sold(exit.buy(&order).await), first);
    // Another buyer has seen the token.
    let thief = paid(exit.mint.token(16));
    let stolen = Order { payment: order.payment.clone(), ..thief };
    assert_eq!(exit.refused(&stolen).await, Reason::DoubleSpent);
    assert_eq!(exit.rig.sessions.len(), 1);
    let counts = exit.shop.counts.now().orders;
    for (word, expected) in [("sold", 1), ("repeated", 1), ("double-spent", 1)] {
        assert!(counts.contains(&(Way::Http, word, expected)), "{word}: {counts:?}");
    }
}

#[tokio::test]
async fn each_fault_has_its_name_and_takes_no_slot() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    let other_mint = weir_ecash::testing::FakeMint::new("http://other.example", 8, 0);
    let forged = weir_ecash::testing::FakeMint::new(crate::ecash::tests::URL, 9, 0);
    let mint = weir_ecash::testing::FakeMint::new(crate::ecash::tests::URL, 7, 0);
    for (token, reason) in [
        ("cashuBrubbish".to_owned(), Reason::InvalidToken),
        (other_mint.token(16, &key(5).public()), Reason::WrongMint),
        (forged.token(16, &key(5).public()), Reason::InvalidToken),
        (mint.token(16, &key(6).public()), Reason::WrongP2pk),
        (exit.mint.token(1), Reason::BelowMinPurchase),
        (exit.mint.token(256), Reason::AboveMaxPurchase),
    ] {
        assert_eq!(exit.refused(&paid(token)).await, reason);
    }
    let body = paid("x").body();
    let headers = |authorization: &str, token: &str| {
        format!("POST /purchase HTTP/1.1\r\nHost: x\r\n{authorization}{token}")
    };
    let token = format!("X-Cashu: {}\r\n", exit.mint.token(16));
    let signed = |offer: &Offer, now| {
        format!("Authorization: {}\r\n", offer.authorize(&BuyerKey::random(), now))
    };
    let now = unix_now();
    let good = signed(&exit.offer, now);
    let elsewhere = Offer { server: "other.example.net".into(), ..exit.offer.clone() };
    let cheap = Offer { price: "1 sat/GiB".parse().ok(), ..exit.offer.clone() };
    for (head, body, status, reason) in [
        (headers("", &token), &*body, 401, Reason::BadRequest),
        (headers("Authorization: Nostr rubbish\r\n", &token), &body, 401, Reason::BadRequest),
        (headers(&signed(&exit.offer, now - 3600), &token), &body, 401, Reason::ExpiredAuth),
        (headers(&signed(&elsewhere, now), &token), &body, 400, Reason::BadRequest),
        (headers(&signed(&cheap, now), &token), &body, 402, Reason::AmountMismatch),
        (headers(&good, ""), &body, 400, Reason::BadRequest),
        (headers(&good, &token), "{}", 400, Reason::BadRequest),
        (headers(&good, &token), "rubbish", 400, Reason::BadRequest),
        (headers(&good, &token), r#"{"protocol":"openvpn"}"#, 400, Reason::BadRequest),
    ] {
        let answer = exit.ask(&head, body).await;
        let Answer::Refused(Refusal { status: was, reason: named, message }) = answer else {
            panic!("sold")
        };
        assert_eq!((was, named), (status, reason), "{message}");
    }
    assert_eq!(exit.rig.sessions.len(), 0);
    let nothing = exit.rig.ledger.lock().mint_totals().expect("read");
    assert!(nothing.iter().all(|mint| mint.received == 0), "{nothing:?}");
}

#[tokio::test]
async fn a_full_exit_takes_no_money() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    exit.rig.sessions.set_at_most(1);
    let first = paid(exit.mint.token(16));
    sold(exit.buy(&first).await);
    let second = paid(exit.mint.token(16));
    assert_eq!(exit.refused(&second).await, Reason::NoIpAvailable);
    // The answer to the first one is given all the same.
    sold(exit.buy(&first).await);
    exit.rig.sessions.set_at_most(0);
    let again = Order { client_key: first.client_key, ..second.clone() };
    assert_eq!(exit.refused(&again).await, Reason::BadRequest, "the key has a session");
    assert_eq!(crate::ecash::tests::totals(&exit.rig).received, 16);
    sold(exit.buy(&second).await);
}

#[tokio::test]
async fn beyond_the_mints_limit_a_session_opens_once_its_token_is_exchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 0).await;
    sold(exit.buy(&paid(exit.mint.token(16))).await);
    assert_eq!(crate::ecash::tests::totals(&exit.rig).redeemed, 16);
    // Nothing was sent: the token is the buyer's, and there is no session.
    exit.mint.set(Network::Down);
    let order = paid(exit.mint.token(32));
    assert_eq!(exit.refused(&order).await, Reason::Unavailable);
    assert_eq!(exit.rig.sessions.len(), 1);
    // The answer is lost: it may be spent, so the session waits.
    exit.mint.set(Network::Deaf);
    assert_eq!(exit.refused(&order).await, Reason::Unavailable);
    assert_eq!(exit.refused(&order).await, Reason::Unavailable);
    assert_eq!(exit.rig.sessions.len(), 2);
    exit.mint.set(Network::Up);
    round(&exit.cashu).await.expect("restored");
    assert_eq!(sold(exit.buy(&order).await).bytes, Some(256 << 20));
    assert_eq!(exit.rig.sessions.len(), 2);
}

#[tokio::test]
async fn a_voucher_buys_what_it_is_good_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    let code = Code::new([7; 16]);
    let terms = VoucherTerms { batch: "a".into(), bytes: 5000, seconds: 60, expires: None };
    exit.rig.ledger.lock().add_vouchers(&terms, &[code.hash()], 1).expect("added");
    let order = order(Payment::Voucher(code.to_string()));
    let first = sold(exit.buy(&order).await);
    assert_eq!(first.bytes, Some(5000));
    assert_eq!(sold(exit.buy(&order).await), first);
    let other = self::order(order.payment.clone());
    assert_eq!(exit.refused(&other).await, Reason::DoubleSpent);
    let unknown = self::order(Payment::Voucher(Code::new([8; 16]).to_string()));
    assert_eq!(exit.refused(&unknown).await, Reason::InvalidVoucher);
}

#[tokio::test]
async fn a_source_that_asks_without_end_is_refused_before_any_signature() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    // Each of these is well-formed and signed, and its token is worth nothing.
    let order = paid("cashuBrubbish");
    let mut limited = 0;
    for _ in 0..40 {
        limited += u32::from(exit.refused(&order).await == Reason::RateLimited);
    }
    assert!(limited >= 20, "{limited}");
    assert_eq!(exit.rig.sessions.len(), 0);
    // Another network is served.
    let (address, _stop) = serve(&exit.shop, None, vec!["127.0.0.0/8".parse().expect("it")]).await;
    let good = paid(exit.mint.token(16));
    let authorization = exit.offer.authorize(&BuyerKey::random(), unix_now());
    let (header, value) = good.payment.header();
    let head = format!(
        "POST /purchase HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 127.0.0.1, 192.0.2.9\r\n\
         Authorization: {authorization}\r\n{header}: {value}\r\n"
    );
    let stream = TcpStream::connect(address).await.expect("connected");
    let (status, ..) = exchange(stream, &head, &good.body()).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn the_exit_describes_itself_to_every_origin() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    let (status, head, body) = ask(&exit.shop, "GET /info HTTP/1.1\r\nHost: x\r\n", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    let info: weir_market::purchase::Info = serde_json::from_str(&body).expect("it");
    assert_eq!((info.pubkey, info.endpoint), (exit.offer.exit.to_hex(), NAME.to_owned()));
    assert_eq!(info.prices[0].price(), exit.offer.price);
    assert_eq!(info.p2pk, Some(key(5).public()));
    let (status, head, _) = ask(&exit.shop, "OPTIONS /purchase HTTP/1.1\r\nHost: x\r\n", "").await;
    assert_eq!(status, 204);
    assert!(head.contains("X-Cashu, X-Weir-Voucher"), "{head}");
    for (request, expected) in [("GET /", 404), ("GET /purchase", 405), ("GET /health", 200)] {
        let (status, head, _) =
            ask(&exit.shop, &format!("{request} HTTP/1.1\r\nHost: x\r\n"), "").await;
        assert_eq!(status, expected, "{request}");
        assert!(head.contains("access-control-allow-origin: *"), "{head}");
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(folder.path(), 1000).await;
    let order = paid(exit.mint.token(16));
    let authorization = exit.offer.authorize(&BuyerKey::random(), unix_now());
    let (header, value) = order.payment.header();
    let head = format!(
        "POST /purchase HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n{header}: {value}\r\n"
    );
    let long = format!("{}{}", order.body(), " ".repeat(8192));
    let Answer::Refused(refused) = exit.ask(&head, &long).await else { panic!("sold") };
    assert_eq!(refused.reason, Reason::BadRequest);
    let head = format!("GET /info HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(400_000));
    let (address, _stop) = serve(&exit.shop, None, Vec::new()).await;
    let mut stream = TcpStream::connect(address).await.expect("connected");
    // It may hang up before it has read all of it.
    stream.write_all(head.as_bytes()).await.ok();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(exit.rig.sessions.len(), 0);
}

#[test]
fn the_document_of_the_requests_has_every_reason() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi-purchase.json");
    let text = std::fs::read_to_string(path).expect("there");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let reasons = &document["components"]["schemas"]["Refused"]["properties"]["reason"]["enum"];
    let known: Vec<_> = Reason::ALL.iter().map(Reason::as_str).collect();
    assert_eq!(*reasons, serde_json::json!(known));
    for reason in Reason::ALL {
        let status = reason.status().to_string();
        let described =
            &document["paths"]["/purchase"]["post"]["responses"][&status]["description"];
        let described = described.as_str().expect("a description");
        assert!(described.contains(reason.as_str()), "{status}: {reason}");
    }
}
