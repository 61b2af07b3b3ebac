//! A node that hangs, while a consumer sends more than can wait for it.

use std::{
    net::{IpAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Client, Lab,
    lab::{
        MARKET_V4, MARKET_V6, NODE_V4, NODE_V6, OPERATOR_V4, OPERATOR_V6, SERVER_V4, SERVER_V6,
        SERVERS,
    },
};

use crate::guest::Guest;

/// More than wait for a worker, and than a network card has buffers for.
const DATAGRAMS: u32 = 12_000;
/// At a time, with a pause of a millisecond behind them: emulation is slow.
const BURST: u32 = 16;
/// From several addresses, so that pings come by each of the card's queues.
const FROM: [IpAddr; 6] = [
    IpAddr::V4(SERVER_V4),
    IpAddr::V4(OPERATOR_V4),
    IpAddr::V4(MARKET_V4),
    IpAddr::V6(SERVER_V6),
    IpAddr::V6(OPERATOR_V6),
    IpAddr::V6(MARKET_V6),
];

/// Stops the node's process for a while, and reaches its host meanwhile. Afterwards the node goes on.
pub(crate) fn hang(lab: &Lab, guest: &Guest, client: &Client<'_>) -> Result<()> {
    guest.run("kill -STOP $(pidof weir)")?;
    let reached = flood(lab).and_then(|()| reach(lab));
    guest.run("kill -CONT $(pidof weir)")?;
    reached?;
    client.wait_connected(SERVERS[0])
}

fn flood(lab: &Lab) -> Result<()> {
    let socket = lab.consumer.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    let payload = [0; 1000];
    let mut sent = 0;
    for number in 0..DATAGRAMS {
        sent += u32::from(socket.send_to(&payload, (SERVER_V4, 9)).is_ok());
        if number % BURST == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    ensure!(sent > DATAGRAMS / 2, "only {sent} datagrams could be sent");
    Ok(())
}

fn reach(lab: &Lab) -> Result<()> {
    for from in FROM {
        let host = if from.is_ipv4() { IpAddr::V4(NODE_V4) } else { IpAddr::V6(NODE_V6) };
        let ping = format!("ping -n -q -I {from} -c 5 -i 0.1 -W 5 {host}");
        let answers = lab.internet.run(&ping).with_context(|| {
            format!("the node's host answers nothing to {from} while the node hangs")
        })?;
        ensure!(answers.contains(" 0% packet loss"), "to {from}: {answers}");
    }
    Ok(())
}
