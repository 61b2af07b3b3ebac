//! Consumers who pay in advance, through the tunnel, with vouchers and with a foreign wallet's ecash.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::{
    Client, Lab, Namespace, Node, Settings,
    lab::{MARKET_V4, SERVERS},
    node::Added,
    nutshell::Nutshell,
    payer::GATEWAY_V4,
    until,
};

/// Sends a request to the gateway, and gives the status, the head and the body of the answer.
fn ask(consumer: &Namespace, port: u16, head: &str, body: &str) -> Result<(u16, String, String)> {
    let address = SocketAddr::new(GATEWAY_V4.parse()?, port);
    consumer.enter(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n"
        )?;
        write!(stream, "Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok((status, head.to_owned(), body.to_owned()))
    })
}

/// Gives a token, and says what became of it: the status of the answer, and the word.
fn pay(consumer: &Namespace, token: &str) -> Result<(u16, String)> {
    let body = json!({ "token": token }).to_string();
    let (status, _, answer) = ask(consumer, 8077, "POST /v1/pay/ecash", &body)?;
    let answer: Value = serde_json::from_str(&answer)?;
    let word = answer["status"].as_str().or(answer["error"]["code"].as_str());
    Ok((status, word.context("a word")?.to_owned()))
}

fn prepaid<'a>(lab: &'a Lab, node: &Node<'_>) -> Result<(Added, Client<'a>)> {
    let added = ["session", "add", "--name", "alice", "--prepaid", "--json"];
    let added: Added = serde_json::from_str(&node.weir(&added)?)?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(GATEWAY_V4.parse()?)?;
    Ok((added, client))
}

/// What the node says of its one mint.
fn earnings(node: &Node<'_>) -> Result<Value> {
    let all: Value = serde_json::from_str(&node.weir(&["earnings", "--json"])?)?;
    Ok(all["mints"][0].clone())
}

#[test]
fn a_voucher_opens_a_paused_session_on_the_page_and_works_once() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default().with("voucher", "enabled", "true"))?;
    let (_, client) = prepaid(&lab, &node)?;
    let csv = node.weir(&["voucher", "make", "--bytes", "5000000", "--count", "2", "--csv"])?;
    let codes: Vec<_> = csv.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    ensure!(codes.len() == 2, "{csv}");
    ensure!(client.ping(SERVERS[0], 1).is_err(), "it has not paid");
    let (status, _, page) = ask(&lab.consumer, 80, "GET /", "")?;
    ensure!(status == 200 && page.contains("paused: nothing left"), "{page}");
    let (status, _, page) = ask(&lab.consumer, 80, "POST /", &format!("payment={}", codes[0]))?;
    ensure!(status == 200 && page.contains("Added: 4.77 MiB."), "{page}");
    client.ping(SERVERS[0], 1)?;
    let body = json!({ "code": codes[0] }).to_string();
    let (status, _, again) = ask(&lab.consumer, 8077, "POST /v1/pay/voucher", &body)?;
    ensure!(status == 200 && again.contains("\"before\""), "{again}");
    node.weir(&["voucher", "revoke", codes[1]])?;
    let body = json!({ "code": codes[1] }).to_string();
    let (status, _, refused) = ask(&lab.consumer, 8077, "POST /v1/pay/voucher", &body)?;
    ensure!(status == 402 && refused.contains("voucher_revoked"), "{refused}");
    Ok(())
}

