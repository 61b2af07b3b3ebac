//! Strangers who buy a session over HTTPS, with a foreign wallet's ecash and a foreign client (curl).

use std::{fs, net::SocketAddrV4, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use nostr::{event::Event, filter::Filter};
use tempfile::TempDir;
use weir_ledger::unix_now;
use weir_market::{
    event::SEALED,
    key::MarketKey,
    purchase::{
        Answer, BuyerKey, Info, Offer, Order, Payment, Reason, Sold, X_CASHU, letter::SentOrder,
    },
};
use weir_tests::{
    Client, Lab, Namespace, Node, Settings, command,
    foreign_relay::ForeignRelay,
    lab::{MARKET_V4, NODE_V4, SERVERS},
    nutshell::Nutshell,
    payer::GATEWAY_V4,
    registry::{Registry, Socket},
    relay::Relay,
    until,
};
use weir_wireguard::keys::PrivateKey;

const NAME: &str = "exit.example.net";
const PORT: u16 = 8443;

/// A buyer with curl, who believes one certificate.
struct Buyer<'a> {
    namespace: &'a Namespace,
    certificate: String,
}

impl Buyer<'_> {
    /// Sends a request: the status and the body.
    fn ask(&self, path: &str, options: &[String]) -> Result<(u16, String)> {
        let mut curl = self.namespace.command("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "40",
            "--write-out",
            "\n%{http_code}",
        ]);
        curl.args(["--cacert", &self.certificate]);
        curl.args(["--resolve", &format!("{NAME}:{PORT}:{NODE_V4}")]);
        let said = command::run(curl.args(options).arg(format!("https://{NAME}:{PORT}{path}")))?;
        let (body, status) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
        Ok((status.parse().with_context(|| format!("no status in {said:?}"))?, body.to_owned()))
    }

    fn info(&self) -> Result<Info> {
        let (status, body) = self.ask("/info", &[])?;
        ensure!(status == 200, "{status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Sends an order with an authorization.
    fn send(&self, order: &Order, authorization: &str) -> Result<(u16, Answer)> {
        let (header, value) = order.payment.header();
        let options = [
            "--data".to_owned(),
            order.body(),
            "--header".to_owned(),
            "Content-Type: application/json".to_owned(),
            "--header".to_owned(),
            format!("Authorization: {authorization}"),
            "--header".to_owned(),
            format!("{header}: {value}"),
        ];
        let (status, body) = self.ask("/purchase", &options)?;
        Ok((status, Answer::from_json(body.as_bytes(), status)?))
    }

    fn buy(&self, offer: &Offer, order: &Order) -> Result<Sold> {
        match self.send(order, &offer.authorize(&BuyerKey::random(), unix_now()))? {
            (200, Answer::Sold(sold)) => Ok(sold),
            (status, answer) => bail!("{status}: {answer:?}"),
        }
    }

    fn refused(&self, offer: &Offer, order: &Order) -> Result<(u16, Reason)> {
        match self.send(order, &offer.authorize(&BuyerKey::random(), unix_now()))? {
            (status, Answer::Refused(refusal)) => Ok((status, refusal.reason)),
            (_, Answer::Sold(_)) => bail!("it was sold"),
        }
    }
}

/// Writes a certificate of its own in the place of the node's, and returns a copy for the buyer.
fn renew(folder: &Path, number: u32) -> Result<String> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    let copy = folder.join(format!("{number}.pem"));
    fs::write(&copy, made.cert.pem())?;
    for (name, text) in
        [("live.pem", made.cert.pem()), ("live.key", made.signing_key.serialize_pem())]
    {
        let new = folder.join("new");
        fs::write(&new, text)?;
        fs::rename(new, folder.join(name))?;
    }
    Ok(copy.to_str().context("a path")?.to_owned())
}

