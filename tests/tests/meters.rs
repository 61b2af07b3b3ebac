//! What nobody has authenticated or pays for costs the node little, without a guard in front of it
//! too. `guard_floods.rs` has the guard's part.

use std::{
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use weir_common::mac1::{MAC_LEN, Mac1Key};
use weir_testkit::Tunnel;
use weir_tests::{
    Lab, Node, Settings,
    lab::{NODE_V4, SERVERS},
    newcomer::{self, Handshake},
    steps::connected,
    until,
};

const TO: SocketAddr = SocketAddr::V4(SocketAddrV4::new(NODE_V4, 51820));
const GATEWAY: (&str, u16) = ("10.66.0.1", 9);
const TIMEOUT: Duration = Duration::from_secs(15);
/// Datagrams of a flood, in about a second.
const COUNT: u32 = 10_000;

const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;

fn unguarded() -> Settings {
    Settings::default().with("node", "xdp", "\"off\"")
}

/// A consumer that has shaken hands and says nothing more, with its socket and its node's key.
fn silent(lab: &Lab, node: &Node<'_>) -> Result<(UdpSocket, Handshake, [u8; 32])> {
    let added = node.session_add("silent")?;
    let (private, public) = newcomer::keys_of(&added.config)?;
    let socket = newcomer::socket(&lab.consumer, TO)?;
    let handshake = newcomer::shake_hands_over(&socket, private, public, TIMEOUT)?;
    // Its keepalive, and nothing before, tells the node where it is.
    until("the node has its keepalive", TIMEOUT, || {
        ensure!(node.session_show("silent")?.bytes_up > 0, "not yet");
        Ok(())
    })?;
    Ok((socket, handshake, public))
}

/// Sends datagrams evenly, and gives how long it took. One that finds no room in the sender's own
/// buffers is not sent.
fn flood(socket: &UdpSocket, count: u32, mut datagram: impl FnMut(u32) -> Vec<u8>) -> Duration {
    let start = Instant::now();
    for number in 0..count {
        socket.send(&datagram(number)).ok();
        if number % 100 == 99 {
            let due = start + Duration::from_secs(1) * number / COUNT;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    start.elapsed()
}

#[test]
fn forged_responses_are_few_before_they_cost_a_scalar_multiplication() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, _added, client) = connected(&lab, unguarded())?;
    let (socket, _, public) = silent(&lab, &node)?;
    // Whom a killed node knew, its successor greets.
    node.kill()?;
    node.restart()?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut buffer = [0; 2048];
    let index = loop {
        let len = socket.recv(&mut buffer).context("no initiation of the node's")?;
        if let Some(&[INITIATION, _, _, _, i0, i1, i2, i3]) = buffer[..len].first_chunk() {
            break [i0, i1, i2, i3];
        }
    };
    client.wait_connected(SERVERS[0])?;
    let mut forged = vec![0x5a; 92];
    forged[..4].copy_from_slice(&[RESPONSE, 0, 0, 0]);
    forged[8..12].copy_from_slice(&index);
    let mac = Mac1Key::new(&public).mac(&forged);
    forged[60..60 + MAC_LEN].copy_from_slice(&mac);
    // From the consumer's own address, and from another port.
    for from in [socket, newcomer::socket(&lab.consumer, TO)?] {
        let before =
            (node.drops("handshake", "invalid")?, node.drops("handshake", "response_rate")?);
        let took = thread::scope(|scope| {
            let pings = scope.spawn(|| client.ping(SERVERS[0], 10));
            let took = flood(&from, COUNT, |_| forged.clone());
            pings.join().map_err(|_| anyhow!("the pings panicked"))??;
            anyhow::Ok(took)
        })?;
        let tried = node.drops("handshake", "invalid")? - before.0;
        let refused = node.drops("handshake", "response_rate")? - before.1;
        let most = 20 + 5 * took.as_secs() + 5;
        ensure!(tried <= most, "{tried} tried in {took:?}, {refused} refused");
        ensure!(refused > 1000, "{tried} tried in {took:?}, {refused} refused");
    }
    Ok(())
}

#[test]
fn initiations_of_one_key_are_answered_at_its_rate() -> Result<()> {
    let lab = Lab::new()?;
    // What a source may send is not what is tried here.
    let settings = unguarded()
        .with("node", "handshakes_per_source", "100000")
        .with("node", "handshakes_per_source_burst", "100000")
        .with("node", "handshakes_under_load", "100000");
    let (node, _added, client) = connected(&lab, settings)?;
    let many = node.session_add("many")?;
    let (private, public) = newcomer::keys_of(&many.config)?;
    let mut tunnel = Tunnel::new(private, public, 7);
    let mut initiations = Vec::new();
    for _ in 0..800 {
        initiations.push(tunnel.initiation().context("no initiation")?);
    }
    let socket = newcomer::socket(&lab.consumer, TO)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let start = Instant::now();
    let answered = thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let mut buffer = [0; 2048];
            let mut answers = 0;
            while let Ok(len) = socket.recv(&mut buffer) {
                answers += u64::from(buffer[..len].first() == Some(&RESPONSE));
            }
            answers
        });
        for (number, message) in initiations.iter().enumerate() {
            socket.send(message)?;
            if number % 20 == 19 {
                thread::sleep(Duration::from_millis(20));
            }
        }
        client.ping(SERVERS[0], 5)?;
        answers.join().map_err(|_| anyhow!("the counting panicked"))
    })?;
    let most = 30 + 50 * (start.elapsed().as_secs() + 1);
    ensure!(answered > 5 && answered <= most, "{answered} of 800 in {:?}", start.elapsed());
    let refused = node.drops("handshake", "peer_rate")?;
    ensure!(refused + answered + 50 > 800, "{refused} refused, {answered} answered");
    Ok(())
}

