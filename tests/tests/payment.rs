//! Consumers who pay as they go, through the tunnel, with wireguard-go.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use alloy_primitives::{U256, hex, keccak256};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_promise::{ExchangeMessage, account::AccountView};
use weir_tests::{
    Client, Lab, Node, Payer, Settings,
    lab::SERVERS,
    node::Added,
    payer::{GATEWAY_V4, GATEWAY_V6, Refused, paid},
    traffic::tcp::{self, Direction},
    until,
};

/// What may be unpaid.
const BATCH: u64 = 2 << 20;
const TRANSFER: u64 = 9_000_000;

/// A node that is paid, a prepaid session, and its consumer.
fn joined(lab: &Lab, settings: Settings) -> Result<(Node<'_>, Added, Client<'_>)> {
    let node = Node::start(&lab.node, settings.with("payment", "unpaid_mib", "2"))?;
    let added = ["session", "add", "--name", "alice", "--prepaid", "--json"];
    let added: Added = serde_json::from_str(&node.weir(&added)?)?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(GATEWAY_V4.parse()?)?;
    Ok((node, added, client))
}

/// The best promise of each channel, as the operator gets it.
fn settlements(node: &Node<'_>) -> Result<Vec<Value>> {
    let config = node.config_path();
    let config = config.to_str().context("a path")?;
    let text = node.weir(&["--config", config, "ledger", "settlements"])?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn a_consumer_pays_its_way_through_a_transfer_and_without_paying_it_stops() -> Result<()> {
    let lab = Lab::new()?;
    let (node, added, client) = joined(&lab, paid())?;
    let mut payer = Payer::new(&lab.consumer, GATEWAY_V4)?;
    let before = payer.account()?;
    ensure!((before.state.as_str(), before.must_pay) == ("paused", true), "{before:?}");
    ensure!(before.agreement.is_none() && before.invoice.is_none(), "{before:?}");
    ensure!(before.session == added.session.id, "it is known by its address");
    let agreed = payer.agree()?;
    ensure!(payer.agree()? == agreed, "the same agreement again is the same answer");
    ensure!(agreed.invoice.as_ref().context("due")?.agreement_total == "1", "{agreed:?}");
    ensure!(client.ping(SERVERS[0], 1).is_err(), "nothing was paid yet");
    payer.pay()?;
    client.ping(SERVERS[0], 1)?;

    let server = tcp::Server::start(&lab.internet)?.at(SERVERS[0]);
    let (progress, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let batches = std::thread::scope(|scope| -> Result<usize> {
        let transfer = scope.spawn(|| {
            let result = tcp::transfer(&lab.consumer, server, Direction::Down, TRANSFER, &progress);
            done.store(true, Relaxed);
            result
        });
        let stopped = stops_unpaid(&node, &client, &payer, &progress);
        // Whatever was found: the transfer is to come to its end.
        let paid = pays_until(&mut payer, &done);
        stopped?;
        transfer.join().ok().context("the transfer panicked")??;
        paid
    })?;
    ensure!(batches >= 3, "{TRANSFER} bytes in batches of {BATCH}, paid {batches} times");

    // An invoice is renewed once a second.
    std::thread::sleep(Duration::from_millis(1100));
    payer.pay()?;
    let after = payer.account()?;
    let agreement = after.agreement.context("agreed")?;
    let session = node.session_show("alice")?;
    ensure!(agreement.due == after.bytes.to_string(), "a wei a byte: {agreement:?}");
    ensure!(agreement.paid == payer.paid.to_string());
    let open = session.bytes_up + session.bytes_down - payer.paid.to::<u64>();
    ensure!(open < 10_000, "{open} bytes after the last invoice");
    ensure!(payer.paid.to::<u64>() > TRANSFER);

    let settlements = settlements(&node)?;
    let [best] = settlements.as_slice() else { anyhow::bail!("{settlements:?}") };
    ensure!(best["amount"] == payer.promised.to_string(), "{best} {}", payer.promised);
    let preimage = best["preimage"].as_str().context("a preimage")?;
    let lock = hex::encode(keccak256(hex::decode(preimage)?));
    ensure!(best["message"]["promise"]["hashlock"] == lock, "the preimage opens the promise");
    Ok(())
}

/// Waits until the unpaid batch is used up, and checks what passes then.
fn stops_unpaid(
    node: &Node<'_>,
    client: &Client<'_>,
    payer: &Payer<'_>,
    progress: &AtomicU64,
) -> Result<()> {
    let start = Instant::now();
    while node.session_show("alice")?.state != "paused" {
        ensure!(start.elapsed() < Duration::from_secs(30), "{:?}", payer.account());
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(300));
    let (account, had) = (payer.account()?, progress.load(Relaxed));
    let limit = 1 + BATCH;
    ensure!(account.bytes <= limit && limit - account.bytes < 4000, "{account:?}");
    ensure!(had > 0 && had < limit, "{had}");
    ensure!(client.ping(SERVERS[0], 1).is_err(), "the internet is not there");
    let gateway: IpAddr = GATEWAY_V4.parse()?;
    let connect = |port: u16| {
        let address = (gateway, port).into();
        client
            .namespace()
            .enter(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(5)).map(drop)))
    };
    ensure!(connect(9587)?.is_err() && connect(22)?.is_err(), "only its own services");
    let later = payer.account()?;
    ensure!(later.bytes == account.bytes, "asking costs nothing while it is paused");
    ensure!(progress.load(Relaxed) == had, "no further byte");
    Ok(())
}