fn settings(folder: &TempDir, mint: &str) -> Settings {
    let path = |name: &str| format!("\"{}\"", folder.path().join(name).display());
    Settings::default()
        .with("cashu", "key_file", &path("cashu.key"))
        .with("cashu", "mints", &format!("[\"{mint}\"]"))
        .with("cashu", "gib_price", "1024")
        .with("cashu", "max_unredeemed", "100")
        .with("cashu", "redeem_seconds", "1")
        .with("market", "key_file", &path("market.key"))
        .with("purchase", "listen", &format!("\"{NODE_V4}:{PORT}\""))
        .with("purchase", "server_names", &format!("[\"{NAME}:{PORT}\", \"{NAME}\"]"))
        .with("purchase", "certificate_file", &path("live.pem"))
        .with("purchase", "certificate_key_file", &path("live.key"))
        .with("purchase", "min_mib", "4")
        .with("purchase", "max_mib", "64")
}

fn order(token: &str) -> (PrivateKey, Order) {
    let key = PrivateKey::random();
    let order = Order { client_key: key.public(), payment: Payment::Token(token.to_owned()) };
    (key, order)
}

/// The configuration with the buyer's own key in it.
fn complete(sold: &Sold, key: &PrivateKey) -> String {
    let line = format!("[Interface]\nPrivateKey = {}", key.print().as_str());
    sold.config.replace("[Interface]", &line)
}

fn sessions(node: &Node<'_>) -> Result<usize> {
    let all: serde_json::Value = serde_json::from_str(&node.weir(&["session", "list", "--json"])?)?;
    Ok(all["sessions"].as_array().or(all.as_array()).context("a list")?.len())
}

#[test]
fn a_stranger_buys_a_session_over_tls_and_each_fault_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let mut mint = Nutshell::start(&lab.internet, MARKET_V4.into())?;
    mint.mint(1000)?;
    let folder = tempfile::tempdir()?;
    let certificate = renew(folder.path(), 1)?;
    let mut node = Node::start(&lab.node, settings(&folder, &mint.url()))?;
    let mut buyer = Buyer { namespace: &lab.consumer, certificate };

    let info = buyer.info()?;
    ensure!(info.mints == [mint.url()] && info.endpoint == format!("{NAME}:{PORT}"), "{info:?}");
    let price = info.prices.first().and_then(|price| price.price());
    ensure!(price == "1024 sat/GiB".parse().ok(), "{info:?}");
    let lock = format!("P2PK:{}", info.p2pk.as_deref().context("no key")?);
    let exit = serde_json::from_value(serde_json::Value::String(info.pubkey.clone()))?;
    let offer = Offer { server: info.endpoint, exit, listing: "weir".into(), price };
    let send = |amount, lock: &str| mint.send(amount, &["--lock", lock, "--dleq"]);
    let (first, second) = (send(16, &lock)?, send(8, &lock)?);
    let (little, much) = (send(2, &lock)?, send(100, &lock)?);
    let other = send(8, &format!("P2PK:02{}", "ab".repeat(32)))?;
    let unlocked = mint.send(8, &["--dleq"])?;
    let without_dleq = mint.send(8, &["--lock", &lock])?;

    let (key, order_of_first) = order(&first);
    let mut bought = None;
    until("the node knows the mint's keys", Duration::from_secs(30), || {
        bought = Some(buyer.buy(&offer, &order_of_first)?);
        Ok(())
    })?;
    let bought = bought.context("it was bought")?;
    let client = Client::connect(&lab.consumer, &complete(&bought, &key))?;
    client.wait_connected(GATEWAY_V4.parse()?)?;
    client.ping(SERVERS[0], 1)?;
    client.ping(SERVERS[1], 1)?;
    drop(client);

    // The same request again, and after a kill.
    ensure!(buyer.buy(&offer, &order_of_first)? == bought, "another answer");
    node.kill()?;
    node.restart()?;
    ensure!(buyer.buy(&offer, &order_of_first)? == bought, "another answer after the kill");
    ensure!(sessions(&node)? == 1);

    // The mint need not be reached.
    mint.unplug()?;
    let (_, order_of_second) = order(&second);
    buyer.buy(&offer, &order_of_second)?;

    for (token, expected) in [
        (&*first, (402, Reason::DoubleSpent)),
        (&other, (402, Reason::WrongP2pk)),
        (&unlocked, (402, Reason::WrongP2pk)),
        (&without_dleq, (402, Reason::InvalidToken)),
        ("cashuBrubbish", (402, Reason::InvalidToken)),
        (&little, (400, Reason::BelowMinPurchase)),
        (&much, (400, Reason::AboveMaxPurchase)),
    ] {
        let refused = buyer.refused(&offer, &order(token).1)?;
        ensure!(refused == expected, "{refused:?}, not {expected:?}");
    }
    let expired = offer.authorize(&BuyerKey::random(), unix_now() - 3600);
    let (status, answer) = buyer.send(&order(&little).1, &expired)?;
    ensure!(status == 401, "{status}: {answer:?}");
    let Answer::Refused(refusal) = answer else { bail!("it was sold") };
    ensure!(refusal.reason == Reason::ExpiredAuth, "{refusal}");
    ensure!(sessions(&node)? == 2);

    // A new certificate without a restart.
    let next = renew(folder.path(), 2)?;
    buyer.certificate = next;
    until("the new certificate is served", Duration::from_secs(30), || buyer.info().map(drop))?;
    Ok(())
}