#[test]
fn a_foreign_wallets_ecash_is_taken_while_the_mint_is_unplugged_and_redeemed_to_the_unit()
-> Result<()> {
    let lab = Lab::new()?;
    let mut mint = Nutshell::start(&lab.internet, MARKET_V4.into())?;
    mint.mint(1000)?;
    let keys = tempfile::tempdir()?;
    let key_file = format!("\"{}\"", keys.path().join("cashu.key").display());
    let settings = Settings::default()
        .with("cashu", "key_file", &key_file)
        .with("cashu", "mints", &format!("[\"{}\"]", mint.url()))
        .with("cashu", "gib_price", "1024")
        .with("cashu", "max_unredeemed", "100")
        .with("cashu", "redeem_seconds", "1");
    let mut node = Node::start(&lab.node, settings)?;
    let (_, client) = prepaid(&lab, &node)?;

    // Unpaid, the node says what it wants (NUT-24).
    let (status, head, _) = ask(&lab.consumer, 8077, "GET /v1/pay/ecash", "")?;
    let request = head.lines().find_map(|line| line.strip_prefix("x-cashu: "));
    ensure!(status == 402 && request.is_some_and(|it| it.starts_with("creqA")), "{head}");
    let (_, _, page) = ask(&lab.consumer, 80, "GET /", "")?;
    let key = page.split(">").find_map(|text| {
        let word = text.split('<').next()?;
        (word.len() == 66 && word.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(word)
    });
    let lock = format!("P2PK:{}", key.context("the page has no key")?);
    let send = |amount, lock: &str| mint.send(amount, &["--lock", lock, "--dleq"]);

    let first = send(50, &lock)?;
    let second = send(40, &lock)?;
    let third = send(30, &lock)?;
    let other = send(8, &format!("P2PK:02{}", "ab".repeat(32)))?;
    let unlocked = mint.send(8, &["--dleq"])?;
    let day = Duration::from_hours(24);
    let short = mint.send_locked_for(day, 8, &["--lock", &lock, "--dleq"])?;
    let without_dleq = mint.send(8, &["--lock", &lock])?;
    until("the node knows the mint's keys", Duration::from_secs(30), || {
        let answer = pay(&lab.consumer, &first)?;
        ensure!(
            answer == (200, "credited".into()) || answer == (200, "before".into()),
            "{answer:?}"
        );
        Ok(())
    })?;
    client.ping(SERVERS[0], 1)?;
    until("the first token is redeemed", Duration::from_secs(30), || {
        let mint = earnings(&node)?;
        ensure!(mint["unredeemed"] == 0 && mint["received"] == 50, "{mint}");
        Ok(())
    })?;

    mint.unplug()?;
    ensure!(pay(&lab.consumer, &second)? == (200, "credited".into()));
    ensure!(pay(&lab.consumer, &third)? == (200, "credited".into()));
    ensure!(pay(&lab.consumer, &third)? == (200, "before".into()));
    for (token, word) in [
        (&*other, "wrong_lock"),
        (&unlocked, "not_locked"),
        (&without_dleq, "no_dleq"),
        (&short, "refund_too_early"),
        ("cashuBrubbish", "bad_token"),
    ] {
        let answer = pay(&lab.consumer, token)?;
        ensure!(answer == (402, word.into()), "{answer:?}, not {word}");
    }
    ensure!(earnings(&node)?["unredeemed"] == 70);
    client.ping(SERVERS[0], 1)?;
    // Killed with everything in the ledger alone.
    node.kill()?;
    node.restart()?;
    mint.plug()?;
    until("all is redeemed", Duration::from_secs(60), || {
        let mint = earnings(&node)?;
        ensure!(mint["unredeemed"] == 0, "{mint}");
        Ok(())
    })?;
    let now = earnings(&node)?;
    let number = |name: &str| now[name].as_u64().context(name.to_owned());
    ensure!(number("received")? == 120 && number("lost")? == 0, "{now}");
    ensure!(number("redeemed")? + number("fees")? == 120, "{now}");

    // The wallet gets what the node was given, less the mint's fees.
    let before = mint.balance()?;
    let token = node.weir(&["earnings", "withdraw", "--json"])?;
    let token: Value = serde_json::from_str(&token)?;
    ensure!(token["amount"] == now["redeemed"], "{token}");
    let after = mint.receive(token["token"].as_str().context("a token")?)?;
    let gained = after - before;
    let most = number("redeemed")?;
    ensure!(gained < most + 1 && gained + 3 > most, "{gained} of {most}");
    node.weir(&["earnings", "confirm", &token["withdrawal"].to_string()])?;
    Ok(())
}
