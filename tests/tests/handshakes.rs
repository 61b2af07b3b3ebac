//! Cookies under load, and keys that change under traffic.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use weir_testkit::Tunnel;
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{NODE_V4, SERVERS},
    steps::connected,
    until,
};

/// REKEY_AFTER_TIME of WireGuard, and a little more.
const REKEY: Duration = Duration::from_secs(126);
const COOKIE_REPLY: u8 = 3;

/// Sends initiations with a right first MAC from one source until told to stop, and counts the
/// cookie replies to them.
fn keep_under_load(lab: &Lab, key: &str, stop: &AtomicBool, cookies: &AtomicU64) -> Result<()> {
    let key: [u8; 32] =
        STANDARD.decode(key)?.try_into().map_err(|_| anyhow!("a key of 32 bytes"))?;
    let to = SocketAddr::new(IpAddr::from(NODE_V4), 51820);
    lab.consumer.enter(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        let mut tunnel = Tunnel::new([9; 32], key, 1);
        while !stop.load(Ordering::Relaxed) {
            socket.send_to(&tunnel.initiation().context("no initiation")?, to)?;
            let mut answer = [0; 256];
            if socket.recv(&mut answer).is_ok_and(|len| len == 64) && answer[0] == COOKIE_REPLY {
                cookies.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    })
}

#[test]
fn a_node_under_load_asks_for_cookies_and_a_real_consumer_answers() -> Result<()> {
    let lab = Lab::new()?;
    // The load comes from the consumer's own address: its bucket must not be what stops it.
    let settings = Settings::default()
        .with("node", "handshakes_under_load", "1")
        .with("node", "handshakes_per_source", "100000")
        .with("node", "handshakes_per_source_burst", "100000");
    let node = Node::start(&lab.node, settings)?;
    let added = node.session_add("patient")?;
    let key = node.status()?.public_key;
    let (stop, cookies) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let load = scope.spawn(|| keep_under_load(&lab, &key, &stop, &cookies));
        let outcome = (|| {
            until("cookies are asked for", Duration::from_secs(20), || {
                ensure!(cookies.load(Ordering::Relaxed) > 5, "not yet");
                Ok(())
            })?;
            let client = Client::connect(&lab.consumer, &added.config)?;
            client.wait_connected(SERVERS[0])?;
            client.ping(SERVERS[0], 5)
        })();
        stop.store(true, Ordering::Relaxed);
        load.join().map_err(|_| anyhow!("the load panicked"))??;
        outcome
    })?;
    Ok(())
}

#[test]
fn keys_change_under_traffic_without_a_lost_packet() -> Result<()> {
    let lab = Lab::new()?;
    let (node, added, client) = connected(&lab, Settings::default())?;
    let before = node.status()?.handshakes;
    let (first, started) = (client.last_handshake()?, Instant::now());
    while started.elapsed() < REKEY {
        // It fails when one of them is lost.
        client.ping(SERVERS[0], 20)?;
    }
    ensure!(client.last_handshake()? > first, "no new handshake in {REKEY:?}");
    ensure!(node.status()?.handshakes > before, "the node counted none");
    until("both ends agree", Duration::from_secs(15), || {
        let (theirs, ours) = (client.transfer()?, node.session_show(&added.session.id)?);
        ensure!(theirs.sent == ours.bytes_up + ours.handshake_bytes_up, "{theirs:?} {ours:?}");
        ensure!(
            theirs.received == ours.bytes_down + ours.handshake_bytes_down,
            "{theirs:?} {ours:?}"
        );
        Ok(())
    })
    .context("after a change of keys")
}