#[test]
fn junk_takes_no_slot_and_others_are_served_meanwhile() -> Result<()> {
    let lab = Lab::new()?;
    let folder = tempfile::tempdir()?;
    let certificate = renew(folder.path(), 1)?;
    let settings = settings(&folder, "http://192.0.2.1").with("voucher", "enabled", "true");
    let node = Node::start(&lab.node, settings)?;
    let buyer = Buyer { namespace: &lab.consumer, certificate: certificate.clone() };
    let info = buyer.info()?;
    let exit = serde_json::from_value(serde_json::Value::String(info.pubkey.clone()))?;
    let price = info.prices.first().and_then(|price| price.price());
    let offer = Offer { server: NAME.into(), exit, listing: "weir".into(), price };
    let csv = node.weir(&["voucher", "make", "--bytes", "5000000", "--count", "1", "--csv"])?;
    let code = csv.lines().nth(1).and_then(|line| line.split(',').next()).context("a code")?;

    // 600 orders over some connections: good authorizations, worthless tokens.
    let authorization = offer.authorize(&BuyerKey::random(), unix_now());
    let urls = "purchase".to_owned();
    for _ in 0..6 {
        let mut curl = lab.consumer.command("curl");
        curl.args([
            "--silent",
            "--cacert",
            &certificate,
            "--max-time",
            "60",
            "--output",
            "/dev/null",
        ]);
        curl.args(["--resolve", &format!("{NAME}:{PORT}:{NODE_V4}")]);
        curl.args(["--header", &format!("Authorization: {authorization}")]);
        curl.args(["--header", &format!("{X_CASHU}: cashuBrubbish")]);
        curl.args(["--data", &order("cashuB").1.body()]);
        command::run(curl.arg(format!("https://{NAME}:{PORT}/{urls}?[1-100]")))?;
    }
    ensure!(sessions(&node)? == 0, "junk has a session");
    let metrics = node.metrics()?;
    let count = |result: &str| -> Result<u64> {
        let name = format!("weir_purchase_orders_total{{way=\"http\",result=\"{result}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        Ok(line.with_context(|| format!("no {name}"))?.parse()?)
    };
    let (limited, judged) = (count("rate-limited")?, count("invalid-token")?);
    ensure!(limited + judged == 600, "{limited} and {judged}");
    ensure!(limited > 300, "{limited} were refused before anything was checked");

    // Another network is served at once.
    lab.move_consumer(NODE_V4.into())?;
    let order = Order { payment: Payment::Voucher(code.to_owned()), ..order("x").1 };
    let sold = buyer.buy(&offer, &order)?;
    ensure!(sold.bytes == Some(5_000_000), "{sold:?}");
    ensure!(sessions(&node)? == 1);
    Ok(())
}

/// A node that is for sale by letters through a relay, and an order for it.
struct ByLetter<'l> {
    node: Node<'l>,
    key: PrivateKey,
    sent: SentOrder,
    _folder: TempDir,
}