/// Pays each time the credit has run out, until the transfer is done.
fn pays_until(payer: &mut Payer<'_>, done: &AtomicBool) -> Result<usize> {
    let (start, mut batches) = (Instant::now(), 0);
    while !done.load(Relaxed) {
        ensure!(start.elapsed() < Duration::from_secs(120), "{:?}", payer.account());
        if payer.account()?.state == "paused" {
            payer.pay()?;
            batches += 1;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(batches)
}

/// Has a consumer that has paid once send `change` of a good payment, and gives the refusal after
/// a check that nothing was credited.
fn refused(
    gateway: &str,
    change: impl FnOnce(&Payer<'_>, ExchangeMessage) -> Result<ExchangeMessage>,
) -> Result<Refused> {
    let lab = Lab::new()?;
    let (node, _, client) = joined(&lab, paid())?;
    let mut payer = Payer::new(&lab.consumer, gateway)?;
    payer.agree()?;
    payer.pay()?;
    // So that more is due than the one wei that was paid.
    client.ping(SERVERS[0], 20)?;
    std::thread::sleep(Duration::from_millis(1100));
    let (account, best) = (payer.account()?, settlements(&node)?);
    let message = change(&payer, payer.answer(&account)?)?;
    let refused = payer.send(&message)?.err().context("the payment was taken")?;
    ensure!(refused.status == 402 && !refused.message.is_empty(), "{refused:?}");
    let paid = |account: AccountView| account.agreement.map(|agreement| agreement.paid);
    ensure!(paid(payer.account()?) == paid(account), "nothing is credited");
    ensure!(settlements(&node)? == best, "no promise is kept");
    payer.pay().context("an honest payment is still taken")?;
    Ok(refused)
}

#[test]
fn a_consumer_that_pays_too_little_is_told_so() -> Result<()> {
    let refused = refused(GATEWAY_V4, |payer, mut message| {
        message.agreement_total -= U256::ONE;
        payer.sign(message)
    })?;
    ensure!(refused.code == "too_little", "{refused:?}");
    Ok(())
}

#[test]
fn a_promise_that_was_used_before_is_refused() -> Result<()> {
    let refused = refused(GATEWAY_V6, |payer, message| {
        // The promise of the message before, for this invoice.
        let mut old = message;
        old.promise.amount = payer.promised;
        payer.sign(old)
    })?;
    ensure!(refused.code == "amount", "{refused:?}");

    let lab = Lab::new()?;
    let (node, _added, _client) = joined(&lab, paid())?;
    let mut payer = Payer::new(&lab.consumer, GATEWAY_V4)?;
    let message = payer.answer(&payer.agree()?)?;
    payer.pay()?;
    let best = settlements(&node)?;
    let replayed = payer.send(&message)?.err().context("the replay was taken")?;
    ensure!(replayed.code == "replayed", "{replayed:?}");
    ensure!(payer.account()?.agreement.context("agreed")?.paid == "1");
    ensure!(settlements(&node)? == best);
    Ok(())
}

#[test]
fn a_promise_of_another_channel_or_by_another_key_is_refused() -> Result<()> {
    let of_other = refused(GATEWAY_V4, |payer, mut message| {
        message.promise.channel_id.0[31] ^= 1;
        payer.sign(message)
    })?;
    ensure!(of_other.code == "channel", "{of_other:?}");
    let by_other = refused(GATEWAY_V4, |payer, message| {
        let stranger = Payer::new(payer.namespace(), GATEWAY_V4)?.with_key([8; 32])?;
        stranger.sign(message)
    })?;
    ensure!(by_other.code == "promise_signer", "{by_other:?}");
    Ok(())
}

#[test]
fn rubbish_is_refused_with_a_reason_and_takes_nobodys_place() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = joined(&lab, paid())?;
    let payer = Payer::new(&lab.consumer, GATEWAY_V6)?;
    let code = |method: &str, path: &str, body: &[u8]| -> Result<(u16, String)> {
        let refused = payer.ask(method, path, body)?.err().context("it was taken")?;
        Ok((refused.status, refused.code))
    };
    let expect = |found: (u16, String), status: u16, code: &str| -> Result<()> {
        ensure!(found == (status, code.to_owned()), "{found:?}, not {status} {code}");
        Ok(())
    };
    let nothing = code("POST", "/v1/pay", b"{}")?;
    expect(nothing, 400, "bad_json")?;
    expect(code("POST", "/v1/pay", &[0xff; 300])?, 400, "bad_json")?;
    expect(code("POST", "/v1/pay", &[b' '; 40_000])?, 413, "body_too_large")?;
    expect(code("POST", "/v1/pay/agreement", br#"{"consumer": "alice"}"#)?, 400, "bad_field")?;
    let cheap = format!(r#"{{"consumer": "{}", "per_gib": "1"}}"#, payer.address());
    expect(code("POST", "/v1/pay/agreement", cheap.as_bytes())?, 402, "too_cheap")?;
    expect(code("GET", "/v1/sessions", b"")?, 404, "no_such_route")?;
    expect(code("DELETE", "/v1/pay", b"")?, 405, "method_not_allowed")?;
    let mut message = payer.answer(&payer.agree()?)?;
    message.agreement_id += U256::ONE;
    let other = payer.send(&payer.sign(message)?)?.err().context("it was taken")?;
    ensure!((other.status, other.code.as_str()) == (402, "agreement"), "{other:?}");
    let stranger = Payer::new(&lab.consumer, GATEWAY_V6)?.with_key([8; 32])?;
    let body = format!(r#"{{"consumer": "{}"}}"#, stranger.address());
    expect(code("POST", "/v1/pay/agreement", body.as_bytes())?, 409, "agreed")?;
    ensure!(settlements(&node)?.is_empty());

    // Requests beyond the allowance, which is back in seconds: how many that takes depends on the
    // machine.
    let ask = || payer.ask("GET", "/v1/pay", b"");
    let until_refused = || (0..500).map(|_| ask()).find(|it| !matches!(it, Ok(Ok(_))));
    std::thread::scope(|scope| -> Result<()> {
        let askers: Vec<_> = (0..3).map(|_| scope.spawn(until_refused)).collect();
        for asker in askers {
            let answer = asker.join().ok().context("panicked")?.context("all were answered")?;
            let refused = answer?.err().context("it was answered")?;
            ensure!(refused.code == "too_often", "{refused:?}");
        }
        Ok(())
    })?;

    // Connections that say nothing: a consumer has four places. Whoever asks gets the oldest one's,
    // and all end in time.
    let connect = || {
        let address = (GATEWAY_V6.parse::<IpAddr>()?, 8077).into();
        lab.consumer.enter(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(5))?))
    };
    let mut silent = (0..4).map(|_| connect()).collect::<Result<Vec<_>>>()?;
    silent[3].write_all(b"GET /v1/pay HTTP/1.1\r\nHost: x\r\n")?;
    until("a fifth connection is served", Duration::from_secs(20), || payer.account())?;
    for connection in &mut silent {
        connection.set_read_timeout(Some(Duration::from_secs(40)))?;
        connection.read_to_end(&mut Vec::new()).context("the connection does not end")?;
    }
    Ok(())
}

#[test]
fn who_does_not_pay_for_its_time_is_paused_and_goes_on_once_it_pays() -> Result<()> {
    let lab = Lab::new()?;
    let by_time = paid().with("payment", "per_hour", "\"3600\"");
    let (node, _, client) = joined(&lab, by_time.with("payment", "unpaid_seconds", "5"))?;
    let mut payer = Payer::new(&lab.consumer, GATEWAY_V4)?;
    payer.agree()?;
    payer.pay()?;
    // It is idle: nothing but time is due.
    until("its time is over", Duration::from_secs(60), || {
        ensure!(node.session_show("alice")?.state == "paused", "it is open");
        Ok(())
    })?;
    let account = payer.account()?;
    ensure!(account.seconds >= 5, "{account:?}");
    let bytes = account.bytes;
    ensure!(client.ping(SERVERS[0], 1).is_err(), "it has not paid");
    ensure!(payer.account()?.bytes == bytes, "and is billed for nothing");
    // On a slow machine its time is over again before the ping.
    until("it goes on", Duration::from_secs(60), || {
        if payer.account()?.invoice.is_some() {
            payer.pay()?;
        }
        client.ping(SERVERS[0], 1).map(drop)
    })
}
