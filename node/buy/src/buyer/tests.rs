use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use ::http::{HeaderMap, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use weir_ecash::{
    Rules,
    testing::{FakeMint, key},
    verify,
};
use weir_market::{
    event::{SignedListing, sign_listing},
    key::MarketKey,
    listing::Payment as Way,
    purchase::{Authorization, Expected, Sold},
    testing,
};
use weir_wallet::{Amount, Asked, Mints, Trust, http::Answer as HttpAnswer};

use super::*;
use crate::{Funds, OpenState, TopUp, TopUpError, Wish};

const MINT: &str = "http://mint.example";
const PEER: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";

/// A mint without a network.
struct TestMint(Mutex<FakeMint>);

impl Mints for TestMint {
    fn ask<'a>(&'a self, _: &'a str, path: &'a str, json: Vec<u8>) -> Asked<'a> {
        Box::pin(async move {
            let mint = &mut *self.0.lock().expect("not poisoned");
            let (status, body) = match path {
                "/v1/keysets" => (StatusCode::OK, mint.keysets()),
                "/v1/restore" => (StatusCode::OK, mint.restore(&json)),
                "/v1/checkstate" => (StatusCode::OK, mint.check(&json)),
                "/v1/swap" => match mint.swap(&json) {
                    Ok(answer) => (StatusCode::OK, answer),
                    Err(refused) => (StatusCode::BAD_REQUEST, refused.0.into_bytes()),
                },
                _ => (StatusCode::OK, mint.keys()),
            };
            Ok(HttpAnswer { status, headers: HeaderMap::new(), body: body.into() })
        })
    }
}

/// What an exit does with orders.
#[derive(Clone, Debug)]
enum Mood {
    /// It sells.
    Selling,
    /// It sells, and its answers are lost.
    Deaf,
    /// It refuses.
    Refusing(Reason),
}

/// An exit, as the protocol has it.
struct Exit {
    market: MarketKey,
    mint: Arc<TestMint>,
    mood: Mutex<Mood>,
    /// What was sold for which token to which key.
    sold: Mutex<BTreeMap<([u8; 32], String), Sold>>,
    config: Mutex<String>,
    info_key: Mutex<Option<String>>,
}