impl<'l> ByLetter<'l> {
    fn start(lab: &'l Lab, relay: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let exit = MarketKey::load_or_create(&folder.path().join("market.key"))?;
        let market_key = format!("\"{}\"", folder.path().join("market.key").display());
        // A node without a listener of its own.
        let settings = Settings::default()
            .with("voucher", "enabled", "true")
            .with("market", "key_file", &market_key)
            .with("purchase", "relays", &format!("[{relay:?}]"));
        let node = Node::start(&lab.node, settings)?;
        let csv = node.weir(&["voucher", "make", "--bytes", "5000000", "--count", "1", "--csv"])?;
        let code = csv.lines().nth(1).and_then(|line| line.split(',').next()).context("a code")?;
        let (server, listing) = (NAME.into(), "weir".into());
        let offer = Offer { server, exit: exit.public(), listing, price: None };
        let key = PrivateKey::random();
        let order = Order { client_key: key.public(), payment: Payment::Voucher(code.to_owned()) };
        let sent = SentOrder::seal(BuyerKey::random(), &offer, &order, unix_now())?;
        Ok(Self { node, key, sent, _folder: folder })
    }

    /// Waits for the answer among the letters that `letters` returns, and uses what was sold.
    fn is_sold(&self, lab: &Lab, mut letters: impl FnMut() -> Result<Vec<Event>>) -> Result<()> {
        let mut answer = None;
        until("the answer is at the relay", Duration::from_secs(60), || {
            let opened = letters()?.iter().find_map(|letter| self.sent.open(letter).ok());
            answer = Some(opened.context("there is none")?);
            Ok(())
        })?;
        let Some(Answer::Sold(sold)) = answer else { bail!("not sold: {answer:?}") };
        let client = Client::connect(&lab.consumer, &complete(&sold, &self.key))?;
        client.wait_connected(GATEWAY_V4.parse()?)?;
        client.ping(SERVERS[0], 1)?;
        ensure!(sessions(&self.node)? == 1);
        Ok(())
    }

    /// Sends the order to a relay of its own kind, and waits there for the answer.
    fn through(&self, lab: &Lab, relay: SocketAddrV4) -> Result<()> {
        let mut buyer = Socket::connect(&lab.internet, relay)?;
        let (stored, said) = buyer.publish(&self.sent.letter)?;
        ensure!(stored, "{said}");
        let recipient = nostr::filter::SingleLetterTag::LOWERCASE_P;
        let filter = Filter::new().kind(SEALED.into());
        let filter = filter.custom_tag(recipient, self.sent.public().to_hex());
        self.is_sold(lab, || Socket::connect(&lab.internet, relay)?.fetch(filter.clone()))
    }
}

#[test]
fn an_order_in_a_letter_is_answered_through_its_relay() -> Result<()> {
    let lab = Lab::new()?;
    let relay = Relay::start(&lab.internet, MARKET_V4.into(), 7447)?;
    let mut seller = ByLetter::start(&lab, &relay.url())?;
    seller.node.stop()?;
    let letter: serde_json::Value = serde_json::from_str(&seller.sent.letter.as_json())?;
    let mut damaged = letter.clone();
    damaged["content"] = "rubbish".into();
    relay.put([damaged, letter]);
    seller.node.restart()?;
    seller.is_sold(&lab, || {
        let letters = relay.received().into_iter();
        Ok(letters.filter_map(|letter| serde_json::from_value(letter).ok()).collect())
    })
}

#[test]
fn an_order_in_a_letter_is_answered_through_weirs_registry() -> Result<()> {
    let lab = Lab::new()?;
    let mut registry = Registry::prepare_in(&lab.internet, MARKET_V4)?;
    registry.configure(&[])?;
    registry.run()?;
    let seller = ByLetter::start(&lab, &registry.url())?;
    seller.through(&lab, registry.address())
}

#[test]
fn an_order_in_a_letter_is_answered_through_a_foreign_relay() -> Result<()> {
    let lab = Lab::new()?;
    let relay = ForeignRelay::start(&lab.internet, SocketAddrV4::new(MARKET_V4, 7447))?;
    let seller = ByLetter::start(&lab, &relay.url())?;
    seller.through(&lab, relay.address())
}
