//! A consumer's wallet, with a foreign mint, a foreign wallet, and a node that it pays.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_testkit::kill::Moments;
use weir_tests::{
    Client, Lab, Namespace, Node, Settings,
    lab::{MARKET_V4, SERVERS},
    node::Added,
    nutshell::Nutshell,
    payer::GATEWAY_V4,
    until,
    wallet::{Wallet, cashu_ts},
};

/// How often the wallet is killed.
const KILLS: u64 = 50;

/// Gives a token to the node inside the tunnel: the answer's status and body.
fn pay(consumer: &Namespace, token: &str) -> Result<(u16, Value)> {
    let body = json!({ "token": token }).to_string();
    let address = SocketAddr::new(GATEWAY_V4.parse()?, 8077);
    consumer.enter(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let length = body.len();
        write!(stream, "POST /v1/pay/ecash HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")?;
        write!(stream, "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok((status, serde_json::from_str(body)?))
    })
}

/// A node that takes ecash of a mint.
fn settings(mint: &Nutshell<'_>, keys: &Path) -> Settings {
    Settings::default()
        .with("cashu", "key_file", &format!("\"{}\"", keys.join("cashu.key").display()))
        .with("cashu", "mints", &format!("[\"{}\"]", mint.url()))
        .with("cashu", "gib_price", "1024")
        .with("cashu", "redeem_seconds", "1")
}

fn prepaid<'a>(lab: &'a Lab, node: &Node<'_>) -> Result<Client<'a>> {
    let added = ["session", "add", "--name", "alice", "--prepaid", "--json"];
    let added: Added = serde_json::from_str(&node.weir(&added)?)?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(GATEWAY_V4.parse()?)?;
    until("the node knows the mint's keys", Duration::from_secs(30), || {
        let metrics: Value = serde_json::from_str(&node.weir(&["earnings", "--json"])?)?;
        ensure!(metrics["mints"][0].is_object(), "{metrics}");
        Ok(())
    })?;
    Ok(client)
}

/// The key that a node names when a token is not locked to it.
fn key_of(refusal: &Value) -> Result<&str> {
    let message = word(&refusal["error"], "message")?;
    let key = message.rsplit(' ').next().context("a key")?;
    ensure!(key.len() == 66, "{message}");
    Ok(key)
}

fn word<'a>(value: &'a Value, of: &str) -> Result<&'a str> {
    value[of].as_str().with_context(|| format!("no {of} in {value}"))
}

#[test]
fn ecash_comes_from_a_foreign_wallet_pays_a_node_and_goes_back() -> Result<()> {
    let lab = Lab::new()?;
    let mut mint = Nutshell::start(&lab.internet, MARKET_V4.into())?;
    mint.mint(500)?;
    let wallet = Wallet::new(&lab.internet)?;
    let token = mint.send(300, &[])?;
    let refused = wallet.run(&["receive", &token]).expect_err("the mint is not trusted yet");
    ensure!(format!("{refused:#}").contains("weir wallet mints add"), "{refused:#}");
    let received = wallet.run(&["receive", "--trust-mint", &token])?;
    let amount = received["amount"].as_u64().context("an amount")?;
    ensure!(amount + received["fee"].as_u64().context("a fee")? == 300, "{received}");
    ensure!(wallet.sums()? == [amount, 0, 0], "{:?}", wallet.sums()?);
    ensure!(wallet.run(&["receive", &token])?["before"] == true, "the same again");

    let keys = tempfile::tempdir()?;
    let node = Node::start(&lab.node, settings(&mint, keys.path()))?;
    let client = prepaid(&lab, &node)?;
    let open = wallet.run(&["send", "10"])?;
    let (status, refusal) = pay(&lab.consumer, word(&open, "token")?)?;
    ensure!(status == 402, "{refusal}");
    let lock = key_of(&refusal)?;
    let locked = wallet.run(&["send", "64", "--lock", lock])?;
    until("the node takes the payment", Duration::from_secs(30), || {
        let (status, answer) = pay(&lab.consumer, word(&locked, "token")?)?;
        ensure!(status == 200, "{answer}");
        Ok(())
    })?;
    client.ping(SERVERS[0], 1)?;
    // What it refused comes back; what it took is claimed when it has redeemed it.
    let number = open["number"].as_u64().context("a number")?.to_string();
    ensure!(wallet.run(&["reclaim", &number])?["amount"].as_u64() > Some(8));
    until("the payment is claimed", Duration::from_secs(60), || {
        let sent = wallet.run(&["sent"])?;
        ensure!(sent["tokens"].as_array().is_some_and(Vec::is_empty), "{sent}");
        Ok(())
    })?;

    let [left, unfinished, unclaimed] = wallet.sums()?;
    ensure!(unfinished + unclaimed == 0);
    let had = mint.balance()?;
    let back = wallet.run(&["send", &left.to_string()])?;
    mint.unplug()?;
    let sent = wallet.run(&["sent"])?;
    ensure!(sent["not_asked"].as_array().is_some_and(|all| all.len() == 1), "{sent}");
    mint.plug()?;
    let has = mint.receive(word(&back, "token")?)?;
    // The foreign wallet bears the fee for redeeming some proofs: less than one unit for ten.
    ensure!(has <= had + left && has + 3 >= had + left, "{had} and {left} are {has}");
    let sent = wallet.run(&["sent"])?;
    ensure!(sent["tokens"].as_array().is_some_and(Vec::is_empty), "{sent}");
    ensure!(wallet.sums()? == [0, 0, 0]);
    Ok(())
}