impl Exit {
    async fn start(mint: &Arc<TestMint>) -> (Arc<Self>, SignedListing) {
        let config = format!(
            "[Interface]\nAddress = 10.66.0.2/32\nDNS = 10.66.0.1\n[Peer]\nPublicKey = {PEER}\n\
             AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:51820\n"
        );
        let exit = Arc::new(Self {
            market: MarketKey::random(),
            mint: Arc::clone(mint),
            mood: Mutex::new(Mood::Selling),
            sold: Mutex::default(),
            config: Mutex::new(config),
            info_key: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/purchase", listener.local_addr().expect("an address"));
        let mut listing = testing::listing("DE", "100 sat/GiB", 1);
        listing.payments = vec![Way::cashu(MINT, &key(5).public(), &url), Way::voucher()];
        let event = sign_listing(&exit.market, &listing, unix_now(), 0);
        let serving = Arc::clone(&exit);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(stream));
            }
        });
        (exit, SignedListing::read(event).expect("a listing"))
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut request = Vec::new();
        let (head, body) = loop {
            let mut some = [0; 4096];
            let read = stream.read(&mut some).await.expect("read");
            request.extend_from_slice(&some[..read]);
            let text = String::from_utf8_lossy(&request).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && body.len()
                    >= header(head, "content-length").map_or(0, |it| it.parse().expect("a number"))
            {
                break (head.to_owned(), body.to_owned());
            }
        };
        let (status, json) = if head.starts_with("GET /info ") {
            (200, self.info())
        } else {
            let answer = Answer::from(self.order(&head, &body));
            if matches!(*self.mood.lock().expect("not poisoned"), Mood::Deaf) {
                return;
            }
            (answer.status(), answer.to_json())
        };
        let length = json.len();
        let answer = format!(
            "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{json}"
        );
        stream.write_all(answer.as_bytes()).await.expect("written");
    }

    fn info(&self) -> String {
        let key = self.info_key.lock().expect("not poisoned").clone();
        let pubkey = key.unwrap_or_else(|| self.market.public().to_hex());
        let info = Info { pubkey, endpoint: "exit.example".into(), ..Info::default() };
        serde_json::to_string(&info).expect("JSON")
    }

    fn order(&self, head: &str, body: &str) -> Result<Sold, Refusal> {
        let authorization = Authorization::read(header(head, "authorization").as_deref())?;
        let (servers, prices) =
            (["exit.example".to_owned()], ["100 sat/GiB".parse().expect("a price")]);
        let expected = Expected {
            servers: &servers,
            exit: self.market.public(),
            prices: &prices,
            now: unix_now(),
        };
        authorization.check(&expected)?;
        authorization.verify()?;
        let (token, voucher) = (header(head, "x-cashu"), header(head, "x-weir-voucher"));
        let payment = purchase::Payment::from_headers(token.as_deref(), voucher.as_deref())?;
        let order = Order::read(body.as_bytes(), payment)?;
        if let Mood::Refusing(reason) = self.mood.lock().expect("not poisoned").clone() {
            return Err(Refusal::new(reason, "no"));
        }
        let (paid, bytes) = match &order.payment {
            purchase::Payment::Voucher(code) => (code.clone(), 1 << 30),
            purchase::Payment::Token(text) => {
                let known = self.mint.0.lock().expect("not poisoned").known();
                let locked_until = unix_now() + 30 * 86_400;
                let rules = Rules { lock: &key(5), locked_until };
                let taken = verify(text, |_| Some(&known), &rules);
                let taken =
                    taken.map_err(|error| Refusal::new(Reason::InvalidToken, error.to_string()))?;
                (format!("{:?}", taken.hash), taken.worth * (1 << 30) / 100)
            }
        };
        let config = self.config.lock().expect("not poisoned").clone();
        let mut sold = self.sold.lock().expect("not poisoned");
        let to = order.client_key.0;
        if sold.keys().any(|(key, token)| *token == paid && *key != to) {
            return Err(Refusal::new(Reason::DoubleSpent, "used"));
        }
        let new = Sold { config, expires_at: Some(2_000_000_000), bytes: Some(bytes) };
        Ok(sold.entry((to, paid)).or_insert(new).clone())
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().expect("not poisoned") = mood;
    }

    fn sold(&self) -> usize {
        self.sold.lock().expect("not poisoned").len()
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

struct Rig {
    directory: tempfile::TempDir,
    mint: Arc<TestMint>,
    wallet: Wallet,
    exit: Arc<Exit>,
    listing: SignedListing,
}

async fn rig() -> Rig {
    let directory = tempfile::tempdir().expect("a directory");
    let mint = Arc::new(TestMint(Mutex::new(FakeMint::new(MINT, 7, 100))));
    let wallet = Wallet::with_mints(directory.path(), Arc::clone(&mint) as _).expect("opened");
    let token = mint.0.lock().expect("not poisoned").open_token(1000);
    wallet.receive(&token, Trust::New).await.expect("received");
    let (exit, listing) = Exit::start(&mint).await;
    Rig { directory, mint, wallet, exit, listing }
}

impl Rig {
    fn buyer(&self) -> Buyer<'_> {
        Buyer::new(&self.wallet, self.directory.path(), Http::default())
    }

    fn plan(&self, wish: Wish) -> Plan {
        let balance = self.balance();
        let funds = [Funds { mint: MINT.into(), unit: "sat".into(), balance }];
        Plan::with_ecash(&self.listing, wish, "sat", &funds, None).expect("a plan")
    }

    fn balance(&self) -> u64 {
        self.wallet.balances().expect("read")[0].balance
    }
}