#[test]
fn a_paused_session_reaches_the_gateway_at_a_trickle() -> Result<()> {
    let lab = Lab::new()?;
    let (node, added, _client) = connected(&lab, unguarded())?;
    node.weir(&["session", "pause", &added.session.id])?;
    let passed =
        |node: &Node<'_>| Ok::<_, anyhow::Error>(node.status()?.boundaries.tun_write.packets);
    let (before, start) = (passed(&node)?, Instant::now());
    let socket = lab.consumer.enter(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(GATEWAY)?;
        Ok(socket)
    })?;
    flood(&socket, COUNT, |number| number.to_be_bytes().to_vec());
    until("the flood is through", TIMEOUT, || {
        let refused = node.drops("udp", "paused")?;
        ensure!(refused > 1000, "{refused} refused");
        Ok(())
    })?;
    let passed = passed(&node)? - before;
    let most = 20 + 100 * (start.elapsed().as_secs() + 1);
    ensure!(passed >= 10 && passed <= most, "{passed} of {COUNT} reached the gateway");
    Ok(())
}

#[test]
fn forged_data_from_elsewhere_is_not_opened_beyond_a_trickle() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, unguarded())?;
    let (_socket, handshake, _) = silent(&lab, &node)?;
    let elsewhere = newcomer::socket(&lab.consumer, TO)?;
    let forged = |number: u32| {
        let mut message = vec![0x5a; 144];
        message[..4].copy_from_slice(&[4, 0, 0, 0]);
        message[4..8].copy_from_slice(&handshake.node_index.to_le_bytes());
        message[8..16].copy_from_slice(&u64::from(number + 100).to_le_bytes());
        message
    };
    let took = thread::scope(|scope| {
        let pings = scope.spawn(|| client.ping(SERVERS[0], 10));
        let took = flood(&elsewhere, COUNT, forged);
        pings.join().map_err(|_| anyhow!("the pings panicked"))??;
        anyhow::Ok(took)
    })?;
    until("the flood is through", TIMEOUT, || {
        let refused = node.drops("udp", "roaming_rate")?;
        ensure!(refused > 1000, "{refused} refused");
        Ok(())
    })?;
    let opened = node.drops("crypto", "authentication")?;
    let most = 128 + 250 * (took.as_secs() + 2);
    ensure!(opened >= 50 && opened <= most, "{opened} of {COUNT} opened in {took:?}");
    Ok(())
}