#[test]
fn a_second_wallet_pays_a_node_and_receives_what_ours_sends() -> Result<()> {
    let lab = Lab::new()?;
    let mint = Nutshell::start(&lab.internet, MARKET_V4.into())?;
    mint.mint(400)?;
    let url = mint.url();
    let wallet = Wallet::new(&lab.internet)?;
    wallet.run(&["receive", "--trust-mint", &mint.send(300, &[])?])?;
    let keys = tempfile::tempdir()?;
    let node = Node::start(&lab.node, settings(&mint, keys.path()))?;
    let client = prepaid(&lab, &node)?;
    let ours = wallet.run(&["send", "100"])?;
    let ours = word(&ours, "token")?;
    let (_, refusal) = pay(&lab.consumer, ours)?;
    let lock = key_of(&refusal)?;
    let token = cashu_ts(&lab.internet, &["pay", &url, ours, "64", lock])?;
    until("the node takes the second wallet's token", Duration::from_secs(30), || {
        let (status, answer) = pay(&lab.consumer, &token)?;
        ensure!(status == 200, "{answer}");
        Ok(())
    })?;
    client.ping(SERVERS[0], 1)?;
    let ours = wallet.run(&["send", "77"])?;
    let worth: u64 = cashu_ts(&lab.internet, &["receive", &url, word(&ours, "token")?])?.parse()?;
    ensure!((76..=77).contains(&worth), "{worth}");
    let sent = wallet.run(&["sent"])?;
    ensure!(sent["tokens"].as_array().is_some_and(Vec::is_empty), "{sent}");
    Ok(())
}

#[test]
fn killed_50_times_while_it_receives_sends_and_takes_back_it_loses_no_unit() -> Result<()> {
    let lab = Lab::new()?;
    let mint = Nutshell::start(&lab.internet, MARKET_V4.into())?;
    mint.mint(1000)?;
    let tokens: Vec<_> = (0..4).map(|it| mint.send(100 + it, &[])).collect::<Result<_>>()?;
    let wallet = Wallet::new(&lab.internet)?;
    wallet.run(&["mints", "add", &mint.url()])?;
    let lock = format!("02{}", "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798");
    // Each command takes its own time.
    let mut moments = [(); 5].map(|()| Moments::within(Duration::from_millis(40)));
    let mut killed = 0;
    for number in 0..KILLS {
        let mut command = wallet.command()?;
        match number % 5 {
            0 | 1 => command.args(["receive", &tokens[usize::try_from(number / 5)? % 4]]),
            2 => command.args(["send", "3"]),
            3 => command.args(["send", "5", "--lock", &lock]),
            _ => command.args(["reclaim", &(1 + number / 10).to_string()]),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        killed +=
            u64::from(moments[usize::try_from(number % 5)?].kill(&mut child)?.code().is_none());
    }
    ensure!(killed > KILLS / 2, "only {killed} were killed before they were done");
    for token in &tokens {
        wallet.run(&["receive", token])?;
    }
    let recovered = wallet.run(&["recover"])?;
    ensure!(recovered["unfinished"].as_array().is_some_and(Vec::is_empty), "{recovered}");
    wallet.run(&["sent"])?;
    let [balance, unfinished, unclaimed] = wallet.sums()?;
    ensure!(unfinished == 0, "{unfinished}");
    // By the mint's own books, which know its fees.
    let outstanding = mint.outstanding()?;
    let foreign = mint.balance()?;
    ensure!(
        balance + unclaimed + foreign == outstanding,
        "{balance} + {unclaimed} + {foreign} is not {outstanding}"
    );
    ensure!(balance > 300, "{balance}");
    // Every unit of it can be spent.
    let all = wallet.run(&["send", &balance.to_string()])?;
    let has = mint.receive(word(&all, "token")?)?;
    ensure!(has + 5 >= foreign + balance, "{foreign} and {balance} are {has}");
    Ok(())
}