#[tokio::test]
async fn a_gib_is_bought_with_an_exact_payment_and_the_configuration_has_the_buyers_key() {
    let rig = rig().await;
    let before = rig.balance();
    let bought = rig.buyer().buy(&rig.plan(Wish::Bytes(1 << 30))).await.expect("bought");
    assert_eq!((bought.bytes, bought.spent), (Some(1 << 30), 101), "100, and the fee for 100");
    assert!(before - rig.balance() <= 102);
    let key = bought.config.private_key.public();
    assert!(rig.exit.sold.lock().expect("not poisoned").keys().any(|(to, _)| *to == key.0));
    assert!(bought.config.to_text().contains("Endpoint = 192.0.2.1:51820"));
    assert_eq!(rig.buyer().open().expect("read")[0].state, OpenState::Sold);
    rig.buyer().shown(&bought.id).expect("deleted");
    assert!(rig.buyer().open().expect("read").is_empty());
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again_with_the_same_payment_and_key() {
    let rig = rig().await;
    rig.exit.set(Mood::Deaf);
    let lost = rig.buyer().buy(&rig.plan(Wish::Spend(100))).await.expect_err("no answer");
    assert!(matches!(lost, BuyError::Unanswered(_)), "{lost}");
    let left = rig.balance();
    assert_eq!(rig.buyer().open().expect("read")[0].state, OpenState::Unanswered);
    rig.exit.set(Mood::Selling);
    // As after a crash: another buyer on the same files.
    let wallet = Wallet::with_mints(rig.directory.path(), Arc::clone(&rig.mint) as _);
    let wallet = wallet.expect("opened");
    let buyer = Buyer::new(&wallet, rig.directory.path(), Http::default());
    let mut resumed = buyer.resume().await.expect("resumed");
    let (_, bought) = resumed.pop().expect("one");
    assert_eq!(bought.expect("bought").spent, 100);
    assert_eq!((rig.exit.sold(), rig.balance()), (1, left), "paid once");
}

#[tokio::test]
async fn a_buyer_that_is_killed_between_any_two_steps_goes_on_and_pays_once() {
    let rig = rig().await;
    let records = Records::new(rig.directory.path());
    // Killed after the purchase was written down, and before the wallet had paid.
    let record = Record::new(&rig.plan(Wish::Spend(50)), &PrivateKey::random().print(), 1);
    records.write(&record).expect("written");
    assert!(rig.buyer().resume().await.expect("resumed").is_empty());
    assert!(rig.buyer().open().expect("read").is_empty(), "nothing was paid");
    // Killed after the wallet had paid.
    let record = Record::new(&rig.plan(Wish::Spend(50)), &PrivateKey::random().print(), 1);
    records.write(&record).expect("written");
    let lock = key(5).public();
    let sent = rig.wallet.pay(MINT, "sat", Amount::Exactly(50), &lock, &record.note()).await;
    sent.expect("paid");
    let left = rig.balance();
    let (id, bought) = rig.buyer().resume().await.expect("resumed").pop().expect("one");
    assert_eq!((id, bought.expect("bought").spent), (record.id, 50));
    // Killed before the configuration was shown.
    let again = rig.buyer().resume().await.expect("resumed").pop().expect("one").1;
    assert_eq!(again.expect("bought").spent, 50);
    assert_eq!((rig.exit.sold(), rig.balance()), (1, left));
}

#[tokio::test]
async fn a_refused_payment_stays_the_buyers_and_can_be_tried_again() {
    let rig = rig().await;
    rig.exit.set(Mood::Refusing(Reason::NoIpAvailable));
    let refused = rig.buyer().buy(&rig.plan(Wish::Spend(60))).await.expect_err("full");
    let text = refused.to_string();
    assert!(matches!(refused, BuyError::Refused { reason: Reason::NoIpAvailable, .. }), "{text}");
    assert!(text.contains("weir wallet reclaim"), "{text}");
    let open = rig.buyer().open().expect("read");
    assert_eq!((open[0].state, open[0].token.is_some()), (OpenState::Refused, true));
    let unclaimed = rig.wallet.balances().expect("read")[0].unclaimed;
    assert_eq!(unclaimed, 60);
    rig.exit.set(Mood::Refusing(Reason::Unavailable));
    let (_, again) = rig.buyer().resume().await.expect("resumed").pop().expect("one");
    assert!(matches!(again, Err(BuyError::Unanswered(_))), "may be answered later");
    rig.exit.set(Mood::Selling);
    let (_, bought) = rig.buyer().resume().await.expect("resumed").pop().expect("one");
    assert_eq!(bought.expect("bought").spent, 60);
}

#[tokio::test]
async fn nothing_is_paid_to_an_exit_that_is_not_there_or_is_another() {
    let rig = rig().await;
    let before = rig.balance();
    *rig.exit.info_key.lock().expect("not poisoned") = Some("ab".repeat(32));
    let other = rig.buyer().buy(&rig.plan(Wish::Spend(60))).await.expect_err("another");
    assert!(matches!(other, BuyError::AnotherExit(_)), "{other}");
    let mut plan = rig.plan(Wish::Spend(60));
    // A port where nobody listens: it was given out and closed again.
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = closed.local_addr().expect("an address");
    drop(closed);
    plan.url = format!("http://{address}/purchase").parse().expect("a URL");
    let gone = rig.buyer().buy(&plan).await.expect_err("gone");
    assert!(matches!(gone, BuyError::Unreachable(_)), "{gone}");
    let unclaimed = rig.wallet.balances().expect("read")[0].unclaimed;
    assert_eq!((rig.balance(), unclaimed, rig.exit.sold()), (before, 0, 0));
    assert!(rig.buyer().open().expect("read").is_empty());
}

#[tokio::test]
async fn a_voucher_buys_without_ecash_and_one_that_is_refused_is_not_kept() {
    let rig = rig().await;
    let plan = Plan::with_voucher(&rig.listing, "CODE").expect("a plan");
    let bought = rig.buyer().buy(&plan).await.expect("bought");
    assert_eq!((bought.spent, bought.unit), (0, None));
    rig.buyer().shown(&bought.id).expect("deleted");
    rig.exit.set(Mood::Refusing(Reason::InvalidVoucher));
    let plan = Plan::with_voucher(&rig.listing, "OTHER").expect("a plan");
    let refused = rig.buyer().buy(&plan).await.expect_err("refused");
    assert!(refused.to_string().contains("The voucher was not used"), "{refused}");
    assert!(rig.buyer().open().expect("read").is_empty());
}

#[tokio::test]
async fn a_configuration_with_commands_is_not_shown() {
    let rig = rig().await;
    let evil = rig.exit.config.lock().expect("not poisoned").replace("DNS", "PostUp = id\nDNS");
    *rig.exit.config.lock().expect("not poisoned") = evil;
    let bought = rig.buyer().buy(&rig.plan(Wish::Spend(60))).await.expect_err("refused");
    assert!(matches!(bought, BuyError::Config(NotAConfig::Unexpected(_))), "{bought}");
}

#[tokio::test]
async fn a_payment_inside_the_tunnel_that_was_not_answered_is_sent_again_and_not_doubled() {
    let rig = rig().await;
    let gateway = Gateway::start().await;
    let top_up = TopUp::new(&rig.wallet, Http::default(), gateway.address).expect("a URL");
    let wanted = top_up.wanted().await.expect("a request");
    assert_eq!(
        (wanted.mints.as_slice(), wanted.lock.as_str()),
        (&[MINT.to_owned()][..], &*key(5).public())
    );
    let given = top_up.pay(&wanted, 40).await.expect("paid");
    assert_eq!((given.bytes, given.spent), (4096, 40));
    gateway.set("");
    let lost = top_up.pay(&wanted, 30).await.expect_err("no answer");
    assert!(matches!(lost, TopUpError::Unanswered(_)), "{lost}");
    let left = rig.balance();
    gateway.set("200");
    let given = top_up.pay(&wanted, 30).await.expect("paid");
    assert_eq!((given.spent, rig.balance()), (30, left), "the same token");
    let tokens = gateway.tokens();
    assert_eq!((tokens.len(), &tokens[1]), (3, &tokens[2]));
    gateway.set("402");
    let refused = top_up.pay(&wanted, 20).await.expect_err("refused");
    assert!(
        matches!(refused, TopUpError::Refused { ref code, .. } if code == "wrong_mint"),
        "{refused}"
    );
    let too_much = top_up.pay(&wanted, 5000).await.expect_err("too much");
    assert!(matches!(too_much, TopUpError::NoFunds(_)), "{too_much}");
}

#[tokio::test]
async fn a_payment_that_is_ready_is_used_once_and_by_none_that_may_cost_less() {
    let rig = rig().await;
    let gateway = Gateway::start().await;
    let top_up = TopUp::new(&rig.wallet, Http::default(), gateway.address).expect("a URL");
    let wanted = top_up.wanted().await.expect("a request");
    top_up.prepare(&wanted, 30).await.expect("ready");
    let left = rig.balance();
    top_up.prepare(&wanted, 30).await.expect("ready");
    assert_eq!((rig.balance(), gateway.tokens().len()), (left, 0), "one, and nobody has it");
    let given = top_up.pay(&wanted, 20).await.expect("paid");
    assert_eq!(given.spent, 20, "not more than that");
    let left = rig.balance();
    let given = top_up.pay(&wanted, 40).await.expect("paid");
    assert_eq!((given.spent, rig.balance()), (30, left), "what was ready");
    let given = top_up.pay(&wanted, 40).await.expect("paid");
    assert!(given.spent == 40 && rig.balance() < left, "it is used up");
}

/// An exit's gateway: the status that it answers to payments with, and the tokens that it got.
struct Gateway {
    address: std::net::SocketAddr,
    state: Arc<Mutex<(String, Vec<String>)>>,
}

impl Gateway {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(("200".to_owned(), Vec::new())));
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer(stream, &serving).await;
            }
        });
        Self { address, state }
    }

    fn set(&self, status: &str) {
        self.state.lock().expect("not poisoned").0 = status.to_owned();
    }

    fn tokens(&self) -> Vec<String> {
        self.state.lock().expect("not poisoned").1.clone()
    }
}

async fn answer(mut stream: TcpStream, state: &Mutex<(String, Vec<String>)>) {
    let mut request = Vec::new();
    loop {
        let mut some = [0; 4096];
        let read = stream.read(&mut some).await.expect("read");
        request.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if body.len() < header(head, "content-length").map_or(0, |it| it.parse().expect("a number"))
        {
            continue;
        }
        let answer = match head.starts_with("GET ") {
            true => {
                let request =
                    weir_ecash::request(&[MINT.into()], "sat", &key(5), "100 sat for a GiB");
                format!("HTTP/1.1 402 x\r\nX-Cashu: {request}\r\nContent-Length: 0\r\n\r\n")
            }
            false => {
                let (status, tokens) = &mut *state.lock().expect("not poisoned");
                tokens.push(body.to_owned());
                let json = match status.as_str() {
                    "" => return,
                    "200" => r#"{"status":"credited","bytes":4096,"seconds":0}"#,
                    _ => r#"{"error":{"code":"wrong_mint","message":"no"}}"#,
                };
                format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{json}", json.len())
            }
        };
        stream.write_all(answer.as_bytes()).await.expect("written");
        return;
    }
}
